//! Completion queues.

use std::sync::Arc;

use sfnic_firmware_cmds::entries::{CqDoorbell, CqRecord, Cqe64};
use sfnic_firmware_cmds::layout::{Layout, View, ViewMut};

use crate::memory::GuestMemory;
use crate::window::Window;

/// UAR offset of the doorbell.
pub const DOORBELL: u64 = 0x20;
/// Opcode of an entry that the device has not written yet.
pub const INVALID: u8 = 0xf;

/// A completion as the driver reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cqe(pub [u8; Cqe64::SIZE]);

impl Cqe {
    /// Its fields.
    pub fn view(&self) -> View<'_, Cqe64> {
        View::new(&self.0)
    }
    /// A field.
    pub fn get(&self, f: sfnic_firmware_cmds::layout::Field<Cqe64>) -> u32 {
        self.view().get(f)
    }
    /// Opcode (`entries::cqe_opcode`).
    pub fn opcode(&self) -> u32 {
        self.get(Cqe64::opcode)
    }
    /// Vendor syndrome and syndrome of an error.
    pub fn error(&self) -> (u8, u8) {
        match self.view().bytes(Cqe64::error_syndromes) {
            [vendor, syndrome] => (*vendor, *syndrome),
            _ => (0, 0),
        }
    }
}

/// A completion queue of 64-byte entries.
pub struct Cq {
    /// Number.
    pub number: u32,
    pub(crate) window: Window,
    pub(crate) mem: Arc<GuestMemory>,
    pub(crate) ring: u64,
    pub(crate) log_size: u32,
    pub(crate) record: u64,
    pub(crate) uar: u32,
    pub(crate) consumer: u32,
    pub(crate) arm_sn: u32,
}

impl Cq {
    /// The next completion. The record is not updated.
    pub fn poll(&mut self) -> Option<Cqe> {
        let mask = (1u64 << self.log_size) - 1;
        let at = self.ring + (u64::from(self.consumer) & mask) * Cqe64::SIZE as u64;
        // The owner first, as the driver does.
        let op_own = self.mem.get8(at + Cqe64::SIZE as u64 - 1);
        let parity = (self.consumer >> self.log_size) as u8;
        if (op_own ^ parity) & 1 != 0 || op_own >> 4 == INVALID {
            return None;
        }
        let mut raw = [0; Cqe64::SIZE];
        self.mem.read(at, &mut raw);
        self.consumer = self.consumer.wrapping_add(1);
        Some(Cqe(raw))
    }

    /// Tells the device how far the queue was read.
    pub fn update(&self) {
        self.mem.put32(self.record, CqRecord::consumer_counter.max() & self.consumer);
    }

    /// All completions that are there, read and acknowledged.
    pub fn drain(&mut self) -> Vec<Cqe> {
        let all: Vec<_> = std::iter::from_fn(|| self.poll()).collect();
        self.update();
        all
    }

    /// Asks for an event with the next completion.
    pub fn arm(&mut self) {
        let ci = CqDoorbell::ci.max() & self.consumer;
        let mut raw = [0; CqDoorbell::SIZE];
        ViewMut::<CqDoorbell>::new(&mut raw)
            .set(CqDoorbell::cmd_sn, self.arm_sn & CqDoorbell::cmd_sn.max())
            .set(CqDoorbell::ci, ci)
            .set(CqDoorbell::cqn, self.number);
        self.mem.put(self.record + 4, &raw[..4]);
        self.window.ring(self.uar, DOORBELL, &raw);
    }

    /// An event of this queue was seen: the next arming is a new one.
    pub fn event_seen(&mut self) {
        self.arm_sn = self.arm_sn.wrapping_add(1);
    }
}
