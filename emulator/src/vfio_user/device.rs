//! The traits between the server and a PCI device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::dma::DmaMap;

/// A PCI device as the server drives it.
///
/// Calls come from one thread at a time: the one that serves the client.
/// QEMU gives up on a device for good if an answer takes longer than five
/// seconds, so every call must return well before that.
///
/// Offsets and lengths are in bytes. A call never has to check that a range
/// lies within its region; the server has done so. Lengths are 1 to
/// [`MAX_DATA_XFER`](super::MAX_DATA_XFER) and need not be powers of two.
pub trait PciDevice: Send + Sync {
    /// Reads configuration space; `offset + data.len()` is at most 4096.
    fn config_read(&self, offset: u32, data: &mut [u8]);

    /// Writes configuration space. A function-level reset arrives here.
    fn config_write(&self, offset: u32, data: &[u8]);

    /// Reads a BAR, `offset + data.len()` is at most [`Self::bar_size`].
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes a BAR, `offset + data.len()` is at most [`Self::bar_size`].
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);

    /// Size of BAR 0 to 5 in bytes, 0 if absent. The upper half of a 64-bit
    /// BAR is absent.
    fn bar_size(&self, bar: u8) -> u64;

    /// Which parts of a BAR the client may map instead of trapping.
    ///
    /// QEMU makes *every* write to the device synchronous once one BAR has
    /// such a part. Asked for at attach only.
    fn bar_mapping(&self, _bar: u8) -> Option<BarMapping> {
        None
    }

    /// Number of MSI-X vectors; must agree with the capability in
    /// configuration space.
    fn msix_vectors(&self) -> u16;

    /// The client reset the device (power on, reboot, bus reset).
    fn reset(&self);

    /// Guest memory changed. `map` replaces every earlier snapshot.
    ///
    /// Must return only when no earlier snapshot is in use any more: the
    /// client is told after this call that unmapped memory is its own again.
    fn dma_changed(&self, map: Arc<DmaMap>);

    /// A client finished its handshake. `irq` delivers to this client until
    /// [`Self::detached`].
    fn attached(&self, irq: Arc<dyn Interrupts>);

    /// The client left, with or without warning. The device must be as after
    /// power on when this returns. An empty [`Self::dma_changed`] follows.
    fn detached(&self);

    /// All messages received so far have been handled, and what they asked
    /// has been answered: the place to run work that they queued.
    fn idle(&self) {}
}

/// Delivers interrupts to the client. It takes no lock and does not fail: a
/// vector that the client has not armed, or that does not exist, is only
/// counted.
pub use sfnic_device_model::world::Interrupts;

/// A file of ours that the client may map in place of parts of a BAR.
#[derive(Clone, Debug)]
pub struct BarMapping {
    /// The file; sent to the client, kept by us.
    pub fd: Arc<OwnedFd>,
    /// Where byte 0 of the BAR would be in the file, in bytes.
    pub offset: u64,
    /// The parts that may be mapped, page aligned, in BAR offsets. Empty
    /// means all of the BAR.
    pub areas: Vec<MmapArea>,
}

/// A mappable part of a BAR, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapArea {
    /// Offset within the BAR.
    pub offset: u64,
    /// Length.
    pub size: u64,
}
