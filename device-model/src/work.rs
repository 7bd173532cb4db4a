//! Send queues that have something to send, waiting for a worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::dma::Near;
use crate::fabric::arrive::{Door, arrive};
use crate::fabric::burst::From;
use crate::fabric::pipeline::Pipeline;
use crate::fabric::plane::{FunctionPlane, Keys};
use crate::fabric::transmit::Transmit;
use crate::fabric::vport::Vport;
use crate::later::Deed;
use crate::nic::Nic;
use crate::packet::Frame;
use crate::queue::Sq;
use crate::world::Waker;

/// A send queue and the function that it belongs to.
#[derive(Debug, Clone)]
pub struct Job {
    /// Card of the function.
    pub card: usize,
    /// The function.
    pub function: Arc<FunctionPlane>,
    /// The queue.
    pub sq: Arc<Sq>,
}

/// First come, first served. A queue stands in it at most once, so its length
/// is bounded by the number of queues.
pub struct WorkQueue {
    jobs: Mutex<VecDeque<Job>>,
    waker: Arc<dyn Waker>,
    /// Whether a rate is guaranteed to anybody.
    shares: AtomicBool,
    turn: AtomicU32,
}

/// Most WQEs that a queue may have executed before others get their turn.
const BURST: usize = 256;
/// Most queues among which those are looked for that come first.
const LOOKED_AT: usize = 64;
/// Every so many turns it is the one's that waited longest, whatever is guaranteed to others.
const FAIR: u32 = 8;

impl Nic {
    /// Runs the send queue that has waited longest for one burst. False where
    /// none waits.
    ///
    /// Called by workers, each with a number of its own. Any number of them may
    /// run at once; one queue is run by one of them at a time.
    pub fn run(&self, worker: usize) -> bool {
        let first = |job: &Job| job.function.vport.rate.comes_first(self.clock.now_ns());
        let Some(job) = self.work.pop(first) else {
            self.flows.idle(worker);
            return false;
        };
        let rate = &job.function.vport.rate;
        let allowance = match rate.allowance(|| self.clock.now_ns()) {
            Ok(bytes) => bytes,
            Err(due) => {
                let _ = self.later.put(due, Deed::Send(job)); // there is room for it always
                return true;
            }
        };
        let card = &self.cards[job.card];
        let now = self.ticks();
        let mem = job.function.dma.load();
        let mut cache = self.flows.of(worker);
        let mut pipeline = Pipeline::new(self, worker, now);
        let config = job.sq.config();
        let from = From { card, function: &job.function, sqn: config.sqn, td: config.tdn };
        let done = {
            let mut tx = Transmit::new(&mut pipeline, cache.as_deref_mut(), from, Near::new(&mem), allowance);
            let keys = Keys::new(&job.function, &self.flows);
            let done = job.sq.poll(&mem, &keys, BURST, &mut tx, now);
            rate.charge(|| self.clock.now_ns(), tx.sent());
            done
        };
        if done.more {
            self.work.push_back_quietly(job);
        }
        true
    }

    /// Takes a frame from outside in at a card's physical port. `bytes` is the
    /// frame without its check sequence.
    pub fn receive_from_wire(&self, worker: usize, card: usize, bytes: &mut [u8]) {
        if let (Some(card), Some(frame)) = (self.cards.get(card), Frame::from_bytes(bytes)) {
            let mut cache = self.flows.of(worker);
            let mut pipeline = Pipeline::new(self, worker, self.ticks());
            arrive(&mut pipeline, cache.as_deref_mut(), Door::Port(card), frame, None);
        }
    }

    /// As [`Nic::receive_from_wire`] from a wire whose other end can wait:
    /// while a receive queue has no buffer, `pause` is asked whether to look
    /// again, which is what pause frames are for.
    ///
    /// With `segment` the frame stands for TCP segments of so many bytes of
    /// payload each, which arrive one after the other; its checksums need not
    /// be right. One that cannot be cut is lost.
    pub fn receive_with_pause<'n>(
        &'n self,
        worker: usize,
        card: usize,
        bytes: &mut [u8],
        segment: Option<usize>,
        pause: &'n mut dyn FnMut() -> bool,
    ) {
        let (Some(card), Some(frame)) = (self.cards.get(card), Frame::from_bytes(bytes)) else { return };
        let mut cache = self.flows.of(worker);
        let mut pipeline = Pipeline::with_pause(self, worker, self.ticks(), pause);
        if !arrive(&mut pipeline, cache.as_deref_mut(), Door::Port(card), frame, segment) {
            card.port.rx_discards.add(1);
        }
    }

    /// As [`Nic::receive_with_pause`], from the peer behind a vport.
    pub fn receive_at_vport<'n>(
        &'n self,
        worker: usize,
        (card, vport): (usize, &Vport),
        bytes: &mut [u8],
        segment: Option<usize>,
        pause: &'n mut dyn FnMut() -> bool,
    ) {
        let len = bytes.len();
        let (Some(card), Some(frame)) = (self.cards.get(card), Frame::from_bytes(bytes)) else { return };
        let mut cache = self.flows.of(worker);
        let mut pipeline = Pipeline::with_pause(self, worker, self.ticks(), pause);
        if !arrive(&mut pipeline, cache.as_deref_mut(), Door::Vport(card, vport), frame, segment) {
            vport.tx.errors.count(len);
        }
    }
}

impl WorkQueue {
    /// An empty one.
    pub fn new(waker: Arc<dyn Waker>) -> Self {
        Self { jobs: Mutex::default(), waker, shares: AtomicBool::default(), turn: AtomicU32::default() }
    }

    /// Adds a queue and wakes a worker.
    pub fn push(&self, job: Job) {
        self.jobs.lock().push_back(job);
        self.waker.wake();
    }

    /// Adds a queue that the calling worker will come back to.
    pub fn push_back_quietly(&self, job: Job) {
        self.jobs.lock().push_back(job);
    }

    /// From here on somebody may come first.
    pub fn look_for_shares(&self) {
        self.shares.store(true, Relaxed);
    }

    /// Takes the next one: that comes first, where a rate is guaranteed to anybody.
    pub fn pop(&self, first: impl Fn(&Job) -> bool) -> Option<Job> {
        let mut jobs = self.jobs.lock();
        if !self.shares.load(Relaxed) || self.turn.fetch_add(1, Relaxed).is_multiple_of(FAIR) {
            return jobs.pop_front();
        }
        let at = jobs.iter().take(LOOKED_AT).position(first).unwrap_or_default();
        jobs.remove(at)
    }

    /// How many queues wait.
    pub fn len(&self) -> usize {
        self.jobs.lock().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.jobs.lock().is_empty()
    }
}
