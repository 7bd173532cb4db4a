//! Faults that are put in on purpose: each strikes what it names, a driver sees it, and the
//! device is sane after it.

use sfnic_device_model::events::{FaultAction, Happening};
use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layouts::{NopIn, NopOut};
use sfnic_firmware_cmds::{Opcode, Status, Syndrome};
use sfnic_test_driver::{CmdError, Eq, Function, Netdev, NetdevConfig, Rig, frames};

fn add(rig: &Rig, text: &str) -> u32 {
    let fault = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    rig.nic.fault_add(fault).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// How often a fault struck.
fn struck(rig: &Rig, id: u32) -> u64 {
    rig.nic.faults.list().into_iter().find(|f| f.id == id).map_or(0, |f| f.struck)
}

fn nop(f: &Function) -> Result<(), CmdError> {
    f.cmd::<NopIn, NopOut>(Opcode::NOP, |_| ()).map(drop)
}

/// Two functions on a cable, with their netdevs.
fn pair(rig: &Rig) -> (Netdev, Netdev) {
    let netdev = |n| rig.pf(n).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    (netdev(0), netdev(1))
}

fn send(rig: &Rig, from: &mut Netdev, to: &Netdev, count: usize) {
    let frame = frames::Flow4::new(to.mac, from.mac).udp(&[7; 64]);
    for _ in 0..count {
        from.send(&frame);
        rig.run();
    }
}

/// Frames pass, objects go with their driver, no fault is left.
fn sane(rig: &Rig, mut a: Netdev, mut b: Netdev) {
    assert!(rig.nic.faults.list().is_empty());
    a.receive();
    b.receive();
    send(rig, &mut a, &b, 3);
    assert_eq!(b.receive().len(), 3);
    send(rig, &mut b, &a, 2);
    assert_eq!(a.receive().len(), 2);
    for card in 0..2 {
        rig.reset(card);
        assert!(rig.objects(card, 0).is_empty());
    }
}

#[test]
fn a_command_fails_as_often_as_asked() {
    let rig = Rig::cable();
    let pf = rig.pf(0).bring_up().unwrap();
    let id = add(&rig, "fail NOP nth=2 status=LIMIT syndrome=0xabcdef");
    let seen: Vec<bool> = (0..4).map(|_| nop(&pf).is_ok()).collect();
    assert_eq!(seen, [true, false, true, true]);
    assert_eq!((rig.nic.faults.list()[0].occasions, struck(&rig, id)), (4, 1));
    assert!(rig.nic.fault_del(id) && !rig.nic.fault_del(id));

    let id = add(&rig, "fail NOP every=3 times=2 pf=0 status=LIMIT syndrome=0xabcdef");
    let seen: Vec<usize> = (1..=12).filter(|_| nop(&pf).is_err()).collect();
    assert_eq!(seen, [3, 6]);
    rig.nic.fault_del(id);
    let id = add(&rig, "fail NOP status=LIMIT syndrome=0xabcdef");
    let e = nop(&pf).unwrap_err();
    assert!(e.is(Status::Limit) && e.because(Syndrome(0xab_cdef)), "{e:?}");
    rig.nic.fault_del(id);
    for other in ["fail NOP pf=1", "fail NOP function=0x8000", "fail QUERY_ADAPTER"] {
        let id = add(&rig, other);
        nop(&pf).unwrap();
        assert_eq!(struck(&rig, id), 0, "{other}");
        rig.nic.fault_del(id);
    }
    let told = rig.nic.events.since(0, usize::MAX).events;
    let strikes = told.iter().filter(|e| match &e.what {
        Happening::Fault { action: FaultAction::Struck, what, .. } => what.contains("NOP"),
        _ => false,
    });
    assert_eq!(strikes.count(), 4);
}

#[test]
fn chance_follows_from_its_seed() {
    let run = |seed: u64| {
        let rig = Rig::cable();
        let pf = rig.pf(0).bring_up().unwrap();
        add(&rig, &format!("fail NOP p=0.25 seed={seed}"));
        (0..400).map(|_| nop(&pf).is_err()).collect::<Vec<bool>>()
    };
    let (a, b) = (run(7), run(8));
    assert_eq!(a, run(7));
    assert_ne!(a, b);
    let hits = a.iter().filter(|x| **x).count();
    assert!((60..=140).contains(&hits), "{hits} of 400");
    let rig = Rig::cable();
    let pf = rig.pf(0).bring_up().unwrap();
    let never = add(&rig, "fail NOP p=0");
    nop(&pf).unwrap();
    rig.nic.fault_del(never);
    add(&rig, "fail NOP p=1");
    nop(&pf).unwrap_err();
}

#[test]
fn a_command_is_executed_later_or_never() {
    let rig = Rig::cable();
    let pf = rig.pf(0).bring_up().unwrap();
    let before = rig.objects(0, 0);
    let id = add(&rig, "delay ALLOC_PD ms=50 times=1");
    assert_eq!(pf.alloc_pd().unwrap_err(), CmdError::NoAnswer);
    assert_eq!(rig.nic.run_due(9), Some(50_000_000));
    assert_eq!(rig.objects(0, 0), before, "not yet");
    rig.clock.advance(50_000_000);
    assert_eq!(rig.nic.run_due(9), None);
    assert_eq!(rig.objects(0, 0).get("Pd"), Some(&1));
    rig.nic.fault_del(id);

    let id = add(&rig, "lose command ALLOC_PD times=1");
    assert_eq!(pf.alloc_pd().unwrap_err(), CmdError::NoAnswer);
    assert_eq!((rig.nic.run_due(9), struck(&rig, id)), (None, 1));
    pf.alloc_pd().unwrap();
    rig.nic.fault_del(id);

    // What a driver left behind is not executed for the next one.
    add(&rig, "delay ALLOC_PD ms=50 times=1");
    assert_eq!(pf.alloc_pd().unwrap_err(), CmdError::NoAnswer);
    rig.reset(0);
    rig.clock.advance(50_000_000);
    assert_eq!(rig.nic.run_due(9), None);
    assert!(rig.objects(0, 0).is_empty());
    rig.pf(0).bring_up().unwrap();
}

/// A function whose port is up, the one at the other end of the cable, and the first one's
/// queue of events that tell of its port.
fn watched(rig: &Rig) -> (Function, Function, Eq) {
    let pf = rig.pf(0).bring_up().unwrap();
    let other = rig.pf(1).bring_up().unwrap();
    let uar = pf.alloc_uar().unwrap();
    let eq = pf.create_eq(uar, 0, 6, 1 << event::PORT_CHANGE).unwrap();
    pf.set_port(true).unwrap();
    (pf, other, eq)
}

#[test]
fn events_are_lost_or_come_twice() {
    let rig = Rig::cable();
    let (_pf, other, mut eq) = watched(&rig);
    let mut count = |up: bool| {
        other.set_port(up).unwrap();
        std::iter::from_fn(|| eq.poll()).filter(|e| e.kind() == event::PORT_CHANGE).count()
    };
    let plain = count(true);
    assert!(plain > 0);
    let lost = add(&rig, "lose event PORT_CHANGE");
    assert_eq!(count(false), 0);
    assert!(struck(&rig, lost) > 0);
    rig.nic.fault_del(lost);
    let other_kind = add(&rig, "lose event VHCA_STATE_CHANGE");
    assert_eq!(count(true), plain);
    rig.nic.fault_del(other_kind);
    let twice = add(&rig, "duplicate event any pf=0");
    assert_eq!(count(false), 2 * plain);
    rig.nic.fault_del(twice);
    assert_eq!(count(true), plain);
}

#[test]
fn events_change_places_and_none_is_lost() {
    let rig = Rig::cable();
    let (_pf, other, mut eq) = watched(&rig);
    other.set_port(false).unwrap();
    let mut told = || std::iter::from_fn(|| eq.poll()).map(|e| e.view().get(Eqe::sub_type) as u8).collect::<Vec<u8>>();
    let set = |up: bool| other.set_port(up).unwrap();
    let (up, down) = (event::PORT_ACTIVE, event::PORT_DOWN);
    told();
    set(true);
    set(false);
    assert_eq!(told(), [up, down]);

    let id = add(&rig, "reorder event PORT_CHANGE pf=0");
    set(true);
    assert_eq!(told(), []);
    set(false);
    assert_eq!(told(), [down, up]);
    assert_eq!(struck(&rig, id), 1, "one exchange, one strike");
    set(true);
    assert_eq!(told(), []);
    rig.nic.fault_del(id);
    assert_eq!(told(), [up], "the fault is gone");

    let id = add(&rig, "reorder event any ms=30 times=1");
    set(false);
    assert_eq!((told(), rig.nic.run_due(9)), (vec![], Some(30_000_000)));
    rig.clock.advance(30_000_000);
    rig.nic.run_due(9);
    assert_eq!(told(), [down], "no other one came");
    set(true);
    assert_eq!(told(), [up]);
    rig.nic.fault_del(id);

    // One that is lost overtakes nothing.
    let ids = [add(&rig, "reorder event any nth=1"), add(&rig, "lose event any nth=1")];
    for up in [false, true, false] {
        set(up);
    }
    assert_eq!(told(), [down, down]);
    assert!(ids.into_iter().all(|id| rig.nic.fault_del(id)));
}

#[test]
fn completions_that_change_places_do_no_harm() {
    let rig = Rig::cable();
    let (mut a, mut b) = pair(&rig);
    let id = add(&rig, "reorder event COMPLETION p=0.5 seed=3");
    for _ in 0..20 {
        send(&rig, &mut a, &b, 1);
        assert_eq!(b.receive().len(), 1);
    }
    rig.clock.advance(100_000_000);
    rig.nic.run_due(9);
    assert!(rig.nic.fault_del(id));
    sane(&rig, a, b);
}

#[test]
fn a_completion_is_lost_and_the_frame_is_not() {
    let rig = Rig::cable();
    let (mut a, b) = pair(&rig);
    let received = |rig: &Rig| rig.plane(1, 0).unwrap().vport.rx.packets();
    let before = received(&rig);
    let id = add(&rig, "lose completion pf=0 times=1");
    send(&rig, &mut a, &b, 1);
    assert_eq!((received(&rig) - before, struck(&rig, id)), (1, 1));
    rig.nic.fault_del(id);
    sane(&rig, a, b);
}

#[test]
fn interrupts_are_lost_by_vector() {
    let rig = Rig::cable();
    let pf = rig.pf(0).bring_up().unwrap();
    let uar = pf.alloc_uar().unwrap();
    let eq = pf.create_eq(uar, 3, 6, 1 << event::PORT_CHANGE).unwrap();
    let other = rig.pf(1).bring_up().unwrap();
    pf.set_port(true).unwrap();
    eq.arm();
    let before = rig.irqs[0].count(3);
    let wrong = add(&rig, "lose interrupt vector=2");
    other.set_port(true).unwrap();
    assert_eq!(rig.irqs[0].count(3), before + 1);
    rig.nic.fault_del(wrong);
    let id = add(&rig, "lose interrupt vector=3 pf=0");
    eq.arm();
    other.set_port(false).unwrap();
    assert!(struck(&rig, id) > 0);
    assert_eq!(rig.irqs[0].count(3), before + 1);
    // A driver that looks finds the events all the same.
    rig.nic.fault_del(id);
    eq.arm();
    assert_eq!(rig.irqs[0].count(3), before + 2, "unread events raise at once");
}

#[test]
fn the_health_buffer_tells_what_it_is_told() {
    const COUNTER: u64 = 0x1010;
    const SYNDROME: u64 = 0x23c;
    const RFR: u64 = 0x238;
    let rig = Rig::cable();
    let pf = rig.pf(0).bring_up().unwrap();
    let read = |at| pf.window.read32(at);
    let ticks = || {
        rig.clock.advance(1_000_000_000);
        read(COUNTER)
    };
    assert_ne!(ticks(), ticks());
    let id = add(&rig, "stop health pf=0");
    assert_eq!(ticks(), ticks());
    rig.nic.fault_del(id);
    assert_ne!(ticks(), ticks());
    assert_eq!((read(SYNDROME), read(RFR)), (0, 0));
    let id = add(&rig, "set health syndrome=0x10 ext=0x8abc severity=1 rfr=1 pf=0");
    assert_eq!((read(SYNDROME), read(RFR)), (0x10_8abc, 0x8900_0000));
    assert_eq!(rig.pf(1).window.read32(SYNDROME), 0, "the other one is well");
    rig.nic.fault_del(id);
    assert_eq!((read(SYNDROME), read(RFR)), (0, 0));
}

#[test]
fn frames_are_dropped_corrupted_and_held_up() {
    let rig = Rig::cable();
    let (mut a, mut b) = pair(&rig);
    // The way is known before the fault comes.
    send(&rig, &mut a, &b, 3);
    assert_eq!(b.receive().len(), 3);

    let id = add(&rig, "drop frames pf=1 way=in every=2");
    send(&rig, &mut a, &b, 10);
    assert_eq!((b.receive().len(), struck(&rig, id)), (5, 5));
    send(&rig, &mut b, &a, 2);
    assert_eq!(a.receive().len(), 2, "the other way");
    rig.nic.fault_del(id);

    let whole = frames::Flow4::new(b.mac, a.mac).udp(&[7; 64]);
    let id = add(&rig, "corrupt frames pf=0 way=out");
    send(&rig, &mut a, &b, 8);
    let got = b.receive();
    assert_eq!((got.len(), struck(&rig, id)), (8, 8));
    for frame in &got {
        let differ: u32 = frame.bytes.iter().zip(&whole).map(|(x, y)| (x ^ y).count_ones()).sum();
        assert_eq!((differ, frame.bytes[..14] == whole[..14]), (1, true));
    }
    rig.nic.fault_del(id);

    let id = add(&rig, "delay frames pf=0 ms=20 times=2");
    send(&rig, &mut a, &b, 3);
    assert_eq!(b.receive().len(), 1, "the third overtakes");
    rig.clock.advance(20_000_000);
    assert_eq!(rig.nic.run_due(9), None);
    assert_eq!(b.receive().len(), 2);
    rig.nic.fault_del(id);
    assert_eq!(rig.nic.faults.list(), []);
    sane(&rig, a, b);
}

#[test]
fn a_link_flaps_and_comes_back() {
    let rig = Rig::cable();
    let (mut a, mut b) = pair(&rig);
    let up = || (rig.card_at(0).port.is_up(), rig.card_at(1).port.is_up());
    assert_eq!(up(), (true, true));
    let id = add(&rig, "flap link pf=0 down=100 up=50 times=2");
    assert_eq!(up(), (false, false), "both ends of a cable");
    send(&rig, &mut a, &b, 1);
    assert!(b.receive().is_empty());
    for (ms, is) in [(99, false), (1, true), (49, true), (1, false), (100, true), (1000, true)] {
        rig.clock.advance(ms * 1_000_000);
        rig.nic.run_due(9);
        assert_eq!(up(), (is, is), "{ms}");
    }
    assert_eq!(struck(&rig, id), 2);
    rig.nic.fault_del(id);
    let id = add(&rig, "flap link pf=1");
    rig.clock.advance(3_600_000_000_000);
    rig.nic.run_due(9);
    assert_eq!(up(), (false, false), "until it is taken out");
    rig.nic.fault_del(id);
    assert_eq!(up(), (true, true));
    sane(&rig, a, b);
}

#[test]
fn objects_run_out_and_can_be_had_again() {
    let rig = Rig::new(vec![Rig::card(0, Far::Loopback)], 16 << 20);
    let pf = rig.pf(0).bring_up().unwrap();
    let id = add(&rig, "exhaust pd limit=2");
    pf.alloc_pd().unwrap();
    pf.alloc_pd().unwrap();
    let e = pf.alloc_pd().unwrap_err();
    assert!(e.is(Status::NoResources) && e.because(Syndrome::INJECTED), "{e:?}");
    rig.nic.fault_del(id);
    pf.alloc_pd().unwrap();
    // Every kind that can run out is counted by its name.
    for (kind, _) in sfnic_device_model::faults::language::KINDS {
        add(&rig, &format!("exhaust {kind}"));
    }
    assert!(pf.alloc_uar().unwrap_err().is(Status::NoResources));
    assert!(pf.alloc_sf(rig.sf_id(0, 0)).unwrap_err().is(Status::NoResources));
    assert!(pf.netdev(&NetdevConfig::default()).is_err());
}

#[test]
fn memory_is_cut_off_and_comes_back() {
    let rig = Rig::cable();
    let (mut a, mut b) = pair(&rig);
    let id = add(&rig, "lose dma pf=0");
    send(&rig, &mut a, &b, 1);
    assert!(b.receive().is_empty());
    assert_eq!(nop(&rig.pf(0)), Err(CmdError::NoAnswer));
    // What is mapped meanwhile counts when memory is back.
    rig.unmap(0);
    rig.map(0);
    assert_eq!(nop(&rig.pf(0)), Err(CmdError::NoAnswer));
    let two = add(&rig, "lose dma");
    rig.nic.fault_del(id);
    assert_eq!(nop(&rig.pf(0)), Err(CmdError::NoAnswer), "the other fault holds");
    rig.nic.fault_del(two);
    nop(&rig.pf(0)).unwrap();
    // The queues are in error: the driver begins again.
    rig.reset(0);
    rig.reset(1);
    let (a, b) = pair(&rig);
    sane(&rig, a, b);
}

#[test]
fn a_function_that_is_gone_reads_as_ones() {
    let rig = Rig::cable();
    let (a, b) = pair(&rig);
    let id = add(&rig, "lose pcie pf=0");
    let (gone, there) = (rig.pf(0), rig.pf(1));
    assert_eq!((gone.window.read32(0x230), nop(&gone)), (u32::MAX, Err(CmdError::NoAnswer)));
    assert_ne!(there.window.read32(0x230), u32::MAX);
    rig.nic.fault_del(id);
    // A link that comes back has reset what is behind it.
    assert!(rig.objects(0, 0).is_empty() && !rig.objects(1, 0).is_empty());
    assert_eq!(nic_interface(&gone), DISABLED);
    drop((a, b));
    rig.reset(1);
    let (a, b) = pair(&rig);
    sane(&rig, a, b);
}

const DISABLED: u32 = 1;

/// How the init segment says that the function is used.
fn nic_interface(f: &Function) -> u32 {
    f.window.read32(0x14) >> 8 & 7
}

#[test]
fn a_function_is_reset_under_its_driver() {
    let rig = Rig::cable();
    let (a, b) = pair(&rig);
    let (reset, other) = (rig.pf(0), rig.pf(1));
    // What the guest's kernel set of configuration space stays: it did not ask for this.
    rig.card_at(0).pci.lock().write(4, &[6, 4]);
    assert_eq!(nic_interface(&reset), 0);
    let id = add(&rig, "reset pf=0");
    assert_eq!((struck(&rig, id), nic_interface(&reset), nic_interface(&other)), (1, DISABLED, 0));
    assert!(rig.objects(0, 0).is_empty() && !rig.objects(1, 0).is_empty());
    assert_eq!(nop(&a.function), Err(CmdError::NoAnswer));
    assert!(!rig.card_at(1).port.is_up(), "its end of the cable is down");
    let mut command = [0; 2];
    rig.card_at(0).pci.lock().read(4, &mut command);
    assert_eq!(command, [6, 4]);
    rig.nic.fault_del(id);

    drop((a, b));
    rig.reset(1);
    let (a, b) = pair(&rig);
    let id = add(&rig, "reset after=50");
    assert!(!rig.objects(0, 0).is_empty());
    rig.clock.advance(50_000_000);
    rig.nic.run_due(9);
    assert_eq!((struck(&rig, id), nic_interface(&reset), nic_interface(&other)), (1, DISABLED, DISABLED));
    rig.nic.fault_del(id);
    // One that was taken out resets nothing.
    let id = add(&rig, "reset after=50");
    rig.nic.fault_del(id);
    drop((a, b));
    let (a, b) = pair(&rig);
    rig.clock.advance(50_000_000);
    rig.nic.run_due(9);
    sane(&rig, a, b);
}

#[test]
fn a_firmware_that_asks_for_a_reset_is_well_after_it() {
    const CMDQ: u64 = 0x14;
    const RFR: u64 = 0x238;
    let rig = Rig::cable();
    let (a, b) = pair(&rig);
    let (ill, other) = (rig.pf(0), rig.pf(1));
    assert_eq!(ill.window.read32(0x1fc), 1 << 30, "it can be reset, and is not initializing");
    let other_ills = add(&rig, "set health syndrome=1");
    let id = add(&rig, "set health syndrome=7 rfr=1");
    assert_ne!(ill.window.read32(RFR), 0);
    ill.window.write32(CMDQ, (ill.window.read32(CMDQ) & !0xfff) | 7 << 8);
    assert_eq!((ill.window.read32(RFR), nic_interface(&ill)), (0, DISABLED));
    assert!(rig.objects(0, 0).is_empty() && !rig.objects(1, 0).is_empty());
    assert_ne!(ill.window.read32(RFR + 4), 0, "the other fault asks for no reset");
    assert!(!rig.card_at(1).port.is_up());
    // Both functions have the fault, and it is one.
    assert_eq!((other.window.read32(RFR), nic_interface(&other)), (0, 0));
    rig.nic.fault_del(id);
    rig.nic.fault_del(other_ills);
    drop((a, b));
    rig.reset(1);
    let (a, b) = pair(&rig);
    sane(&rig, a, b);
}

#[test]
fn faults_are_bounded_and_name_what_is_there() {
    let rig = Rig::cable();
    let e = rig.nic.fault_add("drop frames pf=2".parse().unwrap()).unwrap_err();
    assert_eq!(e, "pf = \"2\": allowed is 0 to 1");
    for _ in 0..256 {
        add(&rig, "fail NOP");
    }
    assert!(rig.nic.fault_add("fail NOP".parse().unwrap()).unwrap_err().contains("256"));
    let ids: Vec<u32> = rig.nic.faults.list().iter().map(|f| f.id).collect();
    assert!(ids.windows(2).all(|w| w[0] < w[1]));
    assert!(ids.into_iter().all(|id| rig.nic.fault_del(id)));
}
