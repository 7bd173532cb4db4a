//! What it costs the packet path that somebody looks: metrics that are scraped, and logs.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::Level;
use tracing::subscriber::NoSubscriber;

use super::lane::{self, Lane, median};
use crate::control::Target;
use crate::control::client::Client;
use crate::control::server::Server;

/// What metrics and logs cost: frames a second with and without them.
///
/// Frames of 64 bytes go from SF to SF through a rule of the FDB, as with bench forward.
/// Turns with and without a GET of /metrics each second, and with and without a log at level
/// info, follow each other, so that what else the machine does meets all of them. It can only
/// make turns slower: of each kind the one counts that three quarters are not faster than.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rounds; each has a turn of each kind.
    #[arg(long, value_name = "N", default_value = "15", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long a turn takes.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// How often metrics are asked for.
const EVERY: Duration = Duration::from_secs(1);

/// What is looked at in a turn.
#[derive(Debug, Clone, Copy)]
struct Look {
    name: &'static str,
    metrics: bool,
    info: bool,
}

const LOOKS: [Look; 4] = [
    Look { name: "nothing", metrics: false, info: false },
    Look { name: "metrics", metrics: true, info: false },
    Look { name: "info", metrics: false, info: true },
    Look { name: "both", metrics: true, info: true },
];

/// What the turns of one kind came to.
#[derive(Debug, serde::Serialize)]
struct Figure {
    looks: &'static str,
    /// Nanoseconds of the device a frame, the lower quartile of the rounds.
    device_ns: f64,
    /// Million frames a second of that.
    mpps: f64,
    /// How much slower than where nobody looked, in percent, by these quartiles.
    cost_percent: f64,
    /// The least and the most of what single rounds say of it.
    cost_range: [f64; 2],
}

/// All of them.
#[derive(Debug, serde::Serialize)]
struct Report {
    figures: Vec<Figure>,
    /// Milliseconds until an answer of /metrics is there, the median.
    scrape_ms: f64,
    /// Bytes of it.
    scrape_bytes: usize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    const SIZE: u32 = 64;
    let (rig, pf, mut pairs) = lane::over_fdb(1, &lane::config(SIZE))?;
    let mut fdb = pf.create_fdb(4)?;
    let pair = pairs.pop().context("no pair")?;
    pf.join(&mut fdb, pair.vports[0], pair.vports[1])?;
    let dir = tempfile::tempdir().context("cannot make a directory")?;
    let socket = dir.path().join("control");
    let _server = Server::start(Target::new(rig.nic.clone(), "pci/0000:06:00.0"), &socket, None)?;
    let mut lane = Lane::new(pair, 0, SIZE, 1, &[0]);
    lane.warm_up(&rig);
    let time = Duration::from_secs(args.seconds.into());
    let (mut taken, mut costs, mut scrapes) = (vec![vec![]; LOOKS.len()], vec![vec![]; LOOKS.len()], vec![]);
    let mut bytes = 0;
    for round in 0..args.rounds as usize {
        eprintln!("round {} of {}", round + 1, args.rounds);
        let mut ns = [0.0; LOOKS.len()];
        for turn in 0..LOOKS.len() {
            // Another one begins each round.
            let which = (turn + round) % LOOKS.len();
            let look = LOOKS[which];
            let stop = AtomicBool::new(false);
            ns[which] = std::thread::scope(|s| {
                let scraper = look.metrics.then(|| s.spawn(|| scrape(&socket, &stop)));
                let ns = watched(look.info, || lane.turn(&rig, time));
                stop.store(true, Ordering::Relaxed);
                if let Some(scraper) = scraper {
                    scraper.thread().unpark();
                    let (times, size) = scraper.join().map_err(|_| anyhow::anyhow!("the scraper died"))??;
                    scrapes.extend(times);
                    bytes = size;
                }
                anyhow::Ok(ns)
            })?;
        }
        for (i, n) in ns.iter().enumerate() {
            taken[i].push(*n);
            costs[i].push((n / ns[0] - 1.0) * 100.0);
        }
    }
    let taken: Vec<f64> = taken.into_iter().map(lower_quartile).collect();
    let figures = LOOKS.iter().zip(taken.iter().zip(costs)).map(|(look, (device_ns, costs))| {
        let device_ns = *device_ns;
        let cost_percent = (device_ns / taken[0] - 1.0) * 100.0;
        let range = [costs.iter().copied().fold(f64::MAX, f64::min), costs.iter().copied().fold(f64::MIN, f64::max)];
        Figure { looks: look.name, device_ns, mpps: 1e3 / device_ns, cost_percent, cost_range: range }
    });
    let report = Report { figures: figures.collect(), scrape_ms: median(scrapes), scrape_bytes: bytes };
    print(&report, args.json)
}

fn lower_quartile(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 4).copied().unwrap_or(f64::NAN)
}

fn print(r: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(r)?);
        return Ok(());
    }
    println!("{:<8} {:>10} {:>8} {:>8} {:>16}", "looks", "device ns", "Mpps", "cost %", "least to most %");
    for f in &r.figures {
        let range = format!("{:+.1} to {:+.1}", f.cost_range[0], f.cost_range[1]);
        println!("{:<8} {:>10.1} {:>8.2} {:>+8.1} {:>16}", f.looks, f.device_ns, f.mpps, f.cost_percent, range);
    }
    println!("an answer of /metrics has {} bytes and is there in {:.2} ms", r.scrape_bytes, r.scrape_ms);
    Ok(())
}

/// Does something with a log at level info, which goes nowhere, or with none.
fn watched<T>(info: bool, what: impl FnOnce() -> T) -> T {
    if info {
        let log = tracing_subscriber::fmt().with_max_level(Level::INFO).with_writer(io::sink).finish();
        tracing::subscriber::with_default(log, what)
    } else {
        tracing::subscriber::with_default(NoSubscriber::default(), what)
    }
}

/// Asks for metrics at once and then each second; milliseconds that the answers took, and the
/// bytes of the last one.
fn scrape(socket: &Path, stop: &AtomicBool) -> anyhow::Result<(Vec<f64>, usize)> {
    let client = Client::at(socket);
    let (mut times, mut bytes) = (vec![], 0);
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        bytes = client.text("/metrics")?.len();
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        std::thread::park_timeout(EVERY.saturating_sub(begin.elapsed()));
    }
    Ok((times, bytes))
}
