//! A frame in one line, for people.

use std::fmt::{Display, Formatter, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

use sfnic_firmware_cmds::layouts::{FteMatchSetLyr24 as Lyr, FteMatchSetMisc as Misc, FteMatchSetMisc3 as Misc3};

use super::frame::Frame;
use super::headers::{ethertype, protocol, tcp_flag};
use super::key::{Block, INNER, MISC, MISC3, OUTER};
use super::layers::{Fragment, L3, L4, Layers, Tunnel};

/// `52:54:00:12:34:56 > ff:ff:ff:ff:ff:ff, vlan 5, IPv4 10.0.0.1 > 10.0.0.2,
/// TCP 1234 > 80 [S], 74 bytes`; what a tunnel carries follows in braces.
impl Display for Frame<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.stack(f, &self.layers, OUTER)?;
        match self.tunnel {
            Tunnel::None => {}
            Tunnel::Vxlan => write!(f, ", VXLAN {}", self.key.get(MISC, Misc::vxlan_vni))?,
            Tunnel::VxlanGpe => write!(f, ", VXLAN-GPE {}", self.key.get(MISC3, Misc3::outer_vxlan_gpe_vni))?,
            Tunnel::Geneve => write!(f, ", Geneve {}", self.key.get(MISC, Misc::geneve_vni))?,
            Tunnel::Gre if self.key.get(MISC, Misc::gre_k_present) == 1 => {
                write!(f, ", GRE {:#x}", self.key.word(MISC, Misc::gre_key, 0))?;
            }
            Tunnel::Gre => f.write_str(", GRE")?,
            Tunnel::IpIp => f.write_str(", IP in IP")?,
            Tunnel::Mpls => f.write_str(", MPLS")?,
        }
        if let Some(inner) = &self.inner {
            f.write_str(" {")?;
            self.stack(f, inner, INNER)?;
            f.write_str("}")?;
        }
        write!(f, ", {} bytes", self.len())
    }
}

struct Mac(u32, u32);

impl Display for Mac {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (h, l) = (self.0.to_be_bytes(), self.1.to_be_bytes());
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", h[0], h[1], h[2], h[3], l[2], l[3])
    }
}

impl Frame<'_> {
    fn stack(&self, f: &mut Formatter<'_>, l: &Layers, b: Block<Lyr>) -> Result {
        let k = &self.key;
        if l.l2_len > 0 {
            let src = Mac(k.get(b, Lyr::smac_47_16), k.get(b, Lyr::smac_15_0));
            let dst = Mac(k.get(b, Lyr::dmac_47_16), k.get(b, Lyr::dmac_15_0));
            write!(f, "{src} > {dst}, ")?;
            if l.vlans > 0 {
                write!(f, "vlan {}, ", k.get(b, Lyr::first_vid))?;
            }
            if l.vlans > 1 {
                let outer = b.dword() == OUTER.dword();
                let vid = if outer { Misc::outer_second_vid } else { Misc::inner_second_vid };
                write!(f, "vlan {}, ", k.get(MISC, vid))?;
            }
        }
        let word = |field, i| k.word(b, field, i);
        match l.l3 {
            L3::None if l.ethertype == ethertype::ARP => return f.write_str("ARP"),
            L3::None => return write!(f, "ethertype {:#06x}", l.ethertype),
            L3::Ipv4 => {
                let [s, d] = [Lyr::src_ipv4_src_ipv6, Lyr::dst_ipv4_dst_ipv6].map(|a| Ipv4Addr::from_bits(word(a, 3)));
                write!(f, "IPv4 {s} > {d}")?;
            }
            L3::Ipv6 => {
                let [s, d] = [Lyr::src_ipv4_src_ipv6, Lyr::dst_ipv4_dst_ipv6]
                    .map(|a| Ipv6Addr::from_bits((0..4).fold(0, |acc, i| (acc << 32) | u128::from(word(a, i)))));
                write!(f, "IPv6 {s} > {d}")?;
            }
        }
        if !l.l3_len_ok {
            f.write_str(" (bad length)")?;
        }
        match l.fragment {
            Fragment::Whole => {}
            Fragment::First => f.write_str(", first fragment")?,
            Fragment::Later => f.write_str(", fragment")?,
        }
        match l.l4 {
            L4::Tcp => {
                write!(f, ", TCP {} > {} [", k.get(b, Lyr::tcp_sport), k.get(b, Lyr::tcp_dport))?;
                let flags = [
                    (tcp_flag::SYN, "S"),
                    (tcp_flag::FIN, "F"),
                    (tcp_flag::RST, "R"),
                    (tcp_flag::PSH, "P"),
                    (tcp_flag::URG, "U"),
                    (tcp_flag::ACK, "."),
                ];
                for (_, name) in flags.iter().filter(|(bit, _)| u32::from(l.tcp_flags) & bit != 0) {
                    f.write_str(name)?;
                }
                f.write_str("]")
            }
            L4::Udp => write!(f, ", UDP {} > {}", k.get(b, Lyr::udp_sport), k.get(b, Lyr::udp_dport)),
            L4::Icmp => write!(f, ", ICMP type {}", k.get(MISC3, Misc3::icmp_type)),
            L4::Icmpv6 => write!(f, ", ICMPv6 type {}", k.get(MISC3, Misc3::icmpv6_type)),
            L4::None => match l.ip_protocol {
                protocol::GRE if self.tunnel == Tunnel::Gre => Ok(()),
                protocol::ESP => f.write_str(", ESP"),
                p => write!(f, ", protocol {p}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    fn line(mut raw: Vec<u8>) -> String {
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        f.to_string()
    }

    #[test]
    fn a_line_tells_what_the_frame_is() {
        let tcp = samples::frame(Ip::V4, Proto::Tcp, 20);
        assert_eq!(
            line(samples::tagged(&tcp, &[(0x8100, 5)])),
            "02:00:00:00:00:01 > 52:54:00:12:34:56, vlan 5, IPv4 10.0.0.1 > 10.0.0.2, TCP 1234 > 80 [.], 78 bytes"
        );
        assert_eq!(
            line(samples::udp_tunnel(4789, 7, &samples::frame(Ip::V6, Proto::Udp, 0))),
            "02:00:00:00:00:08 > 52:54:00:00:00:09, IPv4 192.168.0.1 > 192.168.0.2, UDP 49153 > 4789, VXLAN 7 \
             {02:00:00:00:00:01 > 52:54:00:12:34:56, IPv6 fd00::1 > fd00::2, UDP 1234 > 80}, 112 bytes"
        );
        let mut arp = vec![0xff; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(line(arp), "ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff, ARP, 60 bytes");
    }
}
