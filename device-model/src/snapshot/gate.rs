//! Keeps the device still while it is looked at.

use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a burst, or a frame that waits for a buffer, may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whoever moves something in the device goes through it: threads that move frames once a
/// burst, drivers once a write to a BAR. While it is closed they wait. It is taken before every
/// lock.
#[derive(Debug, Default)]
pub(crate) struct Gate(RwLock<()>);

impl Gate {
    /// Goes in. One who is in already may do so again.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read_recursive()
    }

    /// Waits until nobody is in; nobody comes in while the answer lives. None where that
    /// takes too long.
    pub(crate) fn close(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.0.try_write_for(PATIENCE)
    }
}
