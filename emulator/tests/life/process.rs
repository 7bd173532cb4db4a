//! A device in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sfnic_emulator::control::client::Client;

/// What it may take more than before, in KiB: the allocator's own.
const SLACK: u64 = 8 << 10;

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Resident memory that is its own, in KiB.
    pub(crate) memory: u64,
}

pub(crate) struct Process {
    child: Child,
    control: PathBuf,
}

impl Process {
    pub(crate) fn start(dir: &Path, name: &str, config: &str) -> Process {
        Self::run(Command::new(env!("CARGO_BIN_EXE_sfnic")), dir, name, config)
    }

    /// As [`Self::start`], in a network namespace of its own.
    pub(crate) fn start_in_network(dir: &Path, name: &str, config: &str) -> Process {
        let mut command = Command::new("unshare");
        command.args(["-n", env!("CARGO_BIN_EXE_sfnic")]);
        Self::run(command, dir, name, config)
    }

    fn run(mut command: Command, dir: &Path, name: &str, config: &str) -> Process {
        let file = dir.join(format!("{name}.toml"));
        std::fs::write(&file, config).unwrap();
        let control = dir.join(format!("{name}.control"));
        let _ = std::fs::remove_file(&control);
        let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        command.arg("run").arg("--config").arg(&file).arg("--control").arg(&control);
        command.arg("--socket").arg(dir.join(format!("{name}.pf0"))).env_remove("SFNIC_CONTROL");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut process = Process { child, control };
        let start = Instant::now();
        while Client::at(&process.control).get("/v1/device").is_err() {
            let ended = process.child.try_wait().unwrap();
            let said = || std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
            assert!(ended.is_none() && start.elapsed() < Duration::from_secs(30), "{name}: {ended:?}: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let reply = Client::at(&self.control).get(path).unwrap();
        assert!(reply.error().is_none(), "{path}: {:?}", reply.error());
        reply.body
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().unwrap().success(), "it did not end well");
    }

    pub(crate) fn usage(&self) -> Usage {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let entries = |dir: &str| std::fs::read_dir(proc.join(dir)).unwrap().count();
        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        let memory =
            status.lines().find_map(|l| l.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        Usage { descriptors: entries("fd"), threads: entries("task"), memory: memory.unwrap() }
    }

    /// It has as many descriptors and threads as before, and not much more memory.
    pub(crate) fn uses_no_more(&self, before: &Usage, when: &str) {
        let start = Instant::now();
        loop {
            let now = self.usage();
            let good = now.descriptors <= before.descriptors
                && now.threads <= before.threads
                && now.memory <= before.memory + SLACK;
            if good {
                return;
            }
            // A connection of ours to the control socket may be about to end.
            assert!(start.elapsed() < Duration::from_secs(5), "{when}: {before:?}, now {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
