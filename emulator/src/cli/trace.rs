//! `sfnic trace`: commands recorded, shown, compared, replayed.

use std::path::{Path, PathBuf};

use serde_json::json;
use sfnic_firmware_cmds::opcode::Opcode;
use sfnic_firmware_cmds::profile::Profile;

use super::{Done, Failure, complain, print, vm};
use crate::config::{self, Config, DEFAULT_PROFILE};
use crate::trace::diff::{Difference, diff};
use crate::trace::replay::{Report, replay, status_name};
use crate::trace::text::{self, Filter};
use crate::trace::{Trace, file, load};

/// Record commands, show, compare and replay them.
///
/// A FILE is a trace, or a kernel's log with mlx5_core's dynamic debug, of this device or
/// of a real card's driver.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic trace record t -- devlink dev show
  sfnic trace show t --opcode CREATE_CQ --function 0x8000
  sfnic trace replay t                  does the model answer as it did?

A log, from any machine with a ConnectX (whole blocks, or with debug_mask=1 the commands alone):
  modprobe -r mlx5_ib mlx5_core; modprobe mlx5_core dyndbg=+p debug_mask=1; dmesg > log
  sfnic trace replay log
  sfnic profile import log --output card.toml"
)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum What {
    /// Boot a guest and record it: `sfnic vm --trace FILE`, with all its options.
    Record {
        /// The trace to write.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        vm: Box<vm::Args>,
    },
    /// Show commands, every field by its name.
    Show {
        /// A trace or a log.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only commands of this opcode, by name or number; again for more.
        #[arg(long, value_name = "NAME|0x…", value_parser = opcode)]
        opcode: Vec<u16>,
        /// Only this function: pf0, pf0/0x8000, or 0x8000 of any card; again for more.
        #[arg(long, value_name = "FUNCTION", value_parser = function)]
        function: Vec<(Option<u8>, u16)>,
        /// Events, doorbells and accesses to the windows too.
        #[arg(long)]
        events: bool,
        /// Fields that are zero too.
        #[arg(long)]
        all: bool,
        /// A JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Compare two traces. Status 0: they are the same, 1: they differ.
    Diff {
        /// A trace or a log.
        #[arg(value_name = "A")]
        a: PathBuf,
        /// Another one.
        #[arg(value_name = "B")]
        b: PathBuf,
        /// Addresses of the guest's memory too.
        #[arg(long)]
        addresses: bool,
        /// A JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Make a trace of a kernel's log.
    Import {
        /// The log.
        #[arg(value_name = "DMESG")]
        dmesg: PathBuf,
        /// The trace; by default DMESG.trace.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        source: Source,
    },
    /// Give a trace's commands to a fresh model and compare the answers.
    ///
    /// What differs is explained by the profile (a capability that the model has not), by
    /// chance (a handle, a counter of traffic), or not at all. Status 0: nothing is
    /// unexplained, 1: something is.
    Replay {
        /// A trace or a log.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// A built-in profile, or the path of one; by default the trace's.
        #[arg(long, value_name = "NAME|FILE")]
        profile: Option<String>,
        /// What the device is made of (TOML); by default what the trace says.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A JSON object: `summary`, and `commands`, those that differ.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
}

/// How a trace or a log is read.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Source {
    /// Take what is whole of a file that was cut off.
    #[arg(long)]
    partial: bool,
}

impl Args {
    /// Does it boot a guest?
    pub(super) fn is_vm(&self) -> bool {
        matches!(self.what, What::Record { .. })
    }
}

pub(super) fn run(args: Args) -> Done {
    match args.what {
        What::Record { file, vm } => record(file, *vm),
        What::Show { file, opcode, function, events, all, json, source } => {
            show(&source.open(&file)?, &Filter { opcodes: opcode, functions: function, events, all }, json)
        }
        What::Diff { a, b, addresses, json, source } => compare(&source.open(&a)?, &source.open(&b)?, addresses, json),
        What::Import { dmesg, output, source } => convert(&dmesg, output, source),
        What::Replay { file, profile, config, json, source } => again(&file, profile, config.as_deref(), json, source),
    }
}

/// An opcode by name or number.
fn opcode(word: &str) -> Result<u16, String> {
    let number = word.strip_prefix("0x").map(|n| u16::from_str_radix(n, 16).ok());
    let found = match number {
        Some(n) => n,
        None => Opcode::ALL.iter().find(|o| o.1.eq_ignore_ascii_case(word)).map(|o| o.0.0),
    };
    found.ok_or_else(|| "allowed is a name of `sfnic list commands`, or a number such as 0x104".to_owned())
}

/// A function by card and number.
fn function(word: &str) -> Result<(Option<u8>, u16), String> {
    let number = |n: &str| match n.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => n.parse().ok(),
    };
    let found = match word.strip_prefix("pf").map(|w| w.split_once('/').unwrap_or((w, "0"))) {
        Some((card, n)) => card.parse().ok().zip(number(n)).map(|(c, n)| (Some(c), n)),
        None => number(word).map(|n| (None, n)),
    };
    found.ok_or_else(|| "allowed is pf0, pf0/0x8000 or 0x8000".to_owned())
}

impl Source {
    /// Reads a trace or a log, and says what is missing in it.
    pub(super) fn open(self, path: &Path) -> Result<Trace, Failure> {
        let trace = load(path, self.partial).map_err(Failure::Usage)?;
        for note in &trace.notes {
            complain(&format!("{}: {note}", path.display()));
        }
        Ok(trace)
    }
}

/// Writes a file as a whole or not at all.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let fail =
        |e: std::io::Error| Failure::Usage(format!("--output = {path:?}: allowed is a file that can be written ({e})"));
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new().prefix(".sfnic-").tempfile_in(dir).map_err(fail)?;
    {
        let mut to = std::io::BufWriter::new(temp.as_file_mut());
        write(&mut to).and_then(|()| std::io::Write::flush(&mut to)).map_err(fail)?;
    }
    // As a file that this user creates; tempfile's is for the user alone.
    let mode = 0o666 & !umask();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    temp.as_file().set_permissions(permissions).map_err(fail)?;
    temp.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.bits()
}

fn record(file: PathBuf, mut args: vm::Args) -> Done {
    if args.watch.trace.replace(file).is_some() {
        return Err(Failure::Usage("--trace: not with `trace record`, which names the file itself".to_owned()));
    }
    vm::run(args)
}

fn show(trace: &Trace, filter: &Filter, as_json: bool) -> Done {
    let shown = trace.entries.iter().filter(|e| filter.wants(e));
    let mut text = String::new();
    let mut first = true;
    if as_json {
        print("[")?;
    }
    for e in shown {
        if as_json {
            text += if first { "\n" } else { ",\n" };
            text += &text::json(e, filter).to_string();
        } else {
            text += &text::lines(e, filter);
            text.push('\n');
        }
        first = false;
        if text.len() > 1 << 16 {
            print(&text)?;
            text.clear();
        }
    }
    if as_json {
        text += "\n]\n";
    }
    print(&text)?;
    Ok(0)
}

fn compare(a: &Trace, b: &Trace, addresses: bool, as_json: bool) -> Done {
    let (same, found) = diff(a, b, addresses);
    if as_json {
        let value = json!({ "same": found.is_empty(), "commands_same": same, "differences": found });
        print(&format!("{value:#}\n"))?;
        return Ok(u8::from(!found.is_empty()));
    }
    let mut text = String::new();
    for d in &found {
        match d {
            Difference::Only { of, place, index, commands } => {
                let mark = if *of == 'a' { '-' } else { '+' };
                for (i, c) in commands.iter().enumerate() {
                    text += &format!("{mark} {place} #{} {c}\n", index + i);
                }
            }
            Difference::Fields { place, a, b, command, fields } => {
                text += &format!("~ {place} #{a} #{b} {command}\n");
                for (name, a, b) in fields {
                    text += &format!("    {name}: {a} | {b}\n");
                }
            }
        }
    }
    text += &format!("{same} commands are the same, {} differences\n", found.len());
    print(&text)?;
    Ok(u8::from(!found.is_empty()))
}

fn convert(dmesg: &Path, output: Option<PathBuf>, source: Source) -> Done {
    let trace = source.open(dmesg)?;
    let output = output.unwrap_or_else(|| {
        let mut name = dmesg.as_os_str().to_owned();
        name.push(".trace");
        name.into()
    });
    write_whole(&output, |mut to| file::write(&mut to, &trace))?;
    print(&format!("{} commands in {}\n", trace.commands().count(), output.display()))?;
    Ok(0)
}

fn again(path: &Path, name: Option<String>, made_of: Option<&Path>, as_json: bool, source: Source) -> Done {
    let made_of = made_of.map(|c| Config::load(Some(c))).transpose()?;
    let profile = match (&name, &made_of) {
        (Some(name), _) => named_profile(name)?,
        (None, Some(config)) => config.profile.clone(),
        (None, None) => named_profile(DEFAULT_PROFILE)?,
    };
    let trace = source.open(path)?;
    let theirs = trace.header.profile.as_deref();
    let profile = match (&name, &made_of, theirs) {
        (None, None, Some(theirs)) if theirs != profile.name => config::profile(theirs, None).unwrap_or_else(|_| {
            complain(&format!("the trace is of profile {theirs}, which is not here: --profile names its file"));
            profile
        }),
        _ => profile,
    };
    let cards = made_of.map(|c| c.into_board().cards);
    let report = replay(&trace, profile, cards);
    if as_json {
        let value = serde_json::to_value(&report).map_err(anyhow::Error::new)?;
        print(&format!("{value:#}\n"))?;
    } else {
        print(&in_words(&report))?;
    }
    Ok(u8::from(report.summary.reports > 0))
}

/// A profile that a flag names.
pub(super) fn named_profile(name: &str) -> Result<Profile, Failure> {
    config::profile(name, None).map_err(|why| Failure::Usage(format!("--profile = {name:?}: {why}")))
}

fn in_words(report: &Report) -> String {
    let mut text = String::new();
    let why = |explanation, why: &str| match explanation {
        Some(e) => format!("{}: {why}", format!("{e:?}").to_lowercase()),
        None if why.is_empty() => "unexplained".to_owned(),
        None => format!("unexplained: {why}"),
    };
    for c in &report.commands {
        let name = Opcode(c.opcode);
        text += &format!("#{} {} {name} op_mod={:#x}\n", c.index, text::place(c.card, c.function), c.op_mod);
        if let Some(s) = &c.status {
            let (log, model) = (status_name(s.log), status_name(s.model));
            text += &format!(
                "    status: {log} | {model} syndrome {:#x}   {}\n",
                s.model_syndrome,
                why(s.explanation, s.why)
            );
        }
        for f in &c.fields {
            text += &format!("    {}: {} | {}   {}\n", f.field, f.log, f.model, why(f.explanation, f.why));
        }
    }
    let s = &report.summary;
    for note in &s.notes {
        text += &format!("note: {note}\n");
    }
    text += &format!(
        "{} commands, {} with the same status ({:.2} %), {} that the profile explains, {} unexplained\n",
        s.commands, s.same_status, s.same_status_percent, s.status_explained, s.status_unexplained
    );
    text += &format!(
        "{} fields, {} the same, {} that the profile explains, {} chance, {} unexplained\n",
        s.fields_compared, s.fields_same, s.fields_profile, s.fields_chance, s.fields_unexplained
    );
    if s.not_compared > 0 {
        text += &format!("{} commands have no answer or were never delivered\n", s.not_compared);
    }
    text
}
