//! Striding queues from the driver's side: `mlx5e_handle_rx_cqe_mpwrq`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::WqState;
use super::mini_driver::{BAD_KEY, CqDriver, Cqe, GOOD_KEY, Guest, IdentityKeys, Irqs, RqDriver, TestFrame};
use super::rq::{QCounter, Rq, RqConfig, RxDrop, RxInfo};
use super::stride::Strides;
use super::wqe::WqeFault;

/// WQEs of the ring, strides of a WQE, bytes of a stride.
const WQES: u16 = 4;
const STRIDES: u16 = 8;
const STRIDE: u64 = 256;
/// Bytes from one WQE's buffer to the next one's.
const APART: u64 = 0x1000;

pub(super) struct Bench {
    pub(super) guest: Guest,
    cqd: CqDriver,
    pub(super) rq: Arc<Rq>,
    rqd: RqDriver,
    buffers: u64,
    counters: Arc<QCounter>,
    /// Strides that the driver has seen used, by WQE (`consumed_strides`), and the
    /// order in which WQEs have come back.
    used: [u16; WQES as usize],
    pub(super) back: Vec<u16>,
}

/// What a completion says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A frame: its bytes, from the buffer.
    Frame(Vec<u8>),
    /// So many strides are passed over.
    Filler(u16),
    /// An error with its syndrome.
    Error(u8),
}

impl Bench {
    pub(super) fn new(tweak: impl FnOnce(&mut RqConfig)) -> Self {
        let guest = Guest::new();
        let eq = Arc::new(guest.eq(&Arc::new(Irqs::default()), 1, 4));
        let (cq, cqd) = guest.cq(&eq, 6, |_| ());
        let counters = Arc::new(QCounter::default());
        let set = counters.clone();
        let (rq, rqd) = guest.rq(&cq, 2, 5, |c| {
            c.linked = true;
            // 8 is 2^(9 - 6): minus 6 in four bits.
            c.strides = Some(Strides::new(2, 10, true).unwrap());
            c.counter_set = Some(set);
            tweak(c);
        });
        let buffers = guest.alloc(u64::from(WQES) * APART);
        Self { guest, cqd, rq, rqd, buffers, counters, used: [0; WQES as usize], back: vec![] }
    }

    /// Posts a WQE, linked to the next one of the ring.
    pub(super) fn post(&mut self, index: u16) {
        let len = u32::from(STRIDES) * STRIDE as u32;
        self.post_as(index, GOOD_KEY, len);
    }

    fn post_as(&mut self, index: u16, key: u32, len: u32) {
        let mut b = vec![0, 0];
        b.extend(((index + 1) % WQES).to_be_bytes());
        b.resize(16, 0);
        b.extend(len.to_be_bytes());
        b.extend(key.to_be_bytes());
        b.extend((self.buffers + u64::from(index) * APART).to_be_bytes());
        self.rqd.post_raw(&self.guest, index, &b);
        self.used[usize::from(index)] = 0;
    }

    pub(super) fn deliver(&self, bytes: &[u8], info: &RxInfo) -> Result<(), RxDrop> {
        let frame = TestFrame::new(bytes.to_vec());
        self.rq.deliver(&self.guest.mem, &IdentityKeys { page: 4096 }, &frame, info, 7)
    }

    pub(super) fn cqe(&mut self) -> Option<(Cqe, Said)> {
        let cqe = self.cqd.poll(&self.guest.mem)?;
        self.cqd.update(&self.guest);
        let half = |at: usize| u16::from_be_bytes([cqe.0[at], cqe.0[at + 1]]);
        let (wqe, strides, len) = (half(2), half(44) & 0x7fff, half(46));
        let used = &mut self.used[usize::from(wqe)];
        let said = match cqe.opcode() {
            2 if half(44) & 0x8000 != 0 => Said::Filler(strides),
            2 => {
                assert_eq!(cqe.wqe_counter(), *used, "the frame begins where the one before it ends");
                let at = self.buffers + u64::from(wqe) * APART + u64::from(cqe.wqe_counter()) * STRIDE;
                Said::Frame(self.guest.get(at, len.into()))
            }
            0xe => Said::Error(cqe.syndrome()),
            other => panic!("opcode {other}"),
        };
        *used += strides;
        assert!(*used <= STRIDES, "more strides than there are");
        if *used == STRIDES {
            self.back.push(wqe);
        }
        Some((cqe, said))
    }

    pub(super) fn said(&mut self) -> Vec<Said> {
        std::iter::from_fn(|| self.cqe()).map(|(_, said)| said).collect()
    }
}

pub(super) fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 13 + len) as u8).collect()
}

#[test]
fn frames_share_a_buffer_and_go_on_in_the_next() {
    let mut b = Bench::new(|_| ());
    (0..WQES - 1).for_each(|i| b.post(i));
    // 1, 6 and 2 strides: the third does not fit.
    for len in [256, 1514, 400] {
        b.deliver(&frame(len), &RxInfo::default()).unwrap();
    }
    let want = [Said::Frame(frame(256)), Said::Frame(frame(1514)), Said::Filler(1), Said::Frame(frame(400))];
    assert_eq!(b.said(), want);
    assert_eq!(b.back, [0]);
    // To the last stride: no filler.
    for len in [1280, 100] {
        b.deliver(&frame(len), &RxInfo::default()).unwrap();
    }
    assert_eq!(b.said(), [Said::Frame(frame(1280)), Said::Frame(frame(100))]);
    assert_eq!(b.back, [0, 1]);
    let s = b.rq.snapshot();
    assert_eq!((s.consumer, s.packets, s.bytes), (2, 5, 256 + 1514 + 400 + 1280 + 100));
}

#[test]
fn many_frames_go_round_the_ring() {
    let mut b = Bench::new(|_| ());
    (0..WQES - 1).for_each(|i| b.post(i));
    let mut next = WQES - 1;
    for n in 0..5000usize {
        let bytes = frame(60 + n * 37 % 1900);
        b.deliver(&bytes, &RxInfo::default()).unwrap();
        let said = b.said();
        assert_eq!(said.last(), Some(&Said::Frame(bytes)));
        for _ in b.back.drain(..).collect::<Vec<_>>() {
            b.post(next);
            next = (next + 1) % WQES;
        }
    }
}

#[test]
fn without_a_next_buffer_frames_are_lost_and_the_strides_come_back() {
    let mut b = Bench::new(|_| ());
    assert_eq!(b.deliver(&frame(60), &RxInfo::default()), Err(RxDrop::NoBuffer));
    b.post(0);
    b.deliver(&frame(1700), &RxInfo::default()).unwrap();
    assert!(!b.rq.is_starved(&b.guest.mem, 256));
    assert!(b.rq.is_starved(&b.guest.mem, 257), "one stride is left");
    assert_eq!(b.deliver(&frame(257), &RxInfo::default()), Err(RxDrop::NoBuffer));
    assert_eq!(b.said(), [Said::Frame(frame(1700)), Said::Filler(1)]);
    assert_eq!((b.back.as_slice(), b.counters.out_of_buffer.load(Ordering::Relaxed)), (&[0][..], 2));
    b.post(1);
    b.deliver(&frame(1700), &RxInfo::default()).unwrap();
    b.post(2);
    assert!(!b.rq.is_starved(&b.guest.mem, 257), "the next one is posted");
    assert_eq!(b.rq.snapshot().no_buffer, 2);
}

#[test]
fn a_frame_longer_than_a_buffer_is_lost_alone() {
    let mut b = Bench::new(|_| ());
    b.post(0);
    let all = usize::from(STRIDES) * STRIDE as usize;
    assert_eq!(b.deliver(&frame(all + 1), &RxInfo::default()), Err(RxDrop::TooLong));
    assert_eq!(b.deliver(&frame(0x1_0000), &RxInfo::default()), Err(RxDrop::TooLong));
    b.deliver(&frame(all), &RxInfo::default()).unwrap();
    assert_eq!(b.said(), [Said::Frame(frame(all))]);
    assert_eq!((b.back.as_slice(), b.rq.snapshot().too_long), (&[0][..], 2));
}

#[test]
fn what_is_wrong_with_a_buffer_ends_the_queue() {
    for (key, len, fault, syndrome) in [
        (BAD_KEY, 2048, WqeFault::Key, 4),
        // Shorter than its strides.
        (GOOD_KEY, 0x300, WqeFault::Length, 1),
    ] {
        let mut b = Bench::new(|c| c.flush_in_error = true);
        b.post_as(0, key, len);
        b.post(1);
        if key == GOOD_KEY {
            b.deliver(&frame(600), &RxInfo::default()).unwrap();
            assert_eq!(b.said(), [Said::Frame(frame(600))]);
        }
        assert_eq!(b.deliver(&frame(600), &RxInfo::default()), Err(RxDrop::Buffer(fault)));
        assert_eq!(b.said(), [Said::Error(syndrome), Said::Error(5)], "and the other one is flushed");
        assert_eq!(b.back, [0, 1], "both buffers are the driver's again");
        assert_eq!(b.rq.state(), WqState::Err);
        assert_eq!(b.deliver(&frame(60), &RxInfo::default()), Err(RxDrop::NotReady));
    }
}

#[test]
fn a_reset_forgets_the_open_buffer() {
    let mut b = Bench::new(|_| ());
    b.post(0);
    b.deliver(&frame(600), &RxInfo::default()).unwrap();
    b.said();
    b.rq.modify(&b.guest.mem, WqState::Rdy, WqState::Rst).unwrap();
    b.rqd.pc = 0;
    b.rq.modify(&b.guest.mem, WqState::Rst, WqState::Rdy).unwrap();
    b.post(0);
    b.deliver(&frame(61), &RxInfo::default()).unwrap();
    let (cqe, said) = b.cqe().unwrap();
    assert_eq!((cqe.wqe_counter(), said), (0, Said::Frame(frame(61))));
    // Into error, with what is open flushed.
    let mut b = Bench::new(|c| c.flush_in_error = true);
    (0..2).for_each(|i| b.post(i));
    b.deliver(&frame(600), &RxInfo::default()).unwrap();
    b.rq.modify(&b.guest.mem, WqState::Rdy, WqState::Err).unwrap();
    assert_eq!(b.said(), [Said::Frame(frame(600)), Said::Error(5), Said::Error(5)]);
    assert_eq!(b.back, [0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_wqes_and_counters_do_no_harm(raw in proptest::collection::vec(any::<u8>(), 128), pc: u16, lens in proptest::collection::vec(1usize..3000, 1..20)) {
        let mut b = Bench::new(|c| c.flush_in_error = true);
        for (i, wqe) in raw.chunks(32).enumerate() {
            b.rqd.post_raw(&b.guest, i as u16, wqe);
        }
        b.rqd.publish(&b.guest, pc);
        for len in lens {
            let _ = b.deliver(&frame(len), &RxInfo::default());
            let _ = b.rq.is_starved(&b.guest.mem, len);
        }
    }
}
