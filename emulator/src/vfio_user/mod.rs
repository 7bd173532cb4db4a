//! The vfio-user server: how a PCI device of ours becomes a device of a
//! virtual machine.
//!
//! A client (QEMU's `vfio-user-pci`) connects to a Unix stream socket, shares
//! its guest memory as file descriptors, and forwards configuration and BAR
//! accesses as messages. Facts about the protocol are from QEMU's
//! `docs/interop/vfio-user.rst` and, for the structures shared with the kernel
//! interface, `linux/vfio.h`.
//!
//! | part | what it does |
//! |---|---|
//! | [`device`] | the traits between server and device |
//! | [`server`] | the socket: bind, accept, receive, reply |
//! | [`connection`] | one client as a state machine of bytes and descriptors; no socket |
//! | `session` | what each command does to the device |
//! | `rx` | cuts the byte stream into messages and gives each its descriptors |
//! | `protocol`, `payload` | layouts of messages |
//! | `version` | the capability exchange |
//! | [`dma`] | guest memory as immutable snapshots |
//! | `backing` | which descriptors may become guest memory |
//! | [`irq`] | eventfds behind interrupt vectors |
//! | [`counters`], [`error`] | what happened, and why something was refused |
//!
//! # Trust
//! Everything a client sends is checked before it is used: sizes before
//! allocation, descriptors before they are mapped, ranges before the device
//! sees them. A request that makes no sense is answered with an errno and the
//! stream goes on; the connection is dropped only if the stream itself can no
//! longer be cut into messages.
//!
//! # Not implemented, and why
//! * Migration (`DEVICE_FEATURE`, `MIG_DATA_*`): QEMU's client moves no state.
//! * `DMA_READ`/`DMA_WRITE` of our own and the twin socket: guest memory is
//!   always shared by descriptor; a read sent while a trapped access waits
//!   for its answer deadlocks QEMU until its timeout.
//! * `GET_REGION_IO_FDS`: QEMU does not ask for ioeventfds.
//! * Dirty page tracking, INTx and MSI delivery: the device uses MSI-X only.
//! * Guest memory on huge pages: segments of guest memory smaller than a huge
//!   page cannot be mapped alone. Refused with a clear line.

pub(crate) mod backing;
pub mod connection;
pub mod counters;
pub mod device;
pub mod dma;
pub mod error;
mod fuzz;
mod hold;
pub mod irq;
mod payload;
mod protocol;
mod rx;
pub mod server;
mod session;
mod version;

pub use connection::{Connection, Options, Parts, Received, ReplySink};
pub use counters::{CounterSnapshot, Counters};
pub use device::{BarMapping, Interrupts, MmapArea, PciDevice};
pub use dma::{DmaAccess, DmaError, DmaMap};
pub use error::{Disconnect, Reject, RejectKind, ServerError};
pub use fuzz::fuzz_one;
pub use hold::Held;
pub use protocol::{Command, MAX_DATA_XFER, MAX_MESSAGE, MAX_MSG_FDS};
pub use server::{Server, StopHandle, Taken};
