//! Frames a second from one receive queue's point of view, without a guest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;

use super::flows::{self, Rules, Skew};
use super::lane::{self, Lane};
use super::speed::{COLUMNS, How, Speed};

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
/// rule and a counter of its own in the FDB), in an order that --skew says. All
/// flows have sent before the measurement begins, and at its end the counters
/// must add up.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
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
    #[command(flatten)]
    how: How,
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
    #[serde(flatten)]
    speed: Speed,
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
            for size in &args.how.size {
                all.push(measure(Plan { path: *path, size: *size, flows: *flows, args })?);
            }
        }
    }
    if args.how.json {
        return super::print_json(&all).map(|()| 0);
    }
    println!("{:<6} {:>6} {:>8} {:>6} {:>8} {COLUMNS}", "path", "bytes", "flows", "masks", "workers");
    for f in &all {
        println!("{:<6} {:>6} {:>8} {:>6} {:>8} {}", f.path, f.size, f.flows, f.masks, f.workers, f.speed);
    }
    Ok(0)
}

fn measure(plan: Plan<'_>) -> anyhow::Result<Figure> {
    let Plan { path, size, flows, args } = plan;
    let config = lane::config(size);
    let (rig, pf, pairs) = match path {
        Path::Cable => lane::over_cable(&config)?,
        Path::Fdb => lane::over_fdb(args.workers as u16, &config)?,
    };
    let rules = match flows {
        Some(n) => {
            eprintln!("{n} flows: adding {} rules", u64::from(n) * u64::from(args.workers));
            let mut rules = Rules::new(&pf, n * args.workers, args.masks)?;
            for pair in &pairs {
                (0..n).try_for_each(|i| rules.add(&pf, &pair.names(), i).map(drop))?;
            }
            Some(rules)
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
    let limit = Duration::from_secs(args.how.seconds.into());
    let results: Vec<anyhow::Result<Duration>> = std::thread::scope(|s| {
        let threads: Vec<_> = lanes
            .iter_mut()
            .map(|lane| {
                let (rig, stop, ready) = (&rig, &stop, &ready);
                s.spawn(move || lane.run(rig, stop, ready, args.how.frames))
            })
            .collect();
        ready.wait();
        if args.how.frames.is_none() {
            std::thread::sleep(limit);
            stop.store(true, Ordering::Relaxed);
        }
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
    let batches = lanes.iter().flat_map(|l| l.batches.iter().copied());
    Ok(Figure {
        path: name(path.to_possible_value()),
        size,
        flows: count,
        masks: args.masks,
        skew: name(args.skew.to_possible_value()),
        workers: args.workers,
        speed: Speed::of(size, rate, ns, batches.collect(), with_driver),
    })
}
