//! Signals that end this process: while a guest runs they end the guest first.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

const SIGNALS: [(i32, &str); 3] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP")];

/// The handlers stay for good (a signal's default is lost once it was caught); they do the
/// default when no guest runs.
#[derive(Debug)]
struct Handlers {
    caught: Arc<AtomicUsize>,
    idle: Arc<AtomicBool>,
    guests: Mutex<usize>,
}

impl Handlers {
    fn guests(&self) -> MutexGuard<'_, usize> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

/// Catches the signals until the last of these is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    handlers: &'static Handlers,
}

impl Signals {
    pub(crate) fn catch() -> Result<Signals> {
        let mut first = false;
        let handlers = HANDLERS.get_or_init(|| {
            first = true;
            Handlers { caught: Arc::default(), idle: Arc::new(AtomicBool::new(true)), guests: Mutex::new(0) }
        });
        if first {
            for (signal, name) in SIGNALS {
                let number = usize::try_from(signal).unwrap_or_default();
                flag::register_conditional_default(signal, handlers.idle.clone())
                    .and_then(|_| flag::register_usize(signal, handlers.caught.clone(), number))
                    .with_context(|| format!("cannot catch {name}"))?;
            }
        }
        *handlers.guests() += 1;
        handlers.idle.store(false, Ordering::SeqCst);
        Ok(Signals { handlers })
    }

    /// The signal that came, and its name.
    pub(crate) fn caught(&self) -> Option<(i32, &'static str)> {
        let number = self.handlers.caught.load(Ordering::SeqCst);
        SIGNALS.iter().find(|(signal, _)| usize::try_from(*signal) == Ok(number)).copied()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut guests = self.handlers.guests();
        *guests = guests.saturating_sub(1);
        if *guests == 0 {
            self.handlers.idle.store(true, Ordering::SeqCst);
        }
    }
}
