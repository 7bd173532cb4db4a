//! Rules that no driver should make: ways in circles, groups without end, tables
//! that are gone, masks that contradict each other. The device answers with a
//! status, and what it took keeps no frame for long.

use sfnic_device_model::steering::{MAX_COPIES, MAX_HOPS};
use sfnic_firmware_cmds::layouts::{
    FteMatchParam, FteMatchSetLyr24 as Headers, FteMatchSetMisc as Misc, FteMatchSetMisc2 as Misc2,
    FteMatchSetMisc3 as Misc3, FteMatchSetMisc5 as Misc5,
};
use sfnic_firmware_cmds::{Syndrome, ViewMut};
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::steering::{action, criteria, table_type};
use sfnic_test_driver::{CmdError, Destination, Flow, Function, Netdev, NetdevConfig, Rig, Table};

type Match<'a> = ViewMut<'a, FteMatchParam>;

const PORT: u16 = 7;

/// A manager and two SFs; a table of the FDB, its root, and one behind it. Each
/// has one group that looks at nothing.
struct World {
    rig: Rig,
    pf: Function,
    sf: Vec<Netdev>,
    tables: [(Table, u32); 2],
}

impl World {
    fn new() -> Self {
        let rig = Rig::loopback();
        let pf = rig.pf(0).bring_up().unwrap();
        let mut sf = vec![];
        for i in 0..2 {
            pf.add_sf(rig.sf_id(0, i)).unwrap();
            sf.push(rig.sf(0, i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
        }
        let tables = [0, 1].map(|level| {
            let t = pf.create_table(table_type::FDB, None, level, 12).unwrap();
            (t, pf.create_group(t, (0, 0), 0, |_| ()).unwrap())
        });
        pf.set_root(tables[0].0).unwrap();
        Self { rig, pf, sf, tables }
    }

    fn vport(&self, i: u16) -> Destination {
        Destination::Vport(self.rig.sf_id(0, i))
    }

    fn table(&self, n: usize) -> Destination {
        Destination::Table(self.tables[n].0.id)
    }

    fn rule(&self, n: usize, flow: &Flow) -> Result<(), CmdError> {
        let (t, group) = self.tables[n];
        self.pf.create_entry(t, group, 0, flow, |_| ())
    }

    /// Sends a frame from the first SF; how many of it the second one gets.
    fn send(&mut self) -> usize {
        self.sf[0].send(&frame(PORT));
        self.rig.run();
        assert_eq!(self.sf[0].reap(0).len(), 1);
        self.sf[1].receive().len()
    }

    /// Both tables without their rules, and a rule that works.
    fn recovers(mut self) {
        for (t, group) in self.tables {
            let _ = self.pf.modify_entry(t, group, 0, &Flow::drop());
        }
        for (t, _) in self.tables {
            let _ = self.pf.delete_entry(t, 0);
        }
        self.rule(0, &Flow::to(&[self.vport(1)])).unwrap();
        assert_eq!(self.send(), 1);
    }
}

fn frame(port: u16) -> Vec<u8> {
    Flow4 { port: [port, 9], ..Flow4::new([2; 6], [4; 6]) }.udp(&frames::pattern(1, 30))
}

fn syndrome<T: std::fmt::Debug>(r: Result<T, CmdError>) -> Syndrome {
    match r {
        Err(CmdError::Refused { syndrome, .. }) => syndrome,
        other => panic!("{other:?}"),
    }
}

fn anywhere(to: &[Destination]) -> Flow {
    Flow { any_level: true, ..Flow::to(to) }
}

#[test]
fn a_way_back_has_to_be_asked_for() {
    let w = World::new();
    w.rule(0, &Flow::to(&[w.table(1)])).unwrap();
    for to in [w.table(0), w.table(1)] {
        assert_eq!(syndrome(w.rule(1, &Flow::to(&[to]))), Syndrome::DESTINATION_LEVEL);
        let (t, group) = w.tables[0];
        assert_eq!(syndrome(w.pf.modify_entry(t, group, 0, &Flow::to(&[w.table(0)]))), Syndrome::DESTINATION_LEVEL);
    }
    w.recovers();
}

#[test]
fn circles_end() {
    let mut w = World::new();
    w.rule(0, &anywhere(&[w.table(0)])).unwrap();
    assert_eq!(w.send(), 0);
    w.recovers();

    let mut w = World::new();
    w.rule(0, &anywhere(&[w.table(1)])).unwrap();
    w.rule(1, &anywhere(&[w.table(0)])).unwrap();
    assert_eq!(w.send(), 0);
    w.recovers();
}

#[test]
fn circles_that_copy_end() {
    // A copy a round; circles of copies; nothing but circles.
    for n in 0..3 {
        let mut w = World::new();
        let to = match n {
            0 => vec![w.vport(1), w.table(1)],
            1 => vec![w.table(1), w.vport(1)],
            _ => vec![w.table(1); 8],
        };
        w.rule(0, &anywhere(&to)).unwrap();
        w.rule(1, &anywhere(&[w.table(0), w.table(0), w.vport(1)])).unwrap();
        let counter = w.pf.alloc_flow_counter().unwrap();
        let (t, group) = w.tables[0];
        w.pf.modify_entry(t, group, 0, &Flow { counters: vec![counter], ..anywhere(&to) }).unwrap();
        let got = w.send();
        assert!(got as u32 <= MAX_COPIES + 1, "{got} copies");
        let visits = w.pf.flow_counter(counter).unwrap().0;
        assert!(visits > 1 && visits <= u64::from(MAX_HOPS) * u64::from(MAX_COPIES + 1), "{visits} visits");
        w.recovers();
    }
}

#[test]
fn groups_without_end_are_refused_and_those_that_are_keep_nobody() {
    let mut w = World::new();
    let (t, _) = w.tables[0];
    let mut made = vec![];
    // Each looks at something else, so that each has to be asked.
    let refused = (1..4096u32).find_map(|i| {
        let mask = |m: &mut Match<'_>| {
            m.sub(FteMatchParam::outer_headers).set(Headers::dmac_47_16, 1 << 31 | i);
        };
        match w.pf.create_group(t, (i, i), criteria::OUTER, mask) {
            Ok(id) => {
                made.push(id);
                None
            }
            Err(e) => Some(e),
        }
    });
    assert_eq!(syndrome(refused.map_or(Ok(()), Err)), Syndrome::OBJECT_LIMIT);
    assert!(made.len() >= 1000, "{} groups", made.len());
    // A rule in each, for an address that nobody has.
    for (i, group) in made.iter().enumerate() {
        let value = |m: &mut Match<'_>| {
            m.sub(FteMatchParam::outer_headers).set(Headers::dmac_47_16, u32::MAX);
        };
        w.pf.create_entry(t, *group, i as u32 + 1, &Flow::to(&[w.vport(1)]), value).unwrap();
    }
    assert_eq!(w.send(), 0);
    for (i, group) in made.iter().enumerate() {
        assert_eq!(syndrome(w.pf.destroy_group(t, *group)), Syndrome::OBJECT_REFERENCED);
        w.pf.delete_entry(t, i as u32 + 1).unwrap();
        w.pf.destroy_group(t, *group).unwrap();
    }
    w.recovers();
}

#[test]
fn tables_that_are_gone_are_no_destination_and_no_miss() {
    let w = World::new();
    let gone = w.pf.create_table(table_type::FDB, None, 9, 4).unwrap();
    w.rule(0, &Flow::to(&[Destination::Table(gone.id)])).unwrap();
    assert_eq!(syndrome(w.pf.destroy_table(gone)), Syndrome::OBJECT_REFERENCED);
    w.pf.delete_entry(w.tables[0].0, 0).unwrap();
    w.pf.set_miss(w.tables[1].0, Some(gone)).unwrap();
    assert_eq!(syndrome(w.pf.destroy_table(gone)), Syndrome::OBJECT_REFERENCED);
    w.pf.set_miss(w.tables[1].0, None).unwrap();
    w.pf.destroy_table(gone).unwrap();
    for to in [Destination::Table(gone.id), Destination::Table(0), Destination::Table(0xff_ffff)] {
        assert_eq!(syndrome(w.rule(0, &anywhere(&[to]))), Syndrome::FTE_DESTINATION);
    }
    assert_eq!(syndrome(w.pf.set_miss(w.tables[0].0, Some(gone))), Syndrome::FTE_DESTINATION);
    // One of another type is none either.
    let acl = w.pf.create_table(table_type::NIC_RX, None, 9, 4).unwrap();
    assert_eq!(syndrome(w.rule(0, &anywhere(&[Destination::Table(acl.id)]))), Syndrome::FTE_DESTINATION);
    w.recovers();
}

#[test]
fn masks_that_contradict_match_nothing_and_harm_nobody() {
    let mut w = World::new();
    let (t, _) = w.tables[0];
    // TCP and UDP ports of one frame.
    let both = |tcp: u32, udp: u32| {
        move |m: &mut Match<'_>| {
            m.sub(FteMatchParam::outer_headers).set(Headers::tcp_sport, tcp).set(Headers::udp_sport, udp);
        }
    };
    let group = w.pf.create_group(t, (1, 9), criteria::OUTER, both(0xffff, 0xffff)).unwrap();
    let on = Flow::to(&[w.vport(1)]);
    w.pf.create_entry(t, group, 1, &on, both(PORT.into(), PORT.into())).unwrap();
    assert_eq!(w.send(), 0);
    // Of two rules with one value the first one counts, whoever came first.
    w.pf.create_entry(t, group, 3, &Flow::drop(), both(0, PORT.into())).unwrap();
    w.pf.create_entry(t, group, 2, &on, both(0, PORT.into())).unwrap();
    assert_eq!(w.send(), 1);
    // A value outside its mask counts for nothing.
    let one = w.pf.create_group(t, (10, 10), criteria::OUTER, both(0, 0xf)).unwrap();
    w.pf.delete_entry(t, 2).unwrap();
    w.pf.delete_entry(t, 3).unwrap();
    w.pf.create_entry(t, one, 10, &on, both(0x1234, 0xfff0 | u32::from(PORT))).unwrap();
    assert_eq!(w.send(), 1);
    // Headers that no frame has together.
    let all = |m: &mut Match<'_>| {
        m.sub(FteMatchParam::inner_headers).set(Headers::ip_version, 0xf).set(Headers::frag, 1);
        m.sub(FteMatchParam::misc_parameters).set(Misc::vxlan_vni, 0xff_ffff).set(Misc::geneve_vni, 1);
        m.sub(FteMatchParam::misc_parameters_2).set(Misc2::metadata_reg_c_7, u32::MAX);
        m.sub(FteMatchParam::misc_parameters_3).set(Misc3::icmp_type, 8).set(Misc3::icmpv6_type, 8);
        m.sub(FteMatchParam::misc_parameters_5).set(Misc5::tunnel_header_3, 1);
    };
    let full = w.pf.create_group(t, (20, 20), 0x7f, all).unwrap();
    w.pf.create_entry(t, full, 20, &on, all).unwrap();
    assert_eq!(syndrome(w.pf.create_group(t, (30, 30), 0x80, all)), Syndrome::MATCH_CRITERIA);
    assert_eq!(w.send(), 1);
    w.pf.delete_entry(t, 10).unwrap();
    assert_eq!(w.send(), 0);
    w.recovers();
}

#[test]
fn actions_that_contradict_are_refused() {
    let w = World::new();
    let on = Flow::to(&[w.vport(1)]);
    for extra in [action::DROP, action::ALLOW, 1 << 9, 1 << 15] {
        assert_eq!(syndrome(w.rule(0, &Flow { action: extra, ..on.clone() })), Syndrome::FTE_ACTION, "{extra:#x}");
    }
    for nothing in [Flow::default(), Flow { action: action::DROP | action::ALLOW, ..Flow::default() }] {
        assert_eq!(syndrome(w.rule(0, &nothing)), Syndrome::FTE_ACTION);
    }
    assert_eq!(syndrome(w.rule(0, &Flow { action: action::FORWARD, ..Flow::default() })), Syndrome::FTE_LIST);
    assert_eq!(syndrome(w.rule(0, &Flow::to(&[w.vport(1); 257]))), Syndrome::FTE_LIST);
    w.recovers();
}
