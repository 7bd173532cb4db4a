//! The shortest way through headers: what most frames are, read by a few words at places that are
//! always the same. They are IPv4 without options behind an Ethernet header without tags, TCP or
//! UDP, not fragmented, and no tunnel. [`super::quick`] understands them too, and more.

use super::frame::MIN_LEN;
use super::headers::{Ipv4, Tcp, Udp, ethertype, protocol};
use super::layers::{Fragment, L3, L4, Layers, TunnelPorts};
use super::quick::{FlowKey, Sender};
use sfnic_firmware_cmds::Layout;

/// Where the network and the transport header begin.
pub(super) const L3_AT: usize = MIN_LEN;
pub(super) const L4_AT: usize = L3_AT + Ipv4::SIZE;
/// The shortest of all frames that are read so.
const MIN: usize = L4_AT + Tcp::SIZE;

/// Layers of a plain frame, its flow, and the hash of that. `h` is what lies in the header buffer,
/// of `len` bytes.
#[inline(always)]
pub(super) fn read(h: &[u8], len: usize, ports: &TunnelPorts, from: Sender) -> Option<(Layers, FlowKey, u64)> {
    let first = h.first_chunk::<MIN>()?;
    let word = |at: usize| first[at..].first_chunk().map_or(0, |w| u64::from_be_bytes(*w));
    // Type, version and length of the header, ToS, length of the packet, identification.
    let kind = word(12);
    // Flags and offset, TTL, protocol, checksum.
    let part = word(20);
    const IPV4: u64 = (ethertype::IPV4 as u64) << 8 | 0x45;
    const FRAGMENT: u64 = 0x3fff << 48;
    if kind >> 40 != IPV4 || part & FRAGMENT != 0 {
        return None;
    }
    let end = L3_AT + (kind >> 16 & 0xffff) as usize;
    let (tos, ttl, protocol) = (kind >> 32 & 0xff, part >> 40 & 0xff, (part >> 32) as u8);
    let ports_word = word(L4_AT);
    let room = end.min(h.len());
    let (l4, l4_len, flags) = match protocol {
        protocol::UDP if !ports.is_known((ports_word >> 32) as u16) => (L4::Udp, Udp::SIZE, 0),
        protocol::TCP => {
            // Length of the header, and nine flags.
            let told = u16::from_be_bytes([first[L4_AT + 12], first[L4_AT + 13]]);
            let l4_len = usize::from(told >> 12) * 4;
            if l4_len < Tcp::SIZE {
                return None;
            }
            (L4::Tcp, l4_len, told & 0x1ff)
        }
        _ => return None,
    };
    if L4_AT + l4_len > room || end > len {
        return None;
    }
    let layers = Layers {
        l2_off: 0,
        l2_len: MIN_LEN as u16,
        vlans: 0,
        ethertype: ethertype::IPV4,
        l3: L3::Ipv4,
        l3_off: L3_AT as u16,
        l3_len: Ipv4::SIZE as u16,
        l3_end: end as u32,
        l3_len_ok: true,
        ip_protocol: protocol,
        fragment: Fragment::Whole,
        l4,
        l4_off: L4_AT as u16,
        l4_len: l4_len as u16,
        tcp_flags: flags,
    };
    let key = FlowKey::plain(
        from,
        [word(0) & !0xffff, word(4) << 16 | tos << 8 | ttl],
        ports_word >> 32 << 32 | u64::from(flags) << 16 | u64::from(protocol),
        word(L3_AT + 12),
    );
    let hash = key.hash();
    Some((layers, key, hash))
}
