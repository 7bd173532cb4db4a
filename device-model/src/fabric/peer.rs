//! What is behind a vport where it is no function of this device: the network device of a
//! virtual machine that speaks virtio, say.
//!
//! A frame for the vport goes through its egress ACL and its manager's rules as to a
//! function, and then to a [`Wire`]. What comes from there enters the eswitch with the vport
//! as its source ([`super::arrive`]). While nobody is there, the vport has neither a function
//! nor a peer, and frames for it are dropped.

use std::sync::Arc;

use super::counters::Cast;
use super::flows::cache::End;
use super::pipeline::Pipeline;
use super::plane::FunctionPlane;
use super::vport::Vport;
use crate::packet::Frame;
use crate::world::Wire;

/// Takes the frames that come to a vport.
pub struct Peer(Arc<dyn Wire>);

impl Peer {
    /// Somebody who takes frames.
    pub fn new(wire: Arc<dyn Wire>) -> Arc<Self> {
        Arc::new(Self(wire))
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peer")
    }
}

/// Who takes a vport's frames.
pub(super) enum HostSide {
    Function(Arc<FunctionPlane>),
    Peer(Arc<Peer>),
}

impl Vport {
    pub(super) fn host_side(&self) -> Option<HostSide> {
        if let Some(peer) = self.peer.load_full() {
            return Some(HostSide::Peer(peer));
        }
        self.function.load_full().map(HostSide::Function)
    }
}

impl Pipeline<'_> {
    /// A frame is for a vport's peer.
    pub(super) fn deliver_to_peer(&mut self, vport: &Arc<Vport>, peer: &Arc<Peer>, frame: &Frame<'_>) {
        vport.rx.count(Cast::of(frame.headers()), frame.len());
        self.learn(|r| r.end(End::Peer { vport: vport.clone(), peer: peer.clone() }, [0; 3]));
        self.hand_out(vport, peer, frame);
        self.note(|| format!("left by vport {:#x}", vport.number));
    }

    /// A frame that was counted leaves; what cannot be taken is counted again.
    #[inline]
    pub(super) fn hand_out(&mut self, vport: &Arc<Vport>, peer: &Arc<Peer>, frame: &Frame<'_>) {
        if !self.peers.iter().any(|(_, known)| Arc::ptr_eq(known, peer)) {
            if self.peers.len() >= MOST {
                self.flush_peers();
            }
            self.peers.push((vport.clone(), peer.clone()));
        }
        if !peer.0.transmit(frame) {
            vport.rx.errors.count(frame.len());
        }
    }

    /// Peers that got frames may send on what it held back.
    pub(super) fn flush_peers(&mut self) {
        for (vport, peer) in self.peers.drain(..) {
            vport.rx.errors.packets.add(peer.0.flush());
        }
    }
}

/// Most of them that a burst remembers.
const MOST: usize = 16;
