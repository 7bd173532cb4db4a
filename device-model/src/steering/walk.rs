//! The data plane: a packet's way through the tables of a domain.

use std::sync::Arc;

use super::domain::{Domain, Miss, Shared, TableRef, View};
use super::group::Group;
use super::object::{Action, Dest, Fte, ModifyHeader, PushVlan, Reformat};
use super::trace::{Metadata, Step, Trace};
use crate::packet::MatchKey;

/// Tables on one packet's way; more is a loop.
pub const MAX_HOPS: u32 = 256;
/// Copies made of one packet.
pub const MAX_COPIES: u32 = 1024;
/// Copies of copies of copies.
pub const MAX_DEPTH: u32 = 16;
/// Groups asked for one packet and all its copies.
pub const MAX_PROBES: u32 = 1 << 16;

/// A packet as steering needs it. An action that answers false could not be
/// done (no such header, no room): the packet is dropped.
pub trait Packet {
    /// What rules match on, as the packet is now.
    fn key(&self) -> &MatchKey;
    /// Bytes that counters count.
    fn octets(&self) -> u64;
    /// Whether it came from the wire (`flow_source` of a rule).
    fn is_from_uplink(&self) -> bool;
    /// The tag that its completion will carry.
    fn set_flow_tag(&mut self, tag: u32);
    /// Removes an L2 tunnel with its outer headers.
    fn decap(&mut self) -> bool;
    /// Edits headers or metadata registers.
    fn modify(&mut self, edits: &ModifyHeader) -> bool;
    /// Removes the outermost VLAN header.
    fn pop_vlan(&mut self) -> bool;
    /// Adds a VLAN header outside all others.
    fn push_vlan(&mut self, vlan: PushVlan) -> bool;
    /// Adds, removes or replaces headers.
    fn reformat(&mut self, context: &Reformat) -> bool;
    /// A copy that goes its own way.
    fn replicate(&self) -> Self
    where
        Self: Sized;
}

/// Why a packet ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A rule says so.
    Rule,
    /// A rule forwards to an empty list.
    NoDestination,
    /// An action could not be done to this packet.
    Action,
    /// More tables than a way can have.
    Loop,
    /// More copies, or more groups to ask, than a packet is allowed.
    Budget,
    /// A table vanished while the packet was on its way there.
    Stale,
}

/// How a packet leaves the tables.
#[derive(Debug)]
pub enum Verdict<'a, T> {
    /// To a TIR.
    Tir {
        /// Its number.
        id: u32,
        /// The TIR.
        tir: &'a Arc<T>,
    },
    /// To a vport.
    Vport {
        /// Its number; 0xffff is the uplink.
        num: u16,
        /// The eswitch's owner, where the rule names it.
        vhca_id: Option<u16>,
    },
    /// To the physical port.
    Uplink {
        /// The eswitch's owner, where the rule names it.
        vhca_id: Option<u16>,
    },
    /// To the NIC receive side of a function.
    VhcaRx {
        /// The function.
        vhca_id: u16,
    },
    /// A rule lets it pass to what follows the domain.
    Allow,
    /// No rule is for it and the last table has no other miss: what the
    /// domain does by default.
    Default,
    /// No rule is for it and the last table hands over to the next domain.
    SwitchDomain,
    /// Nowhere.
    Drop(DropReason),
}

impl<T> Clone for Verdict<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Verdict<'_, T> {}

/// Takes packets that leave the tables.
pub trait Sink<P, T> {
    /// Called once for the packet and once for each of its copies. The packet
    /// is the sink's to change; what is left of it is not looked at again.
    fn deliver(&mut self, packet: &mut P, verdict: Verdict<'_, T>);
}

impl<P, T, F: FnMut(&mut P, Verdict<'_, T>)> Sink<P, T> for F {
    fn deliver(&mut self, packet: &mut P, verdict: Verdict<'_, T>) {
        self(packet, verdict);
    }
}

impl<T: Send + Sync + 'static> View<'_, T> {
    /// Leads a packet from a table (normally [`View::root`]) to its verdicts.
    ///
    /// `worker` is the calling worker's number, for counters. With
    /// [`NoTrace`](super::trace::NoTrace) tracing costs nothing. Several
    /// destinations are served in the order of the list, the last one with the
    /// packet itself.
    pub fn walk<P: Packet>(
        &self,
        from: TableRef,
        packet: &mut P,
        worker: usize,
        sink: &mut impl Sink<P, T>,
        trace: &mut impl Trace<T>,
    ) {
        let mut walk = Walk { shared: self.shared, worker, copies: 0, probes: 0, sink, trace };
        walk.run(&self.domain, from, packet, 0, 0);
    }
}

struct Walk<'a, T, S, R> {
    shared: &'a Shared<T>,
    worker: usize,
    copies: u32,
    probes: u32,
    sink: &'a mut S,
    trace: &'a mut R,
}

/// What follows a rule.
enum Next {
    Table(TableRef),
    Done,
}

impl<T: Send + Sync + 'static, S, R: Trace<T>> Walk<'_, T, S, R> {
    fn run<P: Packet>(&mut self, domain: &Domain<T>, from: TableRef, packet: &mut P, mut hops: u32, depth: u32)
    where
        S: Sink<P, T>,
    {
        let mut at = from;
        loop {
            if hops >= MAX_HOPS {
                return self.end(packet, Verdict::Drop(DropReason::Loop));
            }
            hops += 1;
            let Some(table) = domain.table(at) else {
                return self.follow_newer(at, packet, hops, depth);
            };
            if R::ON {
                self.trace.step(Step::Enter { table, metadata: Metadata::of(packet.key()) });
            }
            let mut next = None;
            for group in &table.groups {
                if self.probes >= MAX_PROBES {
                    return self.end(packet, Verdict::Drop(DropReason::Budget));
                }
                self.probes += 1;
                next = self.ask(domain, group, packet, hops, depth);
                if next.is_some() {
                    break;
                }
                if R::ON {
                    self.trace.step(Step::Miss { group, packet: packet.key() });
                }
            }
            at = match next {
                Some(Next::Table(to)) => to,
                Some(Next::Done) => return,
                None => match table.miss {
                    Miss::Table(to) => to,
                    Miss::Default => return self.end(packet, Verdict::Default),
                    Miss::SwitchDomain => return self.end(packet, Verdict::SwitchDomain),
                },
            };
        }
    }

    /// Goes on at a table that is not in the picture: a rule that is younger
    /// than the picture leads to a table that is younger too.
    #[cold]
    fn follow_newer<P: Packet>(&mut self, at: TableRef, packet: &mut P, hops: u32, depth: u32)
    where
        S: Sink<P, T>,
    {
        let newer = self.shared.domain.load();
        if depth < MAX_DEPTH && newer.table(at).is_some() {
            self.run(&newer, at, packet, hops, depth + 1);
        } else {
            self.end(packet, Verdict::Drop(DropReason::Stale));
        }
    }

    /// Lets a group's rule act on the packet, if it has one.
    fn ask<P: Packet>(
        &mut self,
        domain: &Domain<T>,
        group: &Group<T>,
        packet: &mut P,
        hops: u32,
        depth: u32,
    ) -> Option<Next>
    where
        S: Sink<P, T>,
    {
        let from_uplink = packet.is_from_uplink();
        group.find(packet, P::key, from_uplink, |packet, fte| {
            if R::ON {
                self.trace.step(Step::Hit { group, fte });
            }
            let acted = self.act(fte, packet);
            if R::ON {
                self.trace.step(Step::Acted { fte, done: acted, metadata: Metadata::of(packet.key()) });
            }
            if !acted {
                self.end(packet, Verdict::Drop(DropReason::Action));
                return Next::Done;
            }
            self.forward(domain, fte, packet, hops, depth)
        })
    }

    /// Everything but the destination, in the device's order.
    fn act<P: Packet>(&self, fte: &Fte<T>, packet: &mut P) -> bool {
        let a = &fte.actions;
        let on = |flag| a.flags.contains(flag);
        if on(Action::COUNT) {
            let octets = packet.octets();
            a.counters.iter().for_each(|c| c.add(self.worker, octets));
        }
        if a.flow_tag != 0 {
            packet.set_flow_tag(a.flow_tag);
        }
        let reformat = a.reformat.as_deref().filter(|_| on(Action::REFORMAT));
        let (before, after) = if reformat.is_some_and(Reformat::removes) { (reformat, None) } else { (None, reformat) };
        (!on(Action::DECAP) || packet.decap())
            && before.is_none_or(|r| packet.reformat(r))
            && a.modify.as_deref().filter(|_| on(Action::MODIFY_HEADER)).is_none_or(|m| packet.modify(m))
            && (!on(Action::POP_VLAN) || packet.pop_vlan())
            && (!on(Action::POP_VLAN_2) || packet.pop_vlan())
            && (!on(Action::PUSH_VLAN) || packet.push_vlan(a.push_vlan[0]))
            && (!on(Action::PUSH_VLAN_2) || packet.push_vlan(a.push_vlan[1]))
            && after.is_none_or(|r| packet.reformat(r))
    }

    fn forward<P: Packet>(&mut self, domain: &Domain<T>, fte: &Fte<T>, packet: &mut P, hops: u32, depth: u32) -> Next
    where
        S: Sink<P, T>,
    {
        let a = &fte.actions;
        if a.flags.contains(Action::DROP) {
            self.end(packet, Verdict::Drop(DropReason::Rule));
            return Next::Done;
        }
        if a.flags.contains(Action::ALLOW) {
            self.end(packet, Verdict::Allow);
            return Next::Done;
        }
        let Some((last, others)) = a.dests.split_last() else {
            self.end(packet, Verdict::Drop(DropReason::NoDestination));
            return Next::Done;
        };
        for dest in others {
            if self.copies >= MAX_COPIES || depth >= MAX_DEPTH {
                self.end(packet, Verdict::Drop(DropReason::Budget));
                return Next::Done;
            }
            self.copies += 1;
            let mut copy = packet.replicate();
            if R::ON {
                self.trace.step(Step::Copy { number: self.copies });
            }
            if let Next::Table(to) = self.leave(dest, &mut copy) {
                self.run(domain, to, &mut copy, hops, depth + 1);
            }
        }
        self.leave(last, packet)
    }

    fn leave<P: Packet>(&mut self, dest: &Dest<T>, packet: &mut P) -> Next
    where
        S: Sink<P, T>,
    {
        let verdict = match dest {
            Dest::Table(to) | Dest::TableOfType(to) => return Next::Table(*to),
            Dest::Tir { id, tir } => Verdict::Tir { id: *id, tir },
            Dest::Vport { num, vhca_id, .. } => Verdict::Vport { num: *num, vhca_id: *vhca_id },
            Dest::Uplink { vhca_id, .. } => Verdict::Uplink { vhca_id: *vhca_id },
            Dest::VhcaRx { vhca_id } => Verdict::VhcaRx { vhca_id: *vhca_id },
        };
        let fits = dest.reformat().is_none_or(|r| packet.reformat(r));
        self.end(packet, if fits { verdict } else { Verdict::Drop(DropReason::Action) });
        Next::Done
    }

    fn end<P>(&mut self, packet: &mut P, verdict: Verdict<'_, T>)
    where
        S: Sink<P, T>,
    {
        if R::ON {
            self.trace.step(Step::End { verdict });
        }
        self.sink.deliver(packet, verdict);
    }
}
