//! Frames that come in by a wire, from outside the process.

use super::burst::{self, Note, Source};
use super::flows::cache::Cache;
use super::kept::Kept;
use super::pipeline::Pipeline;
use super::vport::UPLINK;
use crate::nic::Card;
use crate::packet::checksum::Fill;
use crate::packet::{Frame, Sender, lso};

/// Takes in a frame at a card's port. With `segment` it stands for TCP segments of so
/// many bytes of payload each, one behind the other, whose checksums are to be filled in;
/// false where it cannot be cut.
pub fn arrive(
    p: &mut Pipeline<'_>,
    cache: Option<&mut Cache>,
    card: &Card,
    mut frame: Frame<'_>,
    segment: Option<usize>,
) -> bool {
    frame.tunnel_ports = **card.fabric.tunnels.load();
    let sender = Sender { card: card.index as u8, vport: UPLINK, sqn: 0, reg_a: 0 };
    let known = cache.filter(|_| !p.nic.is_watched()).and_then(|cache| Some((cache, frame.quick_parse(sender)?)));
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
fn segments(
    p: &mut Pipeline<'_>,
    cache: &mut Cache,
    (card, sender): (&Card, Sender),
    frame: &Frame<'_>,
    mss: usize,
) -> bool {
    let Some(cut) = lso::Cut::new(frame, mss, frame.layers.l4_end()) else { return false };
    let (mut kept, from) = (Kept::default(), Source::Wire(card));
    for i in 0..cut.count() {
        cut.segment(frame, i, kept.next());
        kept.keep(p, cache, from, (sender, cut.fill(), i == 0));
    }
    kept.flush(p, cache, from);
    true
}
