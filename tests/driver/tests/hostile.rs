//! A driver that does what no driver should: broken command entries, broken
//! WQEs, counters that jump, objects destroyed under others. The device
//! answers with a status, an error completion or nothing, and goes on.

use sfnic_firmware_cmds::entries::{WqeCtrl, WqeEth, cqe_opcode, cqe_syndrome, wqe_opcode};
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Delivery, Layout, Opcode, Status, Syndrome, View};
use sfnic_test_driver::command::{self, BOX, Entry, INLINE, PCI_TRANSPORT, SLOTS, write_box_head};
use sfnic_test_driver::memory::{CANARY, PAGE};
use sfnic_test_driver::objects::{Hash, state};
use sfnic_test_driver::rq::segment;
use sfnic_test_driver::steering::{Flow, action, criteria, table_type};
use sfnic_test_driver::{CmdError, Destination, Function, Netdev, NetdevConfig, Rig, Wqe, frames};

/// A NOP as an entry, with room for mailboxes of this token.
fn nop(f: &Function, in_len: usize, out_len: usize, token: u8) -> Entry {
    let mut inline = [0; INLINE];
    command::set_opcode(&mut inline, Opcode::NOP);
    Entry {
        kind: PCI_TRANSPORT,
        in_len: in_len as u32,
        in_ptr: f.cmdq.chain(in_len, token).head(),
        inline,
        out_ptr: f.cmdq.chain(out_len, token).head(),
        out_len: out_len as u32,
        token,
        ownership: true,
    }
}

fn nop_works(f: &Function) {
    f.cmd::<NopIn, NopOut>(Opcode::NOP, |_| ()).unwrap();
}

fn delivery(f: &Function, entry: &Entry, want: Delivery) {
    let got = f.cmdq.submit(3, entry).map(drop);
    let want = if want == Delivery::Ok { Ok(()) } else { Err(CmdError::Delivery(want as u8)) };
    assert_eq!(got, want, "{entry:?}");
    nop_works(f);
}

#[test]
fn command_entries_with_impossible_lengths() {
    let rig = Rig::loopback();
    let f = rig.pf(0).bring_up().unwrap();
    for len in [0, 1, 7] {
        delivery(&f, &Entry { in_len: len, ..nop(&f, 16, 16, 1) }, Delivery::InLength);
        delivery(&f, &Entry { out_len: len, ..nop(&f, 16, 16, 1) }, Delivery::OutLength);
    }
    for len in [(1 << 20) + 1, u32::MAX / 2, u32::MAX] {
        delivery(&f, &Entry { in_len: len, ..nop(&f, 16, 16, 1) }, Delivery::InLength);
        delivery(&f, &Entry { out_len: len, ..nop(&f, 16, 16, 1) }, Delivery::OutLength);
    }
    // Possible, but not with the mailboxes that there are.
    delivery(&f, &Entry { in_len: 1 << 20, ..nop(&f, 600, 16, 1) }, Delivery::FwInternal);
    delivery(&f, &Entry { out_len: 1 << 20, ..nop(&f, 16, 600, 1) }, Delivery::FwInternal);
    // Short of the layout: that is the command's own status.
    for (in_len, out_len, status) in
        [(8, 16, Status::BadInputLen), (15, 16, Status::BadInputLen), (16, 8, Status::BadOutputLen)]
    {
        let raw = f.cmdq.submit(0, &nop(&f, in_len, out_len, 1)).unwrap();
        let out = View::<CmdQueueEntry>::new(&raw).bytes(CmdQueueEntry::command_output_inline_data);
        assert!(command::check(out).unwrap_err().is(status));
    }
}

#[test]
fn command_entries_of_another_kind_or_owner() {
    let rig = Rig::loopback();
    let f = rig.pf(0).bring_up().unwrap();
    for kind in (0..=255).filter(|k| *k != PCI_TRANSPORT) {
        delivery(&f, &Entry { kind, ..nop(&f, 16, 16, 1) }, Delivery::BadDescriptor);
    }
    // An entry that is still the driver's is left alone.
    let mine = Entry { ownership: false, ..nop(&f, 16, 16, 1) };
    let raw = f.cmdq.submit(5, &mine).unwrap();
    assert_eq!(raw, mine.bytes());
    for bits in [0, 1 << 31, u32::MAX] {
        f.cmdq.doorbell(bits);
    }
    nop_works(&f);
    // A doorbell for all of them at once runs those that are the device's.
    for slot in 0..SLOTS {
        f.mem.put(f.cmdq.entry_at(slot), &nop(&f, 16, 16, slot as u8).bytes());
    }
    f.cmdq.doorbell(u32::MAX);
    for slot in 0..SLOTS {
        let raw = f.mem.get(f.cmdq.entry_at(slot), 64);
        assert!(!View::<CmdQueueEntry>::new(&raw).is(CmdQueueEntry::ownership), "slot {slot}");
    }
}

#[test]
fn mailboxes_with_wrong_heads() {
    let rig = Rig::loopback();
    let f = rig.pf(0).bring_up().unwrap();
    let len = INLINE + 3 * BOX;
    let boxed = |len: usize| f.cmdq.chain(len, 9).boxes().to_vec();
    for output in [false, true] {
        let entry = |head: u64| {
            let (i, o) = if output { (16, len) } else { (len, 16) };
            let e = nop(&f, i, o, 9);
            if output { Entry { out_ptr: head, ..e } } else { Entry { in_ptr: head, ..e } }
        };
        delivery(&f, &entry(boxed(len)[0]), Delivery::Ok);
        for n in 0..3 {
            let b = boxed(len);
            write_box_head(&f.mem, b[n], b.get(n + 1).copied().unwrap_or(0), n as u32, 8);
            delivery(&f, &entry(b[0]), Delivery::Token);
            let b = boxed(len);
            write_box_head(&f.mem, b[n], b.get(n + 1).copied().unwrap_or(0), n as u32 + 1, 9);
            delivery(&f, &entry(b[0]), Delivery::BlockNumber);
        }
        // Chains that bite their tails.
        for (from, to) in [(0, 0), (1, 0), (1, 1)] {
            let b = boxed(len);
            write_box_head(&f.mem, b[from], b[to], from as u32, 9);
            delivery(&f, &entry(b[0]), Delivery::BlockNumber);
        }
        // Chains that lead nowhere.
        let [_, low_end, _, end] = f.mem.edges();
        for to in [0, low_end, end, end - 1024, CANARY + (1 << 40), !0x3ff] {
            let b = boxed(len);
            write_box_head(&f.mem, b[0], to, 0, 9);
            let want = if to == end - 1024 { Delivery::Token } else { Delivery::FwInternal };
            delivery(&f, &entry(b[0]), want);
        }
        let misaligned = if output { Delivery::OutPtrAlign } else { Delivery::InPtrAlign };
        for off in [1, 8, 256, 511] {
            delivery(&f, &entry(boxed(len)[0] + off), misaligned);
        }
        for at in [0, low_end, end, !0x1ff, 1 << 63] {
            delivery(&f, &entry(at), Delivery::FwInternal);
        }
        // Data in memory, head behind its end.
        delivery(&f, &entry(end - 512), Delivery::FwInternal);
    }
}

#[test]
fn command_queues_outside_memory() {
    let rig = Rig::loopback();
    let f = rig.pf(0);
    for (high, low) in [(0, 0), (0, 0x1000), (u32::MAX, 0xffff_f000), (0x8000_0000, 0)] {
        f.window.write32(0x10, high);
        f.window.write32(0x14, low);
        f.cmdq.doorbell(u32::MAX);
    }
    f.cmdq.attach();
    f.bring_up().unwrap();
}

#[test]
fn a_command_that_destroys_its_own_event_queue() {
    let rig = Rig::loopback();
    let f = rig.pf(0).bring_up().unwrap();
    let uar = f.alloc_uar().unwrap();
    let eq = f.create_eq(uar, 0, 5, 1 << sfnic_firmware_cmds::entries::event::COMMAND).unwrap();
    let number = eq.number;
    f.cmdq.use_events(eq);
    for _ in 0..100 {
        nop_works(&f);
    }
    assert_eq!(f.destroy(Opcode::DESTROY_EQ, number).unwrap_err(), CmdError::NoEvent);
    f.cmdq.use_polling();
    nop_works(&f);
}

/// A queue that has been made an example of works again after a reset.
fn recovers(rig: &Rig, d: &mut Netdev) {
    d.reap(0);
    let sqn = d.channels[0].sq.number;
    assert_eq!(d.function.sq_state(sqn).unwrap(), state::ERR);
    d.function.modify_sq(sqn, state::ERR, state::RST).unwrap();
    d.channels[0].sq.restart();
    d.function.modify_sq(sqn, state::RST, state::RDY).unwrap();
    d.receive();
    let frame = frames::ethernet(d.mac, d.mac, 0x88b5, &[1; 60]);
    d.send(&frame);
    rig.run();
    assert_eq!(d.receive().iter().filter(|r| r.bytes == frame).count(), 1);
    d.reap(0);
}

/// An interface whose frames come back to it.
fn echo() -> (Rig, Netdev) {
    let rig = Rig::loopback();
    let d = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let mut fdb = d.function.create_fdb(4).unwrap();
    d.function.forward(&mut fdb, 0, &Flow::to(&[Destination::Vport(0)])).unwrap();
    d.function.take_own_frames(d.tirn, true).unwrap();
    (rig, d)
}

#[test]
fn send_wqes_with_wild_contents() {
    let (rig, mut d) = echo();
    let (key, at) = (d.lkey, d.function.mem.alloc(PAGE));
    let [base, low_end, high, end] = d.function.mem.edges();
    let send = || Wqe::send(&[0; 18]);
    let inline = |n: u32| {
        send().with_eth(|e| {
            e.set(WqeEth::inline_hdr_sz, n);
        })
    };
    let (op, prot, length) = (cqe_syndrome::LOCAL_QP_OP, cqe_syndrome::LOCAL_PROT, cqe_syndrome::LOCAL_LENGTH);
    let mut cases: Vec<(Wqe, u8)> = vec![
        (Wqe::control(wqe_opcode::SEND), op),
        (Wqe::send(&[]), length),
        (send().data(key, at, 0), length),
        (send().data(key, at, 0x1_0000), length),
        (send().data(key, at, 0x7fff_ffff), length),
        (send().data(key ^ 1, at, 64), prot),
        (send().data(0, at, 64), prot),
        (send().data(u32::MAX, at, 64), prot),
        (inline(0x3ff), op),
        (inline(250).data(key, at, 64), op),
        (Wqe::lso(0, &[0; 54]).data(key, at, 2000), op),
        (Wqe::lso(1448, &[]).data(key, at, 2000), op),
        (Wqe::lso(1, &[0; 54]).data(key, base, 0xffff), op),
        (Wqe::lso(1448, &[0; 54]).data(key, base, 0x10_0000), length),
        (Wqe::lso(1448, &[0; 54]).data(key, at, 2000), op),
    ];
    for wild in [0, base - 1, low_end - 1, low_end, high - 1, end - 1, end, 1 << 47, 1 << 63, u64::MAX - 63, u64::MAX] {
        cases.push((send().data(key, wild, 64), prot));
    }
    for opcode in (0..=255).filter(|o| ![wqe_opcode::NOP, wqe_opcode::SEND, wqe_opcode::LSO].contains(o)) {
        cases.push((Wqe::control(opcode).data(key, at, 64), op));
    }
    for (wqe, syndrome) in cases {
        d.post(0, &wqe);
        rig.run();
        let cqe = *d.reap(0).first().unwrap_or_else(|| panic!("{wqe:?} was taken"));
        assert_eq!((cqe.opcode(), cqe.error().1), (cqe_opcode::REQ_ERR, syndrome), "{wqe:?}: {:?}", cqe.error());
        recovers(&rig, &mut d);
    }
    let unmodelled = rig.nic.unmodelled.list();
    assert_eq!(unmodelled.len(), 253, "every opcode that is not modelled is told");
}

#[test]
fn send_wqes_longer_than_what_was_rung() {
    let (rig, mut d) = echo();
    for ds in [0u32, 5, 63] {
        let mut raw = Wqe::send(&[0; 18]).signalled().bytes(0, 1);
        ViewMut::<WqeCtrl>::new(&mut raw).set(WqeCtrl::ds, ds);
        d.channels[0].sq.post_raw(&raw[..64.min(raw.len())]);
        d.channels[0].sq.ring();
        rig.run();
        assert_eq!(d.reap(0)[0].error().1, cqe_syndrome::LOCAL_QP_OP, "ds {ds}");
        recovers(&rig, &mut d);
    }
}

#[test]
fn counters_that_jump() {
    let (rig, mut d) = echo();
    for jump in [65u16, 1000, 0x7fff, 0x8000, 0xffff] {
        let counter = d.channels[0].sq.producer.wrapping_add(jump);
        d.channels[0].sq.publish(counter);
        d.channels[0].sq.doorbell();
        assert!(rig.run() < 10, "a jump is not work");
        assert_eq!(d.channels[0].sq_cq.drain()[0].error().1, cqe_syndrome::LOCAL_QP_OP, "jump {jump:#x}");
        recovers(&rig, &mut d);
    }
    // A receive counter that jumps: no buffers, and the next right one counts.
    let frame = frames::ethernet(d.mac, d.mac, 0x88b5, &[1; 60]);
    let right = d.channels[0].rq.producer;
    while !d.receive().is_empty() {}
    let arrives = |d: &mut Netdev, counter: u16| {
        d.channels[0].rq.publish(counter);
        for _ in 0..100 {
            d.send(&frame);
            rig.run();
        }
        let n = d.channels[0].rq_cq.drain().len();
        d.reap(0);
        n
    };
    let posted = arrives(&mut d, right);
    for jump in [65, 0x8000, 0xffff] {
        assert_eq!(arrives(&mut d, right.wrapping_add(jump)), 0, "jump {jump:#x}");
    }
    assert_eq!(arrives(&mut d, right.wrapping_add(64)), 64, "after {posted}");
}

#[test]
fn receive_wqes_with_wild_contents() {
    let [base, low_end, _, end] = Rig::loopback().memory[0].edges();
    let good = base + 8 * PAGE;
    let prot = Some(cqe_syndrome::LOCAL_PROT);
    // What a buffer says, and the error that it earns; without an error the
    // frame is dropped or goes where the buffer says.
    let cases: [(u32, u64, u32, Option<u8>); 9] = [
        (0, good, 2048, prot),
        (1, low_end - 1, 2048, prot),
        (1, end, 2048, prot),
        (1, 0, 2048, prot),
        (1, u64::MAX, 2048, prot),
        (1, u64::MAX - 10, 0, prot),
        (1, 1 << 63, 2048, prot),
        (1, good, 10, None),
        (1, good, 0, None),
    ];
    for (valid, addr, len, error) in cases {
        let (rig, mut d) = echo();
        let rq = &d.channels[0].rq;
        let key = if valid == 1 { d.lkey } else { 0xbad0 };
        d.function.mem.put(rq.wqe_at(0), &segment(key, addr, len));
        let frame = frames::ethernet(d.mac, d.mac, 0x88b5, &[1; 60]);
        d.send(&frame);
        rig.run();
        let got = d.channels[0].rq_cq.drain();
        let rqn = d.channels[0].rq.number;
        match error {
            Some(e) => {
                assert_eq!(got[0].error().1, e, "{addr:#x}+{len:#x}");
                assert_eq!(got.len(), 64, "the others are flushed");
                assert_eq!(d.function.rq_state(rqn).unwrap(), state::ERR);
            }
            None => assert_eq!(d.function.rq_state(rqn).unwrap(), state::RDY),
        }
        assert!(rig.memory[0].canary_is_whole());
    }
}

#[test]
fn rings_and_records_outside_memory() {
    let (rig, d) = echo();
    let f = &d.function;
    let c = &d.channels[0];
    let end = f.mem.edges()[3];
    for (ring, record) in [(0, c.sq.record()), (end, c.sq.record()), (1u64 << 62, 0), (0, !0xfff)] {
        let out: sfnic_test_driver::Out<CreateSqOut> = f
            .cmd_with(Opcode::CREATE_SQ, &ring.to_be_bytes(), 0, |i: &mut ViewMut<'_, CreateSqIn>| {
                let mut s = i.sub(CreateSqIn::ctx);
                s.set(Sqc::cqn, c.sq_cq.number).set(Sqc::flush_in_error_en, 1);
                let mut wq = s.sub(Sqc::wq);
                wq.set(Wq::wq_type, 1).set(Wq::pd, d.pd).set(Wq::uar_page, d.uar).set(Wq::log_wq_stride, 6);
                wq.set(Wq::log_wq_sz, 4).set64(Wq::dbr_addr, record);
            })
            .unwrap();
        let sqn = out.get(CreateSqOut::sqn);
        f.modify_sq(sqn, state::RST, state::RDY).unwrap();
        f.window.ring(d.uar, 0x800, &sfnic_test_driver::sq::doorbell(sqn, 1));
        assert!(rig.run() < 10);
        f.destroy(Opcode::DESTROY_SQ, sqn).unwrap();
    }
    // Completions and events with nowhere to go.
    let eq: sfnic_test_driver::Out<CreateEqOut> = f
        .cmd_with(Opcode::CREATE_EQ, &end.to_be_bytes(), 0, |i: &mut ViewMut<'_, CreateEqIn>| {
            i.sub(CreateEqIn::eq_context_entry).set(Eqc::log_eq_size, 4).set(Eqc::uar_page, d.uar);
            i.set_bytes(CreateEqIn::event_bitmask, &u64::MAX.to_be_bytes());
        })
        .unwrap();
    assert!(f.set_port(false).is_ok() && f.set_port(true).is_ok());
    f.destroy(Opcode::DESTROY_EQ, eq.get(CreateEqOut::eq_number)).unwrap();
    nop_works(f);
}

#[test]
fn what_others_refer_to_cannot_be_destroyed() {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    let mut d = pf.netdev(&NetdevConfig { channels: 2, ..NetdevConfig::default() }).unwrap();
    let f = &d.function;
    let c = &d.channels[0];
    let hash = Hash { key: [3; 40], fields: 0xf, ipv6: true, udp: true };
    let rqt = f.create_rqt(&[c.rq.number]).unwrap();
    let tir = f.create_hash_tir(d.td, rqt, &hash).unwrap();
    // One table leads to another, by an entry and by its misses.
    let counter = f.alloc_flow_counter().unwrap();
    let leaf = f.create_table(table_type::NIC_RX, None, 9, 2).unwrap();
    let root = f.create_table(table_type::NIC_RX, None, 1, 2).unwrap();
    let group = f.create_group(root, (0, 3), criteria::OUTER, |_| ()).unwrap();
    let mut set = [0; SetActionIn::SIZE];
    ViewMut::<SetActionIn>::new(&mut set).set(SetActionIn::action_type, 1).set(SetActionIn::field, 0x51);
    let modify: sfnic_test_driver::Out<AllocModifyHeaderContextOut> = f
        .cmd_with(Opcode::ALLOC_MODIFY_HEADER_CONTEXT, &set, 0, |i: &mut ViewMut<'_, AllocModifyHeaderContextIn>| {
            i.set(AllocModifyHeaderContextIn::num_of_actions, 1);
        })
        .unwrap();
    let modify = modify.get(AllocModifyHeaderContextOut::modify_header_id);
    let flow = Flow {
        action: action::MODIFY_HEADER,
        modify,
        counters: vec![counter],
        ..Flow::to(&[Destination::Table(leaf.id)])
    };
    f.create_entry(root, group, 0, &flow, |_| ()).unwrap();
    f.create_entry(root, group, 1, &Flow::to(&[Destination::Tir(tir)]), |_| ()).unwrap();

    let held = |what: &str, r: Result<(), CmdError>| {
        let e = r.expect_err(what);
        assert!(e.is(Status::BadResState) && e.because(Syndrome::OBJECT_REFERENCED), "{what}: {e}");
    };
    for (opcode, number) in [
        (Opcode::DEALLOC_UAR, d.uar),
        (Opcode::DEALLOC_PD, d.pd),
        (Opcode::DEALLOC_TRANSPORT_DOMAIN, d.td),
        (Opcode::DESTROY_EQ, d.eq.number),
        (Opcode::DESTROY_CQ, c.sq_cq.number),
        (Opcode::DESTROY_CQ, c.rq_cq.number),
        (Opcode::DESTROY_TIS, d.tisn),
        (Opcode::DESTROY_RQ, c.rq.number),
        (Opcode::DESTROY_RQT, rqt),
        (Opcode::DESTROY_TIR, tir),
        (Opcode::DESTROY_TIR, d.tirn),
        (Opcode::DEALLOC_Q_COUNTER, d.counters),
        (Opcode::DEALLOC_FLOW_COUNTER, counter),
        (Opcode::DEALLOC_MODIFY_HEADER_CONTEXT, modify),
    ] {
        held(&opcode.to_string(), f.destroy(opcode, number));
    }
    held("the table that an entry names", f.destroy_table(leaf));
    held("a table with groups", f.destroy_table(root));
    held("a group with entries", f.destroy_group(root, group));
    // In the right order everything goes.
    f.delete_entry(root, 0).unwrap();
    f.delete_entry(root, 1).unwrap();
    f.destroy_group(root, group).unwrap();
    f.destroy_table(root).unwrap();
    f.destroy_table(leaf).unwrap();
    for (opcode, number) in [
        (Opcode::DEALLOC_MODIFY_HEADER_CONTEXT, modify),
        (Opcode::DEALLOC_FLOW_COUNTER, counter),
        (Opcode::DESTROY_TIR, tir),
        (Opcode::DESTROY_RQT, rqt),
    ] {
        f.destroy(opcode, number).unwrap_or_else(|e| panic!("{opcode}: {e}"));
    }
    // And the rest works as before: a stranger's frame goes round by the wire.
    f.set_promiscuous(true).unwrap();
    let frame = frames::ethernet([4; 6], d.mac, 0x88b5, &[1; 60]);
    d.send(&frame);
    rig.run();
    assert_eq!(d.receive().len(), 1);
}

#[test]
fn a_user_context_names_its_own_objects_only() {
    let rig = Rig::loopback();
    let f = rig.pf(0).bring_up().unwrap();
    let pds: Vec<u32> = [0, 7, 8]
        .into_iter()
        .map(|uid| {
            f.act_as(uid);
            f.alloc_pd().unwrap()
        })
        .collect();
    f.act_as(7);
    assert!(f.destroy(Opcode::DEALLOC_PD, pds[0]).unwrap_err().because(Syndrome::FOREIGN_OBJECT));
    assert!(f.destroy(Opcode::DEALLOC_PD, pds[2]).unwrap_err().because(Syndrome::FOREIGN_OBJECT));
    f.destroy(Opcode::DEALLOC_PD, pds[1]).unwrap();
    f.act_as(0);
    f.destroy(Opcode::DEALLOC_PD, pds[2]).unwrap();
}

#[test]
fn a_message_for_hundreds_of_vports_keeps_nobody_waiting() {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    pf.set_port(true).unwrap();
    let id = |i| rig.sf_id(0, i);
    let mut sf = vec![];
    for i in 0..2 {
        pf.add_sf(id(i)).unwrap();
        sf.push(rig.sf(0, i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
    }
    let mut fdb = pf.create_fdb(4).unwrap();
    let many = [Destination::Vport(id(1)); 256];
    pf.forward(&mut fdb, id(0), &Flow::to(&many)).unwrap();
    pf.forward(&mut fdb, id(1), &Flow::to(&[Destination::Vport(id(0))])).unwrap();
    let flow = frames::Flow4::new([2; 6], [4; 6]);
    // Thousands of segments, each of them copied 256 times.
    for _ in 0..2 {
        sf[0].send_lso(0, &flow.tcp(1, &[]), &frames::pattern(1, 60_000), 16);
    }
    sf[1].send(&flow.udp(b"others"));
    let counted = || rig.plane(0, id(1)).unwrap().vport.rx.packets();
    rig.nic.run(0);
    assert!(counted() <= 1 << 15, "one message: {}", counted());
    // Another queue's turn comes before the second message.
    rig.nic.run(0);
    assert_eq!(sf[0].receive().len(), 1);
    rig.run();
    assert_eq!(sf[0].reap(0).len(), 2);
}
