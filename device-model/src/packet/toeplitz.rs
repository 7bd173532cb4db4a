//! Receive hashing: the hash that spreads packets over an RQT.

use sfnic_firmware_cmds::layouts::{FteMatchSetLyr24 as Lyr, FteMatchSetMisc as Misc, RxHashFieldSelect};
use sfnic_firmware_cmds::{View, ViewMut};

use super::key::{INNER, MISC, MatchKey, OUTER};

/// Bytes of a key (TIR `rx_hash_toeplitz_key`).
pub const KEY_LEN: usize = 40;
/// Bytes of the longest input: two IPv6 addresses and two ports.
pub const INPUT_MAX: usize = 36;

bitflags::bitflags! {
    /// Fields that enter the hash (`MLX5_HASH_FIELD_SEL_*`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct HashFields: u32 {
        /// Source address.
        const SRC_IP = 1;
        /// Destination address.
        const DST_IP = 2;
        /// Source port.
        const SRC_PORT = 4;
        /// Destination port.
        const DST_PORT = 8;
        /// Security parameter index of ESP.
        const IPSEC_SPI = 16;
    }
}

/// A Toeplitz key, expanded into a table a half byte of input, so that a hash
/// of two IPv4 addresses and two ports is 24 look-ups.
#[derive(Clone)]
pub struct HashKey {
    tables: Box<[[u32; 16]; INPUT_MAX * 2]>,
    key: [u8; KEY_LEN],
}

impl HashKey {
    /// Expands a key.
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        // The 32 bits of the key that start at a bit.
        let window = |bit: usize| {
            let at = |i: usize| u64::from(key.get(bit / 8 + i).copied().unwrap_or(0));
            let run = (0..5).fold(0, |acc, i| (acc << 8) | at(i));
            (run >> (8 - bit % 8)) as u32
        };
        let mut tables = Box::new([[0u32; 16]; INPUT_MAX * 2]);
        for (i, t) in tables.iter_mut().enumerate() {
            for (v, slot) in t.iter_mut().enumerate() {
                *slot = (0..4).filter(|b| v >> (3 - b) & 1 == 1).fold(0, |acc, b| acc ^ window(i * 4 + b));
            }
        }
        Self { tables, key: *key }
    }

    /// Hashes up to [`INPUT_MAX`] bytes; what is beyond does not count.
    pub fn hash(&self, input: &[u8]) -> u32 {
        self.tables
            .as_chunks::<2>()
            .0
            .iter()
            .zip(input)
            .fold(0, |acc, ([hi, lo], b)| acc ^ hi[usize::from(b >> 4)] ^ lo[usize::from(b & 15)])
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

/// Hash functions of a TIR (`rx_hash_fn`).
#[derive(Debug, Clone)]
pub enum HashFn {
    /// No hash.
    None,
    /// All bytes of the input XORed, complemented, 8 bits.
    InvertedXor8,
    /// Toeplitz.
    Toeplitz(HashKey),
}

impl HashFn {
    /// What [`HashFn::new`] makes it of.
    pub(crate) fn made_of(&self) -> (u32, [u8; KEY_LEN]) {
        match self {
            Self::None => (0, [0; KEY_LEN]),
            Self::InvertedXor8 => (1, [0; KEY_LEN]),
            Self::Toeplitz(k) => (2, k.key),
        }
    }

    /// From `rx_hash_fn` and `rx_hash_toeplitz_key`; none where the number
    /// names no function.
    pub fn new(number: u32, key: &[u8; KEY_LEN]) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::InvertedXor8),
            2 => Some(Self::Toeplitz(HashKey::new(key))),
            _ => None,
        }
    }
}

/// What a TIR hashes (`rx_hash_field_select`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selector {
    /// Hashes IPv6 addresses, else IPv4 ones.
    pub ipv6: bool,
    /// Hashes UDP ports, else TCP ones.
    pub udp: bool,
    /// The fields.
    pub fields: HashFields,
}

impl Selector {
    /// Writes it into a TIR context.
    pub(crate) fn encode(self, v: &mut ViewMut<'_, RxHashFieldSelect>) {
        v.set(RxHashFieldSelect::l3_prot_type, self.ipv6.into());
        v.set(RxHashFieldSelect::l4_prot_type, self.udp.into());
        v.set(RxHashFieldSelect::selected_fields, self.fields.bits());
    }

    /// Reads a selector of a TIR context; fields that are not known are left
    /// out.
    pub fn decode(v: View<'_, RxHashFieldSelect>) -> Self {
        Self {
            ipv6: v.is(RxHashFieldSelect::l3_prot_type),
            udp: v.is(RxHashFieldSelect::l4_prot_type),
            fields: HashFields::from_bits_truncate(v.get(RxHashFieldSelect::selected_fields)),
        }
    }
}

/// A packet's hash as its CQE reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxHash {
    /// `rss_hash_result`; 0 where nothing was hashed.
    pub value: u32,
    /// `rss_ip_type`: 1 IPv4, 2 IPv6, 0 no address was hashed.
    pub ip_type: u32,
    /// `rss_l4_type`: 1 TCP, 2 UDP, 3 the SPI, 0 none of them was hashed.
    pub l4_type: u32,
}

/// Input of a hash, at most [`INPUT_MAX`] bytes.
struct Input {
    bytes: [u8; INPUT_MAX],
    len: usize,
}

impl Input {
    fn push(&mut self, b: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + b.len()) {
            room.copy_from_slice(b);
            self.len += b.len();
        }
    }
}

/// Hashes a packet as a TIR asks.
///
/// Fields that the packet does not have (ports of a fragment, IPv6 addresses
/// of an IPv4 packet) are left out of the input, and the result's types say
/// what was hashed. `symmetric` replaces each pair that is selected whole by
/// (source OR destination, source XOR destination), which is how the kernel's
/// `RXH_XFRM_SYM_OR_XOR`, the driver's name for TIR `rx_hash_symmetric`, is
/// defined. `inner` hashes the headers inside a tunnel.
pub fn rx_hash(function: &HashFn, symmetric: bool, sel: Selector, key: &MatchKey, inner: bool) -> RxHash {
    let mut out = RxHash::default();
    if matches!(function, HashFn::None) || sel.fields.is_empty() {
        return out;
    }
    let block = if inner { INNER } else { OUTER };
    let mut input = Input { bytes: [0; INPUT_MAX], len: 0 };
    let mut pair = |fields: HashFields, src_bit, dst_bit, src: u128, dst: u128, size: usize| {
        let (mut a, mut b) = (src, dst);
        let both = fields.contains(src_bit | dst_bit);
        if symmetric && both {
            (a, b) = (src | dst, src ^ dst);
        }
        if fields.contains(src_bit) {
            input.push(&a.to_be_bytes()[16 - size..]);
        }
        if fields.contains(dst_bit) {
            input.push(&b.to_be_bytes()[16 - size..]);
        }
        fields.intersects(src_bit | dst_bit)
    };

    let version = key.get(block, Lyr::ip_version);
    let wanted = if sel.ipv6 { 6 } else { 4 };
    if version == wanted {
        let words = if sel.ipv6 { 0..4 } else { 3..4 };
        let address = |f| words.clone().fold(0u128, |acc, i| (acc << 32) | u128::from(key.word(block, f, i)));
        let (src, dst) = (address(Lyr::src_ipv4_src_ipv6), address(Lyr::dst_ipv4_dst_ipv6));
        let size = words.len() * 4;
        if pair(sel.fields, HashFields::SRC_IP, HashFields::DST_IP, src, dst, size) {
            out.ip_type = if sel.ipv6 { 2 } else { 1 };
        }
        let l4 = if sel.udp { 2 } else { 1 };
        if key.get(block, Lyr::l4_type) == l4 {
            let (s, d) = if sel.udp { (Lyr::udp_sport, Lyr::udp_dport) } else { (Lyr::tcp_sport, Lyr::tcp_dport) };
            let (src, dst) = (u128::from(key.get(block, s)), u128::from(key.get(block, d)));
            if pair(sel.fields, HashFields::SRC_PORT, HashFields::DST_PORT, src, dst, 2) {
                out.l4_type = l4;
            }
        }
        if sel.fields.contains(HashFields::IPSEC_SPI) {
            let spi = if inner { Misc::inner_esp_spi } else { Misc::outer_esp_spi };
            let spi = key.get(MISC, spi);
            if spi != 0 {
                input.push(&spi.to_be_bytes());
                out.l4_type = 3;
            }
        }
    }
    let bytes = &input.bytes[..input.len];
    if !bytes.is_empty() {
        out.value = match function {
            HashFn::None => 0,
            HashFn::InvertedXor8 => u32::from(!bytes.iter().fold(0u8, |acc, b| acc ^ b)),
            HashFn::Toeplitz(k) => k.hash(bytes),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::frame::Frame;
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    /// The key of Microsoft's "Verifying the RSS hash calculation".
    const KEY: [u8; KEY_LEN] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    const IPS: HashFields = HashFields::SRC_IP.union(HashFields::DST_IP);
    const PORTS: HashFields = HashFields::SRC_PORT.union(HashFields::DST_PORT);

    fn key4(src: [u8; 4], sport: u32, dst: [u8; 4], dport: u32) -> MatchKey {
        let mut k = MatchKey::default();
        k.set(OUTER, Lyr::ip_version, 4);
        k.set_word(OUTER, Lyr::src_ipv4_src_ipv6, 3, Ipv4Addr::from(src).to_bits());
        k.set_word(OUTER, Lyr::dst_ipv4_dst_ipv6, 3, Ipv4Addr::from(dst).to_bits());
        ports(k, sport, dport)
    }

    fn key6(src: &str, sport: u32, dst: &str, dport: u32) -> MatchKey {
        let mut k = MatchKey::default();
        k.set(OUTER, Lyr::ip_version, 6);
        k.set_bytes(OUTER, Lyr::src_ipv4_src_ipv6, &src.parse::<Ipv6Addr>().unwrap().octets());
        k.set_bytes(OUTER, Lyr::dst_ipv4_dst_ipv6, &dst.parse::<Ipv6Addr>().unwrap().octets());
        ports(k, sport, dport)
    }

    fn ports(mut k: MatchKey, sport: u32, dport: u32) -> MatchKey {
        k.set(OUTER, Lyr::l4_type, 1);
        k.set(OUTER, Lyr::tcp_sport, sport);
        k.set(OUTER, Lyr::tcp_dport, dport);
        k
    }

    #[test]
    fn the_published_vectors_hold() {
        let f = HashFn::new(2, &KEY).unwrap();
        let check = |k: MatchKey, ipv6: bool, with_ports: u32, without: u32| {
            let hash = |fields| rx_hash(&f, false, Selector { ipv6, udp: false, fields }, &k, false);
            let ip_type = if ipv6 { 2 } else { 1 };
            assert_eq!(hash(IPS), RxHash { value: without, ip_type, l4_type: 0 });
            assert_eq!(hash(IPS | PORTS), RxHash { value: with_ports, ip_type, l4_type: 1 });
        };
        check(key4([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766), false, 0x51cc_c178, 0x323e_8fc2);
        check(key4([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739), false, 0xc626_b0ea, 0xd718_262a);
        check(key4([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024), false, 0x5c2b_394a, 0xd2d0_a5de);
        check(key4([38, 27, 205, 30], 48228, [209, 142, 163, 6], 2217), false, 0xafc7_327f, 0x8298_9176);
        check(key4([153, 39, 163, 191], 44251, [202, 188, 127, 2], 1303), false, 0x10e8_28a2, 0x5d18_09c5);
        check(key6("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766), true, 0x4020_7d3d, 0x2cc1_8cd5);
        check(key6("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739), true, 0xdde5_1bbf, 0x0f0c_461c);
        check(
            key6("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024),
            true,
            0x02d1_feef,
            0x4b61_e985,
        );
    }

    #[test]
    fn a_symmetric_hash_is_the_same_both_ways() {
        let there = key4([10, 1, 2, 3], 1000, [10, 9, 8, 7], 80);
        let back = key4([10, 9, 8, 7], 80, [10, 1, 2, 3], 1000);
        for n in [1, 2] {
            let f = HashFn::new(n, &KEY).unwrap();
            let sel = Selector { ipv6: false, udp: false, fields: IPS | PORTS };
            assert_eq!(rx_hash(&f, true, sel, &there, false), rx_hash(&f, true, sel, &back, false));
        }
        let f = HashFn::new(2, &KEY).unwrap();
        let sel = Selector { ipv6: false, udp: false, fields: IPS | PORTS };
        assert_ne!(rx_hash(&f, false, sel, &there, false), rx_hash(&f, false, sel, &back, false));
    }

    #[test]
    fn what_a_packet_does_not_have_is_left_out() {
        let f = HashFn::new(2, &KEY).unwrap();
        let mut raw = samples::frame(Ip::V4, Proto::Udp, 4);
        let mut frame = Frame::from_bytes(&mut raw).unwrap();
        frame.parse();
        let hash = |udp, ipv6| rx_hash(&f, false, Selector { ipv6, udp, fields: IPS | PORTS }, &frame.key, false);
        assert_eq!((hash(true, false).ip_type, hash(true, false).l4_type), (1, 2));
        assert_eq!((hash(false, false).ip_type, hash(false, false).l4_type), (1, 0));
        assert_eq!(hash(true, true), RxHash::default());
        assert!(HashFn::new(3, &KEY).is_none());
    }

    #[test]
    fn xor8_is_complemented() {
        let f = HashFn::new(1, &KEY).unwrap();
        let sel = Selector { ipv6: false, udp: false, fields: IPS };
        let k = key4([1, 2, 4, 8], 0, [16, 32, 64, 0], 0);
        assert_eq!(rx_hash(&f, false, sel, &k, false).value, 0x80);
    }
}
