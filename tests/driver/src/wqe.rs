//! Send WQEs.

use sfnic_firmware_cmds::entries::{WqeCtrl, WqeData, WqeEth, WqeInline, WqeUmr, wqe_ce, wqe_opcode};
use sfnic_firmware_cmds::layout::{Layout, ViewMut};
use sfnic_firmware_cmds::layouts::Mkc;

/// Segments are multiples of this many bytes.
const DS: usize = 16;
/// Header bytes that fit into the Ethernet segment.
const HEADER_IN_ETH: usize = 2;

/// A send WQE that is being put together. Nothing is checked: it is also how a
/// hostile driver's WQEs are made.
#[derive(Debug, Clone)]
pub struct Wqe(Vec<u8>);

impl Wqe {
    /// A control segment and nothing else.
    pub fn control(opcode: u8) -> Self {
        let mut b = vec![0; WqeCtrl::SIZE];
        ViewMut::<WqeCtrl>::new(&mut b).set(WqeCtrl::opcode, opcode.into());
        Self(b)
    }

    /// Does nothing.
    pub fn nop() -> Self {
        Self::control(wqe_opcode::NOP)
    }

    /// Sends a frame whose first bytes are `header`.
    pub fn send(header: &[u8]) -> Self {
        Self::control(wqe_opcode::SEND).eth(header, |_| ())
    }

    /// Sends a message cut into frames of `mss` payload bytes, each with
    /// `header` in front.
    pub fn lso(mss: u16, header: &[u8]) -> Self {
        Self::control(wqe_opcode::LSO).eth(header, |e| {
            e.set(WqeEth::mss, mss.into());
        })
    }

    /// Sends several frames: each of the segments that follow is one.
    pub fn multi() -> Self {
        Self::control(wqe_opcode::ENHANCED_MPSW).eth(&[], |_| ())
    }

    /// Changes the pages of a memory key from number `first` on, which is even, and
    /// makes it usable; `set` has its way with the UMR segment.
    pub fn umr(key: u32, first: u32, pages: &[u64], set: impl FnOnce(&mut ViewMut<'_, WqeUmr>)) -> Self {
        let mut b = Self::control(wqe_opcode::UMR).0;
        ViewMut::<WqeCtrl>::new(&mut b).set(WqeCtrl::general_id, key);
        let mut umr = [0; WqeUmr::SIZE];
        let mut v = ViewMut::<WqeUmr>::new(&mut umr);
        v.set(WqeUmr::inline, 1).set(WqeUmr::translation_offset_en, 1).set(WqeUmr::mask_free, 1);
        v.set(WqeUmr::xlt_octowords, pages.len().div_ceil(2) as u32).set(WqeUmr::xlt_offset, first / 2);
        set(&mut v);
        b.extend(umr);
        b.extend([0; Mkc::SIZE]);
        b.extend(pages.iter().flat_map(|p| p.to_be_bytes()));
        b.resize(b.len().next_multiple_of(DS), 0);
        Self(b)
    }

    /// The first `n` segments of it.
    pub fn cut(mut self, n: usize) -> Self {
        self.0.truncate(n * DS);
        self
    }

    /// Adds an Ethernet segment.
    pub fn eth(mut self, header: &[u8], set: impl FnOnce(&mut ViewMut<'_, WqeEth>)) -> Self {
        let len = WqeEth::SIZE + header.len().saturating_sub(HEADER_IN_ETH).next_multiple_of(DS);
        let mut b = vec![0; len];
        let mut e = ViewMut::<WqeEth>::new(&mut b);
        e.set(WqeEth::inline_hdr_sz, WqeEth::inline_hdr_sz.max() & header.len() as u32);
        e.set_tail(WqeEth::inline_data, 0, header);
        set(&mut e);
        self.0.extend(b);
        self
    }

    /// Changes the Ethernet segment, which must be there.
    pub fn with_eth(mut self, set: impl FnOnce(&mut ViewMut<'_, WqeEth>)) -> Self {
        set(&mut ViewMut::new(&mut self.0[WqeCtrl::SIZE..]));
        self
    }

    /// Fills in both checksums.
    pub fn checksums(self) -> Self {
        self.with_eth(|e| {
            e.set(WqeEth::l3_csum, 1).set(WqeEth::l4_csum, 1);
        })
    }

    /// Inserts a VLAN tag; there must be no inline header.
    pub fn vlan(self, tci: u16) -> Self {
        self.with_eth(|e| {
            e.set(WqeEth::vlan_insert, 1).set(WqeEth::inline_hdr_start, tci.into());
        })
    }

    /// Adds bytes in guest memory.
    pub fn data(mut self, lkey: u32, addr: u64, len: u32) -> Self {
        let mut b = [0; WqeData::SIZE];
        ViewMut::<WqeData>::new(&mut b)
            .set(WqeData::byte_count, len & WqeData::byte_count.max())
            .set(WqeData::lkey, lkey)
            .set64(WqeData::addr, addr);
        self.0.extend(b);
        self
    }

    /// Adds bytes of the WQE itself.
    pub fn inline(mut self, bytes: &[u8]) -> Self {
        let mut b = vec![0; (WqeInline::SIZE + bytes.len()).next_multiple_of(DS)];
        let mut i = ViewMut::<WqeInline>::new(&mut b);
        i.set(WqeInline::inline, 1).set(WqeInline::byte_count, WqeInline::byte_count.max() & bytes.len() as u32);
        i.set_tail(WqeInline::data, 0, bytes);
        self.0.extend(b);
        self
    }

    /// Asks for a completion.
    pub fn signalled(mut self) -> Self {
        ViewMut::<WqeCtrl>::new(&mut self.0).set(WqeCtrl::ce, wqe_ce::CQE);
        self
    }

    /// The bytes as they go into the ring at `index` of queue `sqn`, with the
    /// length filled in.
    pub fn bytes(&self, index: u16, sqn: u32) -> Vec<u8> {
        let mut b = self.0.clone();
        let ds = (b.len() / DS) as u32;
        ViewMut::<WqeCtrl>::new(&mut b)
            .set(WqeCtrl::wqe_index, index.into())
            .set(WqeCtrl::qpn, sqn & WqeCtrl::qpn.max())
            .set(WqeCtrl::ds, ds & WqeCtrl::ds.max());
        b
    }
}
