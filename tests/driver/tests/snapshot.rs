//! A device is saved and another one goes on in its place: drivers notice nothing, and nobody
//! believes a file.
//!
//! `SFNIC_SEED` sets the seed of what is random.

use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::Manager;
use sfnic_device_model::slice::{Change, Flavour, OpState, Spec, State};
use sfnic_device_model::snapshot::{FORMAT, SnapshotError};
use sfnic_device_model::{CardConfig, Nic};
use sfnic_test_driver::fuzz::{Entropy, Mix, Seeded, World};
use sfnic_test_driver::{Destination, Flow, Netdev, NetdevConfig, Rig, frames};

fn seed() -> u64 {
    let text = std::env::var("SFNIC_SEED").unwrap_or_else(|_| "0x5a7e".to_owned());
    let digits = text.trim_start_matches("0x");
    let radix = if digits.len() == text.len() { 10 } else { 16 };
    u64::from_str_radix(digits, radix).unwrap_or_else(|_| panic!("SFNIC_SEED = {text} is not a number"))
}

/// Content with the line in front of it that makes it a snapshot.
fn sealed(content: &[u8]) -> Vec<u8> {
    let line = format!("sfnic-snapshot {FORMAT} {:08x} {}\n", crc32fast::hash(content), content.len());
    [line.as_bytes(), content].concat()
}

/// What is behind a snapshot's first line.
fn content(saved: &[u8]) -> &[u8] {
    let end = saved.iter().position(|b| *b == b'\n').unwrap();
    &saved[end + 1..]
}

fn power_off(nic: &Nic) {
    nic.cards.iter().for_each(|card| nic.reset(card));
}

/// Two worlds live the same life; in one of them the device is replaced now and then. Both
/// guests see the same, to the last byte, and in the end both devices are the same.
#[test]
fn a_device_that_took_over_answers_as_the_one_before() {
    const STEPS: usize = 700;
    /// Looks at each step, to find the one that makes a difference.
    const EVERY: bool = false;
    for run in 0..6 {
        let seed = seed() + run;
        println!("SFNIC_SEED={seed:#x}");
        let (mut a, mut b) = (World::new(), World::new());
        let (mut ea, mut eb) = (Seeded(seed), Seeded(seed));
        let mut when = Seeded(!seed);
        for step in 0..STEPS {
            a.step(Mix::All, &mut ea);
            b.step(Mix::All, &mut eb);
            let replaced = when.one_in(25);
            if replaced {
                b.replace();
            }
            if replaced || EVERY {
                let ((memory_a, irqs_a), (memory_b, irqs_b)) = (a.seen(), b.seen());
                for (card, (x, y)) in memory_a.iter().zip(&memory_b).enumerate() {
                    let at = x.iter().zip(y).position(|(x, y)| x != y);
                    let around = at.map(|at| (at & !63, &x[at & !63..][..64], &y[at & !63..][..64]));
                    assert_eq!(around, None, "memory of card {card} differs at step {step}");
                }
                assert_eq!(irqs_a, irqs_b, "interrupts at step {step}");
            }
        }
        assert!(a.rig.nic.save().unwrap() == b.rig.nic.save().unwrap(), "not the same in the end");
        b.check();
        b.restart();
    }
}

fn netdev(rig: &Rig, sf: Option<u16>) -> Netdev {
    let f = sf.map_or_else(|| rig.pf(0), |index| rig.sf(0, index));
    f.bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap()
}

#[test]
fn frames_that_were_posted_before_arrive_once_and_rules_count_on() {
    let mut rig = Rig::cable();
    let mut pf = netdev(&rig, None);
    let ids = [rig.sf_id(0, 0), rig.sf_id(0, 1)];
    for id in ids {
        pf.function.add_sf(id).unwrap();
    }
    let (mut from, mut to) = (netdev(&rig, Some(0)), netdev(&rig, Some(1)));
    let mut fdb = pf.function.create_fdb(6).unwrap();
    let counter = pf.function.alloc_flow_counter().unwrap();
    let flow = Flow { counters: vec![counter], ..Flow::to(&[Destination::Vport(ids[1])]) };
    pf.function.forward(&mut fdb, ids[0], &flow).unwrap();
    let frame = |n: usize| frames::ethernet(to.mac, from.mac, 0x88b5, &frames::pattern(n, 60 + n));
    let all: Vec<Vec<u8>> = (0..60).map(frame).collect();
    for (n, frame) in all.iter().enumerate() {
        from.send(frame);
        if n % 7 == 0 {
            rig.run();
        }
        if n % 5 == 0 {
            // Some of them have been sent, others only posted.
            rig.replace();
        }
        if n % 11 == 10 {
            from.reap(0);
        }
    }
    rig.replace();
    rig.run();
    from.reap(0);
    let got: Vec<Vec<u8>> = to.receive().into_iter().map(|r| r.bytes).collect();
    assert_eq!(got, all);
    let (packets, _) = pf.function.flow_counter(counter).unwrap();
    assert_eq!(packets, 60);
    // What the manager makes next has the next numbers, and the old can be taken apart.
    assert_eq!(pf.function.alloc_flow_counter().unwrap(), counter + 1);
    pf.send(&frames::ethernet(to.mac, pf.mac, 0x88b5, &[7; 60]));
    rig.run();
    assert!(to.receive().is_empty(), "no rule is for it");
    rig.replace();
    rig.reset(0);
    assert!(rig.plane(0, 0).is_none());
}

/// A device whose slices are managed from outside, in every state that there is.
fn embedded() -> (Rig, Vec<Netdev>) {
    let card = |i, far| CardConfig { manager: Manager::Embedded, ..Rig::card(i, far) };
    let rig = Rig::new(vec![card(0, Far::Port(1)), card(1, Far::Port(0))], 32 << 20);
    let pf = rig.pf(0).bring_up().unwrap();
    let mut drivers = vec![pf.netdev(&NetdevConfig::default()).unwrap()];
    for n in 0..4u16 {
        let (sfnum, index) = (Some(u32::from(n) + 4), Some(u32::from(n) + 100));
        rig.nic.slice_add(&Spec { flavour: Flavour::PciSf, sfnum, index, ..Spec::default() }).unwrap();
        let hw_addr = Some([2, 0, 0, 0, 0, n as u8]);
        rig.nic.slice_set(u32::from(n) + 100, &Change { hw_addr, trust: Some(n == 2), ..Change::default() }).unwrap();
    }
    let state = |index, state| rig.nic.slice_set(index, &Change { state: Some(state), ..Change::default() }).unwrap();
    for n in 1..4u16 {
        state(u32::from(n) + 100, State::Active);
    }
    for n in 2..4 {
        drivers.push(netdev(&rig, Some(n)));
    }
    state(103, State::Inactive);
    let guest =
        Spec { flavour: Flavour::Passthrough, sfnum: Some(9), index: Some(200), vectors: Some(8), ..Spec::default() };
    rig.nic.slice_add(&guest).unwrap();
    state(200, State::Active);
    (rig, drivers)
}

#[test]
fn slices_are_what_they_were() {
    let (mut rig, mut drivers) = embedded();
    let before = rig.nic.slices();
    rig.replace();
    assert_eq!(rig.nic.slices(), before);
    let states: Vec<_> = before.iter().filter(|s| s.index >= 100).map(|s| (s.state, s.opstate)).collect();
    assert_eq!(
        states,
        [
            (State::Inactive, OpState::Detached),
            (State::Active, OpState::Detached),
            (State::Active, OpState::Attached),
            (State::Inactive, OpState::Detaching),
            (State::Active, OpState::Detached),
        ]
    );
    assert_eq!(rig.nic.endpoint(200).unwrap().vectors, 8);
    // The one that is detaching lets go, the guest's device finds its driver.
    let gone = drivers.pop().unwrap();
    gone.function.disable().unwrap();
    assert_eq!(rig.nic.slice(103).unwrap().opstate, OpState::Detached);
    let (guest, ..) = rig.guest(200);
    guest.bring_up().unwrap();
    assert_eq!(rig.nic.slice(200).unwrap().opstate, OpState::Attached);
    // What a driver has in force and what it finds anew are two things.
    rig.replace();
    rig.reset(0);
    assert_eq!(rig.nic.slice(102).unwrap().opstate, OpState::Detached);
    netdev(&rig, Some(2));
}

#[test]
fn a_snapshot_is_for_an_unused_device_of_the_same_configuration() {
    let (rig, _drivers) = embedded();
    let saved = rig.nic.save().unwrap();
    let why = |nic: &Nic, bytes: &[u8]| nic.load(bytes).unwrap_err().to_string();
    assert_eq!(why(&rig.nic, &saved), "pf 0 has a driver; a snapshot is loaded into a device that no driver uses");
    let card = |i, far| CardConfig { manager: Manager::Embedded, ..Rig::card(i, far) };
    let one = Rig::new(vec![card(0, Far::Loopback)], 16 << 20);
    assert_eq!(why(&one.nic, &saved), "of another device: it has 2 physical functions, here are 1");
    let fewer = CardConfig { max_sfs: 4, ..card(0, Far::Port(1)) };
    let fewer = Rig::new(vec![fewer, card(1, Far::Port(0))], 16 << 20);
    assert_eq!(why(&fewer.nic, &saved), "of another device: max_sfs of pf 0 is 8 there and 4 here");
    let cards = || vec![card(0, Far::Port(1)), card(1, Far::Port(0))];
    let other = Rig::with(&["striding_rq=1"], cards(), 16 << 20);
    assert_eq!(why(&other.nic, &saved), "of another device: its profile offers other capabilities (--cap)");
    // Slices that are there make room.
    let same = Rig::new(cards(), 16 << 20);
    same.nic.slice_add(&Spec { sfnum: Some(77), ..Spec::default() }).unwrap();
    same.nic.load(&saved).unwrap();
    assert_eq!(same.nic.slices(), rig.nic.slices());
    assert!(matches!(same.nic.load(&saved), Err(SnapshotError::InUse(_))));
    power_off(&same.nic);
}

#[test]
fn whatever_a_file_says_nothing_breaks() {
    let mut world = World::new();
    let mut e = Seeded(seed());
    println!("SFNIC_SEED={:#x}", e.0);
    (0..400).for_each(|_| world.step(Mix::All, &mut e));
    let saved = world.rig.nic.save().unwrap();
    let good = content(&saved).to_vec();
    assert_eq!(sealed(&good), saved);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..1500 {
        let mut bad = good.clone();
        for _ in 0..1 + e.below(3) {
            let at = e.below(bad.len());
            match e.below(4) {
                0 => bad[at] ^= 1 << e.below(8),
                1 => bad[at] = *e.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                2 => bad.truncate(at.max(1)),
                _ => {
                    let from = e.below(bad.len());
                    let n = e.below(64).min(bad.len() - from).min(bad.len() - at);
                    bad.copy_within(from..from + n, at);
                }
            }
        }
        let nic = world.rig.another();
        match nic.load(&sealed(&bad)) {
            Ok(()) => {
                // Whoever it is now: it works.
                while nic.run(0) {}
                nic.save().unwrap();
                taken += 1;
            }
            Err(_) => {
                let left = nic.object_counts();
                assert!(left.values().all(|c| c.values().all(|n| *n == 0)), "left over: {left:?}");
                nic.load(&saved).expect("the next one is not disturbed");
                refused += 1;
            }
        }
        power_off(&nic);
    }
    println!("{refused} refused, {taken} taken");
    assert!(refused > 100 && taken > 100);
}
