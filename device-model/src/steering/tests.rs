//! The control side: what is refused, what is counted, what is freed.

use std::sync::Arc;

use sfnic_firmware_cmds::status::{Refusal, Status, Syndrome};
use smallvec::smallvec;

use super::testing::*;
use super::*;
use crate::packet::MatchKey;

const RX: TableType = TableType::NicRx;

fn syndrome<T>(r: Result<T, Refusal>) -> Syndrome {
    r.err().expect("refused").syndrome
}

#[test]
fn ranges_of_groups_do_not_overlap_and_stay_in_the_table() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 4);
    let mut group = |a, b| s.create_group(RX, t, (a, b), 0, &MatchKey::default());
    group(4, 7).unwrap();
    group(8, 15).unwrap();
    group(0, 0).unwrap();
    for (a, b) in [(7, 7), (4, 4), (3, 4), (1, 9), (0, 15), (3, 2), (16, 16), (2, u32::MAX)] {
        assert_eq!(syndrome(group(a, b)), Syndrome::GROUP_RANGE, "{a}..={b}");
    }
    group(1, 3).unwrap();
}

#[test]
fn a_group_may_end_at_the_tables_last_entry() {
    // The miss group of the FDB ends one past the entries that were asked for.
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 7);
    s.create_group(RX, t, (100, 127), 0, &MatchKey::default()).unwrap();
    assert_eq!(syndrome(s.create_group(RX, t, (99, 128), 0, &MatchKey::default())), Syndrome::GROUP_RANGE);
}

#[test]
fn unknown_match_criteria_are_refused() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 0);
    assert_eq!(syndrome(s.create_group(RX, t, (0, 0), 0x80, &MatchKey::default())), Syndrome::MATCH_CRITERIA);
}

#[test]
fn an_index_is_free_inside_its_group_and_used_once() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 4);
    let g = s.create_group(RX, t, (2, 3), 1, &dmac(u32::MAX)).unwrap();
    assert_eq!(syndrome(rule(&mut s, t, g, 4, &dmac(1), tir(1))), Syndrome::FTE_INDEX);
    assert_eq!(syndrome(rule(&mut s, t, g + 1, 2, &dmac(1), tir(1))), Syndrome::NO_SUCH_OBJECT);
    rule(&mut s, t, g, 2, &dmac(1), tir(1)).unwrap();
    assert_eq!(syndrome(rule(&mut s, t, g, 2, &dmac(2), tir(1))), Syndrome::FTE_EXISTS);
    assert_eq!(syndrome(s.delete_fte(RX, t, 3)), Syndrome::FTE_ABSENT);
    assert_eq!(syndrome(s.delete_fte(RX, t, 9)), Syndrome::FTE_INDEX);
    s.delete_fte(RX, t, 2).unwrap();
    rule(&mut s, t, g, 2, &dmac(2), tir(1)).unwrap();
}

#[test]
fn destinations_are_at_a_higher_level_unless_ignored() {
    let mut s = S::new(Limits::default());
    let (low, same, high) = (rx(&mut s, 4, 1), rx(&mut s, 5, 1), rx(&mut s, 6, 1));
    let t = rx(&mut s, 5, 2);
    let g = s.create_group(RX, t, (0, 3), 0, &MatchKey::default()).unwrap();
    let key = MatchKey::default();
    for bad in [low, same, t] {
        let a = to_table(&s, bad);
        assert_eq!(syndrome(rule(&mut s, t, g, 0, &key, a)), Syndrome::DESTINATION_LEVEL);
        let a = Actions { ignore_flow_level: true, ..to_table(&s, bad) };
        rule(&mut s, t, g, 0, &key, a).unwrap();
        s.delete_fte(RX, t, 0).unwrap();
    }
    let a = to_table(&s, high);
    rule(&mut s, t, g, 0, &key, a).unwrap();
}

#[test]
fn a_miss_goes_to_a_higher_level_of_the_same_type() {
    let mut s = S::new(Limits::default());
    let (a, b) = (rx(&mut s, 1, 1), rx(&mut s, 2, 1));
    let tx = s.create_table(spec(TableType::NicTx, 9, 1)).unwrap();
    for bad in [a, tx] {
        let miss = Miss::Table(s.table_ref(bad).unwrap());
        assert_eq!(syndrome(s.modify_table(RX, b, miss)), Syndrome::TABLE_MISS);
    }
    s.modify_table(RX, a, Miss::Table(s.table_ref(b).unwrap())).unwrap();
    assert_eq!(syndrome(s.modify_table(TableType::NicTx, a, Miss::Default)), Syndrome::TABLE_TYPE_MISMATCH);
    assert_eq!(syndrome(s.table_ref(99)), Syndrome::FTE_DESTINATION);
}

#[test]
fn what_is_referred_to_is_not_destroyed() {
    let mut s = S::new(Limits::default());
    let (a, b, c) = (rx(&mut s, 1, 1), rx(&mut s, 2, 1), rx(&mut s, 3, 1));
    s.modify_table(RX, a, Miss::Table(s.table_ref(b).unwrap())).unwrap();
    let g = s.create_group(RX, a, (0, 1), 0, &MatchKey::default()).unwrap();
    let to_c = to_table(&s, c);
    rule(&mut s, a, g, 0, &MatchKey::default(), to_c).unwrap();
    let busy = Err(Refusal::state(Syndrome::OBJECT_REFERENCED));
    for t in [a, b, c] {
        assert_eq!(s.destroy_table(RX, t), busy);
    }
    assert_eq!(s.destroy_group(RX, a, g), busy);
    // Modification moves the reference.
    s.modify_fte(RX, a, 0, Modify::DESTS, to_table(&s, b)).unwrap();
    s.destroy_table(RX, c).unwrap();
    s.modify_table(RX, a, Miss::Default).unwrap();
    assert_eq!(s.destroy_table(RX, b), busy);
    s.delete_fte(RX, a, 0).unwrap();
    s.destroy_table(RX, b).unwrap();
    s.destroy_group(RX, a, g).unwrap();
    s.destroy_table(RX, a).unwrap();
    assert_eq!(s.destroy_table(RX, a), Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT)));
}

#[test]
fn a_destroyed_root_leaves_the_type_without_root() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 0);
    s.set_root(RX, 0, t).unwrap();
    assert_eq!(syndrome(s.set_root(TableType::NicTx, 0, t)), Syndrome::TABLE_TYPE_MISMATCH);
    assert_eq!(s.reader().load().root(RX, 0), Some(s.table_ref(t).unwrap()));
    s.destroy_table(RX, t).unwrap();
    assert_eq!(s.reader().load().root(RX, 0), None);
}

#[test]
fn roots_are_told_apart_by_type_and_vport() {
    let mut s = S::new(Limits::default());
    let acl = TableType::IngressAcl;
    let a = s.create_table(spec(acl, 0, 1)).unwrap();
    let b = s.create_table(spec(acl, 0, 1)).unwrap();
    s.set_root(acl, 0, a).unwrap();
    s.set_root(acl, 0xffff, b).unwrap();
    let at = |s: &S, v| s.reader().load().root(acl, v).map(TableRef::id);
    assert_eq!((at(&s, 0), at(&s, 0xffff), at(&s, 1)), (Some(a), Some(b), None));
    s.clear_root(acl, 0);
    assert_eq!((at(&s, 0), at(&s, 0xffff)), (None, Some(b)));
}

#[test]
fn actions_that_do_not_fit_are_refused() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 4);
    let fdb = s.create_table(spec(TableType::Fdb, 0, 4)).unwrap();
    let key = MatchKey::default();
    let g = s.create_group(RX, t, (0, 15), 0, &key).unwrap();
    let f = s.create_group(TableType::Fdb, fdb, (0, 15), 0, &key).unwrap();
    let flags = |flags| Actions { flags, ..Actions::default() };
    for bad in [
        Action::empty(),
        Action::DROP | Action::ALLOW,
        Action::DROP | Action::MODIFY_HEADER,
        Action::ALLOW | Action::REFORMAT,
    ] {
        assert_eq!(syndrome(rule(&mut s, t, g, 0, &key, flags(bad))), Syndrome::FTE_ACTION, "{bad:?}");
    }
    assert_eq!(syndrome(rule(&mut s, t, g, 0, &key, flags(Action::FORWARD))), Syndrome::FTE_LIST);
    let foreign = ModifyHeader { id: 1, table_type: TableType::Fdb as u8, actions: Box::default() };
    let a = Actions { modify: Some(Arc::new(foreign)), ..flags(Action::ALLOW | Action::MODIFY_HEADER) };
    assert_eq!(syndrome(rule(&mut s, t, g, 0, &key, a)), Syndrome::FTE_ACTION);
    let uplink = forward(Dest::Uplink { vhca_id: None, reformat: None });
    assert_eq!(syndrome(rule(&mut s, t, g, 0, &key, uplink)), Syndrome::FTE_DESTINATION);
    let spec = FteSpec { group: f, index: 0, value: &key, actions: tir(1) };
    assert_eq!(syndrome(s.create_fte(TableType::Fdb, fdb, spec)), Syndrome::FTE_DESTINATION);
    let other = to_table(&s, fdb);
    assert_eq!(syndrome(rule(&mut s, t, g, 0, &key, other)), Syndrome::FTE_DESTINATION);
}

#[test]
fn limits_hold() {
    let limits = Limits { tables: 2, groups: 1, rules: 2, log_size: 10, dests: 1, same_value: 1, ..Limits::default() };
    let mut s = S::new(limits);
    let t = rx(&mut s, 0, 10);
    assert_eq!(syndrome(s.create_table(spec(RX, 0, 11))), Syndrome::TABLE_SIZE);
    rx(&mut s, 0, 10);
    assert_eq!(syndrome(s.create_table(spec(RX, 0, 1))), Syndrome::OBJECT_LIMIT);
    let g = s.create_group(RX, t, (0, 9), 1, &dmac(u32::MAX)).unwrap();
    assert_eq!(syndrome(s.create_group(RX, t, (10, 10), 0, &dmac(0))), Syndrome::OBJECT_LIMIT);
    let mut two = tir(1);
    two.dests.push(Dest::Tir { id: 2, tir: Arc::new(2) });
    assert_eq!(syndrome(rule(&mut s, t, g, 0, &dmac(0), two)), Syndrome::FTE_LIST);
    rule(&mut s, t, g, 0, &dmac(0), tir(1)).unwrap();
    assert_eq!(syndrome(rule(&mut s, t, g, 1, &dmac(0), tir(1))), Syndrome::OBJECT_LIMIT);
    rule(&mut s, t, g, 1, &dmac(1), tir(1)).unwrap();
    assert_eq!(syndrome(rule(&mut s, t, g, 2, &dmac(2), tir(1))), Syndrome::OBJECT_LIMIT);
}

#[test]
fn changes_name_the_objects_that_rules_use() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 4);
    let g = s.create_group(RX, t, (0, 15), 0, &MatchKey::default()).unwrap();
    let bulk = Counters::bulk(0x80);
    let modify = Arc::new(ModifyHeader { id: 7, table_type: 0, actions: Box::default() });
    let flags = Action::FORWARD | Action::COUNT | Action::MODIFY_HEADER;
    let counters = smallvec![bulk.counter(0x85).unwrap()];
    let a = Actions { flags, counters, modify: Some(modify), ..tir(3) };
    let all = vec![Used::Counter(0x80), Used::ModifyHeader(7), Used::Tir(3)];
    let made = rule(&mut s, t, g, 0, &MatchKey::default(), a).unwrap();
    assert_eq!(made, Change { taken: all.clone(), released: vec![] });
    let changed = s.modify_fte(RX, t, 0, Modify::DESTS, tir(4)).unwrap();
    let new = vec![Used::Counter(0x80), Used::ModifyHeader(7), Used::Tir(4)];
    assert_eq!(changed, Change { taken: new.clone(), released: all });
    assert_eq!(s.clear(), Change { taken: vec![], released: new });
}

#[test]
fn clear_frees_everything_even_in_a_circle() {
    let changes = Arc::new(Changes::default());
    let mut s = S::with(Limits::default(), changes.clone());
    let (a, b) = (rx(&mut s, 1, 6), rx(&mut s, 1, 6));
    let tir = Arc::new(5);
    for (t, other) in [(a, b), (b, a)] {
        let g = s.create_group(RX, t, (0, 63), 1, &dmac(u32::MAX)).unwrap();
        for i in 0..40 {
            let dests = smallvec![Dest::Tir { id: 5, tir: tir.clone() }, Dest::Table(s.table_ref(other).unwrap())];
            let actions = Actions { flags: Action::FORWARD, ignore_flow_level: true, dests, ..Actions::default() };
            rule(&mut s, t, g, i, &dmac(i), actions).unwrap();
        }
    }
    s.set_root(RX, 0, a).unwrap();
    let before = changes.now();
    s.clear();
    assert_eq!(Arc::strong_count(&tir), 1);
    assert_eq!(s.reader().load().root(RX, 0), None);
    assert_ne!(changes.now().epoch(), before.epoch());
}

#[test]
fn a_deleted_rule_lets_go_of_its_objects() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 1, 10);
    let g = s.create_group(RX, t, (0, 1023), 1, &dmac(u32::MAX)).unwrap();
    let tir = Arc::new(5);
    for i in 0..100 {
        rule(&mut s, t, g, i, &dmac(i), forward(Dest::Tir { id: 5, tir: tir.clone() })).unwrap();
    }
    for i in 0..100 {
        s.delete_fte(RX, t, i).unwrap();
    }
    // At most the last one waits for a later change.
    assert!(Arc::strong_count(&tir) <= 2, "{}", Arc::strong_count(&tir));
    s.destroy_group(RX, t, g).unwrap();
    assert_eq!(Arc::strong_count(&tir), 1);
}

#[test]
fn a_number_that_is_used_again_is_another_table() {
    let mut s = S::new(Limits::default());
    let old = rx(&mut s, 1, 1);
    let at = s.table_ref(old).unwrap();
    s.destroy_table(RX, old).unwrap();
    let mut last = 0;
    while last != old {
        last = rx(&mut s, 1, 1);
        if last != old {
            s.destroy_table(RX, last).unwrap();
        }
    }
    assert_ne!(s.table_ref(old).unwrap(), at);
    assert_eq!(verdicts(&s, at, &mut Mock::dmac(1)), ["drop(stale)"]);
    let t = rx(&mut s, 0, 1);
    assert_eq!(syndrome(s.modify_table(RX, t, Miss::Table(at))), Syndrome::TABLE_MISS);
}

#[test]
fn a_million_rules_in_a_table_of_four_million() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 0, 22);
    let g = s.create_group(RX, t, (0, (1 << 22) - 1), 1, &dmac(u32::MAX)).unwrap();
    let one = Arc::new(1);
    for i in 0..1_000_000 {
        let to = forward(Dest::Tir { id: 1, tir: one.clone() });
        rule(&mut s, t, g, i, &dmac(i.wrapping_mul(0x9e37_79b1)), to).unwrap();
    }
    let at = s.table_ref(t).unwrap();
    for i in [0, 1, 65_535, 999_999u32] {
        assert_eq!(verdicts(&s, at, &mut Mock::dmac(i.wrapping_mul(0x9e37_79b1))), ["tir 1"]);
    }
    s.delete_fte(RX, t, 65_535).unwrap();
    assert_eq!(verdicts(&s, at, &mut Mock::dmac(65_535u32.wrapping_mul(0x9e37_79b1))), ["default"]);
    s.clear();
    assert_eq!(Arc::strong_count(&one), 1);
}

#[test]
fn many_large_tables_cost_little() {
    let mut s = S::new(Limits::default());
    for _ in 0..2000 {
        let t = rx(&mut s, 0, 24);
        s.create_group(RX, t, (0, (1 << 24) - 1), 1, &dmac(u32::MAX)).unwrap();
    }
}

#[test]
fn a_dump_names_fields_and_counts() {
    let mut s = S::new(Limits::default());
    let t = rx(&mut s, 3, 4);
    s.set_root(RX, 0, t).unwrap();
    let g = s.create_group(RX, t, (0, 15), 1, &dmac(0xffff_0000)).unwrap();
    let bulk = Counters::bulk(9);
    let counters = smallvec![bulk.counter(9).unwrap()];
    let a = Actions { flags: Action::FORWARD | Action::COUNT, counters, flow_tag: 6, ..tir(2) };
    rule(&mut s, t, g, 5, &dmac(0xabcd_1234), a).unwrap();
    verdicts(&s, s.table_ref(t).unwrap(), &mut Mock::dmac(0xabcd_0000));
    let json = serde_json::to_value(s.dump(10)).unwrap();
    assert_eq!(json["roots"][0]["kind"], "nic_rx");
    let group = &json["tables"][0]["groups"][0];
    assert_eq!(group["mask"][0]["field"], "outer_headers.dmac_47_16");
    let rule = &group["rules"][0];
    assert_eq!(rule["value"][0]["value"], 0xabcd_0000u32);
    assert_eq!(rule["actions"], serde_json::json!(["FORWARD", "COUNT"]));
    assert_eq!(rule["dests"][0], serde_json::json!({"to": "tir", "id": 2}));
    assert_eq!(rule["counters"][0], serde_json::json!({"id": 9, "packets": 1, "octets": 60}));
}

#[test]
fn the_types_that_have_a_root_are_known_without_the_picture() {
    let mut s = S::new(Limits::default());
    let r = s.reader();
    let known = |r: &Reader<_>| TableType::ALL.into_iter().filter(|k| r.has_roots(*k)).collect::<Vec<_>>();
    let t = rx(&mut s, 0, 4);
    assert_eq!(known(&r), []);
    s.set_root(RX, 0, t).unwrap();
    s.set_root(RX, 7, t).unwrap();
    assert_eq!(known(&r), [RX]);
    s.clear_root(RX, 7);
    assert_eq!(known(&r), [RX], "one is left");
    s.destroy_table(RX, t).unwrap();
    assert_eq!(known(&r), []);
    let t = rx(&mut s, 0, 4);
    s.set_root(RX, 0, t).unwrap();
    s.clear();
    assert_eq!(known(&r), []);
}

#[test]
fn rules_of_a_termination_table_leave_the_eswitch() {
    const FDB: TableType = TableType::Fdb;
    let mut s = S::new(Limits::default());
    let end = TableSpec { flags: TableFlags::TERMINATION, ..spec(FDB, 1, 0) };
    let (end, other) = (s.create_table(end).unwrap(), s.create_table(spec(FDB, 2, 0)).unwrap());
    let group = s.create_group(FDB, end, (0, 0), 0, &MatchKey::default()).unwrap();
    let value = MatchKey::default();
    let to = |s: &mut S, actions| s.create_fte(FDB, end, FteSpec { group, index: 0, value: &value, actions });
    let on = to_table(&s, other);
    assert_eq!(syndrome(to(&mut s, on)), Syndrome::FTE_DESTINATION);
    to(&mut s, forward(Dest::Vport { num: 3, vhca_id: None, reformat: None })).unwrap();
}
