//! A TAP interface as the far end of a physical port.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sfnic_device_model::Nic;
use sfnic_device_model::packet::{Frame, checksum};
use sfnic_device_model::world::Wire;

use super::TapWire;
use super::coalesce::{Batch, Target};
use super::offload::Offload;

/// Longest frame that a TAP wire hands us, in bytes: 64 KiB of segments to be cut.
const LONGEST: usize = 128 * 1024;
/// Frames taken in before the end of work is looked at again.
const BURST: usize = 64;

thread_local! {
    /// What this thread has not written yet.
    static BATCH: RefCell<Batch> = const { RefCell::new(Batch::new()) };
}

/// Sends what leaves a port to a TAP interface.
#[derive(Debug)]
pub struct TapPort {
    target: Arc<Target>,
}

impl TapPort {
    /// A port whose far end is `tap`.
    pub fn new(tap: Arc<TapWire>) -> Self {
        Self { target: Arc::new(Target { tap, lost: AtomicU64::new(0) }) }
    }
}

impl Wire for TapPort {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        BATCH.with_borrow_mut(|batch| batch.push(&self.target, frame));
        true
    }

    fn flush(&self) -> u64 {
        BATCH.with_borrow_mut(Batch::flush);
        self.target.lost.swap(0, Relaxed)
    }
}

/// Takes in what arrives at a TAP interface until `done`.
pub fn pump(tap: &TapWire, nic: &Nic, card: usize, worker: usize, done: impl Fn() -> bool) {
    let mut buf = vec![0; LONGEST];
    let mut patience = Patience::default();
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !done() {
        let fd = tap.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&tick)), Ok(n) if n > 0) {
            continue;
        }
        for _ in 0..BURST {
            match tap.recv(&mut buf) {
                Ok(Some((n, offload))) => {
                    let frame = &mut buf[..n];
                    let segment = prepare(frame, offload);
                    patience.grant(n.div_ceil(segment.unwrap_or(n).max(1)));
                    nic.receive_with_pause(worker, card, frame, segment, &mut || patience.wait());
                }
                Ok(None) => break,
                Err(e) => {
                    tracing::error!("wire of port {card}: {e}");
                    std::thread::sleep(Duration::from_millis(100));
                    break;
                }
            }
        }
    }
}

/// How long frames from the wire may wait for receive buffers. While they do, the frames
/// behind them stay in the kernel's queue, and the host's programs wait.
///
/// Each frame brings some time, so that a queue whose driver has stopped delays the
/// others by a bounded part of theirs.
#[derive(Debug, Default)]
struct Patience(Duration);

impl Patience {
    const FOR_A_FRAME: Duration = Duration::from_micros(100);
    const MOST: Duration = Duration::from_millis(5);
    const STEP: Duration = Duration::from_micros(20);

    fn grant(&mut self, frames: usize) {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.0 = self.0.saturating_add(Self::FOR_A_FRAME.saturating_mul(frames)).min(Self::MOST);
    }

    /// Waits a little; false where there is no time left.
    fn wait(&mut self) -> bool {
        if self.0.is_zero() {
            return false;
        }
        let started = Instant::now();
        std::thread::sleep(Self::STEP);
        self.0 = self.0.saturating_sub(started.elapsed());
        true
    }
}

/// Does what the kernel left to be done; of a large frame it returns the payload of each
/// segment, in bytes.
fn prepare(frame: &mut [u8], offload: Offload) -> Option<usize> {
    if let Some(large) = offload.large {
        return Some(large.segment.into());
    }
    if let Some((start, offset)) = offload.checksum {
        complete_checksum(frame, start.into(), offset.into());
    }
    None
}

fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) {
    let Some(data) = frame.get_mut(start..) else { return };
    let sum = match !checksum::sum(data) {
        0 => 0xffff, // to UDP 0 means none
        sum => sum,
    };
    if let Some(place) = data.get_mut(offset..offset + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}
