//! Commands, limits and the header of vfio-user messages.
//!
//! Every field is in the host's byte order (both ends share the host). Sizes
//! and offsets are in bytes. Only this module and `payload` know where a
//! field lies.

use std::fmt;

use super::error::Disconnect;

/// Length of the header before every message.
pub(crate) const HEADER_LEN: usize = 16;
/// Most data one message may carry, in bytes (`max_data_xfer_size`; QEMU
/// refuses a server that says more).
pub const MAX_DATA_XFER: usize = 1 << 20;
/// Most bytes one message may have; a longer one ends the connection.
pub const MAX_MESSAGE: usize = HEADER_LEN + 16 + MAX_DATA_XFER;
/// Most descriptors one message may carry (`max_msg_fds`; QEMU refuses a
/// server that says more).
pub const MAX_MSG_FDS: usize = 16;
/// Page size of DMA ranges in bytes (`pgsizes`).
pub(crate) const PAGE_SIZE: u64 = 4096;

/// Regions of a PCI device: six BARs, ROM, configuration space, VGA.
pub(crate) const REGION_COUNT: u32 = 9;
/// Index of configuration space.
pub(crate) const REGION_CONFIG: u32 = 7;
/// BARs are regions 0 to 5.
pub(crate) const BAR_COUNT: u32 = 6;
/// Bytes of configuration space.
pub(crate) const CONFIG_SIZE: u64 = 4096;

/// Interrupt types of a PCI device: INTx, MSI, MSI-X, error, request.
pub(crate) const IRQ_COUNT: u32 = 5;
/// Index of the legacy interrupt.
pub(crate) const IRQ_INTX: u32 = 0;
/// Index of MSI-X.
pub(crate) const IRQ_MSIX: u32 = 2;
/// Index of the error interrupt.
pub(crate) const IRQ_ERROR: u32 = 3;

/// Commands that exist in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetRegionIoFds = 6,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DmaRead = 11,
    DmaWrite = 12,
    DeviceReset = 13,
    DirtyPages = 14,
    RegionWriteMulti = 15,
    DeviceFeature = 16,
    MigDataRead = 17,
    MigDataWrite = 18,
}

impl Command {
    /// Number of commands.
    pub const COUNT: usize = Self::ALL.len();

    /// Every command, in order of its number, which starts at 1.
    pub const ALL: [Command; 18] = [
        Self::Version,
        Self::DmaMap,
        Self::DmaUnmap,
        Self::DeviceGetInfo,
        Self::DeviceGetRegionInfo,
        Self::DeviceGetRegionIoFds,
        Self::DeviceGetIrqInfo,
        Self::DeviceSetIrqs,
        Self::RegionRead,
        Self::RegionWrite,
        Self::DmaRead,
        Self::DmaWrite,
        Self::DeviceReset,
        Self::DirtyPages,
        Self::RegionWriteMulti,
        Self::DeviceFeature,
        Self::MigDataRead,
        Self::MigDataWrite,
    ];

    /// The command with this number, if there is one.
    pub fn from_raw(raw: u16) -> Option<Self> {
        let index = usize::from(raw).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Position in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize - 1
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn bytes<const N: usize>(data: &[u8], offset: usize) -> [u8; N] {
    data.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

/// A field of `data`, zero if it lies past the end; callers have checked the
/// length.
pub(super) fn u16_at(data: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes(bytes(data, offset))
}

pub(super) fn u32_at(data: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes(data, offset))
}

pub(super) fn u64_at(data: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes(data, offset))
}

/// What a header's type bits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageType {
    Command,
    Reply,
    Unknown,
}

/// The header before every message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) command: u16,
    /// Header and payload.
    pub(crate) size: usize,
    pub(crate) flags: u32,
}

impl Header {
    const TYPE: u32 = 0xf;
    const NO_REPLY: u32 = 1 << 4;
    const ERROR: u32 = 1 << 5;
    const REPLY: u32 = 1;

    /// Reads a header.
    ///
    /// # Errors
    /// A size that cannot be right, after which the stream has no known
    /// message boundary any more.
    pub(crate) fn parse(data: &[u8; HEADER_LEN]) -> Result<Self, Disconnect> {
        let size = u32_at(data, 4);
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if length < HEADER_LEN {
            return Err(Disconnect::Undersized(size));
        }
        if length > MAX_MESSAGE {
            return Err(Disconnect::Oversized(size));
        }
        Ok(Self { id: u16_at(data, 0), command: u16_at(data, 2), size: length, flags: u32_at(data, 8) })
    }

    /// A message of a client's that wants no answer, header included.
    pub(super) fn message(command: Command, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
        let mut out = vec![0; HEADER_LEN];
        out[2..4].copy_from_slice(&(command as u16).to_ne_bytes());
        out[4..8].copy_from_slice(&size.to_ne_bytes());
        out[8..12].copy_from_slice(&Self::NO_REPLY.to_ne_bytes());
        out.extend(payload);
        out
    }

    pub(crate) fn message_type(&self) -> MessageType {
        match self.flags & Self::TYPE {
            0 => MessageType::Command,
            Self::REPLY => MessageType::Reply,
            _ => MessageType::Unknown,
        }
    }

    /// Whether the flags are those of a command: no unknown bit, no error.
    pub(crate) fn is_clean_command(&self) -> bool {
        self.flags & !Self::NO_REPLY == 0
    }

    pub(crate) fn wants_reply(&self) -> bool {
        self.flags & Self::NO_REPLY == 0
    }

    /// The header of the reply to this message. `errno` 0 means success.
    /// `size` includes the header and is at most [`MAX_MESSAGE`].
    pub(crate) fn reply(&self, size: usize, errno: i32) -> [u8; HEADER_LEN] {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let flags = if errno == 0 { Self::REPLY } else { Self::REPLY | Self::ERROR };
        let mut out = [0; HEADER_LEN];
        out[0..2].copy_from_slice(&self.id.to_ne_bytes());
        out[2..4].copy_from_slice(&self.command.to_ne_bytes());
        out[4..8].copy_from_slice(&size.to_ne_bytes());
        out[8..12].copy_from_slice(&flags.to_ne_bytes());
        out[12..16].copy_from_slice(&errno.to_ne_bytes());
        out
    }
}
