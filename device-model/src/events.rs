//! What happens to the device, for whoever watches it: the life of
//! sub-functions, links, commands that failed, resets, faults that struck.
//!
//! The latest events are kept in a ring. A reader says which it has seen and
//! takes what came since; one that is too slow is told how many it missed.
//! Nobody waits for a reader.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;

use crate::backlog::Backlog;
use crate::control::vhca::{Cause, State};
use crate::slice;
use crate::world::{Clock, Waker};

/// How many events are kept.
pub const KEPT: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// A sub-function moved along its life cycle.
    VhcaState {
        /// Its physical function.
        pf: usize,
        /// Hardware function id.
        function: u16,
        /// The user's number of it; 0 until the manager gave it one.
        sfnum: u32,
        /// Index of its slice, where it is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        slice: Option<u32>,
        /// State before.
        before: State,
        /// State after.
        after: State,
        /// Why it moved.
        cause: Cause,
        /// The user's part of the new state.
        state: slice::State,
        /// The host's part of the new state.
        opstate: slice::OpState,
    },
    /// A slice was added, changed or deleted from outside.
    Slice {
        /// Its index.
        index: u32,
        /// What was done.
        action: SliceAction,
    },
    /// Whether frames pass a port of an eswitch changed.
    Link {
        /// Physical function.
        pf: usize,
        /// Vport number; 0xffff is the physical port.
        vport: u16,
        /// The port's name: `p0`, `pf0`, `pf0sf4`.
        port: String,
        /// Whether frames pass now.
        up: bool,
    },
    /// A command was refused.
    CommandFailed {
        /// Physical function.
        pf: usize,
        /// Hardware function id of who issued it.
        function: u16,
        /// Number of the opcode.
        opcode: u16,
        /// The manual's name of it.
        command: String,
        /// Operation modifier.
        op_mod: u16,
        /// Status that it was answered.
        status: String,
        /// Syndrome that it was answered.
        syndrome: u32,
        /// What the syndrome means.
        reason: &'static str,
    },
    /// A command could not be fetched or answered: the queue's entry, its
    /// mailboxes or lengths are at fault.
    CommandUndelivered {
        /// Physical function.
        pf: usize,
        /// Hardware function id of who issued it.
        function: u16,
        /// What the entry was answered.
        delivery: String,
    },
    /// A physical function was reset, with all that hangs on it.
    Reset {
        /// Physical function.
        pf: usize,
    },
    /// A fault that was put in on purpose was added, struck or was taken out.
    Fault {
        /// Its number.
        id: u32,
        /// What it is, in the words of its language.
        fault: String,
        /// What became of it.
        action: FaultAction,
        /// What it struck.
        #[serde(skip_serializing_if = "String::is_empty")]
        what: String,
    },
}

/// What was done to a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum SliceAction {
    Added,
    Changed,
    Deleted,
}

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FaultAction {
    Added,
    Struck,
    Deleted,
}

/// An event with its number and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its number; the first is 1, none is left out.
    pub seq: u64,
    /// The clock's nanoseconds.
    pub time_ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What a reader gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Since {
    /// Events that it missed: it was too slow, or came too late.
    pub lost: u64,
    /// Events, in order.
    pub events: Vec<Arc<Event>>,
}

/// The events of a device.
pub struct Events {
    clock: Arc<dyn Clock>,
    ring: Mutex<Backlog<Event>>,
    waker: OnceLock<Arc<dyn Waker>>,
}

impl Events {
    /// None yet; time is told by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, ring: Mutex::default(), waker: OnceLock::new() }
    }

    /// Whom to wake when there is a new event. The first call counts.
    pub fn wake(&self, waker: Arc<dyn Waker>) {
        let _ = self.waker.set(waker);
    }

    /// Something happened.
    pub fn push(&self, what: Happening) {
        {
            let mut ring = self.ring.lock();
            ring.push(|seq| Event { seq, time_ns: self.clock.now_ns(), what });
            if ring.kept().len() > KEPT {
                ring.forget();
            }
        }
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Number of the latest event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.ring.lock().last()
    }

    /// At most `most` events behind number `seen`.
    pub fn since(&self, seen: u64, most: usize) -> Since {
        let (lost, events) = self.ring.lock().since(seen, most);
        Since { lost, events }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} so far)", self.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zero;

    impl Clock for Zero {
        fn now_ns(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        let events = Events::new(Arc::new(Zero));
        assert_eq!(events.since(0, 10), Since::default());
        for n in 0..3 {
            events.push(Happening::Reset { pf: n });
        }
        let got = events.since(0, 2);
        assert_eq!((got.lost, got.events.len(), got.events[1].seq), (0, 2, 2));
        assert_eq!(events.since(2, 10).events.len(), 1);
        assert_eq!(events.since(3, 10), Since::default());
        assert_eq!(events.since(u64::MAX, 10), Since::default());
        for n in 0..KEPT {
            events.push(Happening::Reset { pf: n });
        }
        let got = events.since(1, 1);
        assert_eq!((got.lost, got.events[0].seq), (2, 4));
        assert_eq!(events.since(3, usize::MAX).events.len(), KEPT);
    }
}
