//! What a rule is made of: actions, destinations and the objects that they use.

use std::sync::Arc;

use sfnic_firmware_cmds::layout::View;
use sfnic_firmware_cmds::layouts::Vlan;
use sfnic_firmware_cmds::status::{Refusal, Syndrome};
use smallvec::SmallVec;

use super::counter::FlowCounter;
use super::domain::TableRef;
use super::group::Key;
use crate::packet::{self, HeaderAction};

bitflags::bitflags! {
    /// Actions of a flow context (`MLX5_FLOW_CONTEXT_ACTION_*`), those that
    /// the model executes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Action: u16 {
        /// Leave the domain with success.
        const ALLOW = 0x1;
        /// Drop.
        const DROP = 0x2;
        /// Forward to the destination list.
        const FORWARD = 0x4;
        /// Count in the flow counter list.
        const COUNT = 0x8;
        /// Packet reformat.
        const REFORMAT = 0x10;
        /// Remove an L2 tunnel.
        const DECAP = 0x20;
        /// Modify header.
        const MODIFY_HEADER = 0x40;
        /// Remove the outermost VLAN header.
        const POP_VLAN = 0x80;
        /// Add a VLAN header.
        const PUSH_VLAN = 0x100;
        /// Remove a second VLAN header.
        const POP_VLAN_2 = 0x400;
        /// Add a second VLAN header, outside the first.
        const PUSH_VLAN_2 = 0x800;
    }
}

impl Action {
    /// The `action` field of a flow context.
    ///
    /// Refuses ([`Syndrome::FTE_ACTION`]) what is not modelled: crypto, ASO.
    pub fn parse(raw: u32) -> Result<Self, Refusal> {
        let known = u16::try_from(raw).ok().and_then(Self::from_bits);
        known.ok_or(Refusal::param(Syndrome::FTE_ACTION))
    }

    /// Names of the actions, in the manual's order.
    pub fn names(self) -> Vec<&'static str> {
        self.iter_names().map(|(n, _)| n).collect()
    }
}

/// Which packets a rule applies to beside its match (`flow_source`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum FlowSource {
    /// All.
    #[default]
    Any,
    /// Those that came from the wire.
    Uplink,
    /// Those that a vport sent.
    LocalVport,
}

impl FlowSource {
    /// The `flow_source` field of a flow context; the reserved value is taken
    /// as any.
    pub fn parse(raw: u32) -> Self {
        match raw {
            1 => Self::Uplink,
            2 => Self::LocalVport,
            _ => Self::Any,
        }
    }
    /// Whether a rule of this source applies.
    pub fn admits(self, from_uplink: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Uplink => from_uplink,
            Self::LocalVport => !from_uplink,
        }
    }
}

/// A VLAN header to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushVlan {
    /// EtherType of the tag (0x8100, 0x88a8).
    pub ethertype: u16,
    /// Priority, DEI and VLAN number as the header carries them.
    pub tci: u16,
}

impl PushVlan {
    /// From `push_vlan` or `push_vlan_2` of a flow context.
    pub fn read(v: View<'_, Vlan>) -> Self {
        let tci = Vlan::prio.in_dword(0, v.get(Vlan::prio));
        let tci = Vlan::cfi.in_dword(tci, v.get(Vlan::cfi));
        let tci = Vlan::vid.in_dword(tci, v.get(Vlan::vid));
        // The three fields are the low half of the dword.
        Self { ethertype: v.get(Vlan::ethtype) as u16, tci: tci as u16 }
    }
}

/// A modify-header context (ALLOC_MODIFY_HEADER_CONTEXT).
#[derive(Debug, PartialEq, Eq)]
pub struct ModifyHeader {
    /// Number of the context.
    pub id: u32,
    /// Type of the tables whose rules may use it.
    pub table_type: u8,
    /// What it does to headers and registers, in order.
    pub actions: Box<[HeaderAction]>,
}

/// A packet reformat context (ALLOC_PACKET_REFORMAT_CONTEXT).
#[derive(Debug, PartialEq, Eq)]
pub struct Reformat {
    /// Number of the context.
    pub id: u32,
    /// What it does to a frame.
    pub action: packet::Reformat,
}

impl Reformat {
    /// Whether it takes a header away. Those happen before header
    /// modification, the others after it.
    pub fn removes(&self) -> bool {
        matches!(self.action, packet::Reformat::DecapL3 { .. } | packet::Reformat::Remove { .. })
    }
}

/// Where a rule sends a packet. `T` is the receive side's TIR.
#[derive(Debug)]
pub enum Dest<T> {
    /// A table of the same type, at a higher level unless the rule ignores
    /// levels (destination type 1).
    Table(TableRef),
    /// A table of another type (destination type 0xa).
    TableOfType(TableRef),
    /// A TIR (destination type 2).
    Tir {
        /// Number of the TIR.
        id: u32,
        /// The TIR.
        tir: Arc<T>,
    },
    /// A vport of an eswitch (destination type 0).
    Vport {
        /// Its number; 0xffff is the uplink.
        num: u16,
        /// The eswitch's owner, where the driver named it.
        vhca_id: Option<u16>,
        /// Reformat for this destination only (extended destinations).
        reformat: Option<Arc<Reformat>>,
    },
    /// The physical port (destination type 8).
    Uplink {
        /// The eswitch's owner, where the driver named it.
        vhca_id: Option<u16>,
        /// Reformat for this destination only (extended destinations).
        reformat: Option<Arc<Reformat>>,
    },
    /// The NIC receive side of a function (destination type 4).
    VhcaRx {
        /// The function.
        vhca_id: u16,
    },
}

impl<T> Clone for Dest<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Table(t) => Self::Table(*t),
            Self::TableOfType(t) => Self::TableOfType(*t),
            Self::Tir { id, tir } => Self::Tir { id: *id, tir: tir.clone() },
            Self::Vport { num, vhca_id, reformat } => {
                Self::Vport { num: *num, vhca_id: *vhca_id, reformat: reformat.clone() }
            }
            Self::Uplink { vhca_id, reformat } => Self::Uplink { vhca_id: *vhca_id, reformat: reformat.clone() },
            Self::VhcaRx { vhca_id } => Self::VhcaRx { vhca_id: *vhca_id },
        }
    }
}

impl<T> Dest<T> {
    /// The table that it leads to.
    pub fn table(&self) -> Option<TableRef> {
        match self {
            Self::Table(t) | Self::TableOfType(t) => Some(*t),
            _ => None,
        }
    }
    /// Its own reformat.
    pub fn reformat(&self) -> Option<&Arc<Reformat>> {
        match self {
            Self::Vport { reformat, .. } | Self::Uplink { reformat, .. } => reformat.as_ref(),
            _ => None,
        }
    }
}

/// What a rule does: a flow context without its match.
#[derive(Debug)]
pub struct Actions<T> {
    /// What is done.
    pub flags: Action,
    /// Tag of packets that reach a TIR; 0 leaves the one they have.
    pub flow_tag: u32,
    /// Which packets the rule is for.
    pub flow_source: FlowSource,
    /// Destination tables may be at any level.
    pub ignore_flow_level: bool,
    /// Counters ([`Action::COUNT`]).
    pub counters: SmallVec<[FlowCounter; 1]>,
    /// Header edits ([`Action::MODIFY_HEADER`]).
    pub modify: Option<Arc<ModifyHeader>>,
    /// Reformat ([`Action::REFORMAT`]).
    pub reformat: Option<Arc<Reformat>>,
    /// Headers to add, the inner one first.
    pub push_vlan: [PushVlan; 2],
    /// Destinations ([`Action::FORWARD`]).
    pub dests: SmallVec<[Dest<T>; 1]>,
}

impl<T> Default for Actions<T> {
    fn default() -> Self {
        Self {
            flags: Action::empty(),
            flow_tag: 0,
            flow_source: FlowSource::Any,
            ignore_flow_level: false,
            counters: SmallVec::new(),
            modify: None,
            reformat: None,
            push_vlan: Default::default(),
            dests: SmallVec::new(),
        }
    }
}

impl<T> Clone for Actions<T> {
    fn clone(&self) -> Self {
        Self {
            flags: self.flags,
            flow_tag: self.flow_tag,
            flow_source: self.flow_source,
            ignore_flow_level: self.ignore_flow_level,
            counters: self.counters.clone(),
            modify: self.modify.clone(),
            reformat: self.reformat.clone(),
            push_vlan: self.push_vlan,
            dests: self.dests.clone(),
        }
    }
}

/// An object outside the engine that rules use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Used {
    /// A flow counter, by the first number of its bulk.
    Counter(u32),
    /// A modify-header context.
    ModifyHeader(u32),
    /// A packet reformat context.
    Reformat(u32),
    /// A TIR.
    Tir(u32),
}

impl<T> Actions<T> {
    /// The objects outside the engine that the rule uses, each as often as it
    /// is named.
    pub fn uses(&self) -> impl Iterator<Item = Used> + '_ {
        let counters = self.counters.iter().map(|c| Used::Counter(c.bulk().base()));
        let modify = self.modify.iter().map(|m| Used::ModifyHeader(m.id));
        let reformats = self.reformat.iter().chain(self.dests.iter().filter_map(Dest::reformat));
        let tirs = self.dests.iter().filter_map(|d| match d {
            Dest::Tir { id, .. } => Some(Used::Tir(*id)),
            _ => None,
        });
        counters.chain(modify).chain(reformats.map(|r| Used::Reformat(r.id))).chain(tirs)
    }

    /// The tables that the rule leads to.
    pub fn tables(&self) -> impl Iterator<Item = TableRef> + '_ {
        self.dests.iter().filter_map(Dest::table)
    }
}

/// A flow table entry: a rule as packets see it. Immutable; modification
/// replaces it whole.
#[derive(Debug)]
pub struct Fte<T> {
    /// Index in its table.
    pub index: u32,
    /// Match value under the group's mask.
    pub(super) key: Key,
    /// What it does.
    pub actions: Actions<T>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmodelled_actions_are_refused() {
        assert_eq!(Action::parse(0xc), Ok(Action::FORWARD | Action::COUNT));
        for raw in [0x1000, 0x2000, 0x4000, 0x200, 0x1_0000] {
            assert_eq!(Action::parse(raw), Err(Refusal::param(Syndrome::FTE_ACTION)), "{raw:#x}");
        }
    }

    #[test]
    fn a_vlan_to_push_is_read_as_the_header_carries_it() {
        let v = PushVlan::read(View::new(&[0x88, 0xa8, 0xb0, 0x64]));
        assert_eq!(v, PushVlan { ethertype: 0x88a8, tci: 0xb064 });
    }
}
