//! Frames for tests.

use super::checksum::sum;
use super::frame::Frame;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proto {
    Tcp,
    Udp,
}

/// A frame of these bytes, parsed.
pub(crate) fn parsed(raw: &mut [u8]) -> Frame<'_> {
    let mut f = Frame::from_bytes(raw).unwrap();
    f.parse();
    f
}

fn put(b: &mut [u8], at: usize, v: u16) {
    b[at..at + 2].copy_from_slice(&v.to_be_bytes());
}

/// An untagged frame 10.0.0.1 or fd00::1, port 1234, to .2, port 80, with
/// `payload` bytes behind the transport header and right checksums.
pub(crate) fn frame(ip: Ip, proto: Proto, payload: usize) -> Vec<u8> {
    let mut f = vec![0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1];
    let l4 = if proto == Proto::Tcp { 20 } else { 8 } + payload;
    let number = if proto == Proto::Tcp { 6 } else { 17 };
    match ip {
        Ip::V4 => {
            f.extend([8, 0, 0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, number, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            put(&mut f, 16, (20 + l4) as u16);
            let c = !sum(&f[14..34]);
            put(&mut f, 24, c);
        }
        Ip::V6 => {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, number, 64]);
            for last in [1, 2] {
                f.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            }
            put(&mut f, 18, l4 as u16);
        }
    }
    let at = f.len();
    f.extend([0x04, 0xd2, 0, 80]);
    match proto {
        Proto::Tcp => f.extend([0, 0, 0x10, 0, 0, 0, 0x20, 0, 0x50, 0x10, 0x40, 0, 0, 0, 0, 0]),
        Proto::Udp => {
            f.extend((l4 as u16).to_be_bytes());
            f.extend([0, 0]);
        }
    }
    f.extend((0..payload).map(|i| (i * 31 + i / 256) as u8));
    let addresses = if ip == Ip::V4 { 26..34 } else { 22..54 };
    let mut all = f[addresses].to_vec();
    all.extend([0, number, (l4 >> 8) as u8, l4 as u8]);
    all.extend(&f[at..]);
    let c = !sum(&all);
    put(&mut f, at + if proto == Proto::Tcp { 16 } else { 6 }, c);
    f
}

/// The frame with tags (ethertype, tci) pushed, first one outermost.
pub(crate) fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut f = frame[..12].to_vec();
    for (tpid, tci) in tags {
        f.extend(tpid.to_be_bytes());
        f.extend(tci.to_be_bytes());
    }
    f.extend(&frame[12..]);
    f
}

fn outer(proto: u8, behind: &[u8]) -> Vec<u8> {
    let mut f = vec![0x52, 0x54, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0];
    f.extend([0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0, 192, 168, 0, 1, 192, 168, 0, 2]);
    put(&mut f, 16, (20 + behind.len()) as u16);
    let c = !sum(&f[14..34]);
    put(&mut f, 24, c);
    f.extend(behind);
    f
}

/// A frame inside VXLAN or Geneve (without options) over IPv4, outer UDP
/// checksum absent.
pub(crate) fn udp_tunnel(port: u16, vni: u32, inside: &[u8]) -> Vec<u8> {
    let mut b = vec![0xc0, 0x01];
    b.extend(port.to_be_bytes());
    b.extend(((16 + inside.len()) as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(if port == 6081 { [0, 0, 0x65, 0x58] } else { [8, 0, 0, 0] });
    b.extend((vni << 8).to_be_bytes());
    b.extend(inside);
    outer(17, &b)
}

/// A frame inside GRE with a key over IPv4.
pub(crate) fn gre(proto: u16, key: u32, inside: &[u8]) -> Vec<u8> {
    let mut b = vec![0x20, 0];
    b.extend(proto.to_be_bytes());
    b.extend(key.to_be_bytes());
    b.extend(inside);
    outer(47, &b)
}
