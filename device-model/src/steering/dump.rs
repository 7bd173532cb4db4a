//! The tables as data, for an inspector.

use serde::Serialize;

use super::control::Steering;
use super::domain::{Miss, Table, TableType};
use super::group::Group;
use super::object::{Dest, Fte};
use super::trace::fields_in;

/// Everything that a [`Steering`] holds.
#[derive(Debug, Clone, Serialize)]
pub struct Dump {
    /// Where packets enter.
    pub roots: Vec<RootDump>,
    /// Tables by type, level and number.
    pub tables: Vec<TableDump>,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RootDump {
    /// Type of the tables.
    pub kind: TableType,
    /// Whose packets; 0 for the function's own.
    pub vport: u16,
    /// Number of the table.
    pub table: u32,
}

/// A table.
#[derive(Debug, Clone, Serialize)]
pub struct TableDump {
    /// Number.
    pub id: u32,
    /// Type.
    pub kind: TableType,
    /// Level.
    pub level: u8,
    /// `1 << log_size` entries.
    pub log_size: u8,
    /// `reformat`, `decap`, `termination`.
    pub flags: Vec<&'static str>,
    /// What happens when no rule matches.
    pub miss: String,
    /// Rules and misses of other tables that lead here.
    pub references: u64,
    /// Groups in order of index.
    pub groups: Vec<GroupDump>,
}

/// A group.
#[derive(Debug, Clone, Serialize)]
pub struct GroupDump {
    /// Number.
    pub id: u32,
    /// First flow index.
    pub start: u32,
    /// Last flow index.
    pub end: u32,
    /// `match_criteria_enable`.
    pub criteria: u8,
    /// Fields and their masks.
    pub mask: Vec<FieldDump>,
    /// How many rules there are.
    pub count: usize,
    /// The first of them, in order of index.
    pub rules: Vec<RuleDump>,
}

/// A field of the match criteria, or its value. Fields longer than a dword
/// are told dword by dword.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldDump {
    /// Block and field, as the manual names them.
    pub field: String,
    /// Bits, in the field's own position.
    pub value: u32,
}

/// A rule.
#[derive(Debug, Clone, Serialize)]
pub struct RuleDump {
    /// Flow index.
    pub index: u32,
    /// What it matches.
    pub value: Vec<FieldDump>,
    /// Actions by name.
    pub actions: Vec<&'static str>,
    /// Flow tag.
    pub flow_tag: u32,
    /// Number of the modify-header context.
    pub modify_header: Option<u32>,
    /// Number of the reformat context.
    pub reformat: Option<u32>,
    /// Destinations.
    pub dests: Vec<DestDump>,
    /// Counters.
    pub counters: Vec<CounterDump>,
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "to", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DestDump {
    Table { id: u32 },
    Tir { id: u32 },
    Vport { num: u16, vhca_id: Option<u16>, reformat: Option<u32> },
    Uplink { vhca_id: Option<u16>, reformat: Option<u32> },
    VhcaRx { vhca_id: u16 },
}

/// A counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CounterDump {
    /// Number.
    pub id: u32,
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}

impl<T: Send + Sync + 'static> Steering<T> {
    /// The tables as data, with at most `rules` rules of each group.
    pub fn dump(&self, rules: usize) -> Dump {
        let domain = self.reader().shared.domain.load_full();
        let root = |(at, table): (&(TableType, u16), &super::TableRef)| {
            let (kind, vport) = *at;
            RootDump { kind, vport, table: table.id() }
        };
        let mut roots: Vec<_> = domain.roots().iter().map(root).collect();
        roots.sort();
        let mut tables = Vec::new();
        self.each(|table, references, groups| {
            let groups = groups.map(|(g, all)| group_dump(g, &all, rules)).collect();
            tables.push(table_dump(table, references, groups));
        });
        Dump { roots, tables }
    }
}

fn table_dump<T>(t: &Table<T>, references: u64, groups: Vec<GroupDump>) -> TableDump {
    let miss = match t.miss {
        Miss::Default => "default".to_string(),
        Miss::Table(to) => format!("table {:#x}", to.id()),
        Miss::SwitchDomain => "switch_domain".to_string(),
    };
    let flags = t.flags.iter_names().map(|(n, _)| n).collect();
    TableDump { id: t.id(), kind: t.kind, level: t.level, log_size: t.log_size, flags, miss, references, groups }
}

fn group_dump<T: Send + Sync + 'static>(g: &Group<T>, all: &[&Fte<T>], rules: usize) -> GroupDump {
    let masks: Vec<u32> = g.mask().dwords().iter().map(|(_, m)| *m).collect();
    GroupDump {
        id: g.id,
        start: g.start,
        end: g.end,
        criteria: g.criteria,
        mask: fields(g, &masks),
        count: all.len(),
        rules: all.iter().take(rules).map(|r| rule_dump(g, r)).collect(),
    }
}

fn rule_dump<T: Send + Sync + 'static>(g: &Group<T>, r: &Fte<T>) -> RuleDump {
    let a = &r.actions;
    let counter = |c: &super::FlowCounter| {
        let (packets, octets) = c.read();
        CounterDump { id: c.id(), packets, octets }
    };
    RuleDump {
        index: r.index,
        value: fields(g, &r.key.0),
        actions: a.flags.names(),
        flow_tag: a.flow_tag,
        modify_header: a.modify.as_ref().map(|m| m.id),
        reformat: a.reformat.as_ref().map(|r| r.id),
        dests: a.dests.iter().map(dest_dump).collect(),
        counters: a.counters.iter().map(counter).collect(),
    }
}

fn dest_dump<T>(d: &Dest<T>) -> DestDump {
    let reformat = d.reformat().map(|r| r.id);
    match d {
        Dest::Table(t) | Dest::TableOfType(t) => DestDump::Table { id: t.id() },
        Dest::Tir { id, .. } => DestDump::Tir { id: *id },
        Dest::Vport { num, vhca_id, .. } => DestDump::Vport { num: *num, vhca_id: *vhca_id, reformat },
        Dest::Uplink { vhca_id, .. } => DestDump::Uplink { vhca_id: *vhca_id, reformat },
        Dest::VhcaRx { vhca_id } => DestDump::VhcaRx { vhca_id: *vhca_id },
    }
}

/// Names the parts of the masked dwords `values`.
fn fields<T: Send + Sync + 'static>(g: &Group<T>, values: &[u32]) -> Vec<FieldDump> {
    let pairs = g.mask().dwords().iter().zip(values);
    pairs
        .flat_map(|((dword, mask), v)| {
            fields_in(*dword, *mask, u32::MAX).map(move |p| FieldDump { value: p.field.of_dword(*v), field: p.name })
        })
        .collect()
}
