//! A vport as the packet path sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::counters::Direction;
use super::peer::Peer;
use super::plane::FunctionPlane;
use super::police::{Police, Refused};
use super::rate::Rate;

/// Addresses, looked up for every frame.
pub type MacSet = std::collections::HashSet<[u8; 6], foldhash::fast::RandomState>;

/// Number of the vport that stands for the physical port.
pub const UPLINK: u16 = 0xffff;

/// Which frames a vport takes while the eswitch has no forwarding table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RxFilter {
    /// Unicast addresses.
    pub unicast: MacSet,
    /// Multicast addresses.
    pub multicast: MacSet,
    /// Takes every unicast frame.
    pub promisc_uc: bool,
    /// Takes every multicast frame.
    pub promisc_mc: bool,
    /// Takes everything.
    pub promisc_all: bool,
}

impl RxFilter {
    /// Whether a frame with this destination is wanted.
    pub fn wants(&self, dmac: &[u8; 6]) -> bool {
        if self.promisc_all {
            return true;
        }
        match dmac {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => self.promisc_mc || self.multicast.contains(dmac),
            m if m[0] & 1 != 0 => self.promisc_mc || self.multicast.contains(m),
            m => self.promisc_uc || self.unicast.contains(m),
        }
    }
}

/// A port of the eswitch.
#[derive(Debug)]
pub struct Vport {
    /// Number: 0 the PF, [`UPLINK`], or an SF's function id.
    pub number: u16,
    /// The user's number of an SF (`sfnum`), for its name.
    pub user_number: AtomicU32,
    /// The function behind it, while it can send and receive.
    pub function: ArcSwapOption<FunctionPlane>,
    /// Who is there instead of a function, while frames pass to and from there.
    pub peer: ArcSwapOption<Peer>,
    /// Whether frames pass.
    pub link: AtomicBool,
    /// Metadata registers that go along to the function's receive steering
    /// (bit n is reg_c_n).
    pub reg_c_to_rx: AtomicU8,
    /// What it takes in legacy mode.
    pub filter: ArcSwap<RxFilter>,
    /// What its frames must be like, where its manager wants anything.
    pub police: ArcSwapOption<Police>,
    /// Frames that were not like that.
    pub refused: Refused,
    /// How fast its function may send.
    pub rate: Rate,
    /// Frames to the function.
    pub rx: Direction,
    /// Frames from the function.
    pub tx: Direction,
}

impl Vport {
    /// A vport without a function.
    pub fn new(number: u16) -> Arc<Self> {
        Arc::new(Self {
            number,
            user_number: AtomicU32::new(0),
            function: ArcSwapOption::empty(),
            peer: ArcSwapOption::empty(),
            link: AtomicBool::new(false),
            reg_c_to_rx: AtomicU8::new(0),
            filter: ArcSwap::from_pointee(RxFilter::default()),
            police: ArcSwapOption::empty(),
            refused: Refused::default(),
            rate: Rate::default(),
            rx: Direction::default(),
            tx: Direction::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_its_lists_and_promiscuous_all() {
        let mut f = RxFilter::default();
        f.unicast.insert([2, 0, 0, 0, 0, 1]);
        f.multicast.insert([0xff; 6]);
        assert!(f.wants(&[2, 0, 0, 0, 0, 1]) && f.wants(&[0xff; 6]));
        assert!(!f.wants(&[2, 0, 0, 0, 0, 2]) && !f.wants(&[1, 0, 0x5e, 0, 0, 1]));
        f.promisc_mc = true;
        assert!(f.wants(&[1, 0, 0x5e, 0, 0, 1]));
        f.promisc_all = true;
        assert!(f.wants(&[2, 0, 0, 0, 0, 2]));
    }
}
