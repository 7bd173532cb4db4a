//! Frames that are dropped, changed or held up on a wire on purpose.

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
        let Some(fate) = self.nic.faults.frame(card.index, way) else { return true };
        self.note(|| format!("a fault of port {}: {fate:?}", card.index));
        if fate == FrameFate::Dropped {
            return false;
        }
        let mut bytes = vec![0; frame.len()];
        frame.write_into(&mut bytes);
        match fate {
            FrameFate::Dropped => {}
            FrameFate::Delayed(ns) => {
                let due = self.nic.clock.now_ns().saturating_add(ns);
                self.nic.later.put(due, Deed::Frame { card: card.index, way, bytes });
            }
            FrameFate::Corrupted(n) => {
                let bits = (bytes.len() as u64 * 8).saturating_sub(SPARED).max(1);
                let bit = SPARED + n % bits;
                if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                    *byte ^= 1 << (bit % 8);
                }
                if let Some(mut frame) = Frame::from_bytes(&mut bytes) {
                    frame.parse();
                    self.pass(card, way, &mut frame);
                }
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
