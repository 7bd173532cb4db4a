//! Events of completion queues that are held back (DIM's values are honoured).

use sfnic_device_model::fabric::port::Far;
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::{Netdev, NetdevConfig, Rig, frames};

const US: u64 = 1000;

/// Two ends of a cable; the second one's receive queue is armed and moderated.
struct Ends {
    rig: Rig,
    a: Netdev,
    b: Netdev,
    sent: usize,
}

impl Ends {
    fn new(period: u32, count: u32, from_cqe: bool) -> Self {
        let rig = Rig::new(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], 4 * MEMORY);
        let dev = |card| rig.pf(card).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
        let (a, mut b) = (dev(0), dev(1));
        // Later than nothing.
        rig.clock.advance(1_000_000 * US);
        let cqn = b.channels[0].rq_cq.number;
        b.function.moderate(cqn, period, count, from_cqe).unwrap();
        b.eq.arm();
        b.channels[0].rq_cq.arm();
        Self { rig, a, b, sent: 0 }
    }

    fn send(&mut self, frames: usize) {
        for _ in 0..frames {
            self.sent += 1;
            self.a.send(&frames::ethernet(self.b.mac, self.a.mac, 0x88b5, &frames::pattern(self.sent, 100)));
        }
        self.rig.run();
        self.a.reap(0);
    }

    fn wait(&self, us: u64) -> Option<u64> {
        self.rig.clock.advance(us * US);
        self.rig.nic.run_due(9)
    }

    /// Events since the last look; the driver then has read all and waits for the next.
    fn events(&mut self) -> usize {
        let n = self.b.eq.drain().len();
        if n > 0 {
            self.b.eq.arm();
            self.b.receive();
            self.b.channels[0].rq_cq.event_seen();
            self.b.channels[0].rq_cq.arm();
        }
        n
    }
}

#[test]
fn without_a_period_each_burst_is_told_of_at_once() {
    let mut e = Ends::new(0, 64, false);
    for _ in 0..3 {
        e.send(1);
        assert_eq!(e.events(), 1);
    }
}

#[test]
fn a_period_from_the_last_event_is_kept() {
    let mut e = Ends::new(50, 0, false);
    e.send(1);
    assert_eq!(e.events(), 1, "the last event was long ago");
    e.send(1);
    assert_eq!(e.events(), 0);
    assert!(e.wait(20).is_some(), "somebody is to come again");
    e.send(5);
    assert_eq!(e.events(), 0);
    e.wait(30);
    assert_eq!(e.events(), 1, "50 us behind the first one");
    assert_eq!(e.wait(1000), None, "nothing is left to be done");
    assert_eq!(e.events(), 0, "one event for an arming");
}

#[test]
fn a_period_from_the_last_completion_begins_again_with_each() {
    let mut e = Ends::new(50, 0, true);
    for _ in 0..4 {
        e.send(1);
        e.wait(40);
        assert_eq!(e.events(), 0);
    }
    e.wait(10);
    assert_eq!(e.events(), 1);
}

#[test]
fn enough_completions_end_the_wait() {
    let mut e = Ends::new(50, 4, true);
    e.send(3);
    assert_eq!(e.events(), 0);
    e.send(1);
    assert_eq!(e.events(), 1, "the fourth");
    e.send(3);
    assert_eq!(e.events(), 0, "counted from the event on");
    e.wait(50);
    assert_eq!(e.events(), 1);
}

#[test]
fn what_the_driver_has_read_meanwhile_is_not_told() {
    let mut e = Ends::new(50, 0, true);
    e.send(2);
    assert_eq!(e.b.receive().len(), 2, "by polling");
    // It arms with what it has read.
    e.b.channels[0].rq_cq.arm();
    e.wait(50);
    assert_eq!(e.events(), 0);
    e.send(1);
    e.wait(50);
    assert_eq!(e.events(), 1);
}

#[test]
fn a_queue_that_is_gone_is_not_told_of() {
    let mut e = Ends::new(50, 0, true);
    e.send(1);
    e.rig.reset(1);
    assert_eq!(e.wait(50), None);
}

#[test]
fn moderation_is_read_back_and_other_fields_are_refused() {
    use sfnic_firmware_cmds::layouts::Cqc;
    let e = Ends::new(33, 7, true);
    let cqn = e.b.channels[0].rq_cq.number;
    let read =
        || e.b.function.query_cq(cqn, |c| [Cqc::cq_period, Cqc::cq_max_count, Cqc::cq_period_mode].map(|f| c.get(f)));
    assert_eq!(read().unwrap(), [33, 7, 1]);
    e.b.function.moderate(cqn, 0xfff, 0xffff, false).unwrap();
    assert_eq!(read().unwrap(), [0xfff, 0xffff, 0]);
    assert!(e.b.function.modify_cq(cqn, 1 << 2, |_| ()).is_err(), "overrun_ignore is not to be changed");
    assert!(e.b.function.modify_cq(cqn, 1 << 8, |_| ()).is_err());
}
