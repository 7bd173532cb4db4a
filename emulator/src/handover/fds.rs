//! Bytes and descriptors over a stream.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Descriptors of one message; the kernel takes 253.
const AT_ONCE: usize = 128;
/// Longest part.
const LONGEST: u64 = 4 << 30;

/// Sends bytes behind their number.
pub(super) fn send_part(mut to: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(bytes)
}

/// Receives what [`send_part`] sent.
pub(super) fn receive_part(mut from: &UnixStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 8];
    from.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![];
    if from.take(len).read_to_end(&mut bytes)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Sends descriptors, some at a time, each time with a byte.
pub(super) fn send_fds(to: &UnixStream, fds: &[OwnedFd]) -> io::Result<()> {
    for some in fds.chunks(AT_ONCE) {
        let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !control.push(SendAncillaryMessage::ScmRights(&some)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            match sendmsg(to, &[IoSlice::new(b"f")], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                done => break done.map(drop)?,
            }
        }
    }
    Ok(())
}

/// Receives so many descriptors.
pub(super) fn receive_fds(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut fds = vec![];
    while fds.len() < count {
        let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut byte = [0];
        let got = match recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        let before = fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 || fds.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_descriptors_and_bytes_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let files: Vec<tempfile::NamedTempFile> = (0..300).map(|_| tempfile::NamedTempFile::new().unwrap()).collect();
        for (n, mut file) in files.iter().enumerate() {
            file.write_all(&(n as u32).to_le_bytes()).unwrap();
        }
        let fds: Vec<OwnedFd> = files.iter().map(|f| f.reopen().unwrap().into()).collect();
        std::thread::scope(|s| {
            s.spawn(|| {
                send_part(&a, b"hello").unwrap();
                send_fds(&a, &fds).unwrap();
                send_part(&a, &[7; 100_000]).unwrap();
            });
            assert_eq!(receive_part(&b).unwrap(), b"hello");
            for (n, fd) in receive_fds(&b, 300).unwrap().into_iter().enumerate() {
                let mut text = vec![];
                std::fs::File::from(fd).read_to_end(&mut text).unwrap();
                assert_eq!(text, (n as u32).to_le_bytes());
            }
            assert_eq!(receive_part(&b).unwrap(), [7; 100_000]);
        });
        drop(a);
        assert!(receive_fds(&b, 1).is_err() && receive_part(&b).is_err());
    }
}
