//! Results as a Markdown table, alone or between two marks of a larger text.

use std::fmt::Write as _;

use crate::matrix::{Matrix, Status};

/// Before the table.
pub const BEGIN: &str = "<!-- sfnic matrix: begin -->";
/// After it.
pub const END: &str = "<!-- sfnic matrix: end -->";

/// The table and the reasons of skips, with the marks.
pub fn markdown(matrix: &Matrix) -> String {
    let mut text = format!("{BEGIN}\n| test |");
    let names = matrix.kernels.iter().map(|k| cell(&k.name));
    names.for_each(|name| text += &format!(" {name} |"));
    text += "\n|---|";
    text += &"---|".repeat(matrix.kernels.len());
    text.push('\n');
    for suite in &matrix.suites {
        let _ = write!(text, "| `{}`: {} |", suite.name, cell(&suite.about));
        for kernel in &matrix.kernels {
            let Some(result) = matrix.cell(&kernel.name, &suite.name) else {
                text += " – |";
                continue;
            };
            let skips = result.skips().count();
            let _ = match result.status {
                Status::Pass if skips > 0 => write!(text, " {} pass, {skips} skip |", result.good()),
                Status::Pass => write!(text, " {} pass |", result.good()),
                Status::Fail => write!(text, " **fail** |"),
                Status::Skip => write!(text, " skip |"),
            };
        }
        text.push('\n');
    }
    text.push('\n');
    let releases = matrix.kernels.iter().filter(|k| !k.release.is_empty());
    let releases: Vec<String> = releases.map(|k| format!("{} is {}", cell(&k.name), cell(&k.release))).collect();
    if !releases.is_empty() {
        let _ = writeln!(text, "{}.", releases.join(", "));
    }
    let reasons = matrix.reasons();
    if !reasons.is_empty() {
        text += "\n<details><summary>What was skipped, and why</summary>\n\n";
        for reason in reasons {
            let _ = writeln!(text, "* {}", cell(&reason.to_string()));
        }
        text += "\n</details>\n";
    }
    let _ = writeln!(text, "{END}");
    text
}

/// Text that is no syntax of a table or of HTML.
fn cell(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.replace('|', "\\|").replace('<', "&lt;")
}

/// Where a mark is in a text, each time it has a line of its own; elsewhere it is only spoken of.
fn places(whole: &str, mark: &str) -> Vec<usize> {
    let alone = |at: &usize| {
        let before = whole[..*at].rsplit('\n').next();
        let after = whole[at + mark.len()..].split('\n').next();
        before.into_iter().chain(after).all(|rest| rest.trim().is_empty())
    };
    whole.match_indices(mark).map(|(at, _)| at).filter(alone).collect()
}

/// Puts a table (with its marks) in the place of the one that a text has.
///
/// # Errors
/// The text has no pair of marks, each on a line of its own, or more than one.
pub fn replace(whole: &str, table: &str) -> Result<String, String> {
    let problem = |what: &str| Err(format!("it has {what} {BEGIN} … {END}, on lines of their own"));
    match (places(whole, BEGIN).as_slice(), places(whole, END).as_slice()) {
        ([], _) => problem("no marks"),
        ([begin], [end]) if begin < end => {
            Ok(format!("{}{}{}", &whole[..*begin], table.trim_end(), &whole[end + END.len()..]))
        }
        ([_], [] | [_]) => problem("the first but not the second of the marks"),
        _ => problem("more than one pair of marks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::tests::sample;

    #[test]
    fn the_table_has_every_cell_and_every_reason() {
        let text = markdown(&sample());
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[1], "| test | 6.1 | 7.2 |");
        assert!(rows[3].starts_with("| `smoke`: both functions") && rows[3].ends_with("| 1 pass, 1 skip | 2 pass |"));
        assert!(rows[4].ends_with("| **fail** | 2 pass |"));
        assert!(rows[5].ends_with("| skip | **fail** |"));
        assert!(text.contains("6.1 is 6.1.0-1-amd64, 7.2 is 7.2.3."));
        assert!(text.contains("* smoke on 6.1, \"b\": no \"b\" &lt;here> \\| there\n"), "{text}");
        assert!(text.contains("* netdev on 6.1: before 6.12: no such thing\n"));
    }

    #[test]
    fn what_is_between_the_marks_is_replaced() {
        let new = markdown(&sample());
        let readme = format!("# Title\n\nbetween `{BEGIN}` and {END}.\n\n{BEGIN}\nold\n  {END}\r\n\nmore\n");
        let once = replace(&readme, &new).expect("marks");
        assert!(
            once.starts_with("# Title\n\nbetween `<!--") && once.ends_with("-->\r\n\nmore\n") && !once.contains("old")
        );
        assert_eq!(replace(&once, &new).as_deref(), Ok(once.as_str()), "again changes nothing");
    }

    #[test]
    fn marks_have_to_be_a_pair() {
        assert!(replace("nothing", "t").unwrap_err().contains("no marks"));
        assert!(replace(&format!("`{BEGIN}` and `{END}`"), "t").unwrap_err().contains("no marks"));
        for wrong in [format!("{BEGIN}\nx"), format!("{END}\n{BEGIN}"), format!("{BEGIN}\n{BEGIN} {END}")] {
            assert!(replace(&wrong, "t").unwrap_err().contains("not the second"), "{wrong}");
        }
        for wrong in [format!("{END}\n{BEGIN}\n{END}"), format!("{BEGIN}\n{END}\n{BEGIN}\n{END}")] {
            assert!(replace(&wrong, "t").unwrap_err().contains("more than one"), "{wrong}");
        }
    }
}
