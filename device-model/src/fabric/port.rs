//! A physical port: what leaves the eswitch for the wire and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::counters::{Cast, Counter, Direction, SIZES, Tally, size_class};
use super::impair;
use crate::world::Wire;

/// Largest frame that a port carries, in bytes without FCS.
pub const MAX_FRAME: u32 = 10_000;

/// What the far end of a port is.
#[derive(Clone, Default)]
pub enum Far {
    /// Nothing: no link.
    #[default]
    None,
    /// Its own other fibre.
    Loopback,
    /// Another port of this device, by card number.
    Port(usize),
    /// Something outside.
    Outside(Arc<dyn Wire>),
}

impl std::fmt::Debug for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Far::None => "none",
            Far::Loopback => "loopback",
            Far::Port(_) => "cable",
            Far::Outside(_) => "outside",
        })
    }
}

/// A physical port.
#[derive(Debug)]
pub struct Port {
    /// What it is connected to.
    pub far: Far,
    /// Administrative state (PAOS).
    pub admin_up: AtomicBool,
    /// Whether the far end shows a signal.
    pub carrier: AtomicBool,
    /// MTU in force: bytes of a frame without FCS (PMTU).
    pub mtu: AtomicU32,
    /// Frames from the wire.
    pub rx: Direction,
    /// Frames to the wire.
    pub tx: Direction,
    /// Frames from the wire by size class.
    pub rx_sizes: [Counter; SIZES.len()],
    /// Frames from the wire that were longer than the MTU.
    pub rx_oversize: Counter,
    /// Frames from the wire that were shorter than an Ethernet header.
    pub rx_undersize: Counter,
    /// Frames from the wire that nobody wanted or could take.
    pub rx_discards: Counter,
    /// Frames to the wire that were lost for want of a link.
    pub tx_discards: Counter,
    /// What its wire does to frames.
    pub impair: impair::Wire,
    /// How often the link went down.
    pub link_down_events: Counter,
}

impl Port {
    /// A port that is down.
    pub fn new(far: Far) -> Self {
        Self {
            far,
            admin_up: AtomicBool::new(false),
            carrier: AtomicBool::new(false),
            mtu: AtomicU32::new(MAX_FRAME),
            rx: Direction::default(),
            tx: Direction::default(),
            rx_sizes: Default::default(),
            rx_oversize: Counter::default(),
            rx_undersize: Counter::default(),
            rx_discards: Counter::default(),
            tx_discards: Counter::default(),
            impair: impair::Wire::default(),
            link_down_events: Counter::default(),
        }
    }

    /// Whether frames pass.
    pub fn is_up(&self) -> bool {
        self.admin_up.load(Relaxed) && self.carrier.load(Relaxed)
    }

    /// Counts a frame from the wire.
    pub fn count_rx(&self, dmac: &[u8], len: usize) {
        self.rx.count(Cast::of(dmac), len);
        self.rx_sizes[size_class(len)].add(1);
    }

    /// Adds frames from the wire that were counted elsewhere.
    pub fn add_rx(&self, tally: &Tally) {
        self.rx.add(tally);
        for (counter, n) in self.rx_sizes.iter().zip(tally.sizes()).filter(|(_, n)| **n > 0) {
            counter.add(*n);
        }
    }

    /// Counts a frame to the wire.
    pub fn count_tx(&self, dmac: &[u8], len: usize) {
        self.tx.count(Cast::of(dmac), len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_count_the_fcs() {
        let p = Port::new(Far::None);
        for len in [14, 60, 61, 1514, 9014] {
            p.count_rx(&[0xff; 6], len);
        }
        let n: Vec<u64> = p.rx_sizes.iter().map(Counter::get).collect();
        assert_eq!(n, [2, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(p.rx.broadcast.packets.get(), 5);
        let (q, mut tally) = (Port::new(Far::None), Tally::default());
        for len in [14, 60, 61, 1514, 9014] {
            tally.count(Cast::Broadcast, len);
        }
        q.add_rx(&tally);
        assert_eq!(q.rx_sizes.iter().map(Counter::get).collect::<Vec<_>>(), n);
        assert_eq!((q.rx.broadcast.packets.get(), q.rx.octets()), (5, p.rx.octets()));
    }
}
