//! Large receive offload: what of a frame decides whether it is joined with others.

use sfnic_firmware_cmds::layout::Layout;
use sfnic_firmware_cmds::{View, ViewMut};

use super::checksum::{self, Summary};
use super::frame::{Frame, MIN_LEN};
use super::headers::{Ipv4, Ipv6, Tcp, tcp_flag};
use super::layers::{Fragment, L3, L4};
use crate::queue::{SAME, Segment};

/// The segment that a parsed frame is, where it may be joined with others: TCP with
/// data, with an ACK and at most a PSH beside it, IPv4 without options or IPv6 without
/// extension headers, no fragment, no tunnel, nothing behind the IP packet, and all its
/// checksums right as `sums` has it. The driver knows no other headers
/// (`mlx5e_lro_update_hdr`).
pub fn segment(f: &Frame<'_>, sums: &Summary) -> Option<Segment> {
    let l = &f.layers;
    let (l3, l4, end) = (usize::from(l.l3_off), usize::from(l.l4_off), l.l4_end());
    let plain = match l.l3 {
        L3::Ipv4 => usize::from(l.l3_len) == Ipv4::SIZE,
        L3::Ipv6 => usize::from(l.l3_len) == Ipv6::SIZE,
        L3::None => false,
    };
    let flags = u32::from(l.tcp_flags);
    if !plain
        || l.l4 != L4::Tcp
        || l.fragment != Fragment::Whole
        || f.inner.is_some()
        || l.l3_end as usize != f.len()
        || flags & !tcp_flag::PSH != tcp_flag::ACK
        || !(sums.l3_ok && sums.l4_ok)
    {
        return None;
    }
    let payload = u16::try_from(f.len().checked_sub(end)?).ok().filter(|n| *n > 0)?;
    let headers = f.headers().get(..end)?;
    let mut same = [0; SAME];
    same.get_mut(..end)?.copy_from_slice(headers);
    let ttl = match l.l3 {
        L3::Ipv4 => {
            let mut ip = ViewMut::<Ipv4>::new(same.get_mut(l3..)?);
            let ttl = ip.as_view().get(Ipv4::ttl);
            ip.set(Ipv4::total_len, 0).set(Ipv4::id, 0).set(Ipv4::ttl, 0).set(Ipv4::checksum, 0);
            ttl
        }
        _ => {
            let mut ip = ViewMut::<Ipv6>::new(same.get_mut(l3..)?);
            let ttl = ip.as_view().get(Ipv6::hop_limit);
            ip.set(Ipv6::payload_len, 0).set(Ipv6::hop_limit, 0);
            ttl
        }
    };
    let mut tcp = ViewMut::<Tcp>::new(same.get_mut(l4..)?);
    tcp.set(Tcp::seq, 0).set(Tcp::ack, 0).set(Tcp::flags, 0).set(Tcp::window, 0).set(Tcp::checksum, 0);
    let tcp = View::<Tcp>::new(headers.get(l4..)?);
    // The sum of all less that of the headers, which have an even number of bytes.
    let sum = checksum::add(sums.check_sum, !checksum::sum(headers.get(MIN_LEN..)?));
    Some(Segment {
        same,
        header: end as u16,
        tcp_header: l.l4_len,
        payload,
        sum,
        seq: tcp.get(Tcp::seq),
        ack: tcp.get(Tcp::ack),
        window: tcp.get(Tcp::window) as u16,
        ttl: ttl as u8,
        push: flags & tcp_flag::PSH != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::{Fill, fill_and_sum};

    const FILL: Fill = Fill { l3: true, l4: true, inner_l3: false, inner_l4: false };

    /// A frame of TCP in the way that the wire has it.
    fn frame(v6: bool, tags: usize, options: &[u8], flags: u8, payload: &[u8]) -> Vec<u8> {
        let tcp_len = 20 + options.len();
        let mut b = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..tags {
            b.extend([0x81, 0, 0, 5]);
        }
        let total = (tcp_len + payload.len()) as u16;
        if v6 {
            b.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            b.extend(total.to_be_bytes());
            b.extend([6, 61]);
            b.extend([0x20; 32]);
        } else {
            b.extend([8, 0, 0x45, 0]);
            b.extend((20 + total).to_be_bytes());
            b.extend([0x12, 0x34, 0x40, 0, 61, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        b.extend([0x13, 0x88, 0x9c, 0x40, 0, 0, 1, 0, 0, 0, 2, 0]);
        b.extend([(tcp_len / 4 * 16) as u8, flags, 0x20, 0x01, 0, 0, 0, 0]);
        b.extend(options);
        b.extend(payload);
        b
    }

    fn of(bytes: &[u8]) -> Option<Segment> {
        let mut copy = bytes.to_vec();
        let mut f = Frame::from_bytes(&mut copy).unwrap();
        f.parse();
        let sums = fill_and_sum(&mut f, FILL);
        segment(&f, &sums)
    }

    const OPTIONS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn a_segment_tells_what_the_driver_needs() {
        for v6 in [false, true] {
            for tags in [0, 1] {
                for n in [1usize, 2, 999, 1448] {
                    let payload: Vec<u8> = (0..n).map(|i| (i * 31 + 7) as u8).collect();
                    let s = of(&frame(v6, tags, &OPTIONS, 0x18, &payload)).unwrap();
                    let headers = 14 + 4 * tags + if v6 { 40 } else { 20 } + 32;
                    assert_eq!((s.header, s.tcp_header, s.payload), (headers as u16, 32, n as u16));
                    assert_eq!((s.seq, s.ack, s.window, s.ttl, s.push), (0x100, 0x200, 0x2001, 61, true));
                    // Zero is 0xffff.
                    assert_eq!(s.sum % 0xffff, checksum::sum(&payload) % 0xffff);
                }
            }
        }
    }

    #[test]
    fn segments_are_alike_whatever_may_differ_between_them() {
        for v6 in [false, true] {
            let one = frame(v6, 0, &OPTIONS, 0x10, &[1; 100]);
            let mut other = frame(v6, 0, &OPTIONS, 0x18, &[2; 50]);
            let l4 = if v6 { 54 } else { 34 };
            for at in [4, 8, 14].map(|at| l4 + at) {
                other[at] ^= 0x55;
            }
            other[if v6 { 21 } else { 22 }] = 7;
            if !v6 {
                other[18] ^= 0xff;
            }
            let (a, b) = (of(&one).unwrap(), of(&other).unwrap());
            assert_eq!(a.same, b.same);
            assert_eq!((b.ttl, b.push), (7, true));
            // Addresses, ports, options, type of service.
            for at in [0, 6, if v6 { 30 } else { 28 }, l4, l4 + 2, l4 + 25, 15] {
                let mut c = one.clone();
                c[at] ^= 1;
                assert!(of(&c).is_none_or(|c| c.same != a.same), "{at}");
            }
        }
    }

    #[test]
    fn what_the_driver_could_not_put_together_again_is_no_segment() {
        let good = frame(false, 0, &OPTIONS, 0x10, &[3; 64]);
        assert!(of(&good).is_some());
        for flags in [0x00, 0x02, 0x11, 0x14, 0x30, 0x50, 0x90, 0x12] {
            assert!(of(&frame(false, 0, &OPTIONS, flags, &[3; 64])).is_none(), "flags {flags:#x}");
        }
        assert!(of(&frame(false, 0, &OPTIONS, 0x10, &[])).is_none(), "no data");
        assert!(of(&[&good[..], &[0; 4]].concat()).is_none(), "padding");
        let mut options = good.clone();
        options.splice(34..34, [1; 4]);
        options[14] = 0x46;
        options[17] += 4;
        assert!(of(&options).is_none(), "IPv4 options");
        let mut fragment = good.clone();
        fragment[20] = 0x20;
        assert!(of(&fragment).is_none(), "a fragment");
        let mut f = good.clone();
        let mut f = Frame::from_bytes(&mut f).unwrap();
        f.parse();
        let sums = fill_and_sum(&mut f, FILL);
        assert!(segment(&f, &Summary { l4_ok: false, ..sums }).is_none());
        assert!(segment(&f, &Summary { l3_ok: false, ..sums }).is_none());
    }
}
