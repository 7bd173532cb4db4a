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
pub mod offload;
pub mod pcap;
pub mod port;
pub mod spec;
pub mod stream;
pub mod switch;
pub mod tap;
mod tap_driver;
#[cfg(test)]
mod tests;
pub mod vhost;

use std::fmt::Debug;
use std::sync::Arc;

pub use link::{Link, LinkCounters};
use offload::Offload;
pub use port::{PortInlet, WirePort};
pub use tap::{TapWire, WireError};
pub use tap_driver::open_tap;
pub use vhost::open_vhost;

/// Longest frame that a wire hands in or gets, in bytes: 64 KiB of segments and headers.
pub const LONGEST: usize = 128 * 1024;

/// Takes the frames that go out by a wire. Any thread may call it.
pub trait Outlet: Debug + Send + Sync {
    /// Takes a frame, with what is left to be done to it; false where it is lost.
    fn send(&self, offload: Offload, frame: &[u8]) -> bool;

    /// Whether consecutive TCP segments may be given as one large frame.
    fn joins(&self, _ipv6: bool) -> bool {
        false
    }

    /// The calling thread has no more frames for now.
    fn flush(&self) {}
}

/// Takes the frames that come in by a wire.
pub trait Inlet: Send {
    /// Takes a frame, with what is left to be done to it.
    fn receive(&mut self, frame: &mut [u8], offload: Offload);

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
}

/// How long a driver may wait before it looks whether it is to end.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// A wire that has been opened.
pub struct Wire {
    /// Where its frames go.
    pub outlet: Arc<dyn Outlet>,
    /// Its other side.
    pub driver: Box<dyn Driver>,
    /// Its state.
    pub link: Arc<Link>,
}
