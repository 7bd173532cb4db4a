//! Frames a second through a TAP interface by its queues, without a guest.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parking_lot::{Condvar, Mutex};
use sfnic_device_model::fabric::port::Far;
use sfnic_test_driver::frames::Flow4;
use sfnic_test_driver::{Netdev, NetdevConfig, Rig};

use super::lane::median;
use crate::tapbench::in_private_network;
use crate::wire::movers::movers;
use crate::wire::offload::Offload;
use crate::wire::{Inlet, Interface, Pieces, PortInlet, Sender, WirePort, interface, open_tap};

const NAME: &str = "queues0";
/// Frames that the host sends at a time, and that each send queue does.
const IN: u64 = 8192;
const OUT: u64 = 2048;
/// Flows, each of a socket of the host's.
const FLOWS: u16 = 64;
const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const ALL: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 255);
/// Guest memory, in bytes.
const MEMORY: u64 = 512 << 20;

/// Frames a second through a TAP interface, by its queues.
///
/// The driver is part of this program. What the host sends waits in the interface's queues
/// until all of it is there; then the time is taken until the last frame is in a receive
/// queue, a thread a queue. What the driver sends waits in a send queue for each worker; then
/// the time is taken until the host's kernel has all of it. Medians of all rounds. Needs
/// root; the interface is in a network namespace of its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Queues of the interface; several separated by commas.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u16).range(1..=8))]
    queues: Vec<u16>,
    /// Workers, each with a send queue; several separated by commas.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u16).range(1..=4))]
    workers: Vec<u16>,
    /// Bytes of a frame, without its check sequence; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,1500", value_parser = clap::value_parser!(u16).range(60..=1514))]
    size: Vec<u16>,
    /// How often to measure each.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Print JSON instead of a table: an object for one measurement, a list for several.
    #[arg(long)]
    json: bool,
}

/// What one measurement came to.
#[derive(Debug, serde::Serialize)]
struct Figure {
    queues: u16,
    workers: u16,
    size: u16,
    /// Million frames a second from the host to receive queues.
    in_mpps: f64,
    /// Million frames a second from send queues to the host.
    out_mpps: f64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut all = vec![];
    for size in &args.size {
        for queues in &args.queues {
            for workers in &args.workers {
                let bench = || measure(*queues, *workers, *size, args.rounds);
                let [in_mpps, out_mpps] = in_private_network(bench)?;
                all.push(Figure { queues: *queues, workers: *workers, size: *size, in_mpps, out_mpps });
            }
        }
    }
    if args.json {
        return super::print_json(&all);
    }
    println!("{:>6} {:>8} {:>6} {:>9} {:>9}", "queues", "workers", "bytes", "in Mpps", "out Mpps");
    for f in &all {
        println!("{:>6} {:>8} {:>6} {:>9.3} {:>9.3}", f.queues, f.workers, f.size, f.in_mpps, f.out_mpps);
    }
    Ok(())
}

/// What threads of the wire wait for, and whoever waits for them.
#[derive(Default)]
struct Gate {
    /// Whether it is open.
    is_open: AtomicBool,
    /// Since when it is.
    open: Mutex<Option<Instant>>,
    opened: Condvar,
    came: AtomicU64,
    /// How long the round took.
    took: Mutex<Option<Duration>>,
    all: Condvar,
}

impl Gate {
    /// Lets all through; how long the round took.
    fn round(&self) -> anyhow::Result<Duration> {
        let mut took = self.took.lock();
        *self.open.lock() = Some(Instant::now());
        self.is_open.store(true, Ordering::Relaxed);
        self.opened.notify_all();
        if took.is_none() {
            self.all.wait_for(&mut took, Duration::from_secs(10));
        }
        let came = self.came.swap(0, Ordering::Relaxed);
        *self.open.lock() = None;
        self.is_open.store(false, Ordering::Relaxed);
        took.take().with_context(|| format!("{came} of {IN} frames came"))
    }
}

/// Counts what a sender has.
struct Counted<'a, 'm> {
    sender: &'a mut dyn Sender<'m>,
    frames: u64,
}

impl<'m> Sender<'m> for Counted<'_, 'm> {
    fn next(&mut self, pieces: &mut Pieces<'m>) -> Option<Offload> {
        let next = self.sender.next(pieces);
        self.frames += u64::from(next.is_some());
        next
    }

    fn done(&mut self) {
        self.sender.done();
    }
}

/// Keeps the calling thread at one CPU: rounds are too short for the scheduler to spread
/// threads.
#[allow(unsafe_code)]
fn stay_at(number: usize) {
    let count = std::thread::available_parallelism().map_or(1, |n| n.get());
    // SAFETY: the set is plain data, and zero is an empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is below that of the machine's CPUs.
    unsafe { libc::CPU_SET(number % count, &mut set) };
    // SAFETY: the set and its size. Where it fails the thread stays where it is.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// A port behind the gate.
struct Gated {
    port: PortInlet,
    gate: Arc<Gate>,
}

impl Inlet for Gated {
    fn receive(&mut self, frame: &mut [u8], offload: Offload) {
        self.port.receive(frame, offload);
    }

    fn receive_burst<'m>(&mut self, sender: &mut dyn Sender<'m>) {
        if !self.gate.is_open.load(Ordering::Relaxed) {
            let mut open = self.gate.open.lock();
            while open.is_none() {
                self.gate.opened.wait(&mut open);
            }
        }
        let mut counted = Counted { sender, frames: 0 };
        self.port.receive_burst(&mut counted);
        let frames = counted.frames;
        if frames > 0 && self.gate.came.fetch_add(frames, Ordering::Relaxed) + frames == IN {
            let since = *self.gate.open.lock();
            *self.gate.took.lock() = since.map(|t| t.elapsed());
            self.gate.all.notify_all();
        }
    }

    fn flush(&mut self) {
        self.port.flush();
    }

    fn link_changed(&mut self) {
        self.port.link_changed();
    }
}

/// Million frames a second in and out.
fn measure(queues: u16, workers: u16, size: u16, rounds: u32) -> anyhow::Result<[f64; 2]> {
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let wire = open_tap(&Interface { name: NAME.to_owned(), queues: queues.into() })?;
    interface::set_queue_length(NAME, 2 * IN as i32)?;
    interface::set_address(NAME, HOST, 24)?;
    let port = WirePort::new(wire.outlet.clone(), wire.link.clone());
    let rig = Rig::new(vec![Rig::card(0, Far::Outside(Arc::new(port)))], MEMORY);
    let channels = usize::from(queues.max(workers));
    let config = NetdevConfig { channels, log_sq: 12, log_rq: 14, ..NetdevConfig::default() };
    let mut dev = rig.pf(0).bring_up()?.netdev(&config)?;
    dev.function.set_multicast(&[[0xff; 6]])?;
    let hosts = (0..FLOWS).map(|_| {
        let socket = UdpSocket::bind((HOST, 0))?;
        socket.set_broadcast(true).map(|()| socket)
    });
    let hosts = hosts.collect::<Result<Vec<_>, _>>().context("cannot make sockets")?;
    let (gate, done) = (Arc::new(Gate::default()), AtomicBool::new(false));
    std::thread::scope(|s| {
        for mover in movers(vec![(0, wire)], 4, 5) {
            let port = PortInlet::new(rig.nic.clone(), 0, mover.number);
            let (mut inlet, done) = (Gated { port, gate: gate.clone() }, &done);
            let cpu = mover.number;
            s.spawn(move || {
                stay_at(cpu);
                mover.driver.run(&mut inlet, &|| done.load(Ordering::Relaxed));
            });
        }
        let mut times = [vec![], vec![]];
        let result = (0..=rounds).try_for_each(|round| {
            let inward = receive(&gate, &hosts, &mut dev, size)?;
            let outward = send(&rig, &mut dev, workers, size);
            // The first round is for what is learnt and made once.
            if round > 0 {
                times[0].push(inward);
                times[1].push(outward);
            }
            anyhow::Ok(())
        });
        done.store(true, Ordering::Relaxed);
        result?;
        ensure!(rig.card_at(0).port.tx_discards.get() == 0, "frames to the host were lost");
        Ok(times.map(median))
    })
}

/// A round from the host: million frames a second.
fn receive(gate: &Gate, hosts: &[UdpSocket], dev: &mut Netdev, size: u16) -> anyhow::Result<f64> {
    let payload = vec![0x5a; usize::from(size) - 42];
    for n in 0..IN as usize {
        hosts[n % hosts.len()].send_to(&payload, (ALL, 9)).context("cannot send")?;
    }
    let time = gate.round()?;
    let came = dev.receive().len();
    ensure!(came == IN as usize, "{came} of {IN} frames are in receive queues");
    Ok(IN as f64 / time.as_secs_f64() / 1e6)
}

/// A round to the host: million frames a second.
fn send(rig: &Rig, dev: &mut Netdev, workers: u16, size: u16) -> f64 {
    let payload = vec![0x5a; usize::from(size) - 42];
    for worker in 0..workers {
        let mut flow = Flow4::new([2, 0, 0, 0, 0, 9], dev.mac);
        for n in 0..OUT {
            flow.port[0] = 1000 * (worker + 1) + n as u16 % FLOWS;
            dev.send_with(worker.into(), &flow.udp(&payload), 18, |wqe| wqe);
        }
    }
    let begin = Instant::now();
    std::thread::scope(|s| {
        for worker in 0..usize::from(workers) {
            s.spawn(move || {
                stay_at(worker);
                while rig.nic.run(worker) {}
            });
        }
    });
    // A worker leaves while another one is at the last queue.
    while rig.nic.run(0) {}
    let time = begin.elapsed();
    (0..workers).for_each(|worker| drop(dev.reap(worker.into())));
    (OUT * u64::from(workers)) as f64 / time.as_secs_f64() / 1e6
}
