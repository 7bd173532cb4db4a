//! A large TCP frame into a receive queue that joins segments.
//!
//! Its segments would be cut, looked up and joined again one by one. Where their flow is known
//! and ends in such a queue, those behind the first one are counted each, and written together:
//! the queue gets what it would have got.

use super::burst::{self, Source};
use super::counters::{Cast, Tally};
use super::flows::cache::{Cache, End, Flow};
use super::kept::Kept;
use super::pipeline::Pipeline;
use super::plane::{FunctionPlane, Keys};
use super::receive::rx_info;
use super::tir::Lro;
use crate::dma::Near;
use crate::packet::checksum;
use crate::packet::headers::tcp_flag;
use crate::packet::lso::Cut;
use crate::packet::{FlowKey, Frame, L4, Sender};
use crate::queue::{Rq, RssType, RxDrop, RxInfo, Segment};

/// Fewer segments are not worth it.
const FEW: usize = 4;

/// Takes the segments of a frame but the last one, which may be shorter or pushed, if they can be
/// taken together. `key` is the frame's. Answers how many it took.
pub(super) fn take<'m>(
    p: &mut Pipeline<'_>,
    cache: &mut Cache,
    from: Source<'_>,
    (sender, key): (Sender, &FlowKey),
    (message, cut): (&Frame<'m>, &Cut),
    kept: &mut Kept<'m>,
) -> usize {
    let count = cut.count() - 1;
    let l = &message.layers;
    if count < FEW || l.l4 != L4::Tcp || u32::from(l.tcp_flags) & !tcp_flag::PSH != tcp_flag::ACK {
        return 0;
    }
    let changes = &p.nic.flows.changes;
    cache.sync(changes.now());
    // The last segment is of the frame's own flow: most frames end here.
    let is_joined = |cache: &Cache, key: &FlowKey, hash| {
        let at = cache.find(key, hash)?;
        let (_, way) = cache.get(at)?;
        matches!(&way.end, End::Queue { lro, .. } if lro.wants(l.l3)).then_some(at)
    };
    if is_joined(cache, key, key.hash()).is_none() {
        return 0;
    }
    kept.flush(p, cache, from);
    let s = kept.next();
    cut.segment(message, 0, s);
    let Some((key, hash)) = s.quick_key(sender) else { return 0 };
    let Some(at) = is_joined(cache, &key, hash) else { return 0 };
    if !cache.holds(at, changes) {
        return 0;
    }
    let Some((flow, way)) = cache.get(at).filter(|(_, way)| s.len() <= way.max_len) else { return 0 };
    let End::Queue { function, vport, rq, rss, lro } = &way.end else { return 0 };
    let mut tally = Tally::default();
    tally.count_all(Cast::of_flow(&key), s.len(), count);
    let counters = p.nic.counters.of(p.worker);
    for place in &flow.counters {
        counters.add_all(*place, count as u64, (count * s.len()) as u64);
    }
    burst::count(p, from, way, &tally, count);
    vport.rx.add(&tally);
    let run = Run { message, cut, count, flow, rss: *rss, lro: *lro };
    if receive(p, function, rq, &run, s) {
        p.merges(function, rq);
    }
    count
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
