//! Send WQEs of several frames, from a driver to another one: each frame finds its own way
//! and is counted, and what is wrong with one is told once.

use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::unmodelled::Access;
use sfnic_firmware_cmds::entries::{Cqe64, cqe_opcode, cqe_syndrome, wqe_opcode};
use sfnic_firmware_cmds::layouts::{QueryVportCounterOut as Counters, TrafficCounter};
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::objects::state;
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::{Netdev, NetdevConfig, Rig, Wqe};

const OFFERED: &[&str] = &["enhanced_multi_pkt_send_wqe=1"];

/// Both ends of a cable, and room for frames at the first one.
fn ends(caps: &[&str]) -> (Rig, Netdev, Netdev, u64) {
    let cards = vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))];
    let rig = Rig::with(caps, cards, 4 * MEMORY);
    let config = NetdevConfig { channels: 2, ..NetdevConfig::default() };
    let dev = |card| rig.pf(card).bring_up().unwrap().netdev(&config).unwrap();
    let (a, b) = (dev(0), dev(1));
    let room = a.function.mem.alloc(1 << 18);
    (rig, a, b, room)
}

/// Adds a frame as a data segment.
fn with(a: &Netdev, wqe: Wqe, at: &mut u64, frame: &[u8]) -> Wqe {
    a.function.mem.put(*at, frame);
    *at += frame.len() as u64;
    wqe.data(a.lkey, *at - frame.len() as u64, frame.len() as u32)
}

#[test]
fn each_frame_goes_its_own_way_with_its_checksums() {
    let (rig, mut a, mut b, room) = ends(OFFERED);
    let (mut packets, mut octets) = (0, 0);
    for n in [1usize, 2, 31, 32, 33, 61] {
        let (mut at, mut wqe, mut want) = (room, Wqe::multi().checksums(), vec![]);
        for i in 0..n {
            // Flows of many queues, TCP among them, a frame of no flow, one that is padded.
            let flow = Flow4 { port: [1000 + i as u16 % 7, 2000], ..Flow4::new(b.mac, a.mac) };
            let payload = frames::pattern(i, 1 + i * 23 % 1400);
            let frame = match i % 5 {
                0 => flow.tcp(i as u32, &payload),
                1 => frames::ethernet(b.mac, a.mac, 0x88b5, &payload),
                _ => flow.udp(&payload),
            };
            let mut bare = frame.clone();
            if i % 5 != 1 {
                let l4 = if i % 5 == 0 { 50 } else { 40 };
                bare[24..26].fill(0);
                let pseudo = pseudo_sum(&bare);
                bare[l4..l4 + 2].copy_from_slice(&pseudo.to_be_bytes());
            }
            wqe = if n < 40 && i % 4 == 3 && bare.len() < 200 {
                wqe.inline(&bare)
            } else {
                with(&a, wqe, &mut at, &bare)
            };
            let mut frame = frame;
            frame.resize(frame.len().max(60), 0);
            octets += frame.len() as u64;
            want.push(frame);
        }
        packets += n as u64;
        let bytes = wqe.clone().bytes(0, 0).len();
        assert!(bytes <= 1008, "{n} frames take {bytes} bytes");
        a.post(0, &wqe.signalled());
        rig.run();
        let mut got: Vec<Vec<u8>> = b.receive().into_iter().map(|r| r.bytes).collect();
        // In order within a queue; here all queues together.
        got.sort();
        want.sort();
        assert!(got == want, "{n} frames: {} arrived", got.len());
        let done = a.reap(0);
        assert_eq!((done.len(), done[0].opcode()), (1, cqe_opcode::REQ));
        assert_eq!(done[0].get(Cqe64::send_opcode), u32::from(wqe_opcode::ENHANCED_MPSW));
    }
    let count = |d: &Netdev, which| {
        let out = d.function.vport_counters().unwrap();
        let t = out.sub(which);
        (t.get64(TrafficCounter::packets), t.get64(TrafficCounter::octets))
    };
    assert_eq!(count(&a, Counters::transmitted_eth_unicast), (packets, octets));
    assert_eq!(count(&b, Counters::received_eth_unicast), (packets, octets));
    assert_eq!(a.function.port_frames().unwrap(), (packets, 0));
}

/// Sum of the pseudo header of IPv4 without options, not complemented, as the kernel leaves it.
fn pseudo_sum(frame: &[u8]) -> u16 {
    let len = u16::from_be_bytes([frame[16], frame[17]]) - 20;
    let mut pseudo = frame[26..34].to_vec();
    pseudo.extend([0, frame[23]]);
    pseudo.extend(len.to_be_bytes());
    frames::sum(&pseudo)
}

#[test]
fn a_tag_is_put_into_each_frame() {
    let (rig, mut a, mut b, room) = ends(OFFERED);
    let flow = Flow4::new(b.mac, a.mac);
    let (x, y) = (flow.udp(&frames::pattern(1, 100)), flow.udp(&frames::pattern(2, 300)));
    let mut at = room;
    let wqe = with(&a, Wqe::multi().vlan(0x2005), &mut at, &x);
    let wqe = with(&a, wqe, &mut at, &y);
    a.post(0, &wqe.signalled());
    rig.run();
    let got: Vec<_> = b.receive().into_iter().map(|r| (r.bytes, r.cqe.get(Cqe64::vlan_info))).collect();
    assert_eq!(got, [(x, 0x2005), (y, 0x2005)], "stripped again by the receiver");
}

#[test]
fn a_frame_that_cannot_be_read_ends_the_queue_behind_those_before_it() {
    for bad_key in [true, false] {
        let (rig, mut a, mut b, room) = ends(OFFERED);
        let frame = Flow4::new(b.mac, a.mac).udp(&frames::pattern(1, 100));
        let mut at = room;
        let wqe = with(&a, Wqe::multi(), &mut at, &frame);
        let nowhere = a.function.mem.edges()[3];
        let wqe = if bad_key { wqe.data(0xbad0, room, 60) } else { wqe.data(a.lkey, nowhere, 60) };
        let wqe = with(&a, wqe, &mut at, &frame);
        a.post(0, &wqe);
        a.post(0, &Wqe::nop());
        rig.run();
        assert_eq!(b.receive().len(), 1, "the one before it");
        let done = a.reap(0);
        assert_eq!((done[0].opcode(), done[0].error().1), (cqe_opcode::REQ_ERR, cqe_syndrome::LOCAL_PROT));
        assert_eq!(done[1].error().1, cqe_syndrome::WR_FLUSH);
        let sqn = a.channels[0].sq.number;
        assert_eq!(a.function.sq_state(sqn).unwrap(), state::ERR);
        a.function.modify_sq(sqn, state::ERR, state::RST).unwrap();
        a.channels[0].sq.restart();
        a.function.modify_sq(sqn, state::RST, state::RDY).unwrap();
        a.post(0, &with(&a, Wqe::multi(), &mut at, &frame).signalled());
        rig.run();
        assert_eq!(b.receive().len(), 1, "works again");
    }
}

#[test]
fn without_the_capability_it_is_refused_and_noted() {
    let (rig, mut a, _, room) = ends(&[]);
    a.post(0, &Wqe::multi().data(a.lkey, room, 60));
    rig.run();
    let done = a.reap(0);
    assert_eq!((done[0].opcode(), done[0].error().1), (cqe_opcode::REQ_ERR, cqe_syndrome::LOCAL_QP_OP));
    let noted = rig.nic.unmodelled.list();
    assert!(noted.iter().any(|(what, _)| *what == Access::WqeOpcode(wqe_opcode::ENHANCED_MPSW)), "{noted:?}");
}
