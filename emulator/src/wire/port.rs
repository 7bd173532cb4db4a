//! A wire at a physical port of the device.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sfnic_device_model::Nic;
use sfnic_device_model::fabric::arrive::{Door, Left};
use sfnic_device_model::packet::frame::HDR_CAP;
use sfnic_device_model::packet::{Frame, checksum};
use sfnic_device_model::world;

use super::coalesce::{Batch, Target};
use super::offload::Offload;
use super::{Inlet, Link, Outlet, Pieces, Sender};

thread_local! {
    /// What this thread has not sent yet.
    static BATCH: RefCell<Batch> = const { RefCell::new(Batch::new()) };
}

/// Sends what leaves a port to a wire.
#[derive(Debug)]
pub struct WirePort {
    target: Arc<Target>,
    link: Arc<Link>,
}

impl WirePort {
    /// The end at the port.
    pub fn new(outlet: Arc<dyn Outlet>, link: Arc<Link>) -> Self {
        Self { target: Arc::new(Target { outlet, lost: AtomicU64::new(0) }), link }
    }
}

impl world::Wire for WirePort {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        if !self.link.is_up() {
            return false;
        }
        BATCH.with_borrow_mut(|batch| batch.push(&self.target, frame));
        true
    }

    fn takes_message(&self, message: &Frame<'_>) -> bool {
        self.target.takes_message(message)
    }

    fn transmit_message(&self, message: &Frame<'_>, mss: usize) -> bool {
        if !self.link.is_up() {
            return false;
        }
        BATCH.with_borrow_mut(|batch| batch.push_message(&self.target, message, mss));
        true
    }

    fn carrier(&self) -> bool {
        self.link.is_up()
    }

    fn flush(&self) -> u64 {
        BATCH.with_borrow_mut(Batch::flush);
        self.target.outlet.flush();
        self.target.lost.swap(0, Relaxed)
    }
}

/// Hands what comes in by a wire to a port.
pub struct PortInlet {
    nic: Arc<Nic>,
    card: usize,
    worker: usize,
    patience: Patience,
}

impl PortInlet {
    /// The port of a card; `worker` is a number that no other thread has.
    pub fn new(nic: Arc<Nic>, card: usize, worker: usize) -> Self {
        Self { nic, card, worker, patience: Patience::default() }
    }
}

impl Inlet for PortInlet {
    fn receive(&mut self, frame: &mut [u8], offload: Offload) {
        let segment = prepare(frame, offload);
        let patience = &self.patience;
        patience.grant(frame.len(), segment);
        self.nic.receive_with_pause(self.worker, self.card, frame, segment, &mut || patience.wait());
    }

    fn receive_burst<'m>(&mut self, sender: &mut dyn Sender<'m>) {
        if let Some(card) = self.nic.cards.get(self.card) {
            let lost = take_burst(&self.nic, self.worker, Door::Port(card), &self.patience, sender);
            card.port.rx_discards.add(lost);
        }
    }

    fn link_changed(&mut self) {
        self.nic.update_links();
    }

    fn wanted(&self) -> bool {
        self.nic.cards.get(self.card).is_some_and(|c| c.port.admin_up.load(Relaxed))
    }
}

/// Frames that are taken before the memory of all of them is given back.
const TOGETHER: usize = 32;

/// Bytes of frames after which that is done earlier: what a second-level cache has of such
/// memory is there still when the next frames are read into it.
const HELD: usize = 48 << 10;

/// Takes in a burst of frames by a door; how many of them were lost there.
pub(super) fn take_burst<'m>(
    nic: &Nic,
    worker: usize,
    door: Door<'_>,
    patience: &Patience,
    sender: &mut dyn Sender<'m>,
) -> u64 {
    let mut wait = || patience.wait();
    let mut arrivals = nic.arrivals(worker, door, &mut wait);
    let mut pieces = Pieces::new();
    let (mut taken, mut held, mut lost) = (0, 0, 0);
    while let Some(offload) = sender.next(&mut pieces) {
        let segment = offload.large.map(|large| large.segment.into());
        let frame = arrivals.form(segment.is_some());
        let formed = frame.regather_bytes(&[], pieces.drain(..), HDR_CAP);
        held += frame.len();
        patience.grant(frame.len(), segment);
        let left = Left { checksum: offload.checksum.filter(|_| segment.is_none()), segment };
        lost += u64::from(!formed || !arrivals.take(left));
        taken += 1;
        if taken % TOGETHER == 0 || held >= HELD {
            arrivals.flush();
            sender.done();
            held = 0;
            if arrivals.has_done_enough() {
                break;
            }
        }
    }
    arrivals.flush();
    sender.done();
    lost
}

/// How long frames from the wire may wait for receive buffers. While they do, the frames
/// behind them stay in the kernel's queue, and the host's programs wait.
///
/// Each frame brings some time, so that a queue whose driver has stopped delays the
/// others by a bounded part of theirs.
#[derive(Debug, Default)]
pub(super) struct Patience(Cell<Duration>);

impl Patience {
    const FOR_A_FRAME: Duration = Duration::from_micros(100);
    /// A few time slices, for which the host may take a guest's CPU away: TCP's receive window,
    /// larger than what queues have of buffers, comes whole meanwhile.
    const MOST: Duration = Duration::from_millis(40);
    const STEP: Duration = Duration::from_micros(20);

    /// Of a frame, or of the segments that it stands for.
    pub(super) fn grant(&self, len: usize, segment: Option<usize>) {
        let frames = segment.map_or(1, |segment| len.div_ceil(segment.max(1)));
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.0.set(self.0.get().saturating_add(Self::FOR_A_FRAME.saturating_mul(frames)).min(Self::MOST));
    }

    /// Waits a little; false where there is no time left.
    pub(super) fn wait(&self) -> bool {
        if self.0.get().is_zero() {
            return false;
        }
        let started = Instant::now();
        std::thread::sleep(Self::STEP);
        self.0.set(self.0.get().saturating_sub(started.elapsed()));
        true
    }
}

/// Does what the sender left to be done; of a large frame it returns the payload of each
/// segment, in bytes.
pub(super) fn prepare(frame: &mut [u8], offload: Offload) -> Option<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_completed_inside_the_frame_only() {
        let mut frame = [0u8; 40];
        frame[20] = 0x12;
        let at = |start, offset| Offload { checksum: Some((start, offset)), large: None };
        assert_eq!(prepare(&mut frame, at(20, 4)), None);
        assert_eq!(frame[24..26], (!0x1200u16).to_be_bytes());
        let before = frame;
        for (start, offset) in [(41, 0), (40, 0), (20, 19), (0, u16::MAX), (u16::MAX, u16::MAX)] {
            prepare(&mut frame, at(start, offset));
            assert_eq!(frame, before, "{start} {offset}");
        }
    }
}
