//! Capture files as Wireshark and tcpdump read them.
//!
//! Facts are from the drafts `draft-ietf-opsawg-pcapng` and `draft-ietf-opsawg-pcap`.
//! Written are section, interface and enhanced packet blocks, in the host's byte order,
//! with times in nanoseconds since 1970.

use std::io::{self, Write};

use sfnic_device_model::capture::Way;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;

const OPTION_NAME: u16 = 2;
const OPTION_DESCRIPTION: u16 = 3;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_APPLICATION: u16 = 4;
const OPTION_FLAGS: u16 = 2;
/// Times count 10^-9 seconds.
const NANOSECONDS: u8 = 9;
/// Direction in the flags of a packet.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

fn block(out: &mut impl Write, kind: u32, body: &[&[u8]], options: &[u8]) -> io::Result<()> {
    let size: usize = body.iter().map(|b| b.len()).sum();
    let padding = size.next_multiple_of(4) - size;
    let total = (12 + size + padding + options.len()) as u32;
    out.write_all(&kind.to_ne_bytes())?;
    out.write_all(&total.to_ne_bytes())?;
    for part in body {
        out.write_all(part)?;
    }
    out.write_all(&[0; 3][..padding])?;
    out.write_all(options)?;
    out.write_all(&total.to_ne_bytes())
}

fn option(options: &mut Vec<u8>, code: u16, value: &[u8]) {
    options.extend(code.to_ne_bytes());
    options.extend((value.len() as u16).to_ne_bytes());
    options.extend(value);
    options.resize(options.len().next_multiple_of(4), 0);
}

fn end(options: &mut Vec<u8>) {
    options.extend([0; 4]);
}

/// Begins a file.
pub(crate) fn section(out: &mut impl Write) -> io::Result<()> {
    let mut options = vec![];
    option(&mut options, OPTION_APPLICATION, b"sfnic");
    end(&mut options);
    let version = [1u16.to_ne_bytes(), 0u16.to_ne_bytes()].concat();
    block(out, SECTION, &[&BYTE_ORDER.to_ne_bytes(), &version, &(-1i64).to_ne_bytes()], &options)
}

/// Declares the next interface; they count from 0.
pub(crate) fn interface(out: &mut impl Write, name: &str, description: &str, snap: u32) -> io::Result<()> {
    let mut options = vec![];
    option(&mut options, OPTION_NAME, name.as_bytes());
    option(&mut options, OPTION_DESCRIPTION, description.as_bytes());
    option(&mut options, OPTION_RESOLUTION, &[NANOSECONDS]);
    end(&mut options);
    let link = [ETHERNET.to_ne_bytes(), [0; 2]].concat();
    block(out, INTERFACE, &[&link, &snap.to_ne_bytes()], &options)
}

/// Writes a packet of which `data` was kept and that had `length` bytes.
pub(crate) fn packet(
    out: &mut impl Write,
    interface: u32,
    time_ns: u64,
    way: Way,
    data: &[u8],
    length: u32,
) -> io::Result<()> {
    let mut options = vec![];
    let flags = match way {
        Way::In => INBOUND,
        Way::Out => OUTBOUND,
    };
    option(&mut options, OPTION_FLAGS, &flags.to_ne_bytes());
    end(&mut options);
    let (high, low) = ((time_ns >> 32) as u32, time_ns as u32);
    let head = [interface, high, low, data.len() as u32, length].map(u32::to_ne_bytes).concat();
    block(out, PACKET, &[&head, data], &options)
}

/// A packet of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Nanoseconds since an origin of the file's.
    pub(crate) time_ns: u64,
    /// What was kept of it.
    pub(crate) data: Vec<u8>,
    /// How long it was.
    pub(crate) length: u32,
    /// Number of the interface; 0 in a file without them.
    pub(crate) interface: u32,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no capture file (pcap or pcapng)")]
    Foreign,
    #[error("it ends in the middle of a packet, at byte {0}")]
    Truncated(usize),
    #[error("link type {0}: allowed is Ethernet (1)")]
    Link(u32),
    #[error("a block of {1} bytes at byte {0}")]
    Block(usize, u32),
}

/// Numbers of a file in either byte order.
struct Bytes<'a> {
    data: &'a [u8],
    swapped: bool,
}

impl Bytes<'_> {
    fn u32(&self, at: usize) -> Option<u32> {
        let n = u32::from_ne_bytes(*self.data.get(at..)?.first_chunk()?);
        Some(if self.swapped { n.swap_bytes() } else { n })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let n = u16::from_ne_bytes(*self.data.get(at..)?.first_chunk()?);
        Some(if self.swapped { n.swap_bytes() } else { n })
    }
}

/// Reads all packets of a file, of either format.
pub(crate) fn read(data: &[u8]) -> Result<Vec<Packet>, ReadError> {
    const PCAP_MICROS: u32 = 0xa1b2_c3d4;
    const PCAP_NANOS: u32 = 0xa1b2_3c4d;
    let plain = Bytes { data, swapped: false };
    match plain.u32(0) {
        Some(SECTION) => read_blocks(data),
        Some(magic) => {
            for swapped in [false, true] {
                let seen = if swapped { magic.swap_bytes() } else { magic };
                if seen == PCAP_MICROS || seen == PCAP_NANOS {
                    return read_pcap(&Bytes { data, swapped }, if seen == PCAP_NANOS { 1 } else { 1000 });
                }
            }
            Err(ReadError::Foreign)
        }
        None => Err(ReadError::Foreign),
    }
}

fn read_pcap(b: &Bytes<'_>, unit: u64) -> Result<Vec<Packet>, ReadError> {
    let link = b.u32(20).ok_or(ReadError::Truncated(0))? & 0x0fff_ffff;
    if link != u32::from(ETHERNET) {
        return Err(ReadError::Link(link));
    }
    let mut packets = vec![];
    let mut at = 24;
    while at < b.data.len() {
        let cut = ReadError::Truncated(at);
        let get = |n| b.u32(at + n).ok_or(cut.clone());
        let (seconds, fraction, kept, length) = (get(0)?, get(4)?, get(8)?, get(12)?);
        let start = at + 16;
        let data = b.data.get(start..start.saturating_add(kept as usize)).ok_or(cut.clone())?;
        let time_ns = (u64::from(seconds) * 1_000_000_000).saturating_add(u64::from(fraction) * unit);
        packets.push(Packet { time_ns, data: data.to_vec(), length, interface: 0 });
        at = start + data.len();
    }
    Ok(packets)
}

fn read_blocks(data: &[u8]) -> Result<Vec<Packet>, ReadError> {
    let mut b = Bytes { data, swapped: false };
    let mut packets = vec![];
    // Of each interface of the section, how long a tick of its clock is.
    let mut ticks: Vec<Tick> = vec![];
    let mut at = 0;
    while at < data.len() {
        let cut = ReadError::Truncated(at);
        let kind = b.u32(at).ok_or(cut.clone())?;
        if kind == SECTION {
            b.swapped = match b.u32(at + 8).ok_or(cut.clone())? {
                BYTE_ORDER => b.swapped,
                n if n == BYTE_ORDER.swap_bytes() => !b.swapped,
                _ => return Err(ReadError::Foreign),
            };
            ticks.clear();
        }
        let total = b.u32(at + 4).ok_or(cut.clone())?;
        if total < 12 || total % 4 != 0 {
            return Err(ReadError::Block(at, total));
        }
        let next = at.saturating_add(total as usize);
        let body = data.get(at + 8..next - 4).ok_or(cut.clone())?;
        let body = Bytes { data: body, swapped: b.swapped };
        match kind {
            INTERFACE => {
                let link = body.u16(0).ok_or(cut.clone())?;
                if link != ETHERNET {
                    return Err(ReadError::Link(link.into()));
                }
                ticks.push(Tick::of(&body));
            }
            PACKET => {
                let get = |n| body.u32(n).ok_or(cut.clone());
                let (interface, high, low, kept, length) = (get(0)?, get(4)?, get(8)?, get(12)?, get(16)?);
                let kept = body.data.get(20..20usize.saturating_add(kept as usize)).ok_or(cut.clone())?;
                let tick = ticks.get(interface as usize).ok_or(ReadError::Block(at, total))?;
                let time_ns = tick.nanoseconds(u64::from(high) << 32 | u64::from(low));
                packets.push(Packet { time_ns, data: kept.to_vec(), length, interface });
            }
            _ => {}
        }
        at = next;
    }
    Ok(packets)
}

/// The unit of an interface's times.
#[derive(Debug, Clone, Copy)]
struct Tick {
    /// So many in a second.
    rate: u128,
}

impl Tick {
    fn of(interface: &Bytes<'_>) -> Self {
        let mut rate = 1_000_000;
        let mut at = 8;
        while let (Some(code @ 1..), Some(size)) = (interface.u16(at), interface.u16(at + 2)) {
            if code == OPTION_RESOLUTION
                && let Some(n) = interface.data.get(at + 4)
            {
                let base: u128 = if n & 0x80 != 0 { 2 } else { 10 };
                rate = base.checked_pow(u32::from(n & 0x7f).min(38)).unwrap_or(u128::MAX);
            }
            at += 4 + usize::from(size).next_multiple_of(4);
        }
        Self { rate }
    }

    fn nanoseconds(self, ticks: u64) -> u64 {
        u64::try_from(u128::from(ticks) * 1_000_000_000 / self.rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut f = vec![];
        section(&mut f).unwrap();
        interface(&mut f, "pf0", "vport 0 of port 0", 256).unwrap();
        interface(&mut f, "uplink0", "port 0", 0).unwrap();
        packet(&mut f, 0, 1_700_000_000_123_456_789, Way::Out, &[1, 2, 3, 4, 5], 60).unwrap();
        packet(&mut f, 1, 1_700_000_000_123_456_790, Way::In, &[9; 64], 64).unwrap();
        f
    }

    #[test]
    fn what_is_written_is_read() {
        let packets = read(&file()).unwrap();
        let first = Packet { time_ns: 1_700_000_000_123_456_789, data: vec![1, 2, 3, 4, 5], length: 60, interface: 0 };
        assert_eq!(packets[0], first);
        assert_eq!((packets[1].interface, packets[1].data.len(), packets[1].time_ns % 1000), (1, 64, 790));
    }

    #[test]
    fn old_files_are_read_in_both_orders() {
        for (swap, magic, ns) in [(false, 0xa1b2_c3d4u32, 5000), (true, 0xa1b2_3c4d, 5)] {
            let n = |v: u32| if swap { v.to_be_bytes() } else { v.to_le_bytes() };
            let mut f: Vec<u8> = [n(magic), [0; 4], [0; 4], [0; 4], n(65535), n(1)].concat();
            f.extend([n(2), n(5), n(3), n(60)].concat());
            f.extend([7, 8, 9]);
            let want = Packet { time_ns: 2_000_000_000 + ns, data: vec![7, 8, 9], length: 60, interface: 0 };
            assert_eq!(read(&f).unwrap(), [want]);
            assert_eq!(read(&f[..f.len() - 1]), Err(ReadError::Truncated(24)));
        }
    }

    #[test]
    fn foreign_and_broken_files_are_refused() {
        assert_eq!(read(b""), Err(ReadError::Foreign));
        assert_eq!(read(b"PK\x03\x04 and more"), Err(ReadError::Foreign));
        let good = file();
        for cut in 4..good.len() {
            let _ = read(&good[..cut]); // no panic, whatever it says
        }
        let mut bad = good.clone();
        bad[4..8].fill(0);
        assert!(matches!(read(&bad), Err(ReadError::Block(0, 0))));
        let mut bad = good;
        let link = 28 + 8 + 8; // the first interface's block follows the section's
        bad[link - 8] ^= 0xff;
        let _ = read(&bad);
    }
}
