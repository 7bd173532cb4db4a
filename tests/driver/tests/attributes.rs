//! What the eswitch manager sets of a slice, and what becomes of frames and drivers by it.

use sfnic_device_model::nic::Manager;
use sfnic_device_model::slice::{Change, Flavour, MAX_MTU, Spec, State};
use sfnic_firmware_cmds::layout::{View, ViewMut};
use sfnic_firmware_cmds::layouts::PmtuReg;
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::function::PMTU;
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::{Function, Netdev, NetdevConfig, Rig};

/// Two slices with drivers, 100 and 101, and the far end of the cable.
struct Stage {
    rig: Rig,
    a: Netdev,
    b: Netdev,
    far: Netdev,
    _host: Function,
}

fn mac(n: u8) -> [u8; 6] {
    [0, 0, 0, 0, 0x88, n]
}

fn stage(before: &Change) -> Stage {
    let rig = Rig::managed(Manager::Embedded, 2 * MEMORY);
    let big = NetdevConfig { buffer: 10_240, log_sq: 9, log_rq: 9, ..NetdevConfig::default() };
    let far = rig.pf(1).bring_up().unwrap().netdev(&big).unwrap();
    let host = rig.pf(0).bring_up().unwrap();
    host.set_port(true).unwrap();
    let mut devs = vec![];
    for n in 0..2u8 {
        let spec = Spec {
            flavour: Flavour::PciSf,
            pfnum: 0,
            sfnum: Some(n.into()),
            index: Some(100 + u32::from(n)),
            ..Spec::default()
        };
        let index = rig.nic.slice_add(&spec).unwrap();
        let own = Change { hw_addr: Some(mac(n)), ..Change::default() };
        rig.nic.slice_set(index, &own).unwrap();
        if n == 0 {
            rig.nic.slice_set(index, before).unwrap();
        }
        set(&rig, index, Change { state: Some(State::Active), ..Change::default() });
        devs.push(rig.sf(0, n.into()).bring_up().unwrap().netdev(&big).unwrap());
    }
    let b = devs.pop().unwrap();
    Stage { a: devs.pop().unwrap(), b, far, rig, _host: host }
}

fn set(rig: &Rig, index: u32, change: Change) {
    rig.nic.slice_set(index, &change).unwrap();
}

/// The frames that somebody received, without what was appended to make them long enough.
fn received(n: &mut Netdev, len: usize) -> Vec<Vec<u8>> {
    n.receive().into_iter().map(|r| r.bytes[..len.min(r.bytes.len())].to_vec()).collect()
}

fn port(rig: &Rig, index: u16) -> std::sync::Arc<sfnic_device_model::fabric::vport::Vport> {
    rig.card_at(0).fabric.vports.pin().get(&rig.sf_id(0, index)).unwrap().clone()
}

#[test]
fn frames_from_other_addresses_are_dropped_where_they_are_checked() {
    let mut s = stage(&Change::default());
    let own = Flow4::new(s.far.mac, s.a.mac).udp(&[1; 64]);
    let spoofed = Flow4::new(s.far.mac, [2, 2, 2, 2, 2, 2]).udp(&[2; 64]);
    for (check, wanted) in [(None, 2), (Some(true), 1), (Some(true), 1), (Some(false), 2)] {
        set(&s.rig, 100, Change { spoof_check: check, ..Change::default() });
        // Twice, so that the second one takes the way that the first one taught.
        for _ in 0..2 {
            s.a.send(&own);
            s.a.send(&spoofed);
            s.rig.run();
            let got = received(&mut s.far, own.len());
            assert_eq!(got.len(), wanted, "{check:?}");
            assert!(got.contains(&own));
        }
    }
    assert_eq!(port(&s.rig, 0).refused.spoofed.get(), 4);
    assert_eq!(port(&s.rig, 0).tx.errors.packets.get(), 0, "it is no error of the queue");
    // The address changes with the slice's.
    set(&s.rig, 100, Change { spoof_check: Some(true), state: Some(State::Inactive), ..Change::default() });
    s.a.function.disable().unwrap();
    set(&s.rig, 100, Change { hw_addr: Some([2; 6]), state: Some(State::Active), ..Change::default() });
    let mut a = s.rig.sf(0, 0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    a.send(&spoofed);
    a.send(&own);
    s.rig.run();
    assert_eq!(received(&mut s.far, spoofed.len()), [spoofed]);
}

#[test]
fn a_slice_is_in_a_vlan_that_it_does_not_know_of() {
    let mut s = stage(&Change::default());
    set(&s.rig, 100, Change { vlan: Some(7), qos: Some(5), ..Change::default() });
    let to_far = Flow4::new(s.far.mac, s.a.mac).udp(&[1; 64]);
    let tci = 5 << 13 | 7;
    for n in [&s.a, &s.b, &s.far] {
        n.function.keep_vlan(n.channels[0].rq.number, true).unwrap();
    }
    for _ in 0..2 {
        s.a.send(&to_far);
        s.rig.run();
        assert_eq!(received(&mut s.far, to_far.len() + 4), [frames::tagged(&to_far, tci)], "on the wire");
    }
    // From the wire only what is tagged with it comes, without the tag.
    let to_a = Flow4::new(s.a.mac, s.far.mac).udp(&[3; 64]);
    for f in [to_a.clone(), frames::tagged(&to_a, 8), frames::tagged(&to_a, 7)] {
        s.far.send(&f);
    }
    s.rig.run();
    assert_eq!(received(&mut s.a, to_a.len()), std::slice::from_ref(&to_a));
    // Neighbours hear each other if they are in the same one.
    let to_b = Flow4::new(s.b.mac, s.a.mac).udp(&[4; 64]);
    for (vlan, wanted) in [(0, 0), (8, 0), (7, 1)] {
        set(&s.rig, 101, Change { vlan: Some(vlan), ..Change::default() });
        s.a.send(&to_b);
        s.a.send(&to_b);
        s.rig.run();
        let got = received(&mut s.b, to_b.len() + 4);
        if vlan == 0 {
            // Without a VLAN it sees the tag, as a card's other function does.
            assert_eq!(got, [frames::tagged(&to_b, tci), frames::tagged(&to_b, tci)]);
        } else {
            assert_eq!(got.len(), 2 * wanted, "vlan {vlan}");
        }
    }
    // Tags of its own are refused.
    s.a.send(&frames::tagged(&to_b, 7));
    s.rig.run();
    assert!(s.b.receive().is_empty());
    assert_eq!(port(&s.rig, 0).refused.tagged.get(), 1);
    set(&s.rig, 100, Change { vlan: Some(0), qos: Some(0), ..Change::default() });
    s.a.send(&to_far);
    s.rig.run();
    assert_eq!(received(&mut s.far, to_far.len()), [to_far]);
}

#[test]
fn only_who_is_trusted_gets_the_frames_of_others() {
    let mut s = stage(&Change::default());
    let stranger = frames::ethernet([2, 2, 2, 2, 2, 2], s.far.mac, 0x88b5, &[2; 60]);
    let group = frames::ethernet([1, 0, 0x5e, 0, 0, 9], s.far.mac, 0x88b5, &[2; 60]);
    s.a.function.set_promiscuous(true).unwrap();
    for (trust, wanted) in [(None, 0), (Some(true), 2), (Some(false), 0)] {
        set(&s.rig, 100, Change { trust, ..Change::default() });
        s.far.send(&stranger);
        s.far.send(&group);
        s.rig.run();
        assert_eq!(s.a.receive().len(), wanted, "{trust:?}");
    }
}

#[test]
fn a_driver_finds_the_mtu_and_longer_frames_do_not_pass() {
    let mut s = stage(&Change { mtu: Some(1000), ..Change::default() });
    let told = |f: &Function| {
        let raw = f.register::<PmtuReg>(PMTU, 1, |r: &mut ViewMut<'_, PmtuReg>| {
            r.set(PmtuReg::local_port, 1);
        });
        let raw = raw.unwrap();
        let v = View::<PmtuReg>::new(&raw);
        (v.get(PmtuReg::max_mtu), v.get(PmtuReg::oper_mtu))
    };
    assert_eq!((told(&s.a.function), told(&s.b.function)), ((1022, 1022), (MAX_MTU + 22, MAX_MTU + 22)));
    // A driver begins with 1500 all the same: what it writes is taken, and does nothing.
    s.a.function.set_mtu(1522).unwrap();
    assert_eq!(told(&s.a.function), (1022, 1022));
    let fits = |to, from| frames::ethernet(to, from, 0x88b5, &[7; 1000]);
    let long = |to, from| frames::ethernet(to, from, 0x88b5, &[7; 1001]);
    let (a, far) = (s.a.mac, s.far.mac);
    for _ in 0..2 {
        s.a.send(&fits(far, a));
        s.a.send(&long(far, a));
        s.far.send(&fits(a, far));
        s.far.send(&long(a, far));
        s.rig.run();
        assert_eq!((received(&mut s.far, 2000), received(&mut s.a, 2000)), (vec![fits(far, a)], vec![fits(a, far)]));
    }
    // Of a flow that is known by its short frames.
    let flow = Flow4::new(far, a);
    for (bytes, wanted) in [(100, 1), (100, 1), (972, 1), (973, 0), (100, 1)] {
        s.a.send(&flow.udp(&vec![1; bytes]));
        s.rig.run();
        assert_eq!(s.far.receive().len(), wanted, "{bytes}");
    }
    assert_eq!(port(&s.rig, 0).refused.too_long.get(), 5);
}

/// Puts so many frames into a send queue.
fn backlog(n: &mut Netdev, to: [u8; 6], count: usize) {
    let f = Flow4::new(to, n.mac).udp(&[9; 958]);
    for _ in 0..count {
        n.send(&f);
    }
}

#[test]
fn a_slice_sends_no_faster_than_it_may() {
    let mut s = stage(&Change::default());
    // A frame of 1000 bytes each millisecond.
    set(&s.rig, 100, Change { tx_max: Some(8_000_000), ..Change::default() });
    let mut got = 0;
    let (far, sent) = (s.far.mac, 400);
    backlog(&mut s.a, far, sent);
    let mut done = vec![];
    for ms in 0..500usize {
        s.rig.run();
        got += s.far.receive().len();
        assert!(got <= ms + 12, "{got} after {ms} ms");
        done.push(got);
        s.rig.clock.advance(1_000_000);
        s.rig.nic.run_due(0);
    }
    assert_eq!(got, sent, "none is lost");
    assert!(done[200] >= 195, "{} after 200 ms: what it may it does", done[200]);
    // The other one has no such limit, and none is none.
    backlog(&mut s.b, far, 300);
    s.rig.run();
    assert_eq!(s.far.receive().len(), 300);
    set(&s.rig, 100, Change { tx_max: Some(0), ..Change::default() });
    backlog(&mut s.a, far, 300);
    s.rig.run();
    assert_eq!(s.far.receive().len(), 300);
}

#[test]
fn a_queue_that_waits_goes_with_its_slice() {
    let mut s = stage(&Change::default());
    set(&s.rig, 100, Change { tx_max: Some(1_000_000), ..Change::default() });
    let far = s.far.mac;
    backlog(&mut s.a, far, 100);
    s.rig.run();
    s.far.receive();
    set(&s.rig, 100, Change { state: Some(State::Inactive), ..Change::default() });
    s.rig.reset(0);
    s.rig.nic.slice_del(100).unwrap();
    s.rig.clock.advance(10_000_000_000);
    s.rig.nic.run_due(0);
    s.rig.run();
    assert!(s.far.receive().is_empty());
}

#[test]
fn a_share_is_had_whatever_others_send() {
    let mut s = stage(&Change::default());
    let far = s.far.mac;
    // A worker's turn, 256 frames of 1000 bytes, takes a millisecond; the share is two thirds.
    let share = Some(256 * 1000 * 8 * 1000 * 2 / 3 / 1_000_000 * 1_000_000);
    let sent = |s: &mut Stage, turns: usize| {
        let mut by = [0usize; 2];
        for _ in 0..turns {
            for n in [&mut s.a, &mut s.b] {
                while n.channels[0].sq.room() > 32 {
                    backlog(n, far, 1);
                }
                n.reap(0);
            }
            s.rig.nic.run(0);
            for r in s.far.receive() {
                by[usize::from(r.bytes[6..12] == s.b.mac)] += 1;
            }
            s.rig.clock.advance(1_000_000);
        }
        by
    };
    let before = sent(&mut s, 60);
    assert!(before[0].abs_diff(before[1]) <= before[0] / 3, "without a share they take turns: {before:?}");
    set(&s.rig, 101, Change { tx_share: share, ..Change::default() });
    let after = sent(&mut s, 60);
    assert!(after[1] > before[1] * 11 / 10 && after[0] > 0, "{before:?}, and with a share {after:?}");
}

#[test]
fn a_slice_that_detaches_reaches_nobody_and_nobody_reaches_it() {
    let mut s = stage(&Change::default());
    let (a, b, far) = (s.a.mac, s.b.mac, s.far.mac);
    let ways = [(b, a), (far, a)];
    let reach = |s: &mut Stage| {
        for (to, from) in ways {
            s.a.send(&Flow4::new(to, from).udp(&[1; 64]));
        }
        s.b.send(&Flow4::new(a, b).udp(&[1; 64]));
        s.far.send(&Flow4::new(a, far).udp(&[1; 64]));
        s.far.send(&frames::ethernet([0xff; 6], far, 0x88b5, &[1; 60]));
        s.rig.run();
        let groups = |n: &mut Netdev| n.receive().iter().filter(|r| r.bytes[..6] != [0xff; 6]).count();
        (groups(&mut s.a), groups(&mut s.b), groups(&mut s.far))
    };
    assert_eq!(reach(&mut s), (2, 1, 1));
    // Its driver never answers.
    set(&s.rig, 100, Change { state: Some(State::Inactive), ..Change::default() });
    let (rx, tx) = (port(&s.rig, 0).rx.packets(), s.a.function.port_frames().unwrap());
    assert_eq!(reach(&mut s), (0, 0, 0));
    assert_eq!((port(&s.rig, 0).rx.packets(), s.a.function.port_frames().unwrap()), (rx, (tx.0, tx.1 + 2)));
    // Nobody else has its address, and nobody gets its number or its index.
    let again = |sfnum, index| {
        s.rig.nic.slice_add(&Spec {
            flavour: Flavour::PciSf,
            pfnum: 0,
            sfnum: Some(sfnum),
            index: Some(index),
            ..Spec::default()
        })
    };
    assert!(again(0, 300).is_err() && again(9, 100).is_err());
    let objects = s.rig.objects(0, s.rig.sf_id(0, 0));
    assert!(objects.values().sum::<usize>() > 10, "its driver still has them: {objects:?}");
    // The reset of its function takes them, and the next driver finds an empty one.
    s.rig.reset(0);
    assert!(s.rig.objects(0, s.rig.sf_id(0, 0)).is_empty());
    assert!(s.rig.plane(0, s.rig.sf_id(0, 0)).is_none());
    set(&s.rig, 100, Change { state: Some(State::Active), ..Change::default() });
    assert!(s.rig.objects(0, s.rig.sf_id(0, 0)).is_empty());
}

#[test]
fn what_is_not_allowed_is_said_in_a_line_and_changes_nothing() {
    let s = stage(&Change::default());
    let before = s.rig.nic.slice(100).unwrap();
    let d = Change::default;
    for (change, wanted) in [
        (Change { vlan: Some(4095), ..d() }, "vlan 4095 (allowed: 1 to 4094, or 0 for none)"),
        (Change { vlan: Some(5), qos: Some(8), ..d() }, "qos 8 (allowed: 0 to 7)"),
        (Change { qos: Some(1), ..d() }, "qos 1 without a vlan (allowed: 0, or a vlan with it)"),
        (
            Change { tx_max: Some(1_500_000), ..d() },
            "tx_max 1500000 (allowed: multiples of 1000000 up to 1000000000000 bits a second, or 0 for none)",
        ),
        (
            Change { tx_max: Some(1_000_000), tx_share: Some(2_000_000), ..d() },
            "tx_share 2000000 above tx_max 1000000 (allowed: at most tx_max)",
        ),
        (Change { mtu: Some(67), ..d() }, "mtu 67 (allowed: 68 to 9978)"),
        (Change { mtu: Some(9979), ..d() }, "mtu 9979 (allowed: 68 to 9978)"),
        (Change { roce: Some(true), ..d() }, "roce on (allowed: off: the profile's sub-functions have no RoCE)"),
        (
            Change { mtu: Some(1500), roce: Some(false), ..d() },
            "slice 100 is active: roce and mtu can be set while it is inactive and detached",
        ),
        (Change { trust: Some(true), max_io_eqs: Some(0), ..d() }, "max_io_eqs 0 (allowed: 1 to 60)"),
    ] {
        assert_eq!(s.rig.nic.slice_set(100, &change).unwrap_err().to_string(), wanted);
        assert_eq!(s.rig.nic.slice(100).unwrap(), before);
    }
    // A qos goes with its vlan.
    set(&s.rig, 100, Change { vlan: Some(5), qos: Some(3), ..d() });
    assert!(s.rig.nic.slice_set(100, &Change { vlan: Some(0), ..d() }).is_err());
    // What the manager set outlives the host and a change of state.
    set(&s.rig, 100, Change { trust: Some(true), tx_max: Some(5_000_000), ..d() });
    s.rig.reset(0);
    let p = s.rig.nic.slice(100).unwrap().policy;
    assert_eq!((p.vlan, p.qos, p.trust, p.tx_max), (5, 3, true, 5_000_000));
}
