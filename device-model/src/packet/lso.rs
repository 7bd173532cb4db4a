//! Large send offload: one big frame cut into segments on its way out.

use sfnic_firmware_cmds::layouts::{FteMatchSetLyr24 as Lyr, FteMatchSetMisc as Misc, FteMatchSetMisc3 as Misc3};
use sfnic_firmware_cmds::{View, ViewMut};

use super::checksum::{Fill, fill, get16, l4_checksum_at, set_ip4_length};
use super::frame::Frame;
use super::headers::{Ipv4, Ipv6, Tcp, Udp, tcp_flag};
use super::key::{INNER, MISC, MISC3, OUTER};
use super::layers::{Fragment, L3, L4, Layers};

/// Most segments that one frame is cut into. A frame of 64 KiB with the
/// smallest MSS that Linux sends (48 bytes) makes 1,366; UDP sends at most 128.
pub const MAX_SEGMENTS: usize = 4096;

/// Longest IP packet.
const IP_MAX: usize = 0xffff;

/// How a frame is cut into segments.
pub(crate) struct Cut {
    plan: Plan,
    mss: usize,
    payload: usize,
}

impl Cut {
    /// Of a parsed frame; None where [`segment`] answers that.
    pub(crate) fn new(f: &Frame<'_>, mss: usize, hdr_len: usize) -> Option<Self> {
        let plan = Plan::new(f, hdr_len)?;
        let payload = f.len().checked_sub(hdr_len)?;
        if mss == 0 || hdr_len - usize::from(f.layers.l3_off) + mss.min(payload) > IP_MAX {
            return None;
        }
        let cut = Self { plan, mss, payload };
        (cut.count() <= MAX_SEGMENTS).then_some(cut)
    }

    /// How many segments there are.
    pub(crate) fn count(&self) -> usize {
        self.payload.div_ceil(self.mss).max(1)
    }

    /// Checksums that are to be filled in.
    pub(crate) fn fill(&self) -> Fill {
        self.plan.fill
    }

    /// Bytes of payload of each segment but the last one.
    pub(crate) fn mss(&self) -> usize {
        self.mss
    }

    /// Bytes of such a segment.
    pub(crate) fn len(&self) -> usize {
        self.plan.hdr_len + self.mss
    }

    /// TCP's sequence number of segment number `i`.
    pub(crate) fn seq(&self, i: usize) -> u32 {
        self.plan.seq.wrapping_add((i * self.mss) as u32)
    }

    /// Makes `s` the headers of the frame, as they are, before the payload of `count` segments from
    /// number `i` on, none of which is the last one.
    pub(crate) fn run<'m>(&self, f: &Frame<'m>, i: usize, count: usize, s: &mut Frame<'m>) {
        s.cut_from(f, self.plan.hdr_len, i * self.mss, count * self.mss);
    }

    /// Makes `s` segment number `i`, all but its checksums and its match key.
    pub(crate) fn segment<'m>(&self, f: &Frame<'m>, i: usize, s: &mut Frame<'m>) {
        let from = i * self.mss;
        s.cut_from(f, self.plan.hdr_len, from, self.mss.min(self.payload.saturating_sub(from)));
        self.plan.finish(s, i, from, i + 1 == self.count());
    }
}

/// What every segment starts from.
struct Plan {
    /// The segmented stack lies inside a tunnel.
    inner: bool,
    hdr_len: usize,
    ids: [u32; 2],
    seq: u32,
    flags: u32,
    fill: Fill,
}

/// Cuts a parsed frame into segments of `mss` bytes of payload and hands each
/// to `each`, in order; returns how many there were. `hdr_len` is the length of
/// all headers (the WQE's inline header): Ethernet to TCP or UDP, of the frame
/// itself or of what a tunnel carries.
///
/// Each segment has its own headers (IP lengths and IPv4 identification, TCP
/// sequence number and flags, UDP length) and shares the payload; its
/// checksums are filled, the outer UDP checksum of a tunnel only where the
/// frame has one. The match key is that of the segment. The segment may be
/// edited at will; the next one is made from `f` again.
///
/// None, and nothing handed out, where the headers do not end at `hdr_len`,
/// `mss` is 0, a segment would not be an IP packet, or there would be more than
/// [`MAX_SEGMENTS`].
pub fn segment<'m>(f: &Frame<'m>, mss: usize, hdr_len: usize, mut each: impl FnMut(&mut Frame<'m>)) -> Option<usize> {
    let cut = Cut::new(f, mss, hdr_len)?;
    let mut s = Frame::empty();
    for i in 0..cut.count() {
        s.key.0 = f.key.0;
        cut.segment(f, i, &mut s);
        fill(&mut s, cut.fill());
        each(&mut s);
    }
    Some(cut.count())
}

impl Plan {
    fn new(f: &Frame<'_>, hdr_len: usize) -> Option<Self> {
        let fits =
            |l: &Layers| matches!(l.l4, L4::Tcp | L4::Udp) && l.fragment == Fragment::Whole && l.l4_end() == hdr_len;
        let inner = f.inner.as_ref().is_some_and(fits);
        if !inner && !fits(&f.layers) {
            return None;
        }
        if inner && f.key.get(MISC, Misc::gre_c_present) == 1 {
            // GRE's own checksum would have to follow.
            return None;
        }
        let l = if inner { f.inner.as_ref()? } else { &f.layers };
        let (mut seq, mut flags) = (0, 0);
        if l.l4 == L4::Tcp {
            let v = View::<Tcp>::new(f.headers().get(usize::from(l.l4_off)..)?);
            (seq, flags) = (v.get(Tcp::seq), v.get(Tcp::flags));
        }
        let id =
            |l: &Layers| f.headers().get(usize::from(l.l3_off)..).map_or(0, |h| View::<Ipv4>::new(h).get(Ipv4::id));
        let outer_l4 = match l4_checksum_at(f, &f.layers) {
            Some(at) if inner => get16(f, at) != 0,
            _ => !inner,
        };
        Some(Self {
            inner,
            hdr_len,
            ids: [id(&f.layers), f.inner.as_ref().map_or(0, id)],
            seq,
            flags,
            fill: Fill { l3: true, l4: outer_l4, inner_l3: inner, inner_l4: inner },
        })
    }

    /// Writes the headers of segment `i`, whose payload starts at `from`.
    fn finish(&self, s: &mut Frame<'_>, i: usize, from: usize, last: bool) {
        let end = s.len();
        let mut layers = s.layers;
        lengths(s, &mut layers, end, self.ids[0].wrapping_add(i as u32));
        s.layers = layers;
        if self.inner
            && let Some(mut l) = s.inner
        {
            lengths(s, &mut l, end, self.ids[1].wrapping_add(i as u32));
            s.inner = Some(l);
        }
        let l = if self.inner { s.inner.as_mut() } else { Some(&mut s.layers) };
        if let Some(l) = l
            && l.l4 == L4::Tcp
        {
            let mut flags = self.flags;
            if !last {
                flags &= !(tcp_flag::FIN | tcp_flag::PSH);
            }
            if i > 0 {
                flags &= !tcp_flag::CWR;
            }
            let seq = self.seq.wrapping_add(from as u32);
            l.tcp_flags = flags as u16;
            let at = usize::from(l.l4_off);
            if let Some(h) = s.headers_mut().get_mut(at..) {
                ViewMut::<Tcp>::new(h).set(Tcp::seq, seq).set(Tcp::flags, flags);
            }
            let (block, field) = match self.inner {
                true => (INNER, Misc3::inner_tcp_seq_num),
                false => (OUTER, Misc3::outer_tcp_seq_num),
            };
            s.key.set(block, Lyr::tcp_flags, flags);
            s.key.set(MISC3, field, seq);
        }
        if !self.inner && s.inner.is_some() {
            // The payload looked like a tunnel; each segment is its own.
            s.parse();
        }
        debug_assert!(s.headers().len() >= self.hdr_len);
    }
}

/// Writes the lengths of one stack of headers for a frame that ends at `end`.
fn lengths(s: &mut Frame<'_>, l: &mut Layers, end: usize, id: u32) {
    let at = usize::from(l.l3_off);
    let size = end - at;
    let (l4, udp) = (usize::from(l.l4_off), l.l4 == L4::Udp);
    let h = s.headers_mut();
    if let Some(ip) = h.get_mut(at..) {
        match l.l3 {
            L3::Ipv4 => set_ip4_length(ip, size as u32, Some(id)),
            L3::Ipv6 => {
                ViewMut::<Ipv6>::new(ip).set(Ipv6::payload_len, size.saturating_sub(40) as u32 & 0xffff);
            }
            L3::None => {}
        }
    }
    if udp && let Some(u) = h.get_mut(l4..) {
        ViewMut::<Udp>::new(u).set(Udp::len, (end - l4) as u32 & 0xffff);
    }
    l.l3_end = end as u32;
    l.l3_len_ok = true;
}

#[cfg(test)]
mod tests {
    use super::super::checksum::verify;
    use super::super::frame::GuestSlice;
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    fn cut(raw: &mut [u8], hdr: usize, mss: usize, head: usize) -> Vec<Vec<u8>> {
        let (first, rest) = raw.split_at_mut(hdr);
        let mut f = Frame::gather_head(first, [GuestSlice::from(rest)], head).unwrap();
        f.parse();
        let mut out = vec![];
        let n = segment(&f, mss, hdr, |s| {
            let mut again = s.clone();
            again.parse();
            assert_eq!((&again.key, again.layers, again.inner), (&s.key, s.layers, s.inner));
            let v = verify(s);
            assert!(v.l3_ok() && v.l4_ok() && v.outer.has_l4, "{v:?}");
            let mut b = vec![0; s.len()];
            s.write_into(&mut b);
            out.push(b);
        });
        assert_eq!(n, Some(out.len()));
        out
    }

    #[test]
    fn segments_carry_the_payload_once_and_in_order() {
        for (ip, proto, hdr) in
            [(Ip::V4, Proto::Tcp, 54), (Ip::V6, Proto::Tcp, 74), (Ip::V4, Proto::Udp, 42), (Ip::V6, Proto::Udp, 62)]
        {
            for (payload, mss) in [(5000, 1448), (100, 1000), (0, 10), (257, 1), (4096, 1024), (333, 7)] {
                for head in [hdr, 256] {
                    let raw = samples::frame(ip, proto, payload);
                    let got = cut(&mut raw.clone(), hdr, mss, head);
                    assert_eq!(got.len(), payload.div_ceil(mss).max(1));
                    assert_eq!(got.iter().flat_map(|s| s[hdr..].to_vec()).collect::<Vec<_>>(), raw[hdr..]);
                    assert!(got.iter().all(|s| s[..12] == raw[..12]));
                }
            }
        }
    }

    #[test]
    fn tcp_flags_fall_where_they_belong() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 3000);
        raw[47] = 0x99; // CWR, ACK, PSH, FIN
        let got = cut(&mut raw, 54, 1000, 54);
        assert_eq!(got.iter().map(|s| s[47]).collect::<Vec<_>>(), [0x90, 0x10, 0x19]);
        let seqs: Vec<u32> = got.iter().map(|s| u32::from_be_bytes([s[38], s[39], s[40], s[41]])).collect();
        assert_eq!(seqs, [0x1000, 0x1000 + 1000, 0x1000 + 2000]);
        let ids: Vec<u16> = got.iter().map(|s| u16::from_be_bytes([s[18], s[19]])).collect();
        assert_eq!(ids, [0x1234, 0x1235, 0x1236]);
    }

    #[test]
    fn a_tunnels_inside_is_segmented() {
        for sum in [0u8, 1] {
            let mut raw = samples::udp_tunnel(4789, 5, &samples::frame(Ip::V4, Proto::Tcp, 2500));
            raw[41] = sum;
            let got = cut(&mut raw, 104, 1000, 104);
            assert_eq!(got.len(), 3);
            // Outer lengths, and the outer checksum only where there was one.
            assert_eq!(got[0][16..18], 1090u16.to_be_bytes());
            assert_eq!(got[2][38..40], 570u16.to_be_bytes());
            assert!(got.iter().all(|s| (s[40..42] != [0, 0]) == (sum == 1)));
        }
    }

    #[test]
    fn lengths_of_zero_are_as_the_stack_leaves_them() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 3000);
        raw[16..18].fill(0);
        assert_eq!(cut(&mut raw, 54, 1448, 54).len(), 3);
        let mut raw = samples::frame(Ip::V6, Proto::Tcp, 3000);
        raw[18..20].fill(0);
        assert_eq!(cut(&mut raw, 74, 1448, 74).len(), 3);
    }

    #[test]
    fn absurd_requests_are_refused() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 60_000);
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let no = |mss, hdr| assert_eq!(segment(&f, mss, hdr, |_| panic!("a segment")), None, "{mss} {hdr}");
        no(0, 54);
        no(14, 54);
        no(1448, 53);
        no(1448, 55);
        no(1448, 0);
        no(1448, usize::MAX);
        assert_eq!(segment(&f, usize::MAX, 54, |_| ()), Some(1));
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 65_530);
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        assert_eq!(segment(&f, 65_530, 54, |_| ()), None);
    }
}
