//! Runs a guest: boots it, runs a job in it, brings back what the job and the kernel said.

mod accel;
pub mod cmdline;
pub(crate) mod cpio;
mod job;
mod runner;
mod signals;
mod streams;
mod threads;
mod tty;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::kit::Kit;
pub use accel::Accel;

/// The status of a run that failed for a reason of ours or of QEMU.
pub const STATUS_FAILURE: i32 = 125;

/// What a guest runs.
#[derive(Debug, Clone)]
pub enum What {
    /// A file of the host: run by its own `#!` line if it is executable, else by `sh`.
    Script(PathBuf),
    /// A program of the guest and its arguments.
    Command(Vec<OsString>),
    /// A shell on the user's terminal.
    Shell,
}

/// A virtio network device of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtioNet {
    /// The vhost-user socket; QEMU connects to it, again if it has gone.
    pub socket: PathBuf,
    /// Queue pairs.
    pub queues: u8,
    /// The device's address.
    pub mac: [u8; 6],
}

/// A guest to run.
#[derive(Debug, Clone)]
pub struct Guest {
    /// How much memory: `2G`.
    pub mem: String,
    /// How many CPUs.
    pub cpus: u32,
    /// vfio-user sockets: each slot is behind a root port of its own, and its sockets are
    /// the functions 0, 1, … of the device there.
    pub slots: Vec<Vec<PathBuf>>,
    /// Virtio network devices whose other end is a vhost-user socket.
    pub virtio: Vec<VirtioNet>,
    /// Before each line of the job's output, where it is passed on, and of what we say.
    pub prefix: String,
    /// The host's directory at `/host`; none is an empty one that goes away.
    pub share: Option<PathBuf>,
    /// Leave loading the driver to the job.
    pub no_driver: bool,
    /// Where to keep what the serial console said.
    pub keep_console: Option<PathBuf>,
    /// The job.
    pub what: What,
    /// Environment variables of the job.
    pub env: Vec<(String, String)>,
    /// The longest that the whole run may take.
    pub timeout: Option<Duration>,
    /// Collect the job's output instead of passing it on as it comes.
    pub capture: bool,
    /// What the guest boots from is in `/host/boot` too, as `kernel` and `initrd`, for a
    /// guest that starts the next kernel itself.
    pub boot_files: bool,
    /// The devices are behind an IOMMU, in strict mode.
    pub iommu: bool,
    /// More options for QEMU.
    pub extra_args: Vec<OsString>,
    /// Nothing of ours on stderr.
    pub quiet: bool,
}

impl Default for Guest {
    fn default() -> Guest {
        Guest {
            mem: "2G".to_string(),
            cpus: 2,
            slots: Vec::new(),
            virtio: Vec::new(),
            prefix: String::new(),
            share: None,
            no_driver: false,
            keep_console: None,
            what: What::Shell,
            env: Vec::new(),
            timeout: None,
            capture: false,
            boot_files: false,
            iommu: false,
            extra_args: Vec::new(),
            quiet: false,
        }
    }
}

impl Guest {
    /// A guest with two CPUs, 2 GiB, no device and a shell.
    pub fn new() -> Guest {
        Guest::default()
    }

    /// Boots the guest and runs the job to its end.
    ///
    /// # Errors
    /// The guest could not even be started. What fails later is in [`Outcome::failure`].
    pub fn run(&self, kit: &Kit) -> Result<Outcome> {
        runner::run(self, kit)
    }

    /// The options by which any QEMU from 10.1 on attaches these devices, as a line for a
    /// shell.
    pub fn device_line(&self) -> String {
        let memory = cmdline::memory_args(&self.mem);
        let devices = cmdline::device_args(&self.slots).into_iter().chain(cmdline::virtio_args(&self.virtio));
        cmdline::text(memory.into_iter().chain(devices))
    }
}

/// What came of a guest.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The job's exit status; [`STATUS_FAILURE`] if there is a `failure`, 128 + its number after a signal.
    pub status: i32,
    /// The job's output, if it was captured.
    pub stdout: Vec<u8>,
    /// The job's standard error, if it was captured.
    pub stderr: Vec<u8>,
    /// The kernel's log of all boots, as `dmesg -r` prints it.
    pub dmesg: String,
    /// What the serial console said.
    pub console: String,
    /// How often the guest booted.
    pub boots: u32,
    /// How long all of it took.
    pub elapsed: Duration,
    /// From the start to the guest's first sign of life.
    pub booted_after: Option<Duration>,
    /// Why the run failed, in one line: a panic, a timeout, QEMU's end.
    pub failure: Option<String>,
}
