//! A queue's place in the device, and what is done to it there at a later time.

use std::cell::Cell;
use std::sync::Arc;

use super::{EventFate, Faults, InForce, Occasion, Place, What};
use crate::fabric::plane::FunctionPlane;
use crate::later::Deed;
use crate::nic::Nic;

/// A queue of a function, and the faults of its device.
#[derive(Debug, Clone)]
pub struct Site {
    /// The faults.
    pub faults: Arc<Faults>,
    /// Its card.
    pub pf: usize,
    /// Its function.
    pub function: u16,
}

impl Site {
    /// The clock's nanoseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        self.faults.clock.now_ns()
    }

    /// A completion queue's event is looked at again at a time; false where there is no room for it.
    pub(crate) fn look_again(&self, due: u64, cqn: u32) -> bool {
        self.faults.later.put(due, Deed::Completion { card: self.pf, function: self.function, cqn })
    }

    fn occasion(&self, number: u32) -> Occasion {
        Occasion { pf: self.pf, function: Some(self.function), opcode: None, number: Some(number), way: None }
    }

    /// What becomes of an event of this type. `second`: another one of its queue
    /// is held back and comes behind it.
    #[inline]
    pub(crate) fn event(&self, eqn: u8, kind: u8, second: bool) -> EventFate {
        if !self.faults.at(Place::Event) {
            return EventFate::Written;
        }
        let held = Cell::new(0);
        let fate = |f: &InForce| match f.fault.what {
            What::LoseEvent => Some(EventFate::Lost),
            What::DuplicateEvent => Some(EventFate::WrittenTwice),
            What::ReorderEvent(ns) if !second => {
                held.set(ns);
                Some(EventFate::HeldBack)
            }
            _ => None,
        };
        let whom = || format!("event {kind:#04x} of pf{}/{:#x}", self.pf, self.function);
        let fate = self.faults.strike(&self.occasion(kind.into()), fate, whom).unwrap_or(EventFate::Written);
        if fate == EventFate::HeldBack {
            self.faults.put_off(held.get(), Deed::Event { card: self.pf, function: self.function, eqn });
        }
        fate
    }

    /// Whether a completion of this queue is lost.
    #[inline]
    pub(crate) fn loses_completion(&self, cqn: u32) -> bool {
        self.faults.at(Place::Completion) && self.takes_completion(cqn)
    }

    #[cold]
    fn takes_completion(&self, cqn: u32) -> bool {
        let lost = |f: &InForce| (f.fault.what == What::LoseCompletion).then_some(());
        let whom = || format!("cq {cqn:#x} of pf{}/{:#x}", self.pf, self.function);
        self.faults.strike(&self.occasion(cqn), lost, whom).is_some()
    }
}

impl Nic {
    /// The event that a queue holds back is written.
    pub(crate) fn release_event(&self, card: usize, function: u16, eqn: u8) {
        self.on_plane(card, function, |plane| {
            if let Some(eq) = plane.eqs.pin().get(&u32::from(eqn)) {
                eq.queue.release(&plane.dma.load());
            }
        });
    }

    /// The event of a completion queue, which was held back, is sent, unless it is to wait on.
    pub(crate) fn release_completions(&self, card: usize, function: u16, cqn: u32) {
        self.on_plane(card, function, |plane| {
            if let Some(cq) = plane.cqs.pin().get(&cqn) {
                cq.queue.release(&plane.dma.load());
            }
        });
    }

    fn on_plane(&self, card: usize, function: u16, act: impl FnOnce(&FunctionPlane)) {
        let Some(card) = self.cards.get(card) else { return };
        let vports = card.fabric.vports.pin();
        if let Some(plane) = vports.get(&function).and_then(|v| v.function.load_full()) {
            act(&plane);
        }
    }
}
