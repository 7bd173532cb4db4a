//! A window reaches its own function: nothing that one SF's driver writes
//! changes anything of another's, and windows without an SF are not there.

use sfnic_device_model::CardConfig;
use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::entries::{CqDoorbell, EqDoorbell, cqe_opcode, cqe_syndrome};
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Opcode, Status, Syndrome};
use sfnic_test_driver::objects::state;
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::steering::{Flow, criteria, table_type};
use sfnic_test_driver::{Destination, Function, Netdev, NetdevConfig, Rig, Wqe, cq, eq, sq};

/// A manager, and two SFs that are not joined. B has more of everything, so
/// that its last numbers name nothing of A's.
struct Pair {
    rig: Rig,
    pf: Function,
    a: Netdev,
    b: Netdev,
}

fn pair() -> Pair {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    for i in 0..2 {
        pf.add_sf(rig.sf_id(0, i)).unwrap();
    }
    let a = rig.sf(0, 0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let b = rig.sf(0, 1).bring_up().unwrap();
    for _ in 0..3 {
        // One more of each; the numbers that count are the last ones.
        let (uar, pd, td) = (b.alloc_uar().unwrap(), b.alloc_pd().unwrap(), b.alloc_td().unwrap());
        let key = b.create_mkey(pd).unwrap();
        let eq = b.create_eq(uar, 0, 4, 0).unwrap();
        let cq = b.create_cq(uar, eq.number, 4).unwrap();
        let tis = b.create_tis(td).unwrap();
        b.create_sq(uar, pd, cq.number, tis, 4).unwrap();
        b.alloc_q_counter().unwrap();
        let rq = b.create_rq((pd, key), cq.number, 0, 4, 2048).unwrap();
        let rqt = b.create_rqt(&[rq.number]).unwrap();
        let hash = sfnic_test_driver::objects::Hash { key: [1; 40], fields: 0xf, ipv6: false, udp: false };
        let tir = b.create_hash_tir(td, rqt, &hash).unwrap();
        b.receive_to(tir).unwrap();
        b.alloc_flow_counter().unwrap();
    }
    let b = b.netdev(&NetdevConfig::default()).unwrap();
    Pair { rig, pf, a, b }
}

impl Pair {
    fn bad_doorbells(&self, index: u16) -> u64 {
        self.rig.plane(0, self.rig.sf_id(0, index)).unwrap().bad_doorbells.get()
    }

    /// All that can be seen of B.
    fn state_of_b(&self) -> String {
        let id = self.rig.sf_id(0, 1);
        let p = self.rig.plane(0, id).unwrap();
        let c = &self.b.channels[0];
        let sqs = p.sqs.pin();
        let cqs = p.cqs.pin();
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {}",
            self.rig.objects(0, id),
            sqs.get(&c.sq.number).unwrap().queue.snapshot(),
            cqs.get(&c.sq_cq.number).unwrap().queue.snapshot(),
            cqs.get(&c.rq_cq.number).unwrap().queue.snapshot(),
            p.eqs.pin().get(&self.b.eq.number).unwrap().queue.snapshot(),
            self.b.function.rq_state(c.rq.number),
            self.bad_doorbells(1),
        )
    }

    /// B sends itself a frame.
    fn b_works(&mut self) {
        let id = self.rig.sf_id(0, 1);
        let mut fdb = self.pf.create_fdb(2).unwrap();
        self.pf.forward(&mut fdb, id, &Flow::to(&[Destination::Vport(id)])).unwrap();
        self.b.function.take_own_frames(self.b.tirn, true).unwrap();
        self.b.send(&[3; 77]);
        self.rig.run();
        assert_eq!(self.b.receive()[0].bytes, [3; 77]);
        assert_eq!(self.b.reap(0).len(), 1);
    }
}

/// Every doorbell that names a queue of B.
fn doorbells(b: &Netdev) -> Vec<(u64, Vec<u8>)> {
    let c = &b.channels[0];
    let mut cq_arm = [0; 8];
    ViewMut::<CqDoorbell>::new(&mut cq_arm).set(CqDoorbell::cqn, c.sq_cq.number);
    let mut eq_arm = [0; 4];
    ViewMut::<EqDoorbell>::new(&mut eq_arm).set(EqDoorbell::eqn, b.eq.number);
    let sq_ring = sq::doorbell(c.sq.number, 1);
    vec![
        (sq::DOORBELL, sq_ring.to_vec()),
        (sq::DOORBELL + 0x100, sq_ring.to_vec()),
        (sq::DOORBELL + 4, sq_ring[4..].to_vec()),
        (cq::DOORBELL, cq_arm.to_vec()),
        (cq::DOORBELL + 4, cq_arm[4..].to_vec()),
        (eq::ARM, eq_arm.to_vec()),
        (eq::UPDATE, eq_arm.to_vec()),
    ]
}

#[test]
fn doorbells_that_name_anothers_queues_are_counted_and_do_nothing() {
    let mut t = pair();
    // B has work that it has not rung for.
    t.b.channels[0].sq.post(&Wqe::nop().signalled());
    t.b.channels[0].sq.publish(1);
    let before = t.state_of_b();
    let window = t.a.function.window.clone();
    let rings = doorbells(&t.b);
    // On A's own page, on the number of B's page, and on a page that nobody has.
    for page in [t.a.uar, t.b.uar, 50] {
        for (offset, data) in &rings {
            let counted = t.bad_doorbells(0);
            window.ring(page, *offset, data);
            assert_eq!(t.bad_doorbells(0), counted + 1, "page {page} offset {offset:#x}");
            assert_eq!(t.rig.run(), 0);
        }
    }
    assert_eq!(t.state_of_b(), before);
    t.b.channels[0].sq.doorbell();
    t.rig.run();
    assert_eq!(t.b.reap(0).len(), 1, "its own window rings");
}

#[test]
fn equal_numbers_are_different_queues() {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    let mut sfs: Vec<Netdev> = (0..2)
        .map(|i| {
            pf.add_sf(rig.sf_id(0, i)).unwrap();
            rig.sf(0, i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap()
        })
        .collect();
    assert_eq!(sfs[0].channels[0].sq.number, sfs[1].channels[0].sq.number);
    for sf in &mut sfs {
        sf.channels[0].sq.post(&Wqe::nop().signalled());
        sf.channels[0].sq.publish(1);
    }
    sfs[0].channels[0].sq.doorbell();
    rig.run();
    assert_eq!((sfs[0].reap(0).len(), sfs[1].reap(0).len()), (1, 0));
}

#[test]
fn commands_that_name_anothers_objects_are_refused() {
    let mut t = pair();
    let before = t.state_of_b();
    let (a, b) = (&t.a.function, &t.b);
    let c = &b.channels[0];
    let absent = |what: &str, r: Result<(), sfnic_test_driver::CmdError>| {
        let e = r.expect_err(what);
        assert!(e.is(Status::BadRes) && e.because(Syndrome::NO_SUCH_OBJECT), "{what}: {e}");
    };
    for (opcode, number) in [
        (Opcode::DESTROY_SQ, c.sq.number),
        (Opcode::DESTROY_RQ, c.rq.number),
        (Opcode::DESTROY_CQ, c.rq_cq.number),
        (Opcode::DESTROY_EQ, b.eq.number),
        (Opcode::DESTROY_TIR, b.tirn),
        (Opcode::DESTROY_TIS, b.tisn),
        (Opcode::DESTROY_RQT, 3),
        (Opcode::DESTROY_MKEY, b.lkey / 0x100),
        (Opcode::DEALLOC_PD, b.pd),
        (Opcode::DEALLOC_TRANSPORT_DOMAIN, b.td),
        (Opcode::DEALLOC_UAR, b.uar),
        (Opcode::DEALLOC_Q_COUNTER, b.counters),
        (Opcode::DEALLOC_FLOW_COUNTER, 3),
        (Opcode::QUERY_EQ, b.eq.number),
        (Opcode::QUERY_CQ, c.sq_cq.number),
        (Opcode::MODIFY_CQ, c.sq_cq.number),
        (Opcode::QUERY_SQ, c.sq.number),
        (Opcode::QUERY_RQ, c.rq.number),
        (Opcode::MODIFY_TIS, b.tisn),
        (Opcode::MODIFY_TIR, b.tirn),
        (Opcode::MODIFY_RQT, 3),
    ] {
        let row = sfnic_device_model::cmd::table::find(opcode).unwrap();
        let mut input = vec![0; row.input.size()];
        ViewMut::<DestroyTirIn>::new(&mut input).set(DestroyTirIn::tirn, number);
        sfnic_test_driver::command::set_opcode(&mut input, opcode);
        let answer = a.cmdq.exec(&input, row.output.size()).unwrap();
        absent(&opcode.to_string(), sfnic_test_driver::command::check(&answer));
    }
    absent("MODIFY_SQ", a.modify_sq(c.sq.number, state::RDY, state::ERR));
    absent("MODIFY_RQ", a.modify_rq(c.rq.number, state::RDY, state::ERR));
    absent("QUERY_Q_COUNTER", a.out_of_buffer(b.counters).map(drop));
    absent("QUERY_FLOW_COUNTER", a.flow_counter(3).map(drop));
    assert_eq!(t.state_of_b(), before);
    t.b_works();
}

#[test]
fn new_objects_cannot_be_built_on_anothers() {
    let mut t = pair();
    let before = t.state_of_b();
    let (f, a, b) = (&t.a.function, &t.a, &t.b);
    let (ac, bc) = (&a.channels[0], &b.channels[0]);
    let own = t.rig.objects(0, t.rig.sf_id(0, 0));
    let uar = |e: sfnic_test_driver::CmdError| e.because(Syndrome::UAR_RANGE);
    assert!(uar(f.create_eq(b.uar, 0, 4, 0).err().unwrap()));
    assert!(uar(f.create_cq(b.uar, a.eq.number, 4).err().unwrap()));
    assert!(uar(f.create_sq(b.uar, a.pd, ac.sq_cq.number, a.tisn, 4).err().unwrap()));
    let table = Flow::to(&[Destination::Table(b.table.id)]);
    let refused = [
        f.create_cq(a.uar, b.eq.number, 4).err(),
        f.create_sq(a.uar, b.pd, ac.sq_cq.number, a.tisn, 4).err(),
        f.create_sq(a.uar, a.pd, bc.sq_cq.number, a.tisn, 4).err(),
        f.create_sq(a.uar, a.pd, ac.sq_cq.number, b.tisn, 4).err(),
        f.create_rq((b.pd, a.lkey), ac.rq_cq.number, 0, 4, 2048).err(),
        f.create_rq((a.pd, a.lkey), bc.rq_cq.number, 0, 4, 2048).err(),
        f.create_rq((a.pd, a.lkey), ac.rq_cq.number, b.counters, 4, 2048).err(),
        f.create_tis(b.td).err(),
        f.create_mkey(b.pd).err(),
        f.create_rqt(&[ac.rq.number, bc.rq.number]).err(),
        f.create_direct_tir(a.td, bc.rq.number).err(),
        f.create_direct_tir(b.td, ac.rq.number).err(),
        f.create_entry(a.table, 1, 1, &Flow::to(&[Destination::Tir(b.tirn)]), |_| ()).err(),
        f.create_entry(a.table, 1, 1, &table, |_| ()).err(),
        f.create_group(b.table, (0, 0), 0, |_| ()).err(),
        f.set_root(b.table).err(),
        f.destroy_table(b.table).err(),
    ];
    for (i, e) in refused.into_iter().enumerate() {
        let e = e.unwrap_or_else(|| panic!("case {i} was taken"));
        assert!(e.is(Status::BadRes) || e.is(Status::BadParam), "case {i}: {e}");
    }
    assert_eq!(t.rig.objects(0, t.rig.sf_id(0, 0)), own, "refusals leave nothing");
    assert_eq!(t.state_of_b(), before);
    t.b_works();
}

#[test]
fn anothers_memory_key_reads_nothing() {
    let mut t = pair();
    let at = t.a.function.mem.alloc(4096);
    t.a.post(0, &Wqe::send(&[]).data(t.b.lkey, at, 100).signalled());
    t.rig.run();
    let cqes = t.a.reap(0);
    assert_eq!((cqes[0].opcode(), cqes[0].error().1), (cqe_opcode::REQ_ERR, cqe_syndrome::LOCAL_PROT));
}

#[test]
fn a_sub_function_manages_nobody() {
    let mut t = pair();
    let before = t.state_of_b();
    let (f, b, c) = (&t.a.function, t.rig.sf_id(0, 1), t.rig.sf_id(0, 2));
    let bad_op = |r: Result<(), sfnic_test_driver::CmdError>| r.unwrap_err().is(Status::BadOp);
    assert!(bad_op(f.alloc_sf(c)) && bad_op(f.dealloc_sf(b)) && bad_op(f.activate(b)) && bad_op(f.deactivate(b)));
    assert!(f.set_vport_up(b).unwrap_err().because(Syndrome::NOT_VPORT_GROUP_MANAGER));
    assert!(f.set_sf_mac(b, [2; 6]).unwrap_err().because(Syndrome::NOT_VPORT_GROUP_MANAGER));
    for kind in [table_type::FDB, table_type::INGRESS_ACL, table_type::EGRESS_ACL] {
        assert!(f.create_table(kind, None, 0, 2).unwrap_err().because(Syndrome::NOT_ESWITCH_MANAGER));
        assert!(f.create_table(kind, Some(b), 0, 2).unwrap_err().because(Syndrome::NOT_ESWITCH_MANAGER));
    }
    let caps = f.cmd::<QueryHcaCapIn, QueryHcaCapOut>(Opcode::QUERY_HCA_CAP, |i| {
        i.set(QueryHcaCapIn::op_mod, 1).set(QueryHcaCapIn::other_function, 1);
        i.set(QueryHcaCapIn::function_id, b.into());
    });
    assert!(caps.unwrap_err().because(Syndrome::OTHER_FUNCTION));
    let rx = f.create_table(table_type::NIC_RX, None, 0, 2).unwrap();
    let group = f.create_group(rx, (0, 1), criteria::MISC, |_| ()).unwrap();
    assert!(f.create_entry(rx, group, 0, &Flow::to(&[Destination::Vport(b)]), |_| ()).is_err());
    assert_eq!(t.state_of_b(), before);
    t.b_works();
}

#[test]
fn windows_without_a_function_are_not_there() {
    let t = pair();
    let id = t.rig.sf_id(0, 3);
    t.pf.alloc_sf(id).unwrap();
    let before = (t.state_of_b(), t.rig.nic.object_counts());
    let CardConfig { log_sf_window, max_sfs, .. } = t.rig.card_at(0).config;
    // Never made, made but not active, the last one.
    for index in [2, 3, max_sfs - 1] {
        let w = t.rig.sf(0, index).window;
        let size = 1u64 << log_sf_window;
        for at in [0, 4, 0x10, 0x14, 0x18, 0x1fc, 0x1000, 0x1010, 0x2010, 0x4000, 0x4800, size - 4] {
            assert_eq!(w.read32(at), u32::MAX, "window {index} offset {at:#x}");
            for value in [0, 1, 0x700, u32::MAX] {
                w.write32(at, value);
            }
            w.write(at, &[0xff; 8]);
            assert_eq!(w.read32(at), u32::MAX, "window {index} offset {at:#x}");
        }
    }
    assert_eq!(t.rig.run(), 0);
    assert_eq!((t.state_of_b(), t.rig.nic.object_counts()), before);
    // What was written while the window was closed is not there when it opens.
    t.pf.activate(id).unwrap();
    assert_eq!(t.rig.plane(0, id).map(|p| p.bad_doorbells.get()), None);
    let late = t.rig.sf(0, 3);
    late.bring_up().unwrap();
}

#[test]
fn the_end_of_a_bar_is_the_end() {
    let t = pair();
    let (nic, card) = (&t.rig.nic, t.rig.card_at(0));
    let bar2 = card.config.bar2_size();
    for (bar, at) in [(2, bar2), (2, u64::MAX - 7), (0, 1 << 22), (0, u64::MAX - 3), (1, 0), (3, 0), (5, 0x1000)] {
        let mut b = [0; 8];
        nic.bar_read(card, bar, at, &mut b);
        assert_eq!(b, [0xff; 8], "bar {bar} offset {at:#x}");
        nic.bar_write(card, bar, at, &[0; 8]);
    }
}

#[test]
fn a_card_reaches_the_memory_of_its_own_guest_only() {
    // Two guests: equal addresses are different memory.
    let cards = (0..2).map(|i| Rig::card(i, Far::Loopback)).collect();
    let rig = Rig::new(cards, MEMORY);
    let all = |card: usize| {
        let [start, end, ..] = rig.memory[card].edges();
        rig.memory[card].get(start, (end - start) as usize)
    };
    let before = all(1);
    let pf = rig.pf(0).bring_up().unwrap();
    pf.set_port(true).unwrap();
    let mut a = pf.netdev(&NetdevConfig::default()).unwrap();
    for n in 0..8 {
        a.send(&[n; 300]);
        rig.run();
    }
    assert_eq!(a.reap(0).len(), 8);
    assert!(all(1) == before, "the first guest's card wrote into the second's memory");
    // Without memory of its own it has none, whatever the other guest has.
    rig.unmap(0);
    a.send(&[9; 300]);
    let mine = all(0);
    rig.run();
    assert!(all(0) == mine && all(1) == before);
}
