//! Waits for a front end, its messages and its kicks.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use smallvec::SmallVec;

use super::message::{self, NoMessage};
use super::session::Session;
use super::{Guest, MAX_PAIRS, Meeting};
use crate::unix_socket::Listening;
use crate::vfio_user::server::peer_pid;
use crate::wire::{Inlet, TICK};

/// A front end that has begun a message finishes it, and reads our answer, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a session that ended by somebody's fault, the next one waits for so long.
const PENANCE: Duration = Duration::from_millis(500);
/// A front end that says nothing for so long, with its rings running, has started.
const QUIET: Duration = Duration::from_millis(200);
/// Frames taken from one queue before the others and the messages get their turn.
const BURST: usize = 256;

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
        let mut busy = [false; MAX_PAIRS];
        let mut was_wanted = false;
        let mut heard = Instant::now();
        loop {
            if done() {
                return End::Done;
            }
            let wanted = inlet.wanted();
            // Who comes while nobody is wanted gets through its start: QEMU waits for that.
            let greeted = session.is_up() && heard.elapsed() > QUIET;
            if !wanted && (was_wanted || greeted) {
                return End::Unwanted;
            }
            was_wanted = wanted;
            let pause = inlet.pause();
            let limit = match pause {
                Some(pause) => pause.min(TICK),
                None if busy.contains(&true) => Duration::ZERO,
                None => TICK,
            };
            let (message, kicked) = self.wait(&stream, &session, limit);
            if message {
                heard = Instant::now();
                if let Err(end) = answer(&stream, &mut session) {
                    return end;
                }
            }
            for ring in kicked {
                if session.kicked(ring) {
                    busy[ring / 2] = true;
                }
            }
            for (pair, busy) in busy.iter_mut().enumerate().filter(|(_, b)| **b && pause.is_none()) {
                *busy = session.take(pair, BURST, inlet);
            }
            inlet.flush();
            let fault = session.fault().or_else(|| self.guest.fault.lock().take().map(|f| f.to_string()));
            if let Some(why) = fault {
                return End::Fault(why);
            }
            let (up, link) = (session.is_up() && was_wanted, &self.guest.link);
            if if up { link.set_up() } else { link.is_up() && link.set_down("the guest's driver stopped") } {
                inlet.link_changed();
            }
        }
    }

    /// Waits for something to do: whether there is a message, and which rings were kicked.
    fn wait(&self, socket: &UnixStream, session: &Session, limit: Duration) -> (bool, SmallVec<[usize; 16]>) {
        let kicks = session.kicks();
        let mut fds: SmallVec<[PollFd<'_>; 20]> = SmallVec::new();
        fds.push(PollFd::new(socket, PollFlags::IN));
        fds.push(PollFd::new(&self.guest.attention, PollFlags::IN));
        fds.extend(kicks.iter().map(|(_, kick)| PollFd::new(*kick, PollFlags::IN)));
        if !matches!(poll(&mut fds, Some(&timespec(limit))), Ok(n) if n > 0) {
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
        let mut sent_away: Option<Process> = None;
        while !done() {
            // Another one that comes meanwhile is greeted: its QEMU would not start else.
            if sent_away.as_ref().is_some_and(Process::lives) && !inlet.wanted() {
                std::thread::sleep(TICK / 5);
                continue;
            }
            sent_away = None;
            let Some(stream) = self.meet() else { continue };
            let peer = Process::of(&stream);
            let end = self.serve(stream, inlet, done);
            let link = &self.guest.link;
            let changed = match &end {
                End::Done => link.set_down("the program ends"),
                End::Left => link.set_down("the front end has gone"),
                End::Unwanted => {
                    // QEMU would wait for an answer from a socket that it can connect to.
                    sent_away = Some(peer);
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

/// The process of a front end.
struct Process(Option<OwnedFd>);

impl Process {
    fn of(stream: &UnixStream) -> Self {
        let pid = peer_pid(stream).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Self(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()))
    }

    /// Whether it is there still, for all that is known.
    fn lives(&self) -> bool {
        let Some(fd) = &self.0 else { return true };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        !matches!(poll(&mut fds, Some(&timespec(Duration::ZERO))), Ok(n) if n > 0)
    }
}

/// Takes a message and does what it says.
fn answer(stream: &UnixStream, session: &mut Session) -> Result<(), End> {
    let message = message::receive(stream, PATIENCE).map_err(|e| match e {
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
