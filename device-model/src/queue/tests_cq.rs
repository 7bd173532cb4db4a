use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sfnic_firmware_cmds::Syndrome;
use sfnic_firmware_cmds::entries::{Cqe64, cqe_opcode, event};

use super::cq::{Arm, Cq, CqFault, Debtor};
use super::mini_driver::{Guest, Irqs};
use super::ring::Ring;
use crate::dma::Memory;

fn push(cq: &Cq, mem: &Memory, counter: u16, solicited: bool) -> Result<(), CqFault> {
    cq.complete(mem, solicited, |c| {
        c.set(Cqe64::opcode, cqe_opcode::REQ).set(Cqe64::wqe_counter, counter.into());
    })
}

fn debtor() -> Debtor {
    Debtor { send: true, qpn: 5, user_index: 9, wqe_opcode: 0x0a, wqe_counter: 77 }
}

#[test]
fn owners_alternate_for_both_entry_sizes() {
    for cqe_128 in [false, true] {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let eq = Arc::new(guest.eq(&irqs, 1, 3));
        let (cq, mut d) = guest.cq(&eq, 6, |c| c.cqe_128 = cqe_128);
        for i in 0..300 {
            assert!(d.poll(&guest.mem).is_none());
            push(&cq, &guest.mem, i, false).unwrap();
            assert_eq!(d.poll(&guest.mem).unwrap().wqe_counter(), i);
            d.update(&guest);
        }
        assert_eq!(eq.snapshot().producer, 0, "never armed");
    }
}

#[test]
fn one_event_per_arm_and_at_once_for_unread_completions() {
    let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
    let eq = Arc::new(guest.eq(&irqs, 1, 3));
    let (cq, mut d) = guest.cq(&eq, 4, |_| ());
    let events = || eq.snapshot().producer;
    cq.arm(&guest.mem, d.arm(&guest));
    assert_eq!(events(), 0);
    push(&cq, &guest.mem, 0, false).unwrap();
    push(&cq, &guest.mem, 1, false).unwrap();
    assert_eq!(events(), 1);
    d.poll(&guest.mem).unwrap();
    cq.arm(&guest.mem, d.arm(&guest));
    assert_eq!(events(), 2, "one is unread");
    d.poll(&guest.mem).unwrap();
    cq.arm(&guest.mem, d.arm(&guest));
    assert_eq!(events(), 2);
    assert_eq!(guest.eq_driver(&eq).poll(&guest.mem), Some((event::COMPLETION, cq.cqn())));
}

#[test]
fn a_driver_that_waits_for_solicited_ones_sleeps_through_others() {
    let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
    let eq = Arc::new(guest.eq(&irqs, 1, 3));
    let (cq, d) = guest.cq(&eq, 4, |_| ());
    let arm = Arm { solicited_only: true, ..d.arm(&guest) };
    let events = || eq.snapshot().producer;
    cq.arm(&guest.mem, arm);
    push(&cq, &guest.mem, 0, false).unwrap();
    assert_eq!(events(), 0);
    push(&cq, &guest.mem, 1, true).unwrap();
    assert_eq!(events(), 1);
    cq.arm(&guest.mem, Arm { ci: 1, ..arm });
    assert_eq!(events(), 2, "the solicited one is unread");
    cq.arm(&guest.mem, Arm { ci: 2, ..arm });
    push(&cq, &guest.mem, 2, false).unwrap();
    assert_eq!(events(), 2);
    cq.reserve(&guest.mem, debtor()).unwrap().fail(super::WqeFault::Key).unwrap();
    assert_eq!(events(), 3, "errors count as solicited");
}

#[test]
fn the_record_arms_where_doorbells_do_not_trap() {
    let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
    let eq = Arc::new(guest.eq(&irqs, 1, 6));
    let (cq, mut d) = guest.cq(&eq, 4, |c| c.poll_record = true);
    let events = || eq.snapshot().producer;
    push(&cq, &guest.mem, 0, false).unwrap();
    cq.poll_arm(&guest.mem);
    assert_eq!(events(), 0, "the word is as the driver initialised it");
    for round in 0..9 {
        d.arm(&guest);
        cq.poll_arm(&guest.mem);
        cq.poll_arm(&guest.mem);
        assert_eq!(events(), 2 * round + 1, "an unread one; one event");
        d.poll(&guest.mem).unwrap();
        d.update(&guest);
        d.sn += 1;
        d.arm(&guest);
        cq.poll_arm(&guest.mem);
        assert_eq!(events(), 2 * round + 1);
        push(&cq, &guest.mem, 0, false).unwrap();
        push(&cq, &guest.mem, 0, false).unwrap();
        assert_eq!(events(), 2 * round + 2);
        d.poll(&guest.mem).unwrap();
        d.update(&guest);
        d.sn += 1;
    }
    cq.arm_from_record(&guest.mem);
    assert_eq!(events(), 19);
}

#[test]
fn an_overrun_is_an_error_event_and_overwrites_nothing() {
    let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
    let eq = Arc::new(guest.eq(&irqs, 1, 3));
    let asynchronous = Arc::new(guest.eq(&irqs, 2, 3));
    guest.async_eqs.insert([1 << event::CQ_ERROR, 0, 0, 0], asynchronous.clone());
    let (cq, mut d) = guest.cq(&eq, 2, |_| ());
    for i in 0..4 {
        push(&cq, &guest.mem, i, false).unwrap();
    }
    assert_eq!(push(&cq, &guest.mem, 4, false), Err(CqFault::Overrun));
    assert_eq!(push(&cq, &guest.mem, 4, false), Err(CqFault::InError));
    assert!(cq.reserve(&guest.mem, debtor()).is_none());
    let mut e = guest.eq_driver(&asynchronous);
    assert_eq!(e.poll(&guest.mem), Some((event::CQ_ERROR, cq.cqn())));
    assert_eq!(e.poll(&guest.mem), None, "once");
    for i in 0..4 {
        assert_eq!(d.poll(&guest.mem).unwrap().wqe_counter(), i);
    }
    // Where the driver takes care itself, nothing is checked.
    let (cq, _) = guest.cq(&eq, 3, |c| c.overrun_ignore = true);
    for i in 0..100 {
        push(&cq, &guest.mem, i, false).unwrap();
    }
}

#[test]
fn unmapped_memory_is_an_error_event() {
    let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
    let eq = Arc::new(guest.eq(&irqs, 1, 3));
    let (cq, _) = guest.cq(&eq, 2, |c| c.dbr_addr = u64::MAX - 7);
    for i in 0..4 {
        push(&cq, &guest.mem, i, false).unwrap();
    }
    assert_eq!(push(&cq, &guest.mem, 4, false), Err(CqFault::Dma));
    cq.arm_from_record(&guest.mem);
    cq.poll_arm(&guest.mem);
    assert!(cq.snapshot().error);
}

#[test]
fn a_wild_consumer_record_is_an_overrun() {
    let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
    let eq = Arc::new(guest.eq(&irqs, 1, 3));
    let (cq, d) = guest.cq(&eq, 2, |_| ());
    guest.put32(cq.config().dbr_addr, 0xff12_3456);
    let results: Vec<_> = (0..5).map(|i| push(&cq, &guest.mem, i, false)).collect();
    assert_eq!(results.last(), Some(&Err(CqFault::Overrun)));
    assert_eq!(d.cc, 0);
}

#[test]
fn a_forgotten_completion_is_written_as_an_error() {
    let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
    let eq = Arc::new(guest.eq(&irqs, 1, 3));
    let (cq, mut d) = guest.cq(&eq, 2, |_| ());
    cq.reserve(&guest.mem, debtor()).unwrap().waive();
    assert!(d.poll(&guest.mem).is_none());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _permit = cq.reserve(&guest.mem, debtor()).unwrap();
        panic!("in the middle of a WQE");
    }));
    assert!(caught.is_err());
    let cqe = d.poll(&guest.mem).unwrap();
    assert_eq!((cqe.opcode(), cqe.wqe_counter(), cqe.word(56)), (0xd, 77, 0x0a00_0005));
    assert_eq!((cqe.word(32), cq.snapshot().forgotten), (9, 1));
}

#[test]
fn wrong_sizes_are_refused() {
    let guest = Guest::new();
    let eq = Arc::new(guest.eq(&Arc::default(), 1, 3));
    let (cq, _) = guest.cq(&eq, 2, |_| ());
    let new = |config| Cq::new(config, eq.clone(), Arc::default()).map(|_| ()).unwrap_err().syndrome;
    let config = cq.config().clone();
    assert_eq!(new(super::CqConfig { cqe_128: true, ..config.clone() }), Syndrome::QUEUE_SIZE);
    assert_eq!(new(super::CqConfig { log_size: 31, ..config.clone() }), Syndrome::QUEUE_SIZE);
    assert_eq!(new(super::CqConfig { dbr_addr: 0x1004, ..config.clone() }), Syndrome::DOORBELL_ALIGN);
    let ring = Ring::new(&[0], 0, 0, 128).unwrap();
    assert_eq!(new(super::CqConfig { ring, ..config }), Syndrome::QUEUE_SIZE);
}

/// The driver sleeps whenever it has armed and reads after an interrupt only;
/// every completion must reach it.
#[test]
fn no_interrupt_is_lost_between_arming_and_completing() {
    const N: u32 = 20_000;
    for poll_record in [false, true] {
        let (guest, irqs) = (Guest::new(), Arc::new(Irqs::default()));
        let eq = Arc::new(guest.eq(&irqs, 1, 3));
        let (cq, mut d) = guest.cq(&eq, 6, |c| c.poll_record = poll_record);
        let (guest, done) = (&guest, &AtomicBool::new(false));
        let mut e = guest.eq_driver(&eq);
        let mut seen = 0;
        eq.arm(&guest.mem, 0);
        if !poll_record {
            cq.arm(&guest.mem, d.arm(guest));
        } else {
            d.arm(guest);
        }
        std::thread::scope(|s| {
            s.spawn(|| {
                for i in 0..N {
                    // Leave the driver time to sleep now and then, and do not
                    // overrun it.
                    while !done.load(Ordering::Relaxed)
                        && (low24_ahead(guest, &cq) >= 64 || (i % 97 == 0 && !idle(&cq)))
                    {
                        cq.poll_arm_if(poll_record, &guest.mem);
                        std::thread::yield_now();
                    }
                    push(&cq, &guest.mem, i as u16, false).unwrap();
                }
                while !done.load(Ordering::Relaxed) {
                    cq.poll_arm_if(poll_record, &guest.mem);
                    std::thread::yield_now();
                }
            });
            let _end = SetOnDrop(done);
            while d.cc < N {
                assert!(irqs.wait(seen), "lost: read {} of {N}, {:?} {:?}", d.cc, cq.snapshot(), eq.snapshot());
                seen = irqs.count();
                while let Some((kind, cqn)) = e.poll(&guest.mem) {
                    assert_eq!((kind, cqn), (event::COMPLETION, cq.cqn()));
                    d.sn = d.sn.wrapping_add(1);
                }
                eq.arm(&guest.mem, e.ci);
                // A budget, so that some are left unread when arming.
                for _ in 0..16 {
                    if d.poll(&guest.mem).is_none() {
                        break;
                    }
                }
                d.update(guest);
                let arm = d.arm(guest);
                if !poll_record {
                    cq.arm(&guest.mem, arm);
                }
            }
        });
    }
}

/// Ends the other thread also where an assertion fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn low24_ahead(guest: &Guest, cq: &Cq) -> u32 {
    let b = guest.get(cq.config().dbr_addr, 4);
    cq.snapshot().producer.wrapping_sub(u32::from_be_bytes(b.try_into().unwrap())) & 0xff_ffff
}

fn idle(cq: &Cq) -> bool {
    cq.snapshot().armed.is_some()
}

impl Cq {
    fn poll_arm_if(&self, yes: bool, mem: &Memory) {
        if yes {
            self.poll_arm(mem);
        }
    }
}
