//! Sends that are read in one go against the same that are read segment by segment.

use proptest::prelude::*;

use super::mini_driver::{BAD_KEY, GOOD_KEY, WqeBuilder};
use super::plain::PlainSend;
use super::sq::{SqSnapshot, TxResult, TxSink};
use super::tests_tx::{Bench, Collect};
use super::wqe::TxWqe;
use crate::dma::DmaAccess;

/// Takes plain sends as such, but for every so many, and says which checksums and metadata came
/// with each frame.
struct Plain<'m> {
    all: Collect<'m>,
    told: Vec<(super::Csum, u32)>,
    plain: usize,
    refuse: usize,
}

impl TxSink for Plain<'_> {
    fn send(&mut self, wqe: &TxWqe<'_>) -> TxResult {
        let sent = self.all.send(wqe);
        if matches!(sent, TxResult::Sent { .. }) {
            self.told.push((wqe.csum, wqe.metadata));
        }
        sent
    }
    fn send_plain(&mut self, s: &PlainSend<'_>) -> Option<u64> {
        if self.refuse > 0 && self.told.len() % self.refuse == 0 {
            return None;
        }
        let mut frame = s.head[..s.head_len].to_vec();
        frame.resize(s.head_len + s.len, 0);
        self.all.mem.dma_read(s.iova, &mut frame[s.head_len..]).ok()?;
        self.plain += 1;
        self.told.push((s.csum, s.metadata));
        self.all.frames.push(frame);
        Some((s.head_len + s.len) as u64)
    }
}

/// A WQE: inline bytes, lengths of pieces, a key that is wrong, bits of the Ethernet segment.
#[derive(Debug, Clone)]
struct Shape {
    head: usize,
    pieces: Vec<u32>,
    bad: bool,
    inline: bool,
    signalled: bool,
    eth: u8,
    insert: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let head = prop_oneof![4 => Just(0usize), 4 => Just(18), 1 => 0..40usize];
    let pieces = prop_oneof![8 => prop::collection::vec(1..300u32, 1), 1 => prop::collection::vec(0..300u32, 0..3)];
    let rare = || prop::bool::weighted(0.02);
    (head, pieces, rare(), rare(), any::<bool>(), any::<u8>(), rare()).prop_map(
        |(head, pieces, bad, inline, signalled, eth, insert)| Shape {
            head,
            pieces,
            bad,
            inline,
            signalled,
            eth,
            insert,
        },
    )
}

impl Shape {
    fn wqe(&self, payload: u64) -> WqeBuilder {
        let header: Vec<u8> = (0..self.head as u8).collect();
        let mut w = WqeBuilder::send(&header);
        for len in &self.pieces {
            w = w.key_data(if self.bad { BAD_KEY } else { GOOD_KEY }, payload + u64::from(self.eth), *len);
        }
        let w = if self.inline { w.inline_data(b"tail") } else { w };
        let w = if self.signalled { w.signalled() } else { w };
        w.checksum_bits(self.eth).insert(self.insert)
    }
}

/// What became of them all: frames, what was told of them, completions, counters.
type End = (Vec<Vec<u8>>, Vec<(super::Csum, u32)>, Vec<(u8, u16, u8)>, SqSnapshot);

fn run(shapes: &[Shape], min_inline: u8, refuse: usize) -> (End, usize) {
    let mut b = Bench::new(8, |c| c.min_inline_mode = min_inline);
    for s in shapes {
        let wqe = s.wqe(b.payload);
        b.sqd.post(&b.guest, &wqe);
    }
    b.sqd.ring(&b.guest);
    let mut sink = Plain { all: b.sink(), told: vec![], plain: 0, refuse };
    while b.poll(7, &mut sink).more {}
    let Plain { all, told, plain, .. } = sink;
    let frames = all.frames;
    let done = b.reap();
    ((frames, told, done, b.sq.snapshot()), plain)
}

proptest! {
    #[test]
    fn a_plain_send_is_a_send(shapes in prop::collection::vec(shape(), 1..40), l2 in any::<bool>(), n in 2..6usize) {
        let (all, none) = run(&shapes, l2.into(), 1);
        prop_assert_eq!(none, 0);
        let (mixed, _) = run(&shapes, l2.into(), n);
        prop_assert_eq!(&mixed, &all);
        let (plain, _) = run(&shapes, l2.into(), 0);
        prop_assert_eq!(&plain, &all);
    }
}

#[test]
fn most_sends_are_plain() {
    let one =
        |head| Shape { head, pieces: vec![46], bad: false, inline: false, signalled: true, eth: 0xc0, insert: false };
    let shapes: Vec<Shape> = (0..40).map(|i| one(if i % 2 == 0 { 0 } else { 18 })).collect();
    assert_eq!(run(&shapes, 0, 0).1, 40);
    assert_eq!(run(&shapes, 1, 0).1, 0, "the first one has too little inline, and ends it");
}
