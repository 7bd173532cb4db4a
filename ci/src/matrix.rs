//! Results: kernel by suite.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::{Check, all_skipped};
use crate::evidence::Evidence;
use crate::suite::{self, Suite};

/// What came of a suite on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything is as it should be; single checks may be skipped.
    Pass,
    /// Something is not.
    Fail,
    /// The kernel is none for this suite.
    Skip,
}

impl Status {
    /// As a word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Fail => "fail",
            Status::Skip => "skip",
        }
    }
}

/// A kernel of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The line (`7.2`), or the name of the user's kernel.
    pub name: String,
    /// What `uname -r` says in the guest; empty if the kernel could not be had.
    pub release: String,
}

/// A suite on a kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The column's name.
    pub kernel: String,
    /// The suite's name.
    pub suite: String,
    /// What came of it.
    pub status: Status,
    /// Why the whole suite was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was checked, in the order of the scripts.
    pub checks: Vec<Check>,
    /// What is wrong besides checks and what the kernel said.
    pub faults: Vec<String>,
    /// What the kernel should not have said.
    pub kernel_lines: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Where everything that was said is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<PathBuf>,
}

impl Cell {
    fn empty(kernel: &str, suite: &Suite, status: Status) -> Cell {
        Cell {
            kernel: kernel.to_owned(),
            suite: suite.name.clone(),
            status,
            reason: None,
            checks: vec![],
            faults: vec![],
            kernel_lines: vec![],
            seconds: 0.0,
            logs: None,
        }
    }

    /// Of a suite that is nothing for a kernel.
    pub fn skipped(kernel: &str, suite: &Suite, reason: String) -> Cell {
        Cell { reason: Some(reason), ..Cell::empty(kernel, suite, Status::Skip) }
    }

    /// Of a suite that could not be run.
    pub fn broken(kernel: &str, suite: &Suite, why: String) -> Cell {
        Cell { faults: vec![why], ..Cell::empty(kernel, suite, Status::Fail) }
    }

    /// Of what its guests left.
    pub fn judge(kernel: &str, suite: &Suite, guests: &[Evidence]) -> Cell {
        let mut cell = Cell::empty(kernel, suite, Status::Pass);
        for (number, evidence) in guests.iter().enumerate() {
            let checks = evidence.checks();
            // A script with nothing to check on this kernel ends before anything happens.
            let ends = suite.ends.as_deref().filter(|_| number == 0 && !all_skipped(&checks));
            cell.checks.extend(checks);
            cell.faults.extend(evidence.faults(&suite.expected, ends));
            cell.kernel_lines.extend(evidence.kernel_lines(&suite.expected));
            cell.seconds += evidence.elapsed.as_secs_f64();
        }
        let expected = 1 + usize::from(suite.then.is_some());
        if guests.len() < expected {
            cell.faults.push(format!("only {} of {expected} guests ran", guests.len()));
        }
        let failed = cell.checks.iter().any(|c| c.failure().is_some());
        if failed || !cell.faults.is_empty() || !cell.kernel_lines.is_empty() {
            cell.status = Status::Fail;
        } else if cell.good() == 0 {
            // The script found nothing that this kernel could be checked for.
            cell.status = Status::Skip;
            let why = cell.skips().next().map(|(_, why)| why.to_owned());
            cell.reason = why;
            cell.checks.clear();
        }
        cell
    }

    /// Checks that were skipped, with the reasons.
    pub fn skips(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks.iter().filter_map(|c| Some((c.name.as_str(), c.skip()?)))
    }

    /// How many checks were good.
    pub fn good(&self) -> usize {
        self.checks.iter().filter(|c| c.failure().is_none() && c.skip().is_none()).count()
    }

    /// Everything that is wrong, a line each.
    pub fn wrongs(&self) -> Vec<String> {
        let failed = self.checks.iter().filter_map(|c| Some(format!("{}: {}", c.name, c.failure()?)));
        let said = self.kernel_lines.iter().map(|l| format!("kernel: {l}"));
        failed.chain(self.faults.iter().cloned()).chain(said).collect()
    }

    /// In a few words.
    pub fn summary(&self) -> String {
        if let Some(reason) = &self.reason {
            return format!("skip: {reason}");
        }
        let (skips, wrongs) = (self.skips().count(), self.wrongs().len());
        let mut text = match self.status {
            Status::Fail => format!("{}: {wrongs} thing(s) wrong, {} checks good", self.status.word(), self.good()),
            _ => format!("{}: {} checks", self.status.word(), self.good()),
        };
        if skips > 0 {
            text += &format!(", {skips} skipped");
        }
        text
    }
}

/// All results.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Matrix {
    /// Kernels, in the order asked for.
    pub kernels: Vec<Column>,
    /// Suites, in their order.
    pub suites: Vec<Row>,
    /// What there is of them so far.
    pub cells: Vec<Cell>,
}

/// A suite of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub about: String,
}

/// How many cells there are of each status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// As they should be.
    pub pass: usize,
    /// Not so.
    pub fail: usize,
    /// Skipped as a whole.
    pub skip: usize,
}

/// Why something was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason<'a> {
    /// The suite.
    pub suite: &'a str,
    /// The reason.
    pub why: &'a str,
    /// On which kernels.
    pub kernels: Vec<&'a str>,
    /// What was skipped of it; nothing if it was all of it.
    pub checks: Vec<&'a str>,
}

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.suite, self.kernels.join(", "))?;
        match &self.checks[..] {
            [] => {}
            [one] => write!(f, ", {one:?}")?,
            some => write!(f, ", {} checks", some.len())?,
        }
        write!(f, ": {}", self.why)
    }
}

impl Matrix {
    /// Without results yet.
    pub fn new(kernels: Vec<Column>, suites: &[&Suite]) -> Matrix {
        let row = |s: &&Suite| Row { name: s.name.clone(), about: s.about.clone() };
        Matrix { kernels, suites: suites.iter().map(row).collect(), cells: vec![] }
    }

    /// Takes the results of another run; of what both have, the other's.
    pub fn join(&mut self, other: Matrix) {
        for column in other.kernels {
            match self.kernels.iter_mut().find(|k| k.name == column.name) {
                Some(known) => *known = column,
                None => self.kernels.push(column),
            }
        }
        for row in other.suites {
            if !self.suites.iter().any(|s| s.name == row.name) {
                self.suites.push(row);
            }
        }
        let place = |s: &Row| suite::suites().iter().position(|known| known.name == s.name);
        self.suites.sort_by_key(|s| place(s).unwrap_or(usize::MAX));
        self.cells.retain(|c| !other.cells.iter().any(|o| (&o.kernel, &o.suite) == (&c.kernel, &c.suite)));
        self.cells.extend(other.cells);
    }

    /// The result of a suite on a kernel.
    pub fn cell(&self, kernel: &str, suite: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.kernel == kernel && c.suite == suite)
    }

    /// The results of a kernel, in the order of the suites.
    pub fn of(&self, kernel: &str) -> impl Iterator<Item = &Cell> {
        self.suites.iter().filter_map(move |s| self.cell(kernel, &s.name))
    }

    /// How many cells there are of each status.
    pub fn counts(&self) -> Counts {
        let count = |status| self.cells.iter().filter(|c| c.status == status).count();
        Counts { pass: count(Status::Pass), fail: count(Status::Fail), skip: count(Status::Skip) }
    }

    /// How long all guests together ran.
    pub fn elapsed(&self) -> Duration {
        Duration::from_secs_f64(self.cells.iter().map(|c| c.seconds).sum())
    }

    /// Every reason of a skip, once a suite, in the order of the suites.
    pub fn reasons(&self) -> Vec<Reason<'_>> {
        let mut reasons: Vec<Reason<'_>> = vec![];
        let cells = self.suites.iter().flat_map(|s| self.kernels.iter().filter_map(|k| self.cell(&k.name, &s.name)));
        for cell in cells {
            let whole = cell.reason.iter().map(|why| (None, why.as_str()));
            let checks = cell.skips().map(|(check, why)| (Some(check), why));
            for (check, why) in whole.chain(checks) {
                let at = reasons.iter().position(|r| r.suite == cell.suite && r.why == why);
                let at = at.unwrap_or_else(|| {
                    reasons.push(Reason { suite: &cell.suite, why, kernels: vec![], checks: vec![] });
                    reasons.len() - 1
                });
                let reason = &mut reasons[at];
                if !reason.kernels.contains(&cell.kernel.as_str()) {
                    reason.kernels.push(&cell.kernel);
                }
                if let Some(check) = check.filter(|c| !reason.checks.contains(c)) {
                    reason.checks.push(check);
                }
            }
        }
        reasons
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::suite::{find, suites};

    /// Two kernels, three suites: all kinds of results.
    pub(crate) fn sample() -> Matrix {
        let column = |name: &str, release: &str| Column { name: name.into(), release: release.into() };
        let chosen: Vec<&Suite> = suites().iter().take(3).collect();
        let mut matrix = Matrix::new(vec![column("6.1", "6.1.0-1-amd64"), column("7.2", "7.2.3")], &chosen);
        let run = |stdout: &str, dmesg: &str| Evidence {
            stdout: stdout.into(),
            dmesg: dmesg.into(),
            elapsed: Duration::from_millis(1500),
            ..Evidence::default()
        };
        let skips = run("ok a\nskip b: no \"b\" <here> | there\n", "");
        let bad = run("ok a\nnot ok b: 1 < 2 & 3\n", "<3>[    1.000000] mlx5_core 0000:01:00.0: \u{1b}bad ]]>\n");
        matrix.cells.push(Cell::judge("6.1", chosen[0], &[skips]));
        matrix.cells.push(Cell::judge("6.1", chosen[1], &[bad]));
        matrix.cells.push(Cell::skipped("6.1", chosen[2], "before 6.12: no such thing".into()));
        for suite in &chosen[..2] {
            matrix.cells.push(Cell::judge("7.2", suite, &[run("ok a\nok b\n", "")]));
        }
        matrix.cells.push(Cell::broken("7.2", chosen[2], "the kit could not be made: no network".into()));
        matrix
    }

    #[test]
    fn cells_are_judged() {
        let m = sample();
        assert_eq!(m.counts(), Counts { pass: 3, fail: 2, skip: 1 });
        let cells: Vec<String> = m.of("6.1").map(Cell::summary).collect();
        let skip = "skip: before 6.12: no such thing";
        assert_eq!(cells, ["pass: 1 checks, 1 skipped", "fail: 2 thing(s) wrong, 1 checks good", skip]);
        assert_eq!(m.reasons().len(), 2);
    }

    #[test]
    fn runs_are_joined() {
        let m = sample();
        let part = |kernel: usize, suites: &[usize]| {
            let kernels = vec![m.kernels[kernel].clone()];
            let suites: Vec<Row> = suites.iter().map(|s| m.suites[*s].clone()).collect();
            let mine = |c: &&Cell| c.kernel == kernels[0].name && suites.iter().any(|s| s.name == c.suite);
            let cells = m.cells.iter().filter(mine).cloned().collect();
            Matrix { kernels, suites, cells }
        };
        let mut joined = Matrix::default();
        for (kernel, suites) in [(0, &[2, 1][..]), (1, &[0, 1, 2]), (0, &[0])] {
            joined.join(part(kernel, suites));
        }
        assert_eq!((&joined.kernels, &joined.suites, joined.counts()), (&m.kernels, &m.suites, m.counts()));

        let mut again = part(0, &[1]);
        again.cells[0].status = Status::Pass;
        joined.join(again);
        assert_eq!((joined.cells.len(), joined.counts()), (6, Counts { pass: 4, fail: 1, skip: 1 }), "the later one");
    }

    #[test]
    fn a_script_that_skips_everything_is_a_skip() {
        let stdout = "skip SFs: the kernel has none\n".to_owned();
        let evidence = Evidence { stdout, ..Evidence::default() };
        let cell = Cell::judge("k", &suites()[0], &[evidence]);
        assert_eq!((cell.status, cell.reason.as_deref()), (Status::Skip, Some("the kernel has none")));
    }

    #[test]
    fn a_suite_of_two_guests_needs_both() {
        let death = find("death").expect("the suite");
        let dead = Evidence {
            stdout: "ok a\n".into(),
            failure: Some("QEMU ended (3)".into()),
            status: 125,
            ..Evidence::default()
        };
        let after = Evidence { stdout: "ok b\n".into(), ..Evidence::default() };
        assert_eq!(Cell::judge("k", death, &[dead.clone(), after]).status, Status::Pass);
        assert_eq!(Cell::judge("k", death, std::slice::from_ref(&dead)).status, Status::Fail);
        assert_eq!(Cell::judge("k", death, &[dead.clone(), dead]).status, Status::Fail);
    }
}
