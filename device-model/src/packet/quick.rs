//! The short way through the headers of a frame: what tells its flow from all
//! others, without the 512 bytes of match fields.
//!
//! Frames that most traffic consists of are understood (IPv4 without options or
//! IPv6 without extension headers, TCP or UDP, not fragmented, at most one VLAN
//! tag, no tunnel); the rest takes [`Frame::parse`]. Where both understand a
//! frame, they agree, and frames with the same [`FlowKey`] have the same match
//! fields but for TCP's sequence numbers ([`reads_sequence`]).

use sfnic_firmware_cmds::View;
use sfnic_firmware_cmds::layout::Layout;
use sfnic_firmware_cmds::layouts::FteMatchSetMisc3 as Misc3;

use super::frame::{Frame, MIN_LEN};
use super::headers::{Ipv4, Ipv6, Tcp, Udp, VlanTag, ethertype, protocol};
use super::key::MISC3;
use super::layers::{L3, L4, Layers, Tunnel, TunnelPorts};
use super::parse::is_vlan;
use super::plain;

/// Sender and headers of a frame, as far as steering can tell frames apart.
#[derive(Debug, Clone, Copy, Eq, Default)]
pub struct FlowKey([u64; 9]);

impl PartialEq for FlowKey {
    /// Without a branch a word: keys that are compared are mostly equal.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// Who sends a frame, beside its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Number of the card.
    pub card: u8,
    /// Source vport.
    pub vport: u16,
    /// Send queue.
    pub sqn: u32,
    /// metadata_reg_a.
    pub reg_a: u32,
}

impl Sender {
    #[inline(always)]
    fn word(&self) -> u64 {
        u64::from(self.card) << 48 | u64::from(self.vport) << 32 | u64::from(self.sqn)
    }
}

impl FlowKey {
    /// Some of its bits.
    #[inline]
    pub fn any_word(&self) -> u32 {
        self.0[0] as u32
    }

    /// The destination address, in the upper 48 bits.
    #[inline]
    pub(crate) fn destination(&self) -> u64 {
        self.0[2] >> 16 << 16
    }

    /// Of a frame without tags over IPv4: its addresses there with what follows them, ports with
    /// what is beside them, and its IP addresses.
    #[inline(always)]
    pub(super) fn plain(from: Sender, mac: [u64; 2], ports: u64, addresses: u64) -> Self {
        Self([from.word(), u64::from(from.reg_a) << 32, mac[0], mac[1], ports, addresses, 0, 0, 0])
    }

    /// A hash of the key. Equal keys have equal hashes; how unequal ones
    /// spread is a matter of speed alone.
    #[inline(always)] // much of some keys is known where they are made
    pub fn hash(&self) -> u64 {
        const ODD: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
        let mix = |a: u64, b: u64| {
            let m = u128::from(a ^ ODD[0]) * u128::from(b ^ ODD[1]);
            m as u64 ^ (m >> 64) as u64
        };
        let w = &self.0;
        let addresses = mix(mix(w[5], w[6]), mix(w[7], w[8]));
        mix(mix(w[0], w[1]).rotate_left(17) ^ mix(w[2], w[3]), w[4] ^ addresses.rotate_left(31))
    }
}

/// Whether a mask over dword `index` of the match fields looks at what a
/// [`FlowKey`] does not hold though [`Frame::quick_parse`] lets it vary.
pub fn reads_sequence(index: usize) -> bool {
    [Misc3::outer_tcp_seq_num, Misc3::outer_tcp_ack_num].iter().any(|f| MISC3.dword() + f.dword() == index)
}

impl Frame<'_> {
    /// Finds the layers of a frame that is simple enough, and answers what
    /// tells its flow. [`Frame::key`] is left alone. None where the frame
    /// needs [`Frame::parse`].
    pub fn quick_parse(&mut self, from: Sender) -> Option<FlowKey> {
        Some(self.quick_key(from)?.0)
    }

    /// The same, and the key's hash.
    #[inline(always)] // the key is made where it is kept
    pub(crate) fn quick_key(&mut self, from: Sender) -> Option<(FlowKey, u64)> {
        let (h, len) = (self.headers(), self.len());
        let read = plain::read(h, len, &self.tunnel_ports, from);
        let (layers, key, hash) = match read {
            Some(all) => all,
            None => read_more(h, len, &self.tunnel_ports, from)?,
        };
        self.layers = layers;
        self.inner = None;
        self.tunnel = Tunnel::None;
        Some((key, hash))
    }
}

#[inline(never)]
fn read_more(h: &[u8], len: usize, ports: &TunnelPorts, from: Sender) -> Option<(Layers, FlowKey, u64)> {
    let (layers, key) = read(h, len, ports, from)?;
    Some((layers, key, key.hash()))
}

fn read(h: &[u8], len: usize, ports: &TunnelPorts, from: Sender) -> Option<(Layers, FlowKey)> {
    let mac = h.first_chunk::<MIN_LEN>()?;
    let dmac = u64::from_be_bytes(*mac.first_chunk::<8>()?) >> 16;
    let smac = u64::from_be_bytes(*mac[4..12].first_chunk::<8>()?) & 0xffff_ffff_ffff;
    let mut l =
        Layers { l2_len: MIN_LEN as u16, ethertype: u16::from_be_bytes([mac[12], mac[13]]), ..Layers::default() };
    let (mut tci, mut kind) = (0, 0);
    if is_vlan(l.ethertype) {
        kind = if l.ethertype == ethertype::CVLAN { 1 } else { 2 };
        let tag = View::<VlanTag>::new(h.get(MIN_LEN..MIN_LEN + VlanTag::SIZE)?);
        tci = tag.get(VlanTag::tci);
        l.ethertype = tag.get(VlanTag::ethertype) as u16;
        l.vlans = 1;
        l.l2_len += VlanTag::SIZE as u16;
    }
    let at = usize::from(l.l2_len);
    l.l3_off = at as u16;
    let (told, tos, ttl, label);
    let mut addresses = [0u64; 4];
    match l.ethertype {
        ethertype::IPV4 => {
            const PLAIN: u32 = 5;
            let v = View::<Ipv4>::new(h.get(at..at + Ipv4::SIZE)?);
            let fragment = v.is(Ipv4::more_fragments) || v.is(Ipv4::fragment_offset);
            if v.get(Ipv4::version) != 4 || v.get(Ipv4::ihl) != PLAIN || fragment {
                return None;
            }
            l.l3 = L3::Ipv4;
            l.l3_len = Ipv4::SIZE as u16;
            l.ip_protocol = v.get(Ipv4::protocol) as u8;
            told = v.get(Ipv4::total_len) as usize;
            (tos, ttl, label) = (v.get(Ipv4::dscp) << 2 | v.get(Ipv4::ecn), v.get(Ipv4::ttl), 0);
            addresses[0] = u64::from(v.get(Ipv4::src)) << 32 | u64::from(v.get(Ipv4::dst));
        }
        ethertype::IPV6 => {
            let v = View::<Ipv6>::new(h.get(at..at + Ipv6::SIZE)?);
            if v.get(Ipv6::version) != 6 || v.get(Ipv6::payload_len) == 0 {
                return None;
            }
            l.l3 = L3::Ipv6;
            l.l3_len = Ipv6::SIZE as u16;
            l.ip_protocol = v.get(Ipv6::next_header) as u8;
            told = v.get(Ipv6::payload_len) as usize + Ipv6::SIZE;
            (tos, ttl) = (v.get(Ipv6::dscp) << 2 | v.get(Ipv6::ecn), v.get(Ipv6::hop_limit));
            label = v.get(Ipv6::flow_label);
            let both = v.bytes(Ipv6::src).as_chunks::<8>().0.iter().chain(v.bytes(Ipv6::dst).as_chunks::<8>().0);
            addresses.iter_mut().zip(both).for_each(|(a, b)| *a = u64::from_be_bytes(*b));
        }
        _ => return None,
    }
    let end = at + told;
    if told < usize::from(l.l3_len) || end > len {
        return None;
    }
    l.l3_end = end as u32;
    l.l3_len_ok = true;
    let l4 = at + usize::from(l.l3_len);
    l.l4_off = l4 as u16;
    let room = end.min(h.len());
    let (sport, dport, flags);
    match l.ip_protocol {
        protocol::TCP => {
            let v = View::<Tcp>::new(h.get(l4..(l4 + Tcp::SIZE).min(room)).filter(|b| b.len() == Tcp::SIZE)?);
            let hlen = v.get(Tcp::data_offset) as usize * 4;
            if hlen < Tcp::SIZE || l4 + hlen > room {
                return None;
            }
            l.l4 = L4::Tcp;
            l.l4_len = hlen as u16;
            l.tcp_flags = v.get(Tcp::flags) as u16;
            (sport, dport, flags) = (v.get(Tcp::sport), v.get(Tcp::dport), v.get(Tcp::flags));
        }
        protocol::UDP => {
            let v = View::<Udp>::new(h.get(l4..(l4 + Udp::SIZE).min(room)).filter(|b| b.len() == Udp::SIZE)?);
            l.l4 = L4::Udp;
            l.l4_len = Udp::SIZE as u16;
            (sport, dport, flags) = (v.get(Udp::sport), v.get(Udp::dport), 0);
            if ports.is_known(dport as u16) {
                return None;
            }
        }
        _ => return None,
    }
    // TCP's flags are 9 bits, the kind of tag is 2.
    let six = u64::from(l.l3 == L3::Ipv6);
    let kinds = u64::from(flags) << 16 | kind << 14 | six << 13 | u64::from(l.ip_protocol);
    let key = [
        from.word(),
        u64::from(from.reg_a) << 32 | u64::from(label),
        dmac << 16 | u64::from(tci),
        smac << 16 | u64::from(tos) << 8 | u64::from(ttl),
        u64::from(sport) << 48 | u64::from(dport) << 32 | kinds,
        addresses[0],
        addresses[1],
        addresses[2],
        addresses[3],
    ];
    Some((l, FlowKey(key)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::MatchKey;
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    const FROM: Sender = Sender { card: 0, vport: 1, sqn: 2, reg_a: 3 };

    fn both(mut raw: Vec<u8>) -> (Option<FlowKey>, Layers, Layers, bool, MatchKey) {
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        let key = f.quick_parse(FROM);
        let quick = f.layers;
        f.parse();
        let mut fields = f.key.clone();
        (0..fields.0.len()).filter(|i| reads_sequence(*i)).for_each(|i| fields.0[i] = 0);
        (key, quick, f.layers, f.inner.is_some(), fields)
    }

    fn sample() -> impl Strategy<Value = Vec<u8>> {
        let ip = prop_oneof![Just(Ip::V4), Just(Ip::V6)];
        let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)];
        (ip, proto, 0..300usize, 0..3usize).prop_map(|(ip, proto, payload, tags)| {
            let f = samples::frame(ip, proto, payload);
            samples::tagged(&f, &[(0x8100, 5), (0x8100, 6)][..tags])
        })
    }

    /// A frame with some bytes changed, cut short.
    fn edited(mut raw: Vec<u8>, edits: &[(usize, u8)], cut: usize) -> Vec<u8> {
        for (at, v) in edits {
            if let Some(b) = raw.get_mut(*at) {
                *b = *v;
            }
        }
        raw.truncate(cut);
        raw
    }

    #[test]
    fn common_frames_are_understood() {
        for ip in [Ip::V4, Ip::V6] {
            for proto in [Proto::Tcp, Proto::Udp] {
                for payload in [0, 18, 1400] {
                    let f = samples::frame(ip, proto, payload);
                    assert!(both(f.clone()).0.is_some(), "{ip:?} {proto:?}");
                    assert!(both(samples::tagged(&f, &[(0x8100, 7)])).0.is_some());
                    assert!(both(samples::tagged(&f, &[(0x88a8, 7), (0x8100, 7)])).0.is_none());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_short_way_agrees_with_the_long_one(
            raw in sample(),
            edits in prop::collection::vec((0..80usize, any::<u8>()), 0..4),
            cut in 14..400usize,
        ) {
            let (key, quick, full, inner, _) = both(edited(raw, &edits, cut));
            if key.is_some() {
                prop_assert_eq!(quick, full);
                prop_assert!(!inner);
            }
        }

        #[test]
        fn the_shortest_way_agrees_with_the_short_one(
            raw in sample(),
            edits in prop::collection::vec((0..60usize, any::<u8>()), 0..3),
            cut in 14..400usize,
        ) {
            let mut raw = edited(raw, &edits, cut);
            let f = Frame::from_bytes(&mut raw).unwrap();
            let plain = plain::read(f.headers(), f.len(), &f.tunnel_ports, FROM);
            if plain.is_some() {
                prop_assert_eq!(plain, read_more(f.headers(), f.len(), &f.tunnel_ports, FROM));
            }
        }

        #[test]
        fn one_flow_has_one_set_of_match_fields(raw in sample(), at in 0..80usize, bit in 0..8u32) {
            let mut other = raw.clone();
            if let Some(b) = other.get_mut(at) {
                *b ^= 1u8 << bit;
            }
            let (a, _, _, _, fields_a) = both(raw);
            let (b, _, _, _, fields_b) = both(other);
            if a.is_some() && a == b {
                prop_assert_eq!(fields_a, fields_b);
            }
        }
    }

    #[test]
    fn most_frames_go_the_shortest_way() {
        for proto in [Proto::Tcp, Proto::Udp] {
            for payload in [18, 1400] {
                let mut raw = samples::frame(Ip::V4, proto, payload);
                let f = Frame::from_bytes(&mut raw).unwrap();
                assert!(plain::read(f.headers(), f.len(), &f.tunnel_ports, FROM).is_some(), "{proto:?} {payload}");
            }
        }
    }

    #[test]
    fn senders_are_told_apart() {
        let mut raw = samples::frame(Ip::V4, Proto::Udp, 18);
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        let all = [
            FROM,
            Sender { card: 1, ..FROM },
            Sender { vport: 2, ..FROM },
            Sender { sqn: 3, ..FROM },
            Sender { reg_a: 4, ..FROM },
        ];
        let keys: Vec<_> = all.iter().map(|s| f.quick_parse(*s).unwrap()).collect();
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| b != a && b.hash() != a.hash()));
        }
    }
}
