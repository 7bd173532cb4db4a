//! The entry point for fuzzing: a connection without a socket.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags};

use super::connection::{Connection, Options, ReplySink};
use super::counters::Counters;
use super::device::{Interrupts, PciDevice};
use super::dma::DmaMap;

/// A device that touches what it is given and does nothing else.
#[derive(Default)]
struct NullDevice {
    memory: ArcSwap<DmaMap>,
}

impl PciDevice for NullDevice {
    fn config_read(&self, offset: u32, data: &mut [u8]) {
        assert!(offset as usize + data.len() <= 4096);
        data.fill(0xa5);
    }

    fn config_write(&self, offset: u32, data: &[u8]) {
        assert!(offset as usize + data.len() <= 4096);
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        assert!(offset + data.len() as u64 <= self.bar_size(bar));
        data.fill(0x5a);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= self.bar_size(bar));
    }

    fn bar_size(&self, bar: u8) -> u64 {
        [0x200_0000, 0, 0x4000, 0, 0, 0].get(usize::from(bar)).copied().unwrap_or(0)
    }

    fn msix_vectors(&self) -> u16 {
        64
    }

    fn reset(&self) {}

    fn dma_changed(&self, map: Arc<DmaMap>) {
        // One byte at either end of each range: no range may be a trap.
        for region in map.regions() {
            let mut byte = [0];
            let last = region.start() + (region.size() - 1);
            let _ = map.read(region.start(), &mut byte);
            let _ = map.write(last, &byte);
        }
        self.memory.store(map);
    }

    fn attached(&self, irq: Arc<dyn Interrupts>) {
        irq.raise(0);
    }

    fn detached(&self) {}
}

/// Checks that every reply is one whole message of the size it says.
struct CheckingSink;

impl ReplySink for CheckingSink {
    fn send(&mut self, message: &[u8], _fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let size = message.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
        assert_eq!(size as usize, message.len());
        Ok(())
    }
}

/// Runs a stream of a client through a connection with a device of no
/// behaviour.
///
/// The input is a sequence of chunks as the socket could deliver them, each
/// with a head of three bytes: how many descriptors of which kind come with
/// it (low and high four bits: eventfd, sealed memory, memory without seals,
/// a device node), and its length (16 bits, little endian). A chunk that is
/// cut short by the end of the input is used as far as it goes.
///
/// Must not panic on any input.
pub fn fuzz_one(bytes: &[u8]) {
    let device = Arc::new(NullDevice::default());
    let counters = Arc::new(Counters::default());
    let mut connection = Connection::new(device, &Options::default(), None, counters);
    let mut rest = bytes;
    while let Some((&[fds, low, high], tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(tail.len());
        let (chunk, tail) = tail.split_at(length);
        rest = tail;
        if connection.feed(chunk, descriptors(fds), &mut CheckingSink).is_err() {
            return;
        }
    }
}

fn descriptors(head: u8) -> Vec<OwnedFd> {
    (0..head & 0xf).filter_map(|_| descriptor(head >> 4)).collect()
}

fn descriptor(kind: u8) -> Option<OwnedFd> {
    match kind % 4 {
        0 => eventfd(0, EventfdFlags::CLOEXEC).ok(),
        kind @ (1 | 2) => {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let fd = rustix::fs::memfd_create("fuzz", flags).ok()?;
            rustix::fs::ftruncate(&fd, 0x10000).ok()?;
            let seals = if kind == 1 { SealFlags::SHRINK } else { SealFlags::SEAL };
            rustix::fs::fcntl_add_seals(&fd, seals).ok()?;
            Some(fd)
        }
        _ => File::open("/dev/null").ok().map(OwnedFd::from),
    }
}
