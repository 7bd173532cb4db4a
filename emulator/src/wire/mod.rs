//! Where frames leave the program.
//!
//! A wire has two ends. What leaves a port goes to its [`Outlet`], on whatever thread the
//! frame is on; what comes in is handed to an [`Inlet`] by the wire's [`Driver`], which has
//! a thread of its own and also watches over the far end: a peer that is not there, or
//! vanishes, is a link that is down. [`port`] joins both to a port of the device.

mod coalesce;
pub mod datagram;
pub mod interface;
pub mod link;
pub(crate) mod movers;
pub mod offload;
pub mod pcap;
pub mod port;
pub mod slice;
pub mod spec;
mod steer;
pub mod stream;
pub mod switch;
pub mod tap;
mod tap_driver;
#[cfg(test)]
mod tap_tests;
#[cfg(test)]
mod tests;
pub mod vhost;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use sfnic_device_model::packet::Frame;
use smallvec::SmallVec;
use vm_memory::VolatileSlice;

pub use link::{Link, LinkCounters};
use offload::Offload;
pub use port::{PortInlet, WirePort};
pub use tap::{TapWire, WireError};
pub use tap_driver::{Interface, MAX_QUEUES, open_tap};
pub use vhost::open_vhost;

/// Longest frame that a wire hands in or gets, in bytes: 64 KiB of segments and headers.
pub const LONGEST: usize = 128 * 1024;

/// Takes the frames that go out by a wire. Any thread may call it.
pub trait Outlet: Debug + Send + Sync {
    /// Takes a frame, with what is left to be done to it; false where it is lost.
    fn send(&self, offload: Offload, frame: &[u8]) -> bool;

    /// Takes a frame to which nothing is left to be done, from where it lies; false where it
    /// is lost. None where the outlet wants bytes.
    fn send_frame(&self, _frame: &Frame<'_>) -> Option<bool> {
        None
    }

    /// Whether consecutive TCP segments may be given as one large frame.
    fn joins(&self, _ipv6: bool) -> bool {
        false
    }

    /// The calling thread has no more frames for now.
    fn flush(&self) {}
}

/// The pieces of a frame.
pub type Pieces<'m> = SmallVec<[VolatileSlice<'m, ()>; 8]>;

/// Frames that lie in memory of their sender.
pub trait Sender<'m> {
    /// Puts the pieces of the next frame, [`LONGEST`] bytes at most, behind those that are
    /// there: what is left to be done to it. None where there are no more in this burst.
    fn next(&mut self, pieces: &mut Pieces<'m>) -> Option<Offload>;

    /// None of the frames so far is needed any more.
    fn done(&mut self);
}

/// Takes the frames that come in by a wire.
pub trait Inlet: Send {
    /// Takes a frame, with what is left to be done to it.
    fn receive(&mut self, frame: &mut [u8], offload: Offload);

    /// Takes frames that lie in memory of their sender, without a copy of their payload where
    /// it can.
    fn receive_burst<'m>(&mut self, sender: &mut dyn Sender<'m>) {
        let (mut pieces, mut buf) = (Pieces::new(), Vec::new());
        while let Some(offload) = sender.next(&mut pieces) {
            buf.resize(pieces.iter().map(|p| p.len()).sum(), 0);
            let mut at = 0;
            for piece in pieces.drain(..) {
                at += piece.copy_to(&mut buf[at..]);
            }
            sender.done();
            self.receive(&mut buf, offload);
        }
    }

    /// How long nothing may be taken in, because more was sent than the rate of whoever sends
    /// allows.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// The frames so far were a burst.
    fn flush(&mut self) {}

    /// The link went up or down; its [`Link`] says so already.
    fn link_changed(&mut self);

    /// Whether this end wants the link up: the port's administrative state.
    fn wanted(&self) -> bool {
        true
    }
}

/// The far side of a wire.
pub trait Driver: Send {
    /// Works until `done`; looks at it at least every [`TICK`].
    fn run(self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool);

    /// Parts of it that threads of their own run, beside it, each with an inlet of its own:
    /// further queues. Only this one says that the link changed.
    fn further(&mut self) -> Vec<Box<dyn Driver>> {
        vec![]
    }
}

/// How long a driver may wait before it looks whether it is to end.
pub const TICK: Duration = Duration::from_millis(100);

/// A wire that has been opened.
pub struct Wire {
    /// Where its frames go.
    pub outlet: Arc<dyn Outlet>,
    /// Its other side.
    pub driver: Box<dyn Driver>,
    /// Its state.
    pub link: Arc<Link>,
}
