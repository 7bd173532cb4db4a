//! Send WQEs of several frames (`MLX5_OPCODE_ENHANCED_MPSW`).
//!
//! Behind the control segment and one Ethernet segment, which holds for all frames, each
//! segment is a frame of its own: a piece of guest memory, or bytes of the WQE
//! (`mlx5e_tx_mpwqe_add_dseg`, `mlx5e_xdp_mpwqe_add_dseg`). All share one completion.

use sfnic_firmware_cmds::entries::{WqeCtrl, WqeData, WqeEth, WqeInline};
use sfnic_firmware_cmds::{Layout, View};

use super::KeyCheck;
use super::ring::Ring;
use super::wqe::{Csum, DS, ETH_HLEN, MAX_SEND, SegList, TxSeg, TxWqe, WqeFault, WqeRules, gather};
use crate::packet::frame::HDR_CAP;

/// Where a WQE lies: the ring, its position there, and the index of its first 64 bytes.
pub(super) type Place<'a> = (&'a Ring, u64, u16);

/// Hands each frame of a WQE to `send`, in order; those before one that is at fault are
/// sent. `raw` is the WQE, exactly as long as its control segment says.
pub(super) fn each_frame(
    raw: &[u8],
    (ring, position, wqe_index): Place<'_>,
    rules: &WqeRules,
    keys: &impl KeyCheck,
    segs: &mut SegList,
    mut send: impl FnMut(&TxWqe<'_>) -> Result<(), WqeFault>,
) -> Result<(), WqeFault> {
    const FIRST: usize = WqeCtrl::SIZE + WqeEth::SIZE;
    let eth = View::<WqeEth>::new(raw.get(WqeCtrl::SIZE..FIRST).ok_or(WqeFault::NoEthSegment)?);
    let vlan = eth.is(WqeEth::vlan_insert).then(|| eth.get(WqeEth::inline_hdr_start) as u16);
    // Headers could only be those of one frame.
    if vlan.is_none() && eth.get(WqeEth::inline_hdr_sz) != 0 {
        return Err(WqeFault::SharedHeaders);
    }
    if eth.get(WqeEth::mss) != 0 {
        return Err(WqeFault::LsoParameters);
    }
    if raw.len() == FIRST {
        return Err(WqeFault::NoSegments);
    }
    let mut at = FIRST;
    while let Some(seg) = raw.get(at..at + WqeData::SIZE) {
        let inline = View::<WqeInline>::new(seg);
        segs.clear();
        let (header, len, end): (&[u8], _, _) = if inline.is(WqeInline::inline) {
            let from = at + WqeInline::data.offset();
            let len = inline.get(WqeInline::byte_count) as usize;
            let bytes = raw.get(from..from + len).ok_or(WqeFault::InlineBeyondWqe)?;
            let (header, rest) = bytes.split_at(len.min(HDR_CAP));
            // What is no header is read when it is sent, as any payload is.
            let behind = position + (from + header.len()) as u64;
            ring.each_piece(behind, rest.len(), |iova, len| segs.push(TxSeg::Guest { iova, len }));
            (header, len as u64, (from + len).next_multiple_of(DS))
        } else {
            let end = at + WqeData::SIZE;
            (&[], gather(&raw[..end], at, 0, MAX_SEND, rules, keys, segs)?, end)
        };
        if len == 0 {
            return Err(WqeFault::Length);
        }
        if rules.inline_l2 && header.len() < ETH_HLEN {
            return Err(WqeFault::InlineTooShort);
        }
        send(&TxWqe {
            wqe_index,
            header,
            segs,
            len: len as u32,
            csum: Csum::of(eth),
            mss: None,
            vlan,
            metadata: eth.get(WqeEth::flow_table_metadata),
            raw,
        })?;
        at = end;
    }
    Ok(())
}
