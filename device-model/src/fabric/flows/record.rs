//! What a frame's long way teaches about its flow.

use smallvec::SmallVec;

use super::cache::{Depends, End, Flow, Places, Way};
use crate::fabric::tir::Tir;
use crate::packet::FlowKey;
use crate::packet::quick::reads_sequence;
use crate::steering::group::Group;
use crate::steering::{Action, DropReason, FlowCounter, Fte, Step, Verdict};

/// Actions that leave the frame's bytes alone.
const PLAIN: Action =
    Action::ALLOW.union(Action::DROP).union(Action::FORWARD).union(Action::COUNT).union(Action::MODIFY_HEADER);

/// The way of one frame so far, as far as the next frame of its flow goes the
/// same. A frame that is changed, copied, or led by what its flow's key does
/// not hold, teaches nothing.
#[derive(Debug)]
pub struct Record {
    /// Not to be learnt from.
    unfit: bool,
    counters: Places,
    /// What the way depends on.
    depends: Depends,
    /// The way up to now; its end says nothing before `ended`.
    pub way: Way,
    ended: bool,
    /// Receive hash, flow tag and register B, where it ended in a queue.
    marks: [u32; 3],
}

impl Default for Record {
    fn default() -> Self {
        let way = Way {
            ports_out: SmallVec::new(),
            ports_in: SmallVec::new(),
            max_len: usize::MAX,
            crossings: 0,
            end: End::Drop,
        };
        Self { unfit: false, counters: Places::new(), depends: Depends::default(), way, ended: false, marks: [0; 3] }
    }
}

impl Record {
    /// The frame does something that its flow's next one may not.
    pub fn spoil(&mut self) {
        self.unfit = true;
    }

    /// The frame ended: once, if it is to be learnt from.
    pub fn end(&mut self, end: End, marks: [u32; 3]) {
        self.unfit |= self.ended;
        self.ended = true;
        self.way.end = end;
        self.marks = marks;
    }

    /// What a step of the flow tables tells.
    pub fn step(&mut self, step: &Step<'_, Tir>) {
        match step {
            Step::Enter { table, .. } => self.depends.shared.push(table.mark()),
            Step::Miss { group, packet } => {
                self.asked(group);
                self.depends.of(group).push(group.mark(packet));
            }
            Step::Hit { group, fte } => {
                self.asked(group);
                self.depends.of(group).push(group.mark_of_rule(fte));
                self.hit(fte);
            }
            Step::Copy { .. } => self.spoil(),
            Step::End { verdict: Verdict::Drop(reason) } => {
                self.unfit |= !matches!(reason, DropReason::Rule | DropReason::NoDestination);
            }
            Step::Acted { .. } | Step::End { .. } => {}
        }
    }

    fn asked(&mut self, group: &Group<Tir>) {
        self.unfit |= group.mask().dwords().iter().any(|(index, _)| reads_sequence(*index));
    }

    fn hit(&mut self, fte: &Fte<Tir>) {
        let a = &fte.actions;
        let edits = a.modify.as_ref().filter(|_| a.flags.contains(Action::MODIFY_HEADER));
        self.unfit |= !PLAIN.contains(a.flags)
            || edits.is_some_and(|m| !m.actions.iter().all(|e| e.is_of_flow()))
            || a.dests.len() > 1
            || a.dests.iter().any(|d| d.reformat().is_some());
        if a.flags.contains(Action::COUNT) {
            self.counters.extend(a.counters.iter().map(FlowCounter::place));
        }
    }

    /// What the cache is to know, if anything.
    pub fn finish(self, key: FlowKey) -> Option<(Flow, Way, Depends)> {
        if self.unfit || !self.ended {
            return None;
        }
        let mut flow = Flow::new(key, self.counters);
        [flow.rss_hash, flow.flow_tag, flow.reg_b] = self.marks;
        Some((flow, self.way, self.depends))
    }
}
