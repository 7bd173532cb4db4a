//! Faults put in on purpose, to see that a test notices them.

use std::sync::OnceLock;

use sfnic_firmware_cmds::Opcode;

/// What a device does wrong.
#[derive(Debug, Default)]
pub struct Faults {
    refused: OnceLock<Box<[Opcode]>>,
}

impl Faults {
    /// Refuses these commands from now on. The first call counts.
    pub fn refuse(&self, opcodes: &[Opcode]) {
        let _ = self.refused.set(opcodes.into());
    }

    /// Is this command refused?
    pub(crate) fn refuses(&self, opcode: Opcode) -> bool {
        self.refused.get().is_some_and(|list| list.contains(&opcode))
    }
}
