//! One client as a state machine: bytes and descriptors in, replies out.
//!
//! Knows no socket, so a test, a fuzzer or a simulation can drive it; the
//! [`server`](super::server) does so with a socket.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::counters::Counters;
use super::device::PciDevice;
use super::error::Disconnect;
use super::rx::RxBuffer;
use super::session::Session;

/// What an operator may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Take guest memory whose file could shrink (`memory-backend-file`). A
    /// client that shrinks it kills this process.
    pub allow_unsealed: bool,
}

/// Where replies go.
pub trait ReplySink {
    /// Sends one whole message, with a descriptor if there is one.
    ///
    /// # Errors
    /// Any error ends the connection.
    fn send(&mut self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()>;
}

/// What [`Connection::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many complete messages, which have been handled.
    Messages(usize),
    /// The end of the stream.
    End,
}

/// A client as another process may go on with it.
#[derive(Debug)]
pub struct Parts {
    /// The messages that bring a new connection where this one is, with a descriptor each.
    pub told: Vec<(Vec<u8>, Option<OwnedFd>)>,
    /// The beginning of a message that is not complete yet.
    pub rest: Vec<u8>,
    /// The descriptors that came with it.
    pub rest_fds: Vec<OwnedFd>,
}

/// Who gets no replies.
struct Nobody;

impl ReplySink for Nobody {
    fn send(&mut self, _: &[u8], _: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Ok(())
    }
}

/// One client, from its first byte on. Dropping it detaches the client from
/// the device.
pub struct Connection {
    rx: RxBuffer,
    session: Session,
}

impl Connection {
    /// A client that has not sent anything.
    ///
    /// `peer` is its process id if known; see [`DmaMap`](super::DmaMap) and
    /// the notes on memory that is not shared. `counters` start at zero.
    pub fn new(device: Arc<dyn PciDevice>, options: &Options, peer: Option<u32>, counters: Arc<Counters>) -> Self {
        Self { rx: RxBuffer::new(), session: Session::new(device, options, peer, counters) }
    }

    /// Whether the handshake is done.
    pub fn attached(&self) -> bool {
        self.session.attached()
    }

    /// All that another process has to know to go on with this client.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub(super) fn parts(&self) -> io::Result<Parts> {
        let duplicate = |(message, file): (Vec<u8>, Option<Arc<File>>)| -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
            Ok((message, file.map(|f| f.try_clone()).transpose()?.map(OwnedFd::from)))
        };
        let told = self.session.told().into_iter().map(duplicate).collect::<io::Result<_>>()?;
        let (rest, fds) = self.rx.rest();
        let fds = fds.into_iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(Parts { told, rest: rest.to_vec(), rest_fds: fds })
    }

    /// Hears what another process was told by this client, who is not answered again.
    ///
    /// # Errors
    /// Something of it is refused.
    pub fn hear(&mut self, told: Vec<(Vec<u8>, Option<OwnedFd>)>) -> Result<(), Disconnect> {
        for (message, fd) in told {
            self.feed(&message, fd.into_iter().collect(), &mut Nobody)?;
        }
        Ok(())
    }

    /// Receives once, then handles every message that is complete, answers
    /// each at once, and finally gives the device its
    /// [`idle`](PciDevice::idle) call.
    ///
    /// `recv` fills the buffer it is given (never empty) from its start and
    /// returns how many bytes it wrote, zero for the end of the stream, and
    /// the descriptors that came with them. They are taken to belong to the
    /// message that the last of these bytes is in.
    ///
    /// # Errors
    /// What ends the connection; the caller drops it.
    pub fn receive(
        &mut self,
        sink: &mut dyn ReplySink,
        recv: impl FnOnce(&mut [u8]) -> Result<(usize, Vec<OwnedFd>), Disconnect>,
    ) -> Result<Received, Disconnect> {
        let (count, fds) = recv(self.rx.space())?;
        if count == 0 {
            return Ok(Received::End);
        }
        self.rx.commit(count, fds)?;
        let mut handled = 0;
        while let Some(mut message) = self.rx.next()? {
            let fds = std::mem::take(&mut message.fds);
            self.session.handle(&message.header, self.rx.payload(&message), fds, sink)?;
            handled += 1;
        }
        if handled > 0 {
            self.session.idle();
        }
        Ok(Received::Messages(handled))
    }

    /// Receives all of `bytes`, with `fds` on the last of them, in as many
    /// steps as it takes. Returns how many messages were handled.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn feed(&mut self, bytes: &[u8], fds: Vec<OwnedFd>, sink: &mut dyn ReplySink) -> Result<usize, Disconnect> {
        let mut rest = bytes;
        let mut fds = Some(fds);
        let mut handled = 0;
        while !rest.is_empty() {
            let received = self.receive(sink, |space| {
                let (chunk, tail) = rest.split_at(rest.len().min(space.len()));
                space[..chunk.len()].copy_from_slice(chunk);
                rest = tail;
                let fds = if tail.is_empty() { fds.take() } else { None };
                Ok((chunk.len(), fds.unwrap_or_default()))
            })?;
            match received {
                Received::Messages(n) => handled += n,
                Received::End => break,
            }
        }
        Ok(handled)
    }
}
