//! Tables, groups and rules as they are kept, and made again: by the calls by which commands
//! make them, with the numbers that they had.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sfnic_firmware_cmds::status::{Refusal, Syndrome};

use super::{Change, FteSpec, Ids, Steering, TableSpec};
use crate::packet::MatchKey;
use crate::steering::counter::FlowCounter;
use crate::steering::domain::{Miss, TableFlags, TableType};
use crate::steering::object::{Action, Actions, Dest, FlowSource, Fte, ModifyHeader, PushVlan, Reformat};

/// The objects outside the engine, by their numbers.
pub(crate) trait Resolve<T> {
    fn counter(&self, id: u32) -> Option<FlowCounter>;
    fn modify_header(&self, id: u32) -> Option<Arc<ModifyHeader>>;
    fn reformat(&self, id: u32) -> Option<Arc<Reformat>>;
    fn tir(&self, id: u32) -> Option<Arc<T>>;
}

/// Everything that a [`Steering`] holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSteering {
    ids: SavedIds,
    group_ids: SavedIds,
    tables: Vec<SavedTable>,
    /// Type, vport and table.
    roots: Vec<(u8, u16, u32)>,
}

/// The highest number that was given out, and those that came back, in the order in which they
/// are given out again.
#[derive(Debug, Serialize, Deserialize)]
struct SavedIds(u32, Vec<u32>);

#[derive(Debug, Serialize, Deserialize)]
struct SavedTable {
    id: u32,
    kind: u8,
    level: u8,
    log_size: u8,
    flags: u8,
    miss: SavedMiss,
    groups: Vec<SavedGroup>,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedMiss {
    Default,
    Table(u32),
    SwitchDomain,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedGroup {
    id: u32,
    range: (u32, u32),
    criteria: u8,
    /// Dword of the match fields, and mask.
    mask: Vec<(u16, u32)>,
    rules: Vec<SavedRule>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedRule {
    index: u32,
    /// The dwords that the group's mask names.
    key: Vec<u32>,
    flags: u16,
    flow_tag: u32,
    flow_source: FlowSource,
    ignore_flow_level: bool,
    counters: Vec<u32>,
    modify: Option<u32>,
    reformat: Option<u32>,
    /// EtherType and TCI.
    push_vlan: [(u16, u16); 2],
    dests: Vec<SavedDest>,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedDest {
    Table(u32),
    TableOfType(u32),
    Tir(u32),
    Vport { num: u16, vhca_id: Option<u16>, reformat: Option<u32> },
    Uplink { vhca_id: Option<u16>, reformat: Option<u32> },
    VhcaRx { vhca_id: u16 },
}

const WRONG: Refusal = Refusal::param(Syndrome::FTE_DESTINATION);

impl<T: Send + Sync + 'static> Steering<T> {
    /// Tables, groups, rules and roots.
    pub(crate) fn save(&self) -> SavedSteering {
        let mut ids: Vec<u32> = self.tables.keys().copied().collect();
        ids.sort_unstable();
        let tables = ids.iter().filter_map(|id| self.tables.get(id));
        let domain = self.shared.domain.load();
        let mut roots: Vec<_> = domain.roots().iter().map(|((kind, v), at)| (*kind as u8, *v, at.id)).collect();
        roots.sort_unstable();
        let tables = tables.map(|c| {
            let t = &c.table;
            let groups = c.groups.iter().map(|g| {
                let mut rules: Vec<&Fte<T>> = g.rules.values().map(|r| &**r).collect();
                rules.sort_unstable_by_key(|r| r.index);
                SavedGroup {
                    id: g.group.id,
                    range: (g.group.start, g.group.end),
                    criteria: g.group.criteria,
                    mask: g.group.mask().dwords().iter().map(|(at, mask)| (*at as u16, *mask)).collect(),
                    rules: rules.into_iter().map(save_rule).collect(),
                }
            });
            SavedTable {
                id: t.id(),
                kind: t.kind as u8,
                level: t.level,
                log_size: t.log_size,
                flags: t.flags.bits(),
                miss: match t.miss {
                    Miss::Default => SavedMiss::Default,
                    Miss::Table(to) => SavedMiss::Table(to.id),
                    Miss::SwitchDomain => SavedMiss::SwitchDomain,
                },
                groups: groups.collect(),
            }
        });
        SavedSteering {
            tables: tables.collect(),
            ids: save_ids(&self.ids),
            group_ids: save_ids(&self.group_ids),
            roots,
        }
    }

    /// Makes them again, in an engine without any. Answers what rules use.
    ///
    /// Refuses what no commands could have made.
    pub(crate) fn restore(&mut self, saved: SavedSteering, with: &impl Resolve<T>) -> Result<Change, Refusal> {
        let SavedSteering { ids, group_ids, tables, roots } = saved;
        self.ids = restore_ids(ids, tables.iter().map(|t| t.id))?;
        self.group_ids = restore_ids(group_ids, tables.iter().flat_map(|t| &t.groups).map(|g| g.id))?;
        let kind = |t: &SavedTable| TableType::parse(t.kind.into()).ok_or(WRONG);
        for t in &tables {
            self.ids.wanted = Some(t.id);
            let flags = TableFlags::from_bits(t.flags).ok_or(WRONG)?;
            let (level, log_size) = (t.level, t.log_size);
            self.create_table(TableSpec { kind: kind(t)?, level, log_size, flags, miss: Miss::Default })?;
        }
        let mut change = Change::default();
        for t in tables {
            let kind = kind(&t)?;
            let miss = match t.miss {
                SavedMiss::Default => Miss::Default,
                SavedMiss::Table(to) => Miss::Table(self.table_ref(to)?),
                SavedMiss::SwitchDomain => Miss::SwitchDomain,
            };
            self.modify_table(kind, t.id, miss)?;
            for g in t.groups {
                let mut mask = MatchKey::default();
                for (at, bits) in &g.mask {
                    *mask.0.get_mut(usize::from(*at)).ok_or(WRONG)? = *bits;
                }
                self.group_ids.wanted = Some(g.id);
                self.create_group(kind, t.id, g.range, g.criteria, &mask)?;
                for rule in g.rules {
                    let mut value = MatchKey::default();
                    for ((at, _), word) in g.mask.iter().zip(&rule.key) {
                        *value.0.get_mut(usize::from(*at)).ok_or(WRONG)? = *word;
                    }
                    let (index, actions) = (rule.index, self.restore_actions(rule, with)?);
                    let spec = FteSpec { group: g.id, index, value: &value, actions };
                    change.taken.extend(self.add_fte(kind, t.id, spec, true)?.taken);
                }
            }
        }
        for (kind, vport, table) in roots {
            self.set_root(TableType::parse(kind.into()).ok_or(WRONG)?, vport, table)?;
        }
        Ok(change)
    }

    fn restore_actions(&self, rule: SavedRule, with: &impl Resolve<T>) -> Result<Actions<T>, Refusal> {
        let modify = |id: u32| with.modify_header(id).ok_or(WRONG);
        let reformat = |id: Option<u32>| id.map(|id| with.reformat(id).ok_or(WRONG)).transpose();
        let dest = |d: SavedDest| {
            Ok(match d {
                SavedDest::Table(id) => Dest::Table(self.table_ref(id)?),
                SavedDest::TableOfType(id) => Dest::TableOfType(self.table_ref(id)?),
                SavedDest::Tir(id) => Dest::Tir { id, tir: with.tir(id).ok_or(WRONG)? },
                SavedDest::Vport { num, vhca_id, reformat: own } => {
                    Dest::Vport { num, vhca_id, reformat: reformat(own)? }
                }
                SavedDest::Uplink { vhca_id, reformat: own } => Dest::Uplink { vhca_id, reformat: reformat(own)? },
                SavedDest::VhcaRx { vhca_id } => Dest::VhcaRx { vhca_id },
            })
        };
        let counter = |id: u32| with.counter(id).ok_or(WRONG);
        Ok(Actions {
            flags: Action::from_bits(rule.flags).ok_or(WRONG)?,
            flow_tag: rule.flow_tag,
            flow_source: rule.flow_source,
            ignore_flow_level: rule.ignore_flow_level,
            counters: rule.counters.into_iter().map(counter).collect::<Result<_, Refusal>>()?,
            modify: rule.modify.map(modify).transpose()?,
            reformat: reformat(rule.reformat)?,
            push_vlan: rule.push_vlan.map(|(ethertype, tci)| PushVlan { ethertype, tci }),
            dests: rule.dests.into_iter().map(dest).collect::<Result<_, Refusal>>()?,
        })
    }
}

fn save_rule<T>(r: &Fte<T>) -> SavedRule {
    let number = |r: &Option<Arc<Reformat>>| r.as_ref().map(|r| r.id);
    let dest = |d: &Dest<T>| match d {
        Dest::Table(to) => SavedDest::Table(to.id),
        Dest::TableOfType(to) => SavedDest::TableOfType(to.id),
        Dest::Tir { id, tir: _ } => SavedDest::Tir(*id),
        Dest::Vport { num, vhca_id, reformat } => {
            SavedDest::Vport { num: *num, vhca_id: *vhca_id, reformat: number(reformat) }
        }
        Dest::Uplink { vhca_id, reformat } => SavedDest::Uplink { vhca_id: *vhca_id, reformat: number(reformat) },
        Dest::VhcaRx { vhca_id } => SavedDest::VhcaRx { vhca_id: *vhca_id },
    };
    let Fte { index, key, actions } = r;
    let Actions { flags, flow_tag, flow_source, ignore_flow_level, counters, modify, reformat, push_vlan, dests } =
        actions;
    SavedRule {
        index: *index,
        key: key.0.to_vec(),
        flags: flags.bits(),
        flow_tag: *flow_tag,
        flow_source: *flow_source,
        ignore_flow_level: *ignore_flow_level,
        counters: counters.iter().map(FlowCounter::id).collect(),
        modify: modify.as_ref().map(|m| m.id),
        reformat: number(reformat),
        push_vlan: push_vlan.map(|p| (p.ethertype, p.tci)),
        dests: dests.iter().map(dest).collect(),
    }
}

fn save_ids(ids: &Ids) -> SavedIds {
    SavedIds(ids.last, ids.free.iter().copied().collect())
}

/// Numbers that are either free or used, each once.
fn restore_ids(saved: SavedIds, used: impl Iterator<Item = u32>) -> Result<Ids, Refusal> {
    let SavedIds(last, free) = saved;
    let mut seen = HashSet::new();
    let sound = free.iter().copied().chain(used).all(|id| (1..=last).contains(&id) && seen.insert(id));
    if !sound || last > Ids::MAX {
        return Err(WRONG);
    }
    Ok(Ids { last, free: free.into(), wanted: None })
}
