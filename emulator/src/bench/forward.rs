//! Frames a second from one receive queue's point of view, without a guest.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;
use sfnic_device_model::fabric::port::Far;
use sfnic_test_driver::frames::Flow4;
use sfnic_test_driver::{Netdev, NetdevConfig, Rig};

/// log2 of the queues' entries.
const LOG_QUEUE: u32 = 10;
/// Frames posted at a time.
const BATCH: u16 = 512;
/// One send in so many asks for a completion.
const SIGNAL: u16 = 64;
/// Guest memory of each card, in bytes.
const MEMORY: u64 = 64 << 20;

/// Which way the frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Path {
    /// PF0 to PF1: legacy switching, the cable, receive steering.
    Cable,
    /// One SF to another: ACLs, a rule of the FDB, receive steering.
    Fdb,
}

/// Frames a second from a send queue to a receive queue, on one core.
///
/// Queues and buffers lie in plain memory; the driver is part of this program
/// and its work counts.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Bytes of a frame, without its check sequence; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,1500", value_parser = clap::value_parser!(u32).range(60..=9000))]
    size: Vec<u32>,
    /// Which way the frames go; several separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "cable,fdb")]
    path: Vec<Path>,
    /// How long to measure each.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// What one run came to.
#[derive(Debug, serde::Serialize)]
struct Figure {
    path: String,
    size: u32,
    flows: u32,
    workers: u32,
    /// Million frames a second.
    mpps: f64,
    /// Gigabits of frames a second.
    gbps: f64,
    /// Nanoseconds of the device alone a frame.
    device_ns: f64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut all = vec![];
    for path in &args.path {
        for size in &args.size {
            all.push(measure(*path, *size, Duration::from_secs(args.seconds.into()))?);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("{:<6} {:>6} {:>8} {:>8} {:>12}", "path", "bytes", "Mpps", "Gbit/s", "device ns");
    for f in &all {
        println!("{:<6} {:>6} {:>8.2} {:>8.2} {:>12.0}", f.path, f.size, f.mpps, f.gbps, f.device_ns);
    }
    Ok(())
}

/// A sender and a receiver at the two ends of a path.
fn ends(path: Path, config: &NetdevConfig) -> anyhow::Result<(Rig, Netdev, Netdev)> {
    let rig = match path {
        Path::Cable => Rig::new(vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0))], MEMORY),
        Path::Fdb => Rig::new(vec![Rig::card(0, Far::Loopback)], MEMORY),
    };
    let (from, to) = match path {
        Path::Cable => {
            let dev = |card| rig.pf(card).bring_up()?.netdev(config);
            (dev(0)?, dev(1)?)
        }
        Path::Fdb => {
            let pf = rig.pf(0).bring_up()?;
            let mut devs = vec![];
            for i in 0..2 {
                pf.add_sf(rig.sf_id(0, i))?;
                devs.push(rig.sf(0, i).bring_up()?.netdev(config)?);
            }
            let mut fdb = pf.create_fdb(4)?;
            pf.join(&mut fdb, rig.sf_id(0, 0), rig.sf_id(0, 1))?;
            let to = devs.pop().context("a receiver")?;
            (devs.pop().context("a sender")?, to)
        }
    };
    Ok((rig, from, to))
}

fn measure(path: Path, size: u32, limit: Duration) -> anyhow::Result<Figure> {
    let buffer = size.next_multiple_of(2048);
    let config = NetdevConfig { log_sq: LOG_QUEUE, log_rq: LOG_QUEUE, buffer, ..NetdevConfig::default() };
    let (rig, mut from, mut to) = ends(path, &config)?;
    let payload = vec![0x5a; size as usize - 42];
    let frame = Flow4::new(to.mac, from.mac).udp(&payload);
    let (mut sent, mut received) = (0u64, 0u64);
    let mut device = Duration::ZERO;
    let start = Instant::now();
    fill(&mut from, &frame);
    while start.elapsed() < limit {
        from.channels[0].sq.repeat(BATCH);
        from.channels[0].sq.ring();
        let begin = Instant::now();
        rig.run();
        device += begin.elapsed();
        sent += u64::from(BATCH);
        received += collect(&mut from, &mut to);
    }
    let seconds = start.elapsed().as_secs_f64();
    anyhow::ensure!(sent == received, "{sent} frames were sent and {received} received");
    let mpps = received as f64 / seconds / 1e6;
    Ok(Figure {
        path: path.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
        size,
        flows: 1,
        workers: 1,
        mpps,
        gbps: mpps * 8.0 * f64::from(size) / 1e3,
        device_ns: device.as_nanos() as f64 / received.max(1) as f64,
    })
}

/// Writes the same frame into every WQE of the ring, without giving them to the
/// device.
fn fill(dev: &mut Netdev, frame: &[u8]) {
    const HEAD: usize = 18;
    let c = &mut dev.channels[0];
    let at = c.buffer_at(0);
    dev.function.mem.put(at, &frame[HEAD..]);
    for i in 0..1u16 << LOG_QUEUE {
        let wqe = sfnic_test_driver::Wqe::send(&frame[..HEAD]).data(dev.lkey, at, (frame.len() - HEAD) as u32);
        let wqe = if (i + 1) % SIGNAL == 0 { wqe.signalled() } else { wqe };
        c.sq.post(&wqe);
    }
    c.sq.restart();
}

/// Takes every completion and gives the buffers back; how many frames came.
fn collect(from: &mut Netdev, to: &mut Netdev) -> u64 {
    let sends = &mut from.channels[0].sq_cq;
    while sends.poll().is_some() {}
    sends.update();
    let c = &mut to.channels[0];
    let mut n = 0;
    while c.rq_cq.poll().is_some() {
        n += 1;
    }
    c.rq_cq.update();
    c.rq.post(n);
    n.into()
}
