//! The command interface. [`table`] has one row a command; a handler takes the
//! row's input layout and fills its output layout.

pub mod fields;
pub mod flow;
pub mod hca;
pub mod l2_table;
pub mod queue;
pub mod regs;
pub mod sf;
pub mod table;
pub mod transport;
pub mod tunnel;
pub mod vport;

mod ppcnt;
mod regs_firmware;
pub(crate) mod regs_mtu;

use sfnic_firmware_cmds::{Opcode, Refusal, Status, Syndrome};

use crate::control::function::{Function, FunctionKind};
use crate::control::{Control, PF};
use crate::events::Happening;
use crate::faults::Site;
use crate::nic::{Card, Manager, Nic};
use crate::unmodelled::Access;

/// A command's answer: nothing to say, or why not.
pub type Answer = Result<(), Refusal>;

/// What a handler works with.
pub struct Cx<'a> {
    /// The device.
    pub nic: &'a Nic,
    /// The card that the command was given to.
    pub card: &'a Card,
    /// The card's control state, locked.
    pub ctl: &'a mut Control,
    /// The function that issued the command.
    pub fid: u16,
    /// The user context in whose name it was issued; 0 is the kernel.
    pub uid: u16,
    /// Operation modifier.
    pub op_mod: u16,
}

impl Cx<'_> {
    /// The function that issued the command.
    pub fn function(&mut self) -> Result<&mut Function, Refusal> {
        self.ctl.functions.get_mut(&self.fid).ok_or(Refusal::new(Status::BadSysState, Syndrome::FUNCTION_DISABLED))
    }

    /// Whether the caller manages the eswitch.
    pub fn is_manager(&self) -> bool {
        self.fid == PF && self.card.config.manager == Manager::Host
    }

    /// Refuses unless the caller manages the eswitch.
    pub fn require_manager(&self) -> Answer {
        if self.is_manager() { Ok(()) } else { Err(Refusal::new(Status::BadOp, Syndrome::OPCODE_FORBIDDEN)) }
    }

    /// Where faults strike the caller's queues.
    pub(crate) fn site(&self) -> Site {
        Site { faults: self.nic.faults.clone(), pf: self.card.index, function: self.fid }
    }

    /// Counts something that the driver wanted and the model does not have.
    pub fn unmodelled(&self, a: Access) {
        self.nic.unmodelled.record(self.card.index, self.fid, a);
    }
}

/// Runs one command: `input` as the driver sent it, `out` as long as it asked
/// for, zeroed.
pub fn execute(nic: &Nic, card: &Card, ctl: &mut Control, fid: u16, input: &[u8], out: &mut [u8]) -> Answer {
    let head = |at: usize| input.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let opcode = Opcode(head(0));
    let began = nic.clock.now_ns();
    let answer = dispatch(nic, card, ctl, fid, opcode, head(2), head(6), input, out);
    // Before the driver hears of it.
    if alters(opcode, head(6)) {
        nic.flows.changed();
    }
    let status = match answer {
        Ok(()) => Status::Ok,
        Err(r) => {
            tracing::debug!(card = card.index, function = fid, %opcode, op_mod = head(6), refusal = %r, "command refused");
            nic.events.push(Happening::CommandFailed {
                pf: card.index,
                function: fid,
                opcode: opcode.0,
                command: opcode.name().unwrap_or("unknown").to_owned(),
                op_mod: head(6),
                status: r.status.name().to_owned(),
                syndrome: r.syndrome.0,
                reason: r.syndrome.text(),
            });
            if let Some(s) = out.get_mut(4..8) {
                s.copy_from_slice(&r.syndrome.0.to_be_bytes());
            }
            r.status
        }
    };
    if let Some(b) = out.first_mut() {
        *b = status as u8;
    }
    ctl.ledger.count(opcode, status, nic.clock.now_ns().saturating_sub(began));
    if status == Status::Ok && nic.noise.seed().is_some() {
        let executed = ctl.functions.get(&fid).map_or(0, |f| f.stats.executed);
        nic.noise.answer(input, out, executed << 24 | (card.index as u64) << 16 | u64::from(fid));
    }
    tracing::trace!(card = card.index, function = fid, %opcode, op_mod = head(6), ?status, "command");
    answer
}

/// Whether a command may change the way of a frame; in doubt it does. Flow
/// tables, groups and rules tell by themselves which frames they concern, and
/// what is only just made concerns none.
fn alters(opcode: Opcode, op_mod: u16) -> bool {
    const READ: u16 = 1;
    match opcode {
        Opcode::ACCESS_REG => op_mod != READ,
        Opcode::CREATE_FLOW_TABLE | Opcode::MODIFY_FLOW_TABLE | Opcode::DESTROY_FLOW_TABLE => false,
        Opcode::CREATE_FLOW_GROUP | Opcode::DESTROY_FLOW_GROUP => false,
        Opcode::SET_FLOW_TABLE_ENTRY | Opcode::DELETE_FLOW_TABLE_ENTRY | Opcode::SET_FLOW_TABLE_ROOT => false,
        Opcode::ALLOC_FLOW_COUNTER | Opcode::DEALLOC_FLOW_COUNTER => false,
        Opcode::ALLOC_MODIFY_HEADER_CONTEXT | Opcode::DEALLOC_MODIFY_HEADER_CONTEXT => false,
        Opcode::ALLOC_PACKET_REFORMAT_CONTEXT | Opcode::DEALLOC_PACKET_REFORMAT_CONTEXT => false,
        Opcode::NOP => false,
        _ => !opcode.name().is_some_and(|n| n.starts_with("QUERY_")),
    }
}

#[allow(clippy::too_many_arguments)]
fn dispatch(
    nic: &Nic,
    card: &Card,
    ctl: &mut Control,
    fid: u16,
    opcode: Opcode,
    uid: u16,
    op_mod: u16,
    input: &[u8],
    out: &mut [u8],
) -> Answer {
    let Some(row) = table::find(opcode) else {
        nic.unmodelled.record(card.index, fid, Access::Opcode(opcode.0));
        let why = if opcode.name().is_some() { Syndrome::OPCODE_UNMODELLED } else { Syndrome::OPCODE_UNKNOWN };
        return Err(Refusal::new(Status::BadOp, why));
    };
    if input.len() < row.input.size() {
        return Err(Refusal::new(Status::BadInputLen, Syndrome::INPUT_SHORT));
    }
    if out.len() < row.output.size() {
        return Err(Refusal::new(Status::BadOutputLen, Syndrome::OUTPUT_SHORT));
    }
    let f = ctl.functions.get(&fid).ok_or(Refusal::new(Status::BadSysState, Syndrome::FUNCTION_DISABLED))?;
    if row.needs >= table::Needs::Enabled && !f.enabled {
        return Err(Refusal::new(Status::BadSysState, Syndrome::FUNCTION_DISABLED));
    }
    if row.needs >= table::Needs::Initialised && !f.initialised {
        return Err(Refusal::new(Status::BadSysState, Syndrome::NOT_INITIALISED));
    }
    let parent = matches!(f.kind, FunctionKind::Pf | FunctionKind::Ecpf);
    let mut cx = Cx { nic, card, ctl, fid, uid, op_mod };
    let allowed = match row.role {
        table::Role::Any => true,
        table::Role::Parent => parent,
        table::Role::Manager => parent && cx.is_manager(),
    };
    if !allowed {
        return Err(Refusal::new(Status::BadOp, Syndrome::OPCODE_FORBIDDEN));
    }
    if let Some(refusal) = nic.faults.refusal(card.index, fid, opcode, |kind| cx.ctl.count(fid, kind)) {
        return Err(refusal);
    }
    (row.run)(&mut cx, input, out)
}
