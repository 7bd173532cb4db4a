//! The user's terminal while a guest's shell has it.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal in raw mode; dropped, it is as it was.
#[derive(Debug)]
pub(crate) struct Terminal {
    saved: Option<Termios>,
    stop: Option<OwnedFd>,
    forwarder: Option<JoinHandle<()>>,
}

/// Rows and columns, as `stty` takes them; empty if there is no terminal.
pub(crate) fn size() -> String {
    match tcgetwinsize(io::stdin()) {
        Ok(size) if size.ws_row > 0 => format!("rows {} cols {}", size.ws_row, size.ws_col),
        _ => String::new(),
    }
}

impl Terminal {
    /// Forwards this process's input to the guest's terminal.
    pub(crate) fn attach(mut guest: UnixStream) -> Result<Terminal> {
        let saved = if isatty(io::stdin()) {
            let saved = tcgetattr(io::stdin()).context("cannot read the terminal's settings")?;
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("cannot set the terminal")?;
            Some(saved)
        } else {
            None
        };
        let mut terminal = Terminal { saved, stop: None, forwarder: None };
        let (ended, stop) = rustix::pipe::pipe().context("cannot create a pipe")?;
        terminal.stop = Some(stop);
        terminal.forwarder = Some(thread::spawn(move || {
            let stdin = io::stdin();
            let mut bytes = [0u8; 4096];
            loop {
                let mut ready = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
                if poll(&mut ready, None).is_err() || !ready[1].revents().is_empty() {
                    return;
                }
                match rustix::io::read(&stdin, &mut bytes) {
                    Ok(0) | Err(_) => {
                        let _ = guest.write_all(&[4]); // end of file, as typed
                        return;
                    }
                    Ok(count) => {
                        if guest.write_all(&bytes[..count]).is_err() {
                            return;
                        }
                    }
                }
            }
        }));
        Ok(terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.forwarder.take() {
            let _ = thread.join();
        }
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, saved);
        }
    }
}
