//! A front end against the wire: the crate's for good behaviour, bytes for bad.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::ring::Place;
use super::ring::tests::{PLACE, SIZE, describe, offer};
use super::session::FEATURES;
use super::*;
use crate::wire::offload::Large;
use crate::wire::{Inlet, LinkCounters};

/// The ring to the guest.
const TO: Place = Place { size: SIZE, descriptors: 0x8000, available: 0x8800, used: 0x8c00 };
const BASE: u64 = 0x1000;
const LENGTH: u64 = 0x1_0000;
const USER: u64 = 0x7000_0000_0000;
const VERSION_1: u64 = 1 << 32;

/// What a port would get.
#[derive(Default)]
struct Port {
    frames: Mutex<Vec<(Offload, Vec<u8>)>>,
    unwanted: AtomicBool,
}

struct At(Arc<Port>);

impl Inlet for At {
    fn receive(&mut self, frame: &mut [u8], offload: Offload) {
        self.0.frames.lock().push((offload, frame.to_vec()));
    }
    fn link_changed(&mut self) {}
    fn wanted(&self) -> bool {
        !self.0.unwanted.load(Ordering::Relaxed)
    }
}

/// A wire at work.
struct Bench {
    outlet: Arc<dyn Outlet>,
    link: Arc<Link>,
    port: Arc<Port>,
    path: PathBuf,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("s");
        let wire = open_vhost(Meeting::Server(path.clone())).expect("a socket");
        let (port, done) = (Arc::new(Port::default()), Arc::new(AtomicBool::new(false)));
        let (mut inlet, stop, driver) = (At(port.clone()), done.clone(), wire.driver);
        let thread = std::thread::spawn(move || driver.run(&mut inlet, &|| stop.load(Ordering::Relaxed)));
        Self { outlet: wire.outlet, link: wire.link, port, path, done, thread: Some(thread), _dir: dir }
    }

    fn until(&self, what: &str, holds: impl Fn(&LinkCounters) -> bool) {
        let start = Instant::now();
        while !holds(&self.link.counters()) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.link.counters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn front(&self) -> Front {
        let front = Front::new(&self.path);
        self.until("link up", |c| c.up);
        front
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            t.join().expect("the driver ends well");
        }
    }
}

/// A guest with its two rings.
struct Front {
    mem: Memory,
    kicks: [EventFd; 2],
    calls: [EventFd; 2],
    front: Frontend,
}

fn eventfd() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK).expect("an eventfd")
}

impl Front {
    fn new(path: &Path) -> Self {
        let fd = rustix::fs::memfd_create("guest", MemfdFlags::ALLOW_SEALING).expect("memory");
        rustix::fs::ftruncate(&fd, LENGTH).expect("memory");
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).expect("a seal");
        let file = std::fs::File::from(fd);
        let raw = file.as_raw_fd();
        let range = (GuestAddress(BASE), LENGTH as usize, Some(FileOffset::new(file, 0)));
        let mem = Memory::from_ranges_with_files([range]).expect("memory");
        let mut front = Frontend::connect(path, 16).expect("somebody listens");
        front.set_owner().expect("owner");
        assert_eq!(front.get_features().expect("features"), FEATURES);
        front.set_features(FEATURES).expect("features");
        let offered = front.get_protocol_features().expect("protocol features");
        let wanted = offered & (VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK);
        front.set_protocol_features(wanted).expect("protocol features");
        assert_eq!(front.get_queue_num().expect("queues"), MAX_PAIRS as u64);
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: BASE,
            memory_size: LENGTH,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: raw,
        };
        front.set_mem_table(&[region]).expect("memory");
        let f = Self { mem, kicks: [eventfd(), eventfd()], calls: [eventfd(), eventfd()], front };
        f.start(0, TO);
        f.start(1, PLACE);
        f
    }

    fn start(&self, index: usize, place: Place) {
        let user = |guest: u64| guest - BASE + USER;
        let config = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: user(place.descriptors),
            used_ring_addr: user(place.used),
            avail_ring_addr: user(place.available),
            log_addr: None,
        };
        self.front.set_vring_num(index, SIZE).expect("size");
        self.front.set_vring_addr(index, &config).expect("addresses");
        self.front.set_vring_base(index, 0).expect("base");
        self.front.set_vring_call(index, &self.calls[index]).expect("call");
        self.front.set_vring_kick(index, &self.kicks[index]).expect("kick");
        let mut front = self.front.clone();
        front.set_vring_enable(index, true).expect("enable");
    }

    /// Sends a frame of one descriptor with its header.
    fn send(&self, header: &[u8; 12], frame: &[u8]) {
        self.mem.write_slice(header, GuestAddress(0x4000)).expect("in memory");
        self.mem.write_slice(frame, GuestAddress(0x400c)).expect("in memory");
        describe(&self.mem, PLACE.descriptors, 0, (0x4000, 12 + frame.len() as u32), 0, 0);
        offer(&self.mem, &[0]);
        self.kicks[1].write(1).expect("kick");
    }

    /// Offers buffers to the ring to the guest.
    fn room(&self, buffers: &[(u64, u32)]) {
        let index: u16 = self.mem.read_obj(GuestAddress(TO.available + 2)).expect("in memory");
        for (i, buffer) in (0u16..).zip(buffers) {
            let slot = index.wrapping_add(i) % SIZE;
            describe(&self.mem, TO.descriptors, slot, *buffer, 2, 0);
            self.mem.write_obj(slot, GuestAddress(TO.available + 4 + 2 * u64::from(slot))).expect("in memory");
        }
        let index = index.wrapping_add(buffers.len() as u16);
        self.mem.write_obj(index, GuestAddress(TO.available + 2)).expect("in memory");
        self.kicks[0].write(1).expect("kick");
    }

    fn used(&self, place: Place) -> u16 {
        self.mem.read_obj(GuestAddress(place.used + 2)).expect("in memory")
    }
}

#[test]
fn frames_pass_both_ways_with_their_offloads() {
    let bench = Bench::new();
    let front = bench.front();
    assert!(FEATURES & VERSION_1 != 0 && bench.outlet.joins(false) && bench.outlet.joins(true));
    // From the guest: a large frame, whole.
    let offload = Offload { checksum: Some((34, 16)), large: Some(Large { ipv6: false, header: 66, segment: 1448 }) };
    let mut header = [0; 12];
    header[..10].copy_from_slice(&offload.to_bytes());
    let frame: Vec<u8> = (0..9000).map(|i| (i * 7) as u8).collect();
    front.send(&header, &frame);
    bench.until("a frame from the guest", |c| c.rx_frames == 1);
    assert_eq!(std::mem::take(&mut *bench.port.frames.lock()), [(offload, frame)]);
    let start = Instant::now();
    while front.calls[1].read().is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "no call");
    }
    assert_eq!(front.used(PLACE), 1);

    // To the guest: one frame in two buffers, which it sees at once.
    front.room(&[(0xa000, 1000), (0xb000, 1000)]);
    let frame: Vec<u8> = (0..1500).map(|i| (i * 3) as u8).collect();
    assert!(bench.outlet.send(offload, &frame));
    bench.outlet.flush();
    assert_eq!(front.used(TO), 2);
    assert!(front.calls[0].read().is_ok());
    let mut got = vec![0; 1512];
    front.mem.read_slice(&mut got[..1000], GuestAddress(0xa000)).expect("in memory");
    front.mem.read_slice(&mut got[1000..], GuestAddress(0xb000)).expect("in memory");
    assert_eq!(got[..10], offload.to_bytes());
    assert_eq!(got[10..12], 2u16.to_le_bytes());
    assert_eq!(got[12..], frame);
    let lengths: Vec<u32> =
        [4, 12].map(|at| front.mem.read_obj(GuestAddress(TO.used + at + 4)).expect("in memory")).into();
    assert_eq!(lengths, [1000, 512]);

    // Without buffers frames wait, in order; too many are lost.
    for n in 0..MAX_WAITING {
        assert!(bench.outlet.send(Offload::default(), &[n as u8; 60]));
    }
    assert!(!bench.outlet.send(Offload::default(), &[0; 60]));
    front.room(&[(0xa000, 100), (0xb000, 100)]);
    bench.until("frames that waited", |c| c.tx_frames == 3);
    let second: u8 = front.mem.read_obj(GuestAddress(0xb000 + 12)).expect("in memory");
    assert_eq!((second, bench.link.counters().tx_lost), (1, 1));

    // A ring that stops says where it was.
    assert_eq!(front.front.get_vring_base(1).expect("base"), 1);
    bench.until("link down", |c| !c.up && c.errors == 0);
}

#[test]
fn eventfds_that_block_and_are_full_stop_nobody() {
    let bench = Bench::new();
    let front = bench.front();
    for index in 0..2 {
        let full = EventFd::new(0).expect("an eventfd");
        full.write(u64::MAX - 1).expect("room for so much");
        front.front.set_vring_call(index, &full).expect("call");
    }
    // What was said before is followed when this is answered.
    front.front.get_features().expect("features");
    front.send(&[0; 12], &[1; 60]);
    bench.until("a frame from the guest", |c| c.rx_frames == 1);
    front.room(&[(0xa000, 1000)]);
    assert!(bench.outlet.send(Offload::default(), &[2; 60]));
    bench.outlet.flush();
    assert_eq!(front.used(TO), 1);
}

#[test]
fn hostile_rings_end_the_session_and_nothing_else() {
    let bench = Bench::new();
    type Damage = fn(&Front);
    let damages: [(&str, Damage); 6] = [
        ("ring 1: a chain of more than 1024 descriptors", |f| {
            describe(&f.mem, PLACE.descriptors, 0, (0x4000, 64), 1, 0);
            offer(&f.mem, &[0]);
        }),
        ("ring 1: the buffer at 0xdead0000 is not in guest memory", |f| {
            describe(&f.mem, PLACE.descriptors, 0, (0xdead_0000, 64), 0, 0);
            offer(&f.mem, &[0]);
        }),
        ("ring 1: descriptor 9 in a table of 8", |f| offer(&f.mem, &[9])),
        ("ring 1: the driver offers 9 buffers", |f| {
            f.mem.write_obj(9u16, GuestAddress(PLACE.available + 2)).expect("in memory");
        }),
        ("ring 1: a frame of 5 bytes", |f| {
            describe(&f.mem, PLACE.descriptors, 0, (0x4000, 5), 0, 0);
            offer(&f.mem, &[0]);
        }),
        // To the guest: found by whoever sends.
        ("a chain without any room", |f| f.room(&[(0xa000, 0)])),
    ];
    for (n, (why, damage)) in (1..).zip(damages) {
        let front = bench.front();
        damage(&front);
        front.kicks[1].write(1).expect("kick");
        bench.outlet.send(Offload::default(), &[0; 60]);
        bench.until(why, |c| c.errors == n && !c.up);
        let reason = bench.link.counters().reason;
        assert!(reason.contains(why), "{reason}");
        assert!(!bench.outlet.send(Offload::default(), &[0; 60]), "nobody is there");
    }
}

/// A message by hand.
fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut m = request.to_le_bytes().to_vec();
    m.extend((flags | 1).to_le_bytes());
    m.extend((payload.len() as u32).to_le_bytes());
    m.extend(payload);
    m
}

#[test]
fn malformed_messages_end_the_session_with_a_reason() {
    const SET_FEATURES: u32 = 2;
    const SET_MEM_TABLE: u32 = 5;
    const SET_VRING_NUM: u32 = 8;
    const SET_VRING_KICK: u32 = 12;
    let state = |index: u32, num: u32| [index.to_le_bytes(), num.to_le_bytes()].concat();
    let bench = Bench::new();
    let cases = [
        (vec![0xff; 64], "a message"),
        (message(999, 0, &[]), "a message"),
        (message(SET_FEATURES, 0, &[0; 3]), "a message"),
        (message(SET_FEATURES, 0, &u64::MAX.to_le_bytes()), "that were not offered"),
        (message(SET_VRING_NUM, 0, &state(16, 8)), "ring 16"),
        (message(SET_VRING_NUM, 0, &state(0, 7)), "a ring of 7 buffers"),
        (message(SET_VRING_NUM, 0, &state(0, 1 << 20)), "a ring of 1048576 buffers"),
        (message(SET_MEM_TABLE, 0, &[9, 0, 0, 0, 0, 0, 0, 0]), "9 regions of memory"),
        (message(SET_VRING_KICK, 0, &0x100u64.to_le_bytes()), "without a kick"),
    ];
    for (n, (bytes, why)) in (1..).zip(&cases) {
        let mut stream = UnixStream::connect(&bench.path).expect("somebody listens");
        stream.write_all(bytes).expect("written");
        bench.until(why, |c| c.errors == n);
        let reason = bench.link.counters().reason;
        assert!(reason.contains(why), "{bytes:?}: {reason}");
    }
    // One that leaves in the middle of a message, and a good one after all of them.
    let mut stream = UnixStream::connect(&bench.path).expect("somebody listens");
    stream.write_all(&message(SET_FEATURES, 0, &[0; 8])[..10]).expect("written");
    drop(stream);
    bench.front();
}

#[test]
fn memory_that_can_shrink_is_refused() {
    let bench = Bench::new();
    let file = tempfile::tempfile().expect("a file");
    file.set_len(LENGTH).expect("a file");
    let front = Frontend::connect(&bench.path, 16).expect("somebody listens");
    front.set_owner().expect("owner");
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: BASE,
        memory_size: LENGTH,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    let _ = front.set_mem_table(&[region]);
    bench.until("refused", |c| c.errors == 1);
    assert!(bench.link.counters().reason.contains("could shrink"), "{:?}", bench.link.counters());
}

#[test]
fn peers_come_and_go() {
    let bench = Bench::new();
    for n in 1..4 {
        let front = bench.front();
        assert_eq!(bench.link.counters().ups, n);
        drop(front);
        bench.until("link down", |c| !c.up && c.downs == n);
    }
    // A port that is taken down takes its guest's link down, and the socket with it.
    let front = bench.front();
    bench.port.unwanted.store(true, Ordering::Relaxed);
    bench.until("link down", |c| !c.up && c.reason == "the port is down");
    assert!(UnixStream::connect(&bench.path).is_err());
    assert!(front.front.get_features().is_err());
    bench.port.unwanted.store(false, Ordering::Relaxed);
    let start = Instant::now();
    while UnixStream::connect(&bench.path).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the socket did not come back");
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.front();
    assert_eq!(bench.link.counters().errors, 0);
}
