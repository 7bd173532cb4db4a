//! Receive dispatch: from a TIR into a receive queue.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::counters::Cast;
use super::flows::cache::End;
use super::pipeline::Pipeline;
use super::plane::FunctionPlane;
use super::tir::{Lro, Tir};
use crate::dma::{DmaError, Near};
use crate::packet::checksum::Summary;
use crate::packet::{Frame, L3, L4, checksum};
use crate::queue::{Rq, RssType, RxDrop, RxFrame, RxInfo};

/// Most receive queues that join segments at a time for one burst.
const MERGING: usize = 16;

impl Pipeline<'_> {
    /// A TIR picks the queue.
    pub(super) fn deliver(&mut self, function: &Arc<FunctionPlane>, tir: &Tir, frame: &Frame<'_>) {
        let state = tir.state.load();
        if self.blocked_loopback(function, tir, state.self_lb_block, frame) {
            return self.note(|| "dropped: the function's own frame".into());
        }
        let hash = state.hash(&frame.key);
        let v = checksum::verify(frame);
        let check_sum = checksum::rx_check_sum(frame);
        let sums = Summary { l3_ok: v.l3_ok(), l4_ok: v.l4_ok(), check_sum };
        let mut info = rx_info(frame, sums);
        info.rss_hash = hash.value;
        info.rss_type = RssType { ip: hash.ip_type as u8, l4: hash.l4_type as u8 };
        if self.flow.is_some() {
            let marks = [hash.value, frame.meta.flow_tag, frame.meta.reg_b];
            let queue = state.with_queue(hash.value, Arc::clone);
            if let Some(rq) = queue {
                let (function, vport) = (function.clone(), function.vport.clone());
                let end = End::Queue { function, vport, rq, rss: info.rss_type, lro: state.lro };
                self.learn(|r| r.end(end, marks));
            }
        }
        let end = state.with_queue(hash.value, |rq| {
            let end = self.hand_over((function, rq, state.lro), frame, &sums, &info);
            (rq.rqn(), end)
        });
        match end {
            Some((rqn, Ok(()))) => self.note(|| format!("received by rq {rqn:#x}")),
            Some((rqn, Err(e))) => {
                if !matches!(e, RxDrop::NoBuffer) {
                    function.vport.rx.errors.count(frame.len());
                }
                self.note(|| format!("dropped by rq {rqn:#x}: {e}"));
            }
            None => self.note(|| "dropped: the RQT is empty".into()),
        }
    }

    /// Whether a frame that the function sent itself is not taken. The field is
    /// called `self_lb_block`, but a bit that is set lets frames pass: so the
    /// driver uses it (`mlx5e_modify_tirs_lb`, `TIR_ALLOW_SELF_LB_UC`).
    fn blocked_loopback(&self, function: &FunctionPlane, tir: &Tir, allow: u32, frame: &Frame<'_>) -> bool {
        const UNICAST: u32 = 1;
        const MULTICAST: u32 = 2;
        let m = &frame.meta;
        let own = !m.from_wire && m.source_vport == function.vport.number && m.source_td == tir.td;
        let bit = if Cast::of(frame.headers()) == Cast::Unicast { UNICAST } else { MULTICAST };
        own && allow & bit == 0
    }

    /// Puts a frame into a receive queue, where it may be joined with others.
    pub(super) fn hand_over(
        &mut self,
        (function, rq, lro): (&Arc<FunctionPlane>, &Arc<Rq>, Lro),
        frame: &Frame<'_>,
        sums: &Summary,
        info: &RxInfo,
    ) -> Result<(), RxDrop> {
        let mem = function.dma.load();
        self.wait_while(|| rq.is_starved(&mem, frame.len()));
        let near = Near::new(&mem);
        let mut session = rq.session(&near, &**function, self.now)?;
        let Some(segment) = lro.segment(frame, sums) else { return session.deliver(frame, info) };
        let waits = session.deliver_segment(frame, info, &segment, lro.limit)?;
        drop(session);
        if waits {
            self.merges(function, rq);
        }
        Ok(())
    }

    /// A receive queue waits for more segments, until the burst ends at the latest.
    pub(super) fn merges(&mut self, function: &Arc<FunctionPlane>, rq: &Arc<Rq>) {
        if self.merging.iter().any(|(_, known)| Arc::ptr_eq(known, rq)) {
            return;
        }
        if self.merging.len() >= MERGING {
            self.end_merges();
        }
        self.merging.push((function.clone(), rq.clone()));
    }

    /// What receive queues have joined is received.
    pub(super) fn end_merges(&mut self) {
        for (function, rq) in self.merging.drain(..) {
            let mem = function.dma.load();
            let near = Near::new(&mem);
            if let Ok(mut session) = rq.session(&near, &*function, self.now) {
                // The driver hears of a queue in error by its completion.
                let _ = session.end_merge();
            }
        }
    }
}

/// What the completion tells of a frame.
#[inline]
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

/// The same of one that [`checksum::fill_and_sum_plain`] understood.
#[inline(always)]
pub(super) fn plain_rx_info(frame: &Frame<'_>, sums: Summary) -> RxInfo {
    RxInfo {
        l3_ok: sums.l3_ok,
        l4_ok: sums.l4_ok,
        l3_type: 2,
        l4_type: if frame.layers.l4 == L4::Udp { 2 } else { tcp_type(frame) },
        check_sum: sums.check_sum,
        check_sum_stripped: sums.check_sum,
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
    #[inline(always)]
    fn len(&self) -> usize {
        Frame::len(self)
    }
    #[inline(always)]
    fn whole(&self) -> Option<&[u8]> {
        (self.payload_len() == 0).then(|| self.headers())
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
