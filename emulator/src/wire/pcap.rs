//! A capture file as a link partner: its frames come in at their times; what goes out may be
//! recorded in another one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use sfnic_device_model::capture::Way;

use super::offload::Offload;
use super::{Driver, Inlet, Link, Outlet, TICK, Wire};
use crate::capture::pcapng::{self, Packet};

/// What to replay and to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Frames that come in: pcap or pcapng.
    pub file: PathBuf,
    /// Where frames that go out are written (pcapng).
    pub record: Option<PathBuf>,
    /// One after the other, without regard to their times.
    pub at_once: bool,
    /// How often.
    pub times: u32,
}

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
pub struct ReplayError(String, String);

#[derive(Debug)]
struct Record {
    link: Arc<Link>,
    file: Option<Mutex<BufWriter<File>>>,
}

struct Player {
    packets: Vec<Packet>,
    replay: Replay,
    record: Arc<Record>,
}

/// Reads the file, and begins the record.
///
/// # Errors
/// The file is no capture, or one of them cannot be read or written.
pub fn open_replay(replay: Replay) -> Result<Wire, ReplayError> {
    let fail = |path: &PathBuf, why: &dyn std::fmt::Display| ReplayError(path.display().to_string(), why.to_string());
    let bytes = std::fs::read(&replay.file).map_err(|e| fail(&replay.file, &e))?;
    let packets = pcapng::read(&bytes).map_err(|e| fail(&replay.file, &e))?;
    let begin = |path: &PathBuf| {
        let mut out = BufWriter::new(File::create(path)?);
        pcapng::section(&mut out)?;
        pcapng::interface(&mut out, "wire", "what left the port", 0)?;
        out.flush()?;
        Ok(Mutex::new(out))
    };
    let file = match &replay.record {
        Some(path) => Some(begin(path).map_err(|e: std::io::Error| fail(path, &e))?),
        None => None,
    };
    let link = Arc::new(Link::new(format!("pcap:{}", replay.file.display())));
    link.set_up();
    let record = Arc::new(Record { link: link.clone(), file });
    Ok(Wire { outlet: record.clone(), driver: Box::new(Player { packets, replay, record }), link })
}

impl Outlet for Record {
    fn send(&self, _: Offload, frame: &[u8]) -> bool {
        let written = self.file.as_ref().is_none_or(|file| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            pcapng::packet(&mut *file.lock(), 0, now, Way::Out, frame, frame.len() as u32).is_ok()
        });
        if written { &self.link.tx } else { &self.link.lost }.fetch_add(1, Relaxed);
        written
    }

    fn flush(&self) {
        if let Some(file) = &self.file {
            let _ = file.lock().flush();
        }
    }
}

impl Driver for Player {
    fn run(self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) {
        let link = &self.record.link;
        // A partner talks to a port that is up.
        while !inlet.wanted() && !done() {
            std::thread::sleep(TICK / 10);
        }
        for _ in 0..self.replay.times {
            let (start, first) = (Instant::now(), self.packets.first().map_or(0, |p| p.time_ns));
            for packet in &self.packets {
                if done() {
                    return;
                }
                let due = Duration::from_nanos(packet.time_ns.saturating_sub(first));
                while !self.replay.at_once && start.elapsed() < due && !done() {
                    inlet.flush();
                    std::thread::sleep(due.saturating_sub(start.elapsed()).min(TICK));
                }
                if packet.data.len() < packet.length as usize {
                    // Cut when it was captured: no frame to replay.
                    link.lost.fetch_add(1, Relaxed);
                    continue;
                }
                link.rx.fetch_add(1, Relaxed);
                inlet.receive(&mut packet.data.clone(), Offload::default());
            }
        }
        inlet.flush();
        while !done() {
            std::thread::sleep(TICK);
        }
    }
}
