//! Headers on the wire, declared the way the manual's structures are. All of
//! them are runs of big-endian dwords except Ethernet's, which is read by
//! bytes.

use sfnic_firmware_cmds::prm;

prm! {
    /// What follows a VLAN tag's own ethertype: the tag and the next ethertype
    /// (IEEE 802.1Q).
    vlan_tag / VlanTag : 0x4 {
        0x00 [31:29] prio;
        0x00 [28:28] cfi;
        0x00 [27:16] vid;
        0x00 [31:16] tci;
        0x00 [15:0]  ethertype;
    }
    /// RFC 791.
    ipv4 / Ipv4 : 0x14 {
        0x00 [31:28] version;
        0x00 [27:24] ihl;
        0x00 [23:18] dscp;
        0x00 [17:16] ecn;
        0x00 [15:0]  total_len;
        0x04 [31:16] id;
        0x04 [13:13] more_fragments;
        0x04 [12:0]  fragment_offset;
        0x08 [31:24] ttl;
        0x08 [23:16] protocol;
        0x08 [15:0]  checksum;
        0x0c [31:0]  src;
        0x10 [31:0]  dst;
    }
    /// RFC 8200.
    ipv6 / Ipv6 : 0x28 {
        0x00 [31:28] version;
        0x00 [27:22] dscp;
        0x00 [21:20] ecn;
        0x00 [19:0]  flow_label;
        0x04 [31:16] payload_len;
        0x04 [15:8]  next_header;
        0x04 [7:0]   hop_limit;
        0x08 [u8; 16] src;
        0x18 [u8; 16] dst;
    }
    /// First bytes of an IPv6 extension header, and the fragment header.
    ipv6_ext / Ipv6Ext : 0x8 {
        0x00 [31:24] next_header;
        0x00 [23:16] len;
        0x00 [15:3]  fragment_offset;
        0x00 [0:0]   more_fragments;
    }
    /// RFC 9293.
    tcp / Tcp : 0x14 {
        0x00 [31:16] sport;
        0x00 [15:0]  dport;
        0x04 [31:0]  seq;
        0x08 [31:0]  ack;
        0x0c [31:28] data_offset;
        0x0c [24:16] flags;
        0x0c [15:0]  window;
        0x10 [31:16] checksum;
    }
    /// RFC 768.
    udp / Udp : 0x8 {
        0x00 [31:16] sport;
        0x00 [15:0]  dport;
        0x04 [31:16] len;
        0x04 [15:0]  checksum;
    }
    /// RFC 792 and RFC 4443.
    icmp / Icmp : 0x8 {
        0x00 [31:24] kind;
        0x00 [23:16] code;
        0x00 [15:0]  checksum;
        0x04 [31:0]  data;
    }
    /// RFC 4303.
    esp / Esp : 0x8 {
        0x00 [31:0]  spi;
    }
    /// RFC 2784 and RFC 2890; key and sequence number follow if present.
    gre / Gre : 0x4 {
        0x00 [31:31] checksum_present;
        0x00 [29:29] key_present;
        0x00 [28:28] sequence_present;
        0x00 [18:16] version;
        0x00 [15:0]  protocol;
    }
    /// RFC 7348, and the generic extension's flags and next protocol.
    vxlan / Vxlan : 0x8 {
        0x00 [31:24] flags;
        0x00 [7:0]   next_protocol;
        0x00 [31:0]  word_0;
        0x04 [31:8]  vni;
        0x04 [31:0]  word_1;
    }
    /// RFC 8926.
    geneve / Geneve : 0x8 {
        0x00 [31:30] version;
        0x00 [29:24] opt_len;
        0x00 [23:23] oam;
        0x00 [15:0]  protocol;
        0x04 [31:8]  vni;
    }
    geneve_opt / GeneveOpt : 0x4 {
        0x00 [31:16] class;
        0x00 [15:8]  kind;
        0x00 [4:0]   len;
    }
    /// RFC 3032.
    mpls / Mpls : 0x4 {
        0x00 [31:0] entry;
        0x00 [8:8]  bottom;
    }
    /// Base transport header of RoCE v2 (InfiniBand specification, 9.2).
    bth / Bth : 0xc {
        0x00 [31:24] opcode;
        0x04 [23:0]  dst_qp;
    }
}

/// Ethertypes.
pub mod ethertype {
    #![allow(missing_docs)]
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const TEB: u16 = 0x6558;
    pub const CVLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
    pub const SVLAN: u16 = 0x88a8;
}

/// IP protocol numbers.
pub mod protocol {
    #![allow(missing_docs)]
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DEST_OPTIONS: u8 = 60;
}

/// TCP flags as the 9-bit field holds them.
pub mod tcp_flag {
    #![allow(missing_docs)]
    pub const FIN: u32 = 0x001;
    pub const SYN: u32 = 0x002;
    pub const RST: u32 = 0x004;
    pub const PSH: u32 = 0x008;
    pub const ACK: u32 = 0x010;
    pub const URG: u32 = 0x020;
    pub const CWR: u32 = 0x080;
}

/// UDP ports with a meaning to the parser.
pub mod udp_port {
    #![allow(missing_docs)]
    pub const VXLAN: u16 = 4789;
    pub const VXLAN_GPE: u16 = 4790;
    pub const ROCE: u16 = 4791;
    pub const GENEVE: u16 = 6081;
    pub const MPLS: u16 = 6635;
}
