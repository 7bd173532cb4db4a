//! Results as JUnit XML: a test suite a kernel, a test case a check, and one more a run for
//! everything that no check looks at.

use std::fmt::Write as _;

use crate::check::Verdict;
use crate::matrix::{Cell, Matrix};

/// What the case is called that has the kernel's log, unmodelled accesses and leftovers.
pub const RUN: &str = "the run";

/// A test case.
struct Case<'a> {
    suite: &'a str,
    name: &'a str,
    seconds: f64,
    outcome: Outcome<'a>,
}

enum Outcome<'a> {
    Good,
    Skipped(&'a str),
    Failed(String),
}

/// The whole of it.
pub fn junit(matrix: &Matrix) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"sfnic\">\n");
    for kernel in &matrix.kernels {
        let cases: Vec<Case<'_>> = matrix.of(&kernel.name).flat_map(cases).collect();
        let count = |f: fn(&Outcome<'_>) -> bool| cases.iter().filter(|c| f(&c.outcome)).count();
        let seconds: f64 = matrix.of(&kernel.name).map(|c| c.seconds).sum();
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{seconds:.3}\">",
            escape(&kernel.name),
            cases.len(),
            count(|o| matches!(o, Outcome::Failed(_))),
            count(|o| matches!(o, Outcome::Skipped(_))),
        );
        let release = escape(&kernel.release);
        let _ = writeln!(
            xml,
            "    <properties>\n      <property name=\"release\" value=\"{release}\"/>\n    </properties>"
        );
        for case in &cases {
            write_case(&mut xml, &kernel.name, case);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn cases(cell: &Cell) -> Vec<Case<'_>> {
    if let Some(reason) = &cell.reason {
        return vec![Case { suite: &cell.suite, name: RUN, seconds: 0.0, outcome: Outcome::Skipped(reason) }];
    }
    let mut cases = vec![];
    for check in &cell.checks {
        let outcome = match &check.verdict {
            Verdict::Ok => Outcome::Good,
            Verdict::Failed(why) => Outcome::Failed(why.clone()),
            Verdict::Skipped(why) => Outcome::Skipped(why),
        };
        cases.push(Case { suite: &cell.suite, name: &check.name, seconds: 0.0, outcome });
    }
    let wrong: Vec<&str> = cell.faults.iter().chain(&cell.kernel_lines).map(String::as_str).collect();
    let outcome = if wrong.is_empty() { Outcome::Good } else { Outcome::Failed(wrong.join("\n")) };
    cases.push(Case { suite: &cell.suite, name: RUN, seconds: cell.seconds, outcome });
    cases
}

fn write_case(xml: &mut String, kernel: &str, case: &Case<'_>) {
    let class = escape(&format!("{}.{}", kernel.replace('.', "_"), case.suite));
    let head =
        format!("    <testcase classname=\"{class}\" name=\"{}\" time=\"{:.3}\"", escape(case.name), case.seconds);
    let _ = match &case.outcome {
        Outcome::Good => writeln!(xml, "{head}/>"),
        Outcome::Skipped(why) => {
            writeln!(xml, "{head}>\n      <skipped message=\"{}\"/>\n    </testcase>", escape(why))
        }
        Outcome::Failed(why) => {
            let first = escape(why.lines().next().unwrap_or_default());
            let all = escape(why);
            writeln!(xml, "{head}>\n      <failure message=\"{first}\">{all}</failure>\n    </testcase>")
        }
    };
}

/// Text for an attribute or an element. What XML 1.0 has no way to say becomes a question mark.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::tests::sample;

    #[test]
    fn a_suite_a_kernel_and_a_case_a_check() {
        let xml = junit(&sample());
        let suites: Vec<&str> = xml.lines().filter(|l| l.contains("<testsuite ")).collect();
        assert_eq!(suites.len(), 2);
        // smoke: a, b skipped, the run; story: a, b failed, the run failed; netdev: skipped.
        assert!(suites[0].contains("name=\"6.1\" tests=\"7\" failures=\"2\" errors=\"0\" skipped=\"2\""), "{xml}");
        assert!(suites[1].contains("name=\"7.2\" tests=\"7\" failures=\"1\""), "{xml}");
        assert!(xml.contains("<skipped message=\"no &quot;b&quot; &lt;here&gt; | there\"/>"));
        assert!(xml.contains("classname=\"6_1.story\" name=\"b\""));
        assert!(xml.contains("<failure message=\"1 &lt; 2 &amp; 3\">"));
        assert!(!xml.contains('\u{1b}') && !xml.contains("]]>"));
    }

    #[test]
    fn every_element_is_closed() {
        // A small reader of what the writer may write: tags nest, attributes are quoted.
        let xml = junit(&sample());
        let mut open: Vec<&str> = vec![];
        for piece in xml.split('<').skip(2) {
            let (tag, _) = piece.split_once('>').expect("a closed tag");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match (tag.strip_prefix('/'), tag.ends_with('/')) {
                (Some(name), _) => assert_eq!(open.pop(), Some(name)),
                (None, true) => {}
                (None, false) => open.extend(tag.split(' ').next()),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
