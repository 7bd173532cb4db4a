//! Datagram sockets as a wire, one frame a datagram: the port of another process of ours,
//! of QEMU (`-netdev dgram`), or of another machine.
//!
//! A Unix socket knows whether its peer is there, and its link follows. Of a UDP peer nothing
//! is known; its link is always up.

use std::fmt::Debug;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::offload::Offload;
use super::{Driver, Inlet, LONGEST, Link, Outlet, TICK, Wire};

/// Frames taken in before anything else is looked at.
const BURST: usize = 64;

/// Where both ends are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ends {
    /// Paths of Unix sockets: ours, which is created, and the peer's.
    Unix(PathBuf, PathBuf),
    /// UDP: ours, and the peer's.
    Udp(SocketAddr, SocketAddr),
}

/// A socket that has one peer.
trait Socket: Debug + AsFd + Send + Sync {
    fn send(&self, frame: &[u8]) -> io::Result<usize>;
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// Whether the peer is there.
    fn find(&self) -> bool;
}

#[derive(Debug)]
struct Unix {
    socket: UnixDatagram,
    local: PathBuf,
    peer: PathBuf,
}

impl AsFd for Unix {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Socket for Unix {
    fn send(&self, frame: &[u8]) -> io::Result<usize> {
        self.socket.send(frame)
    }

    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buf)
    }

    fn find(&self) -> bool {
        self.socket.connect(&self.peer).is_ok()
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.local);
    }
}

impl Socket for UdpSocket {
    fn send(&self, frame: &[u8]) -> io::Result<usize> {
        UdpSocket::send(self, frame)
    }

    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        UdpSocket::recv(self, buf)
    }

    fn find(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Datagrams {
    socket: Box<dyn Socket>,
    link: Arc<Link>,
}

/// Opens our end. The peer's need not be there yet.
///
/// # Errors
/// The address is in use, or none of this machine's.
pub fn open_datagram(ends: &Ends) -> io::Result<Wire> {
    let (name, socket): (String, Box<dyn Socket>) = match ends {
        Ends::Unix(local, peer) => {
            forget_stale(local)?;
            let socket = UnixDatagram::bind(local)?;
            socket.set_nonblocking(true)?;
            let name = format!("unix:{},{}", local.display(), peer.display());
            (name, Box::new(Unix { socket, local: local.clone(), peer: peer.clone() }))
        }
        Ends::Udp(local, peer) => {
            let socket = UdpSocket::bind(local)?;
            socket.connect(peer)?;
            socket.set_nonblocking(true)?;
            (format!("udp:{local},{peer}"), Box::new(socket))
        }
    };
    let link = Arc::new(Link::new(name));
    let both = Arc::new(Datagrams { socket, link: link.clone() });
    Ok(Wire { outlet: both.clone(), driver: Box::new(Receiver(both)), link })
}

/// Removes a socket's name that a dead process left.
fn forget_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match UnixDatagram::unbound()?.connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            _ => Ok(()), // then it is in use, which `bind` says
        },
        _ => Ok(()),
    }
}

impl Outlet for Datagrams {
    fn send(&self, _: Offload, frame: &[u8]) -> bool {
        let sent = self.socket.send(frame).is_ok();
        if sent { &self.link.tx } else { &self.link.lost }.fetch_add(1, Relaxed);
        sent
    }
}

struct Receiver(Arc<Datagrams>);

impl Driver for Receiver {
    fn run(self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) {
        let Datagrams { socket, link } = &*self.0;
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        let mut buf = vec![0; LONGEST];
        let mut looked: Option<std::time::Instant> = None;
        while !done() {
            if looked.is_none_or(|at| at.elapsed() >= TICK) {
                looked = Some(std::time::Instant::now());
                let there = socket.find();
                if if there { link.set_up() } else { link.is_up() && link.set_down("the peer has gone") } {
                    inlet.link_changed();
                }
            }
            let fd = socket.as_fd();
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&tick)), Ok(n) if n > 0) {
                continue;
            }
            for _ in 0..BURST {
                // Errors are of frames sent before: the peer was not there.
                let Ok(n) = socket.recv(&mut buf) else { break };
                link.rx.fetch_add(1, Relaxed);
                inlet.receive(&mut buf[..n], Offload::default());
            }
            inlet.flush();
        }
    }
}
