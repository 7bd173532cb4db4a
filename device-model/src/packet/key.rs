//! What steering matches on: a packet's fields laid out as the manual's
//! `fte_match_param`, so that a flow group's mask applies to it dword by dword.

use sfnic_firmware_cmds::layout::{Bytes, Field, Layout, Sub};
use sfnic_firmware_cmds::layouts::{
    FteMatchParam, FteMatchSetLyr24, FteMatchSetMisc, FteMatchSetMisc2, FteMatchSetMisc3, FteMatchSetMisc4,
    FteMatchSetMisc5,
};

/// Number of dwords of `fte_match_param`.
pub const DWORDS: usize = FteMatchParam::SIZE / 4;

/// Where a block of match fields lies in [`MatchKey`].
pub struct Block<S> {
    dword: usize,
    of: std::marker::PhantomData<fn() -> S>,
}

impl<S> Clone for Block<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Block<S> {}

impl<S> Block<S> {
    const fn at(offset: usize) -> Self {
        Self { dword: offset / 4, of: std::marker::PhantomData }
    }
    /// Index of the block's first dword in the key.
    pub const fn dword(self) -> usize {
        self.dword
    }
}

/// Headers of the frame itself.
pub const OUTER: Block<FteMatchSetLyr24> = Block::at(FteMatchParam::outer_headers.offset());
/// Source port, source queue, tunnel keys.
pub const MISC: Block<FteMatchSetMisc> = Block::at(FteMatchParam::misc_parameters.offset());
/// Headers inside a tunnel.
pub const INNER: Block<FteMatchSetLyr24> = Block::at(FteMatchParam::inner_headers.offset());
/// Metadata registers, MPLS.
pub const MISC2: Block<FteMatchSetMisc2> = Block::at(FteMatchParam::misc_parameters_2.offset());
/// TCP sequence numbers, ICMP, VXLAN-GPE, GTP-U.
pub const MISC3: Block<FteMatchSetMisc3> = Block::at(FteMatchParam::misc_parameters_3.offset());
/// Programmable samples (never filled by the parser).
pub const MISC4: Block<FteMatchSetMisc4> = Block::at(FteMatchParam::misc_parameters_4.offset());
/// Raw dwords of a tunnel header.
pub const MISC5: Block<FteMatchSetMisc5> = Block::at(FteMatchParam::misc_parameters_5.offset());

/// A packet's match fields: dword `i` of `fte_match_param` in host order.
#[derive(Clone, PartialEq, Eq)]
pub struct MatchKey(pub [u32; DWORDS]);

impl Default for MatchKey {
    fn default() -> Self {
        Self([0; DWORDS])
    }
}

impl MatchKey {
    /// A field of a block.
    pub fn get<S>(&self, b: Block<S>, f: Field<S>) -> u32 {
        f.of_dword(self.0[b.dword + f.dword()])
    }
    /// Sets a field of a block; the value is cut to the field's width.
    pub fn set<S>(&mut self, b: Block<S>, f: Field<S>, value: u32) {
        let d = &mut self.0[b.dword + f.dword()];
        *d = f.in_dword(*d, value);
    }
    /// Dword `i` of a field of bytes, such as an address (an IPv4 address is
    /// dword 3 of its 16 bytes). Zero past the end of the key.
    pub fn word<S>(&self, b: Block<S>, f: Bytes<S>, i: usize) -> u32 {
        self.0.get(b.dword + f.offset() / 4 + i).copied().unwrap_or(0)
    }
    /// Sets dword `i` of a field of bytes; nothing past the end of the key.
    pub fn set_word<S>(&mut self, b: Block<S>, f: Bytes<S>, i: usize, value: u32) {
        if let Some(d) = self.0.get_mut(b.dword + f.offset() / 4 + i) {
            *d = value;
        }
    }
    /// Sets a field of bytes from big-endian dwords.
    pub fn set_bytes<S>(&mut self, b: Block<S>, f: Bytes<S>, value: &[u8]) {
        for (i, c) in value.as_chunks::<4>().0.iter().enumerate() {
            self.set_word(b, f, i, u32::from_be_bytes(*c));
        }
    }
    /// Sets the dword where a nested structure of one dword lies.
    pub(crate) fn set_sub<S, T>(&mut self, b: Block<S>, f: Sub<S, T>, value: u32) {
        if let Some(d) = self.0.get_mut(b.dword + f.offset() / 4) {
            *d = value;
        }
    }
    /// Forgets what a parse has found and keeps what the device knows of the
    /// packet: source vport and queue, metadata registers.
    pub fn clear_headers(&mut self) {
        let (sqn, port) = (self.0[MISC.dword + FteMatchSetMisc::source_sqn.dword()], FteMatchSetMisc::source_port);
        let source = self.0[MISC.dword + port.dword()];
        let sqn = [FteMatchSetMisc::source_sqn, FteMatchSetMisc::source_vhca_port]
            .iter()
            .fold(0, |d, f| f.in_dword(d, f.of_dword(sqn)));
        self.0[..MISC2.dword].fill(0);
        self.0[MISC.dword + FteMatchSetMisc::source_sqn.dword()] = sqn;
        self.0[MISC.dword + port.dword()] = source;
        let mpls = MISC2.dword + FteMatchSetMisc2::outer_first_mpls.offset() / 4;
        self.0[mpls..MISC2.dword + FteMatchSetMisc2::metadata_reg_c_7.dword()].fill(0);
        self.0[MISC3.dword..].fill(0);
    }
    /// Reads 512 bytes of `fte_match_param` (a mask or a value in a command).
    pub fn from_bytes(raw: &[u8]) -> Self {
        let mut key = Self::default();
        for (d, c) in key.0.iter_mut().zip(raw.as_chunks::<4>().0) {
            *d = u32::from_be_bytes(*c);
        }
        key
    }
}

impl std::fmt::Debug for MatchKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = self.0.iter().enumerate().filter(|(_, d)| **d != 0);
        f.debug_map().entries(set.map(|(i, d)| (format!("{:#05x}", i * 4), format!("{d:#010x}")))).finish()
    }
}
