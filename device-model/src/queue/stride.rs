//! Striding receive queues: a WQE is one buffer, cut into strides, and each frame
//! takes as many of them as it needs (`mlx5e_handle_rx_cqe_mpwrq`).
//!
//! A completion names the WQE, the frame's first stride and how many strides it
//! took; the driver has the buffer back when all are taken. A frame that does not
//! fit into what is left goes into the next WQE; a completion without a frame, a
//! filler, tells of the strides that are passed over.

use sfnic_firmware_cmds::entries::{Cqe64, cqe_opcode};
use sfnic_firmware_cmds::{Refusal, Syndrome};

use super::KeyCheck;
use super::cq::Debtor;
use super::rq::{Inner, Rq, RxDrop, RxFrame, RxInfo};
use super::scatter::{Scatter, scatter};
use super::session::{RxSession, Told};
use super::wqe::WqeFault;

/// Longest frame: a completion has 16 bits for its length.
pub(super) const MAX_BYTES: usize = 0xffff;

/// How a WQE's buffer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    log_size: u8,
    log_count: u8,
}

impl Strides {
    /// From the fields of a `wq` structure: log2 of the bytes of a stride less 6
    /// (`MLX5_MPWQE_LOG_STRIDE_SZ_BASE`, 13 at most), and log2 of their number
    /// less 9 (`MLX5_MPWQE_LOG_NUM_STRIDES_BASE`), 9 to 16, or with `extended`
    /// from 3 on (`ext_stride_num_range`): a number with a sign, of four bits.
    ///
    /// Refuses with QUEUE_STRIDE.
    pub fn new(log_size: u32, log_count: u32, extended: bool) -> Result<Self, Refusal> {
        const SIZE_BASE: u32 = 6;
        const COUNT_BASE: u32 = 9;
        const SIGN: u32 = 8;
        const MIN_EXTENDED: u32 = 3;
        // As two's complement: 15 is -1.
        let log_count = if log_count < SIGN { log_count + COUNT_BASE } else { (log_count + COUNT_BASE) % (2 * SIGN) };
        let least = if extended { MIN_EXTENDED } else { COUNT_BASE };
        if log_size > SIZE_MAX - SIZE_BASE || !(least..=COUNT_MAX).contains(&log_count) {
            return Err(Refusal::param(Syndrome::QUEUE_STRIDE));
        }
        Ok(Self { log_size: (log_size + SIZE_BASE) as u8, log_count: log_count as u8 })
    }

    /// The fields of a `wq` structure that [`Strides::new`] reads.
    pub(crate) fn fields(self) -> (u32, u32) {
        const SIZE_BASE: u32 = 6;
        const COUNT_BASE: u32 = 9;
        // Below the base the number has a sign, of four bits.
        (u32::from(self.log_size) - SIZE_BASE, (u32::from(self.log_count) + 16 - COUNT_BASE) % 16)
    }

    /// log2 of the bytes of a stride.
    pub fn log_size(self) -> u8 {
        self.log_size
    }

    /// How many a WQE has.
    pub fn count(self) -> u32 {
        1 << self.log_count
    }

    /// How many `len` bytes take.
    pub(super) fn of(self, len: usize) -> u32 {
        len.div_ceil(1 << self.log_size).max(1) as u32
    }

    /// How many are left of a WQE, or all where none is in use.
    pub(super) fn left(self, open: Option<Open>) -> u32 {
        self.count().saturating_sub(open.map_or(0, |o| o.used))
    }

    /// Where a stride begins in the buffer.
    pub(super) fn at(self, stride: u32) -> u64 {
        u64::from(stride) << self.log_size
    }
}

/// log2 of the longest stride (`MLX5_MPWQE_LOG_STRIDE_SZ_MAX`) and of the largest
/// number of them (`MLX5_MPWQE_LOG_NUM_STRIDES_MAX`).
const SIZE_MAX: u32 = 13;
const COUNT_MAX: u32 = 16;

/// The WQE that frames go into.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(super) struct Open {
    /// Its number.
    pub(super) index: u16,
    /// The link to the next one.
    next: u16,
    /// Strides in use.
    pub(super) used: u32,
}

impl Rq {
    /// Whether the WQE in use, with what is being joined in it, has too little
    /// left for a frame of `len` bytes.
    pub(super) fn is_too_full(&self, q: &Inner, len: usize) -> bool {
        let Some((strides, open)) = self.config.strides.zip(q.open) else { return false };
        let held = q.merge.as_ref().map_or(0, |m| m.len());
        strides.of(held + len) > strides.left(Some(open))
    }
}

impl<K: KeyCheck> RxSession<'_, '_, K> {
    /// [`RxSession::deliver`] of a striding queue.
    pub(super) fn deliver_strided(
        &mut self,
        strides: Strides,
        frame: &impl RxFrame,
        info: &RxInfo,
    ) -> Result<(), RxDrop> {
        self.end_merge()?;
        let open = self.place(strides, frame, info)?;
        let (source, len) = self.source(frame, info);
        let (strip, need) = (source.strip, strides.of(len));
        let told = Told { debtor: self.stride_debtor(open), len, strip, frames: 1 };
        let done = self.complete(told, info, |cqe| {
            cqe.set(Cqe64::wqe_id, open.index.into()).set(Cqe64::consumed_strides, need);
        });
        self.take(strides, need);
        done
    }

    /// Writes a frame behind what is in use, of this WQE or the next one. What
    /// it takes is not yet in use.
    pub(super) fn place(&mut self, strides: Strides, frame: &impl RxFrame, info: &RxInfo) -> Result<Open, RxDrop> {
        let (source, len) = self.source(frame, info);
        let open = self.room(strides, len)?;
        self.find_in(strides.at(open.used), len)?;
        match scatter(self.mem, &self.inner.ranges, &source) {
            Ok(()) => Ok(open),
            Err(Scatter::Source) => Err(RxDrop::Source),
            Err(Scatter::Buffer) => Err(self.broken(open.index, WqeFault::Dma)),
        }
    }

    /// Finds bytes of the buffer in use.
    pub(super) fn find_in(&mut self, at: u64, len: usize) -> Result<(), RxDrop> {
        let index = self.inner.open.map_or(0, |o| o.index);
        self.rq.find(&mut self.inner, self.keys, at, len).map_err(|fault| self.broken(index, fault))
    }

    /// A WQE with room for `len` bytes, of which so many strides are in use.
    fn room(&mut self, strides: Strides, len: usize) -> Result<Open, RxDrop> {
        let need = strides.of(len);
        if len > MAX_BYTES || need > strides.count() {
            self.inner.too_long += 1;
            return Err(RxDrop::TooLong);
        }
        if let Some(open) = self.inner.open {
            if need <= strides.left(Some(open)) {
                return Ok(open);
            }
            self.pass_over(strides, open)?;
        }
        let posted = self.some_buffer()?;
        let index = self.rq.index(&self.inner);
        match self.rq.read_wqe(&mut self.inner, self.mem, posted) {
            Ok(next) => Ok(*self.inner.open.insert(Open { index, next, used: 0 })),
            Err(fault) => Err(self.broken(index, fault)),
        }
    }

    /// The strides that are left of a WQE are told of and not used.
    fn pass_over(&mut self, strides: Strides, open: Open) -> Result<(), RxDrop> {
        let mut open = open;
        while strides.left(Some(open)) > 0 {
            // All but a WQE with the largest number of strides need one completion.
            let n = strides.left(Some(open)).min(Cqe64::consumed_strides.max());
            let debtor = self.stride_debtor(open);
            let written = self.cq.complete(debtor, false, |cqe| {
                cqe.set(Cqe64::opcode, cqe_opcode::RESP_SEND)
                    .set(Cqe64::wqe_id, open.index.into())
                    .set(Cqe64::filler, 1)
                    .set(Cqe64::consumed_strides, n);
            });
            self.written(written)?;
            open.used += n;
        }
        self.inner.open = Some(open);
        self.take(strides, 0);
        Ok(())
    }

    /// Strides are in use; a WQE that has none left is done with.
    pub(super) fn take(&mut self, strides: Strides, n: u32) {
        // None where the queue went to error meanwhile.
        let Some(mut open) = self.inner.open.take() else { return };
        open.used += n;
        if open.used >= strides.count() {
            self.rq.advance(&mut self.inner, open.next);
        } else {
            self.inner.open = Some(open);
        }
    }

    /// Who owes the completion of what begins behind the strides in use.
    pub(super) fn stride_debtor(&self, open: Open) -> Debtor {
        // A stride's number has 16 bits.
        Debtor { wqe_counter: open.used as u16, ..self.rq.debtor(open.index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_as_the_driver_says_them() {
        // `log_wqe_num_of_strides` is set to the number less 9, cut to 4 bits.
        let new = |size: u32, count: i32, extended| Strides::new(size - 6, (count - 9) as u32 & 0xf, extended);
        for count in 9..=16 {
            let s = new(8, count, false).unwrap();
            assert_eq!((s.log_size(), s.count()), (8, 1 << count));
        }
        for count in 3..=8 {
            assert_eq!(new(11, count, true).unwrap().count(), 1 << count);
            assert!(new(11, count, false).is_err());
        }
        for count in [1, 2] {
            assert!(new(11, count, true).is_err());
        }
        assert!(new(13, 9, false).is_ok());
        for size in [8, 9, 15, u32::MAX - 6] {
            assert!(Strides::new(size, 0, true).is_err());
        }
        let s = new(8, 10, false).unwrap();
        assert_eq!((s.of(0), s.of(1), s.of(256), s.of(257), s.at(3)), (1, 1, 1, 2, 768));
    }
}
