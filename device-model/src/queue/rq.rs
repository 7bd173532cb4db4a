//! Receive queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use sfnic_firmware_cmds::entries::{Cqe64, TERMINATE_SCATTER_LKEY, WqRecord, WqeData, WqeNext, cqe_opcode};
use sfnic_firmware_cmds::{Layout, Refusal, Syndrome, View};
use smallvec::SmallVec;
use vm_memory::VolatileSlice;

use super::cq::{Cq, CqBatch, CqFault, Debtor};
use super::ring::Ring;
use super::scatter::{Scatter, Source, VLAN_AT, VLAN_LEN, scatter};
use super::window::Window;
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
struct Inner {
    consumer: u16,
    producer: u16,
    /// Index of the next WQE in a linked list.
    next: u16,
    vlan_strip_disable: bool,
    scatter_fcs: bool,
    counter_set: Option<Arc<QCounter>>,
    window: Window,
    ranges: SmallVec<[(u64, u32); 16]>,
    packets: u64,
    bytes: u64,
    no_buffer: u64,
    too_long: u64,
    errors: u64,
}

/// A receive queue: a ring of WQEs, each a list of buffers for one frame.
#[derive(Debug)]
pub struct Rq {
    config: RqConfig,
    state: StateCell,
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

    /// Whether the queue is ready and the driver has posted no buffer.
    pub fn is_starved(&self, mem: &Memory) -> bool {
        self.state.get() == WqState::Rdy && self.posted(&mut self.inner.lock(), &Near::new(mem)) == 0
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
        Ok(RxSession { rq: self, inner, mem, keys, cq: self.config.cq.batch(mem), now })
    }

    /// How many WQEs are posted; looks at the record where none is known of.
    /// A counter further ahead than the ring is long is nonsense: none.
    fn posted(&self, q: &mut Inner, mem: &Near<'_>) -> u16 {
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
    fn index(&self, q: &Inner) -> u16 {
        let mask = ((1u32 << self.config.log_size) - 1) as u16;
        mask & if self.config.linked { q.next } else { q.consumer }
    }

    fn advance(&self, q: &mut Inner, next: u16) {
        q.next = next;
        q.consumer = q.consumer.wrapping_add(1);
    }

    /// Reads the next of the `posted` WQEs and finds room for `len` bytes in its
    /// buffers; the ranges are in `q.ranges` then. Answers the link to the next
    /// WQE. Too little room is [`WqeFault::Length`].
    fn read_wqe(
        &self,
        q: &mut Inner,
        mem: &Near<'_>,
        keys: &impl KeyCheck,
        posted: u16,
        len: usize,
    ) -> Result<u16, WqeFault> {
        let (at, there) = self.place(q, posted);
        if self.config.linked {
            q.window.clear();
        }
        let wqe = q.window.get(&self.config.ring, mem, at, 1 << self.config.log_stride, there);
        let wqe = wqe.map_err(|_| WqeFault::QueueDma)?;
        let (next, list) = match wqe.split_at_checked(WqeNext::SIZE).filter(|_| self.config.linked) {
            Some((head, list)) => (View::<WqeNext>::new(head).get(WqeNext::next_wqe_index) as u16, list),
            None => (0, wqe),
        };
        q.ranges.clear();
        let mut left = u32::try_from(len).map_err(|_| WqeFault::Length)?;
        for seg in list.chunks_exact(WqeData::SIZE).map(View::<WqeData>::new) {
            if left == 0 {
                break;
            }
            let (lkey, count) = (seg.get(WqeData::lkey), seg.get(WqeData::byte_count));
            if lkey == TERMINATE_SCATTER_LKEY && count == 0 {
                break;
            }
            // A count of zero means 2 GiB.
            let n = if count == 0 { left } else { left.min(count) };
            let key = KeyUse { lkey, pd: self.config.pd, reserved: self.config.reserved_key, access: Access::Write };
            let ranges = &mut q.ranges;
            let mut fits = true;
            let resolved = keys.resolve(key, seg.get64(WqeData::addr), n, |iova, len| {
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
        if left == 0 { Ok(next) } else { Err(WqeFault::Length) }
    }

    /// Completes WQE `index` with an error.
    fn fail(&self, q: &mut Inner, cq: &mut CqBatch<'_, '_>, index: u16, fault: WqeFault) {
        q.errors += 1;
        if let Some(c) = &q.counter_set {
            let kind = if fault == WqeFault::Flushed { &c.resp_cqe_flush_error } else { &c.resp_cqe_error };
            kind.fetch_add(1, Ordering::Relaxed);
        }
        if fault != WqeFault::Flushed {
            tracing::debug!(rqn = self.config.rqn, index, %fault, "receive queue in error");
        }
        // A broken completion queue tells the driver by an event.
        let _ = cq.fail(self.debtor(index), fault);
        let next = q.window.last().get(..WqeNext::SIZE).map(View::<WqeNext>::new);
        self.advance(q, next.map_or(0, |n| n.get(WqeNext::next_wqe_index) as u16));
    }

    /// Flushes what is posted, at most a ring's worth.
    fn flush(&self, q: &mut Inner, mem: &Near<'_>, cq: &mut CqBatch<'_, '_>) {
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

    fn debtor(&self, index: u16) -> Debtor {
        let RqConfig { rqn, user_index, .. } = self.config;
        Debtor { send: false, qpn: rqn, user_index, wqe_opcode: 0, wqe_counter: index }
    }
}

/// A receive queue and its completion queue, locked for several frames. What
/// becomes of them is told by one event when the session ends.
pub struct RxSession<'a, 'm, K> {
    rq: &'a Rq,
    /// Declared before the queue's lock: the completion queue is released first.
    cq: CqBatch<'a, 'm>,
    inner: MutexGuard<'a, Inner>,
    mem: &'a Near<'m>,
    keys: &'a K,
    now: u64,
}

impl<K: KeyCheck> RxSession<'_, '_, K> {
    /// The queue.
    pub fn rq(&self) -> &Rq {
        self.rq
    }

    /// Whether the driver has posted no buffer.
    pub fn is_starved(&mut self) -> bool {
        self.rq.state.get() == WqState::Rdy && self.rq.posted(&mut self.inner, self.mem) == 0
    }

    /// Receives a frame: copies it into the next posted buffers and writes the
    /// completion. The receive counter is read only when the posted buffers
    /// known of are used up.
    pub fn deliver(&mut self, frame: &impl RxFrame, info: &RxInfo) -> Result<(), RxDrop> {
        let (rq, q, mem) = (self.rq, &mut *self.inner, self.mem);
        if rq.state.get() != WqState::Rdy {
            return Err(RxDrop::NotReady);
        }
        let posted = rq.posted(q, mem);
        if posted == 0 {
            q.no_buffer += 1;
            if let Some(c) = &q.counter_set {
                c.out_of_buffer.fetch_add(1, Ordering::Relaxed);
            }
            return Err(RxDrop::NoBuffer);
        }
        let strip = !q.vlan_strip_disable && info.vlan.is_some() && frame.len() >= VLAN_AT + VLAN_LEN;
        let fcs = info.fcs.filter(|_| q.scatter_fcs);
        let body = frame.len() - if strip { VLAN_LEN } else { 0 };
        let len = body + fcs.map_or(0, |f| f.len());
        let index = rq.index(q);
        let step = match rq.read_wqe(q, mem, self.keys, posted, len) {
            Ok(next) => match scatter(mem, &q.ranges, &Source { frame, strip, body, fcs }) {
                Ok(()) => Ok(next),
                Err(Scatter::Source) => return Err(RxDrop::Source),
                Err(Scatter::Buffer) => Err(WqeFault::Dma),
            },
            Err(WqeFault::Length) => {
                q.too_long += 1;
                return Err(RxDrop::TooLong);
            }
            Err(fault) => Err(fault),
        };
        let result = match step {
            Ok(next) => {
                rq.advance(q, next);
                self.complete(index, len, strip, info)
            }
            Err(fault) => {
                rq.fail(q, &mut self.cq, index, fault);
                Err(RxDrop::Buffer(fault))
            }
        };
        if result.is_err() {
            rq.state.set(WqState::Err);
            rq.flush(&mut self.inner, mem, &mut self.cq);
        }
        result
    }

    fn complete(&mut self, index: u16, len: usize, strip: bool, info: &RxInfo) -> Result<(), RxDrop> {
        let cut = |field: sfnic_firmware_cmds::layout::Field<Cqe64>, value: u32| value & field.max();
        let sum = if strip { info.check_sum_stripped } else { info.check_sum };
        let written = self.cq.complete(self.rq.debtor(index), false, |cqe| {
            cqe.set(Cqe64::rss_hash_result, info.rss_hash)
                .set(Cqe64::rss_ip_type, cut(Cqe64::rss_ip_type, info.rss_type.ip.into()))
                .set(Cqe64::rss_l4_type, cut(Cqe64::rss_l4_type, info.rss_type.l4.into()))
                .set(Cqe64::check_sum, sum.into())
                .set(Cqe64::outer_l3_tunneled, info.tunneled.into())
                .set(Cqe64::l2_ok, 1)
                .set(Cqe64::l3_ok, info.l3_ok.into())
                .set(Cqe64::l4_ok, info.l4_ok.into())
                .set(Cqe64::l3_hdr_type, cut(Cqe64::l3_hdr_type, info.l3_type.into()))
                .set(Cqe64::l4_hdr_type, cut(Cqe64::l4_hdr_type, info.l4_type.into()))
                .set(Cqe64::vlan_stripped, strip.into())
                .set(Cqe64::vlan_info, info.vlan.unwrap_or(0).into())
                .set(Cqe64::ft_metadata, info.metadata)
                .set(Cqe64::flow_tag, cut(Cqe64::flow_tag, info.flow_tag))
                .set(Cqe64::byte_cnt, len as u32)
                .set(Cqe64::opcode, cqe_opcode::RESP_SEND)
                .set64(Cqe64::timestamp, self.now);
        });
        written.map_err(RxDrop::Completion)?;
        self.inner.packets += 1;
        self.inner.bytes += len as u64;
        Ok(())
    }
}

fn reset(q: &mut Inner) {
    q.consumer = 0;
    q.producer = 0;
    q.next = 0;
    q.window.clear();
}
