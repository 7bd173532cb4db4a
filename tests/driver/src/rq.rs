//! Receive queues.

use std::sync::Arc;

use sfnic_firmware_cmds::entries::{Cqe64, TERMINATE_SCATTER_LKEY, WqRecord, WqeData};
use sfnic_firmware_cmds::layout::{Layout, ViewMut};

use crate::cq::Cqe;
use crate::memory::GuestMemory;

/// A frame as the driver gets it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Its completion.
    pub cqe: Cqe,
}

/// A cyclic receive queue with one buffer a WQE.
pub struct Rq {
    /// Number.
    pub number: u32,
    pub(crate) mem: Arc<GuestMemory>,
    pub(crate) ring: u64,
    pub(crate) log_size: u32,
    pub(crate) log_stride: u32,
    pub(crate) record: u64,
    pub(crate) lkey: u32,
    pub(crate) buffers: u64,
    /// Bytes of a buffer.
    pub buffer: u32,
    /// WQEs posted.
    pub producer: u16,
}

impl Rq {
    /// Address of the buffer of WQE `index`.
    pub fn buffer_at(&self, index: u16) -> u64 {
        let slot = u64::from(index) & ((1 << self.log_size) - 1);
        self.buffers + slot * u64::from(self.buffer)
    }

    /// Address of WQE `index`.
    pub fn wqe_at(&self, index: u16) -> u64 {
        self.ring + ((u64::from(index) & ((1 << self.log_size) - 1)) << self.log_stride)
    }

    /// Address of the doorbell record.
    pub fn record(&self) -> u64 {
        self.record
    }

    /// Writes the WQE of every buffer; they stay as they are from then on.
    pub(crate) fn prepare(&self) {
        for index in 0..1u32 << self.log_size {
            let at = self.wqe_at(index as u16);
            let first = segment(self.lkey, self.buffer_at(index as u16), self.buffer);
            self.mem.put(at, &first);
            if 1u64 << self.log_stride > WqeData::SIZE as u64 {
                self.mem.put(at + WqeData::SIZE as u64, &segment(TERMINATE_SCATTER_LKEY, 0, 0));
            }
        }
    }

    /// Gives the device `n` more buffers.
    pub fn post(&mut self, n: u16) {
        self.producer = self.producer.wrapping_add(n);
        self.publish(self.producer);
    }

    /// Gives the device every buffer.
    pub fn post_all(&mut self) {
        self.post((1u32 << self.log_size) as u16);
    }

    /// Writes the receive counter.
    pub fn publish(&self, counter: u16) {
        self.mem.put32(self.record + 4 * WqRecord::receive_counter.dword() as u64, counter.into());
    }

    /// The frame of a completion. Its buffer may be posted again.
    pub fn take(&self, cqe: Cqe) -> Received {
        let len = cqe.get(Cqe64::byte_cnt).min(self.buffer) as usize;
        Received { bytes: self.mem.get(self.buffer_at(cqe.get(Cqe64::wqe_counter) as u16), len), cqe }
    }
}

/// A data segment of a receive WQE.
pub fn segment(lkey: u32, addr: u64, len: u32) -> [u8; WqeData::SIZE] {
    let mut b = [0; WqeData::SIZE];
    ViewMut::<WqeData>::new(&mut b)
        .set(WqeData::byte_count, len & WqeData::byte_count.max())
        .set(WqeData::lkey, lkey)
        .set64(WqeData::addr, addr);
    b
}
