//! What has been reached.

use std::collections::BTreeSet;

use sfnic_device_model::cmd::table::ROWS;
use sfnic_firmware_cmds::{Opcode, Syndrome};

/// How often a command was taken and refused, and for which reasons.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// Executed with status OK.
    pub ok: u64,
    /// Refused for a reason of its own: not merely a short input or output, a
    /// function that is disabled, or a role.
    pub refused: u64,
    /// Refused for whatever reason.
    pub refused_at_all: u64,
}

/// What has been reached of the device.
#[derive(Debug, Clone)]
pub struct Coverage {
    commands: Vec<Reached>,
    /// Delivery statuses of command entries.
    pub delivery: BTreeSet<u8>,
    /// Reasons of refusals.
    pub syndromes: BTreeSet<u32>,
    /// Send WQE opcodes that were rung.
    pub wqe_opcodes: BTreeSet<u8>,
    /// Vendor syndromes of error completions of send queues.
    pub send_faults: BTreeSet<u8>,
    /// Vendor syndromes of error completions of receive queues.
    pub receive_faults: BTreeSet<u8>,
    /// Send WQEs that were completed without an error.
    pub sent: u64,
    /// Frames that were received.
    pub received: u64,
    /// Steps in which something was spoiled.
    pub mutations: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            commands: vec![Reached::default(); ROWS.len()],
            delivery: BTreeSet::new(),
            syndromes: BTreeSet::new(),
            wqe_opcodes: BTreeSet::new(),
            send_faults: BTreeSet::new(),
            receive_faults: BTreeSet::new(),
            sent: 0,
            received: 0,
            mutations: 0,
        }
    }
}

impl Coverage {
    /// A command was answered.
    pub fn command(&mut self, row: usize, refusal: Option<Syndrome>) {
        let r = &mut self.commands[row];
        let Some(why) = refusal else {
            r.ok += 1;
            return;
        };
        self.syndromes.insert(why.0);
        r.refused_at_all += 1;
        let common = [
            Syndrome::INPUT_SHORT,
            Syndrome::OUTPUT_SHORT,
            Syndrome::FUNCTION_DISABLED,
            Syndrome::NOT_INITIALISED,
            Syndrome::OPCODE_FORBIDDEN,
        ];
        r.refused += u64::from(!common.contains(&why));
    }

    /// Rows with what was reached of them.
    pub fn commands(&self) -> impl Iterator<Item = (Opcode, &Reached)> {
        ROWS.iter().map(|r| r.opcode).zip(&self.commands)
    }

    /// Adds what another run reached.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.commands.iter_mut().zip(&other.commands) {
            a.ok += b.ok;
            a.refused += b.refused;
            a.refused_at_all += b.refused_at_all;
        }
        self.delivery.extend(&other.delivery);
        self.syndromes.extend(&other.syndromes);
        self.wqe_opcodes.extend(&other.wqe_opcodes);
        self.send_faults.extend(&other.send_faults);
        self.receive_faults.extend(&other.receive_faults);
        self.sent += other.sent;
        self.received += other.received;
        self.mutations += other.mutations;
    }
}
