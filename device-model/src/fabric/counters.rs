//! Counters that the packet path adds to and commands read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
    /// The value now, and starts again from zero where `clear` says so.
    pub fn take(&self, clear: bool) -> u64 {
        if clear { self.0.swap(0, Relaxed) } else { self.get() }
    }
}

/// Frames and bytes (without FCS).
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames.
    pub packets: Counter,
    /// Bytes.
    pub octets: Counter,
}

impl Traffic {
    /// Counts one frame.
    pub fn count(&self, len: usize) {
        self.packets.add(1);
        self.octets.add(len as u64);
    }
}

/// Kind of a destination MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// To one station.
    Unicast,
    /// To a group.
    Multicast,
    /// To all.
    Broadcast,
}

impl Cast {
    /// Of a frame's first six bytes.
    pub fn of(dmac: &[u8]) -> Self {
        match dmac {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => Self::Broadcast,
            [b, ..] if b & 1 != 0 => Self::Multicast,
            _ => Self::Unicast,
        }
    }
}

/// Traffic of one direction by kind of destination.
#[derive(Debug, Default)]
pub struct Direction {
    /// To one station.
    pub unicast: Traffic,
    /// To a group.
    pub multicast: Traffic,
    /// To all.
    pub broadcast: Traffic,
    /// Frames that could not be carried.
    pub errors: Traffic,
}

impl Direction {
    /// Counts one frame.
    pub fn count(&self, cast: Cast, len: usize) {
        match cast {
            Cast::Unicast => self.unicast.count(len),
            Cast::Multicast => self.multicast.count(len),
            Cast::Broadcast => self.broadcast.count(len),
        }
    }
    /// Frames of all kinds.
    pub fn packets(&self) -> u64 {
        self.unicast.packets.get() + self.multicast.packets.get() + self.broadcast.packets.get()
    }
    /// Bytes of all kinds.
    pub fn octets(&self) -> u64 {
        self.unicast.octets.get() + self.multicast.octets.get() + self.broadcast.octets.get()
    }
}
