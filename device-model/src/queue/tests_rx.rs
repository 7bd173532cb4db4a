use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use sfnic_firmware_cmds::Syndrome;

use super::WqState;
use super::cq::{Cq, CqFault};
use super::mini_driver::{BAD_KEY, CqDriver, Cqe, GOOD_KEY, Guest, IdentityKeys, Irqs, RqDriver, SIZE, TestFrame};
use super::rq::{QCounter, Rq, RqConfig, RssType, RxDrop, RxInfo};
use super::wqe::WqeFault;

struct Bench {
    guest: Guest,
    cq: Arc<Cq>,
    cqd: CqDriver,
    rq: Arc<Rq>,
    rqd: RqDriver,
    buffers: u64,
    counters: Arc<QCounter>,
}

impl Bench {
    fn new(log_size: u8, log_stride: u8, tweak: impl FnOnce(&mut RqConfig)) -> Self {
        let guest = Guest::new();
        let eq = Arc::new(guest.eq(&Arc::new(Irqs::default()), 1, 4));
        let (cq, cqd) = guest.cq(&eq, log_size, |_| ());
        let counters = Arc::new(QCounter::default());
        let set = counters.clone();
        let (rq, rqd) = guest.rq(&cq, log_size, log_stride, |c| {
            c.counter_set = Some(set);
            tweak(c);
        });
        let buffers = guest.alloc(0x20000);
        Self { guest, cq, cqd, rq, rqd, buffers, counters }
    }

    fn deliver(&self, bytes: &[u8], info: &RxInfo) -> Result<(), RxDrop> {
        let frame = TestFrame::new(bytes.to_vec());
        self.rq.deliver(&self.guest.mem, &IdentityKeys::default(), &frame, info, 0x1122_3344_5566)
    }

    fn reap(&mut self) -> Cqe {
        let cqe = self.cqd.poll(&self.guest.mem).expect("a completion");
        self.cqd.update(&self.guest);
        cqe
    }

    fn out_of_buffer(&self) -> u64 {
        self.counters.out_of_buffer.load(Ordering::Relaxed)
    }
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 13 + 5) as u8).collect()
}

#[test]
fn frames_go_into_buffers_in_order_round_the_ring() {
    let mut b = Bench::new(3, 4, |_| ());
    for i in 0..70_000u32 {
        let at = b.buffers + u64::from(i % 8) * 0x800;
        b.rqd.post(&b.guest, &[(GOOD_KEY, at, 0x800)]);
        let len = 60 + i as usize % 1400;
        let bytes = frame(len);
        b.deliver(&bytes, &RxInfo::default()).unwrap();
        let cqe = b.reap();
        assert_eq!((cqe.opcode(), cqe.wqe_counter(), cqe.word(44)), (2, (i % 8) as u16, len as u32));
        if i % 1000 == 0 {
            assert_eq!(b.guest.get(at, len), bytes);
        }
    }
    assert_eq!(b.rq.snapshot().packets, 70_000);
}

#[test]
fn a_completion_tells_what_the_driver_asks_for() {
    let mut b = Bench::new(3, 4, |_| ());
    b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
    let info = RxInfo {
        rss_hash: 0xdead_beef,
        rss_type: RssType { ip: 2, l4: 1 },
        flow_tag: 0xab_cdef,
        metadata: 0x8765_4321,
        l3_ok: true,
        l4_ok: true,
        l3_type: 1,
        l4_type: 4,
        tunneled: true,
        vlan: Some(0x2064),
        check_sum: 0x1357,
        check_sum_stripped: 0x1357,
        fcs: None,
    };
    let mut bytes = frame(100);
    bytes[12..16].copy_from_slice(&[0x81, 0, 0x20, 0x64]);
    b.deliver(&bytes, &info).unwrap();
    let c = b.reap();
    assert_eq!(c.word(12), 0xdead_beef);
    assert_eq!(c.0[16], 1 << 6 | 2 << 2, "rss_hash_type");
    assert_eq!(c.0[0] & 1, 1, "tunneled");
    assert_eq!(c.0[20..22], [0x13, 0x57], "check_sum");
    assert_eq!(c.0[28], 7, "L2, L3 and L4 are right");
    assert_eq!(c.0[29], 4 << 4 | 1 << 2 | 1, "l4_l3_hdr_type");
    assert_eq!(c.0[30..32], [0x20, 0x64], "vlan_info");
    assert_eq!(c.word(32), 0, "no LRO");
    assert_eq!(c.word(36), 0x8765_4321);
    assert_eq!(c.word(44), 96, "less the tag");
    assert_eq!((c.word(48), c.word(52)), (0x1122, 0x3344_5566));
    assert_eq!(c.word(56), 0x00ab_cdef);
    assert_eq!(b.guest.get(b.buffers, 96), [&bytes[..12], &bytes[16..]].concat());
}

#[test]
fn tags_stay_where_stripping_is_off() {
    let mut b = Bench::new(3, 4, |c| c.vlan_strip_disable = true);
    let info = RxInfo { vlan: Some(5), ..RxInfo::default() };
    for strip in [false, true, false] {
        b.rq.set_vlan_strip_disable(!strip);
        b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
        let bytes = frame(100);
        b.deliver(&bytes, &info).unwrap();
        let c = b.reap();
        assert_eq!((c.0[29] & 1 != 0, c.word(44)), (strip, if strip { 96 } else { 100 }));
    }
    // Too short to have a tag, whatever the parser says.
    b.rq.set_vlan_strip_disable(false);
    b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
    b.deliver(&frame(15), &info).unwrap();
    assert_eq!(b.reap().word(44), 15);
}

#[test]
fn a_jumbo_frame_fills_fragments_of_any_shape() {
    let mut b = Bench::new(3, 6, |c| c.scatter_fcs = true);
    let bytes = frame(9018);
    let fcs = [0xf1, 0xf2, 0xf3, 0xf4];
    // The first cuts cross the tag, one crosses a region of memory, the last
    // ends inside the check sequence.
    for cuts in [[5, 9, 4000], [12, 1, 1], [11, 4000, 5000], [9014, 1, 1], [13, 0x1000, 0x2000]] {
        let mut at = b.buffers;
        let mut segs: Vec<_> = cuts
            .iter()
            .map(|&n| {
                at += 0x4000;
                (GOOD_KEY, at, n)
            })
            .collect();
        let middle = SIZE / 2 - 7;
        segs.push((GOOD_KEY, middle, 0x4000));
        b.rqd.post(&b.guest, &segs);
        b.deliver(&bytes, &RxInfo { vlan: Some(1), fcs: Some(fcs), ..RxInfo::default() }).unwrap();
        let len = b.reap().word(44) as usize;
        assert_eq!(len, 9018);
        let mut got = vec![];
        for (_, at, n) in segs {
            got.extend(b.guest.get(at, (n as usize).min(len - got.len())));
        }
        assert_eq!(got, [&bytes[..12], &bytes[16..], &fcs].concat());
    }
}

#[test]
fn a_frame_without_a_buffer_is_counted_and_nothing_else() {
    let mut b = Bench::new(2, 4, |_| ());
    assert_eq!(b.deliver(&frame(64), &RxInfo::default()), Err(RxDrop::NoBuffer));
    for _ in 0..4 {
        b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
    }
    for _ in 0..4 {
        b.deliver(&frame(64), &RxInfo::default()).unwrap();
    }
    assert_eq!(b.deliver(&frame(64), &RxInfo::default()), Err(RxDrop::NoBuffer));
    assert_eq!((b.out_of_buffer(), b.rq.snapshot().no_buffer), (2, 2));
    assert_eq!(b.rq.state(), WqState::Rdy);
    b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
    b.rq.set_counter_set(None);
    b.cqd.cc = 4;
    b.cqd.update(&b.guest);
    b.deliver(&frame(64), &RxInfo::default()).unwrap();
    assert_eq!(b.reap().wqe_counter(), 0);
}

#[test]
fn a_frame_too_long_leaves_its_buffer_posted() {
    let mut b = Bench::new(3, 5, |_| ());
    b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 100)]);
    assert_eq!(b.deliver(&frame(101), &RxInfo::default()), Err(RxDrop::TooLong));
    b.deliver(&frame(100), &RxInfo::default()).unwrap();
    assert_eq!(b.reap().wqe_counter(), 0);
    assert_eq!(b.rq.snapshot().too_long, 1);
}

#[test]
fn a_sender_whose_memory_is_gone_costs_no_buffer() {
    let mut b = Bench::new(3, 5, |_| ());
    b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 10), (GOOD_KEY, b.buffers, 1000)]);
    let mut f = TestFrame::new(frame(200));
    f.gone_from = 150;
    let got = b.rq.deliver(&b.guest.mem, &IdentityKeys::default(), &f, &RxInfo::default(), 0);
    assert_eq!(got, Err(RxDrop::Source));
    b.deliver(&frame(100), &RxInfo::default()).unwrap();
    assert_eq!(b.reap().wqe_counter(), 0);
}

#[test]
fn a_bad_buffer_is_an_error_and_the_driver_recovers() {
    for (seg, fault) in [
        ((BAD_KEY, 0, 2048), WqeFault::Key),
        ((GOOD_KEY, 1 << 40, 2048), WqeFault::Dma),
        ((GOOD_KEY, u64::MAX, 0), WqeFault::Key),
    ] {
        for flush in [false, true] {
            let mut b = Bench::new(3, 4, |c| c.flush_in_error = flush);
            b.rqd.post(&b.guest, &[seg]);
            b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
            b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
            assert_eq!(b.deliver(&frame(64), &RxInfo::default()), Err(RxDrop::Buffer(fault)));
            let c = b.reap();
            assert_eq!((c.opcode(), c.wqe_counter(), c.syndrome(), c.word(56)), (0xe, 0, 4, 0x31));
            if flush {
                for i in 1..3 {
                    let c = b.reap();
                    assert_eq!((c.opcode(), c.wqe_counter(), c.syndrome()), (0xe, i, 5));
                }
            }
            assert!(b.cqd.poll(&b.guest.mem).is_none());
            assert_eq!(b.deliver(&frame(64), &RxInfo::default()), Err(RxDrop::NotReady));
            // mlx5e_flush_rq: to reset, record to zero, to ready.
            b.rq.modify(&b.guest.mem, WqState::Err, WqState::Rst).unwrap();
            b.rqd.pc = 0;
            b.rqd.publish(&b.guest, 0);
            b.rq.modify(&b.guest.mem, WqState::Rst, WqState::Rdy).unwrap();
            assert_eq!(b.deliver(&frame(64), &RxInfo::default()), Err(RxDrop::NoBuffer));
            b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
            b.deliver(&frame(64), &RxInfo::default()).unwrap();
            assert_eq!(b.reap().wqe_counter(), 0);
        }
    }
}

#[test]
fn a_queue_put_into_error_by_command_flushes() {
    let mut b = Bench::new(3, 4, |c| c.flush_in_error = true);
    for _ in 0..8 {
        b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
    }
    b.rq.modify(&b.guest.mem, WqState::Rdy, WqState::Err).unwrap();
    for i in 0..8 {
        assert_eq!(b.reap().wqe_counter(), i);
    }
    assert_eq!(b.counters.resp_cqe_flush_error.load(Ordering::Relaxed), 8);
    assert_eq!(b.rq.modify(&b.guest.mem, WqState::Err, WqState::Rdy).unwrap_err().syndrome, Syndrome::STATE_TRANSITION);
}

#[test]
fn a_broken_completion_queue_stops_the_receiver() {
    let mut b = Bench::new(3, 4, |_| ());
    for _ in 0..8 {
        b.rqd.post(&b.guest, &[(GOOD_KEY, b.buffers, 2048)]);
    }
    b.cq.retire();
    let got = b.deliver(&frame(64), &RxInfo::default());
    assert_eq!(got, Err(RxDrop::Completion(CqFault::InError)));
    assert_eq!(b.rq.state(), WqState::Err);
}

#[test]
fn a_linked_list_is_followed() {
    let mut b = Bench::new(2, 5, |c| c.linked = true);
    let order = [0u16, 3, 1];
    for (i, &index) in order.iter().enumerate() {
        let next = order.get(i + 1).copied().unwrap_or(2);
        let mut wqe = vec![0; 32];
        wqe[2..4].copy_from_slice(&next.to_be_bytes());
        wqe[16..20].copy_from_slice(&2048u32.to_be_bytes());
        wqe[24..32].copy_from_slice(&b.buffers.to_be_bytes());
        b.rqd.post_raw(&b.guest, index, &wqe);
    }
    for index in order {
        b.deliver(&frame(64), &RxInfo::default()).unwrap();
        assert_eq!(b.reap().wqe_counter(), index);
    }
    assert_eq!(b.deliver(&frame(64), &RxInfo::default()), Err(RxDrop::NoBuffer));
}

#[test]
fn a_receive_counter_that_jumps_is_no_buffer() {
    let b = Bench::new(3, 4, |_| ());
    for pc in [9, 0x8000, 0xffff] {
        b.rqd.publish(&b.guest, pc);
        assert_eq!(b.deliver(&frame(64), &RxInfo::default()), Err(RxDrop::NoBuffer));
    }
    assert_eq!(b.out_of_buffer(), 3);
}

#[test]
fn wrong_shapes_are_refused() {
    let b = Bench::new(3, 4, |_| ());
    let new = |tweak: fn(&mut RqConfig)| {
        let mut c = b.rq.config().clone();
        tweak(&mut c);
        Rq::new(c).map(|_| ()).unwrap_err().syndrome
    };
    assert_eq!(new(|c| c.log_stride = 3), Syndrome::QUEUE_STRIDE);
    assert_eq!(new(|c| c.log_stride = 11), Syndrome::QUEUE_STRIDE);
    assert_eq!(new(|c| c.linked = true), Syndrome::QUEUE_STRIDE);
    assert_eq!(new(|c| c.log_size = 4), Syndrome::QUEUE_SIZE);
    assert_eq!(new(|c| c.log_size = 255), Syndrome::QUEUE_SIZE);
    assert_eq!(new(|c| c.dbr_addr = 4), Syndrome::DOORBELL_ALIGN);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_rings_and_records_do_no_harm(
        ring in proptest::collection::vec(any::<u8>(), 512),
        counters in proptest::collection::vec(prop_oneof![0u16..12, any::<u16>()], 1..6),
        linked: bool,
        flush: bool,
    ) {
        let b = Bench::new(3, 6, |c| (c.linked, c.flush_in_error) = (linked, flush));
        for (i, wqe) in ring.chunks(64).enumerate() {
            b.guest.put(b.rq.config().ring.addr(i as u64, 64, 0), wqe);
        }
        for counter in counters {
            b.rqd.publish(&b.guest, counter);
            for _ in 0..4 {
                let _ = b.deliver(&frame(600), &RxInfo { vlan: Some(1), ..RxInfo::default() });
            }
        }
    }
}
