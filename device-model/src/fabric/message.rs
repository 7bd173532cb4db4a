//! A large TCP frame into a receive queue that joins segments, or to a wire that takes such
//! frames.
//!
//! Its segments would be cut, looked up and joined again one by one. Where their flow is known
//! and ends there, they are counted each and go on together: the queue gets, and the wire sends,
//! what it would have.

use super::burst::{self, Source};
use super::counters::{Cast, Tally};
use super::flows::cache::{Cache, End, Flow};
use super::kept::Kept;
use super::pipeline::Pipeline;
use super::plane::{FunctionPlane, Keys};
use super::port::Far;
use super::receive::rx_info;
use super::tir::Lro;
use crate::dma::Near;
use crate::nic::{Card, Nic};
use crate::packet::checksum;
use crate::packet::headers::tcp_flag;
use crate::packet::lso::Cut;
use crate::packet::{FlowKey, Frame, L4, Sender};
use crate::queue::{Rq, RssType, RxDrop, RxInfo, Segment};
use crate::world::Wire;

/// Fewer segments are not worth it.
const FEW: usize = 4;

/// Takes segments of a frame together, if it can: those for a receive queue but the last one,
/// which may be shorter or pushed, those for a wire that takes messages all. `whole` is the frame's
/// key. Answers how many it took.
pub(super) fn take<'m>(
    p: &mut Pipeline<'_>,
    cache: &mut Cache,
    from: Source<'_>,
    (sender, whole): (Sender, &FlowKey),
    (message, cut): (&Frame<'m>, &Cut),
    kept: &mut Kept<'m>,
) -> usize {
    let count = cut.count() - 1;
    let l = &message.layers;
    if count < FEW || l.l4 != L4::Tcp || u32::from(l.tcp_flags) & !tcp_flag::PSH != tcp_flag::ACK {
        return 0;
    }
    let nic = p.nic;
    let changes = &nic.flows.changes;
    cache.sync(changes.now());
    let together = |cache: &mut Cache, key: &FlowKey, hash| {
        let at = cache.find(key, hash)?;
        let (_, way) = cache.get(at)?;
        let takes = match &way.end {
            End::Queue { lro, .. } => lro.wants(l.l3),
            End::Wire(card) => wire(nic, *card).is_some_and(|(_, wire)| wire.takes_message(message)),
            End::Peer { .. } | End::Drop => false,
        };
        (takes && cache.holds(at, changes)).then_some(at)
    };
    // The last segment is of the frame's own flow: most frames end here.
    let hash_of_last = whole.hash();
    if together(cache, whole, hash_of_last).is_none() {
        return 0;
    }
    kept.flush(p, cache, from);
    let s = kept.next();
    cut.segment(message, 0, s);
    let Some((key, hash)) = s.quick_key(sender) else { return 0 };
    let Some(at) = together(cache, &key, hash) else { return 0 };
    // Again: what was kept may have taken its place.
    let Some(last) = together(cache, whole, hash_of_last) else { return 0 };
    let Some((flow, way)) = cache.get(at).filter(|(_, way)| s.len() <= way.max_len) else { return 0 };
    let mut tally = Tally::default();
    tally.count_all(Cast::of_flow(&key), s.len(), count);
    let counters = nic.counters.of(p.worker);
    let count_flow = || {
        for place in &flow.counters {
            counters.add_all(*place, count as u64, (count * s.len()) as u64);
        }
    };
    match &way.end {
        End::Queue { function, vport, rq, rss, lro } => {
            count_flow();
            burst::count(p, from, way, &tally, count);
            vport.rx.add(&tally);
            let run = Run { message, cut, count, flow, rss: *rss, lro: *lro };
            if receive(p, function, rq, &run, s) {
                p.merges(function, rq);
            }
            count
        }
        End::Wire(card) => {
            let last = cache.flow(last).filter(|last| last.way() == flow.way());
            let (Some((card, wire)), Some(last)) = (wire(nic, *card), last) else { return 0 };
            count_flow();
            let len = message.len() - count * cut.mss();
            last.counters.iter().for_each(|place| counters.add(*place, len as u64));
            tally.count(Cast::of_flow(&key), len);
            burst::count(p, from, way, &tally, count + 1);
            p.leave_as_message(card, wire, message, cut);
            count + 1
        }
        End::Peer { .. } | End::Drop => 0,
    }
}

/// The wire outside at the port of a card.
fn wire(nic: &Nic, card: usize) -> Option<(&Card, &dyn Wire)> {
    let card = nic.cards.get(card)?;
    let Far::Outside(wire) = &card.port.far else { return None };
    Some((card, wire.as_ref()))
}

/// The segments that are taken together.
struct Run<'r, 'm> {
    message: &'r Frame<'m>,
    cut: &'r Cut,
    count: usize,
    flow: &'r Flow,
    rss: RssType,
    lro: Lro,
}

/// Puts segments into a receive queue, formed in `s`. True where it waits for more.
fn receive<'m>(p: &mut Pipeline<'_>, function: &FunctionPlane, rq: &Rq, run: &Run<'_, 'm>, s: &mut Frame<'m>) -> bool {
    let Run { message, cut, count, flow, rss, lro } = run;
    let mem = function.dma.load();
    let near = Near::new(&mem);
    let (nic, now) = (p.nic, p.now);
    let keys = Keys::new(function, &nic.flows);
    let mut session = rq.session(&near, &keys, now);
    // The last one, if it is being joined.
    let mut joined: Option<(Segment, RxInfo)> = None;
    let (mut waits, mut done) = (false, 0);
    while done < *count {
        let more = match (&session, &joined) {
            (Ok(q), Some(_)) => q.room_for(cut.mss(), lro.limit).min(count - done),
            _ => 0,
        };
        let end = match (&mut session, &joined) {
            (Ok(q), Some((last, info))) if more > 0 => {
                cut.run(message, done, more, s);
                let sum = s.sum_range(last.header.into(), s.len());
                let all = Segment { payload: (more * cut.mss()) as u16, sum, seq: cut.seq(done), ..*last };
                let Some(end) = q.deliver_run(s, info, &all, more as u32, lro.limit) else {
                    joined = None;
                    continue;
                };
                end
            }
            _ => {
                cut.segment(message, done, s);
                if p.can_wait() && session.as_mut().is_ok_and(|q| q.is_starved(s.len())) {
                    // The driver hears of what it has, and may post more.
                    if let Ok(q) = &mut session {
                        let _ = q.end_merge();
                    }
                    drop(session);
                    p.wait_while(|| rq.is_starved(&mem, s.len()));
                    session = rq.session(&near, &keys, now);
                }
                let sums = checksum::fill_and_sum(s, cut.fill());
                let mut info = rx_info(s, sums);
                (info.flow_tag, info.metadata) = (flow.flow_tag, flow.reg_b);
                (info.rss_hash, info.rss_type) = (flow.rss_hash, *rss);
                joined = lro.segment(s, &sums).map(|segment| (segment, info));
                match (&mut session, &joined) {
                    (Ok(q), Some((segment, _))) => q.deliver_segment(s, &info, segment, lro.limit),
                    (Ok(q), None) => q.deliver(s, &info).map(|()| false),
                    (Err(e), _) => Err(*e),
                }
            }
        };
        waits |= end == Ok(true);
        if end != Ok(true) {
            joined = None;
        }
        let taken = more.max(1);
        if end.is_err_and(|e| e != RxDrop::NoBuffer) {
            (0..taken).for_each(|_| function.vport.rx.errors.count(cut.len()));
        }
        done += taken;
    }
    waits
}
