//! The socket: bind, accept, receive, reply.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tracing::{debug, info, warn};

use super::connection::{Connection, Options, Received, ReplySink};
use super::counters::{CounterSnapshot, Counters};
use super::device::PciDevice;
use super::error::{Disconnect, ServerError};
use super::hold::{Held, Hold};
use crate::unix_socket::Listening;

/// A client must have finished its handshake after this long; one that only
/// holds the socket must not keep others out.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A client that does not read its replies for this long is dropped.
const SEND_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no descriptors left), so as not to spin.
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Most descriptors the kernel delivers at a time (`SCM_MAX_FD`). Room for
/// all of them means that a cut list is always a lack of descriptors here.
const SCM_MAX_FD: usize = 253;

/// Stops servers from another thread; clones act on the same servers.
#[derive(Clone)]
pub struct StopHandle {
    inner: Arc<StopState>,
}

struct StopState {
    stopped: AtomicBool,
    /// Becomes readable when stopped, and stays so.
    event: OwnedFd,
    next_id: AtomicU64,
    /// Connections being served, to be shut down.
    streams: Mutex<HashMap<u64, UnixStream>>,
    hold: Hold,
}

impl StopHandle {
    /// A handle that has not been used.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            inner: Arc::new(StopState {
                stopped: AtomicBool::new(false),
                event,
                next_id: AtomicU64::new(0),
                streams: Mutex::new(HashMap::new()),
                hold: Hold::default(),
            }),
        })
    }

    /// Ends every [`Server::serve`] that was given this handle, soon: the
    /// message being handled is finished, its client is disconnected.
    pub fn stop(&self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
        // Can only fail if it was written 2^64 times.
        let _ = rustix::io::write(&self.inner.event, &1u64.to_ne_bytes());
        self.inner.hold.release();
        for stream in self.inner.streams.lock().values() {
            // Fails if the client is already gone, which is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.inner.stopped.load(Ordering::SeqCst)
    }

    /// Holds every client's thread between two messages, until [`Self::release`]; `wake` sends
    /// a signal to all of them. None where one of them takes too long.
    pub fn hold(&self, wake: impl Fn()) -> Option<Vec<Held>> {
        let count = self.inner.streams.lock().len();
        self.inner.hold.collect(count, wake)
    }

    /// Lets clients that are held go on.
    pub fn release(&self) {
        self.inner.hold.release();
    }

    /// Makes [`Self::stop`] shut a connection down until the guard is gone.
    fn watch(&self, stream: &UnixStream) -> io::Result<Watch<'_>> {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        self.inner.streams.lock().insert(id, stream.try_clone()?);
        if self.is_stopped() {
            stream.shutdown(Shutdown::Both)?;
        }
        Ok(Watch { stop: self, id })
    }
}

struct Watch<'a> {
    stop: &'a StopHandle,
    id: u64,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.stop.inner.streams.lock().remove(&self.id);
    }
}

/// A client that another process had.
pub struct Taken {
    /// Its stream.
    pub stream: UnixStream,
    /// What it was told there.
    pub connection: Connection,
    /// The beginning of a message that was not complete yet, and its descriptors.
    pub rest: Vec<u8>,
    /// These.
    pub rest_fds: Vec<OwnedFd>,
}

/// A listening socket for one device.
///
/// One client is served at a time. Another one that connects meanwhile waits
/// in the socket's backlog and is served when the first has gone: a new QEMU
/// may be started before the end of the old one has been noticed here.
pub struct Server {
    socket: Listening,
    options: Options,
    counters: ArcSwap<Counters>,
    clients: AtomicU64,
}

impl Server {
    /// Listens on `path` with default [`Options`].
    ///
    /// # Errors
    /// As [`Self::bind_with`].
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, ServerError> {
        Self::bind_with(path, Options::default())
    }

    /// Listens on `path`. A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// [`ServerError`] if somebody listens there, if the name belongs to
    /// something else, or if the socket cannot be created.
    pub fn bind_with(path: impl AsRef<Path>, options: Options) -> Result<Self, ServerError> {
        let socket = Listening::bind(path.as_ref())?;
        Ok(Self { socket, options, counters: ArcSwap::default(), clients: AtomicU64::new(0) })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Counters of the client being served, or of the last one.
    pub fn counters(&self) -> CounterSnapshot {
        self.counters.load().snapshot()
    }

    /// Connections accepted so far.
    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }

    /// Serves one client after the other until `stop`. Blocks; nothing a
    /// client does ends it.
    ///
    /// # Errors
    /// The listening socket failed.
    pub fn serve(&self, device: Arc<dyn PciDevice>, stop: &StopHandle) -> Result<(), ServerError> {
        self.serve_on(device, stop, None)
    }

    /// As [`Self::serve`]; the first client is one that another process had.
    ///
    /// # Errors
    /// The listening socket failed.
    pub fn serve_on(
        &self,
        device: Arc<dyn PciDevice>,
        stop: &StopHandle,
        mut taken: Option<Taken>,
    ) -> Result<(), ServerError> {
        loop {
            let first = taken.take();
            let (stream, first) = match first {
                Some(Taken { stream, connection, rest, rest_fds }) => (stream, Some((connection, rest, rest_fds))),
                None => match self.accept(stop)? {
                    Some(stream) => (stream, None),
                    None => break,
                },
            };
            self.clients.fetch_add(1, Ordering::Relaxed);
            let path = self.socket.path().display();
            match self.serve_client(&stream, device.clone(), stop, first) {
                Ok(()) => info!(%path, "connection closed"),
                Err(_) if stop.is_stopped() => info!(%path, "connection closed by us"),
                Err(reason) => warn!(%path, "connection dropped: {reason}"),
            }
        }
        Ok(())
    }

    /// The next client, or none if stopped.
    fn accept(&self, stop: &StopHandle) -> Result<Option<UnixStream>, ServerError> {
        let mut complained = false;
        while !stop.is_stopped() {
            stop.inner.hold.wait();
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&stop.inner.event, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(ServerError::Accept(e.into())),
            }
            match self.socket.accept() {
                Ok(stream) => return Ok(Some(stream)),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(e) => {
                    // Out of descriptors or memory: the client waits.
                    if !complained {
                        warn!("cannot accept, trying again: {e}");
                        complained = true;
                    }
                    let mut fds = [PollFd::new(&stop.inner.event, PollFlags::IN)];
                    let _ = poll(&mut fds, Some(&ACCEPT_PAUSE));
                }
            }
        }
        Ok(None)
    }

    fn serve_client(
        &self,
        stream: &UnixStream,
        device: Arc<dyn PciDevice>,
        stop: &StopHandle,
        first: Option<(Connection, Vec<u8>, Vec<OwnedFd>)>,
    ) -> Result<(), Disconnect> {
        let _watch = stop.watch(stream)?;
        stream.set_write_timeout(Some(SEND_TIME))?;
        stream.set_read_timeout(Some(HANDSHAKE_TIME))?;
        let deadline = Instant::now() + HANDSHAKE_TIME;
        let peer = peer_pid(stream);
        debug!(path = %self.socket.path().display(), ?peer, "client connected");
        let mut sink = StreamSink { stream };
        let mut connection = match first {
            Some((mut connection, rest, fds)) => {
                connection.feed(&rest, fds, &mut sink)?;
                connection
            }
            None => {
                let counters = Arc::new(Counters::default());
                self.counters.store(counters.clone());
                Connection::new(device, &self.options, peer, counters)
            }
        };
        let mut greeted = connection.attached();
        if greeted {
            stream.set_read_timeout(None)?;
        }
        loop {
            match connection.receive(&mut sink, |space| receive(stream, space, &stop.inner.hold)) {
                Ok(Received::End) => return Ok(()),
                Ok(Received::Messages(_)) => {}
                Err(Disconnect::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {
                    stop.inner.hold.park(self.socket.path(), stream.try_clone(), connection.parts());
                }
                Err(Disconnect::Io(e)) if !greeted && e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Disconnect::HandshakeTimeout);
                }
                Err(e) => return Err(e),
            }
            if !greeted {
                greeted = connection.attached();
                if greeted {
                    stream.set_read_timeout(None)?;
                } else if Instant::now() > deadline {
                    return Err(Disconnect::HandshakeTimeout);
                }
            }
        }
    }
}

/// Receives what there is, waiting for the first byte; interrupted where the connection is to
/// be held.
fn receive(stream: &UnixStream, space: &mut [u8], hold: &Hold) -> Result<(usize, Vec<OwnedFd>), Disconnect> {
    let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let received = loop {
        if hold.is_wanted() {
            return Err(Disconnect::Io(io::ErrorKind::Interrupted.into()));
        }
        let mut iov = [IoSliceMut::new(&mut *space)];
        match rustix::net::recvmsg(stream, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok((0, Vec::new())),
            Err(e) => return Err(Disconnect::Io(e.into())),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Disconnect::LostFds);
    }
    Ok((received.bytes, fds))
}

/// Sends replies to a socket.
struct StreamSink<'a> {
    stream: &'a UnixStream,
}

impl ReplySink for StreamSink<'_> {
    fn send(&mut self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut fd = fd;
        let mut rest = message;
        while !rest.is_empty() {
            let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut room);
            let fds = fd.map(|fd| [fd]);
            if let Some(fds) = &fds {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            let iov = [IoSlice::new(rest)];
            match rustix::net::sendmsg(self.stream, &iov, &mut control, SendFlags::NOSIGNAL) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    fd = None;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// The process that connected, if it can be seen from here: a process of
/// another PID namespace shows as 0.
#[allow(unsafe_code)]
pub(crate) fn peer_pid(stream: &UnixStream) -> Option<u32> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open as `stream` is borrowed, and `cred` and
    // `len` are valid for writes of the size that `len` gives.
    let result = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut len,
        )
    };
    (result == 0).then_some(cred.pid).and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0)
}
