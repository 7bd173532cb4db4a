//! Starts QEMU, listens to the guest until its job has ended, and puts the pieces together.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cmdline::{Machine, Streams};
use super::signals::Signals;
use super::streams::{KernelLog, PANIC, UntilToken, contains, panic_reason, tail};
use super::{Accel, Guest, Outcome, STATUS_FAILURE, What, accel, job, threads, tty};
use crate::kit::Kit;
use crate::process;

/// A guest that shows no sign of life within this time never will.
const BOOT_TIME: Duration = Duration::from_secs(180);
/// How long the streams may take to deliver their ends after the job's.
const FLUSH_TIME: Duration = Duration::from_secs(10);
/// How long the guest may take to power off.
const OFF_TIME: Duration = Duration::from_secs(20);
/// How long a panic may go on printing.
const PANIC_TIME: Duration = Duration::from_millis(400);
/// How often to look after QEMU's end and the clock.
const TICK: Duration = Duration::from_millis(20);

/// A stream of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Console,
    Qemu,
    Control,
    Out,
    Err,
    Kmsg,
    Tty,
}

/// Runs a guest to its end.
pub(crate) fn run(guest: &Guest, kit: &Kit) -> Result<Outcome> {
    let started = Instant::now();
    check(guest, kit)?;
    let accel = accel::choose(kit);
    if let (Accel::Tcg(why), false) = (&accel, guest.quiet) {
        eprintln!("sfnic: the guest is emulated, which is slow: {why}");
    }
    let temporary;
    let share: &Path = match &guest.share {
        Some(dir) => dir,
        None => {
            temporary = tempfile::Builder::new()
                .prefix("sfnic-host-")
                .tempdir()
                .context("cannot create a directory to share")?;
            temporary.path()
        }
    };
    let signals = Signals::catch()?;
    let token = token()?;
    let mut initrd = std::fs::read(kit.initrd()).with_context(|| format!("cannot read {}", kit.initrd().display()))?;
    initrd.extend(job::archive(guest, &token)?);
    if guest.boot_files {
        let dir = share.join("boot");
        let place = || format!("cannot write into {}", dir.display());
        std::fs::create_dir_all(&dir).with_context(place)?;
        std::fs::write(dir.join("initrd"), &initrd).with_context(place)?;
        std::fs::copy(kit.kernel(), dir.join("kernel")).with_context(place)?;
    }
    let initrd = process::memory_file("sfnic-initrd", &initrd)?;

    let wires = Wires::new(matches!(guest.what, What::Shell))?;
    let machine = Machine {
        kernel: kit.kernel(),
        initrd: &process::path_of(&initrd),
        root: kit.root(),
        modules: kit.modules(),
        share,
        mem: &guest.mem,
        cpus: guest.cpus,
        slots: &guest.slots,
        iommu: guest.iommu,
        virtio: &guest.virtio,
        extra: &guest.extra_args,
    };
    let mut command = kit.qemu().command();
    command.args(accel.args()).args(machine.args(&wires.streams()));
    tracing::debug!(?command, "QEMU");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut inherited: Vec<&dyn std::os::fd::AsFd> = vec![&initrd];
    inherited.extend(wires.theirs.iter().map(|w| w as &dyn std::os::fd::AsFd));
    process::tie_to_parent(&mut command, &inherited);
    let child = command.spawn().context("cannot start QEMU")?;
    drop(command);
    let mut run = Run::new(guest, child, wires, &token, started)?;
    run.boot_time = BOOT_TIME.mul_f64(kit.timeout_factor());
    let failure = run.listen(&signals);
    run.finish(failure)
}

/// What QEMU would complain about in words that don't help.
fn check(guest: &Guest, kit: &Kit) -> Result<()> {
    for path in [kit.kernel(), kit.initrd(), kit.root(), kit.modules()] {
        if !path.exists() {
            bail!("{} is gone from the kit: remove the kit and try again", path.display());
        }
    }
    if let Some(dir) = guest.share.as_ref().filter(|dir| !dir.is_dir()) {
        bail!("{} is no directory to share with the guest", dir.display());
    }
    for socket in guest.slots.iter().flatten().chain(guest.virtio.iter().map(|v| &v.socket)) {
        use std::os::unix::fs::FileTypeExt;
        if !std::fs::metadata(socket).is_ok_and(|m| m.file_type().is_socket()) {
            bail!("{} is no socket: does the device run?", socket.display());
        }
    }
    if guest.slots.len() > 12 || guest.slots.iter().any(|slot| slot.is_empty() || slot.len() > 8) {
        bail!("a guest has up to 12 slots with 1 to 8 functions each");
    }
    if guest.virtio.len() > 4 {
        bail!("a guest has up to 4 virtio network devices");
    }
    Ok(())
}

/// What no output of a job has in it: it starts with a zero byte when it ends a stream.
fn token() -> Result<String> {
    let mut bytes = [0u8; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("@sfnic-end-{hex}@"))
}

/// Connected sockets: ours, and those that QEMU inherits.
struct Wires {
    ours: Vec<UnixStream>,
    theirs: Vec<UnixStream>,
}

impl Wires {
    /// In the order control, out, err, kmsg, tty.
    fn new(tty: bool) -> Result<Wires> {
        let mut wires = Wires { ours: Vec::new(), theirs: Vec::new() };
        for _ in 0..if tty { 5 } else { 4 } {
            let (ours, theirs) = UnixStream::pair().context("cannot create sockets for the guest")?;
            wires.ours.push(ours);
            wires.theirs.push(theirs);
        }
        Ok(wires)
    }

    fn streams(&self) -> Streams {
        let fd = |index: usize| self.theirs.get(index).map(AsRawFd::as_raw_fd);
        let some = |index| fd(index).unwrap_or(-1);
        Streams { control: some(0), out: some(1), err: some(2), kmsg: some(3), tty: fd(4) }
    }
}

/// Reads a stream into the one queue of the run.
fn forward(from: Origin, mut stream: impl Read + Send + 'static, queue: Sender<(Origin, Vec<u8>)>) {
    thread::spawn(move || {
        let mut bytes = vec![0u8; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if queue.send((from, bytes[..count].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// A guest under way.
struct Run<'a> {
    guest: &'a Guest,
    child: Child,
    ended: Option<ExitStatus>,
    queue: Receiver<(Origin, Vec<u8>)>,
    ours: Vec<UnixStream>,
    terminal: Option<tty::Terminal>,
    started: Instant,
    boot_time: Duration,
    out: UntilToken,
    err: UntilToken,
    kmsg: KernelLog,
    /// Standard output and error since their last line ended, where lines have a prefix.
    partial: [Vec<u8>; 2],
    console: Vec<u8>,
    console_file: Option<std::fs::File>,
    panicked: bool,
    interrupted: Option<i32>,
    qemu: Vec<u8>,
    control: Vec<u8>,
    status: Option<i32>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(guest: &'a Guest, mut child: Child, wires: Wires, token: &str, started: Instant) -> Result<Run<'a>> {
        let (send, queue) = channel();
        if let Some(pipe) = child.stdout.take() {
            forward(Origin::Console, pipe, send.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            forward(Origin::Qemu, pipe, send.clone());
        }
        let names = [Origin::Control, Origin::Out, Origin::Err, Origin::Kmsg, Origin::Tty];
        for (from, stream) in names.into_iter().zip(&wires.ours) {
            forward(from, stream.try_clone().context("cannot copy a socket")?, send.clone());
        }
        let mut run = Run {
            guest,
            child,
            ended: None,
            queue,
            ours: wires.ours,
            terminal: None,
            started,
            boot_time: BOOT_TIME,
            out: UntilToken::new(token.as_bytes()),
            err: UntilToken::new(token.as_bytes()),
            kmsg: KernelLog::new(token),
            partial: [Vec::new(), Vec::new()],
            console: Vec::new(),
            console_file: None,
            panicked: false,
            interrupted: None,
            qemu: Vec::new(),
            control: Vec::new(),
            status: None,
            outcome: Outcome::default(),
        };
        if let Some(path) = &guest.keep_console {
            let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            run.console_file = Some(file);
        }
        if let Some(tty) = run.ours.get(4) {
            run.terminal = Some(tty::Terminal::attach(tty.try_clone().context("cannot copy a socket")?)?);
        }
        Ok(run)
    }

    /// Until the guest is off: the reason if it did not end as it should.
    fn listen(&mut self, signals: &Signals) -> Option<String> {
        let mut job_ended: Option<Instant> = None;
        let mut released: Option<Instant> = None;
        let mut panicked: Option<Instant> = None;
        loop {
            match self.queue.recv_timeout(TICK) {
                Ok((from, bytes)) => self.take(from, &bytes),
                Err(RecvTimeoutError::Timeout) => {}
                // All streams are closed: QEMU is ending.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK),
            }
            if let Some((number, name)) = signals.caught() {
                self.interrupted = Some(number);
                return Some(format!("interrupted by {name}"));
            }
            if panicked.is_none() && released.is_none() && self.panic().is_some() {
                panicked = Some(Instant::now());
            }
            if let Some(since) = panicked {
                if since.elapsed() > PANIC_TIME {
                    return self.panic().map(|reason| format!("the guest's kernel gave up: {reason}"));
                }
                continue;
            }
            if self.status.is_some() && job_ended.is_none() {
                job_ended = Some(Instant::now());
            }
            if let (Some(since), None) = (job_ended, released) {
                let complete = self.kmsg.ended() && self.out.ended() && self.err.ended();
                if complete || since.elapsed() > FLUSH_TIME {
                    self.send("off\n");
                    released = Some(Instant::now());
                }
            }
            if self.has_ended() {
                self.drain();
                return self.early_end();
            }
            if released.is_some_and(|since| since.elapsed() > OFF_TIME) {
                self.say("the guest did not power off; QEMU is killed");
                return None;
            }
            if self.guest.timeout.is_some_and(|limit| self.started.elapsed() > limit) && self.status.is_none() {
                let limit = self.guest.timeout.unwrap_or_default().as_secs_f64();
                return Some(format!("the guest's job did not end within {limit} s"));
            }
            if self.outcome.boots == 0 && self.started.elapsed() > self.boot_time {
                return Some(self.silence());
            }
        }
    }

    /// What there is to say of a guest that shows no sign of life.
    fn silence(&self) -> String {
        format!(
            "the guest did not start within {} s; its console ends with {}; QEMU said {}; its threads: {}",
            self.boot_time.as_secs(),
            ending(&self.console),
            ending(&self.qemu),
            threads::describe(self.child.id())
        )
    }

    fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_some()
    }

    /// Takes what is still in the pipes of an ended QEMU.
    fn drain(&mut self) {
        for stream in &self.ours {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let limit = Instant::now() + Duration::from_secs(2);
        while let Ok((from, bytes)) = self.queue.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            self.take(from, &bytes);
        }
    }

    /// QEMU ended: why, if the job had not.
    fn early_end(&self) -> Option<String> {
        if self.status.is_some() {
            return None;
        }
        if let Some(reason) = self.panic() {
            return Some(format!("the guest's kernel gave up: {reason}"));
        }
        let status = self.ended?;
        let said = String::from_utf8_lossy(&self.qemu);
        let last = said.lines().rev().find(|l| !l.trim().is_empty());
        Some(match (status.success(), last) {
            (true, _) if self.outcome.boots == 0 => {
                format!("the guest powered off before it started; its console ends with {}", ending(&self.console))
            }
            (true, _) => "the guest powered off before its job ended".to_string(),
            (false, Some(line)) => format!("QEMU ended ({status}): {line}"),
            (false, None) => format!("QEMU ended ({status})"),
        })
    }

    /// The reason of a panic, once its line is on the console.
    fn panic(&self) -> Option<String> {
        self.panicked.then(|| panic_reason(&String::from_utf8_lossy(&self.console))).flatten()
    }

    fn take(&mut self, from: Origin, bytes: &[u8]) {
        match from {
            Origin::Console => {
                // The words may come in two pieces.
                let new = self.console.len().saturating_sub(PANIC.len());
                self.console.extend(bytes);
                self.panicked |= contains(&self.console[new..], PANIC.as_bytes());
                if let Some(file) = &mut self.console_file {
                    let _ = file.write_all(bytes);
                }
            }
            Origin::Qemu => {
                self.qemu.extend(bytes);
                if !self.guest.quiet {
                    let _ = std::io::stderr().write_all(bytes);
                }
            }
            Origin::Kmsg => self.kmsg.push(bytes),
            Origin::Out | Origin::Tty => {
                let bytes = if from == Origin::Out { self.out.push(bytes) } else { bytes.to_vec() };
                self.deliver(false, &bytes);
            }
            Origin::Err => {
                let bytes = self.err.push(bytes);
                self.deliver(true, &bytes);
            }
            Origin::Control => {
                self.control.extend(bytes);
                while let Some(end) = self.control.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = self.control.drain(..=end).collect();
                    self.command(String::from_utf8_lossy(&line).trim());
                }
            }
        }
    }

    fn deliver(&mut self, is_err: bool, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let lines;
        let bytes = if self.guest.capture || self.guest.prefix.is_empty() {
            bytes
        } else {
            lines = prefixed(&self.guest.prefix, &mut self.partial[usize::from(is_err)], bytes);
            lines.as_slice()
        };
        match (self.guest.capture, is_err) {
            (true, false) => self.outcome.stdout.extend(bytes),
            (true, true) => self.outcome.stderr.extend(bytes),
            (false, false) => {
                let mut to = std::io::stdout().lock();
                let _ = to.write_all(bytes).and_then(|()| to.flush());
            }
            (false, true) => {
                let _ = std::io::stderr().write_all(bytes);
            }
        }
    }

    /// A line of the guest's init.
    fn command(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("hello", _) => {
                self.outcome.boots += 1;
                self.outcome.booted_after.get_or_insert(self.started.elapsed());
                let reply = format!("boot {}\n", self.outcome.boots);
                self.send(&reply);
            }
            ("say", text) => self.say(text),
            ("exit", status) => self.status = Some(status.parse().unwrap_or(STATUS_FAILURE)),
            _ => tracing::warn!(line, "the guest's init said something unknown"),
        }
    }

    fn say(&self, text: &str) {
        if !self.guest.quiet {
            let end = if self.terminal.is_some() { "\r\n" } else { "\n" };
            eprint!("sfnic: {}guest: {text}{end}", self.guest.prefix);
        }
    }

    fn send(&mut self, line: &str) {
        if let Some(control) = self.ours.first_mut() {
            let _ =
                control.write_all(line.as_bytes()).inspect_err(|e| tracing::warn!("cannot speak to the guest: {e}"));
        }
    }

    /// Ends QEMU, restores the terminal and hands over what there is.
    fn finish(mut self, failure: Option<String>) -> Result<Outcome> {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.drain();
        }
        self.terminal = None;
        for stream in &self.ours {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let (out, err) = (self.out.rest(), self.err.rest());
        self.deliver(false, &out);
        self.deliver(true, &err);
        for is_err in [false, true] {
            if !self.partial[usize::from(is_err)].is_empty() {
                self.deliver(is_err, b"\n");
            }
        }
        let mut outcome = self.outcome;
        outcome.console = String::from_utf8_lossy(&self.console).into_owned();
        outcome.dmesg = self.kmsg.take();
        outcome.elapsed = self.started.elapsed();
        outcome.status = match (self.interrupted, &failure) {
            (Some(signal), _) => 128 + signal,
            (None, Some(_)) => STATUS_FAILURE,
            (None, None) => self.status.unwrap_or(STATUS_FAILURE),
        };
        if let (Some(text), false) = (&failure, self.guest.quiet) {
            let rows = tail(&outcome.console, 40);
            if !rows.is_empty() && self.interrupted.is_none() {
                eprintln!("{rows}");
            }
            eprintln!("sfnic: {}{text}", self.guest.prefix);
        }
        outcome.failure = failure;
        Ok(outcome)
    }
}

/// The last lines of what somebody said.
fn ending(said: &[u8]) -> String {
    match tail(&String::from_utf8_lossy(said), 3).trim() {
        "" => "nothing".to_string(),
        text => format!("{text:?}"),
    }
}

/// The whole lines so far, each behind a prefix; what has no end yet waits in `partial`.
fn prefixed(prefix: &str, partial: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    partial.extend(bytes);
    let Some(last) = partial.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
    let rest = partial.split_off(last + 1);
    let whole = std::mem::replace(partial, rest);
    let mut lines = Vec::with_capacity(whole.len() + prefix.len());
    for line in whole.split_inclusive(|b| *b == b'\n') {
        lines.extend(prefix.bytes());
        lines.extend(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_prefix_however_they_come() {
        let mut partial = Vec::new();
        assert_eq!(prefixed("a: ", &mut partial, b"one\ntw"), b"a: one\n");
        assert_eq!(prefixed("a: ", &mut partial, b"o"), b"");
        assert_eq!(prefixed("a: ", &mut partial, b"\n\nx"), b"a: two\na: \n");
        assert_eq!(partial, b"x");
    }
}
