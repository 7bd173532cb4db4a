//! Counters that the packet path adds to and commands read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::packet::FlowKey;

/// A number that only grows.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Counter(AtomicU64);

impl Clone for Counter {
    /// A counter of its own, with the present value.
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.get()))
    }
}

impl Counter {
    /// Sets the value.
    pub(crate) fn put(&self, n: &Self) {
        self.0.store(n.get(), Relaxed);
    }
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
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Frames.
    pub packets: Counter,
    /// Bytes.
    pub octets: Counter,
}

impl Traffic {
    /// Sets the counts.
    pub(crate) fn put(&self, from: &Self) {
        let Self { packets, octets } = from;
        self.packets.put(packets);
        self.octets.put(octets);
    }
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
    /// Of the frames of a flow.
    #[inline]
    pub fn of_flow(key: &FlowKey) -> Self {
        const ALL: u64 = u64::MAX << 16;
        const GROUP: u64 = 1 << 56;
        match key.destination() {
            ALL => Self::Broadcast,
            dmac if dmac & GROUP != 0 => Self::Multicast,
            _ => Self::Unicast,
        }
    }
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
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
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
    /// Sets the counts.
    pub(crate) fn put(&self, from: &Self) {
        let Self { unicast, multicast, broadcast, errors } = from;
        self.unicast.put(unicast);
        self.multicast.put(multicast);
        self.broadcast.put(broadcast);
        self.errors.put(errors);
    }
    /// Counts one frame.
    pub fn count(&self, cast: Cast, len: usize) {
        match cast {
            Cast::Unicast => self.unicast.count(len),
            Cast::Multicast => self.multicast.count(len),
            Cast::Broadcast => self.broadcast.count(len),
        }
    }
    /// Adds what was counted elsewhere.
    pub fn add(&self, tally: &Tally) {
        for (traffic, (packets, octets)) in
            [&self.unicast, &self.multicast, &self.broadcast].into_iter().zip(tally.casts)
        {
            if packets > 0 {
                traffic.packets.add(packets);
                traffic.octets.add(octets);
            }
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

/// Upper ends of the frame size classes of RFC 2819 (with FCS), and the two
/// that the manual adds for jumbo frames.
pub const SIZES: [usize; 10] = [64, 127, 255, 511, 1023, 1518, 2047, 4095, 8191, 10239];

/// Index into [`SIZES`] of a frame of `len` bytes without FCS.
pub fn size_class(len: usize) -> usize {
    let with_fcs = len.max(60) + 4;
    SIZES.iter().position(|s| with_fcs <= *s).unwrap_or(SIZES.len() - 1)
}

/// Frames counted by one thread, to be added to shared counters at once.
#[derive(Debug, Default)]
pub struct Tally {
    /// Frames and bytes to one station, to a group, to all.
    casts: [(u64, u64); 3],
    /// Frames by size class.
    sizes: [u64; SIZES.len()],
}

impl Tally {
    /// Counts one frame.
    #[inline]
    pub fn count(&mut self, cast: Cast, len: usize) {
        self.count_all(cast, len, 1);
    }

    /// Counts so many frames of `len` bytes each.
    #[inline]
    pub fn count_all(&mut self, cast: Cast, len: usize, frames: usize) {
        let (packets, octets) = &mut self.casts[cast as usize];
        *packets += frames as u64;
        *octets += (frames * len) as u64;
        self.sizes[size_class(len)] += frames as u64;
    }

    /// Frames by size class.
    pub fn sizes(&self) -> &[u64; SIZES.len()] {
        &self.sizes
    }
}
