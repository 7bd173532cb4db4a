//! What comes out of a guest: streams that end with a token, the kernel's log, the console.

/// Passes a stream through until the token that ends it.
#[derive(Debug)]
pub(crate) struct UntilToken {
    token: Vec<u8>,
    held: Vec<u8>,
    ended: bool,
}

impl UntilToken {
    /// The token starts with a byte that it has nowhere else.
    pub(crate) fn new(token: &[u8]) -> UntilToken {
        UntilToken { token: token.to_vec(), held: Vec::new(), ended: false }
    }

    /// Takes what came and gives what is certainly not of the token.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.ended {
            return Vec::new();
        }
        self.held.extend(bytes);
        if let Some(at) = find(&self.held, &self.token) {
            self.ended = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let longest = self.token.len().min(self.held.len());
        let keep = (1..=longest).rev().find(|n| self.held.ends_with(&self.token[..*n])).unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// The token was there.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// What was held back for it might have become the token.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Does `bytes` have `part` in it?
pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    find(bytes, part).is_some()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|w| w == part)
}

/// Turns the records of `/dev/kmsg` into lines as `dmesg -r` prints them.
#[derive(Debug)]
pub(crate) struct KernelLog {
    token: String,
    partial: Vec<u8>,
    next: u64,
    text: String,
    boots: u32,
    ended: bool,
}

impl KernelLog {
    /// The record with the token ends a job's log.
    pub(crate) fn new(token: &str) -> KernelLog {
        KernelLog {
            token: token.to_string(),
            partial: Vec::new(),
            next: 0,
            text: String::new(),
            boots: 0,
            ended: false,
        }
    }

    /// Takes what came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.partial.extend(bytes);
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.line(&String::from_utf8_lossy(&line[..end]));
        }
    }

    /// `boot` as a guest starts, then `priority,number,microseconds,flags;message`; lines that start with a space are
    /// properties of the record before.
    fn line(&mut self, line: &str) {
        if line.starts_with(' ') {
            return;
        }
        if line == "boot" {
            self.boots += 1;
            self.next = 0; // its records count anew
            if self.boots > 1 {
                self.text.push_str(&format!("<5>[    0.000000] sfnic: boot {}\n", self.boots));
            }
            return;
        }
        let Some((head, message)) = line.split_once(';') else { return };
        let mut fields = head.split(',').map(|f| f.parse::<u64>().ok());
        let (Some(Some(priority)), Some(Some(number)), Some(Some(time))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return;
        };
        if number < self.next {
            return; // read again
        }
        if number > self.next {
            self.text.push_str(&format!("<4>[    0.000000] sfnic: {} records lost\n", number - self.next));
        }
        self.next = number + 1;
        if message.contains(&self.token) {
            self.ended = true;
            return;
        }
        let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
        self.text.push_str(&format!("<{priority}>[{seconds:5}.{micros:06}] {message}\n"));
    }

    /// The token was there.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// All lines so far.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

/// The words with which a kernel gives up.
pub(crate) const PANIC: &str = "Kernel panic - not syncing";

/// How a kernel ends that met an instruction of its own in the midst of its being changed. Emulated
/// CPUs do, rarely, without any device too: one translates what another one is writing.
const CHANGED: &str = "Oops: int3";
/// What is to be said of it.
const RARE: &str = "an instruction that the kernel was changing: emulated CPUs meet one now and then; run it again";

/// The reason of a panic in the console's text.
pub(crate) fn panic_reason(console: &str) -> Option<String> {
    let at = console.find(PANIC)?;
    let line = console[at..].lines().next()?.trim();
    Some(if console[..at].contains(CHANGED) { format!("{line} ({RARE})") } else { line.to_owned() })
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let rows: Vec<&str> = text.lines().map(|l| l.trim_end_matches('\r')).collect();
    rows[rows.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_however_the_stream_is_cut() {
        let whole = b"data \0sf not yet\n\0sfnic-1more";
        for cut in 0..whole.len() {
            let mut stream = UntilToken::new(b"\0sfnic-1");
            let mut got = stream.push(&whole[..cut]);
            got.extend(stream.push(&whole[cut..]));
            assert_eq!(got, b"data \0sf not yet\n");
            assert!(stream.ended());
        }
    }

    #[test]
    fn nothing_is_held_back_without_need() {
        let mut stream = UntilToken::new(b"\0sfnic-1");
        assert_eq!(stream.push(b"prompt> "), b"prompt> ");
        assert_eq!(stream.push(b"x\0s"), b"x");
        assert_eq!(stream.rest(), b"\0s");
    }

    #[test]
    fn the_kernel_log_reads_as_dmesg() {
        let mut log = KernelLog::new("tok");
        log.push(b"\nboot\n5,0,0,-;Linux version 7\n6,1,1234567,-;mlx5_core 0000:01:00.0: hi; there\n SUBSYSTEM=pci\n");
        log.push(b"6,1,1234567,-;again\n4,3,2000000,c,caller=T1;after a gap\n");
        log.push(b"5,4,2,-;cut off\n6,5,\nboot\n5,0,0,-;Linux version 7\n6,1,5,-;sfnic: tok\n");
        assert!(log.ended());
        assert_eq!(
            log.take(),
            "<5>[    0.000000] Linux version 7\n<6>[    1.234567] mlx5_core 0000:01:00.0: hi; there\n\
             <4>[    0.000000] sfnic: 1 records lost\n<4>[    2.000000] after a gap\n<5>[    0.000002] cut off\n\
             <5>[    0.000000] sfnic: boot 2\n<5>[    0.000000] Linux version 7\n"
        );
    }

    #[test]
    fn a_panic_is_one_line() {
        let console = "x\r\n[ 1.0] Kernel panic - not syncing: Fatal exception\r\n[ 1.1] more\r\n";
        assert_eq!(panic_reason(console).as_deref(), Some("Kernel panic - not syncing: Fatal exception"));
        let changed = format!("[ 0.9] Oops: int3: 0000 [#1] SMP NOPTI\r\n{console}");
        let reason = panic_reason(&changed).unwrap();
        assert!(reason.starts_with("Kernel panic - not syncing: Fatal exception (an instruction"), "{reason}");
        assert_eq!(tail(console, 1), "[ 1.1] more");
    }
}
