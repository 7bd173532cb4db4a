//! Machines at one device, for tests that make the device and drive the machines themselves.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use sfnic_ci::{check, kernel_log, scripts};
use sfnic_device_model::slice::Flavour;
use sfnic_emulator::board::Board;
use sfnic_emulator::config::SliceConfig;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Guest, Kit, KitOptions, Outcome, What};

/// Variable with which transfers are of so many MiB, instead of few.
const SIZE: &str = "SFNIC_SIZE_MIB";

/// Where such a test takes place: a directory with the sockets, a folder that all machines
/// have, and the kit that they are made of.
pub struct Stage {
    dir: tempfile::TempDir,
    /// `/host` of every machine, with all scripts.
    pub share: PathBuf,
    /// The kit with its first kernel.
    pub kit: Kit,
}

impl Stage {
    /// # Errors
    /// No directory, no kit.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sfnic-lab-").tempdir()?;
        let share = dir.path().join("host");
        std::fs::create_dir(&share)?;
        scripts::write(&share)?;
        Ok(Self { dir, share, kit: Kit::ensure(&KitOptions::default(), DEFAULT_LINE)? })
    }

    /// A file beside the folder of the machines: a socket, for example.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a slice's machine connects to, if its physical function's socket is in
    /// [`path`](Self::path).
    pub fn slice(&self, index: u32) -> PathBuf {
        self.path(&format!("slice{index}.sock"))
    }

    /// A machine that runs a script with these variables, and that may end itself abruptly
    /// (`die` in `lab.py`).
    pub fn guest(&self, script: &str, env: &[(&str, &str)]) -> Guest {
        let size = std::env::var(SIZE).ok();
        let all = env.iter().copied().chain(size.as_deref().map(|mib| ("SIZE_MIB", mib)));
        let mib: u64 = size.as_deref().and_then(|mib| mib.parse().ok()).unwrap_or(0);
        Guest {
            mem: "1G".to_owned(),
            share: Some(self.share.clone()),
            what: What::Command(vec!["python3".into(), format!("/host/{script}").into()]),
            env: all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            timeout: Some(Duration::from_secs(400 + 4 * mib)),
            capture: true,
            quiet: true,
            extra_args: vec!["-device".into(), "isa-debug-exit,iobase=0xf4,iosize=0x04".into()],
            ..Guest::new()
        }
    }

    /// Waits until a machine has told that (`tell` in `peer.py`): whether it has.
    pub fn told(&self, what: &str) -> bool {
        let (file, waiting) = (self.share.join(what), Instant::now());
        while !file.exists() && waiting.elapsed() < Duration::from_secs(250) {
            std::thread::sleep(Duration::from_millis(50));
        }
        file.exists()
    }

    /// Runs a machine, and another one from when the first says that it listens, twice: its
    /// first life ends abruptly. What they found wrong.
    ///
    /// # Errors
    /// A machine could not be run.
    pub fn two_lives(&self, a: &Guest, first: &Guest, second: &Guest) -> Result<Vec<String>> {
        let (a, [first, second]) = std::thread::scope(|scope| {
            let a = scope.spawn(|| a.run(&self.kit));
            self.told("a.listens");
            let lives = [first.run(&self.kit), second.run(&self.kit)];
            (a.join().expect("no panic"), lives)
        });
        Ok([faults("a", &a?), faults_until_death("b", &first?), faults("b again", &second?)].concat())
    }
}

/// An inactive slice of the first physical function, of this `sfnum`: its index is that and
/// 100, its address ends in it.
pub fn slice(flavour: Flavour, number: u8) -> SliceConfig {
    SliceConfig {
        flavour,
        pf: 0,
        number: number.into(),
        index: 100 + u32::from(number),
        hw_addr: [2, 0, 0, 0, 0, number],
        active: false,
        socket: None,
        vectors: None,
    }
}

/// What a machine's script and kernel found wrong.
pub fn faults(who: &str, outcome: &Outcome) -> Vec<String> {
    let mut faults = faults_until_death(who, outcome);
    faults.extend(outcome.failure.as_ref().map(|why| format!("{who}: {why}")));
    faults
}

/// As [`faults`], of a machine whose end is no fault.
pub fn faults_until_death(who: &str, outcome: &Outcome) -> Vec<String> {
    let checks = check::parse(&String::from_utf8_lossy(&outcome.stdout));
    let mut faults: Vec<String> =
        checks.iter().filter_map(|c| Some(format!("{who}: {}: {}", c.name, c.failure()?))).collect();
    if checks.is_empty() {
        faults.push(format!("{who}: it checked nothing: {}", String::from_utf8_lossy(&outcome.stderr)));
    }
    faults.extend(kernel_log::faults(&outcome.dmesg).into_iter().map(|line| format!("{who}: kernel: {line}")));
    faults
}

/// What machines that are gone left in the device, and what they wanted and it does not model.
pub fn left(board: &Board) -> Vec<String> {
    let objects = board.nic.object_counts();
    let left = objects.iter().filter(|(_, kinds)| kinds.values().any(|n| *n > 0)).map(|o| format!("left: {o:?}"));
    let unmodelled = board.nic.unmodelled.list();
    left.chain(unmodelled.iter().map(|(access, n)| format!("not modelled: {n} × {access}"))).collect()
}
