//! What steering matches on: a packet's fields laid out as the manual's
//! `fte_match_param`, so that a flow group's mask applies to it dword by dword.

use sfnic_firmware_cmds::layout::{Field, Layout};
use sfnic_firmware_cmds::layouts::{
    FteMatchParam, FteMatchSetLyr24, FteMatchSetMisc, FteMatchSetMisc2, FteMatchSetMisc3,
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
