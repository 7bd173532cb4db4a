//! A sender, a receiver and the worker between them, for benchmarks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use sfnic_device_model::fabric::port::Far;
use sfnic_test_driver::{Function, Netdev, NetdevConfig, Rig};

use super::flows;

/// log2 of the queues' entries.
pub(super) const LOG_QUEUE: u32 = 10;
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

/// A sender and a receiver, and their vports.
pub(super) struct Pair {
    pub from: Netdev,
    pub to: Netdev,
    pub vports: [u16; 2],
}

/// What rules have to know of a pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// Addresses of receiver and sender.
    pub mac: [[u8; 6]; 2],
    /// Vports of sender and receiver.
    pub vports: [u16; 2],
}

impl Pair {
    /// What rules have to know of it.
    pub(super) fn names(&self) -> Names {
        Names { mac: [self.to.mac, self.from.mac], vports: self.vports }
    }
}

/// Two functions and the cable between them; who manages the first.
pub(super) fn over_cable(config: &NetdevConfig) -> anyhow::Result<(Rig, Function, Vec<Pair>)> {
    let rig = Rig::new(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], MEMORY);
    let manager = rig.pf(0);
    let dev = |card| rig.pf(card).bring_up()?.netdev(config);
    let pair = Pair { from: dev(0)?, to: dev(1)?, vports: [0, 0] };
    Ok((rig, manager, vec![pair]))
}

/// Pairs of SFs, and who manages them.
pub(super) fn over_fdb(pairs: u16, config: &NetdevConfig) -> anyhow::Result<(Rig, Function, Vec<Pair>)> {
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

/// Queues and buffers for frames of so many bytes.
pub(super) fn config(size: u32) -> NetdevConfig {
    let buffer = size.next_multiple_of(2048);
    NetdevConfig { log_sq: LOG_QUEUE, log_rq: LOG_QUEUE, buffer, ..NetdevConfig::default() }
}

/// A worker with its sender and receiver.
pub(super) struct Lane<'a> {
    pair: Pair,
    worker: usize,
    /// Addresses and ports of each flow, as they stand in a frame.
    tuples: Vec<[u8; TUPLE.end - TUPLE.start]>,
    sequence: &'a [u32],
    at: usize,
    buffer: u64,
    /// Frames, since the beginning.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Time in the device, and frames, since the measurement began.
    pub(super) device: Duration,
    pub(super) measured: u64,
    /// Nanoseconds a frame of each batch.
    pub(super) batches: Vec<f64>,
}

impl<'a> Lane<'a> {
    pub(super) fn new(mut pair: Pair, worker: usize, size: u32, flows: u32, sequence: &'a [u32]) -> Self {
        let payload = vec![0x5a; size as usize - 42];
        let frame = flows::flow(0, &pair.names()).udp(&payload);
        let tuple = |n| {
            let f = flows::flow(n, &pair.names());
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

    /// Sends every flow.
    pub(super) fn warm_up(&mut self, rig: &Rig) {
        for _ in 0..self.sequence.len().div_ceil(BATCH.into()) {
            self.batch(rig);
        }
        (self.device, self.measured) = (Duration::ZERO, 0);
        self.batches.clear();
    }

    /// Sends every flow, then measures until it is told to stop, or so many
    /// frames. Answers how long that took.
    pub(super) fn run(
        &mut self,
        rig: &Rig,
        stop: &AtomicBool,
        ready: &std::sync::Barrier,
        frames: Option<u64>,
    ) -> anyhow::Result<Duration> {
        self.warm_up(rig);
        ready.wait();
        let start = Instant::now();
        while !stop.load(Ordering::Relaxed) && frames.is_none_or(|n| self.measured < n) {
            self.batch(rig);
        }
        let time = start.elapsed();
        ensure!(self.sent == self.received, "{} frames were sent and {} received", self.sent, self.received);
        Ok(time)
    }

    /// Sends and receives for so long; nanoseconds of the device a frame.
    pub(super) fn turn(&mut self, rig: &Rig, time: Duration) -> f64 {
        (self.device, self.measured) = (Duration::ZERO, 0);
        let start = Instant::now();
        while start.elapsed() < time {
            self.batch(rig);
        }
        self.device.as_nanos() as f64 / self.measured.max(1) as f64
    }

    /// Sends and receives one batch.
    pub(super) fn batch(&mut self, rig: &Rig) {
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
pub(super) fn fill(dev: &mut Netdev, frame: &[u8], buffer: u64) {
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
    collect_sent(&mut pair.from);
    collect_received(&mut pair.to)
}

/// Takes every completion of sends.
pub(super) fn collect_sent(from: &mut Netdev) {
    let sends = &mut from.channels[0].sq_cq;
    while sends.poll().is_some() {}
    sends.update();
}

/// Takes every completion of received frames and gives the buffers back; how many came.
pub(super) fn collect_received(to: &mut Netdev) -> u64 {
    let c = &mut to.channels[0];
    let mut n = 0;
    while c.rq_cq.poll().is_some() {
        n += 1;
    }
    c.rq_cq.update();
    c.rq.post(n);
    n.into()
}

/// The middle one.
pub(super) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}
