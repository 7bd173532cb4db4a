//! What `promtool check metrics` and the parser of OpenMetrics look for.

use std::collections::{BTreeMap, BTreeSet};

/// Units that are no base units.
const SCALED: &[&str] = &[
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "kilobytes",
    "megabytes",
    "bits",
    "percent",
    "ms",
    "us",
    "ns",
    "kb",
    "mb",
    "mbps",
];

/// Units that a name may end with.
const BASE: &[&str] = &["seconds", "bytes", "ratio"];

/// A family: its type, its help, its unit, its samples in order.
#[derive(Debug, Default)]
struct Family {
    kind: Option<String>,
    help: Option<String>,
    unit: Option<String>,
    samples: usize,
    closed: bool,
}

/// A sample's labels, unescaped; none where they are not written as they should be.
fn labels(text: &str) -> Option<Vec<(String, String)>> {
    let mut all = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = behind.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    _ => return None,
                },
                (_, '\n') => return None,
                (at, '"') => break at,
                (_, c) => value.push(c),
            }
        };
        let first = name.bytes().next()?;
        let word = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
        if !word || first.is_ascii_digit() || name.starts_with("__") {
            return None;
        }
        all.push((name.to_owned(), value));
        rest = &behind[end + 1..];
        rest = match rest.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            Some(_) => return None,
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(all)
}

/// Everything that is wrong with a text of metrics, and its samples.
pub(crate) fn problems(text: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut wrong, mut series) = (vec![], BTreeMap::new());
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    let mut label_names: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
    let mut current = String::new();
    if !text.ends_with("# EOF\n") || text.matches("# EOF").count() != 1 {
        wrong.push("no # EOF at the end".to_owned());
    }
    for line in text.lines().filter(|l| *l != "# EOF") {
        let mut say = |why: &str| wrong.push(format!("{why}: {line}"));
        if let Some(meta) = line.strip_prefix("# ") {
            let words: Vec<&str> = meta.splitn(3, ' ').collect();
            let [what, name, value] = words[..] else {
                say("not understood");
                continue;
            };
            if name != current {
                if let Some(f) = families.get_mut(&current) {
                    f.closed = true;
                }
                name.clone_into(&mut current);
            }
            let f = families.entry(name.to_owned()).or_default();
            if f.closed || f.samples > 0 {
                say("a family in two places");
            }
            let slot = match what {
                "TYPE" => &mut f.kind,
                "HELP" => &mut f.help,
                "UNIT" => &mut f.unit,
                _ => {
                    say("not understood");
                    continue;
                }
            };
            if slot.replace(value.to_owned()).is_some() {
                say("said twice");
            }
            continue;
        }
        let Some((id, value)) = line.rsplit_once(' ') else {
            say("not understood");
            continue;
        };
        let (name, text) = id.split_once('{').map_or((id, ""), |(n, l)| (n, l.strip_suffix('}').unwrap_or("=")));
        let Ok(value) = value.parse::<f64>() else {
            say("no number");
            continue;
        };
        let Some(mut labels) = labels(text) else {
            say("labels that are not escaped or named as they should be");
            continue;
        };
        let f = families.get_mut(&current).filter(|_| name.starts_with(&current));
        let Some(f) = f else {
            say("a sample outside its family");
            continue;
        };
        f.samples += 1;
        let suffix = &name[current.len()..];
        let fits = match f.kind.as_deref() {
            Some("counter") => suffix == "_total",
            Some("histogram") => ["_bucket", "_sum", "_count"].contains(&suffix),
            Some("gauge") => suffix.is_empty(),
            _ => false,
        };
        if !fits {
            say("a name that is not of this type");
        }
        if value < 0.0 && f.kind.as_deref() != Some("gauge") {
            say("negative");
        }
        let names: BTreeSet<&String> = labels.iter().map(|(n, _)| n).collect();
        if names.len() != labels.len() {
            say("a label twice");
        }
        if series.insert(id.to_owned(), value.to_string()).is_some() {
            say("a series twice");
        }
        if suffix == "_bucket" {
            let le = labels.iter().position(|(n, _)| n == "le").map(|at| labels.remove(at).1);
            match le.as_deref().map(|le| if le == "+Inf" { Ok(f64::INFINITY) } else { le.parse() }) {
                Some(Ok(le)) => buckets.entry(format!("{current} {labels:?}")).or_default().push((le, value)),
                _ => say("a bucket without its end"),
            }
        } else if suffix == "_count" && f.kind.as_deref() == Some("histogram") {
            counts.insert(format!("{current} {labels:?}"), value);
        }
        let mut names: Vec<String> = labels.into_iter().map(|(n, _)| n).collect();
        names.sort();
        label_names.entry(current.clone()).or_default().insert(names);
    }
    for (name, n) in &counts {
        let last = buckets.get(name).and_then(|b| b.last());
        if last.is_none_or(|(le, all)| !le.is_infinite() || all != n) {
            wrong.push(format!("{name}: the last bucket is not +Inf, or not all of them: {last:?}"));
        }
    }
    for (name, b) in &buckets {
        if b.windows(2).any(|w| w[0].0 >= w[1].0 || w[0].1 > w[1].1) {
            wrong.push(format!("buckets of {name} are not cumulative: {b:?}"));
        }
    }
    for (name, f) in &families {
        let mut say = |why: &str| wrong.push(format!("{name}: {why}"));
        if f.kind.is_none() {
            say("has no type");
        }
        if f.help.as_ref().is_none_or(|h| h.trim().is_empty()) {
            say("has no help");
        }
        if !name.starts_with("sfnic_") || !name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_') {
            say("is not sfnic_ and small letters");
        }
        if ["_total", "_count", "_sum", "_bucket", "_created"].iter().any(|s| name.ends_with(s)) {
            say("ends like a sample");
        }
        for word in name.split('_').filter(|w| SCALED.contains(w)) {
            say(&format!("{word} is no base unit"));
        }
        for kind in ["counter", "gauge", "histogram"] {
            if name.split('_').any(|w| w == kind) {
                say("has its type in its name");
            }
        }
        match (&f.unit, BASE.iter().find(|u| name.ends_with(&format!("_{u}")))) {
            (Some(unit), Some(end)) if unit == end => {}
            (None, None) => {}
            (unit, _) => say(&format!("has the unit {unit:?}")),
        }
        if label_names.get(name).is_some_and(|sets| sets.len() > 1) {
            say(&format!("has samples with different labels: {:?}", label_names[name]));
        }
    }
    (wrong, series)
}

/// The samples of a text that nothing is wrong with.
pub(crate) fn lint(text: &str) -> BTreeMap<String, String> {
    let (wrong, series) = problems(text);
    assert!(wrong.is_empty(), "{wrong:#?}");
    series
}

#[test]
fn a_lint_finds_what_is_wrong() {
    let clean = "# HELP sfnic_x_seconds X.\n# TYPE sfnic_x_seconds histogram\n# UNIT sfnic_x_seconds seconds\n\
        sfnic_x_seconds_sum{a=\"b \\\"c\\\" \\\\ \\n\"} 1\n\
        sfnic_x_seconds_bucket{a=\"b \\\"c\\\" \\\\ \\n\",le=\"0.1\"} 1\n\
        sfnic_x_seconds_bucket{a=\"b \\\"c\\\" \\\\ \\n\",le=\"+Inf\"} 3\n\
        sfnic_x_seconds_count{a=\"b \\\"c\\\" \\\\ \\n\"} 3\n\
        # HELP sfnic_y Y.\n# TYPE sfnic_y counter\nsfnic_y_total 5\n# EOF\n";
    assert_eq!(problems(clean).0, Vec::<String>::new());
    for (from, to, what) in [
        ("# HELP sfnic_y Y.\n", "", "no help"),
        ("# TYPE sfnic_y counter\n", "", "no type"),
        ("sfnic_y_total 5", "sfnic_y 5", "not of this type"),
        ("sfnic_y_total 5", "sfnic_y_total -5", "negative"),
        ("sfnic_y_total 5", "sfnic_y_total 5\nsfnic_y_total 6", "a series twice"),
        ("sfnic_y_total 5", "sfnic_y_total 5\nsfnic_y_total{a=\"b\"} 6", "different labels"),
        ("sfnic_y_total 5", "sfnic_y_total{a=\"b\" 5", "labels"),
        ("sfnic_y_total 5", "sfnic_y_total{a=\"\\q\"} 5", "labels"),
        ("sfnic_y_total 5", "sfnic_y_total{a=\"1\",a=\"2\"} 5", "a label twice"),
        ("sfnic_y", "sfnic_y_milliseconds", "base unit"),
        ("# UNIT sfnic_x_seconds seconds\n", "", "has the unit"),
        ("le=\"0.1\"} 1", "le=\"0.1\"} 4", "cumulative"),
        ("le=\"+Inf\"", "le=\"9\"", "+Inf"),
        ("# EOF\n", "", "EOF"),
        ("sfnic_y_total 5", "sfnic_y_total many", "no number"),
        ("# TYPE sfnic_y counter", "# TYPE sfnic_y counter\n# TYPE sfnic_y gauge", "twice"),
    ] {
        let (wrong, _) = problems(&clean.replace(from, to));
        assert!(wrong.iter().any(|w| w.contains(what)), "{what:?} is not found in {from:?} → {to:?}: {wrong:?}");
    }
}
