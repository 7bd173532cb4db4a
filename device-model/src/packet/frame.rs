//! A frame on its way through the device.

use std::cell::Cell;

use sfnic_firmware_cmds::layouts::FteMatchSetMisc;
use smallvec::SmallVec;
use vm_memory::VolatileSlice;

use super::checksum;
use super::key::{MISC, MatchKey};
use super::layers::{Layers, Tunnel, TunnelPorts};
use crate::small;

/// A piece of guest memory, valid as long as the burst's snapshot of the map.
pub type GuestSlice<'m> = VolatileSlice<'m, ()>;

/// Bytes before the headers, room for tags and tunnels to be pushed: Ethernet
/// with two tags, IPv6, UDP and a Geneve header with options fit.
pub const HEADROOM: usize = 128;
/// Bytes from a frame's start that are copied into its header buffer.
pub const HDR_CAP: usize = 256;
/// Shortest frame: an Ethernet header.
pub const MIN_LEN: usize = 14;
/// Longest frame: one that is still to be segmented (`GSO_MAX_SIZE` of the
/// kernel).
pub const MAX_LEN: usize = (1 << 19) + HDR_CAP;

const CAP: usize = HEADROOM + HDR_CAP;

/// What the device knows about a frame beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// The vport that the frame came from.
    pub source_vport: u16,
    /// The send queue that it came from; 0 for the wire.
    pub source_sqn: u32,
    /// Transport domain of that send queue, for TIR.self_lb_block.
    pub source_td: u32,
    /// Whether it came in by a physical port.
    pub from_wire: bool,
    /// Set by a flow entry; reported in the CQE. 0 where none was.
    pub flow_tag: u32,
    /// Metadata register B, reported as the CQE's `ft_metadata`.
    pub reg_b: u32,
    /// Which VLAN was stripped on receive, as the tag's TCI.
    pub stripped_tci: Option<u16>,
}

/// One piece of a frame.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'f, 'm> {
    /// Bytes of the header buffer.
    Own(&'f [u8]),
    /// Bytes in guest memory.
    Guest(GuestSlice<'m>),
}

impl Piece<'_, '_> {
    /// Bytes in the piece.
    pub fn len(&self) -> usize {
        match self {
            Piece::Own(b) => b.len(),
            Piece::Guest(s) => s.len(),
        }
    }
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame in flight: its first bytes in a buffer of its own, where they can
/// be read twice without changing and edited without touching the sender's
/// memory, and the rest as slices of guest memory.
#[derive(Clone)]
pub struct Frame<'m> {
    buf: [u8; CAP],
    start: u16,
    end: u16,
    payload: SmallVec<[GuestSlice<'m>; 4]>,
    payload_len: u32,
    payload_sum: Cell<Option<u16>>,
    /// Match fields: parsed headers and metadata.
    pub key: MatchKey,
    /// The frame's own headers.
    pub layers: Layers,
    /// Headers inside a tunnel.
    pub inner: Option<Layers>,
    /// What surrounds the inner headers.
    pub tunnel: Tunnel,
    /// What is known beside the bytes.
    pub meta: Meta,
    /// Which UDP ports are VXLAN; set it before [`Frame::parse`].
    pub tunnel_ports: TunnelPorts,
}

impl<'m> Frame<'m> {
    /// A frame of no bytes, to gather into; nothing else may be done with it.
    pub fn empty() -> Self {
        Self {
            buf: [0; CAP],
            start: HEADROOM as u16,
            end: HEADROOM as u16,
            payload: SmallVec::new(),
            payload_len: 0,
            payload_sum: Cell::new(None),
            key: MatchKey::default(),
            layers: Layers::default(),
            inner: None,
            tunnel: Tunnel::None,
            meta: Meta::default(),
            tunnel_ports: TunnelPorts::default(),
        }
    }

    /// Builds a frame from the inline bytes of a WQE followed by slices of
    /// guest memory. The first [`HDR_CAP`] bytes are copied.
    ///
    /// None where the frame is shorter than an Ethernet header or longer than
    /// [`MAX_LEN`], or `first` is longer than [`HDR_CAP`] (pass long inline
    /// data as slices of the ring).
    pub fn gather(first: &[u8], slices: impl IntoIterator<Item = GuestSlice<'m>>) -> Option<Self> {
        Self::gather_head(first, slices, HDR_CAP)
    }

    /// As [`Frame::gather`] with no more than `head` bytes copied (and at
    /// least `first`). A frame that is to be segmented has exactly its headers
    /// copied, and no payload byte twice.
    pub fn gather_head(first: &[u8], slices: impl IntoIterator<Item = GuestSlice<'m>>, head: usize) -> Option<Self> {
        let mut f = Self::empty();
        f.regather(first, slices, head).then_some(f)
    }

    /// As [`Frame::gather_head`] into a frame that is there already, which
    /// saves moving a kilobyte: for a loop over a queue. Nothing of the former
    /// frame stays but [`Frame::tunnel_ports`]. False where the frame is
    /// refused; it must then not be used before the next one.
    #[must_use]
    pub fn regather(&mut self, first: &[u8], slices: impl IntoIterator<Item = GuestSlice<'m>>, head: usize) -> bool {
        self.key.0.fill(0);
        self.regather_bytes(first, slices, head)
    }

    /// As [`Frame::regather`] with [`Frame::key`] left as it is: for a frame
    /// that takes [`Frame::quick_parse`], or has its key cleared later.
    #[must_use]
    pub fn regather_bytes(
        &mut self,
        first: &[u8],
        slices: impl IntoIterator<Item = GuestSlice<'m>>,
        head: usize,
    ) -> bool {
        self.restart();
        let head = head.clamp(MIN_LEN, HDR_CAP);
        self.append(first) && slices.into_iter().all(|s| self.append_slice(s, head)) && self.is_long_enough()
    }

    /// Begins again with a frame of no bytes; [`Frame::key`] stays as it is.
    pub(crate) fn restart(&mut self) {
        self.start = HEADROOM as u16;
        self.end = HEADROOM as u16;
        self.payload.clear();
        self.payload_len = 0;
        self.payload_sum.set(None);
        self.layers = Layers::default();
        self.inner = None;
        self.tunnel = Tunnel::None;
        self.meta = Meta::default();
    }

    /// Begins again with a frame of the first `first_len` bytes of `first` and one piece of guest
    /// memory, which must both fit the header buffer; [`Frame::key`] stays as it is.
    #[inline(always)]
    pub(crate) fn refill<const N: usize>(&mut self, first: &[u8; N], first_len: usize, slice: &GuestSlice<'_>) {
        debug_assert!(first_len <= N && first_len + slice.len() <= HDR_CAP);
        self.restart();
        // A copy of a known length is shorter than one of few bytes.
        if let Some(room) = self.buf[HEADROOM..].first_chunk_mut() {
            *room = *first;
        }
        if let Some(room) = self.buf[HEADROOM..HEADROOM + HDR_CAP].get_mut(first_len..first_len + slice.len()) {
            small::read(slice, room);
            self.end += (first_len + slice.len()) as u16;
        }
    }

    /// Adds bytes to the header buffer; false where they do not fit or guest
    /// memory came before them.
    #[inline]
    #[must_use]
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let end = usize::from(self.end);
        let limit = HEADROOM + HDR_CAP;
        match self.buf[..limit].get_mut(end..end + bytes.len()).filter(|_| self.payload.is_empty()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.end += bytes.len() as u16;
                true
            }
            None => false,
        }
    }

    /// Adds guest memory, of which the header buffer takes what it still lacks
    /// of `head` bytes ([`HDR_CAP`] at most). False where the frame grows
    /// beyond [`MAX_LEN`].
    #[inline]
    #[must_use]
    pub(crate) fn append_slice(&mut self, slice: GuestSlice<'m>, head: usize) -> bool {
        let have = usize::from(self.end) - HEADROOM;
        if have.saturating_add(self.payload_len as usize).saturating_add(slice.len()) > MAX_LEN {
            return false;
        }
        let mut rest = slice;
        if have < head && self.payload.is_empty() {
            let n = slice.copy_to(&mut self.buf[HEADROOM + have..HEADROOM + head]);
            self.end += n as u16;
            match slice.offset(n) {
                Ok(s) => rest = s,
                Err(_) => return false,
            }
        }
        if !rest.is_empty() {
            self.payload_len += rest.len() as u32;
            self.payload.push(rest);
        }
        true
    }

    /// Whether there is an Ethernet header in the header buffer.
    pub(crate) fn is_long_enough(&self) -> bool {
        usize::from(self.end) - HEADROOM >= MIN_LEN
    }

    /// Builds a frame from bytes of ours, such as a wire's receive buffer.
    /// Refusals as [`Frame::gather`].
    pub fn from_bytes(bytes: &'m mut [u8]) -> Option<Self> {
        Self::gather(&[], [GuestSlice::from(bytes)])
    }

    /// Bytes in the header buffer, from the start of the frame.
    #[inline]
    pub fn headers(&self) -> &[u8] {
        &self.buf[usize::from(self.start)..usize::from(self.end)]
    }

    /// The header buffer for editing. Whoever changes what a parse has read
    /// keeps [`Frame::key`] and [`Frame::layers`] in step.
    #[inline]
    pub fn headers_mut(&mut self) -> &mut [u8] {
        &mut self.buf[usize::from(self.start)..usize::from(self.end)]
    }

    /// The header buffer from the start of the frame on, and how much of it is the frame.
    #[inline]
    pub(crate) fn headers_and_room(&mut self) -> (&mut [u8], usize) {
        let (start, end) = (usize::from(self.start), usize::from(self.end));
        (&mut self.buf[start..], end - start)
    }

    /// The headers to read and the key to fill.
    pub(crate) fn headers_and_key(&mut self) -> (&[u8], &mut MatchKey) {
        (&self.buf[usize::from(self.start)..usize::from(self.end)], &mut self.key)
    }

    /// Length of the frame in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.end - self.start) + self.payload_len as usize
    }

    /// Bytes behind the header buffer.
    pub fn payload_len(&self) -> usize {
        self.payload_len as usize
    }

    /// The frame's pieces in order, for a gathering write.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_, 'm>> {
        std::iter::once(Piece::Own(self.headers())).chain(self.payload.iter().map(|s| Piece::Guest(*s)))
    }

    /// Says where the frame comes from, for the match on source vport and
    /// source queue.
    pub fn set_source(&mut self, vport: u16, sqn: u32) {
        self.meta.source_vport = vport;
        self.meta.source_sqn = sqn;
        self.key.set(MISC, FteMatchSetMisc::source_port, u32::from(vport));
        self.key.set(MISC, FteMatchSetMisc::source_sqn, sqn);
    }

    /// A second frame over the same payload, for one more destination.
    pub fn replicate(&self) -> Self {
        self.clone()
    }

    /// Appends zeros until the frame has `min` bytes (at most [`HDR_CAP`]), as
    /// a MAC pads what it sends to 60.
    pub fn pad(&mut self, min: usize) {
        if self.payload_len == 0 {
            let end = (usize::from(self.start) + min).min(CAP);
            while usize::from(self.end) < end {
                self.buf[usize::from(self.end)] = 0;
                self.end += 1;
            }
        }
    }

    /// Makes room for `n` bytes at offset `at` of the headers by moving what
    /// is before them towards the headroom. None where there is no room; the
    /// frame is then as it was. The new bytes are not cleared.
    pub(crate) fn open(&mut self, at: usize, n: usize) -> Option<&mut [u8]> {
        let start = usize::from(self.start);
        if n > start || at > self.headers().len() {
            return None;
        }
        self.buf.copy_within(start..start + at, start - n);
        self.start = (start - n) as u16;
        Some(&mut self.buf[start - n + at..start + at])
    }

    /// Takes `n` bytes at offset `at` out of the headers. False where the
    /// frame would be shorter than an Ethernet header or the bytes are not in
    /// the header buffer; the frame is then as it was.
    pub(crate) fn close(&mut self, at: usize, n: usize) -> bool {
        let have = self.headers().len();
        if at.checked_add(n).is_none_or(|e| e > have) || have - n < MIN_LEN {
            return false;
        }
        let start = usize::from(self.start);
        self.buf.copy_within(start..start + at, start + n);
        self.start = (start + n) as u16;
        true
    }

    /// Makes this frame one of `of`'s first `hdr` bytes followed by `len` bytes
    /// of what lies `from` behind them. Both ranges must lie in `of`, and the
    /// headers in its header buffer. Layers and metadata are `of`'s, the match key stays.
    pub(crate) fn cut_from(&mut self, of: &Self, hdr: usize, from: usize, len: usize) {
        let h = of.headers();
        // Headers that have grown leave less room before them.
        let base = HEADROOM.min(CAP - h.len());
        self.buf[base..base + hdr].copy_from_slice(&h[..hdr]);
        // Payload that lies in the header buffer is copied, the rest shared.
        let own = &h[hdr..];
        let n = own.len().saturating_sub(from).min(len);
        if n > 0 {
            self.buf[base + hdr..base + hdr + n].copy_from_slice(&own[from..from + n]);
        }
        self.start = base as u16;
        self.end = (base + hdr + n) as u16;
        self.payload.clear();
        self.payload_sum.set(None);
        let mut skip = (from + n).saturating_sub(own.len());
        let mut left = len - n;
        self.payload_len = left as u32;
        for s in &of.payload {
            if left == 0 {
                break;
            }
            if skip >= s.len() {
                skip -= s.len();
                continue;
            }
            let take = left.min(s.len() - skip);
            if let Ok(piece) = s.subslice(skip, take) {
                self.payload.push(piece);
            }
            skip = 0;
            left -= take;
        }
        self.layers = of.layers;
        self.inner = of.inner;
        self.tunnel = of.tunnel;
        self.meta = of.meta;
        self.tunnel_ports = of.tunnel_ports;
    }

    /// Copies the frame from byte `skip` on into slices, in order, as far as
    /// both reach. Returns how many bytes were written; one copy a piece.
    pub fn scatter<'d>(&self, mut skip: usize, dst: impl IntoIterator<Item = GuestSlice<'d>>) -> usize {
        let mut src = self.pieces();
        let mut piece = src.next();
        let mut done = 0;
        for d in dst {
            let mut at = 0;
            while at < d.len() {
                let Some(p) = piece else { return done };
                if skip >= p.len() {
                    skip -= p.len();
                    piece = src.next();
                    continue;
                }
                let n = (p.len() - skip).min(d.len() - at);
                let Ok(to) = d.subslice(at, n) else { return done };
                match p {
                    Piece::Own(b) => to.copy_from(&b[skip..skip + n]),
                    Piece::Guest(s) => match s.subslice(skip, n) {
                        Ok(from) => from.copy_to_volatile_slice(to),
                        Err(_) => return done,
                    },
                }
                at += n;
                skip += n;
                done += n;
            }
        }
        done
    }

    /// Copies the frame into a buffer; returns how many bytes were written.
    pub fn write_into(&self, dst: &mut [u8]) -> usize {
        let mut at = 0;
        for p in self.pieces() {
            let room = &mut dst[at..];
            at += match p {
                Piece::Own(b) => {
                    let n = b.len().min(room.len());
                    room[..n].copy_from_slice(&b[..n]);
                    n
                }
                Piece::Guest(s) => s.copy_to(room),
            };
        }
        at
    }

    /// Ones-complement sum of everything behind the header buffer, as
    /// [`checksum::sum`]. Computed at the first call, then remembered.
    pub fn payload_sum(&self) -> u16 {
        if let Some(s) = self.payload_sum.get() {
            return s;
        }
        let s = checksum::sum_slices(&self.payload, self.payload_len());
        self.payload_sum.set(Some(s));
        s
    }

    /// Ones-complement sum of the bytes from `from`, which must lie in the
    /// header buffer, to `to`; both are cut to what there is.
    pub(crate) fn sum_range(&self, from: usize, to: usize) -> u16 {
        let h = self.headers();
        let to = to.min(self.len());
        let from = from.min(h.len()).min(to);
        let own = checksum::sum(&h[from..to.min(h.len())]);
        if to <= h.len() {
            return own;
        }
        let behind = to - h.len();
        let rest =
            if behind == self.payload_len() { self.payload_sum() } else { checksum::sum_slices(&self.payload, behind) };
        checksum::add(own, if (h.len() - from) % 2 == 1 { rest.swap_bytes() } else { rest })
    }
}

impl std::fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("len", &self.len())
            .field("layers", &self.layers)
            .field("tunnel", &self.tunnel)
            .field("inner", &self.inner)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn all(f: &Frame) -> Vec<u8> {
        let mut out = vec![0; f.len()];
        assert_eq!(f.write_into(&mut out), f.len());
        out
    }

    #[test]
    fn gathering_keeps_every_byte_in_order() {
        let whole = bytes(1000);
        for cuts in [[18, 19, 500], [0, 0, 0], [256, 256, 257], [100, 255, 999], [14, 300, 1000]] {
            let mut copy = whole.clone();
            let (a, rest) = copy.split_at_mut(cuts[0]);
            let (b, rest) = rest.split_at_mut(cuts[1] - cuts[0]);
            let (c, d) = rest.split_at_mut(cuts[2] - cuts[1]);
            let a = a.to_vec();
            let f = Frame::gather(&a, [b, c, d].map(GuestSlice::from)).unwrap();
            assert_eq!(f.headers().len(), HDR_CAP);
            assert_eq!(all(&f), whole);
            assert_eq!(f.sum_range(14, 1000), checksum::sum(&whole[14..]));
            assert_eq!(f.sum_range(15, 777), checksum::sum(&whole[15..777]));
            assert_eq!(f.sum_range(20, 99), checksum::sum(&whole[20..99]));
        }
    }

    #[test]
    fn frames_too_short_or_too_long_are_refused() {
        assert!(Frame::from_bytes(&mut [0; 13]).is_none());
        assert!(Frame::from_bytes(&mut [0; 14]).is_some());
        assert!(Frame::from_bytes(&mut vec![0; MAX_LEN]).is_some());
        assert!(Frame::from_bytes(&mut vec![0; MAX_LEN + 1]).is_none());
        assert!(Frame::gather(&[0; HDR_CAP + 1], []).is_none());
        assert!(Frame::gather(&[0; HDR_CAP], []).is_some());
    }

    #[test]
    fn scattering_fills_the_slices_given() {
        let whole = bytes(700);
        let mut copy = whole.clone();
        let f = Frame::from_bytes(&mut copy).unwrap();
        for skip in [0, 14, 256, 300, 699, 700, 900] {
            let (mut x, mut y, mut z) = ([0u8; 100], [0u8; 255], [0u8; 600]);
            let n = f.scatter(skip, [&mut x[..], &mut y[..], &mut z[..]].map(GuestSlice::from));
            assert_eq!(n, 700usize.saturating_sub(skip));
            let got: Vec<u8> = x.into_iter().chain(y).chain(z).take(n).collect();
            assert_eq!(got, whole[skip.min(700)..]);
        }
        let mut small = [0u8; 10];
        assert_eq!(f.scatter(0, [GuestSlice::from(&mut small[..])]), 10);
    }

    #[test]
    fn headers_open_and_close_only_where_there_is_room() {
        let mut copy = bytes(60);
        let mut f = Frame::from_bytes(&mut copy).unwrap();
        let before = all(&f);
        assert!(f.open(12, HEADROOM + 1).is_none());
        assert!(f.open(61, 1).is_none());
        f.open(12, 4).unwrap().copy_from_slice(&[9; 4]);
        assert_eq!((f.len(), &f.headers()[12..16], &f.headers()[16..]), (64, &[9; 4][..], &before[12..]));
        assert!(f.close(12, 4));
        assert_eq!(all(&f), before);
        assert!(!f.close(0, 47) && !f.close(40, 21) && !f.close(1, usize::MAX));
    }

    #[test]
    fn padding_is_zero_even_over_used_room() {
        let mut copy = bytes(20);
        let mut f = Frame::from_bytes(&mut copy).unwrap();
        f.pad(60);
        assert_eq!((f.len(), f.headers()[20..].iter().all(|b| *b == 0)), (60, true));
    }
}
