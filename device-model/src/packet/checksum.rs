//! Internet checksums (RFC 1071): verify on receive, fill on transmit, repair
//! where headers are edited.
//!
//! Sums are kept as the sum of big-endian 16-bit words, folded to 16 bits and
//! not complemented.

use sfnic_firmware_cmds::{View, ViewMut};

pub use super::at_once::{Summary, fill_and_sum, fill_and_sum_plain};
use super::frame::{Frame, GuestSlice};
use super::headers::{Ipv4, Udp, protocol};
use super::layers::{Fragment, L3, L4, Layers};
use super::volatile;

/// Adds two sums.
pub const fn add(a: u16, b: u16) -> u16 {
    let (s, carry) = a.overflowing_add(b);
    s + carry as u16
}

pub(super) const fn fold(s: u64) -> u16 {
    // Added to itself with its halves swapped, the upper half is the sum of
    // both with the carry.
    let s = (s.wrapping_add(s.rotate_left(32)) >> 32) as u32;
    (s.wrapping_add(s.rotate_left(16)) >> 16) as u16
}

/// A sum under way: two sums of 32-bit halves of 64-bit words in memory order.
/// No carry is lost below 2^32 words, and the compiler makes vectors of it.
#[derive(Default)]
pub(super) struct Sum {
    lo: u64,
    hi: u64,
}

impl Sum {
    /// Adds bytes that start at an even offset. An odd last byte is a high
    /// byte, and the end.
    #[inline(always)]
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for w in words {
            self.word(*w);
        }
        if !rest.is_empty() {
            let mut last = [0u8; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(last);
        }
    }
    #[inline(always)]
    fn word(&mut self, w: [u8; 8]) {
        let v = u64::from_ne_bytes(w);
        self.lo += v & 0xffff_ffff;
        self.hi += v >> 32;
    }
    /// Adds a sum of fewer than 2^32 words in memory order.
    #[inline(always)]
    pub(super) fn words(&mut self, sum: u128) {
        let (carries, v) = ((sum >> 64) as u64, sum as u64);
        self.lo += (v & 0xffff_ffff) + carries;
        self.hi += v >> 32;
    }
    fn finish(self) -> u16 {
        u16::from_be(add(fold(self.lo), fold(self.hi)))
    }
}

/// Sum of bytes as big-endian 16-bit words; an odd last byte is a high byte.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut s = Sum::default();
    s.add(bytes);
    s.finish()
}

/// Sum of the first `len` bytes of slices in order.
pub(crate) fn sum_slices(slices: &[GuestSlice<'_>], len: usize) -> u16 {
    let (mut total, mut left, mut odd) = (0u16, len, false);
    for s in slices {
        let n = s.len().min(left);
        let mut one = Sum::default();
        volatile::add_to(&mut one, s, n);
        let one = one.finish();
        total = add(total, if odd { one.swap_bytes() } else { one });
        odd ^= n % 2 == 1;
        left -= n;
    }
    total
}

impl Frame<'_> {
    /// Completes a checksum over all bytes from `start` on, which is `offset` behind it and
    /// holds the sum of a pseudo header. Where that is not in the frame, nothing happens.
    pub fn complete_checksum(&mut self, start: usize, offset: usize) {
        let len = self.len();
        if start > self.headers().len() {
            return;
        }
        let sum = match !self.sum_range(start, len) {
            0 => 0xffff, // to UDP 0 means none
            sum => sum,
        };
        if let Some(place) = self.headers_mut().get_mut(start..).and_then(|data| data.get_mut(offset..offset + 2)) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Repairs a checksum after bytes that summed to `old` became bytes that sum
/// to `new` (RFC 1624, equation 3).
pub const fn repair(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// Outcome of checking one stack of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Check {
    /// There is an IP header.
    pub has_l3: bool,
    /// Its length fits, and IPv4's checksum is right.
    pub l3_ok: bool,
    /// There is a TCP or UDP header, not in a fragment.
    pub has_l4: bool,
    /// Its checksum is right, or is UDP's "none" over IPv4.
    pub l4_ok: bool,
}

/// Outcome of checking a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// The frame's own headers.
    pub outer: Check,
    /// Headers inside a tunnel.
    pub inner: Option<Check>,
}

impl Verdict {
    /// No network header is wrong: CQE `l3_ok`.
    pub fn l3_ok(&self) -> bool {
        self.outer.l3_ok && self.inner.is_none_or(|i| i.l3_ok || !i.has_l3)
    }
    /// No transport header is wrong, and there is one: CQE `l4_ok`.
    pub fn l4_ok(&self) -> bool {
        self.outer.l4_ok && self.inner.is_none_or(|i| i.l4_ok || !i.has_l4)
    }
}

/// Which checksums a send WQE asks for (`MLX5_ETH_WQE_*_CSUM`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill {
    /// IPv4 header checksum.
    pub l3: bool,
    /// TCP or UDP checksum.
    pub l4: bool,
    /// IPv4 header checksum inside a tunnel.
    pub inner_l3: bool,
    /// TCP or UDP checksum inside a tunnel.
    pub inner_l4: bool,
}

fn ip4_header<'f>(f: &'f Frame<'_>, l: &Layers) -> Option<&'f [u8]> {
    f.headers().get(usize::from(l.l3_off)..usize::from(l.l3_off) + usize::from(l.l3_len))
}

/// Bytes that the transport checksum covers, and whether they fit the packet.
pub(super) fn l4_length(f: &Frame<'_>, l: &Layers) -> Option<usize> {
    let room = (l.l3_end as usize).checked_sub(usize::from(l.l4_off))?;
    if !l.l3_len_ok {
        return None;
    }
    match l.l4 {
        L4::Tcp => Some(room),
        L4::Udp => {
            let told = View::<Udp>::new(f.headers().get(usize::from(l.l4_off)..)?).get(Udp::len) as usize;
            (told >= usize::from(l.l4_len) && told <= room).then_some(told)
        }
        _ => None,
    }
}

/// Sum of the pseudo header (RFC 768, RFC 9293, RFC 8200 section 8.1).
fn pseudo(f: &Frame<'_>, l: &Layers, proto: u8, len: usize) -> u16 {
    let h = f.headers();
    let addresses = match l.l3 {
        L3::Ipv4 => usize::from(l.l3_off) + 12..usize::from(l.l3_off) + 20,
        L3::Ipv6 => usize::from(l.l3_off) + 8..usize::from(l.l3_off) + 40,
        L3::None => 0..0,
    };
    let s = h.get(addresses).map_or(0, sum);
    add(add(s, u16::from(proto)), fold(len as u64))
}

/// Offset of the transport checksum in the headers: TCP's or UDP's also in a
/// first fragment, and ICMPv6's.
pub(crate) fn l4_checksum_at(f: &Frame<'_>, l: &Layers) -> Option<usize> {
    if l.l3 == L3::None || l.fragment == Fragment::Later {
        return None;
    }
    let off = match l.ip_protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::ICMPV6 => 2,
        _ => return None,
    };
    let at = usize::from(l.l4_off) + off;
    (at + 2 <= f.headers().len().min(l.l3_end as usize)).then_some(at)
}

fn check(f: &Frame<'_>, l: &Layers, known: Filled) -> Check {
    let mut c = Check::default();
    match l.l3 {
        L3::None => return c,
        L3::Ipv4 => {
            c.has_l3 = true;
            c.l3_ok = l.l3_len_ok && (known.l3 || ip4_header(f, l).is_some_and(|h| sum(h) == 0xffff));
        }
        L3::Ipv6 => {
            c.has_l3 = true;
            c.l3_ok = l.l3_len_ok;
        }
    }
    if matches!(l.l4, L4::Tcp | L4::Udp) {
        c.has_l4 = true;
        if known.l4 {
            c.l4_ok = true;
            return c;
        }
        let off = usize::from(l.l4_off);
        let none =
            l.l4 == L4::Udp && f.headers().get(off..).is_some_and(|h| View::<Udp>::new(h).get(Udp::checksum) == 0);
        c.l4_ok = match l4_length(f, l) {
            Some(_) if none => l.l3 == L3::Ipv4,
            Some(len) => add(pseudo(f, l, l.ip_protocol, len), f.sum_range(off, off + len)) == 0xffff,
            None => false,
        };
    }
    c
}

/// Checks the checksums of a parsed frame. A frame without IP or without TCP
/// and UDP is neither right nor wrong: see [`Check`].
pub fn verify(f: &Frame<'_>) -> Verdict {
    verify_after(f, Filled::default())
}

/// As [`verify`] for a frame that nothing happened to since [`fill`].
pub fn verify_after(f: &Frame<'_>, filled: Filled) -> Verdict {
    let inner = f.inner.as_ref().map(|l| check(f, l, Filled::default()));
    Verdict { outer: check(f, &f.layers, filled), inner }
}

/// Checksums of the outer headers that were computed just now, and so are
/// right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    l3: bool,
    l4: bool,
}

fn fill_layer(f: &mut Frame<'_>, l: &Layers, l3: bool, l4: bool) -> Filled {
    let mut done = Filled::default();
    if l4
        && l.fragment == Fragment::Whole
        && let Some(len) = l4_length(f, l)
        && let Some(at) = l4_checksum_at(f, l)
    {
        let off = usize::from(l.l4_off);
        put16(f, at, 0);
        let mut c = !add(pseudo(f, l, l.ip_protocol, len), f.sum_range(off, off + len));
        if c == 0 && l.l4 == L4::Udp {
            c = 0xffff;
        }
        put16(f, at, c);
        done.l4 = true;
    }
    if l3 && l.l3 == L3::Ipv4 {
        put16(f, usize::from(l.l3_off) + 10, 0);
        let c = ip4_header(f, l).map_or(0, |h| !sum(h));
        put16(f, usize::from(l.l3_off) + 10, c);
        done.l3 = true;
    }
    done
}

/// Computes and places the checksums asked for; whatever the stack has left in
/// them is ignored. Fragments and packets whose lengths are wrong keep their
/// transport checksum.
pub fn fill(f: &mut Frame<'_>, what: Fill) -> Filled {
    // From the inside out: the outer UDP checksum covers the inner ones.
    if let Some(l) = f.inner {
        fill_layer(f, &l, what.inner_l3, what.inner_l4);
    }
    let l = f.layers;
    fill_layer(f, &l, what.l3, what.l4)
}

pub(crate) fn get16(f: &Frame<'_>, at: usize) -> u16 {
    f.headers().get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

pub(crate) fn put16(f: &mut Frame<'_>, at: usize, v: u16) {
    if let Some(b) = f.headers_mut().get_mut(at..at + 2) {
        b.copy_from_slice(&v.to_be_bytes());
    }
}

/// The CQE's `check_sum` (to be stored as the big-endian field that it is) of
/// a frame as it is delivered.
///
/// The driver takes it as `CHECKSUM_COMPLETE` (`mlx5e_handle_csum` in
/// `en_rx.c`): the sum, not complemented, over everything behind the 14-byte
/// Ethernet header. With `cqe_checksum_full` set it is used as it is, so VLAN
/// tags left in the frame and padding behind the IP packet count; a tag that
/// was stripped does not, because it is not in memory. Without that capability
/// the driver expects the sum to start at the IP header and end with the IP
/// packet, and adds the rest itself; this function is not for that case.
/// The driver ignores the field in frames of up to 64 bytes, in frames that
/// are not IP, and for SCTP.
pub fn rx_check_sum(f: &Frame<'_>) -> u16 {
    f.sum_range(super::frame::MIN_LEN, f.len())
}

/// Rewrites bytes `at..at+new.len()` of the headers and repairs the checksums
/// that cover them: the IPv4 header checksum and the transport checksum of
/// `l`, as asked. `at` has to be even from the start of its header.
pub(crate) fn rewrite(f: &mut Frame<'_>, l: &Layers, at: usize, new: &[u8], ip: bool, l4: bool) {
    let Some(place) = f.headers_mut().get_mut(at..at + new.len()) else { return };
    let before = sum(place);
    place.copy_from_slice(new);
    let after = sum(new);
    if before == after {
        return;
    }
    if ip && l.l3 == L3::Ipv4 {
        let c = usize::from(l.l3_off) + 10;
        put16(f, c, repair(get16(f, c), before, after));
    }
    if l4 && let Some(c) = l4_checksum_at(f, l) {
        let was = get16(f, c);
        let udp = l.ip_protocol == protocol::UDP;
        if udp && was == 0 {
            return;
        }
        let mut now = repair(was, before, after);
        if udp && now == 0 {
            now = 0xffff;
        }
        put16(f, c, now);
    }
}

/// Writes IPv4's total length and identification without minding checksums.
pub(crate) fn set_ip4_length(header: &mut [u8], total: u32, id: Option<u32>) {
    let mut v = ViewMut::<Ipv4>::new(header);
    v.set(Ipv4::total_len, total & 0xffff);
    if let Some(id) = id {
        v.set(Ipv4::id, id & 0xffff);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut s = 0u32;
        for (i, b) in bytes.iter().enumerate() {
            s += u32::from(*b) << if i % 2 == 0 { 8 } else { 0 };
        }
        while s > 0xffff {
            s = (s >> 16) + (s & 0xffff);
        }
        s as u16
    }

    #[test]
    fn sums_agree_with_the_definition() {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for (a, b) in [(0, 0), (0, 1), (0, 2), (1, 20), (0, 1500), (3, 3000), (7, 1031)] {
            assert_eq!(sum(&bytes[a..b]), slow(&bytes[a..b]), "{a}..{b}");
        }
        assert_eq!(sum(&[0xff; 64]), 0xffff);
        // The example of RFC 1071 section 3.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn slices_of_odd_length_sum_as_one_run() {
        let mut bytes: Vec<u8> = (0..5000u32).map(|i| (i * i + 3) as u8).collect();
        let want = slow(&bytes);
        let part = slow(&bytes[..2999]);
        let (a, rest) = bytes.split_at_mut(1);
        let (b, rest) = rest.split_at_mut(1025);
        let (c, d) = rest.split_at_mut(2000);
        let s = [a, b, c, d].map(GuestSlice::from);
        assert_eq!(sum_slices(&s, 5000), want);
        assert_eq!(sum_slices(&s, 2999), part);
        assert_eq!(sum_slices(&s, 0), 0);
    }

    #[test]
    fn slices_of_every_length_sum_as_their_bytes() {
        let mut bytes: Vec<u8> = (0..300u32).map(|i| (i * i * 7 + 3) as u8).collect();
        bytes[..64].fill(0xff);
        for start in 0..9 {
            for len in 0..280 {
                let want = slow(&bytes[start..start + len]);
                let slice = [GuestSlice::from(&mut bytes[start..start + len])];
                assert_eq!(sum_slices(&slice, len), want, "{len} bytes from {start}");
            }
        }
    }

    #[test]
    fn filling_makes_wrong_checksums_right() {
        for ip in [Ip::V4, Ip::V6] {
            for proto in [Proto::Tcp, Proto::Udp] {
                for len in [0, 1, 2, 300, 1401] {
                    let mut raw = samples::frame(ip, proto, len);
                    let mut f = Frame::from_bytes(&mut raw).unwrap();
                    f.parse();
                    let at = l4_checksum_at(&f, &f.layers).unwrap();
                    put16(&mut f, at, 0x1234);
                    assert!(!verify(&f).l4_ok(), "{ip:?} {proto:?} {len}");
                    fill(&mut f, Fill { l3: true, l4: true, ..Fill::default() });
                    let v = verify(&f);
                    assert!(v.l3_ok() && v.l4_ok(), "{ip:?} {proto:?} {len}: {v:?}");
                }
            }
        }
    }

    #[test]
    fn padding_is_outside_the_transport_checksum() {
        let mut raw = samples::frame(Ip::V4, Proto::Udp, 3);
        raw.resize(60, 0xaa);
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        fill(&mut f, Fill { l3: true, l4: true, ..Fill::default() });
        assert!(verify(&f).l4_ok());
        let mut long = samples::frame(Ip::V4, Proto::Tcp, 400);
        long.extend([0x55; 33]);
        let mut f = Frame::from_bytes(&mut long).unwrap();
        f.parse();
        fill(&mut f, Fill { l3: true, l4: true, ..Fill::default() });
        assert!(verify(&f).l4_ok());
        // check_sum covers it.
        let mut out = vec![0; f.len()];
        f.write_into(&mut out);
        assert_eq!(rx_check_sum(&f), slow(&out[14..]));
    }

    #[test]
    fn udp_without_a_checksum_is_right_over_ipv4_only() {
        for (ip, ok) in [(Ip::V4, true), (Ip::V6, false)] {
            let mut raw = samples::frame(ip, Proto::Udp, 50);
            let mut f = Frame::from_bytes(&mut raw).unwrap();
            f.parse();
            let at = l4_checksum_at(&f, &f.layers).unwrap();
            put16(&mut f, at, 0);
            assert_eq!(verify(&f).l4_ok(), ok);
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_is_sent_as_ones() {
        // Let two payload bytes be what is missing to 0xffff.
        let mut raw = samples::frame(Ip::V4, Proto::Udp, 2);
        let n = raw.len();
        raw[n - 2..].fill(0);
        let mut copy = raw.clone();
        let mut f = Frame::from_bytes(&mut copy).unwrap();
        f.parse();
        fill(&mut f, Fill { l4: true, ..Fill::default() });
        let at = l4_checksum_at(&f, &f.layers).unwrap();
        let c = get16(&f, at);
        raw[n - 2..].copy_from_slice(&c.to_be_bytes());
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        fill(&mut f, Fill { l4: true, ..Fill::default() });
        assert_eq!(get16(&f, at), 0xffff);
        assert!(verify(&f).l4_ok());
    }
}
