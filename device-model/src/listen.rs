//! Listening to commands: the latest ones with their answers, for whoever watches a
//! driver at work.
//!
//! They are kept only while somebody listens, and never more than [`KEPT`] of them and
//! [`MOST_BYTES`]. Without a listener a command costs one load. A reader that is too slow is
//! told how many it missed; nobody waits for one. A whole recording is [`crate::trace`]'s.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sfnic_firmware_cmds::status::Delivery;

use crate::backlog::Backlog;
use crate::world::Waker;

/// How many commands are kept.
pub const KEPT: usize = 1024;
/// How many bytes of commands and answers are kept, all together.
pub const MOST_BYTES: usize = 2 << 20;
/// How much of a half of a command is kept. All but long lists of pages are shorter.
pub const MOST_OF_HALF: usize = 16 << 10;

/// The beginning of one half of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    /// At most [`MOST_OF_HALF`] bytes.
    pub bytes: Vec<u8>,
    /// How long the whole is.
    pub length: usize,
}

impl Half {
    fn of(whole: &[u8]) -> Half {
        Half { bytes: whole[..whole.len().min(MOST_OF_HALF)].to_vec(), length: whole.len() }
    }
}

/// Where and when a command was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When it began, in the clock's nanoseconds.
    pub time_ns: u64,
    /// How long it took, with fetching and answering.
    pub duration_ns: u64,
    /// Physical function.
    pub pf: usize,
    /// Hardware function id of who issued it.
    pub function: u16,
    /// Entry of the command queue.
    pub slot: u8,
    /// What the entry's status says.
    pub delivery: Delivery,
}

/// A command that was fetched, executed and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its number among those that were listened to, from 1; none is left out.
    pub seq: u64,
    /// Where and when.
    pub at: Place,
    /// What the driver sent.
    pub input: Half,
    /// What it was answered; empty where it could not be delivered.
    pub output: Half,
}

/// What a reader gets.
#[derive(Debug, Clone, Default)]
pub struct Since {
    /// Commands that it missed.
    pub lost: u64,
    /// Commands, in order.
    pub commands: Vec<Arc<Heard>>,
}

#[derive(Default)]
struct Ring {
    log: Backlog<Heard>,
    bytes: usize,
}

fn size(h: &Heard) -> usize {
    h.input.bytes.len() + h.output.bytes.len()
}

/// The commands of a device, for its listeners.
#[derive(Default)]
pub struct Commands {
    listeners: AtomicU32,
    ring: Mutex<Ring>,
    waker: OnceLock<Arc<dyn Waker>>,
}

impl Commands {
    /// Whom to wake when there is a new command and somebody listens. The first call counts.
    pub fn wake(&self, waker: Arc<dyn Waker>) {
        let _ = self.waker.set(waker);
    }

    /// Keeps commands as long as the listener lives.
    pub fn listen(self: &Arc<Self>) -> Listener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Listener(self.clone())
    }

    /// Whether anybody listens.
    pub(crate) fn heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// A command was executed.
    pub(crate) fn push(&self, at: Place, input: &[u8], output: &[u8]) {
        let (input, output) = (Half::of(input), Half::of(output));
        {
            let mut ring = self.ring.lock();
            // Looked at under the lock: the last listener that leaves empties the ring.
            if !self.heard() {
                return;
            }
            ring.bytes += input.bytes.len() + output.bytes.len();
            ring.log.push(|seq| Heard { seq, at, input, output });
            while ring.log.kept().len() > KEPT || ring.bytes > MOST_BYTES {
                let Some(old) = ring.log.forget() else { break };
                ring.bytes -= size(&old);
            }
        }
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commands({} listeners)", self.listeners.load(Ordering::Relaxed))
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener(Arc<Commands>);

impl Listener {
    /// Number of the latest command.
    pub fn last(&self) -> u64 {
        self.0.ring.lock().log.last()
    }

    /// At most `most` commands behind number `seen`.
    pub fn since(&self, seen: u64, most: usize) -> Since {
        let (lost, commands) = self.0.ring.lock().log.since(seen, most);
        Since { lost, commands }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut ring = self.0.ring.lock();
        if self.0.listeners.fetch_sub(1, Ordering::Relaxed) == 1 {
            ring.log.clear();
            ring.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place { time_ns: 0, duration_ns: 0, pf: 0, function: 0, slot: 0, delivery: Delivery::Ok };

    #[test]
    fn nothing_is_kept_for_nobody() {
        let commands = Arc::new(Commands::default());
        commands.push(HERE, &[1], &[]);
        let one = commands.listen();
        assert_eq!((one.last(), one.since(0, 9).commands.len()), (0, 0));
        commands.push(HERE, &[1, 2], &[3]);
        let two = commands.listen();
        drop(one);
        let got = two.since(0, 9);
        assert_eq!((got.lost, got.commands[0].seq, &*got.commands[0].input.bytes), (0, 1, &[1, 2][..]));
        drop(two);
        assert!(!commands.heard());
        assert_eq!(commands.ring.lock().bytes, 0);
        assert!(commands.listen().since(0, 9).commands.is_empty(), "what was kept is gone");
    }

    #[test]
    fn the_ring_is_bounded_and_tells_what_was_missed() {
        let commands = Arc::new(Commands::default());
        let listener = commands.listen();
        for _ in 0..KEPT + 10 {
            commands.push(HERE, &[7; 16], &[]);
        }
        let got = listener.since(3, 1);
        assert_eq!((got.lost, got.commands[0].seq), (7, 11));
        assert_eq!(listener.since(u64::MAX, 9).commands.len(), 0);
        for _ in 0..KEPT {
            commands.push(HERE, &[7; 1 << 20], &[7; 1 << 20]);
        }
        let ring = commands.ring.lock();
        assert!(ring.bytes <= MOST_BYTES && ring.bytes > MOST_BYTES / 2);
        assert_eq!(ring.log.kept().iter().map(|h| size(h)).sum::<usize>(), ring.bytes);
        let last = ring.log.kept().back().unwrap();
        assert_eq!((last.input.bytes.len(), last.input.length), (MOST_OF_HALF, 1 << 20));
    }
}
