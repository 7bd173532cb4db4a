//! Slices that are virtual functions of other guests: their life, their memory, and that they
//! reach nothing that is not theirs.

use std::sync::Arc;

use proptest::prelude::*;
use sfnic_device_model::control::vhca::{self, TRANSITIONS};
use sfnic_device_model::endpoint::Endpoint;
use sfnic_device_model::nic::Manager;
use sfnic_device_model::slice::{Change, Flavour, Link, OpState, Spec, State};
use sfnic_firmware_cmds::entries::{Eqe, cqe_opcode, event};
use sfnic_firmware_cmds::layout::{Layout, View, ViewMut};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Opcode, Status};
use sfnic_test_driver::memory::BASE;
use sfnic_test_driver::rig::{MEMORY, Recorder};
use sfnic_test_driver::{CmdError, Function, GuestMemory, Netdev, NetdevConfig, Rig, Wqe, frames};

/// Where the init segment says "initializing".
const INITIALIZING: u64 = 0x1fc;
const MAC: [u8; 6] = [2, 0, 0, 0, 0x88, 0x88];

fn spec(sfnum: u32, index: u32) -> Spec {
    Spec {
        flavour: Flavour::Passthrough,
        pfnum: 0,
        sfnum: Some(sfnum),
        index: Some(index),
        vectors: Some(8),
        socket: None,
    }
}

fn set(rig: &Rig, index: u32, state: State) -> Result<(), String> {
    rig.nic.slice_set(index, &Change { state: Some(state), ..Change::default() }).map_err(|e| e.to_string())
}

/// An active slice and its guest, whose interface is up.
fn guest(rig: &Rig, sfnum: u32, mac: [u8; 6]) -> (Netdev, Arc<GuestMemory>, Arc<Recorder>) {
    let index = rig.nic.slice_add(&spec(sfnum, 100 + sfnum)).unwrap();
    let change = Change { hw_addr: Some(mac), state: Some(State::Active), ..Change::default() };
    rig.nic.slice_set(index, &change).unwrap();
    let (vf, memory, irq) = rig.guest(index);
    (vf.bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap(), memory, irq)
}

fn is_there(f: &Function) -> bool {
    f.window.read32(INITIALIZING) >> 31 == 0
}

#[test]
fn a_slice_is_a_function_of_another_guest() {
    let rig = Rig::managed(Manager::Embedded, MEMORY);
    let index = rig.nic.slice_add(&spec(88, 100)).unwrap();
    let endpoint = rig.nic.endpoint(index).unwrap();
    let mut id = [0; 4];
    endpoint.pci.lock().read(0, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x101e_15b3);
    let (vf, ..) = rig.guest(index);
    // The driver that comes early reads that it has to wait.
    assert!(!is_there(&vf));
    vf.window.write32(0x18, 1);
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
    // The host that the card is in hears nothing of it.
    let pf = rig.pf(0).bring_up().unwrap();
    let number = u16::try_from(rig.nic.slice(100).unwrap().port.unwrap()).unwrap();
    assert_eq!(number, rig.sf_id(0, 8), "behind the SFs of the host");
    assert!(pf.vhca_state(number).unwrap_err().is(Status::BadParam));
    assert!(pf.vhca_arm(number).unwrap_err().is(Status::BadParam));

    rig.nic.slice_set(100, &Change { hw_addr: Some(MAC), ..Change::default() }).unwrap();
    set(&rig, 100, State::Active).unwrap();
    assert!(is_there(&vf));
    assert_eq!(rig.states(100), (State::Active, OpState::Detached));
    vf.cmdq.attach();
    let vf = vf.bring_up().unwrap();
    assert_eq!(vf.mac().unwrap(), MAC);
    assert_eq!(vf.cap(CmdHcaCap::vport_group_manager).unwrap(), 0);
    assert_eq!(vf.cap(CmdHcaCap::eswitch_manager).unwrap(), 0);
    assert_eq!(rig.states(100), (State::Active, OpState::Attached));
    let uar = vf.alloc_uar().unwrap();
    // Its vectors are its own: eight, whatever the card has.
    assert!(vf.create_eq(uar, 8, 4, 0).err().expect("a refusal").is(Status::BadParam));
    assert!(vf.create_eq(uar, 7, 4, 0).is_ok());

    // It is taken back: nothing of it passes, and it is free when its guest lets go.
    set(&rig, 100, State::Inactive).unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
    let why = set(&rig, 100, State::Active).unwrap_err();
    assert!(why.contains("its guest has not let go of it yet"), "{why}");
    assert!(rig.nic.slice_del(100).unwrap_err().to_string().contains("a reset of its device ends that"));
    // Resets of the card's host are nothing to it.
    rig.reset(0);
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
    vf.shut_down().unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
    assert!(!is_there(&vf));
    rig.nic.slice_del(100).unwrap();
    assert!(rig.nic.endpoint(100).is_none());
    assert!(!is_there(&vf), "a guest that is still there finds nothing behind its device");
}

#[test]
fn frames_go_from_guest_to_guest_and_to_the_host() {
    let rig = Rig::managed(Manager::Embedded, MEMORY);
    let host = rig.pf(0).bring_up().unwrap();
    host.set_port(true).unwrap();
    let mut host = host.netdev(&NetdevConfig::default()).unwrap();
    let mut far = rig.pf(1).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let (mut a, _, irq) = guest(&rig, 1, [2, 0, 0, 0, 0, 1]);
    let (mut b, ..) = guest(&rig, 2, [2, 0, 0, 0, 0, 2]);
    let frame = |to: [u8; 6], from: [u8; 6], with: u8| frames::Flow4::new(to, from).udp(&[with; 64]);
    for (n, to) in [b.mac, host.mac, far.mac].into_iter().enumerate() {
        a.send(&frame(to, a.mac, n as u8));
    }
    rig.run();
    for (n, dev) in [&mut b, &mut host, &mut far].into_iter().enumerate() {
        let got = dev.receive();
        assert_eq!(got.len(), 1, "{n}");
        assert!(got[0].bytes.ends_with(&[n as u8; 64]));
    }
    host.send(&frame(a.mac, host.mac, 9));
    far.send(&frame(b.mac, far.mac, 9));
    rig.run();
    assert_eq!((a.receive().len(), b.receive().len()), (1, 1));
    // Its completions are interrupts of its own machine.
    let mine = irq.count(1);
    a.channels[0].rq_cq.arm();
    a.eq.arm();
    host.send(&frame(a.mac, host.mac, 9));
    rig.run();
    assert_eq!((irq.count(1), rig.irqs[0].count(1)), (mine + 1, 0));
    a.receive();
    // A reset of the card's host ends its part, and none of the others'.
    rig.reset(0);
    a.send(&frame(b.mac, a.mac, 3));
    let change = Change { link: Some(Link::Up), ..Change::default() };
    rig.nic.slice_set(101, &change).unwrap();
    rig.nic.slice_set(102, &change).unwrap();
    rig.run();
    assert_eq!(b.receive().len(), 1);
}

#[test]
fn each_guest_is_reached_in_its_own_memory() {
    let rig = Rig::managed(Manager::Embedded, MEMORY);
    rig.pf(0).bring_up().unwrap().set_port(true).unwrap();
    rig.pf(1).bring_up().unwrap().set_port(true).unwrap();
    let (mut a, memory_a, _) = guest(&rig, 1, [2, 0, 0, 0, 0, 1]);
    let mark = memory_a.mark();
    let (mut b, memory_b, _) = guest(&rig, 2, [2, 0, 0, 0, 0, 2]);
    // The same addresses, in both and in the host.
    assert_eq!(memory_b.mark(), mark);
    let all = |m: &GuestMemory| m.get(BASE, (mark - BASE) as usize);
    let (host, idle) = (all(&rig.memory[0]), all(&memory_a));
    for n in 0..20 {
        b.send(&frames::Flow4::new([2, 0, 0, 0, 0, 9], b.mac).udp(&[n; 64]));
        rig.run();
        b.reap(0);
    }
    assert!(all(&memory_a) == idle, "what a guest does changes nothing of another's memory");
    assert!(all(&rig.memory[0]) == host, "nor of the host's");
    // What one sends is its own, though the other has a secret at the same address.
    let at = a.channels[0].buffer_at(0);
    memory_a.put(at, &[0x5e; 2048]);
    b.send(&frames::Flow4::new(a.mac, b.mac).udp(&[1; 100]));
    rig.run();
    let got = a.receive();
    assert!(got[0].bytes.ends_with(&[1; 100]));
    // Where its memory is taken away, its queues fail and nobody else's.
    rig.nic.endpoint(102).unwrap().dma.replace(Arc::default());
    b.send(&[1; 64]);
    rig.run();
    a.send(&frames::Flow4::new([2, 0, 0, 0, 0, 9], a.mac).udp(&[1; 64]));
    rig.run();
    assert_eq!(a.reap(0).len(), 1);
}

/// A command about somebody else.
fn other(f: &Function, opcode: Opcode, input: &[u8], out: usize) -> Result<(), CmdError> {
    let mut input = input.to_vec();
    sfnic_test_driver::command::set_opcode(&mut input, opcode);
    f.cmdq.exec(&input, out).and_then(|out| sfnic_test_driver::command::check(&out))
}

#[test]
fn a_guest_reaches_no_other_function() {
    let rig = Rig::managed(Manager::Embedded, MEMORY);
    let pf = rig.pf(0).bring_up().unwrap();
    pf.set_port(true).unwrap();
    let _pf = pf.netdev(&NetdevConfig::default()).unwrap();
    let (a, ..) = guest(&rig, 1, [2, 0, 0, 0, 0, 1]);
    let (mut b, ..) = guest(&rig, 2, [2, 0, 0, 0, 0, 2]);
    let ids = [0, rig.sf_id(0, 0), rig.sf_id(0, 8), rig.sf_id(0, 9)];
    let before: Vec<String> = ids.iter().map(|id| format!("{:?}", rig.objects(0, *id))).collect();
    let vports = format!("{:?}", rig.nic.slices());
    let f = &b.function;
    for id in ids {
        for (name, done) in [
            ("alloc", f.alloc_sf(id)),
            ("dealloc", f.dealloc_sf(id)),
            // Function 0 is itself.
            ("activate", if id == 0 { Err(CmdError::NoAnswer) } else { f.activate(id) }),
            ("deactivate", if id == 0 { Err(CmdError::NoAnswer) } else { f.deactivate(id) }),
            ("state", f.vhca_state(id).map(drop)),
            ("arm", f.vhca_arm(id)),
            ("address", f.set_sf_mac(id, [2, 0, 0, 0, 9, 9])),
            ("vport", f.set_vport_up(id)),
        ] {
            assert!(done.is_err(), "{name} of {id:#x}");
        }
        let mut caps = vec![0; QueryHcaCapIn::SIZE];
        ViewMut::<QueryHcaCapIn>::new(&mut caps)
            .set(QueryHcaCapIn::other_function, 1)
            .set(QueryHcaCapIn::function_id, id.into());
        assert!(other(f, Opcode::QUERY_HCA_CAP, &caps, 0x1010).is_err(), "caps of {id:#x}");
        let mut counters = vec![0; QueryVportCounterIn::SIZE];
        ViewMut::<QueryVportCounterIn>::new(&mut counters)
            .set(QueryVportCounterIn::other_vport, 1)
            .set(QueryVportCounterIn::vport_number, id.into());
        assert!(other(f, Opcode::QUERY_VPORT_COUNTER, &counters, 0x210).is_err(), "counters of {id:#x}");
    }
    assert!(f.create_fdb(4).is_err());
    // Numbers of queues, keys and pages name its own things; those of others are not there.
    let c = &a.channels[0];
    for (uar, data) in [(a.uar, sfnic_test_driver::sq::doorbell(c.sq.number, 1)), (300, [0; 8])] {
        f.window.ring(uar, sfnic_test_driver::sq::DOORBELL, &data);
    }
    rig.run();
    // Its window ends where its BAR does, and no other BAR is there.
    let endpoint = rig.nic.endpoint(102).unwrap();
    for (bar, at) in [(0, 1 << 20), (2, 0), (2, 8 << 18), (1, 0)] {
        let mut out = [0; 4];
        rig.nic.endpoint_read(&endpoint, bar, at, &mut out);
        assert_eq!(out, [0xff; 4], "BAR {bar} {at:#x}");
        rig.nic.endpoint_write(&endpoint, bar, at, &[0; 4]);
    }
    // The host's BAR does not lead to it either.
    let mut out = [0; 4];
    for index in 0..16u64 {
        rig.nic.bar_read(rig.card_at(0), 2, (index << 18) + INITIALIZING, &mut out);
        assert_eq!(out, [0xff; 4], "window {index}");
    }
    assert_eq!(before, ids.iter().map(|id| format!("{:?}", rig.objects(0, *id))).collect::<Vec<_>>());
    assert_eq!(vports, format!("{:?}", rig.nic.slices()));
    // A key of another function is none here: the frame ends in an error of its own queue.
    let foreign = a.lkey + (1 << 20);
    let at = b.channels[0].buffer_at(0);
    b.post(0, &Wqe::send(&[7; 18]).data(foreign, at, 46).signalled());
    rig.run();
    let failed = b.reap(0);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].opcode(), cqe_opcode::REQ_ERR);
}

#[test]
fn faults_strike_the_device_of_one_guest_alone() {
    let rig = Rig::managed(Manager::Embedded, MEMORY);
    let fault = |text: &str| rig.nic.fault_add(text.parse().unwrap()).unwrap();
    let (mut a, ..) = guest(&rig, 1, [2, 0, 0, 0, 0, 1]);
    let (mut b, ..) = guest(&rig, 2, [2, 0, 0, 0, 0, 2]);
    for index in [101, 102] {
        // Whatever becomes of the port.
        rig.nic.slice_set(index, &Change { link: Some(Link::Up), ..Change::default() }).unwrap();
    }
    let pass = |from: &mut Netdev, to: &mut Netdev| {
        from.send(&frames::Flow4::new(to.mac, from.mac).udp(&[7; 64]));
        rig.run();
        to.receive().len()
    };
    let config = |index| {
        let (mut id, endpoint) = ([0; 4], rig.nic.endpoint(index).unwrap());
        rig.nic.endpoint_config_read(&endpoint, 0, &mut id);
        u32::from_le_bytes(id)
    };
    assert_eq!((pass(&mut a, &mut b), pass(&mut b, &mut a)), (1, 1));
    // What the host's own device suffers is none of theirs.
    for text in ["lose dma pf=0", "lose dma", "lose pcie pf=0", "lose pcie"] {
        let id = fault(text);
        assert_eq!((pass(&mut a, &mut b), pass(&mut b, &mut a)), (1, 1), "{text}");
        rig.nic.fault_del(id);
    }
    // Without its memory a device sends nothing and gets nothing; others do.
    let id = fault("lose dma slice=102");
    assert_eq!((pass(&mut b, &mut a), pass(&mut a, &mut b)), (0, 0));
    assert_eq!(rig.states(102), (State::Active, OpState::Attached));
    let (mut c, ..) = guest(&rig, 9, [2, 0, 0, 0, 0, 9]);
    rig.nic.slice_set(109, &Change { link: Some(Link::Up), ..Change::default() }).unwrap();
    assert_eq!((pass(&mut c, &mut a), pass(&mut a, &mut c)), (1, 1));
    rig.nic.fault_del(id);
    // One that is gone reads as ones, and has been reset when it is back.
    let id = fault("lose pcie slice=102");
    assert_eq!((b.function.window.read32(0), config(102), config(101)), (u32::MAX, u32::MAX, 0x101e_15b3));
    assert_eq!((rig.states(102), rig.states(101).1), ((State::Active, OpState::Detached), OpState::Attached));
    let vf = rig.guest(102).0;
    assert!(vf.bring_up().is_err());
    rig.nic.fault_del(id);
    let mut b = rig.guest(102).0.bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    assert_eq!((pass(&mut a, &mut b), pass(&mut b, &mut a)), (1, 1));
    // A reset behind its driver's back leaves configuration space as it was.
    let command = |endpoint: &Endpoint| {
        let mut word = [0; 2];
        rig.nic.endpoint_config_read(endpoint, 4, &mut word);
        word
    };
    let endpoint = rig.nic.endpoint(101).unwrap();
    rig.nic.endpoint_config_write(&endpoint, 4, &[6, 0]);
    fault("reset slice=101");
    assert_eq!((command(&endpoint), rig.states(101)), ([6, 0], (State::Active, OpState::Detached)));
    assert_eq!(rig.states(102), (State::Active, OpState::Attached));
    // A fault may be there before its slice.
    fault("lose pcie slice=103");
    rig.nic.slice_add(&spec(3, 103)).unwrap();
    let (vf, memory, _) = rig.guest(103);
    assert_eq!((vf.window.read32(0), config(103)), (u32::MAX, u32::MAX));
    assert!(memory.canary_is_whole());
}

/// The manager in the host: an SF with a number of its own.
fn number(pf: &Function, id: u16, sfnum: u32) {
    pf.alloc_sf(id).unwrap();
    pf.cmd::<ModifyVhcaStateIn, ModifyVhcaStateOut>(Opcode::MODIFY_VHCA_STATE, |i| {
        i.set(ModifyVhcaStateIn::function_id, id.into());
        i.sub(ModifyVhcaStateIn::vhca_state_field_select).set(VhcaStateFieldSelect::sw_function_id, 1);
        i.sub(ModifyVhcaStateIn::vhca_state_context).set(VhcaStateContext::sw_function_id, sfnum);
    })
    .unwrap();
}

#[test]
fn a_host_that_manages_hears_only_that_it_is_there_and_in_use() {
    for active in [false, true] {
        let rig = Rig::managed(Manager::Host, MEMORY);
        rig.nic.slice_declare(&spec(88, 100), active, MAC).unwrap();
        let (vf, ..) = rig.guest(100);
        assert!(!is_there(&vf));
        assert_eq!(rig.nic.slice(100).unwrap().port, None);
        let pf = rig.pf(0);
        pf.bring_up_watching().unwrap();
        let uar = pf.alloc_uar().unwrap();
        let mut eq = pf.create_eq(uar, 0, 6, 1 << event::VHCA_STATE_CHANGE).unwrap();
        let (other, id) = (rig.sf_id(0, 0), rig.sf_id(0, 1));
        number(&pf, other, 4);
        number(&pf, id, 88);
        pf.set_vport_up(id).unwrap();
        pf.vhca_state(id).unwrap();
        pf.vhca_arm(id).unwrap();
        assert_eq!(is_there(&vf), active);
        for _ in 0..2 {
            // Where the configuration did it, the host's word is no news.
            pf.activate(id).unwrap();
            assert!(is_there(&vf));
            if !active {
                break;
            }
        }
        assert_eq!(pf.vhca_state(id).unwrap(), Some(vhca::State::Allocated), "no auxiliary device comes of that");
        assert_eq!(rig.states(100), (State::Active, OpState::Detached));
        // The window in the host's BAR leads nowhere.
        assert_eq!(rig.sf(0, 1).window.read32(0), u32::MAX);
        eq.drain();
        pf.vhca_arm(id).unwrap();
        vf.cmdq.attach();
        let vf = vf.bring_up().unwrap();
        assert_eq!(vf.mac().unwrap(), MAC);
        let told = eq.poll().expect("an event");
        assert_eq!(told.view().get(Eqe::vhca_function_id), u32::from(id));
        assert_eq!(pf.vhca_state(id).unwrap(), Some(vhca::State::InUse));
        pf.vhca_arm(id).unwrap();
        pf.deactivate(id).unwrap();
        assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
        assert_eq!(pf.vhca_state(id).unwrap(), Some(vhca::State::InUse), "a teardown request is for auxiliary devices");
        pf.vhca_arm(id).unwrap();
        eq.drain();
        // Its machine is switched off.
        rig.nic.endpoint_reset(&rig.nic.endpoint(100).unwrap());
        assert!(eq.poll().is_some());
        assert_eq!(pf.vhca_state(id).unwrap(), Some(vhca::State::Allocated));
        assert!(!is_there(&vf));
        pf.dealloc_sf(id).unwrap();
        assert_eq!(rig.nic.slice(100).unwrap().port, None);
        // The slot is an SF's again, with a window in the host's BAR.
        number(&pf, id, 5);
        pf.activate(id).unwrap();
        assert_eq!(pf.vhca_state(id).unwrap(), Some(vhca::State::Active));
        assert_ne!(rig.sf(0, 1).window.read32(0), u32::MAX);
        // The host's reset takes what it manages.
        number(&pf, rig.sf_id(0, 2), 88);
        rig.reset(0);
        assert_eq!(rig.nic.slice(100).unwrap().port, None);
        assert!(!is_there(&vf));
    }
}

#[test]
fn wrong_slices_are_refused() {
    let rig = Rig::managed(Manager::Embedded, MEMORY);
    let text = |s: Spec| rig.nic.slice_add(&s).unwrap_err().to_string();
    assert_eq!(text(Spec { sfnum: None, ..spec(1, 100) }), "flavour passthrough needs an sfnum");
    assert_eq!(text(Spec { vectors: Some(0), ..spec(1, 100) }), "vectors 0 (allowed: 1 to 256)");
    let sf = Spec { flavour: Flavour::PciSf, ..spec(1, 100) };
    assert_eq!(text(sf), "vectors 8 (allowed: for flavour passthrough)");
    assert!(rig.nic.slice_declare(&spec(1, 100), true, MAC).unwrap_err().to_string().contains("add the slice"));
    rig.nic.slice_add(&spec(1, 100)).unwrap();
    assert_eq!(text(spec(1, 101)), "pf 0 has a slice with sfnum 1 already");
    for n in 2..33 {
        rig.nic.slice_add(&spec(n, 100 + n)).unwrap();
    }
    assert_eq!(text(spec(90, 190)), "all 32 slices for guests of pf 0 are in use (max_guest_slices)");
    let room = &rig.nic.resources()[0];
    assert_eq!((room.used_sfs, room.max_guest_slices, room.used_guest_slices), (0, 32, 32));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the user, the guest's driver, its device's resets and the host's do, in whatever
    /// order: a slice is where the table of the life cycle says, and its window is open then only.
    #[test]
    fn a_slice_follows_the_table(steps in proptest::collection::vec(0usize..8, 1..150)) {
        use vhca::Cause;
        const CAUSES: [Option<Cause>; 8] = [
            Some(Cause::Alloc),
            Some(Cause::Dealloc),
            Some(Cause::Activate),
            Some(Cause::Deactivate),
            Some(Cause::Attach),
            Some(Cause::Detach),
            Some(Cause::HostReset),
            None,
        ];
        let rig = Rig::managed(Manager::Embedded, MEMORY);
        let mut want = vhca::State::Invalid;
        let mut vf: Option<Function> = None;
        for step in steps {
            let cause = CAUSES[step];
            let next = match cause {
                Some(cause) => TRANSITIONS.iter().find(|t| (t.0, t.1) == (want, cause)).map(|t| t.2),
                None => Some(want),
            };
            let done = match cause {
                Some(Cause::Alloc) => rig.nic.slice_add(&spec(4, 100)).is_ok(),
                Some(Cause::Dealloc) => rig.nic.slice_del(100).is_ok(),
                Some(Cause::Activate) => set(&rig, 100, State::Active).is_ok() && next.is_some(),
                Some(Cause::Deactivate) => set(&rig, 100, State::Inactive).is_ok() && next.is_some(),
                Some(Cause::Attach) => vf.as_ref().is_some_and(|f| {
                    f.cmdq.attach();
                    f.enable().and_then(|()| f.init()).is_ok()
                }),
                Some(Cause::Detach) => vf.as_ref().is_some_and(|f| {
                    f.cmdq.attach();
                    f.disable().is_ok() && next.is_some()
                }),
                Some(_) => {
                    if let Some(e) = rig.nic.endpoint(100) {
                        rig.nic.endpoint_reset(&e);
                    }
                    true
                }
                None => {
                    rig.reset(0);
                    true
                }
            };
            prop_assert_eq!(done, next.is_some(), "{:?} in {:?}", cause, want);
            want = next.unwrap_or(want);
            if cause == Some(Cause::Alloc) && done {
                vf = Some(rig.guest(100).0);
            }
            match rig.nic.slice(100) {
                Ok(s) => prop_assert_eq!((s.state, s.opstate), State::of(want)),
                Err(_) => prop_assert_eq!(want, vhca::State::Invalid),
            }
            prop_assert_eq!(vf.as_ref().is_some_and(is_there), want.has_window());
        }
    }
}

#[test]
fn the_answers_of_a_slice_that_is_not_there_are_an_init_segment_only() {
    let rig = Rig::managed(Manager::Embedded, MEMORY);
    rig.nic.slice_add(&spec(1, 100)).unwrap();
    let (vf, ..) = rig.guest(100);
    assert_eq!(vf.window.read32(4) >> 16, 5, "the version of the command interface");
    assert_eq!(View::<CmdHcaCap>::new(&[0; 4096]).get(CmdHcaCap::sf), 0);
    for at in [0x3000, 0x4000, 0x8000] {
        assert_eq!(vf.window.read32(at), 0);
        vf.window.write32(at, 1);
    }
    assert!(vf.bring_up().is_err());
    assert_eq!(rig.nic.unmodelled.list().len(), 0);
}
