//! Time that goes on where it was when the device was saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::world::Clock;

/// A clock that differs from another one by the same time always.
pub(crate) struct Shifted {
    raw: Arc<dyn Clock>,
    by: AtomicU64,
}

impl Shifted {
    pub(crate) fn new(raw: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { raw, by: AtomicU64::new(0) })
    }

    /// It is so late.
    pub(super) fn set(&self, now_ns: u64) {
        self.by.store(now_ns.wrapping_sub(self.raw.now_ns()), Relaxed);
    }
}

impl Clock for Shifted {
    fn now_ns(&self) -> u64 {
        self.raw.now_ns().wrapping_add(self.by.load(Relaxed))
    }
}
