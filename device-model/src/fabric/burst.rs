//! Frames of a send queue that go together: those whose flows are known are
//! served without asking steering, a run of them at a time.

use sfnic_firmware_cmds::layouts::FteMatchSetMisc2;

use super::counters::{Cast, Tally};
use super::flows::cache::{At, Cache, Depends, End, Flow, Way};
use super::pipeline::Pipeline;
use super::plane::{FunctionPlane, Keys};
use super::receive::{plain_rx_info, rx_info};
use super::tir::Lro;
use super::vport::Vport;
use crate::dma::Near;
use crate::nic::Card;
use crate::packet::checksum::{self, Fill};
use crate::packet::key::MISC2;
use crate::packet::{FlowKey, Frame};
use crate::queue::{Rq, RssType, RxDrop, RxInfo};
use crate::steering::Changes;

/// Most frames that are kept; what they take of the first-level cache is what
/// bounds it.
pub const KEPT: usize = 32;

/// Flows of a worker that are near anyway: what is known of them fits a
/// second-level cache.
const NEAR: usize = 4096;

/// A kept frame's companion.
#[derive(Debug, Clone, Copy)]
pub struct Note {
    /// Its flow.
    pub key: FlowKey,
    /// Hash of the key.
    pub hash: u64,
    /// Checksums to fill in.
    pub fill: Fill,
    /// metadata_reg_a.
    pub reg_a: u32,
    /// It is the first frame of its message.
    pub begins: bool,
}

/// Who sends.
#[derive(Clone, Copy)]
pub struct From<'a> {
    /// Card of the function.
    pub card: &'a Card,
    /// The function.
    pub function: &'a FunctionPlane,
    /// Number of the send queue.
    pub sqn: u32,
    /// Its transport domain.
    pub td: u32,
}

/// Where frames of a burst come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A send queue.
    Queue(From<'a>),
    /// The wire at the port of a card.
    Wire(&'a Card),
    /// The peer behind a vport of a card.
    Peer(&'a Card, &'a Vport),
}

impl Source<'_> {
    /// Fills in the match fields of a frame whose key is zero.
    pub(super) fn read_headers(&self, frame: &mut Frame<'_>, reg_a: u32) {
        match self {
            Source::Queue(from) => read_headers(*from, frame, reg_a),
            // The port says where it comes from.
            Source::Wire(_) => frame.parse(),
            Source::Peer(_, vport) => {
                frame.set_source(vport.number, 0);
                frame.parse();
            }
        }
    }

    /// A parsed frame goes the long way.
    pub(super) fn enter(&self, p: &mut Pipeline<'_>, frame: &mut Frame<'_>) {
        match self {
            Source::Queue(from) => p.send(from.card, from.function, frame),
            Source::Wire(card) => p.receive_parsed(card, frame),
            Source::Peer(card, vport) => p.send_from_peer(card, vport, frame),
        }
    }
}

/// Sends kept frames, in order.
pub fn send(p: &mut Pipeline<'_>, cache: &mut Cache, from: Source<'_>, frames: &mut [Frame<'_>], notes: &[Note]) {
    // After the WQEs were read: see `flows`.
    let changes = &p.nic.flows.changes;
    cache.sync(changes.now());
    let n = frames.len().min(notes.len()).min(KEPT);
    let (frames, notes) = (&mut frames[..n], &notes[..n]);
    let mut found = [At::NONE; KEPT];
    let found = &mut found[..n];
    // Look-ups that do not wait for one another: memory is asked for all that
    // a step needs of all frames before the first frame takes it.
    let far = cache.len() > NEAR;
    if far {
        touch(notes.iter().map(|n| cache.touch_index(n.hash)));
    }
    for (at, note) in found.iter_mut().zip(notes) {
        *at = cache.candidate(note.hash);
    }
    if far {
        touch(found.iter().map(|at| cache.touch(*at)));
        touch(found.iter().map(|at| cache.touch_mark(*at, changes)));
    }
    for (at, note) in found.iter_mut().zip(notes) {
        if !(cache.confirm(*at, &note.key) && cache.holds(*at, changes)) {
            *at = At::NONE;
        }
    }
    if far {
        let places = found.iter().filter_map(|at| cache.flow(*at)?.counters.first());
        touch(places.map(|place| p.nic.counters.touch(p.worker, *place)));
    }
    if go_together(cache, found, frames) {
        return serve(p, cache, from, frames, notes, found);
    }
    let learnt = cache.learnt;
    let mut done = 0;
    while let (Some(frame), Some(note)) = (frames.get_mut(done), notes.get(done)) {
        let first = place(cache, changes, learnt, found.get(done), note);
        let Some((flow, way)) = cache.get(first) else {
            long_way(p, Some(&mut *cache), from, frame, note);
            done += 1;
            continue;
        };
        let (way, max_len) = (flow.way(), way.max_len);
        let fits = |f: Option<&Frame<'_>>| f.is_some_and(|f| f.len() <= max_len);
        if !fits(Some(frame)) {
            long_way(p, None, from, frame, note);
            done += 1;
            continue;
        }
        let mut run = [first; KEPT];
        let mut n = 1;
        while let Some(note) = notes.get(done + n).filter(|_| fits(frames.get(done + n))) {
            let at = place(cache, changes, learnt, found.get(done + n), note);
            if cache.way(at) != Some(way) {
                break;
            }
            run[n] = at;
            n += 1;
        }
        serve(p, cache, from, &mut frames[done..done + n], &notes[done..done + n], &run[..n]);
        done += n;
    }
}

/// Whether all flows of a burst are known, share a way, and their frames fit it: mostly.
#[inline]
fn go_together(cache: &Cache, found: &[At], frames: &[Frame<'_>]) -> bool {
    let Some((flow, way)) = found.first().and_then(|at| cache.get(*at)) else { return false };
    let shared = Some(flow.way());
    found.iter().zip(frames).all(|(at, frame)| cache.way(*at) == shared && frame.len() <= way.max_len)
}

/// Has all these values loaded, one beside the other.
#[inline]
fn touch(values: impl Iterator<Item = u32>) {
    std::hint::black_box(values.fold(0, |all, v| all ^ v));
}

/// A flow's place; what was found while the cache had learnt less may have moved
/// since.
#[inline]
fn place(cache: &mut Cache, changes: &Changes, learnt: u64, found: Option<&At>, note: &Note) -> At {
    match found {
        Some(at) if *at != At::NONE && cache.learnt == learnt => *at,
        _ => cache.find(&note.key, note.hash).filter(|at| cache.holds(*at, changes)).unwrap_or(At::NONE),
    }
}

/// A frame through all tables; the cache learns from it.
pub fn long_way(p: &mut Pipeline<'_>, cache: Option<&mut Cache>, from: Source<'_>, frame: &mut Frame<'_>, note: &Note) {
    frame.key.0.fill(0);
    from.read_headers(frame, note.reg_a);
    checksum::fill(frame, note.fill);
    if note.begins {
        p.begin_message();
    }
    let Some(cache) = cache else {
        return from.enter(p, frame);
    };
    let learnt = match from {
        Source::Queue(from) => p.send_learning(from.card, from.function, frame, note.key),
        Source::Wire(card) => p.receive_learning(card, frame, note.key),
        Source::Peer(card, vport) => p.send_from_peer_learning(card, vport, frame, note.key),
    };
    if let Some((flow, way, on)) = learnt {
        cache.learn(note.hash, flow, way, on, &p.nic.flows.changes);
    }
}

/// Fills in the match fields of a frame whose key is zero.
pub fn read_headers(from: From<'_>, frame: &mut Frame<'_>, reg_a: u32) {
    frame.set_source(from.function.vport.number, from.sqn);
    frame.meta.source_td = from.td;
    frame.key.set(MISC2, FteMatchSetMisc2::metadata_reg_a, reg_a);
    frame.parse();
}

/// Serves frames of flows that share a way.
fn serve(p: &mut Pipeline<'_>, cache: &Cache, from: Source<'_>, frames: &mut [Frame<'_>], notes: &[Note], at: &[At]) {
    let mut tally = Tally::default();
    let counters = p.nic.counters.of(p.worker);
    for ((frame, note), at) in frames.iter().zip(notes).zip(at) {
        let len = frame.len();
        tally.count(Cast::of_flow(&note.key), len);
        if let Some(flow) = cache.flow(*at) {
            flow.counters.iter().for_each(|c| counters.add(*c, len as u64));
        }
    }
    let Some((_, way)) = at.first().and_then(|at| cache.get(*at)) else { return };
    count(p, from, way, &tally, frames.len());
    let nic = p.nic;
    let cards = &nic.cards;
    let (function, vport, rq, rss, lro) = match &way.end {
        End::Queue { function, vport, rq, rss, lro } => (function, vport, rq, rss, lro),
        End::Wire(card) => {
            let Some(card) = cards.get(*card) else { return };
            for (frame, note) in frames.iter_mut().zip(notes) {
                checksum::fill(frame, note.fill);
                p.leave_by_wire(card, frame);
            }
            return;
        }
        End::Peer { vport, peer } => {
            vport.rx.add(&tally);
            for (frame, note) in frames.iter_mut().zip(notes) {
                checksum::fill(frame, note.fill);
                p.hand_out(vport, peer, frame);
            }
            return;
        }
        End::Drop => return,
    };
    vport.rx.add(&tally);
    let flows = at.iter().filter_map(|at| cache.flow(*at));
    if receive(p, function, rq, (*rss, *lro), frames.iter_mut().zip(notes).zip(flows)) {
        p.merges(function, rq);
    }
}

/// Counts so many frames at their sender's and at the ports on their way.
#[inline]
pub(super) fn count(p: &mut Pipeline<'_>, from: Source<'_>, way: &Way, tally: &Tally, frames: usize) {
    match from {
        Source::Queue(from) => from.function.vport.tx.add(tally),
        Source::Wire(_) => {}
        Source::Peer(_, vport) => vport.tx.add(tally),
    }
    p.account(way.crossings, frames);
    let cards = &p.nic.cards;
    way.ports_out.iter().filter_map(|c| cards.get(*c)).for_each(|c| c.port.tx.add(tally));
    way.ports_in.iter().filter_map(|c| cards.get(*c)).for_each(|c| c.port.add_rx(tally));
}

/// Puts frames into a receive queue. True where it waits for more segments.
fn receive<'f, 'm: 'f>(
    p: &mut Pipeline<'_>,
    function: &FunctionPlane,
    rq: &Rq,
    (rss, lro): (RssType, Lro),
    frames: impl Iterator<Item = ((&'f mut Frame<'m>, &'f Note), &'f Flow)>,
) -> bool {
    let mem = function.dma.load();
    let near = Near::new(&mem);
    let (nic, now) = (p.nic, p.now);
    let keys = Keys::new(function, &nic.flows);
    let mut session = rq.session(&near, &keys, now);
    let (mut waits, joins) = (false, lro.ipv4 || lro.ipv6);
    for ((frame, note), flow) in frames {
        if p.can_wait() && session.as_mut().is_ok_and(|s| s.is_starved(frame.len())) {
            // The driver hears of what it has, and may post more.
            if let Ok(s) = &mut session {
                let _ = s.end_merge();
            }
            drop(session);
            p.wait_while(|| rq.is_starved(&mem, frame.len()));
            session = rq.session(&near, &keys, now);
        }
        let (mut info, sums) = match checksum::fill_and_sum_plain(frame, note.fill) {
            Some(sums) => (plain_rx_info(frame, sums), sums),
            None => {
                let sums = checksum::fill_and_sum(frame, note.fill);
                (rx_info(frame, sums), sums)
            }
        };
        (info.flow_tag, info.metadata) = (flow.flow_tag, flow.reg_b);
        (info.rss_hash, info.rss_type) = (flow.rss_hash, rss);
        let end = match (&mut session, joins.then(|| lro.segment(frame, &sums)).flatten()) {
            (Ok(s), Some(segment)) => s.deliver_segment(frame, &RxInfo { ..info }, &segment, lro.limit),
            (Ok(s), None) => s.deliver(frame, &info).map(|()| false),
            (Err(e), _) => Err(*e),
        };
        waits |= end == Ok(true);
        if end.is_err_and(|e| e != RxDrop::NoBuffer) {
            function.vport.rx.errors.count(frame.len());
        }
    }
    waits
}

/// A way as it is learnt.
pub type Learnt = Option<(Flow, Way, Depends)>;
