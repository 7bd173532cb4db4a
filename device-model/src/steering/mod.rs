//! Flow steering: tables of rules that decide where a packet goes, and what is
//! done to it on its way.
//!
//! Control and data plane meet in one place, `domain::Domain`: an immutable
//! picture of the tables, their groups and roots. [`Steering`] (control side,
//! `&mut`, behind the caller's lock) replaces the picture when a table, group,
//! root or miss behaviour changes; a [`Reader`] loads it without a lock. Rules
//! are not part of the picture: each group holds its own in a concurrent map
//! from masked key to rule, so that inserting one among a million touches
//! nothing else and costs no copy.
//!
//! Tables refer to one another by [`TableRef`] (number and serial), never by
//! pointer: there are no cycles to break, and a reference that outlived its
//! table is recognised.
//!
//! What is not here: crypto and ASO actions, samplers, match definers, tables
//! owned by software (SWS, HWS), aliases of another function's objects.

pub mod changes;
pub mod control;
pub mod counter;
pub mod domain;
pub mod dump;
pub mod group;
pub mod object;
pub mod trace;
pub mod walk;

pub use changes::{Changes, Mark, Moment};
pub use control::{Change, FteSpec, Limits, Modify, Steering, TableSpec};
pub(crate) use control::{Resolve, SavedSteering};
pub use counter::{CounterBulk, Counters, FlowCounter, Place};
pub use domain::{Miss, Reader, TableFlags, TableRef, TableType, View};
pub use object::{Action, Actions, Dest, FlowSource, Fte, ModifyHeader, PushVlan, Reformat, Used};
pub use trace::{Metadata, NoTrace, Step, Trace, Why, why};
pub use walk::{DropReason, MAX_COPIES, MAX_HOPS, Packet, Sink, Verdict};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_reference;
#[cfg(test)]
mod tests_walk;
