//! Results as a table for a terminal, and what failed in full.

use std::fmt::Write as _;

use crate::matrix::{Cell, Matrix, Status};

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[1;31m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// A cell's text and colour.
fn short(cell: Option<&Cell>) -> (String, &'static str) {
    let Some(cell) = cell else { return ("-".to_owned(), "") };
    match cell.status {
        Status::Pass => {
            let skips = cell.skips().count();
            let more = if skips > 0 { format!(" ({skips} skipped)") } else { String::new() };
            (format!("pass {}{more}", cell.good()), GREEN)
        }
        Status::Fail => ("FAIL".to_owned(), RED),
        Status::Skip => ("skip".to_owned(), YELLOW),
    }
}

/// The table, the reasons of skips, and all that is wrong.
pub fn table(matrix: &Matrix, colour: bool) -> String {
    let first = matrix.suites.iter().map(|s| s.name.len()).max().unwrap_or(0);
    let widths: Vec<usize> = matrix
        .kernels
        .iter()
        .map(|k| matrix.of(&k.name).map(|c| short(Some(c)).0.len()).max().unwrap_or(1).max(k.name.chars().count()))
        .collect();
    let mut text = format!("{:first$}", "");
    for (kernel, width) in matrix.kernels.iter().zip(&widths) {
        let _ = write!(text, "  {:width$}", kernel.name);
    }
    end_row(&mut text);
    for suite in &matrix.suites {
        let _ = write!(text, "{:first$}", suite.name);
        for (kernel, width) in matrix.kernels.iter().zip(&widths) {
            let (word, tint) = short(matrix.cell(&kernel.name, &suite.name));
            let (on, off) = if colour && !tint.is_empty() { (tint, PLAIN) } else { ("", "") };
            let _ = write!(text, "  {on}{word:width$}{off}");
        }
        end_row(&mut text);
    }
    let reasons = matrix.reasons();
    if !reasons.is_empty() {
        text.push_str("\nskipped:\n");
        for reason in reasons {
            let _ = writeln!(text, "  {reason}");
        }
    }
    for cell in matrix.cells.iter().filter(|c| c.status == Status::Fail) {
        text.push('\n');
        text.push_str(&failure(cell));
    }
    let counts = matrix.counts();
    let _ = writeln!(
        text,
        "\n{} pass, {} fail, {} skip; {:.0} s of guests",
        counts.pass,
        counts.fail,
        counts.skip,
        matrix.elapsed().as_secs_f64()
    );
    text
}

/// A row has no blanks at its end.
fn end_row(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// Everything that is wrong with a cell.
pub fn failure(cell: &Cell) -> String {
    let mut text = format!("{} {}: FAIL\n", cell.kernel, cell.suite);
    for wrong in cell.wrongs() {
        let clean: String = wrong.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(text, "  {clean}");
    }
    if let Some(logs) = &cell.logs {
        let _ = writeln!(text, "  logs: {}", logs.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::tests::sample;

    #[test]
    fn the_table_shows_every_cell_and_every_reason() {
        let text = table(&sample(), false);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "        6.1                 7.2");
        assert_eq!(rows[1], "smoke   pass 1 (1 skipped)  pass 2");
        assert_eq!(rows[2], "story   FAIL                pass 2");
        assert_eq!(rows[3], "netdev  skip                FAIL");
        assert!(text.contains("\n  netdev on 6.1: before 6.12: no such thing\n"), "{text}");
        assert!(text.contains("\n6.1 story: FAIL\n  b: 1 < 2 & 3\n"), "{text}");
        assert!(text.ends_with("3 pass, 2 fail, 1 skip; 6 s of guests\n"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(table(&sample(), true).contains(&format!("{RED}FAIL")));
    }
}
