//! Frames that leave the device by a wire and come in by one: a flow that is known goes the
//! way that it went before it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::packet::{Frame, lso};
use sfnic_device_model::world::Wire;
use sfnic_firmware_cmds::entries::Cqe64;
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::{FteMatchParam, FteMatchSetLyr24 as Headers};
use sfnic_test_driver::eswitch::UPLINK;
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::steering::{criteria, table_type};
use sfnic_test_driver::{Destination, Flow, Netdev, NetdevConfig, Rig};

/// A far end that keeps what it gets.
#[derive(Default)]
struct Keeper {
    got: Mutex<Vec<Vec<u8>>>,
    full: AtomicBool,
    /// It wants messages instead of their segments, and cuts them itself.
    cuts: AtomicBool,
    /// How many messages it got.
    messages: AtomicUsize,
}

impl Wire for Keeper {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        let mut bytes = vec![0; frame.len()];
        frame.write_into(&mut bytes);
        self.got.lock().push(bytes);
        !self.full.load(Ordering::Relaxed)
    }

    fn takes_message(&self, _: &Frame<'_>) -> bool {
        self.cuts.load(Ordering::Relaxed)
    }

    fn transmit_message(&self, message: &Frame<'_>, mss: usize) -> bool {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let mut message = message.replicate();
        message.key.0.fill(0);
        message.parse();
        let header = message.layers.l4_end();
        let cut = lso::segment(&message, mss, header, |segment| {
            self.transmit(segment);
        });
        cut.is_some() && !self.full.load(Ordering::Relaxed)
    }
}

/// Number of the wire's thread.
const WIRE: usize = 3;

fn outside() -> (Rig, Arc<Keeper>, Netdev) {
    let far = Arc::new(Keeper::default());
    let rig = Rig::new(vec![Rig::card(0, Far::Outside(far.clone()))], 4 * MEMORY);
    let config = NetdevConfig { log_rq: 7, ..NetdevConfig::default() };
    let dev = rig.pf(0).bring_up().unwrap().netdev(&config).unwrap();
    (rig, far, dev)
}

fn learnt(rig: &Rig, worker: usize) -> u64 {
    rig.nic.flows.of(worker).unwrap().learnt
}

#[test]
fn messages_and_frames_of_known_flows_leave_as_those_of_unknown_ones() {
    let (rig, far, mut dev) = outside();
    let flow = Flow4::new([2; 6], dev.mac);
    let (header, payload) = (flow.tcp(0x1000, &[]), frames::pattern(5, 60_000));
    let send = |dev: &mut Netdev| {
        dev.send(&flow.udp(b"before"));
        dev.send_lso(0, &header, &payload, 1448);
        dev.send(&flow.udp(b"behind"));
        rig.run();
        assert_eq!(dev.reap(0).len(), 3);
        std::mem::take(&mut *far.got.lock())
    };
    let first = send(&mut dev);
    assert_eq!(first.len(), 44);
    assert!(first.iter().all(|f| frames::checksums_hold(f)));
    let sent: Vec<u8> = first[1..43].iter().flat_map(|f| f[54..].to_vec()).collect();
    assert_eq!(sent, payload);
    // Of UDP one flow, of TCP one with PSH and one without.
    let known = learnt(&rig, 0);
    assert_eq!(known, 3);
    assert_eq!(send(&mut dev), first);
    assert_eq!(learnt(&rig, 0), known);
    // With every decision made.
    rig.nic.explainer.start("", u32::MAX, Arc::new(|_| ()));
    assert_eq!(send(&mut dev), first);
    assert_eq!(dev.function.port_frames().unwrap().0, 3 * 44);
    assert_eq!(rig.card_at(0).port.tx_discards.get(), 0);
}

/// What an SF's messages are at the far end, and the counters of their two rules, of segments
/// with PSH and without.
fn sent_by_rules(cuts: bool) -> (Vec<Vec<u8>>, Vec<(u64, u64)>, [u64; 4], usize) {
    let far = Arc::new(Keeper { cuts: cuts.into(), ..Keeper::default() });
    let rig = Rig::new(vec![Rig::card(0, Far::Outside(far.clone()))], 4 * MEMORY);
    let pf = rig.pf(0).bring_up().unwrap();
    pf.set_port(true).unwrap();
    pf.add_sf(rig.sf_id(0, 0)).unwrap();
    let mut dev = rig.sf(0, 0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let table = pf.create_table(table_type::FDB, None, 0, 1).unwrap();
    let flags = |v: &mut ViewMut<'_, FteMatchParam>, flags| {
        v.sub(FteMatchParam::outer_headers).set(Headers::tcp_flags, flags);
    };
    let group = pf.create_group(table, (0, 1), criteria::OUTER, |m| flags(m, 8)).unwrap();
    pf.set_root(table).unwrap();
    let counters: Vec<u32> = (0..2).map(|_| pf.alloc_flow_counter().unwrap()).collect();
    for (i, psh) in [0, 8].into_iter().enumerate() {
        let to = Flow { counters: vec![counters[i]], ..Flow::to(&[Destination::Vport(UPLINK)]) };
        pf.create_entry(table, group, i as u32, &to, |v| flags(v, psh)).unwrap();
    }
    for (n, (psh, size, mss)) in
        [(8, 9000, 1000), (8, 9001, 1000), (0, 9001, 1000), (8, 60_000, 1448), (1, 9000, 1000), (8, 2000, 1000)]
            .into_iter()
            .enumerate()
    {
        let mut header = Flow4::new([2; 6], dev.mac).tcp(n as u32, &[]);
        header[47] = 0x10 | psh;
        dev.send_lso(0, &header, &frames::pattern(n, size), mss);
        rig.run();
    }
    let counted = counters.iter().map(|c| pf.flow_counter(*c).unwrap()).collect();
    let plane = rig.plane(0, rig.sf_id(0, 0)).unwrap();
    let (port, vport) = (&rig.card_at(0).port.tx.unicast, &plane.vport.tx.unicast);
    let frames = [&port.packets, &port.octets, &vport.packets, &vport.octets].map(|c| c.get());
    let got = std::mem::take(&mut *far.got.lock());
    (got, counted, frames, far.messages.load(Ordering::Relaxed))
}

#[test]
fn a_wire_that_cuts_messages_sends_and_counts_what_another_does() {
    let (segments, counted, frames, messages) = sent_by_rules(false);
    assert_eq!((segments.len(), messages), (9 + 10 + 10 + 42 + 9 + 2, 0));
    assert_eq!(counted[0].0 + counted[1].0, segments.len() as u64);
    assert_eq!(counted[1].0, 4, "each message that is pushed has one");
    // All but the first, the one with a flag of another kind, and the one of few segments.
    assert_eq!(sent_by_rules(true), (segments, counted, frames, 3));
}

#[test]
fn what_the_far_end_does_not_take_is_counted() {
    let (rig, far, mut dev) = outside();
    far.full.store(true, Ordering::Relaxed);
    let flow = Flow4::new([2; 6], dev.mac);
    let f = flow.udp(b"full");
    for n in 1..4 {
        dev.send(&f);
        rig.run();
        assert_eq!(rig.card_at(0).port.tx_discards.get(), n);
    }
    far.cuts.store(true, Ordering::Relaxed);
    for n in 1..4 {
        dev.send_lso(0, &flow.tcp(1, &[]), &frames::pattern(5, 9000), 1000);
        rig.run();
        assert_eq!(rig.card_at(0).port.tx_discards.get(), 3 + 9 * n);
    }
    assert_eq!(far.messages.load(Ordering::Relaxed), 2, "of a flow that is known");
}

/// Has a frame come in, segments of `mss` bytes or itself.
fn come(rig: &Rig, frame: &[u8], mss: Option<usize>) {
    rig.nic.receive_with_pause(WIRE, 0, &mut frame.to_vec(), mss, &mut || false);
}

#[test]
fn frames_of_known_flows_come_in_as_those_of_unknown_ones() {
    let (rig, _, mut dev) = outside();
    let flow = Flow4::new(dev.mac, [2; 6]);
    let mut large = flow.tcp(0x1000, &frames::pattern(6, 60_000));
    large[50..52].fill(0); // the checksum is not there yet
    let small = flow.udp(&frames::pattern(7, 300));
    let mut receive = || {
        come(&rig, &small, None);
        come(&rig, &large, Some(1448));
        dev.receive()
    };
    let first = receive();
    assert_eq!(first.len(), 43);
    assert_eq!(first[0].bytes, small);
    let payload: Vec<u8> = first[1..].iter().flat_map(|r| r.bytes[54..].to_vec()).collect();
    assert_eq!(payload, large[54..]);
    assert!(first.iter().all(|r| frames::checksums_hold(&r.bytes)));
    assert_eq!(learnt(&rig, WIRE), 3);
    let told = |r: &sfnic_test_driver::Received| {
        let c = [Cqe64::l3_ok, Cqe64::l4_ok, Cqe64::check_sum, Cqe64::l4_hdr_type, Cqe64::rss_hash_result];
        (r.bytes.clone(), c.map(|f| r.cqe.get(f)))
    };
    let want: Vec<_> = first.iter().map(told).collect();
    assert_eq!(receive().iter().map(told).collect::<Vec<_>>(), want);
    assert_eq!(learnt(&rig, WIRE), 3);
    rig.nic.explainer.start("", u32::MAX, Arc::new(|_| ()));
    assert_eq!(receive().iter().map(told).collect::<Vec<_>>(), want);
    assert_eq!(dev.function.port_frames().unwrap().1, 3 * 43);
}

#[test]
fn a_port_that_is_down_or_has_a_smaller_mtu_takes_none_of_a_known_flow() {
    let (rig, _, mut dev) = outside();
    let large = Flow4::new(dev.mac, [2; 6]).tcp(0x1000, &frames::pattern(6, 6000));
    for _ in 0..2 {
        come(&rig, &large, Some(1448));
        assert_eq!(dev.receive().len(), 5);
    }
    dev.function.set_mtu(1000).unwrap();
    come(&rig, &large, Some(1448));
    assert_eq!(dev.receive().len(), 1, "the last segment");
    dev.function.set_mtu(9000).unwrap();
    dev.function.set_port(false).unwrap();
    come(&rig, &large, Some(1448));
    assert_eq!(dev.receive().len(), 0);
    dev.function.set_port(true).unwrap();
    come(&rig, &large, Some(1448));
    assert_eq!(dev.receive().len(), 5);
    come(&rig, &large, Some(0));
    assert_eq!(rig.card_at(0).port.rx_discards.get(), 1, "it cannot be cut");
}

#[test]
fn frames_of_known_flows_wait_for_buffers() {
    let (rig, _, dev) = outside();
    let dev = Mutex::new(dev);
    let large = Flow4::new(dev.lock().mac, [2; 6]).tcp(0x1000, &frames::pattern(6, 60_000));
    let mut got = 0;
    for round in 0..10 {
        // 42 segments a round and 128 buffers: they run out again and again.
        let mut asked = 0;
        rig.nic.receive_with_pause(WIRE, 0, &mut large.clone(), Some(1448), &mut || {
            asked += 1;
            got += dev.lock().receive().len();
            asked < 100
        });
        assert!(asked < 100, "{round}");
    }
    got += dev.lock().receive().len();
    assert_eq!(got, 420);
    // Nobody gives buffers back.
    for _ in 0..4 {
        come(&rig, &large, Some(1448));
    }
    assert_eq!(dev.lock().receive().len(), 128);
}
