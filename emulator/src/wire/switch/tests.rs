//! A switch at work, with threads.

use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use super::super::offload::Large;
use super::*;

/// What arrived, and whether the port is up.
#[derive(Debug)]
struct Seen {
    frames: Mutex<Vec<(Offload, Vec<u8>)>>,
    up: AtomicBool,
}

struct At(Arc<Seen>);

impl Inlet for At {
    fn receive(&mut self, frame: &mut [u8], offload: Offload) {
        self.0.frames.lock().push((offload, frame.to_vec()));
    }

    fn link_changed(&mut self) {}

    fn wanted(&self) -> bool {
        self.0.up.load(Relaxed)
    }
}

/// A port of a device at the switch.
struct Device {
    outlet: Arc<dyn Outlet>,
    seen: Arc<Seen>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    fn start(wire: Wire) -> Self {
        let seen = Arc::new(Seen { frames: Mutex::default(), up: AtomicBool::new(true) });
        let done = Arc::new(AtomicBool::new(false));
        let (mut inlet, stop, driver) = (At(seen.clone()), done.clone(), wire.driver);
        let thread = std::thread::spawn(move || driver.run(&mut inlet, &|| stop.load(Relaxed)));
        Self { outlet: wire.outlet, seen, done, thread: Some(thread) }
    }

    fn got(&self, n: usize) -> Vec<(Offload, Vec<u8>)> {
        until(|| self.seen.frames.lock().len() >= n);
        std::mem::take(&mut *self.seen.frames.lock())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        if let Some(t) = self.thread.take() {
            t.join().expect("it ends well");
        }
    }
}

fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn frame(to: u8, from: u8) -> Vec<u8> {
    let mac = |n| if n == 0xff { [0xff; 6] } else { [2, 0, 0, 0, 0, n] };
    [&mac(to)[..], &mac(from), &[0x88, 0xb5], &[from; 50]].concat()
}

/// A wire that takes small frames only, and keeps them.
#[derive(Debug, Default)]
struct Plain(Mutex<Vec<Vec<u8>>>);

impl Outlet for Plain {
    fn send(&self, offload: Offload, frame: &[u8]) -> bool {
        assert_eq!(offload, Offload::default());
        self.0.lock().push(frame.to_vec());
        true
    }
}

struct Nobody;

impl Driver for Nobody {
    fn run(self: Box<Self>, _: &mut dyn Inlet, _: &dyn Fn() -> bool) {}
}

#[test]
fn ports_of_a_device_and_a_wire_are_one_network() {
    let switch = Switch::new("lan", AGEING);
    let ends: Vec<Wire> = (0..2).map(|n| switch.device_port(format!("p{n}"))).collect();
    let (kept, link) = (Arc::new(Plain::default()), Arc::new(Link::new("tap:x")));
    let wire = Wire { outlet: kept.clone(), driver: Box::new(Nobody), link: link.clone() };
    let mut inlet = switch.wire_port(&wire);
    let ends: Vec<Device> = ends.into_iter().map(Device::start).collect();
    let [a, b] = &ends[..] else { panic!() };

    // Everybody hears who is looked for, but for a wire without a peer and the sender.
    assert!(a.outlet.send(Offload::default(), &frame(0xff, 1)));
    assert_eq!(b.got(1)[0].1, frame(0xff, 1));
    assert!(kept.0.lock().is_empty() && a.seen.frames.lock().is_empty());
    link.set_up();
    inlet.receive(&mut frame(1, 3), Offload::default());
    assert_eq!(a.got(1)[0].1, frame(1, 3));
    b.outlet.send(Offload::default(), &frame(3, 2));
    assert_eq!(*kept.0.lock(), [frame(3, 2)]);
    assert!(a.seen.frames.lock().is_empty() && b.seen.frames.lock().is_empty());

    // A wire that goes down is forgotten; so is a port.
    link.set_down("gone");
    inlet.link_changed();
    b.outlet.send(Offload::default(), &frame(3, 2));
    assert_eq!(a.got(1)[0].1, frame(3, 2));
    a.seen.up.store(false, Relaxed);
    until(|| !switch.view().ports[0].up && switch.view().stations.len() == 1);
    b.outlet.send(Offload::default(), &frame(1, 2));
    let v = switch.view();
    let counts: Vec<_> = v.ports.iter().map(|p| (p.port.as_str(), p.rx_frames, p.tx_frames, p.lost_frames)).collect();
    assert_eq!(counts, [("p0", 1, 2, 1), ("p1", 3, 1, 0), ("tap:x", 1, 1, 3)]);
    assert_eq!((v.stations[0].port.as_str(), v.flooded_frames), ("p1", 3));
}

#[test]
fn large_frames_are_cut_where_the_far_end_takes_none() {
    let mut packet: Vec<u8> = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    packet.extend((20u16 + 20 + 250).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]);
    packet.extend([0x14, 0x51, 0, 80, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    packet.extend([7; 250]);
    let large = Some(Large { ipv6: false, header: 54, segment: 100 });
    let offload = Offload { checksum: Some((34, 16)), large };
    let switch = Switch::new("lan", AGEING);
    let (a, b) = (switch.device_port("p0".into()), switch.device_port("p1".into()));
    let (kept, link) = (Arc::new(Plain::default()), Arc::new(Link::new("stream:x")));
    link.set_up();
    let _inlet = switch.wire_port(&Wire { outlet: kept.clone(), driver: Box::new(Nobody), link });
    // To a port of the device whole, to the wire in pieces with their checksums.
    let b = Device::start(b);
    a.outlet.send(offload, &packet);
    assert_eq!(b.got(1), [(offload, packet)]);
    let mut cut = std::mem::take(&mut *kept.0.lock());
    assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [154, 154, 104]);
    for bytes in &mut cut {
        let mut f = Frame::from_bytes(bytes).expect("a frame");
        f.parse();
        let check = sfnic_device_model::packet::checksum::verify(&f);
        assert!(check.l3_ok() && check.l4_ok());
    }
}

#[test]
fn what_nobody_takes_is_lost_and_bounded() {
    let switch = Switch::new("lan", AGEING);
    let (a, _b) = (switch.device_port("p0".into()), switch.device_port("p1".into()));
    let big = [frame(0xff, 1), vec![0; 60_000]].concat();
    let fits = MAX_WAITING / big.len();
    for _ in 0..fits + 10 {
        a.outlet.send(Offload::default(), &big);
    }
    let port = &switch.view().ports[1];
    assert_eq!((port.tx_frames, port.lost_frames), (fits as u64, 10));
}
