//! A send queue as a snapshot keeps it.

use std::sync::atomic::Ordering;

use super::{Inner, SegList, Sq, Stats};
use crate::queue::WqState;
use crate::queue::window::{SavedWindow, Window};

/// Where a queue is.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedSq {
    state: WqState,
    rung: bool,
    /// A worker was to run it.
    waits: bool,
    consumer: u16,
    producer: u16,
    stale: Option<u16>,
    window: SavedWindow,
    /// WQEs, frames, bytes, frames dropped, errors.
    stats: [u64; 5],
}

impl Sq {
    /// Where it is. Waits for a burst that runs.
    pub(crate) fn save(&self) -> SavedSq {
        let q = self.inner.lock();
        let Inner { consumer, producer, stale, window, segs: _ } = &*q;
        let Stats { wqes, packets, bytes, dropped, errors } = &self.stats;
        SavedSq {
            state: self.state.get(),
            rung: self.rung.load(Ordering::Acquire),
            waits: self.waits(),
            consumer: *consumer,
            producer: *producer,
            stale: *stale,
            window: window.save(),
            stats: [wqes, packets, bytes, dropped, errors].map(|n| n.load(Ordering::Relaxed)),
        }
    }

    /// Goes on from there; false where no queue can be there. What a worker was to run is so
    /// again: whoever calls hands those queues to workers ([`Sq::waits`]).
    #[must_use]
    pub(crate) fn restore(&self, saved: SavedSq) -> bool {
        let SavedSq { state, rung, waits, consumer, producer, stale, window, stats } = saved;
        let Some(window) = Window::restore(&window) else { return false };
        *self.inner.lock() = Inner { consumer, producer, stale, window, segs: SegList::new() };
        self.state.set(state);
        self.rung.store(rung, Ordering::Release);
        if waits {
            self.schedule.ring();
        }
        let Stats { wqes, packets, bytes, dropped, errors } = &self.stats;
        for (counter, n) in [wqes, packets, bytes, dropped, errors].into_iter().zip(stats) {
            counter.store(n, Ordering::Relaxed);
        }
        true
    }
}
