//! Many suites on many kernels.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use sfnic_ci::{Cell, Column, Matrix, Status, Suite};
use sfnic_firmware_cmds::Opcode;
use sfnic_qemu::Kit;

use super::{Lab, Ran, run_suite};

/// A kernel of the plan, ready to boot or not.
pub struct Kernel {
    /// What it is called.
    pub name: String,
    /// What it boots from, or why it cannot be had.
    pub kit: Result<Kit, String>,
}

/// What to run.
pub struct Plan {
    /// The kernels.
    pub kernels: Vec<Kernel>,
    /// The suites.
    pub suites: Vec<&'static Suite>,
    /// How many guests may run at a time.
    pub jobs: usize,
    /// Where everything that was said is kept; none: what failed alone, in a new directory.
    pub keep: Option<PathBuf>,
    /// Commands that the devices refuse.
    pub refuse: Vec<Opcode>,
}

/// How a plan gets on.
pub enum Event<'a> {
    /// A suite starts on a kernel.
    Starts(&'a str, &'a Suite),
    /// A suite has ended, as one of how many so far.
    Ended(&'a Cell, usize),
}

/// What runs at a time.
struct Run<'a> {
    plan: &'a Plan,
    tell: &'a (dyn Fn(Event<'_>) + Sync),
    queue: Mutex<VecDeque<(&'a Kernel, &'static Suite)>>,
    matrix: Mutex<Matrix>,
    /// Suites that have to be alone hold it for writing.
    room: RwLock<()>,
    logs: Mutex<Option<PathBuf>>,
    signal: AtomicI32,
}

impl Plan {
    /// How many cells there will be.
    pub fn len(&self) -> usize {
        self.kernels.len() * self.suites.len()
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs all of it, kernel by kernel. `tell` hears how it gets on, from several threads.
    /// A signal that ended a guest ends it all: its number is the inner error.
    ///
    /// # Errors
    /// A directory for the logs, or a thread, could not be had.
    pub fn run(&self, tell: &(dyn Fn(Event<'_>) + Sync)) -> Result<Result<Matrix, i32>> {
        let release = |k: &Kernel| k.kit.as_ref().map(|kit| kit.release().to_owned()).unwrap_or_default();
        let columns = self.kernels.iter().map(|k| Column { name: k.name.clone(), release: release(k) }).collect();
        let all = self.kernels.iter().flat_map(|k| self.suites.iter().map(move |s| (k, *s)));
        let run = Run {
            plan: self,
            tell,
            queue: Mutex::new(all.collect()),
            matrix: Mutex::new(Matrix::new(columns, &self.suites)),
            room: RwLock::new(()),
            logs: Mutex::new(self.keep.clone()),
            signal: AtomicI32::new(0),
        };
        std::thread::scope(|scope| {
            let start = |n| std::thread::Builder::new().name(format!("guest-{n}")).spawn_scoped(scope, || run.work());
            let threads: Vec<_> = (0..self.jobs.max(1)).map(start).collect::<Result<_, _>>()?;
            threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a runner of guests died")))
        })?;
        match run.signal.into_inner() {
            0 => Ok(Ok(run.matrix.into_inner())),
            signal => Ok(Err(signal)),
        }
    }
}

impl Run<'_> {
    fn work(&self) -> Result<()> {
        loop {
            let next = self.queue.lock().pop_front();
            let Some((kernel, suite)) = next else { return Ok(()) };
            let Some(cell) = self.cell(kernel, suite)? else {
                self.queue.lock().clear();
                return Ok(());
            };
            let mut matrix = self.matrix.lock();
            matrix.cells.push(cell.clone());
            (self.tell)(Event::Ended(&cell, matrix.cells.len()));
        }
    }

    /// None if a signal came.
    fn cell(&self, kernel: &Kernel, suite: &'static Suite) -> Result<Option<Cell>> {
        let kit = match &kernel.kit {
            Ok(kit) => kit,
            Err(why) => return Ok(Some(Cell::broken(&kernel.name, suite, format!("no such kernel: {why}")))),
        };
        if let Some(reason) = suite.skip(kit.release()) {
            return Ok(Some(Cell::skipped(&kernel.name, suite, reason)));
        }
        if suite.kernel_tests && !kit.has_selftests() {
            let reason = "built without the kernel's own tests; `sfnic suite kselftest --kernel` makes them";
            return Ok(Some(Cell::skipped(&kernel.name, suite, reason.to_owned())));
        }
        let lab = Lab {
            timeout: suite.timeout.mul_f64(kit.timeout_factor()),
            refuse: self.plan.refuse.clone(),
            places: self.plan.jobs,
            ..Lab::of(suite)
        };
        let (_alone, _beside);
        if suite.alone {
            _alone = self.room.write();
        } else {
            _beside = self.room.read();
        }
        (self.tell)(Event::Starts(&kernel.name, suite));
        let guests = match run_suite(kit, suite, lab) {
            Ok(Ran::Done(guests)) => guests,
            Ok(Ran::Interrupted(signal)) => {
                self.signal.store(signal, Ordering::SeqCst);
                return Ok(None);
            }
            Err(e) => return Ok(Some(Cell::broken(&kernel.name, suite, format!("the guest did not start: {e:#}")))),
        };
        let mut cell = Cell::judge(&kernel.name, suite, &guests);
        if self.plan.keep.is_some() || cell.status == Status::Fail {
            let dir = self.logs()?.join(file_name(&kernel.name));
            for (number, evidence) in guests.iter().enumerate() {
                let name = if number == 0 { suite.name.clone() } else { format!("{}-{}", suite.name, number + 1) };
                evidence.keep(&dir, &name).with_context(|| format!("cannot write into {}", dir.display()))?;
            }
            cell.logs = Some(dir.join(format!("{}.*", suite.name)));
        }
        Ok(Some(cell))
    }

    /// The directory of the logs, made when it is first needed.
    fn logs(&self) -> Result<PathBuf> {
        let mut logs = self.logs.lock();
        if let Some(dir) = &*logs {
            return Ok(dir.clone());
        }
        let dir = tempfile::Builder::new().prefix("sfnic-matrix-").tempdir().context("no directory for the logs")?;
        Ok(logs.insert(dir.keep()).clone())
    }
}

/// A kernel's name as that of a directory.
fn file_name(kernel: &str) -> PathBuf {
    let plain: String = kernel.chars().map(|c| if c == '/' { '_' } else { c }).collect();
    Path::new(plain.trim_start_matches('.')).to_path_buf()
}
