//! Frames that come in from outside the process: by a wire, or from the peer behind a
//! vport.

use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;

use super::burst::{self, Note, Source};
use super::flows::cache::Cache;
use super::kept::Kept;
use super::message;
use super::pipeline::Pipeline;
use super::rate::Rate;
use super::vport::{UPLINK, Vport};
use crate::nic::{Card, Nic};
use crate::packet::checksum::Fill;
use crate::packet::{FlowKey, Frame, Sender, TunnelPorts, lso};

/// Shortest frame on a wire without its check sequence; what a virtual machine sends
/// shorter is padded, as its card would do it.
const MIN_FRAME: usize = 60;

/// Where frames come in.
#[derive(Clone, Copy)]
pub enum Door<'a> {
    /// At the port of a card.
    Port(&'a Card),
    /// At a vport of a card that has a peer.
    Vport(&'a Card, &'a Vport),
}

impl<'a> Door<'a> {
    fn source(self) -> Source<'a> {
        match self {
            Door::Port(card) => Source::Wire(card),
            Door::Vport(card, vport) => Source::Peer(card, vport),
        }
    }

    fn card(self) -> &'a Card {
        match self {
            Door::Port(card) | Door::Vport(card, _) => card,
        }
    }

    fn sender(self) -> Sender {
        let vport = match self {
            Door::Port(_) => UPLINK,
            Door::Vport(_, vport) => vport.number,
        };
        Sender { card: self.card().index as u8, vport, sqn: 0, reg_a: 0 }
    }

    /// How fast may be sent by it.
    fn rate(self) -> Option<&'a Rate> {
        match self {
            Door::Port(_) => None,
            Door::Vport(_, vport) => Some(&vport.rate),
        }
    }

    /// Whether nobody is to send by it.
    fn is_closed(self) -> bool {
        match self {
            Door::Port(_) => false,
            Door::Vport(_, vport) => vport.peer.load().is_none() || !vport.link.load(Relaxed),
        }
    }
}

/// What the sender of a frame left to be done to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// A checksum is to be completed: where its data start, and where it is from there. It
    /// holds the sum of the pseudo header.
    pub checksum: Option<(u16, u16)>,
    /// The frame stands for TCP segments of so many bytes of payload each, which come one
    /// behind the other; their checksums are to be filled in.
    pub segment: Option<usize>,
}

/// Takes in frames of a burst. They may lie in memory of their sender, who gets it back once
/// [`Arrivals::flush`] was called.
pub struct Arrivals<'n, 'm> {
    pipeline: Pipeline<'n>,
    /// Known flows; none where every frame is to go the long way.
    cache: Option<MutexGuard<'n, Cache>>,
    door: Door<'n>,
    sender: Sender,
    kept: Kept<'m>,
    /// A frame that is to be cut, where there was one.
    message: Option<Box<Frame<'m>>>,
    tunnels: TunnelPorts,
    closed: bool,
    /// Bytes that the rate of the door allows in this burst, and that were sent.
    allowance: u64,
    sent: u64,
}

impl Nic {
    /// A burst of frames that come in by a door. `worker` is a number that no other thread
    /// has. While a receive queue has no buffer, `pause` is asked whether to look again.
    pub fn arrivals<'n, 'm>(
        &'n self,
        worker: usize,
        door: Door<'n>,
        pause: &'n mut dyn FnMut() -> bool,
    ) -> Arrivals<'n, 'm> {
        Arrivals {
            pipeline: Pipeline::with_pause(self, worker, self.ticks(), pause),
            cache: self.flows.of(worker).filter(|_| !self.is_watched()),
            sender: door.sender(),
            kept: Kept::default(),
            message: None,
            tunnels: **door.card().fabric.tunnels.load(),
            closed: door.is_closed(),
            allowance: door.rate().map_or(u64::MAX, |r| r.allowance(|| self.clock.now_ns()).unwrap_or(0)),
            sent: 0,
            door,
        }
    }
}

impl<'m> Arrivals<'_, 'm> {
    /// The frame that is to be formed next, one that is to be cut or another one.
    #[inline]
    pub fn form(&mut self, large: bool) -> &mut Frame<'m> {
        let frame = match large {
            true => &mut **self.message.get_or_insert_with(|| Box::new(Frame::empty())),
            false => self.kept.next(),
        };
        frame.tunnel_ports = self.tunnels;
        frame
    }

    /// Takes the frame that was formed last. False where it is lost: nobody is to send here,
    /// or it cannot be cut.
    pub fn take(&mut self, left: Left) -> bool {
        if self.closed {
            self.refuse(left.segment.is_some());
            return false;
        }
        if let Some(mss) = left.segment {
            self.sent += self.message.as_ref().map_or(0, |m| m.len() as u64);
            return self.segments(mss);
        }
        let frame = self.kept.next();
        self.sent += frame.len() as u64;
        let fill = left.checksum.map_or(Fill::default(), |place| complete(frame, place));
        if let Door::Vport(..) = self.door {
            frame.pad(MIN_FRAME);
        }
        let (p, from) = (&mut self.pipeline, self.door.source());
        match self.cache.as_deref_mut() {
            Some(cache) => self.kept.keep(p, cache, from, (self.sender, fill, true)),
            None => burst::long_way(p, None, from, self.kept.next(), &note(fill)),
        }
        true
    }

    #[cold]
    fn refuse(&mut self, large: bool) {
        if let Door::Vport(_, vport) = self.door {
            let len = self.form(large).len();
            vport.tx.errors.count(len);
        }
    }

    /// Takes the segments of a frame, as many at a time as a burst has.
    fn segments(&mut self, mss: usize) -> bool {
        let Some(mut message) = self.message.take() else { return false };
        let (p, from) = (&mut self.pipeline, self.door.source());
        let known = self.cache.as_deref_mut().and_then(|cache| Some((cache, message.quick_parse(self.sender)?)));
        let done = match known {
            Some((cache, key)) => cut(p, cache, from, (self.sender, &key), (&message, mss), &mut self.kept),
            None => {
                self.flush();
                let (p, from) = (&mut self.pipeline, self.door.source());
                cut_long_way(p, from, &mut message, mss)
            }
        };
        self.message = Some(message);
        done
    }

    /// What was taken goes its way, and is nowhere in its sender's memory any more.
    pub fn flush(&mut self) {
        if let Some(cache) = self.cache.as_deref_mut() {
            self.kept.flush(&mut self.pipeline, cache, self.door.source());
        }
        if let Some(rate) = self.door.rate() {
            let (clock, sent) = (&self.pipeline.nic.clock, std::mem::take(&mut self.sent));
            rate.charge(|| clock.now_ns(), sent);
            self.allowance = self.allowance.saturating_sub(sent);
        }
    }

    /// Whether this burst has done enough.
    pub fn has_done_enough(&self) -> bool {
        self.sent >= self.allowance || self.pipeline.has_done_enough()
    }
}

/// Completes a checksum, or says that it is one that is filled in when all of the frame is
/// read anyway.
fn complete(frame: &mut Frame<'_>, (start, offset): (u16, u16)) -> Fill {
    if is_plain(frame.headers(), start.into(), offset.into()) {
        return Fill { l4: true, ..Fill::default() };
    }
    frame.complete_checksum(start.into(), offset.into());
    Fill::default()
}

/// Whether a place is that of the checksum of TCP or UDP behind IPv4 or IPv6, without tags,
/// options or a tunnel.
fn is_plain(h: &[u8], start: usize, offset: usize) -> bool {
    const ETHERNET: usize = 14;
    const TCP: (u8, usize) = (6, 16);
    const UDP: (u8, usize) = (17, 6);
    let (protocol, end) = match h.get(12..16) {
        Some([8, 0, 0x45, _]) => (h.get(ETHERNET + 9), ETHERNET + 20),
        Some([0x86, 0xdd, version, _]) if version >> 4 == 6 => (h.get(ETHERNET + 6), ETHERNET + 40),
        _ => return false,
    };
    // Fragments have no checksum of their own that could be computed.
    let whole = h.get(12) != Some(&8) || h.get(20..22).is_some_and(|f| f[0] & 0x3f == 0 && f[1] == 0);
    let said = protocol.map(|p| (*p, offset));
    start == end && whole && (said == Some(TCP) || said == Some(UDP)) && h.len() >= start + offset + 2
}

fn note(fill: Fill) -> Note {
    Note { key: FlowKey::default(), hash: 0, fill, reg_a: 0, begins: true }
}

/// Takes in one frame by a door, which was not kept anywhere. With `segment` it stands for
/// TCP segments, see [`Left::segment`]; false where it cannot be cut.
pub(crate) fn arrive(
    p: &mut Pipeline<'_>,
    cache: Option<&mut Cache>,
    door: Door<'_>,
    mut frame: Frame<'_>,
    segment: Option<usize>,
) -> bool {
    if door.is_closed() {
        return false;
    }
    let (from, sender) = (door.source(), door.sender());
    frame.tunnel_ports = **door.card().fabric.tunnels.load();
    if let (Door::Vport(..), None) = (door, segment) {
        frame.pad(MIN_FRAME);
    }
    let known = cache.filter(|_| !p.nic.is_watched()).and_then(|cache| Some((cache, frame.quick_parse(sender)?)));
    match (known, segment) {
        (Some((cache, key)), None) => {
            let note = Note { key, hash: key.hash(), fill: Fill::default(), reg_a: 0, begins: true };
            burst::send(p, cache, from, std::slice::from_mut(&mut frame), &[note]);
        }
        (Some((cache, key)), Some(mss)) => {
            let mut kept = Kept::default();
            let done = cut(p, cache, from, (sender, &key), (&frame, mss), &mut kept);
            kept.flush(p, cache, from);
            return done;
        }
        (None, None) => burst::long_way(p, None, from, &mut frame, &note(Fill::default())),
        (None, Some(mss)) => return cut_long_way(p, from, &mut frame, mss),
    }
    true
}

/// Keeps the segments of a frame whose flow may be known.
fn cut<'m>(
    p: &mut Pipeline<'_>,
    cache: &mut Cache,
    from: Source<'_>,
    (sender, key): (Sender, &FlowKey),
    (frame, mss): (&Frame<'m>, usize),
    kept: &mut Kept<'m>,
) -> bool {
    let Some(cut) = lso::Cut::new(frame, mss, frame.layers.l4_end()) else { return false };
    let taken = message::take(p, cache, from, (sender, key), (frame, &cut), kept);
    for i in taken..cut.count() {
        cut.segment(frame, i, kept.next());
        kept.keep(p, cache, from, (sender, cut.fill(), i == 0));
    }
    true
}

fn cut_long_way(p: &mut Pipeline<'_>, from: Source<'_>, frame: &mut Frame<'_>, mss: usize) -> bool {
    frame.key.0.fill(0);
    from.read_headers(frame, 0);
    let header = frame.layers.l4_end();
    p.begin_message();
    lso::segment(frame, mss, header, |f| from.enter(p, f)).is_some()
}
