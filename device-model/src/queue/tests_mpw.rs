//! Send WQEs of several frames, by a driver's hand.

use proptest::prelude::*;

use super::WqState;
use super::mini_driver::{BAD_KEY, IdentityKeys, WqeBuilder};
use super::mpw::each_frame;
use super::ring::Ring;
use super::tests_tx::Bench;
use super::wqe::{Piece, SegList, WqeFault, WqeRules};

/// `MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR`, `_LOCAL_QP_OP_ERR`, `_LOCAL_PROT_ERR`.
const LENGTH: u8 = 1;
const OPERATION: u8 = 2;
const PROTECTION: u8 = 4;

fn bench() -> Bench {
    Bench::new(5, |c| c.multi_packet = true)
}

/// Posts a WQE and answers the frames, and how it completed: opcode and syndrome.
fn sent(b: &mut Bench, wqe: &WqeBuilder) -> (Vec<Vec<u8>>, Vec<(u8, u8)>) {
    b.sqd.post(&b.guest, wqe);
    b.sqd.ring(&b.guest);
    let mut sink = b.sink();
    b.poll(64, &mut sink);
    let frames = sink.frames;
    (frames, b.reap().into_iter().map(|(opcode, _, syndrome)| (opcode, syndrome)).collect())
}

#[test]
fn each_segment_is_a_frame() {
    let mut b = bench();
    let all = b.guest.get(b.payload, 0x10000);
    let (mut frames, mut bytes) = (0, 0);
    for round in 0..500usize {
        // Up to sixteen blocks, so that WQEs lie across the ring's end.
        let n = 1 + round * 7 % 61;
        let mut wqe = WqeBuilder::multi().signalled();
        let mut want = vec![];
        for i in 0..n {
            let (at, len) = (round * 16 + i * 100, 60 + (round + i * 37) % 1454);
            wqe = wqe.data(b.payload + at as u64, len as u32);
            want.push(all[at..at + len].to_vec());
        }
        assert_eq!(sent(&mut b, &wqe), (want.clone(), vec![(0, 0)]), "round {round}");
        assert_eq!(b.sqd.cc, b.sqd.pc);
        frames += n as u64;
        bytes += want.iter().map(|f| f.len() as u64).sum::<u64>();
    }
    let s = b.sq.snapshot();
    assert_eq!((s.wqes, s.packets, s.bytes, s.errors), (500, frames, bytes, 0));
}

#[test]
fn frames_lie_in_the_wqe_itself_between_others() {
    let mut b = bench();
    let all = b.guest.get(b.payload, 0x10000);
    for round in 0..200usize {
        // Some end within a segment, some are longer than all headers.
        let (x, y) = (&all[round..][..14 + round], &all[3 * round..][..60 + round * 13 % 500]);
        let wqe = WqeBuilder::multi().inline_data(x).data(b.payload + 5, 100).inline_data(y).signalled();
        let want = vec![x.to_vec(), all[5..105].to_vec(), y.to_vec()];
        assert_eq!(sent(&mut b, &wqe), (want, vec![(0, 0)]), "round {round}");
    }
}

#[test]
fn what_the_ethernet_segment_says_holds_for_all_frames() {
    let raw = WqeBuilder::multi().with(16 + 4, &[0xc0]).with(16 + 8, &[0, 0, 0, 9]).data(0x1000, 60).data(0x2000, 70);
    let mut segs = SegList::new();
    let ring = Ring::new(&[0x5000], 0, 0, 0x1000).unwrap();
    let keys = IdentityKeys::default();
    let mut said = vec![];
    each_frame(&raw.bytes(), (&ring, 0, 3), &RULES, &keys, &mut segs, |w| {
        said.push((w.len, w.wqe_index, w.csum.l3 && w.csum.l4, w.csum.inner_l3, w.metadata, w.mss, w.vlan));
        Ok(())
    })
    .unwrap();
    assert_eq!(said, [(60, 3, true, false, 9, None, None), (70, 3, true, false, 9, None, None)]);
    let tagged = raw.with(16 + 12, &[0x80, 0, 0x20, 5]);
    let mut tags = vec![];
    each_frame(&tagged.bytes(), (&ring, 0, 3), &RULES, &keys, &mut segs, |w| {
        tags.push(w.vlan);
        Ok(())
    })
    .unwrap();
    assert_eq!(tags, [Some(0x2005); 2]);
}

const RULES: WqeRules = WqeRules { pd: 1, reserved_key: false, inline_l2: false };

#[test]
fn what_no_driver_posts_is_an_error() {
    let p = 0x10_0000;
    let good = || WqeBuilder::multi().data(p, 60);
    for (wqe, syndrome, before) in [
        // No segment, no Ethernet segment.
        (WqeBuilder::multi(), OPERATION, 0),
        (WqeBuilder::control(0x29), OPERATION, 0),
        // A segment size, headers for all.
        (good().with(16 + 6, &[5, 0xa8]), OPERATION, 0),
        (good().with(16 + 12, &[0, 1]), OPERATION, 0),
        (WqeBuilder::multi().with(16 + 12, &[0, 18]).data(p, 60), OPERATION, 0),
        // No length, or one beyond any frame's.
        (good().data(p, 0), LENGTH, 1),
        (good().inline_data(&[]), LENGTH, 1),
        (good().data(p, 0x10001), LENGTH, 1),
        (good().data(p, 0x7fff_ffff), LENGTH, 1),
        // Bytes beyond the WQE, by much and by one.
        (good().inline_data(&[1; 12]).with(48, &[0x80, 0, 3, 0xff]), OPERATION, 1),
        (good().inline_data(&[1; 12]).with(48, &[0x80, 0, 0, 13]), OPERATION, 1),
        // A key of nobody.
        (good().key_data(BAD_KEY, p, 60).data(p, 60), PROTECTION, 1),
    ] {
        let mut b = bench();
        let (frames, done) = sent(&mut b, &wqe);
        assert_eq!((frames.len(), done), (before, vec![(0xd, syndrome)]), "{:x?}", wqe.bytes());
        assert_eq!(b.sq.state(), WqState::Err);
        let s = b.sq.snapshot();
        assert_eq!((s.packets, s.errors), (before as u64, 1));
        b.sqd.recover(&b.guest);
        assert_eq!(sent(&mut b, &good().signalled()).1, [(0, 0)], "works again");
    }
}

#[test]
fn headers_that_have_to_be_inline_are() {
    let mut b = Bench::new(5, |c| (c.multi_packet, c.min_inline_mode) = (true, 1));
    let inline = WqeBuilder::multi().inline_data(&[1; 60]).signalled();
    assert_eq!(sent(&mut b, &inline), (vec![vec![1; 60]], vec![(0, 0)]));
    assert_eq!(sent(&mut b, &inline.data(0x10_0000, 60)), (vec![vec![1; 60]], vec![(0xd, OPERATION)]));
}

#[test]
fn a_wqe_that_ends_beyond_the_counter_is_an_error() {
    let mut b = bench();
    let mut raw = WqeBuilder::multi().data(b.payload, 60).data(b.payload, 60).bytes();
    raw[7] = 63;
    b.sqd.post_raw(&b.guest, &raw);
    b.sqd.ring(&b.guest);
    let mut sink = b.sink();
    b.poll(64, &mut sink);
    assert_eq!((sink.frames.len(), b.reap()[0].2), (0, OPERATION));
}

#[test]
fn where_it_is_not_offered_it_is_no_opcode() {
    let mut b = Bench::new(5, |_| ());
    b.sqd.post(&b.guest, &WqeBuilder::multi().data(b.payload, 60));
    b.sqd.ring(&b.guest);
    let mut sink = b.sink();
    b.poll(64, &mut sink);
    assert_eq!((sink.frames.len(), sink.unmodelled), (0, vec![0x29]));
    assert_eq!(b.reap()[0].2, OPERATION);
}

proptest! {
    #[test]
    fn any_bytes_are_frames_or_an_error(
        mut raw in proptest::collection::vec(any::<u8>(), 0..=1008),
        plain: bool,
    ) {
        raw.truncate(raw.len() / 16 * 16);
        if plain && raw.len() >= 32 {
            raw[16..32].fill(0);
        }
        let ring = Ring::new(&[0x5000], 0, 0, 0x1000).unwrap();
        let mut segs = SegList::new();
        let mut n = 0;
        let end = each_frame(&raw, (&ring, 0xff0, 3), &RULES, &IdentityKeys::default(), &mut segs, |w| {
            let sum: usize = w.pieces().map(|p| match p {
                Piece::Bytes(b) => b.len(),
                Piece::Guest { len, .. } => len as usize,
            }).sum();
            assert_eq!(sum, w.len as usize);
            n += 1;
            if n == 40 { Err(WqeFault::Dma) } else { Ok(()) }
        });
        prop_assert!(n <= 61 && (end.is_err() || n > 0));
    }
}
