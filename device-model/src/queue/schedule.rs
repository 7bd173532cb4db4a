//! Who runs a queue: at most one worker, and no doorbell is lost.

use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
/// Running, and a doorbell came meanwhile.
const AGAIN: u8 = 3;

/// Idle, waiting for a worker, or run by one.
#[derive(Debug, Default)]
pub(super) struct Schedule(AtomicU8);

impl Schedule {
    /// There is work. True where the caller must hand the queue to a worker.
    pub(super) fn ring(&self) -> bool {
        let next = |s| match s {
            IDLE => Some(QUEUED),
            RUNNING => Some(AGAIN),
            _ => None,
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(IDLE)
    }

    /// Whether nobody has to run it.
    pub(super) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Acquire) == IDLE
    }

    /// A worker starts. False where another one is at it.
    pub(super) fn begin(&self) -> bool {
        let next = |s| (s == IDLE || s == QUEUED).then_some(RUNNING);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// The worker stops. True where the queue must be handed to a worker once
    /// more: `more` was left, or a doorbell came while it ran.
    pub(super) fn end(&self, more: bool) -> bool {
        let next = |s| Some(if more || s == AGAIN { QUEUED } else { IDLE });
        let was = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        more || was == Ok(AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_queues_once_and_is_never_lost() {
        let s = Schedule::default();
        assert!(s.ring());
        assert!(!s.ring());
        assert!(s.begin());
        assert!(!s.begin(), "one worker");
        assert!(!s.ring(), "seen by the worker that runs");
        assert!(s.end(false), "so it goes round again");
        assert!(s.begin());
        assert!(s.end(true));
        assert!(s.begin());
        assert!(!s.end(false));
        assert!(s.ring());
    }
}
