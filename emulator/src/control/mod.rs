//! The control plane of a running device: HTTP and JSON on a Unix socket, and the client
//! that `sfnic ctl` is.
//!
//! Every device of this user has a socket of its own in one directory, so that a client
//! finds a device by its handle (`pci/0000:06:00.0`) without being told where it listens.
//! [`OPENAPI`] says what can be asked; [`dashboard`] is a page that asks it.

pub mod client;
pub mod dashboard;
pub mod place;
mod routes;
pub mod server;
mod snapshot;
mod stream;
mod wires;

use std::sync::Arc;

use sfnic_device_model::Nic;
use sfnic_device_model::world::Waker;
use tokio::sync::watch;

pub use routes::ROUTES;

use crate::board::Board;
use crate::capture::Captures;
use crate::handover::Giver;
use crate::offers::Offers;
use crate::wire::Link;
use crate::wire::switch::Switch;

/// The name of a device where none is configured: what the RFC's examples call it.
pub const DEFAULT_HANDLE: &str = "pci/0000:06:00.0";

/// The environment variable with the token of a control port on TCP.
pub const TOKEN_VARIABLE: &str = "SFNIC_TOKEN";

/// What can be asked of a device and what it answers (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

/// What the control plane works on.
#[derive(Debug, Clone)]
pub struct Target {
    /// The device.
    pub nic: Arc<Nic>,
    /// Its name to users. A server cannot know which address the guest gives it.
    pub handle: Arc<str>,
    /// The wires that leave it, with the ports that they are at.
    pub wires: Arc<[(usize, Arc<Link>)]>,
    /// The sockets of slices of other machines.
    pub offers: Arc<Offers>,
    /// Switches that its ports are at.
    pub switches: Arc<[Arc<Switch>]>,
    /// Frames that are written to files.
    pub captures: Arc<Captures>,
    /// Threads that move frames.
    pub workers: usize,
    /// What can be handed over to another process.
    pub giver: Option<Arc<Giver>>,
    /// Changes with every event.
    news: watch::Receiver<()>,
    /// Changes with every command that is listened to.
    said: watch::Receiver<()>,
}

/// Tells readers that there is something.
struct News(watch::Sender<()>);

impl Waker for News {
    fn wake(&self) {
        self.0.send_replace(());
    }
}

impl Target {
    /// A device under its name.
    pub fn new(nic: Arc<Nic>, handle: &str) -> Target {
        let (happens, news) = watch::channel(());
        nic.events.wake(Arc::new(News(happens)));
        let (says, said) = watch::channel(());
        nic.commands.wake(Arc::new(News(says)));
        let captures = Arc::new(Captures::new(&nic));
        let (wires, switches) = (Arc::new([]), Arc::new([]));
        let offers = Arc::default();
        let handle = handle.into();
        Target { nic, handle, wires, offers, switches, captures, workers: 0, giver: None, news, said }
    }

    /// The device of a board.
    pub fn of(board: &Board, handle: &str, workers: usize) -> Target {
        let target = Target::new(board.nic.clone(), handle).with(board.wires.as_slice().into(), workers);
        let (switches, giver) = (board.switches.as_slice().into(), Some(board.giver.clone()));
        Target { offers: board.offers.clone(), switches, captures: board.captures.clone(), giver, ..target }
    }

    /// With what the board has around it.
    pub fn with(self, wires: Arc<[(usize, Arc<Link>)]>, workers: usize) -> Target {
        Target { wires, workers, ..self }
    }
}
