//! Completion queues.

use std::collections::VecDeque;
use std::sync::Arc;

use sfnic_firmware_cmds::entries::{CqDoorbell, CqRecord, Cqe64, MiniCqe, cqe_format};
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
    /// Completions of a session that were not asked for yet.
    pub(crate) session: VecDeque<Cqe>,
    /// Sessions of several completions that were read.
    pub sessions: u64,
}

impl Cq {
    fn entry_at(&self, index: u32) -> u64 {
        let mask = (1u64 << self.log_size) - 1;
        self.ring + (u64::from(index) & mask) * Cqe64::SIZE as u64
    }

    /// The next completion. The record is not updated.
    pub fn poll(&mut self) -> Option<Cqe> {
        if let Some(cqe) = self.session.pop_front() {
            return Some(cqe);
        }
        let at = self.entry_at(self.consumer);
        // The owner first, as the driver does.
        let op_own = self.mem.get8(at + Cqe64::SIZE as u64 - 1);
        let parity = (self.consumer >> self.log_size) as u8;
        if (op_own ^ parity) & 1 != 0 || op_own >> 4 == INVALID {
            return None;
        }
        let mut raw = [0; Cqe64::SIZE];
        self.mem.read(at, &mut raw);
        if Cqe(raw).get(Cqe64::format) == cqe_format::COMPRESSED {
            self.unpack(raw);
            return self.session.pop_front();
        }
        self.consumer = self.consumer.wrapping_add(1);
        Some(Cqe(raw))
    }

    /// Makes completions with checksums of a session, for a queue whose frames take a WQE each,
    /// with as many WQEs as this one has entries. The hash is the first one's alone.
    fn unpack(&mut self, mut title: [u8; Cqe64::SIZE]) {
        const ARRAY: usize = Cqe64::SIZE / MiniCqe::SIZE;
        let (count, first) = (Cqe(title).get(Cqe64::byte_cnt), Cqe(title).get(Cqe64::wqe_counter));
        assert!((2..=1 << self.log_size).contains(&count), "a session of {count}");
        let mut array = [0; Cqe64::SIZE];
        for i in 0..count {
            let index = self.consumer.wrapping_add(i);
            if i as usize % ARRAY == 0 {
                self.mem.read(self.entry_at(self.consumer.wrapping_add(i.max(1))), &mut array);
            }
            let mini = View::<MiniCqe>::new(&array[i as usize % ARRAY * MiniCqe::SIZE..]);
            let mut cqe = ViewMut::<Cqe64>::new(&mut title);
            cqe.set(Cqe64::byte_cnt, mini.get(MiniCqe::byte_cnt)).set(Cqe64::check_sum, mini.get(MiniCqe::checksum));
            cqe.set(Cqe64::wqe_counter, first + i & (1 << self.log_size) - 1);
            if i > 0 {
                cqe.set(Cqe64::rss_hash_result, 0).set(Cqe64::rss_hash_type, 0);
            }
            self.session.push_back(Cqe(title));
            // The device wrote some of the entries only.
            let owner = (index >> self.log_size) as u8 & 1;
            self.mem.put(self.entry_at(index) + Cqe64::SIZE as u64 - 1, &[owner]);
        }
        self.consumer = self.consumer.wrapping_add(count);
        self.sessions += 1;
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
