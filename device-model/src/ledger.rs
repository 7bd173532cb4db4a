//! What became of commands: how many of each kind, with which status, and how
//! long they took. Kept under the control lock, so that counting is adding.

use sfnic_firmware_cmds::{Opcode, Status};

use crate::cmd::table::{self, ROWS};

/// Upper ends of the classes of durations, in nanoseconds; longer ones are
/// beyond the last.
pub const CLASSES: [u64; 12] =
    [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 10_000_000, 100_000_000];

/// Commands of one kind.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many were answered with each status.
    pub statuses: Vec<(Status, u64)>,
    /// How long all of them took together, in nanoseconds.
    pub total_ns: u64,
    /// How many took as long as each of [`CLASSES`], and longer than all.
    pub classes: [u64; CLASSES.len() + 1],
}

impl Tally {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// The commands of a card.
#[derive(Debug)]
pub struct Ledger {
    /// As the rows of the command table; the last is for all others.
    tallies: Vec<Tally>,
    /// Entries that could not be fetched or answered.
    pub undelivered: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { tallies: vec![Tally::default(); ROWS.len() + 1], undelivered: 0 }
    }
}

impl Ledger {
    /// A command was executed.
    pub fn count(&mut self, opcode: Opcode, status: Status, ns: u64) {
        let at = table::index(opcode).unwrap_or(ROWS.len());
        let Some(tally) = self.tallies.get_mut(at) else { return };
        match tally.statuses.iter_mut().find(|s| s.0 == status) {
            Some(s) => s.1 += 1,
            None => tally.statuses.push((status, 1)),
        }
        tally.total_ns = tally.total_ns.saturating_add(ns);
        let class = CLASSES.iter().position(|end| ns <= *end).unwrap_or(CLASSES.len());
        tally.classes[class] += 1;
    }

    /// The commands that there were, by name; `unknown` for what is not
    /// implemented.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Tally)> {
        let names = ROWS.iter().map(|r| r.opcode.name().unwrap_or("unknown")).chain(["unknown"]);
        names.zip(&self.tallies).filter(|(_, t)| t.count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_by_kind_status_and_duration() {
        let mut l = Ledger::default();
        l.count(Opcode::CREATE_CQ, Status::Ok, 1_000);
        l.count(Opcode::CREATE_CQ, Status::Ok, 1_001);
        l.count(Opcode::CREATE_CQ, Status::Limit, u64::MAX);
        l.count(Opcode(0xfff), Status::BadOp, 0);
        let all: Vec<_> = l.all().collect();
        assert_eq!(all.iter().map(|a| a.0).collect::<Vec<_>>(), ["CREATE_CQ", "unknown"]);
        let t = all[0].1;
        assert_eq!(t.statuses, [(Status::Ok, 2), (Status::Limit, 1)]);
        assert_eq!((t.classes[0], t.classes[1], t.classes[CLASSES.len()], t.count()), (1, 1, 1, 3));
        assert_eq!(t.total_ns, u64::MAX);
    }
}
