//! `sfnic bench tap`: our NIC beside two of QEMU's, in one guest, to the host.
//!
//! Each NIC has a TAP interface; the host's end of all three, QEMU and this program's
//! part of the transfers are in a network namespace of their own, so that nothing of the
//! host's network is touched. The transfers take turns, as machines drift.

mod host;
mod report;

pub(crate) use host::in_private_network;
pub(crate) use report::median;

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Guest, Kit, KitOptions, What};

use crate::board::{Board, DoorbellMode, WireKind};
use crate::config::{Config, doorbells_of};
use crate::wire::{Interface, MAX_QUEUES, interface};
pub use report::{NicResult, Rates, Ratio, Report, Rtt};

/// The guest's half of it.
const SCRIPT: &[u8] = include_bytes!("guest.py");
/// The capability that LRO needs.
const STRIDING: &str = "striding_rq=1";
/// Echo requests a NIC.
const PINGS: u32 = 100;
/// Bits of the networks' prefixes: the host's address is the first, the guest's the
/// second.
const PREFIX: u8 = 30;
/// Most that boot, links and pings take together.
const OVERHEAD: Duration = Duration::from_secs(240);
/// Longest that a transfer may take to drain.
const DRAIN: Duration = Duration::from_secs(10);

/// Compare the NIC with virtio-net and igb, each on a TAP interface, in one guest.
///
/// TCP throughput both ways and ping's round trip time. Needs root; the TAP interfaces
/// are in a network namespace of their own and go with it.
#[derive(Debug, Clone, clap::Args)]
pub struct TapBenchArgs {
    /// How long each transfer takes.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,

    /// How many transfers each way a NIC does; the median counts.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,

    /// Bytes that a sender hands to the kernel at once; several are separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "262144", value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    pub sizes: Vec<u32>,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,

    /// The guest's CPUs.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,

    /// Threads of the device that move frames (0: those that serve its socket do it).
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=8))]
    pub workers: u32,

    /// Queues of our NIC's TAP interface; each has a thread for what the host sends.
    #[arg(long, value_name = "N", default_value = "1", value_parser = queues)]
    pub queues: usize,

    /// Who sends and receives in the guest: our NIC's physical function, or an SF of it. The
    /// SF's representor is then on a bridge with the uplink's, which the driver has the device
    /// do; how many of the frames the guest's kernel passed on all the same is told.
    #[arg(long, value_name = "pf|sf", default_value = "pf")]
    pub from: Source,

    /// Our NIC has striding receive queues, and joins TCP segments (LRO) in them.
    #[arg(long)]
    pub lro: bool,

    /// A capability of our NIC that differs from the profile's, as of `sfnic vm`:
    /// striding_rq=1 are striding receive queues without LRO.
    #[arg(long, value_name = "[GROUP.]NAME=VALUE")]
    pub cap: Vec<String>,

    /// How doorbells come to our NIC, as of `sfnic vm`: trap or poll.
    #[arg(long, value_name = "trap|poll", default_value = "trap")]
    pub doorbells: DoorbellMode,

    /// The line of kernels; its newest version is taken.
    #[arg(long, value_name = "LINE", default_value = DEFAULT_LINE)]
    pub kernel: String,

    /// Where the kit is.
    #[arg(skip)]
    pub kit: KitOptions,
}

fn queues(text: &str) -> Result<usize, String> {
    let allowed = || format!("allowed is 1 to {MAX_QUEUES}");
    text.parse().ok().filter(|n| (1..=MAX_QUEUES).contains(n)).ok_or_else(allowed)
}

/// Who sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The physical function.
    Pf,
    /// A sub-function behind its eswitch.
    Sf,
}

/// A NIC to measure.
struct Candidate {
    name: &'static str,
    driver: &'static str,
    /// The host's interface.
    tap: &'static str,
    /// QEMU's device, if it is one of QEMU's.
    device: Option<&'static str>,
}

/// Ours is the first.
const CANDIDATES: [Candidate; 3] = [
    Candidate { name: "sfnic", driver: "mlx5_core", tap: "sfnic0", device: None },
    Candidate { name: "virtio-net", driver: "virtio_net", tap: "virtio0", device: Some("virtio-net-pci") },
    Candidate { name: "igb", driver: "igb", tap: "igb0", device: Some("igb") },
];

/// What the guest is to do.
#[derive(Debug, Serialize)]
struct Plan<'a> {
    nics: Vec<PlanNic>,
    seconds: u32,
    repeat: u32,
    pings: u32,
    sizes: &'a [u32],
}

#[derive(Debug, Serialize)]
struct PlanNic {
    name: &'static str,
    driver: &'static str,
    host: Ipv4Addr,
    guest: Ipv4Addr,
    /// Whether to switch LRO on.
    lro: bool,
    /// Whether to make a sub-function, and measure that.
    sf: bool,
}

/// Addresses of the host's and the guest's end of a network of RFC 2544.
fn addresses(index: usize) -> (Ipv4Addr, Ipv4Addr) {
    let third = index as u8;
    (Ipv4Addr::new(198, 18, third, 1), Ipv4Addr::new(198, 18, third, 2))
}

/// Measures and prints; returns the exit status.
///
/// # Errors
/// Missing rights, a kit that cannot be made, a guest that fails, in one line each.
pub fn run(args: TapBenchArgs) -> Result<i32> {
    let report = measure(&args)?;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&report)?) } else { report.table() };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("cannot write"),
        _ => Ok(0),
    }
}

/// What our NIC offers.
fn profile(args: &TapBenchArgs) -> Result<Profile> {
    let mut profile = Config::default().profile;
    let lro = args.lro.then_some(STRIDING);
    for cap in args.cap.iter().map(String::as_str).chain(lro) {
        profile.set(cap).context("--cap")?;
    }
    Ok(profile)
}

/// Measures.
///
/// # Errors
/// As [`run`].
pub fn measure(args: &TapBenchArgs) -> Result<Report> {
    // Before minutes are spent on a kit.
    doorbells_of(args.doorbells, args.workers > 0).map_err(|why| anyhow!("--doorbells {why}"))?;
    let profile = profile(args)?;
    host::in_private_network(|| Ok(()))?;
    let kit = Kit::ensure(&args.kit, &args.kernel)?;
    let said = host::in_private_network(|| guest(args, profile, &kit))?;
    let names: Vec<&str> = CANDIDATES.iter().map(|c| c.name).collect();
    let nics = report::read(&said, &names, &args.sizes)?;
    Ok(Report {
        kernel: kit.release().to_owned(),
        qemu: kit.qemu().version.to_string(),
        cpus: args.cpus,
        from: args.from,
        lro: args.lro,
        caps: args.cap.clone(),
        seconds: args.seconds.into(),
        ratios: report::ratios(&nics),
        nics,
    })
}

/// Runs the guest and returns what it said. The calling thread is in the private network.
fn guest(args: &TapBenchArgs, profile: Profile, kit: &Kit) -> Result<String> {
    let dir = tempfile::Builder::new().prefix("sfnic-").tempdir().context("cannot create a directory")?;
    let script = dir.path().join("tapbench.py");
    let mut file = File::create(&script).context("cannot write the guest's script")?;
    file.write_all(SCRIPT).context("cannot write the guest's script")?;
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).context("cannot write the guest's script")?;

    for c in CANDIDATES.iter().filter(|c| c.device.is_some()) {
        interface::create_persistent_tap(c.tap, false)?;
    }
    let board = board(args, profile)?;
    let socket = dir.path().join("pf0.sock");
    board.serve(std::slice::from_ref(&socket)).context("cannot offer the device")?;
    let mut peers = vec![];
    let mut nics = vec![];
    for (i, c) in CANDIDATES.iter().enumerate() {
        let (host, guest) = addresses(i);
        interface::set_address(c.tap, host, PREFIX)?;
        peers.push(host::Peer::start(c.name, host, args.kit.quiet)?);
        nics.push(PlanNic {
            name: c.name,
            driver: c.driver,
            host,
            guest,
            lro: i == 0 && args.lro,
            sf: i == 0 && args.from == Source::Sf,
        });
    }
    let plan = Plan { nics, seconds: args.seconds, repeat: args.repeat, pings: PINGS, sizes: &args.sizes };
    let transfers = CANDIDATES.len() as u32 * 2 * args.repeat * args.sizes.len() as u32;
    let guest = Guest {
        cpus: args.cpus,
        slots: vec![vec![socket]],
        what: What::Script(script),
        env: vec![("SFNIC_TAPBENCH".to_owned(), serde_json::to_string(&plan)?)],
        timeout: Some(OVERHEAD + (Duration::from_secs(args.seconds.into()) + DRAIN) * transfers),
        capture: true,
        extra_args: CANDIDATES.iter().filter_map(qemu_args).flatten().map(Into::into).collect(),
        quiet: args.kit.quiet,
        ..Guest::default()
    };
    let outcome = guest.run(kit);
    board.stop();
    drop(peers);
    let outcome = outcome?;
    if let Some(why) = outcome.failure {
        bail!("{why}");
    }
    if outcome.status != 0 {
        let said = String::from_utf8_lossy(&outcome.stderr);
        let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
        bail!("the guest's half failed ({}): {last}", outcome.status);
    }
    String::from_utf8(outcome.stdout).context("the guest's results")
}

/// A device of one physical function whose port is a TAP interface.
fn board(args: &TapBenchArgs, profile: Profile) -> Result<Board> {
    let (workers, doorbells) = (args.workers as usize, args.doorbells);
    let mut config = Config { workers, doorbells, profile, ..Config::default() };
    config.pfs.truncate(1);
    for pf in &mut config.pfs {
        pf.wire = WireKind::Tap(Interface { name: CANDIDATES[0].tap.to_owned(), queues: args.queues });
    }
    Board::new(config.into_board()).context("cannot build the device")
}

/// QEMU's options for a NIC of its own. Offloads are QEMU's defaults.
fn qemu_args(c: &Candidate) -> Option<[String; 4]> {
    let (tap, device) = (c.tap, c.device?);
    Some([
        "-netdev".to_owned(),
        format!("tap,id={tap},ifname={tap},script=no,downscript=no,vhost=off"),
        "-device".to_owned(),
        format!("{device},netdev={tap},romfile="),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: TapBenchArgs,
    }

    #[test]
    fn flags_have_defaults_and_lists() {
        use clap::Parser;
        let args = Cli::try_parse_from(["x"]).unwrap().args;
        assert_eq!((args.seconds, args.repeat, &args.sizes[..], args.json), (3, 2, &[262_144][..], false));
        let args = Cli::try_parse_from(["x", "--sizes", "1448,65536", "--json"]).unwrap().args;
        assert_eq!(args.sizes, [1448, 65536]);
        assert!(Cli::try_parse_from(["x", "--sizes", "0"]).is_err());
        assert!(Cli::try_parse_from(["x", "--seconds", "0"]).is_err());
    }
}
