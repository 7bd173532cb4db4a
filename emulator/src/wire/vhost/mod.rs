//! A vhost-user socket as a wire: the far end of a port is the virtio network device of a
//! virtual machine, or whoever else speaks the front end's part.
//!
//! Facts are from QEMU's `docs/interop/vhost-user.rst` and from the Virtual I/O Device
//! specification, version 1.2, section 5.1 (network device). Messages are taken apart in
//! `message`; what they mean is in `session`, the rings are in `ring`, and `driver` waits
//! for clients, messages and kicks. The crate `vhost` is the front end in the tests only: its
//! other side refuses QEMU, which enables rings before it sets features.
//!
//! | thread | does |
//! |---|---|
//! | the wire's | messages, frames from the guest, frames that waited for buffers |
//! | any | frames to the guest, under the lock of their queue |
//!
//! # Trust
//! Nothing that the front end sends is believed. Its memory is mapped only where it cannot
//! shrink under us, descriptors are looked at before use, each address is looked up, and
//! walks end within a ring's size. A client that breaks the rules is disconnected, with the
//! reason in the log and in the wire's counters; its port's link goes down, and the next
//! client starts anew.
//!
//! # Not implemented, and why
//! * The control queue: the front end keeps it (QEMU does) and tells us of queue pairs by
//!   enabling and disabling their rings. Addresses need no filter: a wire takes everything.
//! * Telling the guest of a link that went down: the protocol has no message for it that
//!   QEMU's network device takes. QEMU tells its guest when the socket closes; so that is
//!   what happens when the port's link is taken down, and the socket is offered again when
//!   it is up.
//! * Packed rings, in-flight records, dirty logging for migration.

mod driver;
pub(crate) mod inline;
pub(crate) mod message;
mod ring;
mod session;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use sfnic_device_model::dma::{Memory, Near};
use sfnic_device_model::packet::Frame;
use smallvec::SmallVec;
use vm_memory::VolatileSlice;

use super::offload::{HEADER, Offload};
use super::{Link, Outlet, Pieces, Wire};
use crate::unix_socket::{Listening, SocketError};
use crate::vfio_user::irq::EventFd;
use driver::Driver;
use ring::{Fault, Ring};

/// Most queue pairs.
pub(crate) const MAX_PAIRS: usize = 8;
/// Bytes of a header with the number of buffers.
const HEADER_1: usize = HEADER + 2;
/// Most pieces of guest memory that a frame is put into: its sender, who is somebody else,
/// does not work longer for a guest with tiny buffers.
const MAX_PIECES: usize = 4096;
/// After so many frames the guest sees them, though the burst goes on.
const SHOWN: u16 = 32;
/// Most frames that wait for buffers, in each queue.
const MAX_WAITING: usize = 1000;
/// Most bytes of them.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// Where the two ends meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meeting {
    /// We listen; the front end connects.
    Server(PathBuf),
    /// The front end listens; we connect, again and again.
    Client(PathBuf),
}

/// Opens a vhost-user socket. A client need not be there yet.
///
/// # Errors
/// The socket cannot be listened on.
pub fn open_vhost(meeting: Meeting) -> Result<Wire, OpenError> {
    let (name, listening) = match &meeting {
        Meeting::Server(path) => (format!("vhost-user:{}", path.display()), Some(Listening::bind(path)?)),
        Meeting::Client(path) => (format!("vhost-user:{},client", path.display()), None),
    };
    let guest = Guest::new(name)?;
    let driver = Box::new(Driver::new(meeting, listening, guest.clone()));
    Ok(Wire { link: guest.link.clone(), outlet: guest, driver })
}

/// Why a vhost-user wire cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No descriptor is left.
    #[error("no file descriptor is left: {0}")]
    Descriptor(#[from] std::io::Error),
}

impl From<rustix::io::Errno> for OpenError {
    fn from(e: rustix::io::Errno) -> Self {
        OpenError::Descriptor(e.into())
    }
}

impl Meeting {
    fn path(&self) -> &Path {
        match self {
            Meeting::Server(path) | Meeting::Client(path) => path,
        }
    }
}

/// What the packet path knows of the guest.
#[derive(Debug)]
struct Guest {
    link: Arc<Link>,
    queues: [Mutex<Queue>; MAX_PAIRS],
    /// Queues that take frames: the first so many.
    live: AtomicUsize,
    /// Whether the guest takes large frames: of IPv4, of IPv6.
    joins: [AtomicBool; 2],
    /// Wakes the driver.
    attention: EventFd,
    /// What the packet path found wrong with a ring.
    fault: Mutex<Option<Fault>>,
}

/// A queue of frames to the guest.
#[derive(Debug, Default)]
struct Queue {
    rings: Option<Running>,
    /// Frames that wait for buffers, behind their headers.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
}

/// A ring at work.
#[derive(Debug)]
struct Running {
    ring: Ring,
    mem: Arc<Memory>,
    call: Option<Arc<EventFd>>,
    /// Bytes of the header before each frame.
    header: usize,
    /// Whether a frame may lie in several buffers.
    mergeable: bool,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Done,
    NoBuffer,
    /// It will never fit.
    TooLong,
}

/// A frame, wherever its bytes are.
#[derive(Clone, Copy)]
enum Bytes<'a, 'm> {
    Plain(&'a [u8]),
    Frame(&'a Frame<'m>),
}

impl Bytes<'_, '_> {
    fn len(&self) -> usize {
        match self {
            Bytes::Plain(bytes) => bytes.len(),
            Bytes::Frame(frame) => frame.len(),
        }
    }
}

impl Running {
    /// Tells the guest of what was given back, if it wants to know.
    fn tell(&mut self) -> Result<(), Fault> {
        if self.ring.tells()?
            && let Some(call) = &self.call
        {
            call.signal();
        }
        Ok(())
    }

    /// Puts a frame into the guest's buffers.
    #[inline]
    fn put(&mut self, head: [u8; HEADER], frame: Bytes<'_, '_>) -> Result<Put, Fault> {
        let need = self.header + frame.len();
        let mut first = [0; HEADER_1];
        first[..HEADER].copy_from_slice(&head);
        if self.ring.has_more_than(0)?
            && let Some((chain, buffer)) = self.ring.single(&self.mem, need)
        {
            // Mostly so: all of it is in one buffer.
            first[HEADER] = 1;
            buffer.copy_from(&first[..self.header]);
            if let Ok(rest) = buffer.offset(self.header) {
                match frame {
                    Bytes::Plain(bytes) => rest.copy_from(bytes),
                    Bytes::Frame(frame) => {
                        frame.scatter(0, [rest]);
                    }
                }
            }
            self.ring.be_quiet()?;
            self.give_back(&[(chain, need as u32)])?;
            return Ok(Put::Done);
        }
        let mut pieces = Pieces::new();
        let near = Near::new(&self.mem);
        let mut chains: SmallVec<[(u16, u32); 8]> = SmallVec::new();
        let mut room = 0;
        while room < need {
            let n = chains.len() as u16;
            if n > 0 && !self.mergeable {
                return Ok(Put::TooLong);
            }
            if !self.ring.has_more_than(n)? && !self.ring.ask(n)? {
                return Ok(Put::NoBuffer);
            }
            let before = pieces.len();
            let chain = self.ring.chain(&near, n, true, &mut pieces)?;
            let size = pieces.iter().skip(before).fold(0usize, |sum, p| sum.saturating_add(p.len()));
            if pieces.len() > MAX_PIECES {
                return Err(Fault::Loop(MAX_PIECES));
            }
            chains.push((chain, size.min(need - room) as u32));
            room = room.saturating_add(size);
        }
        self.ring.be_quiet()?;
        first[HEADER..].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        let first = &first[..self.header];
        match frame {
            Bytes::Plain(bytes) => scatter(&pieces, &[first, bytes]),
            Bytes::Frame(frame) => {
                scatter(&pieces, &[first]);
                frame.scatter(0, behind(&pieces, first.len()));
            }
        }
        drop(pieces);
        self.give_back(&chains)?;
        Ok(Put::Done)
    }

    /// Gives buffers back, which the guest sees after a while at the latest.
    #[inline]
    fn give_back(&mut self, chains: &[(u16, u32)]) -> Result<(), Fault> {
        self.ring.give_back(chains)?;
        if self.ring.unpublished() >= SHOWN { self.ring.publish() } else { Ok(()) }
    }
}

/// What is behind the first bytes of pieces.
fn behind<'m>(pieces: &[VolatileSlice<'m, ()>], mut skip: usize) -> impl Iterator<Item = VolatileSlice<'m, ()>> {
    pieces.iter().filter_map(move |piece| {
        let n = skip.min(piece.len());
        skip -= n;
        piece.offset(n).ok().filter(|rest| !rest.is_empty())
    })
}

/// Copies parts one after the other into pieces one after the other.
fn scatter(pieces: &[VolatileSlice<'_, ()>], parts: &[&[u8]]) {
    let mut pieces = pieces.iter();
    let mut room = pieces.next().copied();
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let Some(piece) = room else { return };
            let n = piece.len().min(rest.len());
            if let Ok(to) = piece.subslice(0, n) {
                to.copy_from(&rest[..n]);
            }
            rest = &rest[n..];
            room = match piece.offset(n) {
                Ok(left) if !left.is_empty() => Some(left),
                _ => pieces.next().copied(),
            };
        }
    }
}

impl Queue {
    /// Takes a frame. Behind others that wait it waits too.
    #[inline]
    fn take(&mut self, link: &Link, offload: Offload, frame: Bytes<'_, '_>) -> Result<bool, Fault> {
        let Some(running) = &mut self.rings else { return Ok(false) };
        let head = offload.to_bytes();
        if self.waiting.is_empty() {
            match running.put(head, frame)? {
                Put::Done => {
                    link.tx.fetch_add(1, Relaxed);
                    return Ok(true);
                }
                Put::TooLong => return Ok(false),
                Put::NoBuffer => {}
            }
        }
        Ok(self.hold(head, frame))
    }

    /// Keeps a frame until there are buffers; false where too many wait.
    #[cold]
    fn hold(&mut self, head: [u8; HEADER], frame: Bytes<'_, '_>) -> bool {
        let size = HEADER + frame.len();
        if self.waiting.len() >= MAX_WAITING || self.waiting_bytes + size > MAX_WAITING_BYTES {
            return false;
        }
        let mut held = vec![0; size];
        held[..HEADER].copy_from_slice(&head);
        match frame {
            Bytes::Plain(bytes) => held[HEADER..].copy_from_slice(bytes),
            Bytes::Frame(frame) => {
                frame.write_into(&mut held[HEADER..]);
            }
        }
        self.waiting.push_back(held);
        self.waiting_bytes += size;
        true
    }

    /// The guest has new buffers.
    fn resume(&mut self, link: &Link) -> Result<(), Fault> {
        let Some(running) = &mut self.rings else { return Ok(()) };
        while let Some(held) = self.waiting.front() {
            let Some((head, frame)) = held.split_first_chunk::<HEADER>() else { break };
            match running.put(*head, Bytes::Plain(frame))? {
                Put::Done => link.tx.fetch_add(1, Relaxed),
                Put::TooLong => link.lost.fetch_add(1, Relaxed),
                Put::NoBuffer => break,
            };
            self.waiting_bytes = self.waiting_bytes.saturating_sub(held.len());
            self.waiting.pop_front();
        }
        running.tell()
    }

    /// The ring stops; what waited is lost. The ring's position, if it ran.
    fn stop(&mut self, link: &Link) -> Option<u16> {
        link.lost.fetch_add(self.waiting.len() as u64, Relaxed);
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.rings.take().map(|r| r.ring.base())
    }
}

impl Guest {
    /// A guest that is not there yet.
    fn new(name: String) -> Result<Arc<Self>, OpenError> {
        let attention = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            link: Arc::new(Link::new(name)),
            queues: Default::default(),
            live: AtomicUsize::new(0),
            joins: [AtomicBool::new(false), AtomicBool::new(false)],
            attention: EventFd::new(attention).map_err(std::io::Error::other)?,
            fault: Mutex::new(None),
        }))
    }

    /// A ring is not as it should be: the driver ends the session.
    fn give_up(&self, queue: &mut Queue, fault: Fault) {
        queue.stop(&self.link);
        *self.fault.lock() = Some(fault);
        self.attention.signal();
    }

    /// Has a frame taken by the queue of its flow.
    #[inline]
    fn take(&self, offload: Offload, headers: &[u8], frame: Bytes<'_, '_>) -> bool {
        let pairs = self.live.load(Relaxed);
        let index = if pairs > 1 { flow(headers) as usize % pairs } else { 0 };
        let Some(queue) = self.queues.get(index) else { return false };
        let mut queue = queue.lock();
        let taken = queue.take(&self.link, offload, frame).unwrap_or_else(|fault| {
            self.give_up(&mut queue, fault);
            false
        });
        if !taken {
            self.link.lost.fetch_add(1, Relaxed);
        }
        taken
    }
}

impl Outlet for Guest {
    fn send(&self, offload: Offload, frame: &[u8]) -> bool {
        self.take(offload, frame, Bytes::Plain(frame))
    }

    fn send_frame(&self, frame: &Frame<'_>) -> Option<bool> {
        Some(self.take(Offload::default(), frame.headers(), Bytes::Frame(frame)))
    }

    fn joins(&self, ipv6: bool) -> bool {
        self.joins[usize::from(ipv6)].load(Relaxed)
    }

    fn flush(&self) {
        for queue in self.queues.iter().take(self.live.load(Relaxed)) {
            let mut queue = queue.lock();
            if let Some(Err(fault)) = queue.rings.as_mut().map(Running::tell) {
                self.give_up(&mut queue, fault);
            }
        }
    }
}

/// A number that the frames of a flow share: addresses and ports, folded.
fn flow(frame: &[u8]) -> u32 {
    const IPV4: [u8; 2] = [8, 0];
    const IPV6: [u8; 2] = [0x86, 0xdd];
    let range = match frame.get(12..14) {
        Some(kind) if kind == IPV4 => 26..38, // addresses, and ports where there are no options
        Some(kind) if kind == IPV6 => 22..58,
        _ => return 0,
    };
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = frame.get(range).unwrap_or_default().iter().fold(0x811c_9dc5, fold);
    hash ^ hash >> 16
}
