//! The life cycle of a sub-function as its eswitch manager and its driver see
//! it (`enum mlx5_vhca_state`), written as a table.

use sfnic_firmware_cmds::{Refusal, Syndrome};

/// State of a VHCA (QUERY_VHCA_STATE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No SF has this id.
    #[default]
    Invalid = 0,
    /// Allocated; can be configured; no window, no driver.
    Allocated = 1,
    /// Activated by the manager; its host may attach a driver.
    Active = 2,
    /// A driver is attached.
    InUse = 3,
    /// Deactivated by the manager; the driver has not detached yet.
    TeardownRequest = 4,
}

/// What can happen to a VHCA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// ALLOC_SF by the manager.
    Alloc,
    /// DEALLOC_SF by the manager.
    Dealloc,
    /// ENABLE_HCA by the manager (`state active`).
    Activate,
    /// DISABLE_HCA by the manager (`state inactive`).
    Deactivate,
    /// ENABLE_HCA by the SF's own driver.
    Attach,
    /// DISABLE_HCA by the SF's own driver.
    Detach,
    /// Reset of the PCI function that the SF belongs to, whose driver manages
    /// the eswitch.
    PfReset,
    /// The same where the eswitch is managed elsewhere: the SF stays, its
    /// driver is gone.
    HostReset,
}

/// Every transition that exists. What is not listed is refused and changes
/// nothing.
pub const TRANSITIONS: &[(State, Cause, State)] = &[
    (State::Invalid, Cause::Alloc, State::Allocated),
    (State::Allocated, Cause::Dealloc, State::Invalid),
    (State::Allocated, Cause::Activate, State::Active),
    (State::Active, Cause::Attach, State::InUse),
    (State::Active, Cause::Deactivate, State::Allocated),
    (State::InUse, Cause::Detach, State::Active),
    (State::InUse, Cause::Deactivate, State::TeardownRequest),
    (State::TeardownRequest, Cause::Detach, State::Allocated),
    (State::Invalid, Cause::PfReset, State::Invalid),
    (State::Allocated, Cause::PfReset, State::Invalid),
    (State::Active, Cause::PfReset, State::Invalid),
    (State::InUse, Cause::PfReset, State::Invalid),
    (State::TeardownRequest, Cause::PfReset, State::Invalid),
    (State::Invalid, Cause::HostReset, State::Invalid),
    (State::Allocated, Cause::HostReset, State::Allocated),
    (State::Active, Cause::HostReset, State::Active),
    (State::InUse, Cause::HostReset, State::Active),
    (State::TeardownRequest, Cause::HostReset, State::Allocated),
];

impl State {
    /// Every state.
    pub const ALL: [State; 5] = [State::Invalid, State::Allocated, State::Active, State::InUse, State::TeardownRequest];

    /// The state after `cause`, or why it is refused
    /// ([`Status::BadResState`](sfnic_firmware_cmds::Status::BadResState)).
    pub fn after(self, cause: Cause) -> Result<State, Refusal> {
        match TRANSITIONS.iter().find(|t| t.0 == self && t.1 == cause) {
            Some(t) => Ok(t.2),
            None if self == State::TeardownRequest => Err(Refusal::state(Syndrome::SF_TEARDOWN)),
            None => Err(Refusal::state(Syndrome::SF_STATE)),
        }
    }

    /// Whether the function's window in the BAR answers.
    pub const fn has_window(self) -> bool {
        matches!(self, State::Active | State::InUse | State::TeardownRequest)
    }
}

/// Who wants to hear of changes of one VHCA, with a latch: a change that
/// happens between the observer's query and its next arming fires when it
/// arms.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
pub struct Observer {
    armed: bool,
    seen: State,
}

impl Observer {
    /// An observer that has seen `state`.
    pub const fn new(state: State) -> Self {
        Self { armed: false, seen: state }
    }
    /// The observer queried the state.
    pub const fn queried(&mut self, state: State) {
        self.seen = state;
    }
    /// The observer armed itself; true when an event is due at once.
    #[must_use]
    pub fn arm(&mut self, state: State) -> bool {
        let due = self.seen != state;
        self.armed = !due;
        due
    }
    /// The state changed; true when an event is due. One event an arming.
    #[must_use]
    pub const fn changed(&mut self) -> bool {
        std::mem::replace(&mut self.armed, false)
    }
    /// True when an event is due for a change that was kept from it.
    #[must_use]
    pub fn remind(&mut self, state: State) -> bool {
        self.seen != state && self.changed()
    }
    /// Whether an event is still owed to the next change.
    pub const fn is_armed(&self) -> bool {
        self.armed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAUSES: [Cause; 8] = [
        Cause::Alloc,
        Cause::Dealloc,
        Cause::Activate,
        Cause::Deactivate,
        Cause::Attach,
        Cause::Detach,
        Cause::PfReset,
        Cause::HostReset,
    ];

    #[test]
    fn a_teardown_ends_by_detach_or_reset_only() {
        for c in CAUSES {
            let end = State::TeardownRequest.after(c);
            match c {
                Cause::Detach => assert_eq!(end, Ok(State::Allocated)),
                Cause::PfReset => assert_eq!(end, Ok(State::Invalid)),
                Cause::HostReset => assert_eq!(end, Ok(State::Allocated)),
                _ => assert_eq!(end.unwrap_err().syndrome, Syndrome::SF_TEARDOWN),
            }
        }
    }

    proptest! {
        /// An observer that follows the driver's protocol (query, then arm, on
        /// each event) always ends with the true state, whatever happens
        /// between its steps.
        #[test]
        fn no_event_is_lost(steps in proptest::collection::vec((0usize..8, 0u8..3), 1..200)) {
            let mut state = State::Invalid;
            let mut obs = Observer::new(state);
            let mut known = state;
            let mut events = u32::from(obs.arm(state));
            let mut queried = false;
            for (cause, drv) in steps {
                if let Ok(next) = state.after(CAUSES[cause])
                    && next != state {
                        state = next;
                        events += u32::from(obs.changed());
                    }
                // The driver advances by at most one step.
                match drv {
                    1 if events > 0 && !queried => { known = state; obs.queried(state); queried = true; }
                    2 if queried => { events -= 1; queried = false; events += u32::from(obs.arm(state)); }
                    _ => {}
                }
            }
            // Let the driver finish.
            while events > 0 {
                known = state;
                obs.queried(state);
                events -= 1;
                events += u32::from(obs.arm(state));
            }
            prop_assert_eq!(known, state);
            prop_assert!(obs.is_armed());
        }
    }
}
