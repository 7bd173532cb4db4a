//! Waits for a front end, its messages and its kicks.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smallvec::SmallVec;

use super::message::{self, NoMessage};
use super::session::Session;
use super::{Guest, MAX_PAIRS, Meeting};
use crate::unix_socket::Listening;
use crate::vfio_user::server::peer_pid;
use crate::wire::{Inlet, LONGEST, TICK};

/// A front end that has begun a message finishes it, and reads our answer, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a session that ended by somebody's fault, the next one waits for so long.
const PENANCE: Duration = Duration::from_millis(500);
/// Frames taken from one queue before the others and the messages get their turn.
const BURST: usize = 64;

/// The far side of a vhost-user wire.
pub(super) struct Driver {
    meeting: Meeting,
    listening: Option<Listening>,
    guest: Arc<Guest>,
}

/// Why a session ended.
enum End {
    /// The front end closed its socket.
    Left,
    /// The port does not want a link any more.
    Unwanted,
    /// The program ends.
    Done,
    /// The front end broke the rules.
    Fault(String),
}

impl Driver {
    pub(super) fn new(meeting: Meeting, listening: Option<Listening>, guest: Arc<Guest>) -> Self {
        Self { meeting, listening, guest }
    }

    /// The next front end, if one is there soon.
    fn meet(&mut self) -> Option<UnixStream> {
        let path = self.meeting.path();
        if let Meeting::Client(path) = &self.meeting {
            return UnixStream::connect(path).ok().or_else(|| {
                std::thread::sleep(TICK);
                None
            });
        }
        if self.listening.is_none() {
            match Listening::bind(path) {
                Ok(socket) => self.listening = Some(socket),
                Err(e) => {
                    self.guest.link.fail(e);
                    std::thread::sleep(PENANCE);
                    return None;
                }
            }
        }
        let socket = self.listening.as_ref()?;
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(TICK))) {
            Ok(n) if n > 0 => socket.accept().ok(),
            _ => None,
        }
    }

    fn serve(&self, stream: UnixStream, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) -> End {
        if let Err(e) = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        {
            return End::Fault(format!("the socket: {e}"));
        }
        *self.guest.fault.lock() = None;
        let mut session = Session::new(self.guest.clone(), peer_pid(&stream));
        let mut buf = vec![0; LONGEST];
        let mut busy = [false; MAX_PAIRS];
        let mut was_wanted = inlet.wanted();
        loop {
            if done() {
                return End::Done;
            }
            match (was_wanted, inlet.wanted()) {
                (true, false) => return End::Unwanted,
                (_, now) => was_wanted = now,
            }
            let (message, kicked) = self.wait(&stream, &session, busy.contains(&true));
            if message && let Err(end) = answer(&stream, &mut session) {
                return end;
            }
            for ring in kicked {
                if session.kicked(ring) {
                    busy[ring / 2] = true;
                }
            }
            for (pair, busy) in busy.iter_mut().enumerate().filter(|(_, b)| **b) {
                let rx = &self.guest.link.rx;
                *busy = session.take(pair, &mut buf, BURST, &mut |frame, offload| {
                    rx.fetch_add(1, Relaxed);
                    inlet.receive(frame, offload);
                });
            }
            inlet.flush();
            let fault = session.fault().or_else(|| self.guest.fault.lock().take().map(|f| f.to_string()));
            if let Some(why) = fault {
                return End::Fault(why);
            }
            let (up, link) = (session.is_up(), &self.guest.link);
            if if up { link.set_up() } else { link.is_up() && link.set_down("the guest's driver stopped") } {
                inlet.link_changed();
            }
        }
    }

    /// Waits for something to do: whether there is a message, and which rings were kicked.
    fn wait(&self, socket: &UnixStream, session: &Session, busy: bool) -> (bool, SmallVec<[usize; 16]>) {
        let kicks = session.kicks();
        let mut fds: SmallVec<[PollFd<'_>; 20]> = SmallVec::new();
        fds.push(PollFd::new(socket, PollFlags::IN));
        fds.push(PollFd::new(&self.guest.attention, PollFlags::IN));
        fds.extend(kicks.iter().map(|(_, kick)| PollFd::new(*kick, PollFlags::IN)));
        let limit = timespec(if busy { Duration::ZERO } else { TICK });
        if !matches!(poll(&mut fds, Some(&limit)), Ok(n) if n > 0) {
            return (false, SmallVec::new());
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if ready(&fds[1]) {
            self.guest.attention.clear();
        }
        let kicked = kicks.iter().zip(&fds[2..]).filter(|(_, fd)| ready(fd)).map(|((ring, _), _)| *ring);
        (ready(&fds[0]), kicked.collect())
    }
}

impl crate::wire::Driver for Driver {
    fn run(mut self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) {
        let mut withdrawn = false;
        while !done() {
            if withdrawn && !inlet.wanted() {
                std::thread::sleep(TICK / 5);
                continue;
            }
            withdrawn = false;
            let Some(stream) = self.meet() else { continue };
            let end = self.serve(stream, inlet, done);
            let link = &self.guest.link;
            let changed = match &end {
                End::Done => link.set_down("the program ends"),
                End::Left => link.set_down("the front end has gone"),
                End::Unwanted => {
                    // QEMU would wait for an answer from a socket that it can connect to.
                    withdrawn = true;
                    self.listening = None;
                    link.set_down("the port is down")
                }
                End::Fault(why) => link.fail(format_args!("the front end is disconnected: {why}")),
            };
            if changed {
                inlet.link_changed();
            }
            if matches!(end, End::Fault(_)) {
                let until = Instant::now() + PENANCE;
                while Instant::now() < until && !done() {
                    std::thread::sleep(TICK / 5);
                }
            }
        }
    }
}

/// Takes a message and does what it says.
fn answer(stream: &UnixStream, session: &mut Session) -> Result<(), End> {
    let message = message::receive(stream).map_err(|e| match e {
        NoMessage::Left => End::Left,
        e => End::Fault(e.to_string()),
    })?;
    let request = message.request;
    match session.follow(message).map_err(End::Fault)? {
        Some(payload) => message::reply(stream, request, &payload).map_err(|_| End::Left),
        None => Ok(()),
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos().into() }
}
