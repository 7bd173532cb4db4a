//! What the receive queue is told of a frame, and how it reads one.

use vm_memory::VolatileSlice;

use crate::dma::DmaError;
use crate::packet::checksum::{self, Summary};
use crate::packet::{Frame, L3, L4};
use crate::queue::{RxFrame, RxInfo};

/// What the completion tells of a frame.
pub(super) fn rx_info(frame: &Frame<'_>, sums: Summary) -> RxInfo {
    const C_VLAN: [u8; 2] = [0x81, 0x00];
    let l = frame.inner.as_ref().unwrap_or(&frame.layers);
    let h = frame.headers();
    let vlan = match h.get(12..16) {
        Some([a, b, c, d]) if [*a, *b] == C_VLAN => Some(u16::from_be_bytes([*c, *d])),
        _ => None,
    };
    let whole = sums.check_sum;
    RxInfo {
        flow_tag: frame.meta.flow_tag,
        metadata: frame.meta.reg_b,
        l3_ok: sums.l3_ok,
        l4_ok: sums.l4_ok,
        l3_type: match l.l3 {
            L3::None => 0,
            L3::Ipv6 => 1,
            L3::Ipv4 => 2,
        },
        l4_type: match l.l4 {
            L4::Udp => 2,
            L4::Tcp => tcp_type(frame),
            _ => 0,
        },
        tunneled: frame.inner.is_some(),
        vlan,
        check_sum: whole,
        // Behind a stripped tag the sum starts four bytes later.
        check_sum_stripped: match (vlan, h.get(14..18)) {
            (Some(_), Some(tag)) => checksum::add(whole, !checksum::sum(tag)),
            _ => whole,
        },
        ..RxInfo::default()
    }
}

/// TCP without ACK, an ACK alone, or an ACK with data.
fn tcp_type(frame: &Frame<'_>) -> u8 {
    const ACK: u16 = 0x10;
    let l = &frame.layers;
    match (l.tcp_flags & ACK != 0, l.l3_end as usize > l.l4_end()) {
        (false, _) => 1,
        (true, false) => 3,
        (true, true) => 4,
    }
}

impl RxFrame for Frame<'_> {
    fn len(&self) -> usize {
        Frame::len(self)
    }
    fn copy_to(&self, offset: usize, dst: &VolatileSlice<'_>) -> Result<(), DmaError> {
        match self.headers().get(offset..offset + dst.len()) {
            Some(own) => dst.copy_from(own),
            None => {
                self.scatter(offset, std::iter::once(*dst));
            }
        }
        Ok(())
    }
}
