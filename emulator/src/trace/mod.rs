//! Recorded commands: written by a running device or read from a kernel's
//! log, shown, compared, replayed.
//!
//! * [`file`]: the format; [`record`]: the recorder that writes it;
//! * [`import`]: kernel logs;
//! * [`load`](load()): whichever of the two a path is;
//! * [`text`]: fields by name; [`handles`]: which of them are numbers that a
//!   device hands out; [`replay`], [`diff`] and [`caps`] work on both.

pub mod caps;
mod counters;
pub mod diff;
pub mod file;
pub mod functions;
mod guess;
pub mod handles;
pub mod import;
mod memory;
pub mod record;
pub mod replay;
pub mod text;

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::path::Path;

pub use file::{Card, Command, Entry, Header, What};

/// Why a file cannot be used, or what is wrong with it: one line.
pub type Problem = String;

/// A trace in memory.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// What was recorded.
    pub header: Header,
    /// In the order in which it happened.
    pub entries: Vec<Entry>,
    /// What is missing, in words for the user.
    pub notes: Vec<String>,
    /// Where the file was cut off, if it was.
    pub cut: Option<String>,
}

impl Trace {
    /// The commands, with their place among the commands.
    pub fn commands(&self) -> impl Iterator<Item = (&Entry, &Command)> {
        self.entries.iter().filter_map(|e| match &e.what {
            What::Command(c) => Some((e, c)),
            _ => None,
        })
    }
}

/// Reads a trace or a kernel's log, whichever it is; with `partial` also one that was cut off.
///
/// # Errors
/// It cannot be read, is neither of the two, or was cut off.
pub fn load(path: &Path, partial: bool) -> Result<Trace, Problem> {
    let fail = |e: std::io::Error| format!("{}: cannot read it: {e}", path.display());
    let mut file = File::open(path).map_err(fail)?;
    let mut magic = vec![];
    (&mut file).take(file::MAGIC.len() as u64).read_to_end(&mut magic).map_err(fail)?;
    file.rewind().map_err(fail)?;
    let name = |problem: Problem| format!("{}: {problem}", path.display());
    let is_trace = magic == file::MAGIC;
    let from = BufReader::new(file);
    let mut trace = if is_trace { file::read(from) } else { import::read(from) }.map_err(name)?;
    if let Some(cut) = trace.cut.take() {
        let what = if is_trace { "trace" } else { "log" };
        if !partial {
            return Err(name(format!("the {what} was cut off {cut}; --partial takes what comes before")));
        }
        trace.notes.push(format!("the {what} was cut off {cut}; what comes before is used"));
    }
    Ok(trace)
}
