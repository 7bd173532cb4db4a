//! What the driver wanted and the model does not have: counted, logged once,
//! listed for the user.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use sfnic_firmware_cmds::entries::wqe_opcode;
use sfnic_firmware_cmds::opcode::Opcode;

/// One kind of access that is not modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "number")]
pub enum Access {
    /// Command opcode.
    Opcode(u16),
    /// Access register.
    Register(u16),
    /// Counter group of PPCNT.
    CounterGroup(u8),
    /// Group of QUERY_HCA_CAP.
    CapGroup(u16),
    /// Opcode of a send WQE.
    WqeOpcode(u8),
    /// Read of a byte offset in a function's window.
    WindowRead(u32),
    /// Write to a byte offset in a function's window.
    WindowWrite(u32),
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Access::Opcode(n) => write!(f, "command {}", Opcode(*n)),
            Access::Register(n) => write!(f, "access register {n:#06x}"),
            Access::CounterGroup(n) => write!(f, "port counter group {n:#04x}"),
            Access::CapGroup(n) => write!(f, "capability group {n:#04x}"),
            Access::WqeOpcode(n) => {
                let name = wqe_opcode::NAMES.iter().find(|e| e.0 == *n).map_or("unknown", |e| e.1);
                write!(f, "send WQE opcode {name}({n:#04x})")
            }
            Access::WindowRead(at) => write!(f, "read of window offset {at:#x}"),
            Access::WindowWrite(at) => write!(f, "write to window offset {at:#x}"),
        }
    }
}

/// The most kinds of access that are kept apart; more are counted together.
const MOST: usize = 1024;

/// Counts of accesses that are not modelled.
#[derive(Debug, Default)]
pub struct Unmodelled {
    seen: Mutex<BTreeMap<Access, u64>>,
}

impl Unmodelled {
    /// Counts an access; logs the first of its kind.
    pub fn record(&self, card: usize, function: u16, a: Access) {
        let mut seen = self.seen.lock();
        if seen.len() >= MOST && !seen.contains_key(&a) {
            return;
        }
        let n = seen.entry(a).or_insert(0);
        *n += 1;
        if *n == 1 {
            tracing::warn!(card, function, "not modelled: {a}");
        }
    }

    /// Everything counted so far.
    pub fn list(&self) -> Vec<(Access, u64)> {
        self.seen.lock().iter().map(|(a, n)| (*a, *n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_counted_by_kind_and_bounded() {
        let u = Unmodelled::default();
        for i in 0..5000 {
            u.record(0, 0, Access::WindowRead(i));
            u.record(0, 0, Access::Opcode(0x115));
        }
        let l = u.list();
        assert!(l.len() <= MOST);
        assert!(l.contains(&(Access::Opcode(0x115), 5000)));
        assert_eq!(Access::Opcode(0x115).to_string(), "command SUSPEND_VHCA(0x115)");
    }
}
