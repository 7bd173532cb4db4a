//! The control plane of a running device: HTTP and JSON on a Unix socket, and the client
//! that `sfnic ctl` is.
//!
//! Every device of this user has a socket of its own in one directory, so that a client
//! finds a device by its handle (`pci/0000:06:00.0`) without being told where it listens.

pub mod client;
pub mod place;
mod routes;
pub mod server;

use std::sync::Arc;

use sfnic_device_model::Nic;

/// The name of a device where none is configured: what the RFC's examples call it.
pub const DEFAULT_HANDLE: &str = "pci/0000:06:00.0";

/// What the control plane works on.
#[derive(Debug, Clone)]
pub struct Target {
    /// The device.
    pub nic: Arc<Nic>,
    /// Its name to users. A server cannot know which address the guest gives it.
    pub handle: Arc<str>,
}
