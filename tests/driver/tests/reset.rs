//! Resets and maps that change in the midst of traffic.

use std::sync::atomic::{AtomicBool, Ordering};

use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::entries::{cqe_opcode, cqe_syndrome};
use sfnic_test_driver::objects::state;
use sfnic_test_driver::{Function, Netdev, NetdevConfig, Rig, Wqe, frames};

fn ends() -> (Rig, Netdev, Netdev) {
    let rig = Rig::cable();
    let dev = |card| rig.pf(card).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let (a, b) = (dev(0), dev(1));
    (rig, a, b)
}

fn nothing_is_left(rig: &Rig, card: usize) {
    let left = rig.nic.object_counts();
    let ours: Vec<_> = left.iter().filter(|(name, _)| name.starts_with(&format!("pf{card}/"))).collect();
    assert_eq!(ours.len(), 1, "functions of card {card}: {ours:?}");
    assert!(ours[0].1.values().all(|n| *n == 0), "{ours:?}");
    assert!(rig.plane(card, 0).is_none(), "no frame finds the function");
}

#[test]
fn a_reset_in_the_midst_of_traffic_leaves_no_objects() {
    let (rig, mut a, mut b) = ends();
    let sf = {
        a.function.add_sf(rig.sf_id(0, 0)).unwrap();
        rig.sf(0, 0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap()
    };
    for round in 0..20 {
        let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &frames::pattern(round, 100));
        for _ in 0..10 {
            a.send(&frame);
        }
        // Work is queued; half the time some of it is done.
        if round % 2 == 0 {
            rig.nic.run(0);
        }
        rig.reset(0);
        nothing_is_left(&rig, 0);
        rig.run();
        nothing_is_left(&rig, 0);
        let mark = rig.memory[0].mark();
        a = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
        b.receive();
        a.send(&frame);
        rig.run();
        assert_eq!(b.receive()[0].bytes, frame, "the next driver's traffic flows");
        rig.memory[0].rewind(mark);
    }
    assert_eq!(sf.function.window.read32(0), u32::MAX, "the SF went with its PF");
}

#[test]
fn teardown_and_disable_leave_nothing_either() {
    let (rig, mut a, b) = ends();
    let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &[1; 60]);
    a.send(&frame);
    a.function.teardown().unwrap();
    nothing_is_left(&rig, 0);
    rig.run();
    a.function.disable().unwrap();
    nothing_is_left(&rig, 0);
    rig.pf(0).bring_up().unwrap();
}

#[test]
fn memory_that_vanishes_fails_the_queue_and_no_more() {
    let (rig, mut a, mut b) = ends();
    let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &[1; 60]);
    a.send(&frame);
    rig.unmap(0);
    rig.run();
    rig.map(0);
    let sqn = a.channels[0].sq.number;
    assert_eq!(a.function.sq_state(sqn).unwrap(), state::ERR);
    assert!(b.receive().is_empty());
    // Its completion queue could not be reached either, so both start anew.
    rig.reset(0);
    let mut a = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    a.send(&frame);
    rig.run();
    assert_eq!(b.receive().len(), 1);
}

#[test]
fn a_queue_in_error_recovers_as_the_kernel_does_it() {
    let (rig, mut a, mut b) = ends();
    let (lkey, frame) = (a.lkey, frames::ethernet(b.mac, a.mac, 0x88b5, &[1; 60]));
    a.post(0, &Wqe::send(&frame[..18]).data(lkey ^ 0xff, 0, 64).signalled());
    a.send(&frame);
    a.send(&frame);
    rig.run();
    let cqes = a.reap(0);
    let seen: Vec<_> = cqes.iter().map(|c| (c.opcode(), c.error().1)).collect();
    let flushed = (cqe_opcode::REQ_ERR, cqe_syndrome::WR_FLUSH);
    assert_eq!(seen, [(cqe_opcode::REQ_ERR, cqe_syndrome::LOCAL_PROT), flushed, flushed]);
    let sqn = a.channels[0].sq.number;
    assert_eq!(a.function.sq_state(sqn).unwrap(), state::ERR);
    assert!(a.function.modify_sq(sqn, state::ERR, state::RDY).is_err());
    a.function.modify_sq(sqn, state::ERR, state::RST).unwrap();
    a.channels[0].sq.restart();
    a.function.modify_sq(sqn, state::RST, state::RDY).unwrap();
    for _ in 0..5 {
        a.send(&frame);
    }
    rig.run();
    assert_eq!((b.receive().len(), a.reap(0).len()), (5, 5));
}

/// Runs `driver` while two workers run the queues.
fn with_workers<R>(rig: &Rig, driver: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for worker in 0..2 {
            let (nic, done) = (&rig.nic, &done);
            s.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if !nic.run(worker) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let r = driver();
        done.store(true, Ordering::Relaxed);
        r
    })
}

#[test]
fn the_map_is_replaced_while_workers_run() {
    let (rig, mut a, mut b) = ends();
    let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &frames::pattern(1, 1000));
    let mut arrived = 0;
    with_workers(&rig, || {
        for round in 0..500 {
            if a.channels[0].sq.room() > 32 {
                a.send(&frame);
            }
            // The receiver's memory goes and comes back.
            rig.unmap(1);
            rig.map(1);
            if round % 8 == 0 {
                a.reap(0);
                for r in b.receive().iter().filter(|r| r.cqe.opcode() == cqe_opcode::RESP_SEND) {
                    assert_eq!(r.bytes, frame);
                    arrived += 1;
                }
            }
        }
    });
    rig.run();
    assert!(rig.memory.iter().all(|m| m.canary_is_whole()));
    // Whatever became of the queues, a reset makes all well.
    rig.reset(1);
    let mut b = rig.pf(1).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    a.reap(0);
    a.send(&frame);
    rig.run();
    assert_eq!(b.receive().len(), 1, "after {arrived} before");
}

#[test]
fn resets_and_workers_get_along() {
    let rig = Rig::new(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], 64 << 20);
    let mut b = rig.pf(1).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    with_workers(&rig, || {
        for round in 0..60 {
            // Memory is not used twice: a worker may still be at the old one.
            let pf: Function = rig.pf(0).bring_up().unwrap();
            let mut a = pf.netdev(&NetdevConfig { channels: 2, ..NetdevConfig::default() }).unwrap();
            let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &frames::pattern(round, 300));
            for i in 0..40 {
                if a.channels[i % 2].sq.room() >= 16 {
                    a.send_with(i % 2, &frame, 18, |w| w);
                }
            }
            rig.reset(0);
            nothing_is_left(&rig, 0);
            for r in b.receive() {
                assert_eq!(r.bytes, frame, "whole or not at all");
            }
        }
    });
    assert!(rig.memory.iter().all(|m| m.canary_is_whole()));
}
