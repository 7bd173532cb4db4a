//! HTTP by hand, so that a request can be as wrong as anybody's.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// With its length.
    Length,
    /// In chunks of so many bytes.
    Chunked(usize),
    /// In chunks, one of which has a length that is none.
    BadChunk,
    /// With a longer length than it has, and then the end.
    TooShort,
}

/// A request, word by word.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) framing: Framing,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) media: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: sfnic\r\nconnection: close\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut body = vec![];
        match self.framing {
            Framing::Length if self.body.is_empty() => {}
            Framing::Length | Framing::TooShort => {
                let more = if self.framing == Framing::TooShort { 7 } else { 0 };
                head += &format!("content-length: {}\r\n", self.body.len() + more);
                body.clone_from(&self.body);
            }
            Framing::Chunked(size) => {
                head += "transfer-encoding: chunked\r\n";
                for chunk in self.body.chunks(size.max(1)) {
                    body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    body.extend(chunk);
                    body.extend(b"\r\n");
                }
                body.extend(b"0\r\n\r\n");
            }
            Framing::BadChunk => {
                head += "transfer-encoding: chunked\r\n";
                body.extend(b"zz\r\n");
                body.extend(&self.body);
            }
        }
        [head.into_bytes(), b"\r\n".to_vec(), body].concat()
    }

    /// Sends it and reads the answer; of a stream, its head. None where the server closed the
    /// connection without an answer.
    pub(crate) fn send(&self, socket: &Path) -> Option<Answer> {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // Who has answered already does not read the rest.
        let _ = stream.write_all(&self.bytes());
        // The server takes the end of what it reads for the end of who asked.
        if self.framing == Framing::TooShort {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let (mut all, mut part) = (vec![], [0; 16384]);
        let head_of = |all: &[u8]| all.windows(4).position(|w| w == b"\r\n\r\n");
        loop {
            let n = match stream.read(&mut part) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => 0,
                Err(e) => panic!("{self:?}: no answer: {e}"),
            };
            all.extend_from_slice(&part[..n]);
            let stream = head_of(&all).is_some_and(|end| header(&all[..end], "content-type") == "text/event-stream");
            if n == 0 || stream {
                break;
            }
        }
        // What is said before the answer is none.
        while let Some(end) = head_of(&all).filter(|_| all.starts_with(b"HTTP/1.1 1")) {
            all.drain(..end + 4);
        }
        let end = head_of(&all)?;
        let (head, body) = all.split_at(end);
        let first = String::from_utf8_lossy(head);
        let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{self:?}: {first}"));
        assert!(header(head, "transfer-encoding").is_empty() || status == 200, "{self:?}: {first}");
        Some(Answer { status, media: header(head, "content-type"), body: body[4..].to_vec() })
    }
}

/// A header's value, or nothing.
fn header(head: &[u8], name: &str) -> String {
    let head = String::from_utf8_lossy(head);
    let pair = |line: &str| line.split_once(':').map(|(n, v)| (n.trim().to_lowercase(), v.trim().to_owned()));
    head.lines().skip(1).filter_map(pair).find(|(n, _)| n == name).map(|(_, v)| v).unwrap_or_default()
}
