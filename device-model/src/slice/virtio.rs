//! Virtio slices: vports whose host side is a virtio network device of another machine.
//!
//! Whoever runs the device has a [`VirtioEnd`] of each of them. It asks it whether anybody is
//! wanted there, says when a machine's driver is there, by its [`Peer`], and when it has gone.
//!
//! | slice | without a driver | with one |
//! |---|---|---|
//! | inactive | detached, nobody is wanted | the same: the driver is sent away |
//! | active | detached | attached |
//!
//! Such a slice is never detaching for longer than a call takes. An SF's driver has to let go
//! of the device, for it has handed memory out that the device may still write to; behind a
//! virtio slice the rings are ours to stop, and once they are nothing of the machine's memory
//! is touched. So who deactivates the slice detaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::Flavour;
use crate::control::Control;
use crate::control::vhca::{Cause, State};
use crate::fabric::peer::Peer;
use crate::fabric::vport::Vport;
use crate::nic::{Card, Nic};

/// What a virtio slice is to whoever runs the device.
#[derive(Debug)]
pub struct VirtioEnd {
    /// Index of its slice.
    pub slice: u32,
    /// The card that the slice is of.
    pub card: usize,
    /// Its vport, while there is one.
    vport: ArcSwapOption<Vport>,
    active: AtomicBool,
    /// Who is there.
    peer: Mutex<Option<Arc<Peer>>>,
}

impl VirtioEnd {
    pub(super) fn new(slice: u32, card: usize) -> Arc<Self> {
        Arc::new(Self {
            slice,
            card,
            vport: ArcSwapOption::empty(),
            active: AtomicBool::new(false),
            peer: Mutex::new(None),
        })
    }

    /// Whether a machine's driver is to see a link: the slice is active, and the link of its
    /// vport up.
    pub fn is_wanted(&self) -> bool {
        self.active.load(Relaxed) && self.vport.load().as_ref().is_some_and(|v| v.link.load(Relaxed))
    }

    /// Where the machine's frames enter the eswitch.
    pub fn vport(&self) -> Option<Arc<Vport>> {
        self.vport.load_full()
    }
}

/// The address of a slice that nobody gave one: its machine has to be told.
pub const fn default_address(slice: u32) -> [u8; 6] {
    let [.., high, low] = slice.to_be_bytes();
    [0x52, 0x54, 0x00, 0x5d, high, low]
}

impl Nic {
    /// A machine's driver is there, or has gone.
    pub fn virtio_peer(&self, end: &VirtioEnd, peer: Option<Arc<Peer>>) {
        let Some(card) = self.cards.get(end.card) else { return };
        let mut ctl = card.control.lock();
        *end.peer.lock() = peer;
        if let Some(id) = ctl.sf_of_slice(end.slice) {
            self.virtio_settle(card, &mut ctl, id);
        }
    }

    /// The end of a virtio slice, made if there is none.
    pub(super) fn virtio_end(&self, slice: u32, card: usize) -> Arc<VirtioEnd> {
        self.slices.ends.lock().entry(slice).or_insert_with(|| VirtioEnd::new(slice, card)).clone()
    }

    /// Brings a function that may be a virtio slice into agreement with who is there.
    pub(crate) fn virtio_settle(&self, card: &Card, ctl: &mut Control, id: u16) {
        let Some(slot) = ctl.sf(id).filter(|s| s.flavour == Flavour::Virtio) else { return };
        let (state, end) = (slot.state, slot.slice.and_then(|i| self.slices.ends.lock().get(&i).cloned()));
        let (Some(end), Some(vport)) = (end, ctl.vports.get(&id).map(|v| v.plane.clone())) else { return };
        end.active.store(matches!(state, State::Active | State::InUse), Relaxed);
        end.vport.store(Some(vport.clone()));
        let peer = end.peer.lock().clone();
        let cause = match (state, &peer) {
            (State::Active, Some(_)) => Some(Cause::Attach),
            (State::InUse, None) | (State::TeardownRequest, _) => Some(Cause::Detach),
            _ => None,
        };
        let after = cause.map_or(state, |cause| ctl.sf_transition(id, cause).map_or(state, |(_, after)| after));
        vport.peer.store(peer.filter(|_| after == State::InUse));
        if after != state && after == State::Allocated {
            self.sf_detached(card, ctl, id);
        }
        self.flows.changed();
    }

    /// The function of a virtio slice is no more.
    pub(crate) fn virtio_gone(&self, slice: u32) {
        if let Some(end) = self.slices.ends.lock().get(&slice) {
            end.active.store(false, Relaxed);
            end.vport.store(None);
        }
    }
}
