//! Receive queues. [`super::stride`] has those whose buffers take many frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sfnic_firmware_cmds::entries::{Cqe64, TERMINATE_SCATTER_LKEY, WqRecord, WqeData, WqeNext};
use sfnic_firmware_cmds::{Layout, Refusal, Syndrome, View};
use smallvec::SmallVec;
use vm_memory::VolatileSlice;

use super::cq::{Cq, CqBatch, CqFault, Debtor};
use super::merge::Merge;
use super::ring::Ring;
use super::session::RxSession;
use super::stride::{Open, Strides};
use super::window::{SavedWindow, Window};
use super::wqe::WqeFault;
use super::{Access, KeyCheck, KeyUse, StateCell, WqState};
use crate::dma::{DmaAccess, DmaError, Memory, Near};

/// Most guest ranges that one frame is scattered over.
const MAX_RANGES: usize = 256;

/// What CREATE_RQ asks for, parsed.
#[derive(Debug, Clone)]
pub struct RqConfig {
    /// Number of the queue.
    pub rqn: u32,
    /// Ring of `1 << (log_size + log_stride)` bytes.
    pub ring: Ring,
    /// log2 of the number of WQEs, at most 15.
    pub log_size: u8,
    /// log2 of the bytes of a WQE, 4 to 10.
    pub log_stride: u8,
    /// WQEs form a linked list (`wq_type` 0) instead of a cycle (1): the first
    /// segment of each names the next.
    pub linked: bool,
    /// Each WQE is one buffer for many frames (`wq_type` 2 and 3).
    pub strides: Option<Strides>,
    /// Where completions go.
    pub cq: Arc<Cq>,
    /// Doorbell record, 8-byte aligned; its first dword is the receive counter.
    pub dbr_addr: u64,
    /// Protection domain.
    pub pd: u32,
    /// The reserved key may be used (`rlky`).
    pub reserved_key: bool,
    /// VLAN tags are left in frames (`vsd`).
    pub vlan_strip_disable: bool,
    /// The frame check sequence is given to the driver (`scatter_fcs`).
    pub scatter_fcs: bool,
    /// Where frames without a buffer are counted.
    pub counter_set: Option<Arc<QCounter>>,
    /// On error, posted WQEs are completed with a flush error
    /// (`flush_in_error_en`); else they stay.
    pub flush_in_error: bool,
    /// Number that a user process gave the queue.
    pub user_index: u32,
    /// User context that owns the queue; zero for the kernel.
    pub uid: u16,
}

/// A set of queue counters (ALLOC_Q_COUNTER), shared by queues.
#[derive(Debug, Default)]
pub struct QCounter {
    /// Frames that found no receive WQE.
    pub out_of_buffer: AtomicU64,
    /// Receive WQEs completed in error.
    pub resp_cqe_error: AtomicU64,
    /// Receive WQEs flushed.
    pub resp_cqe_flush_error: AtomicU64,
}

/// What the receive hash was computed over (`rss_hash_type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RssType {
    /// 0 nothing, 1 IPv4, 2 IPv6 (`CQE_RSS_IP*`).
    pub ip: u8,
    /// 0 nothing, 1 TCP, 2 UDP, 3 IPsec SPI (`CQE_RSS_L4_*`).
    pub l4: u8,
}

/// What the device found out about a frame; the completion tells the driver.
/// Values wider than their field are cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct RxInfo {
    /// Receive hash.
    pub rss_hash: u32,
    /// What it was computed over.
    pub rss_type: RssType,
    /// Flow tag of steering, 24 bits (`skb->mark`; metadata_reg_c0 for
    /// representors).
    pub flow_tag: u32,
    /// Metadata of steering (`ft_metadata`: metadata_reg_b or reg_c1).
    pub metadata: u32,
    /// The IP header was checked and is right.
    pub l3_ok: bool,
    /// The TCP or UDP checksum was checked and is right.
    pub l4_ok: bool,
    /// 0 none, 1 IPv6, 2 IPv4.
    pub l3_type: u8,
    /// 0 none, 1 TCP, 2 UDP, 3 TCP ACK without data, 4 TCP ACK with data.
    pub l4_type: u8,
    /// Checksums are those inside a tunnel, the outer ones being right too.
    pub tunneled: bool,
    /// TCI of the frame's C-VLAN tag, if it has one; stripped as configured.
    pub vlan: Option<u16>,
    /// 16-bit ones' complement sum from the IP header to the frame's end, not
    /// complemented.
    pub check_sum: u16,
    /// The same without the C-VLAN tag, for queues that strip it.
    pub check_sum_stripped: u16,
    /// Frame check sequence as on the wire, for queues that scatter it.
    pub fcs: Option<[u8; 4]>,
}

/// A frame that can be copied into guest memory.
pub trait RxFrame {
    /// Length in bytes, without the frame check sequence.
    fn len(&self) -> usize;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame, where all of it lies in memory of ours.
    fn whole(&self) -> Option<&[u8]> {
        None
    }

    /// Copies the bytes from `offset` on, as many as `dst` is long; the range
    /// lies within the frame. Fails where the sender's memory is gone.
    fn copy_to(&self, offset: usize, dst: &VolatileSlice<'_>) -> Result<(), DmaError>;
}

/// Why a frame was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RxDrop {
    /// The driver has posted no buffer; counted in the counter set.
    #[error("no receive buffer")]
    NoBuffer,
    /// The buffer is smaller than the frame; it stays posted.
    #[error("frame longer than the receive buffer")]
    TooLong,
    /// The queue is not ready.
    #[error("receive queue not ready")]
    NotReady,
    /// The sender's memory is gone; the buffer stays posted.
    #[error("frame cannot be read")]
    Source,
    /// The posted buffer is at fault; the queue is in error.
    #[error("receive buffer: {0}")]
    Buffer(WqeFault),
    /// The completion could not be written; the queue is in error.
    #[error("{0}")]
    Completion(CqFault),
}

/// What QUERY_RQ and statistics see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RqSnapshot {
    /// State.
    pub state: WqState,
    /// WQEs used (`hw_counter`).
    pub consumer: u16,
    /// Receive counter as last read (`sw_counter`).
    pub producer: u16,
    /// VLAN tags are left in frames.
    pub vlan_strip_disable: bool,
    /// The frame check sequence is given to the driver.
    pub scatter_fcs: bool,
    /// Frames received.
    pub packets: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Frames without a buffer.
    pub no_buffer: u64,
    /// Frames longer than their buffer.
    pub too_long: u64,
    /// WQEs failed or flushed.
    pub errors: u64,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) consumer: u16,
    producer: u16,
    /// Index of the next WQE in a linked list.
    next: u16,
    /// The WQE that frames go into, of a striding queue; it is the last of `window`.
    pub(super) open: Option<Open>,
    /// Segments that are being joined behind what `open` has in use.
    pub(super) merge: Option<Box<Merge>>,
    pub(super) vlan_strip_disable: bool,
    pub(super) scatter_fcs: bool,
    pub(super) counter_set: Option<Arc<QCounter>>,
    window: Window,
    pub(super) ranges: SmallVec<[(u64, u32); 16]>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) no_buffer: u64,
    pub(super) too_long: u64,
    errors: u64,
}

/// Where a queue is.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedRq {
    state: WqState,
    consumer: u16,
    producer: u16,
    next: u16,
    open: Option<Open>,
    window: SavedWindow,
    /// Frames, bytes, frames without a buffer, frames too long for it, errors.
    stats: [u64; 5],
}

/// A receive queue: a ring of WQEs, each a list of buffers for one frame.
#[derive(Debug)]
pub struct Rq {
    pub(super) config: RqConfig,
    pub(super) state: StateCell,
    inner: Mutex<Inner>,
}

impl Rq {
    /// A queue in reset. Refuses with QUEUE_STRIDE, QUEUE_SIZE or
    /// DOORBELL_ALIGN.
    pub fn new(config: RqConfig) -> Result<Self, Refusal> {
        if !(4..=10).contains(&config.log_stride) || (config.linked && config.log_stride == 4) {
            return Err(Refusal::param(Syndrome::QUEUE_STRIDE));
        }
        if config.log_size > 15 || config.ring.len() != 1 << (config.log_size + config.log_stride) {
            return Err(Refusal::param(Syndrome::QUEUE_SIZE));
        }
        super::check_record(config.dbr_addr)?;
        let inner = Inner {
            consumer: 0,
            producer: 0,
            next: 0,
            open: None,
            merge: None,
            vlan_strip_disable: config.vlan_strip_disable,
            scatter_fcs: config.scatter_fcs,
            counter_set: config.counter_set.clone(),
            window: Window::default(),
            ranges: SmallVec::new(),
            packets: 0,
            bytes: 0,
            no_buffer: 0,
            too_long: 0,
            errors: 0,
        };
        Ok(Self { config, state: StateCell::default(), inner: Mutex::new(inner) })
    }

    /// Where it is, with what CREATE_RQ says of it; between bursts, when nothing is being
    /// joined.
    pub(crate) fn save(&self) -> (SavedRq, bool) {
        let q = self.inner.lock();
        debug_assert!(q.merge.is_none(), "segments are joined within a burst");
        let Inner { consumer, producer, next, open, merge: _, vlan_strip_disable, scatter_fcs: _, .. } = &*q;
        let Inner { counter_set: _, window, ranges: _, packets, bytes, no_buffer, too_long, errors, .. } = &*q;
        let saved = SavedRq {
            state: self.state.get(),
            consumer: *consumer,
            producer: *producer,
            next: *next,
            open: *open,
            window: window.save(),
            stats: [*packets, *bytes, *no_buffer, *too_long, *errors],
        };
        (saved, *vlan_strip_disable)
    }

    /// Goes on from there; false where no queue can be there.
    #[must_use]
    pub(crate) fn restore(&self, saved: SavedRq) -> bool {
        let SavedRq { state, consumer, producer, next, open, window, stats } = saved;
        let Some(window) = Window::restore(&window) else { return false };
        let mut q = self.inner.lock();
        (q.consumer, q.producer, q.next, q.window) = (consumer, producer, next, window);
        let sound = open.is_none_or(|o| self.config.strides.is_some_and(|s| o.used <= s.count()));
        q.open = open;
        [q.packets, q.bytes, q.no_buffer, q.too_long, q.errors] = stats;
        self.state.set(state);
        sound
    }

    /// Number of the queue.
    pub fn rqn(&self) -> u32 {
        self.config.rqn
    }

    /// What the queue was created with; MODIFY_RQ may have changed some of it.
    pub fn config(&self) -> &RqConfig {
        &self.config
    }

    /// State.
    pub fn state(&self) -> WqState {
        self.state.get()
    }

    /// MODIFY_RQ. Refuses as [`super::Sq::modify`] does.
    pub fn modify(&self, mem: &Memory, from: WqState, to: WqState) -> Result<(), Refusal> {
        let mut q = self.inner.lock();
        self.state.get().check_transition(from, to)?;
        self.state.set(to);
        match to {
            WqState::Rst => reset(&mut q),
            WqState::Err => {
                let near = Near::new(mem);
                q.merge = None;
                self.flush(&mut q, &near, &mut self.config.cq.batch(&near));
            }
            WqState::Rdy => {}
        }
        Ok(())
    }

    /// MODIFY_RQ: leave VLAN tags in frames or strip them.
    pub fn set_vlan_strip_disable(&self, disable: bool) {
        self.inner.lock().vlan_strip_disable = disable;
    }

    /// MODIFY_RQ: give the frame check sequence to the driver.
    pub fn set_scatter_fcs(&self, on: bool) {
        self.inner.lock().scatter_fcs = on;
    }

    /// MODIFY_RQ: count elsewhere.
    pub fn set_counter_set(&self, counter_set: Option<Arc<QCounter>>) {
        self.inner.lock().counter_set = counter_set;
    }

    /// Ends the queue: nothing is read or written from here on.
    pub fn retire(&self) {
        let mut q = self.inner.lock();
        self.state.set(WqState::Rst);
        reset(&mut q);
    }

    /// Counters.
    pub fn snapshot(&self) -> RqSnapshot {
        let q = self.inner.lock();
        RqSnapshot {
            state: self.state.get(),
            consumer: q.consumer,
            producer: q.producer,
            vlan_strip_disable: q.vlan_strip_disable,
            scatter_fcs: q.scatter_fcs,
            packets: q.packets,
            bytes: q.bytes,
            no_buffer: q.no_buffer,
            too_long: q.too_long,
            errors: q.errors,
        }
    }

    /// Whether the queue is ready and has no buffer for a frame of `len` bytes
    /// because the driver has posted none.
    pub fn is_starved(&self, mem: &Memory, len: usize) -> bool {
        self.lacks(&mut self.inner.lock(), &Near::new(mem), len)
    }

    /// As [`Self::is_starved`].
    pub(super) fn lacks(&self, q: &mut Inner, mem: &Near<'_>, len: usize) -> bool {
        if self.state.get() != WqState::Rdy {
            return false;
        }
        match self.posted(q, mem) {
            0 => true,
            1 if self.is_too_full(q, len) => {
                // The last one that is known of is in use.
                let used = q.consumer;
                q.consumer = q.producer;
                let more = self.posted(q, mem);
                q.consumer = used;
                more == 0
            }
            _ => false,
        }
    }

    /// Receives a frame; see [`RxSession::deliver`].
    pub fn deliver(
        &self,
        mem: &Memory,
        keys: &impl KeyCheck,
        frame: &impl RxFrame,
        info: &RxInfo,
        now: u64,
    ) -> Result<(), RxDrop> {
        self.session(&Near::new(mem), keys, now)?.deliver(frame, info)
    }

    /// Locks the queue and its completion queue to receive several frames.
    /// Completions are stamped `now` (in the format that the queue's
    /// `ts_format` names). Refuses with [`RxDrop::NotReady`].
    pub fn session<'a, 'm, K: KeyCheck>(
        &'a self,
        mem: &'a Near<'m>,
        keys: &'a K,
        now: u64,
    ) -> Result<RxSession<'a, 'm, K>, RxDrop> {
        // A look without the lock spares queues that are down.
        if self.state.get() != WqState::Rdy {
            return Err(RxDrop::NotReady);
        }
        let inner = self.inner.lock();
        Ok(RxSession::new(self, inner, self.config.cq.batch(mem), mem, keys, now))
    }

    /// How many WQEs are posted; looks at the record where none is known of.
    /// A counter further ahead than the ring is long is nonsense: none.
    pub(super) fn posted(&self, q: &mut Inner, mem: &Near<'_>) -> u16 {
        if q.producer == q.consumer {
            let Ok(word) = mem.dma_read32(self.config.dbr_addr + 4 * WqRecord::receive_counter.dword() as u64) else {
                return 0;
            };
            q.producer = WqRecord::receive_counter.of_dword(word) as u16;
        }
        let posted = q.producer.wrapping_sub(q.consumer);
        if u32::from(posted) <= 1 << self.config.log_size {
            return posted;
        }
        q.producer = q.consumer;
        0
    }

    /// Where the WQE that is next lies, and how many of the bytes from there on are
    /// posted of so many WQEs. In a cycle they lie behind each other; where the second
    /// of a linked list lies only the first one knows.
    fn place(&self, q: &Inner, posted: u16) -> (u64, usize) {
        let stride = 1usize << self.config.log_stride;
        let (number, there) = if self.config.linked { (self.index(q), 1) } else { (q.consumer, posted) };
        (u64::from(number) * stride as u64, stride * usize::from(there))
    }

    /// Index in the ring of the WQE that is next.
    pub(super) fn index(&self, q: &Inner) -> u16 {
        let mask = ((1u32 << self.config.log_size) - 1) as u16;
        mask & if self.config.linked { q.next } else { q.consumer }
    }

    pub(super) fn advance(&self, q: &mut Inner, next: u16) {
        q.next = next;
        q.consumer = q.consumer.wrapping_add(1);
    }

    /// Where the next WQE of a cycle that is known of takes `len` bytes, where its first buffer has
    /// room for them in one piece: most frames' case. What is wrong with the WQE is not told.
    #[inline(always)]
    pub(super) fn one_piece(&self, q: &mut Inner, mem: &Near<'_>, keys: &impl KeyCheck, len: usize) -> Option<u64> {
        let posted = q.producer.wrapping_sub(q.consumer);
        if posted == 0 {
            return None;
        }
        let (at, there) = self.place(q, posted);
        let wqe = q.window.get(&self.config.ring, mem, at, 1 << self.config.log_stride, there).ok()?;
        let seg = View::<WqeData>::new(wqe.first_chunk::<{ WqeData::SIZE }>()?);
        if (seg.get(WqeData::byte_count) as usize) < len {
            return None;
        }
        let (lkey, len) = (seg.get(WqeData::lkey), len as u32);
        let key = KeyUse { lkey, pd: self.config.pd, reserved: self.config.reserved_key, access: Access::Write };
        let mut found = None;
        let resolved = keys.resolve(key, seg.get64(WqeData::addr), len, |iova, n| {
            found = Some(iova).filter(|_| n == len);
        });
        found.filter(|_| resolved.is_ok())
    }

    /// Reads the first of the `posted` WQEs and answers the link to the next one.
    pub(super) fn read_wqe(&self, q: &mut Inner, mem: &Near<'_>, posted: u16) -> Result<u16, WqeFault> {
        let (at, there) = self.place(q, posted);
        if self.config.linked {
            q.window.clear();
        }
        let wqe = q.window.get(&self.config.ring, mem, at, 1 << self.config.log_stride, there);
        let wqe = wqe.map_err(|_| WqeFault::QueueDma)?;
        let head = wqe.get(..WqeNext::SIZE).filter(|_| self.config.linked);
        Ok(head.map_or(0, |head| View::<WqeNext>::new(head).get(WqeNext::next_wqe_index) as u16))
    }

    /// Finds `len` bytes from byte `skip` on in the buffers of the WQE that was
    /// read last; the ranges are in `q.ranges` then. Too little room is
    /// [`WqeFault::Length`].
    pub(super) fn find(&self, q: &mut Inner, keys: &impl KeyCheck, skip: u64, len: usize) -> Result<(), WqeFault> {
        let from = if self.config.linked { WqeNext::SIZE } else { 0 };
        let list = q.window.last().get(from..1 << self.config.log_stride).unwrap_or(&[]);
        q.ranges.clear();
        let mut skip = skip;
        let mut left = u32::try_from(len).map_err(|_| WqeFault::Length)?;
        for seg in list.as_chunks::<{ WqeData::SIZE }>().0 {
            let seg = View::<WqeData>::new(seg);
            if left == 0 {
                break;
            }
            let (lkey, count) = (seg.get(WqeData::lkey), seg.get(WqeData::byte_count));
            if lkey == TERMINATE_SCATTER_LKEY && count == 0 {
                break;
            }
            // A count of zero means 2 GiB.
            let room = if count == 0 { 1 << 31 } else { u64::from(count) };
            if skip >= room {
                skip -= room;
                continue;
            }
            let n = u64::from(left).min(room - skip) as u32;
            let addr = seg.get64(WqeData::addr).checked_add(skip).ok_or(WqeFault::Key)?;
            skip = 0;
            let key = KeyUse { lkey, pd: self.config.pd, reserved: self.config.reserved_key, access: Access::Write };
            let ranges = &mut q.ranges;
            let mut fits = true;
            let resolved = keys.resolve(key, addr, n, |iova, len| {
                fits &= ranges.len() < MAX_RANGES;
                if fits && len > 0 {
                    ranges.push((iova, len));
                }
            });
            if resolved.is_err() || !fits {
                return Err(WqeFault::Key);
            }
            left -= n;
        }
        if left == 0 { Ok(()) } else { Err(WqeFault::Length) }
    }

    /// Completes WQE `index`, or what is left of it, with an error.
    pub(super) fn fail(&self, q: &mut Inner, cq: &mut CqBatch<'_, '_>, index: u16, fault: WqeFault) {
        q.errors += 1;
        if let Some(c) = &q.counter_set {
            let kind = if fault == WqeFault::Flushed { &c.resp_cqe_flush_error } else { &c.resp_cqe_error };
            kind.fetch_add(1, Ordering::Relaxed);
        }
        if fault != WqeFault::Flushed {
            tracing::debug!(rqn = self.config.rqn, index, %fault, "receive queue in error");
        }
        let open = q.open.take();
        let strides = self.config.strides.map(|s| s.left(open));
        // A broken completion queue tells the driver by an event.
        let _ = cq.fail_with(self.debtor(index), fault, |cqe| {
            if let Some(n) = strides {
                cqe.set(Cqe64::wqe_id, index.into());
                cqe.set(Cqe64::consumed_strides, n.min(Cqe64::consumed_strides.max()));
            }
        });
        let next = q.window.last().get(..WqeNext::SIZE).map(View::<WqeNext>::new);
        self.advance(q, next.map_or(0, |n| n.get(WqeNext::next_wqe_index) as u16));
    }

    /// Flushes what is posted, at most a ring's worth.
    pub(super) fn flush(&self, q: &mut Inner, mem: &Near<'_>, cq: &mut CqBatch<'_, '_>) {
        if !self.config.flush_in_error {
            return;
        }
        q.producer = q.consumer;
        for _ in 0..self.posted(q, mem) {
            let index = self.index(q);
            let (at, there) = self.place(q, 1);
            q.window.clear();
            if q.window.get(&self.config.ring, mem, at, WqeNext::SIZE, there).is_err() {
                return;
            }
            self.fail(q, cq, index, WqeFault::Flushed);
        }
    }

    pub(super) fn debtor(&self, index: u16) -> Debtor {
        let RqConfig { rqn, user_index, .. } = self.config;
        Debtor { send: false, qpn: rqn, user_index, wqe_opcode: 0, wqe_counter: index }
    }
}

fn reset(q: &mut Inner) {
    q.consumer = 0;
    q.producer = 0;
    q.next = 0;
    q.window.clear();
    q.open = None;
    q.merge = None;
}
