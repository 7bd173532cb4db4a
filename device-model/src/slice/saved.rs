//! Slices that somebody added or declared, as a snapshot keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Flavour, Place, SliceError, Spec, check};
use crate::control::Declared;
use crate::endpoint::Endpoint;
use crate::nic::{Manager, Nic};
use crate::pci::SavedConfig;

/// A slice.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSlice {
    index: u32,
    card: usize,
    flavour: Flavour,
    sfnum: u32,
    socket: Option<String>,
    /// Vectors and configuration space of a passthrough slice.
    endpoint: Option<(u16, SavedConfig)>,
    /// Where the host manages the eswitch: whether it is active anyway, and its address.
    declared: Option<(bool, [u8; 6])>,
}

impl Nic {
    /// Keeps them.
    pub(crate) fn save_slices(&self) -> Vec<SavedSlice> {
        let added = self.slices.added.lock();
        let one = |(index, place): (&u32, &Place)| {
            let Place { card, flavour, sfnum, endpoint, socket } = place;
            let ctl = self.cards.get(*card).map(|c| c.control.lock());
            let declared = ctl.as_ref().and_then(|c| c.declared.get(sfnum)).filter(|d| d.index == *index);
            SavedSlice {
                index: *index,
                card: *card,
                flavour: *flavour,
                sfnum: *sfnum,
                socket: socket.clone(),
                endpoint: endpoint.as_ref().map(|e| (e.vectors, e.pci.lock().save())),
                declared: declared.map(|d| (d.active, d.hw_addr)),
            }
        };
        added.iter().map(one).collect()
    }

    /// Makes them again, in a device without any; their functions are not there yet. The
    /// devices of those that are other guests'.
    pub(crate) fn restore_slices(&self, saved: &[SavedSlice]) -> Result<BTreeMap<u32, Arc<Endpoint>>, SliceError> {
        let mut added = self.slices.added.lock();
        let mut endpoints = BTreeMap::new();
        for s in saved {
            let card = self.slice_card(u32::try_from(s.card).unwrap_or(u32::MAX))?;
            let spec = s.spec();
            let (index, sfnum) = check(&spec, &added)?;
            if (card.config.manager == Manager::Host) != s.declared.is_some() {
                return Err(SliceError::Invalid(format!("slice {index} of another manager")));
            }
            let endpoint = self.endpoint_of(card, &spec, index);
            match (&endpoint, &s.endpoint) {
                (Some(e), Some((_, config))) if e.pci.lock().restore(config) => {}
                (None, None) => {}
                _ => return Err(SliceError::Invalid(format!("slice {index} with another device"))),
            }
            if let Some((active, hw_addr)) = s.declared {
                let (flavour, endpoint) = (s.flavour, endpoint.clone());
                let declared = Declared { index, flavour, endpoint, active, hw_addr };
                card.control.lock().declared.insert(sfnum, declared);
            }
            endpoints.extend(endpoint.clone().map(|e| (index, e)));
            added.insert(index, Place { card: s.card, flavour: s.flavour, sfnum, endpoint, socket: None });
        }
        Ok(endpoints)
    }

    /// Offers them to their guests, now that all is there.
    pub(crate) fn offer_restored(&self, saved: &[SavedSlice]) -> Result<(), SliceError> {
        let mut added = self.slices.added.lock();
        saved.iter().try_for_each(|s| self.offer(&mut added, s.index, &s.spec()))
    }

    /// Brings virtio slices into agreement with who is there.
    pub(crate) fn settle_slices(&self) {
        for card in &self.cards {
            let mut ctl = card.control.lock();
            let ids: Vec<u16> = ctl.functions.keys().copied().collect();
            ids.into_iter().for_each(|id| self.virtio_settle(card, &mut ctl, id));
        }
    }

    /// There are none any more, declared ones included.
    pub(crate) fn forget_slices(&self) {
        let mut added = self.slices.added.lock();
        let all: Vec<u32> = added.keys().copied().collect();
        all.into_iter().for_each(|index| self.forget(&mut added, index));
        for card in &self.cards {
            card.control.lock().declared.clear();
        }
    }
}

impl SavedSlice {
    fn spec(&self) -> Spec {
        Spec {
            flavour: self.flavour,
            pfnum: self.card as u32,
            sfnum: Some(self.sfnum),
            index: Some(self.index),
            vectors: self.endpoint.as_ref().map(|(vectors, _)| *vectors),
            socket: self.socket.clone().filter(|_| self.flavour.is_of_a_guest()),
        }
    }
}
