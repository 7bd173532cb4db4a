//! The data plane: which rule acts, in which order, and where packets end.

use std::sync::Arc;

use sfnic_firmware_cmds::layouts::FteMatchSetLyr24;
use smallvec::smallvec;

use super::testing::*;
use super::trace::{Why, why};
use super::walk::{MAX_COPIES, MAX_HOPS};
use super::*;
use crate::packet::key::OUTER;
use crate::packet::{self, MatchKey};

const RX: TableType = TableType::NicRx;
const FDB: TableType = TableType::Fdb;

fn any() -> MatchKey {
    MatchKey::default()
}

/// A table with one group that matches all.
fn catch_all(s: &mut S, kind: TableType, level: u8) -> (u32, u32) {
    let t = s.create_table(spec(kind, level, 4)).unwrap();
    let g = s.create_group(kind, t, (0, 15), 0, &any()).unwrap();
    (t, g)
}

fn set(s: &mut S, kind: TableType, (t, group): (u32, u32), index: u32, actions: Actions<Tir>) {
    s.create_fte(kind, t, FteSpec { group, index, value: &any(), actions }).unwrap();
}

fn walk(s: &S, table: u32, packet: &mut Mock) -> Vec<String> {
    verdicts(s, s.table_ref(table).unwrap(), packet)
}

#[test]
fn the_lowest_index_wins() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 8);
    // Created out of order, as the driver may.
    let high = s.create_group(RX, t, (20, 29), 1, &dmac(u32::MAX)).unwrap();
    let low = s.create_group(RX, t, (0, 9), 1, &dmac(0xff00_0000)).unwrap();
    rule(&mut s, t, high, 20, &dmac(0x1100_0001), tir(20)).unwrap();
    rule(&mut s, t, low, 5, &dmac(0x1100_0000), tir(5)).unwrap();
    rule(&mut s, t, low, 3, &dmac(0x11ff_ffff), tir(3)).unwrap();
    assert_eq!(walk(&s, t, &mut Mock::dmac(0x1100_0001)), ["tir 3"]);
    s.delete_fte(RX, t, 3).unwrap();
    assert_eq!(walk(&s, t, &mut Mock::dmac(0x1100_0001)), ["tir 5"]);
    s.delete_fte(RX, t, 5).unwrap();
    assert_eq!(walk(&s, t, &mut Mock::dmac(0x1100_0001)), ["tir 20"]);
    assert_eq!(walk(&s, t, &mut Mock::dmac(0x1100_0002)), ["default"]);
}

#[test]
fn bits_outside_mask_and_enabled_blocks_count_for_nothing() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 8);
    let mut mask = dmac(u32::MAX);
    mask.set(OUTER, FteMatchSetLyr24::ethertype, 0xffff);
    // Only inner headers are enabled: the group looks at nothing.
    let g = s.create_group(RX, t, (0, 9), 4, &mask).unwrap();
    rule(&mut s, t, g, 0, &dmac(1), tir(1)).unwrap();
    assert_eq!(walk(&s, t, &mut Mock::dmac(2)), ["tir 1"]);
    let g = s.create_group(RX, t, (10, 19), 1, &mask).unwrap();
    s.delete_fte(RX, t, 0).unwrap();
    let mut value = dmac(2);
    value.set(OUTER, FteMatchSetLyr24::ethertype, 0x800);
    value.set(OUTER, FteMatchSetLyr24::tcp_dport, 80);
    rule(&mut s, t, g, 10, &value, tir(1)).unwrap();
    let mut p = Mock::dmac(2);
    assert_eq!(walk(&s, t, &mut p), ["default"]);
    p.key.set(OUTER, FteMatchSetLyr24::ethertype, 0x800);
    assert_eq!(walk(&s, t, &mut p), ["tir 1"]);
}

#[test]
fn misses_lead_along_the_chain() {
    let mut s = S::new(Limits::default());
    let last = s.create_table(TableSpec { miss: Miss::SwitchDomain, ..spec(RX, 9, 0) }).unwrap();
    let mid = s.create_table(TableSpec { miss: Miss::Table(s.table_ref(last).unwrap()), ..spec(RX, 5, 4) }).unwrap();
    let first = s.create_table(TableSpec { miss: Miss::Table(s.table_ref(mid).unwrap()), ..spec(RX, 1, 4) }).unwrap();
    let g = s.create_group(RX, mid, (0, 15), 1, &dmac(u32::MAX)).unwrap();
    rule(&mut s, mid, g, 0, &dmac(7), tir(7)).unwrap();
    assert_eq!(walk(&s, first, &mut Mock::dmac(7)), ["tir 7"]);
    assert_eq!(walk(&s, first, &mut Mock::dmac(8)), ["switchdomain"]);
    s.modify_table(RX, first, Miss::Table(s.table_ref(last).unwrap())).unwrap();
    assert_eq!(walk(&s, first, &mut Mock::dmac(7)), ["switchdomain"]);
    s.modify_table(RX, first, Miss::Default).unwrap();
    assert_eq!(walk(&s, first, &mut Mock::dmac(7)), ["default"]);
}

#[test]
fn actions_happen_in_the_devices_order() {
    let mut s = S::new(Limits::default());
    let t = catch_all(&mut s, FDB, 0);
    let bulk = Counters::bulk(1);
    let context = |id, kind| {
        let header = Box::default();
        let action = match kind {
            3 => packet::Reformat::DecapL3 { header },
            _ => packet::Reformat::Encap { header, l2_to_l3: false },
        };
        Arc::new(Reformat { id, action })
    };
    let flags = Action::all() - Action::DROP - Action::ALLOW;
    let a = Actions {
        flags,
        flow_tag: 0x77,
        counters: smallvec![bulk.counter(1).unwrap()],
        modify: Some(Arc::new(ModifyHeader { id: 4, table_type: 4, actions: Box::default() })),
        reformat: Some(context(5, 2)),
        push_vlan: [PushVlan { ethertype: 0x8100, tci: 1 }, PushVlan { ethertype: 0x88a8, tci: 2 }],
        dests: smallvec![Dest::Uplink { vhca_id: None, reformat: Some(context(6, 0)) }],
        ..Actions::default()
    };
    set(&mut s, FDB, t, 1, a.clone());
    let mut p = Mock::dmac(0);
    assert_eq!(walk(&s, t.0, &mut p), ["uplink { vhca_id: none }"]);
    assert_eq!(p.done, ["decap", "modify 4", "pop", "pop", "push 1", "push 2", "reformat 5", "reformat 6"]);
    assert_eq!((p.tag, bulk.counter(1).unwrap().read()), (0x77, (1, 60)));
    // A reformat that removes comes first.
    set(&mut s, FDB, t, 0, Actions { reformat: Some(context(5, 3)), ..a });
    let mut p = Mock::dmac(0);
    walk(&s, t.0, &mut p);
    assert_eq!(p.done[..3], ["decap", "reformat 5", "modify 4"]);
    // What cannot be done drops the packet, counted.
    let mut p = Mock { fails: "pop", ..Mock::dmac(0) };
    assert_eq!(walk(&s, t.0, &mut p), ["drop(action)"]);
    assert_eq!(bulk.counter(1).unwrap().read().0, 3);
}

#[test]
fn allow_drop_and_no_destination_end_the_way() {
    let mut s = S::new(Limits::default());
    let t = catch_all(&mut s, RX, 0);
    let bulk = Counters::bulk(1);
    let counters: smallvec::SmallVec<[FlowCounter; 1]> = smallvec![bulk.counter(1).unwrap()];
    set(&mut s, RX, t, 9, Actions { flags: Action::ALLOW, ..Actions::default() });
    assert_eq!(walk(&s, t.0, &mut Mock::dmac(0)), ["allow"]);
    set(&mut s, RX, t, 8, Actions { flags: Action::DROP | Action::COUNT, counters, ..Actions::default() });
    assert_eq!(walk(&s, t.0, &mut Mock::dmac(0)), ["drop(rule)"]);
    assert_eq!(bulk.counter(1).unwrap().read(), (1, 60));
    set(&mut s, RX, t, 7, tir(1));
    s.modify_fte(RX, t.0, 7, Modify::DESTS, Actions::default()).unwrap();
    assert_eq!(walk(&s, t.0, &mut Mock::dmac(0)), ["drop(nodestination)"]);
}

#[test]
fn a_tag_of_zero_keeps_the_tag() {
    let mut s = S::new(Limits::default());
    let second = catch_all(&mut s, RX, 1);
    set(&mut s, RX, second, 0, tir(1));
    let first = catch_all(&mut s, RX, 0);
    let a = Actions { flow_tag: 0x42, ..to_table(&s, second.0) };
    set(&mut s, RX, first, 0, a);
    let mut p = Mock::dmac(0);
    assert_eq!(walk(&s, first.0, &mut p), ["tir 1"]);
    assert_eq!(p.tag, 0x42);
}

#[test]
fn flow_source_keeps_packets_of_the_other_side_away() {
    // As the bridge does: what came from the wire does not go back to it.
    let mut s = S::new(Limits::default());
    let t = catch_all(&mut s, FDB, 0);
    let vport = |num| Dest::Vport { num, vhca_id: None, reformat: None };
    set(&mut s, FDB, t, 0, Actions { flow_source: FlowSource::LocalVport, ..forward(vport(0xffff)) });
    let mut p = Mock::dmac(0);
    assert_eq!(walk(&s, t.0, &mut p), ["vport 0xffff"]);
    p.wire = true;
    assert_eq!(walk(&s, t.0, &mut p), ["default"]);
    set(&mut s, FDB, t, 1, forward(vport(3)));
    assert_eq!(walk(&s, t.0, &mut p), ["vport 0x3"]);
}

#[test]
fn several_destinations_get_a_copy_each() {
    let mut s = S::new(Limits::default());
    let sub = catch_all(&mut s, FDB, 1);
    let vport = |num| Dest::Vport { num, vhca_id: None, reformat: None };
    let modify = Some(Arc::new(ModifyHeader { id: 9, table_type: 4, actions: Box::default() }));
    let flags = Action::FORWARD | Action::MODIFY_HEADER;
    set(&mut s, FDB, sub, 0, Actions { flags, modify, ..forward(vport(5)) });
    let t = catch_all(&mut s, FDB, 0);
    let dests = smallvec![vport(1), Dest::Table(s.table_ref(sub.0).unwrap()), vport(2)];
    set(&mut s, FDB, t, 0, Actions { dests, ..forward(vport(0)) });
    let (mut seen, reader) = (Vec::new(), s.reader());
    let mut sink = |p: &mut Mock, v: Verdict<'_, Tir>| seen.push((short(v), p.done.join(",")));
    reader.load().walk(s.table_ref(t.0).unwrap(), &mut Mock::dmac(0), 0, &mut sink, &mut NoTrace);
    let want = [("vport 0x1", "copy"), ("vport 0x5", "copy,modify 9"), ("vport 0x2", "")];
    assert_eq!(seen, want.map(|(a, b)| (a.to_string(), b.to_string())));
}

#[test]
fn a_loop_of_tables_ends() {
    let mut s = S::new(Limits::default());
    let (a, b) = (catch_all(&mut s, RX, 0), catch_all(&mut s, RX, 0));
    for (t, to) in [(a, b), (b, a)] {
        let actions = Actions { ignore_flow_level: true, ..to_table(&s, to.0) };
        set(&mut s, RX, t, 0, actions);
    }
    assert_eq!(walk(&s, a.0, &mut Mock::dmac(0)), ["drop(loop)"]);
}

#[test]
fn a_loop_that_copies_ends() {
    let mut s = S::new(Limits::default());
    let t = catch_all(&mut s, RX, 0);
    let me = Dest::Table(s.table_ref(t.0).unwrap());
    let a = Actions { ignore_flow_level: true, dests: smallvec![me.clone(), me.clone(), me.clone()], ..forward(me) };
    set(&mut s, RX, t, 0, a);
    let ends = walk(&s, t.0, &mut Mock::dmac(0));
    assert!(ends.len() as u32 <= MAX_COPIES + 1, "{}", ends.len());
    assert!(ends.iter().all(|e| e.starts_with("drop(")));
}

#[test]
fn a_long_chain_within_the_bound_is_walked() {
    let mut s = S::new(Limits::default());
    // One table a level, as many as there are levels.
    assert_eq!(MAX_HOPS, 256);
    let mut next = catch_all(&mut s, RX, 255);
    set(&mut s, RX, next, 0, tir(1));
    for level in (0..=u8::MAX - 1).rev() {
        let t = catch_all(&mut s, RX, level);
        let actions = to_table(&s, next.0);
        set(&mut s, RX, t, 0, actions);
        next = t;
    }
    assert_eq!(walk(&s, next.0, &mut Mock::dmac(0)), ["tir 1"]);
}

#[test]
fn modification_replaces_what_it_names() {
    let mut s = S::new(Limits::default());
    let t = catch_all(&mut s, RX, 0);
    let bulk = Counters::bulk(1);
    let counter = |id| smallvec![bulk.counter(id).unwrap()];
    let a = Actions { flags: Action::FORWARD | Action::COUNT, flow_tag: 1, counters: counter(1), ..tir(1) };
    set(&mut s, RX, t, 0, a);
    let new = || Actions { flow_tag: 2, counters: counter(2), flags: Action::FORWARD, ..tir(2) };
    let mut step = |what| {
        s.modify_fte(RX, t.0, 0, what, new()).unwrap();
        let mut p = Mock::dmac(0);
        let to = walk(&s, t.0, &mut p).join("");
        let counts = (bulk.counter(1).unwrap().read().0, bulk.counter(2).unwrap().read().0);
        (to, p.tag, counts)
    };
    assert_eq!(step(Modify::DESTS), ("tir 2".into(), 1, (1, 0)));
    assert_eq!(step(Modify::TAG), ("tir 2".into(), 2, (2, 0)));
    assert_eq!(step(Modify::COUNTERS), ("tir 2".into(), 2, (2, 1)));
    assert_eq!(step(Modify::ACTION), ("tir 2".into(), 2, (2, 1)));
}

#[test]
fn packets_in_flight_see_a_rule_before_or_after() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 10);
    let g = s.create_group(RX, t, (0, 1023), 1, &dmac(u32::MAX)).unwrap();
    rule(&mut s, t, g, 0, &dmac(1), tir(1)).unwrap();
    let at = s.table_ref(t).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = s.reader();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut sink = |_: &mut Mock, v: Verdict<'_, Tir>| {
                    assert!(matches!(v, Verdict::Tir { id, tir } if id == **tir), "{v:?}");
                };
                reader.load().walk(at, &mut Mock::dmac(1), 1, &mut sink, &mut NoTrace);
            }
        });
        // Modified while it is one of few, while the group grows, and while it
        // is one of many; each time to a table that did not exist before.
        for round in 0..200u32 {
            let to = rx(&mut s, 1 + (round % 2) as u8, 1);
            let inner = s.create_group(RX, to, (0, 1), 0, &any()).unwrap();
            rule(&mut s, to, inner, 0, &any(), tir(round)).unwrap();
            s.modify_fte(RX, t, 0, Modify::DESTS, to_table(&s, to)).unwrap();
            s.modify_fte(RX, t, 0, Modify::DESTS, tir(round + 2)).unwrap();
            rule(&mut s, t, g, 1 + round, &dmac(100 + round), tir(1)).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_trace_tells_the_way_and_the_reason_of_a_miss() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 2, 8);
    let exact = s.create_group(RX, t, (0, 9), 1, &dmac(u32::MAX)).unwrap();
    rule(&mut s, t, exact, 4, &dmac(0x1122_3344), tir(1)).unwrap();
    s.create_group(RX, t, (10, 10), 1, &dmac(1)).unwrap();
    let last = s.create_group(RX, t, (11, 11), 0, &any()).unwrap();
    rule(&mut s, t, last, 11, &any(), tir(2)).unwrap();
    let (mut told, reader) = (Vec::new(), s.reader());
    let mut trace = |step: Step<'_, Tir>| {
        told.push(match step {
            Step::Enter { table, .. } => format!("enter {} level {}", table.id(), table.level),
            Step::Miss { group, packet } => match why(group, packet) {
                Why::NoRule => format!("{}: no rule", group.start),
                Why::Differs { index, field, packet, rule } => format!("{index}: {field} {packet:x} not {rule:x}"),
            },
            Step::Hit { fte, .. } => format!("hit {}", fte.index),
            Step::Acted { done, .. } => format!("done {done}"),
            Step::Copy { number } => format!("copy {number}"),
            Step::End { verdict } => short(verdict),
        });
    };
    let mut sink = |_: &mut Mock, _: Verdict<'_, Tir>| {};
    reader.load().walk(s.table_ref(t).unwrap(), &mut Mock::dmac(0xff), 0, &mut sink, &mut trace);
    let want = [
        &*format!("enter {t} level 2"),
        "4: outer_headers.dmac_47_16 ff not 11223344",
        "10: no rule",
        "hit 11",
        "done true",
        "tir 2",
    ];
    assert_eq!(told, want);
}

/// `cargo test --release -- --ignored --nocapture how_long_a_walk_takes`
#[test]
#[ignore = "a measurement"]
fn how_long_a_walk_takes() {
    let mut s = S::new(Limits::default());
    let ttc = catch_all(&mut s, RX, 3);
    set(&mut s, RX, ttc, 0, tir(1));
    let l2 = rx(&mut s, 2, 20);
    let g = s.create_group(RX, l2, (0, 0xf_ffff), 1, &dmac(u32::MAX)).unwrap();
    for i in 0..100_000 {
        let to = to_table(&s, ttc.0);
        rule(&mut s, l2, g, i, &dmac(i), to).unwrap();
    }
    let vlan = catch_all(&mut s, RX, 1);
    let to = to_table(&s, l2);
    set(&mut s, RX, vlan, 0, to);
    let (from, reader) = (s.table_ref(vlan.0).unwrap(), s.reader());
    let (mut delivered, rounds) = (0u32, 2_000_000u32);
    let mut sink = |_: &mut Mock, _: Verdict<'_, Tir>| delivered += 1;
    let mut packet = Mock::dmac(0);
    let start = std::time::Instant::now();
    for burst in 0..rounds / 32 {
        let view = reader.load();
        for i in 0..32 {
            let low = (burst * 32 + i).wrapping_mul(0x9e37_79b1) % 100_000;
            packet.key.set(OUTER, FteMatchSetLyr24::dmac_47_16, low);
            view.walk(from, &mut packet, 0, &mut sink, &mut NoTrace);
        }
    }
    let ns = start.elapsed().as_nanos() / u128::from(rounds);
    println!("{ns} ns for three tables, one with 100000 rules; {delivered} delivered");
}
