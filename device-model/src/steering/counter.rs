//! Flow counters: counted by many workers, read by one command.
//!
//! All counters of a device lie in one store, in which each worker has a part
//! of its own: to count is one addition without a lock to a line that nobody
//! else writes, and the value is the sum of the parts when somebody asks. A
//! place in the store is a number, which what is known of flows keeps instead
//! of the counter; nothing there keeps a counter alive.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sfnic_firmware_cmds::status::{Refusal, Status, Syndrome};

/// Workers that have a part of their own; the others share one.
pub const SHARDS: usize = 16;
/// Counters of a block: what is allocated of a part at a time.
const BLOCK: u32 = 512;
/// Most blocks.
const BLOCKS: u32 = 1 << 14;
/// So many places rest after their counter is gone, so that a frame which is
/// under way counts nowhere.
const REST: usize = 64;

#[derive(Default)]
struct Slot {
    packets: AtomicU64,
    octets: AtomicU64,
}

type Block = OnceLock<Box<[Slot]>>;

/// One worker's part: blocks come to be when the worker first counts there.
#[derive(Default)]
struct Shard(OnceLock<Box<[Block]>>);

impl Shard {
    fn blocks(&self) -> &[Block] {
        self.0.get_or_init(|| (0..BLOCKS).map(|_| Block::new()).collect())
    }

    fn read(&self, place: Place) -> (u64, u64) {
        let block = self.0.get().and_then(|b| b.get((place.0 / BLOCK) as usize)).and_then(|b| b.get());
        let slot = block.and_then(|b| b.get((place.0 % BLOCK) as usize));
        slot.map_or((0, 0), |s| (s.packets.load(Relaxed), s.octets.load(Relaxed)))
    }
}

/// Where a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

/// One worker's counters, or those that the others share.
pub struct Part<'a> {
    blocks: &'a [Block],
    shared: bool,
}

impl Part<'_> {
    /// Counts a packet.
    #[inline]
    pub fn add(&self, place: Place, octets: u64) {
        self.add_all(place, 1, octets);
    }

    /// Counts so many frames, of so many octets together.
    #[inline]
    pub fn add_all(&self, place: Place, packets: u64, octets: u64) {
        let Some(block) = self.blocks.get((place.0 / BLOCK) as usize) else { return };
        let slots = block.get_or_init(|| (0..BLOCK).map(|_| Slot::default()).collect());
        let Some(s) = slots.get((place.0 % BLOCK) as usize) else { return };
        if self.shared {
            s.packets.fetch_add(packets, Relaxed);
            s.octets.fetch_add(octets, Relaxed);
        } else {
            // Nobody else writes here.
            s.packets.store(s.packets.load(Relaxed).wrapping_add(packets), Relaxed);
            s.octets.store(s.octets.load(Relaxed).wrapping_add(octets), Relaxed);
        }
    }
}

/// Places that are free.
#[derive(Default)]
struct Free {
    /// Blocks that were ever used.
    used: u32,
    blocks: VecDeque<u32>,
    /// Single places of blocks that have been broken up.
    singles: VecDeque<u32>,
}

impl Free {
    fn block(&mut self) -> Option<u32> {
        if self.blocks.len() > REST || self.used == BLOCKS {
            return self.blocks.pop_front();
        }
        self.used += 1;
        Some(self.used - 1)
    }

    fn single(&mut self) -> Option<u32> {
        if self.singles.len() <= REST
            && let Some(block) = self.block()
        {
            self.singles.extend(block * BLOCK..(block + 1) * BLOCK);
        }
        self.singles.pop_front()
    }
}

/// The store of all counters of a device.
#[derive(Default)]
pub struct Counters {
    shards: [Shard; SHARDS],
    shared: Shard,
    free: Mutex<Free>,
}

impl Counters {
    /// Counters numbered from `base`, all zero: one, or [`CounterBulk::LEN`].
    ///
    /// Refuses where the store is full.
    pub fn allocate(self: &Arc<Self>, base: u32, bulk: bool) -> Result<Arc<CounterBulk>, Refusal> {
        let mut free = self.free.lock();
        let first = if bulk { free.block().map(|b| b * BLOCK) } else { free.single() };
        drop(free);
        let first = first.ok_or(Refusal::new(Status::NoResources, Syndrome::OBJECT_LIMIT))?;
        let bulk =
            CounterBulk { base, len: if bulk { BLOCK } else { 1 }, first, store: self.clone(), zero: Mutex::default() };
        let places = (0..bulk.len).map(|i| Place(first + i));
        // Somebody may have counted here before.
        let zero: Vec<_> = places.map(|p| self.sum(p)).collect();
        if zero.iter().any(|z| *z != (0, 0)) {
            *bulk.zero.lock() = zero;
        }
        Ok(Arc::new(bulk))
    }

    /// Counts a packet. `worker` is the calling worker's number, which no other
    /// thread uses meanwhile.
    #[inline]
    pub fn add(&self, worker: usize, place: Place, octets: u64) {
        self.of(worker).add(place, octets);
    }

    /// Where a worker counts, as in [`Counters::add`].
    #[inline]
    pub fn of(&self, worker: usize) -> Part<'_> {
        match self.shards.get(worker) {
            Some(own) => Part { blocks: own.blocks(), shared: false },
            None => Part { blocks: self.shared.blocks(), shared: true },
        }
    }

    /// Brings a worker's part of a counter near; what it answers means nothing.
    #[inline]
    pub fn touch(&self, worker: usize, place: Place) -> u32 {
        self.shards.get(worker).map_or(0, |s| s.read(place).0 as u32)
    }

    fn sum(&self, place: Place) -> (u64, u64) {
        let all = self.shards.iter().chain([&self.shared]).map(|s| s.read(place));
        all.fold((0, 0), |(p, o), (packets, octets)| (p.wrapping_add(packets), o.wrapping_add(octets)))
    }

    /// Counters for tests, numbered from `base`.
    #[cfg(test)]
    pub(super) fn bulk(base: u32) -> Arc<CounterBulk> {
        Arc::new(Self::default()).allocate(base, true).unwrap()
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counters({} blocks)", self.free.lock().used)
    }
}

/// The counters of one ALLOC_FLOW_COUNTER: one, or a bulk.
pub struct CounterBulk {
    base: u32,
    len: u32,
    first: u32,
    store: Arc<Counters>,
    /// What the store had when each began or was cleared; none where that is
    /// nothing.
    zero: Mutex<Vec<(u64, u64)>>,
}

impl std::fmt::Debug for CounterBulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CounterBulk({} from {:#x})", self.len, self.base)
    }
}

impl CounterBulk {
    /// Counters of a bulk.
    pub const LEN: u32 = BLOCK;
    /// How a bulk is asked for and offered (`enum mlx5_fc_bulk_alloc_bitmask`):
    /// a bit stands for `128 << n` counters.
    pub const BITMASK: u32 = Self::LEN / 128;

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

    /// What was counted, by place in the bulk; those that counted nothing are left out.
    pub(crate) fn save(self: &Arc<Self>) -> Vec<(u32, u64, u64)> {
        let counter = |index| FlowCounter { bulk: self.clone(), index };
        let counts = (0..self.len).map(|index| (index, counter(index).read()));
        counts.filter(|(_, n)| *n != (0, 0)).map(|(index, (packets, octets))| (index, packets, octets)).collect()
    }

    /// Counts on from there; false where a place is not in the bulk.
    #[must_use]
    pub(crate) fn restore(&self, counts: &[(u32, u64, u64)]) -> bool {
        let mut all = self.zero.lock();
        all.resize(self.len as usize, (0, 0));
        for (index, packets, octets) in counts {
            let Some(zero) = all.get_mut(*index as usize) else { return false };
            let sum = self.store.sum(Place(self.first + index));
            *zero = (sum.0.wrapping_sub(*packets), sum.1.wrapping_sub(*octets));
        }
        true
    }

    /// The counter numbered `id`; none outside the bulk.
    pub fn counter(self: &Arc<Self>, id: u32) -> Option<FlowCounter> {
        let index = id.checked_sub(self.base).filter(|i| *i < self.len)?;
        Some(FlowCounter { bulk: self.clone(), index })
    }
}

impl Drop for CounterBulk {
    fn drop(&mut self) {
        let mut free = self.store.free.lock();
        if self.len == 1 {
            free.singles.push_back(self.first);
        } else {
            free.blocks.push_back(self.first / BLOCK);
        }
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
    /// Where it counts.
    pub fn place(&self) -> Place {
        Place(self.bulk.first + self.index)
    }
    /// Counts a packet. `worker` is the calling worker's number.
    pub fn add(&self, worker: usize, octets: u64) {
        self.bulk.store.add(worker, self.place(), octets);
    }
    /// Packets and octets (QUERY_FLOW_COUNTER).
    pub fn read(&self) -> (u64, u64) {
        let (packets, octets) = self.bulk.store.sum(self.place());
        let zero = self.bulk.zero.lock().get(self.index as usize).copied().unwrap_or_default();
        (packets.wrapping_sub(zero.0), octets.wrapping_sub(zero.1))
    }
    /// Packets and octets, which start again at zero; nothing that is counted
    /// meanwhile is lost.
    pub fn read_and_clear(&self) -> (u64, u64) {
        let (packets, octets) = self.bulk.store.sum(self.place());
        let mut all = self.bulk.zero.lock();
        all.resize(self.bulk.len as usize, (0, 0));
        let Some(zero) = all.get_mut(self.index as usize) else { return (0, 0) };
        let was = std::mem::replace(zero, (packets, octets));
        (packets.wrapping_sub(was.0), octets.wrapping_sub(was.1))
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
    fn parts_are_summed_and_cleared() {
        let bulk = Counters::bulk(0x100);
        let c = bulk.counter(0x105).unwrap();
        c.add(0, 60);
        c.add(3, 40);
        c.add(3 + SHARDS, 1);
        assert_eq!(c.read(), (3, 101));
        assert_eq!(bulk.counter(0x104).unwrap().read(), (0, 0));
        assert_eq!(c.read_and_clear(), (3, 101));
        assert_eq!((c.read(), bulk.counter(0x104).unwrap().read()), ((0, 0), (0, 0)));
        c.add(1, 7);
        assert_eq!(c.read(), (1, 7));
    }

    #[test]
    fn a_bulk_has_its_own_numbers_only() {
        let store = Arc::new(Counters::default());
        let one = store.allocate(8, false).unwrap();
        assert!(one.counter(7).is_none() && one.counter(9).is_none());
        assert_eq!(one.counter(8).unwrap().id(), 8);
        let bulk = store.allocate(0x200, true).unwrap();
        assert!(bulk.counter(0x1ff).is_none() && bulk.counter(0x200 + CounterBulk::LEN).is_none());
        assert_eq!(CounterBulk::BITMASK.count_ones(), 1);
    }

    #[test]
    fn places_are_used_again_from_zero() {
        let store = Arc::new(Counters::default());
        let mut seen = 0;
        for round in 0..3 * REST as u32 {
            for bulk in [true, false] {
                let b = store.allocate(1, bulk).unwrap();
                let c = b.counter(b.len()).unwrap();
                assert_eq!(c.read(), (0, 0), "{round}");
                c.add(round as usize % 3, 60);
                assert_eq!(c.read(), (1, 60));
                seen = seen.max(c.place().0 / BLOCK);
            }
        }
        assert!(seen <= REST as u32 + 2, "{seen}");
    }

    #[test]
    fn a_full_store_refuses() {
        let store = Arc::new(Counters::default());
        let all: Vec<_> = (0..BLOCKS).map(|i| store.allocate(i, true).unwrap()).collect();
        assert!(store.allocate(0, true).is_err() && store.allocate(0, false).is_err());
        drop(all);
        assert!(store.allocate(0, true).is_ok() && store.allocate(0, false).is_ok());
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let bulk = Counters::bulk(1);
        std::thread::scope(|s| {
            for worker in 0..4 {
                let c = bulk.counter(1).unwrap();
                s.spawn(move || (0..10_000).for_each(|_| c.add(worker * 8, 64)));
            }
        });
        assert_eq!(bulk.counter(1).unwrap().read(), (40_000, 2_560_000));
    }
}
