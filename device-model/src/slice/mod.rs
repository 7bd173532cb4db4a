//! Slices: the functions of a card as its eswitch system sees them.
//!
//! Where the device itself manages the eswitch ([`Manager::Embedded`]), a user
//! of the device adds, configures, activates and deletes slices here, and the
//! host's stock driver sees sub-functions come and go. The life cycle is the one
//! of [`crate::control::vhca`]: what a manager in the host does by commands, this
//! module does by calls. Where the host manages the eswitch, slices can be looked
//! at only.

mod attributes;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

pub use attributes::{Change, Link, MAX_MTU, MAX_RATE, MIN_MTU, Policy, RATE_STEP, given};
pub use view::{Flavour, OpState, PortView, ResourceView, SliceView, State};

use crate::control::vhca::{self, Cause};
use crate::events::{Happening, SliceAction};
use crate::nic::{Card, Manager, Nic};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// What kind of function.
    pub flavour: Flavour,
    /// Physical function that it belongs to.
    pub pfnum: u32,
    /// The user's number of it, for an SF.
    pub sfnum: Option<u32>,
    /// The user's number of the slice; without one the lowest that is free.
    pub index: Option<u32>,
}

/// The slices that somebody added, by index.
#[derive(Debug, Default)]
pub struct Slices {
    added: Mutex<BTreeMap<u32, Place>>,
}

/// Where a slice's function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    card: usize,
    function: u16,
    /// Of the slot: another one means that the function is not the same any more.
    generation: u32,
}

impl Nic {
    /// Adds a slice: an inactive, detached sub-function. Its index.
    ///
    /// # Errors
    /// A number is taken or wrong, all SFs of the function are in use, the flavour
    /// cannot be added, or the eswitch is not ours to manage.
    pub fn slice_add(&self, spec: &Spec) -> Result<u32, SliceError> {
        let card = self.slice_card(spec.pfnum)?;
        managed(card)?;
        if spec.flavour != Flavour::PciSf {
            return Err(SliceError::Unsupported(format!(
                "flavour {}: such a slice exists from the beginning; pcisf can be added",
                spec.flavour
            )));
        }
        let sfnum = spec.sfnum.ok_or_else(|| SliceError::Invalid("flavour pcisf needs an sfnum".into()))?;
        if sfnum > MAX_SFNUM {
            return Err(SliceError::Invalid(format!("sfnum {sfnum} (allowed: 0 to {MAX_SFNUM})")));
        }
        let mut added = self.slices.added.lock();
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
        let mut ctl = card.control.lock();
        let taken = |s: &crate::control::sf::SfSlot| s.state != vhca::State::Invalid && s.sw_function_id == sfnum;
        if ctl.sfs.iter().any(taken) {
            return Err(SliceError::Exists(format!("pf {} has a slice with sfnum {sfnum} already", spec.pfnum)));
        }
        let free = ctl.sfs.iter().position(|s| s.state == vhca::State::Invalid).ok_or_else(|| {
            let n = ctl.sfs.len();
            SliceError::Exhausted(format!("all {n} sub-functions of pf {} are in use (max_sfs)", spec.pfnum))
        })?;
        let id = ctl.sf_base + free as u16;
        if let Some(s) = ctl.sf_mut(id) {
            (s.sw_function_id, s.slice) = (sfnum, Some(index));
        }
        ctl.sf_transition(id, Cause::Alloc).map_err(|e| SliceError::State(e.to_string()))?;
        self.sf_allocated(card, &mut ctl, id);
        let mut generation = 0;
        if let Some(s) = ctl.sf_mut(id) {
            s.sw_function_id = sfnum;
            generation = s.generation;
        }
        if let Some(v) = ctl.vports.get_mut(&id) {
            v.plane.user_number.store(sfnum, Relaxed);
            v.policy = Policy::of_slice(self);
            v.publish_policy(self.clock.now_ns());
        }
        self.events.push(Happening::Slice { index, action: SliceAction::Added });
        added.insert(index, Place { card: card.index, function: id, generation });
        self.flows.changed();
        Ok(index)
    }

    /// Deletes a slice that is inactive and detached.
    ///
    /// # Errors
    /// There is none, it is not one that was added, or it is in use.
    pub fn slice_del(&self, index: u32) -> Result<(), SliceError> {
        let mut added = self.slices.added.lock();
        let Some(place) = added.get(&index).copied() else { return Err(self.not_added(index, "deleted")) };
        let card = &self.cards[place.card];
        let mut ctl = card.control.lock();
        let Some(s) = ctl.sf(place.function) else { return Err(missing(index)) };
        match State::of(s.state) {
            (State::Inactive, OpState::Detached) => {}
            (State::Active, _) => {
                return Err(SliceError::State(format!("slice {index} is active: set state inactive first")));
            }
            _ => return Err(detaching(index, place.card)),
        }
        ctl.sf_transition(place.function, Cause::Dealloc).map_err(|e| SliceError::State(e.to_string()))?;
        self.sf_freed(card, &mut ctl, place.function);
        added.remove(&index);
        self.events.push(Happening::Slice { index, action: SliceAction::Deleted });
        self.flows.changed();
        Ok(())
    }

    /// Changes a slice: all of `change`, or nothing where a part is refused.
    ///
    /// # Errors
    /// There is no such slice, or an attribute is not settable, in this state.
    pub fn slice_set(&self, index: u32, change: &Change) -> Result<(), SliceError> {
        let added = self.slices.added.lock();
        let Some(place) = added.get(&index).copied() else {
            return Err(if change.state.is_some() {
                self.not_added(index, "activated or deactivated: it is always active")
            } else {
                self.not_added(index, "changed")
            });
        };
        let card = &self.cards[place.card];
        let mut ctl = card.control.lock();
        let done = attributes::apply(self, card, &mut ctl, index, place.function, change);
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
        all.extend(added.iter().filter_map(|(index, p)| view::sf_slice(&self.cards[p.card], *index, p.function)));
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

fn detaching(index: u32, card: usize) -> SliceError {
    SliceError::State(format!(
        "slice {index} is detaching: its host has not let go of it yet; a reset of pf {card} ends that"
    ))
}
