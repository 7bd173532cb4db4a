//! Event, completion, send and receive queues.
//!
//! A queue is created by a command handler, which has parsed and checked the
//! context, and is shared as an `Arc` between the control plane and the
//! workers. Each queue has a lock of its own and no lock is above them.
//!
//! Lock order: [`Sq`] or [`Rq`] (the sender's before the receiver's, one of
//! each at most) → [`Cq`] → [`Eq`](struct@Eq). Interrupts are raised with no CQ or EQ
//! lock held. What the guest writes into its rings and records is read once
//! into local memory, checked there and bounds the work: no loop is longer
//! than a ring, a WQE or the caller's budget.
//!
//! Not modelled: compression of completions in the enhanced layout or of 128 bytes, CQ
//! resizing, shared receive queues, UMR of other fields than `free` and of indirect keys (KLM,
//! KSM), header-data split, TLS.

mod cq;
mod doorbell;
mod eq;
mod merge;
mod mpw;
mod plain;
mod ring;
mod rq;
mod scatter;
mod schedule;
mod session;
mod sq;
mod stride;
mod umr;
mod window;
mod wqe;

#[cfg(test)]
mod mini_driver;
#[cfg(test)]
mod tests_cq;
#[cfg(test)]
mod tests_merge;
#[cfg(test)]
mod tests_mpw;
#[cfg(test)]
mod tests_packed;
#[cfg(test)]
mod tests_plain;
#[cfg(test)]
mod tests_rx;
#[cfg(test)]
mod tests_stride;
#[cfg(test)]
mod tests_tx;

pub(crate) use cq::SavedCq;
pub use cq::{Arm, Cq, CqBatch, CqConfig, CqFault, CqPermit, CqSnapshot, Debtor, MiniFormat, Moderation};
pub use doorbell::{CQ_DOORBELL, Doorbell, sq_doorbells};
pub(crate) use eq::SavedEq;
pub use eq::{AsyncEqs, EVENT_DATA, Eq, EqConfig, EqSnapshot};
pub use merge::{SAME, Segment};
pub use plain::{PLAIN_MAX, PlainSend};
pub use ring::Ring;
pub(crate) use rq::SavedRq;
pub use rq::{QCounter, Rq, RqConfig, RqSnapshot, RssType, RxDrop, RxFrame, RxInfo};
pub use session::RxSession;
pub(crate) use sq::SavedSq;
pub use sq::{PollResult, Sq, SqConfig, SqSnapshot, TxResult, TxSink};
pub use stride::Strides;
pub use wqe::{Csum, Piece, TxSeg, TxWqe, WqeFault};

use std::sync::atomic::{AtomicU8, Ordering};

use sfnic_firmware_cmds::{Refusal, Syndrome};

/// State of a send or receive queue (`MLX5_SQC_STATE_*`, `MLX5_RQC_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum WqState {
    /// Reset: counters at zero, nothing is read.
    Rst = 0,
    /// Ready: works.
    Rdy = 1,
    /// Error: flushes or stands still.
    Err = 3,
}

impl WqState {
    /// The state of a context's field; the reserved value is refused.
    pub fn from_raw(raw: u32) -> Result<Self, Refusal> {
        match raw {
            0 => Ok(Self::Rst),
            1 => Ok(Self::Rdy),
            3 => Ok(Self::Err),
            _ => Err(Refusal::param(Syndrome::STATE_TRANSITION)),
        }
    }

    /// Checks a MODIFY command that names the state `from` of a queue that is
    /// in `self`. All transitions exist but from error to ready; staying is
    /// one (other attributes are modified).
    fn check_transition(self, from: Self, to: Self) -> Result<(), Refusal> {
        if self != from {
            Err(Refusal::state(Syndrome::OBJECT_STATE))
        } else if (from, to) == (Self::Err, Self::Rdy) {
            Err(Refusal::state(Syndrome::STATE_TRANSITION))
        } else {
            Ok(())
        }
    }
}

/// The state, readable without the queue's lock; changed only under it.
#[derive(Debug, Default)]
struct StateCell(AtomicU8);

impl StateCell {
    fn get(&self) -> WqState {
        match self.0.load(Ordering::Acquire) {
            1 => WqState::Rdy,
            3 => WqState::Err,
            _ => WqState::Rst,
        }
    }
    fn set(&self, state: WqState) {
        self.0.store(state as u8, Ordering::Release);
    }
}

/// A doorbell record is two dwords, aligned, so that none of them is torn and
/// the second one's address does not overflow. Refuses with DOORBELL_ALIGN.
fn check_record(addr: u64) -> Result<(), Refusal> {
    if addr.is_multiple_of(8) { Ok(()) } else { Err(Refusal::param(Syndrome::DOORBELL_ALIGN)) }
}

/// What a memory key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The device reads the memory (transmit).
    Read,
    /// The device writes the memory (receive).
    Write,
}

/// A use of a memory key by a queue.
#[derive(Debug, Clone, Copy)]
pub struct KeyUse {
    /// The key in the data segment.
    pub lkey: u32,
    /// Protection domain of the queue, which must be the key's.
    pub pd: u32,
    /// The queue may use the reserved key (`rlky` in its context).
    pub reserved: bool,
    /// What for.
    pub access: Access,
}

/// The key does not exist, is of another domain, or does not allow the access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("memory key refused")]
pub struct KeyFault;

/// Translates an address under a memory key. Implemented by the owner of the
/// key table; called for every data segment.
pub trait KeyCheck {
    /// Hands the IOVA ranges of `[addr, addr + len)` to `each`, in order.
    /// Under a physical-address key the address is the IOVA. The ranges' sum
    /// must be `len`.
    fn resolve(&self, key: KeyUse, addr: u64, len: u32, each: impl FnMut(u64, u32)) -> Result<(), KeyFault>;

    /// Changes a key's translations at once for all who use it.
    fn remap(&self, _: &Remap<'_>) -> Result<(), KeyFault> {
        Err(KeyFault)
    }
}

/// What a UMR changes of a memory key. Its numbers are the guest's.
#[derive(Debug, Clone, Copy)]
pub struct Remap<'a> {
    /// The key.
    pub key: u32,
    /// Protection domain of the queue, which must be the key's.
    pub pd: u32,
    /// User context of the queue, which must be the key's.
    pub uid: u16,
    /// The first translation that changes.
    pub first: usize,
    /// The new ones (`struct mlx5_mtt`).
    pub translations: &'a [u8],
    /// The key must be free, or must not.
    pub expect_free: Option<bool>,
    /// The key becomes free or usable.
    pub free: Option<bool>,
}
