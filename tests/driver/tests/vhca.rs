//! The life cycle of a sub-function, against the table that defines it.

use proptest::prelude::*;
use sfnic_device_model::cmd::table::ROWS;
use sfnic_device_model::control::vhca::{Cause, State, TRANSITIONS};
use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::AllocSfIn;
use sfnic_firmware_cmds::{Opcode, Status, Syndrome};
use sfnic_test_driver::command::{check, set_opcode};
use sfnic_test_driver::steering::Flow;
use sfnic_test_driver::{CmdError, Destination, Eq, Function, NetdevConfig, Rig, Wqe};

/// What the table says, read by the test itself.
fn reference(state: State, cause: Cause) -> Option<State> {
    TRANSITIONS.iter().find(|t| (t.0, t.1) == (state, cause)).map(|t| t.2)
}

/// A manager that may watch its SFs.
fn manager(rig: &Rig) -> Function {
    let pf = rig.pf(0);
    pf.bring_up_watching().unwrap();
    pf
}

#[test]
fn a_driver_that_never_detaches_holds_its_sf_until_the_pf_is_reset() {
    let rig = Rig::loopback();
    let pf = manager(&rig);
    let id = rig.sf_id(0, 2);
    pf.add_sf(id).unwrap();
    let mut old = rig.sf(0, 2).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let mut fdb = pf.create_fdb(4).unwrap();
    pf.forward(&mut fdb, id, &Flow::to(&[Destination::Vport(id)])).unwrap();
    old.function.take_own_frames(old.tirn, true).unwrap();
    old.send(&[7; 100]);
    rig.run();
    assert_eq!((old.receive().len(), old.reap(0).len()), (1, 1), "it works, and then it hangs");

    pf.deactivate(id).unwrap();
    assert_eq!(pf.vhca_state(id).unwrap(), Some(State::TeardownRequest));
    let raw = rig.sf(0, 2);
    assert!(raw.enable().unwrap_err().is(Status::BadResState));
    for refused in [pf.activate(id), pf.dealloc_sf(id), pf.alloc_sf(id), pf.deactivate(id)] {
        assert!(refused.unwrap_err().because(Syndrome::SF_TEARDOWN));
    }
    assert_eq!(pf.vhca_state(id).unwrap(), Some(State::TeardownRequest));

    rig.reset(0);
    assert_eq!(rig.nic.object_counts().keys().count(), 1, "the PF alone is left");
    pf.bring_up_watching().unwrap();
    assert_eq!(pf.vhca_state(id).unwrap(), Some(State::Invalid));
    pf.add_sf(id).unwrap();
    let new = rig.sf(0, 2).bring_up().unwrap();
    assert!(rig.objects(0, id).is_empty(), "nothing of the former driver");
    // The former driver's numbers name nothing.
    for opcode in [Opcode::DESTROY_SQ, Opcode::DESTROY_CQ, Opcode::DESTROY_RQ, Opcode::DESTROY_TIR, Opcode::DEALLOC_PD]
    {
        assert!(new.destroy(opcode, 1).unwrap_err().because(Syndrome::NO_SUCH_OBJECT), "{opcode}");
    }
    // And its doorbells reach nothing.
    old.channels[0].sq.post(&Wqe::nop().signalled());
    old.channels[0].sq.ring();
    rig.run();
    assert!(old.reap(0).is_empty());
    assert_eq!(rig.plane(0, id).unwrap().bad_doorbells.get(), 1);
}

#[test]
fn a_late_detach_leaves_nothing_for_the_next_driver() {
    let rig = Rig::loopback();
    let pf = manager(&rig);
    let id = rig.sf_id(0, 0);
    pf.add_sf(id).unwrap();
    let late = rig.sf(0, 0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    pf.deactivate(id).unwrap();
    late.function.disable().unwrap();
    assert_eq!(pf.vhca_state(id).unwrap(), Some(State::Allocated));
    assert_eq!(late.function.window.read32(0), u32::MAX, "its window is closed");
    assert!(rig.objects(0, id).is_empty());
    pf.activate(id).unwrap();
    let next = rig.sf(0, 0).bring_up().unwrap();
    assert!(next.destroy(Opcode::DESTROY_SQ, late.channels[0].sq.number).unwrap_err().is(Status::BadRes));
}

/// Brings an SF from nothing to a state.
fn drive(rig: &Rig, pf: &Function, sf: &Function, to: State) {
    let id = rig.sf_id(0, 0);
    let steps: &[Cause] = match to {
        State::Invalid => &[],
        State::Allocated => &[Cause::Alloc],
        State::Active => &[Cause::Alloc, Cause::Activate],
        State::InUse => &[Cause::Alloc, Cause::Activate, Cause::Attach],
        State::TeardownRequest => &[Cause::Alloc, Cause::Activate, Cause::Attach, Cause::Deactivate],
    };
    for step in steps {
        apply(rig, pf, sf, id, *step).unwrap();
    }
    assert_eq!(pf.vhca_state(id).unwrap(), Some(to));
}

fn apply(rig: &Rig, pf: &Function, sf: &Function, id: u16, cause: Cause) -> Result<(), CmdError> {
    match cause {
        Cause::Alloc => pf.alloc_sf(id),
        Cause::Dealloc => pf.dealloc_sf(id),
        Cause::Activate => pf.activate(id),
        Cause::Deactivate => pf.deactivate(id),
        Cause::Attach => {
            sf.cmdq.attach();
            sf.enable()?;
            sf.init()
        }
        Cause::Detach => {
            sf.cmdq.attach();
            sf.disable()
        }
        Cause::PfReset => {
            rig.reset(0);
            pf.bring_up_watching()
        }
        Cause::HostReset => panic!("there is none where the host manages the eswitch"),
    }
}

/// Runs every command in every state, from the manager's window and from the
/// SF's own, and checks that it is answered and that the state is the table's.
#[test]
fn every_command_is_defined_in_every_state() {
    for state in State::ALL {
        for row in ROWS {
            for own in [false, true] {
                let rig = Rig::loopback();
                let (pf, sf) = (manager(&rig), rig.sf(0, 0));
                let id = rig.sf_id(0, 0);
                drive(&rig, &pf, &sf, state);
                sf.cmdq.attach();
                let mut input = vec![0; row.input.size()];
                set_opcode(&mut input, row.opcode);
                if !own {
                    ViewMut::<AllocSfIn>::new(&mut input).set(AllocSfIn::function_id, id.into());
                }
                let from = if own { &sf } else { &pf };
                let answer = from.cmdq.exec(&input, row.output.size());
                let cause = match (row.opcode, own) {
                    (Opcode::ALLOC_SF, false) => Some(Cause::Alloc),
                    (Opcode::DEALLOC_SF, false) => Some(Cause::Dealloc),
                    (Opcode::ENABLE_HCA, false) => Some(Cause::Activate),
                    (Opcode::DISABLE_HCA, false) => Some(Cause::Deactivate),
                    (Opcode::ENABLE_HCA, true) => Some(Cause::Attach),
                    (Opcode::DISABLE_HCA, true) => Some(Cause::Detach),
                    _ => None,
                };
                let what = format!("{} in {state:?}, own {own}: {answer:?}", row.opcode);
                if own && !state.has_window() {
                    assert_eq!(answer, Err(CmdError::NoAnswer), "{what}");
                    assert_eq!(pf.vhca_state(id).unwrap(), Some(state), "{what}");
                    continue;
                }
                let verdict = check(&answer.clone().expect(&what));
                assert!(verdict.is_ok() || !verdict.unwrap_err().is(Status::Internal), "{what}");
                let want = cause.map(|c| reference(state, c));
                if let Some(transition) = want {
                    assert_eq!(verdict.is_ok(), transition.is_some(), "{what}");
                }
                let want = want.flatten().unwrap_or(state);
                assert_eq!(pf.vhca_state(id).unwrap(), Some(want), "{what}");
            }
        }
    }
}

const CAUSES: [Cause; 7] =
    [Cause::Alloc, Cause::Dealloc, Cause::Activate, Cause::Deactivate, Cause::Attach, Cause::Detach, Cause::PfReset];

/// Changes are likelier than resets.
fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![20 => (0usize..6).prop_map(|i| CAUSES[i]), 1 => Just(Cause::PfReset)]
}

fn expected(states: &mut [State; 3], sf: usize, cause: Cause) -> bool {
    if cause == Cause::PfReset {
        for s in states.iter_mut() {
            *s = reference(*s, cause).expect("every state can be reset");
        }
        return true;
    }
    let next = reference(states[sf], cause);
    states[sf] = next.unwrap_or(states[sf]);
    next.is_some()
}

/// The manager's watch: it queries and arms when it is told, and only then.
struct Watch {
    eq: Eq,
    known: [State; 3],
    /// SFs that an event named and that have not been looked at.
    told: Vec<usize>,
    /// SFs that were queried and not yet armed.
    queried: Vec<usize>,
}

impl Watch {
    fn new(rig: &Rig, pf: &Function) -> Self {
        let uar = pf.alloc_uar().unwrap();
        let eq = pf.create_eq(uar, 0, 6, 1 << event::VHCA_STATE_CHANGE).unwrap();
        let mut w = Self { eq, known: [State::Invalid; 3], told: vec![0, 1, 2], queried: vec![] };
        w.finish(rig, pf);
        w
    }

    fn hear(&mut self, rig: &Rig) {
        for e in self.eq.drain() {
            assert_eq!(e.kind(), event::VHCA_STATE_CHANGE);
            let id = e.view().get(Eqe::vhca_function_id) as u16;
            self.told.push(usize::from(id - rig.sf_id(0, 0)));
        }
    }

    fn query(&mut self, rig: &Rig, pf: &Function) -> bool {
        let Some(sf) = self.told.pop() else { return false };
        self.known[sf] = pf.vhca_state(rig.sf_id(0, sf as u16)).unwrap().unwrap();
        self.queried.push(sf);
        true
    }

    fn arm(&mut self, rig: &Rig, pf: &Function) -> bool {
        let Some(sf) = self.queried.pop() else { return false };
        pf.vhca_arm(rig.sf_id(0, sf as u16)).unwrap();
        true
    }

    /// Does all that the protocol asks for.
    fn finish(&mut self, rig: &Rig, pf: &Function) {
        for _ in 0..100 {
            self.hear(rig);
            if !self.query(rig, pf) && !self.arm(rig, pf) {
                return;
            }
        }
        panic!("events without end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to three SFs in whatever order, the device is where
    /// the table says, after every step.
    #[test]
    fn the_device_follows_the_table(steps in proptest::collection::vec((0usize..3, cause()), 1..120)) {
        let rig = Rig::loopback();
        let pf = manager(&rig);
        let sfs: Vec<Function> = (0..3).map(|i| rig.sf(0, i)).collect();
        let mut states = [State::Invalid; 3];
        for (sf, cause) in steps {
            let done = apply(&rig, &pf, &sfs[sf], rig.sf_id(0, sf as u16), cause);
            prop_assert_eq!(done.is_ok(), expected(&mut states, sf, cause), "{:?}", done);
            for (i, want) in states.iter().enumerate() {
                let id = rig.sf_id(0, i as u16);
                prop_assert_eq!(pf.vhca_state(id).unwrap(), Some(*want));
                prop_assert_eq!(sfs[i].window.read32(0) == u32::MAX, !want.has_window());
            }
        }
    }

    /// A manager that follows the protocol of its kernel knows every state in
    /// the end, however its steps and the changes interleave.
    #[test]
    fn no_event_is_lost(steps in proptest::collection::vec((0usize..3, cause(), 0u8..4), 1..200)) {
        let rig = Rig::loopback();
        let pf = manager(&rig);
        let sfs: Vec<Function> = (0..3).map(|i| rig.sf(0, i)).collect();
        let mut states = [State::Invalid; 3];
        let mut watch = Watch::new(&rig, &pf);
        for (sf, cause, step) in steps {
            let _ = apply(&rig, &pf, &sfs[sf], rig.sf_id(0, sf as u16), cause);
            expected(&mut states, sf, cause);
            if cause == Cause::PfReset {
                // Its queue went with the reset.
                watch = Watch::new(&rig, &pf);
            }
            match step {
                1 => watch.hear(&rig),
                2 => drop(watch.query(&rig, &pf)),
                3 => drop(watch.arm(&rig, &pf)),
                _ => {}
            }
        }
        watch.finish(&rig, &pf);
        prop_assert_eq!(watch.known, states);
    }
}
