//! Filling in, verifying and summing of a frame's checksums in one go: for most
//! frames each byte is added up once.
//!
//! Sums are of 64-bit words in memory order, folded when a field is made of them.

use sfnic_firmware_cmds::Layout;

use super::checksum::{Fill, fill, fold, l4_checksum_at, l4_length, rx_check_sum, verify_after};
use super::frame::Frame;
use super::headers::{Ipv4, Tcp, Udp, protocol};
use super::layers::{Fragment, L3, L4};

/// What the completion tells of a frame's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// As [`Verdict::l3_ok`].
    pub l3_ok: bool,
    /// As [`Verdict::l4_ok`].
    pub l4_ok: bool,
    /// As [`rx_check_sum`].
    pub check_sum: u16,
}

/// [`fill`], [`verify`] and [`rx_check_sum`] in this order; for most frames
/// each byte is added up once.
pub fn fill_and_sum(f: &mut Frame<'_>, what: Fill) -> Summary {
    if let Some(s) = fill_and_sum_at_once(f, what) {
        return s;
    }
    let filled = fill(f, what);
    let v = verify_after(f, filled);
    Summary { l3_ok: v.l3_ok(), l4_ok: v.l4_ok(), check_sum: rx_check_sum(f) }
}

/// As [`fill_and_sum`] of what most small frames are: IPv4 without options or tags, TCP or UDP,
/// all of it in the header buffer and nothing behind it. None, and nothing done, where it is
/// another one.
#[inline(always)]
pub fn fill_and_sum_plain(f: &mut Frame<'_>, what: Fill) -> Option<Summary> {
    const UDP_HEADERS: usize = PLAIN_L4 + Udp::SIZE;
    const TCP_HEADERS: usize = PLAIN_L4 + Tcp::SIZE;
    let l = &f.layers;
    let plain = l.l3 == L3::Ipv4
        && usize::from(l.l3_off) == super::frame::MIN_LEN
        && usize::from(l.l4_off) == PLAIN_L4
        && l.l3_len_ok
        && l.fragment == Fragment::Whole
        && f.inner.is_none()
        && f.payload_len() == 0
        && l.l3_end as usize == f.len();
    match l.l4 {
        L4::Udp if plain => small::<UDP_HEADERS, { PLAIN_L4 + 6 }>(f.headers_and_room(), what, true),
        L4::Tcp if plain => small::<TCP_HEADERS, { PLAIN_L4 + 16 }>(f.headers_and_room(), what, false),
        _ => None,
    }
}

/// Where TCP or UDP begins in such a frame.
const PLAIN_L4: usize = super::frame::MIN_LEN + Ipv4::SIZE;

/// `HEAD` bytes of headers with the transport checksum at `AT`. The frame are the first bytes of
/// what is given.
#[inline(always)]
fn small<const HEAD: usize, const AT: usize>((h, len): (&mut [u8], usize), what: Fill, udp: bool) -> Option<Summary> {
    const IP: usize = super::frame::MIN_LEN;
    let len = len.checked_sub(PLAIN_L4)?;
    let mut body = first_words(h.get(PLAIN_L4..)?, len)?;
    let h = h.first_chunk_mut::<HEAD>()?;
    if udp && usize::from(u16::from_be_bytes([h[PLAIN_L4 + 4], h[PLAIN_L4 + 5]])) != len {
        return None;
    }
    let protocol = if udp { protocol::UDP } else { protocol::TCP };
    let numbers = u64::from(u16::from(protocol).to_be()) + u64::from((len as u32).to_be());
    let mut ip = words(&h[IP..PLAIN_L4]);
    let pseudo = carry(words(&h[IP + 12..PLAIN_L4]), numbers);
    let told = u16::from_ne_bytes([h[AT], h[AT + 1]]);
    let l4_ok = if what.l4 {
        let without = carry(body, u64::from(!told));
        let c = match !fold(carry(pseudo, without)) {
            0 if udp => 0xffff,
            c => c,
        };
        [h[AT], h[AT + 1]] = c.to_ne_bytes();
        body = carry(without, u64::from(c));
        true
    } else {
        (udp && told == 0) || fold(carry(pseudo, body)) == 0xffff
    };
    let l3_ok = if what.l3 {
        let told = u16::from_ne_bytes([h[IP + 10], h[IP + 11]]);
        [h[IP + 10], h[IP + 11]] = (!fold(carry(ip, u64::from(!told)))).to_ne_bytes();
        ip = 0xffff;
        true
    } else {
        fold(ip) == 0xffff
    };
    Some(Summary { l3_ok, l4_ok, check_sum: u16::from_be(fold(carry(ip, body))) })
}

/// None, and nothing done, where the frame is not a plain TCP or UDP packet
/// that fills its headers' lengths.
fn fill_and_sum_at_once(f: &mut Frame<'_>, what: Fill) -> Option<Summary> {
    let l = f.layers;
    let (l3, l4) = (usize::from(l.l3_off), usize::from(l.l4_off));
    let len = l4_length(f, &l).filter(|_| f.inner.is_none() && l.fragment == Fragment::Whole)?;
    let end = l4 + len;
    let h = f.headers();
    // What is behind starts at an even offset or is not there.
    let behind = h.get(end..).filter(|_| f.payload_len() == 0).unwrap_or(&[]);
    if end + behind.len() != f.len() || (len % 2 == 1 && !behind.is_empty()) || l3 % 2 == 1 {
        return None;
    }
    let at = l4_checksum_at(f, &l)?;
    let mut around = words(behind);
    if l3 > super::frame::MIN_LEN {
        around = carry(around, words(h.get(super::frame::MIN_LEN..l3)?));
    }
    let (packet, l3_len) = (h.get(l3..)?, l4.checked_sub(l3)?);
    // Headers of a known length take few instructions.
    let (mut ip, addresses) = match l.l3 {
        L3::Ipv4 if l3_len == Ipv4::SIZE => {
            let ip = packet.first_chunk::<{ Ipv4::SIZE }>()?;
            (words(ip), words(ip.last_chunk::<8>()?))
        }
        L3::Ipv4 => (words(packet.get(..l3_len)?), words(packet.get(12..20)?)),
        _ => (words(packet.get(..l3_len)?), words(packet.get(8..40)?)),
    };
    let own = h.get(l4..end.min(h.len()))?;
    let mut body = words(own);
    if end > h.len() {
        let rest = f.payload_sum();
        body = carry(body, u64::from(u16::to_be(if own.len() % 2 == 1 { rest.swap_bytes() } else { rest })));
    }
    // Protocol and length are two big-endian fields.
    let numbers = u64::from(u16::from(l.ip_protocol).to_be()) + u64::from((len as u32).to_be());
    let pseudo = carry(addresses, numbers);
    // In memory order, like the sums.
    let field = |at: usize| h.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b));
    let (udp, told) = (l.l4 == L4::Udp, field(at)?);
    let (mut new_l4, mut new_l3) = (None, None);
    let l4_ok = if what.l4 {
        let without = carry(body, u64::from(!told));
        let c = match !fold(carry(pseudo, without)) {
            0 if udp => 0xffff,
            c => c,
        };
        new_l4 = Some(c);
        body = carry(without, u64::from(c));
        true
    } else if udp && told == 0 {
        l.l3 == L3::Ipv4
    } else {
        fold(carry(pseudo, body)) == 0xffff
    };
    let mut l3_ok = true;
    if l.l3 == L3::Ipv4 {
        if what.l3 {
            new_l3 = Some(!fold(carry(ip, u64::from(!field(l3 + 10)?))));
            ip = 0xffff;
        }
        l3_ok = fold(ip) == 0xffff;
    }
    let h = f.headers_mut();
    for (at, new) in [(at, new_l4), (l3 + 10, new_l3)] {
        if let Some(new) = new
            && let Some(place) = h.get_mut(at..).and_then(<[u8]>::first_chunk_mut)
        {
            *place = new.to_ne_bytes();
        }
    }
    Some(Summary { l3_ok, l4_ok, check_sum: u16::from_be(fold(carry(around, carry(ip, body)))) })
}

/// Sum of 64-bit words in memory order, the rest as shorter ones: few
/// instructions for the few bytes of headers.
#[inline(always)]
fn words(bytes: &[u8]) -> u64 {
    let (all, rest) = bytes.as_chunks::<8>();
    let (four, rest) = rest.as_chunks::<4>();
    let (two, last) = rest.as_chunks::<2>();
    let s = all.iter().fold(0, |s, w| carry(s, u64::from_ne_bytes(*w)));
    let s = four.iter().fold(s, |s, w| carry(s, u32::from_ne_bytes(*w).into()));
    let s = two.iter().fold(s, |s, w| carry(s, u16::from_ne_bytes(*w).into()));
    last.iter().fold(s, |s, b| carry(s, u16::from_ne_bytes([*b, 0]).into()))
}

/// As [`words`] of the first `len` bytes, behind which there may be others: no shorter words.
#[inline(always)]
fn first_words(bytes: &[u8], len: usize) -> Option<u64> {
    let all = bytes.as_chunks::<8>().0;
    let whole = all.get(..len / 8)?.iter().fold(0, |s, w| carry(s, u64::from_ne_bytes(*w)));
    let rest = len % 8;
    if rest == 0 {
        return Some(whole);
    }
    let last = u64::from_le_bytes(*all.get(len / 8)?) & ((1 << (8 * rest)) - 1);
    Some(carry(whole, u64::from_ne_bytes(last.to_le_bytes())))
}

/// Adds with the carry at the other end.
#[inline]
const fn carry(a: u64, b: u64) -> u64 {
    let (s, over) = a.overflowing_add(b);
    s + over as u64
}

#[cfg(test)]
mod tests {
    use super::super::checksum::verify;
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    #[test]
    fn adding_up_once_is_adding_up_thrice() {
        let (mut n, mut quick, mut plains) = (0u32, 0, 0);
        for ip in [Ip::V4, Ip::V6] {
            for proto in [Proto::Tcp, Proto::Udp] {
                for payload in [0, 1, 18, 31, 200, 333, 1400, 1401] {
                    for pad in [0, 1, 6, 60] {
                        for (l3, l4) in [(false, false), (true, false), (false, true), (true, true)] {
                            n += 1;
                            let mut raw = samples::frame(ip, proto, payload);
                            raw.resize(raw.len() + pad, n as u8);
                            // Bytes that the headers' checksums cover, or are.
                            let at = 18 + (n as usize * 7) % 50;
                            if n % 3 == 0 && at != 46 && at < raw.len() {
                                raw[at] ^= n as u8;
                            }
                            let mut copy = raw.clone();
                            let (mut a, mut b) =
                                (Frame::from_bytes(&mut raw).unwrap(), Frame::from_bytes(&mut copy).unwrap());
                            a.parse();
                            b.parse();
                            let what = Fill { l3, l4, ..Fill::default() };
                            fill(&mut a, what);
                            let v = verify(&a);
                            let want = Summary { l3_ok: v.l3_ok(), l4_ok: v.l4_ok(), check_sum: rx_check_sum(&a) };
                            quick += u32::from(fill_and_sum_at_once(&mut b.clone(), what).is_some());
                            let mut plain = b.clone();
                            if let Some(sums) = fill_and_sum_plain(&mut plain, what) {
                                assert_eq!((sums, plain.headers()), (want, a.headers()));
                                plains += 1;
                            }
                            assert_eq!(fill_and_sum(&mut b, what), want, "{ip:?} {proto:?} {payload} {pad} {what:?}");
                            assert_eq!(a.headers(), b.headers());
                        }
                    }
                }
            }
        }
        // Odd lengths with padding, long padding and wrong lengths take the other.
        assert!(plains > 30, "{plains} are plain");
        assert!(quick * 3 > n, "the quick way is taken: {quick} of {n}");
    }
}
