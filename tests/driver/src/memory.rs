//! Guest memory, and what is taken of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sfnic_device_model::dma::{DmaAccess, Memory};
use vm_memory::{Bytes, GuestAddress};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// First address of guest memory; nothing is mapped below.
pub const BASE: u64 = 0x10_0000;
/// Guest memory is two ranges; this many unmapped bytes lie between them.
pub const GAP: u64 = 0x1_0000;
/// Where the page lies that nothing is ever told of.
pub const CANARY: u64 = 0x5a5a_a5a0_0000;
/// What it is filled with.
const CANARY_BYTE: u8 = 0xc5;
/// Bytes of the canary.
const CANARY_SIZE: usize = 4 * PAGE as usize;

/// Memory of a guest: two ranges with a gap, and far away a canary that no
/// correct device touches. Pages are handed out and never taken back.
pub struct GuestMemory {
    map: Memory,
    next: AtomicU64,
    /// First address behind the lower range, and behind the upper one.
    ends: [u64; 2],
}

impl GuestMemory {
    /// `bytes` of memory, half of it in each range.
    pub fn new(bytes: u64) -> Self {
        let half = (bytes / 2).next_multiple_of(PAGE).max(PAGE);
        let upper = BASE + half + GAP;
        let ranges = [(BASE, half as usize), (upper, half as usize), (CANARY, CANARY_SIZE)];
        let map = Memory::from_ranges(&ranges.map(|(at, len)| (GuestAddress(at), len))).expect("memory for the guest");
        map.write_slice(&[CANARY_BYTE; CANARY_SIZE], GuestAddress(CANARY)).expect("mapped");
        Self { map, next: AtomicU64::new(BASE), ends: [BASE + half, upper + half] }
    }

    /// What the device is given: a reference that is its own, for it waits
    /// until nobody holds the one before.
    pub fn map(&self) -> Arc<Memory> {
        Arc::new(self.map.clone())
    }

    /// Contiguous memory on a page boundary, zero at first use. Panics when all is taken:
    /// the rig was made too small.
    pub fn alloc(&self, bytes: u64) -> u64 {
        let size = bytes.next_multiple_of(PAGE).max(PAGE);
        let place = |next: u64| {
            let at = if next < self.ends[0] && next + size > self.ends[0] { self.ends[0] + GAP } else { next };
            assert!(at + size <= self.ends[1], "guest memory is used up");
            at
        };
        let next = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(place(n) + size));
        place(next.unwrap_or_default())
    }

    /// Addresses around which a hostile driver finds the edges of memory.
    pub fn edges(&self) -> [u64; 4] {
        [BASE, self.ends[0], self.ends[0] + GAP, self.ends[1]]
    }

    /// How much has been handed out so far: give it back with
    /// [`GuestMemory::rewind`].
    pub fn mark(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Takes back everything that was handed out since `mark`.
    pub fn rewind(&self, mark: u64) {
        self.next.store(mark, Ordering::Relaxed);
    }

    /// Whether the canary is as it was made.
    pub fn canary_is_whole(&self) -> bool {
        self.get(CANARY, CANARY_SIZE).iter().all(|b| *b == CANARY_BYTE)
    }

    /// Writes bytes. Panics outside the map: an address of our own is wrong.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.map.dma_write(at, bytes).expect("guest memory");
    }

    /// Reads into `buf`. Panics outside the map.
    pub fn read(&self, at: u64, buf: &mut [u8]) {
        self.map.dma_read(at, buf).expect("guest memory");
    }

    /// Reads `len` bytes. Panics outside the map.
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut b = vec![0; len];
        self.read(at, &mut b);
        b
    }

    /// Writes a big-endian dword in one piece, ordered after earlier writes.
    /// Panics outside the map or where `at` is not aligned.
    pub fn put32(&self, at: u64, value: u32) {
        self.map.store(value.to_be(), GuestAddress(at), Ordering::Release).expect("guest memory");
    }

    /// Reads a byte in one piece, ordered before later reads. Panics outside
    /// the map.
    pub fn get8(&self, at: u64) -> u8 {
        self.map.load(GuestAddress(at), Ordering::Acquire).expect("guest memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_allocation_reaches_over_the_gap() {
        let m = GuestMemory::new(16 * PAGE);
        let a: Vec<u64> = (0..4).map(|_| m.alloc(3 * PAGE)).collect();
        let [_, low, high, end] = m.edges();
        assert!(a.iter().all(|at| at + 3 * PAGE <= low || *at >= high) && a[3] + 3 * PAGE <= end, "{a:x?}");
        for at in a {
            m.put(at, &[1; 3 * PAGE as usize]);
        }
        assert!(m.canary_is_whole());
    }
}
