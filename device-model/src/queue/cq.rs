//! Completion queues.

mod packed;
mod saved;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use sfnic_firmware_cmds::entries::{CqDoorbell, CqRecord, Cqe64, Eqe, cq_error, cqe_opcode, event};
use sfnic_firmware_cmds::{Layout, Refusal, Syndrome, Words};

use super::eq::{AsyncEqs, Eq, event_data};
use super::ring::Ring;
use super::wqe::WqeFault;
use crate::dma::{DmaAccess, DmaError, Memory, Near, bytes_of};
use crate::faults::Site;
use packed::Pack;

pub use packed::MiniFormat;
pub(crate) use saved::SavedCq;

/// What CREATE_CQ asks for, parsed.
#[derive(Debug, Clone)]
pub struct CqConfig {
    /// Number of the queue.
    pub cqn: u32,
    /// Ring of `64 << log_size` bytes, or twice that with `cqe_128`.
    pub ring: Ring,
    /// log2 of the number of entries.
    pub log_size: u8,
    /// Entries take 128 bytes, the completion being the upper half
    /// (`CQE_STRIDE_128`).
    pub cqe_128: bool,
    /// Completions of frames are compressed (`cqe_comp_en`); entries take 64 bytes then.
    pub mini: Option<MiniFormat>,
    /// The driver takes care that the queue never overruns (`oi`).
    pub overrun_ignore: bool,
    /// Doorbell record, 8-byte aligned.
    pub dbr_addr: u64,
    /// The arm word of the record is to be looked at with every completion:
    /// the driver's doorbell page is plain memory and traps nothing.
    pub poll_record: bool,
}

/// What the driver waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Arm {
    /// Number of events that the driver has seen, 2 bits (`cmd_sn`).
    pub sn: u8,
    /// Its consumer counter, 24 bits.
    pub ci: u32,
    /// Only solicited and error completions count (`MLX5_CQ_DB_REQ_NOT_SOL`).
    pub solicited_only: bool,
}

/// How long the event of an armed queue may be held back, so that it tells of several completions
/// (`cq_period`, `cq_max_count`, `cq_period_mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Moderation {
    /// Microseconds; 0 holds nothing back.
    pub period: u16,
    /// So many completions are told of at once; 0 for any number.
    pub count: u16,
    /// The period begins again with each completion (`MLX5_CQ_PERIOD_MODE_START_FROM_CQE`), and
    /// not with the last event.
    pub from_cqe: bool,
}

/// Why a completion could not be written. The queue is in error then and an
/// event has told the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CqFault {
    /// The queue was in error already.
    #[error("completion queue in error")]
    InError,
    /// The driver has not read the entry that is next.
    #[error("completion queue overrun")]
    Overrun,
    /// The ring or the record is not mapped.
    #[error("completion queue not mapped")]
    Dma,
}

/// What QUERY_CQ and the control plane see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CqSnapshot {
    /// Completions written, 24 bits.
    pub producer: u32,
    /// Completions that the driver was last seen to have read, 24 bits.
    pub consumer: u32,
    /// Present arm, if any.
    pub armed: Option<Arm>,
    /// How long events may be held back.
    pub moderation: Moderation,
    /// The queue is in error.
    pub error: bool,
    /// Events sent.
    pub events: u32,
    /// Completions that were owed and forgotten: a fault of the model's.
    pub forgotten: u64,
}

#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
struct Inner {
    /// Counts all entries ever written; its bit `log_size` is the owner bit.
    producer: u32,
    /// Last value read from the record, 24 bits.
    consumer: u32,
    armed: Option<Arm>,
    /// Events sent; the driver counts them too and arms with its low bits.
    events: u32,
    /// Number of the last solicited completion.
    last_solicited: Option<u32>,
    moderation: Moderation,
    /// The producer at the last event, and when that and the last completion were, by the clock's
    /// nanoseconds. Times are kept where events may be held back.
    told: u32,
    event_at: u64,
    cqe_at: u64,
    /// An event that was held back will be looked at.
    held: bool,
    /// Completions that are written together; none between batches.
    #[serde(skip)]
    pack: Option<Box<Pack>>,
}

/// A completion queue: a ring of completions, armed for one event at a time.
#[derive(Debug)]
pub struct Cq {
    config: CqConfig,
    eq: Arc<Eq>,
    asynchronous: Arc<AsyncEqs>,
    error: AtomicBool,
    forgotten: AtomicU64,
    site: Option<Site>,
    inner: Mutex<Inner>,
}

impl Cq {
    /// A queue whose completion events go to `eq` and whose errors go to
    /// `asynchronous`. Refuses with QUEUE_SIZE or DOORBELL_ALIGN.
    pub fn new(config: CqConfig, eq: Arc<Eq>, asynchronous: Arc<AsyncEqs>) -> Result<Self, Refusal> {
        if config.log_size > 22 || config.ring.len() != stride(&config) << config.log_size {
            return Err(Refusal::param(Syndrome::QUEUE_SIZE));
        }
        super::check_record(config.dbr_addr)?;
        Ok(Self {
            config,
            eq,
            asynchronous,
            error: AtomicBool::new(false),
            forgotten: AtomicU64::new(0),
            site: None,
            inner: Mutex::default(),
        })
    }

    /// With completions that faults strike.
    pub(crate) fn faulty(self, site: Site) -> Self {
        Self { site: Some(site), ..self }
    }

    /// An event that was held back before the queue was saved is looked at once more.
    pub(crate) fn resume(&self) {
        let mut q = self.inner.lock();
        if let Some(site) = self.site.as_ref().filter(|_| q.held) {
            q.held = site.look_again(site.now_ns(), self.config.cqn);
        }
    }

    /// MODIFY_CQ: how long events may be held back. What is held back already stays so.
    pub fn moderate(&self, how: impl FnOnce(&mut Moderation)) {
        how(&mut self.inner.lock().moderation);
    }

    /// The time has come to look at an event that was held back.
    pub(crate) fn release(&self, mem: &Memory) {
        self.arm_with(mem, |q| q.held = false);
    }

    /// Number of the queue.
    pub fn cqn(&self) -> u32 {
        self.config.cqn
    }

    /// What the queue was created with.
    pub fn config(&self) -> &CqConfig {
        &self.config
    }

    /// The event queue that completion events go to.
    pub fn eq(&self) -> &Arc<Eq> {
        &self.eq
    }

    /// Promises a completion on behalf of `debtor`; `None` where the queue is
    /// in error. Takes no lock: room is checked when the promise is kept.
    pub fn reserve<'a>(&'a self, mem: &'a Memory, debtor: Debtor) -> Option<CqPermit<'a>> {
        (!self.is_in_error()).then(|| self.promise(mem, debtor))
    }

    /// Whether the queue is in error.
    pub(super) fn is_in_error(&self) -> bool {
        self.error.load(Ordering::Relaxed)
    }

    /// As [`Cq::reserve`] of a queue that was not in error when `debtor` began.
    pub(super) fn promise<'a>(&'a self, mem: &'a Memory, debtor: Debtor) -> CqPermit<'a> {
        CqPermit { cq: self, mem, debtor, owed: true }
    }

    /// Writes a completion and sends the event where one is due. `fill` sets
    /// the fields of a zeroed entry; the owner bit is set here. `solicited`
    /// completions also wake a driver that waits for those only.
    pub fn complete(
        &self,
        mem: &Memory,
        solicited: bool,
        fill: impl FnOnce(&mut Words<Cqe64, 8>),
    ) -> Result<(), CqFault> {
        self.batch(&Near::new(mem)).write(solicited, fill)
    }

    /// Locks the queue for several completions, which share the event that
    /// becomes due by them. It is sent when the batch is dropped.
    pub fn batch<'a, 'm>(&'a self, mem: &'a Near<'m>) -> CqBatch<'a, 'm> {
        CqBatch { cq: self, mem, inner: Some(self.inner.lock()), wrote: false, fault: None }
    }

    /// Doorbell: sends an event with the next completion, or at once where
    /// the driver has not read all there are.
    pub fn arm(&self, mem: &Memory, arm: Arm) {
        self.arm_with(mem, |q| q.armed = Some(arm));
    }

    /// Arms as the record's second word says. For a doorbell that did not
    /// carry the word ([`super::Doorbell::CqArm`]).
    pub fn arm_from_record(&self, mem: &Memory) {
        self.arm_with(mem, |q| {
            if let Ok(word) = self.arm_word(mem) {
                q.armed = Some(word);
            }
        });
    }

    /// Looks whether the record's second word asks for an event that has not
    /// been sent. For drivers whose doorbells do not trap; cheap.
    pub fn poll_arm(&self, mem: &Memory) {
        self.arm_with(mem, |q| self.look_at_record(q, mem));
    }

    /// Ends the queue: nothing is written from here on.
    pub fn retire(&self) {
        let mut q = self.inner.lock();
        self.error.store(true, Ordering::Relaxed);
        q.armed = None;
        drop(q);
        self.eq.forget(self.config.cqn);
    }

    /// The queue's counters.
    pub fn snapshot(&self) -> CqSnapshot {
        let q = self.inner.lock();
        CqSnapshot {
            producer: low24(q.producer),
            consumer: q.consumer,
            armed: q.armed,
            moderation: q.moderation,
            error: self.error.load(Ordering::Relaxed),
            events: q.events,
            forgotten: self.forgotten.load(Ordering::Relaxed),
        }
    }

    fn arm_with(&self, mem: &Memory, arm: impl FnOnce(&mut Inner)) {
        let event_due = {
            let mut q = self.inner.lock();
            if self.error.load(Ordering::Relaxed) {
                return;
            }
            arm(&mut q);
            self.take_event(&mut q)
        };
        if event_due {
            self.eq.post_completion(mem, self.config.cqn);
        }
    }

    /// The driver numbers its requests with the events it has seen
    /// (`mlx5_core_cq::arm_sn`), so the word is new exactly while its number
    /// is that of the events sent. It starts out as another number
    /// (`MLX5_CQ_INIT_CMD_SN`).
    fn look_at_record(&self, q: &mut Inner, mem: &Memory) {
        if let Ok(word) = self.arm_word(mem)
            && u32::from(word.sn) == CqRecord::cmd_sn.max() & q.events
        {
            q.armed = Some(word);
        }
    }

    fn arm_word(&self, mem: &Memory) -> Result<Arm, DmaError> {
        let word = mem.dma_read32(self.config.dbr_addr + 4 * CqRecord::ci.dword() as u64)?;
        Ok(Arm {
            sn: CqRecord::cmd_sn.of_dword(word) as u8,
            ci: CqRecord::ci.of_dword(word),
            solicited_only: CqRecord::solicited_only.of_dword(word) != 0,
        })
    }

    #[inline(always)]
    fn write(&self, q: &mut Inner, mem: &Near<'_>, mut entry: Words<Cqe64, 8>) -> Result<(), CqFault> {
        self.check(q, mem, 0)?;
        entry.set(Cqe64::owner, (q.producer >> self.config.log_size) & 1);
        let offset = if self.config.cqe_128 { Cqe64::SIZE as u64 } else { 0 };
        let at = u64::from(q.producer) * stride(&self.config) + offset;
        self.config.ring.publish_words(mem, at, entry.words()).map_err(|_| CqFault::Dma)
    }

    /// Whether there is room for an entry, behind so many that are to be written before it.
    #[inline(always)]
    fn check(&self, q: &mut Inner, mem: &Near<'_>, ahead: u32) -> Result<(), CqFault> {
        if self.error.load(Ordering::Relaxed) {
            return Err(CqFault::InError);
        }
        if !self.config.overrun_ignore && self.is_full(q, ahead) {
            let word = mem.dma_read32(self.config.dbr_addr).map_err(|_| CqFault::Dma)?;
            q.consumer = CqRecord::consumer_counter.of_dword(word);
            if self.is_full(q, ahead) {
                return Err(CqFault::Overrun);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn is_full(&self, q: &Inner, ahead: u32) -> bool {
        low24(q.producer.wrapping_add(ahead).wrapping_sub(q.consumer)) >= 1 << self.config.log_size
    }

    /// Whether the armed event is to be sent now; disarms then. One event per arm.
    fn take_event(&self, q: &mut Inner) -> bool {
        if !has_news(q) || q.moderation.period > 0 && self.holds_back(q) {
            return false;
        }
        q.armed = None;
        q.events = q.events.wrapping_add(1);
        q.told = q.producer;
        true
    }

    /// Whether an event that could be sent is to wait for more completions.
    #[cold]
    fn holds_back(&self, q: &mut Inner) -> bool {
        let Moderation { period, count, from_cqe } = q.moderation;
        let Some(site) = &self.site else { return false };
        let now = site.now_ns();
        let since = if from_cqe { q.cqe_at } else { q.event_at };
        let due = since.saturating_add(u64::from(period) * 1000);
        let enough = count > 0 && q.producer.wrapping_sub(q.told) >= count.into();
        if enough || due <= now || q.armed.is_some_and(|a| a.solicited_only) {
            q.event_at = now;
            return false;
        }
        // Whoever looks at it then finds out whether it is to wait longer.
        q.held = q.held || site.look_again(due, self.config.cqn);
        q.held
    }

    fn send_error(&self, mem: &Memory, fault: CqFault) {
        let syndrome = if fault == CqFault::Dma { cq_error::ACCESS } else { cq_error::OVERRUN };
        tracing::debug!(cqn = self.config.cqn, %fault, "completion queue in error");
        let data = event_data(|e| {
            e.set(Eqe::cq_err_cqn, self.config.cqn).set(Eqe::cq_err_syndrome, syndrome.into());
        });
        self.asynchronous.post(mem, event::CQ_ERROR, 0, data);
    }
}

fn stride(config: &CqConfig) -> u64 {
    (if config.cqe_128 { 2 * Cqe64::SIZE } else { Cqe64::SIZE }) as u64
}

/// Counters of completion queues are 24 bits wide in doorbells and records.
fn low24(counter: u32) -> u32 {
    CqDoorbell::ci.of_dword(counter)
}

/// Whether there is what the driver waits for.
fn has_news(q: &Inner) -> bool {
    let Some(arm) = q.armed else { return false };
    let unread = low24(q.producer.wrapping_sub(arm.ci));
    match arm.solicited_only {
        true => q.last_solicited.is_some_and(|n| low24(n.wrapping_sub(arm.ci)) < unread),
        false => unread != 0,
    }
}

/// Completions that are written under one lock of their queue.
#[must_use]
pub struct CqBatch<'a, 'm> {
    cq: &'a Cq,
    mem: &'a Near<'m>,
    /// Present until the batch ends.
    inner: Option<MutexGuard<'a, Inner>>,
    wrote: bool,
    /// The queue went to error with this batch.
    fault: Option<CqFault>,
}

impl CqBatch<'_, '_> {
    /// Writes a completion; see [`Cq::complete`].
    pub fn write(&mut self, solicited: bool, fill: impl FnOnce(&mut Words<Cqe64, 8>)) -> Result<(), CqFault> {
        let mut entry = Words::new();
        fill(&mut entry);
        self.put(solicited, entry)
    }

    /// The same of an entry that is filled.
    #[inline(always)]
    pub(super) fn put(&mut self, solicited: bool, entry: Words<Cqe64, 8>) -> Result<(), CqFault> {
        if self.cq.site.as_ref().is_some_and(|s| s.loses_completion(self.cq.config.cqn)) {
            return Ok(());
        }
        if let Some(format) = self.cq.config.mini {
            return self.pack(format, bytes_of(entry.words()), solicited);
        }
        let q = self.inner.as_mut().ok_or(CqFault::InError)?;
        let written = self.cq.write(q, self.mem, entry);
        match written {
            Ok(()) => {
                let number = q.producer;
                q.producer = number.wrapping_add(1);
                if solicited {
                    q.last_solicited = Some(number);
                }
                self.wrote = true;
            }
            Err(fault) => {
                if !self.cq.error.swap(true, Ordering::Relaxed) {
                    self.fault = Some(fault);
                }
            }
        }
        written
    }

    /// Writes the completion that `debtor` owes.
    pub fn complete(
        &mut self,
        debtor: Debtor,
        solicited: bool,
        fill: impl FnOnce(&mut Words<Cqe64, 8>),
    ) -> Result<(), CqFault> {
        self.write(solicited, |cqe| fill(debtor.signs(cqe)))
    }

    /// Writes an error completion (`struct mlx5_err_cqe`). Errors count as
    /// solicited.
    pub fn fail(&mut self, d: Debtor, fault: WqeFault) -> Result<(), CqFault> {
        self.fail_with(d, fault, |_| ())
    }

    /// As [`Self::fail`], with what `more` sets.
    pub fn fail_with(
        &mut self,
        d: Debtor,
        fault: WqeFault,
        more: impl FnOnce(&mut Words<Cqe64, 8>),
    ) -> Result<(), CqFault> {
        self.write(true, |cqe| {
            cqe.set(Cqe64::user_index, d.user_index)
                .set_bytes(Cqe64::error_syndromes, &[fault as u8, fault.syndrome()])
                .set(Cqe64::qpn, d.qpn)
                .set(Cqe64::send_opcode, d.wqe_opcode.into())
                .set(Cqe64::wqe_counter, d.wqe_counter.into())
                .set(Cqe64::opcode, if d.send { cqe_opcode::REQ_ERR } else { cqe_opcode::RESP_ERR });
            more(cqe);
        })
    }
}

impl Drop for CqBatch<'_, '_> {
    fn drop(&mut self) {
        if self.cq.config.mini.is_some() {
            self.end_batch();
        }
        let Some(mut q) = self.inner.take() else { return };
        let mem = self.mem.memory();
        let event_due = self.wrote && {
            if q.armed.is_none() && self.cq.config.poll_record {
                self.cq.look_at_record(&mut q, mem);
            }
            if q.moderation.from_cqe
                && let Some(site) = &self.cq.site
            {
                q.cqe_at = site.now_ns();
            }
            self.cq.take_event(&mut q)
        };
        drop(q);
        if let Some(fault) = self.fault {
            self.cq.send_error(mem, fault);
        }
        if event_due {
            self.cq.eq.post_completion(mem, self.cq.config.cqn);
        }
    }
}

/// Who owes a completion, and for what: what an error completion says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debtor {
    /// A send queue (else a receive queue).
    pub send: bool,
    /// Number of the queue.
    pub qpn: u32,
    /// Number that a user process gave the queue; zero for the kernel.
    pub user_index: u32,
    /// Opcode of the send WQE.
    pub wqe_opcode: u8,
    /// Index of the WQE (of its first 64 bytes, for a send WQE).
    pub wqe_counter: u16,
}

impl Debtor {
    /// Who owes, in the completion.
    #[inline(always)]
    pub(super) fn signs(self, cqe: &mut Words<Cqe64, 8>) -> &mut Words<Cqe64, 8> {
        cqe.set(Cqe64::user_index, self.user_index).set(Cqe64::wqe_counter, self.wqe_counter.into())
    }
}

/// A completion that is owed: it must be written, as a success or as an error,
/// or waived where the WQE did not ask for one. A forgotten one is a fault of
/// the model; the driver gets an error completion for it, so that it does not
/// wait for ever.
#[derive(Debug)]
#[must_use]
pub struct CqPermit<'a> {
    cq: &'a Cq,
    mem: &'a Memory,
    debtor: Debtor,
    owed: bool,
}

impl CqPermit<'_> {
    /// Writes the completion; see [`Cq::complete`].
    pub fn complete(self, solicited: bool, fill: impl FnOnce(&mut Words<Cqe64, 8>)) -> Result<(), CqFault> {
        let (cq, near) = (self.cq, Near::new(self.mem));
        self.complete_in(&mut cq.batch(&near), solicited, fill)
    }

    /// Writes the completion in a batch of its queue.
    pub fn complete_in(
        mut self,
        batch: &mut CqBatch<'_, '_>,
        solicited: bool,
        fill: impl FnOnce(&mut Words<Cqe64, 8>),
    ) -> Result<(), CqFault> {
        assert!(std::ptr::eq(self.cq, batch.cq), "a completion goes to the queue that promised it");
        self.owed = false;
        batch.complete(self.debtor, solicited, fill)
    }

    /// Writes an error completion (`struct mlx5_err_cqe`). Errors count as
    /// solicited.
    pub fn fail(mut self, fault: WqeFault) -> Result<(), CqFault> {
        self.owed = false;
        self.write_error(fault)
    }

    /// The WQE did not ask for a completion.
    pub fn waive(mut self) {
        self.owed = false;
    }

    /// Who owes.
    pub fn debtor(&self) -> Debtor {
        self.debtor
    }

    fn write_error(&self, fault: WqeFault) -> Result<(), CqFault> {
        self.cq.batch(&Near::new(self.mem)).fail(self.debtor, fault)
    }
}

impl Drop for CqPermit<'_> {
    fn drop(&mut self) {
        if self.owed {
            self.cq.forgotten.fetch_add(1, Ordering::Relaxed);
            // Nothing more can be done where the queue itself is broken.
            let _ = self.write_error(WqeFault::Forgotten);
            debug_assert!(std::thread::panicking(), "a completion was owed and forgotten: {:?}", self.debtor);
        }
    }
}
