//! Holds connections between two messages, for another process to go on with them.
//!
//! A thread that waits for its client's next message is woken by a signal that does nothing
//! else; so waiting costs no more than it did. While it is held it reads nothing: what the
//! client sends stays in the socket, for whoever goes on.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::Parts;

/// How long a message may take to be handled.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two signals to threads that have not noticed.
const AGAIN: Duration = Duration::from_millis(5);

/// A connection that is held.
#[derive(Debug)]
pub struct Held {
    /// The socket at which its client came.
    pub socket: PathBuf,
    /// The connection.
    pub stream: UnixStream,
    /// What is known of the client.
    pub parts: Parts,
}

/// Connections that are held, or are to be.
#[derive(Default)]
pub(super) struct Hold {
    wanted: AtomicBool,
    held: Mutex<Vec<Held>>,
    changed: Condvar,
}

impl Hold {
    /// Whether connections are to be held.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Keeps the calling thread, which has a client, until [`Self::release`].
    pub(super) fn park(&self, socket: &Path, stream: std::io::Result<UnixStream>, parts: std::io::Result<Parts>) {
        let mut held = self.held.lock();
        // Without a descriptor left it is missing, and nothing comes of it.
        if let (Ok(stream), Ok(parts)) = (stream, parts) {
            held.push(Held { socket: socket.to_owned(), stream, parts });
            self.changed.notify_all();
        }
        while self.is_wanted() {
            self.changed.wait(&mut held);
        }
    }

    /// Keeps the calling thread, which has no client.
    pub(super) fn wait(&self) {
        let mut held = self.held.lock();
        while self.is_wanted() {
            self.changed.wait(&mut held);
        }
    }

    /// Waits until `count` connections are held; `wake` wakes their threads. None where one
    /// takes too long: then they go on.
    pub(super) fn collect(&self, count: usize, wake: impl Fn()) -> Option<Vec<Held>> {
        self.wanted.store(true, Ordering::Release);
        let until = Instant::now() + PATIENCE;
        let mut held = self.held.lock();
        while held.len() < count && Instant::now() < until {
            wake();
            self.changed.wait_for(&mut held, AGAIN);
        }
        let all = std::mem::take(&mut *held);
        drop(held);
        if all.len() == count {
            return Some(all);
        }
        self.release();
        None
    }

    /// Lets them go on.
    pub(super) fn release(&self) {
        let mut held = self.held.lock();
        self.wanted.store(false, Ordering::Release);
        held.clear();
        self.changed.notify_all();
    }
}
