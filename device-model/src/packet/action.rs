//! Modify-header actions: single fields of a packet set, added to or copied,
//! with every checksum that covers them repaired (RFC 1624) and the match key
//! kept in step.

use sfnic_firmware_cmds::layout::Field;
use sfnic_firmware_cmds::layouts::{
    AddActionIn, CopyActionIn, FteMatchSetLyr24 as Lyr, FteMatchSetMisc2 as Misc2, FteMatchSetMisc3 as Misc3,
    SetActionIn,
};
use sfnic_firmware_cmds::{Refusal, Syndrome, View, ViewMut};

use super::checksum::rewrite;
use super::frame::Frame;
use super::headers::{Ipv4, Ipv6, Tcp, Udp, VlanTag};
use super::key::{MISC2, MISC3, OUTER};
use super::layers::{L3, L4, Layers};

/// Where a field lies in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    DmacHigh,
    DmacLow,
    SmacHigh,
    SmacLow,
    Ethertype,
    Vid,
    Dscp,
    Ipv4Ttl,
    HopLimit,
    /// Source or destination.
    Ipv4 {
        dst: bool,
    },
    /// Dword of an address, first one most significant.
    Ipv6 {
        dst: bool,
        word: u8,
    },
    TcpPort {
        dst: bool,
    },
    UdpPort {
        dst: bool,
    },
    TcpFlags,
    TcpSeq,
    TcpAck,
    RegA,
    RegB,
    RegC(u8),
    IpsecSyndrome,
    PspSyndrome,
}

/// A field that can be modified (`MLX5_ACTION_IN_FIELD_*`).
#[derive(Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// The number in the command.
    pub id: u16,
    /// Name, as the kernel's without its prefix.
    pub name: &'static str,
    /// Width in bits.
    pub width: u32,
    place: Place,
}

macro_rules! fields {
    ($($id:literal $name:ident $width:literal $place:expr;)*) => {
        /// Every field that can be modified.
        pub const FIELDS: &[HeaderField] =
            &[$(HeaderField { id: $id, name: stringify!($name), width: $width, place: $place }),*];
    };
}

fields! {
    0x01 SMAC_47_16 32 Place::SmacHigh;
    0x02 SMAC_15_0 16 Place::SmacLow;
    0x03 ETHERTYPE 16 Place::Ethertype;
    0x04 DMAC_47_16 32 Place::DmacHigh;
    0x05 DMAC_15_0 16 Place::DmacLow;
    0x06 IP_DSCP 6 Place::Dscp;
    0x07 TCP_FLAGS 9 Place::TcpFlags;
    0x08 TCP_SPORT 16 Place::TcpPort { dst: false };
    0x09 TCP_DPORT 16 Place::TcpPort { dst: true };
    0x0a IP_TTL 8 Place::Ipv4Ttl;
    0x0b UDP_SPORT 16 Place::UdpPort { dst: false };
    0x0c UDP_DPORT 16 Place::UdpPort { dst: true };
    0x0d SIPV6_127_96 32 Place::Ipv6 { dst: false, word: 0 };
    0x0e SIPV6_95_64 32 Place::Ipv6 { dst: false, word: 1 };
    0x0f SIPV6_63_32 32 Place::Ipv6 { dst: false, word: 2 };
    0x10 SIPV6_31_0 32 Place::Ipv6 { dst: false, word: 3 };
    0x11 DIPV6_127_96 32 Place::Ipv6 { dst: true, word: 0 };
    0x12 DIPV6_95_64 32 Place::Ipv6 { dst: true, word: 1 };
    0x13 DIPV6_63_32 32 Place::Ipv6 { dst: true, word: 2 };
    0x14 DIPV6_31_0 32 Place::Ipv6 { dst: true, word: 3 };
    0x15 SIPV4 32 Place::Ipv4 { dst: false };
    0x16 DIPV4 32 Place::Ipv4 { dst: true };
    0x17 FIRST_VID 12 Place::Vid;
    0x47 IPV6_HOPLIMIT 8 Place::HopLimit;
    0x49 METADATA_REG_A 32 Place::RegA;
    0x50 METADATA_REG_B 32 Place::RegB;
    0x51 METADATA_REG_C_0 32 Place::RegC(0);
    0x52 METADATA_REG_C_1 32 Place::RegC(1);
    0x53 METADATA_REG_C_2 32 Place::RegC(2);
    0x54 METADATA_REG_C_3 32 Place::RegC(3);
    0x55 METADATA_REG_C_4 32 Place::RegC(4);
    0x56 METADATA_REG_C_5 32 Place::RegC(5);
    0x57 METADATA_REG_C_6 32 Place::RegC(6);
    0x58 METADATA_REG_C_7 32 Place::RegC(7);
    0x59 TCP_SEQ_NUM 32 Place::TcpSeq;
    0x5b TCP_ACK_NUM 32 Place::TcpAck;
    0x5d IPSEC_SYNDROME 8 Place::IpsecSyndrome;
    0x71 PSP_SYNDROME 8 Place::PspSyndrome;
}

/// One action of a modify-header context (`set_add_copy_action_in_auto`).
/// Offsets count from a field's least significant bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderAction {
    /// Sets `length` bits at `offset` to `data`.
    Set {
        /// The field.
        field: &'static HeaderField,
        /// First bit.
        offset: u32,
        /// Bits, 1 to 32.
        length: u32,
        /// The value.
        data: u32,
    },
    /// Adds `data` to the whole field, without carry out of it.
    Add {
        /// The field.
        field: &'static HeaderField,
        /// What to add.
        data: u32,
    },
    /// Copies `length` bits from one field to another.
    Copy {
        /// Where from.
        src: &'static HeaderField,
        /// First bit there.
        src_offset: u32,
        /// Where to.
        dst: &'static HeaderField,
        /// First bit there.
        dst_offset: u32,
        /// Bits, 1 to 32.
        length: u32,
    },
}

const TYPE_SET: u32 = 1;
const TYPE_ADD: u32 = 2;
const TYPE_COPY: u32 = 3;

fn field(id: u32) -> Result<&'static HeaderField, Refusal> {
    FIELDS.iter().find(|f| u32::from(f.id) == id).ok_or(Refusal::param(Syndrome::MODIFY_FIELD))
}

/// The bits an action names. A length of 0 means 32, or all there are.
fn span(room: u32, offset: u32, length: u32) -> Result<u32, Refusal> {
    let room = room.checked_sub(offset).filter(|r| *r > 0).ok_or(Refusal::param(Syndrome::MODIFY_FIELD))?;
    match length {
        0 => Ok(room),
        n if n <= room => Ok(n),
        _ => Err(Refusal::param(Syndrome::MODIFY_FIELD)),
    }
}

fn ones(bits: u32) -> u32 {
    u32::MAX.checked_shr(32 - bits.min(32)).unwrap_or(0)
}

fn insert(old: u32, offset: u32, length: u32, value: u32) -> u32 {
    let mask = ones(length) << offset;
    (old & !mask) | ((value << offset) & mask)
}

impl HeaderAction {
    /// Reads one action of ALLOC_MODIFY_HEADER_CONTEXT.
    ///
    /// Refuses a field or an action type that is not known, and bits outside
    /// their field, with [`Syndrome::MODIFY_FIELD`].
    pub fn decode(raw: &[u8; 8]) -> Result<Self, Refusal> {
        let v = View::<SetActionIn>::new(raw);
        match v.get(SetActionIn::action_type) {
            TYPE_SET => {
                let field = field(v.get(SetActionIn::field))?;
                let offset = v.get(SetActionIn::offset);
                let length = span(field.width, offset, v.get(SetActionIn::length))?;
                Ok(Self::Set { field, offset, length, data: v.get(SetActionIn::data) })
            }
            TYPE_ADD => {
                let v = View::<AddActionIn>::new(raw);
                Ok(Self::Add { field: field(v.get(AddActionIn::field))?, data: v.get(AddActionIn::data) })
            }
            TYPE_COPY => {
                let v = View::<CopyActionIn>::new(raw);
                let (src, dst) = (field(v.get(CopyActionIn::src_field))?, field(v.get(CopyActionIn::dst_field))?);
                let (src_offset, dst_offset) = (v.get(CopyActionIn::src_offset), v.get(CopyActionIn::dst_offset));
                let told = v.get(CopyActionIn::length);
                let length = span(src.width, src_offset, told)?.min(span(dst.width, dst_offset, told)?);
                Ok(Self::Copy { src, src_offset, dst, dst_offset, length })
            }
            _ => Err(Refusal::param(Syndrome::MODIFY_FIELD)),
        }
    }

    /// The action as [`HeaderAction::decode`] reads it.
    pub(crate) fn encode(&self) -> [u8; 8] {
        let mut raw = [0; 8];
        // A length of 32 bits is written as 0.
        let bits = |n: u32| n % 32;
        match *self {
            Self::Set { field, offset, length, data } => {
                let mut v = ViewMut::<SetActionIn>::new(&mut raw);
                v.set(SetActionIn::action_type, TYPE_SET).set(SetActionIn::field, field.id.into());
                v.set(SetActionIn::offset, offset).set(SetActionIn::length, bits(length));
                v.set(SetActionIn::data, data);
            }
            Self::Add { field, data } => {
                let mut v = ViewMut::<AddActionIn>::new(&mut raw);
                v.set(AddActionIn::action_type, TYPE_ADD).set(AddActionIn::field, field.id.into());
                v.set(AddActionIn::data, data);
            }
            Self::Copy { src, src_offset, dst, dst_offset, length } => {
                let mut v = ViewMut::<CopyActionIn>::new(&mut raw);
                v.set(CopyActionIn::action_type, TYPE_COPY).set(CopyActionIn::length, bits(length));
                v.set(CopyActionIn::src_field, src.id.into()).set(CopyActionIn::src_offset, src_offset);
                v.set(CopyActionIn::dst_field, dst.id.into()).set(CopyActionIn::dst_offset, dst_offset);
            }
        }
        raw
    }

    /// Whether it writes metadata registers alone, and what it writes is the
    /// same for all frames of a flow ([`super::FlowKey`]).
    pub fn is_of_flow(&self) -> bool {
        let register = |f: &HeaderField| key_field(f.place).is_some() || f.place == Place::RegB;
        match self {
            Self::Set { field, .. } | Self::Add { field, .. } => register(field),
            Self::Copy { src, dst, .. } => register(dst) && !matches!(src.place, Place::TcpSeq | Place::TcpAck),
        }
    }

    /// Carries the action out on a parsed frame. A field that the packet does
    /// not have (a TCP port of a UDP packet) reads as nothing and is left out.
    pub fn apply(&self, f: &mut Frame<'_>) {
        match *self {
            Self::Set { field, offset, length, data } => {
                if let Some(old) = read(f, field.place) {
                    write(f, field.place, insert(old, offset, length, data));
                }
            }
            Self::Add { field, data } => {
                if let Some(old) = read(f, field.place) {
                    write(f, field.place, old.wrapping_add(data) & ones(field.width));
                }
            }
            Self::Copy { src, src_offset, dst, dst_offset, length } => {
                if let (Some(from), Some(old)) = (read(f, src.place), read(f, dst.place)) {
                    write(f, dst.place, insert(old, dst_offset, length, from >> src_offset));
                }
            }
        }
    }
}

impl std::fmt::Display for HeaderAction {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Set { field, offset, length, data } => {
                write!(out, "set {}[{}:{offset}] = {data:#x}", field.name, offset + length - 1)
            }
            Self::Add { field, data } => write!(out, "add {} += {data:#x}", field.name),
            Self::Copy { src, src_offset, dst, dst_offset, length } => {
                let (d, s) = (dst_offset + length - 1, src_offset + length - 1);
                write!(out, "copy {}[{d}:{dst_offset}] = {}[{s}:{src_offset}]", dst.name, src.name)
            }
        }
    }
}

const fn reg_c(n: u8) -> Field<Misc2> {
    match n {
        0 => Misc2::metadata_reg_c_0,
        1 => Misc2::metadata_reg_c_1,
        2 => Misc2::metadata_reg_c_2,
        3 => Misc2::metadata_reg_c_3,
        4 => Misc2::metadata_reg_c_4,
        5 => Misc2::metadata_reg_c_5,
        6 => Misc2::metadata_reg_c_6,
        _ => Misc2::metadata_reg_c_7,
    }
}

fn key_field(place: Place) -> Option<Field<Misc2>> {
    Some(match place {
        Place::RegA => Misc2::metadata_reg_a,
        Place::RegC(n) => reg_c(n),
        Place::IpsecSyndrome => Misc2::ipsec_syndrome,
        Place::PspSyndrome => Misc2::psp_syndrome,
        _ => return None,
    })
}

/// The field of the outer match block that mirrors a place, where there is
/// one of up to 32 bits.
fn mirror(place: Place) -> Option<Field<Lyr>> {
    Some(match place {
        Place::DmacHigh => Lyr::dmac_47_16,
        Place::DmacLow => Lyr::dmac_15_0,
        Place::SmacHigh => Lyr::smac_47_16,
        Place::SmacLow => Lyr::smac_15_0,
        Place::Ethertype => Lyr::ethertype,
        Place::Vid => Lyr::first_vid,
        Place::Dscp => Lyr::ip_dscp,
        Place::Ipv4Ttl | Place::HopLimit => Lyr::ttl_hoplimit,
        Place::TcpPort { dst: false } => Lyr::tcp_sport,
        Place::TcpPort { dst: true } => Lyr::tcp_dport,
        Place::UdpPort { dst: false } => Lyr::udp_sport,
        Place::UdpPort { dst: true } => Lyr::udp_dport,
        Place::TcpFlags => Lyr::tcp_flags,
        _ => return None,
    })
}

/// Whether the packet has the field.
fn present(l: &Layers, place: Place) -> bool {
    match place {
        Place::Vid => l.vlans > 0,
        Place::Dscp => l.l3 != L3::None,
        Place::Ipv4Ttl | Place::Ipv4 { .. } => l.l3 == L3::Ipv4,
        Place::HopLimit | Place::Ipv6 { .. } => l.l3 == L3::Ipv6,
        Place::TcpPort { .. } | Place::TcpFlags | Place::TcpSeq | Place::TcpAck => l.l4 == L4::Tcp,
        Place::UdpPort { .. } => l.l4 == L4::Udp,
        _ => l.l2_len > 0,
    }
}

/// The value of a field. The key is in step with the bytes, so it is read
/// there.
fn read(f: &Frame<'_>, place: Place) -> Option<u32> {
    if let Some(k) = key_field(place) {
        return Some(f.key.get(MISC2, k));
    }
    if place == Place::RegB {
        return Some(f.meta.reg_b);
    }
    if !present(&f.layers, place) {
        return None;
    }
    Some(match place {
        Place::Ipv4 { dst } => f.key.word(OUTER, address(dst), 3),
        Place::Ipv6 { dst, word } => f.key.word(OUTER, address(dst), usize::from(word)),
        Place::TcpSeq => f.key.get(MISC3, Misc3::outer_tcp_seq_num),
        Place::TcpAck => f.key.get(MISC3, Misc3::outer_tcp_ack_num),
        _ => f.key.get(OUTER, mirror(place)?),
    })
}

const fn address(dst: bool) -> sfnic_firmware_cmds::layout::Bytes<Lyr> {
    if dst { Lyr::dst_ipv4_dst_ipv6 } else { Lyr::src_ipv4_src_ipv6 }
}

/// Sets a field of a header and repairs the checksums that cover its dword.
fn put<S: sfnic_firmware_cmds::Layout>(f: &mut Frame<'_>, header: u16, field: Field<S>, v: u32, ip: bool, l4: bool) {
    let (l, at) = (f.layers, usize::from(header) + field.dword() * 4);
    let Some(old) = f.headers().get(at..).and_then(|h| h.first_chunk::<4>()) else { return };
    let new = field.in_dword(u32::from_be_bytes(*old), v);
    rewrite(f, &l, at, &new.to_be_bytes(), ip, l4);
}

/// Writes a field that [`read`] has found.
fn write(f: &mut Frame<'_>, place: Place, v: u32) {
    if let Some(k) = key_field(place) {
        f.key.set(MISC2, k, v);
        return;
    }
    let l = f.layers;
    let v4 = l.l3 == L3::Ipv4;
    match place {
        Place::RegB => {
            f.meta.reg_b = v;
            return;
        }
        Place::DmacHigh => rewrite(f, &l, 0, &v.to_be_bytes(), false, false),
        Place::DmacLow => rewrite(f, &l, 4, &v.to_be_bytes()[2..], false, false),
        Place::SmacHigh => rewrite(f, &l, 6, &v.to_be_bytes(), false, false),
        Place::SmacLow => rewrite(f, &l, 10, &v.to_be_bytes()[2..], false, false),
        Place::Ethertype => {
            // What follows is now something else: read it again.
            let at = usize::from(l.l2_len).saturating_sub(2);
            rewrite(f, &l, at, &v.to_be_bytes()[2..], false, false);
            f.parse();
            return;
        }
        Place::Vid => {
            let Some(tag) = f.headers_mut().get_mut(14..18) else { return };
            ViewMut::<VlanTag>::new(tag).set(VlanTag::vid, v);
        }
        Place::Dscp if v4 => put(f, l.l3_off, Ipv4::dscp, v, true, false),
        Place::Dscp => put(f, l.l3_off, Ipv6::dscp, v, false, false),
        Place::Ipv4Ttl => put(f, l.l3_off, Ipv4::ttl, v, true, false),
        Place::HopLimit => put(f, l.l3_off, Ipv6::hop_limit, v, false, false),
        Place::Ipv4 { dst } => {
            put(f, l.l3_off, if dst { Ipv4::dst } else { Ipv4::src }, v, true, true);
            f.key.set_word(OUTER, address(dst), 3, v);
        }
        Place::Ipv6 { dst, word } => {
            let base = if dst { Ipv6::dst } else { Ipv6::src }.offset();
            let at = usize::from(l.l3_off) + base + usize::from(word) * 4;
            rewrite(f, &l, at, &v.to_be_bytes(), false, true);
            f.key.set_word(OUTER, address(dst), usize::from(word), v);
        }
        Place::UdpPort { dst: true } => {
            let old = f.key.get(OUTER, Lyr::udp_dport) as u16;
            put(f, l.l4_off, Udp::dport, v, false, true);
            if f.tunnel_ports.is_known(old) || f.tunnel_ports.is_known(v as u16) {
                // What follows is now read in another way.
                f.parse();
                return;
            }
        }
        Place::TcpPort { dst } | Place::UdpPort { dst } => {
            put(f, l.l4_off, if dst { Tcp::dport } else { Tcp::sport }, v, false, true);
        }
        Place::TcpFlags => {
            put(f, l.l4_off, Tcp::flags, v, false, true);
            f.layers.tcp_flags = v as u16;
        }
        Place::TcpSeq => {
            put(f, l.l4_off, Tcp::seq, v, false, true);
            f.key.set(MISC3, Misc3::outer_tcp_seq_num, v);
        }
        Place::TcpAck => {
            put(f, l.l4_off, Tcp::ack, v, false, true);
            f.key.set(MISC3, Misc3::outer_tcp_ack_num, v);
        }
        Place::RegA | Place::RegC(_) | Place::IpsecSyndrome | Place::PspSyndrome => return,
    }
    if let Some(k) = mirror(place) {
        f.key.set(OUTER, k, v);
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::verify;
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    fn raw(d0: u32, d1: u32) -> [u8; 8] {
        let mut r = [0; 8];
        r[..4].copy_from_slice(&d0.to_be_bytes());
        r[4..].copy_from_slice(&d1.to_be_bytes());
        r
    }

    fn set(field: u32, offset: u32, length: u32, data: u32) -> HeaderAction {
        HeaderAction::decode(&raw(1 << 28 | field << 16 | offset << 8 | length, data)).unwrap()
    }

    #[test]
    fn unknown_fields_and_bits_outside_are_refused() {
        let no = Err(Refusal::param(Syndrome::MODIFY_FIELD));
        for bad in [
            raw(1 << 28 | 0x18 << 16, 0),          // no such field
            raw(4 << 28 | 0x16 << 16, 0),          // no such type
            raw(0, 0),                             // nothing
            raw(1 << 28 | 0x02 << 16 | 17, 0),     // 17 bits of 16
            raw(1 << 28 | 0x0a << 16 | 8 << 8, 0), // starts behind 8 bits
            raw(3 << 28 | 0x51 << 16, 0xfff << 16),
        ] {
            assert_eq!(HeaderAction::decode(&bad), no);
        }
        let all = HeaderAction::decode(&raw(1 << 28 | 0x51 << 16, 7)).unwrap();
        assert!(matches!(all, HeaderAction::Set { length: 32, offset: 0, data: 7, .. }));
    }

    #[test]
    fn metadata_is_set_and_copied_in_part() {
        let mut bytes = samples::frame(Ip::V4, Proto::Tcp, 0);
        let mut f = Frame::from_bytes(&mut bytes).unwrap();
        f.parse();
        f.key.set(MISC2, Misc2::metadata_reg_c_0, 0x1234_5678);
        set(0x51, 16, 16, 0xabcd).apply(&mut f);
        assert_eq!(f.key.get(MISC2, Misc2::metadata_reg_c_0), 0xabcd_5678);
        // reg_c_0[31:16] into reg_b[15:0].
        HeaderAction::decode(&raw(3 << 28 | 0x51 << 16 | 16 << 8 | 16, 0x50 << 16)).unwrap().apply(&mut f);
        assert_eq!(f.meta.reg_b, 0xabcd);
        HeaderAction::decode(&raw(2 << 28 | 0x58 << 16, u32::MAX)).unwrap().apply(&mut f);
        assert_eq!(f.key.get(MISC2, Misc2::metadata_reg_c_7), u32::MAX);
    }

    #[test]
    fn a_rewritten_packet_is_one_that_parses_and_verifies() {
        for ip in [Ip::V4, Ip::V6] {
            for proto in [Proto::Tcp, Proto::Udp] {
                let mut bytes = samples::tagged(&samples::frame(ip, proto, 33), &[(0x8100, 0xf123)]);
                let mut f = Frame::from_bytes(&mut bytes).unwrap();
                f.parse();
                for (i, field) in FIELDS.iter().enumerate().filter(|(_, f)| f.place != Place::Ethertype) {
                    set(u32::from(field.id), 0, 0, 0x9e37_79b9u32.rotate_left(i as u32)).apply(&mut f);
                    let mut again = f.clone();
                    again.parse();
                    assert_eq!(again.key, f.key, "{} {ip:?} {proto:?}", field.name);
                    assert_eq!(again.layers, f.layers);
                    let v = verify(&f);
                    assert!(v.l3_ok() && v.l4_ok(), "{} {ip:?} {proto:?}", field.name);
                }
                assert_eq!(f.key.get(OUTER, Lyr::first_prio), 7);
            }
        }
    }

    #[test]
    fn ttl_counts_down() {
        let mut bytes = samples::frame(Ip::V4, Proto::Udp, 8);
        let mut f = Frame::from_bytes(&mut bytes).unwrap();
        f.parse();
        HeaderAction::decode(&raw(2 << 28 | 0x0a << 16, 0xff)).unwrap().apply(&mut f);
        assert_eq!((f.headers()[22], f.key.get(OUTER, Lyr::ttl_hoplimit)), (63, 63));
        assert!(verify(&f).l3_ok());
        // The hop limit of a packet that is not IPv6 is not there.
        HeaderAction::decode(&raw(2 << 28 | 0x47 << 16, 0xff)).unwrap().apply(&mut f);
        assert_eq!(f.headers()[22], 63);
    }

    #[test]
    fn the_ethertype_decides_what_follows() {
        let mut bytes = samples::frame(Ip::V4, Proto::Udp, 8);
        let mut f = Frame::from_bytes(&mut bytes).unwrap();
        f.parse();
        set(0x03, 0, 16, 0x88b5).apply(&mut f);
        assert_eq!((f.layers.l3, f.key.get(OUTER, Lyr::ethertype)), (L3::None, 0x88b5));
    }

    #[test]
    fn an_absent_udp_checksum_stays_absent() {
        let mut bytes = samples::frame(Ip::V4, Proto::Udp, 8);
        bytes[40..42].fill(0);
        let mut f = Frame::from_bytes(&mut bytes).unwrap();
        f.parse();
        set(0x15, 0, 0, 0x0102_0304).apply(&mut f);
        assert_eq!(f.headers()[40..42], [0, 0]);
        assert!(verify(&f).l4_ok());
    }

    #[test]
    fn an_action_prints_as_one_reads_it() {
        assert_eq!(set(0x51, 16, 16, 5).to_string(), "set METADATA_REG_C_0[31:16] = 0x5");
    }
}
