//! What lies behind the outer headers: tunnels, and what is in them.

use sfnic_firmware_cmds::layout::Layout;
use sfnic_firmware_cmds::layouts::{
    FteMatchSetLyr24 as Lyr, FteMatchSetMisc as Misc, FteMatchSetMisc2 as Misc2, FteMatchSetMisc3 as Misc3,
    FteMatchSetMisc5 as Misc5,
};

use super::frame::{Frame, MIN_LEN};
use super::headers::{Bth, Geneve, GeneveOpt, Gre, Ipv4, Mpls, Vxlan, ethertype, protocol, udp_port};
use super::key::{MISC, MISC2, MISC3, MISC5, OUTER};
use super::layers::{Fragment, L3, L4, Layers, Tunnel, TunnelPorts};
use super::parse::{Parser, Side};

/// MPLS entries followed to the bottom of the stack.
const MAX_LABELS: usize = 8;

impl Frame<'_> {
    /// Reads a parsed frame as a port does whose parser knows other tunnels. True where
    /// that may make a difference, and the frame was parsed again.
    pub fn parse_as(&mut self, tunnels: TunnelPorts) -> bool {
        let before = std::mem::replace(&mut self.tunnel_ports, tunnels);
        let port = self.key.get(OUTER, Lyr::udp_dport) as u16;
        let differs = before != tunnels && (before.is_known(port) || tunnels.is_known(port));
        if differs {
            self.parse();
        }
        differs
    }
}

impl Parser<'_> {
    /// What lies behind the outer headers.
    pub(super) fn tunnel(&mut self, l: &Layers) -> (Tunnel, Option<Layers>) {
        let (at, end) = (l.l4_end(), l.l3_end as usize);
        let found = match (l.l3, l.l4, l.ip_protocol) {
            (L3::None, ..) => {
                if matches!(l.ethertype, ethertype::MPLS | ethertype::MPLS_MULTICAST)
                    && let Some(v) = self.view::<Mpls>(usize::from(l.l3_off), self.len)
                {
                    self.key.set_sub(MISC2, Misc2::outer_first_mpls, v.get(Mpls::entry));
                }
                None
            }
            (_, L4::Udp, _) => self.udp_tunnel(at, end),
            _ if l.fragment != Fragment::Whole => None,
            (_, _, protocol::GRE) => self.gre(usize::from(l.l4_off), end),
            (_, _, protocol::IPV4) => self.inner_ip(usize::from(l.l4_off), ethertype::IPV4).map(|i| (Tunnel::IpIp, i)),
            (_, _, protocol::IPV6) => self.inner_ip(usize::from(l.l4_off), ethertype::IPV6).map(|i| (Tunnel::IpIp, i)),
            _ => None,
        };
        found.map_or((Tunnel::None, None), |(t, i)| (t, Some(i)))
    }

    fn inner_ethernet(&mut self, at: usize) -> Option<Layers> {
        (at + MIN_LEN <= self.h.len()).then(|| self.ethernet(at, Side::INNER))
    }

    fn inner_ip(&mut self, at: usize, ethertype: u16) -> Option<Layers> {
        let l = self.network(at, Layers { l2_off: at as u16, ethertype, ..Layers::default() }, Side::INNER);
        (l.l3 != L3::None).then_some(l)
    }

    fn inner_of(&mut self, at: usize, ethertype: u16) -> Option<Layers> {
        match ethertype {
            ethertype::TEB => self.inner_ethernet(at),
            ethertype::IPV4 | ethertype::IPV6 => self.inner_ip(at, ethertype),
            _ => None,
        }
    }

    fn udp_tunnel(&mut self, at: usize, end: usize) -> Option<(Tunnel, Layers)> {
        let port = self.key.get(OUTER, Lyr::udp_dport) as u16;
        match port {
            _ if self.ports.is_vxlan(port) => {
                let v = self.view::<Vxlan>(at, end)?;
                self.key.set(MISC, Misc::vxlan_vni, v.get(Vxlan::vni));
                self.key.set(MISC5, Misc5::tunnel_header_0, v.get(Vxlan::word_0));
                self.key.set(MISC5, Misc5::tunnel_header_1, v.get(Vxlan::word_1));
                Some((Tunnel::Vxlan, self.inner_ethernet(at + Vxlan::SIZE)?))
            }
            udp_port::VXLAN_GPE => {
                let v = self.view::<Vxlan>(at, end)?;
                self.key.set(MISC3, Misc3::outer_vxlan_gpe_vni, v.get(Vxlan::vni));
                self.key.set(MISC3, Misc3::outer_vxlan_gpe_flags, v.get(Vxlan::flags));
                self.key.set(MISC3, Misc3::outer_vxlan_gpe_next_protocol, v.get(Vxlan::next_protocol));
                let inside = match v.get(Vxlan::next_protocol) {
                    1 => ethertype::IPV4,
                    2 => ethertype::IPV6,
                    3 => ethertype::TEB,
                    _ => return None,
                };
                Some((Tunnel::VxlanGpe, self.inner_of(at + Vxlan::SIZE, inside)?))
            }
            udp_port::GENEVE => {
                let v = self.view::<Geneve>(at, end)?;
                let words = v.get(Geneve::opt_len);
                self.key.set(MISC, Misc::geneve_vni, v.get(Geneve::vni));
                self.key.set(MISC, Misc::geneve_oam, v.get(Geneve::oam));
                self.key.set(MISC, Misc::geneve_opt_len, words);
                self.key.set(MISC, Misc::geneve_protocol_type, v.get(Geneve::protocol));
                let inside = at + Geneve::SIZE + words as usize * 4;
                if v.get(Geneve::version) != 0 || inside > end {
                    return None;
                }
                self.geneve_option(at + Geneve::SIZE, inside);
                Some((Tunnel::Geneve, self.inner_of(inside, v.get(Geneve::protocol) as u16)?))
            }
            udp_port::ROCE => {
                let v = self.view::<Bth>(at, end)?;
                self.key.set(MISC, Misc::bth_opcode, v.get(Bth::opcode));
                self.key.set(MISC, Misc::bth_dst_qp, v.get(Bth::dst_qp));
                None
            }
            udp_port::MPLS => {
                let v = self.view::<Mpls>(at, end)?;
                self.key.set_sub(MISC2, Misc2::outer_first_mpls_over_udp, v.get(Mpls::entry));
                Some((Tunnel::Mpls, self.behind_mpls(at, end)?))
            }
            _ => None,
        }
    }

    /// Looks for the option that the driver asked about (CREATE_GENERAL_OBJECT of
    /// GENEVE_TLV_OPT). The first of that class, type and length counts; of longer
    /// data the first word.
    fn geneve_option(&mut self, mut at: usize, end: usize) {
        let Some(wanted) = self.ports.geneve else { return };
        while let Some(o) = self.view::<GeneveOpt>(at, end) {
            let words = o.get(GeneveOpt::len) as u8;
            let is = (o.get(GeneveOpt::class) as u16, o.get(GeneveOpt::kind) as u8, words);
            at += GeneveOpt::SIZE;
            let next = at + usize::from(words) * 4;
            if is == (wanted.class, wanted.kind, wanted.words) && next <= end {
                let data = if words > 0 { self.be32(at) } else { Some(0) };
                self.key.set(MISC, Misc::geneve_tlv_option_0_exist, 1);
                self.key.set(MISC3, Misc3::geneve_tlv_option_0_data, data.unwrap_or(0));
                return;
            }
            at = next;
        }
    }

    /// IP behind a stack of MPLS labels, told by its version.
    fn behind_mpls(&mut self, mut at: usize, end: usize) -> Option<Layers> {
        for _ in 0..MAX_LABELS {
            let bottom = self.view::<Mpls>(at, end)?.is(Mpls::bottom);
            at += Mpls::SIZE;
            if bottom {
                return match self.view::<Ipv4>(at, end)?.get(Ipv4::version) {
                    4 => self.inner_ip(at, ethertype::IPV4),
                    6 => self.inner_ip(at, ethertype::IPV6),
                    _ => None,
                };
            }
        }
        None
    }

    fn gre(&mut self, at: usize, end: usize) -> Option<(Tunnel, Layers)> {
        let v = self.view::<Gre>(at, end)?;
        let (c, k, s) = (v.get(Gre::checksum_present), v.get(Gre::key_present), v.get(Gre::sequence_present));
        let proto = v.get(Gre::protocol) as u16;
        self.key.set(MISC, Misc::gre_c_present, c);
        self.key.set(MISC, Misc::gre_k_present, k);
        self.key.set(MISC, Misc::gre_s_present, s);
        self.key.set(MISC, Misc::gre_protocol, u32::from(proto));
        if v.get(Gre::version) != 0 {
            return None;
        }
        let mut inside = at + Gre::SIZE + 4 * c as usize;
        if k == 1 {
            let key = self.be32(inside).filter(|_| inside + 4 <= end)?;
            self.key.set_word(MISC, Misc::gre_key, 0, key);
            inside += 4;
        }
        inside += 4 * s as usize;
        if proto == ethertype::MPLS && inside + 4 <= end {
            let entry = self.be32(inside)?;
            self.key.set_sub(MISC2, Misc2::outer_first_mpls_over_gre, entry);
        }
        if inside > end || self.be16(inside).is_none() {
            return None;
        }
        Some((Tunnel::Gre, self.inner_of(inside, proto)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::INNER;
    use super::super::layers::GeneveOption;
    use super::super::samples::{self, Ip, Proto, parsed};
    use super::*;

    #[test]
    fn tunnels_show_their_inside() {
        for (port, tunnel) in [(4789, Tunnel::Vxlan), (6081, Tunnel::Geneve)] {
            let mut raw = samples::udp_tunnel(port, 0x00ab_cdef, &samples::frame(Ip::V6, Proto::Tcp, 5));
            let f = parsed(&mut raw);
            assert_eq!(f.tunnel, tunnel);
            let vni = if port == 4789 { Misc::vxlan_vni } else { Misc::geneve_vni };
            assert_eq!(f.key.get(MISC, vni), 0x00ab_cdef);
            assert_eq!(f.key.get(INNER, Lyr::tcp_dport), 80);
            assert_eq!(f.key.get(INNER, Lyr::ip_version), 6);
            assert_eq!(f.key.get(OUTER, Lyr::udp_dport), u32::from(port));
            assert_eq!(f.inner.unwrap().l2_off, 50);
        }
        let mut raw = samples::gre(0x6558, 0x0102_0304, &samples::frame(Ip::V4, Proto::Udp, 5));
        let f = parsed(&mut raw);
        assert_eq!((f.tunnel, f.key.word(MISC, Misc::gre_key, 0)), (Tunnel::Gre, 0x0102_0304));
        assert_eq!((f.key.get(INNER, Lyr::udp_sport), f.key.get(MISC, Misc::gre_protocol)), (1234, 0x6558));
    }

    #[test]
    fn a_vxlan_port_of_the_drivers_choice_counts() {
        let mut raw = samples::udp_tunnel(4789, 7, &samples::frame(Ip::V4, Proto::Tcp, 5));
        raw[36..38].copy_from_slice(&8472u16.to_be_bytes());
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        assert_eq!(f.tunnel, Tunnel::None);
        f.tunnel_ports.vxlan[1] = 8472;
        f.parse();
        assert_eq!(f.tunnel, Tunnel::Vxlan);
    }

    /// Geneve with options of (class, type, data).
    fn geneve(options: &[(u16, u8, &[u8])]) -> Vec<u8> {
        let mut raw = samples::udp_tunnel(6081, 5, &samples::frame(Ip::V4, Proto::Udp, 5));
        let mut all = Vec::new();
        for (class, kind, data) in options {
            all.extend(class.to_be_bytes());
            all.extend([*kind, (data.len() / 4) as u8]);
            all.extend(*data);
        }
        raw[42] = (all.len() / 4) as u8;
        raw.splice(50..50, all.iter().copied());
        for at in [16, 38] {
            let n = u16::from_be_bytes([raw[at], raw[at + 1]]) + all.len() as u16;
            raw[at..at + 2].copy_from_slice(&n.to_be_bytes());
        }
        raw
    }

    fn found(raw: &mut [u8], option: GeneveOption) -> (u32, u32) {
        let mut f = Frame::from_bytes(raw).unwrap();
        f.tunnel_ports.geneve = Some(option);
        f.parse();
        assert_eq!(f.key.get(INNER, Lyr::udp_dport), 80);
        (f.key.get(MISC, Misc::geneve_tlv_option_0_exist), f.key.get(MISC3, Misc3::geneve_tlv_option_0_data))
    }

    #[test]
    fn the_option_that_was_asked_for_is_found_wherever_it_is() {
        let option = GeneveOption { class: 0x102, kind: 0x80, words: 1 };
        let mut raw = geneve(&[(0x102, 1, &[1; 8]), (0x102, 0x80, &[0xde, 0xad, 0xbe, 0xef])]);
        assert_eq!(found(&mut raw, option), (1, 0xdead_beef));
        // Another class, another length, no option at all.
        assert_eq!(found(&mut raw, GeneveOption { class: 0x103, ..option }), (0, 0));
        assert_eq!(found(&mut raw, GeneveOption { words: 2, ..option }), (0, 0));
        assert_eq!(found(&mut geneve(&[]), option), (0, 0));
    }

    #[test]
    fn an_option_that_is_longer_than_all_of_them_is_none() {
        let option = GeneveOption { class: 0x102, kind: 0x80, words: 1 };
        let mut raw = geneve(&[(0x102, 0x80, &[7; 4])]);
        raw[53] = 31;
        assert_eq!(found(&mut raw, GeneveOption { words: 31, ..option }), (0, 0));
    }

    #[test]
    fn a_port_that_knows_other_tunnels_reads_a_frame_anew() {
        let mut raw = samples::udp_tunnel(4789, 7, &samples::frame(Ip::V4, Proto::Tcp, 5));
        raw[36..38].copy_from_slice(&8472u16.to_be_bytes());
        let mut f = parsed(&mut raw);
        let mut knows = TunnelPorts::default();
        assert!(knows.add(8472));
        assert!(!f.parse_as(TunnelPorts::default()));
        assert!(f.parse_as(knows));
        assert_eq!(f.tunnel, Tunnel::Vxlan);
        assert!(f.parse_as(TunnelPorts::default()));
        assert_eq!((f.tunnel, f.key.get(MISC, Misc::vxlan_vni)), (Tunnel::None, 0));
        // A frame that is in no tunnel for either is left alone.
        let mut plain = samples::frame(Ip::V4, Proto::Udp, 5);
        assert!(!parsed(&mut plain).parse_as(knows));
    }

    #[test]
    fn there_is_room_for_so_many_ports() {
        let mut t = TunnelPorts::default();
        assert!(t.add(4789) && t.add(1) && t.add(2) && t.add(3));
        assert!(!t.add(4) && t.add(3) && !t.add(0));
        assert!(t.delete(4789) && !t.delete(4789) && !t.delete(0));
        assert!(t.add(4) && t.is_vxlan(4) && !t.is_vxlan(4789));
    }
}
