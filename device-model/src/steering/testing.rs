//! A packet that remembers what was done to it, and short names for tests.

use std::sync::Arc;

use sfnic_firmware_cmds::layouts::{FteMatchSetLyr24, FteMatchSetMisc2};
use smallvec::smallvec;

use super::*;
use crate::packet::MatchKey;
use crate::packet::key::{MISC2, OUTER};

/// A TIR in tests: its number.
pub(super) type Tir = u32;
pub(super) type S = Steering<Tir>;

/// A mock packet.
#[derive(Clone, Default)]
pub(super) struct Mock {
    pub(super) key: MatchKey,
    pub(super) octets: u64,
    pub(super) wire: bool,
    pub(super) tag: u32,
    pub(super) done: Vec<String>,
    /// Actions that fail, by the start of their name.
    pub(super) fails: &'static str,
}

impl Mock {
    pub(super) fn dmac(low: u32) -> Self {
        let mut m = Self { octets: 60, ..Self::default() };
        m.key.set(OUTER, FteMatchSetLyr24::dmac_47_16, low);
        m
    }
    fn act(&mut self, what: String) -> bool {
        let fails = !self.fails.is_empty() && what.starts_with(self.fails);
        self.done.push(what);
        !fails
    }
}

impl Packet for Mock {
    fn key(&self) -> &MatchKey {
        &self.key
    }
    fn octets(&self) -> u64 {
        self.octets
    }
    fn is_from_uplink(&self) -> bool {
        self.wire
    }
    fn set_flow_tag(&mut self, tag: u32) {
        self.tag = tag;
    }
    fn decap(&mut self) -> bool {
        self.act("decap".into())
    }
    fn modify(&mut self, m: &ModifyHeader) -> bool {
        // The mock's header edit: the id goes to reg_c_0.
        self.key.set(MISC2, FteMatchSetMisc2::metadata_reg_c_0, m.id);
        self.act(format!("modify {}", m.id))
    }
    fn pop_vlan(&mut self) -> bool {
        self.act("pop".into())
    }
    fn push_vlan(&mut self, v: PushVlan) -> bool {
        self.act(format!("push {:x}", v.tci))
    }
    fn reformat(&mut self, r: &Reformat) -> bool {
        self.act(format!("reformat {}", r.id))
    }
    fn replicate(&self) -> Self {
        let mut copy = self.clone();
        copy.done.push("copy".into());
        copy
    }
}

/// A verdict without borrows.
pub(super) fn short(v: Verdict<'_, Tir>) -> String {
    match v {
        Verdict::Tir { id, tir } => {
            assert_eq!(id, **tir);
            format!("tir {id}")
        }
        Verdict::Vport { num, .. } => format!("vport {num:#x}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Leads a packet through and answers the verdicts in order.
pub(super) fn verdicts(s: &S, from: TableRef, packet: &mut Mock) -> Vec<String> {
    let mut out = Vec::new();
    let reader = s.reader();
    let mut sink = |_: &mut Mock, v: Verdict<'_, Tir>| out.push(short(v));
    reader.load().walk(from, packet, 0, &mut sink, &mut NoTrace);
    out
}

pub(super) fn spec(kind: TableType, level: u8, log_size: u8) -> TableSpec {
    TableSpec { kind, level, log_size, flags: TableFlags::empty(), miss: Miss::Default }
}

/// A NIC RX table.
pub(super) fn rx(s: &mut S, level: u8, log_size: u8) -> u32 {
    s.create_table(spec(TableType::NicRx, level, log_size)).unwrap()
}

/// A mask or value of the destination MAC's upper four bytes.
pub(super) fn dmac(v: u32) -> MatchKey {
    Mock::dmac(v).key
}

pub(super) fn forward(dest: Dest<Tir>) -> Actions<Tir> {
    Actions { flags: Action::FORWARD, dests: smallvec![dest], ..Actions::default() }
}

pub(super) fn tir(id: u32) -> Actions<Tir> {
    forward(Dest::Tir { id, tir: Arc::new(id) })
}

pub(super) fn to_table(s: &S, id: u32) -> Actions<Tir> {
    forward(Dest::Table(s.table_ref(id).unwrap()))
}

/// A rule in a NIC RX table.
pub(super) fn rule(
    s: &mut S,
    table: u32,
    group: u32,
    index: u32,
    value: &MatchKey,
    actions: Actions<Tir>,
) -> Result<Change, sfnic_firmware_cmds::status::Refusal> {
    s.create_fte(TableType::NicRx, table, FteSpec { group, index, value, actions })
}
