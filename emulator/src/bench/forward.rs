//! Frames a second from one receive queue's point of view, without a guest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::ValueEnum;
use sfnic_device_model::fabric::port::Far;
use sfnic_test_driver::frames::Flow4;
use sfnic_test_driver::{Function, Netdev, NetdevConfig, Rig};

use super::flows::{self, Skew};
/// log2 of the queues' entries.
const LOG_QUEUE: u32 = 10;
/// Frames posted at a time.
const BATCH: u16 = 512;
/// Batches whose times are remembered.
const BATCHES: usize = 1 << 20;
/// One send in so many asks for a completion.
const SIGNAL: u16 = 64;
/// Guest memory of each card, in bytes.
const MEMORY: u64 = 256 << 20;
/// Bytes of a frame that lie in its WQE.
const HEAD: usize = 18;
/// Where the addresses and ports of a UDP frame over IPv4 lie.
const TUPLE: std::ops::Range<usize> = 26..38;

/// Which way the frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Path {
    /// PF0 to PF1: legacy switching, the cable, receive steering.
    Cable,
    /// One SF to another: ACLs, a rule of the FDB, receive steering.
    Fdb,
}

/// Frames a second from a send queue to a receive queue.
///
/// Queues and buffers lie in plain memory, and the driver is part of this
/// program: each worker is a thread that takes turns with the driver of a
/// sender and a receiver of its own. What is measured is the time in the
/// device; `with driver` counts both, as if one core did everything.
///
/// With --flows each frame belongs to one of so many flows (a 5-tuple with a
/// rule in the FDB and, up to 16384 of them, a counter of its own), in an order that --skew says. All
/// flows have sent before the measurement begins, and at its end the counters
/// must add up.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Bytes of a frame, without its check sequence; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,1500", value_parser = clap::value_parser!(u32).range(60..=9000))]
    size: Vec<u32>,
    /// Which way the frames go; several separated by commas [default: both, with --flows or several workers fdb].
    #[arg(long, value_delimiter = ',')]
    path: Vec<Path>,
    /// Flows of each worker's sender; several separated by commas. Without, one flow and a rule for the port alone.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flows: Vec<u32>,
    /// Different masks among the flows' rules.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(flows::MAX_MASKS)))]
    masks: u32,
    /// Which flows send how often.
    #[arg(long, default_value = "uniform")]
    skew: Skew,
    /// Threads, each with a sender and a receiver.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=4))]
    workers: u32,
    /// How long to measure each.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print JSON instead of a table: an object for one measurement, a list for several.
    #[arg(long)]
    json: bool,
}

/// What one run came to.
#[derive(Debug, serde::Serialize)]
struct Figure {
    path: String,
    size: u32,
    flows: u32,
    masks: u32,
    skew: String,
    workers: u32,
    /// Million frames a second of the device's time, all workers together.
    mpps: f64,
    /// Gigabits of frames a second.
    gbps: f64,
    /// Nanoseconds of the device alone a frame.
    device_ns: f64,
    /// The same in the median of all batches, which other work of the machine
    /// disturbs less.
    median_ns: f64,
    /// Million frames a second where the driver's work counts too.
    with_driver_mpps: f64,
}

/// A sender and a receiver, and their vports.
pub(super) struct Pair {
    pub from: Netdev,
    pub to: Netdev,
    pub vports: [u16; 2],
}

/// One measurement to make.
#[derive(Clone, Copy)]
struct Plan<'a> {
    path: Path,
    size: u32,
    flows: Option<u32>,
    args: &'a Args,
}

pub(super) fn run(args: &Args) -> anyhow::Result<i32> {
    let fdb_only = !args.flows.is_empty() || args.workers > 1;
    let paths = match args.path.as_slice() {
        [] if fdb_only => vec![Path::Fdb],
        [] => vec![Path::Cable, Path::Fdb],
        some => some.to_vec(),
    };
    if fdb_only && paths.contains(&Path::Cable) {
        eprintln!("sfnic: --path cable: not with --flows or several workers; allowed there is fdb");
        return Ok(2);
    }
    let counts: Vec<Option<u32>> = match args.flows.as_slice() {
        [] => vec![None],
        some => some.iter().map(|n| Some(*n)).collect(),
    };
    let mut all = vec![];
    for path in &paths {
        for flows in &counts {
            for size in &args.size {
                all.push(measure(Plan { path: *path, size: *size, flows: *flows, args })?);
            }
        }
    }
    if args.json {
        match all.as_slice() {
            [one] => println!("{}", serde_json::to_string_pretty(one)?),
            several => println!("{}", serde_json::to_string_pretty(several)?),
        }
        return Ok(0);
    }
    println!(
        "{:<6} {:>6} {:>8} {:>6} {:>8} {:>8} {:>8} {:>10} {:>10} {:>12}",
        "path", "bytes", "flows", "masks", "workers", "Mpps", "Gbit/s", "device ns", "median ns", "with driver"
    );
    for f in &all {
        println!(
            "{:<6} {:>6} {:>8} {:>6} {:>8} {:>8.2} {:>8.2} {:>10.0} {:>10.0} {:>12.2}",
            f.path, f.size, f.flows, f.masks, f.workers, f.mpps, f.gbps, f.device_ns, f.median_ns, f.with_driver_mpps
        );
    }
    Ok(0)
}

/// Senders and receivers at the ends of a path, and who manages what is between.
fn ends(path: Path, pairs: u16, config: &NetdevConfig) -> anyhow::Result<(Rig, Function, Vec<Pair>)> {
    match path {
        Path::Cable => {
            let rig = Rig::new(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], MEMORY);
            let manager = rig.pf(0);
            let dev = |card| rig.pf(card).bring_up()?.netdev(config);
            let pair = Pair { from: dev(0)?, to: dev(1)?, vports: [0, 0] };
            Ok((rig, manager, vec![pair]))
        }
        Path::Fdb => {
            let rig = Rig::new(vec![Rig::card(0, Far::Loopback)], MEMORY);
            let pf = rig.pf(0).bring_up()?;
            let dev = |i| {
                pf.add_sf(rig.sf_id(0, i))?;
                rig.sf(0, i).bring_up()?.netdev(config)
            };
            let mut all = vec![];
            for i in 0..pairs {
                let vports = [rig.sf_id(0, 2 * i), rig.sf_id(0, 2 * i + 1)];
                all.push(Pair { from: dev(2 * i)?, to: dev(2 * i + 1)?, vports });
            }
            Ok((rig, pf, all))
        }
    }
}

fn measure(plan: Plan<'_>) -> anyhow::Result<Figure> {
    let Plan { path, size, flows, args } = plan;
    let buffer = size.next_multiple_of(2048);
    let config = NetdevConfig { log_sq: LOG_QUEUE, log_rq: LOG_QUEUE, buffer, ..NetdevConfig::default() };
    let (rig, pf, pairs) = ends(path, args.workers as u16, &config)?;
    let rules = match flows {
        Some(n) => {
            eprintln!("{n} flows: adding {} rules", u64::from(n) * u64::from(args.workers));
            Some(flows::install(&pf, &pairs, n, args.masks)?)
        }
        None if path == Path::Fdb => {
            let mut fdb = pf.create_fdb(4)?;
            for p in &pairs {
                pf.join(&mut fdb, p.vports[0], p.vports[1])?;
            }
            None
        }
        None => None,
    };
    let sequence = flows::sequence(flows.unwrap_or(1), args.skew);
    let count = flows.unwrap_or(1);
    let lanes = pairs.into_iter().enumerate().map(|(n, pair)| Lane::new(pair, n, size, count, &sequence));
    let mut lanes: Vec<_> = lanes.collect();
    let (stop, ready) = (AtomicBool::new(false), std::sync::Barrier::new(lanes.len() + 1));
    let limit = Duration::from_secs(args.seconds.into());
    let results: Vec<anyhow::Result<Duration>> = std::thread::scope(|s| {
        let threads: Vec<_> = lanes
            .iter_mut()
            .map(|lane| {
                let (rig, stop, ready) = (&rig, &stop, &ready);
                s.spawn(move || lane.run(rig, stop, ready))
            })
            .collect();
        ready.wait();
        std::thread::sleep(limit);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker died")))).collect()
    });
    let (mut rate, mut with_driver, mut ns) = (0.0, 0.0, 0.0);
    for (lane, time) in lanes.iter().zip(results) {
        let n = lane.measured as f64;
        rate += n / lane.device.as_secs_f64() / 1e6;
        with_driver += n / time?.as_secs_f64() / 1e6;
        ns += lane.device.as_nanos() as f64 / n / f64::from(args.workers);
    }
    if let Some(rules) = rules {
        let (sent, counted) = (lanes.iter().map(|l| l.sent).sum::<u64>(), rules.counted(&pf)?);
        ensure!(sent == counted, "{sent} frames were sent and {counted} counted");
    }
    let name = |v: Option<clap::builder::PossibleValue>| v.map_or_else(String::new, |v| v.get_name().to_owned());
    Ok(Figure {
        path: name(path.to_possible_value()),
        size,
        flows: count,
        masks: args.masks,
        skew: name(args.skew.to_possible_value()),
        workers: args.workers,
        mpps: rate,
        gbps: rate * 8.0 * f64::from(size) / 1e3,
        device_ns: ns,
        median_ns: median(lanes.iter().flat_map(|l| l.batches.iter().copied()).collect()),
        with_driver_mpps: with_driver,
    })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

/// A worker with its sender and receiver.
struct Lane<'a> {
    pair: Pair,
    worker: usize,
    /// Addresses and ports of each flow, as they stand in a frame.
    tuples: Vec<[u8; TUPLE.end - TUPLE.start]>,
    sequence: &'a [u32],
    at: usize,
    buffer: u64,
    sent: u64,
    received: u64,
    /// Time in the device, and frames, since the measurement began.
    device: Duration,
    measured: u64,
    /// Nanoseconds a frame of each batch.
    batches: Vec<f64>,
}

impl<'a> Lane<'a> {
    fn new(mut pair: Pair, worker: usize, size: u32, flows: u32, sequence: &'a [u32]) -> Self {
        let payload = vec![0x5a; size as usize - 42];
        let frame = Flow4::new(pair.to.mac, pair.from.mac).udp(&payload);
        let tuple = |n| {
            let f = flows::flow(n, &pair.to, &pair.from);
            let ports = f.port.map(u16::to_be_bytes);
            let all = [&f.ip[0][..], &f.ip[1], &ports[0], &ports[1]].concat();
            all.try_into().expect("two addresses and two ports")
        };
        let tuples = (0..flows).map(tuple).collect();
        let buffer = u64::from(size.next_multiple_of(2048));
        fill(&mut pair.from, &frame, buffer);
        Self {
            pair,
            worker,
            tuples,
            sequence,
            at: 0,
            buffer,
            sent: 0,
            received: 0,
            device: Duration::ZERO,
            measured: 0,
            batches: vec![],
        }
    }

    /// Sends every flow, then measures until it is told to stop. Answers how
    /// long that took.
    fn run(&mut self, rig: &Rig, stop: &AtomicBool, ready: &std::sync::Barrier) -> anyhow::Result<Duration> {
        for _ in 0..self.sequence.len().div_ceil(BATCH.into()) {
            self.batch(rig);
        }
        (self.device, self.measured) = (Duration::ZERO, 0);
        self.batches.clear();
        ready.wait();
        let start = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.batch(rig);
        }
        let time = start.elapsed();
        ensure!(self.sent == self.received, "{} frames were sent and {} received", self.sent, self.received);
        Ok(time)
    }

    fn batch(&mut self, rig: &Rig) {
        let from = &mut self.pair.from;
        let c = &mut from.channels[0];
        let many = self.tuples.len() > 1;
        for i in (0..u64::from(BATCH)).filter(|_| many) {
            let slot = (u64::from(c.sq.producer) + i) & ((1 << LOG_QUEUE) - 1);
            let at = c.buffer_at(slot * self.buffer) + (TUPLE.start - HEAD) as u64;
            let flow = self.sequence[self.at];
            self.at = (self.at + 1) % self.sequence.len();
            from.function.mem.put(at, &self.tuples[flow as usize]);
        }
        c.sq.repeat(BATCH);
        c.sq.ring();
        self.sent += u64::from(BATCH);
        self.measured += u64::from(BATCH);
        let before = self.device;
        // Another worker may be at this one's queue.
        for _ in 0..1_000_000 {
            let begin = Instant::now();
            while rig.nic.run(self.worker) {}
            self.device += begin.elapsed();
            self.received += collect(&mut self.pair);
            if self.received >= self.sent {
                break;
            }
        }
        if self.batches.len() < BATCHES {
            self.batches.push((self.device - before).as_nanos() as f64 / f64::from(BATCH));
        }
    }
}

/// Writes a frame into every WQE of the ring, each in a buffer of its own,
/// without giving them to the device, which will fill in the checksums.
fn fill(dev: &mut Netdev, frame: &[u8], buffer: u64) {
    let c = &mut dev.channels[0];
    for i in 0..1u16 << LOG_QUEUE {
        let at = c.buffer_at(u64::from(i) * buffer);
        dev.function.mem.put(at, &frame[HEAD..]);
        let wqe = sfnic_test_driver::Wqe::send(&frame[..HEAD]).data(dev.lkey, at, (frame.len() - HEAD) as u32);
        let wqe = if (i + 1) % SIGNAL == 0 { wqe.signalled() } else { wqe };
        c.sq.post(&wqe.checksums());
    }
    c.sq.restart();
}

/// Takes every completion and gives the buffers back; how many frames came.
fn collect(pair: &mut Pair) -> u64 {
    let sends = &mut pair.from.channels[0].sq_cq;
    while sends.poll().is_some() {}
    sends.update();
    let c = &mut pair.to.channels[0];
    let mut n = 0;
    while c.rq_cq.poll().is_some() {
        n += 1;
    }
    c.rq_cq.update();
    c.rq.post(n);
    n.into()
}
