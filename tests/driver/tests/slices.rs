//! Slices: the eswitch is managed from outside, and the host's driver sees what comes of it.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use sfnic_device_model::control::vhca::{self, TRANSITIONS};
use sfnic_device_model::nic::Manager;
use sfnic_device_model::slice::{Change, Flavour, Link, OpState, SliceError, Spec, State};
use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layouts::{CmdHcaCap, QueryVhcaStateOut, VhcaStateContext};
use sfnic_firmware_cmds::{Status, Syndrome};
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::{CmdError, Eq, Function, NetdevConfig, Rig};

const MAC: [u8; 6] = [0, 0, 0, 0, 0x88, 0x88];

fn rig() -> Rig {
    Rig::managed(Manager::Embedded, MEMORY)
}

/// The host's driver, which watches the SFs of its physical function.
fn host(rig: &Rig) -> Function {
    let pf = rig.pf(0);
    pf.bring_up_watching().unwrap();
    assert_eq!(pf.cap(CmdHcaCap::eswitch_manager).unwrap(), 0);
    pf
}

fn add(rig: &Rig, sfnum: u32, index: u32) -> Result<u32, SliceError> {
    rig.nic.slice_add(&Spec {
        flavour: Flavour::PciSf,
        pfnum: 0,
        sfnum: Some(sfnum),
        index: Some(index),
        ..Spec::default()
    })
}

fn set(rig: &Rig, index: u32, state: State) -> Result<(), SliceError> {
    rig.nic.slice_set(index, &Change { state: Some(state), ..Change::default() })
}

#[test]
fn a_slice_lives_without_an_agent_in_the_host() {
    let rig = rig();
    // Before the host is there.
    add(&rig, 4, 100).unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
    rig.nic.slice_set(100, &Change { hw_addr: Some(MAC), ..Change::default() }).unwrap();
    let pf = host(&rig);
    let id = rig.sf_id(0, 0);
    let uar = pf.alloc_uar().unwrap();
    let mut eq = pf.create_eq(uar, 0, 6, 1 << event::VHCA_STATE_CHANGE).unwrap();
    assert_eq!(pf.vhca_state(id).unwrap(), Some(vhca::State::Allocated));
    pf.vhca_arm(id).unwrap();

    set(&rig, 100, State::Active).unwrap();
    let told = eq.poll().expect("an event");
    assert_eq!(told.view().get(Eqe::vhca_function_id), u32::from(id));
    let answer = pf.vhca(id).unwrap();
    let context = answer.view().sub(QueryVhcaStateOut::vhca_state_context);
    assert_eq!(context.get(VhcaStateContext::sw_function_id), 4);
    assert_eq!(rig.states(100), (State::Active, OpState::Detached));

    let sf = rig.sf(0, 0).bring_up().unwrap();
    assert_eq!(sf.mac().unwrap(), MAC);
    assert_eq!(rig.states(100), (State::Active, OpState::Attached));
    set(&rig, 100, State::Inactive).unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
    assert!(matches!(set(&rig, 100, State::Active), Err(SliceError::State(_))));
    assert!(matches!(rig.nic.slice_del(100), Err(SliceError::State(_))));
    sf.disable().unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
    rig.nic.slice_del(100).unwrap();
    assert!(matches!(rig.nic.slice(100), Err(SliceError::NotFound(_))));
    assert_eq!(pf.vhca_state(id).unwrap(), Some(vhca::State::Invalid));
}

#[test]
fn a_reset_of_the_host_ends_detaching_and_nothing_else() {
    let rig = rig();
    let indexes = [100, 101, 102];
    for (n, index) in indexes.into_iter().enumerate() {
        add(&rig, n as u32, index).unwrap();
    }
    let pf = host(&rig);
    for (n, index) in (0..2).zip(indexes) {
        set(&rig, index, State::Active).unwrap();
        rig.sf(0, n).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    }
    set(&rig, 100, State::Inactive).unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
    // The driver of the physical function leaves: that resets nothing.
    pf.disable().unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
    rig.reset(0);
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
    assert_eq!(rig.states(101), (State::Active, OpState::Detached));
    assert_eq!(rig.states(102), (State::Inactive, OpState::Detached));
    for n in 0..3 {
        assert!(rig.objects(0, rig.sf_id(0, n)).is_empty(), "objects of SF {n}");
    }
    // The next driver finds what is there, and it works.
    let pf = host(&rig);
    assert_eq!(pf.vhca_state(rig.sf_id(0, 1)).unwrap(), Some(vhca::State::Active));
    rig.sf(0, 1).bring_up().unwrap();
    assert_eq!(rig.states(101), (State::Active, OpState::Attached));
    set(&rig, 100, State::Active).unwrap();
    rig.sf(0, 0).bring_up().unwrap();
}

/// How many events tell of changes of SFs.
fn changes(eq: &mut Eq) -> usize {
    std::iter::from_fn(|| eq.poll()).filter(|e| e.kind() == event::VHCA_STATE_CHANGE).count()
}

#[test]
fn a_host_that_never_detaches_holds_its_slice_until_it_is_reset() {
    let rig = rig();
    let pf = host(&rig);
    let uar = pf.alloc_uar().unwrap();
    let mut eq = pf.create_eq(uar, 0, 6, 1 << event::VHCA_STATE_CHANGE).unwrap();
    let ids = [rig.sf_id(0, 0), rig.sf_id(0, 1)];
    for n in 0..2 {
        add(&rig, 4 + n, 100 + n).unwrap();
        set(&rig, 100 + n, State::Active).unwrap();
        rig.sf(0, n as u16).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
        assert_eq!(pf.vhca_state(ids[n as usize]).unwrap(), Some(vhca::State::InUse));
        pf.vhca_arm(ids[n as usize]).unwrap();
    }
    let hold = |text: &str| rig.nic.fault_add(text.parse().unwrap()).unwrap();
    let fault = hold("hold detach pf=0 sfnum=4");
    for index in [100, 101] {
        set(&rig, index, State::Inactive).unwrap();
    }
    assert_eq!(changes(&mut eq), 1, "of the other one");
    // The driver leaves all the same, and nobody hears of it.
    for n in 0..2 {
        rig.sf(0, n).disable().unwrap();
    }
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
    assert_eq!(rig.states(101), (State::Inactive, OpState::Detached));
    for refused in [set(&rig, 100, State::Active), rig.nic.slice_del(100)] {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("detaching") && why.lines().count() == 1, "{why}");
    }
    assert!(rig.sf(0, 0).enable().unwrap_err().because(Syndrome::SF_TEARDOWN));
    let passes = |id| rig.card_at(0).fabric.vports.pin().get(&id).unwrap().link.load(Ordering::Relaxed);
    assert!(!passes(ids[0]), "frames of the slice");
    rig.reset(0);
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
    set(&rig, 100, State::Active).unwrap();

    // Without the reset: what was not heard is made up for when the fault is gone.
    let pf = host(&rig);
    let uar = pf.alloc_uar().unwrap();
    let mut eq = pf.create_eq(uar, 0, 6, 1 << event::VHCA_STATE_CHANGE).unwrap();
    set(&rig, 101, State::Active).unwrap();
    for n in 0..2 {
        rig.sf(0, n).bring_up().unwrap();
        pf.vhca_state(ids[usize::from(n)]).unwrap();
        pf.vhca_arm(ids[usize::from(n)]).unwrap();
        set(&rig, 100 + u32::from(n), State::Inactive).unwrap();
    }
    assert_eq!(changes(&mut eq), 1, "the fault names one of them");
    let second = hold("hold detach");
    rig.sf(0, 1).disable().unwrap();
    rig.nic.fault_del(fault);
    assert_eq!(changes(&mut eq), 0, "the second one holds both");
    rig.nic.fault_del(second);
    assert_eq!(changes(&mut eq), 1, "that SF 0 is taken back");
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detaching));
    assert_eq!(rig.states(101), (State::Inactive, OpState::Detached));
    rig.sf(0, 0).disable().unwrap();
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
}

#[test]
fn the_host_manages_nothing() {
    let rig = rig();
    add(&rig, 0, 100).unwrap();
    let pf = host(&rig);
    let id = rig.sf_id(0, 0);
    let forbidden = |e: Result<(), CmdError>| assert!(e.unwrap_err().because(Syndrome::OPCODE_FORBIDDEN));
    forbidden(pf.alloc_sf(rig.sf_id(0, 1)));
    forbidden(pf.dealloc_sf(id));
    forbidden(pf.activate(id));
    forbidden(pf.deactivate(id));
    assert!(pf.create_fdb(4).err().expect("a refusal").is(Status::BadParam));
    assert!(pf.set_sf_mac(id, MAC).unwrap_err().is(Status::BadParam));
    assert_eq!(rig.states(100), (State::Inactive, OpState::Detached));
}

#[test]
fn slices_reach_each_other_and_the_wire_by_address() {
    let rig = rig();
    let far = rig.pf(1).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    host(&rig).set_port(true).unwrap();
    let mut devs = vec![];
    for n in 0..2u8 {
        let index = add(&rig, n.into(), 100 + u32::from(n)).unwrap();
        let hw_addr = Some([0, 0, 0, 0, 0x88, n]);
        let state = Some(State::Active);
        rig.nic.slice_set(index, &Change { hw_addr, state, ..Change::default() }).unwrap();
        devs.push(rig.sf(0, n.into()).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
    }
    let (mut b, mut a) = (devs.pop().unwrap(), devs.pop().unwrap());
    let mut far = far;
    let frame = |to: [u8; 6]| sfnic_test_driver::frames::Flow4::new(to, [0, 0, 0, 0, 0x88, 0]).udp(&[7; 64]);
    a.send(&frame(b.mac));
    a.send(&frame(far.mac));
    rig.run();
    assert_eq!((b.receive().len(), far.receive().len()), (1, 1));
    // A port that is down takes nothing.
    rig.nic.slice_set(101, &Change { link: Some(Link::Down), ..Change::default() }).unwrap();
    a.send(&frame(b.mac));
    rig.run();
    assert!(b.receive().is_empty());
}

#[test]
fn without_an_eswitch_a_slice_reaches_the_wire_alone() {
    let rig = Rig::managed(Manager::None, MEMORY);
    let mut far = rig.pf(1).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    host(&rig).set_port(true).unwrap();
    let mut devs = vec![];
    for n in 0..2u8 {
        let index = add(&rig, n.into(), 100 + u32::from(n)).unwrap();
        let hw_addr = Some([0, 0, 0, 0, 0x88, n]);
        rig.nic.slice_set(index, &Change { hw_addr, state: Some(State::Active), ..Change::default() }).unwrap();
        devs.push(rig.sf(0, n.into()).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
    }
    let frame = |to: [u8; 6], from: [u8; 6]| sfnic_test_driver::frames::Flow4::new(to, from).udp(&[7; 64]);
    let (a, b) = (devs[0].mac, devs[1].mac);
    devs[0].send(&frame(b, a));
    devs[0].send(&frame(far.mac, a));
    rig.run();
    assert_eq!((devs[1].receive().len(), far.receive().len()), (0, 1));
    let back = frame(a, far.mac);
    far.send(&back);
    rig.run();
    assert_eq!(devs[0].receive().len(), 1);
}

#[test]
fn refusals_say_why() {
    let rig = rig();
    let spec = Spec { flavour: Flavour::PciSf, pfnum: 0, sfnum: Some(4), index: Some(100), ..Spec::default() };
    rig.nic.slice_add(&spec).unwrap();
    let text = |s: Spec| rig.nic.slice_add(&s).unwrap_err().to_string();
    assert_eq!(text(spec.clone()), "slice 100 exists already");
    assert_eq!(text(Spec { index: None, ..spec.clone() }), "pf 0 has a slice with sfnum 4 already");
    assert_eq!(text(Spec { pfnum: 2, ..spec.clone() }), "pfnum 2 (allowed: 0 to 1)");
    assert_eq!(text(Spec { sfnum: None, index: None, ..spec.clone() }), "flavour pcisf needs an sfnum");
    assert_eq!(text(Spec { index: Some(3), ..spec.clone() }), "index 3: those below 16 are the device's own");
    assert!(text(Spec { flavour: Flavour::PciVf, ..spec.clone() }).starts_with("flavour pcivf:"));
    for n in 0..7 {
        rig.nic.slice_add(&Spec { sfnum: Some(10 + n), index: None, ..spec.clone() }).unwrap();
    }
    assert_eq!(
        text(Spec { sfnum: Some(9), index: None, ..spec.clone() }),
        "all 8 sub-functions of pf 0 are in use (max_sfs)"
    );

    let refused = |index, c: Change| rig.nic.slice_set(index, &c).unwrap_err().to_string();
    let state = Some(State::Inactive);
    assert!(refused(0, Change { state, ..Change::default() }).contains("always active"));
    assert_eq!(refused(9, Change { state, ..Change::default() }), "no slice 9");
    let hw_addr = Some([1, 0, 0, 0, 0, 1]);
    assert!(refused(100, Change { hw_addr, ..Change::default() }).starts_with("hw_addr 01:00:00:00:00:01"));
    // What is refused changes nothing.
    let half = Change { link: Some(Link::Up), max_io_eqs: Some(0), ..Change::default() };
    assert_eq!(refused(100, half), "max_io_eqs 0 (allowed: 1 to 60)");
    assert_eq!(rig.nic.slice(100).unwrap().policy.link, Link::Auto);

    let host = Rig::loopback();
    let text = host.nic.slice_add(&spec).unwrap_err().to_string();
    assert!(text.contains("devlink"), "{text}");
}

#[test]
fn resources_tell_what_is_left() {
    let rig = rig();
    let before = rig.nic.resources();
    assert_eq!((before[0].max_sfs, before[0].used_sfs, before[0].used_irq_vectors), (8, 0, 0));
    add(&rig, 4, 100).unwrap();
    let pf = host(&rig);
    let uar = pf.alloc_uar().unwrap();
    pf.create_eq(uar, 3, 6, 0).unwrap();
    let after = rig.nic.resources();
    assert_eq!((after[0].used_sfs, after[0].used_irq_vectors, after[1].used_sfs), (1, 1, 0));
    let names: Vec<String> = rig.nic.ports().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["p0", "pf0", "pf0sf4", "p1", "pf1"]);
}

/// What can happen to one slice.
#[derive(Debug, Clone, Copy)]
enum Step {
    Add,
    Del,
    Active,
    Inactive,
    Attach,
    Detach,
    Reset,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the user, the driver and resets do, in whatever order: a slice is where the
    /// table of the life cycle says.
    #[test]
    fn a_slice_follows_the_table(steps in proptest::collection::vec(0usize..7, 1..150)) {
        use vhca::Cause;
        const STEPS: [Step; 7] =
            [Step::Add, Step::Del, Step::Active, Step::Inactive, Step::Attach, Step::Detach, Step::Reset];
        let rig = rig();
        let mut want = vhca::State::Invalid;
        let sf = rig.sf(0, 0);
        host(&rig);
        for step in steps {
            let step = STEPS[step];
            let cause = match step {
                Step::Add => Cause::Alloc,
                Step::Del => Cause::Dealloc,
                Step::Active => Cause::Activate,
                Step::Inactive => Cause::Deactivate,
                Step::Attach => Cause::Attach,
                Step::Detach => Cause::Detach,
                Step::Reset => Cause::HostReset,
            };
            let next = TRANSITIONS.iter().find(|t| (t.0, t.1) == (want, cause)).map(|t| t.2);
            let done = match step {
                Step::Add => add(&rig, 4, 100).is_ok(),
                Step::Del => rig.nic.slice_del(100).is_ok(),
                Step::Active => set(&rig, 100, State::Active).is_ok() && next.is_some(),
                Step::Inactive => set(&rig, 100, State::Inactive).is_ok() && next.is_some(),
                Step::Attach => {
                    sf.cmdq.attach();
                    sf.enable().and_then(|()| sf.init()).is_ok()
                }
                Step::Detach => {
                    sf.cmdq.attach();
                    sf.disable().is_ok() && next.is_some()
                }
                Step::Reset => {
                    rig.reset(0);
                    host(&rig);
                    true
                }
            };
            prop_assert_eq!(done, next.is_some(), "{:?} in {:?}", step, want);
            want = next.unwrap_or(want);
            match rig.nic.slice(100) {
                Ok(s) => prop_assert_eq!((s.state, s.opstate), State::of(want)),
                Err(_) => prop_assert_eq!(want, vhca::State::Invalid),
            }
        }
    }
}
