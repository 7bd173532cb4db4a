//! KVM if it really boots a guest, else emulation (TCG).

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cpio::Cpio;
use super::streams::contains;
use crate::kit::Kit;
use crate::process;

/// How the guest's CPUs are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accel {
    /// By the host's own CPUs.
    Kvm,
    /// In software, and why.
    Tcg(String),
}

impl Accel {
    /// QEMU's options for it.
    pub fn args(&self) -> Vec<String> {
        // Under TCG the string instructions that newer CPU models announce are slow.
        let words: [&str; 4] = match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg(_) => ["-accel", "tcg,thread=multi", "-cpu", "Nehalem"],
        };
        words.map(String::from).to_vec()
    }
}

/// Chooses, and remembers the result of the probe until the machine boots again.
/// `SFNIC_ACCEL=kvm` or `tcg` decides instead.
pub(crate) fn choose(kit: &Kit) -> Accel {
    match std::env::var("SFNIC_ACCEL").as_deref() {
        Ok("kvm") => return Accel::Kvm,
        Ok("tcg") => return Accel::Tcg("SFNIC_ACCEL says so".to_string()),
        _ => {}
    }
    if let Err(e) = File::options().read(true).write(true).open("/dev/kvm") {
        let why = match e.kind() {
            std::io::ErrorKind::NotFound => "this machine has no /dev/kvm".to_string(),
            _ => format!("/dev/kvm: {e}"),
        };
        return Accel::Tcg(why);
    }
    let memo = &kit.probe().memo;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = format!("{} {} {}", boot.trim(), kit.probe().release, kit.qemu().version);
    let old = fs::read_to_string(memo).unwrap_or_default();
    let works = match old.strip_prefix(&format!("{key} ")).map(str::trim) {
        Some("works") => true,
        Some("fails") => false,
        _ => {
            let works = probe(kit).unwrap_or(false);
            let _ = fs::write(memo, format!("{key} {}\n", if works { "works" } else { "fails" }));
            works
        }
    };
    if works { Accel::Kvm } else { Accel::Tcg("/dev/kvm is there but does not boot a guest".to_string()) }
}

/// What the probe's guest says when it lives.
const MARK: &[u8] = b"sfnic-kvm-works";

/// Boots a kernel to its first program.
fn probe(kit: &Kit) -> Result<bool> {
    let mut cpio = Cpio::new();
    let script = format!("#!/bin/busybox sh\necho {}\n/bin/busybox sleep 60\n", String::from_utf8_lossy(MARK));
    cpio.file("init", 0o755, script.as_bytes());
    let mut initrd = fs::read(&kit.probe().initrd)?;
    initrd.extend(cpio.finish());
    let initrd = process::memory_file("initrd", &initrd)?;
    let mut command = kit.qemu().command();
    command.args(["-machine", "q35", "-m", "512M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(Accel::Kvm.args()).args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"]);
    command.arg("-kernel").arg(&kit.probe().kernel).arg("-initrd").arg(process::path_of(&initrd));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    process::tie_to_parent(&mut command, &[&initrd]);
    let mut child = command.spawn()?;
    let pipe = child.stdout.take();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut bytes = [0u8; 4096];
        let Some(mut pipe) = pipe else { return };
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            seen.extend(&bytes[..count]);
            if contains(&seen, MARK) {
                let _ = send.send(());
                return;
            }
        }
    });
    let started = Instant::now();
    let works = receive.recv_timeout(Duration::from_secs(15)).is_ok();
    tracing::debug!(works, elapsed = ?started.elapsed(), "KVM probe");
    let _ = child.kill();
    let _ = child.wait();
    Ok(works)
}
