//! The control side: what the steering commands do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use sfnic_firmware_cmds::status::{Refusal, Status, Syndrome};

mod saved;

pub(crate) use saved::{Resolve, SavedSteering};

use super::changes::Changes;
use super::domain::{Domain, Miss, Reader, Shared, Table, TableFlags, TableRef, TableType};
use super::group::{CRITERIA, Group};
use super::object::{Action, Actions, Dest, Fte, Used};
use crate::packet::MatchKey;

/// How much of everything there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest `log_size` of a table (capability `log_max_ft_size`).
    pub log_size: u8,
    /// Tables.
    pub tables: u32,
    /// Groups of one table: a packet may have to ask each.
    pub groups: usize,
    /// Rules in all tables together.
    pub rules: u64,
    /// Rules of one group with the same value, of which packets see one.
    pub same_value: usize,
    /// Destinations of a rule (capability `log_max_destination`).
    pub dests: usize,
    /// Counters of a rule (capability `log_max_flow_counter`).
    pub counters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (tables, rules) = (1 << 16, 1 << 22);
        Self { log_size: 24, tables, groups: 1024, rules, same_value: 1024, dests: 1024, counters: 16 }
    }
}

/// A table to create (CREATE_FLOW_TABLE).
#[derive(Debug, Clone, Copy)]
pub struct TableSpec {
    /// Type.
    pub kind: TableType,
    /// Level.
    pub level: u8,
    /// `1 << log_size` entries.
    pub log_size: u8,
    /// What its rules may do.
    pub flags: TableFlags,
    /// What happens when no rule matches.
    pub miss: Miss,
}

/// A rule to create (SET_FLOW_TABLE_ENTRY, op_mod 0).
pub struct FteSpec<'a, T> {
    /// The group that it goes to.
    pub group: u32,
    /// Its index in the table, inside the group's range.
    pub index: u32,
    /// Match value; bits outside the group's mask count for nothing.
    pub value: &'a MatchKey,
    /// What it does.
    pub actions: Actions<T>,
}

bitflags::bitflags! {
    /// What SET_FLOW_TABLE_ENTRY with op_mod 1 replaces
    /// (`modify_enable_mask`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Modify: u8 {
        /// Actions with their objects: header edits, reformat, VLAN headers.
        const ACTION = 1;
        /// Flow tag.
        const TAG = 2;
        /// Destination list.
        const DESTS = 4;
        /// Counter list.
        const COUNTERS = 8;
    }
}

/// What a change did to objects outside the engine. The caller counts up what
/// is `taken`, then down what is `released`; an object that is named twice
/// counts twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Used from now on.
    pub taken: Vec<Used>,
    /// No longer used.
    pub released: Vec<Used>,
}

struct GroupControl<T> {
    group: Arc<Group<T>>,
    rules: HashMap<u32, Arc<Fte<T>>, RandomState>,
}

struct TableControl<T> {
    table: Arc<Table<T>>,
    /// Rules and tables that lead here.
    refs: u64,
    /// In order of their ranges.
    groups: Vec<GroupControl<T>>,
}

/// The tables of one function, or of one eswitch. `T` is the TIR.
pub struct Steering<T> {
    shared: Arc<Shared<T>>,
    changes: Arc<Changes>,
    limits: Limits,
    tables: HashMap<u32, TableControl<T>, RandomState>,
    ids: Ids,
    group_ids: Ids,
    serial: u64,
    rules: u64,
}

/// Numbers of 24 bits from 1 on, the one freed longest ago first.
#[derive(Default)]
struct Ids {
    last: u32,
    free: std::collections::VecDeque<u32>,
    /// The next one, which was given out before.
    wanted: Option<u32>,
}

impl Ids {
    const MAX: u32 = 0xff_ffff;

    fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.wanted.take() {
            return Some(id);
        }
        // A number rests for a while, so that a driver's stale one shows.
        if self.free.len() > 64 || self.last == Self::MAX {
            return self.free.pop_front();
        }
        self.last += 1;
        Some(self.last)
    }
    fn give(&mut self, id: u32) {
        self.free.push_back(id);
    }
}

const NO_TABLE: Refusal = Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT);
const LIMIT: Refusal = Refusal::new(Status::Limit, Syndrome::OBJECT_LIMIT);

impl<T: Send + Sync + 'static> Steering<T> {
    /// For tests that ask nobody what changed.
    #[cfg(test)]
    pub(super) fn new(limits: Limits) -> Self {
        Self::with(limits, Arc::default())
    }

    /// No tables yet. `changes` is told of whatever may lead packets another
    /// way, after the change.
    pub fn with(limits: Limits, changes: Arc<Changes>) -> Self {
        let shared = Shared { domain: ArcSwap::from_pointee(Domain::default()), rooted: AtomicU16::new(0) };
        Self {
            shared: Arc::new(shared),
            changes,
            limits,
            tables: HashMap::default(),
            ids: Ids::default(),
            group_ids: Ids::default(),
            serial: 0,
            rules: 0,
        }
    }

    /// The end that packets use.
    pub fn reader(&self) -> Reader<T> {
        Reader { shared: self.shared.clone() }
    }

    /// A table by its number, for a miss or a destination.
    ///
    /// Refuses a number that no table has ([`Syndrome::FTE_DESTINATION`]).
    pub fn table_ref(&self, id: u32) -> Result<TableRef, Refusal> {
        let table = self.tables.get(&id).ok_or(Refusal::new(Status::BadRes, Syndrome::FTE_DESTINATION))?;
        Ok(table.table.at)
    }

    /// Creates a table and answers its number (CREATE_FLOW_TABLE).
    ///
    /// Refuses a size beyond the limit, a miss table of another type or at a
    /// level that is not higher, and one table too many.
    pub fn create_table(&mut self, spec: TableSpec) -> Result<u32, Refusal> {
        if spec.log_size > self.limits.log_size {
            return Err(Refusal::param(Syndrome::TABLE_SIZE));
        }
        self.check_miss(spec.kind, spec.level, spec.miss)?;
        if self.tables.len() >= self.limits.tables as usize {
            return Err(LIMIT);
        }
        let id = self.ids.take().ok_or(LIMIT)?;
        self.serial += 1;
        let TableSpec { kind, level, log_size, flags, miss } = spec;
        let at = TableRef { id, serial: self.serial };
        let table =
            Arc::new(Table { at, seed: self.changes.seed(), kind, level, log_size, flags, miss, groups: Vec::new() });
        self.tables.insert(id, TableControl { table: table.clone(), refs: 0, groups: Vec::new() });
        self.refer(miss_target(miss), 1);
        // Nothing leads to it yet.
        self.publish(|d| d.put(id, Some(table)));
        Ok(id)
    }

    /// Changes where packets go that no rule is for (MODIFY_FLOW_TABLE, miss
    /// table).
    ///
    /// Refuses as [`Self::create_table`] does.
    pub fn modify_table(&mut self, kind: TableType, id: u32, miss: Miss) -> Result<(), Refusal> {
        let level = self.typed(kind, id)?.table.level;
        self.check_miss(kind, level, miss)?;
        let control = self.typed_mut(kind, id)?;
        let old = control.table.miss;
        let table = control.replace(|t| t.miss = miss);
        let mark = table.mark();
        self.refer(miss_target(miss), 1);
        self.refer(miss_target(old), -1);
        self.publish(|d| d.put(id, Some(table)));
        self.changes.touch([mark]);
        Ok(())
    }

    /// Destroys a table (DESTROY_FLOW_TABLE). A root may be destroyed: the
    /// driver does not disconnect the last one first
    /// (`update_root_ft_destroy`).
    ///
    /// Refuses while it has groups, or rules or misses lead to it.
    pub fn destroy_table(&mut self, kind: TableType, id: u32) -> Result<(), Refusal> {
        let control = self.typed(kind, id)?;
        let (at, miss) = (control.table.at, control.table.miss);
        // A table whose own miss is itself cannot be: levels forbid it.
        if control.refs > 0 || !control.groups.is_empty() {
            return Err(Refusal::state(Syndrome::OBJECT_REFERENCED));
        }
        self.tables.remove(&id);
        self.refer(miss_target(miss), -1);
        self.ids.give(id);
        let mut root = false;
        self.publish(|d| {
            root = d.unroot(at);
            d.put(id, None);
        });
        // To any other nothing has led since its last reference went.
        if root {
            self.changes.everything();
        }
        Ok(())
    }

    /// Makes a table the one where packets enter (SET_FLOW_TABLE_ROOT, op_mod
    /// 0). `vport` is 0 for what belongs to the function itself.
    ///
    /// Refuses a table of another type.
    pub fn set_root(&mut self, kind: TableType, vport: u16, id: u32) -> Result<(), Refusal> {
        let at = self.typed(kind, id)?.table.at;
        self.publish(|d| d.set_root(kind, vport, Some(at)));
        self.changes.everything();
        Ok(())
    }

    /// Leaves a type without a root (SET_FLOW_TABLE_ROOT, op_mod 1).
    pub fn clear_root(&mut self, kind: TableType, vport: u16) {
        self.publish(|d| d.set_root(kind, vport, None));
        self.changes.everything();
    }

    /// Creates a group of the entries `start..=end` and answers its number
    /// (CREATE_FLOW_GROUP).
    ///
    /// Refuses a range that is empty, leaves the table or overlaps another
    /// group's; unknown bits of `match_criteria_enable`; one group too many.
    pub fn create_group(
        &mut self,
        kind: TableType,
        table: u32,
        (start, end): (u32, u32),
        criteria: u8,
        mask: &MatchKey,
    ) -> Result<u32, Refusal> {
        let limit = self.limits.groups;
        let control = self.typed(kind, table)?;
        if criteria & !CRITERIA != 0 {
            return Err(Refusal::param(Syndrome::MATCH_CRITERIA));
        }
        let at = control.groups.partition_point(|g| g.group.end < start);
        let overlaps = control.groups.get(at).is_some_and(|g| g.group.start <= end);
        if start > end || u64::from(end) >= control.table.size() || overlaps {
            return Err(Refusal::param(Syndrome::GROUP_RANGE));
        }
        if control.groups.len() >= limit {
            return Err(LIMIT);
        }
        let id = self.group_ids.take().ok_or(LIMIT)?;
        let group = Arc::new(Group::new(id, (start, end), criteria, mask, self.changes.seed()));
        let control = self.typed_mut(kind, table)?;
        control.groups.insert(at, GroupControl { group: group.clone(), rules: HashMap::default() });
        let new = control.replace(|t| t.groups.insert(at, group));
        let mark = new.mark();
        self.publish(|d| d.put(table, Some(new)));
        // Ways that did not ask it must, before it has rules.
        self.changes.touch([mark]);
        Ok(id)
    }

    /// Destroys a group (DESTROY_FLOW_GROUP).
    ///
    /// Refuses while it has rules.
    pub fn destroy_group(&mut self, kind: TableType, table: u32, group: u32) -> Result<(), Refusal> {
        let control = self.typed_mut(kind, table)?;
        let at = control.groups.iter().position(|g| g.group.id == group).ok_or(NO_TABLE)?;
        if !control.groups[at].rules.is_empty() {
            return Err(Refusal::state(Syndrome::OBJECT_REFERENCED));
        }
        control.groups.remove(at);
        let new = control.replace(|t| {
            t.groups.remove(at);
        });
        self.group_ids.give(group);
        // It had no rules: who did not ask it goes the same way.
        self.publish(|d| d.put(table, Some(new)));
        Ok(())
    }

    /// Creates a rule (SET_FLOW_TABLE_ENTRY, op_mod 0).
    ///
    /// Refuses an index outside the group or in use, actions or destinations
    /// that do not fit the table, and one rule too many.
    pub fn create_fte(&mut self, kind: TableType, table: u32, spec: FteSpec<'_, T>) -> Result<Change, Refusal> {
        self.add_fte(kind, table, spec, false)
    }

    /// As [`Self::create_fte`]; one that was modified may be without destinations (`bare`).
    fn add_fte(&mut self, kind: TableType, table: u32, spec: FteSpec<'_, T>, bare: bool) -> Result<Change, Refusal> {
        let FteSpec { group, index, value, actions } = spec;
        let control = self.typed(kind, table)?;
        let at = control.groups.iter().position(|g| g.group.id == group).ok_or(NO_TABLE)?;
        let into = &control.groups[at];
        if !(into.group.start..=into.group.end).contains(&index) {
            return Err(Refusal::new(Status::BadIndex, Syndrome::FTE_INDEX));
        }
        if into.rules.contains_key(&index) {
            return Err(Refusal::state(Syndrome::FTE_EXISTS));
        }
        if !bare && actions.flags.contains(Action::FORWARD) && actions.dests.is_empty() {
            return Err(Refusal::param(Syndrome::FTE_LIST));
        }
        self.check_actions(&control.table, &actions)?;
        let key = into.group.mask().key_of(value);
        if self.rules >= self.limits.rules || into.group.same(&key) >= self.limits.same_value {
            return Err(LIMIT);
        }
        let fte = Arc::new(Fte { index, key, actions });
        let into = &mut self.typed_mut(kind, table)?.groups[at];
        into.rules.insert(index, fte.clone());
        into.group.edit(&fte.key, |rules| {
            let place = rules.partition_point(|r| r.index < index);
            rules.insert(place, fte.clone());
        });
        let mark = into.group.mark_of(&fte.key);
        self.rules += 1;
        self.refer(fte.actions.tables(), 1);
        self.changes.touch([mark]);
        Ok(Change { taken: fte.actions.uses().collect(), released: Vec::new() })
    }

    /// Modifies a rule (SET_FLOW_TABLE_ENTRY, op_mod 1). Packets see the rule
    /// before or after, never neither. The match does not change.
    ///
    /// Refuses a rule that does not exist, and as [`Self::create_fte`] does.
    /// An empty destination list is taken: the driver sends one when it
    /// removes the last destination before the rule.
    pub fn modify_fte(
        &mut self,
        kind: TableType,
        table: u32,
        index: u32,
        what: Modify,
        new: Actions<T>,
    ) -> Result<Change, Refusal> {
        let control = self.typed(kind, table)?;
        let at = control.group_of(index)?;
        let old = control.groups[at].rules.get(&index).ok_or(ABSENT)?.clone();
        let mut actions = old.actions.clone();
        // The flag speaks of this command's destinations.
        actions.ignore_flow_level =
            new.ignore_flow_level || (old.actions.ignore_flow_level && !what.contains(Modify::DESTS));
        if what.contains(Modify::ACTION) {
            actions.flags = new.flags;
            actions.flow_source = new.flow_source;
            actions.modify = new.modify;
            actions.reformat = new.reformat;
            actions.push_vlan = new.push_vlan;
        }
        if what.contains(Modify::TAG) {
            actions.flow_tag = new.flow_tag;
        }
        if what.contains(Modify::DESTS) {
            actions.dests = new.dests;
        }
        if what.contains(Modify::COUNTERS) {
            actions.counters = new.counters;
        }
        self.check_actions(&control.table, &actions)?;
        let fte = Arc::new(Fte { index, key: old.key.clone(), actions });
        let into = &mut self.typed_mut(kind, table)?.groups[at];
        into.rules.insert(index, fte.clone());
        into.group.edit(&fte.key, |rules| {
            for r in rules.iter_mut().filter(|r| r.index == index) {
                *r = fte.clone();
            }
        });
        let mark = into.group.mark_of(&fte.key);
        self.refer(fte.actions.tables(), 1);
        self.refer(old.actions.tables(), -1);
        self.changes.touch([mark]);
        Ok(Change { taken: fte.actions.uses().collect(), released: old.actions.uses().collect() })
    }

    /// Deletes a rule (DELETE_FLOW_TABLE_ENTRY).
    ///
    /// Refuses a rule that does not exist.
    pub fn delete_fte(&mut self, kind: TableType, table: u32, index: u32) -> Result<Change, Refusal> {
        let control = self.typed_mut(kind, table)?;
        let at = control.group_of(index)?;
        let from = &mut control.groups[at];
        let old = from.rules.remove(&index).ok_or(ABSENT)?;
        from.group.edit(&old.key, |rules| rules.retain(|r| r.index != index));
        let mark = from.group.mark_of(&old.key);
        self.rules -= 1;
        self.refer(old.actions.tables(), -1);
        self.changes.touch([mark]);
        Ok(Change { taken: Vec::new(), released: old.actions.uses().collect() })
    }

    /// A table (QUERY_FLOW_TABLE).
    pub fn table(&self, kind: TableType, id: u32) -> Result<&Table<T>, Refusal> {
        Ok(&self.typed(kind, id)?.table)
    }

    /// A rule (QUERY_FLOW_TABLE_ENTRY) and its group.
    pub fn fte(&self, kind: TableType, table: u32, index: u32) -> Result<(&Group<T>, &Fte<T>), Refusal> {
        let control = self.typed(kind, table)?;
        let group = &control.groups[control.group_of(index)?];
        Ok((&group.group, group.rules.get(&index).ok_or(ABSENT)?))
    }

    /// Drops every table, root, group and rule (function reset, TEARDOWN_HCA),
    /// and answers what is no longer used. Packets on their way finish with
    /// what they hold.
    pub fn clear(&mut self) -> Change {
        let rules = self.tables.values().flat_map(|t| &t.groups).flat_map(|g| g.rules.values());
        let released = rules.flat_map(|r| r.actions.uses()).collect();
        self.tables.clear();
        self.ids = Ids::default();
        self.group_ids = Ids::default();
        self.rules = 0;
        self.publish(|d| *d = Domain::default());
        self.changes.everything();
        Change { taken: Vec::new(), released }
    }

    /// How many tables, groups and rules there are.
    pub fn counts(&self) -> [(String, usize); 3] {
        let groups = self.tables.values().map(|t| t.groups.len()).sum();
        let name = |s: &str| s.to_owned();
        [(name("FlowTable"), self.tables.len()), (name("FlowGroup"), groups), (name("FlowEntry"), self.rules as usize)]
    }

    /// Tables with their groups and rules in order of index, for a dump.
    pub(super) fn each(&self, mut f: impl FnMut(&Table<T>, u64, &mut dyn Iterator<Item = (&Group<T>, Vec<&Fte<T>>)>)) {
        let mut tables: Vec<_> = self.tables.values().collect();
        tables.sort_unstable_by_key(|t| (t.table.kind, t.table.level, t.table.at.id));
        for t in tables {
            let mut groups = t.groups.iter().map(|g| {
                let mut rules: Vec<&Fte<T>> = g.rules.values().map(|r| &**r).collect();
                rules.sort_unstable_by_key(|r| r.index);
                (&*g.group, rules)
            });
            f(&t.table, t.refs, &mut groups);
        }
    }

    fn typed(&self, kind: TableType, id: u32) -> Result<&TableControl<T>, Refusal> {
        let found = self.tables.get(&id).ok_or(NO_TABLE)?;
        if found.table.kind == kind { Ok(found) } else { Err(Refusal::param(Syndrome::TABLE_TYPE_MISMATCH)) }
    }

    fn typed_mut(&mut self, kind: TableType, id: u32) -> Result<&mut TableControl<T>, Refusal> {
        let found = self.tables.get_mut(&id).ok_or(NO_TABLE)?;
        if found.table.kind == kind { Ok(found) } else { Err(Refusal::param(Syndrome::TABLE_TYPE_MISMATCH)) }
    }

    /// The table that a reference names, unless it is gone.
    fn target(&self, at: TableRef) -> Option<&Table<T>> {
        self.tables.get(&at.id).map(|c| &*c.table).filter(|t| t.at == at)
    }

    fn check_miss(&self, kind: TableType, level: u8, miss: Miss) -> Result<(), Refusal> {
        let Miss::Table(at) = miss else { return Ok(()) };
        match self.target(at) {
            Some(t) if t.kind == kind && t.level > level => Ok(()),
            _ => Err(Refusal::param(Syndrome::TABLE_MISS)),
        }
    }

    fn check_actions(&self, table: &Table<T>, a: &Actions<T>) -> Result<(), Refusal> {
        let ends = [Action::ALLOW, Action::DROP, Action::FORWARD];
        let complete = ends.iter().filter(|e| a.flags.contains(**e)).count() == 1
            && (a.modify.is_some() || !a.flags.contains(Action::MODIFY_HEADER))
            && (a.reformat.is_some() || !a.flags.contains(Action::REFORMAT));
        let fits = a.modify.as_ref().is_none_or(|m| m.table_type == table.kind as u8);
        if !complete || !fits {
            return Err(Refusal::param(Syndrome::FTE_ACTION));
        }
        if a.dests.len() > self.limits.dests || a.counters.len() > self.limits.counters {
            return Err(Refusal::param(Syndrome::FTE_LIST));
        }
        a.dests.iter().try_for_each(|d| self.check_dest(table, a.ignore_flow_level, d))
    }

    fn check_dest(&self, table: &Table<T>, ignore_level: bool, dest: &Dest<T>) -> Result<(), Refusal> {
        let leaves = matches!(dest, Dest::Vport { .. } | Dest::Uplink { .. });
        if table.flags.contains(TableFlags::TERMINATION) && !leaves {
            return Err(Refusal::param(Syndrome::FTE_DESTINATION));
        }
        let reachable = match dest {
            Dest::Table(at) => match self.target(*at) {
                Some(t) if t.kind == table.kind && t.level <= table.level && !ignore_level => {
                    return Err(Refusal::param(Syndrome::DESTINATION_LEVEL));
                }
                t => t.is_some_and(|t| t.kind == table.kind),
            },
            Dest::TableOfType(at) => self.target(*at).is_some(),
            Dest::Tir { .. } => table.kind.receives(),
            Dest::Vport { .. } | Dest::Uplink { .. } => table.kind.switches(),
            Dest::VhcaRx { .. } => table.kind == TableType::Fdb,
        };
        if reachable { Ok(()) } else { Err(Refusal::param(Syndrome::FTE_DESTINATION)) }
    }

    fn refer(&mut self, targets: impl Iterator<Item = TableRef>, by: i64) {
        for at in targets {
            let target = self.tables.get_mut(&at.id).expect("a table that is referred to exists");
            target.refs = target.refs.checked_add_signed(by).expect("references are counted up before down");
        }
    }

    fn publish(&mut self, change: impl FnOnce(&mut Domain<T>)) {
        let mut domain = Domain::clone(&self.shared.domain.load());
        change(&mut domain);
        self.shared.publish(domain);
    }
}

const ABSENT: Refusal = Refusal::new(Status::BadIndex, Syndrome::FTE_ABSENT);

fn miss_target(miss: Miss) -> impl Iterator<Item = TableRef> {
    match miss {
        Miss::Table(t) => Some(t),
        _ => None,
    }
    .into_iter()
}

impl<T> std::fmt::Debug for Steering<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Steering({} tables, {} rules)", self.tables.len(), self.rules)
    }
}

impl<T> TableControl<T> {
    /// Changes the table in a copy and answers the copy.
    fn replace(&mut self, change: impl FnOnce(&mut Table<T>)) -> Arc<Table<T>> {
        let mut table = Table::clone(&self.table);
        change(&mut table);
        self.table = Arc::new(table);
        self.table.clone()
    }

    /// Which group an index falls into.
    fn group_of(&self, index: u32) -> Result<usize, Refusal> {
        let at = self.groups.partition_point(|g| g.group.end < index);
        let hit = self.groups.get(at).is_some_and(|g| g.group.start <= index);
        if hit { Ok(at) } else { Err(Refusal::new(Status::BadIndex, Syndrome::FTE_INDEX)) }
    }
}
