//! Front ends that break the rules of vhost-user, by chance: messages, descriptors, memory
//! and rings. Each one loses its own link, with a reason; a neighbour's traffic goes on, and
//! no descriptor, mapping or thread is left of any of them.
//!
//! `SFNIC_SEED=N` tries another sequence. The test is alone in its process, whose descriptors
//! it counts.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sfnic_emulator::wire::offload::Offload;
use sfnic_emulator::wire::vhost::Meeting;
use sfnic_emulator::wire::{Inlet, Link, Outlet, open_vhost};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Wires that are attacked, each by one front end at a time.
const WIRES: usize = 16;
/// Front ends of each.
const SESSIONS: usize = 10;
const BASE: u64 = 0x1000;
const LENGTH: u64 = 0x1_0000;
const USER: u64 = 0x7000_0000_0000;
const SIZE: u16 = 16;

const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ENABLE: u32 = 18;

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// An address, mostly one that means something.
    fn address(&mut self) -> u64 {
        let place = self.one(&[0, BASE, BASE + LENGTH, USER, USER + LENGTH, u64::MAX, 1 << 63, 0xdead_0000]);
        place.wrapping_add(self.one(&[0, 0, 1, 2, 16, 0x800, 0u64.wrapping_sub(1), 0u64.wrapping_sub(16)]))
    }
}

/// A port that counts.
struct Port(Arc<AtomicU64>);

impl Inlet for Port {
    fn receive(&mut self, _: &mut [u8], _: Offload) {
        self.0.fetch_add(1, Relaxed);
    }
    fn link_changed(&mut self) {}
}

/// A wire at work.
struct Bench {
    outlet: Arc<dyn Outlet>,
    link: Arc<Link>,
    frames: Arc<AtomicU64>,
    path: PathBuf,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bench {
    fn new(path: PathBuf) -> Self {
        let wire = open_vhost(Meeting::Server(path.clone())).expect("a socket");
        let (frames, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (mut inlet, stop, driver) = (Port(frames.clone()), done.clone(), wire.driver);
        let thread = std::thread::spawn(move || driver.run(&mut inlet, &|| stop.load(Relaxed)));
        Self { outlet: wire.outlet, link: wire.link, frames, path, done, thread: Some(thread) }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        if let Some(t) = self.thread.take() {
            t.join().expect("the driver ends well");
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn memory(seals: SealFlags, length: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("hostile", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memory");
    rustix::fs::ftruncate(&fd, length).expect("memory");
    if !seals.is_empty() {
        rustix::fs::fcntl_add_seals(&fd, seals).expect("a seal");
    }
    fd
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an eventfd")
}

/// A front end by hand.
struct Front {
    stream: UnixStream,
    mem: GuestMemoryMmap,
    file: OwnedFd,
    kicks: [OwnedFd; 2],
    calls: [OwnedFd; 2],
}

/// Where the rings are: descriptors, available, used.
const RINGS: [[u64; 3]; 2] = [[0x8000, 0x8800, 0x8c00], [0x1000, 0x1800, 0x1c00]];

impl Front {
    fn new(path: &Path) -> Self {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) => assert!(start.elapsed() < Duration::from_secs(60), "nobody listens: {e}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let file = memory(SealFlags::SHRINK, LENGTH);
        let map = FileOffset::new(file.try_clone().expect("a descriptor").into(), 0);
        let mem = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(BASE), LENGTH as usize, Some(map))]);
        Self { stream, mem: mem.expect("memory"), file, kicks: [event(), event()], calls: [event(), event()] }
    }

    /// Sends a message; whether it could be sent.
    fn say(&self, request: u32, flags: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut m = request.to_le_bytes().to_vec();
        m.extend(flags.to_le_bytes());
        m.extend((payload.len() as u32).to_le_bytes());
        m.extend(payload);
        self.bytes(&m, fds)
    }

    fn bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
    }

    fn region(guest: u64, size: u64, user: u64, offset: u64) -> Vec<u8> {
        [guest, size, user, offset].iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn state(index: u32, number: u32) -> Vec<u8> {
        [index.to_le_bytes(), number.to_le_bytes()].concat()
    }

    /// What a good front end says, up to running rings.
    fn start(&self) {
        self.say(SET_OWNER, 1, &[], &[]);
        // VERSION_1, several queues, protocol features.
        self.say(SET_FEATURES, 1, &(1u64 << 32 | 1 << 30 | 1 << 15).to_le_bytes(), &[]);
        let table = [&Self::state(1, 0)[..], &Self::region(BASE, LENGTH, USER, 0)].concat();
        self.say(SET_MEM_TABLE, 1, &table, &[self.file.as_fd()]);
        for (i, [descriptors, available, used]) in (0u32..).zip(RINGS) {
            self.say(SET_VRING_NUM, 1, &Self::state(i, SIZE.into()), &[]);
            let mut addresses = Self::state(i, 0);
            for at in [descriptors, used, available] {
                addresses.extend((at - BASE + USER).to_le_bytes());
            }
            addresses.extend([0; 8]);
            self.say(SET_VRING_ADDR, 1, &addresses, &[]);
            self.say(SET_VRING_BASE, 1, &Self::state(i, 0), &[]);
            let index = u64::from(i).to_le_bytes();
            self.say(SET_VRING_CALL, 1, &index, &[self.calls[i as usize].as_fd()]);
            self.say(SET_VRING_KICK, 1, &index, &[self.kicks[i as usize].as_fd()]);
            self.say(SET_VRING_ENABLE, 1, &Self::state(i, 1), &[]);
        }
    }

    fn kick(&self, ring: usize) {
        let _ = rustix::io::write(&self.kicks[ring], &1u64.to_ne_bytes());
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.mem.write_obj(value, GuestAddress(at)).expect("in memory");
    }

    fn describe(&self, at: u64, (address, length): (u64, u32), flags: u16, next: u16) {
        self.put(at, address);
        self.put(at + 8, length);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Sends one good frame, as the `n`th of this ring.
    fn send(&self, n: u16) {
        let [descriptors, available, _] = RINGS[1];
        self.describe(descriptors + 16 * u64::from(n % SIZE), (0x4000, 12 + 60), 0, 0);
        self.put(available + 4 + 2 * u64::from(n % SIZE), n % SIZE);
        self.put(available + 2, n.wrapping_add(1));
        self.kick(1);
    }

    /// A message that nobody should send.
    fn babble(&self, c: &mut Chance) -> bool {
        let request = match c.below(4) {
            0 => c.below(48) as u32,
            _ => c.one(&[2, 5, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 34]),
        };
        let flags = c.one(&[1, 1, 1, 1, 1, 9, 9, 0, 5, 0xffff_ffff]);
        let right = match request {
            SET_MEM_TABLE => 8 + 32 * c.below(9) as usize,
            SET_VRING_ADDR => 40,
            _ => 8,
        };
        let len = match c.below(6) {
            0 => c.below(600) as usize,
            _ => right,
        };
        let mut payload: Vec<u8> = (0..len).map(|_| c.next() as u8).collect();
        if len >= 8 && c.below(4) > 0 {
            let first = c.one(&[0, 1, 2, 3, 15, 16, 255, 256, 257, 0xffff_ffff]);
            let second = c.one(&[0, 1, 7, 8, 16, 1024, 2048, 0xffff, 0x1_0000, 0xffff_ffff]);
            payload[..8].copy_from_slice(&Self::state(first, second));
        }
        for word in payload.get_mut(8..).unwrap_or_default().chunks_exact_mut(8) {
            let value = match c.below(3) {
                0 => c.address(),
                _ => c.one(&[0, 1, 0x1000, LENGTH, LENGTH + 1, u64::MAX, 1 << 40]),
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
        let (pipe, _other) = std::io::pipe().expect("a pipe");
        let null = std::fs::File::open("/dev/null").expect("null");
        let (unsealed, empty) = (memory(SealFlags::SEAL, LENGTH), memory(SealFlags::empty(), 0));
        let kinds = [
            self.file.as_fd(),
            self.kicks[0].as_fd(),
            self.calls[1].as_fd(),
            pipe.as_fd(),
            null.as_fd(),
            unsealed.as_fd(),
            empty.as_fd(),
            self.stream.as_fd(),
        ];
        let count = match c.below(8) {
            0 => c.below(20),
            1..4 => 1,
            4 => payload.first().map_or(0, |n| u64::from(n % 9)),
            _ => 0,
        };
        let fds: Vec<BorrowedFd<'_>> = (0..count).map(|_| c.one(&kinds)).collect();
        self.say(request, flags, &payload, &fds)
    }

    /// Fills rings with whatever.
    fn scribble(&self, c: &mut Chance) {
        for [descriptors, available, _] in RINGS {
            for i in 0..u64::from(SIZE) {
                let place = match c.below(3) {
                    0 => c.address(),
                    _ => BASE + c.below(LENGTH),
                };
                let length = c.one(&[0, 1, 11, 12, 16, 64, 72, 160, 1500, 0x1_0000, 0x2_0000, u32::MAX]);
                self.describe(descriptors + 16 * i, (place, length), c.below(9) as u16, c.below(18) as u16);
                self.put(available + 4 + 2 * i, c.one(&[0, 1, 2, 3, 5, 8, 15, 16, 0xffff]));
            }
            self.put(available, c.below(3) as u16);
            self.put(available + 2, c.one(&[0, 1, 2, 15, 16, 17, 0x7fff, 0xffff]));
        }
    }

    /// Reads whatever was answered.
    fn hear(&mut self) {
        let _ = self.stream.set_nonblocking(true);
        let mut buf = [0; 4096];
        while matches!(self.stream.read(&mut buf), Ok(n) if n > 0) {}
        let _ = self.stream.set_nonblocking(false);
    }
}

/// One front end that does some of everything.
fn attack(bench: &Bench, c: &mut Chance) {
    let mut front = Front::new(&bench.path);
    if c.below(4) > 0 {
        front.start();
        // Most get far enough for the rings to matter.
        until("an end of the start", || bench.link.is_up() || bench.link.counters().reason.contains("disconnected"));
    }
    for _ in 0..c.below(24) {
        match c.below(8) {
            0..3 => {
                if !front.babble(c) {
                    break;
                }
            }
            3 => front.scribble(c),
            4 => front.send(0),
            5 => {
                bench.outlet.send(Offload::default(), &vec![c.next() as u8; 60 + c.below(9000) as usize]);
                bench.outlet.flush();
            }
            6 => front.hear(),
            _ => (0..2).for_each(|ring| front.kick(ring)),
        }
    }
    if c.below(8) == 0 {
        // Half a message, and then nothing.
        let n = 1 + c.below(11) as usize;
        let _ = front.stream.write_all(&[1; 12][..n]);
    }
}

fn count(of: &str) -> usize {
    std::fs::read_dir(of).expect("proc").count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
    maps.lines().filter(|l| l.contains("memfd:hostile")).count()
}

#[test]
fn whoever_breaks_the_rules_loses_its_own_link_and_nothing_else_notices() {
    let seed = std::env::var("SFNIC_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_122);
    println!("seed {seed}");
    let dir = tempfile::tempdir().expect("directory");
    let benches: Vec<Bench> = (0..WIRES).map(|n| Bench::new(dir.path().join(format!("s{n}")))).collect();
    let neighbour = Bench::new(dir.path().join("neighbour"));
    let good = Front::new(&neighbour.path);
    good.start();
    until("the neighbour's link", || neighbour.link.is_up());
    let (fds, tasks, maps) = (count("/proc/self/fd"), count("/proc/self/task"), mappings());

    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let mut n = 0u16;
            while busy.load(Relaxed) || n < 100 {
                good.send(n);
                n += 1;
                until("the neighbour's frame", || neighbour.frames.load(Relaxed) == u64::from(n));
                std::thread::sleep(Duration::from_millis(1));
            }
            n
        });
        let attacks: Vec<_> = benches
            .iter()
            .zip(1..)
            .map(|(bench, n)| {
                scope.spawn(move || {
                    let mut chance = Chance(seed ^ (n << 32));
                    (0..SESSIONS).for_each(|_| attack(bench, &mut chance));
                })
            })
            .collect();
        attacks.into_iter().for_each(|a| a.join().expect("an attack"));
        busy.store(false, Relaxed);
        assert!(sent.join().expect("the neighbour") >= 100);
    });

    let mut faults = 0;
    for bench in &benches {
        until("the link's end", || !bench.link.is_up());
        let c = bench.link.counters();
        assert!(c.errors <= SESSIONS as u64 && !c.reason.is_empty(), "{c:?}");
        faults += c.errors;
        // It takes a good one as if nothing had been.
        let front = Front::new(&bench.path);
        front.start();
        until("a good front end", || bench.link.is_up());
        let before = bench.frames.load(Relaxed);
        front.send(0);
        until("a frame", || bench.frames.load(Relaxed) == before + 1);
    }
    println!("{faults} of {} were disconnected for what they did", WIRES * SESSIONS);
    assert!(faults > (WIRES * SESSIONS / 4) as u64, "few of them did anything wrong");
    let c = neighbour.link.counters();
    assert!(c.up && c.errors == 0 && c.downs == 0 && c.tx_lost == 0, "{c:?}");
    until("the ends of all sessions", || benches.iter().all(|b| !b.link.is_up()));
    until("descriptors closed", || count("/proc/self/fd") == fds);
    assert_eq!((count("/proc/self/task"), mappings()), (tasks, maps));
}
