//! A cache of ways through the device: what steering and receive dispatch
//! decided for a flow, so that its next frame needs to ask none of them.
//!
//! A worker has a cache of its own, which nobody else looks at. It learns from
//! frames that go the long way ([`record`]), and what it has learnt holds until
//! something changes that the way depends on. Flow tables tell which questions
//! have another answer now ([`Changes`]), and a flow knows which ones its way
//! asked; whoever changes anything else says so ([`Flows::changed`]), and then
//! nothing that is known holds. Both happen after the change and before the
//! driver is answered; a worker looks after it has read its send WQEs. So a
//! frame that the driver posts after the answer never goes a way that the
//! command closed.

pub mod cache;
pub mod record;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::cache::Cache;
use crate::steering::{Changes, Moment};

/// Workers that can have a cache; the others do without.
const WORKERS: usize = 16;

/// The caches of all workers, and what has changed.
#[derive(Default)]
pub struct Flows {
    /// What has changed; flow tables say so themselves.
    pub changes: Arc<Changes>,
    /// Taken by the worker itself for a burst; never waited for.
    caches: [Mutex<Cache>; WORKERS],
}

impl Flows {
    /// Something beside flow tables changed that may lead frames another way.
    pub fn changed(&self) {
        self.changes.everything();
    }

    /// The moment now: what is known holds for it, or is looked at again.
    pub fn now(&self) -> Moment {
        self.changes.now()
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
            cache.sync(self.now());
        }
    }
}

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flows({:?})", self.changes)
    }
}
