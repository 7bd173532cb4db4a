//! Frames: what is sent is what arrives, where it should, and is counted.

use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::entries::{Cqe64, cqe_opcode};
use sfnic_firmware_cmds::layout::Sub;
use sfnic_firmware_cmds::layouts::{QueryVportCounterOut as Counters, TrafficCounter};
use sfnic_test_driver::eswitch::UPLINK;
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::steering::{Flow, table_type};
use sfnic_test_driver::{Destination, Function, Netdev, NetdevConfig, Rig};

/// Both ends of the cable.
fn ends(config: &NetdevConfig) -> (Rig, Netdev, Netdev) {
    let rig = Rig::new(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], 4 * MEMORY);
    let dev = |card| rig.pf(card).bring_up().unwrap().netdev(config).unwrap();
    let (a, b) = (dev(0), dev(1));
    (rig, a, b)
}

/// A manager and so many SFs.
fn switch(sfs: u16) -> (Rig, Function, Vec<Netdev>) {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    let devs = (0..sfs).map(|i| {
        pf.add_sf(rig.sf_id(0, i)).unwrap();
        rig.sf(0, i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap()
    });
    let devs = devs.collect();
    (rig, pf, devs)
}

fn counter(f: &Function, which: Sub<Counters, TrafficCounter>) -> (u64, u64) {
    let out = f.vport_counters().unwrap();
    let t = out.sub(which);
    (t.get64(TrafficCounter::packets), t.get64(TrafficCounter::octets))
}

#[test]
fn frames_of_every_size_cross_the_cable_unchanged_and_are_counted() {
    let config = NetdevConfig { buffer: 9216, ..NetdevConfig::default() };
    let (rig, mut a, mut b) = ends(&config);
    let (mut sent, mut octets) = (0, 0);
    for len in (14..700).chain((700..9000).step_by(97)).chain([1514, 4096, 8999, 9000]) {
        let mut frame = frames::ethernet(b.mac, a.mac, 0x88b5, &[]);
        frame.extend(frames::pattern(len, len - 14));
        // The head in the WQE, of any length that is allowed.
        a.send_with(0, &frame, len * 7 % 200, |w| w);
        rig.run();
        let got = b.receive();
        assert_eq!(got.len(), 1, "{len}");
        // A MAC pads what is short.
        frame.resize(frame.len().max(60), 0);
        assert_eq!(got[0].bytes, frame, "{len}");
        assert_eq!(got[0].cqe.opcode(), cqe_opcode::RESP_SEND);
        assert_eq!(a.reap(0).len(), 1);
        sent += 1;
        octets += frame.len() as u64;
    }
    assert_eq!(counter(&a.function, Counters::transmitted_eth_unicast), (sent, octets));
    assert_eq!(counter(&b.function, Counters::received_eth_unicast), (sent, octets));
    assert_eq!(a.function.port_frames().unwrap(), (sent, 0));
    assert_eq!(b.function.port_frames().unwrap(), (0, sent));
    b.send(&frames::ethernet([0xff; 6], b.mac, 0x0806, &[0; 46]));
    rig.run();
    assert_eq!(counter(&b.function, Counters::transmitted_eth_broadcast), (1, 60));
    assert_eq!(b.function.port_frames().unwrap(), (1, sent));
}

#[test]
fn the_ring_goes_round() {
    let (rig, mut a, mut b) = ends(&NetdevConfig { log_sq: 4, log_rq: 3, ..NetdevConfig::default() });
    for i in 0..70_000usize {
        let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &i.to_be_bytes().repeat(8));
        a.send(&frame);
        rig.run();
        let got = b.receive();
        assert_eq!(got.len(), 1, "frame {i}");
        assert_eq!(got[0].bytes, frame, "frame {i}");
    }
}

#[test]
fn two_sub_functions_reach_each_other_and_nobody_else() {
    let (rig, pf, mut sf) = switch(3);
    let id = |i| rig.sf_id(0, i);
    let frame = frames::ethernet([0xff; 6], [2; 6], 0x88b5, &frames::pattern(1, 300));
    sf[0].send(&frame);
    rig.run();
    assert!(sf.iter_mut().all(|s| s.receive().is_empty()), "without a rule nobody");
    let mut fdb = pf.create_fdb(4).unwrap();
    pf.join(&mut fdb, id(0), id(1)).unwrap();
    for (from, to) in [(0usize, 1usize), (1, 0)] {
        sf[from].send(&frame);
        rig.run();
        for (i, s) in sf.iter_mut().enumerate() {
            let got = s.receive();
            assert_eq!(got.len(), usize::from(i == to), "{from} to {i}");
            assert!(got.iter().all(|r| r.bytes == frame));
        }
    }
    sf[2].send(&frame);
    rig.run();
    assert!(sf.iter_mut().all(|s| s.receive().is_empty()), "the third has no rule");
}

#[test]
fn a_rule_copies_counts_and_tags() {
    let (rig, pf, mut sf) = switch(4);
    let id = |i| rig.sf_id(0, i);
    let counter = pf.alloc_flow_counter().unwrap();
    let mut fdb = pf.create_fdb(4).unwrap();
    let flow = Flow {
        counters: vec![counter],
        tag: 0xabcd,
        ..Flow::to(&[Destination::Vport(id(1)), Destination::Vport(id(2)), Destination::Vport(UPLINK)])
    };
    pf.forward(&mut fdb, id(0), &flow).unwrap();
    let frame = frames::ethernet([0xff; 6], [2; 6], 0x88b5, &frames::pattern(1, 100));
    for _ in 0..5 {
        sf[0].send(&frame);
    }
    rig.run();
    let got: Vec<usize> = sf.iter_mut().map(|s| s.receive().iter().filter(|r| r.bytes == frame).count()).collect();
    assert_eq!(got, [0, 5, 5, 0]);
    assert_eq!(pf.flow_counter(counter).unwrap(), (5, 5 * 114));
}

#[test]
fn acls_stand_on_both_sides_of_the_forwarding() {
    let (rig, pf, mut sf) = switch(2);
    let id = |i| rig.sf_id(0, i);
    let mut fdb = pf.create_fdb(4).unwrap();
    pf.join(&mut fdb, id(0), id(1)).unwrap();
    let frame = frames::ethernet([0xff; 6], [2; 6], 0x88b5, &[9; 60]);
    let mut arrives = |rig: &Rig| {
        sf[0].send(&frame);
        rig.run();
        sf[1].receive().len()
    };
    assert_eq!(arrives(&rig), 1);
    for (kind, vport) in [(table_type::INGRESS_ACL, id(0)), (table_type::EGRESS_ACL, id(1))] {
        let acl = pf.create_acl(kind, vport, &Flow::drop()).unwrap();
        assert_eq!(arrives(&rig), 0, "{kind}");
        pf.delete_entry(acl, 0).unwrap();
        assert_eq!(arrives(&rig), 1, "no rule, so it passes");
        let pass = pf.create_acl(kind, vport, &Flow::allow()).unwrap();
        assert_eq!(arrives(&rig), 1);
        pf.delete_entry(pass, 0).unwrap();
    }
}

#[test]
fn checksums_are_filled_in_and_checked() {
    let (rig, mut a, mut b) = ends(&NetdevConfig::default());
    let flow = Flow4::new(b.mac, a.mac);
    for len in [0, 1, 2, 99, 100, 1000, 1472] {
        for right in [flow.udp(&frames::pattern(len, len)), flow.tcp(7, &frames::pattern(len, len.min(1460)))] {
            let mut frame = right.clone();
            frame[24..26].fill(0);
            // The stack leaves the sum of the pseudo header.
            let at = if frame[23] == 17 { 40 } else { 50 };
            let mut pseudo = frame[26..34].to_vec();
            pseudo.extend([0, frame[23]]);
            pseudo.extend((frame.len() as u16 - 34).to_be_bytes());
            frame[at..at + 2].copy_from_slice(&frames::sum(&pseudo).to_be_bytes());
            a.send_with(0, &frame, 54, |w| w.checksums());
            rig.run();
            let got = b.receive().remove(0);
            assert_eq!(got.bytes[..right.len()], right);
            assert!(frames::checksums_hold(&got.bytes));
            assert_eq!((got.cqe.get(Cqe64::l3_ok), got.cqe.get(Cqe64::l4_ok)), (1, 1));
        }
    }
    let mut wrong = flow.udp(b"payload");
    wrong[45] ^= 1;
    a.send(&wrong);
    wrong[45] ^= 1;
    wrong[20] ^= 1;
    a.send(&wrong);
    rig.run();
    let got = b.receive();
    let ok = |i: usize| (got[i].cqe.get(Cqe64::l3_ok), got[i].cqe.get(Cqe64::l4_ok));
    assert_eq!((ok(0), ok(1).0), ((1, 0), 0));
}

#[test]
fn a_large_send_is_cut_into_right_segments() {
    let (rig, mut a, mut b) = ends(&NetdevConfig { log_rq: 7, ..NetdevConfig::default() });
    let flow = Flow4::new(b.mac, a.mac);
    let mut total = 0;
    for (len, mss) in [(1, 1448), (1448, 1448), (1449, 1448), (60_000, 1448), (60_000, 536), (5000, 100)] {
        let payload = frames::pattern(len, len);
        let header = flow.tcp(0x1000, &[]);
        a.send_lso(0, &header, &payload, mss);
        rig.run();
        let got = b.receive();
        let n = len.div_ceil(mss.into());
        assert_eq!(got.len(), n, "{len} by {mss}");
        let mut at = 0;
        for (i, r) in got.iter().enumerate() {
            let ip_len = usize::from(u16::from_be_bytes([r.bytes[16], r.bytes[17]]));
            let (seq, part) = (u32::from_be_bytes(r.bytes[38..42].try_into().unwrap()), &r.bytes[54..14 + ip_len]);
            assert_eq!(seq as usize, 0x1000 + at);
            assert_eq!(part, &payload[at..at + part.len()]);
            assert_eq!(r.bytes[47] & 8 != 0, i + 1 == n, "PSH on the last one");
            assert!(frames::checksums_hold(&r.bytes));
            at += part.len();
        }
        assert_eq!(at, len);
        assert_eq!(a.reap(0).len(), 1, "one completion for all of them");
        total += n as u64;
    }
    assert_eq!(counter(&a.function, Counters::transmitted_eth_unicast).0, total);
    assert_eq!(counter(&b.function, Counters::received_eth_unicast).0, total);
}

#[test]
fn vlan_tags_are_inserted_and_stripped() {
    let (rig, mut a, mut b) = ends(&NetdevConfig::default());
    let flow = Flow4::new(b.mac, a.mac);
    let plain = flow.udp(&frames::pattern(3, 200));
    let tci = 0x6123;
    // By the WQE, or in the frame already.
    a.send_with(0, &plain, 0, |w| w.vlan(tci));
    a.send(&frames::tagged(&plain, tci));
    rig.run();
    for got in b.receive() {
        assert_eq!(got.bytes, plain);
        assert_eq!(got.cqe.get(Cqe64::vlan_stripped), 1);
        assert_eq!(got.cqe.get(Cqe64::vlan_info), u32::from(tci));
        assert_eq!(got.cqe.get(Cqe64::l4_ok), 1);
    }
    b.function.keep_vlan(b.channels[0].rq.number, true).unwrap();
    a.send_with(0, &plain, 0, |w| w.vlan(tci));
    rig.run();
    let got = b.receive().remove(0);
    assert_eq!(got.bytes, frames::tagged(&plain, tci));
    assert_eq!(got.cqe.get(Cqe64::vlan_stripped), 0);
}

#[test]
fn flows_spread_by_the_hash_that_the_definition_gives() {
    let config = NetdevConfig { channels: 4, log_rq: 7, ..NetdevConfig::default() };
    let (rig, mut a, mut b) = ends(&config);
    let mut want = [0usize; 4];
    for n in 0..200u16 {
        let flow = Flow4 { port: [1000 + n, 53 + n * 7], ..Flow4::new(b.mac, a.mac) };
        let frame = flow.udp(&n.to_be_bytes());
        let mut input = flow.ip.concat();
        input.extend(flow.port.iter().flat_map(|p| p.to_be_bytes()));
        let hash = frames::toeplitz(&config.key, &input);
        let channel = hash as usize % 4;
        want[channel] += 1;
        a.send_with(n as usize % 4, &frame, 18, |w| w);
        rig.run();
        let got = b.receive_on(channel);
        assert_eq!(got.len(), 1, "flow {n} to channel {channel}");
        assert_eq!(got[0].cqe.get(Cqe64::rss_hash_result), hash);
    }
    assert!(want.iter().all(|n| *n > 20), "{want:?}");
    // What the hash does not cover goes to the first queue.
    a.send(&Flow4::new(b.mac, a.mac).tcp(1, b"tcp"));
    rig.run();
    assert_eq!((b.receive_on(0).len(), b.receive().len()), (1, 0));
}

#[test]
fn groups_are_heard_by_who_asked() {
    let (rig, mut a, mut b) = ends(&NetdevConfig::default());
    let group = [0x01, 0, 0x5e, 0, 0, 9];
    let to_group = frames::ethernet(group, a.mac, 0x88b5, &[1; 60]);
    let stranger = frames::ethernet([2, 2, 2, 2, 2, 2], a.mac, 0x88b5, &[2; 60]);
    let mut arrives = |rig: &Rig, b: &mut Netdev| {
        a.send(&to_group);
        a.send(&stranger);
        rig.run();
        b.receive().len()
    };
    assert_eq!(arrives(&rig, &mut b), 0);
    b.function.set_multicast(&[[0x01, 0, 0x5e, 0, 0, 8], group]).unwrap();
    assert_eq!(arrives(&rig, &mut b), 1);
    b.function.set_promiscuous(true).unwrap();
    assert_eq!(arrives(&rig, &mut b), 2);
    b.function.set_multicast(&[]).unwrap();
    b.function.set_promiscuous(false).unwrap();
    assert_eq!(arrives(&rig, &mut b), 0);
    assert_eq!(counter(&b.function, Counters::received_eth_multicast).0, 2);
    assert_eq!(counter(&a.function, Counters::transmitted_eth_multicast).0, 4);
}

#[test]
fn a_frame_without_a_buffer_is_counted_as_such() {
    let (rig, mut a, mut b) = ends(&NetdevConfig { log_rq: 2, ..NetdevConfig::default() });
    let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &[5; 60]);
    for _ in 0..10 {
        a.send(&frame);
    }
    rig.run();
    assert_eq!(b.function.out_of_buffer(b.counters).unwrap(), 6);
    assert_eq!(b.receive().len(), 4);
    a.send(&frame);
    rig.run();
    assert_eq!(b.receive().len(), 1, "and then it goes on");
}

#[test]
fn a_link_that_is_down_carries_nothing() {
    let (rig, mut a, mut b) = ends(&NetdevConfig::default());
    let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &[5; 60]);
    b.function.set_port(false).unwrap();
    a.send(&frame);
    rig.run();
    assert_eq!((b.receive().len(), a.reap(0).len()), (0, 1));
    assert_eq!(rig.card_at(0).port.tx_discards.get(), 1);
    b.function.set_port(true).unwrap();
    a.send(&frame);
    rig.run();
    assert_eq!(b.receive().len(), 1);
    b.function.set_mtu(1000).unwrap();
    a.send(&frames::ethernet(b.mac, a.mac, 0x88b5, &[5; 1000]));
    rig.run();
    assert_eq!((b.receive().len(), rig.card_at(1).port.rx_oversize.get()), (0, 1));
}

#[test]
fn events_wake_a_driver_that_sleeps() {
    let (rig, mut a, mut b) = ends(&NetdevConfig::default());
    let frame = frames::ethernet(b.mac, a.mac, 0x88b5, &[5; 60]);
    for round in 0..20 {
        b.channels[0].rq_cq.arm();
        b.eq.arm();
        let seen = rig.irqs[1].count(1);
        a.send(&frame);
        a.send(&frame);
        rig.run();
        assert_eq!(rig.irqs[1].count(1), seen + 1, "one interrupt, round {round}");
        assert_eq!(b.eq.drain().len(), 1);
        b.channels[0].rq_cq.event_seen();
        assert_eq!(b.receive().len(), 2);
    }
}

#[test]
fn a_function_hears_itself_where_its_tir_says_so() {
    let (rig, pf, mut sf) = switch(1);
    let id = rig.sf_id(0, 0);
    let mut fdb = pf.create_fdb(2).unwrap();
    pf.forward(&mut fdb, id, &Flow::to(&[Destination::Vport(id)])).unwrap();
    let d = &mut sf[0];
    for take in [false, true, false] {
        d.function.take_own_frames(d.tirn, take).unwrap();
        for to in [[2; 6], [0xff; 6]] {
            d.send(&frames::ethernet(to, [2; 6], 0x88b5, &[9; 60]));
            rig.run();
            assert_eq!(d.receive().len(), usize::from(take));
        }
    }
}
