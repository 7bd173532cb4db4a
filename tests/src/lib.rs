//! The lab: a device in this process, a guest that drives it, and what came of it.
//!
//! The tests in `tests/` boot a guest with scripts of `guest/`; a script prints a line
//! `ok NAME` or `not ok NAME: WHY` for each thing that it checked. Guests run one after
//! another, also those of different processes: a guest wants the whole machine.

pub mod ask;
pub mod kernel_log;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sfnic_device_model::nic::CardConfig;
use sfnic_device_model::unmodelled::Access;
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::{Guest, Kit, KitOptions, Outcome, What};

/// The kernel line that the tests run on.
pub const KERNEL: &str = "7.2";

/// Objects by kind, for each function.
pub type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// What to build and how to run it.
#[derive(Debug, Clone)]
pub struct Lab {
    /// MSI-X vectors of each physical function.
    pub vectors: u16,
    /// Most sub-functions of each physical function.
    pub max_sfs: u16,
    /// Worker threads of the device.
    pub workers: usize,
    /// CPUs of the guest.
    pub cpus: u32,
    /// The longest that the guest may take.
    pub timeout: Duration,
    /// Variables for the script.
    pub env: Vec<(String, String)>,
}

impl Default for Lab {
    fn default() -> Self {
        let card = CardConfig::default();
        Self {
            vectors: card.vectors,
            max_sfs: card.max_sfs,
            workers: 1,
            cpus: 2,
            timeout: Duration::from_secs(240),
            env: vec![],
        }
    }
}

impl Lab {
    /// Two physical functions joined by a cable, two CPUs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The device without a guest.
    ///
    /// # Errors
    /// The profile or a thread could not be had.
    pub fn board(&self) -> Result<Board> {
        let cards = (0..2u8).map(|i| {
            let mac = [0x52, 0x54, 0x00, 0x5f, 0x00, i];
            CardConfig { mac, vectors: self.vectors, max_sfs: self.max_sfs, ..CardConfig::default() }
        });
        Board::new(BoardConfig {
            profile: Profile::builtin("connectx6dx")?,
            cards: cards.collect(),
            wires: vec![WireKind::Cable; 2],
            workers: self.workers,
        })
    }

    /// Builds the device, boots a guest with it and runs a script of `guest/` in it.
    ///
    /// # Panics
    /// The guest could not even be started.
    pub fn run(&self, script: &str) -> Report {
        self.start().run(script)
    }

    /// Builds the device, for one guest after another.
    ///
    /// # Panics
    /// The device could not be built.
    pub fn start(&self) -> Bench {
        Bench::new(self.clone()).unwrap_or_else(|e| panic!("the lab cannot be set up: {e:#}"))
    }
}

/// A running device on its sockets.
pub struct Bench {
    /// What it was made from.
    pub lab: Lab,
    /// The device.
    pub board: Board,
    sockets: Vec<PathBuf>,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(lab: Lab) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sfnic-lab-").tempdir()?;
        let board = lab.board()?;
        let sockets: Vec<PathBuf> = (0..2).map(|i| dir.path().join(format!("pf{i}"))).collect();
        board.serve(&sockets)?;
        Ok(Self { lab, board, sockets, dir })
    }

    /// Boots a guest with the device and runs a script of `guest/` in it.
    ///
    /// # Panics
    /// The guest could not even be started.
    pub fn run(&self, script: &str) -> Report {
        self.try_run(script).unwrap_or_else(|e| panic!("{script}: the lab cannot run it: {e:#}"))
    }

    fn try_run(&self, script: &str) -> Result<Report> {
        let kit = Kit::ensure(&KitOptions::default(), KERNEL)?;
        let share = self.dir.path().join("host");
        copy_scripts(&share)?;
        let nic = self.board.nic.clone();
        let answer = move |question: &str| match question {
            "memory" => serde_json::to_value(ask::memory()),
            "objects" => serde_json::to_value(nic.object_counts()),
            _ => Ok(serde_json::Value::Null),
        };
        let guest = Guest {
            cpus: self.lab.cpus,
            slots: vec![self.sockets.clone()],
            share: Some(share.clone()),
            what: What::Command(vec!["python3".into(), format!("/host/{script}").into()]),
            env: self.lab.env.clone(),
            timeout: Some(self.lab.timeout),
            capture: true,
            quiet: true,
            // A script can end QEMU at once by writing to this port.
            extra_args: vec!["-device".into(), "isa-debug-exit,iobase=0xf4,iosize=0x04".into()],
            ..Guest::new()
        };
        let outcome = {
            let _turn = Turn::wait()?;
            let answers = ask::Answers::start(&share, answer);
            let outcome = guest.run(&kit);
            answers.stop();
            outcome?
        };
        std::fs::remove_dir_all(&share)?;
        let report = Report {
            script: script.to_owned(),
            checks: parse_checks(&String::from_utf8_lossy(&outcome.stdout)),
            unmodelled: self.board.nic.unmodelled.list(),
            object_counts: self.left(),
            outcome,
            provoked: vec![],
        };
        report.keep()?;
        let (n, bad) = (report.checks.len(), report.checks.iter().filter(|c| c.failure.is_some()).count());
        let (seconds, boots) = (report.outcome.elapsed.as_secs_f64(), report.outcome.boots);
        eprintln!("{script}: {n} checks, {bad} failed, {seconds:.1} s in {boots} boot(s)");
        Ok(report)
    }

    /// The objects that a guest left behind; the device may take a moment to see its end.
    fn left(&self) -> Counts {
        for _ in 0..100 {
            let counts = self.board.nic.object_counts();
            if counts.values().flat_map(BTreeMap::values).all(|n| *n == 0) {
                return counts;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.board.nic.object_counts()
    }
}

/// All scripts, for a guest to find at `/host`.
///
/// # Errors
/// The folder is there already, or a file cannot be copied.
pub fn copy_scripts(share: &Path) -> Result<()> {
    std::fs::create_dir(share)?;
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    for entry in std::fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), share.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The right to run a guest: a name that one socket of the machine can have at a time and
/// that is free again when its process ends, however that is.
pub struct Turn(#[expect(dead_code, reason = "holds the name")] UnixListener);

impl Turn {
    /// Waits for it.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn wait() -> Result<Self> {
        let name = SocketAddr::from_abstract_name("sfnic-lab-turn")?;
        loop {
            match UnixListener::bind_addr(&name) {
                Ok(l) => return Ok(Self(l)),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(e) => return Err(e).context("cannot wait for other guests"),
            }
        }
    }
}

/// One thing that a script checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Why it is not as it should be.
    pub failure: Option<String>,
}

/// The checks in a script's output.
pub fn parse_checks(stdout: &str) -> Vec<Check> {
    let check = |line: &str| {
        if let Some(name) = line.strip_prefix("ok ") {
            return Some(Check { name: name.trim().to_owned(), failure: None });
        }
        let (name, why) = line.strip_prefix("not ok ")?.split_once(": ")?;
        Some(Check { name: name.to_owned(), failure: Some(why.to_owned()) })
    };
    stdout.lines().filter_map(check).collect()
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The script's name.
    pub script: String,
    /// What the guest said.
    pub outcome: Outcome,
    /// What the script checked, in its order.
    pub checks: Vec<Check>,
    /// What the driver wanted and the device does not model.
    pub unmodelled: Vec<(Access, u64)>,
    /// Objects that were there after the guest's end.
    pub object_counts: Counts,
    provoked: Vec<&'static str>,
}

impl Report {
    /// The script provokes kernel messages with this text: they are no fault, and one has
    /// to be there.
    pub fn provokes(mut self, text: &'static str) -> Self {
        self.provoked.push(text);
        self
    }

    /// The run is as it should be: the script came to its end, every check of it is good,
    /// the driver wanted nothing that the device does not model, the kernel has nothing to
    /// complain about, and nothing of the guest is left in the device.
    ///
    /// # Panics
    /// With everything that is not so.
    pub fn ok(&self) {
        let faults = self.faults();
        if faults.is_empty() {
            return;
        }
        let mut text = format!("{}: {} fault(s)\n", self.script, faults.len());
        for fault in &faults {
            let _ = writeln!(text, "  {fault}");
        }
        let tail = |text: &str, n: usize| {
            let rows: Vec<&str> = text.lines().collect();
            rows[rows.len().saturating_sub(n)..].join("\n")
        };
        let _ = writeln!(text, "--- stdout\n{}", tail(&String::from_utf8_lossy(&self.outcome.stdout), 60));
        let _ = writeln!(text, "--- stderr\n{}", tail(&String::from_utf8_lossy(&self.outcome.stderr), 40));
        let _ = writeln!(text, "--- kernel\n{}", tail(&self.outcome.dmesg, 40));
        panic!("{text}");
    }

    /// Everything that is not as it should be.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = vec![];
        if let Some(why) = &self.outcome.failure {
            faults.push(format!("the guest failed: {why}"));
        } else if self.outcome.status != 0 {
            faults.push(format!("the script ended with status {}", self.outcome.status));
        }
        if self.checks.is_empty() {
            faults.push("the script checked nothing".to_owned());
        }
        let bad = self.checks.iter().filter_map(|c| Some(format!("not ok {}: {}", c.name, c.failure.as_ref()?)));
        faults.extend(bad);
        faults.extend(self.unmodelled.iter().map(|(a, n)| format!("not modelled, {n} times: {a}")));
        let lines = kernel_log::faults(&self.outcome.dmesg);
        let known = |line: &str| self.provoked.iter().any(|p| line.contains(p));
        faults.extend(lines.iter().filter(|l| !known(l)).map(|l| format!("kernel: {l}")));
        let silent = self.provoked.iter().filter(|p| !self.outcome.dmesg.contains(**p));
        faults.extend(silent.map(|p| format!("the kernel did not say: {p}")));
        let left = self.object_counts.iter().flat_map(|(f, kinds)| kinds.iter().map(move |(k, n)| (f, k, n)));
        faults.extend(left.filter(|(.., n)| **n != 0).map(|(f, k, n)| format!("left in {f} after the guest: {n} {k}")));
        faults
    }

    /// What a check printed as `value NAME JSON`.
    pub fn value(&self, name: &str) -> Option<serde_json::Value> {
        let stdout = String::from_utf8_lossy(&self.outcome.stdout);
        let json = stdout.lines().find_map(|l| l.strip_prefix("value ")?.strip_prefix(name)?.strip_prefix(' '))?;
        serde_json::from_str(json).ok()
    }

    /// Writes everything into the directory that `SFNIC_LAB_KEEP` names.
    fn keep(&self) -> Result<()> {
        let Some(dir) = std::env::var_os("SFNIC_LAB_KEEP") else { return Ok(()) };
        let base = Path::new(&dir).join(&self.script);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(base.with_extension("out"), &self.outcome.stdout)?;
        std::fs::write(base.with_extension("err"), &self.outcome.stderr)?;
        std::fs::write(base.with_extension("dmesg"), &self.outcome.dmesg)?;
        std::fs::write(base.with_extension("console"), &self.outcome.console)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_from_the_output() {
        let checks = parse_checks("hello\nok ping 64\nnot ok tcp: hash differs: a, b\nokay\n");
        assert_eq!(checks.len(), 2);
        assert_eq!(checks[0], Check { name: "ping 64".into(), failure: None });
        assert_eq!(checks[1], Check { name: "tcp".into(), failure: Some("hash differs: a, b".into()) });
    }

    fn report(stdout: &str, dmesg: &str) -> Report {
        let outcome = Outcome { stdout: stdout.into(), dmesg: dmesg.to_owned(), ..Outcome::default() };
        Report {
            script: "x".into(),
            checks: parse_checks(stdout),
            outcome,
            unmodelled: vec![],
            object_counts: Counts::new(),
            provoked: vec![],
        }
    }

    #[test]
    fn a_good_run_has_no_faults() {
        report("ok a\n", "<6>[    1.000000] mlx5_core 0000:01:00.0: firmware version: 1\n").ok();
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        assert_eq!(report("", "").faults(), ["the script checked nothing"]);
        let mut r = report("ok a\nnot ok b: c\n", "<3>[    1.000000] mlx5_core 0000:01:00.0: bad\n");
        r.outcome.status = 3;
        r.unmodelled.push((Access::Opcode(0x115), 2));
        r.object_counts.entry("pf0/0x0".into()).or_default().insert("Cq".into(), 1);
        assert_eq!(r.faults().len(), 5);
    }

    #[test]
    fn what_was_provoked_has_to_come() {
        let line = "<3>[    1.000000] mlx5_core 0000:01:00.0: no more SFs\n";
        assert_eq!(report("ok a\n", line).provokes("no more SFs").faults(), Vec::<String>::new());
        assert_eq!(report("ok a\n", "").provokes("no more SFs").faults().len(), 1);
    }
}
