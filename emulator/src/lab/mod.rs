//! The lab: a device in this process, a guest that drives it, and what the guest left.
//!
//! What runs is a suite of `sfnic_ci`; [`run_suite`] runs one, [`plan`] many of them on many
//! kernels. Guests of all programs share the machine by [`turn`]s: one wants it whole.

pub mod ask;
pub mod inject;
mod keys;
pub mod plan;
pub mod turn;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use sfnic_ci::{Evidence, Suite, scripts};
use sfnic_device_model::nic::{CardConfig, Manager};
use sfnic_firmware_cmds::Opcode;
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::{Guest, Kit, KitOptions, Outcome, What};

use crate::board::{Begin, Board, BoardConfig, DoorbellMode};
use crate::config;
use crate::control::server::Server;
use crate::control::{DEFAULT_HANDLE, Target};
use crate::suite::data::Data;
use crate::suite::{self, Job};
use keys::Keys;
use turn::Turn;

/// How often a program of the kernel's own tests runs again while cases fail.
const RETRIES: u32 = 2;

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
    /// The device is behind an IOMMU.
    pub iommu: bool,
    /// The guest finds its kernel and its initrd in `/host/boot`.
    pub boot_files: bool,
    /// The device manages its eswitch itself.
    pub embedded: bool,
    /// The kernel's own tests, which the script runs, and where they are.
    pub tests: Option<(Job, PathBuf)>,
    /// Capabilities that differ from the profile's.
    pub caps: Vec<String>,
    /// Doorbells are polled.
    pub poll: bool,
    /// What the ports are connected to, as a configuration has it; a cable where it is empty.
    pub wires: String,
    /// More options for QEMU.
    pub qemu: Vec<String>,
    /// Variables for the script.
    pub env: Vec<(String, String)>,
    /// Commands that the device refuses, to see that somebody notices.
    pub refuse: Vec<Opcode>,
    /// How many guests of all programs may run at a time.
    pub places: usize,
    /// No other guest may run meanwhile.
    pub alone: bool,
    /// Fills bits that mean nothing with noise from this seed; `SFNIC_NOISE` has one for all.
    pub noise: Option<u64>,
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
            iommu: false,
            boot_files: false,
            embedded: false,
            tests: None,
            caps: vec![],
            poll: false,
            wires: String::new(),
            qemu: vec![],
            env: vec![],
            refuse: vec![],
            places: turn::capacity(),
            alone: false,
            noise: std::env::var("SFNIC_NOISE").ok().and_then(|seed| seed.parse().ok()),
        }
    }
}

impl Lab {
    /// Two physical functions joined by a cable, two CPUs.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a suite wants. `SFNIC_SEED` is the seed of what it does by chance.
    pub fn of(suite: &Suite) -> Self {
        let seed = std::env::var("SFNIC_SEED").ok().map(|seed| ("SEED".to_owned(), seed));
        Self {
            vectors: suite.vectors,
            max_sfs: suite.max_sfs,
            workers: suite.workers,
            cpus: suite.cpus,
            timeout: suite.timeout,
            iommu: suite.iommu,
            boot_files: suite.boot_files,
            embedded: suite.embedded,
            caps: suite.caps.clone(),
            poll: suite.poll,
            alone: suite.alone,
            wires: suite.wires.clone(),
            qemu: suite.qemu.clone(),
            env: suite.env.clone().into_iter().chain(seed).collect(),
            ..Self::default()
        }
    }

    /// The device without a guest.
    ///
    /// # Errors
    /// The profile or a thread could not be had.
    pub fn board(&self) -> Result<Board> {
        let manager = if self.embedded { Manager::Embedded } else { Manager::Host };
        let around =
            config::table(&self.wires).and_then(|table| config::parse(&table, None)).map_err(anyhow::Error::msg)?;
        let cards = around.pfs.iter().map(|pf| {
            let (vectors, max_sfs) = (self.vectors, self.max_sfs);
            CardConfig { vectors, max_sfs, manager, ..pf.card.clone() }
        });
        let mut profile = Profile::builtin("connectx6dx")?;
        self.caps.iter().try_for_each(|cap| profile.set(cap))?;
        let board = Board::new(BoardConfig {
            profile,
            cards: cards.collect(),
            wires: around.pfs.iter().map(|pf| pf.wire.clone()).collect(),
            impair: around.pfs.iter().map(|pf| pf.impair).collect(),
            switches: around.switches,
            workers: self.workers,
            doorbells: if self.poll { DoorbellMode::Poll } else { DoorbellMode::Trap },
            noise: self.noise,
            faults: vec![],
            slices: vec![],
            begin: Begin::PowerOn,
        })?;
        for opcode in &self.refuse {
            let fault = format!("fail {}", opcode.name().unwrap_or("any")).parse().map_err(anyhow::Error::msg)?;
            board.nic.fault_add(fault).map_err(anyhow::Error::msg)?;
        }
        Ok(board)
    }

    /// Builds the device, for one guest after another.
    ///
    /// # Errors
    /// The device or its sockets could not be had.
    pub fn start(self) -> Result<Bench> {
        let dir = tempfile::Builder::new().prefix("sfnic-lab-").tempdir()?;
        let (board, workers) = (self.board()?, self.workers);
        let sockets: Vec<PathBuf> = (0..2).map(|i| dir.path().join(format!("pf{i}"))).collect();
        board.serve(&sockets)?;
        let control = Server::start(Target::of(&board, DEFAULT_HANDLE, workers), &dir.path().join("control"), None)?;
        Ok(Bench { lab: self, board, sockets, control, dir })
    }
}

/// What the guests of a suite left.
#[derive(Debug)]
pub enum Ran {
    /// They came to their end.
    Done(Vec<Evidence>),
    /// A signal with that number ended this program's guest.
    Interrupted(i32),
}

/// Runs a suite: its guest, and the one that comes after it if there is one.
///
/// # Errors
/// A guest could not even be started.
pub fn run_suite(kit: &Kit, suite: &Suite, lab: Lab) -> Result<Ran> {
    let mut packages = suite.with.clone();
    if suite.kernel_tests {
        packages.extend(suite::PACKAGES.iter().map(ToString::to_string));
    }
    let kit = if packages.is_empty() { kit } else { &kit.with(&packages)? };
    let lab = match suite.kernel_tests {
        false => lab,
        true => {
            let data = Data::builtin()?;
            let programs = data.programs.clone();
            let job = Job::new(data, programs, RETRIES);
            let timeout = job.timeout().mul_f64(kit.timeout_factor());
            Lab { timeout, tests: Some((job, kit.selftests(&KitOptions::default())?)), ..lab }
        }
    };
    let bench = lab.start()?;
    let mut guests = vec![];
    for script in [Some(&suite.script), suite.then.as_ref()].into_iter().flatten() {
        match bench.run(kit, script)? {
            Ok(evidence) => guests.push(evidence),
            Err(signal) => return Ok(Ran::Interrupted(signal)),
        }
    }
    Ok(Ran::Done(guests))
}

/// What the kernel's own tests said, and a line a case of what came of them.
fn told(job: &Job, share: &Path) -> (String, String) {
    let (said, ran) = job.outcome(share);
    (said, suite::report::checks(&ran))
}

/// A running device on its sockets.
pub struct Bench {
    lab: Lab,
    /// The device.
    pub board: Board,
    sockets: Vec<PathBuf>,
    control: Server,
    dir: tempfile::TempDir,
}

impl Bench {
    /// Boots a guest with the device and runs a script in it; a signal that ended it is the
    /// inner error.
    ///
    /// # Errors
    /// The guest could not even be started.
    pub fn run(&self, kit: &Kit, script: &str) -> Result<Result<Evidence, i32>> {
        let share = self.dir.path().join("host");
        std::fs::create_dir(&share)?;
        scripts::write(&share)?;
        let nic = self.board.nic.clone();
        let monitor = self.dir.path().join("qmp");
        let monitor_option = Keys::option(&monitor);
        let keys = Mutex::new(None);
        let control = self.control.path().to_owned();
        let answer = move |question: &str| match question {
            "keys" => {
                keys.lock().get_or_insert_with(|| Keys::press(monitor.clone()));
                serde_json::to_value(true)
            }
            _ => ask::answer(&nic, &control, question),
        };
        let mut words = vec!["python3".to_owned(), format!("/host/{script}")];
        let mut env = self.lab.env.clone();
        env.push(("SFNIC_PATIENCE".to_owned(), kit.timeout_factor().to_string()));
        let mut mem = Guest::new().mem;
        if let Some((job, tests)) = &self.lab.tests {
            job.supply(tests, &share)?;
            words.extend(job.words());
            env.extend(job.env());
            mem = suite::MEMORY.to_owned();
        }
        let guest = Guest {
            mem,
            cpus: self.lab.cpus,
            slots: vec![self.sockets.clone()],
            share: Some(share.clone()),
            what: What::Command(words.into_iter().map(Into::into).collect()),
            env,
            timeout: Some(self.lab.timeout),
            capture: true,
            quiet: true,
            // A script can end QEMU at once by writing to this port.
            extra_args: ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
                .into_iter()
                .chain(monitor_option.iter().chain(&self.lab.qemu).map(String::as_str))
                .map(Into::into)
                .collect(),
            iommu: self.lab.iommu,
            boot_files: self.lab.boot_files,
            ..Guest::new()
        };
        let outcome = {
            let places = self.lab.places;
            let _turn = if self.lab.alone { Turn::alone(places) } else { Turn::wait(places) }?;
            let answers = ask::Answers::start(&share, answer);
            let outcome = guest.run(kit);
            answers.stop();
            outcome?
        };
        let told = self.lab.tests.as_ref().map(|(job, _)| told(job, &share));
        std::fs::remove_dir_all(&share)?;
        if outcome.status > 128 && outcome.failure.as_ref().is_some_and(|why| why.starts_with("interrupted")) {
            return Ok(Err(outcome.status - 128));
        }
        let evidence = self.evidence(script, outcome);
        Ok(Ok(match told {
            None => evidence,
            // The script's own status says no more than its cases do.
            Some((said, checks)) => Evidence {
                status: if evidence.failure.is_none() { 0 } else { evidence.status },
                stderr: evidence.stderr + &said,
                stdout: checks,
                ..evidence
            },
        }))
    }

    fn evidence(&self, script: &str, outcome: Outcome) -> Evidence {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Evidence {
            script: script.to_owned(),
            status: outcome.status,
            stdout: text(&outcome.stdout),
            stderr: text(&outcome.stderr),
            dmesg: outcome.dmesg,
            console: outcome.console,
            boots: outcome.boots,
            elapsed: outcome.elapsed,
            failure: outcome.failure,
            unmodelled: self.board.nic.unmodelled.list().into_iter().map(|(a, n)| (a.to_string(), n)).collect(),
            left: self.left(),
        }
    }

    /// The objects that a guest left behind; the device may take a moment to see its end.
    fn left(&self) -> Vec<String> {
        let counts = || self.board.nic.object_counts();
        for _ in 0..100 {
            if counts().values().flat_map(BTreeMap::values).all(|n| *n == 0) {
                return vec![];
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut left = vec![];
        for (function, kinds) in counts() {
            left.extend(kinds.into_iter().filter(|(_, n)| *n != 0).map(|(kind, n)| format!("{function}: {n} {kind}")));
        }
        left
    }
}
