//! From bytes to match fields. Nothing a sender writes is trusted: a header
//! that is cut short, or whose lengths lie, ends the parse, and what was valid
//! before it stays.

use sfnic_firmware_cmds::View;
use sfnic_firmware_cmds::layout::{Field, Layout};
use sfnic_firmware_cmds::layouts::{FteMatchSetLyr24 as Lyr, FteMatchSetMisc as Misc, FteMatchSetMisc3 as Misc3};

use super::frame::{Frame, MIN_LEN};
use super::headers::{Esp, Icmp, Ipv4, Ipv6, Ipv6Ext, Tcp, Udp, VlanTag, ethertype, protocol};
use super::key::{Block, INNER, MISC, MISC3, MatchKey, OUTER};
use super::layers::{Fragment, L3, L4, Layers, TunnelPorts};

/// VLAN tags that the match fields can hold.
const MAX_TAGS: u8 = 2;
/// IPv6 extension headers followed before giving up.
const MAX_EXTENSIONS: usize = 8;

/// `l4_type` and `l4_type_ext` (`MLX5_PACKET_L4_TYPE_*`).
const L4_TYPE_TCP: u32 = 1;
const L4_TYPE_UDP: u32 = 2;
const L4_TYPE_EXT_ICMP: u32 = 3;

impl Frame<'_> {
    /// Reads the headers into [`Frame::key`], [`Frame::layers`] and
    /// [`Frame::inner`]. What the key holds beside headers (source, metadata)
    /// stays. Cheap enough to be called again after an edit.
    pub fn parse(&mut self) {
        let (len, ports) = (self.len(), self.tunnel_ports);
        let (h, key) = self.headers_and_key();
        key.clear_headers();
        let mut p = Parser { h, len, key, ports };
        let outer = p.ethernet(0, Side::OUTER);
        let (tunnel, inner) = p.tunnel(&outer);
        self.layers = outer;
        self.tunnel = tunnel;
        self.inner = inner;
    }
}

/// Where the two stacks of headers differ in the match fields.
#[derive(Clone, Copy)]
pub(super) struct Side {
    block: Block<Lyr>,
    second: [Field<Misc>; 5],
    flow_label: Field<Misc>,
    esp_spi: Field<Misc>,
    tcp_seq: Field<Misc3>,
    tcp_ack: Field<Misc3>,
    outer: bool,
}

impl Side {
    const OUTER: Self = Self {
        block: OUTER,
        second: [
            Misc::outer_second_cvlan_tag,
            Misc::outer_second_svlan_tag,
            Misc::outer_second_prio,
            Misc::outer_second_cfi,
            Misc::outer_second_vid,
        ],
        flow_label: Misc::outer_ipv6_flow_label,
        esp_spi: Misc::outer_esp_spi,
        tcp_seq: Misc3::outer_tcp_seq_num,
        tcp_ack: Misc3::outer_tcp_ack_num,
        outer: true,
    };
    pub(super) const INNER: Self = Self {
        block: INNER,
        second: [
            Misc::inner_second_cvlan_tag,
            Misc::inner_second_svlan_tag,
            Misc::inner_second_prio,
            Misc::inner_second_cfi,
            Misc::inner_second_vid,
        ],
        flow_label: Misc::inner_ipv6_flow_label,
        esp_spi: Misc::inner_esp_spi,
        tcp_seq: Misc3::inner_tcp_seq_num,
        tcp_ack: Misc3::inner_tcp_ack_num,
        outer: false,
    };
}

pub(crate) const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::CVLAN | ethertype::SVLAN)
}

pub(super) struct Parser<'a> {
    pub(super) h: &'a [u8],
    pub(super) len: usize,
    pub(super) key: &'a mut MatchKey,
    pub(super) ports: TunnelPorts,
}

impl<'a> Parser<'a> {
    /// A header of `S` that lies in the buffer and ends before `end`.
    pub(super) fn view<S: Layout>(&self, at: usize, end: usize) -> Option<View<'a, S>> {
        let stop = at.checked_add(S::SIZE).filter(|s| *s <= end)?;
        Some(View::new(self.h.get(at..stop)?))
    }

    pub(super) fn be16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.h.get(at..)?.first_chunk()?))
    }
    pub(super) fn be32(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(*self.h.get(at..)?.first_chunk()?))
    }

    pub(super) fn ethernet(&mut self, at: usize, side: Side) -> Layers {
        let mut l = Layers { l2_off: at as u16, ..Layers::default() };
        let b = side.block;
        let Some(mac) = self.h.get(at..at + MIN_LEN) else { return l };
        let word = |i: usize| u32::from_be_bytes([mac[i], mac[i + 1], mac[i + 2], mac[i + 3]]);
        let half = |i: usize| u32::from(u16::from_be_bytes([mac[i], mac[i + 1]]));
        self.key.set(b, Lyr::dmac_47_16, word(0));
        self.key.set(b, Lyr::dmac_15_0, half(4));
        self.key.set(b, Lyr::smac_47_16, word(6));
        self.key.set(b, Lyr::smac_15_0, half(10));
        l.ethertype = half(12) as u16;
        let mut next = at + MIN_LEN;
        while is_vlan(l.ethertype)
            && l.vlans < MAX_TAGS
            && let Some(tag) = self.view::<VlanTag>(next, self.h.len())
        {
            let (c, s) = (u32::from(l.ethertype == ethertype::CVLAN), u32::from(l.ethertype == ethertype::SVLAN));
            let (prio, cfi, vid) = (tag.get(VlanTag::prio), tag.get(VlanTag::cfi), tag.get(VlanTag::vid));
            if l.vlans == 0 {
                self.key.set(b, Lyr::cvlan_tag, c);
                self.key.set(b, Lyr::svlan_tag, s);
                self.key.set(b, Lyr::first_prio, prio);
                self.key.set(b, Lyr::first_cfi, cfi);
                self.key.set(b, Lyr::first_vid, vid);
            } else {
                for (f, v) in side.second.into_iter().zip([c, s, prio, cfi, vid]) {
                    self.key.set(MISC, f, v);
                }
            }
            l.vlans += 1;
            l.ethertype = tag.get(VlanTag::ethertype) as u16;
            next += VlanTag::SIZE;
        }
        l.l2_len = (next - at) as u16;
        self.key.set(b, Lyr::ethertype, u32::from(l.ethertype));
        self.network(next, l, side)
    }

    /// The headers behind Ethernet, or behind a tunnel that carries IP.
    pub(super) fn network(&mut self, at: usize, mut l: Layers, side: Side) -> Layers {
        l.l3_off = at as u16;
        l.l4_off = at as u16;
        l.l3_end = self.len as u32;
        match l.ethertype {
            ethertype::IPV4 => self.ipv4(at, &mut l, side),
            ethertype::IPV6 => self.ipv6(at, &mut l, side),
            _ => return l,
        };
        if l.l3 != L3::None {
            self.key.set(side.block, Lyr::ip_protocol, u32::from(l.ip_protocol));
            self.key.set(side.block, Lyr::frag, u32::from(l.fragment != Fragment::Whole));
            if l.fragment == Fragment::Whole {
                self.transport(&mut l, side);
            }
        }
        l
    }

    /// Takes the length that a header tells. Zero, as it stands in a frame to
    /// be segmented that is longer than 64 KiB, and a lie both mean "to the
    /// end of the frame", and are remembered as wrong.
    fn ip_length(&self, l: &mut Layers, told: usize, least: usize) {
        let end = usize::from(l.l3_off) + told;
        l.l3_len_ok = told >= least && end <= self.len;
        l.l3_end = if l.l3_len_ok { end } else { self.len } as u32;
    }

    fn ipv4(&mut self, at: usize, l: &mut Layers, side: Side) {
        let Some(v) = self.view::<Ipv4>(at, self.len) else { return };
        let hlen = v.get(Ipv4::ihl) as usize * 4;
        if v.get(Ipv4::version) != 4 || hlen < Ipv4::SIZE || self.h.len() < at + hlen {
            return;
        }
        l.l3 = L3::Ipv4;
        l.l3_len = hlen as u16;
        l.l4_off = (at + hlen) as u16;
        self.ip_length(l, v.get(Ipv4::total_len) as usize, hlen);
        l.ip_protocol = v.get(Ipv4::protocol) as u8;
        l.fragment = match (v.get(Ipv4::fragment_offset), v.is(Ipv4::more_fragments)) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        };
        let (k, b) = (&mut *self.key, side.block);
        k.set(b, Lyr::ip_version, 4);
        k.set(b, Lyr::ipv4_ihl, v.get(Ipv4::ihl));
        k.set(b, Lyr::ip_dscp, v.get(Ipv4::dscp));
        k.set(b, Lyr::ip_ecn, v.get(Ipv4::ecn));
        k.set(b, Lyr::ttl_hoplimit, v.get(Ipv4::ttl));
        k.set_word(b, Lyr::src_ipv4_src_ipv6, 3, v.get(Ipv4::src));
        k.set_word(b, Lyr::dst_ipv4_dst_ipv6, 3, v.get(Ipv4::dst));
    }

    fn ipv6(&mut self, at: usize, l: &mut Layers, side: Side) {
        let Some(v) = self.view::<Ipv6>(at, self.len) else { return };
        if v.get(Ipv6::version) != 6 {
            return;
        }
        l.l3 = L3::Ipv6;
        // A payload length of 0 is right only where nothing follows.
        self.ip_length(l, v.get(Ipv6::payload_len) as usize + Ipv6::SIZE, Ipv6::SIZE);
        if v.get(Ipv6::payload_len) == 0 && self.len > at + Ipv6::SIZE {
            self.ip_length(l, 0, Ipv6::SIZE);
        }
        let (k, b) = (&mut *self.key, side.block);
        k.set(b, Lyr::ip_version, 6);
        k.set(b, Lyr::ip_dscp, v.get(Ipv6::dscp));
        k.set(b, Lyr::ip_ecn, v.get(Ipv6::ecn));
        k.set(b, Lyr::ttl_hoplimit, v.get(Ipv6::hop_limit));
        k.set(MISC, side.flow_label, v.get(Ipv6::flow_label));
        k.set_bytes(b, Lyr::src_ipv4_src_ipv6, v.bytes(Ipv6::src));
        k.set_bytes(b, Lyr::dst_ipv4_dst_ipv6, v.bytes(Ipv6::dst));

        let mut next = v.get(Ipv6::next_header) as u8;
        let mut off = at + Ipv6::SIZE;
        let end = l.l3_end as usize;
        for _ in 0..MAX_EXTENSIONS {
            let Some(x) = self.view::<Ipv6Ext>(off, end) else { break };
            let size = match next {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DEST_OPTIONS => {
                    (x.get(Ipv6Ext::len) as usize + 1) * 8
                }
                protocol::FRAGMENT => Ipv6Ext::SIZE,
                _ => break,
            };
            if off + size > end.min(self.h.len()) {
                break;
            }
            if next == protocol::FRAGMENT {
                l.fragment = match (x.get(Ipv6Ext::fragment_offset), x.is(Ipv6Ext::more_fragments)) {
                    (0, false) => Fragment::Whole,
                    (0, true) => Fragment::First,
                    _ => Fragment::Later,
                };
            }
            next = x.get(Ipv6Ext::next_header) as u8;
            off += size;
            if l.fragment == Fragment::Later {
                break;
            }
        }
        l.ip_protocol = next;
        l.l3_len = (off - at) as u16;
        l.l4_off = off as u16;
    }

    fn transport(&mut self, l: &mut Layers, side: Side) {
        let (at, end, b) = (usize::from(l.l4_off), l.l3_end as usize, side.block);
        match l.ip_protocol {
            protocol::TCP => {
                let Some(v) = self.view::<Tcp>(at, end) else { return };
                let hlen = v.get(Tcp::data_offset) as usize * 4;
                if hlen < Tcp::SIZE || at + hlen > end.min(self.h.len()) {
                    return;
                }
                l.l4 = L4::Tcp;
                l.l4_len = hlen as u16;
                l.tcp_flags = v.get(Tcp::flags) as u16;
                self.key.set(b, Lyr::l4_type, L4_TYPE_TCP);
                self.key.set(b, Lyr::l4_type_ext, L4_TYPE_TCP);
                self.key.set(b, Lyr::tcp_sport, v.get(Tcp::sport));
                self.key.set(b, Lyr::tcp_dport, v.get(Tcp::dport));
                self.key.set(b, Lyr::tcp_flags, v.get(Tcp::flags));
                self.key.set(MISC3, side.tcp_seq, v.get(Tcp::seq));
                self.key.set(MISC3, side.tcp_ack, v.get(Tcp::ack));
            }
            protocol::UDP => {
                let Some(v) = self.view::<Udp>(at, end) else { return };
                l.l4 = L4::Udp;
                l.l4_len = Udp::SIZE as u16;
                self.key.set(b, Lyr::l4_type, L4_TYPE_UDP);
                self.key.set(b, Lyr::l4_type_ext, L4_TYPE_UDP);
                self.key.set(b, Lyr::udp_sport, v.get(Udp::sport));
                self.key.set(b, Lyr::udp_dport, v.get(Udp::dport));
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let v4 = l.ip_protocol == protocol::ICMP;
                let right = if v4 { L3::Ipv4 } else { L3::Ipv6 };
                let Some(v) = self.view::<Icmp>(at, end) else { return };
                if l.l3 != right {
                    return;
                }
                l.l4 = if v4 { L4::Icmp } else { L4::Icmpv6 };
                l.l4_len = Icmp::SIZE as u16;
                self.key.set(b, Lyr::l4_type_ext, L4_TYPE_EXT_ICMP);
                let (kind, code, data) = if v4 {
                    (Misc3::icmp_type, Misc3::icmp_code, Misc3::icmp_header_data)
                } else {
                    (Misc3::icmpv6_type, Misc3::icmpv6_code, Misc3::icmpv6_header_data)
                };
                if side.outer {
                    self.key.set(MISC3, kind, v.get(Icmp::kind));
                    self.key.set(MISC3, code, v.get(Icmp::code));
                    self.key.set(MISC3, data, v.get(Icmp::data));
                }
            }
            protocol::ESP => {
                if let Some(v) = self.view::<Esp>(at, end) {
                    self.key.set(MISC, side.esp_spi, v.get(Esp::spi));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use sfnic_firmware_cmds::layouts::FteMatchSetMisc2 as Misc2;

    use super::super::key::MISC2;
    use super::super::samples::{self, Ip, Proto, parsed};
    use super::*;

    #[test]
    fn a_plain_tcp_frame_fills_its_fields() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 10);
        let f = parsed(&mut raw);
        let k = &f.key;
        assert_eq!(k.get(OUTER, Lyr::dmac_47_16), 0x5254_0012);
        assert_eq!(k.get(OUTER, Lyr::dmac_15_0), 0x3456);
        assert_eq!(k.get(OUTER, Lyr::smac_47_16), 0x0200_0000);
        assert_eq!(k.get(OUTER, Lyr::smac_15_0), 0x0001);
        assert_eq!(k.get(OUTER, Lyr::ethertype), 0x800);
        assert_eq!((k.get(OUTER, Lyr::cvlan_tag), k.get(OUTER, Lyr::svlan_tag)), (0, 0));
        assert_eq!((k.get(OUTER, Lyr::ip_version), k.get(OUTER, Lyr::ip_protocol)), (4, 6));
        assert_eq!((k.get(OUTER, Lyr::l4_type), k.get(OUTER, Lyr::frag)), (1, 0));
        assert_eq!(k.word(OUTER, Lyr::src_ipv4_src_ipv6, 3), 0x0a00_0001);
        assert_eq!(k.word(OUTER, Lyr::dst_ipv4_dst_ipv6, 3), 0x0a00_0002);
        assert_eq!((k.get(OUTER, Lyr::tcp_sport), k.get(OUTER, Lyr::tcp_dport)), (1234, 80));
        assert_eq!((k.get(OUTER, Lyr::udp_sport), k.get(OUTER, Lyr::ttl_hoplimit)), (0, 64));
        assert_eq!(f.layers.l4_end(), 54);
        assert!(f.layers.l3_len_ok && f.inner.is_none());
    }

    #[test]
    fn tags_are_told_apart_by_their_ethertype() {
        let mut raw = samples::tagged(&samples::frame(Ip::V6, Proto::Udp, 4), &[(0x88a8, 0xe123), (0x8100, 0x1005)]);
        let f = parsed(&mut raw);
        let k = &f.key;
        assert_eq!((k.get(OUTER, Lyr::svlan_tag), k.get(OUTER, Lyr::cvlan_tag)), (1, 0));
        assert_eq!((k.get(OUTER, Lyr::first_vid), k.get(OUTER, Lyr::first_prio)), (0x123, 7));
        assert_eq!((k.get(MISC, Misc::outer_second_cvlan_tag), k.get(MISC, Misc::outer_second_svlan_tag)), (1, 0));
        assert_eq!((k.get(MISC, Misc::outer_second_vid), k.get(MISC, Misc::outer_second_cfi)), (5, 1));
        assert_eq!((k.get(OUTER, Lyr::ethertype), k.get(OUTER, Lyr::udp_dport)), (0x86dd, 80));
        assert_eq!((f.layers.l2_len, f.layers.vlans), (22, 2));
    }

    #[test]
    fn fragments_have_no_ports() {
        for (word, want) in [(0x2000u16, Fragment::First), (0x0010, Fragment::Later), (0x4000, Fragment::Whole)] {
            let mut raw = samples::frame(Ip::V4, Proto::Udp, 40);
            raw[20..22].copy_from_slice(&word.to_be_bytes());
            let f = parsed(&mut raw);
            assert_eq!(f.layers.fragment, want);
            let whole = want == Fragment::Whole;
            assert_eq!(f.key.get(OUTER, Lyr::frag), u32::from(!whole));
            assert_eq!(f.key.get(OUTER, Lyr::ip_protocol), 17);
            assert_eq!(f.key.get(OUTER, Lyr::udp_dport), if whole { 80 } else { 0 });
        }
    }

    #[test]
    fn extension_headers_lead_to_the_transport() {
        let mut raw = samples::frame(Ip::V6, Proto::Tcp, 0);
        // Hop-by-hop of 16 bytes, then destination options of 8.
        let ext = [60u8, 1, 5, 2, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
        raw.splice(54..54, ext);
        raw[20] = 0;
        let n = (raw.len() - 54) as u16;
        raw[18..20].copy_from_slice(&n.to_be_bytes());
        let mut copy = raw.clone();
        let f = parsed(&mut copy);
        assert_eq!((f.layers.l4, f.layers.l4_off, f.layers.l3_len), (L4::Tcp, 78, 64));
        assert_eq!(f.key.get(OUTER, Lyr::ip_protocol), 6);
        // A fragment header in place of the second.
        raw[54] = 44;
        raw[70..78].copy_from_slice(&[6, 0, 0, 9, 0, 0, 0, 1]);
        let f = parsed(&mut raw);
        assert_eq!((f.layers.l4, f.layers.fragment, f.layers.ip_protocol), (L4::None, Fragment::Later, 6));
    }

    #[test]
    fn a_parse_keeps_what_the_device_knows_and_forgets_old_headers() {
        let mut raw = samples::udp_tunnel(4789, 7, &samples::frame(Ip::V4, Proto::Tcp, 5));
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.set_source(5, 0x77);
        f.key.set(MISC2, Misc2::metadata_reg_c_0, 0x1234);
        f.parse();
        assert_eq!(f.key.get(MISC, Misc::vxlan_vni), 7);
        f.headers_mut()[23] = 99;
        f.parse();
        assert_eq!((f.key.get(MISC, Misc::vxlan_vni), f.key.get(INNER, Lyr::ip_version)), (0, 0));
        assert_eq!((f.key.get(MISC, Misc::source_sqn), f.key.get(MISC, Misc::source_port)), (0x77, 5));
        assert_eq!(f.key.get(MISC2, Misc2::metadata_reg_c_0), 0x1234);
    }

    #[test]
    fn lengths_that_lie_are_remembered() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 10);
        raw[16..18].copy_from_slice(&9999u16.to_be_bytes());
        let f = parsed(&mut raw);
        assert!(!f.layers.l3_len_ok);
        assert_eq!((f.layers.l4, f.layers.l3_end as usize), (L4::Tcp, f.len()));
        // A header that is longer than the frame is none.
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 0);
        raw[46] = 0xf0;
        assert_eq!(parsed(&mut raw).layers.l4, L4::None);
    }
}
