//! Keeps the device still while it is looked at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a burst, or a frame that waits for a buffer, may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Rooms behind the gate. Threads share one only where there are more of them: going in is no
/// matter of any other thread's, and who waits for a room to be empty waits for one thread.
const ROOMS: usize = 32;

thread_local! {
    static ROOM: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % ROOMS
    };
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Room(RwLock<()>);

/// Whoever moves something in the device goes through it: threads that move frames once a
/// burst, drivers once a write to a BAR. While it is closed they wait. It is taken before every
/// lock.
#[derive(Debug, Default)]
pub(crate) struct Gate([Room; ROOMS]);

/// Nobody is in, and nobody comes in.
#[derive(Debug)]
pub(crate) struct Closed<'a>(
    #[expect(dead_code, reason = "what counts is that it lives")] Vec<RwLockWriteGuard<'a, ()>>,
);

impl Gate {
    /// Goes in. One who is in already may do so again.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        let Room(room) = &self.0[ROOM.with(|n| *n)];
        room.read_recursive()
    }

    /// Waits until nobody is in; nobody comes in while the answer lives. None where that
    /// takes too long.
    pub(crate) fn close(&self) -> Option<Closed<'_>> {
        let rooms: Option<Vec<_>> = self.0.iter().map(|Room(room)| room.try_write_for(PATIENCE)).collect();
        rooms.map(Closed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn nobody_is_in_while_it_is_closed_and_those_who_come_all_the_time_let_it_close() {
        let (gate, done, inside) = (Gate::default(), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let _in = gate.enter();
                        inside.fetch_add(1, Ordering::SeqCst);
                        let _again = gate.enter();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..100 {
                let closed = gate.close().expect("they are in for moments only");
                let seen: usize = (0..50).map(|_| inside.load(Ordering::SeqCst)).sum();
                assert_eq!(seen, 0);
                drop(closed);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
