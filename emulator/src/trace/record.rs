//! The recorder of a device that writes a trace file.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use sfnic_device_model::trace::{Origin, Record, Recorder};

use super::file::{Header, PLENTY, put, put_command, trimmed, write_header};

/// Bytes that wait for the disk before records are lost.
const MAX_WAITING: usize = 64 << 20;
/// How long what happened waits before it is written.
const FLUSH: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    records: u64,
    lost: u64,
    lost_now: u64,
    done: bool,
    error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    ring: Condvar,
}

/// Takes what happens and leaves the writing to a thread of its own. What the
/// disk has no room or time for is lost and counted; the device never waits.
#[derive(Debug)]
struct FileRecorder(Arc<Shared>);

impl Recorder for FileRecorder {
    fn record(&self, at: Origin, what: &Record<'_>) {
        let mut w = self.0.waiting.lock();
        if w.error.is_some() || w.bytes.len() > MAX_WAITING {
            w.lost += 1;
            w.lost_now += 1;
            return;
        }
        if w.lost_now > 0 {
            let n = std::mem::take(&mut w.lost_now);
            put(&mut w.bytes, 8, at.card, at.function, at.time_ns, |to| to.extend(n.to_be_bytes()));
        }
        w.records += 1;
        let kind = match what {
            Record::Command { .. } => 1,
            Record::Event { .. } => 2,
            Record::Doorbell { .. } => 3,
            Record::Read { .. } => 4,
            Record::Write { .. } => 5,
            Record::Reset => 6,
        };
        put(&mut w.bytes, kind, at.card, at.function, at.time_ns, |to| match *what {
            Record::Command { slot, delivery, input, output } => {
                let flags = u8::from(!output.is_empty());
                let halves = ((trimmed(input), input.len()), (trimmed(output), output.len()));
                put_command(to, slot, delivery, flags, halves.0, halves.1);
            }
            Record::Event { eqn, entry } => {
                to.push(eqn);
                to.extend(entry);
            }
            Record::Doorbell { offset, data } | Record::Read { offset, data } | Record::Write { offset, data } => {
                to.extend(offset.to_be_bytes());
                to.extend(data);
            }
            Record::Reset => {}
        });
        let plenty = w.bytes.len() >= PLENTY;
        drop(w);
        if plenty {
            self.0.ring.notify_one();
        }
    }
}

/// A recording under way.
#[derive(Debug)]
pub struct Recording {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What became of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Records in the file.
    pub records: u64,
    /// Records that are not.
    pub lost: u64,
    /// Why nothing more could be written.
    pub error: Option<String>,
}

impl Recording {
    /// Creates the file and starts the thread that writes it.
    ///
    /// # Errors
    /// The file or the thread cannot be had.
    pub fn create(path: &Path, header: &Header) -> io::Result<Recording> {
        let mut file = File::create(path)?;
        write_header(&mut file, header)?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("trace".to_owned()).spawn(move || drain(&theirs, &mut file))?;
        Ok(Recording { shared, thread: Some(thread) })
    }

    /// What the device is given.
    pub fn recorder(&self) -> Arc<dyn Recorder> {
        Arc::new(FileRecorder(self.shared.clone()))
    }

    /// Writes what is left and ends.
    pub fn finish(mut self) -> Outcome {
        self.end();
        let w = self.shared.waiting.lock();
        Outcome { records: w.records, lost: w.lost, error: w.error.clone() }
    }

    fn end(&mut self) {
        self.shared.waiting.lock().done = true;
        self.shared.ring.notify_one();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end();
    }
}

fn drain(shared: &Shared, file: &mut impl Write) {
    let mut bytes = vec![];
    loop {
        let done = {
            let mut w = shared.waiting.lock();
            if w.bytes.len() < PLENTY && !w.done {
                shared.ring.wait_for(&mut w, FLUSH);
            }
            bytes.clear();
            std::mem::swap(&mut bytes, &mut w.bytes);
            w.done
        };
        if let Err(e) = file.write_all(&bytes) {
            shared.waiting.lock().error = Some(e.to_string());
            return;
        }
        if done {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::read;
    use super::*;

    #[test]
    fn a_recording_has_everything_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let recording = Recording::create(&path, &Header::default()).unwrap();
        let recorder = recording.recorder();
        for n in 0..10_000u64 {
            let at = Origin { time_ns: n, card: 0, function: 0 };
            recorder.record(at, &Record::Doorbell { offset: n, data: &[1, 2, 3, 4] });
        }
        let outcome = recording.finish();
        assert_eq!((outcome.records, outcome.lost, outcome.error), (10_000, 0, None));
        let trace = read(File::open(&path).unwrap()).unwrap();
        assert_eq!(trace.entries.len(), 10_000);
        assert!(trace.entries.iter().enumerate().all(|(i, e)| e.time_ns == i as u64));
    }
}
