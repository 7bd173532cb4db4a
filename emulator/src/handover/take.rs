//! The process that goes on.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hyper::Method;
use serde_json::json;
use sfnic_device_model::nic::CardConfig;
use sfnic_device_model::world::{Clock, Doorbells, Waker};
use sfnic_device_model::{Nic, fabric::port::Far};
use sfnic_firmware_cmds::profile::Profile;

use super::{GO, Manifest, VERSION, fds};
use crate::control::client::Client;
use crate::uar::UarFile;
use crate::vfio_user::{Connection, Counters, Options, Parts, PciDevice, Taken as TakenClient};

/// How long the other process may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// What another process had.
#[derive(Debug)]
pub struct Taken {
    /// The state of its device.
    pub snapshot: Vec<u8>,
    clients: Vec<TakenParts>,
    uars: Vec<Option<OwnedFd>>,
}

#[derive(Debug)]
struct TakenParts {
    card: usize,
    stream: UnixStream,
    parts: Parts,
}

struct NoTime;

impl Clock for NoTime {
    fn now_ns(&self) -> u64 {
        0
    }
}

impl Waker for NoTime {
    fn wake(&self) {}
}

impl Taken {
    /// Asks the process with this control socket for its device, and takes it if one of this
    /// profile and these cards can go on with it. Then that process is no more.
    ///
    /// # Errors
    /// It does not give it, or it is of another device.
    pub fn ask(control: &Path, profile: &Profile, cards: &[CardConfig], polls: bool) -> Result<Taken> {
        let dir = tempfile::tempdir().context("no place for a socket")?;
        let socket = dir.path().join("take");
        let listener = UnixListener::bind(&socket).context("no place for a socket")?;
        listener.set_nonblocking(true).context("cannot wait for it")?;
        let reply = Client::at(control).request(Method::POST, "/v1/hand-over", Some(&json!({ "socket": socket })))?;
        if let Some(why) = reply.error() {
            bail!("{}: {why}", control.display());
        }
        let stream = accept(&listener).context("the other process does not come")?;
        let taken = receive(&stream).context("the other process does not give its device")?;
        taken.check(profile, cards, polls)?;
        (&stream).write_all(&[GO]).context("the other process has gone back on it")?;
        // It ends; what it had of sockets and interfaces is free then.
        let _ = (&stream).read(&mut [0]);
        Ok(taken)
    }

    /// Whether a device of this configuration can be what the other one was.
    fn check(&self, profile: &Profile, cards: &[CardConfig], polls: bool) -> Result<()> {
        ensure!(
            self.uars.len() == cards.len(),
            "it has {} physical functions, here are {}",
            self.uars.len(),
            cards.len()
        );
        let mut alike = vec![];
        for (card, uar) in cards.iter().zip(&self.uars) {
            ensure!(uar.is_some() == polls, "its doorbells come in another way (doorbells = trap or poll)");
            let pages = uar.as_ref().map(|fd| UarFile::taken(fd.try_clone()?, card)).transpose()?;
            let doorbells = pages.map(|p| Arc::new(p) as Arc<dyn Doorbells>);
            alike.push(CardConfig { far: Far::None, doorbells, ..card.clone() });
        }
        let nic = Nic::new(profile.clone(), alike, Arc::new(NoTime), Arc::new(NoTime));
        nic.load(&self.snapshot).context("cannot go on from there")?;
        // Functions and the eswitch refer to one another until then.
        nic.cards.iter().for_each(|card| nic.reset(card));
        Ok(())
    }

    /// The UAR pages of a card that guests have mapped.
    pub(crate) fn uar(&self, card: usize, config: &CardConfig) -> Result<Option<UarFile>> {
        let fd = self.uars.get(card).and_then(Option::as_ref);
        fd.map(|fd| UarFile::taken(fd.try_clone()?, config)).transpose()
    }

    /// The client of a card, of which the device has been told.
    pub(crate) fn client(&self, card: usize, device: Arc<dyn PciDevice>) -> Result<Option<TakenClient>> {
        let Some(c) = self.clients.iter().find(|c| c.card == card) else { return Ok(None) };
        let stream = c.stream.try_clone().context("no more file descriptors")?;
        let peer = crate::vfio_user::server::peer_pid(&stream);
        let mut connection = Connection::new(device, &Options::default(), peer, Arc::new(Counters::default()));
        let copy = |fd: &OwnedFd| fd.try_clone();
        let told: io::Result<Vec<_>> =
            c.parts.told.iter().map(|(m, fd)| Ok((m.clone(), fd.as_ref().map(copy).transpose()?))).collect();
        connection.hear(told.context("no more file descriptors")?).context("what the client told is refused")?;
        let rest_fds: io::Result<Vec<_>> = c.parts.rest_fds.iter().map(copy).collect();
        let rest_fds = rest_fds.context("no more file descriptors")?;
        Ok(Some(TakenClient { stream, connection, rest: c.parts.rest.clone(), rest_fds }))
    }
}

fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e),
        }
    }
}

fn receive(stream: &UnixStream) -> Result<Taken> {
    let manifest: serde_json::Value = serde_json::from_slice(&fds::receive_part(stream)?)?;
    if let Some(why) = manifest["refused"].as_str() {
        bail!("{why}");
    }
    let manifest: Manifest = serde_json::from_value(manifest)?;
    ensure!(manifest.version == VERSION, "it is of another version of sfnic");
    let snapshot = fds::receive_part(stream)?;
    ensure!(snapshot.len() as u64 == manifest.snapshot, "its snapshot");
    let mut all: Vec<Option<OwnedFd>> = fds::receive_fds(stream, manifest.fds)?.into_iter().map(Some).collect();
    let mut fd = |n: usize| all.get_mut(n).and_then(Option::take).context("a descriptor is missing");
    let mut clients = vec![];
    for c in manifest.clients {
        let stream = UnixStream::from(fd(c.stream)?);
        let mut told = vec![];
        for (message, n) in c.told {
            told.push((message, n.map(&mut fd).transpose()?));
        }
        let rest_fds = c.rest_fds.into_iter().map(&mut fd).collect::<Result<_>>()?;
        clients.push(TakenParts { card: c.card, stream, parts: Parts { told, rest: c.rest, rest_fds } });
    }
    let uars = manifest.uars.into_iter().map(|n| n.map(&mut fd).transpose()).collect::<Result<_>>()?;
    Ok(Taken { snapshot, clients, uars })
}
