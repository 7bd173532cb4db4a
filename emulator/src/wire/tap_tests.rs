//! TAP interfaces of one queue and of several, with the host's end here too: each test has a
//! network namespace of its own.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sfnic_device_model::fabric::port::Far;
use sfnic_test_driver::frames::{Flow4, checksums_hold, pattern};
use sfnic_test_driver::{NetdevConfig, Rig};

use super::offload::{HEADER, Large, Offload};
use super::steer::{self, tests::frame};
use super::tap::{TapWire, WireError};
use super::tap_driver::of_queues;
use super::*;
use crate::tapbench::in_private_network;

const NAME: &str = "x0";
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Runs a test in a network of its own; where that cannot be, there is nothing to test.
fn in_network(test: impl FnOnce() + Send) {
    let done = in_private_network(|| {
        if let Err(e) = TapWire::open("probe") {
            anyhow::bail!("{e}");
        }
        Ok(())
    });
    match done {
        Ok(()) => in_private_network(|| {
            // What the host's kernel would say by itself is none of ours.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            test();
            Ok(())
        })
        .expect("as before"),
        Err(e) => eprintln!("skipped: {e:#}"),
    }
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().expect("iproute2").success(), "ip {words}");
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until nobody has a queue: what other tests start has all descriptors for a moment.
fn is_free() {
    until("it is free", || interface::queues_in_use(NAME) == 0);
}

/// The host's end: a packet socket, with the header of offloads before each frame.
struct Host(OwnedFd);

#[allow(unsafe_code)]
impl Host {
    fn new() -> Self {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into()) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the call has just made this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let raw = std::ffi::CString::new(NAME).expect("no NUL");
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: all,
            // SAFETY: a string with its NUL.
            sll_ifindex: unsafe { libc::if_nametoindex(raw.as_ptr()) } as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address and its length.
        assert_eq!(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) }, 0);
        const IGNORE_OUTGOING: libc::c_int = 23;
        for (level, option, value) in [
            (libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1),
            (libc::SOL_PACKET, IGNORE_OUTGOING, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20),
        ] {
            let value: libc::c_int = value;
            let length = size_of_val(&value) as libc::socklen_t;
            // SAFETY: an integer and its length.
            let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        }
        Self(fd)
    }

    fn send(&self, offload: Offload, frame: &[u8]) {
        let all = [&offload.to_bytes()[..], frame].concat();
        // SAFETY: a buffer and its length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), all.as_ptr().cast(), all.len(), 0) };
        assert_eq!(sent, all.len() as isize, "{}", io::Error::last_os_error());
    }

    fn receive(&self) -> Option<(Offload, Vec<u8>)> {
        let mut buf = vec![0u8; 70_000];
        // SAFETY: a buffer and its length.
        let got = unsafe { libc::recv(self.0.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
        let got = usize::try_from(got).ok()?;
        let head = buf.first_chunk::<HEADER>().copied()?;
        Some((Offload::from_bytes(head), buf[HEADER..got].to_vec()))
    }
}

/// What came by a queue.
type Seen = Arc<Mutex<Vec<(Offload, Vec<u8>)>>>;

struct At(Seen);

impl Inlet for At {
    fn receive(&mut self, frame: &mut [u8], offload: Offload) {
        self.0.lock().push((offload, frame.to_vec()));
    }
    fn link_changed(&mut self) {}
}

/// A wire at work, a thread a queue.
struct End {
    outlet: Arc<dyn Outlet>,
    link: Arc<Link>,
    seen: Vec<Seen>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl End {
    fn start(queues: usize) -> Self {
        let wire = open_tap(&Interface { name: NAME.to_owned(), queues }).expect("a TAP interface");
        Self::of(wire, queues)
    }

    fn of(mut wire: Wire, queues: usize) -> Self {
        let mut drivers = wire.driver.further();
        drivers.insert(0, wire.driver);
        assert_eq!(drivers.len(), queues);
        let seen: Vec<Seen> = drivers.iter().map(|_| Seen::default()).collect();
        let done = Arc::new(AtomicBool::new(false));
        let threads = drivers.into_iter().zip(&seen).map(|(driver, seen)| {
            let (mut inlet, stop) = (At(seen.clone()), done.clone());
            std::thread::spawn(move || driver.run(&mut inlet, &|| stop.load(Ordering::Relaxed)))
        });
        let threads = threads.collect();
        Self { outlet: wire.outlet, link: wire.link, seen, done, threads }
    }

    fn came(&self) -> usize {
        self.seen.iter().map(|s| s.lock().len()).sum()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            t.join().expect("the driver ends well");
        }
    }
}

/// Ends threads, also where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The frame of a flow with a number in it; odd flows are IPv6.
fn numbered(flow: u16, number: u32, back: bool) -> Vec<u8> {
    let (mut ends, mut ports) = ([0x0a00_0001, 0x0a00_0002], [1000 + flow, 2000]);
    if back {
        ends.reverse();
        ports.reverse();
    }
    let mut f = frame(flow % 2 == 1, 0, UDP, ends, ports);
    f.extend([flow.to_be_bytes(), [0; 2]].concat());
    f.extend(number.to_be_bytes());
    f
}

/// Flow and number.
fn read(frame: &[u8]) -> (u16, u32) {
    let tail = &frame[frame.len() - 8..];
    (u16::from_be_bytes([tail[0], tail[1]]), u32::from_be_bytes([tail[4], tail[5], tail[6], tail[7]]))
}

const FLOWS: u16 = 64;
const EACH: u32 = 300;

/// Both halves of the flows, each on a thread of its own, that many at a time.
fn send_all(send: impl Fn(u16, u32) + Sync) {
    std::thread::scope(|s| {
        for half in 0..2 {
            let send = &send;
            s.spawn(move || {
                for n in 0..EACH {
                    (0..FLOWS).filter(|flow| flow % 4 / 2 == half).for_each(|flow| send(flow, n));
                }
            });
        }
    });
}

fn in_order<'a>(frames: impl Iterator<Item = &'a Vec<u8>>) -> std::collections::BTreeMap<u16, u32> {
    let mut next = std::collections::BTreeMap::new();
    for f in frames {
        let (flow, number) = read(f);
        let expected = next.entry(flow).or_insert(0);
        assert_eq!(number, *expected, "flow {flow}");
        *expected += 1;
    }
    next
}

#[test]
fn flows_keep_their_order_and_their_queue_both_ways_at_once() {
    for queues in [1, 2, 3] {
        in_network(|| {
            let end = End::start(queues);
            // Room for all of it: what is lost here would be the queues' doing.
            ip("link set x0 txqueuelen 32000");
            let (host, got) = (Host::new(), Mutex::new(vec![]));
            let all = usize::from(FLOWS) * EACH as usize;
            std::thread::scope(|s| {
                s.spawn(|| send_all(|flow, n| host.send(Offload::default(), &numbered(flow, n, false))));
                s.spawn(|| send_all(|flow, n| assert!(end.outlet.send(Offload::default(), &numbered(flow, n, true)))));
                until("all that the device sent", || {
                    while let Some((_, frame)) = host.receive() {
                        got.lock().push(frame);
                    }
                    got.lock().len() == all
                });
            });
            until("all that the host sent", || end.came() == all);
            assert!(in_order(got.lock().iter()).values().all(|n| *n == EACH));
            let mut flows = vec![];
            for seen in &end.seen {
                let of_queue = in_order(seen.lock().iter().map(|(_, f)| f));
                assert!(of_queue.values().all(|n| *n == EACH), "a flow came by two queues");
                assert!(of_queue.len() >= usize::from(FLOWS) / queues / 2, "{}", of_queue.len());
                flows.extend(of_queue.into_keys());
            }
            assert_eq!(flows.len(), usize::from(FLOWS));
            let c = end.link.counters();
            assert_eq!((c.rx_frames, c.tx_frames, c.tx_lost), (all as u64, all as u64, 0));
        });
    }
}

#[test]
fn the_kernel_chooses_the_queue_that_we_do() {
    in_network(|| {
        let queues = TapWire::open_queues(NAME, 7).expect("a TAP interface");
        let host = Host::new();
        let mut frames = vec![vec![0xff; 14], vec![0xff; 60]];
        for n in 0..200u16 {
            let (v6, tags) = (n % 2 == 1, usize::from(n / 2 % 3));
            let protocol = [UDP, TCP, 1, 47][usize::from(n / 6 % 4)];
            let mut f = frame(v6, tags, protocol, [0x0a00_0001, 0xfe00_0001 + u32::from(n)], [n * 77, 65_000]);
            let l3 = 14 + 4 * tags;
            match n % 10 {
                2 => f[l3 + 6] = 0x20, // the first of a packet's fragments
                4 => f[l3 + 7] = 9,
                6 => f[l3] = 0x47, // options
                7 => f.truncate(40),
                8 => f.truncate(l3 + 21),
                _ => {}
            }
            frames.push(f);
        }
        let mut used = [0; 7];
        for f in frames {
            host.send(Offload::default(), &f);
            let mut buf = [0; 200];
            let came = |(n, q): (usize, &TapWire)| q.recv(&mut buf).expect("room").map(|(length, _)| (n, length));
            let (queue, length) = queues.iter().enumerate().find_map(came).expect("a queue has it");
            assert_eq!((queue, &buf[..length]), (usize::from(steer::flow(&f)) % 7, &f[..]));
            assert!(std::ptr::eq(TapWire::choose(&queues, &f).expect("one"), &queues[queue]));
            used[queue] += 1;
        }
        assert!(used.iter().all(|n| *n > 5), "{used:?}");
    });
}

/// A TCP message whose checksum holds the sum of the pseudo header, and what is to be done.
fn message(payload: usize) -> (Offload, Vec<u8>) {
    let flow = Flow4::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let mut f = flow.tcp(77, &pattern(3, payload));
    let tcp = (f.len() - 34) as u32;
    let words = f[26..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
    let sum = words + 6 + (tcp >> 16) + (tcp & 0xffff);
    let folded = (sum & 0xffff) + (sum >> 16);
    f[50..52].copy_from_slice(&((folded & 0xffff) as u16 + (folded >> 16) as u16).to_be_bytes());
    let large = Some(Large { ipv6: false, header: 54, segment: 1448 });
    (Offload { checksum: Some((34, 16)), large }, f)
}

#[test]
fn large_frames_pass_whole_and_ports_count_their_segments() {
    for queues in [1, 2] {
        in_network(|| {
            let wire = open_tap(&Interface { name: NAME.to_owned(), queues }).expect("a TAP interface");
            let (outlet, link) = (wire.outlet.clone(), wire.link.clone());
            let far = Far::Outside(Arc::new(WirePort::new(outlet, link.clone())));
            let rig = Rig::new(vec![Rig::card(0, far)], 64 << 20);
            let config = NetdevConfig { log_rq: 9, channels: 2, ..NetdevConfig::default() };
            let mut dev = rig.pf(0).bring_up().unwrap().netdev(&config).unwrap();
            let host = Host::new();
            let done = AtomicBool::new(false);
            std::thread::scope(|s| {
                let _stop = Stop(&done);
                for mover in movers::movers(vec![(0, wire)], 1, 2) {
                    let (mut inlet, done) = (PortInlet::new(rig.nic.clone(), 0, mover.number), &done);
                    s.spawn(move || mover.driver.run(&mut inlet, &|| done.load(Ordering::Relaxed)));
                }
                let port = &rig.card_at(0).port;
                // In: 20 segments, the last one short, each whole and right at the driver.
                let (offload, mut large) = message(19 * 1448 + 100);
                large[..6].copy_from_slice(&dev.mac);
                for n in 1..=10 {
                    host.send(offload, &large);
                    let mut bytes = vec![];
                    until("20 segments", || {
                        for r in dev.receive() {
                            assert!(checksums_hold(&r.bytes));
                            bytes.extend_from_slice(&r.bytes[54..]);
                        }
                        bytes.len() >= large.len() - 54
                    });
                    assert!(bytes == large[54..]);
                    assert_eq!(link.counters().rx_frames, n);
                }
                assert_eq!(dev.function.port_frames().unwrap().1, 200);
                assert_eq!(port.rx_discards.get(), 0);
                // Out: one message of the driver's is one frame for the host.
                let flow = Flow4::new([2; 6], dev.mac);
                dev.send_lso(1, &flow.tcp(9, &[]), &pattern(1, 14_480), 1448);
                rig.run();
                let mut got = None;
                until("a large frame", || {
                    got = host.receive();
                    got.is_some()
                });
                let (offload, frame) = got.expect("there");
                assert_eq!(offload.large.map(|l| l.segment), Some(1448));
                assert!(frame[54..] == pattern(1, 14_480));
                assert_eq!((dev.function.port_frames().unwrap().0, link.counters().tx_frames), (10, 1));
            });
        });
    }
}

#[test]
fn an_interface_may_vanish_and_what_comes_in_its_place_is_judged() {
    for queues in [1, 2] {
        in_network(|| {
            let end = End::start(queues);
            let (right, wrong) = if queues == 1 { ("", " multi_queue") } else { (" multi_queue", "") };
            let reason = |part: &str| end.link.counters().reason.contains(part);
            for life in 0..3 {
                let deleted = AtomicBool::new(false);
                std::thread::scope(|s| {
                    s.spawn(|| {
                        for n in (0u32..).take_while(|_| !deleted.load(Ordering::Relaxed)) {
                            end.outlet.send(Offload::default(), &numbered(n as u16 % FLOWS, n, true));
                        }
                    });
                    let _stop = Stop(&deleted);
                    std::thread::sleep(Duration::from_millis(20));
                    ip("link del x0");
                    until("the interface is gone", || !end.link.is_up());
                });
                assert!(reason("gone") && !end.outlet.send(Offload::default(), &numbered(1, 1, true)));
                ip(&format!("tuntap add x0 mode tap{wrong}"));
                until("it is told what is wrong", || reason("was made with"));
                assert!(!end.link.is_up());
                ip("link del x0");
                ip("link add x0 type bridge");
                until("it is told what is wrong", || reason("is not a TAP interface"));
                ip("link del x0");
                ip(&format!("tuntap add x0 mode tap{right}"));
                until("the interface is back", || end.link.is_up());
                let (host, before) = (Host::new(), end.came());
                (0..FLOWS).for_each(|flow| host.send(Offload::default(), &numbered(flow, life, false)));
                until("frames come", || end.came() >= before + usize::from(FLOWS));
                assert!(end.outlet.send(Offload::default(), &numbered(1, 1, true)));
            }
            assert_eq!(end.link.counters().downs, 3);
        });
    }
}

#[test]
fn queues_that_somebody_detaches_are_attached_again() {
    in_network(|| {
        let taps = Arc::new(TapWire::open_queues(NAME, 2).expect("a TAP interface"));
        let (host, mut buf) = (Host::new(), [0; 200]);
        assert!(!taps[0].attach_again() && !taps[1].attach_again());
        taps[0].detach().expect("it is at work");
        // The other one has all flows now; what leaves by the first one leaves all the same.
        (0..8).for_each(|flow| host.send(Offload::default(), &numbered(flow, 0, false)));
        assert!((0..8).all(|_| matches!(taps[1].recv(&mut buf), Ok(Some(_)))));
        assert!(matches!(taps[0].recv(&mut buf), Ok(None)));
        taps[0].send(&[IoSlice::new(&numbered(1, 1, true))]).expect("sent");
        taps[1].detach().expect("it is at work");
        assert_eq!(interface::queues_in_use(NAME), 0);
        host.send(Offload::default(), &numbered(1, 1, false));
        assert!(matches!(taps[1].recv(&mut buf), Ok(None)));
        assert!(taps[0].attach_again() && taps[1].attach_again() && !taps[0].attach_again());
        assert_eq!(interface::queues_in_use(NAME), 2);
        drop(taps);
        is_free();

        // A wire at work does so by itself.
        let taps = TapWire::open_queues(NAME, 2).expect("a TAP interface");
        let theirs: Vec<TapWire> = taps.iter().map(TapWire::share).collect();
        let host = Host::new();
        let end = End::of(of_queues(&Interface { name: NAME.to_owned(), queues: 2 }, taps), 2);
        for victims in [&theirs[..1], &theirs[1..], &theirs[..]] {
            victims.iter().for_each(|queue| queue.detach().expect("it is at work"));
            until("both are back", || interface::queues_in_use(NAME) == 2);
            let before = end.came();
            (0..FLOWS).for_each(|flow| host.send(Offload::default(), &numbered(flow, 0, false)));
            until("frames come", || end.came() == before + usize::from(FLOWS));
        }
        assert!(end.link.is_up() && end.link.counters().downs == 0);
    });
}

#[test]
fn errors_say_what_to_do() {
    in_network(|| {
        let why = |queues| TapWire::open_queues(NAME, queues).map(drop).expect_err("refused");
        let free = |queues| {
            let mut said = why(queues);
            until("it is free", || {
                said = why(queues);
                !matches!(said, WireError::Busy(_))
            });
            said.to_string()
        };
        let taps = TapWire::open_queues(NAME, 2).expect("a TAP interface");
        assert_eq!(interface::queues_in_use(NAME), 2);
        assert!(matches!((why(1), why(2)), (WireError::Busy(_), WireError::Busy(_))));
        assert_eq!(interface::queues_in_use(NAME), 2, "nobody is troubled");
        drop(taps);
        is_free();
        interface::create_persistent_tap(NAME, true).expect("free");
        assert_eq!(
            free(1),
            "TAP interface x0 was made with multi_queue: say how many, such as \"tap:x0,queues=2\", or make it anew, without"
        );
        drop(TapWire::open_queues(NAME, 8).expect("a persistent one"));
        ip("link del x0");
        interface::create_persistent_tap(NAME, false).expect("free");
        assert_eq!(
            free(2),
            "TAP interface x0 was made with one queue: leave \"queues=\" out, or make it anew, with \"ip tuntap add x0 mode tap multi_queue\""
        );
        let mut one = None;
        until("it is free still", || {
            one = TapWire::open(NAME).ok();
            one.is_some()
        });
        assert!(matches!(why(2), WireError::Busy(_)));
        drop(one);
        assert!(matches!(TapWire::open_queues("lo", 2), Err(WireError::NotATap(_))));
        ip("link del x0");
        drop(TapWire::open_queues(NAME, 2).expect("it is made"));
        until("and vanishes", || interface::is_up(NAME).is_none());
    });
}
