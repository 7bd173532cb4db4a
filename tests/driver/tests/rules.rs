//! Rules that change under known flows: what is known is forgotten exactly
//! where it no longer holds.

use std::sync::Arc;

use proptest::prelude::*;
use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::{FteMatchParam, FteMatchSetLyr24 as Headers, FteMatchSetMisc as Misc};
use sfnic_test_driver::frames::{self, Flow4};
use sfnic_test_driver::rig::MEMORY;
use sfnic_test_driver::steering::{criteria, table_type};
use sfnic_test_driver::{Destination, Flow, Function, Netdev, NetdevConfig, Rig, Table};

const SFS: u16 = 3;
const PORTS: u16 = 12;
const COUNTERS: usize = 4;
/// Entries of a group, and groups of a table.
const EACH: u32 = 16;
const GROUPS: u32 = 4;

/// What a group looks at: the source port, source port and destination
/// address, the vport, nothing.
fn look(p: &mut ViewMut<'_, FteMatchParam>, group: u32, value: Option<(u16, u16, u16)>) {
    match group % GROUPS {
        0 | 1 => {
            let mut h = p.sub(FteMatchParam::outer_headers);
            h.set(Headers::udp_sport, value.map_or(Headers::udp_sport.max(), |v| u32::from(1000 + v.0)));
            if group % GROUPS == 1 {
                let mut ip = [0; 16];
                ip[12..].copy_from_slice(&value.map_or([0xff; 4], |v| address(v.1)));
                h.set_bytes(Headers::dst_ipv4_dst_ipv6, &ip);
            }
        }
        2 => {
            let mut m = p.sub(FteMatchParam::misc_parameters);
            m.set(Misc::source_port, value.map_or(Misc::source_port.max(), |v| v.2.into()));
        }
        _ => {}
    }
}

fn address(n: u16) -> [u8; 4] {
    [10, 0, 0, n as u8]
}

fn frame(port: u16, to: u16) -> Vec<u8> {
    let f = Flow4 { port: [1000 + port, 9], ip: [[10, 9, 9, 9], address(to)], ..Flow4::new([2; 6], [4; 6]) };
    f.udp(&frames::pattern(port.into(), 30))
}

/// A manager, SFs, and two tables of an FDB, the second at a higher level.
struct World {
    rig: Rig,
    pf: Function,
    sf: Vec<Netdev>,
    tables: [Table; 2],
    groups: [[Option<u32>; GROUPS as usize]; 2],
    counters: Vec<u32>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy)]
struct Does {
    /// SFs, the second table, both, or nothing.
    to: u8,
    counter: Option<usize>,
}

#[derive(Debug, Clone)]
enum Op {
    Insert { table: usize, group: u32, offset: u32, value: (u16, u16, u16), does: Does },
    Modify { table: usize, index: u32, does: Does },
    Delete { table: usize, index: u32 },
    Group { table: usize, group: u32 },
    NoGroup { table: usize, group: u32 },
    Miss { second: bool },
    Root { table: usize },
    Send { from: usize, port: u16, to: u16, n: usize },
}

impl World {
    fn new(sees_all: bool) -> Self {
        let rig = Rig::new(vec![Rig::card(0, Far::Loopback)], 4 * MEMORY);
        let pf = rig.pf(0).bring_up().unwrap();
        let mut sf = vec![];
        for i in 0..SFS {
            pf.add_sf(rig.sf_id(0, i)).unwrap();
            sf.push(rig.sf(0, i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
        }
        let tables = [0, 1].map(|level| pf.create_table(table_type::FDB, None, level, 6).unwrap());
        pf.set_root(tables[0]).unwrap();
        let counters = (0..COUNTERS).map(|_| pf.alloc_flow_counter().unwrap()).collect();
        if sees_all {
            // Who looks for a frame has every frame take the long way.
            rig.nic.explainer.start("no frame has these words", 1, Arc::new(|_| ()));
        }
        let mut w = Self { rig, pf, sf, tables, groups: Default::default(), counters };
        for (table, group) in [(0, 0), (0, 1), (1, 0), (1, 3)] {
            w.apply(&Op::Group { table, group });
        }
        w
    }

    fn flow(&self, does: Does) -> Flow {
        let vport = |i: u8| Destination::Vport(self.rig.sf_id(0, u16::from(i) % SFS));
        let second = Destination::Table(self.tables[1].id);
        let mut flow = match does.to {
            n @ 0..=2 => Flow::to(&[vport(n)]),
            3 => Flow::to(&[vport(1), vport(2)]),
            4 | 5 => Flow::to(&[second]),
            6 => Flow::to(&[second, vport(0)]),
            _ => Flow::drop(),
        };
        flow.counters.extend(does.counter.map(|c| self.counters[c % COUNTERS]));
        flow
    }

    /// What came of it: whether a command was taken, what each SF received.
    fn apply(&mut self, op: &Op) -> (bool, Vec<Vec<u8>>) {
        let done = |ok: bool| (ok, vec![]);
        match *op {
            Op::Insert { table, group, offset, value, does } => {
                let Some(id) = self.groups[table][group as usize] else { return done(false) };
                let value = (value.0, value.1, self.rig.sf_id(0, value.2 % SFS));
                let (flow, index) = (self.flow(does), group * EACH + offset);
                let entry = |p: &mut ViewMut<'_, FteMatchParam>| look(p, group, Some(value));
                done(self.pf.create_entry(self.tables[table], id, index, &flow, entry).is_ok())
            }
            Op::Modify { table, index, does } => {
                let group = self.groups[table][(index / EACH) as usize].unwrap_or(0);
                done(self.pf.modify_entry(self.tables[table], group, index, &self.flow(does)).is_ok())
            }
            Op::Delete { table, index } => done(self.pf.delete_entry(self.tables[table], index).is_ok()),
            Op::Group { table, group } => {
                let range = (group * EACH, (group + 1) * EACH - 1);
                let mask = |p: &mut ViewMut<'_, FteMatchParam>| look(p, group, None);
                let enable = criteria::OUTER | criteria::MISC;
                let made = self.pf.create_group(self.tables[table], range, enable, mask).ok();
                let ok = made.is_some();
                let slot = &mut self.groups[table][group as usize];
                *slot = made.or(*slot);
                done(ok)
            }
            Op::NoGroup { table, group } => {
                let Some(id) = self.groups[table][group as usize] else { return done(false) };
                let ok = self.pf.destroy_group(self.tables[table], id).is_ok();
                if ok {
                    self.groups[table][group as usize] = None;
                }
                done(ok)
            }
            Op::Miss { second } => done(self.pf.set_miss(self.tables[0], second.then_some(self.tables[1])).is_ok()),
            Op::Root { table } => done(self.pf.set_root(self.tables[table]).is_ok()),
            Op::Send { from, port, to, n } => {
                for i in 0..n {
                    // Two flows, so that one may be known and the other not.
                    self.sf[from].send(&frame(port, (to + i as u16 % 2) % 3));
                }
                self.rig.run();
                self.sf[from].reap(0);
                (true, self.sf.iter_mut().flat_map(|d| d.receive()).map(|r| r.bytes).collect())
            }
        }
    }

    fn counts(&self) -> Vec<(u64, u64)> {
        self.counters.iter().map(|c| self.pf.flow_counter(*c).unwrap()).collect()
    }
}

fn does() -> impl Strategy<Value = Does> {
    (0..8u8, prop::option::of(0..COUNTERS)).prop_map(|(to, counter)| Does { to, counter })
}

fn op() -> impl Strategy<Value = Op> {
    let (table, group, index) = (0..2usize, 0..GROUPS, 0..GROUPS * EACH);
    let value = (0..PORTS, 0..3u16, 0..SFS);
    let insert = (table.clone(), group.clone(), 0..EACH, value, does());
    prop_oneof![
        8 => insert.prop_map(|(table, group, offset, value, does)| Op::Insert { table, group, offset, value, does }),
        2 => (table.clone(), index.clone(), does()).prop_map(|(table, index, does)| Op::Modify { table, index, does }),
        3 => (table.clone(), index).prop_map(|(table, index)| Op::Delete { table, index }),
        1 => (table.clone(), group.clone()).prop_map(|(table, group)| Op::Group { table, group }),
        1 => (table.clone(), group).prop_map(|(table, group)| Op::NoGroup { table, group }),
        1 => any::<bool>().prop_map(|second| Op::Miss { second }),
        1 => table.prop_map(|table| Op::Root { table }),
        12 => (0..SFS as usize, 0..PORTS, 0..3u16, 1..5usize)
            .prop_map(|(from, port, to, n)| Op::Send { from, port, to, n }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn known_flows_go_as_unknown_ones(ops in prop::collection::vec(op(), 1..150)) {
        let (mut known, mut unknown) = (World::new(false), World::new(true));
        for op in &ops {
            let (a, b) = (known.apply(op), unknown.apply(op));
            prop_assert_eq!(a, b, "{:?}", op);
            prop_assert_eq!(known.counts(), unknown.counts(), "{:?}", op);
        }
        prop_assert!(unknown.rig.nic.flows.of(0).unwrap().learnt == 0);
    }
}

/// Flows of one SF to another, each by a rule of its own.
fn many(n: u16) -> World {
    let mut w = World::new(false);
    w.apply(&Op::Miss { second: true });
    for port in 0..n {
        let does = Does { to: 1, counter: Some(0) };
        let insert = Op::Insert { table: 0, group: 0, offset: port.into(), value: (port, 0, 0), does };
        assert!(w.apply(&insert).0);
    }
    w
}

fn send_each(w: &mut World, n: u16) -> (usize, u64) {
    let before = w.rig.nic.flows.of(0).unwrap().learnt;
    let got = (0..n).map(|port| w.apply(&Op::Send { from: 0, port, to: 0, n: 1 }).1.len()).sum();
    (got, w.rig.nic.flows.of(0).unwrap().learnt - before)
}

#[test]
fn a_rule_is_learnt_anew_by_the_flows_that_it_concerns_only() {
    const N: u16 = 12;
    let mut w = many(N);
    assert_eq!(send_each(&mut w, N), (12, 12));
    assert_eq!(send_each(&mut w, N), (12, 0));
    // Rules of other flows come and go.
    let does = Does { to: 2, counter: Some(1) };
    let other = Op::Insert { table: 0, group: 0, offset: 15, value: (100, 0, 0), does };
    for _ in 0..20 {
        assert!(w.apply(&other).0);
        assert_eq!(send_each(&mut w, N), (12, 0));
        assert!(w.apply(&Op::Delete { table: 0, index: 15 }).0);
        assert_eq!(send_each(&mut w, N), (12, 0));
    }
    // Its own one: one flow.
    assert!(w.apply(&Op::Modify { table: 0, index: 3, does }).0);
    assert_eq!(send_each(&mut w, N), (12, 1));
    assert_eq!(w.counts()[1].0, 1);
    assert!(w.apply(&Op::Delete { table: 0, index: 3 }).0);
    assert_eq!(send_each(&mut w, N), (11, 1), "what no rule is for is dropped, which is known, too");
    assert_eq!(send_each(&mut w, N), (11, 0));
    // One of a group that the known flows asked in vain concerns none.
    assert!(w.apply(&Op::Insert { table: 0, group: 1, offset: 0, value: (100, 0, 0), does }).0);
    assert_eq!(send_each(&mut w, N), (11, 0));
    assert!(w.apply(&Op::Insert { table: 0, group: 1, offset: 1, value: (3, 0, 0), does }).0);
    assert_eq!(send_each(&mut w, N), (12, 1));
}

#[test]
fn a_group_that_nobody_asked_concerns_all_of_its_table() {
    let mut w = many(4);
    assert_eq!(send_each(&mut w, 4), (4, 4));
    // It has no rules yet, but will.
    assert!(w.apply(&Op::Group { table: 0, group: 2 }).0);
    assert_eq!(send_each(&mut w, 4), (4, 4));
    let drop = Does { to: 7, counter: Some(2) };
    assert!(w.apply(&Op::Insert { table: 0, group: 2, offset: 0, value: (0, 0, 0), does: drop }).0);
    assert_eq!(send_each(&mut w, 4), (4, 0), "the rules before it are for them");
    assert!(w.apply(&Op::Delete { table: 0, index: 1 }).0);
    assert_eq!(send_each(&mut w, 4), (3, 1));
    assert_eq!(w.counts()[2].0, 1);
    // Empty again, it may go without a word.
    assert!(w.apply(&Op::Delete { table: 0, index: 32 }).0);
    assert_eq!(send_each(&mut w, 4), (3, 1));
    assert!(w.apply(&Op::NoGroup { table: 0, group: 2 }).0);
    assert_eq!(send_each(&mut w, 4), (3, 0));
}

#[test]
fn counters_come_in_bulks_and_are_asked_for_in_runs() {
    const BULK: u32 = 4;
    const LEN: u32 = 128 * BULK;
    let mut w = World::new(false);
    let first = w.pf.alloc_flow_counters(BULK).unwrap();
    let second = w.pf.alloc_flow_counters(BULK).unwrap();
    assert_eq!((first % 4, second), (0, first + LEN));
    for other in [1, 2, 3, 8, 0x80] {
        assert!(w.pf.alloc_flow_counters(other).is_err(), "{other} is not offered");
    }
    // The last of one and the first of the other.
    for (port, counter) in [(0, second - 1), (1, second)] {
        let flow = Flow { counters: vec![counter], ..Flow::to(&[Destination::Vport(w.rig.sf_id(0, 1))]) };
        let entry = |p: &mut ViewMut<'_, FteMatchParam>| look(p, 0, Some((port, 0, 0)));
        w.pf.create_entry(w.tables[0], w.groups[0][0].unwrap(), port.into(), &flow, entry).unwrap();
        assert_eq!(
            w.apply(&Op::Send { from: 0, port, to: 0, n: 3 + usize::from(port) }).1.len(),
            3 + usize::from(port)
        );
    }
    let bytes = frame(0, 0).len() as u64;
    let run = w.pf.flow_counters(second - 4, 8).unwrap();
    assert_eq!(run, [(0, 0), (0, 0), (0, 0), (3, 3 * bytes), (4, 4 * bytes), (0, 0), (0, 0), (0, 0)]);
    assert_eq!(w.pf.flow_counters(first, 2 * LEN).unwrap().iter().map(|c| c.0).sum::<u64>(), 7);
    assert_eq!(w.pf.flow_counter(second - 1).unwrap().0, 3);
    // A bulk goes when no rule counts in it, and by its first number.
    assert!(w.pf.dealloc_flow_counter(first).is_err());
    w.pf.delete_entry(w.tables[0], 0).unwrap();
    assert!(w.pf.dealloc_flow_counter(first + 1).is_err());
    w.pf.dealloc_flow_counter(first).unwrap();
    assert!(w.pf.dealloc_flow_counter(first).is_err() && w.pf.flow_counter(second - 1).is_err());
    // A run may begin where nothing is.
    assert_eq!(w.pf.flow_counters(second - 1, 2).unwrap(), [(0, 0), (4, 4 * bytes)]);
    let again = w.pf.alloc_flow_counters(BULK).unwrap();
    assert!(w.pf.flow_counters(again, LEN).unwrap().iter().all(|c| *c == (0, 0)));
}
