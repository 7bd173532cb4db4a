//! A device's process is replaced by another one under its clients.

#[allow(dead_code)]
#[path = "../vfio_user/client.rs"]
mod client;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use client::{dma_map, set_irqs};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use sfnic_ci::{check, kernel_log, scripts};
use sfnic_emulator::control::client::Client as Control;
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_emulator::vfio_user::Command as Message;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Guest, Kit, KitOptions, What};

const BAR0: u32 = 0;
const CONFIG: u32 = 7;
/// `cmdq_phy_addr_63_32` and what is behind it, in BAR 0.
const QUEUE: u64 = 0x10;

/// A device in a process of its own.
struct Device {
    child: Child,
    dir: PathBuf,
    name: String,
}

impl Device {
    /// Starts one; all of a directory are offered on the same sockets.
    fn start(dir: &Path, name: &str, more: &[&str]) -> Result<Device> {
        let log = File::create(dir.join(format!("{name}.log")))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_sfnic"));
        command.arg("run").arg("--control").arg(dir.join(format!("{name}.control")));
        command.arg("--socket").arg(dir.join("pf0")).arg("--socket").arg(dir.join("pf1")).args(more);
        command.env_remove("SFNIC_CONTROL").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Device { child: command.spawn()?, dir: dir.to_owned(), name: name.to_owned() })
    }

    fn control(&self) -> PathBuf {
        self.dir.join(format!("{}.control", self.name))
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Waits until it is there.
    fn ready(mut self) -> Result<Device> {
        let start = Instant::now();
        while Control::at(&self.control()).get("/v1/device").is_err() {
            let ended = self.child.try_wait()?;
            let late = start.elapsed() > Duration::from_secs(30);
            ensure!(ended.is_none() && !late, "{}: {ended:?}: {}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }

    /// Another one in its place, which ends this one.
    fn replace(mut self, name: &str) -> Result<Device> {
        let control = self.control();
        let control = control.to_str().context("UTF-8")?;
        let next = Device::start(&self.dir, name, &["--take-over", control])?.ready()?;
        ensure!(self.child.wait()?.success(), "{}: {}", self.name, self.said());
        Ok(next)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_client_goes_on_with_another_process() -> Result<()> {
    const BYTES: u64 = 1 << 20;
    let dir = tempfile::tempdir()?;
    let first = Device::start(dir.path(), "first", &[])?.ready()?;
    let mut client = client::Client::attach(&dir.path().join("pf1"));
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, BYTES)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK)?;
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let ask = |client: &mut client::Client, command: Message, payload: &[u8], fds: &[&OwnedFd]| {
        client.request_with(command as u16, payload, fds).map_err(|e| anyhow::anyhow!("{command}: errno {e}"))
    };
    ask(&mut client, Message::DmaMap, &dma_map(3, 0, 0x10_0000, BYTES), &[&memory])?;
    ask(&mut client, Message::DeviceSetIrqs, &set_irqs(0x24, 2, 3, 1, &[]), &[&event])?;
    client.post(CONFIG, 4, &[6, 4]);
    client.post(BAR0, QUEUE, &[0, 0, 0, 0, 0, 0x10, 0x10, 0]);
    let state = |c: &mut client::Client| (c.read(BAR0, QUEUE, 8), c.read(CONFIG, 0, 64));
    let before = state(&mut client);
    assert!(before.0.as_ref().is_ok_and(|b| b[5..7] == [0x10, 0x10]), "{before:?}");

    // One that cannot go on with it leaves it to the one that has it.
    let control = first.control();
    let take = ["--take-over", control.to_str().context("UTF-8")?];
    let mut other = Device::start(dir.path(), "other", &[&take[..], &["--doorbells", "poll"]].concat())?;
    assert_eq!(other.child.wait()?.code(), Some(1), "{}", other.said());
    assert!(other.said().contains("its doorbells come in another way"), "{}", other.said());
    assert_eq!(state(&mut client), before);

    let mut now = first;
    for name in ["second", "third"] {
        now = now.replace(name)?;
        assert_eq!(state(&mut client), before, "{name}");
        // What it was told of memory and interrupts holds: neither can be told again.
        let again = client.request_with(Message::DmaMap as u16, &dma_map(3, 0, 0x10_0000, BYTES), &[&memory]);
        assert!(again.is_err(), "{name}: the range is mapped");
        client.request(Message::DeviceSetIrqs, &set_irqs(0x21, 2, 3, 1, &[])).map_err(|e| anyhow::anyhow!("{e}"))?;
        let mut raised = [0; 8];
        rustix::io::read(&event, &mut raised).with_context(|| format!("{name}: no interrupt"))?;
    }
    // The next client finds a new device.
    drop(client);
    let mut client = client::Client::attach(&dir.path().join("pf1"));
    assert!(client.read(BAR0, QUEUE, 8).is_ok_and(|b| b[4..6] == [0, 0]));
    Ok(())
}

#[test]
fn traffic_through_sfs_goes_on_with_another_process() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("sfnic-lab-").tempdir()?;
    let share = dir.path().join("host");
    std::fs::create_dir(&share)?;
    scripts::write(&share)?;
    let kit = Kit::ensure(&KitOptions::default(), DEFAULT_LINE)?;
    let _turn = Turn::wait(capacity())?;
    let first = Device::start(dir.path(), "first", &[])?.ready()?;
    let guest = Guest {
        mem: "1G".to_owned(),
        share: Some(share.clone()),
        slots: vec![vec![dir.path().join("pf0"), dir.path().join("pf1")]],
        what: What::Command(vec!["python3".into(), "/host/handover.py".into()]),
        timeout: Some(Duration::from_secs(300)),
        capture: true,
        quiet: true,
        ..Guest::new()
    };
    let waits = |name: &str| {
        let start = Instant::now();
        while !share.join(name).exists() && start.elapsed() < Duration::from_secs(200) {
            std::thread::sleep(Duration::from_millis(50));
        }
        share.join(name).exists()
    };
    let (outcome, replaced) = std::thread::scope(|scope| {
        let guest = scope.spawn(|| guest.run(&kit));
        let replace = || -> Result<Device> {
            ensure!(waits("runs.0"), "no traffic");
            let second = first.replace("second")?;
            std::fs::write(share.join("taken.0"), "")?;
            ensure!(waits("runs.1"), "no traffic after the first time");
            let third = second.replace("third")?;
            std::fs::write(share.join("taken.1"), "")?;
            Ok(third)
        };
        let replaced = replace();
        (guest.join().expect("no panic"), replaced)
    });
    let outcome = outcome?;
    let checks = check::parse(&String::from_utf8_lossy(&outcome.stdout));
    let mut wrong: Vec<String> = checks.iter().filter_map(|c| Some(format!("{}: {}", c.name, c.failure()?))).collect();
    if checks.is_empty() {
        wrong.push(format!("nothing was checked: {}", String::from_utf8_lossy(&outcome.stderr)));
    }
    wrong.extend(outcome.failure);
    wrong.extend(kernel_log::faults(&outcome.dmesg).into_iter().map(|line| format!("kernel: {line}")));
    let third = replaced.map_err(|e| wrong.push(format!("{e:#}")));
    assert_eq!(wrong, Vec::<String>::new(), "{}", third.map(|d| d.said()).unwrap_or_default());
    Ok(())
}
