//! A vfio-user client that can say anything, right or wrong.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use sfnic_emulator::vfio_user::Command;

pub(crate) const NO_REPLY: u32 = 0x10;

/// Capabilities as QEMU 11 sends them.
pub(crate) const QEMU_CAPABILITIES: &[u8] = b"{\"capabilities\": {\"max_msg_fds\": 8, \
    \"max_data_xfer_size\": 1048576, \"pgsizes\": 4096, \"max_dma_maps\": 65535, \
    \"write_multiple\": true}}\0";

/// A message's bytes.
pub(crate) fn message(id: u16, command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    raw_message(id, command, 16 + payload.len() as u32, flags, payload)
}

/// A message whose header says `size`.
pub(crate) fn raw_message(id: u16, command: u16, size: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut m = Vec::with_capacity(16 + payload.len());
    m.extend(id.to_ne_bytes());
    m.extend(command.to_ne_bytes());
    m.extend(size.to_ne_bytes());
    m.extend(flags.to_ne_bytes());
    m.extend(0u32.to_ne_bytes());
    m.extend(payload);
    m
}

/// A payload of 32-bit fields.
pub(crate) fn words(fields: &[u32]) -> Vec<u8> {
    fields.iter().flat_map(|f| f.to_ne_bytes()).collect()
}

pub(crate) fn version(major: u16, minor: u16, data: &[u8]) -> Vec<u8> {
    [&major.to_ne_bytes()[..], &minor.to_ne_bytes()[..], data].concat()
}

pub(crate) fn dma_map(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut p = words(&[32, flags]);
    for field in [offset, address, size] {
        p.extend(field.to_ne_bytes());
    }
    p
}

pub(crate) fn dma_unmap(flags: u32, address: u64, size: u64) -> Vec<u8> {
    let mut p = words(&[24, flags]);
    p.extend(address.to_ne_bytes());
    p.extend(size.to_ne_bytes());
    p
}

pub(crate) fn region_info(argsz: u32, index: u32) -> Vec<u8> {
    words(&[argsz, 0, index, 0, 0, 0, 0, 0])
}

pub(crate) fn region(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    let mut p = offset.to_ne_bytes().to_vec();
    p.extend(words(&[region, count]));
    p.extend(data);
    p
}

pub(crate) fn set_irqs(flags: u32, index: u32, start: u32, count: u32, data: &[u8]) -> Vec<u8> {
    let mut p = words(&[20 + data.len() as u32, flags, index, start, count]);
    p.extend(data);
    p
}

pub(crate) fn multi(count: u64, entries: &[(u64, u32, u32, [u8; 8])]) -> Vec<u8> {
    let mut p = count.to_ne_bytes().to_vec();
    for (offset, index, size, data) in entries {
        p.extend(region(*offset, *index, *size, data));
    }
    p
}

pub(crate) struct Reply {
    pub(crate) id: u16,
    pub(crate) command: u16,
    pub(crate) errno: i32,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    next_id: u16,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("server listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        Self { stream, next_id: 100 }
    }

    /// Connects and shakes hands as QEMU does.
    pub(crate) fn attach(path: &Path) -> Self {
        let mut client = Self::connect(path);
        let reply = client.request(Command::Version, &version(0, 0, QEMU_CAPABILITIES));
        let reply = reply.expect("version");
        assert_eq!(reply[..4], [0, 0, 0, 0]);
        client
    }

    /// Sends bytes with descriptors in one `sendmsg`; false if the server has
    /// hung up.
    pub(crate) fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut rest = bytes;
        let mut fds = fds;
        while !rest.is_empty() {
            let mut control = SendAncillaryBuffer::new(&mut room);
            if !fds.is_empty() {
                assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
            }
            let iov = [IoSlice::new(rest)];
            match rustix::net::sendmsg(&self.stream, &iov, &mut control, SendFlags::NOSIGNAL) {
                Ok(n) => rest = &rest[n..],
                Err(_) => return false,
            }
            fds = &[];
        }
        true
    }

    pub(crate) fn send(&self, command: u16, flags: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send_raw(&message(self.next_id, command, flags, payload), fds)
    }

    /// Receives one reply; none if the server has hung up.
    pub(crate) fn receive(&self) -> Option<Reply> {
        let mut head = [0; 16];
        let mut fds = Vec::new();
        self.fill(&mut head, &mut fds)?;
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four"));
        let half = |at: usize| u16::from_ne_bytes(head[at..at + 2].try_into().expect("two"));
        let flags = word(8);
        assert_eq!(flags & 0x1f, 1, "a reply");
        let errno = word(12) as i32;
        assert_eq!(flags & 0x20 != 0, errno != 0);
        let size = word(4) as usize;
        assert!((16..=16 + 16 + (1 << 20)).contains(&size));
        assert!(errno == 0 || size == 16, "an error has no payload");
        let mut payload = vec![0; size - 16];
        if !payload.is_empty() {
            self.fill(&mut payload, &mut fds)?;
        }
        Some(Reply { id: half(0), command: half(2), errno, payload, fds })
    }

    fn fill(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> Option<()> {
        let mut at = 0;
        while at < buf.len() {
            let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut control = RecvAncillaryBuffer::new(&mut room);
            let mut iov = [IoSliceMut::new(&mut buf[at..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.stream, &mut iov, &mut control, flags) {
                Ok(received) if received.bytes > 0 => at += received.bytes,
                Ok(_) | Err(rustix::io::Errno::CONNRESET) => return None,
                Err(e) => panic!("no reply: {e}"),
            }
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
        }
        Some(())
    }

    /// Sends a command and returns its reply's payload or errno.
    pub(crate) fn request(&mut self, command: Command, payload: &[u8]) -> Result<Vec<u8>, i32> {
        self.request_with(command as u16, payload, &[]).map(|reply| reply.payload)
    }

    pub(crate) fn request_with(&mut self, command: u16, payload: &[u8], fds: &[&OwnedFd]) -> Result<Reply, i32> {
        self.next_id = self.next_id.wrapping_add(1);
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        assert!(self.send(command, 0, payload, &fds), "server hung up");
        let reply = self.receive().expect("server hung up");
        assert_eq!((reply.id, reply.command), (self.next_id, command));
        if reply.errno == 0 { Ok(reply) } else { Err(reply.errno) }
    }

    /// Reads a region.
    pub(crate) fn read(&mut self, index: u32, offset: u64, count: u32) -> Result<Vec<u8>, i32> {
        let reply = self.request(Command::RegionRead, &region(offset, index, count, &[]))?;
        assert_eq!(reply[..16], region(offset, index, count, &[]));
        Ok(reply[16..].to_vec())
    }

    /// Writes a region without wanting a reply, as QEMU does for BARs.
    pub(crate) fn post(&self, index: u32, offset: u64, data: &[u8]) {
        let payload = region(offset, index, data.len() as u32, data);
        assert!(self.send(Command::RegionWrite as u16, NO_REPLY, &payload, &[]));
    }

    /// Waits until the server hangs up, and asserts that it says nothing
    /// more.
    pub(crate) fn expect_hangup(&self) {
        assert!(self.receive().is_none(), "a reply instead of a hang-up");
    }
}
