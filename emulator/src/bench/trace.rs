//! What a trace costs: the life of a sub-function in a guest, and commands in a row.

use std::time::Duration;

use anyhow::{Context as _, bail};
use sfnic_ci::suite;
use sfnic_device_model::nic::Nic;
use sfnic_qemu::{Kit, KitOptions};
use sfnic_test_driver::Rig;

use super::commands;
use crate::lab::Lab;
use crate::tapbench::median;
use crate::trace::file::Header;
use crate::trace::record::{Outcome, Recording};

/// What is measured in a guest: an SF from nothing to nothing, with traffic.
const STORY: &str = "story";

/// What a trace costs: the story of a sub-function, and commands in a row.
///
/// Guests run in turn without and with a trace of every command, event, doorbell and
/// register access; seconds are those from the start of QEMU to its end. Commands are those
/// of `bench commands`, without a guest.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Guests without and with a trace; 0: commands only.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(..=100))]
    repeat: u32,
    /// The kernel that guests boot: a line of the kit.
    #[arg(long, value_name = "LINE", default_value = sfnic_qemu::kit::DEFAULT_LINE)]
    kernel: String,
    /// How long to measure commands, each way.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// A figure without and with a trace.
#[derive(Debug, serde::Serialize)]
struct Both {
    off: Vec<f64>,
    on: Vec<f64>,
}

impl Both {
    /// Medians, without and with.
    fn medians(&self) -> (f64, f64) {
        (median(&self.off).unwrap_or(f64::NAN), median(&self.on).unwrap_or(f64::NAN))
    }
}

/// Does something while all that the device does goes into a trace, which is thrown away.
fn recorded<T>(nic: &Nic, what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Outcome)> {
    let dir = tempfile::Builder::new().prefix("sfnic-bench-").tempdir()?;
    let header = Header { source: "device".into(), ..Header::default() };
    let recording = Recording::create(&dir.path().join("trace"), &header)?;
    nic.record(recording.recorder());
    let done = what()?;
    Ok((done, recording.finish()))
}

/// Commands a second, without and with a trace, in turn.
fn commands(seconds: u32) -> anyhow::Result<Both> {
    /// How often there is a turn.
    const TURNS: u32 = 4;
    let mut both = Both { off: vec![], on: vec![] };
    for _ in 0..TURNS {
        let limit = Duration::from_secs(seconds.into()) / TURNS;
        both.off.push(commands::rate(&Rig::loopback(), limit)?);
        let rig = Rig::loopback();
        both.on.push(recorded(&rig.nic, || commands::rate(&rig, limit))?.0);
    }
    Ok(both)
}

/// Seconds of the story, without and with a trace, in turn, and what the last trace holds.
fn story(args: &Args) -> anyhow::Result<(Both, Option<Outcome>)> {
    let suite = suite::find(STORY).context("the story is not among the suites")?;
    let kit = Kit::ensure(&KitOptions::default(), &args.kernel)?;
    let mut both = Both { off: vec![], on: vec![] };
    let mut last = None;
    for _ in 0..args.repeat {
        for traced in [false, true] {
            let done = both.off.len() + both.on.len() + 1;
            eprintln!("[{done}/{}] the story {} a trace …", args.repeat * 2, if traced { "with" } else { "without" });
            let bench = Lab::of(suite).start()?;
            let run = || bench.run(&kit, &suite.script);
            let evidence = if traced {
                let (evidence, summary) = recorded(&bench.board.nic, run)?;
                last = Some(summary);
                evidence
            } else {
                run()?
            };
            let Ok(evidence) = evidence else { bail!("interrupted") };
            if evidence.status != 0 {
                bail!("the story failed in the guest (status {}):\n{}", evidence.status, evidence.tails());
            }
            let seconds = evidence.elapsed.as_secs_f64();
            if traced { &mut both.on } else { &mut both.off }.push(seconds);
        }
    }
    Ok((both, last))
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let rates = commands(args.seconds)?;
    let (seconds, trace) = if args.repeat == 0 { (None, None) } else { story(args).map(|(s, t)| (Some(s), t))? };
    let (off, on) = rates.medians();
    let per_command_ns = (1.0 / on - 1.0 / off) * 1e9;
    let cost = seconds.as_ref().map(|s| {
        let (off, on) = s.medians();
        (on / off - 1.0) * 100.0
    });
    if args.json {
        let json = serde_json::json!({
            "commands_per_second": rates,
            "ns_per_command": per_command_ns.round(),
            "story_seconds": seconds,
            "story_cost_percent": cost,
            "records": trace.as_ref().map(|t| t.records),
            "lost": trace.as_ref().map(|t| t.lost),
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    println!("commands  {off:.0} a second without a trace, {on:.0} with one: {per_command_ns:.0} ns each");
    if let (Some(s), Some(cost)) = (&seconds, cost) {
        let (off, on) = s.medians();
        let records = trace.map_or(0, |t| t.records);
        println!("the story {off:.1} s without a trace, {on:.1} s with one ({records} records): {cost:+.1} %");
    }
    Ok(())
}
