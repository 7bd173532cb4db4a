//! Slices that are devices of guests of their own: where they are found.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Flavour, Place, SliceError, Spec, VirtioEnd, check};
use crate::control::Declared;
use crate::control::vhca::Cause;
use crate::endpoint::{ENDPOINT_VECTORS, Endpoint};
use crate::nic::{Card, Manager, Nic};

/// A slice that a guest can have.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its index.
    pub index: u32,
    /// What it is to the guest.
    pub flavour: Flavour,
    /// Its card.
    pub card: usize,
    /// The PCI function that a passthrough slice is.
    pub endpoint: Option<Arc<Endpoint>>,
    /// What a virtio slice is to whoever serves it.
    pub virtio: Option<Arc<VirtioEnd>>,
    /// Where it is to be found, if somebody said so.
    pub socket: Option<String>,
}

/// Offers slices to guests: whoever runs the device has sockets, which it has not.
pub trait Outside: Send + Sync {
    /// Offers a slice; where it is to be found from now on. Called without a card's lock.
    ///
    /// # Errors
    /// It cannot be offered there, in words for the user.
    fn offer(&self, offer: &Offer) -> Result<String, String>;

    /// Takes a slice away: its guest sees it vanish. Returns when nobody uses it any more.
    fn withdraw(&self, index: u32);
}

impl Nic {
    /// Who offers slices to guests; once, before there are any.
    pub fn offer_slices_to(&self, outside: Arc<dyn Outside>) {
        let _ = self.slices.outside.set(outside);
    }

    /// Declares a slice of a guest where the host manages the eswitch: an SF with its number
    /// will be this slice. Its index.
    ///
    /// With `active` it is so as soon as it is there, whatever the host says. An address other
    /// than zero is what it has then.
    ///
    /// # Errors
    /// As [`Nic::slice_add`]; or the flavour is not that of a guest.
    pub fn slice_declare(&self, spec: &Spec, active: bool, hw_addr: [u8; 6]) -> Result<u32, SliceError> {
        let card = self.slice_card(spec.pfnum)?;
        if card.config.manager != Manager::Host {
            return Err(SliceError::Unsupported("this eswitch is not the host's: add the slice".into()));
        }
        if !spec.flavour.is_of_a_guest() {
            return Err(SliceError::Unsupported(format!(
                "flavour {}: the host adds such slices (devlink port add)",
                spec.flavour
            )));
        }
        let mut added = self.slices.added.lock();
        let (index, sfnum) = check(spec, &added)?;
        let endpoint = self.endpoint_of(card, spec, index);
        {
            let mut ctl = card.control.lock();
            if ctl.declared.contains_key(&sfnum) {
                return Err(SliceError::Exists(format!("pf {} has a slice with sfnum {sfnum} already", spec.pfnum)));
            }
            let declared = Declared { index, flavour: spec.flavour, endpoint: endpoint.clone(), active, hw_addr };
            ctl.declared.insert(sfnum, declared);
        }
        added.insert(index, Place { card: card.index, flavour: spec.flavour, sfnum, endpoint, socket: None });
        if let Err(why) = self.offer(&mut added, index, spec) {
            added.remove(&index);
            card.control.lock().declared.remove(&sfnum);
            return Err(why);
        }
        Ok(index)
    }

    /// What a passthrough slice is to its guest.
    pub fn endpoint(&self, index: u32) -> Option<Arc<Endpoint>> {
        self.slices.added.lock().get(&index)?.endpoint.clone()
    }

    /// The endpoints of all passthrough slices.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.slices.added.lock().values().filter_map(|p| p.endpoint.clone()).collect()
    }

    pub(super) fn endpoint_of(&self, card: &Card, spec: &Spec, index: u32) -> Option<Arc<Endpoint>> {
        let vectors = spec.vectors.unwrap_or(ENDPOINT_VECTORS);
        let passthrough = spec.flavour == Flavour::Passthrough;
        passthrough.then(|| {
            let endpoint = Endpoint::new(&self.profile, card, &self.faults, index, vectors);
            endpoint.dma.cut(self.faults.is_slice_cut(index));
            endpoint
        })
    }

    /// Has a new slice offered to a guest, if it is for one.
    pub(super) fn offer(&self, added: &mut BTreeMap<u32, Place>, index: u32, spec: &Spec) -> Result<(), SliceError> {
        let Some(place) = added.get_mut(&index).filter(|p| p.flavour.is_of_a_guest()) else { return Ok(()) };
        let Some(outside) = self.slices.outside.get() else { return Ok(()) };
        let offer = Offer {
            index,
            flavour: place.flavour,
            card: place.card,
            endpoint: place.endpoint.clone(),
            virtio: (place.flavour == Flavour::Virtio).then(|| self.virtio_end(index, place.card)),
            socket: spec.socket.clone(),
        };
        place.socket = Some(outside.offer(&offer).map_err(SliceError::Invalid)?);
        Ok(())
    }

    /// An inactive, detached slice is no more.
    pub(super) fn forget(&self, added: &mut BTreeMap<u32, Place>, index: u32) {
        let Some(place) = added.remove(&index) else { return };
        if let Some(outside) = self.slices.outside.get().filter(|_| place.flavour.is_of_a_guest()) {
            outside.withdraw(index);
        }
        let Some(card) = self.cards.get(place.card) else { return };
        let mut ctl = card.control.lock();
        if let Some(id) = ctl.sf_of_slice(index)
            && ctl.sf_transition(id, Cause::Dealloc).is_ok()
        {
            self.sf_freed(card, &mut ctl, id);
        }
        self.slices.ends.lock().remove(&index);
    }
}
