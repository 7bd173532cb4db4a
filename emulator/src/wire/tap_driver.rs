//! A TAP interface of the host as a wire.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::offload::Offload;
use super::tap::{TapWire, WireError};
use super::{Driver, Inlet, LONGEST, Link, Outlet, TICK, Wire, interface};

/// Frames taken in before anything else is looked at.
const BURST: usize = 64;
/// How often an interface that has gone is looked for.
const AGAIN: Duration = Duration::from_millis(500);

/// The interface, while there is one.
#[derive(Debug)]
struct Tap {
    name: String,
    now: ArcSwapOption<TapWire>,
    link: Arc<Link>,
}

/// Creates a TAP interface or attaches to it.
///
/// # Errors
/// [`WireError`] with what failed and for what reason.
pub fn open_tap(name: &str) -> Result<Wire, WireError> {
    let tap = TapWire::open(name)?;
    let link = Arc::new(Link::new(format!("tap:{name}")));
    link.set_up();
    let tap = Arc::new(Tap { name: name.to_owned(), now: ArcSwapOption::from_pointee(tap), link: link.clone() });
    Ok(Wire { outlet: tap.clone(), driver: Box::new(TapDriver { tap }), link })
}

impl Outlet for Tap {
    fn send(&self, offload: Offload, frame: &[u8]) -> bool {
        let sent = self.now.load().as_ref().is_some_and(|tap| tap.send_with(offload, &[IoSlice::new(frame)]).is_ok());
        if sent { &self.link.tx } else { &self.link.lost }.fetch_add(1, Relaxed);
        sent
    }

    fn joins(&self, _: bool) -> bool {
        true
    }
}

struct TapDriver {
    tap: Arc<Tap>,
}

impl Driver for TapDriver {
    fn run(self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) {
        let mut buf = vec![0; LONGEST];
        let mut looked = Instant::now();
        while !done() {
            let Some(tap) = self.tap.now.load_full() else {
                std::thread::sleep(TICK);
                if looked.elapsed() >= AGAIN {
                    looked = Instant::now();
                    self.find_again(inlet);
                }
                continue;
            };
            let came = self.pump(&tap, &mut buf, inlet);
            inlet.flush();
            if !came || looked.elapsed() >= TICK {
                looked = Instant::now();
                self.look_after(inlet);
            }
        }
    }
}

impl TapDriver {
    /// Takes in what is there, waiting for it; false where nothing came.
    fn pump(&self, tap: &TapWire, buf: &mut [u8], inlet: &mut dyn Inlet) -> bool {
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        let fd = tap.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&tick)), Ok(n) if n > 0) {
            return false;
        }
        for n in 0..BURST {
            match tap.recv(buf) {
                Ok(Some((length, offload))) => {
                    self.tap.link.rx.fetch_add(1, Relaxed);
                    inlet.receive(&mut buf[..length], offload);
                }
                Ok(None) => return n > 0,
                Err(WireError::Truncated(_)) => {}
                Err(_) => {
                    // Gone, or down: the next look tells.
                    std::thread::sleep(Duration::from_millis(10));
                    return false;
                }
            }
        }
        true
    }

    /// Whether the interface is still there and up.
    fn look_after(&self, inlet: &mut dyn Inlet) {
        let link = &self.tap.link;
        let changed = match interface::is_up(&self.tap.name) {
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
        let name = &self.tap.name;
        if interface::is_up(name).is_none() {
            return;
        }
        match TapWire::open(name) {
            Ok(tap) => {
                self.tap.now.store(Some(Arc::new(tap)));
                if self.tap.link.set_up() {
                    inlet.link_changed();
                }
            }
            Err(e) => tracing::debug!("{e}"),
        }
    }
}
