//! Joined segments from the driver's side: `mlx5e_lro_update_hdr`.

use super::merge::{SAME, Segment};
use super::mini_driver::{IdentityKeys, TestFrame};
use super::rq::{RxDrop, RxInfo};
use super::tests_stride::{Bench, Said, frame};
use crate::dma::Near;
use crate::packet::checksum;

/// Bytes of headers in these tests; they are not looked at here.
const HEADER: usize = 66;
const LIMIT: u32 = 0xff00;

/// A frame of a flow and what is to be known of it.
fn segment(flow: u8, seq: u32, payload: &[u8]) -> (Vec<u8>, Segment) {
    let bytes = [&[flow; HEADER][..], payload].concat();
    let s = Segment {
        same: [flow; SAME],
        header: HEADER as u16,
        tcp_header: 32,
        payload: payload.len() as u16,
        sum: checksum::sum(payload),
        seq,
        ack: seq + 1000,
        window: seq as u16 + 1,
        ttl: 64,
        push: false,
    };
    (bytes, s)
}

fn info(flow: u8) -> RxInfo {
    RxInfo { rss_hash: flow.into(), l3_ok: true, l4_ok: true, l4_type: 4, check_sum: 0x7777, ..RxInfo::default() }
}

impl Bench {
    fn join(&self, (bytes, s): (Vec<u8>, Segment), limit: u32) -> Result<bool, RxDrop> {
        let near = Near::new(&self.guest.mem);
        let keys = IdentityKeys { page: 4096 };
        let info = info(bytes[0]);
        self.rq.session(&near, &keys, 7)?.deliver_segment(&TestFrame::new(bytes), &info, &s, limit)
    }

    fn end(&self) {
        let near = Near::new(&self.guest.mem);
        self.rq.session(&near, &IdentityKeys::default(), 7).unwrap().end_merge().unwrap();
    }

    /// Number of segments (0 where none were joined) and bytes of each completion.
    fn joined(&mut self) -> Vec<(u8, usize)> {
        let all = std::iter::from_fn(|| self.cqe());
        all.filter_map(|(cqe, said)| match said {
            Said::Frame(bytes) => Some((cqe.0[32], bytes.len())),
            _ => None,
        })
        .collect()
    }
}

#[test]
fn segments_in_a_row_become_one() {
    let mut b = Bench::new(|_| ());
    (0..2).for_each(|i| b.post(i));
    // The second one begins at an odd offset, as the third one does.
    let parts = [frame(101), frame(200), frame(99)];
    let mut seq = 0xffff_ff00u32;
    for (i, part) in parts.iter().enumerate() {
        let (bytes, mut s) = segment(1, 0, part);
        (s.seq, s.ack, s.window, s.ttl) = (seq, 500 + i as u32, 70 + i as u16, [64, 60, 62][i]);
        assert_eq!(b.join((bytes, s), LIMIT), Ok(true));
        seq = seq.wrapping_add(part.len() as u32);
    }
    assert_eq!(b.said(), [], "nothing is told before the end");
    b.end();
    let (cqe, said) = b.cqe().unwrap();
    let payload = parts.concat();
    assert_eq!(said, Said::Frame([&[1; HEADER][..], &payload].concat()));
    assert_eq!(cqe.0[32], 3, "lro_num_seg");
    assert_eq!(cqe.word(4), 60 << 16 | 72, "no PSH, smallest TTL, last window");
    assert_eq!(cqe.word(8), 502, "last acknowledgement");
    assert_eq!(u16::from_be_bytes([cqe.0[20], cqe.0[21]]) % 0xffff, checksum::sum(&payload) % 0xffff);
    assert_eq!((cqe.0[29] >> 4 & 7, cqe.0[28]), (4, 7), "ACK and data, all checksums right");
    let s = b.rq.snapshot();
    assert_eq!((s.packets, s.bytes), (3, 466));
    // Ends are ends, and one alone is a frame as any other.
    b.end();
    assert_eq!(b.join(segment(1, 9, &frame(50)), LIMIT), Ok(true));
    b.end();
    let (cqe, _) = b.cqe().unwrap();
    assert_eq!((cqe.0[32], cqe.0[20..22].to_vec(), cqe.word(4)), (0, vec![0x77, 0x77], 0));
    assert!(b.cqe().is_none());
}

#[test]
fn what_does_not_follow_is_by_itself() {
    let mut b = Bench::new(|_| ());
    (0..3).for_each(|i| b.post(i));
    for (flow, seq) in [(1, 0), (1, 100), (1, 300), (2, 400), (2, 500)] {
        assert_eq!(b.join(segment(flow, seq, &frame(100)), LIMIT), Ok(true));
    }
    // Another frame, that is not to be joined, comes behind them.
    b.deliver(&frame(80), &RxInfo::default()).unwrap();
    assert_eq!(b.joined(), [(2, 266), (0, 166), (2, 266), (0, 80)]);
    // A mark of steering that differs.
    let (bytes, s) = segment(1, 0, &frame(100));
    b.join((bytes, s), LIMIT).unwrap();
    let (mut bytes, s) = segment(1, 100, &frame(100));
    bytes[0] = 9;
    b.join((bytes, s), LIMIT).unwrap();
    b.end();
    assert_eq!(b.joined(), [(0, 166), (0, 166)]);
}

#[test]
fn a_push_ends_the_message() {
    let mut b = Bench::new(|_| ());
    b.post(0);
    b.join(segment(1, 0, &frame(100)), LIMIT).unwrap();
    let (bytes, s) = segment(1, 100, &frame(100));
    assert_eq!(b.join((bytes, Segment { push: true, ..s }), LIMIT), Ok(false));
    let (cqe, _) = b.cqe().unwrap();
    assert_eq!((cqe.0[32], cqe.0[4] >> 6 & 1), (2, 1), "tcppsh");
    let (bytes, s) = segment(1, 200, &frame(100));
    assert_eq!(b.join((bytes, Segment { push: true, ..s }), LIMIT), Ok(false));
    assert_eq!(b.joined(), [(0, 166)]);
}

#[test]
fn limits_of_size_room_and_number_end_it() {
    // The limit counts from behind the IP header: 32 bytes of TCP and twice 100.
    let mut b = Bench::new(|_| ());
    (0..3).for_each(|i| b.post(i));
    for i in 0..3 {
        b.join(segment(1, i * 100, &frame(100)), 232).unwrap();
    }
    b.end();
    assert_eq!(b.joined(), [(2, 266), (0, 166)]);
    // The buffer: 6 strides are left, the seventh goes into the next one.
    for i in 0..4 {
        b.join(segment(1, i * 500, &frame(500)), LIMIT).unwrap();
    }
    b.end();
    assert_eq!(b.joined(), [(2, 1066), (2, 1066)]);
    assert_eq!(b.back, [0]);
    // 255 segments.
    let mut b = Bench::new(|_| ());
    (0..2).for_each(|i| b.post(i));
    for i in 0..256 {
        b.join(segment(1, i, &[0]), LIMIT).unwrap();
    }
    b.end();
    assert_eq!(b.joined(), [(255, HEADER + 255), (0, HEADER + 1)]);
}

#[test]
fn a_run_of_segments_is_joined_as_each_of_them() {
    for (each, count) in [(100usize, 4usize), (99, 7), (1, 254), (300, 5)] {
        let mut alone = Bench::new(|_| ());
        let mut together = Bench::new(|_| ());
        let all = frame(each * (count + 1));
        let part = |from: usize, n: usize| segment(1, (from * each) as u32, &all[from * each..(from + n) * each]);
        let like = |s: Segment| Segment { ack: 5, window: 6, ..s };
        let first = part(0, 1);
        for b in [&mut alone, &mut together] {
            b.post(0);
            b.join((first.0.clone(), like(first.1)), LIMIT).unwrap();
        }
        for i in 1..=count {
            let (bytes, s) = part(i, 1);
            alone.join((bytes, like(s)), LIMIT).unwrap();
        }
        let (bytes, s) = part(1, count);
        {
            let near = Near::new(&together.guest.mem);
            let keys = IdentityKeys { page: 4096 };
            let mut q = together.rq.session(&near, &keys, 7).unwrap();
            assert!(q.room_for(each, LIMIT) >= count);
            let frame = TestFrame::new(bytes);
            let strange = Segment { seq: 7, ..like(s) };
            assert_eq!(q.deliver_run(&frame, &info(1), &strange, count as u32, LIMIT), None);
            assert_eq!(q.deliver_run(&frame, &info(1), &like(s), 255, LIMIT), None);
            assert_eq!(q.deliver_run(&frame, &info(1), &like(s), count as u32, LIMIT), Some(Ok(count < 254)));
        }
        for b in [&alone, &together] {
            b.end();
        }
        let ends = [&mut alone, &mut together].map(|b| {
            let (cqe, said) = b.cqe().unwrap();
            (cqe.0, said, b.rq.snapshot().packets)
        });
        assert_eq!(ends[0], ends[1], "{count} of {each}");
    }
    // What room there is ends with the buffer, the limit and the number.
    let mut b = Bench::new(|_| ());
    b.post(0);
    b.join(segment(1, 0, &frame(100)), LIMIT).unwrap();
    let near = Near::new(&b.guest.mem);
    let keys = IdentityKeys { page: 4096 };
    let q = b.rq.session(&near, &keys, 7).unwrap();
    let buffer = 8 * 256 - HEADER - 100;
    assert_eq!((q.room_for(100, LIMIT), q.room_for(1, LIMIT), q.room_for(50, 232)), (buffer / 100, 254, 2));
}

#[test]
fn without_buffers_and_in_other_queues_nothing_is_joined() {
    let mut b = Bench::new(|_| ());
    assert_eq!(b.join(segment(1, 0, &frame(100)), LIMIT), Err(RxDrop::NoBuffer));
    b.post(0);
    b.join(segment(1, 0, &frame(1200)), LIMIT).unwrap();
    assert!(b.rq.is_starved(&b.guest.mem, 1200), "what is being joined counts");
    assert_eq!(b.join(segment(1, 1200, &frame(1200)), LIMIT), Err(RxDrop::NoBuffer));
    assert_eq!(b.joined(), [(0, 1266)]);
    let mut plain = Bench::new(|c| c.strides = None);
    plain.post(0);
    assert_eq!(plain.join(segment(1, 0, &frame(100)), LIMIT), Ok(false));
    assert!(plain.cqe().is_some());
}

#[test]
fn a_segment_that_cannot_be_read_is_lost_alone() {
    let mut b = Bench::new(|_| ());
    b.post(0);
    b.join(segment(1, 0, &frame(100)), LIMIT).unwrap();
    let near = Near::new(&b.guest.mem);
    let (bytes, s) = segment(1, 100, &frame(100));
    let gone = TestFrame { gone_from: 80, ..TestFrame::new(bytes) };
    let keys = IdentityKeys::default();
    let got = b.rq.session(&near, &keys, 7).unwrap().deliver_segment(&gone, &info(1), &s, LIMIT);
    assert_eq!(got, Err(RxDrop::Source));
    b.join(segment(1, 100, &frame(100)), LIMIT).unwrap();
    b.end();
    assert_eq!(b.joined(), [(2, 266)]);
}
