//! Send WQEs of Ethernet queues, from raw bytes to what is to be sent.

use std::num::NonZeroU16;

use sfnic_firmware_cmds::entries::{WqeCtrl, WqeData, WqeEth, WqeInline, cqe_syndrome};
use sfnic_firmware_cmds::{Layout, View};
use smallvec::SmallVec;

use super::{Access, KeyCheck, KeyUse};

/// WQEs are counted in blocks of this many bytes (`MLX5_SEND_WQE_BB`).
pub(super) const WQEBB: usize = 64;
/// Segments are multiples of this many bytes (`MLX5_SEND_WQE_DS`).
pub(super) const DS: usize = 16;
/// A WQE takes at most this much: 63 segments, whole blocks
/// (`MLX5_SEND_WQE_MAX_SIZE`).
pub(super) const MAX_WQE: usize = 1024;
/// Header bytes that fit into the Ethernet segment (`INL_HDR_START_SZ`).
const HEADER_IN_ETH: usize = 2;
/// Longest frame of a SEND; the MTU is checked by whoever sends it.
pub(super) const MAX_SEND: u64 = 1 << 16;
/// Longest message of an LSO, headers included (`GSO_MAX_SIZE` of the kernel).
const MAX_LSO: u64 = (1 << 19) + MAX_WQE as u64;
/// Most guest ranges of one message. A message of the longest size on 4 KiB
/// pages, each segment ragged, stays below it.
const MAX_RANGES: usize = 256;
/// Most frames of one LSO; TCP's smallest segments (48 bytes) stay below it.
const MAX_FRAMES: u64 = 8192;
/// Bytes of an Ethernet header.
pub(super) const ETH_HLEN: usize = 14;

/// Why a WQE failed. The number is the vendor syndrome of the error completion
/// (`vendor_err_synd`), which the kernel prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum WqeFault {
    /// The queue was in error before this WQE.
    #[error("flushed")]
    Flushed = 0x00,
    /// The opcode is not modelled for this kind of queue.
    #[error("opcode not modelled")]
    Opcode = 0x01,
    /// The control segment says that the WQE has no segments.
    #[error("WQE without segments")]
    NoSegments = 0x02,
    /// The WQE ends beyond the send counter.
    #[error("WQE beyond the send counter")]
    BeyondProducer = 0x03,
    /// The send counter is further ahead than the queue is long.
    #[error("send counter beyond the queue")]
    CounterJump = 0x04,
    /// No room for the Ethernet segment.
    #[error("WQE without an Ethernet segment")]
    NoEthSegment = 0x05,
    /// Inline bytes end beyond the WQE.
    #[error("inline data beyond the WQE")]
    InlineBeyondWqe = 0x06,
    /// Fewer header bytes inline than `min_wqe_inline_mode` demands.
    #[error("too few header bytes inline")]
    InlineTooShort = 0x07,
    /// An LSO without a segment size or headers, or with too many segments.
    #[error("LSO without segment size or headers, or of too many segments")]
    LsoParameters = 0x08,
    /// The frame is empty, or longer than any that can be sent.
    #[error("frame length")]
    Length = 0x09,
    /// A memory key does not exist or does not allow the access.
    #[error("memory key")]
    Key = 0x0a,
    /// Memory that a WQE names is not mapped.
    #[error("memory not mapped")]
    Dma = 0x0b,
    /// The queue's own ring or doorbell record is not mapped.
    #[error("queue memory not mapped")]
    QueueDma = 0x0c,
    /// The model owed a completion and forgot it.
    #[error("completion forgotten")]
    Forgotten = 0x0d,
    /// No room for the segments of a UMR.
    #[error("UMR without its segments")]
    UmrTooShort = 0x0e,
    /// A UMR that changes what is not modelled, or contradicts itself.
    #[error("UMR of fields that cannot be changed")]
    UmrFields = 0x0f,
    /// A WQE of several frames has header bytes in its Ethernet segment.
    #[error("inline headers in a WQE of several frames")]
    SharedHeaders = 0x10,
}

impl WqeFault {
    /// The syndrome of the error completion (`MLX5_CQE_SYNDROME_*`).
    pub fn syndrome(self) -> u8 {
        match self {
            Self::Flushed => cqe_syndrome::WR_FLUSH,
            Self::Length => cqe_syndrome::LOCAL_LENGTH,
            Self::Key | Self::Dma | Self::QueueDma => cqe_syndrome::LOCAL_PROT,
            _ => cqe_syndrome::LOCAL_QP_OP,
        }
    }
}

/// Which checksums the device is to fill in (`cs_flags`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Csum {
    /// IPv4 header, outermost.
    pub l3: bool,
    /// TCP or UDP, outermost.
    pub l4: bool,
    /// IPv4 header inside a tunnel.
    pub inner_l3: bool,
    /// TCP or UDP inside a tunnel.
    pub inner_l4: bool,
}

impl Csum {
    /// What an Ethernet segment asks for.
    #[inline(always)]
    pub(super) fn of(eth: View<'_, WqeEth>) -> Self {
        Self {
            l3: eth.is(WqeEth::l3_csum),
            l4: eth.is(WqeEth::l4_csum),
            inner_l3: eth.is(WqeEth::l3_inner_csum),
            inner_l4: eth.is(WqeEth::l4_inner_csum),
        }
    }
}

/// One part of a frame, behind its inline headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxSeg {
    /// Guest memory that the key check allowed.
    Guest {
        /// First byte.
        iova: u64,
        /// Length in bytes, not zero.
        len: u32,
    },
    /// Bytes of the WQE.
    Inline {
        /// Offset in the WQE.
        at: u16,
        /// Length in bytes.
        len: u16,
    },
}

/// A part of a frame with its bytes or where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes that the device holds.
    Bytes(&'a [u8]),
    /// Guest memory.
    Guest {
        /// First byte.
        iova: u64,
        /// Length in bytes.
        len: u32,
    },
}

/// The parts of the frame that is being formed; kept from WQE to WQE so that
/// nothing is allocated for a packet.
pub(super) type SegList = SmallVec<[TxSeg; 16]>;

/// A frame to be sent, or (with `mss`) a message to be cut into frames.
#[derive(Debug, Clone, Copy)]
pub struct TxWqe<'a> {
    /// Index of the WQE's first 64 bytes, as in its completion.
    pub wqe_index: u16,
    /// First bytes of the frame, carried in the WQE. For an LSO these are the
    /// headers that every frame repeats.
    pub header: &'a [u8],
    /// The rest of the frame, in order.
    pub segs: &'a [TxSeg],
    /// Bytes of `header` and `segs` together.
    pub len: u32,
    /// Checksums to fill in.
    pub csum: Csum,
    /// Payload bytes of each frame, where this is an LSO.
    pub mss: Option<NonZeroU16>,
    /// VLAN tag (TCI) to insert behind the addresses.
    pub vlan: Option<u16>,
    /// What steering matches as metadata_reg_a.
    pub metadata: u32,
    pub(super) raw: &'a [u8],
}

impl<'a> TxWqe<'a> {
    /// All parts of the frame in order, the inline headers first.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'a>> + use<'a> {
        let raw = self.raw;
        let rest = self.segs.iter().map(move |seg| match *seg {
            TxSeg::Guest { iova, len } => Piece::Guest { iova, len },
            TxSeg::Inline { at, len } => {
                Piece::Bytes(raw.get(at.into()..usize::from(at) + usize::from(len)).unwrap_or(&[]))
            }
        });
        (!self.header.is_empty()).then_some(Piece::Bytes(self.header)).into_iter().chain(rest)
    }
}

/// What of a queue's configuration a WQE is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct WqeRules {
    pub(super) pd: u32,
    pub(super) reserved_key: bool,
    /// Some header bytes must be inline (`MLX5_INLINE_MODE_L2` or above).
    pub(super) inline_l2: bool,
}

/// Reads a SEND or LSO. `raw` is the WQE, exactly as long as its control
/// segment says. `segs` is emptied and filled.
pub(super) fn parse_eth<'a>(
    raw: &'a [u8],
    wqe_index: u16,
    lso: bool,
    rules: &WqeRules,
    keys: &impl KeyCheck,
    segs: &'a mut SegList,
) -> Result<TxWqe<'a>, WqeFault> {
    segs.clear();
    // Of a known length, so that reading a field needs no check.
    let head = raw.first_chunk::<{ WqeCtrl::SIZE + WqeEth::SIZE }>().ok_or(WqeFault::NoEthSegment)?;
    let eth = View::<WqeEth>::new(&head[WqeCtrl::SIZE..]);
    let insert = eth.is(WqeEth::vlan_insert);
    // The same bytes hold either a tag to insert or the start of the headers.
    let header_len = if insert { 0 } else { eth.get(WqeEth::inline_hdr_sz) as usize };
    let at = WqeCtrl::SIZE + WqeEth::inline_data.offset();
    let header = raw.get(at..at + header_len).ok_or(WqeFault::InlineBeyondWqe)?;
    if rules.inline_l2 && header_len < ETH_HLEN {
        return Err(WqeFault::InlineTooShort);
    }
    let mss = NonZeroU16::new(eth.get(WqeEth::mss) as u16).filter(|_| lso);
    if lso && (mss.is_none() || header.is_empty()) {
        return Err(WqeFault::LsoParameters);
    }
    let first = WqeCtrl::SIZE + WqeEth::SIZE + header_len.saturating_sub(HEADER_IN_ETH).next_multiple_of(DS);
    let limit = if lso { MAX_LSO } else { MAX_SEND };
    let len = gather(raw, first, header_len as u64, limit, rules, keys, segs)?;
    if len == 0 {
        return Err(WqeFault::Length);
    }
    if mss.is_some_and(|mss| len / u64::from(mss.get()) > MAX_FRAMES) {
        return Err(WqeFault::LsoParameters);
    }
    Ok(TxWqe {
        wqe_index,
        header,
        segs,
        len: len as u32,
        csum: Csum::of(eth),
        mss,
        vlan: insert.then(|| eth.get(WqeEth::inline_hdr_start) as u16),
        metadata: eth.get(WqeEth::flow_table_metadata),
        raw,
    })
}

/// Reads the data segments from byte `at` to the end of the WQE. Answers the
/// frame's length, beginning with `len`. Lengths are checked before keys, so
/// that the translation of a segment is never longer than a frame.
pub(super) fn gather(
    raw: &[u8],
    mut at: usize,
    mut len: u64,
    limit: u64,
    rules: &WqeRules,
    keys: &impl KeyCheck,
    segs: &mut SegList,
) -> Result<u64, WqeFault> {
    while let Some(rest) = raw.get(at..).filter(|r| !r.is_empty()) {
        let seg = rest.first_chunk::<{ WqeData::SIZE }>().ok_or(WqeFault::NoSegments)?;
        let seg = View::<WqeData>::new(seg);
        if seg.is(WqeData::inline) {
            let inline = View::<WqeInline>::new(rest);
            let n = inline.get(WqeInline::byte_count) as usize;
            let head = WqeInline::data.offset();
            if rest.len() < head + n {
                return Err(WqeFault::InlineBeyondWqe);
            }
            if n > 0 {
                segs.push(TxSeg::Inline { at: (at + head) as u16, len: n as u16 });
            }
            len += n as u64;
            at += (head + n).next_multiple_of(DS);
        } else {
            // A count of zero means 2 GiB, more than any frame.
            let n = seg.get(WqeData::byte_count);
            len += u64::from(n);
            if n == 0 || len > limit {
                return Err(WqeFault::Length);
            }
            let key = KeyUse {
                lkey: seg.get(WqeData::lkey),
                pd: rules.pd,
                reserved: rules.reserved_key,
                access: Access::Read,
            };
            let mut fits = true;
            let resolved = keys.resolve(key, seg.get64(WqeData::addr), n, |iova, len| {
                fits &= segs.len() < MAX_RANGES;
                if fits && len > 0 {
                    segs.push(TxSeg::Guest { iova, len });
                }
            });
            resolved.map_err(|_| WqeFault::Key)?;
            if !fits {
                return Err(WqeFault::Length);
            }
            at += DS;
        }
    }
    if len > limit { Err(WqeFault::Length) } else { Ok(len) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::mini_driver::{IdentityKeys, WqeBuilder};
    use super::*;

    const RULES: WqeRules = WqeRules { pd: 1, reserved_key: false, inline_l2: false };

    fn parse<'a>(raw: &'a [u8], lso: bool, segs: &'a mut SegList) -> Result<TxWqe<'a>, WqeFault> {
        parse_eth(raw, 3, lso, &RULES, &IdentityKeys::default(), segs)
    }

    #[test]
    fn headers_and_segments_come_out_in_order() {
        let mut segs = SegList::new();
        let header: Vec<u8> = (0..54).collect();
        let raw = WqeBuilder::lso(1448, &header).data(0x1000, 100).inline_data(b"abc").data(0x3000, 7).bytes();
        let w = parse(&raw, true, &mut segs).unwrap();
        assert_eq!((w.header, w.len, w.mss.map(NonZeroU16::get)), (&header[..], 54 + 100 + 3 + 7, Some(1448)));
        let pieces: Vec<_> = w.pieces().collect();
        assert_eq!(
            pieces,
            [
                Piece::Bytes(&header),
                Piece::Guest { iova: 0x1000, len: 100 },
                Piece::Bytes(b"abc"),
                Piece::Guest { iova: 0x3000, len: 7 }
            ]
        );
    }

    #[test]
    fn inline_headers_of_every_length_are_found() {
        for n in 0..200usize {
            let header: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let raw = WqeBuilder::send(&header).data(0x1000, 9).bytes();
            let mut segs = SegList::new();
            let w = parse(&raw, false, &mut segs).unwrap();
            assert_eq!((w.header, w.len as usize), (&header[..], n + 9));
            assert_eq!(w.segs, [TxSeg::Guest { iova: 0x1000, len: 9 }]);
        }
    }

    #[test]
    fn a_vlan_tag_to_insert_takes_the_place_of_the_headers() {
        let mut raw = WqeBuilder::send(&[]).data(0x1000, 60).bytes();
        raw[16 + 12..16 + 16].copy_from_slice(&[0x80, 0, 0x20, 5]);
        let mut segs = SegList::new();
        let w = parse(&raw, false, &mut segs).unwrap();
        assert_eq!((w.vlan, w.header.len(), w.len), (Some(0x2005), 0, 60));
    }

    #[test]
    fn faults_have_their_reason() {
        let mut segs = SegList::new();
        let head = [0u8; 20];
        for (raw, lso, fault) in [
            (vec![0; 16], false, WqeFault::NoEthSegment),
            (WqeBuilder::send(&[]).bytes(), false, WqeFault::Length),
            (WqeBuilder::send(&head).data(0x1000, 0).bytes(), false, WqeFault::Length),
            (WqeBuilder::send(&head).data(0x1000, 0x10000).bytes(), false, WqeFault::Length),
            (WqeBuilder::send(&head).data(0x1000, 0x7fff_ffff).bytes(), false, WqeFault::Length),
            (WqeBuilder::lso(1000, &head).data(0x1000, 0x8_0400).bytes(), true, WqeFault::Length),
            (WqeBuilder::lso(0, &head).data(0x1000, 1).bytes(), true, WqeFault::LsoParameters),
            (WqeBuilder::lso(1, &head).data(0x1000, 0x3000).bytes(), true, WqeFault::LsoParameters),
            (WqeBuilder::lso(9, &[]).data(0x1000, 1).bytes(), true, WqeFault::LsoParameters),
            (WqeBuilder::send(&head).key_data(0xbad, 0x1000, 1).bytes(), false, WqeFault::Key),
            (WqeBuilder::send(&head).bytes()[..32].to_vec(), false, WqeFault::InlineBeyondWqe),
        ] {
            assert_eq!(parse(&raw, lso, &mut segs).unwrap_err(), fault);
        }
        let l2 = WqeRules { inline_l2: true, ..RULES };
        let raw = WqeBuilder::send(&head[..13]).data(0x1000, 9).bytes();
        let got = parse_eth(&raw, 0, false, &l2, &IdentityKeys::default(), &mut segs);
        assert_eq!(got.unwrap_err(), WqeFault::InlineTooShort);
    }

    #[test]
    fn a_key_that_scatters_a_message_too_finely_is_refused() {
        let raw = WqeBuilder::send(&[0; 14]).data(0x1000, 2000).bytes();
        let mut segs = SegList::new();
        let keys = IdentityKeys { page: 4 };
        let got = parse_eth(&raw, 0, false, &RULES, &keys, &mut segs);
        assert_eq!(got.unwrap_err(), WqeFault::Length);
        assert!(segs.len() <= MAX_RANGES);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(raw in proptest::collection::vec(any::<u8>(), 0..=1008), lso: bool) {
            let mut segs = SegList::new();
            if let Ok(w) = parse(&raw, lso, &mut segs) {
                let sum: usize = w.pieces().map(|p| match p {
                    Piece::Bytes(b) => b.len(),
                    Piece::Guest { len, .. } => len as usize,
                }).sum();
                prop_assert_eq!(sum, w.len as usize);
            }
        }
    }
}
