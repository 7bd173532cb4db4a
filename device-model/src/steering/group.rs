//! A flow group: rules that look at the same bits, found by the value of those
//! bits.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use papaya::{Equivalent, HashMap};
use sfnic_firmware_cmds::Layout;
use sfnic_firmware_cmds::layouts::{FteMatchParam, FteMatchSetLyr24};
use smallvec::SmallVec;

use super::changes::{Mark, Seed};
use super::object::Fte;
use crate::packet::MatchKey;

/// Bits of `match_criteria_enable` that name a block of `fte_match_param`
/// (`MLX5_MATCH_*`).
pub const CRITERIA: u8 = 0x7f;

/// Bit of `match_criteria_enable` and first byte of the block that it names.
const BLOCKS: [(u8, usize); 7] = [
    (0x01, FteMatchParam::outer_headers.offset()),
    (0x02, FteMatchParam::misc_parameters.offset()),
    (0x04, FteMatchParam::inner_headers.offset()),
    (0x08, FteMatchParam::misc_parameters_2.offset()),
    (0x10, FteMatchParam::misc_parameters_3.offset()),
    (0x20, FteMatchParam::misc_parameters_4.offset()),
    (0x40, FteMatchParam::misc_parameters_5.offset()),
];
/// Bytes of every block.
const BLOCK: usize = 0x40;

/// Groups of up to this many values are searched one by one.
const FEW: usize = 8;
/// Deleted rules that a group of many keeps at most before it frees those that no packet uses.
const RETIRED: usize = 32;

/// A match value under a mask: the masked dwords in the mask's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(pub(super) SmallVec<[u32; 4]>);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for d in &self.0 {
            state.write_u32(*d);
        }
    }
}

/// Match criteria: which bits of which dwords a group looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Box<[(usize, u32)]>);

impl Mask {
    /// Bits of blocks that `criteria` does not enable count for nothing.
    pub fn new(mask: &MatchKey, criteria: u8) -> Self {
        let enabled = |dword: usize| {
            let block = BLOCKS.iter().find(|(_, start)| (*start..start + BLOCK).contains(&(dword * 4)));
            block.is_some_and(|(bit, _)| criteria & bit != 0)
        };
        Self(mask.0.iter().copied().enumerate().filter(|(i, m)| *m != 0 && enabled(*i)).collect())
    }

    /// Dword index in `fte_match_param` and mask, ascending.
    pub fn dwords(&self) -> &[(usize, u32)] {
        &self.0
    }

    /// Whether it looks at addresses or ports: then packets of one way have
    /// many values of it, otherwise few.
    pub fn tells_many_apart(&self) -> bool {
        use FteMatchSetLyr24 as H;
        let fields = [H::smac_47_16, H::smac_15_0, H::dmac_47_16, H::dmac_15_0];
        let ports = [H::tcp_sport, H::tcp_dport, H::udp_sport, H::udp_dport];
        let addresses = H::src_ipv4_src_ipv6.offset() / 4..H::SIZE / 4;
        let looks = |index: usize, mask: u32| {
            let mut all = fields.iter().chain(&ports);
            all.any(|f| f.dword() == index && f.mask() & mask != 0) || addresses.contains(&index)
        };
        self.0.iter().any(|(index, mask)| looks(*index, *mask))
    }

    pub(super) fn key_of(&self, value: &MatchKey) -> Key {
        Key(self.0.iter().map(|(i, m)| value.0[*i] & m).collect())
    }

    fn matches(&self, packet: &MatchKey, key: &Key) -> bool {
        self.0.iter().zip(&key.0).all(|((i, m), v)| packet.0[*i] & m == *v)
    }
}

/// A packet looked up through a mask, without a copy.
struct Probe<'a> {
    mask: &'a Mask,
    packet: &'a MatchKey,
}

impl Hash for Probe<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (i, m) in &self.mask.0 {
            state.write_u32(self.packet.0[*i] & m);
        }
    }
}

impl Equivalent<Key> for Probe<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.mask.matches(self.packet, key)
    }
}

/// Rules of one value, lowest index first.
pub(super) type Rules<T> = SmallVec<[Arc<Fte<T>>; 1]>;

enum Store<T> {
    /// Replaced whole when a rule changes.
    Few(SmallVec<[Rules<T>; 2]>),
    /// Changed in place.
    Many(HashMap<Key, Rules<T>, RandomState>),
}

/// A flow group.
pub struct Group<T> {
    /// Number of the group.
    pub id: u32,
    /// First flow index.
    pub start: u32,
    /// Last flow index.
    pub end: u32,
    /// `match_criteria_enable` as the driver gave it.
    pub criteria: u8,
    mask: Mask,
    many: bool,
    seed: Seed,
    store: ArcSwap<Store<T>>,
}

impl<T: Send + Sync + 'static> Group<T> {
    pub(super) fn new(id: u32, (start, end): (u32, u32), criteria: u8, mask: &MatchKey, seed: Seed) -> Self {
        let store = ArcSwap::from_pointee(Store::Few(SmallVec::new()));
        let mask = Mask::new(mask, criteria);
        Self { id, start, end, criteria, many: mask.tells_many_apart(), mask, seed, store }
    }

    /// What it looks at.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// As [`Mask::tells_many_apart`].
    pub fn tells_many_apart(&self) -> bool {
        self.many
    }

    /// The mark of what the group has for a packet.
    pub fn mark(&self, packet: &MatchKey) -> Mark {
        Mark::value(self.seed, self.mask.0.iter().map(|(i, m)| packet.0[*i] & m))
    }

    /// The mark of what the group has for a value.
    pub(super) fn mark_of(&self, key: &Key) -> Mark {
        Mark::value(self.seed, key.0.iter().copied())
    }

    /// The mark of what the group has for the packets of one of its rules.
    pub fn mark_of_rule(&self, fte: &Fte<T>) -> Mark {
        self.mark_of(&fte.key)
    }

    /// Finds the rule for a packet, whose match fields are `key` of it, and
    /// hands both to `then`. The rule lives as long as `then` runs.
    pub(super) fn find<P, R>(
        &self,
        packet: &mut P,
        key: impl Fn(&P) -> &MatchKey,
        from_uplink: bool,
        then: impl FnOnce(&mut P, &Fte<T>) -> R,
    ) -> Option<R> {
        let first = |rules: &Rules<T>| rules.iter().position(|f| f.actions.flow_source.admits(from_uplink));
        match &**self.store.load() {
            Store::Few(all) => {
                let fields = key(packet);
                let rules = all.iter().find(|r| r.first().is_some_and(|f| self.mask.matches(fields, &f.key)))?;
                let rule = &rules[first(rules)?];
                Some(then(packet, rule))
            }
            Store::Many(map) => {
                let guard = map.guard();
                let rules = map.get(&Probe { mask: &self.mask, packet: key(packet) }, &guard)?;
                let rule = &rules[first(rules)?];
                Some(then(packet, rule))
            }
        }
    }

    /// Replaces the rules of one value by what `edit` makes of them. Packets
    /// see the rules before or after. One caller at a time.
    pub(super) fn edit(&self, key: &Key, edit: impl FnOnce(&mut Rules<T>)) {
        let store = self.store.load();
        match &**store {
            Store::Few(all) => {
                let mut all = all.clone();
                let at = all.iter().position(|r| r.first().is_some_and(|f| f.key == *key));
                let mut rules = at.map(|i| all.remove(i)).unwrap_or_default();
                edit(&mut rules);
                if !rules.is_empty() {
                    all.push(rules);
                }
                let new = if all.len() > FEW { Store::Many(spread(all)) } else { Store::Few(all) };
                drop(store);
                self.store.store(Arc::new(new));
            }
            Store::Many(map) => {
                let guard = map.guard();
                let mut rules = map.get(key, &guard).cloned().unwrap_or_default();
                edit(&mut rules);
                if !rules.is_empty() {
                    map.insert(key.clone(), rules, &guard);
                    return;
                }
                map.remove(key, &guard);
                if map.is_empty() {
                    // What it still keeps of the rules that it had goes with it.
                    drop(guard);
                    drop(store);
                    self.store.store(Arc::new(Store::Few(SmallVec::new())));
                }
            }
        }
    }

    /// How many rules have the value `key`.
    pub(super) fn same(&self, key: &Key) -> usize {
        match &**self.store.load() {
            Store::Few(all) => all.iter().find(|r| r.first().is_some_and(|f| f.key == *key)).map_or(0, |r| r.len()),
            Store::Many(map) => map.pin().get(key).map_or(0, |r| r.len()),
        }
    }

    /// Why no rule is for the packet: among up to `look` rules, the one that
    /// agrees with it in most dwords, and the first dword in which it differs
    /// (index into the mask). None where the group has no rule that differs.
    pub(super) fn nearest(&self, packet: &MatchKey, look: usize) -> Option<(Arc<Fte<T>>, usize)> {
        let mut best: Option<(usize, Arc<Fte<T>>, usize)> = None;
        let mut consider = |rules: &Rules<T>| {
            let Some(fte) = rules.first() else { return };
            let differs = |((i, m), v): &(&(usize, u32), &u32)| packet.0[*i] & m != **v;
            let pairs = || self.mask.0.iter().zip(&fte.key.0);
            let wrong = pairs().filter(differs).count();
            if let Some(at) = pairs().position(|p| differs(&p))
                && best.as_ref().is_none_or(|b| (wrong, fte.index) < (b.0, b.1.index))
            {
                best = Some((wrong, fte.clone(), at));
            }
        };
        match &**self.store.load() {
            Store::Few(all) => all.iter().take(look).for_each(&mut consider),
            Store::Many(map) => map.pin().values().take(look).for_each(&mut consider),
        }
        best.map(|(_, fte, at)| (fte, at))
    }
}

fn spread<T: Send + Sync + 'static>(all: SmallVec<[Rules<T>; 2]>) -> HashMap<Key, Rules<T>, RandomState> {
    // Rules hold counters and TIRs, which should not outlive their last packet by much. But to
    // look for what can be freed interrupts every thread: not for each rule.
    let collector = seize::Collector::new().batch_size(RETIRED);
    let map = HashMap::builder().hasher(RandomState::default()).collector(collector).build();
    let guard = map.guard();
    for rules in all {
        if let Some(first) = rules.first() {
            let key = first.key.clone();
            map.insert(key, rules, &guard);
        }
    }
    drop(guard);
    map
}
