//! A flow between two sub-functions: the guest's kernel between their representors, or the
//! device by tc's rules.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sfnic_qemu::{Kit, KitOptions};

use crate::board::DoorbellMode;
use crate::config::doorbells_of;
use crate::lab::Lab;
use crate::tapbench::median;

/// The guest's half of it.
const SCRIPT: &str = "bench_offload.py";
/// What the guest says before a measurement's figures.
const MARK: &str = "value run ";
/// Kernels with tc offload and pktgen; the first is the default.
const DEFAULT_KERNEL: &str = "full-7.2";
/// Most that boot and SFs take together.
const OVERHEAD: Duration = Duration::from_secs(300);
/// Most that a measurement takes besides its seconds.
const SETTLE: Duration = Duration::from_secs(30);

/// A flow from SF to SF by tc's rules in the device, and the same by the guest's kernel.
///
/// Two SFs of one guest, each in a network namespace, and a router between them: either the
/// guest's kernel, between the SFs' representors, or two tc flower rules (in_hw) that do to a
/// frame what the router does. The receiver gets the same frames both ways, and its counters
/// tell what arrived. The frames come from pktgen, as fast as it can and then at 1.2 times
/// what arrived, the better of which counts, or are TCP's. Sender, receiver and kernel share
/// the guest's CPUs. The representors' software counters have to stand still under the rules
/// and to have counted every frame without.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How often each is made; the median counts.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Bytes of a UDP frame, without its check sequence; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "60,1514", value_parser = clap::value_parser!(u32).range(60..=1514))]
    sizes: Vec<u32>,
    /// The guest's CPUs.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Threads of the device that move frames (0: those that serve its socket do it).
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=8))]
    workers: u32,
    /// How doorbells come to the device, as of `sfnic vm`: trap or poll.
    #[arg(long, value_name = "trap|poll", default_value = "trap")]
    doorbells: DoorbellMode,
    /// The line of kernels: it needs tc offload and pktgen.
    #[arg(long, value_name = "LINE", default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Who switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Software,
    Offloaded,
}

/// One measurement of the guest's.
#[derive(Debug, Deserialize)]
struct Run {
    mode: Mode,
    traffic: String,
    size: u32,
    /// Was the sender held to a rate?
    paced: bool,
    seconds: f64,
    frames: u64,
    bytes: u64,
    kernel_frames: u64,
}

/// One way's figures; a second is one of the receiver's.
#[derive(Debug, Clone, Default, Serialize)]
struct Way {
    /// Median of the runs' frames a second.
    frames_per_second: f64,
    /// Median of the runs' bytes a second.
    bytes_per_second: f64,
    /// Each run; of a free and a paced one the better.
    runs_frames_per_second: Vec<f64>,
    runs_bytes_per_second: Vec<f64>,
    /// Frames that the kernel got from the representors, in all runs.
    representor_frames: u64,
}

impl Way {
    fn of<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<Way> {
        let mut way = Way::default();
        for run in runs {
            let (frames, bytes) = (run.frames as f64 / run.seconds, run.bytes as f64 / run.seconds);
            way.representor_frames += run.kernel_frames;
            match (run.paced, way.runs_frames_per_second.last_mut(), way.runs_bytes_per_second.last_mut()) {
                (true, Some(f), Some(b)) => (*f, *b) = (f.max(frames), b.max(bytes)),
                _ => {
                    way.runs_frames_per_second.push(frames);
                    way.runs_bytes_per_second.push(bytes);
                }
            }
        }
        way.frames_per_second = median(&way.runs_frames_per_second)?;
        way.bytes_per_second = median(&way.runs_bytes_per_second)?;
        Some(way)
    }
}

/// Both ways of the same traffic.
#[derive(Debug, Serialize)]
struct Figure {
    /// `udp` or `tcp`.
    traffic: String,
    /// Bytes of a UDP frame; 0: whatever TCP makes.
    size: u32,
    software: Way,
    offloaded: Way,
    /// Offloaded over software, of the medians of frames a second for UDP, of bytes for TCP.
    ratio: f64,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Report {
    kernel: String,
    qemu: String,
    cpus: u32,
    workers: u32,
    seconds: u32,
    repeat: u32,
    figures: Vec<Figure>,
}

fn figures(said: &str, sizes: &[u32]) -> Result<Vec<Figure>> {
    let runs = said.lines().filter_map(|line| line.strip_prefix(MARK));
    let read = |line: &str| serde_json::from_str::<Run>(line).with_context(|| format!("the guest said {line:?}"));
    let runs: Vec<Run> = runs.map(read).collect::<Result<_>>()?;
    let wanted = sizes.iter().map(|size| ("udp", *size)).chain([("tcp", 0)]);
    let figure = |(traffic, size): (&str, u32)| {
        let of = |mode| runs.iter().filter(move |r| r.mode == mode && r.traffic == traffic && r.size == size);
        let missing = || format!("the guest measured nothing for {traffic} {size}");
        let software = Way::of(of(Mode::Software)).with_context(missing)?;
        let offloaded = Way::of(of(Mode::Offloaded)).with_context(missing)?;
        let ratio = match traffic {
            "tcp" => offloaded.bytes_per_second / software.bytes_per_second,
            _ => offloaded.frames_per_second / software.frames_per_second,
        };
        Ok(Figure { traffic: traffic.to_owned(), size, software, offloaded, ratio })
    };
    wanted.map(figure).collect()
}

fn measure(args: &Args) -> Result<Report> {
    // Before minutes are spent on a kit.
    let doorbells = doorbells_of(args.doorbells, args.workers > 0).map_err(|why| anyhow!("--doorbells {why}"))?;
    let kit = Kit::ensure(&KitOptions::default(), &args.kernel)?;
    let plan = serde_json::json!({ "seconds": args.seconds, "repeat": args.repeat, "sizes": args.sizes });
    // Two paces of each size and one of TCP, both ways.
    let measurements = (args.sizes.len() as u32 * 2 + 1) * 2 * args.repeat;
    let lab = Lab {
        cpus: args.cpus,
        workers: args.workers as usize,
        poll: doorbells == DoorbellMode::Poll,
        timeout: OVERHEAD + (Duration::from_secs(args.seconds.into()) + SETTLE) * measurements,
        env: vec![("PLAN".to_owned(), plan.to_string())],
        ..Lab::new()
    };
    eprintln!("sfnic: {measurements} measurements of {} s in one guest …", args.seconds);
    let Ok(evidence) = lab.start()?.run(&kit, SCRIPT)? else { bail!("interrupted") };
    if let Some(why) = &evidence.failure {
        bail!("the guest failed: {why}");
    }
    let told = |start: &str| evidence.stdout.lines().find_map(|l| l.strip_prefix(start).map(str::to_owned));
    if let Some(why) = told("skip everything: ") {
        bail!("--kernel {}: {why}; {DEFAULT_KERNEL} has all that it takes", args.kernel);
    }
    if evidence.status != 0 {
        let last = || evidence.stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
        bail!("the guest's half failed: {}", told("not ok ").unwrap_or_else(|| last().to_owned()));
    }
    Ok(Report {
        kernel: kit.release().to_owned(),
        qemu: kit.qemu().version.to_string(),
        cpus: args.cpus,
        workers: args.workers,
        seconds: args.seconds,
        repeat: args.repeat,
        figures: figures(&evidence.stdout, &args.sizes)?,
    })
}

impl Report {
    /// A table for people.
    fn table(&self) -> String {
        let Report { kernel, qemu, cpus, workers, seconds, repeat, figures } = self;
        let mut t = format!(
            "guest: kernel {kernel}, {cpus} CPUs, QEMU {qemu}; device: workers {workers}; median of {repeat} times {seconds} s\n"
        );
        let head = ["SF to SF", "kernel frames/s", "rules frames/s", "kernel Mbit/s", "rules Mbit/s", "ratio"];
        let [a, b, c, d, e, f] = head;
        let _ = writeln!(t, "{a:<16} {b:>16} {c:>16} {d:>14} {e:>14} {f:>7}");
        for f in figures {
            let name = if f.traffic == "udp" { format!("UDP, {} bytes", f.size) } else { "TCP".to_owned() };
            let mbit = |way: &Way| way.bytes_per_second * 8.0 / 1e6;
            let _ = writeln!(
                t,
                "{name:<16} {:>16.0} {:>16.0} {:>14.1} {:>14.1} {:>7.1}",
                f.software.frames_per_second,
                f.offloaded.frames_per_second,
                mbit(&f.software),
                mbit(&f.offloaded),
                f.ratio
            );
        }
        t
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let report = measure(args)?;
    if args.json {
        return super::print_json(&[report]);
    }
    print!("{}", report.table());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"ok something
value run {"mode":"software","traffic":"udp","size":60,"paced":false,"seconds":2.0,"frames":100,"bytes":6000,"kernel_frames":100}
value run {"mode":"software","traffic":"udp","size":60,"paced":true,"seconds":2.0,"frames":200,"bytes":12000,"kernel_frames":201}
value run {"mode":"offloaded","traffic":"udp","size":60,"paced":false,"seconds":2.0,"frames":1000,"bytes":60000,"kernel_frames":0}
value run {"mode":"offloaded","traffic":"udp","size":60,"paced":true,"seconds":2.0,"frames":800,"bytes":48000,"kernel_frames":0}
value run {"mode":"software","traffic":"tcp","size":0,"paced":false,"seconds":1.0,"frames":10,"bytes":15000,"kernel_frames":20}
value run {"mode":"offloaded","traffic":"tcp","size":0,"paced":false,"seconds":1.0,"frames":5,"bytes":30000,"kernel_frames":0}
"#;

    #[test]
    fn the_better_of_a_free_and_a_paced_run_counts() {
        let all = figures(SAID, &[60]).unwrap();
        assert_eq!(all[0].software.runs_frames_per_second, [100.0]);
        assert_eq!((all[0].offloaded.frames_per_second, all[0].ratio), (500.0, 5.0));
        assert_eq!(all[0].software.representor_frames, 301);
        assert_eq!((all[1].traffic.as_str(), all[1].ratio), ("tcp", 2.0));
    }

    #[test]
    fn what_is_missing_is_named() {
        let said = figures(SAID, &[60, 1514]).unwrap_err().to_string();
        assert_eq!(said, "the guest measured nothing for udp 1514");
        assert!(figures("value run {}", &[]).is_err());
    }
}
