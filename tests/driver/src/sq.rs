//! Send queues.

use std::collections::VecDeque;
use std::sync::Arc;

use sfnic_firmware_cmds::entries::{Cqe64, SqDoorbell, WqRecord};
use sfnic_firmware_cmds::layout::{Layout, ViewMut};

use crate::cq::Cqe;
use crate::memory::GuestMemory;
use crate::window::Window;
use crate::wqe::Wqe;

/// WQEs are counted in blocks of this many bytes.
pub const BLOCK: u64 = 64;
/// UAR offset of the first BlueField register.
pub const DOORBELL: u64 = 0x800;

/// A send queue.
pub struct Sq {
    /// Number.
    pub number: u32,
    pub(crate) window: Window,
    pub(crate) mem: Arc<GuestMemory>,
    pub(crate) ring: u64,
    pub(crate) log_size: u32,
    pub(crate) record: u64,
    pub(crate) uar: u32,
    /// Blocks written.
    pub producer: u16,
    /// Blocks that completions gave back.
    pub consumer: u16,
    pub(crate) posted: VecDeque<(u16, u16)>,
}

impl Sq {
    /// Blocks that can be written.
    pub fn room(&self) -> u16 {
        (1 << self.log_size) - self.producer.wrapping_sub(self.consumer)
    }

    /// Address of a block of the ring.
    pub fn block_at(&self, index: u16) -> u64 {
        self.ring + (u64::from(index) & ((1 << self.log_size) - 1)) * BLOCK
    }

    /// Address of the doorbell record.
    pub fn record(&self) -> u64 {
        self.record
    }

    /// Writes a WQE and rings no doorbell. Returns its index; panics where
    /// there is no room.
    pub fn post(&mut self, wqe: &Wqe) -> u16 {
        self.post_raw(&wqe.bytes(self.producer, self.number))
    }

    /// Writes bytes as a WQE.
    pub fn post_raw(&mut self, bytes: &[u8]) -> u16 {
        let blocks = bytes.len().div_ceil(BLOCK as usize).max(1) as u16;
        assert!(blocks <= self.room(), "the send queue is full");
        let index = self.producer;
        for (i, chunk) in bytes.chunks(BLOCK as usize).enumerate() {
            self.mem.put(self.block_at(index.wrapping_add(i as u16)), chunk);
        }
        self.posted.push_back((index, blocks));
        self.producer = self.producer.wrapping_add(blocks);
        index
    }

    /// Posts what `blocks` blocks of the ring still hold from an earlier round;
    /// nothing is remembered of it. Rings no doorbell.
    pub fn repeat(&mut self, blocks: u16) {
        self.producer = self.producer.wrapping_add(blocks);
        self.consumer = self.producer;
        self.posted.clear();
    }

    /// Gives the device what was written: the record, then the doorbell.
    pub fn ring(&self) {
        self.publish(self.producer);
        self.doorbell();
    }

    /// Writes the send counter.
    pub fn publish(&self, counter: u16) {
        self.mem.put32(self.record + 4 * WqRecord::send_counter.dword() as u64, counter.into());
    }

    /// Rings the doorbell of the queue's own page.
    pub fn doorbell(&self) {
        self.window.ring(self.uar, DOORBELL, &doorbell(self.number, self.producer));
    }

    /// Gives back what a completion says is done: every WQE up to its own.
    /// Returns how many; none where it names no WQE that is posted.
    pub fn complete(&mut self, cqe: &Cqe) -> usize {
        let index = cqe.get(Cqe64::wqe_counter) as u16;
        let Some(n) = self.posted.iter().position(|(i, _)| *i == index) else { return 0 };
        for (_, blocks) in self.posted.drain(..=n) {
            self.consumer = self.consumer.wrapping_add(blocks);
        }
        n + 1
    }

    /// Starts again from zero, as after a reset of the queue.
    pub fn restart(&mut self) {
        (self.producer, self.consumer) = (0, 0);
        self.posted.clear();
        self.publish(0);
    }
}

/// What a driver writes to ring queue `sqn`.
pub fn doorbell(sqn: u32, index: u16) -> [u8; 8] {
    let mut raw = [0; SqDoorbell::SIZE];
    ViewMut::<SqDoorbell>::new(&mut raw)
        .set(SqDoorbell::wqe_index, index.into())
        .set(SqDoorbell::sqn, sqn & SqDoorbell::sqn.max());
    raw
}
