//! Messages of vhost-user: a header of 12 bytes and a payload, with descriptors beside it.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use smallvec::SmallVec;

/// Most descriptors beside a message: regions of memory.
pub(super) const MAX_FDS: usize = 8;
/// Longest payload that we take: a table of [`MAX_FDS`] regions has 264 bytes.
const MAX_PAYLOAD: usize = 512;
const HEADER: usize = 12;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Requests that we take.
pub(crate) mod request {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const RESET_OWNER: u32 = 4;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const SET_VRING_ERR: u32 = 14;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const NET_SET_MTU: u32 = 20;
    pub(crate) const RESET_DEVICE: u32 = 34;
}

/// A message of the front end.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: u32,
    pub(super) needs_reply: bool,
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoMessage {
    #[error("the front end has gone")]
    Left,
    #[error("a message: {0}")]
    Wrong(String),
    #[error("the socket: {0}")]
    Io(#[from] io::Error),
}

/// Takes the next message, which has begun to come. All of it has to be here within
/// `patience`.
pub(super) fn receive(stream: &UnixStream, patience: Duration) -> Result<Message, NoMessage> {
    let until = Instant::now() + patience;
    let mut header = [0; HEADER];
    let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let got = loop {
        match recvmsg(stream, &mut [IoSliceMut::new(&mut header)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Err(NoMessage::Left),
            other => break other.map_err(io::Error::from)?,
        }
    };
    let mut fds = vec![];
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(NoMessage::Wrong(format!("more than {MAX_FDS} descriptors")));
    }
    if got.bytes == 0 {
        return Err(NoMessage::Left);
    }
    read(stream, &mut header[got.bytes..], until)?;
    let [request, flags, size] = words(&header);
    if flags & VERSION_MASK != VERSION || flags & REPLY != 0 {
        return Err(NoMessage::Wrong(format!("request {request} with flags {flags:#x}")));
    }
    if size as usize > MAX_PAYLOAD {
        return Err(NoMessage::Wrong(format!("request {request} with {size} bytes (allowed: {MAX_PAYLOAD})")));
    }
    let mut payload = vec![0; size as usize];
    read(stream, &mut payload, until)?;
    Ok(Message { request, needs_reply: flags & NEED_REPLY != 0, payload, fds })
}

/// Reads all of some bytes. Descriptors beside them are closed: they belong to a message's
/// first byte.
fn read(mut stream: &UnixStream, mut bytes: &mut [u8], until: Instant) -> Result<(), NoMessage> {
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoMessage::Wrong("its rest does not come".to_owned()));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(bytes) {
            Ok(0) => return Err(NoMessage::Wrong("it ends in the middle".to_owned())),
            Ok(n) => bytes = &mut bytes[n..],
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(NoMessage::Left),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Answers a request.
pub(super) fn reply(mut stream: &UnixStream, request: u32, payload: &[u8]) -> io::Result<()> {
    let mut message: SmallVec<[u8; 32]> = SmallVec::new();
    for word in [request, VERSION | REPLY, payload.len() as u32] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.extend_from_slice(payload);
    stream.write_all(&message)
}

/// The first 32-bit words of some bytes; what is not there is zero.
pub(super) fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|i| {
        bytes.get(4 * i..4 * i + 4).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
    })
}

/// The first 64-bit words of some bytes; what is not there is zero.
pub(super) fn quads<const N: usize>(bytes: &[u8]) -> [u64; N] {
    std::array::from_fn(|i| {
        bytes.get(8 * i..8 * i + 8).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b))
    })
}
