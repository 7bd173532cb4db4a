//! Why a request was refused, and why a connection ended.

use std::io;
use std::path::PathBuf;

use super::protocol::{Command, MAX_MESSAGE};
use crate::unix_socket::SocketError;

/// A request that was refused. The client gets [`Reject::errno`]; the
/// connection goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reject {
    /// The header's flags are not those of a command or a reply.
    #[error("header flags {0:#x} are not those of a command")]
    HeaderFlags(u32),
    /// The payload has the wrong length.
    #[error("{command}: payload of {got} bytes, expected {expected}")]
    PayloadSize {
        /// The command.
        command: Command,
        /// Bytes after the header.
        got: usize,
        /// Bytes there should be, or the least there should be.
        expected: usize,
    },
    /// `argsz` leaves no room for the fixed part of the structure.
    #[error("{command}: argsz {got} is below {least}")]
    ArgSize {
        /// The command.
        command: Command,
        /// The field's value.
        got: u32,
        /// Its least value.
        least: u32,
    },
    /// A command came before `VERSION`.
    #[error("{0} before VERSION")]
    NotNegotiated(Command),
    /// `VERSION` came twice.
    #[error("VERSION after the handshake")]
    AlreadyNegotiated,
    /// The major version differs from ours; the connection ends.
    #[error("protocol version {major}.{minor}, we speak major 0")]
    VersionMajor {
        /// Proposed major version.
        major: u16,
        /// Proposed minor version.
        minor: u16,
    },
    /// The capability string is no string.
    #[error("VERSION data: {0}")]
    VersionData(&'static str),
    /// The capability string is no JSON of the right shape.
    #[error("VERSION data: {0}")]
    VersionJson(#[from] serde_json::Error),
    /// Descriptors came with a message that carries none, or too many or too
    /// few with one that does.
    #[error("{command}: {got} file descriptors, expected {expected}")]
    FdCount {
        /// The command.
        command: Command,
        /// How many came.
        got: usize,
        /// The most or the exact number that fits.
        expected: usize,
    },
    /// No such command.
    #[error("unknown command {0}")]
    UnknownCommand(u16),
    /// A command that exists and that we do not offer.
    #[error("{0} is not supported")]
    Unsupported(Command),
    /// No such region.
    #[error("region {0} does not exist")]
    RegionIndex(u32),
    /// An access reaches past the end of its region.
    #[error("region {region}: {count} bytes at {offset:#x} exceed its {size:#x} bytes")]
    RegionRange {
        /// Region index.
        region: u32,
        /// Offset within the region, in bytes.
        offset: u64,
        /// Length in bytes.
        count: u32,
        /// The region's size in bytes.
        size: u64,
    },
    /// More data than negotiated.
    #[error("transfer of {0} bytes exceeds the limit")]
    TransferSize(u64),
    /// The count of a combined write disagrees with its length.
    #[error("WRITE_MULTI: {count} writes in {got} bytes")]
    MultiCount {
        /// Announced number of writes.
        count: u64,
        /// Bytes after the count.
        got: usize,
    },
    /// Address, size, offset or flags of a DMA range make no sense.
    #[error("DMA range {address:#x}+{size:#x}: {why}")]
    DmaRange {
        /// I/O virtual address.
        address: u64,
        /// Size in bytes.
        size: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The range overlaps one that is mapped.
    #[error("DMA range {address:#x}+{size:#x} overlaps a mapped one")]
    DmaOverlap {
        /// I/O virtual address.
        address: u64,
        /// Size in bytes.
        size: u64,
    },
    /// More ranges or files than we keep.
    #[error("too many DMA {0}")]
    DmaLimit(&'static str),
    /// The range to unmap is not mapped.
    #[error("DMA range {address:#x}+{size:#x} is not mapped")]
    DmaUnknown {
        /// I/O virtual address.
        address: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The descriptor cannot serve as guest memory.
    #[error("guest memory: {0}")]
    DmaBacking(&'static str),
    /// The descriptor could not be examined or mapped.
    #[error("guest memory: {what}: {source}")]
    DmaMapping {
        /// The step that failed.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// No such interrupt type.
    #[error("interrupt index {0} does not exist")]
    IrqIndex(u32),
    /// The range reaches past the type's interrupts.
    #[error("interrupt index {index}: {start}+{count} exceeds its {max} interrupts")]
    IrqRange {
        /// Interrupt type.
        index: u32,
        /// First interrupt.
        start: u32,
        /// Number of interrupts.
        count: u32,
        /// Interrupts of that type.
        max: u32,
    },
    /// The flags do not name one kind of data and one action.
    #[error("SET_IRQS flags {0:#x}")]
    IrqFlags(u32),
    /// An action that this interrupt type does not have.
    #[error("SET_IRQS flags {flags:#x} are not supported on interrupt index {index}")]
    IrqAction {
        /// Interrupt type.
        index: u32,
        /// The request's flags.
        flags: u32,
    },
    /// A descriptor for an interrupt is no eventfd.
    #[error("interrupt descriptor: {0}")]
    IrqFd(&'static str),
}

/// The kinds of [`Reject`], for counting and for logging each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum RejectKind {
    /// Flags, payload or argsz of a message are wrong.
    Malformed,
    /// Out of order with the handshake.
    Sequence,
    /// The handshake itself.
    Version,
    /// Wrong number of descriptors.
    FdCount,
    /// Unknown command.
    UnknownCommand,
    /// Known, not offered.
    Unsupported,
    /// Bad region index or range.
    Region,
    /// Longer than negotiated.
    TransferSize,
    /// A DMA range that makes no sense, overlaps or is not mapped.
    DmaRange,
    /// Too many ranges or files.
    DmaLimit,
    /// The descriptor cannot be guest memory.
    DmaBacking,
    /// Bad interrupt index, range or flags.
    Irq,
    /// A descriptor that is no eventfd.
    IrqFd,
}

impl RejectKind {
    /// Every kind, in counter order.
    pub const ALL: [RejectKind; 13] = [
        Self::Malformed,
        Self::Sequence,
        Self::Version,
        Self::FdCount,
        Self::UnknownCommand,
        Self::Unsupported,
        Self::Region,
        Self::TransferSize,
        Self::DmaRange,
        Self::DmaLimit,
        Self::DmaBacking,
        Self::Irq,
        Self::IrqFd,
    ];

    /// Position in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        usize::from(self as u8)
    }
}

impl Reject {
    /// The errno that the client is told.
    pub fn errno(&self) -> i32 {
        match self {
            Self::UnknownCommand(_) | Self::Unsupported(_) | Self::VersionMajor { .. } | Self::IrqAction { .. } => {
                libc::ENOTSUP
            }
            Self::NotNegotiated(_) | Self::AlreadyNegotiated => libc::EPROTO,
            Self::TransferSize(_) => libc::E2BIG,
            Self::DmaOverlap { .. } => libc::EEXIST,
            Self::DmaLimit(_) => libc::ENOSPC,
            Self::DmaUnknown { .. } => libc::ENOENT,
            Self::DmaBacking(_) => libc::EACCES,
            Self::DmaMapping { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Self::IrqFd(_) => libc::EBADF,
            _ => libc::EINVAL,
        }
    }

    /// What it is counted as.
    pub fn kind(&self) -> RejectKind {
        match self {
            Self::HeaderFlags(_) | Self::PayloadSize { .. } | Self::ArgSize { .. } | Self::MultiCount { .. } => {
                RejectKind::Malformed
            }
            Self::NotNegotiated(_) | Self::AlreadyNegotiated => RejectKind::Sequence,
            Self::VersionMajor { .. } | Self::VersionData(_) | Self::VersionJson(_) => RejectKind::Version,
            Self::FdCount { .. } => RejectKind::FdCount,
            Self::UnknownCommand(_) => RejectKind::UnknownCommand,
            Self::Unsupported(_) => RejectKind::Unsupported,
            Self::RegionIndex(_) | Self::RegionRange { .. } => RejectKind::Region,
            Self::TransferSize(_) => RejectKind::TransferSize,
            Self::DmaRange { .. } | Self::DmaOverlap { .. } | Self::DmaUnknown { .. } => RejectKind::DmaRange,
            Self::DmaLimit(_) => RejectKind::DmaLimit,
            Self::DmaBacking(_) | Self::DmaMapping { .. } => RejectKind::DmaBacking,
            Self::IrqIndex(_) | Self::IrqRange { .. } | Self::IrqFlags(_) | Self::IrqAction { .. } => RejectKind::Irq,
            Self::IrqFd(_) => RejectKind::IrqFd,
        }
    }
}

/// Why a connection was ended by us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The announced size does not hold the header itself.
    #[error("message size {0} is below its header")]
    Undersized(u32),
    /// The announced size is more than any message of ours.
    #[error("message size {0} exceeds {MAX_MESSAGE}")]
    Oversized(u32),
    /// More descriptors are waiting for their message than one can carry.
    #[error("{0} file descriptors pending")]
    PendingFds(usize),
    /// Descriptors were lost: this process has too many open.
    #[error("file descriptors were lost on receipt; raise the open file limit")]
    LostFds,
    /// No common protocol version.
    #[error("no common protocol version")]
    Version,
    /// The client did not finish the handshake in time.
    #[error("no handshake in time")]
    HandshakeTimeout,
    /// The socket failed, or the client does not read its replies.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

/// Why a server could not be set up or went down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another process serves this path.
    #[error("{0} is in use: another process listens there")]
    InUse(PathBuf),
    /// Something other than a socket has that name; it is left alone.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The socket could not be created.
    #[error("cannot listen on {path}: {source}")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Waiting for a client failed.
    #[error("cannot accept: {0}")]
    Accept(io::Error),
}

impl From<SocketError> for ServerError {
    fn from(e: SocketError) -> Self {
        match e {
            SocketError::InUse(path) => ServerError::InUse(path),
            SocketError::NotASocket(path) => ServerError::NotASocket(path),
            SocketError::Bind { path, source } => ServerError::Bind { path, source },
        }
    }
}
