//! Packet reformat: tunnel headers put on and taken off, and single headers
//! inserted or removed.

use sfnic_firmware_cmds::layouts::{FteMatchSetLyr24 as Lyr, PacketReformatContextIn as Ctx};
use sfnic_firmware_cmds::{Layout, Refusal, Syndrome, View, ViewMut};

use super::checksum::{Fill, fill, set_ip4_length};
use super::frame::{Frame, HEADROOM, MIN_LEN};
use super::headers::{Ipv6, Udp, ethertype};
use super::key::OUTER;
use super::layers::{L3, L4, Tunnel};

/// Types of a reformat context (`MLX5_REFORMAT_TYPE_*`).
pub(crate) mod kind {
    pub(crate) const L2_TO_VXLAN: u32 = 0x0;
    pub(crate) const L2_TO_NVGRE: u32 = 0x1;
    pub(crate) const L2_TO_L2_TUNNEL: u32 = 0x2;
    pub(crate) const L3_TUNNEL_TO_L2: u32 = 0x3;
    pub(crate) const L2_TO_L3_TUNNEL: u32 = 0x4;
    pub(crate) const INSERT_HDR: u32 = 0xf;
    pub(crate) const REMOVE_HDR: u32 = 0x10;
}

/// Longest header that is put on.
pub const MAX_HEADER: usize = HEADROOM;

/// Ports that stand for flows in an outer UDP header (RFC 7348, section 5).
const ENTROPY_BASE: u32 = 0xc000;

/// Where an inserted or removed header lies (`MLX5_REFORMAT_CONTEXT_ANCHOR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Start of the frame.
    Mac,
    /// Behind the Ethernet addresses.
    Vlan,
    /// The network header.
    Ip,
    /// The transport header.
    TcpUdp,
}

/// A packet reformat context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reformat {
    /// Puts an outer Ethernet, IP and tunnel header in front.
    Encap {
        /// The header.
        header: Box<[u8]>,
        /// The frame's own Ethernet header goes.
        l2_to_l3: bool,
    },
    /// Takes an outer header up to the inner IP off and puts Ethernet on.
    DecapL3 {
        /// The Ethernet header.
        header: Box<[u8]>,
    },
    /// Inserts bytes; no length or checksum follows.
    Insert {
        /// Counted from here.
        anchor: Anchor,
        /// Bytes behind the anchor.
        offset: usize,
        /// What to insert.
        data: Box<[u8]>,
    },
    /// Removes bytes; no length or checksum follows.
    Remove {
        /// Counted from here.
        anchor: Anchor,
        /// Bytes behind the anchor.
        offset: usize,
        /// How many.
        size: usize,
    },
}

impl Reformat {
    /// Reads the context of ALLOC_PACKET_REFORMAT_CONTEXT, seen open-ended
    /// (`sub_open`) so that its data is there.
    ///
    /// Refuses types that are not modelled (ESP, PSP, MACsec) and sizes that
    /// the type cannot have with [`Syndrome::REFORMAT_TYPE`], and data shorter
    /// than the size told with [`Syndrome::INPUT_SHORT`].
    pub fn decode(ctx: View<'_, Ctx>) -> Result<Self, Refusal> {
        let bad = Refusal::param(Syndrome::REFORMAT_TYPE);
        let size = ctx.get(Ctx::reformat_data_size) as usize;
        let data = || {
            let from = Ctx::reformat_data.offset();
            ctx.raw().get(from..from + size).map(Box::from).ok_or(Refusal::param(Syndrome::INPUT_SHORT))
        };
        let anchor = || match ctx.get(Ctx::reformat_param_0) {
            1 => Ok(Anchor::Mac),
            2 => Ok(Anchor::Vlan),
            7 => Ok(Anchor::Ip),
            9 => Ok(Anchor::TcpUdp),
            _ => Err(bad),
        };
        let offset = ctx.get(Ctx::reformat_param_1) as usize;
        if size == 0 || size > MAX_HEADER {
            return Err(bad);
        }
        let kind = ctx.get(Ctx::reformat_type);
        match kind {
            kind::L2_TO_VXLAN | kind::L2_TO_NVGRE | kind::L2_TO_L2_TUNNEL | kind::L2_TO_L3_TUNNEL => {
                if size < MIN_LEN {
                    return Err(bad);
                }
                Ok(Self::Encap { header: data()?, l2_to_l3: kind == kind::L2_TO_L3_TUNNEL })
            }
            kind::L3_TUNNEL_TO_L2 => {
                if size < MIN_LEN {
                    return Err(bad);
                }
                Ok(Self::DecapL3 { header: data()? })
            }
            kind::INSERT_HDR => Ok(Self::Insert { anchor: anchor()?, offset, data: data()? }),
            kind::REMOVE_HDR => Ok(Self::Remove { anchor: anchor()?, offset, size }),
            _ => Err(bad),
        }
    }

    /// The context as [`Reformat::decode`] reads it. Which of the tunnels with an L2 payload a
    /// header is of makes no difference once it has been taken.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let number = |a: &Anchor| match a {
            Anchor::Mac => 1,
            Anchor::Vlan => 2,
            Anchor::Ip => 7,
            Anchor::TcpUdp => 9,
        };
        let (kind, param, size, data): (_, _, _, &[u8]) = match self {
            Self::Encap { header, l2_to_l3: true } => (kind::L2_TO_L3_TUNNEL, (0, 0), header.len(), header),
            Self::Encap { header, l2_to_l3: false } => (kind::L2_TO_L2_TUNNEL, (0, 0), header.len(), header),
            Self::DecapL3 { header } => (kind::L3_TUNNEL_TO_L2, (0, 0), header.len(), header),
            Self::Insert { anchor, offset, data } => (kind::INSERT_HDR, (number(anchor), *offset), data.len(), data),
            Self::Remove { anchor, offset, size } => (kind::REMOVE_HDR, (number(anchor), *offset), *size, &[]),
        };
        let from = Ctx::reformat_data.offset();
        let mut raw = vec![0; Ctx::SIZE.max(from + data.len())];
        raw[from..from + data.len()].copy_from_slice(data);
        let mut v = ViewMut::<Ctx>::new(&mut raw);
        v.set(Ctx::reformat_type, kind).set(Ctx::reformat_data_size, size as u32);
        v.set(Ctx::reformat_param_0, param.0).set(Ctx::reformat_param_1, param.1 as u32);
        raw
    }

    /// Carries the reformat out on a parsed frame, which is parsed again.
    /// False where the frame has not what is to be removed or no room for what
    /// is to be added: it is to be dropped.
    #[must_use]
    pub fn apply(&self, f: &mut Frame<'_>) -> bool {
        match self {
            Self::Encap { header, l2_to_l3 } => f.encap(header, *l2_to_l3),
            Self::DecapL3 { header } => f.decap_l3(header),
            Self::Insert { anchor, offset, data } => {
                let Some(room) = f.open(at(f, *anchor) + offset, data.len()) else { return false };
                room.copy_from_slice(data);
                f.parse();
                true
            }
            Self::Remove { anchor, offset, size } => {
                let done = f.close(at(f, *anchor) + offset, *size);
                f.parse();
                done
            }
        }
    }
}

fn at(f: &Frame<'_>, anchor: Anchor) -> usize {
    match anchor {
        Anchor::Mac => 0,
        Anchor::Vlan => 12,
        Anchor::Ip => f.layers.l3_off.into(),
        Anchor::TcpUdp => f.layers.l4_off.into(),
    }
}

/// A number that is the same for all packets of a flow.
fn flow_entropy(f: &Frame<'_>) -> u32 {
    let start = OUTER.dword();
    let ports = [Lyr::tcp_sport, Lyr::udp_sport].map(|p| f.key.0[start + p.dword()]);
    let from = start + Lyr::src_ipv4_src_ipv6.offset() / 4;
    // Both addresses, both ports, protocol; Ethernet addresses for the rest.
    let addresses = f.key.0[from..from + 8].iter().chain(&f.key.0[start..start + 4]).chain(&ports);
    addresses.fold(0x811c_9dc5, |h, w| (h ^ w).wrapping_mul(0x0100_0193).rotate_left(13))
}

impl Frame<'_> {
    /// Puts a tunnel's headers in front: `header` runs from Ethernet to the
    /// tunnel header (`MLX5_REFORMAT_TYPE_L2_TO_*`). With `l2_to_l3` the
    /// frame's own Ethernet header and tags go first. Outer IP and UDP lengths
    /// and the IPv4 checksum are filled in, a UDP source port of 0 becomes one
    /// that depends on the flow; the outer UDP checksum stays as given.
    ///
    /// False where the headroom is too small; the frame is then as it was.
    #[must_use]
    pub fn encap(&mut self, header: &[u8], l2_to_l3: bool) -> bool {
        let entropy = flow_entropy(self);
        let strip = if l2_to_l3 { usize::from(self.layers.l2_len) } else { 0 };
        // One move: what is stripped makes room for part of the header.
        if header.len() < MIN_LEN || strip > header.len() {
            return false;
        }
        let Some(_) = self.open(0, header.len() - strip) else { return false };
        let Some(place) = self.headers_mut().get_mut(..header.len()) else { return false };
        place.copy_from_slice(header);
        self.parse();
        self.fix_outer(entropy);
        true
    }

    fn fix_outer(&mut self, entropy: u32) {
        let (l, end) = (self.layers, self.len());
        let (ip, l4) = (usize::from(l.l3_off), usize::from(l.l4_off));
        if let Some(h) = self.headers_mut().get_mut(ip..) {
            let size = end - ip;
            match l.l3 {
                L3::Ipv4 => set_ip4_length(h, size as u32, None),
                L3::Ipv6 => {
                    let payload = size.saturating_sub(Ipv6::SIZE) as u32;
                    ViewMut::<Ipv6>::new(h).set(Ipv6::payload_len, payload & 0xffff);
                }
                L3::None => return,
            }
        }
        if l.l4 == L4::Udp
            && let Some(u) = self.headers_mut().get_mut(l4..)
        {
            let mut v = ViewMut::<Udp>::new(u);
            v.set(Udp::len, (end - l4) as u32 & 0xffff);
            if v.as_view().get(Udp::sport) == 0 {
                v.set(Udp::sport, ENTROPY_BASE | (entropy & 0x3fff));
            }
        }
        // Lengths are right now: what a parse takes from them is, too.
        self.parse();
        fill(self, Fill { l3: true, ..Fill::default() });
    }

    /// Takes a tunnel's headers off a frame that carries an Ethernet frame:
    /// FTE action `DECAP` (VXLAN, Geneve, NVGRE). False where it carries none.
    #[must_use]
    pub fn decap_l2(&mut self) -> bool {
        let Some(inner) = self.inner.filter(|i| i.l2_len > 0) else { return false };
        let done = self.close(0, inner.l2_off.into());
        self.parse();
        done
    }

    /// Takes a tunnel's headers off up to the inner IP header and puts an
    /// Ethernet header on (`MLX5_REFORMAT_TYPE_L3_TUNNEL_TO_L2`). An ethertype
    /// of 0 in it becomes that of the inner packet. False where the frame
    /// carries no IP packet, or there is no room.
    #[must_use]
    pub fn decap_l3(&mut self, header: &[u8]) -> bool {
        let Some(inner) = self.inner.filter(|i| i.l3 != L3::None) else { return false };
        let off = usize::from(inner.l3_off);
        let n = header.len();
        if n < MIN_LEN {
            return false;
        }
        let fits = if n <= off { off == n || self.close(0, off - n) } else { self.open(0, n - off).is_some() };
        if !fits {
            return false;
        }
        let Some(place) = self.headers_mut().get_mut(..n) else { return false };
        place.copy_from_slice(header);
        if place[n - 2..] == [0, 0] {
            let e = if inner.l3 == L3::Ipv4 { ethertype::IPV4 } else { ethertype::IPV6 };
            place[n - 2..].copy_from_slice(&e.to_be_bytes());
        }
        self.parse();
        true
    }

    /// Whether the frame is a tunnel's that [`Frame::decap_l2`] or
    /// [`Frame::decap_l3`] can open.
    pub fn is_tunneled(&self) -> bool {
        self.tunnel != Tunnel::None
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::verify;
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    fn all(f: &Frame) -> Vec<u8> {
        let mut out = vec![0; f.len()];
        f.write_into(&mut out);
        out
    }

    fn context(kind: u8, anchor: u8, offset: u8, size: u16, data: &[u8]) -> Vec<u8> {
        let mut c = vec![kind, anchor, (size >> 8) as u8, size as u8, offset, 0];
        c.extend(data);
        c
    }

    fn decode(c: &[u8]) -> Result<Reformat, Refusal> {
        Reformat::decode(View::new(c))
    }

    /// A VXLAN header as the driver gives it: no lengths, no source port.
    fn vxlan_header() -> Vec<u8> {
        let mut h = samples::udp_tunnel(4789, 0x77, &[]);
        h[16..18].fill(0);
        h[24..26].fill(0);
        h[34..36].fill(0);
        h[38..40].fill(0);
        h
    }

    #[test]
    fn encap_and_decap_undo_each_other() {
        for payload in [0, 10, 1400] {
            let mut raw = samples::tagged(&samples::frame(Ip::V6, Proto::Udp, payload), &[(0x8100, 7)]);
            let whole = raw.clone();
            let mut f = Frame::from_bytes(&mut raw).unwrap();
            f.parse();
            let h = vxlan_header();
            let encap = decode(&context(0, 0, 0, h.len() as u16, &h)).unwrap();
            assert!(encap.apply(&mut f));
            assert_eq!((f.tunnel, f.len()), (Tunnel::Vxlan, whole.len() + 50));
            let v = verify(&f);
            assert!(v.outer.l3_ok && v.outer.l4_ok && v.inner.unwrap().l4_ok, "{v:?}");
            assert!(f.key.get(OUTER, Lyr::udp_sport) >= ENTROPY_BASE);
            assert!(f.decap_l2());
            assert_eq!(all(&f), whole);
            assert!(!f.decap_l2() && !f.decap_l3(&[0; 14]));
            assert_eq!(all(&f), whole);
        }
    }

    #[test]
    fn one_flow_has_one_source_port() {
        let port = |payload, last: u8| {
            let mut raw = samples::frame(Ip::V4, Proto::Udp, payload);
            raw[33] = last;
            let mut f = Frame::from_bytes(&mut raw).unwrap();
            f.parse();
            assert!(f.encap(&vxlan_header(), false));
            f.key.get(OUTER, Lyr::udp_sport)
        };
        assert_eq!(port(3, 2), port(400, 2));
        assert_ne!(port(3, 2), port(3, 3));
    }

    #[test]
    fn ip_goes_through_a_tunnel_without_its_ethernet() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 300);
        let whole = raw.clone();
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let h = &samples::gre(0x0800, 5, &[])[..42];
        let encap = decode(&context(4, 0, 0, 42, h)).unwrap();
        assert!(encap.apply(&mut f));
        assert_eq!((f.tunnel, f.len()), (Tunnel::Gre, whole.len() - 14 + 42));
        assert!(verify(&f).l3_ok());
        let mut eth = whole[..14].to_vec();
        eth[12..].fill(0);
        assert!(decode(&context(3, 0, 0, 14, &eth)).unwrap().apply(&mut f));
        assert_eq!(all(&f), whole);
    }

    #[test]
    fn a_tag_can_be_inserted_and_removed_as_bytes() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 3);
        let whole = raw.clone();
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let tag = [0x81, 0, 0, 9];
        assert!(decode(&context(0xf, 1, 12, 4, &tag)).unwrap().apply(&mut f));
        assert_eq!(f.key.get(OUTER, Lyr::first_vid), 9);
        assert_eq!(all(&f), samples::tagged(&whole, &[(0x8100, 9)]));
        assert!(decode(&context(0x10, 2, 0, 4, &[])).unwrap().apply(&mut f));
        assert_eq!(all(&f), whole);
        let rest = Reformat::Remove { anchor: Anchor::TcpUdp, offset: 0, size: 24 };
        assert!(!rest.apply(&mut f));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let bad = Err(Refusal::param(Syndrome::REFORMAT_TYPE));
        assert_eq!(decode(&context(5, 0, 0, 20, &[0; 20])), bad);
        assert_eq!(decode(&context(0, 0, 0, 13, &[0; 13])), bad);
        assert_eq!(decode(&context(0, 0, 0, 129, &[0; 129])), bad);
        assert_eq!(decode(&context(0xf, 3, 0, 4, &[0; 4])), bad);
        assert_eq!(decode(&context(0, 0, 0, 50, &[0; 49])), Err(Refusal::param(Syndrome::INPUT_SHORT)));
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 3);
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let h = vxlan_header();
        assert!(f.encap(&h, false) && f.encap(&h, false));
        let before = all(&f);
        assert!(!f.encap(&h, false));
        assert_eq!(all(&f), before);
    }
}
