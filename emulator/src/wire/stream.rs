//! A stream socket as a wire: frames behind their lengths, as QEMU's `-netdev stream` has
//! them (4 bytes, big-endian; `net/stream_data.c`).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::offload::Offload;
use super::vhost::Meeting;
use super::{Driver, Inlet, LONGEST, Link, Outlet, TICK, Wire};
use crate::unix_socket::{Listening, SocketError};

/// Bytes of the length before a frame.
const HEADER: usize = 4;
/// Most bytes that wait for the peer to read.
const MAX_WAITING: usize = 4 << 20;
/// After a peer that spoke nonsense, the next one waits for so long.
const PENANCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Peer {
    stream: Arc<UnixStream>,
    waiting: VecDeque<u8>,
}

#[derive(Debug)]
struct Stream {
    link: Arc<Link>,
    peer: Mutex<Option<Peer>>,
}

struct Meeter {
    stream: Arc<Stream>,
    meeting: Meeting,
    listening: Option<Listening>,
}

/// Opens a stream socket. The peer need not be there yet.
///
/// # Errors
/// The socket cannot be listened on.
pub fn open_stream(meeting: Meeting) -> Result<Wire, SocketError> {
    let (name, listening) = match &meeting {
        Meeting::Server(path) => (format!("stream:{}", path.display()), Some(Listening::bind(path)?)),
        Meeting::Client(path) => (format!("stream:{},client", path.display()), None),
    };
    let link = Arc::new(Link::new(name));
    let stream = Arc::new(Stream { link: link.clone(), peer: Mutex::new(None) });
    Ok(Wire { outlet: stream.clone(), driver: Box::new(Meeter { stream, meeting, listening }), link })
}

impl Peer {
    /// Writes what the socket takes.
    fn write(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match (&*self.stream).write(self.waiting.as_slices().0) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Outlet for Stream {
    fn send(&self, _: Offload, frame: &[u8]) -> bool {
        let mut peer = self.peer.lock();
        let taken = match peer.as_mut() {
            Some(p) if p.waiting.len() + HEADER + frame.len() <= MAX_WAITING => {
                p.waiting.extend((frame.len() as u32).to_be_bytes());
                p.waiting.extend(frame);
                true
            }
            _ => false,
        };
        if taken { &self.link.tx } else { &self.link.lost }.fetch_add(1, Relaxed);
        taken
    }

    fn flush(&self) {
        // That the peer has gone the driver sees.
        if let Some(peer) = self.peer.lock().as_mut() {
            let _ = peer.write();
        }
    }
}

impl Meeter {
    fn meet(&self) -> Option<UnixStream> {
        match (&self.meeting, &self.listening) {
            (Meeting::Client(path), _) => UnixStream::connect(path).ok().or_else(|| {
                std::thread::sleep(TICK);
                None
            }),
            (_, Some(socket)) => {
                let mut fds = [PollFd::new(socket, PollFlags::IN)];
                let ready = matches!(poll(&mut fds, Some(&tick())), Ok(n) if n > 0);
                ready.then(|| socket.accept().ok()).flatten()
            }
            _ => None,
        }
    }

    /// Takes frames in until the peer leaves: why it did, if that is a fault.
    fn serve(&self, stream: &UnixStream, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) -> Result<(), String> {
        let mut buf = vec![0; HEADER + LONGEST];
        let mut have = 0;
        while !done() {
            let waits = self.stream.peer.lock().as_ref().is_some_and(|p| !p.waiting.is_empty());
            let flags = if waits { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let mut fds = [PollFd::new(stream, flags)];
            if !matches!(poll(&mut fds, Some(&tick())), Ok(n) if n > 0) {
                continue;
            }
            if fds[0].revents().contains(PollFlags::OUT) {
                self.stream.flush();
            }
            let mut reader = stream;
            match reader.read(&mut buf[have..]) {
                Ok(0) => return Ok(()),
                Ok(n) => have += n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => continue,
                Err(_) => return Ok(()),
            }
            have = self.cut(&mut buf, have, inlet)?;
        }
        Ok(())
    }

    /// Hands the whole frames in; how many bytes of the next one there are, at the start.
    fn cut(&self, buf: &mut [u8], have: usize, inlet: &mut dyn Inlet) -> Result<usize, String> {
        let mut at = 0;
        while let Some(head) = buf[at..have].first_chunk::<HEADER>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > LONGEST {
                return Err(format!("a frame of {length} bytes"));
            }
            let Some(frame) = buf[..have].get_mut(at + HEADER..at + HEADER + length) else { break };
            self.stream.link.rx.fetch_add(1, Relaxed);
            inlet.receive(frame, Offload::default());
            at += HEADER + length;
        }
        inlet.flush();
        buf.copy_within(at..have, 0);
        Ok(have - at)
    }
}

impl Driver for Meeter {
    fn run(self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) {
        let link = self.stream.link.clone();
        while !done() {
            let Some(stream) = self.meet() else { continue };
            if let Err(e) = stream.set_nonblocking(true) {
                link.fail(e);
                continue;
            }
            let stream = Arc::new(stream);
            *self.stream.peer.lock() = Some(Peer { stream: stream.clone(), waiting: VecDeque::new() });
            if link.set_up() {
                inlet.link_changed();
            }
            let end = self.serve(&stream, inlet, done);
            *self.stream.peer.lock() = None;
            drop(stream);
            let changed = match &end {
                Ok(()) => link.set_down("the peer has gone"),
                Err(why) => link.fail(format_args!("the peer is disconnected: {why}")),
            };
            if changed {
                inlet.link_changed();
            }
            if end.is_err() {
                std::thread::sleep(PENANCE);
            }
        }
    }
}

fn tick() -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() }
}
