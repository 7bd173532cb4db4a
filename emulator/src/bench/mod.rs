//! `sfnic bench`: how fast the device is. Figures vary with the machine; no
//! test asserts them.

mod commands;
mod flows;
mod forward;
mod lane;
mod memory;
mod observe;
mod offload;
mod queues;
mod rules;
mod speed;
mod trace;
mod vhost;
mod virtio;

use clap::Subcommand;

use crate::tapbench::TapBenchArgs;

/// Measure the device.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Forward(forward::Args),
    Vhost(vhost::Args),
    Commands(commands::Args),
    Rules(rules::Args),
    Memory(memory::Args),
    Observe(observe::Args),
    Trace(trace::Args),
    Tap(TapBenchArgs),
    Queues(queues::Args),
    Offload(offload::Args),
}

/// Runs the benchmark and prints its figures.
pub fn run(args: Args) -> anyhow::Result<i32> {
    match args.what {
        What::Forward(args) => forward::run(&args),
        What::Vhost(args) => vhost::run(&args).map(|()| 0),
        What::Commands(args) => commands::run(&args).map(|()| 0),
        What::Rules(args) => rules::run(&args).map(|()| 0),
        What::Memory(args) => memory::run(&args).map(|()| 0),
        What::Observe(args) => observe::run(&args).map(|()| 0),
        What::Trace(args) => trace::run(&args).map(|()| 0),
        What::Tap(args) => crate::tapbench::run(args),
        What::Queues(args) => queues::run(&args).map(|()| 0),
        What::Offload(args) => offload::run(&args).map(|()| 0),
    }
}

/// An object for one measurement, a list for several.
fn print_json<T: serde::Serialize>(all: &[T]) -> anyhow::Result<()> {
    match all {
        [one] => println!("{}", serde_json::to_string_pretty(one)?),
        several => println!("{}", serde_json::to_string_pretty(several)?),
    }
    Ok(())
}
