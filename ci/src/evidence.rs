//! What a guest left, and everything about it that is not as it should be.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::check::{self, Check};
use crate::kernel_log;
use crate::suite::Expected;

/// What a guest left.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The script that it ran.
    pub script: String,
    /// The script's exit status.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// Its remarks.
    pub stderr: String,
    /// The kernel's log of all boots, as `dmesg -r` prints it.
    pub dmesg: String,
    /// What the serial console said.
    pub console: String,
    /// How often the guest booted.
    pub boots: u32,
    /// How long all of it took.
    pub elapsed: Duration,
    /// Why the run failed: a panic, a timeout, QEMU's end.
    pub failure: Option<String>,
    /// What the driver wanted and the device does not model, and how often.
    pub unmodelled: Vec<(String, u64)>,
    /// Objects that were there after the guest's end, each with its function.
    pub left: Vec<String>,
}

impl Evidence {
    /// What the script checked, in its order.
    pub fn checks(&self) -> Vec<Check> {
        check::parse(&self.stdout)
    }

    /// The lines of the kernel that say that something is wrong.
    pub fn kernel_lines(&self, expected: &Expected) -> Vec<String> {
        let known = |line: &String| {
            expected.provokes.iter().any(|text| line.contains(text))
                || expected.says.iter().any(|s| line.contains(&s.text))
        };
        kernel_log::faults(&self.dmesg).into_iter().filter(|l| !known(l)).collect()
    }

    /// Everything besides failed checks and the kernel's lines that is not as it should be.
    /// `ends` is the text of the failure with which the guest has to end.
    pub fn faults(&self, expected: &Expected, ends: Option<&str>) -> Vec<String> {
        let mut faults = vec![];
        match (&self.failure, ends) {
            (Some(why), Some(text)) if why.contains(text) => {}
            (Some(why), _) => faults.push(format!("the guest failed: {why}")),
            (None, Some(text)) => faults.push(format!("the guest did not end so: {text}")),
            (None, None) if self.status != 0 => {
                // What an exception says is the last line; remarks begin with their time.
                let last = self.stderr.lines().rev().find(|l| !l.trim().is_empty() && !l.starts_with('['));
                let why = last.map_or_else(String::new, |line| format!(": {line}"));
                faults.push(format!("the script ended with status {}{why}", self.status));
            }
            (None, None) => {}
        }
        let checks = self.checks();
        if checks.is_empty() {
            faults.push("the script checked nothing".to_owned());
        }
        let listed = |what: &str| expected.unmodelled.iter().any(|known| what.contains(&known.what));
        let unmodelled = self.unmodelled.iter().filter(|(what, _)| !listed(what));
        faults.extend(unmodelled.map(|(what, n)| format!("not modelled, {n} times: {what}")));
        // A script that skipped everything has provoked nothing.
        let skipped = check::all_skipped(&checks);
        let silent = expected.provokes.iter().filter(|text| !skipped && !self.dmesg.contains(*text));
        faults.extend(silent.map(|text| format!("the kernel did not say: {text}")));
        faults.extend(self.left.iter().map(|what| format!("left after the guest: {what}")));
        faults
    }

    /// All of it in lines; none if everything is as it should be.
    pub fn wrongs(&self, expected: &Expected, ends: Option<&str>) -> Vec<String> {
        let checks = self.checks();
        let failed = checks.iter().filter_map(|c| Some(format!("not ok {}: {}", c.name, c.failure()?)));
        let said = self.kernel_lines(expected).into_iter().map(|l| format!("kernel: {l}"));
        self.faults(expected, ends).into_iter().chain(failed).chain(said).collect()
    }

    /// The ends of everything that was said, for who reads of a failure.
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for (name, whole, rows) in
            [("stdout", &self.stdout, 60), ("stderr", &self.stderr, 40), ("kernel", &self.dmesg, 40)]
        {
            let _ = writeln!(text, "--- {name}\n{}", tail(whole, rows));
        }
        text
    }

    /// Writes all that was said into files `NAME.out`, `.err`, `.dmesg` and `.console`.
    ///
    /// # Errors
    /// The directory or a file cannot be written.
    pub fn keep(&self, dir: &Path, name: &str) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let files = [("out", &self.stdout), ("err", &self.stderr), ("dmesg", &self.dmesg), ("console", &self.console)];
        files.iter().try_for_each(|(kind, text)| std::fs::write(dir.join(format!("{name}.{kind}")), text))
    }

    /// What a script printed as `value NAME JSON`.
    pub fn value(&self, name: &str) -> Option<serde_json::Value> {
        let mut lines = self.stdout.lines();
        let json = lines.find_map(|l| l.strip_prefix("value ")?.strip_prefix(name)?.strip_prefix(' '))?;
        serde_json::from_str(json).ok()
    }
}

/// The last lines of a text.
fn tail(text: &str, n: usize) -> String {
    let rows: Vec<&str> = text.lines().collect();
    rows[rows.len().saturating_sub(n)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Says, Unmodelled};

    fn evidence(stdout: &str, dmesg: &str) -> Evidence {
        Evidence { stdout: stdout.to_owned(), dmesg: dmesg.to_owned(), ..Evidence::default() }
    }

    const NONE: Expected = Expected { provokes: vec![], says: vec![], unmodelled: vec![] };
    const NO_MORE: &str = "<3>[    1.000000] mlx5_core 0000:01:00.0: no more SFs\n";

    #[test]
    fn a_good_run_has_no_faults() {
        let log = "<6>[    1.000000] mlx5_core 0000:01:00.0: firmware version: 1\n";
        assert_eq!(evidence("ok a\nskip b: no\n", log).wrongs(&NONE, None), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        assert_eq!(evidence("", "").wrongs(&NONE, None), ["the script checked nothing"]);
        let mut e = evidence("ok a\nnot ok b: c\n", "<3>[    1.000000] mlx5_core 0000:01:00.0: bad\n");
        e.status = 3;
        e.unmodelled.push(("command SUSPEND_VHCA(0x115)".into(), 2));
        e.left.push("pf0/0x0: 1 Cq".into());
        assert_eq!(e.wrongs(&NONE, None).len(), 5);
    }

    #[test]
    fn what_was_provoked_has_to_come() {
        let provokes = Expected { provokes: vec!["no more SFs".into()], ..NONE };
        assert_eq!(evidence("ok a\n", NO_MORE).wrongs(&provokes, None), Vec::<String>::new());
        assert_eq!(evidence("ok a\n", "").wrongs(&provokes, None), ["the kernel did not say: no more SFs"]);
        assert_eq!(evidence("skip a: no such thing\n", "").wrongs(&provokes, None), Vec::<String>::new());
    }

    #[test]
    fn what_is_listed_may_come() {
        let says = vec![Says { text: "no more SFs".into(), reason: "full".into() }];
        let unmodelled = vec![Unmodelled { what: "SUSPEND_VHCA".into(), reason: "no migration".into() }];
        let expected = Expected { provokes: vec![], says, unmodelled };
        for log in [NO_MORE, ""] {
            let mut e = evidence("ok a\n", log);
            e.unmodelled.push(("command SUSPEND_VHCA(0x115)".into(), 2));
            assert_eq!(e.wrongs(&expected, None), Vec::<String>::new());
        }
    }

    #[test]
    fn a_guest_that_has_to_die_dies_so() {
        let mut e = evidence("ok a\n", "");
        assert_eq!(e.wrongs(&NONE, Some("QEMU ended")).len(), 1);
        (e.failure, e.status) = (Some("QEMU ended (exit status: 3)".into()), 125);
        assert_eq!(e.wrongs(&NONE, Some("QEMU ended")), Vec::<String>::new());
        assert_eq!(e.wrongs(&NONE, Some("panic")).len(), 1);
        assert_eq!(e.wrongs(&NONE, None).len(), 1);
    }

    #[test]
    fn values_are_read() {
        let e = evidence("value memory [1, 2]\n", "");
        assert_eq!(e.value("memory"), Some(serde_json::json!([1, 2])));
        assert_eq!(e.value("mem"), None);
    }
}
