//! Cuts the byte stream into messages and finds each message's descriptors.
//!
//! # Which message a descriptor belongs to
//! Bytes are received in bulk, so one chunk may hold many messages, and
//! descriptors that came with the chunk must be given to one of them. Linux
//! delivers the descriptors of a `sendmsg` with the first byte of its data
//! that is read, and never reads on past the data of a `sendmsg` that carried
//! descriptors (`unix_stream_read_generic`). So the *last* byte of a chunk
//! that came with descriptors is always a byte of the `sendmsg` they were
//! attached to, and a client sends one message with one `sendmsg` (QEMU sends
//! a message whole). The rule is therefore: descriptors belong to the message
//! that contains the last byte of the chunk they came with. It holds however
//! small the pieces are in which a message is sent or received.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::error::Disconnect;
use super::protocol::{HEADER_LEN, Header, MAX_MESSAGE};

/// Bytes kept for receiving; grows up to one message of the largest size
/// while such a message arrives, and shrinks when it has been handled.
const BASE_LEN: usize = 64 * 1024;
/// Most descriptors that may wait for their message to be complete: the
/// kernel's limit for one `sendmsg`, so more means a client that scatters
/// them.
const MAX_PENDING_FDS: usize = 253;

/// A complete message: its header, where its payload lies in the buffer, and
/// its descriptors.
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Range<usize>,
    pub(super) fds: Vec<OwnedFd>,
}

/// The receive buffer.
pub(super) struct RxBuffer {
    buf: Vec<u8>,
    /// First byte not yet handled.
    start: usize,
    /// One past the last byte received.
    end: usize,
    /// Position of `buf[start]` in the stream.
    position: u64,
    /// Size of the message at `start`, as far as known.
    wanted: usize,
    /// Descriptors with the stream position of the last byte of their chunk.
    fds: VecDeque<(u64, Vec<OwnedFd>)>,
    pending_fds: usize,
}

impl RxBuffer {
    pub(super) fn new() -> Self {
        Self {
            buf: vec![0; BASE_LEN],
            start: 0,
            end: 0,
            position: 0,
            wanted: HEADER_LEN,
            fds: VecDeque::new(),
            pending_fds: 0,
        }
    }

    /// Where the next bytes go; never empty after [`Self::next`] has returned
    /// `None`.
    pub(super) fn space(&mut self) -> &mut [u8] {
        debug_assert!(self.wanted <= MAX_MESSAGE);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buf.len() > BASE_LEN && self.wanted <= BASE_LEN {
                self.buf.truncate(BASE_LEN);
                self.buf.shrink_to_fit();
            }
        }
        if self.start + self.wanted > self.buf.len() {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.wanted > self.buf.len() {
                self.buf.resize(self.wanted, 0);
            }
        }
        &mut self.buf[self.end..]
    }

    /// Takes `count` bytes written to [`Self::space`], and the descriptors
    /// that came with them.
    ///
    /// # Errors
    /// [`Disconnect::PendingFds`] if descriptors pile up without their
    /// message ever being complete.
    pub(super) fn commit(&mut self, count: usize, fds: Vec<OwnedFd>) -> Result<(), Disconnect> {
        self.end = self.end.saturating_add(count).min(self.buf.len());
        if !fds.is_empty() {
            self.pending_fds += fds.len();
            if self.pending_fds > MAX_PENDING_FDS {
                return Err(Disconnect::PendingFds(self.pending_fds));
            }
            let held = (self.end - self.start) as u64;
            self.fds.push_back(((self.position + held).saturating_sub(1), fds));
        }
        Ok(())
    }

    /// The next complete message, if there is one.
    ///
    /// # Errors
    /// A header whose size cannot be right.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Disconnect> {
        let Some(head) = self.buf[self.start..self.end].first_chunk::<HEADER_LEN>() else {
            self.wanted = HEADER_LEN;
            return Ok(None);
        };
        let header = Header::parse(head)?;
        if self.end - self.start < header.size {
            self.wanted = header.size;
            return Ok(None);
        }
        let payload = self.start + HEADER_LEN..self.start + header.size;
        self.start += header.size;
        self.position += header.size as u64;
        self.wanted = HEADER_LEN;
        Ok(Some(Message { header, payload, fds: self.take_fds() }))
    }

    /// Bytes of a message's payload.
    pub(super) fn payload(&self, message: &Message) -> &[u8] {
        &self.buf[message.payload.clone()]
    }

    /// The beginning of a message that is not complete yet, and its descriptors.
    pub(super) fn rest(&self) -> (&[u8], Vec<&OwnedFd>) {
        (&self.buf[self.start..self.end], self.fds.iter().flat_map(|(_, fds)| fds).collect())
    }

    /// Bytes that the buffer occupies.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Descriptors whose position lies before the current one.
    fn take_fds(&mut self) -> Vec<OwnedFd> {
        let mut taken = Vec::new();
        while self.fds.front().is_some_and(|(at, _)| *at < self.position) {
            if let Some((_, fds)) = self.fds.pop_front() {
                self.pending_fds -= fds.len();
                taken.extend(fds);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u16, len: usize) -> Vec<u8> {
        let mut m = vec![0; len];
        m[0..2].copy_from_slice(&id.to_ne_bytes());
        m[4..8].copy_from_slice(&(len as u32).to_ne_bytes());
        m
    }

    fn put(rx: &mut RxBuffer, bytes: &[u8], fds: Vec<OwnedFd>) {
        rx.space()[..bytes.len()].copy_from_slice(bytes);
        rx.commit(bytes.len(), fds).expect("few descriptors");
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("null").into()
    }

    #[test]
    fn descriptors_go_to_the_message_with_the_last_byte_of_their_chunk() {
        let mut rx = RxBuffer::new();
        let chunk: Vec<u8> = [message(1, 20), message(2, 16), message(3, 24)].concat();
        put(&mut rx, &chunk, vec![null()]);
        put(&mut rx, &message(4, 16), vec![]);
        let counts: Vec<_> =
            std::iter::from_fn(|| rx.next().expect("valid")).map(|m| (m.header.id, m.fds.len())).collect();
        assert_eq!(counts, [(1, 0), (2, 0), (3, 1), (4, 0)]);
    }

    #[test]
    fn descriptors_wait_for_a_message_that_arrives_in_pieces() {
        let mut rx = RxBuffer::new();
        let m = message(7, 32);
        put(&mut rx, &m[..5], vec![null(), null()]);
        assert!(rx.next().expect("valid").is_none());
        put(&mut rx, &m[5..31], vec![]);
        assert!(rx.next().expect("valid").is_none());
        put(&mut rx, &m[31..], vec![null()]);
        assert_eq!(rx.next().expect("valid").expect("complete").fds.len(), 3);
    }

    #[test]
    fn buffer_grows_for_a_large_message_and_shrinks_after_it() {
        let mut rx = RxBuffer::new();
        let m = message(1, MAX_MESSAGE);
        let mut sent = 0;
        while sent < m.len() {
            assert!(rx.next().expect("valid").is_none());
            let space = rx.space();
            let n = space.len().min(m.len() - sent);
            assert!(n > 0);
            space[..n].copy_from_slice(&m[sent..sent + n]);
            rx.commit(n, vec![]).expect("no descriptors");
            sent += n;
        }
        assert!(rx.next().expect("valid").is_some());
        assert!(rx.capacity() <= MAX_MESSAGE + BASE_LEN);
        rx.space();
        assert_eq!(rx.capacity(), BASE_LEN);
    }

    #[test]
    fn scattered_descriptors_are_bounded() {
        let mut rx = RxBuffer::new();
        let m = message(1, 4096);
        let result = m[..4000].iter().try_for_each(|b| {
            rx.space()[0] = *b;
            rx.commit(1, vec![null()])?;
            rx.next().map(|_| ())
        });
        assert!(matches!(result, Err(Disconnect::PendingFds(254))));
    }
}
