//! A TAP interface of the host as a wire.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::VolatileSlice;

use super::offload::{HEADER, Offload};
use super::tap::{TapWire, WireError};
use super::{Driver, Inlet, Link, Outlet, Pieces, Sender, TICK, Wire, interface};

/// Frames taken in before anything else is looked at.
const BURST: usize = 64;
/// Memory that a frame has to find free: more than the longest that the kernel hands over.
const MOST: usize = 68 << 10;
/// Memory for the frames that are under way together: a few long ones or 32 short ones.
const ROOM: usize = 4 * MOST;
const LINE: usize = 64;
/// How often an interface that has gone is looked for.
const AGAIN: Duration = Duration::from_millis(500);

/// Most queues of an interface, each of which has a thread.
pub const MAX_QUEUES: usize = 8;

/// Which interface, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its queues, 1 to [`MAX_QUEUES`].
    pub queues: usize,
}

impl Interface {
    /// An interface with one queue.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), queues: 1 }
    }
}

/// The interface's queues, while there is one.
#[derive(Debug)]
struct Tap {
    interface: Interface,
    now: ArcSwapOption<Vec<TapWire>>,
    link: Arc<Link>,
}

/// Creates a TAP interface or attaches to it.
///
/// # Errors
/// [`WireError`] with what failed and for what reason.
pub fn open_tap(interface: &Interface) -> Result<Wire, WireError> {
    TapWire::open_queues(&interface.name, interface.queues).map(|queues| of_queues(interface, queues))
}

/// A wire of an interface that has been opened.
pub(super) fn of_queues(interface: &Interface, all: Vec<TapWire>) -> Wire {
    let Interface { name, queues } = interface;
    let more = if *queues > 1 { format!(",queues={queues}") } else { String::new() };
    let link = Arc::new(Link::new(format!("tap:{name}{more}")));
    link.set_up();
    let now = ArcSwapOption::from_pointee(all);
    let tap = Arc::new(Tap { interface: interface.clone(), now, link: link.clone() });
    Wire { outlet: tap.clone(), driver: Box::new(TapDriver { tap, queue: 0 }), link }
}

impl Outlet for Tap {
    fn send(&self, offload: Offload, frame: &[u8]) -> bool {
        let now = self.now.load();
        let queue = now.as_ref().and_then(|queues| TapWire::choose(queues, frame));
        let sent = queue.is_some_and(|queue| queue.send_with(offload, &[IoSlice::new(frame)]).is_ok());
        if sent { &self.link.tx } else { &self.link.lost }.fetch_add(1, Relaxed);
        sent
    }

    fn joins(&self, _: bool) -> bool {
        true
    }
}

/// Frames of a queue, read one behind the other.
struct Burst<'q, 'm> {
    tap: &'q TapWire,
    memory: VolatileSlice<'m>,
    used: usize,
    came: usize,
    is_down: bool,
}

impl<'m> Sender<'m> for Burst<'_, 'm> {
    fn next(&mut self, pieces: &mut Pieces<'m>) -> Option<Offload> {
        while self.came < BURST && self.used + MOST <= self.memory.len() {
            let mut room = self.memory.subslice(self.used, MOST).ok()?;
            match self.tap.recv_into(&mut room) {
                Ok(Some((length, offload))) => {
                    self.came += 1;
                    self.used += (HEADER + length).next_multiple_of(LINE);
                    pieces.push(room.subslice(HEADER, length).ok()?);
                    return Some(offload);
                }
                Ok(None) => return None,
                Err(WireError::Truncated(_)) => {}
                Err(_) => {
                    self.is_down = true;
                    return None;
                }
            }
        }
        None
    }

    fn done(&mut self) {
        self.used = 0;
    }
}

/// Serves a queue; that of the first one looks after the interface.
struct TapDriver {
    tap: Arc<Tap>,
    queue: usize,
}

impl Driver for TapDriver {
    fn run(self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) {
        let mut memory = vec![0; ROOM];
        let memory = VolatileSlice::from(&mut memory[..]);
        let mut looked = Instant::now();
        while !done() {
            let now = self.tap.now.load_full();
            let Some(tap) = now.as_ref().and_then(|queues| queues.get(self.queue)) else {
                std::thread::sleep(TICK);
                if self.queue == 0 && looked.elapsed() >= AGAIN {
                    looked = Instant::now();
                    self.find_again(inlet);
                }
                continue;
            };
            let came = self.pump(tap, memory, inlet);
            inlet.flush();
            if !came || looked.elapsed() >= TICK {
                looked = Instant::now();
                self.look_after(tap, inlet);
            }
        }
    }

    fn further(&mut self) -> Vec<Box<dyn Driver>> {
        let driver = |queue| Box::new(TapDriver { tap: self.tap.clone(), queue }) as Box<dyn Driver>;
        (1..self.tap.interface.queues).map(driver).collect()
    }
}

impl TapDriver {
    /// Takes in what is there, waiting for it; false where nothing came.
    fn pump(&self, tap: &TapWire, memory: VolatileSlice<'_>, inlet: &mut dyn Inlet) -> bool {
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        let fd = tap.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&tick)), Ok(n) if n > 0) {
            return false;
        }
        let mut burst = Burst { tap, memory, used: 0, came: 0, is_down: false };
        inlet.receive_burst(&mut burst);
        let Burst { came, is_down, .. } = burst;
        self.tap.link.rx.fetch_add(came as u64, Relaxed);
        if is_down {
            // Gone, or down: the next look tells.
            std::thread::sleep(Duration::from_millis(10));
        }
        came > 0 && !is_down
    }

    /// Whether the queue is at work, and the interface still there and up.
    fn look_after(&self, tap: &TapWire, inlet: &mut dyn Inlet) {
        let link = &self.tap.link;
        if self.tap.interface.queues > 1 && tap.attach_again() {
            tracing::warn!("{}: somebody detached queue {}, it is attached again", link.name(), self.queue);
        }
        if self.queue > 0 {
            return;
        }
        let changed = match interface::is_up(&self.tap.interface.name) {
            Some(true) => link.set_up(),
            Some(false) => link.is_up() && link.set_down("the interface is down"),
            None => {
                self.tap.now.store(None);
                link.set_down("the interface has gone")
            }
        };
        if changed {
            inlet.link_changed();
        }
    }

    /// Attaches to an interface that came back; we do not create it a second time.
    fn find_again(&self, inlet: &mut dyn Inlet) {
        let Interface { name, queues } = &self.tap.interface;
        if interface::is_up(name).is_none() {
            return;
        }
        match TapWire::open_queues(name, *queues) {
            Ok(tap) => {
                self.tap.now.store(Some(Arc::new(tap)));
                if self.tap.link.set_up() {
                    inlet.link_changed();
                }
            }
            Err(e) => {
                // Whoever asks for the wire is told.
                self.tap.link.set_down(e);
            }
        }
    }
}
