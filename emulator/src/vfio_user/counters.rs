//! What a connection has seen, readable while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::error::RejectKind;
use super::protocol::Command;

/// Live counters of one connection. Every counter only grows.
#[derive(Debug, Default)]
pub struct Counters {
    commands: [AtomicU64; Command::COUNT],
    unknown: AtomicU64,
    rejected: [AtomicU64; RejectKind::ALL.len()],
    unsolicited: AtomicU64,
    stale_snapshots: AtomicU64,
    pub(crate) irqs_raised: AtomicU64,
    pub(crate) irqs_unarmed: AtomicU64,
    pub(crate) irqs_unknown: AtomicU64,
    pub(crate) irqs_failed: AtomicU64,
}

impl Counters {
    pub(crate) fn command(&self, command: Option<Command>) {
        match command {
            Some(c) => self.commands[c.index()].fetch_add(1, Relaxed),
            None => self.unknown.fetch_add(1, Relaxed),
        };
    }

    /// Counts a refusal and returns whether it is the first of its kind.
    pub(crate) fn reject(&self, kind: RejectKind) -> bool {
        self.rejected[kind.index()].fetch_add(1, Relaxed) == 0
    }

    pub(crate) fn unsolicited(&self) {
        self.unsolicited.fetch_add(1, Relaxed);
    }

    /// Counts a device that kept an old memory snapshot, and returns whether
    /// it is the first time.
    pub(crate) fn stale_snapshot(&self) -> bool {
        self.stale_snapshots.fetch_add(1, Relaxed) == 0
    }

    /// A copy. Not atomic as a whole: a message in flight may be in one
    /// counter and not yet in another.
    pub fn snapshot(&self) -> CounterSnapshot {
        CounterSnapshot {
            commands: std::array::from_fn(|i| self.commands[i].load(Relaxed)),
            unknown: self.unknown.load(Relaxed),
            rejected: std::array::from_fn(|i| self.rejected[i].load(Relaxed)),
            unsolicited: self.unsolicited.load(Relaxed),
            stale_snapshots: self.stale_snapshots.load(Relaxed),
            irqs_raised: self.irqs_raised.load(Relaxed),
            irqs_unarmed: self.irqs_unarmed.load(Relaxed),
            irqs_unknown: self.irqs_unknown.load(Relaxed),
            irqs_failed: self.irqs_failed.load(Relaxed),
        }
    }
}

/// A copy of [`Counters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Messages by command; see [`Self::command`].
    pub commands: [u64; Command::COUNT],
    /// Messages of commands we do not know.
    pub unknown: u64,
    /// Refused requests by kind; see [`Self::rejected`].
    pub rejected: [u64; RejectKind::ALL.len()],
    /// Replies to nothing we sent; dropped.
    pub unsolicited: u64,
    /// Memory changes after which the device still held an old snapshot.
    pub stale_snapshots: u64,
    /// Interrupts delivered.
    pub irqs_raised: u64,
    /// Interrupts on vectors that the client had not armed.
    pub irqs_unarmed: u64,
    /// Interrupts on vectors that do not exist.
    pub irqs_unknown: u64,
    /// Interrupts whose eventfd refused the write.
    pub irqs_failed: u64,
}

impl CounterSnapshot {
    /// Messages of one command.
    pub fn command(&self, command: Command) -> u64 {
        self.commands[command.index()]
    }

    /// Refusals of one kind.
    pub fn rejected(&self, kind: RejectKind) -> u64 {
        self.rejected[kind.index()]
    }

    /// All refusals.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// All messages, known or not.
    pub fn messages_total(&self) -> u64 {
        self.commands.iter().sum::<u64>() + self.unknown + self.unsolicited
    }
}
