//! Commands out of a kernel's log.
//!
//! `dump_command()` of mlx5_core (`drivers/net/ethernet/mellanox/mlx5/core/
//! cmd.c`) prints a head, `dump command NAME(0x104) INPUT`, and rows of 16
//! bytes, `000: 07000000 00000010 …`, behind `cmd[SLOT]: ` where the kernel is
//! new enough. By default these are the whole entry of the command queue (64
//! bytes) and the whole mailboxes (576 bytes each); with `debug_mask=1` the
//! head says `dump command data` and the rows are the command's own bytes,
//! rounded up to 16. The rows name no device: a row belongs to the dump that
//! waits for its offset, its slot and, where printk prints it, its caller.

use std::io::BufRead;

use sfnic_firmware_cmds::Opcode;

use super::file::{Command, MAX_HALF};
use super::{Problem, Trace, functions};

/// Bytes of a line that are looked at.
const MAX_LINE: usize = 4096;
/// Most dumps that wait for rows, and commands that wait for an answer.
const MAX_OPEN: usize = 256;
/// Most devices in a log.
const MAX_DEVICES: usize = 4096;
/// Bytes of an entry of the command queue.
const ENTRY: usize = 0x40;
/// Bytes of a mailbox with its end.
const MAILBOX: usize = 0x240;
/// Bytes of a mailbox that are the command's.
const DATA: usize = 0x200;

/// A command in a log.
#[derive(Debug)]
pub struct Logged {
    /// What the log calls the function.
    pub device: usize,
    /// The log's time.
    pub time_ns: u64,
    /// The command.
    pub command: Command,
}

/// What a log holds.
#[derive(Debug, Default)]
pub struct Log {
    /// Functions, in the order of their first command.
    pub devices: Vec<String>,
    /// Commands, in the order of their inputs.
    pub commands: Vec<Logged>,
    /// Dumps that are incomplete.
    pub damaged: usize,
    /// Answers whose command is not in the log.
    pub orphans: usize,
    /// Rows that belong to no dump.
    pub stray: usize,
    /// The dump that the log ends in the middle of.
    pub cut: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Head<'a> {
    device: &'a str,
    slot: Option<u32>,
    pid: Option<&'a str>,
    opcode: u16,
    input: bool,
    data: bool,
}

#[derive(Debug)]
struct Dump {
    device: usize,
    slot: Option<u32>,
    pid: Option<String>,
    caller: Option<String>,
    opcode: u16,
    input: bool,
    data: bool,
    bytes: Vec<u8>,
    gap: bool,
    time_ns: u64,
    fed: usize,
    /// Where its command stands, of an input.
    place: usize,
}

#[derive(Debug)]
struct Pending {
    device: usize,
    slot: Option<u32>,
    opcode: u16,
    place: usize,
}

#[derive(Debug, Default)]
struct Reader {
    log: Log,
    slots: Vec<Option<Logged>>,
    open: Vec<Dump>,
    pending: Vec<Pending>,
    lines: usize,
    /// This kernel marks the ends of dumps.
    ends: bool,
}

/// Reads a log and says which function of which card each command is of.
///
/// # Errors
/// It cannot be read, or has no commands.
pub fn read(from: impl BufRead) -> Result<Trace, Problem> {
    functions::assign(parse(from)?)
}

/// Reads a log.
///
/// # Errors
/// It cannot be read, or has no commands.
pub fn parse(mut from: impl BufRead) -> Result<Log, Problem> {
    let mut r = Reader::default();
    let mut line = vec![];
    let mut torn = false;
    loop {
        line.clear();
        let n = read_line(&mut from, &mut line).map_err(|e| format!("cannot read it: {e}"))?;
        if n == 0 {
            break;
        }
        r.lines += 1;
        let text = String::from_utf8_lossy(&line);
        torn = n == line.len() && row(text.trim_end()).is_none();
        r.line(&text);
    }
    r.log.cut = r.open.iter().find(|d| r.cut(d, torn)).map(|d| {
        let half = if d.input { "INPUT" } else { "OUTPUT" };
        format!("within a dump of {}, {half}", Opcode(d.opcode))
    });
    while !r.open.is_empty() {
        r.close(0);
    }
    r.log.commands = r.slots.into_iter().flatten().collect();
    if r.log.commands.is_empty() {
        let why = if r.log.damaged > 0 {
            "has no whole command: its dumps are cut off"
        } else {
            "has no commands: neither a trace nor a log with mlx5_core's dynamic debug \
             (echo 'module mlx5_core +p' > /sys/kernel/debug/dynamic_debug/control)"
        };
        return Err(why.to_owned());
    }
    Ok(r.log)
}

/// The next line, its first bytes; 0 at the end.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut n = 0;
    loop {
        let buf = from.fill_buf()?;
        if buf.is_empty() {
            return Ok(n);
        }
        let end = buf.iter().position(|b| *b == b'\n');
        let part = &buf[..end.unwrap_or(buf.len())];
        line.extend(&part[..part.len().min(MAX_LINE - line.len().min(MAX_LINE))]);
        let used = end.map_or(buf.len(), |e| e + 1);
        n += used;
        from.consume(used);
        if end.is_some() {
            return Ok(n);
        }
    }
}

impl Reader {
    /// Whether a dump that is open where the log ends goes on behind that.
    fn cut(&self, d: &Dump, torn: bool) -> bool {
        torn || if d.data { self.ends } else { half(d).is_none() }
    }

    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some((slot, offset, words)) = row(line) {
            self.row(slot, offset, &words, caller(line));
        } else if let Some(head) = head(line) {
            self.head(&head, line);
        } else if let Some((before, _)) = line.split_once("end dump") {
            self.ends = true;
            let (device, slot) = (device(before), slot(before));
            let at = self.open.iter().position(|d| {
                device.is_some_and(|name| self.log.devices.get(d.device).is_some_and(|n| n == name)) && d.slot == slot
            });
            if let Some(at) = at {
                self.close(at);
            }
        }
    }

    fn head(&mut self, head: &Head<'_>, line: &str) {
        let device = match self.log.devices.iter().position(|d| d == head.device) {
            Some(at) => at,
            None if self.log.devices.len() >= MAX_DEVICES => return,
            None => {
                self.log.devices.push(head.device.to_owned());
                self.log.devices.len() - 1
            }
        };
        // What this context or this slot dumped before is complete by now.
        let pid = head.pid.map(str::to_owned);
        while let Some(at) = self.open.iter().position(|d| {
            d.device == device
                && ((head.slot.is_some() && d.slot == head.slot) || (head.slot.is_none() && d.pid == pid))
        }) {
            self.close(at);
        }
        if self.open.len() >= MAX_OPEN {
            self.close(0);
        }
        let place = self.slots.len();
        if head.input {
            self.slots.push(None);
        }
        self.open.push(Dump {
            device,
            slot: head.slot,
            pid,
            caller: caller(line).map(str::to_owned),
            opcode: head.opcode,
            input: head.input,
            data: head.data,
            bytes: vec![],
            gap: false,
            time_ns: time(line),
            fed: self.lines,
            place,
        });
    }

    fn row(&mut self, slot: Option<u32>, offset: usize, words: &[u32; 4], caller: Option<&str>) {
        let fits = |d: &Dump| {
            let same = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
            let first = match (d.data, d.input) {
                (true, true) => words[0] >> 16 == u32::from(d.opcode),
                (false, _) => words[0] >> 24 == 7,
                (true, false) => true,
            };
            same(d.slot, slot) && d.bytes.len() <= offset && (offset > 0 || first)
        };
        let known = |d: &Dump| caller.is_some() && d.caller.as_deref() == caller;
        // The dump that waits for just this row, then one that missed some.
        let best = (0..self.open.len()).filter(|i| fits(&self.open[*i])).max_by_key(|i| {
            let d = &self.open[*i];
            (d.bytes.len() == offset, known(d), d.fed)
        });
        let Some(best) = best else {
            self.log.stray += 1;
            return;
        };
        let d = &mut self.open[best];
        d.gap |= d.bytes.len() != offset;
        if offset > 2 * MAX_HALF {
            d.gap = true;
            return;
        }
        if d.gap {
            return;
        }
        d.fed = self.lines;
        d.bytes.extend(words.iter().flat_map(|w| w.to_be_bytes()));
        if !d.data && whole(d).is_some_and(|n| d.bytes.len() >= n) {
            self.close(best);
        }
    }

    fn close(&mut self, at: usize) {
        let d = self.open.remove(at);
        let Some((half, other)) = half(&d) else {
            self.log.damaged += 1;
            return;
        };
        if d.input {
            let command = Command::new(d.slot.unwrap_or(0) as u8, 0, &half, None, d.data);
            self.slots[d.place] = Some(Logged { device: d.device, time_ns: d.time_ns, command });
            // A slot that is used again will not answer what it had before.
            self.pending.retain(|p| p.device != d.device || p.slot != d.slot || d.slot.is_none());
            if self.pending.len() >= MAX_OPEN {
                self.pending.remove(0);
            }
            self.pending.push(Pending { device: d.device, slot: d.slot, opcode: d.opcode, place: d.place });
            return;
        }
        let mine = |p: &Pending| p.device == d.device && p.slot == d.slot && p.opcode == d.opcode;
        let Some(at) = self.pending.iter().position(mine) else {
            self.log.orphans += 1;
            return;
        };
        let place = self.pending.remove(at).place;
        if let Some(l) = self.slots[place].as_mut() {
            let c = &l.command;
            l.command = Command::new(c.slot, other, &c.input(), Some(&half), d.data);
        }
    }
}

fn be32(b: &[u8], at: usize) -> usize {
    b.get(at..at + 4).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_be_bytes(*b) as usize)
}

/// Length of a half in an entry of the command queue.
fn length(d: &Dump) -> usize {
    be32(&d.bytes, if d.input { 0x04 } else { 0x38 })
}

/// Bytes of a dump of whole blocks, once they are known.
fn whole(d: &Dump) -> Option<usize> {
    (d.bytes.len() >= ENTRY).then(|| ENTRY + length(d).saturating_sub(16).div_ceil(DATA) * MAILBOX)
}

/// The command's bytes in a dump and its delivery status; `None` where some
/// are missing.
fn half(d: &Dump) -> Option<(Vec<u8>, u8)> {
    if d.gap || d.bytes.is_empty() {
        return None;
    }
    let (half, delivery) = if d.data {
        (d.bytes.clone(), 0)
    } else {
        let len = length(d);
        // The kernel stops at the last mailbox it has.
        if d.bytes.len() < ENTRY || len > MAX_HALF || whole(d).is_none_or(|n| d.bytes.len() < n) {
            return None;
        }
        let inline = if d.input { 0x10 } else { 0x20 };
        let mut half = d.bytes[inline..inline + 16].to_vec();
        for block in d.bytes[ENTRY..].chunks(MAILBOX) {
            half.extend(&block[..block.len().min(DATA)]);
        }
        half.truncate(len);
        (half, d.bytes[0x3f] >> 1)
    };
    if half.len() > MAX_HALF || half.len() < 8 || d.input && half[..2] != d.opcode.to_be_bytes() {
        return None;
    }
    Some((half, delivery))
}

/// A row of 16 bytes: slot, offset, words.
fn row(line: &str) -> Option<(Option<u32>, usize, [u32; 4])> {
    let mut parts = line.rsplitn(6, ' ');
    let mut words = [0; 4];
    for w in words.iter_mut().rev() {
        let hex = parts.next().filter(|p| p.len() == 8)?;
        *w = u32::from_str_radix(hex, 16).ok()?;
    }
    let offset = parts.next()?.strip_suffix(':')?;
    if offset.len() < 3 || offset.len() > 8 {
        return None;
    }
    let offset = usize::from_str_radix(offset, 16).ok()?;
    let slot = parts.next().and_then(slot);
    (offset % 16 == 0).then_some((slot, offset, words))
}

/// The number in the last `cmd[N]:`.
fn slot(text: &str) -> Option<u32> {
    let (_, rest) = text.rsplit_once("cmd[")?;
    rest.split_once("]:").and_then(|(n, _)| n.parse().ok())
}

/// `dump command NAME(0x104) INPUT` and what stands before it.
fn head(line: &str) -> Option<Head<'_>> {
    let (before, rest) = line.split_once("dump command ")?;
    let (data, rest) = match rest.strip_prefix("data ") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    // The name of an opcode that the kernel does not know has brackets of its own.
    let (rest, side) = rest.rsplit_once(' ')?;
    let (_, number) = rest.rsplit_once("(0x")?;
    let opcode = u16::from_str_radix(number.strip_suffix(')')?, 16).ok()?;
    let input = match side {
        "INPUT" => true,
        "OUTPUT" => false,
        _ => return None,
    };
    let pid = before.rsplit_once("(pid ").and_then(|(_, p)| p.split_once(')')).map(|(p, _)| p);
    Some(Head { device: device(before)?, slot: slot(before), pid, opcode, input, data })
}

/// The function's name before the message: a PCI address, or that of an
/// auxiliary device.
fn device(before: &str) -> Option<&str> {
    let end = before.rfind("dump_command")?;
    let words = before[..end].split(|c: char| c.is_whitespace() || c == ',').rev();
    words.map(|w| w.trim_end_matches(':')).find(|w| is_pci(w) || is_sf(w))
}

/// `DDDD:BB:DD.F`.
pub(super) fn is_pci(word: &str) -> bool {
    let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|c| c.is_ascii_hexdigit());
    let parts: Vec<&str> = word.split([':', '.']).collect();
    match parts[..] {
        [domain, bus, slot, function] => {
            (hex(domain, 4) || hex(domain, 5) || hex(domain, 8)) && hex(bus, 2) && hex(slot, 2) && hex(function, 1)
        }
        _ => false,
    }
}

/// `mlx5_core.sf.N`.
pub(super) fn is_sf(word: &str) -> bool {
    word.strip_prefix("mlx5_core.sf.").is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
}

/// The caller that printk prints, `T123` or `C1`.
fn caller(line: &str) -> Option<&str> {
    line.split('[')
        .skip(1)
        .filter_map(|p| p.split_once(']'))
        .map(|(p, _)| p.trim())
        .find(|p| p.strip_prefix(['T', 'C']).is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit())))
}

/// Nanoseconds of `[   14.600810]`; 0 where there is no such thing.
fn time(line: &str) -> u64 {
    let inside = line.split('[').skip(1).filter_map(|p| p.split_once(']'));
    let stamp = inside.map(|(p, _)| p.trim()).find_map(|p| {
        let (s, f) = p.split_once('.')?;
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|c| c.is_ascii_digit());
        let fraction = format!("{f:0<9}");
        (digits(s) && digits(f)).then(|| (s.parse::<u64>(), fraction[..9].parse::<u64>()))
    });
    match stamp {
        Some((Ok(s), Ok(f))) => s.saturating_mul(1_000_000_000).saturating_add(f),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(log: &str) -> Log {
        parse(log.as_bytes()).unwrap()
    }

    const DATA_ONLY: &str = "\
[   17.836488] mlx5_core 0000:01:00.0: dump_command:890:(pid 12): cmd[0]: dump command data QUERY_ISSI(0x10a) INPUT
[   17.836488] cmd[0]: 000: 010a0000 00000000 00000000 00000000

[   17.836488] mlx5_core 0000:01:00.0: dump_command:929:(pid 12): cmd[0]: end dump
[   17.836488] mlx5_core 0000:01:00.0: dump_command:890:(pid 12): cmd[0]: dump command data QUERY_ISSI(0x10a) OUTPUT
[   17.836488] cmd[0]: 000: 00000000 00000000 00000001 00000000
[   17.836488] cmd[0]: 010: 00000000 00000000 00000000 00000003
";

    #[test]
    fn the_command_alone() {
        let log = one(DATA_ONLY);
        let c = &log.commands[0];
        assert_eq!((log.devices[0].as_str(), c.time_ns), ("0000:01:00.0", 17_836_488_000));
        assert_eq!((c.command.opcode().0, c.command.input().len(), c.command.output().len()), (0x10a, 16, 32));
        assert_eq!((c.command.output()[11], c.command.output()[31], c.command.rounded), (1, 3, true));
    }

    /// Kernels before 4.10 printed the device without a space behind it, and
    /// rows without a slot; here with whole blocks, as syslog keeps them.
    #[test]
    fn old_kernels_and_whole_blocks() {
        let head = "Jan  2 03:04:05 host kernel: mlx5_core 0000:06:00.0:dump_command:749:(pid 123): dump command";
        let row = "Jan  2 03:04:05 host kernel:";
        let mut log = format!(
            "{head} QUERY_ISSI(0x10a) INPUT\n{row} 000: 07000000 00000010 00000000 00000000\n\
             {row} 010: 010a0000 00000000 00000000 00000000\n{row} 020: 00000000 00000000 00000000 00000000\n\
             {row} 030: 00000000 08721000 00000070 02fa0001\n\
             {head} QUERY_ISSI(0x10a) OUTPUT\n{row} 000: 07000000 00000010 00000000 00000000\n\
             {row} 010: 010a0000 00000000 00000000 00000000\n{row} 020: 00000000 00000000 00000001 00000000\n\
             {row} 030: 00000000 08721000 00000070 02fa0000\n\
             {row} mlx5_core 0000:06:00.0:dump_command:780:(pid 123): command block:\n"
        );
        for at in (0x40..0x280).step_by(16) {
            let last = if at == 0x90 { "00000003" } else { "00000000" };
            log += &format!("{row} {at:03x}: 00000000 00000000 00000000 {last}\n");
        }
        let c = one(&log);
        let c = &c.commands[0].command;
        assert_eq!((c.input().len(), c.output().len(), c.delivery, c.rounded), (16, 0x70, 0, false));
        assert_eq!((c.output()[11], c.output()[0x6f]), (1, 3));
    }

    #[test]
    fn two_devices_that_speak_at_once() {
        let a = "mlx5_core 0000:01:00.0: dump_command:890:(pid 1): cmd[0]: dump command data";
        let b = "mlx5_core.sf mlx5_core.sf.2: dump_command:890:(pid 2): cmd[3]: dump command data";
        let log = one(&format!(
            "{a} ALLOC_PD(0x800) INPUT\n{b} ALLOC_UAR(0x802) INPUT\n\
             cmd[0]: 000: 08000000 00000000 00000000 00000000\nsomething else\n\
             cmd[3]: 000: 08020000 00000000 00000000 00000000\n\
             {b} ALLOC_UAR(0x802) OUTPUT\n{a} ALLOC_PD(0x800) OUTPUT\n\
             cmd[3]: 000: 00000000 00000000 00000007 00000000\ncmd[0]: 000: 00000000 00000000 00000009 00000000\n"
        ));
        assert_eq!(log.devices, ["0000:01:00.0", "mlx5_core.sf.2"]);
        let answers: Vec<u8> = log.commands.iter().map(|c| c.command.output()[11]).collect();
        assert_eq!(answers, [9, 7]);
    }

    #[test]
    fn lost_lines_are_counted_and_nothing_is_made_up() {
        let lines: Vec<&str> = DATA_ONLY.lines().collect();
        for missing in 0..lines.len() {
            let text: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, l)| *l).collect();
            match parse(text.join("\n").as_bytes()) {
                Ok(log) => {
                    let c = &log.commands[0].command;
                    let short = missing == lines.len() - 1;
                    assert!(!c.answered || c.output().len() == if short { 16 } else { 32 }, "{missing}");
                    assert!(c.answered || log.damaged + log.orphans + log.stray > 0, "{missing}");
                }
                Err(e) => assert!(missing < 2, "{missing}: {e}"),
            }
        }
    }

    #[test]
    fn anything_is_no_log() {
        for text in ["", "hello\n", "000: 1 2 3 4\n", "dump command X(0xfff) INPUT\n", "cmd[9999999999]: 000: 00000000"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(&[0xff; 100_000][..]).is_err());
    }
}
