//! Doorbells that nobody is told of: UAR pages that are plain memory.

use sfnic_device_model::fabric::port::Far;
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::{Netdev, NetdevConfig, Rig, frames};

/// Both ends of the cable.
fn ends(config: &NetdevConfig) -> (Rig, Netdev, Netdev) {
    let rig = Rig::polled(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], 4 * MEMORY);
    let dev = |card| rig.pf(card).bring_up().unwrap().netdev(config).unwrap();
    let (a, b) = (dev(0), dev(1));
    (rig, a, b)
}

fn frame(to: &Netdev, from: &Netdev, seed: usize) -> Vec<u8> {
    frames::ethernet(to.mac, from.mac, 0x88b5, &frames::pattern(seed, 200))
}

#[test]
fn frames_leave_when_somebody_looks_and_are_sent_once() {
    let (rig, mut a, mut b) = ends(&NetdevConfig { log_sq: 4, log_rq: 4, ..NetdevConfig::default() });
    for i in 0..70_000 {
        let f = frame(&b, &a, i % 50);
        a.send(&f);
        if i == 0 {
            assert!(!rig.nic.run(0) && b.receive().is_empty(), "nobody was told");
        }
        rig.run();
        let got = b.receive();
        assert!(got.len() == 1 && got[0].bytes == f, "frame {i}");
        assert_eq!(a.reap(0).len(), 1);
    }
    assert_eq!(rig.run(), 0, "nothing is left");
}

#[test]
fn a_doorbell_that_another_one_replaced_is_found_by_its_record() {
    let (rig, mut a, mut b) = ends(&NetdevConfig { channels: 4, ..NetdevConfig::default() });
    for round in 0..100 {
        // All queues have one page: the last one's doorbell is what is there.
        for channel in 0..4 {
            let f = frame(&b, &a, round * 4 + channel);
            a.send_with(channel, &f, 18, |w| w);
        }
        rig.run();
        let got: usize = (0..4).map(|c| b.receive_on(c).len()).sum();
        assert_eq!(got, 4, "round {round}");
        for channel in 0..4 {
            assert_eq!(a.reap(channel).len(), 1);
        }
    }
}

#[test]
fn each_arming_has_its_event_and_each_event_its_interrupt() {
    let (rig, mut a, mut b) = ends(&NetdevConfig::default());
    for i in 0..50u64 {
        // Before the frame, behind it, and with nobody looking in between.
        let late = i % 3;
        if late == 0 {
            b.channels[0].rq_cq.arm();
        }
        if i % 2 == 0 {
            rig.run();
        }
        let f = frame(&b, &a, i as usize);
        a.send(&f);
        rig.run();
        if late != 0 {
            assert_eq!(rig.irqs[1].count(1), i, "not armed");
            b.channels[0].rq_cq.arm();
            rig.run();
        }
        assert_eq!(rig.irqs[1].count(1), i + 1, "event {i}");
        let events = b.eq.drain();
        assert_eq!(events.len(), 1);
        b.channels[0].rq_cq.event_seen();
        assert_eq!(b.receive().len(), 1);
        a.reap(0);
        rig.run();
        assert_eq!(rig.irqs[1].count(1), i + 1, "one event for an arming");
    }
}

#[test]
fn a_queue_that_is_gone_is_not_rung_and_its_successor_is() {
    let (rig, mut a, mut b) = ends(&NetdevConfig::default());
    let f = frame(&b, &a, 1);
    a.send(&f);
    rig.reset(0);
    rig.run();
    assert!(b.receive().is_empty(), "a reset ends what was not looked at");
    let mut a = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    rig.run();
    assert!(b.receive().is_empty(), "what lay in the page is nobody's");
    let f = frame(&b, &a, 2);
    a.send(&f);
    rig.run();
    assert_eq!(b.receive().len(), 1);
}

#[test]
fn sub_functions_have_pages_of_their_own() {
    let rig = Rig::polled(vec![Rig::card(0, Far::Loopback)], MEMORY);
    let pf = rig.pf(0).bring_up().unwrap();
    let mut sf: Vec<Netdev> = (0..2)
        .map(|i| {
            pf.add_sf(rig.sf_id(0, i)).unwrap();
            rig.sf(0, i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap()
        })
        .collect();
    let mut fdb = pf.create_fdb(4).unwrap();
    pf.join(&mut fdb, rig.sf_id(0, 0), rig.sf_id(0, 1)).unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        let f = frames::ethernet([0xff; 6], [2; 6], 0x88b5, &frames::pattern(from, 300));
        sf[from].send(&f);
        rig.run();
        assert_eq!(sf[to].receive().len(), 1);
        assert!(sf[from].receive().is_empty());
    }
}
