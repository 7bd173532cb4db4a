//! Send WQEs that are like most: one block, no tag to insert, at most a few inline bytes, and one
//! piece of memory. They are read in one go; whatever else a WQE is, [`super::wqe`] reads it.

use sfnic_firmware_cmds::entries::{WqeCtrl, WqeData, WqeEth, wqe_ce, wqe_opcode};
use sfnic_firmware_cmds::{Layout, View};

use super::wqe::{Csum, DS, ETH_HLEN, WQEBB, WqeRules};
use super::{Access, KeyCheck, KeyUse};

/// Most bytes of a frame that is sent so.
pub const PLAIN_MAX: usize = 256;
/// Where inline bytes begin: the Ethernet segment has room for two.
const HEAD_AT: usize = WqeCtrl::SIZE + WqeEth::SIZE - HEAD_IN_ETH;
const HEAD_IN_ETH: usize = 2;
/// Most inline bytes: those two, and a segment.
const HEAD_MAX: usize = HEAD_IN_ETH + DS;

/// A frame to be sent whole.
#[derive(Debug, Clone, Copy)]
pub struct PlainSend<'a> {
    /// Its first bytes, as many as `head_len` says, and what lies behind them in the WQE.
    pub head: &'a [u8; 32],
    /// Inline bytes, at most 18.
    pub head_len: usize,
    /// The rest in guest memory that the key check allowed.
    pub iova: u64,
    /// Bytes there, not zero.
    pub len: usize,
    /// Checksums to fill in.
    pub csum: Csum,
    /// What steering matches as metadata_reg_a.
    pub metadata: u32,
}

/// Which completion a WQE asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    Completion,
    /// A solicited one.
    Event,
}

impl Asks {
    pub(super) fn of(ctrl: View<'_, WqeCtrl>) -> Self {
        match ctrl.get(WqeCtrl::ce) {
            wqe_ce::CQE => Self::Completion,
            wqe_ce::CQE_AND_EQE => Self::Event,
            _ => Self::Nothing,
        }
    }
}

/// Reads a block that is a plain send. None where it is anything else, be it wrong.
#[inline(always)]
pub(super) fn read<'a>(
    block: &'a [u8; WQEBB],
    rules: &WqeRules,
    keys: &impl KeyCheck,
) -> Option<(PlainSend<'a>, Asks)> {
    const SHORT: usize = WqeCtrl::SIZE + WqeEth::SIZE;
    const LONG: usize = SHORT + DS;
    let ctrl = View::<WqeCtrl>::new(block);
    let eth = View::<WqeEth>::new(&block[WqeCtrl::SIZE..]);
    let blocks = (ctrl.get(WqeCtrl::opcode) as u8, ctrl.get(WqeCtrl::ds) as usize * DS);
    if eth.is(WqeEth::vlan_insert) {
        return None;
    }
    let head_len = eth.get(WqeEth::inline_hdr_sz) as usize;
    // The data segment is the last one, where the inline bytes have ended.
    let seg: &[u8; DS] = match blocks {
        (wqe_opcode::SEND, n) if n == SHORT + DS && head_len <= HEAD_IN_ETH => block[SHORT..].first_chunk()?,
        (wqe_opcode::SEND, n) if n == LONG + DS && (HEAD_IN_ETH + 1..=HEAD_MAX).contains(&head_len) => {
            block[LONG..].first_chunk()?
        }
        _ => return None,
    };
    let seg = View::<WqeData>::new(seg);
    let len = seg.get(WqeData::byte_count);
    let too_short = rules.inline_l2 && head_len < ETH_HLEN;
    if seg.is(WqeData::inline) || len == 0 || head_len + len as usize > PLAIN_MAX || too_short {
        return None;
    }
    let key = KeyUse { lkey: seg.get(WqeData::lkey), pd: rules.pd, reserved: rules.reserved_key, access: Access::Read };
    let mut found = None;
    let resolved = keys.resolve(key, seg.get64(WqeData::addr), len, |iova, n| {
        found = Some(iova).filter(|_| n == len);
    });
    let iova = found.filter(|_| resolved.is_ok())?;
    let send = PlainSend {
        head: block[HEAD_AT..].first_chunk()?,
        head_len,
        iova,
        len: len as usize,
        csum: Csum::of(eth),
        metadata: eth.get(WqeEth::flow_table_metadata),
    };
    Some((send, Asks::of(ctrl)))
}
