//! Event queues.

use std::sync::Arc;

use sfnic_firmware_cmds::entries::{EqDoorbell, Eqe};
use sfnic_firmware_cmds::layout::{Layout, View, ViewMut};

use crate::memory::GuestMemory;
use crate::window::Window;

/// UAR offset of the doorbell that arms.
pub const ARM: u64 = 0x40;
/// UAR offset of the doorbell that only moves the consumer.
pub const UPDATE: u64 = 0x48;

/// An event as the driver reads it.
#[derive(Debug, Clone, Copy)]
pub struct EqEvent([u8; Eqe::SIZE]);

impl EqEvent {
    /// Its fields.
    pub fn view(&self) -> View<'_, Eqe> {
        View::new(&self.0)
    }
    /// Type (`entries::event`).
    pub fn kind(&self) -> u8 {
        self.view().get(Eqe::r#type) as u8
    }
}

/// An event queue.
pub struct Eq {
    /// Number.
    pub number: u32,
    pub(crate) window: Window,
    pub(crate) mem: Arc<GuestMemory>,
    pub(crate) ring: u64,
    pub(crate) log_size: u32,
    pub(crate) uar: u32,
    pub(crate) consumer: u32,
}

impl Eq {
    /// The next event.
    pub fn poll(&mut self) -> Option<EqEvent> {
        let mask = (1u64 << self.log_size) - 1;
        let at = self.ring + (u64::from(self.consumer) & mask) * Eqe::SIZE as u64;
        let mut raw = [0; Eqe::SIZE];
        self.mem.read(at, &mut raw);
        if View::<Eqe>::new(&raw).get(Eqe::owner) & 1 != (self.consumer >> self.log_size) & 1 {
            return None;
        }
        self.consumer = self.consumer.wrapping_add(1);
        Some(EqEvent(raw))
    }

    /// All events that are there, read and acknowledged.
    pub fn drain(&mut self) -> Vec<EqEvent> {
        let all: Vec<_> = std::iter::from_fn(|| self.poll()).collect();
        self.ring_doorbell(UPDATE);
        all
    }

    /// Tells the device how far it was read and asks for an interrupt.
    pub fn arm(&self) {
        self.ring_doorbell(ARM);
    }

    fn ring_doorbell(&self, offset: u64) {
        let mut raw = [0; EqDoorbell::SIZE];
        ViewMut::<EqDoorbell>::new(&mut raw)
            .set(EqDoorbell::eqn, self.number)
            .set(EqDoorbell::ci, EqDoorbell::ci.max() & self.consumer);
        self.window.ring(self.uar, offset, &raw);
    }
}
