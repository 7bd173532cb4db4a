//! Captures: frames that pass vports and ports, written to files.
//!
//! A file has an interface for each vport and port that had frames, under the name that
//! the user knows: `uplink0` the physical port of card 0, `pf0` its physical function,
//! `pf0sf88` the sub-function with that number. What a function sends is outbound, what
//! it gets is inbound; of a port, what leaves the device is outbound.

pub(crate) mod pcapng;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Serialize;
use sfnic_device_model::Nic;
use sfnic_device_model::capture::{Onlooker, Way};
use sfnic_device_model::fabric::vport::UPLINK;
use sfnic_device_model::packet::Frame;

/// Most bytes of a frame that are kept.
pub const MAX_SNAP: u32 = 262_144;
/// Fewest bytes of a frame that may be asked for.
pub const MIN_SNAP: u32 = 14;
/// Most captures at a time.
pub const MOST: usize = 16;
/// What is not on disk yet is at most so old, as long as frames come.
const FLUSH: Duration = Duration::from_millis(200);

/// What to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Where to.
    pub file: PathBuf,
    /// Names of vports and ports; none are all.
    pub ports: Vec<String>,
    /// Bytes that are kept of a frame.
    pub snap: u32,
}

/// Why a specification is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No file was named.
    #[error("allowed is FILE[,port=NAME]…[,snap=BYTES]")]
    File,
    /// A key that does not exist.
    #[error("{0:?}: allowed after FILE is port=NAME and snap=BYTES")]
    Key(String),
    /// A name that no port can have.
    #[error("port={0}: allowed is uplinkN, pfN, pfNsfNUMBER or pfNvport0xNUMBER")]
    Port(String),
    /// A number out of range.
    #[error("snap={0}: allowed is 14 to {MAX_SNAP}")]
    Snap(String),
}

impl std::str::FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = text.split(',');
        let file = parts.next().filter(|f| !f.is_empty()).ok_or(SpecError::File)?;
        let mut spec = Spec { file: file.into(), ports: vec![], snap: MAX_SNAP };
        for part in parts {
            match part.split_once('=') {
                Some(("port", name)) if is_name(name) => spec.ports.push(name.to_owned()),
                Some(("port", name)) => return Err(SpecError::Port(name.to_owned())),
                Some(("snap", n)) => {
                    let bytes = n.parse().ok().filter(|n| (MIN_SNAP..=MAX_SNAP).contains(n));
                    spec.snap = bytes.ok_or_else(|| SpecError::Snap(n.to_owned()))?;
                }
                _ => return Err(SpecError::Key(part.to_owned())),
            }
        }
        Ok(spec)
    }
}

/// Whether a port may be called so.
pub fn is_name(name: &str) -> bool {
    let number = |n: &str| !n.is_empty() && n.len() <= 10 && n.bytes().all(|c| c.is_ascii_digit());
    if let Some(n) = name.strip_prefix("uplink") {
        return number(n);
    }
    let Some(rest) = name.strip_prefix("pf") else { return false };
    if let Some((pf, sf)) = rest.split_once("sf") {
        return number(pf) && number(sf);
    }
    match rest.split_once("vport0x") {
        Some((pf, v)) => number(pf) && !v.is_empty() && v.len() <= 4 && v.bytes().all(|c| c.is_ascii_hexdigit()),
        None => number(rest),
    }
}

/// The name of a vport or port.
fn name_of(card: usize, vport: u16, sfnum: u32) -> String {
    match vport {
        UPLINK => format!("uplink{card}"),
        0 => format!("pf{card}"),
        _ if sfnum != 0 => format!("pf{card}sf{sfnum}"),
        _ => format!("pf{card}vport{vport:#x}"),
    }
}

/// What a capture came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its file.
    pub file: PathBuf,
    /// Frames in it.
    pub frames: u64,
    /// Its interfaces.
    pub ports: Vec<String>,
    /// Why it ended early, if it did.
    pub error: Option<String>,
}

/// A capture that runs, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaptureView {
    /// Its number.
    pub id: u64,
    /// Its file, as the device's process names it.
    pub file: PathBuf,
    /// Names of the vports and ports that are wanted; none are all.
    pub wanted: Vec<String>,
    /// Bytes that are kept of a frame.
    pub snap: u32,
    /// Frames so far.
    pub frames: u64,
    /// Vports and ports that had any.
    pub ports: Vec<String>,
    /// Why nothing more is written, if it is not.
    pub error: Option<String>,
}

/// A file being written.
#[derive(Debug)]
struct Writing {
    out: BufWriter<File>,
    interfaces: Vec<String>,
    /// By card, vport and the user's number; none where it is not wanted.
    known: HashMap<(usize, u16, u32), Option<u32>>,
    flushed: Instant,
    error: Option<String>,
    frame: Vec<u8>,
}

/// A capture.
#[derive(Debug)]
struct Running {
    id: u64,
    spec: Spec,
    frames: AtomicU64,
    writing: Mutex<Writing>,
}

impl Running {
    fn start(id: u64, spec: Spec, file: File) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 18, file);
        pcapng::section(&mut out)?;
        out.flush()?;
        let writing = Writing {
            out,
            interfaces: vec![],
            known: HashMap::new(),
            flushed: Instant::now(),
            error: None,
            frame: vec![],
        };
        Ok(Self { id, spec, frames: AtomicU64::new(0), writing: Mutex::new(writing) })
    }

    fn take(&self, key: (usize, u16, u32), way: Way, frame: &Frame<'_>) {
        let mut w = self.writing.lock();
        if w.error.is_some() {
            return;
        }
        if let Err(e) = self.write(&mut w, key, way, frame) {
            tracing::error!("capture {}: {e}; it ends", self.spec.file.display());
            w.error = Some(e.to_string());
        }
    }

    fn write(&self, w: &mut Writing, key: (usize, u16, u32), way: Way, frame: &Frame<'_>) -> io::Result<()> {
        let interface = match w.known.get(&key) {
            Some(known) => *known,
            None => {
                let new = self.declare(w, key)?;
                w.known.insert(key, new);
                new
            }
        };
        let Some(interface) = interface else { return Ok(()) };
        let mut kept = std::mem::take(&mut w.frame);
        kept.resize(frame.len().min(self.spec.snap as usize), 0);
        frame.write_into(&mut kept);
        // Under the lock, so that times never go back in the file.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        pcapng::packet(&mut w.out, interface, now.as_nanos() as u64, way, &kept, frame.len() as u32)?;
        w.frame = kept;
        self.frames.fetch_add(1, Relaxed);
        if w.flushed.elapsed() >= FLUSH {
            w.out.flush()?;
            w.flushed = Instant::now();
        }
        Ok(())
    }

    fn declare(&self, w: &mut Writing, (card, vport, sfnum): (usize, u16, u32)) -> io::Result<Option<u32>> {
        let name = name_of(card, vport, sfnum);
        let other = name_of(card, vport, 0);
        if !self.spec.ports.is_empty() && !self.spec.ports.iter().any(|p| *p == name || *p == other) {
            return Ok(None);
        }
        let description = match vport {
            UPLINK => format!("physical port {card}"),
            _ => format!("vport {vport:#x} of physical function {card}"),
        };
        pcapng::interface(&mut w.out, &name, &description, self.spec.snap)?;
        w.interfaces.push(name);
        Ok(Some(w.interfaces.len() as u32 - 1))
    }

    fn view(&self) -> CaptureView {
        let w = self.writing.lock();
        CaptureView {
            id: self.id,
            file: self.spec.file.clone(),
            wanted: self.spec.ports.clone(),
            snap: self.spec.snap,
            frames: self.frames.load(Relaxed),
            ports: w.interfaces.clone(),
            error: w.error.clone(),
        }
    }

    fn finish(&self) -> Summary {
        let mut w = self.writing.lock();
        if let (Err(e), None) = (w.out.flush(), &w.error) {
            w.error = Some(e.to_string());
        }
        Summary {
            file: self.spec.file.clone(),
            frames: self.frames.load(Relaxed),
            ports: w.interfaces.clone(),
            error: w.error.clone(),
        }
    }
}

type List = Arc<ArcSwap<Vec<Arc<Running>>>>;

/// The captures of a device.
#[derive(Debug)]
pub struct Captures {
    nic: Weak<Nic>,
    list: List,
    next: AtomicU64,
    change: Mutex<()>,
}

/// Hands frames to all captures.
struct Splitter {
    nic: Weak<Nic>,
    list: List,
}

impl Onlooker for Splitter {
    fn frame(&self, card: usize, vport: u16, way: Way, frame: &Frame<'_>) {
        let Some(nic) = self.nic.upgrade() else { return };
        let vports = nic.cards.get(card).map(|c| c.fabric.vports.pin());
        let sfnum = vports.and_then(|v| v.get(&vport).map(|v| v.user_number.load(Relaxed))).unwrap_or(0);
        for capture in self.list.load().iter() {
            capture.take((card, vport, sfnum), way, frame);
        }
    }
}

impl Captures {
    /// None yet.
    pub fn new(nic: &Arc<Nic>) -> Self {
        Self { nic: Arc::downgrade(nic), list: List::default(), next: AtomicU64::new(1), change: Mutex::new(()) }
    }

    /// Starts a capture; its number is for [`Self::stop`]. A file that is there is replaced.
    ///
    /// # Errors
    /// The file cannot be written, or there are too many captures.
    pub fn start(&self, spec: Spec) -> io::Result<u64> {
        let file = File::create(&spec.file)?;
        self.run(spec, file)
    }

    /// As [`Self::start`], with a file that is not there yet: for who asks from outside.
    ///
    /// # Errors
    /// As [`Self::start`]; [`io::ErrorKind::AlreadyExists`].
    pub fn start_new(&self, spec: Spec) -> io::Result<u64> {
        if self.list.load().len() >= MOST {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&spec.file)?;
        self.run(spec, file)
    }

    fn run(&self, spec: Spec, file: File) -> io::Result<u64> {
        let _change = self.change.lock();
        let mut list = (**self.list.load()).clone();
        if list.len() >= MOST {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let id = self.next.fetch_add(1, Relaxed);
        list.push(Arc::new(Running::start(id, spec, file)?));
        self.replace(list);
        Ok(id)
    }

    /// Ends a capture; none where there is no such.
    pub fn stop(&self, id: u64) -> Option<Summary> {
        let _change = self.change.lock();
        let (gone, left): (Vec<_>, Vec<_>) = self.list.load().iter().cloned().partition(|c| c.id == id);
        self.replace(left);
        gone.first().map(|c| c.finish())
    }

    /// Ends all.
    pub fn stop_all(&self) -> Vec<Summary> {
        let _change = self.change.lock();
        let gone = self.list.load_full();
        self.replace(vec![]);
        gone.iter().map(|c| c.finish()).collect()
    }

    /// The captures that run.
    pub fn list(&self) -> Vec<CaptureView> {
        self.list.load().iter().map(|c| c.view()).collect()
    }

    fn replace(&self, list: Vec<Arc<Running>>) {
        let some = !list.is_empty();
        self.list.store(Arc::new(list));
        if let Some(nic) = self.nic.upgrade() {
            let splitter = || Box::new(Splitter { nic: self.nic.clone(), list: self.list.clone() });
            nic.capture.show_to(some.then(|| splitter() as Box<dyn Onlooker>));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read_or_refused_in_words() {
        let spec: Spec = "a.pcapng,port=pf0sf88,port=uplink1,snap=96".parse().unwrap();
        assert_eq!(spec.ports, ["pf0sf88", "uplink1"]);
        assert_eq!((spec.snap, spec.file), (96, "a.pcapng".into()));
        for name in ["pf0", "pf1vport0x8000", "uplink0"] {
            assert!(is_name(name), "{name}");
        }
        for bad in ["", "pf", "pf0sf", "sf88", "uplink", "pf0vport", "pf0vport0x80000", "eth0", "pfx"] {
            assert_eq!(format!("f,port={bad}").parse::<Spec>(), Err(SpecError::Port(bad.to_owned())));
        }
        assert_eq!(",port=pf0".parse::<Spec>(), Err(SpecError::File));
        assert_eq!("f,snap=13".parse::<Spec>(), Err(SpecError::Snap("13".into())));
        assert_eq!("f,ports=x".parse::<Spec>(), Err(SpecError::Key("ports=x".into())));
    }

    #[test]
    fn wanted_frames_are_kept_with_the_names_of_their_ports() {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec { file: dir.path().join("x"), ports: vec!["uplink0".into(), "pf0sf88".into()], snap: 20 };
        let file = File::create(&spec.file).unwrap();
        let running = Running::start(1, spec, file).unwrap();
        let mut bytes = [7u8; 64];
        let frame = Frame::from_bytes(&mut bytes).unwrap();
        for key in [(0, UPLINK, 0), (0, 0, 0), (0, 0x8000, 88), (0, 0x8001, 89), (1, UPLINK, 0)] {
            running.take(key, Way::In, &frame);
        }
        let summary = running.finish();
        assert_eq!((summary.frames, summary.ports), (2, vec!["uplink0".to_owned(), "pf0sf88".to_owned()]));
        let packets = pcapng::read(&std::fs::read(dir.path().join("x")).unwrap()).unwrap();
        let got: Vec<(u32, usize, u32)> = packets.iter().map(|p| (p.interface, p.data.len(), p.length)).collect();
        assert_eq!(got, [(0, 20, 64), (1, 20, 64)]);
    }
}
