//! Frames that come in by a wire, from outside the process.

use super::burst::{self, KEPT, Note, Source};
use super::flows::cache::Cache;
use super::pipeline::Pipeline;
use super::vport::UPLINK;
use crate::faults::Place;
use crate::nic::Card;
use crate::packet::checksum::Fill;
use crate::packet::{Frame, Sender, lso};

/// Takes in a frame at a card's port. With `segment` it stands for TCP segments of so
/// many bytes of payload each, one behind the other, whose checksums are to be filled in;
/// false where it cannot be cut.
pub fn arrive<'m>(
    p: &mut Pipeline<'_>,
    cache: Option<&mut Cache>,
    card: &Card,
    mut frame: Frame<'m>,
    segment: Option<usize>,
) -> bool {
    frame.tunnel_ports = **card.fabric.tunnels.load();
    // Who wants to see every decision gets every decision made.
    let watched = p.nic.explainer.is_on() || p.nic.capture.is_on() || p.nic.faults.at(Place::Frames);
    let sender = Sender { card: card.index as u8, vport: UPLINK, sqn: 0, reg_a: 0 };
    let known = cache.filter(|_| !watched).and_then(|cache| Some((cache, frame.quick_parse(sender)?)));
    match (known, segment) {
        (Some((cache, key)), None) => {
            let note = Note { key, hash: key.hash(), fill: Fill::default(), reg_a: 0, begins: true };
            burst::send(p, cache, Source::Wire(card), std::slice::from_mut(&mut frame), &[note]);
        }
        (Some((cache, _)), Some(mss)) => return segments(p, cache, (card, sender), &frame, mss),
        (None, None) => p.receive_wire(card, frame),
        (None, Some(mss)) => {
            frame.parse();
            let header = frame.layers.l4_end();
            return lso::segment(&frame, mss, header, |f| p.receive_parsed(card, f)).is_some();
        }
    }
    true
}

/// Takes in the segments of a frame, as many at a time as a burst has.
fn segments<'m>(
    p: &mut Pipeline<'_>,
    cache: &mut Cache,
    (card, sender): (&Card, Sender),
    frame: &Frame<'m>,
    mss: usize,
) -> bool {
    let Some(cut) = lso::Cut::new(frame, mss, frame.layers.l4_end()) else { return false };
    let count = cut.count();
    let mut frames: Vec<Frame<'m>> = vec![Frame::empty(); count.min(KEPT)];
    let mut notes: Vec<Note> = Vec::with_capacity(frames.len());
    for i in 0..count {
        let at = notes.len();
        cut.segment(frame, i, &mut frames[at]);
        match frames[at].quick_parse(sender) {
            Some(key) => notes.push(Note { key, hash: key.hash(), fill: cut.fill(), reg_a: 0, begins: i == 0 }),
            // Its headers are those of the frame, which have been understood.
            None => debug_assert!(false, "a segment is not understood"),
        }
        if notes.len() == frames.len() || i + 1 == count {
            let n = notes.len();
            burst::send(p, cache, Source::Wire(card), &mut frames[..n], &notes);
            notes.clear();
        }
    }
    true
}
