//! Wires to other processes, with both ends here.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sfnic_device_model::capture::Way;

use super::datagram::{Ends, open_datagram};
use super::pcap::{Replay, open_replay};
use super::stream::open_stream;
use super::vhost::Meeting;
use super::*;
use crate::capture::pcapng;

#[derive(Default)]
struct Seen(Mutex<Vec<Vec<u8>>>);

struct At(Arc<Seen>);

impl Inlet for At {
    fn receive(&mut self, frame: &mut [u8], _: Offload) {
        self.0.0.lock().push(frame.to_vec());
    }
    fn link_changed(&mut self) {}
}

/// A wire at work.
struct End {
    outlet: Arc<dyn Outlet>,
    link: Arc<Link>,
    seen: Arc<Seen>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl End {
    fn start(wire: Wire) -> Self {
        let (seen, done) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let (mut inlet, stop, driver) = (At(seen.clone()), done.clone(), wire.driver);
        let thread = std::thread::spawn(move || driver.run(&mut inlet, &|| stop.load(Ordering::Relaxed)));
        Self { outlet: wire.outlet, link: wire.link, seen, done, thread: Some(thread) }
    }

    fn send(&self, frame: &[u8]) -> bool {
        let sent = self.outlet.send(Offload::default(), frame);
        self.outlet.flush();
        sent
    }

    fn until(&self, what: &str, holds: impl Fn(&LinkCounters) -> bool) {
        let start = Instant::now();
        while !holds(&self.link.counters()) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.link.counters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            t.join().expect("the driver ends well");
        }
    }
}

fn frame(n: u8, size: usize) -> Vec<u8> {
    (0..size).map(|i| (i as u8).wrapping_mul(n)).collect()
}

fn both_ways(a: &End, b: &End) {
    for e in [a, b] {
        e.until("link up", |c| c.up);
    }
    for (n, size) in [(1, 60), (2, 1514), (3, 9000)] {
        assert!(a.send(&frame(n, size)) && b.send(&frame(n + 10, size)));
    }
    for (e, first) in [(b, 1), (a, 11)] {
        e.until("frames", |c| c.rx_frames == 3);
        let want: Vec<_> = [60, 1514, 9000].into_iter().zip(first..).map(|(size, n)| frame(n, size)).collect();
        assert!(*e.seen.0.lock() == want);
        e.seen.0.lock().clear();
    }
}

#[test]
fn datagrams_join_two_processes_and_follow_their_peer() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    let a = End::start(open_datagram(&Ends::Unix(at("a"), at("b"))).expect("free"));
    assert!(!a.send(&frame(1, 60)) && !a.link.is_up());
    let b = End::start(open_datagram(&Ends::Unix(at("b"), at("a"))).expect("free"));
    assert!(open_datagram(&Ends::Unix(at("a"), at("b"))).is_err(), "in use");
    both_ways(&a, &b);
    drop(b);
    a.until("link down", |c| !c.up && c.downs == 1);
    let b = End::start(open_datagram(&Ends::Unix(at("b"), at("a"))).expect("free again"));
    a.until("link up", |c| c.up && c.ups == 2);
    drop((a, b));
    assert!(!at("a").exists() && !at("b").exists());
}

#[test]
fn streams_join_two_processes_and_follow_their_peer() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    let a = End::start(open_stream(Meeting::Server(path.clone())).expect("free"));
    let b = End::start(open_stream(Meeting::Client(path.clone())).expect("free"));
    both_ways(&a, &b);
    drop(b);
    a.until("link down", |c| !c.up && c.downs == 1);
    // One that speaks as QEMU does, in pieces; then nonsense.
    let mut peer = UnixStream::connect(&path).expect("somebody listens");
    a.until("link up", |c| c.up);
    for byte in [&60u32.to_be_bytes()[..], &frame(7, 60)].concat() {
        peer.write_all(&[byte]).expect("written");
    }
    a.until("a frame", |c| c.rx_frames == 4);
    assert!(*a.seen.0.lock() == [frame(7, 60)]);
    assert!(a.send(&frame(8, 64)));
    let mut got = [0; 68];
    peer.read_exact(&mut got).expect("a frame");
    assert!(got[..4] == 64u32.to_be_bytes() && got[4..] == frame(8, 64));
    peer.write_all(&[0xff; 8]).expect("written");
    a.until("disconnected", |c| !c.up && c.errors == 1);
    assert!(a.link.counters().reason.contains("a frame of 4294967295 bytes"));
}

fn recorded(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).expect("a file");
    pcapng::read(&bytes).expect("a capture").into_iter().map(|p| p.data).collect()
}

#[test]
fn captures_are_replayed_and_recorded() {
    let dir = tempfile::tempdir().expect("directory");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let mut file = std::fs::File::create(&from).expect("a file");
    pcapng::section(&mut file).expect("written");
    pcapng::interface(&mut file, "x", "", 0).expect("written");
    for n in 1..4u8 {
        let time = 5_000_000_000 + u64::from(n) * 10_000_000;
        pcapng::packet(&mut file, 0, time, Way::In, &frame(n, 60), if n == 2 { 61 } else { 60 }).expect("written");
    }
    let replay = Replay { file: from.clone(), record: Some(to.clone()), at_once: false, times: 2 };
    let end = End::start(open_replay(replay.clone()).expect("good"));
    end.until("both times", |c| c.rx_frames == 4 && c.tx_lost == 2);
    assert!(*end.seen.0.lock() == [frame(1, 60), frame(3, 60), frame(1, 60), frame(3, 60)]);
    assert!(end.send(&frame(9, 100)));
    drop(end);
    assert!(recorded(&to) == [frame(9, 100)]);
    std::fs::write(&from, "no capture").expect("written");
    let why = open_replay(replay).err().expect("refused").to_string();
    assert!(why.ends_with("no capture file (pcap or pcapng)"), "{why}");
}
