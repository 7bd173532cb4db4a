//! The host's half: a network of its own, and a peer for the guest's transfers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where the peer listens, as `guest.py` knows.
const PORT: u16 = 5201;
/// How long the other end may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look for a new connection; nothing measured waits for it.
const TICK: Duration = Duration::from_millis(10);
/// Most bytes that a guest may ask to be sent at once.
const MAX_SIZE: usize = 16 << 20;

/// Runs `work` on a thread in a network namespace that nothing else is in. What it
/// starts, threads and processes, is in there too. The kernel removes the namespace and
/// all of its interfaces with the last of them, however they end.
pub(crate) fn in_private_network<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let inside = move || {
        leave_network()?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[allow(unsafe_code)]
fn leave_network() -> Result<()> {
    // SAFETY: takes no pointers; a new network namespace for the calling thread leaves
    // its memory and its descriptors as they are.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        return Ok(());
    }
    let e = io::Error::last_os_error();
    if e.kind() == io::ErrorKind::PermissionDenied {
        bail!("needs root: CAP_SYS_ADMIN for a network of its own, CAP_NET_ADMIN for the interfaces in it");
    }
    Err(e).context("cannot make a network namespace")
}

/// Serves transfers on one address until dropped.
#[derive(Debug)]
pub(super) struct Peer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Listens on an address of an interface.
    pub(super) fn start(name: &'static str, address: Ipv4Addr, quiet: bool) -> Result<Peer> {
        let listener =
            TcpListener::bind((address, PORT)).with_context(|| format!("cannot listen on {address}:{PORT}"))?;
        listener.set_nonblocking(true).context("cannot prepare a socket")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => serve(name, stream, quiet),
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("peer-{name}")).spawn(serve);
        Ok(Peer { stop, thread: Some(thread.context("cannot start a thread")?) })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(name: &str, stream: TcpStream, quiet: bool) {
    let from = stream.peer_addr().ok();
    match transfer(stream) {
        Ok((direction, bytes, time)) if !quiet => {
            let rate = bytes as f64 * 8.0 / 1e6 / time.as_secs_f64();
            eprintln!("sfnic: {name}: the guest {direction} {rate:.0} Mbit/s");
        }
        Ok(_) => {}
        Err(e) => tracing::warn!("transfer with {}: {e}", from.map(|a: SocketAddr| a.to_string()).unwrap_or_default()),
    }
}

/// One transfer: `s` or `r`, milliseconds, bytes a call; then the data; then bytes and
/// nanoseconds, by our clock.
fn transfer(mut stream: TcpStream) -> io::Result<(&'static str, u64, Duration)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [direction, a, b, c, d, size @ ..] = head;
    let length = Duration::from_millis(u32::from_be_bytes([a, b, c, d]).into());
    let size = (u32::from_be_bytes(size) as usize).clamp(1, MAX_SIZE);
    let started = Instant::now();
    let (word, bytes) = match direction {
        b's' => ("sends", drain(&mut stream)?),
        _ => ("receives", fill(&mut stream, length, size)?),
    };
    let time = started.elapsed();
    stream.write_all(&bytes.to_be_bytes())?;
    stream.write_all(&(time.as_nanos() as u64).to_be_bytes())?;
    Ok((word, bytes, time))
}

/// Reads to the end.
fn drain(stream: &mut TcpStream) -> io::Result<u64> {
    let mut buf = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

/// Writes zeros for a time and a one at the end, and returns how much the other end says it has.
fn fill(stream: &mut TcpStream, length: Duration, size: usize) -> io::Result<u64> {
    let data = vec![0; size];
    let started = Instant::now();
    while started.elapsed() < length {
        stream.write_all(&data)?;
    }
    stream.write_all(&[1])?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    Ok(u64::from_be_bytes(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(direction: u8, millis: u32) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).unwrap();
        let mut head = vec![direction];
        head.extend(millis.to_be_bytes());
        head.extend(1000u32.to_be_bytes());
        stream.write_all(&head).unwrap();
        stream
    }

    fn answer(stream: &mut TcpStream) -> (u64, u64) {
        let mut reply = [0; 16];
        stream.read_exact(&mut reply).unwrap();
        let (a, b) = reply.split_at(8);
        (u64::from_be_bytes(a.try_into().unwrap()), u64::from_be_bytes(b.try_into().unwrap()))
    }

    #[test]
    fn transfers_are_counted_both_ways() {
        // Where the port is taken there is nothing to test.
        let Ok(peer) = Peer::start("test", Ipv4Addr::LOCALHOST, true) else { return };
        let mut stream = ask(b's', 0);
        stream.write_all(&[1; 5000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (bytes, time) = answer(&mut stream);
        assert_eq!(bytes, 5000);
        assert!(time > 0);

        let mut stream = ask(b'r', 20);
        let (mut got, mut buf) = (0, [0; 4096]);
        while let n @ 1.. = stream.read(&mut buf).unwrap() {
            got += n as u64;
            if buf[n - 1] == 1 {
                break;
            }
        }
        stream.write_all(&got.to_be_bytes()).unwrap();
        let (bytes, time) = answer(&mut stream);
        assert_eq!(bytes, got);
        assert!(bytes >= 1000 && time >= 20_000_000);
        drop(peer);
    }
}
