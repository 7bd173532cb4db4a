//! A TAP interface as the far end of a physical port.

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sfnic_device_model::Nic;
use sfnic_device_model::packet::Frame;
use sfnic_device_model::world::Wire;

use super::TapWire;

/// Longest frame that crosses a TAP wire, in bytes.
const LONGEST: usize = 16 * 1024;
/// Frames taken in before the end of work is looked at again.
const BURST: usize = 64;

thread_local! {
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sends what leaves a port to a TAP interface.
pub struct TapPort {
    tap: Arc<TapWire>,
}

impl TapPort {
    /// A port whose far end is `tap`.
    pub const fn new(tap: Arc<TapWire>) -> Self {
        Self { tap }
    }
}

impl Wire for TapPort {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        FRAME.with_borrow_mut(|buf| {
            buf.resize(frame.len(), 0);
            let n = frame.write_into(buf);
            n == frame.len() && self.tap.send(&[IoSlice::new(buf)]).is_ok()
        })
    }
}

/// Takes in what arrives at a TAP interface until `done`.
pub fn pump(tap: &TapWire, nic: &Nic, card: usize, worker: usize, done: impl Fn() -> bool) {
    let mut buf = vec![0; LONGEST];
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !done() {
        let fd = tap.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&tick)), Ok(n) if n > 0) {
            continue;
        }
        for _ in 0..BURST {
            match tap.recv(&mut buf) {
                Ok(Some(n)) => nic.receive_from_wire(worker, card, &mut buf[..n]),
                Ok(None) => break,
                Err(e) => {
                    tracing::error!("wire of port {card}: {e}");
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    break;
                }
            }
        }
    }
}
