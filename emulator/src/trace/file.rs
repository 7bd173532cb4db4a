//! Trace files.
//!
//! A file is the magic, a version (2 bytes), the length of the header (4
//! bytes), the header (JSON), and records until its end. All numbers are
//! big-endian. A record is its length (4 bytes, of what follows), its kind (1),
//! card (1), function (2), time in nanoseconds (8) and a body. Zeros at the end
//! of a command's halves are not stored. A file that ends within a record (its
//! writer was killed) is read up to there, and says so.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::{Problem, Trace};

/// The first bytes of a file.
pub const MAGIC: &[u8] = b"sfnic trace\n";
/// The version that is written, and the only one that is read.
pub const VERSION: u16 = 1;
/// Bytes of a record before its body, without the length.
const HEAD: usize = 12;
/// Longest record: a command of 1 MiB and its answer.
const MAX_RECORD: usize = (2 << 20) + 64;
/// Longest half of a command.
pub const MAX_HALF: usize = 1 << 20;
/// Longest header.
const MAX_HEADER: usize = 1 << 20;
/// So many waiting bytes are written at once.
pub(super) const PLENTY: usize = 1 << 20;

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `device` or `log`.
    pub source: String,
    /// Name of the capability profile, where it is known.
    #[serde(default)]
    pub profile: Option<String>,
    /// The cards, where they are known.
    #[serde(default)]
    pub cards: Vec<Card>,
}

/// A physical function as it was configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Permanent address.
    pub mac: [u8; 6],
    /// MSI-X vectors.
    pub vectors: u16,
    /// Most SFs.
    pub max_sfs: u16,
    /// log2 of the bytes of an SF's window.
    pub log_sf_window: u32,
    /// Function id of the first SF.
    pub sf_base: u16,
    /// `cable`, `loopback`, `none` or `outside`.
    pub wire: String,
}

/// A command and its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Entry of the command queue.
    pub slot: u8,
    /// `status::Delivery` of the entry.
    pub delivery: u8,
    /// There is an answer.
    pub answered: bool,
    /// The lengths were rounded up to 16 bytes.
    pub rounded: bool,
    input: Vec<u8>,
    in_len: usize,
    output: Vec<u8>,
    out_len: usize,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds since the start.
    pub time_ns: u64,
    /// Number of the card.
    pub card: u8,
    /// Function of the card.
    pub function: u16,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A command.
    Command(Command),
    /// An event: number of the queue, the entry.
    Event(u8, Vec<u8>),
    /// A doorbell: byte in the window, data.
    Doorbell(u64, Vec<u8>),
    /// A read: byte in the window, data.
    Read(u64, Vec<u8>),
    /// A write: byte in the window, data.
    Write(u64, Vec<u8>),
    /// The card was reset.
    Reset,
    /// What the log calls the function from here on.
    Name(String),
    /// So many records were lost here.
    Lost(u64),
}

impl What {
    fn kind(&self) -> u8 {
        match self {
            What::Command(_) => 1,
            What::Event(..) => 2,
            What::Doorbell(..) => 3,
            What::Read(..) => 4,
            What::Write(..) => 5,
            What::Reset => 6,
            What::Name(_) => 7,
            What::Lost(_) => 8,
        }
    }
}

/// Without the zeros at its end.
pub(super) fn trimmed(b: &[u8]) -> &[u8] {
    &b[..b.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1)]
}

fn padded(b: &[u8], len: usize) -> Vec<u8> {
    let mut whole = b.to_vec();
    whole.resize(len, 0);
    whole
}

impl Command {
    /// A command with its answer, if there is one.
    pub fn new(slot: u8, delivery: u8, input: &[u8], output: Option<&[u8]>, rounded: bool) -> Self {
        let out = output.unwrap_or(&[]);
        Self {
            slot,
            delivery,
            answered: output.is_some(),
            rounded,
            input: trimmed(input).to_vec(),
            in_len: input.len(),
            output: trimmed(out).to_vec(),
            out_len: out.len(),
        }
    }

    /// What the driver sent.
    pub fn input(&self) -> Vec<u8> {
        padded(&self.input, self.in_len)
    }

    /// What it was answered.
    pub fn output(&self) -> Vec<u8> {
        padded(&self.output, self.out_len)
    }

    /// Bytes of the answer.
    pub fn output_len(&self) -> usize {
        self.out_len
    }

    /// Two bytes of the input.
    fn half(&self, at: usize) -> u16 {
        let b = |i: usize| self.input.get(i).copied().unwrap_or(0);
        u16::from_be_bytes([b(at), b(at + 1)])
    }

    /// The opcode.
    pub fn opcode(&self) -> sfnic_firmware_cmds::Opcode {
        sfnic_firmware_cmds::Opcode(self.half(0))
    }

    /// The operation modifier.
    pub fn op_mod(&self) -> u16 {
        self.half(6)
    }

    /// The status of the answer.
    pub fn status(&self) -> u8 {
        self.output.first().copied().unwrap_or(0)
    }
}

/// The body of a record that a device hands over, or of one that was read.
pub(super) fn put_command(
    to: &mut Vec<u8>,
    slot: u8,
    delivery: u8,
    flags: u8,
    input: (&[u8], usize),
    output: (&[u8], usize),
) {
    to.extend([slot, delivery, flags]);
    for n in [input.1, output.1, input.0.len()] {
        to.extend((n as u32).to_be_bytes());
    }
    to.extend(input.0);
    to.extend(output.0);
}

/// Appends a record whose body `body` writes.
pub(super) fn put(to: &mut Vec<u8>, kind: u8, card: u8, function: u16, time_ns: u64, body: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    to.extend([0; 4]);
    to.extend([kind, card]);
    to.extend(function.to_be_bytes());
    to.extend(time_ns.to_be_bytes());
    body(to);
    let len = (to.len() - at - 4) as u32;
    to[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

impl Entry {
    /// Appends the record.
    pub fn encode(&self, to: &mut Vec<u8>) {
        put(to, self.what.kind(), self.card, self.function, self.time_ns, |to| match &self.what {
            What::Command(c) => {
                let flags = u8::from(c.answered) | u8::from(c.rounded) << 1;
                put_command(to, c.slot, c.delivery, flags, (&c.input, c.in_len), (&c.output, c.out_len));
            }
            What::Event(n, data) => {
                to.push(*n);
                to.extend(data);
            }
            What::Doorbell(at, data) | What::Read(at, data) | What::Write(at, data) => {
                to.extend(at.to_be_bytes());
                to.extend(data);
            }
            What::Reset => {}
            What::Name(name) => to.extend(name.as_bytes()),
            What::Lost(n) => to.extend(n.to_be_bytes()),
        });
    }

    /// Reads a record behind its length; `None` where it makes no sense.
    fn decode(raw: &[u8]) -> Option<Entry> {
        let (head, body) = raw.split_at_checked(HEAD)?;
        let time_ns = u64::from_be_bytes(*head[4..].first_chunk()?);
        let offset = || Some((u64::from_be_bytes(*body.first_chunk()?), body[8..].to_vec()));
        let what = match head[0] {
            1 => {
                let (fixed, halves) = body.split_first_chunk::<15>()?;
                let n =
                    |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
                let (in_len, out_len) = (n(3), n(7));
                let (input, output) = halves.split_at_checked(n(11))?;
                if in_len.max(out_len) > MAX_HALF || input.len() > in_len || output.len() > out_len {
                    return None;
                }
                What::Command(Command {
                    slot: fixed[0],
                    delivery: fixed[1],
                    answered: fixed[2] & 1 != 0,
                    rounded: fixed[2] & 2 != 0,
                    input: input.to_vec(),
                    in_len,
                    output: output.to_vec(),
                    out_len,
                })
            }
            2 => What::Event(*body.first()?, body[1..].to_vec()),
            3 => offset().map(|(at, data)| What::Doorbell(at, data))?,
            4 => offset().map(|(at, data)| What::Read(at, data))?,
            5 => offset().map(|(at, data)| What::Write(at, data))?,
            6 => What::Reset,
            7 => What::Name(String::from_utf8_lossy(body).into_owned()),
            8 => What::Lost(u64::from_be_bytes(*body.first_chunk()?)),
            _ => return None,
        };
        Some(Entry { time_ns, card: head[1], function: u16::from_be_bytes([head[2], head[3]]), what })
    }
}

pub(super) fn write_header(to: &mut impl Write, header: &Header) -> io::Result<()> {
    let json = serde_json::to_vec(header)?;
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_be_bytes())?;
    to.write_all(&(json.len() as u32).to_be_bytes())?;
    to.write_all(&json)
}

/// Writes a whole trace.
///
/// # Errors
/// Those of the writer.
pub fn write(to: &mut impl Write, trace: &Trace) -> io::Result<()> {
    write_header(to, &trace.header)?;
    let mut buf = vec![];
    for e in &trace.entries {
        e.encode(&mut buf);
        if buf.len() >= PLENTY {
            to.write_all(&buf)?;
            buf.clear();
        }
    }
    to.write_all(&buf)?;
    to.flush()
}

/// Reads up to `len` bytes; fewer at the end of the file.
fn some(from: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut b = vec![];
    from.take(len as u64).read_to_end(&mut b)?;
    Ok(b)
}

/// Reads a trace. What is wrong at its end is a note.
///
/// # Errors
/// It is no trace, or of another version.
pub fn read(mut from: impl Read) -> Result<Trace, Problem> {
    let fail = |e: io::Error| format!("cannot read it: {e}");
    let start = some(&mut from, MAGIC.len() + 6).map_err(fail)?;
    let head = start.strip_prefix(MAGIC).and_then(|h| h.first_chunk::<6>());
    let Some(&[v1, v0, l3, l2, l1, l0]) = head else { return Err("is not a trace of this program".to_owned()) };
    let version = u16::from_be_bytes([v1, v0]);
    if version != VERSION {
        return Err(format!("is a trace of version {version}; this program reads version {VERSION}"));
    }
    let len = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
    if len > MAX_HEADER {
        return Err("the trace's header is damaged".to_owned());
    }
    let json = some(&mut from, len).map_err(fail)?;
    let header: Header = serde_json::from_slice(&json).map_err(|_| "the trace's header is damaged".to_owned())?;
    let mut trace = Trace { header, ..Trace::default() };
    let mut at = start.len() + json.len();
    let mut lost = 0;
    loop {
        let len = some(&mut from, 4).map_err(fail)?;
        let Some(len) = len.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize) else {
            if !len.is_empty() {
                trace.cut = Some(format!("within the record at byte {at}"));
            }
            break;
        };
        let raw = if len <= MAX_RECORD { some(&mut from, len).map_err(fail)? } else { vec![] };
        if raw.len() < len && len <= MAX_RECORD {
            trace.cut = Some(format!("within the record at byte {at}"));
            break;
        }
        let Some(entry) = Entry::decode(&raw) else {
            trace.notes.push(format!("the record at byte {at} is damaged; what comes before is used"));
            break;
        };
        at += 4 + len;
        if let What::Lost(n) = entry.what {
            lost += n;
        }
        trace.entries.push(entry);
    }
    if lost > 0 {
        trace.notes.push(format!("{lost} records were lost when the trace was written: the disk was too slow"));
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Trace {
        let command = Command::new(3, 0, &[1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(&[0; 12]), false);
        let at = |time_ns, what| Entry { time_ns, card: 1, function: 0x8000, what };
        Trace {
            header: Header { source: "device".to_owned(), ..Header::default() },
            entries: vec![
                at(1, What::Name("a".to_owned())),
                at(2, What::Command(command)),
                at(3, What::Event(4, vec![9; 64])),
                at(4, What::Doorbell(0x4800, vec![1, 2, 3, 4])),
                at(5, What::Reset),
            ],
            notes: vec![],
            cut: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let trace = sample();
        let mut bytes = vec![];
        write(&mut bytes, &trace).unwrap();
        let back = read(&bytes[..]).unwrap();
        assert_eq!((&back.header, &back.entries, back.notes.len()), (&trace.header, &trace.entries, 0));
        let c = back.commands().next().unwrap().1;
        assert_eq!((c.input().len(), c.output().len(), c.opcode().0), (16, 12, 0x104));
    }

    #[test]
    fn every_truncation_is_told_and_the_rest_is_read() {
        let mut bytes = vec![];
        write(&mut bytes, &sample()).unwrap();
        let header = {
            let mut b = vec![];
            write_header(&mut b, &sample().header).unwrap();
            b.len()
        };
        let mut whole = 0;
        for len in 0..bytes.len() {
            match read(&bytes[..len]) {
                Err(_) => assert!(len < header, "{len}"),
                Ok(t) => {
                    assert!(t.entries.len() < 5 && t.entries == sample().entries[..t.entries.len()]);
                    whole += usize::from(t.cut.is_none());
                }
            }
        }
        assert_eq!(whole, 5, "cut between two records, a trace is just shorter");
    }

    #[test]
    fn damage_neither_panics_nor_allocates_without_bound() {
        let mut bytes = vec![];
        write(&mut bytes, &sample()).unwrap();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut b = bytes.clone();
                b[at] = value;
                if let Ok(t) = read(&b[..]) {
                    for (_, c) in t.commands() {
                        assert!(c.input().len() <= MAX_HALF && c.output().len() <= MAX_HALF);
                    }
                }
            }
        }
        assert!(read(&b"sfnic trace\n\0\x02\0\0\0\0"[..]).unwrap_err().contains("version 2"));
        assert!(read(&b"#!/bin/sh"[..]).is_err());
    }
}
