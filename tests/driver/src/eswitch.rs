//! What the manager of an eswitch does: sub-functions, forwarding, ACLs.

use sfnic_device_model::control::vhca::State;
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;

use crate::command::{CmdError, Out};
use crate::function::Function;
use crate::steering::{Destination, Flow, Table, criteria, table_type};

/// Vport number of the physical port.
pub const UPLINK: u16 = 0xffff;

/// A forwarding table that looks at the source port alone.
pub struct Fdb {
    table: Table,
    group: u32,
    next: u32,
}

impl Function {
    /// ALLOC_SF.
    pub fn alloc_sf(&self, id: u16) -> Result<(), CmdError> {
        self.cmd::<AllocSfIn, AllocSfOut>(Opcode::ALLOC_SF, |i| {
            i.set(AllocSfIn::function_id, id.into());
        })
        .map(drop)
    }

    /// DEALLOC_SF.
    pub fn dealloc_sf(&self, id: u16) -> Result<(), CmdError> {
        self.cmd::<DeallocSfIn, DeallocSfOut>(Opcode::DEALLOC_SF, |i| {
            i.set(DeallocSfIn::function_id, id.into());
        })
        .map(drop)
    }

    /// ENABLE_HCA of an SF by its manager: its driver may attach.
    pub fn activate(&self, id: u16) -> Result<(), CmdError> {
        self.cmd::<EnableHcaIn, EnableHcaOut>(Opcode::ENABLE_HCA, |i| {
            i.set(EnableHcaIn::function_id, id.into());
        })
        .map(drop)
    }

    /// DISABLE_HCA of an SF by its manager: its driver is to leave.
    pub fn deactivate(&self, id: u16) -> Result<(), CmdError> {
        self.cmd::<DisableHcaIn, DisableHcaOut>(Opcode::DISABLE_HCA, |i| {
            i.set(DisableHcaIn::function_id, id.into());
        })
        .map(drop)
    }

    /// ALLOC_SF and ENABLE_HCA, and its vport is up whatever the port does.
    pub fn add_sf(&self, id: u16) -> Result<(), CmdError> {
        self.alloc_sf(id)?;
        self.set_vport_up(id)?;
        self.activate(id)
    }

    /// MODIFY_VPORT_STATE: frames pass a vport.
    pub fn set_vport_up(&self, vport: u16) -> Result<(), CmdError> {
        const ESW_VPORT: u32 = 1;
        const UP: u32 = 1;
        self.cmd::<ModifyVportStateIn, ModifyVportStateOut>(Opcode::MODIFY_VPORT_STATE, |i| {
            i.set(ModifyVportStateIn::op_mod, ESW_VPORT).set(ModifyVportStateIn::admin_state, UP);
            i.set(ModifyVportStateIn::other_vport, 1).set(ModifyVportStateIn::vport_number, vport.into());
        })
        .map(drop)
    }

    /// Address that an SF's driver will find.
    pub fn set_sf_mac(&self, id: u16, mac: [u8; 6]) -> Result<(), CmdError> {
        self.modify_vport(&[], |i| {
            i.set(ModifyNicVportContextIn::other_vport, 1).set(ModifyNicVportContextIn::vport_number, id.into());
            i.sub(ModifyNicVportContextIn::field_select).set(ModifyNicVportFieldSelect::permanent_address, 1);
            let mut c = i.sub(ModifyNicVportContextIn::nic_vport_context);
            c.sub(NicVportContext::permanent_address).raw().copy_from_slice(&crate::function::write_mac(mac));
        })
    }

    /// QUERY_VHCA_STATE.
    pub fn vhca(&self, id: u16) -> Result<Out<QueryVhcaStateOut>, CmdError> {
        self.cmd(Opcode::QUERY_VHCA_STATE, |i: &mut ViewMut<'_, QueryVhcaStateIn>| {
            i.set(QueryVhcaStateIn::function_id, id.into());
        })
    }

    /// State of an SF (QUERY_VHCA_STATE), which is then known to the observer.
    pub fn vhca_state(&self, id: u16) -> Result<Option<State>, CmdError> {
        let out = self.vhca(id)?;
        let raw = out.sub(QueryVhcaStateOut::vhca_state_context).get(VhcaStateContext::vhca_state);
        Ok(State::ALL.into_iter().find(|s| *s as u32 == raw))
    }

    /// MODIFY_VHCA_STATE: asks for an event with the next change.
    pub fn vhca_arm(&self, id: u16) -> Result<(), CmdError> {
        self.cmd::<ModifyVhcaStateIn, ModifyVhcaStateOut>(Opcode::MODIFY_VHCA_STATE, |i| {
            i.set(ModifyVhcaStateIn::function_id, id.into());
            i.sub(ModifyVhcaStateIn::vhca_state_field_select).set(VhcaStateFieldSelect::arm_change_event, 1);
            i.sub(ModifyVhcaStateIn::vhca_state_context).set(VhcaStateContext::arm_change_event, 1);
        })
        .map(drop)
    }

    /// A forwarding table that forwards nothing yet, as the eswitch's root.
    pub fn create_fdb(&self, log_size: u32) -> Result<Fdb, CmdError> {
        let table = self.create_table(table_type::FDB, None, 0, log_size)?;
        let last = (1u32 << log_size) - 1;
        let group = self.create_group(table, (0, last), criteria::MISC, |m| {
            m.sub(FteMatchParam::misc_parameters).set(FteMatchSetMisc::source_port, FteMatchSetMisc::source_port.max());
        })?;
        self.set_root(table)?;
        Ok(Fdb { table, group, next: 0 })
    }

    /// Adds an entry: what comes from a vport does this.
    pub fn forward(&self, fdb: &mut Fdb, from: u16, flow: &Flow) -> Result<(), CmdError> {
        self.create_entry(fdb.table, fdb.group, fdb.next, flow, |v| {
            v.sub(FteMatchParam::misc_parameters).set(FteMatchSetMisc::source_port, from.into());
        })?;
        fdb.next += 1;
        Ok(())
    }

    /// Two vports reach each other and nobody else.
    pub fn join(&self, fdb: &mut Fdb, a: u16, b: u16) -> Result<(), CmdError> {
        self.forward(fdb, a, &Flow::to(&[Destination::Vport(b)]))?;
        self.forward(fdb, b, &Flow::to(&[Destination::Vport(a)]))
    }

    /// An ACL of a vport (`table_type::INGRESS_ACL` or `EGRESS_ACL`) with one
    /// entry for every frame.
    pub fn create_acl(&self, kind: u32, vport: u16, flow: &Flow) -> Result<Table, CmdError> {
        let t = self.create_table(kind, Some(vport), 0, 2)?;
        let all = self.create_group(t, (0, 3), 0, |_| ())?;
        self.create_entry(t, all, 0, flow, |_| ())?;
        self.set_root(t)?;
        Ok(t)
    }
}
