//! Compressed completions of received frames, from CREATE_CQ to the driver that reads them.

use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::entries::Cqe64;
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::Cqc;
use sfnic_firmware_cmds::{Status, Syndrome};
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::{Netdev, NetdevConfig, Rig};

const OFFERED: &[&str] = &["cqe_compression=1"];

/// Both ends of a cable; the second one has its completions compressed.
fn ends() -> (Rig, Netdev, Netdev) {
    let cards = vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))];
    let rig = Rig::with(OFFERED, cards, 4 * MEMORY);
    let plain = NetdevConfig { log_sq: 8, ..NetdevConfig::default() };
    let compressed = NetdevConfig { compressed: true, ..plain.clone() };
    let a = rig.pf(0).bring_up().unwrap().netdev(&plain).unwrap();
    let b = rig.pf(1).bring_up().unwrap().netdev(&compressed).unwrap();
    (rig, a, b)
}

#[test]
fn bursts_are_received_as_they_were_sent() {
    let (mut rig, mut a, mut b) = ends();
    let mut sum = 0u64;
    for round in 0..60usize {
        if round % 20 == 19 {
            rig.replace();
        }
        let n = 1 + round * 7 % 60;
        let sent: Vec<_> = (0..n)
            .map(|i| {
                let flow = Flow4 { port: [1000 + (round % 3 * i / 9) as u16, 2000], ..Flow4::new(b.mac, a.mac) };
                let payload = frames::pattern(i, 20 + (i * 31 + round) % 1400);
                // Now and then one that differs, with another tag or protocol.
                match i % 11 {
                    7 if round % 2 == 1 => flow.tcp(1, &payload),
                    9 => frames::tagged(&flow.udp(&payload), round as u16),
                    _ => flow.udp(&payload),
                }
            })
            .collect();
        for frame in &sent {
            a.send(frame);
        }
        rig.run();
        let got = b.receive();
        assert_eq!(got.len(), n, "round {round}");
        for (r, frame) in got.iter().zip(&sent) {
            let tag = (frame[12..14] == [0x81, 0]).then(|| u32::from(frame[14]) << 8 | u32::from(frame[15]));
            let mut whole = frame.clone();
            if tag.is_some() {
                whole.drain(12..16);
            }
            assert_eq!(r.bytes, whole, "round {round}");
            let cqe = |f| r.cqe.get(f);
            assert_eq!(cqe(Cqe64::vlan_info), tag.unwrap_or(0));
            assert_eq!((cqe(Cqe64::l3_ok), cqe(Cqe64::l4_ok)), (1, 1));
            assert_eq!(cqe(Cqe64::check_sum), u32::from(frames::sum(&whole[14..])));
            assert_eq!(cqe(Cqe64::l4_hdr_type), if whole[23] == 6 { 4 } else { 2 });
        }
        a.reap(0);
        sum += n as u64;
    }
    let sessions = b.channels[0].rq_cq.sessions;
    assert!(sessions > 60 && sessions * 4 < sum, "{sum} frames in {sessions} sessions");
}

#[test]
fn only_what_is_offered_can_be_made() {
    type Set = fn(&mut ViewMut<'_, Cqc>);
    const LAYOUT: Set = |c| _ = c.set(Cqc::cqe_comp_en, 1).set(Cqc::cqe_compression_layout, 1);
    const WIDE: Set = |c| _ = c.set(Cqc::cqe_comp_en, 1).set(Cqc::cqe_sz, 1);
    const STRIDES: Set = |c| _ = c.set(Cqc::cqe_comp_en, 1).set(Cqc::mini_cqe_res_format, 3);
    const RESERVED: Set = |c| _ = c.set(Cqc::cqe_comp_en, 1).set(Cqc::mini_cqe_res_format, 2);
    const SUM: Set = |c| _ = c.set(Cqc::cqe_comp_en, 1).set(Cqc::mini_cqe_res_format, 1);
    const HASH: Set = |c| _ = c.set(Cqc::cqe_comp_en, 1);
    let without: &[&str] = &["cqe_compression=1", "mini_cqe_resp_stride_index=0"];
    for (caps, good, bad) in [
        (OFFERED, &[SUM, HASH, STRIDES][..], &[LAYOUT, WIDE, RESERVED][..]),
        (without, &[SUM, HASH], &[STRIDES]),
        (&[], &[], &[SUM, HASH, STRIDES]),
    ] {
        let rig = Rig::offering(caps);
        let f = rig.pf(0).bring_up().unwrap();
        let uar = f.alloc_uar().unwrap();
        let eq = f.create_eq(uar, 1, 7, 0).unwrap();
        for set in good {
            f.create_cq_with(uar, eq.number, 5, set).unwrap();
        }
        for set in bad {
            let e = f.create_cq_with(uar, eq.number, 5, set).err().unwrap();
            assert!(e.is(Status::BadParam) && e.because(Syndrome::CQE_SIZE), "{e}");
        }
    }
}
