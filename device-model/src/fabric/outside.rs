//! What is behind a vport where it is no function of this device: the network device of a
//! virtual machine that speaks virtio, say.
//!
//! A frame for the vport goes through its egress ACL and its manager's rules as to a
//! function, and then to a [`Wire`]. What comes from there enters the eswitch with the vport
//! as its source ([`super::arrive`]). While nobody is there, the vport has neither a function
//! nor an outside, and frames for it are dropped.

use std::sync::Arc;

use super::counters::Cast;
use super::flows::cache::End;
use super::pipeline::Pipeline;
use super::plane::FunctionPlane;
use super::vport::Vport;
use crate::packet::Frame;
use crate::world::Wire;

/// Takes the frames that come to a vport.
pub struct Outside(Arc<dyn Wire>);

impl Outside {
    /// Somebody who takes frames.
    pub fn new(wire: Arc<dyn Wire>) -> Arc<Self> {
        Arc::new(Self(wire))
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside")
    }
}

/// Who takes a vport's frames.
pub(super) enum HostSide {
    Function(Arc<FunctionPlane>),
    Outside(Arc<Outside>),
}

impl Vport {
    pub(super) fn host_side(&self) -> Option<HostSide> {
        if let Some(outside) = self.outside.load_full() {
            return Some(HostSide::Outside(outside));
        }
        self.function.load_full().map(HostSide::Function)
    }
}

impl Pipeline<'_> {
    /// A frame is for whoever is outside.
    pub(super) fn deliver_outside(&mut self, vport: &Arc<Vport>, outside: &Arc<Outside>, frame: &Frame<'_>) {
        vport.rx.count(Cast::of(frame.headers()), frame.len());
        self.learn(|r| r.end(End::Outside { vport: vport.clone(), outside: outside.clone() }, [0; 3]));
        self.hand_out(vport, outside, frame);
        self.note(|| format!("left by vport {:#x}", vport.number));
    }

    /// A frame that was counted leaves; what cannot be taken is counted again.
    #[inline]
    pub(super) fn hand_out(&mut self, vport: &Arc<Vport>, outside: &Arc<Outside>, frame: &Frame<'_>) {
        if !self.outsides.iter().any(|(_, known)| Arc::ptr_eq(known, outside)) {
            if self.outsides.len() >= MOST {
                self.flush_outsides();
            }
            self.outsides.push((vport.clone(), outside.clone()));
        }
        if !outside.0.transmit(frame) {
            vport.rx.errors.count(frame.len());
        }
    }

    /// Whoever got frames may send on what it held back.
    pub(super) fn flush_outsides(&mut self) {
        for (vport, outside) in self.outsides.drain(..) {
            vport.rx.errors.packets.add(outside.0.flush());
        }
    }
}

/// Most of them that a burst remembers.
const MOST: usize = 16;
