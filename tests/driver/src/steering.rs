//! Flow tables, groups and entries.

use sfnic_firmware_cmds::layout::{Layout, ViewMut};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;

use crate::command::{CmdError, Out};
use crate::function::Function;

/// Types of tables.
pub mod table_type {
    #![allow(missing_docs)]
    pub const NIC_RX: u32 = 0;
    pub const NIC_TX: u32 = 1;
    pub const EGRESS_ACL: u32 = 2;
    pub const INGRESS_ACL: u32 = 3;
    pub const FDB: u32 = 4;
}

/// Bits of `match_criteria_enable`.
pub mod criteria {
    #![allow(missing_docs)]
    pub const OUTER: u32 = 0x01;
    pub const MISC: u32 = 0x02;
    pub const INNER: u32 = 0x04;
    pub const MISC_2: u32 = 0x08;
}

/// Bits of a flow context's `action`.
pub mod action {
    #![allow(missing_docs)]
    pub const ALLOW: u32 = 0x1;
    pub const DROP: u32 = 0x2;
    pub const FORWARD: u32 = 0x4;
    pub const COUNT: u32 = 0x8;
    pub const MODIFY_HEADER: u32 = 0x40;
    pub const POP_VLAN: u32 = 0x80;
    pub const PUSH_VLAN: u32 = 0x100;
}

/// A table and what it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Type.
    pub kind: u32,
    /// Number.
    pub id: u32,
    /// The vport whose ACL it is.
    pub vport: Option<u16>,
}

/// Where an entry sends frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To a vport; 0xffff is the physical port.
    Vport(u16),
    /// To a table.
    Table(u32),
    /// To a TIR.
    Tir(u32),
}

impl Destination {
    /// The element of a destination list.
    pub fn bytes(self) -> [u8; DestFormat::SIZE] {
        let (kind, id) = match self {
            Self::Vport(n) => (0, n.into()),
            Self::Table(n) => (1, n),
            Self::Tir(n) => (2, n),
        };
        let mut b = [0; DestFormat::SIZE];
        ViewMut::<DestFormat>::new(&mut b).set(DestFormat::destination_type, kind).set(DestFormat::destination_id, id);
        b
    }
}

/// What a flow entry does.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// Actions ([`action`]); forwarding and counting are added where there are
    /// destinations and counters.
    pub action: u32,
    /// Destinations.
    pub to: Vec<Destination>,
    /// Flow counters.
    pub counters: Vec<u32>,
    /// Modify header context.
    pub modify: u32,
    /// TCI of the tag that is pushed.
    pub vlan: u16,
    /// Tag that the completion shows.
    pub tag: u32,
    /// Tables may be at any level.
    pub any_level: bool,
}

impl Flow {
    /// Forwards to these.
    pub fn to(destinations: &[Destination]) -> Self {
        Self { to: destinations.to_vec(), ..Self::default() }
    }

    /// Drops.
    pub fn drop() -> Self {
        Self { action: action::DROP, ..Self::default() }
    }

    /// Lets pass.
    pub fn allow() -> Self {
        Self { action: action::ALLOW, ..Self::default() }
    }

    fn list(&self) -> Vec<u8> {
        let mut list: Vec<u8> = self.to.iter().flat_map(|d| d.bytes()).collect();
        for n in &self.counters {
            let mut e = [0; FlowCounterList::SIZE];
            ViewMut::<FlowCounterList>::new(&mut e).set(FlowCounterList::flow_counter_id, *n);
            list.extend(e);
        }
        list
    }

    fn fill(&self, c: &mut ViewMut<'_, FlowContext>, group: u32) {
        const C_VLAN: u32 = 0x8100;
        let mut flags = self.action;
        if !self.to.is_empty() {
            flags |= action::FORWARD;
        }
        if !self.counters.is_empty() {
            flags |= action::COUNT;
        }
        c.set(FlowContext::group_id, group).set(FlowContext::action, flags).set(FlowContext::flow_tag, self.tag);
        c.set(FlowContext::destination_list_size, self.to.len() as u32);
        c.set(FlowContext::flow_counter_list_size, self.counters.len() as u32);
        c.set(FlowContext::modify_header_id, self.modify);
        let vid = u32::from(self.vlan) & Vlan::vid.max();
        c.sub(FlowContext::push_vlan).set(Vlan::ethtype, C_VLAN).set(Vlan::vid, vid);
    }
}

impl Function {
    /// CREATE_FLOW_TABLE of `1 << log_size` entries.
    pub fn create_table(&self, kind: u32, vport: Option<u16>, level: u32, log_size: u32) -> Result<Table, CmdError> {
        let out: Out<CreateFlowTableOut> =
            self.cmd(Opcode::CREATE_FLOW_TABLE, |i: &mut ViewMut<'_, CreateFlowTableIn>| {
                i.set(CreateFlowTableIn::table_type, kind);
                i.set(CreateFlowTableIn::other_vport, vport.is_some().into());
                i.set(CreateFlowTableIn::vport_number, vport.unwrap_or(0).into());
                i.sub(CreateFlowTableIn::flow_table_context)
                    .set(FlowTableContext::level, level)
                    .set(FlowTableContext::log_size, log_size);
            })?;
        Ok(Table { kind, id: out.get(CreateFlowTableOut::table_id), vport })
    }

    /// SET_FLOW_TABLE_ROOT.
    pub fn set_root(&self, t: Table) -> Result<(), CmdError> {
        self.cmd::<SetFlowTableRootIn, SetFlowTableRootOut>(Opcode::SET_FLOW_TABLE_ROOT, |i| {
            i.set(SetFlowTableRootIn::table_type, t.kind).set(SetFlowTableRootIn::table_id, t.id);
            i.set(SetFlowTableRootIn::other_vport, t.vport.is_some().into());
            i.set(SetFlowTableRootIn::vport_number, t.vport.unwrap_or(0).into());
        })
        .map(drop)
    }

    /// CREATE_FLOW_GROUP of the entries `from..=to`, which look at the bits
    /// that `mask` sets.
    pub fn create_group(
        &self,
        t: Table,
        (from, to): (u32, u32),
        enable: u32,
        mask: impl FnOnce(&mut ViewMut<'_, FteMatchParam>),
    ) -> Result<u32, CmdError> {
        let out: Out<CreateFlowGroupOut> =
            self.cmd(Opcode::CREATE_FLOW_GROUP, |i: &mut ViewMut<'_, CreateFlowGroupIn>| {
                i.set(CreateFlowGroupIn::table_type, t.kind).set(CreateFlowGroupIn::table_id, t.id);
                i.set(CreateFlowGroupIn::other_vport, t.vport.is_some().into());
                i.set(CreateFlowGroupIn::vport_number, t.vport.unwrap_or(0).into());
                i.set(CreateFlowGroupIn::start_flow_index, from).set(CreateFlowGroupIn::end_flow_index, to);
                i.set(CreateFlowGroupIn::match_criteria_enable, enable);
                mask(&mut i.sub(CreateFlowGroupIn::match_criteria));
            })?;
        Ok(out.get(CreateFlowGroupOut::group_id))
    }

    /// SET_FLOW_TABLE_ENTRY: a new entry for frames with this value.
    pub fn create_entry(
        &self,
        t: Table,
        group: u32,
        index: u32,
        flow: &Flow,
        value: impl FnOnce(&mut ViewMut<'_, FteMatchParam>),
    ) -> Result<(), CmdError> {
        self.cmd_with::<SetFteIn, SetFteOut>(Opcode::SET_FLOW_TABLE_ENTRY, &flow.list(), 0, |i| {
            i.set(SetFteIn::table_type, t.kind).set(SetFteIn::table_id, t.id).set(SetFteIn::flow_index, index);
            i.set(SetFteIn::other_vport, t.vport.is_some().into());
            i.set(SetFteIn::vport_number, t.vport.unwrap_or(0).into());
            i.set(SetFteIn::ignore_flow_level, flow.any_level.into());
            let mut c = i.sub(SetFteIn::flow_context);
            flow.fill(&mut c, group);
            value(&mut c.sub(FlowContext::match_value));
        })
        .map(drop)
    }

    /// SET_FLOW_TABLE_ENTRY: what an entry does from now on, all of it.
    pub fn modify_entry(&self, t: Table, group: u32, index: u32, flow: &Flow) -> Result<(), CmdError> {
        const MODIFY: u32 = 1;
        const ALL: u32 = 0xf;
        self.cmd_with::<SetFteIn, SetFteOut>(Opcode::SET_FLOW_TABLE_ENTRY, &flow.list(), 0, |i| {
            i.set(SetFteIn::op_mod, MODIFY).set(SetFteIn::modify_enable_mask, ALL);
            i.set(SetFteIn::table_type, t.kind).set(SetFteIn::table_id, t.id).set(SetFteIn::flow_index, index);
            i.set(SetFteIn::other_vport, t.vport.is_some().into());
            i.set(SetFteIn::vport_number, t.vport.unwrap_or(0).into());
            i.set(SetFteIn::ignore_flow_level, flow.any_level.into());
            flow.fill(&mut i.sub(SetFteIn::flow_context), group);
        })
        .map(drop)
    }

    /// MODIFY_FLOW_TABLE: where frames go that no entry is for, the default or
    /// another table.
    pub fn set_miss(&self, t: Table, to: Option<Table>) -> Result<(), CmdError> {
        const MISS_TABLE: u32 = 1;
        self.cmd::<ModifyFlowTableIn, ModifyFlowTableOut>(Opcode::MODIFY_FLOW_TABLE, |i| {
            i.set(ModifyFlowTableIn::table_type, t.kind).set(ModifyFlowTableIn::table_id, t.id);
            i.set(ModifyFlowTableIn::modify_field_select, MISS_TABLE);
            i.sub(ModifyFlowTableIn::flow_table_context)
                .set(FlowTableContext::table_miss_action, to.is_some().into())
                .set(FlowTableContext::table_miss_id, to.map_or(0, |t| t.id));
        })
        .map(drop)
    }

    /// DELETE_FLOW_TABLE_ENTRY.
    pub fn delete_entry(&self, t: Table, index: u32) -> Result<(), CmdError> {
        self.cmd::<DeleteFteIn, DeleteFteOut>(Opcode::DELETE_FLOW_TABLE_ENTRY, |i| {
            i.set(DeleteFteIn::table_type, t.kind).set(DeleteFteIn::table_id, t.id).set(DeleteFteIn::flow_index, index);
            i.set(DeleteFteIn::other_vport, t.vport.is_some().into());
            i.set(DeleteFteIn::vport_number, t.vport.unwrap_or(0).into());
        })
        .map(drop)
    }

    /// DESTROY_FLOW_GROUP.
    pub fn destroy_group(&self, t: Table, group: u32) -> Result<(), CmdError> {
        self.cmd::<DestroyFlowGroupIn, DestroyFlowGroupOut>(Opcode::DESTROY_FLOW_GROUP, |i| {
            i.set(DestroyFlowGroupIn::table_type, t.kind).set(DestroyFlowGroupIn::table_id, t.id);
            i.set(DestroyFlowGroupIn::group_id, group);
        })
        .map(drop)
    }

    /// DESTROY_FLOW_TABLE.
    pub fn destroy_table(&self, t: Table) -> Result<(), CmdError> {
        self.cmd::<DestroyFlowTableIn, DestroyFlowTableOut>(Opcode::DESTROY_FLOW_TABLE, |i| {
            i.set(DestroyFlowTableIn::table_type, t.kind).set(DestroyFlowTableIn::table_id, t.id);
        })
        .map(drop)
    }

    /// ALLOC_FLOW_COUNTER.
    pub fn alloc_flow_counter(&self) -> Result<u32, CmdError> {
        let out: Out<AllocFlowCounterOut> =
            self.cmd(Opcode::ALLOC_FLOW_COUNTER, |_: &mut ViewMut<'_, AllocFlowCounterIn>| ())?;
        Ok(out.get(AllocFlowCounterOut::flow_counter_id))
    }

    /// ALLOC_FLOW_COUNTER of a bulk: the first of `128 * bitmask` numbers.
    pub fn alloc_flow_counters(&self, bitmask: u32) -> Result<u32, CmdError> {
        let out: Out<AllocFlowCounterOut> =
            self.cmd(Opcode::ALLOC_FLOW_COUNTER, |i: &mut ViewMut<'_, AllocFlowCounterIn>| {
                i.set(AllocFlowCounterIn::flow_counter_bulk, bitmask);
            })?;
        Ok(out.get(AllocFlowCounterOut::flow_counter_id))
    }

    /// DEALLOC_FLOW_COUNTER.
    pub fn dealloc_flow_counter(&self, id: u32) -> Result<(), CmdError> {
        self.cmd::<DeallocFlowCounterIn, DeallocFlowCounterOut>(Opcode::DEALLOC_FLOW_COUNTER, |i| {
            i.set(DeallocFlowCounterIn::flow_counter_id, id);
        })
        .map(drop)
    }

    /// Packets and octets of the flow counters `first..first + n`.
    pub fn flow_counters(&self, first: u32, n: u32) -> Result<Vec<(u64, u64)>, CmdError> {
        let out: Out<QueryFlowCounterOut> = self.cmd_with(
            Opcode::QUERY_FLOW_COUNTER,
            &[],
            TrafficCounter::SIZE * n as usize,
            |i: &mut ViewMut<'_, QueryFlowCounterIn>| {
                i.set(QueryFlowCounterIn::flow_counter_id, first).set(QueryFlowCounterIn::num_of_counters, n);
            },
        )?;
        let view = out.view();
        let all = view.tail(QueryFlowCounterOut::flow_statistics).chunks_exact(TrafficCounter::SIZE);
        let read = |c| {
            let t = sfnic_firmware_cmds::View::<TrafficCounter>::new(c);
            (t.get64(TrafficCounter::packets), t.get64(TrafficCounter::octets))
        };
        Ok(all.take(n as usize).map(read).collect())
    }

    /// Packets and octets of a flow counter.
    pub fn flow_counter(&self, id: u32) -> Result<(u64, u64), CmdError> {
        let out: Out<QueryFlowCounterOut> = self.cmd_with(
            Opcode::QUERY_FLOW_COUNTER,
            &[],
            TrafficCounter::SIZE,
            |i: &mut ViewMut<'_, QueryFlowCounterIn>| {
                i.set(QueryFlowCounterIn::flow_counter_id, id);
            },
        )?;
        let t = sfnic_firmware_cmds::View::<TrafficCounter>::new(out.view().tail(QueryFlowCounterOut::flow_statistics));
        Ok((t.get64(TrafficCounter::packets), t.get64(TrafficCounter::octets)))
    }

    /// A NIC receive table that sends everything to one TIR, as its root.
    pub fn receive_to(&self, tirn: u32) -> Result<Table, CmdError> {
        let t = self.create_table(table_type::NIC_RX, None, 0, 2)?;
        let all = self.create_group(t, (0, 3), 0, |_| ())?;
        self.create_entry(t, all, 0, &Flow::to(&[Destination::Tir(tirn)]), |_| ())?;
        self.set_root(t)?;
        Ok(t)
    }
}
