//! Slices: the functions of a card as its eswitch system sees them.
//!
//! Where the device itself manages the eswitch ([`Manager::Embedded`]), a user
//! of the device adds, configures, activates and deletes slices here, and the
//! host's stock driver sees sub-functions come and go. The life cycle is the one
//! of [`crate::control::vhca`]: what a manager in the host does by commands, this
//! module does by calls. Where the host manages the eswitch, slices can be looked
//! at only.
//!
//! A slice of flavour [`Flavour::Passthrough`] or [`Flavour::Virtio`] is a device of another
//! guest, at a place that [`Outside`] has for it. The physical function's host does not hear
//! of it, unless it manages the eswitch: then the slice is declared ([`Nic::slice_declare`]),
//! and comes to life when the host adds an SF of its number, as a representor without an
//! auxiliary device.

mod attributes;
mod guest;
mod saved;
mod view;
mod virtio;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub use attributes::{Change, Link, MAX_MTU, MAX_RATE, MIN_MTU, Policy, RATE_STEP, given};
pub use guest::{Offer, Outside};
pub(crate) use saved::SavedSlice;
pub use view::{Flavour, OpState, PortView, ResourceView, SliceView, State};
pub use virtio::{VirtioEnd, default_address};

use crate::control::Control;
use crate::control::vhca::{self, Cause};
use crate::endpoint::Endpoint;
use crate::events::{Happening, SliceAction};
use crate::nic::{Card, Manager, Nic};
use crate::pci::MSIX_MAX;

/// Indexes below this belong to the slices that exist from the beginning.
pub const FIRST_INDEX: u32 = 16;
/// The highest number of an SF (`sfnum`) that the driver's own port names hold.
pub const MAX_SFNUM: u32 = 0xffff;

/// Why a request about a slice is refused, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A number is taken.
    #[error("{0}")]
    Exists(String),
    /// A value is not one.
    #[error("{0}")]
    Invalid(String),
    /// Not in this state.
    #[error("{0}")]
    State(String),
    /// Not for this flavour, or not by this manager.
    #[error("{0}")]
    Unsupported(String),
    /// There is no room.
    #[error("{0}")]
    Exhausted(String),
}

/// A slice to add.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// What kind of function.
    pub flavour: Flavour,
    /// Physical function that it belongs to.
    pub pfnum: u32,
    /// The user's number of it, for an SF.
    pub sfnum: Option<u32>,
    /// The user's number of the slice; without one the lowest that is free.
    pub index: Option<u32>,
    /// MSI-X vectors of a passthrough slice (1–256).
    pub vectors: Option<u16>,
    /// Where a guest finds a slice that is a device of its own; without it wherever
    /// [`Outside`] likes.
    pub socket: Option<String>,
}

/// The slices that somebody added or declared, by index.
#[derive(Default)]
pub struct Slices {
    added: Mutex<BTreeMap<u32, Place>>,
    outside: OnceLock<Arc<dyn Outside>>,
    /// Of virtio slices; the last lock that anybody takes.
    ends: Mutex<BTreeMap<u32, Arc<VirtioEnd>>>,
}

impl std::fmt::Debug for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slices({:?})", self.added.lock())
    }
}

/// What a slice is.
#[derive(Debug, Clone)]
struct Place {
    card: usize,
    flavour: Flavour,
    sfnum: u32,
    /// What a passthrough slice is to its guest.
    endpoint: Option<Arc<Endpoint>>,
    /// Where a guest finds it.
    socket: Option<String>,
}

impl Nic {
    /// Adds a slice: an inactive, detached function. Its index.
    ///
    /// # Errors
    /// A number is taken or wrong, all slots of its kind are in use, the flavour cannot be
    /// added, its socket cannot be had, or the eswitch is not ours to manage.
    pub fn slice_add(&self, spec: &Spec) -> Result<u32, SliceError> {
        let _still = self.gate.enter();
        let card = self.slice_card(spec.pfnum)?;
        managed(card)?;
        let mut added = self.slices.added.lock();
        let (index, sfnum) = check(spec, &added)?;
        {
            let mut ctl = card.control.lock();
            if ctl.sfs.iter().any(|s| s.state != vhca::State::Invalid && s.sw_function_id == sfnum) {
                return Err(SliceError::Exists(format!("pf {} has a slice with sfnum {sfnum} already", spec.pfnum)));
            }
            let id = free_slot(card, &ctl, spec)?;
            let endpoint = self.endpoint_of(card, spec, index);
            if let Some(s) = ctl.sf_mut(id) {
                (s.sw_function_id, s.slice) = (sfnum, Some(index));
                (s.flavour, s.endpoint) = (spec.flavour, endpoint.clone());
            }
            ctl.sf_transition(id, Cause::Alloc).map_err(|e| SliceError::State(e.to_string()))?;
            self.sf_allocated(card, &mut ctl, id);
            if let Some(s) = ctl.sf_mut(id) {
                s.sw_function_id = sfnum;
            }
            if let Some(v) = ctl.vports.get_mut(&id) {
                v.plane.user_number.store(sfnum, Relaxed);
                v.policy = Policy::of_slice(self);
                if spec.flavour == Flavour::Virtio {
                    v.set_address(default_address(index));
                }
                v.publish_policy(self.clock.now_ns());
            }
            added.insert(index, Place { card: card.index, flavour: spec.flavour, sfnum, endpoint, socket: None });
        }
        // Without the card's lock: who serves the socket takes it.
        if let Err(why) = self.offer(&mut added, index, spec) {
            self.forget(&mut added, index);
            return Err(why);
        }
        self.events.push(Happening::Slice { index, action: SliceAction::Added });
        self.flows.changed();
        Ok(index)
    }

    /// Deletes a slice that is inactive and detached.
    ///
    /// # Errors
    /// There is none, it is not one that was added, or it is in use.
    pub fn slice_del(&self, index: u32) -> Result<(), SliceError> {
        let _still = self.gate.enter();
        let mut added = self.slices.added.lock();
        let Some(place) = added.get(&index) else { return Err(self.not_added(index, "deleted")) };
        let card = &self.cards[place.card];
        managed(card)?;
        {
            let ctl = card.control.lock();
            let state = ctl.sf_of_slice(index).and_then(|id| Some(ctl.sf(id)?.state));
            match State::of(state.ok_or_else(|| missing(index))?) {
                (State::Inactive, OpState::Detached) => {}
                (State::Active, _) => {
                    return Err(SliceError::State(format!("slice {index} is active: set state inactive first")));
                }
                _ => return Err(detaching(index, place)),
            }
        }
        self.forget(&mut added, index);
        self.events.push(Happening::Slice { index, action: SliceAction::Deleted });
        self.flows.changed();
        Ok(())
    }

    /// Changes a slice: all of `change`, or nothing where a part is refused.
    ///
    /// # Errors
    /// There is no such slice, or an attribute is not settable, in this state.
    pub fn slice_set(&self, index: u32, change: &Change) -> Result<(), SliceError> {
        let _still = self.gate.enter();
        let added = self.slices.added.lock();
        let Some(place) = added.get(&index) else {
            return Err(if change.state.is_some() {
                self.not_added(index, "activated or deactivated: it is always active")
            } else {
                self.not_added(index, "changed")
            });
        };
        let card = &self.cards[place.card];
        managed(card)?;
        let mut ctl = card.control.lock();
        let id = ctl.sf_of_slice(index).ok_or_else(|| missing(index))?;
        let done = attributes::apply(self, card, &mut ctl, index, place, id, change);
        self.flows.changed();
        if done.is_ok() {
            self.events.push(Happening::Slice { index, action: SliceAction::Changed });
        }
        done
    }

    /// All slices, in the order of their index: physical functions first.
    pub fn slices(&self) -> Vec<SliceView> {
        let added = self.slices.added.lock();
        let mut all: Vec<SliceView> = self.cards.iter().map(view::pf_slice).collect();
        all.extend(added.iter().map(|(index, p)| view::sf_slice(&self.cards[p.card], *index, p)));
        all
    }

    /// One slice.
    ///
    /// # Errors
    /// There is none of that index.
    pub fn slice(&self, index: u32) -> Result<SliceView, SliceError> {
        self.slices().into_iter().find(|s| s.index == index).ok_or_else(|| missing(index))
    }

    /// All ports of the eswitches: physical ones, those of functions.
    pub fn ports(&self) -> Vec<PortView> {
        self.cards.iter().flat_map(view::ports).collect()
    }

    /// What an orchestrator asks before it places a slice.
    pub fn resources(&self) -> Vec<ResourceView> {
        self.cards.iter().map(view::resources).collect()
    }

    fn slice_card(&self, pfnum: u32) -> Result<&Card, SliceError> {
        self.cards.get(pfnum as usize).ok_or_else(|| {
            let last = self.cards.len().saturating_sub(1);
            SliceError::Invalid(format!("pfnum {pfnum} (allowed: 0 to {last})"))
        })
    }

    fn not_added(&self, index: u32, what: &str) -> SliceError {
        match self.cards.get(index as usize) {
            Some(card) => match managed(card) {
                Ok(()) => SliceError::Unsupported(format!("slice {index} is a physical function: it cannot be {what}")),
                Err(e) => e,
            },
            None => missing(index),
        }
    }
}

/// Refuses where the host manages the eswitch.
fn managed(card: &Card) -> Result<(), SliceError> {
    if card.config.manager == Manager::Host {
        return Err(SliceError::Unsupported(
            "the host manages this eswitch: use devlink in the guest, or configure eswitch = \"embedded\"".into(),
        ));
    }
    Ok(())
}

fn missing(index: u32) -> SliceError {
    SliceError::NotFound(format!("no slice {index}"))
}

fn detaching(index: u32, place: &Place) -> SliceError {
    let (who, what) = match place.flavour.is_of_a_guest() {
        true => ("guest", "its device".to_owned()),
        false => ("host", format!("pf {}", place.card)),
    };
    SliceError::State(format!(
        "slice {index} is detaching: its {who} has not let go of it yet; a reset of {what} ends that"
    ))
}

/// The numbers of a new slice, checked.
fn check(spec: &Spec, added: &BTreeMap<u32, Place>) -> Result<(u32, u32), SliceError> {
    if !spec.flavour.can_be_added() {
        return Err(SliceError::Unsupported(format!(
            "flavour {}: such a slice exists from the beginning; pcisf, passthrough and virtio can be added",
            spec.flavour
        )));
    }
    let sfnum = spec.sfnum.ok_or_else(|| SliceError::Invalid(format!("flavour {} needs an sfnum", spec.flavour)))?;
    if sfnum > MAX_SFNUM {
        return Err(SliceError::Invalid(format!("sfnum {sfnum} (allowed: 0 to {MAX_SFNUM})")));
    }
    if let Some(n) = spec.vectors {
        if spec.flavour != Flavour::Passthrough {
            return Err(SliceError::Invalid(format!("vectors {n} (allowed: for flavour passthrough)")));
        }
        if !(1..=MSIX_MAX).contains(&n) {
            return Err(SliceError::Invalid(format!("vectors {n} (allowed: 1 to {MSIX_MAX})")));
        }
    }
    if let Some(path) = spec.socket.as_ref().filter(|_| !spec.flavour.is_of_a_guest()) {
        return Err(SliceError::Invalid(format!("socket {path} (allowed: for flavours passthrough and virtio)")));
    }
    let index = match spec.index {
        Some(i) if added.contains_key(&i) => return Err(SliceError::Exists(format!("slice {i} exists already"))),
        Some(i) if i < FIRST_INDEX => {
            return Err(SliceError::Invalid(format!("index {i}: those below {FIRST_INDEX} are the device's own")));
        }
        Some(i) => i,
        None => (FIRST_INDEX..)
            .find(|i| !added.contains_key(i))
            .ok_or_else(|| SliceError::Exhausted("every index is taken".into()))?,
    };
    Ok((index, sfnum))
}

/// A slot for a new slice: SFs of the host have those with a window in BAR 2.
fn free_slot(card: &Card, ctl: &Control, spec: &Spec) -> Result<u16, SliceError> {
    let own = usize::from(card.config.max_sfs).min(ctl.sfs.len());
    let (mut slots, what, limit) = match spec.flavour.is_of_a_guest() {
        true => (own..ctl.sfs.len(), "slices for guests", "max_guest_slices"),
        false => (0..own, "sub-functions", "max_sfs"),
    };
    let n = slots.len();
    let free = slots.find(|i| ctl.sfs[*i].state == vhca::State::Invalid);
    let full = || SliceError::Exhausted(format!("all {n} {what} of pf {} are in use ({limit})", spec.pfnum));
    Ok(ctl.sf_base + free.ok_or_else(full)? as u16)
}
