//! Receive dispatch: a TIR picks a receive queue, directly or by hash through
//! an RQT.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::packet::checksum::Summary;
use crate::packet::toeplitz::{HashFn, RxHash, Selector, rx_hash};
use crate::packet::{Frame, L3, MatchKey, lro};
use crate::queue::{Rq, Segment};

/// Receive queue table.
#[derive(Debug)]
pub struct Rqt {
    /// Number.
    pub id: u32,
    /// The most entries it can be given.
    pub max: u32,
    /// The entries in force; a power of two in practice.
    pub queues: ArcSwap<Vec<Arc<Rq>>>,
}

/// Where a TIR sends frames.
#[derive(Debug, Clone)]
pub enum Dispatch {
    /// To one queue.
    Direct(Arc<Rq>),
    /// By hash.
    Table(Arc<Rqt>),
}

/// What a TIR does, replaced whole by MODIFY_TIR.
#[derive(Debug, Clone)]
pub struct TirState {
    /// Where frames go.
    pub dispatch: Dispatch,
    /// How the hash is made.
    pub hash: HashFn,
    /// The same hash for both directions of a flow.
    pub symmetric: bool,
    /// Which fields it covers.
    pub selector: Selector,
    /// The function's own frames that are taken: bit 0 unicast, bit 1
    /// multicast.
    pub self_lb_block: u32,
    /// Which segments are joined.
    pub lro: Lro,
}

/// Joining of TCP segments (`packet_merge_mask`). It happens in striding queues; others
/// receive each frame by itself. What is being joined never waits for longer than the
/// burst in which it came, which is within any `lro_timeout_period_usecs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lro {
    /// Over IPv4.
    pub ipv4: bool,
    /// Over IPv6.
    pub ipv6: bool,
    /// Most bytes behind the IP header.
    pub limit: u32,
}

impl Lro {
    /// Whether segments over such a header may be joined.
    #[inline]
    pub fn wants(self, l3: L3) -> bool {
        match l3 {
            L3::Ipv4 => self.ipv4,
            L3::Ipv6 => self.ipv6,
            L3::None => false,
        }
    }

    /// The segment that a frame is, if it is to be joined with others.
    #[inline]
    pub fn segment(self, frame: &Frame<'_>, sums: &Summary) -> Option<Segment> {
        if self.wants(frame.layers.l3) { lro::segment(frame, sums) } else { None }
    }
}

/// Transport interface receive.
#[derive(Debug)]
pub struct Tir {
    /// Number.
    pub id: u32,
    /// Transport domain.
    pub td: u32,
    /// What it does.
    pub state: ArcSwap<TirState>,
}

impl TirState {
    /// The hash of a frame, where the TIR hashes and the frame has the fields.
    pub fn hash(&self, key: &MatchKey) -> RxHash {
        rx_hash(&self.hash, self.symmetric, self.selector, key, false)
    }

    /// Hands the queue for a frame with this hash to `with`.
    pub fn with_queue<R>(&self, hash: u32, with: impl FnOnce(&Arc<Rq>) -> R) -> Option<R> {
        match &self.dispatch {
            Dispatch::Direct(rq) => Some(with(rq)),
            Dispatch::Table(rqt) => {
                let queues = rqt.queues.load();
                let n = queues.len().max(1);
                queues.get(hash as usize % n).map(with)
            }
        }
    }
}
