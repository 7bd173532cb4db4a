//! Slices whose host side is a virtio device of another machine: their life, who reaches
//! them, what their manager sets, and that a flow that is known goes the way of one that is
//! not.

use std::sync::Arc;

use parking_lot::Mutex;
use sfnic_device_model::CardConfig;
use sfnic_device_model::fabric::arrive::{Door, Left};
use sfnic_device_model::fabric::peer::Peer;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::Manager;
use sfnic_device_model::packet::Frame;
use sfnic_device_model::slice::{
    Change, Flavour, Link, Offer, OpState, Outside, Spec, State, VirtioEnd, default_address,
};
use sfnic_device_model::world::Wire;
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::{Netdev, NetdevConfig, Rig};

/// Number of the slices' thread.
const THREAD: usize = 3;
const BROADCAST: [u8; 6] = [0xff; 6];

/// A machine that keeps what it gets.
#[derive(Default)]
struct Machine(Mutex<Vec<Vec<u8>>>);

impl Wire for Machine {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        let mut bytes = vec![0; frame.len()];
        frame.write_into(&mut bytes);
        self.0.lock().push(bytes);
        true
    }
}

impl Machine {
    fn got(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Keeps the ends of slices.
#[derive(Default)]
struct Ends(Mutex<Vec<Arc<VirtioEnd>>>);

impl Outside for Ends {
    fn offer(&self, offer: &Offer) -> Result<String, String> {
        self.0.lock().extend(offer.virtio.clone());
        Ok("here".to_owned())
    }
    fn withdraw(&self, index: u32) {
        self.0.lock().retain(|e| e.slice != index);
    }
}

/// Slices 100 and 101 of a card, each with a machine, and the card's own host.
struct Stage {
    rig: Rig,
    host: Netdev,
    ends: Vec<Arc<VirtioEnd>>,
    machines: Vec<Arc<Machine>>,
}

fn stage() -> Stage {
    let card = CardConfig { manager: Manager::Embedded, ..Rig::card(0, Far::None) };
    let rig = Rig::new(vec![card], 32 << 20);
    let config = NetdevConfig { buffer: 10_240, log_rq: 8, ..NetdevConfig::default() };
    let host = rig.pf(0).bring_up().unwrap().netdev(&config).unwrap();
    let offered = Arc::new(Ends::default());
    rig.nic.offer_slices_to(offered.clone());
    let mut s = Stage { rig, host, ends: vec![], machines: vec![] };
    for n in 0..2 {
        let spec = Spec { flavour: Flavour::Virtio, sfnum: Some(n), index: Some(100 + n), ..Spec::default() };
        s.rig.nic.slice_add(&spec).unwrap();
        s.set(n as usize, Change { link: Some(Link::Up), ..Change::default() });
        s.ends.push(offered.0.lock().last().unwrap().clone());
        s.machines.push(Arc::default());
    }
    s
}

impl Stage {
    fn set(&self, n: usize, change: Change) {
        self.rig.nic.slice_set(100 + n as u32, &change).unwrap();
    }

    fn activate(&self, n: usize, active: bool) {
        let state = if active { State::Active } else { State::Inactive };
        self.set(n, Change { state: Some(state), ..Change::default() });
    }

    fn states(&self, n: usize) -> (State, OpState) {
        self.rig.states(100 + n as u32)
    }

    /// A machine's driver is there, or has gone.
    fn there(&self, n: usize, there: bool) {
        let peer = there.then(|| Peer::new(self.machines[n].clone()));
        self.rig.nic.virtio_peer(&self.ends[n], peer);
    }

    fn up(&self) {
        for n in 0..2 {
            self.activate(n, true);
            self.there(n, true);
        }
    }

    /// A machine sends frames, all in one burst.
    fn send(&self, n: usize, frames: &[Vec<u8>], left: Left) -> bool {
        let Some(vport) = self.ends[n].vport() else { return false };
        let mut copies = frames.to_vec();
        let mut never = || false;
        let door = Door::Vport(self.rig.card_at(0), &vport);
        let mut all = true;
        let mut arrivals = self.rig.nic.arrivals(THREAD, door, &mut never);
        for bytes in &mut copies {
            let slice = vm_memory::VolatileSlice::from(&mut bytes[..]);
            assert!(arrivals.form(left.segment.is_some()).regather_bytes(&[], [slice], 256));
            all &= arrivals.take(left);
        }
        arrivals.flush();
        all
    }

    fn one(&self, n: usize, frame: &[u8]) -> bool {
        self.send(n, &[frame.to_vec()], Left::default())
    }
}

fn mac(n: u32) -> [u8; 6] {
    default_address(100 + n)
}

#[test]
fn who_deactivates_a_slice_detaches_it() {
    let s = stage();
    assert_eq!(s.states(0), (State::Inactive, OpState::Detached));
    assert_eq!(s.rig.nic.slice(100).unwrap().hw_addr, "52:54:00:5d:00:64");
    // A machine that comes early finds nobody who wants it.
    s.there(0, true);
    assert!(!s.ends[0].is_wanted() && s.states(0) == (State::Inactive, OpState::Detached));
    s.activate(0, true);
    assert!(s.ends[0].is_wanted());
    assert_eq!(s.states(0), (State::Active, OpState::Attached));
    s.there(0, false);
    assert_eq!(s.states(0), (State::Active, OpState::Detached));
    s.there(0, true);
    s.activate(0, false);
    assert_eq!(s.states(0), (State::Inactive, OpState::Detached));
    assert!(!s.ends[0].is_wanted() && !s.one(0, &Flow4::new(s.host.mac, mac(0)).udp(b"late")));
    // The host's reset is none of its business, and its own end takes it along.
    s.activate(0, true);
    s.rig.reset(0);
    assert_eq!(s.states(0), (State::Active, OpState::Attached));
    assert!(s.rig.nic.slice_del(100).is_err());
    s.activate(0, false);
    s.rig.nic.slice_del(100).unwrap();
    assert!(s.ends[0].vport().is_none() && !s.ends[0].is_wanted());
    s.there(0, true);
}

#[test]
fn frames_are_switched_by_address_known_or_not() {
    let mut s = stage();
    s.up();
    let vport = s.ends[0].vport().unwrap();
    for round in 0..3 {
        if round == 2 {
            s.rig.nic.explainer.start("", u32::MAX, Arc::new(|_| ()));
        }
        let small: Vec<Vec<u8>> = (0..40).map(|i| Flow4::new(s.host.mac, mac(0)).udp(&[i; 100])).collect();
        assert!(s.send(0, &small, Left::default()));
        assert_eq!(s.host.receive().into_iter().map(|r| r.bytes).collect::<Vec<_>>(), small);
        // A large one arrives in segments, which are what is counted.
        let before = vport.tx.packets();
        let mut large = Flow4::new(s.host.mac, mac(0)).tcp(0x1000, &frames::pattern(6, 60_000));
        large[50..52].fill(0);
        assert!(s.send(0, &[large.clone()], Left { segment: Some(1448), ..Left::default() }));
        let segments = s.host.receive();
        assert_eq!((segments.len(), vport.tx.packets() - before), (42, 42));
        assert!(segments.iter().all(|r| frames::checksums_hold(&r.bytes)));
        let payload: Vec<u8> = segments.iter().flat_map(|r| r.bytes[54..].to_vec()).collect();
        assert_eq!(payload, large[54..]);
        // From machine to machine, from the host, and to all.
        let across = Flow4::new(mac(1), mac(0)).udp(b"across, a frame of a length that no port pads");
        assert!(s.one(0, &across));
        assert_eq!((s.machines[1].got(), s.machines[0].got()), (vec![across], vec![]));
        let back = Flow4::new(mac(0), s.host.mac).udp(b"from the host, as long as that one was at least");
        s.host.send(&back);
        s.rig.run();
        assert_eq!(s.machines[0].got(), [back]);
        let all = frames::ethernet(BROADCAST, mac(0), 0x88b5, &[7; 60]);
        assert!(s.one(0, &all));
        assert_eq!(s.machines[1].got(), [all]);
        assert_eq!((s.machines[0].got().len(), s.host.receive().len()), (0, 0), "the host asked for none");
        let _ = s.host.reap(0);
    }
    assert_eq!((vport.tx.errors.packets.get(), vport.rx.errors.packets.get()), (0, 0));
}

#[test]
fn what_the_machine_left_to_be_done_is_done() {
    let s = stage();
    s.up();
    let whole = Flow4::new(mac(1), mac(0)).udp(&frames::pattern(3, 900));
    let partial = |at: usize| {
        let mut f = whole.clone();
        // The sum of the pseudo header, which a driver leaves there.
        let sum = frames::sum(&[&f[26..34], &[0, 17], &f[38..40]].concat());
        f[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        f
    };
    assert!(s.send(0, &[partial(40)], Left { checksum: Some((34, 6)), segment: None }));
    assert_eq!(s.machines[1].got(), std::slice::from_ref(&whole));
    // Places that mean nothing change nothing but the frame's own bytes.
    for place in [(34, 7), (2000, 0), (u16::MAX, u16::MAX), (899, 42)] {
        assert!(s.send(0, std::slice::from_ref(&whole), Left { checksum: Some(place), segment: None }));
        assert_eq!(s.machines[1].got().len(), 1);
    }
    // Short frames are padded, what cannot be cut is lost, and counted.
    assert!(s.one(0, &frames::ethernet(mac(1), mac(0), 0x88b5, &[1; 4])));
    assert_eq!(s.machines[1].got()[0].len(), 60);
    assert!(!s.send(0, &[whole], Left { segment: Some(0), ..Left::default() }));
}

#[test]
fn its_manager_sets_what_it_may_send() {
    let mut s = stage();
    s.up();
    let good = Flow4::new(s.host.mac, mac(0)).udp(&[1; 100]);
    let vport = s.ends[0].vport().unwrap();
    // Learn the flow first: what is set holds for it too.
    assert!(s.one(0, &good) && s.one(0, &good));
    assert_eq!(s.host.receive().len(), 2);
    s.set(0, Change { spoof_check: Some(true), ..Change::default() });
    s.one(0, &Flow4::new(s.host.mac, [2; 6]).udp(&[1; 100]));
    assert_eq!((s.host.receive().len(), vport.refused.spoofed.get()), (0, 1));
    s.one(0, &good);
    assert_eq!(s.host.receive().len(), 1);
    // In a VLAN only the wire, and who is in it too, is reached, with the tag.
    s.set(0, Change { vlan: Some(7), ..Change::default() });
    s.set(1, Change { vlan: Some(7), ..Change::default() });
    let across = Flow4::new(mac(1), mac(0)).udp(&[2; 100]);
    s.one(0, &across);
    assert_eq!(s.machines[1].got(), std::slice::from_ref(&across));
    s.set(1, Change { vlan: Some(8), ..Change::default() });
    s.one(0, &across);
    assert_eq!(s.machines[1].got().len(), 0);
    s.set(0, Change { vlan: Some(0), ..Change::default() });
    s.set(1, Change { vlan: Some(0), ..Change::default() });
    // Its link.
    s.set(0, Change { link: Some(Link::Down), ..Change::default() });
    assert!(!s.ends[0].is_wanted() && !s.one(0, &across));
    s.one(1, &Flow4::new(mac(0), mac(1)).udp(&[2; 100]));
    assert_eq!((s.machines[0].got().len(), s.machines[1].got().len()), (0, 0));
    assert_eq!(vport.tx.errors.packets.get(), 1);
    s.set(0, Change { link: Some(Link::Up), ..Change::default() });
    // Its rate: a byte a microsecond; what is sent beyond is waited for.
    s.set(0, Change { tx_max: Some(8_000_000), ..Change::default() });
    let now = || 0;
    assert!(s.one(0, &across) && vport.rate.allowance(now).is_err());
    let due = vport.rate.allowance(now).unwrap_err();
    assert_eq!(due, 1000 * across.len() as u64);
}
