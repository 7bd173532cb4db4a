//! From a send WQE to frames.

use sfnic_firmware_cmds::layouts::FteMatchSetMisc2;
use smallvec::SmallVec;
use vm_memory::VolatileSlice;

use super::pipeline::Pipeline;
use super::plane::FunctionPlane;
use crate::dma::{DmaAccess, Memory};
use crate::nic::Card;
use crate::packet::checksum::{self, Fill};
use crate::packet::frame::HDR_CAP;
use crate::packet::key::MISC2;
use crate::packet::{Frame, lso};
use crate::queue::{Piece, TxResult, TxSink, TxWqe, WqeFault};
use crate::unmodelled::Access;

/// Shortest frame on a wire without its check sequence; shorter ones are
/// padded, and the driver counts them so.
const MIN_FRAME: usize = 60;
/// EtherType of a C-VLAN tag.
const C_VLAN: u16 = 0x8100;

/// Sends what a function's send queue holds.
pub struct Transmit<'a, 'n> {
    /// The way through the device.
    pub pipeline: &'a mut Pipeline<'n>,
    /// Card of the function.
    pub card: &'a Card,
    /// The function.
    pub function: &'a FunctionPlane,
    /// Guest memory of this burst.
    pub mem: &'a Memory,
    /// Transport domain of the queue.
    pub td: u32,
    /// The frame that is being formed, used again and again.
    pub frame: Frame<'a>,
}

impl TxSink for Transmit<'_, '_> {
    fn send(&mut self, wqe: &TxWqe<'_>) -> TxResult {
        if let Err(fault) = self.form(wqe) {
            return TxResult::Failed(fault);
        }
        let link = &self.function.vport.link;
        if self.function.id != 0 && !link.load(std::sync::atomic::Ordering::Relaxed) {
            self.function.tx_link_down.add(1);
            return TxResult::Dropped;
        }
        self.pipeline.begin_message();
        let (mut frames, mut bytes) = (0, 0);
        let (pipeline, card, function) = (&mut *self.pipeline, self.card, self.function);
        let mut one = |f: &mut Frame<'_>| {
            frames += 1;
            bytes += f.len() as u64;
            pipeline.send(card, function, f);
        };
        if let Some(mss) = wqe.mss {
            let hdr = wqe.header.len() + if wqe.vlan.is_some() { 4 } else { 0 };
            if lso::segment(&self.frame, mss.get().into(), hdr, one).is_none() {
                return TxResult::Failed(WqeFault::LsoParameters);
            }
        } else {
            one(&mut self.frame);
        }
        TxResult::Sent { frames, bytes }
    }

    fn has_done_enough(&self) -> bool {
        self.pipeline.has_done_enough()
    }

    fn unmodelled(&mut self, _: u32, opcode: u8) {
        self.pipeline.nic.unmodelled.record(self.card.index, self.function.id, Access::WqeOpcode(opcode));
    }
}

impl<'a> Transmit<'a, '_> {
    /// A parsed frame with its checksums, padded; of an LSO the whole message.
    fn form(&mut self, wqe: &TxWqe<'_>) -> Result<(), WqeFault> {
        let mut head: SmallVec<[u8; HDR_CAP]> = SmallVec::new();
        let mut slices: SmallVec<[VolatileSlice<'a, ()>; 8]> = SmallVec::new();
        for piece in wqe.pieces() {
            match piece {
                Piece::Bytes(b) if slices.is_empty() && head.len() + b.len() <= HDR_CAP => head.extend_from_slice(b),
                // Inline data that does not fit the header buffer, or behind gathered data.
                Piece::Bytes(_) => return Err(WqeFault::Length),
                Piece::Guest { iova, len } => {
                    let mapped = self.mem.dma_slices(iova, len as usize, |s| slices.push(s));
                    mapped.map_err(|_| WqeFault::Dma)?;
                }
            }
        }
        let copy = if wqe.mss.is_some() { wqe.header.len() } else { HDR_CAP };
        let f = &mut self.frame;
        if !f.regather(&head, slices, copy) {
            return Err(WqeFault::Length);
        }
        if wqe.mss.is_none() {
            f.pad(MIN_FRAME);
        }
        f.set_source(self.function.vport.number, wqe.sqn);
        f.meta.source_td = self.td;
        f.key.set(MISC2, FteMatchSetMisc2::metadata_reg_a, wqe.metadata);
        f.parse();
        if let Some(tci) = wqe.vlan
            && !f.push_vlan(C_VLAN, tci)
        {
            return Err(WqeFault::Length);
        }
        if wqe.mss.is_none() {
            let c = wqe.csum;
            checksum::fill(f, Fill { l3: c.l3, l4: c.l4, inner_l3: c.inner_l3, inner_l4: c.inner_l4 });
        }
        Ok(())
    }
}
