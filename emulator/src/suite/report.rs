//! What came of a run: read from the script's output, told as a table, TAP, JUnit or JSON.

use std::fmt::Write as _;

use serde::Serialize;
use sfnic_ci::report::junit::escape;

use super::data::{Data, KnownResult, Program};

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should.
    Pass,
    /// It failed and nobody knows why.
    Fail,
    /// It skipped itself, and may.
    Skip,
    /// It failed or skipped itself for a reason that the list has.
    Known,
}

/// A case of a program.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// `PROGRAM.CASE`.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How often it was tried.
    pub tries: u32,
}

/// A program that ran.
#[derive(Debug, Clone, Serialize)]
pub struct Ran {
    /// Its path.
    pub program: String,
    /// How long it took, all tries together, in seconds.
    pub seconds: f64,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// What a program's output says, before it is judged.
struct Raw {
    name: String,
    passed: bool,
    skipped: bool,
    why: String,
    tries: u32,
}

/// Reads the script's output and judges it.
pub fn judge(output: &str, programs: &[Program], data: &Data) -> Vec<Ran> {
    programs.iter().map(|program| judge_one(output, program, data)).collect()
}

fn judge_one(output: &str, program: &Program, data: &Data) -> Ran {
    let stem = stem(&program.path);
    let (mut raw, mut seconds, mut status) = (Vec::<Raw>::new(), 0.0, None);
    let (mut inside, mut detail) = (false, String::new());
    for line in output.lines() {
        if let Some(begun) = line.strip_prefix("suite: begin ") {
            inside = begun == program.path;
            detail.clear();
        } else if let Some(end) = line.strip_prefix("suite: end ").and_then(|l| l.strip_prefix(&program.path)) {
            let mut words = end.split_whitespace();
            status = words.next().map(str::to_owned);
            seconds += words.next().and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
            inside = false;
        } else if inside {
            match case(line) {
                Some(new) => add(&mut raw, Raw { why: reason(new.why, &detail), ..new }),
                None => detail = format!("{detail}{line}\n"),
            }
            if case(line).is_some() {
                detail.clear();
            }
        }
    }
    let unsaid =
        |passed, skipped, why: &str| Raw { name: stem.to_owned(), passed, skipped, why: why.to_owned(), tries: 1 };
    match status.as_deref() {
        None => raw.push(unsaid(false, false, "did not run: the guest came to its end before")),
        Some("timeout") => raw.push(unsaid(false, false, "took too long")),
        Some("0") if raw.is_empty() => raw.push(unsaid(true, false, "")),
        Some("4") if raw.is_empty() => raw.push(unsaid(true, true, last_line(&detail))),
        Some(status) if raw.is_empty() => {
            raw.push(unsaid(false, false, &format!("status {status}: {}", last_line(&detail))));
        }
        Some(_) => {}
    }
    let cases = raw.into_iter().map(|r| verdict(r, program, data)).collect();
    Ran { program: program.path.clone(), seconds, cases }
}

/// `drivers/net/ping.py` is `ping` in its cases' names.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".py").or_else(|| name.strip_suffix(".sh")).unwrap_or(name)
}

/// A line of TAP.
fn case(line: &str) -> Option<Raw> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let (name, comment) = rest.split_once(" # ").unwrap_or((rest, ""));
    let skipped = comment.starts_with("SKIP") || comment.starts_with("XFAIL");
    let why = comment.trim_start_matches("SKIP").trim_start_matches("XFAIL").trim();
    let name = name.trim_start_matches("- ").trim();
    Some(Raw { name: name.to_owned(), passed, skipped, why: why.to_owned(), tries: 1 })
}

/// A later try of a case replaces the former.
fn add(all: &mut Vec<Raw>, new: Raw) {
    match all.iter_mut().find(|old| old.name == new.name) {
        Some(old) => *old = Raw { tries: old.tries + 1, ..new },
        None => all.push(new),
    }
}

/// What a program said about a failure, in one line.
fn reason(said: String, detail: &str) -> String {
    if !said.is_empty() {
        return said;
    }
    let telling = |l: &&str| ["Check failed", "STDERR:", "Exception| "].iter().any(|w| l.contains(w)) && l.len() > 16;
    let first = detail.lines().find(|l| l.contains("Check failed"));
    let line = first.or_else(|| detail.lines().rfind(telling)).unwrap_or("");
    line.trim_start_matches("# ").trim_start_matches("Exception| ").trim().to_owned()
}

fn last_line(text: &str) -> &str {
    text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it said nothing").trim()
}

fn verdict(raw: Raw, program: &Program, data: &Data) -> Case {
    let known = data.known(&raw.name);
    let as_known = |result| known.filter(|k| k.result == result).map(|k| (Verdict::Known, k.why.clone()));
    let (verdict, why) = match (raw.passed, raw.skipped) {
        // What is known to fail may find that it cannot be tried at all.
        (_, true) => as_known(KnownResult::Skip).or_else(|| as_known(KnownResult::Fail)).unwrap_or_else(|| {
            let verdict = if program.basic { Verdict::Fail } else { Verdict::Skip };
            (verdict, format!("skipped: {}", raw.why))
        }),
        (true, false) => (Verdict::Pass, String::new()),
        (false, false) => as_known(KnownResult::Fail).unwrap_or((Verdict::Fail, raw.why)),
    };
    Case { name: raw.name, verdict, why, tries: raw.tries }
}

/// Did anything end as it should not?
pub fn failed(all: &[Ran]) -> bool {
    all.iter().flat_map(|r| &r.cases).any(|c| c.verdict == Verdict::Fail)
}

/// How many cases ended so.
fn count(cases: &[Case], verdict: Verdict) -> usize {
    cases.iter().filter(|c| c.verdict == verdict).count()
}

/// A table for people: a line a program, then every case that did not pass.
pub fn table(all: &[Ran]) -> String {
    let mut text = format!("{:<36} {:>5} {:>5} {:>5} {:>5} {:>7}\n", "program", "pass", "fail", "known", "skip", "s");
    for r in all {
        let n = |v| count(&r.cases, v);
        let counts = (n(Verdict::Pass), n(Verdict::Fail), n(Verdict::Known), n(Verdict::Skip));
        let (pass, fail, known, skip) = counts;
        let _ = writeln!(text, "{:<36} {pass:>5} {fail:>5} {known:>5} {skip:>5} {:>7.1}", r.program, r.seconds);
    }
    for (verdict, title) in [(Verdict::Fail, "failed"), (Verdict::Known, "known"), (Verdict::Skip, "skipped")] {
        for case in all.iter().flat_map(|r| &r.cases).filter(|c| c.verdict == verdict) {
            let _ = writeln!(text, "{title}: {}: {}", case.name, case.why);
        }
    }
    for case in all.iter().flat_map(|r| &r.cases).filter(|c| c.verdict == Verdict::Pass && c.tries > 1) {
        let _ = writeln!(text, "passed at try {}: {}", case.tries, case.name);
    }
    text
}

/// A line a case, as the guest tests' scripts say them.
pub fn checks(all: &[Ran]) -> String {
    let mut text = String::new();
    for case in all.iter().flat_map(|r| &r.cases) {
        let name = case.name.replace(": ", " ");
        let _ = match case.verdict {
            Verdict::Pass => writeln!(text, "ok {name}"),
            Verdict::Fail => writeln!(text, "not ok {name}: {}", case.why),
            Verdict::Skip | Verdict::Known => writeln!(text, "skip {name}: {}", case.why),
        };
    }
    text
}

/// TAP, version 13.
pub fn tap(all: &[Ran]) -> String {
    let cases: Vec<&Case> = all.iter().flat_map(|r| &r.cases).collect();
    let mut text = format!("TAP version 13\n1..{}\n", cases.len());
    for (i, case) in cases.iter().enumerate() {
        let (head, tail) = match case.verdict {
            Verdict::Pass => ("ok", String::new()),
            Verdict::Fail => ("not ok", format!(" # {}", case.why)),
            Verdict::Skip => ("ok", format!(" # SKIP {}", case.why)),
            Verdict::Known => ("not ok", format!(" # TODO {}", case.why)),
        };
        let _ = writeln!(text, "{head} {} {}{tail}", i + 1, case.name);
    }
    text
}

/// JUnit's XML.
pub fn junit(all: &[Ran]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for r in all {
        let (tests, failures) = (r.cases.len(), count(&r.cases, Verdict::Fail));
        let skipped = count(&r.cases, Verdict::Skip) + count(&r.cases, Verdict::Known);
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skipped}\" time=\"{:.1}\">",
            escape(&r.program),
            r.seconds
        );
        for case in &r.cases {
            let inner = match case.verdict {
                Verdict::Pass => String::new(),
                Verdict::Fail => format!("<failure message=\"{}\"/>", escape(&case.why)),
                Verdict::Skip | Verdict::Known => format!("<skipped message=\"{}\"/>", escape(&case.why)),
            };
            let (class, name) = (escape(&r.program), escape(&case.name));
            let _ = writeln!(text, "    <testcase classname=\"{class}\" name=\"{name}\">{inner}</testcase>");
        }
        text.push_str("  </testsuite>\n");
    }
    text + "</testsuites>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "suite: begin drivers/net/ping.py\nTAP version 13\n1..4\nok 1 ping.a\n\
        # Check failed 1 != 2\nnot ok 2 ping.b\nok 3 ping.test_xdp_offload # SKIP no\nok 4 ping.d # SKIP <none>\n\
        suite: end drivers/net/ping.py 1 2.5\nsuite: begin drivers/net/ping.py\nok 1 ping.b\n\
        suite: end drivers/net/ping.py 0 1.0\nsuite: begin ethtool-t\nFAIL\nsuite: end ethtool-t 1 0\n";

    fn judged(patterns: &[&str]) -> Vec<Ran> {
        let data = Data::builtin().unwrap();
        let programs: Vec<Program> = patterns.iter().flat_map(|p| data.matching(p)).collect();
        judge(OUTPUT, &programs, &data)
    }

    #[test]
    fn every_end_of_a_case() {
        let all = judged(&["ping", "ethtool-t", "csum"]);
        let found: Vec<(&str, Verdict, u32)> =
            all.iter().flat_map(|r| &r.cases).map(|c| (c.name.as_str(), c.verdict, c.tries)).collect();
        let expected = [
            ("ping.a", Verdict::Pass, 1),
            ("ping.b", Verdict::Pass, 2),
            ("ping.test_xdp_offload", Verdict::Known, 1),
            ("ping.d", Verdict::Fail, 1),
            ("ethtool-t", Verdict::Fail, 1),
            ("csum", Verdict::Fail, 1),
        ];
        assert_eq!(found, expected);
        assert!((all[0].seconds - 3.5).abs() < 1e-9);
        assert!(failed(&all));
        assert!(!failed(&all[..0]));
    }

    #[test]
    fn forms() {
        let all = judged(&["ping"]);
        assert!(checks(&all).starts_with("ok ping.a\nok ping.b\nskip ping.test_xdp_offload: "), "{}", checks(&all));
        let tap = tap(&all);
        assert!(tap.starts_with("TAP version 13\n1..4\nok 1 ping.a\n"), "{tap}");
        assert!(tap.contains("not ok 3 ping.test_xdp_offload # TODO "));
        let junit = junit(&all);
        assert!(
            junit.contains("tests=\"4\" failures=\"1\" skipped=\"1\"") && junit.contains("&lt;none&gt;"),
            "{junit}"
        );
        assert!(table(&all).contains("passed at try 2: ping.b"));
    }
}
