//! Sub-functions of a card: their slots and what a change of state brings
//! about.

use std::sync::Arc;

use sfnic_firmware_cmds::Refusal;
use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::{Status, Syndrome};

use super::vhca::{Cause, Observer, State};
use super::{Control, PF};
use crate::endpoint::Endpoint;
use crate::events::Happening;
use crate::slice::{self, Flavour};

/// One possible sub-function.
#[derive(Debug, Clone, Default)]
pub struct SfSlot {
    /// Where it is in its life.
    pub state: State,
    /// The user's number (`sfnum`).
    pub sw_function_id: u32,
    /// What it is to its guest.
    pub flavour: Flavour,
    /// What a passthrough slice is to its guest.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Index of the slice that it is, where somebody outside the host added it.
    pub slice: Option<u32>,
    /// The physical function's interest in changes.
    pub observer: Observer,
    /// How often the slot has been allocated.
    pub generation: u32,
}

impl SfSlot {
    /// What the physical function's driver is told of the state: of a slice that is another
    /// guest's only whether it is there and whether it is in use, or it would take it for an
    /// SF of its own (`mlx5_sf_dev_state_change_handler`).
    pub const fn told(&self) -> State {
        match (self.flavour, self.state) {
            (Flavour::PciSf, state) => state,
            (_, State::Active) => State::Allocated,
            (_, State::TeardownRequest) => State::InUse,
            (_, state) => state,
        }
    }
}

impl Control {
    /// Moves an SF along its life cycle and tells who armed for it. Returns
    /// the states before and after.
    pub fn sf_transition(&mut self, id: u16, cause: Cause) -> Result<(State, State), Refusal> {
        let slot = self.sf_mut(id).ok_or(Refusal::new(Status::BadParam, Syndrome::FUNCTION_ID))?;
        let before = slot.state;
        let after = before.after(cause)?;
        slot.state = after;
        let (sfnum, index) = (slot.sw_function_id, slot.slice);
        if before != after {
            // A host that is to hold on does not hear that it should let go.
            let told = after != State::TeardownRequest || !self.faults.holds_detach(self.pf, id, sfnum);
            if told && self.sf_mut(id).is_some_and(|s| s.observer.changed()) {
                self.vhca_event(id);
            }
            let (state, opstate) = slice::State::of(after);
            self.events.push(Happening::VhcaState {
                pf: self.pf,
                function: id,
                sfnum,
                slice: index,
                before,
                after,
                cause,
                state,
                opstate,
            });
        }
        tracing::debug!(function = id, ?cause, ?before, ?after, "vhca state");
        Ok((before, after))
    }

    /// The physical function arms for changes of `id`.
    pub fn sf_arm(&mut self, id: u16) {
        let due = self.sf_mut(id).is_some_and(|s| s.observer.arm(s.state));
        if due {
            self.vhca_event(id);
        }
    }

    /// Whether a fault keeps us from hearing that an SF that was taken back is
    /// detached.
    pub(crate) fn holds_detach(&self, id: u16) -> bool {
        self.detaching(id).is_some_and(|s| self.faults.holds_detach(self.pf, id, s.sw_function_id))
    }

    /// The SFs that were taken back and that no fault keeps from being detached.
    pub(crate) fn waiting_for_detach(&self) -> Vec<u16> {
        let free =
            |id: u16| self.detaching(id).is_some_and(|s| !self.faults.is_detach_held(self.pf, id, s.sw_function_id));
        self.functions.keys().copied().filter(|id| free(*id)).collect()
    }

    /// Whether an SF is active by configuration, so that its manager need not activate it.
    pub(crate) fn is_active_anyway(&self, id: u16) -> bool {
        let slot = self.sf(id).filter(|s| s.flavour.is_of_a_guest());
        slot.is_some_and(|s| {
            let active = matches!(s.state, State::Active | State::InUse);
            active && self.declared.get(&s.sw_function_id).is_some_and(|d| d.active)
        })
    }

    /// The physical function hears of a change that it has not heard of.
    pub(crate) fn sf_remind(&mut self, id: u16) {
        if self.sf_mut(id).is_some_and(|s| s.observer.remind(s.state)) {
            self.vhca_event(id);
        }
    }

    fn vhca_event(&self, id: u16) {
        let mut eqe = [0; 64];
        ViewMut::<Eqe>::new(&mut eqe).set(Eqe::vhca_function_id, u32::from(id));
        if let Some(pf) = self.functions.get(&PF) {
            pf.notify(event::VHCA_STATE_CHANGE, 0, &event_data(&eqe));
        }
    }
}

/// The data part of an event entry.
pub fn event_data(eqe: &[u8; 64]) -> [u8; 28] {
    let mut d = [0; 28];
    d.copy_from_slice(&eqe[Eqe::data.offset()..Eqe::data.offset() + 28]);
    d
}
