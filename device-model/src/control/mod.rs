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
use std::sync::Arc;

use function::Function;
use sf::SfSlot;
use vport::VportControl;

use crate::endpoint::Endpoint;
use crate::events::Events;
use crate::fabric::vport::UPLINK;
use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::slice::Flavour;

/// What commands of one card work on.
#[derive(Debug)]
pub struct Control {
    /// Number of the physical function.
    pub pf: usize,
    /// Who hears what happens.
    pub events: Arc<Events>,
    /// What is done wrong on purpose.
    pub faults: Arc<Faults>,
    /// What became of commands.
    pub ledger: Ledger,
    /// Functions by id; the PF is 0.
    pub functions: BTreeMap<u16, Function>,
    /// Sub-functions by index; the id is `sf_base + index`.
    pub sfs: Vec<SfSlot>,
    /// Slices of other flavours that wait for the host to add an SF of their number.
    pub(crate) declared: BTreeMap<u32, Declared>,
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

/// A slice that is a device of another guest, where the host manages the eswitch: it comes to
/// life when the host adds an SF of its number.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// Index of the slice.
    pub(crate) index: u32,
    /// What its guest sees of it.
    pub(crate) flavour: Flavour,
    /// What a passthrough slice is to its guest.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Whether it is active as soon as it is there, without the host's word.
    pub(crate) active: bool,
    /// Its address; zero for the host's to give.
    pub(crate) hw_addr: [u8; 6],
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

    /// Id of the function that a slice is; one that is declared has none until its host adds it.
    pub(crate) fn sf_of_slice(&self, index: u32) -> Option<u16> {
        let at = self.sfs.iter().position(|s| s.slice == Some(index))?;
        self.sf_base.checked_add(at as u16)
    }

    /// The SF slot of a function id, while it is taken back and not detached yet.
    pub(crate) fn detaching(&self, id: u16) -> Option<&SfSlot> {
        self.sf(id).filter(|s| s.state == vhca::State::TeardownRequest)
    }

    /// The SF slot of a function id.
    pub fn sf_mut(&mut self, id: u16) -> Option<&mut SfSlot> {
        self.sfs.get_mut(usize::from(id.checked_sub(self.sf_base)?))
    }

    /// How many objects of a kind, by its name in the language of faults, a
    /// function has.
    pub(crate) fn count(&self, function: u16, kind: &str) -> usize {
        let Some(f) = self.functions.get(&function) else { return 0 };
        let of = |name: &str| f.steering.counts().into_iter().find(|c| c.0 == name).map_or(0, |c| c.1);
        match kind {
            "flow_table" => of("FlowTable"),
            "flow_group" => of("FlowGroup"),
            "flow_rule" => of("FlowEntry"),
            "sf" => self.sfs.iter().filter(|s| s.state != vhca::State::Invalid).count(),
            _ => {
                let counts = f.objects.counts().into_iter();
                counts.filter(|(k, _)| k.name() == kind).map(|(_, n)| n).sum()
            }
        }
    }

    /// A name of a port of the eswitch that no netdev's name changes: `p0`,
    /// `pf0`, `pf0sf4`, `pf0vf1`.
    pub fn port_name(&self, number: u16) -> String {
        let pf = self.pf;
        match (number, self.sf(number)) {
            (UPLINK, _) => format!("p{pf}"),
            (PF, _) => format!("pf{pf}"),
            (_, Some(s)) => format!("pf{pf}sf{}", s.sw_function_id),
            _ => format!("pf{pf}vf{}", number.saturating_sub(1)),
        }
    }
}
