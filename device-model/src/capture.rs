//! Shows frames to an onlooker where they enter and leave vports and ports.
//!
//! Off by default; the packet path then looks at one flag at each of these places.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use crate::packet::Frame;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the function behind the vport, or in by the physical port.
    In,
    /// From the function, or out by the physical port.
    Out,
}

/// Sees frames.
pub trait Onlooker: Send + Sync {
    /// A frame passes a vport of a card; [`UPLINK`](crate::fabric::vport::UPLINK) is the
    /// physical port. Called on the frame's thread, so it must not wait for anything that
    /// a command may hold.
    fn frame(&self, card: usize, vport: u16, way: Way, frame: &Frame<'_>);
}

/// Shows frames to whoever wants to see them.
#[derive(Default)]
pub struct Capture {
    on: AtomicBool,
    onlooker: ArcSwapOption<Box<dyn Onlooker>>,
}

impl Capture {
    /// Shows frames to `onlooker` from here on, or to nobody.
    pub fn show_to(&self, onlooker: Option<Box<dyn Onlooker>>) {
        self.on.store(onlooker.is_some(), Relaxed);
        self.onlooker.store(onlooker.map(Arc::new));
    }

    /// Whether anybody looks.
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// A frame passes.
    #[inline]
    pub fn see(&self, card: usize, vport: u16, way: Way, frame: &Frame<'_>) {
        if self.is_on() {
            self.show(card, vport, way, frame);
        }
    }

    #[cold]
    fn show(&self, card: usize, vport: u16, way: Way, frame: &Frame<'_>) {
        if let Some(onlooker) = &*self.onlooker.load() {
            onlooker.frame(card, vport, way, frame);
        }
    }
}
