//! Where a frame's headers lie.

use super::headers::{tcp_flag, udp_port};

/// Network header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum L3 {
    /// None that is understood.
    #[default]
    None,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum L4 {
    /// None that is understood, cut short, or a fragment.
    #[default]
    None,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4.
    Icmp,
    /// ICMP over IPv6.
    Icmpv6,
}

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole,
    /// Its first part.
    First,
    /// A later part, without transport header.
    Later,
}

/// What surrounds the inner headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tunnel {
    /// There are no inner headers.
    #[default]
    None,
    /// VXLAN (an Ethernet frame inside).
    Vxlan,
    /// VXLAN-GPE.
    VxlanGpe,
    /// Geneve.
    Geneve,
    /// GRE or NVGRE.
    Gre,
    /// IP directly inside IP.
    IpIp,
    /// MPLS over UDP.
    Mpls,
}

/// One stack of headers, outer or inner. Offsets count bytes from the start of
/// the frame; all headers named lie in the frame's header buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers {
    /// Start of the Ethernet header.
    pub l2_off: u16,
    /// Bytes of the Ethernet header and its VLAN tags; 0 where there is none
    /// (IP directly inside a tunnel).
    pub l2_len: u16,
    /// VLAN tags understood, 0 to 2.
    pub vlans: u8,
    /// Ethertype behind the tags.
    pub ethertype: u16,
    /// Network header.
    pub l3: L3,
    /// Start of the network header (of whatever follows Ethernet).
    pub l3_off: u16,
    /// Bytes of the network header with options and extension headers.
    pub l3_len: u16,
    /// End of the IP packet; what follows is padding. Never beyond the frame.
    pub l3_end: u32,
    /// The length that the IP header tells fits the frame.
    pub l3_len_ok: bool,
    /// Transport protocol number, after extension headers.
    pub ip_protocol: u8,
    /// Whether this is a fragment.
    pub fragment: Fragment,
    /// Transport header; none in a fragment.
    pub l4: L4,
    /// Start of what follows the network header.
    pub l4_off: u16,
    /// Bytes of the transport header with options; 0 where `l4` is none.
    pub l4_len: u16,
    /// TCP flags (9 bits).
    pub tcp_flags: u16,
}

impl Layers {
    /// End of the transport header.
    pub const fn l4_end(&self) -> usize {
        self.l4_off as usize + self.l4_len as usize
    }

    /// The CQE's `l3_hdr_type`: 0 none, 1 IPv6, 2 IPv4.
    pub const fn cqe_l3_type(&self) -> u32 {
        match self.l3 {
            L3::None => 0,
            L3::Ipv6 => 1,
            L3::Ipv4 => 2,
        }
    }

    /// The CQE's `l4_hdr_type` (`CQE_L4_HDR_TYPE_*`): 0 none, 1 TCP without
    /// ACK, 2 UDP, 3 TCP with ACK and no data, 4 TCP with both.
    pub const fn cqe_l4_type(&self) -> u32 {
        match self.l4 {
            L4::Udp => 2,
            L4::Tcp if self.tcp_flags as u32 & tcp_flag::ACK == 0 => 1,
            L4::Tcp if self.l4_end() >= self.l3_end as usize => 3,
            L4::Tcp => 4,
            _ => 0,
        }
    }

    /// Moves all offsets after `at` by `by` bytes.
    pub(crate) fn shift(&mut self, by: i32) {
        let move16 = |v: &mut u16| *v = (i32::from(*v) + by).max(0) as u16;
        move16(&mut self.l2_off);
        move16(&mut self.l3_off);
        move16(&mut self.l4_off);
        self.l3_end = self.l3_end.saturating_add_signed(by);
    }
}

/// An option that the parser looks for in Geneve headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GeneveOption {
    /// Its class.
    pub class: u16,
    /// Its type.
    pub kind: u8,
    /// Its data in words of 4 bytes.
    pub words: u8,
}

/// What the parser is told of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TunnelPorts {
    /// UDP destination ports that mean VXLAN (ADD_VXLAN_UDP_DPORT); 0 is unused.
    pub vxlan: [u16; Self::PORTS],
    /// `geneve_tlv_option_0`.
    pub geneve: Option<GeneveOption>,
}

impl Default for TunnelPorts {
    fn default() -> Self {
        Self { vxlan: [udp_port::VXLAN, 0, 0, 0], geneve: None }
    }
}

impl TunnelPorts {
    /// Ports that there is room for (capability `max_vxlan_udp_ports`).
    pub const PORTS: usize = 4;

    /// Adds a port of VXLAN; false where there is no room. One that is there
    /// already stays.
    #[must_use]
    pub fn add(&mut self, port: u16) -> bool {
        if self.is_vxlan(port) {
            return true;
        }
        let free = self.vxlan.iter_mut().find(|p| **p == 0).filter(|_| port != 0);
        free.map(|p| *p = port).is_some()
    }

    /// Takes a port of VXLAN out; false where it is not there.
    #[must_use]
    pub fn delete(&mut self, port: u16) -> bool {
        let found = self.vxlan.iter_mut().find(|p| **p == port).filter(|_| port != 0);
        found.map(|p| *p = 0).is_some()
    }

    /// Whether the parser looks behind a UDP header with this destination port.
    #[inline]
    pub(crate) fn is_known(&self, port: u16) -> bool {
        use udp_port::{GENEVE, MPLS, ROCE, VXLAN_GPE};
        self.is_vxlan(port) || matches!(port, VXLAN_GPE | ROCE | GENEVE | MPLS)
    }

    /// Whether a destination port is one of VXLAN's.
    #[inline]
    pub(crate) fn is_vxlan(&self, port: u16) -> bool {
        port != 0 && self.vxlan.contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::super::samples::{self, Ip, Proto};

    #[test]
    fn completions_tell_the_kinds_of_headers() {
        for (ip, proto, payload, flags, want) in [
            (Ip::V4, Proto::Udp, 1, 0, (2, 2)),
            (Ip::V4, Proto::Tcp, 0, 0x02, (2, 1)),
            (Ip::V4, Proto::Tcp, 0, 0x10, (2, 3)),
            (Ip::V6, Proto::Tcp, 9, 0x18, (1, 4)),
        ] {
            let mut raw = samples::frame(ip, proto, payload);
            if proto == Proto::Tcp {
                let at = if ip == Ip::V4 { 47 } else { 67 };
                raw[at] = flags;
            }
            raw.resize(raw.len().max(60), 0);
            let mut f = Frame::from_bytes(&mut raw).unwrap();
            f.parse();
            assert_eq!((f.layers.cqe_l3_type(), f.layers.cqe_l4_type()), want);
        }
    }
}
