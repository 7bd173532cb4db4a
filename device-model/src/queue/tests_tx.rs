use std::sync::Arc;

use proptest::prelude::*;

use super::cq::Cq;
use super::eq::Eq;
use super::mini_driver::{BAD_KEY, CqDriver, Guest, IdentityKeys, Irqs, SqDriver, WqeBuilder};
use super::sq::{PollResult, Sq, TxResult, TxSink};
use super::wqe::{Piece, TxWqe, WqeFault};
use super::{SqConfig, WqState};
use crate::dma::{DmaAccess, Memory};

/// Collects frames and opcodes that are not modelled.
pub(super) struct Collect<'m> {
    pub(super) mem: &'m Memory,
    pub(super) frames: Vec<Vec<u8>>,
    pub(super) unmodelled: Vec<u8>,
}

impl TxSink for Collect<'_> {
    fn send(&mut self, wqe: &TxWqe<'_>) -> TxResult {
        let mut frame = vec![];
        for piece in wqe.pieces() {
            match piece {
                Piece::Bytes(b) => frame.extend_from_slice(b),
                Piece::Guest { iova, len } => {
                    let at = frame.len();
                    frame.resize(at + len as usize, 0);
                    if self.mem.dma_read(iova, &mut frame[at..]).is_err() {
                        return TxResult::Failed(WqeFault::Dma);
                    }
                }
            }
        }
        assert_eq!(frame.len(), wqe.len as usize);
        let bytes = frame.len() as u64;
        self.frames.push(frame);
        TxResult::Sent { frames: 1, bytes }
    }
    fn unmodelled(&mut self, _sqn: u32, opcode: u8) {
        self.unmodelled.push(opcode);
    }
}

pub(super) struct Bench {
    pub(super) guest: Guest,
    cq: Arc<Cq>,
    cqd: CqDriver,
    pub(super) sq: Arc<Sq>,
    pub(super) sqd: SqDriver,
    eq: Arc<Eq>,
    pub(super) payload: u64,
}

impl Bench {
    pub(super) fn new(log_size: u8, tweak: impl FnOnce(&mut SqConfig)) -> Self {
        let guest = Guest::new();
        let eq = Arc::new(guest.eq(&Arc::new(Irqs::default()), 1, 4));
        let (cq, cqd) = guest.cq(&eq, log_size, |_| ());
        let (sq, sqd) = guest.sq(&cq, log_size, tweak);
        let payload = guest.alloc(0x10000);
        let bytes: Vec<u8> = (0..0x10000u32).map(|i| (i * 7 + i / 256) as u8).collect();
        guest.put(payload, &bytes);
        Self { guest, cq, cqd, sq, sqd, eq, payload }
    }

    pub(super) fn sink(&self) -> Collect<'_> {
        Collect { mem: &self.guest.mem, frames: vec![], unmodelled: vec![] }
    }

    pub(super) fn poll(&self, budget: usize, sink: &mut impl TxSink) -> PollResult {
        self.sq.poll(&self.guest.mem, &IdentityKeys::default(), budget, sink, 0x1122_3344_5566)
    }

    /// Reads completions: opcode, WQE index, syndrome.
    pub(super) fn reap(&mut self) -> Vec<(u8, u16, u8)> {
        let mut out = vec![];
        while let Some(cqe) = self.cqd.poll(&self.guest.mem) {
            self.sqd.completed(&cqe);
            out.push((cqe.opcode(), cqe.wqe_counter(), if cqe.opcode() == 0 { 0 } else { cqe.syndrome() }));
        }
        self.cqd.update(&self.guest);
        out
    }
}

#[test]
fn frames_of_all_sizes_go_round_the_ring() {
    let mut b = Bench::new(5, |_| ());
    let all = b.guest.get(b.payload, 0x10000);
    let mut sent = 0;
    for round in 0..2000usize {
        // One to four blocks, so that WQEs lie across the ring's end.
        let header = &all[round % 100..][..round % 190];
        let wqe = WqeBuilder::send(header)
            .data(b.payload + round as u64, 1 + round as u32 % 1500)
            .inline_data(b"tail")
            .signalled();
        b.sqd.post(&b.guest, &wqe);
        assert!(b.sqd.ring(&b.guest));
        let mut sink = b.sink();
        assert_eq!(b.poll(64, &mut sink), PollResult { more: false, work_done: 1 });
        let want = [header, &all[round..][..1 + round % 1500], b"tail"].concat();
        assert_eq!(sink.frames, [&want[..]]);
        sent += want.len() as u64;
        let index = b.sqd.pc;
        let done = b.reap();
        assert_eq!((done.len(), done[0].0), (1, 0));
        assert_eq!(b.sqd.cc, index);
    }
    let s = b.sq.snapshot();
    assert_eq!((s.wqes, s.packets, s.bytes, s.errors), (2000, 2000, sent, 0));
}

#[test]
fn a_completion_names_the_first_block_and_the_queue() {
    let mut b = Bench::new(5, |c| c.user_index = 0x123);
    b.sqd.post(&b.guest, &WqeBuilder::nop());
    b.sqd.post(&b.guest, &WqeBuilder::send(&[1; 100]).data(b.payload, 10).signalled());
    b.sqd.ring(&b.guest);
    b.poll(64, &mut b.sink());
    let cqe = b.cqd.poll(&b.guest.mem).unwrap();
    assert_eq!((cqe.opcode(), cqe.wqe_counter()), (0, 1));
    assert_eq!(cqe.word(56), 0x0a00_0051, "opcode and queue");
    assert_eq!((cqe.word(48), cqe.word(52)), (0x1122, 0x3344_5566), "time");
    assert_eq!(cqe.word(32), 0x123);
    assert_eq!(b.sqd.completed(&cqe), 2, "retires the unsignalled one");
}

#[test]
fn the_nop_that_starts_a_channel_completes_with_an_event() {
    let mut b = Bench::new(5, |_| ());
    b.cq.arm(&b.guest.mem, b.cqd.arm(&b.guest));
    b.sqd.post(&b.guest, &WqeBuilder::nop().signalled());
    b.sqd.ring(&b.guest);
    b.poll(64, &mut b.sink());
    assert_eq!(b.eq.snapshot().producer, 1);
    assert_eq!(b.reap(), [(0, 0, 0)]);
}

#[test]
fn a_budget_leaves_the_rest_for_later() {
    let mut b = Bench::new(5, |_| ());
    for _ in 0..20 {
        b.sqd.post(&b.guest, &WqeBuilder::nop());
    }
    assert!(b.sqd.ring(&b.guest));
    assert_eq!(b.poll(8, &mut b.sink()), PollResult { more: true, work_done: 8 });
    assert!(!b.sqd.ring(&b.guest), "queued already");
    assert_eq!(b.poll(8, &mut b.sink()), PollResult { more: true, work_done: 8 });
    assert_eq!(b.poll(8, &mut b.sink()), PollResult { more: false, work_done: 4 });
}

#[test]
fn an_error_flushes_what_follows_and_the_driver_recovers() {
    for bad in [
        WqeBuilder::control(0x25),
        WqeBuilder::control(0x29),
        WqeBuilder::control(0x23),
        WqeBuilder::send(&[0; 14]).key_data(BAD_KEY, 0x1000, 60),
        WqeBuilder::send(&[0; 14]).data(1 << 40, 60),
        WqeBuilder::send(&[0; 14]).data(0x1000, 0),
    ] {
        let mut b = Bench::new(5, |_| ());
        for round in 0..3 {
            let frame = WqeBuilder::send(&[9; 80]).data(b.payload, 50);
            b.sqd.post(&b.guest, &frame);
            let bad_index = b.sqd.pc;
            b.sqd.post(&b.guest, &bad);
            b.sqd.post(&b.guest, &frame);
            b.sqd.post(&b.guest, &frame.clone().signalled());
            b.sqd.ring(&b.guest);
            let mut sink = b.sink();
            assert_eq!(b.poll(64, &mut sink).work_done, 4);
            assert_eq!(sink.frames.len(), 1);
            assert_eq!(sink.unmodelled.len(), usize::from(bad.bytes().len() == 16));
            b.sqd.post(&b.guest, &frame);
            assert!(b.sqd.ring(&b.guest), "the driver posts on, not knowing yet");
            b.poll(64, &mut b.sink());
            let done = b.reap();
            assert_eq!(done.len(), 4, "{done:?}");
            assert_eq!((done[0].0, done[0].1), (0xd, bad_index));
            assert_ne!(done[0].2, 5);
            assert!(done[1..].iter().all(|c| (c.0, c.2) == (0xd, 5)));
            b.sqd.recover(&b.guest);
            assert!(!b.sq.scan(&b.guest.mem), "the record is stale");
            assert_eq!(b.poll(64, &mut b.sink()).work_done, 0, "round {round}: no doorbell, no work");
            b.sqd.post(&b.guest, &frame.clone().signalled());
            assert!(b.sqd.ring(&b.guest));
            let mut sink = b.sink();
            b.poll(64, &mut sink);
            assert_eq!(sink.frames.len(), 1);
            assert_eq!(b.reap(), [(0, 0, 0)]);
            assert_eq!(b.sq.state(), WqState::Rdy);
        }
    }
}

#[test]
fn a_doorbell_before_the_reset_does_not_run_stale_wqes() {
    let mut b = Bench::new(5, |_| ());
    b.sqd.post(&b.guest, &WqeBuilder::send(&[0; 14]).data(b.payload, 60));
    b.sqd.ring(&b.guest);
    b.sq.modify(&b.guest.mem, WqState::Rdy, WqState::Rst).unwrap();
    b.sq.modify(&b.guest.mem, WqState::Rst, WqState::Rdy).unwrap();
    let mut sink = b.sink();
    assert_eq!(b.poll(64, &mut sink), PollResult::default());
    assert!(sink.frames.is_empty());
}

#[test]
fn a_queue_that_is_not_to_flush_stands_still() {
    let mut b = Bench::new(5, |c| c.flush_in_error = false);
    b.sqd.post(&b.guest, &WqeBuilder::control(0x77));
    b.sqd.post(&b.guest, &WqeBuilder::nop().signalled());
    b.sqd.ring(&b.guest);
    assert_eq!(b.poll(64, &mut b.sink()), PollResult { more: false, work_done: 1 });
    assert_eq!(b.reap(), [(0xd, 0, 2)]);
    assert!(!b.sq.scan(&b.guest.mem));
}

#[test]
fn a_queue_put_into_error_by_command_flushes() {
    let mut b = Bench::new(5, |_| ());
    b.sqd.post(&b.guest, &WqeBuilder::nop());
    b.sqd.ring(&b.guest);
    b.poll(64, &mut b.sink());
    b.sqd.post(&b.guest, &WqeBuilder::nop().signalled());
    b.guest.put32(b.sqd.dbr + 4, b.sqd.pc.into());
    assert!(b.sq.modify(&b.guest.mem, WqState::Rdy, WqState::Err).unwrap(), "hand it to a worker");
    b.poll(64, &mut b.sink());
    assert_eq!(b.reap(), [(0xd, 1, 5)]);
}

#[test]
fn state_transitions_are_checked() {
    let b = Bench::new(5, |_| ());
    let m = |from, to| b.sq.modify(&b.guest.mem, from, to).map_err(|r| r.syndrome);
    use sfnic_firmware_cmds::Syndrome;
    assert_eq!(m(WqState::Err, WqState::Rst), Err(Syndrome::OBJECT_STATE));
    assert_eq!(m(WqState::Rdy, WqState::Rdy), Ok(false));
    assert_eq!(m(WqState::Rdy, WqState::Err), Ok(false));
    assert_eq!(m(WqState::Err, WqState::Rdy), Err(Syndrome::STATE_TRANSITION));
    assert_eq!(m(WqState::Err, WqState::Rst), Ok(false));
    assert!(WqState::from_raw(2).is_err());
}

#[test]
fn malformed_wqes_are_errors_at_the_right_place() {
    // No segments at all: one block, and what follows is flushed.
    let mut b = Bench::new(5, |_| ());
    let mut raw = vec![0; 64];
    raw[3] = 0x0a;
    b.sqd.post_raw(&b.guest, &raw);
    b.sqd.post(&b.guest, &WqeBuilder::nop());
    b.sqd.ring(&b.guest);
    b.poll(64, &mut b.sink());
    assert_eq!(b.reap(), [(0xd, 0, 2), (0xd, 1, 5)]);
    // Longer than what was announced.
    let mut b = Bench::new(5, |_| ());
    raw[7] = 63;
    b.sqd.post_raw(&b.guest, &raw);
    b.sqd.ring(&b.guest);
    b.poll(64, &mut b.sink());
    assert_eq!(b.reap(), [(0xd, 0, 2)]);
    assert_eq!(b.sq.snapshot().consumer, 1);
}

#[test]
fn a_send_counter_that_jumps_is_one_error() {
    let mut b = Bench::new(5, |_| ());
    b.guest.put32(b.sqd.dbr + 4, 33);
    b.sq.doorbell();
    assert_eq!(b.poll(1000, &mut b.sink()), PollResult { more: false, work_done: 1 });
    let cqe = b.cqd.poll(&b.guest.mem).unwrap();
    assert_eq!((cqe.opcode(), cqe.wqe_counter(), cqe.syndrome(), cqe.0[54]), (0xd, 0, 2, 4));
    assert_eq!((b.sq.state(), b.sq.snapshot().consumer), (WqState::Err, 33));
    // Going back is a jump too.
    b.guest.put32(b.sqd.dbr + 4, 32);
    b.sq.doorbell();
    assert_eq!(b.poll(1000, &mut b.sink()).work_done, 1);
}

#[test]
fn unmapped_queue_memory_is_an_error() {
    let mut b = Bench::new(5, |c| c.dbr_addr = u64::MAX - 7);
    b.sq.doorbell();
    assert_eq!(b.poll(9, &mut b.sink()), PollResult::default());
    let cqe = b.cqd.poll(&b.guest.mem).unwrap();
    assert_eq!((cqe.opcode(), cqe.syndrome(), cqe.0[54]), (0xd, 4, 0x0c));
    b.sq.doorbell();
    assert_eq!(b.poll(9, &mut b.sink()), PollResult::default());
    assert!(b.cqd.poll(&b.guest.mem).is_none(), "once");
}

#[test]
fn a_broken_completion_queue_stops_the_sender() {
    let mut b = Bench::new(5, |_| ());
    b.cq.retire();
    b.sqd.post(&b.guest, &WqeBuilder::nop().signalled());
    b.sqd.ring(&b.guest);
    let r = b.poll(64, &mut b.sink());
    assert!(!r.more && r.work_done <= 2);
    assert_eq!(b.sq.state(), WqState::Err);
}

#[test]
fn scanning_the_record_finds_work() {
    let mut b = Bench::new(5, |_| ());
    assert!(!b.sq.scan(&b.guest.mem));
    b.sqd.post(&b.guest, &WqeBuilder::nop().signalled());
    b.guest.put32(b.sqd.dbr + 4, 1);
    assert!(b.sq.scan(&b.guest.mem));
    assert!(!b.sq.scan(&b.guest.mem), "queued already");
    assert!(!b.poll(64, &mut b.sink()).more);
    assert_eq!(b.reap(), [(0, 0, 0)]);
    assert!(!b.sq.scan(&b.guest.mem));
    b.sq.retire();
    b.guest.put32(b.sqd.dbr + 4, 2);
    assert!(!b.sq.scan(&b.guest.mem));
}

#[test]
fn counters_wrap_at_sixteen_bits() {
    let mut b = Bench::new(8, |_| ());
    for _ in 0..600 {
        for _ in 0..63 {
            b.sqd.post(&b.guest, &WqeBuilder::nop());
        }
        b.sqd.post(&b.guest, &WqeBuilder::send(&[1; 150]).data(b.payload, 100).signalled());
        b.sqd.ring(&b.guest);
        assert!(!b.poll(1000, &mut b.sink()).more);
        assert_eq!(b.reap().len(), 1);
    }
    assert_eq!(b.sq.snapshot().errors, 0);
    assert_eq!(b.sq.snapshot().consumer, (600u32 * (63 + 4)) as u16);
}

/// One thread posts and rings, two work; whoever is handed the queue runs it.
#[test]
fn no_doorbell_is_lost_between_workers() {
    let b = Bench::new(6, |_| ());
    let Bench { guest, mut cqd, sq, mut sqd, .. } = b;
    let (guest, sq) = (&guest, &sq);
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let receive = parking_lot::Mutex::new(receive);
    let (send, receive) = (send, &receive);
    std::thread::scope(|s| {
        for _ in 0..2 {
            let send = send.clone();
            let next = || receive.lock().recv_timeout(WAIT).is_ok();
            s.spawn(move || {
                // Ends by the timeout, a while after the last doorbell.
                while next() {
                    let mut sink = Collect { mem: &guest.mem, frames: vec![], unmodelled: vec![] };
                    if sq.poll(&guest.mem, &IdentityKeys::default(), 3, &mut sink, 0).more {
                        send.send(()).unwrap();
                    }
                }
            });
        }
        let mut posted = 0;
        let mut stuck = std::time::Instant::now();
        while posted < 50_000 || sqd.cc != sqd.pc {
            if posted < 50_000 && sqd.room() > 0 {
                sqd.post(guest, &WqeBuilder::nop().signalled());
                posted += 1;
                if sqd.ring(guest) {
                    send.send(()).unwrap();
                }
            }
            while let Some(cqe) = cqd.poll(&guest.mem) {
                assert_eq!((cqe.opcode(), sqd.completed(&cqe)), (0, 1));
                stuck = std::time::Instant::now();
            }
            cqd.update(guest);
            assert!(stuck.elapsed() < WAIT, "a doorbell was lost");
        }
    });
}

const WAIT: std::time::Duration = std::time::Duration::from_secs(1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Random ring content and random send counters: bounded work, and at
    /// most one completion a WQE.
    #[test]
    fn hostile_rings_do_bounded_work(
        ring in proptest::collection::vec(any::<u8>(), 2048),
        opcodes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0x0au8), Just(0x0eu8), any::<u8>()], 32),
        counters in proptest::collection::vec(prop_oneof![0u32..40, any::<u32>()], 1..6),
    ) {
        let b = Bench::new(5, |_| ());
        for (i, (block, opcode)) in ring.chunks(64).zip(&opcodes).enumerate() {
            let mut block = block.to_vec();
            block[3] = *opcode;
            block[7] %= 20;
            b.guest.put(b.sq.config().ring.addr(i as u64, 64, 0), &block);
        }
        for counter in counters {
            b.guest.put32(b.sqd.dbr + 4, counter);
            b.sq.doorbell();
            let r = b.poll(100, &mut b.sink());
            prop_assert!(r.work_done <= 34 && !r.more);
        }
    }
}
