//! A virtio driver in this process: the front end of a vhost-user session, for benchmarks.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::wire::vhost::inline::Inline;
use crate::wire::vhost::message::request;

/// Buffers of each ring.
pub(super) const RING: u16 = 1024;
/// Bytes before each frame.
const HEADER: u64 = 12;
/// Where the rings and the buffers of each are.
const RINGS: [u64; 2] = [0, 0x2_0000];
const AVAILABLE: u64 = 0x8000;
const USED: u64 = 0x1_0000;
const BUFFERS: u64 = 0x10_0000;
/// Descriptor flag: the device writes.
const WRITE: u16 = 2;
/// Available ring's flag: no interrupts.
const NO_INTERRUPT: u16 = 1;

/// VERSION_1, mergeable buffers; large frames and checksums both ways.
const FEATURES: u64 = 1 << 32 | 1 << 15 | 0b11 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12;

/// A driver with one pair of rings.
pub(super) struct Front {
    pub(super) session: Inline,
    mem: GuestMemoryMmap,
    stride: u64,
    /// The driver's indexes: offered to the device, taken from it.
    offered: [u16; 2],
    taken: [u16; 2],
}

impl Front {
    /// A driver whose frames are of `size` bytes at most, and each of whose buffers to send
    /// holds a copy of `frame`.
    pub(super) fn new(size: u32, frame: &[u8]) -> anyhow::Result<Self> {
        let stride = (u64::from(size) + HEADER).next_multiple_of(2048);
        let length = BUFFERS + 2 * stride * u64::from(RING);
        let fd = rustix::fs::memfd_create("virtio", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, length)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK)?;
        let map = FileOffset::new(fd.try_clone()?.into(), 0);
        let mem = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), length as usize, Some(map))])?;
        let session = Inline::new()?;
        let mut front = Self { session, mem, stride, offered: [0; 2], taken: [0; 2] };
        for (ring, base) in RINGS.into_iter().enumerate() {
            for i in 0..RING {
                let (length, flags) = match ring {
                    0 => (stride, WRITE),
                    _ => (HEADER + frame.len() as u64, 0),
                };
                let at = base + 16 * u64::from(i);
                front.put(at, front.buffer(ring, i))?;
                front.put(at + 8, length as u32)?;
                front.put(at + 12, flags)?;
                front.put(base + AVAILABLE + 4 + 2 * u64::from(i), i)?;
            }
            front.put(base + AVAILABLE, NO_INTERRUPT)?;
        }
        for i in 0..RING {
            front.mem.write_slice(frame, GuestAddress(front.buffer(1, i) + HEADER))?;
        }
        front.start(fd, length).map_err(anyhow::Error::msg).context("the vhost-user session")?;
        front.offer(0, RING)?;
        Ok(front)
    }

    fn start(&mut self, memory: OwnedFd, length: u64) -> Result<(), String> {
        let quads = |v: &[u64]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let state = |index: u64, n: u64| quads(&[n << 32 | index]);
        let kick = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(|e| e.to_string());
        self.session.say(request::SET_FEATURES, quads(&[FEATURES]), vec![])?;
        self.session.say(request::SET_MEM_TABLE, quads(&[1, 0, length, 0, 0]), vec![memory])?;
        for (index, at) in (0..).zip(RINGS) {
            self.session.say(request::SET_VRING_NUM, state(index, RING.into()), vec![])?;
            self.session.say(request::SET_VRING_ADDR, quads(&[index, at, at + USED, at + AVAILABLE, 0]), vec![])?;
            self.session.say(request::SET_VRING_KICK, quads(&[index]), vec![kick()?])?;
        }
        Ok(())
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) -> anyhow::Result<()> {
        Ok(self.mem.write_obj(value, GuestAddress(at))?)
    }

    fn buffer(&self, ring: usize, i: u16) -> u64 {
        BUFFERS + self.stride * (u64::from(RING) * ring as u64 + u64::from(i))
    }

    fn offer(&mut self, ring: usize, n: u16) -> anyhow::Result<()> {
        self.offered[ring] = self.offered[ring].wrapping_add(n);
        let at = GuestAddress(RINGS[ring] + AVAILABLE + 2);
        Ok(self.mem.store(self.offered[ring], at, std::sync::atomic::Ordering::Release)?)
    }

    fn used(&mut self, ring: usize) -> anyhow::Result<u16> {
        let at = GuestAddress(RINGS[ring] + USED + 2);
        let used: u16 = self.mem.load(at, std::sync::atomic::Ordering::Acquire)?;
        Ok(used.wrapping_sub(std::mem::replace(&mut self.taken[ring], used)))
    }

    /// Has the next `n` buffers sent; those of before have come back.
    pub(super) fn send(&mut self, n: u16) -> anyhow::Result<()> {
        self.used(1)?;
        self.offer(1, n)
    }

    /// Takes what has come and gives the buffers back; how many there were.
    pub(super) fn receive(&mut self) -> anyhow::Result<u16> {
        let n = self.used(0)?;
        // Buffers come back in the order in which they were offered.
        self.offer(0, n)?;
        Ok(n)
    }
}
