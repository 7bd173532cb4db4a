//! `sfnic run`: the device process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use sfnic_qemu::Guest;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::device::{Control, Device, Variant, Watch, socket_name};
use super::{Done, Failure, print, value};
use crate::board::{Begin, DoorbellMode};
use crate::config::Config;
use crate::control::place;
use crate::handover::Taken;

/// Run the device, for a QEMU of yours.
///
/// Prints the options with which QEMU (10.1 or newer) attaches to the device; runs until
/// Ctrl-C or SIGTERM. Status 0; 1 if it fails, or with --strict if the guest used what is
/// not modelled.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic run                             two functions, their ports joined by a cable
  sfnic run --socket /tmp/a --socket /tmp/b
  sfnic run --take-over /run/user/1000/sfnic/4242.control
  sfnic run --config nic.toml --explain 'icmp' --explain-count 3

\u{1b}[1;4mA configuration:\u{1b}[0m
  workers = 1                           # threads that move frames, 0 to 8
  doorbells = \"trap\"                    # or \"poll\": workers look at memory that drivers write
  eswitch = \"embedded\"                  # managed by sfnic ctl instead of the host
  [[pf]]                                # a physical function; 1 to 4
  mac = \"52:54:00:5f:00:00\"
  max_sfs = 64
  wire = \"tap:nic0\"                     # or \"cable\", \"loopback\", \"none\", \"switch:NAME\",
                                        # \"vhost-user:PATH\", \"stream:PATH\", \"unix:PATH,PEER\",
                                        # \"udp:…\", \"pcap:FILE\"
  speed = \"25G\"                         # what drivers are told
  impair = \"delay=5ms loss=0.01\"        # sfnic ctl wire set --help has the words")]
pub(super) struct Args {
    /// What the device is made of (TOML); two functions on a cable by default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The socket of a physical function: once for each, in their order.
    ///
    /// By default $XDG_RUNTIME_DIR/sfnic/pfN.sock, or /tmp/sfnic-UID/pfN.sock.
    #[arg(long, value_name = "PATH")]
    socket: Vec<PathBuf>,

    /// The guest's memory, in the QEMU options that are printed.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = value::memory)]
    mem: String,

    /// Begin in the state of this file (`sfnic ctl snapshot save`) instead of as after
    /// power-on, of a device of the same configuration.
    ///
    /// Slices of the configuration are not added: those of the snapshot are there. A QEMU that
    /// attaches resets its function, as at power-on; `sfnic ctl snapshot load --help` says
    /// what remains.
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,

    /// Go on where the device with this control socket is, with its guests, in its place.
    ///
    /// The configuration is the same but for wires, captures and the like. The other process
    /// stops between two requests of its guests and ends with status 0; they notice nothing,
    /// and need not be stopped. If this one cannot go on with what it gets, the other one does.
    /// Slices that are devices of other guests cannot go along while their guests have them.
    #[arg(long, value_name = "PATH", conflicts_with = "snapshot")]
    take_over: Option<PathBuf>,

    #[command(flatten)]
    control: Control,

    #[command(flatten)]
    variant: Variant,

    #[command(flatten)]
    watch: Watch,
}

pub(super) fn run(args: Args) -> Done {
    let mut config = Config::load(args.config.as_deref())?;
    args.variant.apply(&mut config)?;
    let count = config.pfs.len();
    let sockets = match args.socket.len() {
        0 => default_sockets(count)?,
        n if n == count => args.socket,
        n => {
            let given: Vec<String> = args.socket.iter().map(|p| p.display().to_string()).collect();
            return Err(Failure::Usage(format!(
                "--socket = {}: given {n} times; allowed is {count} times, once for each physical function",
                given.join(" ")
            )));
        }
    };
    args.watch.check()?;
    // From here on a signal ends the run in good order; a second one ends it at once.
    let ending = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_default(signal, ending.clone()).context("cannot catch signals")?;
    }
    let control = args.control.required();
    if let Some(file) = args.snapshot {
        config.begin = Begin::Snapshot(file);
    }
    if let Some(other) = &args.take_over {
        let cards: Vec<_> = config.pfs.iter().map(|pf| pf.card.clone()).collect();
        let taken = Taken::ask(other, &config.profile, &cards, config.doorbells == DoorbellMode::Poll);
        config.begin = Begin::Taken(Arc::new(taken.with_context(|| format!("--take-over {}", other.display()))?));
    }
    let device = Device::start(config, sockets, &control, &args.watch)?;
    let guest = Guest { mem: args.mem, slots: vec![device.sockets().to_vec()], ..Guest::default() };
    eprintln!("sfnic: the device runs; options for QEMU:");
    print(&format!("{}\n", guest.device_line()))?;
    signals.forever().next();
    ending.store(true, std::sync::atomic::Ordering::SeqCst);
    let nic = device.stop();
    Ok(args.watch.report(&nic, 0))
}

/// The usual place of the sockets, for this user alone.
fn default_sockets(count: usize) -> Result<Vec<PathBuf>> {
    let dir = place::make_directory().context("name other places with --socket")?;
    Ok((0..count).map(|i| dir.join(socket_name(i))).collect())
}
