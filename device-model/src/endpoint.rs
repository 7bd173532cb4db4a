//! The PCI function that a passthrough slice is to a guest of its own: its configuration
//! space, its interrupts, and the guest's memory.
//!
//! An endpoint is there as long as its slice is. The function behind it comes and goes with
//! the slice's life: while there is none, or it is not active, the endpoint's window holds an
//! init segment that says "initializing", and nothing else. A driver that comes early waits
//! for it (`wait_fw_init`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use sfnic_firmware_cmds::profile::Profile;

use crate::control::vhca::Cause;
use crate::control::vport::guid;
use crate::dma::Dma;
use crate::faults::Faults;
use crate::irq::IrqLine;
use crate::nic::{Card, Nic};
use crate::pci::{Config, Effect, VF_DEVICE_ID};

/// Bytes of BAR 0 of an endpoint: the function's window, as long as 252 UAR pages need.
pub const ENDPOINT_BAR_SIZE: u64 = 1 << 20;
/// MSI-X vectors of an endpoint unless somebody says otherwise.
pub const ENDPOINT_VECTORS: u16 = 16;

/// No function is behind it.
const NONE: u32 = u32::MAX;

/// A PCI function of its own.
pub struct Endpoint {
    /// Index of its slice.
    pub slice: u32,
    /// The card that the slice is of.
    pub card: usize,
    /// MSI-X vectors.
    pub vectors: u16,
    /// PCI configuration space.
    pub pci: Mutex<Config>,
    /// The guest's memory.
    pub dma: Arc<Dma>,
    /// The guest's interrupts.
    pub irq: Arc<IrqLine>,
    /// Id of the function behind it, or [`NONE`].
    function: AtomicU32,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint(slice {}, function {:?})", self.slice, self.function())
    }
}

impl Endpoint {
    /// An endpoint with nothing behind it.
    pub(crate) fn new(profile: &Profile, card: &Card, faults: &Arc<Faults>, slice: u32, vectors: u16) -> Arc<Self> {
        // Unlike the card's: another function of another machine.
        let serial = guid(card.config.mac) ^ u64::from(slice).rotate_left(32);
        let mut config = Config::new(profile, vectors, serial, ENDPOINT_BAR_SIZE, 0);
        config.identify(VF_DEVICE_ID);
        Arc::new(Self {
            slice,
            card: card.index,
            vectors,
            pci: Mutex::new(config),
            dma: Arc::default(),
            irq: Arc::new(IrqLine::new(card.index, vectors, faults.clone())),
            function: AtomicU32::new(NONE),
        })
    }

    /// The function behind it.
    pub fn function(&self) -> Option<u16> {
        u16::try_from(self.function.load(Ordering::Acquire)).ok()
    }

    /// Puts a function behind it, or takes it away; under the card's control lock.
    pub(crate) fn lead_to(&self, function: Option<u16>) {
        self.function.store(function.map_or(NONE, u32::from), Ordering::Release);
    }
}

impl Nic {
    /// Reads an endpoint's configuration space.
    pub fn endpoint_config_read(&self, endpoint: &Endpoint, offset: usize, data: &mut [u8]) {
        if self.faults.is_slice_gone(endpoint.slice) {
            return data.fill(0xff);
        }
        endpoint.pci.lock().read(offset, data);
    }

    /// Writes an endpoint's configuration space; a function level reset arrives here.
    pub fn endpoint_config_write(&self, endpoint: &Endpoint, offset: usize, data: &[u8]) {
        if self.faults.is_slice_gone(endpoint.slice) {
            return;
        }
        let effect = endpoint.pci.lock().write(offset, data);
        if effect == Effect::FunctionReset {
            self.endpoint_reset(endpoint);
        }
    }

    /// Brings an endpoint to the state after power-on: the function behind it has no driver
    /// any more. The slice stays what it is; one that waited for its driver is free.
    pub fn endpoint_reset(&self, endpoint: &Endpoint) {
        endpoint.pci.lock().reset();
        self.endpoint_reset_behind(endpoint);
    }

    /// As [`Self::endpoint_reset`], behind the driver's back: configuration space is left as
    /// it was.
    pub(crate) fn endpoint_reset_behind(&self, endpoint: &Endpoint) {
        let Some(card) = self.cards.get(endpoint.card) else { return };
        let mut ctl = card.control.lock();
        let Some(id) = endpoint.function() else { return };
        if ctl.sf_transition(id, Cause::HostReset).is_ok() {
            self.sf_detached(card, &mut ctl, id);
        }
    }
}
