//! Send queues.

mod saved;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use sfnic_firmware_cmds::entries::{Cqe64, WqRecord, WqeCtrl, cqe_opcode, wqe_opcode};
use sfnic_firmware_cmds::{Refusal, Syndrome, View};
use smallvec::SmallVec;

use super::cq::{Cq, CqPermit, Debtor};
use super::mpw;
use super::plain::{self, Asks, PlainSend};
use super::ring::Ring;
use super::schedule::Schedule;
use super::umr::{self, UmrRules};
use super::window::Window;
use super::wqe::{DS, SegList, TxWqe, WQEBB, WqeFault, WqeRules, parse_eth};
use super::{KeyCheck, StateCell, WqState};
use crate::dma::{DmaAccess, DmaError, Memory, Near};

pub(crate) use saved::SavedSq;
use tally::Tally;

/// What CREATE_SQ asks for, parsed.
#[derive(Debug, Clone)]
pub struct SqConfig {
    /// Number of the queue.
    pub sqn: u32,
    /// Ring of `64 << log_size` bytes.
    pub ring: Ring,
    /// log2 of the number of 64-byte blocks, at most 15.
    pub log_size: u8,
    /// Where completions go.
    pub cq: Arc<Cq>,
    /// Doorbell record, 8-byte aligned; its second dword is the send counter.
    pub dbr_addr: u64,
    /// Protection domain.
    pub pd: u32,
    /// The reserved key may be used (`rlky`).
    pub reserved_key: bool,
    /// Transport domain of the TIS.
    pub tdn: u32,
    /// Priority of the TIS.
    pub prio: u8,
    /// Header bytes that must be inline (`min_wqe_inline_mode`): 0 none,
    /// 1 the Ethernet header, more of them above (checked as 1).
    pub min_inline_mode: u8,
    /// The queue may execute UMRs (`reg_umr`).
    pub reg_umr: bool,
    /// WQEs may be of several frames (`enhanced_multi_pkt_send_wqe`).
    pub multi_packet: bool,
    /// In error, WQEs are completed with a flush error (`flush_in_error_en`);
    /// else they stay.
    pub flush_in_error: bool,
    /// Number that a user process gave the queue.
    pub user_index: u32,
    /// User context that owns the queue; zero for the kernel.
    pub uid: u16,
}

/// What became of a frame or message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxResult {
    /// Sent, as so many frames and bytes. Whether anyone received it is not
    /// the sender's business.
    Sent {
        /// Frames (more than one for an LSO).
        frames: u32,
        /// Bytes of all frames.
        bytes: u64,
    },
    /// Dropped without an error to the driver (link down, steering).
    Dropped,
    /// The WQE is at fault; the queue goes to error.
    Failed(WqeFault),
}

/// Takes what a send queue has to send.
pub trait TxSink {
    /// Forms the frames and sends them, or keeps them until [`TxSink::flush`].
    /// Guest memory may be used until then; the completion is written
    /// afterwards. Called with the send queue's lock held.
    fn send(&mut self, wqe: &TxWqe<'_>) -> TxResult;

    /// As [`TxSink::send`] of a frame that is like most, and answers its bytes. None where it is
    /// to be sent by that; nothing has happened then.
    fn send_plain(&mut self, _: &PlainSend<'_>) -> Option<u64> {
        None
    }

    /// Sends what [`TxSink::send`] has taken and kept for a burst of its own.
    /// Called before the completions of those WQEs are written.
    fn flush(&mut self) {}

    /// The burst is to end, though its budget is not used up: its WQEs were
    /// more work than most.
    fn has_done_enough(&self) -> bool {
        false
    }

    /// A WQE's opcode is not modelled; the queue goes to error.
    fn unmodelled(&mut self, _sqn: u32, _opcode: u8) {}
}

impl<F: FnMut(&TxWqe<'_>) -> TxResult> TxSink for F {
    fn send(&mut self, wqe: &TxWqe<'_>) -> TxResult {
        self(wqe)
    }
}

/// What a worker achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PollResult {
    /// The queue must be handed to a worker once more.
    pub more: bool,
    /// WQEs completed.
    pub work_done: usize,
}

/// What QUERY_SQ and statistics see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqSnapshot {
    /// State.
    pub state: WqState,
    /// Blocks executed (`hw_counter`).
    pub consumer: u16,
    /// Send counter as last read (`sw_counter`).
    pub producer: u16,
    /// WQEs executed, since the queue was created.
    pub wqes: u64,
    /// Frames sent.
    pub packets: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// WQEs failed or flushed.
    pub errors: u64,
}

#[derive(Debug, Default)]
struct Stats {
    wqes: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    consumer: u16,
    producer: u16,
    /// The record as it was when the queue became ready: the driver does not
    /// clear it on reset, so it counts only once a doorbell was rung.
    stale: Option<u16>,
    window: Window,
    segs: SegList,
}

/// A send queue: a ring of WQEs, each a run of 64-byte blocks.
#[derive(Debug)]
pub struct Sq {
    config: SqConfig,
    rules: WqeRules,
    state: StateCell,
    schedule: Schedule,
    /// A doorbell came since the last reset.
    rung: AtomicBool,
    stats: Stats,
    inner: Mutex<Inner>,
}

impl Sq {
    /// A queue in reset. Refuses with QUEUE_SIZE or DOORBELL_ALIGN.
    pub fn new(config: SqConfig) -> Result<Self, Refusal> {
        if config.log_size > 15 || config.ring.len() != (WQEBB as u64) << config.log_size {
            return Err(Refusal::param(Syndrome::QUEUE_SIZE));
        }
        super::check_record(config.dbr_addr)?;
        let rules =
            WqeRules { pd: config.pd, reserved_key: config.reserved_key, inline_l2: config.min_inline_mode > 0 };
        Ok(Self {
            config,
            rules,
            state: StateCell::default(),
            schedule: Schedule::default(),
            rung: AtomicBool::new(false),
            stats: Stats::default(),
            inner: Mutex::new(Inner {
                consumer: 0,
                producer: 0,
                stale: None,
                window: Window::default(),
                segs: SegList::new(),
            }),
        })
    }

    /// Whether a worker is to run it.
    pub(crate) fn waits(&self) -> bool {
        !self.schedule.is_idle()
    }

    /// Number of the queue.
    pub fn sqn(&self) -> u32 {
        self.config.sqn
    }

    /// What the queue was created with.
    pub fn config(&self) -> &SqConfig {
        &self.config
    }

    /// State, without waiting for a burst that runs.
    pub fn state(&self) -> WqState {
        self.state.get()
    }

    /// There is work: the driver rang. True where the caller must hand the
    /// queue to a worker; at most one worker has it at a time, and a doorbell
    /// during its burst makes [`PollResult::more`] true. Takes no lock.
    pub fn doorbell(&self) -> bool {
        self.rung.store(true, Ordering::Release);
        self.schedule.ring()
    }

    /// Looks at the send counter in the record, for drivers whose doorbells do
    /// not trap. Answers as [`Sq::doorbell`] does. After a reset the counter
    /// must have moved from its stale value to be noticed.
    pub fn scan(&self, mem: &Memory) -> bool {
        let Some(q) = self.inner.try_lock() else {
            // It is running, or not ready: who runs it looks once more.
            return self.rung.load(Ordering::Acquire) && self.doorbell();
        };
        if !self.runs() {
            return false;
        }
        let Ok(counter) = self.send_counter(mem) else { return false };
        let news = if self.rung.load(Ordering::Acquire) {
            counter != q.consumer
        } else {
            q.stale.is_some_and(|stale| stale != counter)
        };
        drop(q);
        news && self.doorbell()
    }

    /// MODIFY_SQ. True where the caller must hand the queue to a worker (to
    /// flush it). Waits for a burst that runs; nothing of the former state is
    /// executed after it returns.
    ///
    /// Refuses with OBJECT_STATE where the queue is not in `from`, and with
    /// STATE_TRANSITION where there is no way from there to `to`.
    pub fn modify(&self, mem: &Memory, from: WqState, to: WqState) -> Result<bool, Refusal> {
        let mut q = self.inner.lock();
        self.state.get().check_transition(from, to)?;
        match (from, to) {
            (_, WqState::Rst) => self.reset(&mut q),
            (WqState::Rst, WqState::Rdy) => q.stale = self.send_counter(mem).ok(),
            _ => {}
        }
        self.state.set(to);
        drop(q);
        Ok(to == WqState::Err && self.rung.load(Ordering::Acquire) && self.schedule.ring())
    }

    /// Ends the queue: nothing is read or written from here on.
    pub fn retire(&self) {
        let mut q = self.inner.lock();
        self.reset(&mut q);
        self.state.set(WqState::Rst);
    }

    /// Counters. Waits for a burst that runs.
    pub fn snapshot(&self) -> SqSnapshot {
        let q = self.inner.lock();
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        SqSnapshot {
            state: self.state.get(),
            consumer: q.consumer,
            producer: q.producer,
            wqes: read(&self.stats.wqes),
            packets: read(&self.stats.packets),
            bytes: read(&self.stats.bytes),
            dropped: read(&self.stats.dropped),
            errors: read(&self.stats.errors),
        }
    }

    /// Executes up to `budget` WQEs: hands frames to `tx`, writes completions
    /// stamped `now` (in the format that the queue's `ts_format` names).
    /// Called by the worker that [`Sq::doorbell`] appointed; where another one
    /// is at it, nothing happens.
    pub fn poll(
        &self,
        mem: &Memory,
        keys: &impl KeyCheck,
        budget: usize,
        tx: &mut impl TxSink,
        now: u64,
    ) -> PollResult {
        if !self.schedule.begin() {
            return PollResult::default();
        }
        let (work_done, more) = self.burst(&mut self.inner.lock(), mem, keys, budget, tx, now);
        PollResult { more: self.schedule.end(more), work_done }
    }

    fn reset(&self, q: &mut Inner) {
        q.consumer = 0;
        q.producer = 0;
        q.stale = None;
        q.window.clear();
        self.rung.store(false, Ordering::Release);
    }

    /// Whether WQEs are consumed in the present state.
    fn runs(&self) -> bool {
        match self.state.get() {
            WqState::Rst => false,
            WqState::Rdy => true,
            WqState::Err => self.config.flush_in_error,
        }
    }

    fn send_counter(&self, mem: &impl DmaAccess) -> Result<u16, DmaError> {
        let word = mem.dma_read32(self.config.dbr_addr + 4 * WqRecord::send_counter.dword() as u64)?;
        Ok(WqRecord::send_counter.of_dword(word) as u16)
    }

    fn burst(
        &self,
        q: &mut Inner,
        mem: &Memory,
        keys: &impl KeyCheck,
        budget: usize,
        tx: &mut impl TxSink,
        now: u64,
    ) -> (usize, bool) {
        let near = Near::new(mem);
        let mut run = Run { sq: self, mem: &near, keys, tx, now, due: SmallVec::new(), tally: Tally::default() };
        let end = run.wqes(q, budget);
        run.settle();
        end
    }

    fn note(&self, index: u16, opcode: u8, fault: WqeFault) {
        self.stats.errors.fetch_add(1, Ordering::Relaxed);
        if fault != WqeFault::Flushed {
            tracing::debug!(sqn = self.config.sqn, index, opcode, %fault, "send queue in error");
        }
    }

    fn debtor(&self, index: u16, wqe_opcode: u8) -> Debtor {
        let SqConfig { sqn, user_index, .. } = self.config;
        Debtor { send: true, qpn: sqn, user_index, wqe_opcode, wqe_counter: index }
    }
}

/// Most completions that are held back for those behind them.
const DUE: usize = 32;

/// One burst of a queue.
struct Run<'a, 'm, K, X> {
    sq: &'a Sq,
    mem: &'a Near<'m>,
    keys: &'a K,
    tx: &'a mut X,
    now: u64,
    /// Completions of WQEs whose frames the sink may still keep, and whether
    /// they are solicited.
    due: SmallVec<[(CqPermit<'a>, bool); 8]>,
    tally: Tally,
}

impl<K: KeyCheck, X: TxSink> Run<'_, '_, K, X> {
    fn wqes(&mut self, q: &mut Inner, budget: usize) -> (usize, bool) {
        let sq = self.sq;
        let mut work_done = 0;
        while work_done < budget {
            if !sq.runs() || !sq.rung.load(Ordering::Acquire) {
                return (work_done, false);
            }
            if q.consumer == q.producer {
                match sq.send_counter(self.mem) {
                    Ok(counter) => q.producer = counter,
                    Err(_) => {
                        if sq.state.get() == WqState::Rdy {
                            self.fail(q, 0, WqeFault::QueueDma);
                        }
                        return (work_done, false);
                    }
                }
            }
            let ahead = q.producer.wrapping_sub(q.consumer);
            if ahead == 0 {
                return (work_done, false);
            }
            if u32::from(ahead) > 1 << sq.config.log_size {
                // Where the WQEs are cannot be known: all of them are one.
                self.fail(q, 0, WqeFault::CounterJump);
                q.consumer = q.producer;
                work_done += 1;
            } else {
                let plain = self.plain(q, ahead, budget - work_done);
                work_done += plain;
                if plain == 0 {
                    let blocks = self.execute(q, ahead);
                    q.consumer = q.consumer.wrapping_add(blocks);
                    work_done += 1;
                }
            }
            if self.tx.has_done_enough() {
                return (work_done, true);
            }
        }
        (budget, true)
    }

    /// Executes the WQEs at the consumer, of whose blocks `ahead` are there, as long as they are
    /// plain sends and have been read, at most `budget` of them. Answers how many.
    fn plain(&mut self, q: &mut Inner, ahead: u16, budget: usize) -> usize {
        let sq = self.sq;
        if sq.state.get() != WqState::Rdy || sq.config.cq.is_in_error() {
            return 0;
        }
        let at = u64::from(q.consumer) * WQEBB as u64;
        let there = usize::from(ahead) * WQEBB;
        if q.window.get(&sq.config.ring, self.mem, at, WQEBB, there).is_err() {
            return 0;
        }
        let mut done = 0;
        for block in q.window.rest().as_chunks().0.iter().take(budget.min(ahead.into())) {
            let Some((send, asks)) = plain::read(block, &sq.rules, self.keys) else { break };
            let Some(bytes) = self.tx.send_plain(&send) else { break };
            done += 1;
            self.tally.wqes += 1;
            self.tally.packets += 1;
            self.tally.bytes += bytes;
            let index = q.consumer;
            q.consumer = index.wrapping_add(1);
            if asks != Asks::Nothing {
                let debtor = sq.debtor(index, wqe_opcode::SEND);
                self.due.push((sq.config.cq.promise(self.mem.memory(), debtor), asks == Asks::Event));
                if self.due.len() >= DUE {
                    self.settle();
                }
            }
            if self.tx.has_done_enough() || sq.state.get() != WqState::Rdy {
                break;
            }
        }
        done
    }

    /// Executes the WQE at the consumer, of which `ahead` blocks are there at
    /// most, and answers how many blocks it took.
    fn execute(&mut self, q: &mut Inner, ahead: u16) -> u16 {
        let sq = self.sq;
        let at = u64::from(q.consumer) * WQEBB as u64;
        let there = usize::from(ahead) * WQEBB;
        let Ok(first) = q.window.get(&sq.config.ring, self.mem, at, WQEBB, there) else {
            self.fail(q, 0, WqeFault::QueueDma);
            return ahead;
        };
        let ctrl = View::<WqeCtrl>::new(first);
        let opcode = ctrl.get(WqeCtrl::opcode) as u8;
        let asks = Asks::of(ctrl);
        let len = ctrl.get(WqeCtrl::ds) as usize * DS;
        let blocks = len.div_ceil(WQEBB).max(1) as u16;
        if blocks > ahead {
            self.fail(q, opcode, WqeFault::BeyondProducer);
            return ahead;
        }
        if sq.state.get() == WqState::Err {
            self.fail(q, opcode, WqeFault::Flushed);
            return blocks;
        }
        let index = q.consumer;
        let Some(permit) = sq.config.cq.reserve(self.mem.memory(), sq.debtor(index, opcode)) else {
            sq.state.set(WqState::Err);
            return 0;
        };
        match self.run(q, (opcode, len, at, there), index) {
            Ok(()) if asks != Asks::Nothing => {
                self.due.push((permit, asks == Asks::Event));
                if self.due.len() >= DUE {
                    self.settle();
                }
            }
            Ok(()) => permit.waive(),
            Err(fault) => {
                self.settle();
                sq.note(index, opcode, fault);
                sq.state.set(WqState::Err);
                // A broken completion queue tells the driver by an event.
                let _ = permit.fail(fault);
            }
        }
        self.tally.wqes += 1;
        blocks
    }

    fn run(
        &mut self,
        q: &mut Inner,
        (opcode, len, at, there): (u8, usize, u64, usize),
        index: u16,
    ) -> Result<(), WqeFault> {
        let sq = self.sq;
        if len == 0 {
            return Err(WqeFault::NoSegments);
        }
        match opcode {
            wqe_opcode::NOP => Ok(()),
            wqe_opcode::UMR if sq.config.reg_umr => {
                let SqConfig { pd, uid, reserved_key, .. } = sq.config;
                let raw = q.window.get(&sq.config.ring, self.mem, at, len, there).map_err(|_| WqeFault::QueueDma)?;
                umr::execute(raw, UmrRules { pd, uid, reserved_key }, self.mem, self.keys)
            }
            wqe_opcode::SEND | wqe_opcode::LSO => {
                let raw = match len <= WQEBB {
                    // The block that was asked for last, for its control segment.
                    true => q.window.last().get(..len).unwrap_or(&[]),
                    false => {
                        let all = q.window.get(&sq.config.ring, self.mem, at, len, there);
                        all.map_err(|_| WqeFault::QueueDma)?
                    }
                };
                let lso = opcode == wqe_opcode::LSO;
                let wqe = parse_eth(raw, index, lso, &sq.rules, self.keys, &mut q.segs)?;
                self.tally.count(self.tx.send(&wqe))
            }
            wqe_opcode::ENHANCED_MPSW if sq.config.multi_packet => {
                let ring = &sq.config.ring;
                let raw = q.window.get(ring, self.mem, at, len, there).map_err(|_| WqeFault::QueueDma)?;
                let (tx, tally) = (&mut *self.tx, &mut self.tally);
                let send = |wqe: &TxWqe<'_>| tally.count(tx.send(wqe));
                mpw::each_frame(raw, (ring, at, index), &sq.rules, self.keys, &mut q.segs, send)
            }
            _ => {
                self.tx.unmodelled(sq.config.sqn, opcode);
                Err(WqeFault::Opcode)
            }
        }
    }

    /// Sends what the sink keeps, counts, and writes the completions that are
    /// due.
    fn settle(&mut self) {
        self.tx.flush();
        std::mem::take(&mut self.tally).tell(&self.sq.stats);
        if self.due.is_empty() {
            return;
        }
        let mut batch = self.sq.config.cq.batch(self.mem);
        for (permit, solicited) in self.due.drain(..) {
            let opcode = permit.debtor().wqe_opcode;
            let written = permit.complete_in(&mut batch, solicited, |cqe| {
                cqe.set(Cqe64::opcode, cqe_opcode::REQ)
                    .set(Cqe64::send_opcode, opcode.into())
                    .set(Cqe64::qpn, self.sq.config.sqn)
                    .set64(Cqe64::timestamp, self.now);
            });
            if written.is_err() {
                self.sq.state.set(WqState::Err);
            }
        }
    }

    /// Completes what is at the consumer with an error, after all before it.
    fn fail(&mut self, q: &Inner, opcode: u8, fault: WqeFault) {
        self.settle();
        let sq = self.sq;
        sq.note(q.consumer, opcode, fault);
        sq.state.set(WqState::Err);
        if let Some(permit) = sq.config.cq.reserve(self.mem.memory(), sq.debtor(q.consumer, opcode)) {
            // A broken completion queue tells the driver by an event.
            let _ = permit.fail(fault);
        }
    }
}
