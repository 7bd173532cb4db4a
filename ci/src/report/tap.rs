//! Results by the Test Anything Protocol, version 13: a line a check.

use std::fmt::Write as _;

use crate::check::Verdict;
use crate::matrix::Matrix;

/// The whole of it.
pub fn tap(matrix: &Matrix) -> String {
    let mut lines: Vec<(bool, String, Option<String>, Vec<String>)> = vec![];
    for kernel in &matrix.kernels {
        for cell in matrix.of(&kernel.name) {
            let place = format!("{} {}", kernel.name, cell.suite);
            if let Some(reason) = &cell.reason {
                lines.push((true, place, Some(reason.clone()), vec![]));
                continue;
            }
            for check in &cell.checks {
                let name = format!("{place}: {}", check.name);
                lines.push(match &check.verdict {
                    Verdict::Ok => (true, name, None, vec![]),
                    Verdict::Skipped(why) => (true, name, Some(why.clone()), vec![]),
                    Verdict::Failed(why) => (false, name, None, vec![why.clone()]),
                });
            }
            let wrong: Vec<String> = cell.faults.iter().chain(&cell.kernel_lines).cloned().collect();
            lines.push((wrong.is_empty(), format!("{place}: {}", super::junit::RUN), None, wrong));
        }
    }
    let mut text = format!("TAP version 13\n1..{}\n", lines.len());
    for (number, (good, name, skip, why)) in lines.into_iter().enumerate() {
        let word = if good { "ok" } else { "not ok" };
        let _ = write!(text, "{word} {} - {}", number + 1, plain(&name));
        let _ = match skip {
            Some(reason) => writeln!(text, " # SKIP {}", plain(&reason)),
            None => writeln!(text),
        };
        for line in why {
            let _ = writeln!(text, "# {}", plain(&line));
        }
    }
    text
}

/// One line, without what would be a directive.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::tests::sample;

    #[test]
    fn a_line_a_check() {
        let text = tap(&sample());
        assert!(text.starts_with("TAP version 13\n1..14\nok 1 - 6.1 smoke: a\n"), "{text}");
        assert!(text.contains("\nok 2 - 6.1 smoke: b # SKIP no \"b\" <here> | there\n"));
        assert!(text.contains("\nnot ok 5 - 6.1 story: b\n# 1 < 2 & 3\n"));
        assert!(text.contains("\nok 7 - 6.1 netdev # SKIP before 6.12: no such thing\n"));
        assert_eq!(text.lines().filter(|l| l.starts_with("ok ") || l.starts_with("not ok ")).count(), 14);
    }
}
