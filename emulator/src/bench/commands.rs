//! Commands a second, through the command queue in memory.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sfnic_firmware_cmds::Opcode;
use sfnic_firmware_cmds::layouts::{DeallocPdIn, DeallocPdOut};
use sfnic_test_driver::Rig;

/// How many commands between two looks at the clock.
const BATCH: u64 = 256;

/// Commands a second: ALLOC_PD and DEALLOC_PD in turn, one at a time.
///
/// Each is written into the command queue in memory, rung by a doorbell,
/// executed and its answer read, by one thread.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print JSON instead of a line.
    #[arg(long)]
    json: bool,
}

/// Gives commands for so long; how many a second.
pub(super) fn rate(rig: &Rig, limit: Duration) -> anyhow::Result<f64> {
    let pf = rig.pf(0).bring_up().context("the driver's bring-up")?;
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < limit {
        for _ in 0..BATCH / 2 {
            let pd = pf.alloc_pd().context("ALLOC_PD")?;
            pf.cmd::<DeallocPdIn, DeallocPdOut>(Opcode::DEALLOC_PD, |i| {
                i.set(DeallocPdIn::pd, pd);
            })
            .context("DEALLOC_PD")?;
        }
        done += BATCH;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let rate = rate(&Rig::loopback(), Duration::from_secs(args.seconds.into()))?;
    if args.json {
        println!("{}", serde_json::json!({ "commands_per_second": rate.round(), "seconds": args.seconds }));
    } else {
        println!("{rate:.0} commands a second");
    }
    Ok(())
}
