//! A cache of ways through the device: what steering and receive dispatch
//! decided for a flow, so that its next frame needs to ask none of them.
//!
//! A worker has a cache of its own, which nobody else looks at. It learns from
//! frames that go the long way ([`record`]), and what it has learnt holds until
//! anything changes that a way could depend on. Whoever changes something says
//! so ([`Flows::changed`]) after the change and before the driver is answered;
//! a worker looks after it has read its send WQEs. So a frame that the driver
//! posts after the answer never goes a way that the command closed.

pub mod cache;
pub mod record;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use self::cache::Cache;

/// Workers that can have a cache; the others do without.
const WORKERS: usize = 16;

/// The caches of all workers, and the number of changes.
#[derive(Default)]
pub struct Flows {
    changes: AtomicU64,
    /// Taken by the worker itself for a burst; never waited for.
    caches: [Mutex<Cache>; WORKERS],
}

impl Flows {
    /// Something changed that may lead frames another way.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// How often something changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// A worker's cache for a burst. None where the worker has none, or another
    /// thread uses it under the same number.
    pub fn of(&self, worker: usize) -> Option<MutexGuard<'_, Cache>> {
        self.caches.get(worker)?.try_lock()
    }

    /// A worker has nothing to do: what its cache keeps alive and will not use
    /// again is let go.
    pub fn idle(&self, worker: usize) {
        if let Some(mut cache) = self.of(worker) {
            cache.sync(self.changes());
        }
    }
}

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flows({} changes)", self.changes())
    }
}
