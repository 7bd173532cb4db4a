//! Flow counters: counted by many workers, read by one command.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How many workers count without touching one another's cache lines.
pub const SHARDS: usize = 16;

#[derive(Default)]
struct Slot {
    packets: AtomicU64,
    octets: AtomicU64,
}

/// Four counters share a line; all of a line belong to one worker.
#[derive(Default)]
#[repr(align(64))]
struct Line([Slot; Line::SLOTS]);

impl Line {
    const SLOTS: usize = 4;
}

/// The counters of one ALLOC_FLOW_COUNTER: one, or a bulk of `128 << n`.
///
/// A worker's part is allocated when the worker first counts.
pub struct CounterBulk {
    base: u32,
    len: u32,
    shards: [OnceLock<Box<[Line]>>; SHARDS],
}

impl std::fmt::Debug for CounterBulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CounterBulk({} from {:#x})", self.len, self.base)
    }
}

impl CounterBulk {
    /// `len` counters numbered from `base`, all zero.
    pub fn new(base: u32, len: u32) -> Arc<Self> {
        Arc::new(Self { base, len, shards: Default::default() })
    }

    /// How many counters the bulk bitmask of ALLOC_FLOW_COUNTER asks for
    /// (`enum mlx5_fc_bulk_alloc_bitmask`): its lowest set bit `n` gives
    /// `128 << n`, none gives one.
    pub fn len_of_bitmask(bitmask: u8) -> u32 {
        if bitmask == 0 { 1 } else { 128 << bitmask.trailing_zeros() }
    }

    /// Number of the first counter: what ALLOC answered and DEALLOC names.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// How many counters.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The counter numbered `id`; none outside the bulk.
    pub fn counter(self: &Arc<Self>, id: u32) -> Option<FlowCounter> {
        let index = id.checked_sub(self.base).filter(|i| *i < self.len)?;
        Some(FlowCounter { bulk: self.clone(), index })
    }

    fn slot(lines: &[Line], index: u32) -> Option<&Slot> {
        let index = index as usize;
        lines.get(index / Line::SLOTS).map(|l| &l.0[index % Line::SLOTS])
    }

    fn add(&self, index: u32, shard: usize, octets: u64) {
        let lines = self.shards[shard % SHARDS]
            .get_or_init(|| (0..(self.len as usize).div_ceil(Line::SLOTS)).map(|_| Line::default()).collect());
        if let Some(s) = Self::slot(lines, index) {
            s.packets.fetch_add(1, Ordering::Relaxed);
            s.octets.fetch_add(octets, Ordering::Relaxed);
        }
    }

    fn sum(&self, index: u32, read: impl Fn(&AtomicU64) -> u64) -> (u64, u64) {
        let slots = self.shards.iter().filter_map(|s| s.get().and_then(|l| Self::slot(l, index)));
        slots.fold((0, 0), |(p, o), s| (p.wrapping_add(read(&s.packets)), o.wrapping_add(read(&s.octets))))
    }
}

/// One flow counter, as a rule holds it.
#[derive(Clone)]
pub struct FlowCounter {
    bulk: Arc<CounterBulk>,
    index: u32,
}

impl FlowCounter {
    /// Its number.
    pub fn id(&self) -> u32 {
        self.bulk.base.wrapping_add(self.index)
    }
    /// The bulk that it belongs to.
    pub fn bulk(&self) -> &Arc<CounterBulk> {
        &self.bulk
    }
    /// Counts a packet. `shard` is the calling worker's number.
    pub fn add(&self, shard: usize, octets: u64) {
        self.bulk.add(self.index, shard, octets);
    }
    /// Packets and octets (QUERY_FLOW_COUNTER).
    pub fn read(&self) -> (u64, u64) {
        self.bulk.sum(self.index, |v| v.load(Ordering::Relaxed))
    }
    /// Packets and octets, which start again at zero; nothing that is counted
    /// meanwhile is lost.
    pub fn read_and_clear(&self) -> (u64, u64) {
        self.bulk.sum(self.index, |v| v.swap(0, Ordering::Relaxed))
    }
}

impl std::fmt::Debug for FlowCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (packets, octets) = self.read();
        write!(f, "counter {:#x} ({packets} packets, {octets} octets)", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed_and_cleared() {
        let bulk = CounterBulk::new(0x100, 128);
        let c = bulk.counter(0x105).unwrap();
        c.add(0, 60);
        c.add(3, 40);
        c.add(3 + SHARDS, 1);
        assert_eq!(c.read(), (3, 101));
        assert_eq!(bulk.counter(0x104).unwrap().read(), (0, 0));
        assert_eq!(c.read_and_clear(), (3, 101));
        assert_eq!(c.read(), (0, 0));
    }

    #[test]
    fn a_bulk_has_its_own_numbers_only() {
        let bulk = CounterBulk::new(8, CounterBulk::len_of_bitmask(0));
        assert!(bulk.counter(7).is_none() && bulk.counter(9).is_none());
        assert_eq!(bulk.counter(8).unwrap().id(), 8);
        assert_eq!((CounterBulk::len_of_bitmask(1), CounterBulk::len_of_bitmask(0x80)), (128, 16384));
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let bulk = CounterBulk::new(1, 1);
        std::thread::scope(|s| {
            for worker in 0..4 {
                let c = bulk.counter(1).unwrap();
                s.spawn(move || (0..10_000).for_each(|_| c.add(worker, 64)));
            }
        });
        assert_eq!(bulk.counter(1).unwrap().read(), (40_000, 2_560_000));
    }
}
