//! A session without a socket and without a thread, whose front end is in this process: for
//! benchmarks.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::message::Message;
use super::session::Session;
use super::{Guest, OpenError};
use crate::wire::{Inlet, Link, Outlet};

/// A front end's session.
pub(crate) struct Inline {
    guest: Arc<Guest>,
    session: Session,
}

impl Inline {
    /// A session in which nothing was said yet.
    pub(crate) fn new() -> Result<Self, OpenError> {
        let guest = Guest::new("vhost-user:inline".to_owned())?;
        Ok(Self { session: Session::new(guest.clone(), None), guest })
    }

    /// Says something to it.
    pub(crate) fn say(&mut self, request: u32, payload: Vec<u8>, fds: Vec<OwnedFd>) -> Result<(), String> {
        self.session.follow(Message { request, needs_reply: false, payload, fds })?;
        if self.session.is_up() {
            self.guest.link.set_up();
        }
        self.session.fault().map_or(Ok(()), Err)
    }

    /// The way to the front end.
    pub(crate) fn outlet(&self) -> Arc<dyn Outlet> {
        self.guest.clone()
    }

    /// The link to it.
    pub(crate) fn link(&self) -> Arc<Link> {
        self.guest.link.clone()
    }

    /// Takes what its first pair sends; whether there may be more.
    pub(crate) fn take(&mut self, burst: usize, inlet: &mut dyn Inlet) -> Result<bool, String> {
        let more = self.session.take(0, burst, inlet);
        self.session.fault().map_or(Ok(more), Err)
    }
}
