//! A driver that is fuzzed: what it has, and what became of it.

use sfnic_device_model::cmd::table;
use sfnic_firmware_cmds::layout::{Field, View};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;

use super::book::{Book, TableNote, Thing};
use super::templates::Setting;
use crate::command::CmdError;
use crate::netdev::Netdev;
use crate::objects::state;

/// A driver with its interface and what it made beside.
pub(super) struct Actor {
    pub(super) dev: Netdev,
    pub(super) book: Book,
    pub(super) setting: Setting,
    /// Lost what it cannot do without.
    pub(super) broken: bool,
}

impl Actor {
    /// Brings both queues through reset to ready, as a driver's recovery does.
    pub(super) fn revive(&mut self) {
        let f = &self.dev.function;
        let c = &mut self.dev.channels[0];
        let ready = |now: Result<u32, CmdError>, modify: &dyn Fn(u32, u32) -> Result<(), CmdError>| {
            let now = now?;
            if now != state::RST {
                modify(now, state::RST)?;
            }
            modify(state::RST, state::RDY)
        };
        c.sq.restart();
        c.rq.producer = 0;
        c.rq.prepare();
        let (sqn, rqn) = (c.sq.number, c.rq.number);
        let sq = ready(f.sq_state(sqn), &|from, to| f.modify_sq(sqn, from, to));
        let rq = ready(f.rq_state(rqn), &|from, to| f.modify_rq(rqn, from, to));
        c.rq.post_all();
        self.broken |= sq.is_err() || rq.is_err();
    }

    /// Writes down what a command made or destroyed.
    pub(super) fn executed(&mut self, opcode: Opcode, input: &[u8], out: &[u8]) {
        let Some(row) = table::find(opcode) else { return };
        let name = opcode.name().unwrap_or_default();
        let makes = name.starts_with("CREATE_") || name.starts_with("ALLOC_");
        let ends = name.starts_with("DESTROY_") || name.starts_with("DEALLOC_");
        let (info, bytes) = if makes { (row.output.info(), out) } else { (row.input.info(), input) };
        let numbered = info.fields.iter().find_map(|f| Some((Thing::of(f)?, f)));
        if let Some((thing, f)) = numbered {
            let number = Field::<()>::at(f.bit, f.width);
            let dword = bytes.get(number.dword() * 4..).and_then(|b| b.first_chunk::<4>());
            let number = number.of_dword(dword.map_or(0, |b| u32::from_be_bytes(*b)));
            match (makes, ends) {
                (true, _) => self.book.add(thing, number),
                (_, true) => {
                    self.book.remove(thing, number);
                    let c = &self.dev.channels[0];
                    self.broken |= match thing {
                        Thing::Sq => number == c.sq.number,
                        Thing::Rq => number == c.rq.number,
                        Thing::Mkey => number == self.dev.lkey / 0x100,
                        _ => false,
                    };
                }
                _ => {}
            }
        }
        self.steered(opcode, input, out);
    }

    /// The same for flow tables.
    fn steered(&mut self, opcode: Opcode, input: &[u8], out: &[u8]) {
        const MOST: usize = 48;
        let id = View::<DestroyFlowTableIn>::new(input).get(DestroyFlowTableIn::table_id);
        match opcode {
            Opcode::CREATE_FLOW_TABLE if self.book.tables.len() < MOST => {
                let i = View::<CreateFlowTableIn>::new(input);
                self.book.tables.push(TableNote {
                    kind: i.get(CreateFlowTableIn::table_type),
                    id: View::<CreateFlowTableOut>::new(out).get(CreateFlowTableOut::table_id),
                    vport: i.is(CreateFlowTableIn::other_vport).then(|| i.get(CreateFlowTableIn::vport_number) as u16),
                    level: i.sub(CreateFlowTableIn::flow_table_context).get(FlowTableContext::level),
                    groups: vec![],
                    entries: vec![],
                });
            }
            Opcode::DESTROY_FLOW_TABLE => self.book.tables.retain(|t| t.id != id),
            Opcode::CREATE_FLOW_GROUP => {
                let i = View::<CreateFlowGroupIn>::new(input);
                let range = (i.get(CreateFlowGroupIn::start_flow_index), i.get(CreateFlowGroupIn::end_flow_index));
                let group = View::<CreateFlowGroupOut>::new(out).get(CreateFlowGroupOut::group_id);
                if let Some(t) = self.book.table_mut(id) {
                    t.groups.push((group, range.0, range.1));
                }
            }
            Opcode::DESTROY_FLOW_GROUP => {
                let group = View::<DestroyFlowGroupIn>::new(input).get(DestroyFlowGroupIn::group_id);
                if let Some(t) = self.book.table_mut(id) {
                    t.groups.retain(|g| g.0 != group);
                }
            }
            Opcode::SET_FLOW_TABLE_ENTRY => {
                let index = View::<SetFteIn>::new(input).get(SetFteIn::flow_index);
                if let Some(t) = self.book.table_mut(id)
                    && !t.entries.contains(&index)
                {
                    t.entries.push(index);
                }
            }
            Opcode::DELETE_FLOW_TABLE_ENTRY => {
                let index = View::<DeleteFteIn>::new(input).get(DeleteFteIn::flow_index);
                if let Some(t) = self.book.table_mut(id) {
                    t.entries.retain(|i| *i != index);
                }
            }
            _ => {}
        }
    }
}
