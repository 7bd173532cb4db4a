//! The process that ends.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;
use serde_json::json;
use sfnic_device_model::Nic;
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use super::{Client, GO, Manifest, VERSION, fds};
use crate::capture::Captures;
use crate::control::place;
use crate::uar::UarFile;
use crate::vfio_user::{Held, StopHandle};

/// How long the other process may take. QEMU gives up on a device that does not answer for
/// five seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// What of a board can be handed over.
pub struct Giver {
    pub(crate) nic: Arc<Nic>,
    pub(crate) stop: StopHandle,
    pub(crate) threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    pub(crate) uars: Vec<Option<Arc<UarFile>>>,
    pub(crate) captures: Arc<Captures>,
    /// The sockets of physical functions.
    pub(crate) sockets: Mutex<Vec<PathBuf>>,
    /// One at a time.
    pub(crate) busy: Mutex<()>,
}

impl std::fmt::Debug for Giver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Giver")
    }
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Giver {
    /// Hands the device over to the process that listens on a socket, and ends this one.
    ///
    /// # Errors
    /// It cannot be handed over, or the other process does not take it. Then this one goes on.
    pub fn give(&self, to: &Path) -> Result<std::convert::Infallible> {
        let Some(_one) = self.busy.try_lock() else { bail!("it is being handed over already") };
        let stream = UnixStream::connect(to).with_context(|| format!("cannot connect to {}", to.display()))?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot wait for it")?;
        stream.set_write_timeout(Some(PATIENCE)).context("cannot wait for it")?;
        register_signal_handler(SIGRTMIN(), nothing).context("cannot wake threads")?;
        let held = self.stop.hold(|| self.wake()).context("a client's request takes too long");
        let done = held.and_then(|held| self.send(&stream, held));
        if let Err(why) = &done {
            let _ = fds::send_part(&stream, json!({ "refused": format!("{why:#}") }).to_string().as_bytes());
        }
        // Still here: nobody took it.
        self.stop.release();
        match done {
            Err(why) => Err(why),
            Ok(never) => match never {},
        }
    }

    /// Wakes the threads of physical functions.
    fn wake(&self) {
        for t in self.threads.lock().iter().filter(|t| t.thread().name().is_some_and(|n| n.starts_with("pf"))) {
            let _ = t.kill(SIGRTMIN());
        }
    }

    fn send(&self, stream: &UnixStream, held: Vec<Held>) -> Result<std::convert::Infallible> {
        for endpoint in self.nic.endpoints() {
            let index = endpoint.slice;
            ensure!(!endpoint.irq.is_connected(), "slice {index} has a guest of its own, which cannot go along");
        }
        let sockets = self.sockets.lock().clone();
        let mut all: Vec<OwnedFd> = vec![];
        let mut add = |fd: OwnedFd| {
            all.push(fd);
            all.len() - 1
        };
        let mut clients = vec![];
        for Held { socket, stream, parts } in held {
            let card = sockets.iter().position(|s| *s == socket).context("a client of nobody")?;
            let told = parts.told.into_iter().map(|(message, fd)| (message, fd.map(&mut add))).collect();
            let rest_fds = parts.rest_fds.into_iter().map(&mut add).collect();
            clients.push(Client { card, stream: add(stream.into()), told, rest: parts.rest, rest_fds });
        }
        let mut uars = vec![];
        for uar in &self.uars {
            let fd = uar.as_ref().map(|u| u.file().as_fd().try_clone_to_owned()).transpose();
            uars.push(fd.context("no more file descriptors")?.map(&mut add));
        }
        let still = self.nic.hold_still()?;
        let snapshot = self.nic.save_still(&still)?;
        let manifest = Manifest { version: VERSION, snapshot: snapshot.len() as u64, fds: all.len(), clients, uars };
        let sent = fds::send_part(stream, &serde_json::to_vec(&manifest)?)
            .and_then(|()| fds::send_part(stream, &snapshot))
            .and_then(|()| fds::send_fds(stream, &all));
        sent.context("the other process does not listen")?;
        let mut answer = [0];
        let mut from = stream;
        let got = from.read_exact(&mut answer);
        ensure!(got.is_ok() && answer[0] == GO, "the other process does not take it");
        // From here on all of it is the other one's. Nothing is taken apart: that would tell
        // clients and guests of an end.
        self.captures.stop_all();
        if let Ok(control) = place::own() {
            let _ = std::fs::remove_file(control);
        }
        eprintln!("sfnic: another process has taken over");
        std::process::exit(0)
    }
}
