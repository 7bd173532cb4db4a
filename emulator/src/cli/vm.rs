//! `sfnic vm`: a guest with the device, and a command in it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Guest, Kit, What};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::device::{Control, Device, Later, Variant, Watch, dump};
use super::value::Kernel;
use super::{Done, Failure, complain, kit, value};
use crate::config::Config;

/// Boot a guest with the device and run a command in it.
///
/// The device has two physical functions whose ports a cable joins; they are functions 0
/// and 1 of one slot. The driver is loaded; SFNIC_PF0 and SFNIC_PF1 hold their PCI
/// addresses. Without a command it is a shell.
///
/// The exit status is the command's; 125 if the guest failed, 128 and the signal's number
/// if a signal ended it, 2 if a flag or the configuration is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic vm                              a shell in the guest
  sfnic vm -- devlink dev show
  sfnic vm -- sh -c 'ethtool -i $(ls /sys/bus/pci/devices/$SFNIC_PF0/net)'
  sfnic vm --script test.sh --share . --strict
  sfnic vm --explain 'arp' --dmesg kernel.log -- ./in-the-guest
  sfnic vm --with iputils-tracepath,tshark --kernel 6.12
  sfnic vm --kernel ~/linux -- dmesg    the kernel built there, and its modules
  sfnic vm --kernel /boot/vmlinuz-6.12 --modules /lib/modules/6.12

In the guest: /host is the shared folder; sh is a POSIX shell with ip, devlink, tc, rdma,
bridge, ethtool, iperf3, tcpdump and python3.")]
pub(super) struct Args {
    /// The kernel: the newest of a line, or your own: a bzImage or the tree it was built in.
    #[arg(long, value_name = "LINE|PATH", default_value = DEFAULT_LINE, value_parser = value::kernel)]
    kernel: Kernel,

    /// The modules of your own kernel: its lib/modules/RELEASE or a directory above.
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,

    /// What the device is made of (TOML); `sfnic run --help` has an example.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The guest's memory.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = value::memory)]
    mem: String,

    /// The guest's CPUs.
    #[arg(long, value_name = "N", default_value = "2", value_parser = value::cpus)]
    cpus: u32,

    /// Put an IOMMU (Intel's, strict) between the device and the guest's memory.
    #[arg(long)]
    iommu: bool,

    /// A directory that the guest sees at /host.
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,

    /// Leave loading the driver to the command.
    #[arg(long)]
    no_driver: bool,

    /// Run a file of the host in the guest: by its #! line if it is executable, else by sh.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    script: Option<PathBuf>,

    /// End the guest (status 125) if it takes longer.
    #[arg(long, value_name = "SECONDS", value_parser = value::seconds)]
    timeout: Option<u64>,

    /// Keep what the serial console said.
    #[arg(long, value_name = "FILE")]
    keep_console: Option<PathBuf>,

    /// Write the kernel's log.
    #[arg(long, value_name = "FILE")]
    dmesg: Option<PathBuf>,

    /// Write what the device has and counted after the run, as JSON.
    #[arg(long, value_name = "FILE")]
    debug_dump: Option<PathBuf>,

    #[command(flatten)]
    control: Control,

    #[command(flatten)]
    variant: Variant,

    #[command(flatten)]
    pub(super) watch: Watch,

    #[command(flatten)]
    with: kit::With,

    #[command(flatten)]
    kit: kit::Place,

    /// The command and its arguments, after --.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: Args) -> Done {
    let mut config = Config::load(args.config.as_deref())?;
    args.variant.apply(&mut config)?;
    let wrong =
        |flag: &str, path: &PathBuf, allowed: &str| Failure::Usage(format!("{flag} = {path:?}: allowed is {allowed}"));
    if let Some(dir) = args.share.as_ref().filter(|d| !d.is_dir()) {
        return Err(wrong("--share", dir, "a directory"));
    }
    if let Some(file) = args.script.as_ref().filter(|f| std::fs::File::open(f).is_err() || f.is_dir()) {
        return Err(wrong("--script", file, "a file that can be read"));
    }
    if let Kernel::Path(path) = &args.kernel
        && !path.exists()
    {
        return Err(wrong("--kernel", path, "a line of kernels, or the path of a bzImage or of a kernel's build tree"));
    }
    if let Some(dir) = args.modules.as_ref() {
        if matches!(args.kernel, Kernel::Line(_)) {
            return Err(wrong("--modules", dir, "only with the path of a kernel (--kernel PATH)"));
        }
        if !dir.is_dir() {
            return Err(wrong("--modules", dir, "a directory: lib/modules/RELEASE or one above"));
        }
    }
    let dmesg = Later::create("--dmesg", args.dmesg)?;
    let debug_dump = Later::create("--debug-dump", args.debug_dump)?;
    Later::create("--keep-console", args.keep_console.clone())?;
    args.watch.check()?;

    let what = match (args.script, args.command) {
        (Some(script), _) => What::Script(script),
        (None, words) if words.is_empty() => What::Shell,
        (None, words) => What::Command(words),
    };
    let guest = Guest {
        mem: args.mem,
        cpus: args.cpus,
        share: args.share,
        no_driver: args.no_driver,
        iommu: args.iommu,
        keep_console: args.keep_console,
        what,
        timeout: args.timeout.map(Duration::from_secs),
        ..Guest::default()
    };
    let options = args.kit.options_with(&args.with);
    let kit = match &args.kernel {
        Kernel::Line(line) => Kit::ensure(&options, line)?,
        Kernel::Path(path) => Kit::ensure_own(&options, path, args.modules.as_deref())?,
    };
    let ran = boot(&kit, config, guest, &args.control, &args.watch)?;
    if let Some(file) = dmesg {
        file.write(&ran.dmesg)?;
    }
    if let Some(file) = debug_dump {
        file.write(&format!("{:#}\n", dump(&ran.nic)))?;
    }
    Ok(args.watch.report(&ran.nic, ran.status))
}

/// What came of a guest with a device.
pub(super) struct Ran {
    /// The command's exit status.
    pub(super) status: u8,
    /// The kernel's log.
    pub(super) dmesg: String,
    /// The device, at rest.
    pub(super) nic: Arc<sfnic_device_model::nic::Nic>,
    /// How long the guest lived.
    pub(super) elapsed: Duration,
}

/// Runs a guest with a device that lives as long as it does.
pub(super) fn boot(kit: &Kit, config: Config, guest: Guest, control: &Control, watch: &Watch) -> Result<Ran> {
    let interrupted = Interrupted::catch()?;
    let device = Device::start_private(config, control, watch)?;
    let guest = Guest { slots: vec![device.sockets().to_vec()], ..guest };
    if let Some(status) = interrupted.status() {
        let nic = device.stop();
        return Ok(Ran { status, dmesg: String::new(), nic, elapsed: Duration::ZERO });
    }
    let ran = guest.run(kit);
    let nic = device.stop();
    let outcome = ran?;
    let status = u8::try_from(outcome.status & 0xff).unwrap_or(u8::MAX);
    Ok(Ran { status, dmesg: outcome.dmesg, nic, elapsed: outcome.elapsed })
}

/// A signal that comes before the guest takes care of them.
pub(super) struct Interrupted(Arc<AtomicUsize>);

impl Interrupted {
    pub(super) fn catch() -> Result<Interrupted> {
        let caught = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, caught.clone(), number).context("cannot catch signals")?;
        }
        Ok(Interrupted(caught))
    }

    pub(super) fn status(&self) -> Option<u8> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            number => {
                complain("interrupted");
                Some(u8::try_from(128 + number).unwrap_or(u8::MAX))
            }
        }
    }
}
