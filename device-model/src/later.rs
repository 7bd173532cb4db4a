//! What is to be done at a later time. The device reads a clock and waits for
//! nothing: whoever runs it calls [`Nic::run_due`] when the time has come.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::capture::Way;
use crate::cmdq;
use crate::fabric::pipeline::Pipeline;
use crate::nic::Nic;
use crate::packet::Frame;
use crate::work::Job;
use crate::world::Waker;

/// Most deeds that wait; frames and commands beyond are lost: a guest can ring
/// for a command that is held up as often as it likes.
const MOST: usize = 1 << 16;

/// Most bytes of frames that wait.
const MOST_BYTES: usize = 256 << 20;

/// Something to do.
#[derive(Debug)]
pub(crate) enum Deed {
    /// A command is fetched and executed.
    Command {
        card: usize,
        function: u16,
        slot: u32,
        /// Address of the command queue, which is the driver's own as long as
        /// it is this.
        queue: u64,
    },
    /// A frame goes on where it was held up.
    Frame { card: usize, way: Way, bytes: Vec<u8> },
    /// A link that flaps changes.
    Flap { id: u32 },
    /// An event that was held back is written, if it still is.
    Event { card: usize, function: u16, eqn: u8 },
    /// The event of a completion queue, which waited for more completions, is sent.
    Completion { card: usize, function: u16, cqn: u32 },
    /// A fault resets its cards.
    Reset { id: u32 },
    /// A send queue that had to wait goes on.
    Send(Job),
}

struct Entry {
    due: u64,
    /// First come, first served.
    seq: u64,
    deed: Deed,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.seq).cmp(&(self.due, self.seq))
    }
}

#[derive(Default)]
struct Heap {
    seq: u64,
    /// Of the frames among them.
    bytes: usize,
    entries: BinaryHeap<Entry>,
    /// When whoever does what is due looks again, woken or not.
    looks: u64,
}

impl Deed {
    fn bytes(&self) -> usize {
        if let Deed::Frame { bytes, .. } = self { bytes.len() } else { 0 }
    }
}

/// What is to be done later.
#[derive(Default)]
pub struct Later {
    heap: Mutex<Heap>,
    waker: OnceLock<Arc<dyn Waker>>,
    /// Held by who does it: frames keep their order.
    doing: Mutex<()>,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Later({} deeds)", self.heap.lock().entries.len())
    }
}

impl Later {
    /// Whom to wake when something is put in. The first call counts.
    pub fn wake(&self, waker: Arc<dyn Waker>) {
        let _ = self.waker.set(waker);
    }

    /// Something is to be done at a time of the clock; false where there is no room for it.
    pub(crate) fn put(&self, due: u64, deed: Deed) -> bool {
        let sooner = {
            let mut heap = self.heap.lock();
            let full = heap.entries.len() >= MOST && !matches!(deed, Deed::Flap { .. } | Deed::Send(_));
            if full || heap.bytes.saturating_add(deed.bytes()) > MOST_BYTES && deed.bytes() > 0 {
                return false;
            }
            heap.seq += 1;
            heap.bytes += deed.bytes();
            let sooner = due < heap.looks;
            let seq = heap.seq;
            heap.entries.push(Entry { due, seq, deed });
            sooner
        };
        // Who looks before it is due finds it then.
        if let Some(waker) = self.waker.get().filter(|_| sooner) {
            waker.wake();
        }
        true
    }

    /// The next deed that is due, or when there is one; who asks looks again by then, and
    /// by `limit` in any case.
    fn next(&self, now: u64, limit: u64) -> Result<Deed, Option<u64>> {
        let mut heap = self.heap.lock();
        let next = heap.entries.peek().map(|e| e.due);
        heap.looks = next.unwrap_or(u64::MAX).min(limit);
        match next {
            None => Err(None),
            Some(due) if due > now => Err(next),
            Some(_) => {
                let deed = heap.entries.pop().map(|e| e.deed).ok_or(None)?;
                heap.bytes = heap.bytes.saturating_sub(deed.bytes());
                Ok(deed)
            }
        }
    }
}

impl Nic {
    /// Does what is due. When to come again, by the clock's nanoseconds; `None`
    /// where nothing waits. `worker` is the calling thread's number.
    pub fn run_due(&self, worker: usize) -> Option<u64> {
        self.run_due_until(worker, u64::MAX)
    }

    /// The same for a caller who comes again by `limit`, by the clock's nanoseconds, in any
    /// case: it is not woken for what is due later than that. Where another thread is doing it
    /// this does nothing.
    pub fn run_due_until(&self, worker: usize, limit: u64) -> Option<u64> {
        let _still = self.gate.enter();
        let _doing = self.later.doing.try_lock()?;
        let now = self.clock.now_ns();
        loop {
            match self.later.next(now, limit) {
                Err(next) => return next,
                Ok(Deed::Flap { id }) => self.flap(id),
                Ok(Deed::Event { card, function, eqn }) => self.release_event(card, function, eqn),
                Ok(Deed::Completion { card, function, cqn }) => self.release_completions(card, function, cqn),
                Ok(Deed::Reset { id }) => self.reset_by(id),
                Ok(Deed::Send(job)) => self.work.push(job),
                Ok(Deed::Command { card, function, slot, queue }) => {
                    let Some(card) = self.cards.get(card) else { continue };
                    let mut ctl = card.control.lock();
                    cmdq::run_held(self, card, &mut ctl, function, slot, queue);
                    let after = std::mem::take(&mut ctl.after);
                    drop(ctl);
                    self.finish(&after);
                }
                Ok(Deed::Frame { card, way, mut bytes }) => {
                    let (Some(card), Some(mut frame)) = (self.cards.get(card), Frame::from_bytes(&mut bytes)) else {
                        continue;
                    };
                    frame.parse();
                    Pipeline::new(self, worker, self.ticks()).resume(card, way, &mut frame);
                }
            }
        }
    }
}
