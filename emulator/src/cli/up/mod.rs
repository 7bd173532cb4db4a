//! `sfnic up`: several guests at one device.

mod file;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sfnic_device_model::slice::Flavour;
use sfnic_qemu::vm::{Outcome, STATUS_FAILURE, VirtioNet};
use sfnic_qemu::{Guest, Kit};

use super::device::{Control, Device, Watch, private_dir, socket_name};
use super::value::Kernel;
use super::vm::Interrupted;
use super::{Done, complain, kit};
use file::{GuestSpec, Lab};

/// Boot several guests with one device, and run a job in each.
///
/// The file says which guest has which physical function ("pf0"), and which one is at the
/// far end of a port ("port0": a virtio network device). The jobs run at the same time;
/// each line of their output begins with the guest's name. All guests see the same folder
/// at /host, by which their jobs can wait for each other.
///
/// The exit status is that of the first guest in the file whose job failed, or 0; 125 if a
/// guest or we failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mA file:\u{1b}[0m
  timeout = 120                         # seconds, for all of it
  [nic]                                 # what `sfnic run --config` has
  workers = 1
  [[guest]]
  name = \"a\"
  endpoints = [\"pf0\"]                   # the driver is loaded; SFNIC_PF0 is its address
  script = \"a.sh\"                       # or command = [\"ip\", \"link\"]
  [[guest]]
  name = \"b\"
  endpoints = [\"port0\"]                 # virtio-net at the other end; SFNIC_NET0 is its netdev
  script = \"b.sh\"
  queues = 2                            # queue pairs; also cpus, mem, kernel, env, driver")]
pub(super) struct Args {
    /// The device and its guests (TOML).
    #[arg(value_name = "LAB.toml")]
    file: PathBuf,

    /// A directory where each guest's kernel log is written, NAME.dmesg.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    #[command(flatten)]
    watch: Watch,

    #[command(flatten)]
    kit: kit::Place,
}

pub(super) fn run(args: Args) -> Done {
    let dir = private_dir()?;
    let lab = file::load(&args.file, dir.path())?;
    if let Some(keep) = args.keep.as_ref().filter(|d| !d.is_dir()) {
        return Err(super::Failure::Usage(format!("--keep = {keep:?}: allowed is a directory")));
    }
    let options = args.kit.options();
    let kits: Vec<Kit> = lab
        .guests
        .iter()
        .map(|guest| match &guest.kernel {
            Kernel::Line(line) => Kit::ensure(&options, line),
            Kernel::Path(path) => Kit::ensure_own(&options, path, None),
        })
        .collect::<Result<_>>()?;
    let interrupted = Interrupted::catch()?;
    let Lab { nic, guests, share, timeout } = lab;
    let sockets: Vec<PathBuf> = (0..nic.pfs.len()).map(|i| dir.path().join(socket_name(i))).collect();
    let device = Device::start(nic, sockets, &Control::default(), &args.watch)?;
    if let Some(status) = interrupted.status() {
        device.stop();
        return Ok(status);
    }
    let share = match share {
        Some(share) => share,
        None => {
            let share = dir.path().join("host");
            std::fs::create_dir(&share).context("cannot create a directory to share")?;
            share
        }
    };
    let machines: Vec<Guest> = guests
        .iter()
        .map(|spec| Guest { share: Some(share.clone()), timeout, ..machine(spec, &device, dir.path()) })
        .collect();
    let outcomes = run_all(&machines, &kits);
    let nic = device.stop();
    let mut status = 0;
    for (spec, outcome) in guests.iter().zip(outcomes) {
        let this = match outcome {
            Ok(outcome) => {
                if let Some(keep) = &args.keep {
                    let path = keep.join(format!("{}.dmesg", spec.name));
                    std::fs::write(&path, &outcome.dmesg)
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
                outcome.status & 0xff
            }
            Err(e) => {
                complain(&format!("{}: {e:#}", spec.name));
                STATUS_FAILURE
            }
        };
        if this != 0 {
            complain(&format!("{}: its status is {this}", spec.name));
        }
        status = if status == 0 { this } else { status };
    }
    Ok(args.watch.report(&nic, u8::try_from(status).unwrap_or(u8::MAX)))
}

/// A guest as the file has it.
fn machine(spec: &GuestSpec, device: &Device, dir: &Path) -> Guest {
    let functions: Vec<PathBuf> = spec.pfs.iter().filter_map(|n| device.sockets().get(*n).cloned()).collect();
    let own = |flavour| device.slices().iter().filter(move |s| s.flavour == flavour && spec.slices.contains(&s.index));
    // Each in a slot of its own, behind the physical functions.
    let slices: Vec<Vec<PathBuf>> = own(Flavour::Passthrough).map(|s| vec![file::slice_socket(dir, s)]).collect();
    let virtio = spec.ports.iter().map(|n| VirtioNet {
        socket: file::port_socket(dir, *n),
        queues: spec.queues,
        mac: file::virtio_mac(*n),
    });
    let slice_devices = own(Flavour::Virtio).map(|s| VirtioNet {
        socket: file::slice_socket(dir, s),
        queues: spec.queues,
        mac: file::slice_mac(s),
    });
    let virtio = virtio.chain(slice_devices);
    let mut env = spec.env.clone();
    env.push(("SFNIC_GUEST".to_owned(), spec.name.clone()));
    Guest {
        mem: spec.mem.clone(),
        cpus: spec.cpus,
        slots: [functions].into_iter().filter(|f| !f.is_empty()).chain(slices).collect(),
        virtio: virtio.collect(),
        prefix: format!("{}: ", spec.name),
        no_driver: !spec.driver,
        what: spec.what.clone(),
        env,
        ..Guest::default()
    }
}

/// Runs all guests at the same time.
fn run_all(machines: &[Guest], kits: &[Kit]) -> Vec<Result<Outcome>> {
    std::thread::scope(|scope| {
        let started: Vec<_> =
            machines.iter().zip(kits).map(|(guest, kit)| scope.spawn(move || guest.run(kit))).collect();
        let join = |t: std::thread::ScopedJoinHandle<'_, Result<Outcome>>| match t.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        started.into_iter().map(join).collect()
    })
}
