//! Compressed completions of receive queues, in the basic layout.
//!
//! Completions that follow each other and differ in little are a session: one title, and
//! eight bytes for each (`mlx5e_decompress_cqes_start`). It takes as many entries of the ring
//! as it has completions. The first one is the title: the first completion, marked as
//! compressed, with their number in place of its length. Arrays of eight small completions
//! are in the second entry and in every eighth one from the title on; what is between is not
//! written. The title is written last, and makes all of it valid.
//!
//! A session ends with the batch at the latest, so nothing waits for a clock.

use std::sync::atomic::Ordering;

use sfnic_firmware_cmds::entries::{Cqe64, MiniCqe, cqe_format, cqe_opcode};
use sfnic_firmware_cmds::{Layout, View, ViewMut};

use super::{Cq, CqBatch, CqFault, Inner, stride};
use crate::dma::Near;

/// Small completions of an entry (`MLX5_MINI_CQE_ARRAY_SIZE`).
const ARRAY: usize = Cqe64::SIZE / MiniCqe::SIZE;
/// Most completions of a session (`cqe_compression_max_num` tells drivers).
const MOST: u32 = 64;

/// What a small completion tells beside the length (`mini_cqe_res_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MiniFormat {
    /// The receive hash.
    Hash = 0,
    /// The sum of the frame's bytes (`MLX5_CQE_FORMAT_CSUM`).
    Checksum = 1,
    /// That, and the first stride (`MLX5_CQE_FORMAT_CSUM_STRIDX`).
    ChecksumStride = 3,
}

impl MiniFormat {
    /// Of the field; None for a reserved value.
    pub fn from_raw(raw: u32) -> Option<Self> {
        [Self::Hash, Self::Checksum, Self::ChecksumStride].into_iter().find(|f| *f as u32 == raw)
    }

    /// The small completion in place of an entry.
    fn shrink(self, entry: &[u8; Cqe64::SIZE]) -> [u8; MiniCqe::SIZE] {
        let cqe = View::<Cqe64>::new(entry);
        let mut small = [0; MiniCqe::SIZE];
        let mut mini = ViewMut::<MiniCqe>::new(&mut small);
        mini.set(MiniCqe::byte_cnt, cqe.get(Cqe64::byte_cnt));
        match self {
            Self::Hash => mini.set(MiniCqe::rx_hash_result, cqe.get(Cqe64::rss_hash_result)),
            Self::Checksum => mini.set(MiniCqe::checksum, cqe.get(Cqe64::check_sum)),
            Self::ChecksumStride => {
                mini.set(MiniCqe::checksum, cqe.get(Cqe64::check_sum)).set(MiniCqe::stridx, cqe.get(Cqe64::wqe_counter))
            }
        };
        small
    }

    /// What all completions of a session have in common: all but what a small one tells, the
    /// number, and what gets lost. The hash does with sums, the sum does with hashes.
    fn shared(self, entry: &[u8; Cqe64::SIZE]) -> [u8; Cqe64::SIZE] {
        let mut all = *entry;
        let mut cqe = ViewMut::<Cqe64>::new(&mut all);
        cqe.set(Cqe64::byte_cnt, 0).set(Cqe64::wqe_counter, 0).set(Cqe64::check_sum, 0);
        cqe.set(Cqe64::rss_hash_result, 0);
        if self != Self::Hash {
            cqe.set(Cqe64::rss_hash_type, 0);
        }
        all
    }
}

/// A session that is not written yet.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    /// The first completion.
    title: [u8; Cqe64::SIZE],
    /// What each has to be like.
    shared: [u8; Cqe64::SIZE],
    /// The array of the latest completion.
    minis: [u8; Cqe64::SIZE],
    /// Completions; zero where there is no session.
    count: u32,
    /// The number that the next one has.
    next: u16,
}

impl Default for Pack {
    fn default() -> Self {
        let none = [0; Cqe64::SIZE];
        Self { title: none, shared: none, minis: none, count: 0, next: 0 }
    }
}

impl Pack {
    fn put(&mut self, format: MiniFormat, entry: &[u8; Cqe64::SIZE]) {
        let cqe = View::<Cqe64>::new(entry);
        let at = self.count as usize % ARRAY * MiniCqe::SIZE;
        if let Some(place) = self.minis.get_mut(at..at + MiniCqe::SIZE) {
            place.copy_from_slice(&format.shrink(entry));
        }
        // A frame takes a WQE, or so many strides of one.
        let taken = cqe.get(Cqe64::consumed_strides).max(1);
        self.next = cqe.get(Cqe64::wqe_counter).wrapping_add(taken) as u16;
        self.count += 1;
    }
}

/// The entry behind the title that has the array of completion number `n`.
fn array_of(n: u32) -> u32 {
    (n / ARRAY as u32 * ARRAY as u32).max(1)
}

/// Whether a completion may be one of several: a frame's, which nobody waits for by itself.
fn may_be_small(entry: &[u8; Cqe64::SIZE]) -> bool {
    let cqe = View::<Cqe64>::new(entry);
    cqe.get(Cqe64::opcode) == cqe_opcode::RESP_SEND && cqe.get(Cqe64::lro_num_seg) == 0 && !cqe.is(Cqe64::filler)
}

impl CqBatch<'_, '_> {
    /// Takes a completion into the session, or writes it behind it.
    #[cold]
    pub(super) fn pack(
        &mut self,
        format: MiniFormat,
        entry: [u8; Cqe64::SIZE],
        solicited: bool,
    ) -> Result<(), CqFault> {
        let done = self.take(format, entry, solicited);
        self.noted(done)
    }

    /// Nothing follows: what was taken is written.
    #[cold]
    pub(super) fn end_batch(&mut self) {
        let done = self.end_pack();
        // The driver hears of it by an event.
        let _ = self.noted(done);
    }

    /// The queue is in error where something could not be written.
    fn noted(&mut self, done: Result<(), CqFault>) -> Result<(), CqFault> {
        if let Err(fault) = done
            && !self.cq.error.swap(true, Ordering::Relaxed)
        {
            self.fault = Some(fault);
        }
        done
    }

    fn take(&mut self, format: MiniFormat, mut entry: [u8; Cqe64::SIZE], solicited: bool) -> Result<(), CqFault> {
        let small = !solicited && may_be_small(&entry);
        if small && self.goes_on(format, &entry)? {
            return Ok(());
        }
        self.end_pack()?;
        if !small {
            return self.publish(&mut entry, 1, solicited);
        }
        // What cannot be written is told now.
        let q = self.inner.as_mut().ok_or(CqFault::InError)?;
        self.cq.check(q, self.mem, 0)?;
        let pack = q.pack.get_or_insert_default();
        (pack.title, pack.shared) = (entry, format.shared(&entry));
        pack.put(format, &entry);
        Ok(())
    }

    /// Takes a completion into the session where it is like those before it and has room.
    fn goes_on(&mut self, format: MiniFormat, entry: &[u8; Cqe64::SIZE]) -> Result<bool, CqFault> {
        let q = self.inner.as_mut().ok_or(CqFault::InError)?;
        let Some(mut pack) = q.pack.take() else { return Ok(false) };
        let number = View::<Cqe64>::new(entry).get(Cqe64::wqe_counter);
        let taken = pack.count > 0
            && pack.count < MOST.min(1 << self.cq.config.log_size)
            && (format == MiniFormat::ChecksumStride || number == u32::from(pack.next))
            && pack.shared == format.shared(entry)
            && self.cq.check(q, self.mem, pack.count).is_ok();
        let mut written = Ok(());
        if taken {
            if pack.count as usize % ARRAY == 0 {
                written = self.cq.write_minis(q, self.mem, &pack);
            }
            pack.put(format, entry);
        }
        q.pack = Some(pack);
        written.map(|()| taken)
    }

    /// Writes the session, if there is one.
    pub(super) fn end_pack(&mut self) -> Result<(), CqFault> {
        let q = self.inner.as_mut().ok_or(CqFault::InError)?;
        let Some(mut pack) = q.pack.take_if(|p| p.count > 0) else { return Ok(()) };
        let written = self.write_pack(&mut pack);
        pack.count = 0;
        if let Some(q) = &mut self.inner {
            q.pack = Some(pack);
        }
        written
    }

    fn write_pack(&mut self, pack: &mut Pack) -> Result<(), CqFault> {
        if pack.count > 1 {
            let q = self.inner.as_mut().ok_or(CqFault::InError)?;
            self.cq.write_minis(q, self.mem, pack)?;
            ViewMut::<Cqe64>::new(&mut pack.title)
                .set(Cqe64::byte_cnt, pack.count)
                .set(Cqe64::format, cqe_format::COMPRESSED);
        }
        self.publish(&mut pack.title, pack.count, false)
    }

    /// Writes an entry that stands for so many.
    fn publish(&mut self, entry: &mut [u8; Cqe64::SIZE], count: u32, solicited: bool) -> Result<(), CqFault> {
        let q = self.inner.as_mut().ok_or(CqFault::InError)?;
        self.cq.check(q, self.mem, 0)?;
        let number = q.producer;
        ViewMut::<Cqe64>::new(entry).set(Cqe64::owner, (number >> self.cq.config.log_size) & 1);
        let at = u64::from(number) * stride(&self.cq.config);
        self.cq.config.ring.publish(self.mem, at, entry).map_err(|_| CqFault::Dma)?;
        q.producer = number.wrapping_add(count);
        if solicited {
            q.last_solicited = Some(number);
        }
        self.wrote = true;
        Ok(())
    }
}

impl Cq {
    /// Writes the array of the latest completion of a session.
    fn write_minis(&self, q: &Inner, mem: &Near<'_>, pack: &Pack) -> Result<(), CqFault> {
        let slot = q.producer.wrapping_add(array_of(pack.count - 1));
        let at = u64::from(slot) * stride(&self.config);
        self.config.ring.publish(mem, at, &pack.minis).map_err(|_| CqFault::Dma)
    }
}
