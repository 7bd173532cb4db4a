//! The control plane of one card: everything that commands read and change.
//!
//! One lock ([`crate::nic::Card::control`]) covers a physical function, its
//! sub-functions and the eswitch that they share: their commands arrive on one
//! thread anyway, and an SF's life cycle touches all three. The packet path
//! never takes it; it works on what commands publish in [`crate::fabric`].
//! Lock order: control, then a queue's own lock. Two cards' control locks are
//! never held together.

pub mod caps;
pub mod function;
pub mod iseg;
pub mod objects;
pub mod sf;
pub mod vhca;
pub mod vport;

use std::collections::BTreeMap;

use function::Function;
use sf::SfSlot;
use vport::VportControl;

/// What commands of one card work on.
#[derive(Debug)]
pub struct Control {
    /// Functions by id; the PF is 0.
    pub functions: BTreeMap<u16, Function>,
    /// Sub-functions by index; the id is `sf_base + index`.
    pub sfs: Vec<SfSlot>,
    /// Function id of the first SF.
    pub sf_base: u16,
    /// Vports by number.
    pub vports: BTreeMap<u16, VportControl>,
    /// Addresses of the port that are the physical function's.
    pub l2_table: crate::cmd::l2_table::L2Table,
    /// What the driver set of the port.
    pub port_regs: crate::cmd::regs::PortRegs,
    /// Work that must happen after the lock is released.
    pub after: Vec<After>,
}

/// What a command leaves to do after the control lock is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The physical port's administrative state changed.
    PortChanged,
}

/// Function id of the physical function.
pub const PF: u16 = 0;

impl Control {
    /// The SF slot of a function id.
    pub fn sf(&self, id: u16) -> Option<&SfSlot> {
        self.sfs.get(usize::from(id.checked_sub(self.sf_base)?))
    }

    /// The SF slot of a function id.
    pub fn sf_mut(&mut self, id: u16) -> Option<&mut SfSlot> {
        self.sfs.get_mut(usize::from(id.checked_sub(self.sf_base)?))
    }
}
