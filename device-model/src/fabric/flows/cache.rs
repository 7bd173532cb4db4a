//! The cache of one worker: flows by exact match, and the ways that they share.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::fabric::peer::Peer;
use crate::fabric::plane::FunctionPlane;
use crate::fabric::tir::{Lro, Tir};
use crate::fabric::vport::Vport;
use crate::packet::FlowKey;
use crate::queue::{Rq, RssType};
use crate::steering::group::Group;
use crate::steering::{Changes, Mark, Moment, Place};

/// Most flows; with the index, 144 bytes each.
const MAX_FLOWS: usize = 1 << 20;
/// Most different ways.
const MAX_WAYS: usize = 1 << 12;
/// Flows of a set: one cache line of index.
const SET: usize = 8;
/// Sets to begin with.
const FIRST_SETS: usize = 1 << 9;

/// Where a flow's frames end.
#[derive(Debug, Clone)]
pub enum End {
    /// In a receive queue.
    Queue {
        /// Its function.
        function: Arc<FunctionPlane>,
        /// Vport of the function.
        vport: Arc<Vport>,
        /// The queue.
        rq: Arc<Rq>,
        /// What the hash covers.
        rss: RssType,
        /// What of them is joined.
        lro: Lro,
    },
    /// Outside: they leave by the wire of a card's port.
    Wire(usize),
    /// At the peer behind a vport.
    Peer {
        /// The vport.
        vport: Arc<Vport>,
        /// The peer.
        peer: Arc<Peer>,
    },
    /// A rule of the eswitch drops them.
    Drop,
}

/// What flows have in common that go from one place to another.
#[derive(Debug, Clone)]
pub struct Way {
    /// Ports that they leave by, by card.
    pub ports_out: SmallVec<[usize; 2]>,
    /// Ports that they come in by.
    pub ports_in: SmallVec<[usize; 2]>,
    /// Bytes of the longest frame that goes this way.
    pub max_len: usize,
    /// How many vports and ports they pass.
    pub crossings: u32,
    /// Where they end.
    pub end: End,
}

impl Way {
    fn is(&self, other: &Self) -> bool {
        let same_end = match (&self.end, &other.end) {
            (End::Drop, End::Drop) => true,
            (End::Wire(a), End::Wire(b)) => a == b,
            (End::Peer { vport: v, peer: o }, End::Peer { vport, peer }) => {
                Arc::ptr_eq(o, peer) && Arc::ptr_eq(v, vport)
            }
            (
                End::Queue { function: f, vport: v, rq: q, rss: r, lro: l },
                End::Queue { function, vport, rq, rss, lro },
            ) => Arc::ptr_eq(q, rq) && Arc::ptr_eq(f, function) && Arc::ptr_eq(v, vport) && (r, l) == (rss, lro),
            _ => false,
        };
        same_end
            && self.ports_out == other.ports_out
            && self.ports_in == other.ports_in
            && (self.max_len, self.crossings) == (other.max_len, other.crossings)
    }
}

/// Where some counters count.
pub type Places = SmallVec<[Place; 4]>;

/// Marks, see [`Changes`].
pub type Marks = SmallVec<[Mark; 8]>;

/// What a flow's way depends on.
#[derive(Debug, Default)]
pub struct Depends {
    /// What many flows have in common.
    pub shared: Marks,
    /// What few have.
    pub own: Marks,
}

impl Depends {
    /// Where the marks of a group belong.
    pub fn of(&mut self, group: &Group<Tir>) -> &mut Marks {
        if group.tells_many_apart() { &mut self.own } else { &mut self.shared }
    }
}

/// Most marks of its own that a flow may have; one with more is forgotten with
/// any change of a rule.
const MAX_MARKS: usize = 64;
/// Most different sets of shared marks.
const MAX_PATHS: usize = 1 << 12;

/// Marks that flows share.
#[derive(Debug)]
struct Path {
    marks: Marks,
    /// When the last of them was touched, up to the edit `seen`.
    newest: u32,
    seen: u32,
}

/// What is known of a flow.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Flow {
    key: FlowKey,
    way: u32,
    /// Up to which change of rules it is known to hold.
    holds: u32,
    /// What it depends on: a path, a mark of its own, and maybe more of these.
    path: u32,
    own: Mark,
    more: bool,
    /// Receive hash.
    pub rss_hash: u32,
    /// Flow tag of the completion.
    pub flow_tag: u32,
    /// Metadata register B.
    pub reg_b: u32,
    /// Where the flow counters of the rules on the way count.
    pub counters: Places,
}

impl Flow {
    /// Number of its way: flows with the same one can be served together.
    pub fn way(&self) -> u32 {
        self.way
    }

    /// A flow that its cache has yet to file.
    pub fn new(key: FlowKey, counters: Places) -> Self {
        Self {
            key,
            way: 0,
            holds: 0,
            path: 0,
            own: Mark::default(),
            more: false,
            rss_hash: 0,
            flow_tag: 0,
            reg_b: 0,
            counters,
        }
    }
}

/// Part of a hash and the number of the flow, counted from one; zero is none.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    tag: u32,
    flow: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Set([Slot; SET]);

/// A flow's place in its cache, until the cache changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(u32);

impl At {
    /// No place: no flow is there.
    pub const NONE: Self = Self(u32::MAX);
}

/// The flows of one worker.
#[derive(Debug, Default)]
pub struct Cache {
    sets: Vec<Set>,
    flows: Vec<Flow>,
    ways: Vec<Way>,
    paths: Vec<Path>,
    path_numbers: HashMap<Marks, u32, foldhash::fast::RandomState>,
    /// Further marks of flows that have more than one of their own.
    more: HashMap<u32, Marks, foldhash::fast::RandomState>,
    /// The flow that is replaced next when there are enough.
    hand: usize,
    /// The moment that everything is for.
    now: Moment,
    /// Flows learnt, since it was made.
    pub learnt: u64,
}

impl Cache {
    /// What is asked and learnt from here on is for this moment. Forgets
    /// everything where everything may have changed since; false then.
    pub fn sync(&mut self, now: Moment) -> bool {
        let before = std::mem::replace(&mut self.now, now);
        if before.epoch() == now.epoch() {
            return true;
        }
        if !self.flows.is_empty() {
            self.clear();
        }
        false
    }

    /// Whether what is known of a flow holds.
    #[inline(always)]
    pub fn holds(&mut self, at: At, changes: &Changes) -> bool {
        let Some(flow) = self.flows.get_mut(at.0 as usize) else { return false };
        if flow.holds == self.now.edit() {
            return true;
        }
        let Some(path) = self.paths.get_mut(flow.path as usize) else { return false };
        if path.seen != self.now.edit() {
            (path.seen, path.newest) = (self.now.edit(), changes.newest(&path.marks));
        }
        if path.newest.max(changes.newest(&[flow.own])) > flow.holds {
            return false;
        }
        if flow.more {
            let Some(more) = self.more.get(&at.0) else { return false };
            if more.len() > MAX_MARKS || changes.newest(more) > flow.holds {
                return false;
            }
        }
        flow.holds = self.now.edit();
        true
    }

    /// Brings near what [`Cache::holds`] will look at; what it answers means
    /// nothing.
    #[inline]
    pub fn touch_mark(&self, at: At, changes: &Changes) -> u32 {
        match self.flows.get(at.0 as usize) {
            Some(flow) if flow.holds != self.now.edit() => changes.newest(&[flow.own]),
            _ => 0,
        }
    }

    /// Number of a path.
    fn path(&mut self, marks: &Marks, changes: &Changes) -> Option<u32> {
        if let Some(n) = self.path_numbers.get(marks) {
            return Some(*n);
        }
        if self.paths.len() >= MAX_PATHS {
            return None;
        }
        let n = self.paths.len() as u32;
        self.path_numbers.insert(marks.clone(), n);
        self.paths.push(Path { marks: marks.clone(), newest: changes.newest(marks), seen: self.now.edit() });
        Some(n)
    }

    /// Notes what a flow depends on.
    fn depend(&mut self, number: u32, flow: &mut Flow, mut on: Depends, changes: &Changes) {
        flow.holds = self.now.edit();
        on.shared.sort_unstable();
        on.shared.dedup();
        match self.path(&on.shared, changes) {
            Some(n) => flow.path = n,
            // The first one made has room for all that have none.
            None => {
                on.own.append(&mut on.shared);
                flow.path = 0;
            }
        }
        on.own.sort_unstable();
        on.own.dedup();
        flow.own = on.own.pop().unwrap_or_default();
        flow.more = !on.own.is_empty();
        if flow.more {
            // One too many is enough to know.
            on.own.truncate(MAX_MARKS + 1);
            on.own.shrink_to_fit();
            self.more.insert(number, on.own);
        } else if !self.more.is_empty() {
            self.more.remove(&number);
        }
    }

    fn clear(&mut self) {
        self.flows.clear();
        self.ways.clear();
        self.paths.clear();
        self.path_numbers.clear();
        self.more.clear();
        self.sets.fill(Set::default());
        self.hand = 0;
    }

    fn set_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize & self.sets.len().wrapping_sub(1)
    }

    /// Brings the index's line of a hash near; what it answers means nothing.
    #[inline]
    pub fn touch_index(&self, hash: u64) -> u32 {
        self.sets.get(self.set_of(hash)).map_or(0, |s| s.0[0].tag)
    }

    /// Brings both lines of a flow near; what it answers means nothing.
    #[inline]
    pub fn touch(&self, at: At) -> u32 {
        self.flows.get(at.0 as usize).map_or(0, |f| f.key.any_word() ^ f.holds)
    }

    /// The flow that most likely has this hash: the first look, which waits
    /// for the index only.
    #[inline]
    pub fn candidate(&self, hash: u64) -> At {
        let Some(set) = self.sets.get(self.set_of(hash)) else { return At::NONE };
        let found = set.0.iter().find(|s| s.tag == hash as u32 && s.flow != 0);
        found.map_or(At::NONE, |s| At(s.flow - 1))
    }

    /// Whether a candidate is the flow: the second look, which waits for the
    /// flow.
    #[inline]
    pub fn confirm(&self, at: At, key: &FlowKey) -> bool {
        self.flows.get(at.0 as usize).is_some_and(|f| f.key == *key)
    }

    /// The flow of a key.
    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<At> {
        let set = self.sets.get(self.set_of(hash))?;
        let mut of_tag = set.0.iter().filter(|s| s.tag == hash as u32 && s.flow != 0).map(|s| At(s.flow - 1));
        of_tag.find(|at| self.confirm(*at, key))
    }

    /// What is known of a flow, and its way.
    #[inline]
    pub fn get(&self, at: At) -> Option<(&Flow, &Way)> {
        let flow = self.flows.get(at.0 as usize)?;
        Some((flow, self.ways.get(flow.way as usize)?))
    }

    /// What is known of a flow.
    #[inline]
    pub fn flow(&self, at: At) -> Option<&Flow> {
        self.flows.get(at.0 as usize)
    }

    /// As [`Flow::way`] of the flow at a place.
    #[inline]
    pub fn way(&self, at: At) -> Option<u32> {
        self.flows.get(at.0 as usize).map(|f| f.way)
    }

    /// Remembers a flow, its way and what that depends on, in place of what was
    /// known of it.
    pub fn learn(&mut self, hash: u64, mut flow: Flow, way: Way, on: Depends, changes: &Changes) {
        // The last ones are the likeliest.
        flow.way = match self.ways.iter().rposition(|w| w.is(&way)) {
            Some(n) => n as u32,
            None => {
                if self.ways.len() >= MAX_WAYS {
                    self.clear();
                }
                self.ways.push(way);
                self.ways.len() as u32 - 1
            }
        };
        self.learnt += 1;
        if let Some(at) = self.find(&flow.key, hash) {
            self.depend(at.0, &mut flow, on, changes);
            self.flows[at.0 as usize] = flow;
            return;
        }
        if self.flows.len() < MAX_FLOWS && self.flows.len() * 2 >= self.sets.len() * SET {
            self.grow();
        }
        let number = if self.flows.len() < MAX_FLOWS {
            self.depend(self.flows.len() as u32, &mut flow, on, changes);
            self.flows.push(flow);
            self.flows.len() as u32
        } else {
            let victim = self.hand;
            self.hand = (victim + 1) % MAX_FLOWS;
            self.unfile(self.flows[victim].key.hash(), victim as u32 + 1);
            self.depend(victim as u32, &mut flow, on, changes);
            self.flows[victim] = flow;
            victim as u32 + 1
        };
        let home = self.set_of(hash);
        file(&mut self.sets[home], hash, number);
    }

    fn unfile(&mut self, hash: u64, number: u32) {
        let home = self.set_of(hash);
        if let Some(slot) = self.sets[home].0.iter_mut().find(|s| s.flow == number) {
            *slot = Slot::default();
        }
    }

    /// Doubles the index.
    fn grow(&mut self) {
        self.sets = vec![Set::default(); (self.sets.len() * 2).max(FIRST_SETS)];
        for (i, flow) in self.flows.iter().enumerate() {
            let hash = flow.key.hash();
            let home = (hash >> 32) as usize & (self.sets.len() - 1);
            file(&mut self.sets[home], hash, i as u32 + 1);
        }
    }

    /// How many flows it holds.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

/// Files a flow in its set; where that is full, one of those there is no
/// longer found, and replaced when its turn comes.
fn file(set: &mut Set, hash: u64, number: u32) {
    let free = set.0.iter().position(|s| s.flow == 0);
    let at = free.unwrap_or((hash >> 29) as usize % SET);
    set.0[at] = Slot { tag: hash as u32, flow: number };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples::{self, Ip, Proto};
    use crate::packet::{Frame, Sender};

    fn key(n: u32) -> FlowKey {
        let mut raw = samples::frame(Ip::V4, Proto::Udp, 18);
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.quick_parse(Sender { card: 0, vport: 1, sqn: 0, reg_a: n }).unwrap()
    }

    fn dropped(max_len: usize) -> Way {
        Way { ports_out: SmallVec::new(), ports_in: SmallVec::new(), max_len, crossings: 0, end: End::Drop }
    }

    fn learn(c: &mut Cache, n: u32) {
        let mut flow = Flow::new(key(n), Places::new());
        flow.rss_hash = n;
        c.learn(key(n).hash(), flow, dropped(n as usize % 2), Depends::default(), &Changes::default());
    }

    #[test]
    fn flows_are_found_by_their_key_and_share_ways() {
        let mut c = Cache::default();
        assert_eq!(c.find(&key(0), key(0).hash()), None);
        for n in 0..5000 {
            learn(&mut c, n);
        }
        let mut found = 0;
        for n in 0..5000 {
            let Some(at) = c.find(&key(n), key(n).hash()) else { continue };
            let (flow, way) = c.get(at).unwrap();
            assert_eq!((flow.rss_hash, way.max_len), (n, n as usize % 2));
            found += 1;
        }
        assert!(found > 4900, "few sets overflow at this load: {found}");
        assert_eq!(c.ways.len(), 2);
        assert_eq!(c.find(&key(5000), key(5000).hash()), None);
    }

    #[test]
    fn a_change_of_everything_forgets_everything() {
        let (mut c, changes) = (Cache::default(), Changes::default());
        assert!(c.sync(changes.now()));
        learn(&mut c, 1);
        assert!(c.sync(changes.now()) && c.find(&key(1), key(1).hash()).is_some());
        changes.everything();
        assert!(!c.sync(changes.now()));
        assert!(c.is_empty() && c.ways.is_empty() && c.find(&key(1), key(1).hash()).is_none());
    }

    #[test]
    fn ways_are_bounded() {
        let mut c = Cache::default();
        for n in 0..=MAX_WAYS as u32 {
            c.learn(
                key(n).hash(),
                Flow::new(key(n), Places::new()),
                dropped(n as usize),
                Depends::default(),
                &Changes::default(),
            );
        }
        assert_eq!((c.ways.len(), c.len()), (1, 1));
        let at = c.find(&key(MAX_WAYS as u32), key(MAX_WAYS as u32).hash()).unwrap();
        assert_eq!(c.get(at).unwrap().1.max_len, MAX_WAYS);
    }

    #[test]
    fn a_flow_takes_two_cache_lines() {
        assert_eq!((size_of::<Flow>(), size_of::<Set>()), (128, 64));
    }
}
