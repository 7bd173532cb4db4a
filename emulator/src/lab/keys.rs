//! Keys that are pressed for a guest, through QEMU's monitor: what wakes a machine that
//! sleeps with its devices suspended and cannot ask for anything.

use std::io::{BufRead as _, BufReader, Result, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a key is pressed.
const EVERY: Duration = Duration::from_secs(3);
/// A key that does nothing by itself.
const PRESS: &str = r#"{"execute": "send-key", "arguments": {"keys": [{"type": "qcode", "data": "shift"}]}}"#;

/// A thread that presses a key again and again, until it is dropped.
#[derive(Debug)]
pub(super) struct Keys {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keys {
    /// QEMU's option for a monitor on a socket.
    pub(super) fn option(socket: &Path) -> [String; 2] {
        ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
    }

    /// Begins to press a key.
    pub(super) fn press(socket: PathBuf) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let pressed = Monitor::connect(&socket).and_then(|mut monitor| {
                while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    monitor.command(PRESS)?;
                }
                Ok(())
            });
            if let Err(e) = pressed {
                // The guest ended first, or it will not wake up and say so.
                tracing::debug!("no more keys: {e}");
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// A client of QEMU's machine protocol.
struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(socket: &Path) -> Result<Self> {
        let mut monitor = Self { lines: BufReader::new(UnixStream::connect(socket)?) };
        monitor.lines.read_line(&mut String::new())?;
        monitor.command(r#"{"execute": "qmp_capabilities"}"#)?;
        Ok(monitor)
    }

    /// Gives a command, and waits for its answer beyond the events before it.
    fn command(&mut self, text: &str) -> Result<()> {
        self.lines.get_mut().write_all(text.as_bytes())?;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.contains("\"return\"") {
                return Ok(());
            }
            if line.contains("\"error\"") {
                return Err(std::io::Error::other(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_monitor_is_greeted_and_events_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream);
            lines.get_mut().write_all(b"{\"QMP\": {}}\n").unwrap();
            for answer in ["{\"return\": {}}\n", "{\"event\": \"WAKEUP\"}\n{\"return\": {}}\n", "{\"error\": {}}\n"] {
                let mut asked = [0; 12];
                std::io::Read::read_exact(&mut lines, &mut asked).unwrap();
                assert_eq!(&asked, b"{\"execute\": ");
                lines.get_mut().write_all(answer.as_bytes()).unwrap();
                let left = lines.buffer().len();
                lines.consume(left);
            }
        });
        let mut monitor = Monitor::connect(&socket).unwrap();
        monitor.command(PRESS).unwrap();
        assert!(monitor.command(PRESS).is_err());
        server.join().unwrap();
    }
}
