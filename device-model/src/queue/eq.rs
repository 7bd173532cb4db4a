//! Event queues.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sfnic_firmware_cmds::entries::{EqDoorbell, Eqe, event};
use sfnic_firmware_cmds::{Layout, Refusal, Syndrome, ViewMut};

use super::ring::Ring;
use crate::dma::Memory;
use crate::faults::{EventFate, Site};
use crate::trace::{Tap, mix};
use crate::world::Interrupts;

/// Bytes of an event's data.
pub const EVENT_DATA: usize = 28;
/// How many events other than completions wait for room before they are lost.
const MAX_HELD: usize = 256;

/// What CREATE_EQ asks for, parsed.
#[derive(Debug, Clone)]
pub struct EqConfig {
    /// Number of the queue, 8 bits in doorbells.
    pub eqn: u8,
    /// Ring of `64 << log_size` bytes.
    pub ring: Ring,
    /// log2 of the number of entries.
    pub log_size: u8,
    /// Index into the function's MSI-X table.
    pub vector: u16,
    /// The driver's doorbell page is plain memory, which several queues write: nobody
    /// hears how far it has read.
    pub unheard: bool,
}

/// What QUERY_EQ and the control plane see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EqSnapshot {
    /// Entries written, 24 bits.
    pub producer: u32,
    /// Entries that the driver said it has read, 24 bits.
    pub consumer: u32,
    /// The next entry raises an interrupt.
    pub armed: bool,
    /// The queue's memory could not be reached; it is dead.
    pub error: bool,
    /// Events waiting for room, or held back by a fault.
    pub held: usize,
    /// Times that the queue was found full.
    pub overruns: u64,
    /// Events that were lost (queue in error, or too many held).
    pub lost: u64,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Event {
    kind: u8,
    sub_type: u8,
    data: [u8; EVENT_DATA],
}

/// What is to be written.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
enum Due {
    /// The event of a completion queue, by its number.
    Completion(u32),
    Other(Event),
}

#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
struct Inner {
    /// Counts all entries ever written; its bit `log_size` is the owner bit.
    producer: u32,
    consumer: u32,
    armed: bool,
    error: bool,
    held: VecDeque<Event>,
    /// An event that a fault lets the next one overtake.
    back: Option<Due>,
    /// Completion queues whose event waits for room; one event each is enough.
    held_cqns: BTreeSet<u32>,
}

/// Where a queue is, with what it holds back.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedEq {
    inner: Inner,
    overruns: u64,
    lost: u64,
}

/// An event queue: a ring of 64-byte entries and an interrupt.
///
/// An entry carries the parity of its pass over the ring as owner, first pass
/// zero (`next_eqe_sw`). Entries that the driver has not read are never
/// overwritten: when the ring is full, events wait here, those of completions
/// merged to one a completion queue, and are written when the consumer moves.
///
/// A queue whose doorbells nobody hears is always armed and has always room. It does
/// not run over by itself: a completion queue has one event unread at most, since the
/// driver arms it after it has read the last one, and drivers make the ring larger than that.
pub struct Eq {
    eqn: u8,
    ring: Ring,
    log_size: u8,
    vector: u16,
    unheard: bool,
    irq: Arc<dyn Interrupts>,
    inner: Mutex<Inner>,
    overruns: AtomicU64,
    lost: AtomicU64,
    tap: Option<Tap>,
    noise: Option<u64>,
    site: Option<Site>,
}

impl Eq {
    /// Checks the ring against the size. Refuses with QUEUE_SIZE.
    pub fn new(config: EqConfig, irq: Arc<dyn Interrupts>) -> Result<Self, Refusal> {
        let EqConfig { eqn, ring, log_size, vector, unheard } = config;
        if log_size > 22 || ring.len() != (Eqe::SIZE as u64) << log_size {
            return Err(Refusal::param(Syndrome::QUEUE_SIZE));
        }
        Ok(Self {
            eqn,
            ring,
            log_size,
            vector,
            unheard,
            irq,
            inner: Mutex::default(),
            overruns: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            tap: None,
            noise: None,
            site: None,
        })
    }

    /// With someone who records the entries.
    pub(crate) fn watched(self, tap: Option<Tap>) -> Self {
        Self { tap, ..self }
    }

    /// With entries whose reserved bytes are filled from a seed.
    pub(crate) fn noisy(self, noise: Option<u64>) -> Self {
        Self { noise, ..self }
    }

    /// With events that faults strike.
    pub(crate) fn faulty(self, site: Site) -> Self {
        Self { site: Some(site), ..self }
    }

    /// Where it is.
    pub(crate) fn save(&self) -> SavedEq {
        let inner = self.inner.lock().clone();
        SavedEq { inner, overruns: self.overruns.load(Ordering::Relaxed), lost: self.lost.load(Ordering::Relaxed) }
    }

    /// Goes on from there; false where no queue can be there.
    #[must_use]
    pub(crate) fn restore(&self, saved: SavedEq) -> bool {
        let SavedEq { inner, overruns, lost } = saved;
        let sound = inner.consumer <= EqDoorbell::ci.max()
            && inner.held.len() <= MAX_HELD
            && inner.held_cqns.iter().all(|n| *n <= Eqe::cqn.max());
        *self.inner.lock() = inner;
        self.overruns.store(overruns, Ordering::Relaxed);
        self.lost.store(lost, Ordering::Relaxed);
        sound
    }

    /// Its ring, and log2 of the number of entries.
    pub(crate) fn ring(&self) -> (&Ring, u8) {
        (&self.ring, self.log_size)
    }

    /// Number of the queue.
    pub fn eqn(&self) -> u8 {
        self.eqn
    }

    /// Index into the MSI-X table.
    pub fn vector(&self) -> u16 {
        self.vector
    }

    /// Posts an event (`entries::event`); `data` is the entry from byte 0x20
    /// on. Raises the interrupt where the queue is armed.
    pub fn post(&self, mem: &Memory, kind: u8, sub_type: u8, data: [u8; EVENT_DATA]) {
        self.come(mem, kind, Due::Other(Event { kind, sub_type, data }));
    }

    /// Posts the completion event of a completion queue. While the ring is
    /// full, events of the same queue merge.
    pub fn post_completion(&self, mem: &Memory, cqn: u32) {
        self.come(mem, event::COMPLETION, Due::Completion(cqn));
    }

    /// An event comes; faults may strike it. One that is held back is written
    /// behind the next one.
    fn come(&self, mem: &Memory, kind: u8, due: Due) {
        self.with(|q| {
            // Under the lock: a fault that is taken out finds what it held back.
            let fate = self.site.as_ref().map_or(EventFate::Written, |s| s.event(self.eqn, kind, q.back.is_some()));
            match fate {
                EventFate::Written => {}
                EventFate::Lost => return false,
                EventFate::HeldBack => {
                    q.back = Some(due);
                    return false;
                }
                EventFate::WrittenTwice => self.put(q, mem, due.clone()),
            }
            self.put(q, mem, due);
            if let Some(back) = q.back.take() {
                self.put(q, mem, back);
            }
            false
        });
    }

    /// Writes the event that is held back, if one is.
    pub(crate) fn release(&self, mem: &Memory) {
        self.with(|q| {
            if let Some(back) = q.back.take() {
                self.put(q, mem, back);
            }
            false
        });
    }

    /// Writes an event, or keeps it until there is room.
    fn put(&self, q: &mut Inner, mem: &Memory, due: Due) {
        if q.error {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else if self.has_room(q) && q.held.is_empty() {
            let event = match due {
                Due::Completion(cqn) => completion(cqn),
                Due::Other(event) => event,
            };
            self.write(q, mem, &event);
        } else {
            self.overruns.fetch_add(1, Ordering::Relaxed);
            match due {
                Due::Completion(cqn) => {
                    q.held_cqns.insert(cqn);
                }
                Due::Other(event) if q.held.len() < MAX_HELD => q.held.push_back(event),
                Due::Other(_) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Doorbell 0x40: the driver has read up to `ci` (24 bits) and wants an
    /// interrupt for the next entry; at once where there are unread ones.
    pub fn arm(&self, mem: &Memory, ci: u32) {
        self.with(|q| {
            q.armed = true;
            self.consume(q, mem, ci);
            unread(q) != 0
        });
    }

    /// Doorbell 0x48: the driver has read up to `ci` (24 bits).
    pub fn update_ci(&self, mem: &Memory, ci: u32) {
        self.with(|q| {
            self.consume(q, mem, ci);
            false
        });
    }

    /// Forgets the events of a completion queue that is destroyed.
    pub fn forget(&self, cqn: u32) {
        let mut q = self.inner.lock();
        q.held_cqns.remove(&cqn);
        if matches!(q.back, Some(Due::Completion(back)) if back == cqn) {
            q.back = None;
        }
    }

    /// Ends the queue: nothing is written from here on.
    pub fn retire(&self) {
        let mut q = self.inner.lock();
        q.error = true;
        q.armed = false;
        q.held.clear();
        q.held_cqns.clear();
        q.back = None;
    }

    /// The queue's counters.
    pub fn snapshot(&self) -> EqSnapshot {
        let q = self.inner.lock();
        EqSnapshot {
            producer: EqDoorbell::ci.of_dword(q.producer),
            consumer: q.consumer,
            armed: q.armed,
            error: q.error,
            held: q.held.len() + q.held_cqns.len() + usize::from(q.back.is_some()),
            overruns: self.overruns.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// Runs `work` under the lock and raises the interrupt after it, where
    /// the queue is armed and `work` wrote an entry or asks for it.
    fn with(&self, work: impl FnOnce(&mut Inner) -> bool) {
        let fire = {
            let mut q = self.inner.lock();
            let before = q.producer;
            let fire = work(&mut q) || q.producer != before;
            // One interrupt per arm.
            fire && (self.unheard || std::mem::take(&mut q.armed))
        };
        if fire {
            self.irq.raise(self.vector);
        }
    }

    fn has_room(&self, q: &Inner) -> bool {
        self.unheard || unread(q) < 1 << self.log_size
    }

    /// Moves the consumer, which only goes forward and not past what was
    /// written (anything else is the guest's fault and ignored), and writes
    /// what waits for room.
    fn consume(&self, q: &mut Inner, mem: &Memory, ci: u32) {
        let moved = EqDoorbell::ci.of_dword(ci.wrapping_sub(q.consumer));
        if moved > unread(q) {
            return;
        }
        q.consumer = EqDoorbell::ci.of_dword(ci);
        while !q.error && self.has_room(q) {
            let Some(event) = q.held.pop_front().or_else(|| q.held_cqns.pop_first().map(completion)) else { break };
            self.write(q, mem, &event);
        }
    }

    fn write(&self, q: &mut Inner, mem: &Memory, event: &Event) {
        let mut entry = [0; Eqe::SIZE];
        if let Some(seed) = self.noise {
            let noise = mix(seed ^ u64::from(q.producer));
            // Before the data: all but the type's dword.
            entry[4..Eqe::data.offset()].as_chunks_mut::<4>().0.fill((noise as u32).to_be_bytes());
        }
        let owner = (q.producer >> self.log_size) & 1;
        ViewMut::<Eqe>::new(&mut entry)
            .set(Eqe::r#type, event.kind.into())
            .set(Eqe::sub_type, event.sub_type.into())
            .set_bytes(Eqe::data, &event.data)
            .set(Eqe::owner, owner);
        let at = u64::from(q.producer) * Eqe::SIZE as u64;
        if self.ring.publish(mem, at, &entry).is_err() {
            tracing::debug!(eqn = self.eqn, "event queue cannot be reached");
            q.error = true;
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            if let Some(tap) = &self.tap {
                tap.event(self.eqn, &entry);
            }
            q.producer = q.producer.wrapping_add(1);
        }
    }
}

#[cfg(test)]
impl Eq {
    pub(super) fn ring_for_test(&self) -> &Ring {
        &self.ring
    }
    pub(super) fn log_size_for_test(&self) -> u8 {
        self.log_size
    }
}

impl std::fmt::Debug for Eq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eq").field("eqn", &self.eqn).field("vector", &self.vector).finish_non_exhaustive()
    }
}

fn unread(q: &Inner) -> u32 {
    EqDoorbell::ci.of_dword(q.producer.wrapping_sub(q.consumer))
}

/// The part of an entry that an event fills: `set` writes its fields, the
/// result is what [`Eq::post`] takes.
pub(super) fn event_data(set: impl FnOnce(&mut ViewMut<'_, Eqe>)) -> [u8; EVENT_DATA] {
    let mut entry = [0; Eqe::SIZE];
    set(&mut ViewMut::new(&mut entry));
    let mut data = [0; EVENT_DATA];
    data.copy_from_slice(&entry[Eqe::data.offset()..][..EVENT_DATA]);
    data
}

fn completion(cqn: u32) -> Event {
    let data = event_data(|e| {
        e.set(Eqe::cqn, cqn);
    });
    Event { kind: event::COMPLETION, sub_type: 0, data }
}

/// The event queues of a function that asked for asynchronous events
/// (`event_bitmask` of CREATE_EQ). Read by workers without a lock.
#[derive(Default)]
pub struct AsyncEqs(ArcSwap<Vec<([u64; 4], Arc<Eq>)>>);

impl AsyncEqs {
    /// Adds a queue with its bitmask: bit `n % 64` of word `n / 64` asks for
    /// events of type `n`.
    pub fn insert(&self, mask: [u64; 4], eq: Arc<Eq>) {
        self.0.rcu(|list| {
            let mut list = Vec::clone(list);
            list.push((mask, eq.clone()));
            list
        });
    }

    /// The queues and their bitmasks.
    pub(crate) fn list(&self) -> Vec<([u64; 4], u8)> {
        self.0.load().iter().map(|(mask, eq)| (*mask, eq.eqn)).collect()
    }

    /// Removes the queue of this number.
    pub fn remove(&self, eqn: u8) {
        self.0.rcu(|list| list.iter().filter(|(_, eq)| eq.eqn != eqn).cloned().collect::<Vec<_>>());
    }

    /// Forgets every queue.
    pub fn clear(&self) {
        self.0.store(Arc::default());
    }

    /// Posts an event to every queue that asked for its type; false where
    /// none did.
    pub fn post(&self, mem: &Memory, kind: u8, sub_type: u8, data: [u8; EVENT_DATA]) -> bool {
        let mut heard = false;
        for (mask, eq) in self.0.load().iter() {
            if mask[usize::from(kind / 64)] & (1 << (kind % 64)) != 0 {
                eq.post(mem, kind, sub_type, data);
                heard = true;
            }
        }
        heard
    }
}

impl std::fmt::Debug for AsyncEqs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.load().iter().map(|(_, eq)| eq.eqn)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::mini_driver::{Guest, Irqs};
    use super::*;

    fn eq(guest: &Guest, irqs: &Arc<Irqs>, log_size: u8) -> Arc<Eq> {
        Arc::new(guest.eq(irqs, 5, log_size))
    }

    #[test]
    fn one_interrupt_per_arm_and_at_once_for_unread_entries() {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let q = eq(&guest, &irqs, 3);
        q.post_completion(&guest.mem, 1);
        assert_eq!(irqs.count(), 0, "not armed");
        q.arm(&guest.mem, 0);
        assert_eq!(irqs.count(), 1, "an unread entry");
        q.post_completion(&guest.mem, 2);
        assert_eq!(irqs.count(), 1, "one interrupt per arm");
        q.arm(&guest.mem, 2);
        assert_eq!(irqs.count(), 1);
        q.update_ci(&guest.mem, 2);
        q.post_completion(&guest.mem, 3);
        q.post_completion(&guest.mem, 4);
        assert_eq!(irqs.count(), 2);
    }

    #[test]
    fn owners_alternate_from_pass_to_pass() {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let q = eq(&guest, &irqs, 2);
        let mut d = guest.eq_driver(&q);
        for cqn in 0..37 {
            q.post_completion(&guest.mem, cqn);
            assert_eq!(d.poll(&guest.mem), Some((event::COMPLETION, cqn)));
            assert_eq!(d.poll(&guest.mem), None);
            q.update_ci(&guest.mem, d.ci);
        }
    }

    #[test]
    fn a_full_queue_holds_and_merges() {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let q = eq(&guest, &irqs, 2);
        let mut d = guest.eq_driver(&q);
        q.arm(&guest.mem, 0);
        for i in 0..20 {
            q.post_completion(&guest.mem, 10 + i % 6);
        }
        assert_eq!(irqs.count(), 1);
        assert_eq!(q.snapshot().held, 6, "16 events of 6 queues");
        assert_eq!(q.snapshot().overruns, 16);
        q.forget(15);
        q.post(&guest.mem, event::PORT_CHANGE, event::PORT_ACTIVE, [0; EVENT_DATA]);
        let mut seen = vec![];
        for _ in 0..8 {
            while let Some((kind, cqn)) = d.poll(&guest.mem) {
                seen.push(if kind == event::COMPLETION { cqn } else { 99 });
            }
            q.arm(&guest.mem, d.ci);
        }
        assert_eq!(seen, [10, 11, 12, 13, 99, 10, 11, 12, 13, 14]);
        assert_eq!(irqs.count(), 3, "an interrupt with each refill");
        assert_eq!((q.snapshot().held, q.snapshot().lost), (0, 0));
    }

    #[test]
    fn nonsense_from_the_guest_does_no_harm() {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let q = eq(&guest, &irqs, 1);
        for ci in [1, 5, 0xff_ffff, u32::MAX] {
            q.update_ci(&guest.mem, ci);
            assert_eq!(q.snapshot().consumer, 0, "beyond the producer");
        }
        for _ in 0..1000 {
            q.post(&guest.mem, event::PORT_CHANGE, 1, [0; EVENT_DATA]);
        }
        assert_eq!(q.snapshot().held, MAX_HELD);
        assert_eq!(q.snapshot().lost, 1000 - 2 - MAX_HELD as u64);
        q.update_ci(&guest.mem, 2);
        q.update_ci(&guest.mem, 1);
        assert_eq!(q.snapshot().consumer, 2, "never back");
    }

    #[test]
    fn unmapped_memory_ends_the_queue() {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let q = eq(&guest, &irqs, 3);
        q.arm(&guest.mem, 0);
        q.post_completion(&Memory::new(), 1);
        assert!(q.snapshot().error);
        q.post_completion(&guest.mem, 1);
        q.arm(&guest.mem, 0);
        assert_eq!((irqs.count(), q.snapshot().lost), (0, 2));
    }

    #[test]
    fn async_events_go_to_who_asked() {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let (a, b) = (Arc::new(guest.eq(&irqs, 1, 3)), Arc::new(guest.eq(&irqs, 2, 3)));
        let list = AsyncEqs::default();
        list.insert([1 << event::CQ_ERROR, 0, 0, 0], a.clone());
        list.insert([1 << event::PORT_CHANGE, 1, 0, 0], b.clone());
        assert!(list.post(&guest.mem, event::CQ_ERROR, 0, [0; EVENT_DATA]));
        assert!(list.post(&guest.mem, 64, 0, [0; EVENT_DATA]));
        assert!(!list.post(&guest.mem, 255, 0, [0; EVENT_DATA]));
        assert_eq!((a.snapshot().producer, b.snapshot().producer), (1, 1));
        list.remove(1);
        assert!(!list.post(&guest.mem, event::CQ_ERROR, 0, [0; EVENT_DATA]));
    }
}
