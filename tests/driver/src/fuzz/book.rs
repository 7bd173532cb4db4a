//! What a driver knows that it made.

use sfnic_firmware_cmds::layout::{FieldInfo, Kind};

use super::Entropy;

/// Kinds of numbers that commands carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Thing {
    Uar,
    Pd,
    Td,
    Mkey,
    Eq,
    Cq,
    Sq,
    Rq,
    Rqt,
    Tir,
    Tis,
    QCounter,
    FlowCounter,
    ModifyHeader,
    Reformat,
}

/// How many there are of [`Thing`].
const THINGS: usize = Thing::Reformat as usize + 1;

/// Most numbers of one kind that are remembered.
const MOST: usize = 64;

impl Thing {
    /// What the number in a field means, by the kernel's name of the field.
    pub(super) fn of(field: &FieldInfo) -> Option<Self> {
        if field.kind != Kind::Bits {
            return None;
        }
        Some(match field.name {
            "uar" | "uar_page" => Self::Uar,
            "pd" => Self::Pd,
            "transport_domain" => Self::Td,
            "mkey_index" => Self::Mkey,
            "eq_number" | "c_eqn_or_apu_element" => Self::Eq,
            "cqn" => Self::Cq,
            "sqn" => Self::Sq,
            "rqn" | "inline_rqn" => Self::Rq,
            "rqtn" | "indirect_table" => Self::Rqt,
            "tirn" => Self::Tir,
            "tisn" | "tis_num_0" => Self::Tis,
            "counter_set_id" => Self::QCounter,
            "flow_counter_id" => Self::FlowCounter,
            "modify_header_id" => Self::ModifyHeader,
            "packet_reformat_id" => Self::Reformat,
            _ => return None,
        })
    }
}

/// A flow table with its groups and entries.
#[derive(Debug, Clone)]
pub(super) struct TableNote {
    /// Type.
    pub(super) kind: u32,
    /// Number.
    pub(super) id: u32,
    /// The vport that was named.
    pub(super) vport: Option<u16>,
    /// Level.
    pub(super) level: u32,
    /// Groups: number and range.
    pub(super) groups: Vec<(u32, u32, u32)>,
    /// Indices of entries.
    pub(super) entries: Vec<u32>,
}

/// Numbers of the objects that a driver made and did not destroy.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    numbers: [Vec<u32>; THINGS],
    /// Flow tables.
    pub(super) tables: Vec<TableNote>,
}

impl Book {
    /// Remembers a number.
    pub(super) fn add(&mut self, t: Thing, number: u32) {
        let all = &mut self.numbers[t as usize];
        if all.len() < MOST && !all.contains(&number) {
            all.push(number);
        }
    }

    /// Forgets a number.
    pub(super) fn remove(&mut self, t: Thing, number: u32) {
        self.numbers[t as usize].retain(|n| *n != number);
    }

    /// One that exists, mostly; 0 where none is known.
    pub(super) fn any(&self, t: Thing, e: &mut impl Entropy) -> u32 {
        let all = &self.numbers[t as usize];
        if all.is_empty() { 0 } else { *e.pick(all) }
    }

    /// How many of a kind are known.
    pub(super) fn count(&self, t: Thing) -> usize {
        self.numbers[t as usize].len()
    }

    /// A table that exists, with groups where that is wanted and there is one.
    pub(super) fn table(&self, groups: bool, e: &mut impl Entropy) -> Option<&TableNote> {
        let from = e.below(self.tables.len());
        let (behind, first) = self.tables.split_at(from);
        let mut all = first.iter().chain(behind);
        all.clone().find(|t| groups && !t.groups.is_empty()).or_else(|| all.next())
    }

    /// The table of this number.
    pub(super) fn table_mut(&mut self, id: u32) -> Option<&mut TableNote> {
        self.tables.iter_mut().find(|t| t.id == id)
    }
}
