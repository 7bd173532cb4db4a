//! Turns: guests of all programs of a machine run no more at a time than it carries.

use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// What a guest uses of the machine's memory, in KiB: its own 2 GiB and QEMU's.
const GUEST_MEMORY: u64 = 3 << 20;
/// CPUs that a guest keeps busy: it boots on one, and waits for much of the rest.
const GUEST_CPUS: usize = 1;

/// How many guests this machine carries at a time.
pub fn capacity() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let available = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    places(cpus, available_memory(&available))
}

fn places(cpus: usize, memory: u64) -> usize {
    let by_memory = usize::try_from(memory / GUEST_MEMORY).unwrap_or(usize::MAX);
    (cpus / GUEST_CPUS).min(by_memory).max(1)
}

/// KiB that programs could have.
fn available_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

/// The right to run a guest: a name that one socket of the machine can have at a time and
/// that is free again when its process ends, however that is.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "holds the names")] Vec<UnixListener>);

impl Turn {
    /// Waits for one of that many places.
    ///
    /// # Errors
    /// The machine has no such sockets.
    pub fn wait(places: usize) -> Result<Self> {
        Ok(Self(vec![take(0..places.max(1))?]))
    }

    /// Waits for all of that many places: no other guest runs.
    ///
    /// # Errors
    /// The machine has no such sockets.
    pub fn alone(places: usize) -> Result<Self> {
        // In their order: two who want all do not wait for each other.
        (0..places.max(1)).map(|place| take(place..place + 1)).collect::<Result<_>>().map(Self)
    }
}

/// Waits for one of some places.
fn take(places: Range<usize>) -> Result<UnixListener> {
    loop {
        for place in places.clone() {
            let suffix = if place == 0 { String::new() } else { format!("-{place}") };
            let name = SocketAddr::from_abstract_name(format!("sfnic-lab-turn{suffix}"))?;
            match UnixListener::bind_addr(&name) {
                Ok(listener) => return Ok(listener),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(e).context("cannot wait for other guests"),
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_carries_at_least_one_guest() {
        assert_eq!((places(1, 0), places(2, 24 << 20)), (1, 2));
        assert_eq!((places(16, 100 << 20), places(64, 16 << 20)), (16, 5));
        assert_eq!(available_memory("MemTotal: 9 kB\nMemAvailable:   123 kB\n"), 123);
        assert!(capacity() >= 1);
    }
}
