//! The state of a wire, and what it counted.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;
use serde::Serialize;

/// Whether the far end of a wire is there, and what happened on it.
#[derive(Debug)]
pub struct Link {
    name: String,
    up: AtomicBool,
    /// Frames that came in; a large one is one.
    pub(super) rx: AtomicU64,
    /// Frames handed to the far end; a large one is one.
    pub(super) tx: AtomicU64,
    /// Frames that the far end could not take, or that came while it was not there.
    pub(super) lost: AtomicU64,
    ups: AtomicU64,
    downs: AtomicU64,
    errors: AtomicU64,
    reason: Mutex<String>,
}

/// What a wire counted, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkCounters {
    /// As the configuration names the wire.
    pub wire: String,
    /// Whether the far end is there.
    pub up: bool,
    /// Frames that came in.
    pub rx_frames: u64,
    /// Frames handed to the far end.
    pub tx_frames: u64,
    /// Frames that were lost on the way to it.
    pub tx_lost: u64,
    /// How often the link came up.
    pub ups: u64,
    /// How often it went down.
    pub downs: u64,
    /// How often the reason was a fault.
    pub errors: u64,
    /// Why it went down last, or is not up yet.
    pub reason: String,
}

impl Link {
    /// A link that is down for now.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            up: AtomicBool::new(false),
            rx: AtomicU64::new(0),
            tx: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            ups: AtomicU64::new(0),
            downs: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            reason: Mutex::new("nobody is there yet".to_owned()),
        }
    }

    /// As the configuration names the wire.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the far end is there.
    pub fn is_up(&self) -> bool {
        self.up.load(Acquire)
    }

    /// The far end is there. True where it was not before.
    pub fn set_up(&self) -> bool {
        let changed = !self.up.swap(true, Relaxed);
        if changed {
            self.ups.fetch_add(1, Relaxed);
            tracing::info!("{}: link up", self.name);
        }
        changed
    }

    /// The far end has gone, for this reason. True where it was there before.
    pub fn set_down(&self, reason: impl std::fmt::Display) -> bool {
        let reason = reason.to_string();
        // Who sees that it is down finds the reason.
        self.reason.lock().clone_from(&reason);
        let changed = self.up.swap(false, AcqRel);
        if changed {
            self.downs.fetch_add(1, Relaxed);
            tracing::info!("{}: link down: {reason}", self.name);
        }
        changed
    }

    /// As [`Self::set_down`], and the reason is somebody's fault.
    pub fn fail(&self, reason: impl std::fmt::Display) -> bool {
        tracing::warn!("{}: {reason}", self.name);
        let changed = self.set_down(reason);
        // Who sees that it is counted finds the reason, too.
        self.errors.fetch_add(1, Release);
        changed
    }

    /// What happened so far.
    pub fn counters(&self) -> LinkCounters {
        LinkCounters {
            wire: self.name.clone(),
            up: self.is_up(),
            rx_frames: self.rx.load(Relaxed),
            tx_frames: self.tx.load(Relaxed),
            tx_lost: self.lost.load(Relaxed),
            ups: self.ups.load(Relaxed),
            downs: self.downs.load(Relaxed),
            errors: self.errors.load(Acquire),
            reason: self.reason.lock().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_once_and_have_reasons() {
        let l = Link::new("x");
        assert!(!l.is_up() && !l.set_down("still nobody"));
        assert!(l.set_up() && !l.set_up());
        assert!(l.fail("it spoke nonsense"));
        let c = l.counters();
        assert_eq!((c.ups, c.downs, c.errors, c.up), (1, 1, 1, false));
        assert_eq!(c.reason, "it spoke nonsense");
    }
}
