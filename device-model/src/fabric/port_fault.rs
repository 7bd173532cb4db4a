//! What becomes of frames on a wire that is impaired, or that a fault is on.

use super::impair::{Arrivals, Copy};
use super::pipeline::Pipeline;
use crate::capture::Way;
use crate::faults::{FrameFate, Place};
use crate::later::Deed;
use crate::nic::Card;
use crate::packet::Frame;

/// Bits of a frame that no fault changes: its addresses and type.
const SPARED: u64 = 14 * 8;

impl Pipeline<'_> {
    /// Whether a frame passes a port's wire as it is. If not, what becomes of
    /// it is done.
    #[inline]
    pub(super) fn unharmed(&mut self, card: &Card, way: Way, frame: &Frame<'_>) -> bool {
        !self.nic.faults.at(Place::Frames) || self.judge(card, way, frame)
    }

    #[cold]
    fn judge(&mut self, card: &Card, way: Way, frame: &Frame<'_>) -> bool {
        let fate = self.nic.faults.frame(card.index, way);
        if let Some(fate) = fate {
            self.note(|| format!("a fault of port {}: {fate:?}", card.index));
        }
        if fate == Some(FrameFate::Dropped) {
            return false;
        }
        let now = self.nic.clock.now_ns();
        let arrivals = card.port.impair.way(way).judge(now, frame.len());
        if fate.is_none() && arrivals.is_none() {
            return true;
        }
        let arrivals = arrivals.unwrap_or_else(|| Arrivals::from_slice(&[Copy { due: now, corrupt: None }]));
        self.note(|| format!("the wire of port {}: arrives {} times", card.index, arrivals.len()));
        for copy in arrivals {
            let mut bytes = vec![0; frame.len()];
            frame.write_into(&mut bytes);
            let (mut due, mut flips) = (copy.due, [copy.corrupt, None]);
            match fate {
                Some(FrameFate::Delayed(ns)) => due = due.saturating_add(ns),
                Some(FrameFate::Corrupted(n)) => flips[1] = Some(n),
                _ => {}
            }
            flips.into_iter().flatten().for_each(|n| flip(&mut bytes, n));
            if due > now {
                if !self.nic.later.put(due, Deed::Frame { card: card.index, way, bytes }) {
                    card.port.impair.way(way).overrun();
                }
            } else if let Some(mut frame) = Frame::from_bytes(&mut bytes) {
                frame.parse();
                self.pass(card, way, &mut frame);
            }
        }
        false
    }

    /// A frame that was held up goes on.
    pub(crate) fn resume(&mut self, card: &Card, way: Way, frame: &mut Frame<'_>) {
        if card.port.is_up() {
            self.pass(card, way, frame);
        }
    }

    fn pass(&mut self, card: &Card, way: Way, frame: &mut Frame<'_>) {
        match way {
            Way::Out => self.cross_wire(card, frame),
            Way::In => self.arrive(card, frame),
        }
    }
}

/// Changes a bit behind the addresses.
fn flip(bytes: &mut [u8], n: u64) {
    let bits = (bytes.len() as u64 * 8).saturating_sub(SPARED).max(1);
    let bit = SPARED + n % bits;
    if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
        *byte ^= 1 << (bit % 8);
    }
}
