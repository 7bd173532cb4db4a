//! One process goes on where another one was, and guests notice nothing.
//!
//! QEMU's client does not connect anew to a device that is gone, but a connection is a
//! descriptor, and those can be sent. The new process asks the old one on its control socket;
//! that one holds every client between two messages and the device still, and sends over a
//! socket of the new one's: a snapshot, what each client told it (its memory and its interrupts,
//! as the messages that told of them), and all their descriptors. The new process looks whether
//! it can go on with that, and says so; the old one ends without another word to anybody. What
//! clients send meanwhile waits in their sockets. Where something is missing or refused, the old
//! process goes on as if nothing had been.
//!
//! [`give`] is the old process, [`take`] the new one, [`fds`] what passes between them.

mod fds;
pub mod give;
pub mod take;

use serde::{Deserialize, Serialize};

pub use give::Giver;
pub use take::Taken;

/// What the two processes say. Another version of it is not understood.
const VERSION: u32 = 1;
/// The new process can go on.
const GO: u8 = b'g';

/// What is sent, but the snapshot and the descriptors themselves.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    /// Bytes of the snapshot.
    snapshot: u64,
    /// Descriptors in all.
    fds: usize,
    clients: Vec<Client>,
    /// By card, where they are memory: the descriptor of its UAR pages.
    uars: Vec<Option<usize>>,
}

/// A client of a physical function.
#[derive(Debug, Serialize, Deserialize)]
struct Client {
    card: usize,
    stream: usize,
    told: Vec<(Vec<u8>, Option<usize>)>,
    rest: Vec<u8>,
    rest_fds: Vec<usize>,
}
