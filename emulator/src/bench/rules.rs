//! Rule changes a second, in tables of different sizes, with and without
//! frames that pass meanwhile.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::ValueEnum;
use sfnic_test_driver::{Function, Rig};

use super::flows::{self, Rules, Skew};
use super::lane::{self, Lane, Names, Pair};

/// Rules that come and go at a time.
const BATCH: u32 = 512;
/// Bytes of the frames that pass.
const SIZE: u32 = 64;

/// When frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Traffic {
    /// Never.
    Off,
    /// While rules change.
    On,
    /// Both, one after the other.
    Both,
}

/// Rule insertions and deletions a second in a table that holds so many.
///
/// Each is a command (SET_FLOW_TABLE_ENTRY, DELETE_FLOW_TABLE_ENTRY) written
/// into the command queue in memory, executed and its answer read, by one
/// thread. Rules match a 5-tuple and forward to an SF, each with a counter of
/// its own. First the table is filled; then 512 further rules come and go for
/// as long as --seconds says, and both are timed.
///
/// With traffic a worker on another thread forwards frames of 64 bytes between
/// two SFs, of flows that have a rule each, for as long before the changes as
/// during them. Its frames a second are those of the median batch of 512, in the
/// device's time; the ratio is what is left of them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rules that the table holds; several separated by commas.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1000,10000,100000,1000000", value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    entries: Vec<u32>,
    /// Different masks among the rules.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(flows::MAX_MASKS)))]
    masks: u32,
    /// Whether frames pass meanwhile.
    #[arg(long, default_value = "both")]
    traffic: Traffic,
    /// Flows that send, at most as many as there are entries.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flows: u32,
    /// Insertions a second, and as many deletions; without, as many as can be.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
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
    entries: u32,
    masks: u32,
    /// Flows that send meanwhile; 0 without traffic.
    flows: u32,
    /// While the table was filled.
    fill_per_second: f64,
    insertions_per_second: f64,
    deletions_per_second: f64,
    /// Million frames a second before rules change.
    #[serde(skip_serializing_if = "Option::is_none")]
    mpps_before: Option<f64>,
    /// The same while rules change.
    #[serde(skip_serializing_if = "Option::is_none")]
    mpps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut all = vec![];
    for n in &args.entries {
        let with: &[bool] = match args.traffic {
            Traffic::Off => &[false],
            Traffic::On => &[true],
            Traffic::Both => &[false, true],
        };
        measure(*n, with, args, &mut all)?;
    }
    if args.json {
        return super::print_json(&all);
    }
    println!(
        "{:>8} {:>6} {:>8} {:>10} {:>12} {:>12} {:>12} {:>8} {:>6}",
        "entries", "masks", "flows", "fill/s", "inserted/s", "deleted/s", "Mpps before", "Mpps", "ratio"
    );
    let or_none = |v: Option<f64>| v.map_or_else(|| "-".into(), |v| format!("{v:.2}"));
    for f in &all {
        println!(
            "{:>8} {:>6} {:>8} {:>10.0} {:>12.0} {:>12.0} {:>12} {:>8} {:>6}",
            f.entries,
            f.masks,
            f.flows,
            f.fill_per_second,
            f.insertions_per_second,
            f.deletions_per_second,
            or_none(f.mpps_before),
            or_none(f.mpps),
            or_none(f.ratio)
        );
    }
    Ok(())
}

fn hundredths(v: f64) -> f64 {
    (v * 100.0).round() / 100.0
}

fn measure(entries: u32, with_traffic: &[bool], args: &Args, all: &mut Vec<Figure>) -> anyhow::Result<()> {
    let (rig, pf, mut pairs) = lane::over_fdb(1, &lane::config(SIZE))?;
    let names = pairs[0].names();
    eprintln!("adding {entries} rules");
    let mut rules = Rules::new(&pf, entries + BATCH.next_multiple_of(args.masks), args.masks)?;
    let start = Instant::now();
    for n in 0..entries {
        rules.add(&pf, &names, n)?;
    }
    let fill = f64::from(entries) / start.elapsed().as_secs_f64();
    for traffic in with_traffic {
        let flows = if *traffic { args.flows.min(entries) } else { 0 };
        let (changes, rates) = if flows > 0 {
            let pair = pairs.pop().expect("one pair, used once");
            let (changes, rates) = beside(&rig, &pf, pair, &mut rules, entries, flows, args)?;
            (changes, Some(rates))
        } else {
            (change(&pf, &names, &mut rules, entries, args)?, None)
        };
        all.push(Figure {
            entries,
            masks: args.masks,
            flows,
            fill_per_second: fill.round(),
            insertions_per_second: changes[0].round(),
            deletions_per_second: changes[1].round(),
            mpps_before: rates.map(|r| hundredths(r[0])),
            mpps: rates.map(|r| hundredths(r[1])),
            ratio: rates.map(|r| hundredths(r[1] / r[0])),
        });
    }
    Ok(())
}

/// Insertions and deletions a second.
fn change(pf: &Function, names: &Names, rules: &mut Rules, entries: u32, args: &Args) -> anyhow::Result<[f64; 2]> {
    let limit = Duration::from_secs(args.seconds.into());
    let start = Instant::now();
    let (mut inserting, mut deleting, mut n) = (Duration::ZERO, Duration::ZERO, 0u32);
    let mut fresh = entries;
    while start.elapsed() < limit {
        let begin = Instant::now();
        let added: Vec<u32> = (0..BATCH).map(|i| rules.add(pf, names, fresh + i)).collect::<anyhow::Result<_>>()?;
        inserting += begin.elapsed();
        let begin = Instant::now();
        added.iter().try_for_each(|index| rules.delete(pf, *index))?;
        deleting += begin.elapsed();
        n += BATCH;
        if let Some(rate) = args.rate {
            let due = Duration::from_secs_f64(f64::from(n) / f64::from(rate));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        // Others the next time, of those that do not send.
        fresh = if fresh > u32::MAX / 2 { entries } else { fresh + BATCH };
    }
    if args.rate.is_some() {
        return Ok([f64::from(n) / start.elapsed().as_secs_f64(); 2]);
    }
    Ok([f64::from(n) / inserting.as_secs_f64(), f64::from(n) / deleting.as_secs_f64()])
}

/// The same while frames pass; and million frames a second before and meanwhile.
fn beside(
    rig: &Rig,
    pf: &Function,
    pair: Pair,
    rules: &mut Rules,
    entries: u32,
    flows: u32,
    args: &Args,
) -> anyhow::Result<([f64; 2], [f64; 2])> {
    let sequence = flows::sequence(flows, Skew::Uniform);
    let names = pair.names();
    let mut lane = Lane::new(pair, 0, SIZE, flows, &sequence);
    let (stop, busy, ready) = (AtomicBool::new(false), AtomicBool::new(false), Barrier::new(2));
    let before = rules.counted(pf)?;
    let result = std::thread::scope(|s| {
        let (stop, busy, ready, lane) = (&stop, &busy, &ready, &mut lane);
        let worker = s.spawn(move || {
            lane.warm_up(rig);
            ready.wait();
            while !busy.load(Relaxed) {
                lane.batch(rig);
            }
            let quiet = std::mem::take(&mut lane.batches);
            while !stop.load(Relaxed) {
                lane.batch(rig);
            }
            (lane.sent, lane.received, [quiet, std::mem::take(&mut lane.batches)])
        });
        ready.wait();
        std::thread::sleep(Duration::from_secs(args.seconds.into()));
        busy.store(true, Relaxed);
        let changes = change(pf, &names, rules, entries, args);
        stop.store(true, Relaxed);
        let (sent, received, ns) = worker.join().map_err(|_| anyhow::anyhow!("the worker died"))?;
        ensure!(sent == received, "{sent} frames were sent and {received} received");
        anyhow::Ok((changes?, ns.map(|all| 1e3 / lane::median(all)), sent))
    });
    let (changes, rates, sent) = result?;
    let counted = rules.counted(pf)? - before;
    ensure!(sent == counted, "{sent} frames were sent and {counted} counted");
    Ok((changes, rates))
}
