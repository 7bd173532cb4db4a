//! `sfnic suite`: the kernel's own tests.

use std::path::PathBuf;

use anyhow::Context as _;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Guest, Kit, KitOptions, What};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::device::{Control, Later, Watch};
use super::{Done, Failure, kit, print, value, vm};
use crate::config::Config;
use crate::suite::data::Data;
use crate::suite::{Job, LOG, MEMORY, PACKAGES, SCRIPT, report};

/// How often the guest is booted until it runs the tests: with so many emulated CPUs, its kernel
/// now and then trips over its own patching of code on the way.
const BOOTS: u32 = 3;

/// Run the kernel's own tests in a guest.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Suite,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum Suite {
    Kselftest(Kselftest),
}

/// The self-tests of network drivers (drivers/net and drivers/net/hw) and `ethtool -t`.
///
/// The tests come from the source of the kernel that the guest runs and are as they are
/// there. The first function is the device under test, the second one, at the other end of
/// the cable, the remote. A case that fails is tried again, for an emulated machine is slow
/// and some cases measure time.
///
/// Status 0 if every case passed or did what is known of it, 1 if one did not, 2 for a wrong
/// flag.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic suite kselftest                          all of them: half an hour, emulated
  sfnic suite kselftest --filter 'rss_*' --tap
  sfnic suite kselftest --filter csum --junit report.xml
  sfnic suite kselftest --list                   the programs that there are")]
struct Kselftest {
    /// Only the programs that this pattern matches, by name or path (* and ?).
    #[arg(long, value_name = "GLOB")]
    filter: Vec<String>,

    /// The kernel: the newest of a line.
    #[arg(long, value_name = "LINE", default_value = DEFAULT_LINE, value_parser = value::line)]
    kernel: String,

    /// Results as TAP on stdout, instead of a table.
    #[arg(long, conflicts_with = "json")]
    tap: bool,

    /// Results as JSON on stdout, instead of a table.
    #[arg(long)]
    json: bool,

    /// Write the results as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write all that the tests said.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Write the kernel's log.
    #[arg(long, value_name = "FILE")]
    dmesg: Option<PathBuf>,

    /// The guest's CPUs: the driver has a queue for each, less two.
    #[arg(long, value_name = "N", default_value = "12", value_parser = value::cpus)]
    cpus: u32,

    /// How often a case that fails is tried again.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(0..=20))]
    retries: u32,

    /// Print the programs and end.
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    kit: kit::Place,
}

pub(super) fn run(args: Args) -> Done {
    match args.what {
        Suite::Kselftest(args) => kselftest(args),
    }
}

fn kselftest(args: Kselftest) -> Done {
    let data = Data::builtin()?;
    let filters = if args.filter.is_empty() { vec!["*".to_owned()] } else { args.filter.clone() };
    let mut programs = Vec::new();
    for filter in &filters {
        let found = data.matching(filter);
        if found.is_empty() {
            let allowed = "a pattern that matches a program of `sfnic suite kselftest --list`";
            return Err(Failure::Usage(format!("--filter = {filter:?}: allowed is {allowed}")));
        }
        programs.extend(found);
    }
    programs.dedup_by(|a, b| a.path == b.path);
    if args.list {
        let lines: String = programs.iter().map(|p| format!("{}\n", p.path)).collect();
        print(&lines)?;
        return Ok(0);
    }
    let junit = Later::create("--junit", args.junit)?;
    let log = Later::create("--log", args.log)?;
    let dmesg = Later::create("--dmesg", args.dmesg)?;

    let with = PACKAGES.iter().map(ToString::to_string).collect();
    let options = KitOptions { with, ..args.kit.options() };
    let kit = Kit::ensure(&options, &args.kernel)?;
    let tests = kit.selftests(&options)?;
    let share = tempfile::Builder::new().prefix("sfnic-suite-").tempdir().context("cannot make a folder")?;
    let job = Job::new(data, programs, args.retries);
    job.supply(&tests, share.path())?;
    sfnic_ci::scripts::write(share.path()).context("cannot write the script")?;

    let guest = Guest {
        mem: MEMORY.to_owned(),
        cpus: args.cpus,
        share: Some(share.path().to_owned()),
        what: What::Command(
            ["python3".into(), format!("/host/{SCRIPT}")].into_iter().chain(job.words()).map(Into::into).collect(),
        ),
        env: job.env(),
        timeout: Some(job.timeout()),
        ..Guest::default()
    };
    let watch = Watch { strict: false, explain: None, explain_count: 0, trace: None, capture: vec![] };
    // What the tests say is on the share: the console is for progress.
    let mut boots = BOOTS;
    let ran = loop {
        let ran = vm::boot(&kit, Config::default(), guest.clone(), &Control::default(), &watch)?;
        boots -= 1;
        let interrupted = [SIGHUP, SIGINT, SIGTERM].iter().any(|s| i32::from(ran.status) == 128 + s);
        if boots == 0 || interrupted || share.path().join(LOG).exists() {
            break ran;
        }
    };
    let (said, all) = job.outcome(share.path());
    if let Some(file) = log {
        file.write(&said)?;
    }
    if let Some(file) = dmesg {
        file.write(&ran.dmesg)?;
    }
    if let Some(file) = junit {
        file.write(&report::junit(&all))?;
    }
    match (args.tap, args.json) {
        (true, _) => print(&report::tap(&all))?,
        (_, true) => print(&format!("{}\n", serde_json::to_string_pretty(&all).context("cannot write JSON")?))?,
        _ => print(&report::table(&all))?,
    }
    Ok(watch.report(&ran.nic, u8::from(report::failed(&all))))
}
