//! A completion queue as a snapshot keeps it.

use std::sync::atomic::Ordering;

use sfnic_firmware_cmds::entries::CqRecord;

use super::{Cq, Inner, low24};

/// Where a queue is.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedCq {
    inner: Inner,
    error: bool,
    forgotten: u64,
}

impl Cq {
    /// Where it is.
    pub(crate) fn save(&self) -> SavedCq {
        let inner = self.inner.lock().clone();
        let error = self.error.load(Ordering::Relaxed);
        SavedCq { inner, error, forgotten: self.forgotten.load(Ordering::Relaxed) }
    }

    /// Goes on from there; false where no queue can be there.
    #[must_use]
    pub(crate) fn restore(&self, saved: SavedCq) -> bool {
        let SavedCq { inner, error, forgotten } = saved;
        let sound = inner.consumer == low24(inner.consumer)
            && inner.armed.is_none_or(|a| a.ci == low24(a.ci) && u32::from(a.sn) <= CqRecord::cmd_sn.max());
        *self.inner.lock() = inner;
        self.error.store(error, Ordering::Relaxed);
        self.forgotten.store(forgotten, Ordering::Relaxed);
        sound
    }
}
