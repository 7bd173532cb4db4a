//! Known flows go the way that the tables say now, and are counted as if every
//! frame had asked them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::layouts::{FteMatchParam, FteMatchSetLyr24 as Headers};
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::steering::{action, criteria, table_type};
use sfnic_test_driver::{Destination, Flow, Function, Netdev, NetdevConfig, Rig, Table};

/// A manager, SFs, and an FDB that looks at the UDP source port.
fn switch(sfs: u16) -> (Rig, Function, Vec<Netdev>, Table, u32) {
    let rig = Rig::new(vec![Rig::card(0, Far::Loopback)], 4 * MEMORY);
    let pf = rig.pf(0).bring_up().unwrap();
    let mut devs = vec![];
    for i in 0..sfs {
        pf.add_sf(rig.sf_id(0, i)).unwrap();
        devs.push(rig.sf(0, i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
    }
    let table = pf.create_table(table_type::FDB, None, 0, 6).unwrap();
    let group = pf.create_group(table, (0, 63), criteria::OUTER, |m| {
        m.sub(FteMatchParam::outer_headers).set(Headers::udp_sport, Headers::udp_sport.max());
    });
    pf.set_root(table).unwrap();
    (rig, pf, devs, table, group.unwrap())
}

fn rule(pf: &Function, (table, group): (Table, u32), index: u32, port: u16, flow: &Flow) {
    let value = |v: &mut sfnic_firmware_cmds::layout::ViewMut<'_, FteMatchParam>| {
        v.sub(FteMatchParam::outer_headers).set(Headers::udp_sport, port.into());
    };
    pf.create_entry(table, group, index, flow, value).unwrap();
}

fn frame(port: u16, len: usize) -> Vec<u8> {
    Flow4 { port: [port, 9], ..Flow4::new([2; 6], [4; 6]) }.udp(&frames::pattern(port.into(), len))
}

/// Sends a frame `n` times; who received how many.
fn send(rig: &Rig, devs: &mut [Netdev], from: usize, frame: &[u8], n: usize) -> Vec<usize> {
    for _ in 0..n {
        devs[from].send(frame);
    }
    rig.run();
    devs[from].reap(0);
    let got = devs.iter_mut().map(|d| {
        let all = d.receive();
        assert!(all.iter().all(|r| r.bytes == frame));
        all.len()
    });
    got.collect()
}

fn learnt(rig: &Rig) -> u64 {
    rig.nic.flows.of(0).unwrap().learnt
}

#[test]
fn a_flow_is_learnt_once_and_every_frame_of_it_counted() {
    let (rig, pf, mut sf, table, group) = switch(2);
    let counter = pf.alloc_flow_counter().unwrap();
    let to = Flow { counters: vec![counter], tag: 0x77, ..Flow::to(&[Destination::Vport(rig.sf_id(0, 1))]) };
    rule(&pf, (table, group), 0, 1000, &to);
    let f = frame(1000, 50);
    let before = learnt(&rig);
    for n in 1..=5 {
        assert_eq!(send(&rig, &mut sf, 0, &f, 10), [0, 10]);
        assert_eq!(pf.flow_counter(counter).unwrap(), (10 * n, 10 * n * f.len() as u64));
        // Posting, receiving and asking for counters changes no way.
        assert_eq!(learnt(&rig), before + 1);
    }
    assert_eq!(send(&rig, &mut sf, 0, &frame(1001, 50), 10), [0, 0], "another flow");
    assert_eq!(pf.flow_counter(counter).unwrap().0, 50);
}

#[test]
fn rules_that_are_deleted_or_changed_are_not_used_again() {
    let (rig, pf, mut sf, table, group) = switch(3);
    let to = |i| Flow::to(&[Destination::Vport(rig.sf_id(0, i))]);
    let f = frame(1000, 50);
    for round in 0..3 {
        rule(&pf, (table, group), 4, 1000, &to(1));
        assert_eq!(send(&rig, &mut sf, 0, &f, 5), [0, 5, 0], "{round}");
        // One that comes first.
        rule(&pf, (table, group), 2, 1000, &to(2));
        assert_eq!(send(&rig, &mut sf, 0, &f, 5), [0, 0, 5], "{round}");
        pf.delete_entry(table, 2).unwrap();
        assert_eq!(send(&rig, &mut sf, 0, &f, 5), [0, 5, 0], "{round}");
        pf.delete_entry(table, 4).unwrap();
        assert_eq!(send(&rig, &mut sf, 0, &f, 5), [0, 0, 0], "{round}");
    }
    rule(&pf, (table, group), 0, 1000, &Flow::drop());
    assert_eq!(send(&rig, &mut sf, 0, &f, 5), [0, 0, 0]);
    assert_eq!(send(&rig, &mut sf, 0, &f, 5), [0, 0, 0]);
}

#[test]
fn acls_copies_and_edits_are_obeyed_by_known_flows() {
    let (rig, pf, mut sf, table, group) = switch(3);
    let f = frame(1000, 50);
    rule(&pf, (table, group), 0, 1000, &Flow::to(&[Destination::Vport(rig.sf_id(0, 1))]));
    assert_eq!(send(&rig, &mut sf, 0, &f, 3), [0, 3, 0]);
    let acl = pf.create_acl(table_type::INGRESS_ACL, rig.sf_id(0, 0), &Flow::drop()).unwrap();
    assert_eq!(send(&rig, &mut sf, 0, &f, 3), [0, 0, 0]);
    assert_eq!(send(&rig, &mut sf, 0, &f, 3), [0, 0, 0]);
    pf.delete_entry(acl, 0).unwrap();
    assert_eq!(send(&rig, &mut sf, 0, &f, 3), [0, 3, 0], "an ACL without an entry lets pass");
    let both = [Destination::Vport(rig.sf_id(0, 1)), Destination::Vport(rig.sf_id(0, 2))];
    rule(&pf, (table, group), 1, 1001, &Flow::to(&both));
    for _ in 0..3 {
        assert_eq!(send(&rig, &mut sf, 0, &frame(1001, 50), 2), [0, 2, 2]);
    }
    let tag = Flow { action: action::PUSH_VLAN, vlan: 5, ..Flow::to(&both[..1]) };
    rule(&pf, (table, group), 2, 1002, &tag);
    for _ in 0..3 {
        sf[0].send(&frame(1002, 50));
        rig.run();
        let got = sf[1].receive();
        assert_eq!(got[0].bytes, frame(1002, 50));
        assert_eq!(got[0].cqe.get(sfnic_firmware_cmds::entries::Cqe64::vlan_info), 5);
    }
}

#[test]
fn a_receiver_that_goes_receives_no_more() {
    let (rig, pf, mut sf, table, group) = switch(2);
    let f = frame(1000, 50);
    rule(&pf, (table, group), 0, 1000, &Flow::to(&[Destination::Vport(rig.sf_id(0, 1))]));
    assert_eq!(send(&rig, &mut sf, 0, &f, 3), [0, 3]);
    let rqn = sf[1].channels[0].rq.number;
    sf[1].function.modify_rq(rqn, 1, 0).unwrap();
    assert_eq!(send(&rig, &mut sf, 0, &f, 3), [0, 0]);
    sf[1].function.teardown().unwrap();
    assert_eq!(send(&rig, &mut sf, 0, &f, 3), [0, 0]);
    assert!(rig.nic.flows.of(0).unwrap().is_empty(), "nothing is kept alive");
}

#[test]
fn the_mtu_bounds_known_flows_over_the_cable() {
    let rig = Rig::new(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], 4 * MEMORY);
    let dev = |card| rig.pf(card).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let mut devs = [dev(0), dev(1)];
    let [from, to] = [devs[0].mac, devs[1].mac];
    let f = |len: usize| Flow4::new(to, from).udp(&frames::pattern(1, len));
    for round in 0..2 {
        assert_eq!(send(&rig, &mut devs, 0, &f(100), 4), [0, 4], "{round}");
        assert_eq!(send(&rig, &mut devs, 0, &f(1400), 4), [0, 4], "{round}");
        devs[1].function.set_mtu(500).unwrap();
        assert_eq!(send(&rig, &mut devs, 0, &f(100), 4), [0, 4], "{round}");
        assert_eq!(send(&rig, &mut devs, 0, &f(1400), 4), [0, 0], "{round}");
        assert_eq!(send(&rig, &mut devs, 0, &f(100), 4), [0, 4], "{round}");
        devs[1].function.set_mtu(9000).unwrap();
    }
    devs[1].function.set_port(false).unwrap();
    assert_eq!(send(&rig, &mut devs, 0, &f(100), 4), [0, 0]);
    devs[1].function.set_port(true).unwrap();
    assert_eq!(send(&rig, &mut devs, 0, &f(100), 4), [0, 4]);
    let (sent, _) = devs[0].function.port_frames().unwrap();
    let (_, received) = devs[1].function.port_frames().unwrap();
    // Those too long count as sent, not as received; without a link neither.
    assert_eq!((sent, received), (44, 36));
}

#[test]
fn several_workers_count_every_frame_once_while_rules_change() {
    const LANES: usize = 2;
    let (rig, pf, sf, table, group) = switch(2 * LANES as u16);
    let counters: Vec<u32> = (0..2).map(|_| pf.alloc_flow_counter().unwrap()).collect();
    let mut lanes: Vec<Vec<Netdev>> = vec![];
    let mut sf = sf.into_iter();
    while let (Some(a), Some(b)) = (sf.next(), sf.next()) {
        lanes.push(vec![a, b]);
    }
    let port = |lane: usize| 1000 + lane as u16;
    for lane in 0..LANES {
        let to = Destination::Vport(rig.sf_id(0, 2 * lane as u16 + 1));
        rule(&pf, (table, group), lane as u32, port(lane), &Flow { counters: vec![counters[0]], ..Flow::to(&[to]) });
    }
    let stop = AtomicBool::new(false);
    let seen = AtomicUsize::new(0);
    let received: usize = std::thread::scope(|s| {
        let threads: Vec<_> = lanes
            .into_iter()
            .enumerate()
            .map(|(lane, mut devs)| {
                let (rig, stop, seen) = (&rig, &stop, &seen);
                s.spawn(move || {
                    let f = frame(port(lane), 60);
                    let (mut sent, mut got) = (0, 0);
                    while !stop.load(Ordering::Relaxed) || got < sent {
                        if !stop.load(Ordering::Relaxed) && got == sent {
                            for _ in 0..16 {
                                devs[0].send(&f);
                            }
                            sent += 16;
                        }
                        while rig.nic.run(lane) {}
                        devs[0].reap(0);
                        let now = devs[1].receive().len();
                        got += now;
                        seen.fetch_add(now, Ordering::Relaxed);
                    }
                    got
                })
            })
            .collect();
        // Above the lanes' rules comes and goes one that counts elsewhere, for
        // as long as it takes the workers to have sent and received beside it.
        let mut round = 0u32;
        while round < 300 || seen.load(Ordering::Relaxed) < 1000 {
            round += 1;
            let lane = round as usize % LANES;
            let to = Destination::Vport(rig.sf_id(0, 2 * lane as u16 + 1));
            let other = Flow { counters: vec![counters[1]], ..Flow::to(&[to]) };
            let first = Flow { counters: vec![counters[0]], ..Flow::to(&[to]) };
            // At any moment one of the two is there.
            rule(&pf, (table, group), lane as u32 + 8, port(lane), &other);
            pf.delete_entry(table, lane as u32).unwrap();
            rule(&pf, (table, group), lane as u32, port(lane), &first);
            pf.delete_entry(table, lane as u32 + 8).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    let counted: u64 = counters.iter().map(|c| pf.flow_counter(*c).unwrap().0).sum();
    assert_eq!(counted, received as u64);
    assert!(received > 0);
}
