//! Counts of a burst.

use std::sync::atomic::Ordering;

use super::{Stats, TxResult};
use crate::queue::WqeFault;

/// What a burst has counted and not yet told.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) wqes: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
}

impl Tally {
    /// Adds it to the queue's counters.
    #[inline(always)]
    pub(super) fn tell(self, stats: &Stats) {
        for (counter, n) in [
            (&stats.wqes, self.wqes),
            (&stats.packets, self.packets),
            (&stats.bytes, self.bytes),
            (&stats.dropped, self.dropped),
        ] {
            if n > 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        }
    }

    /// What became of a frame or message.
    #[inline(always)]
    pub(super) fn count(&mut self, sent: TxResult) -> Result<(), WqeFault> {
        match sent {
            TxResult::Sent { frames, bytes } => {
                self.packets += u64::from(frames);
                self.bytes += bytes;
            }
            TxResult::Dropped => self.dropped += 1,
            TxResult::Failed(fault) => return Err(fault),
        }
        Ok(())
    }
}
