//! The program's commands.
//!
//! A wrong flag or a wrong configuration is one line on stderr that says which and what is
//! allowed, and status 2. What else fails has the status that each command documents.

mod ctl;
mod demo;
mod device;
mod kit;
mod layout;
mod list;
mod matrix;
mod output;
mod profile;
mod run;
mod suite;
mod top;
mod trace;
mod up;
mod usage;
mod value;
mod vm;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Style};
use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;

/// The status of wrong flags and wrong configurations.
const STATUS_USAGE: u8 = 2;
/// The status where a guest failed, not its command.
const VM_FAILED: u8 = sfnic_qemu::vm::STATUS_FAILURE as u8;
/// The environment variable that chooses what is logged.
const LOG_VARIABLE: &str = "SFNIC_LOG";

/// A software mlx5-compatible NIC for unmodified drivers in QEMU guests.
#[derive(Debug, Parser)]
#[command(
    name = "sfnic",
    version,
    styles = STYLES,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say more on stderr: -v what happens, -vv details, -vvv everything.
    ///
    /// SFNIC_LOG takes a filter instead, such as `sfnic_device_model=debug`.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

const STYLES: Styles = Styles::styled()
    .header(Style::new().bold().underline())
    .usage(Style::new().bold().underline())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic demo                            show what it does, in one command
  sfnic vm                              a shell in a guest with two functions of the NIC
  sfnic vm -- devlink dev show          one command in the guest; its status is ours
  sfnic run                             the device alone, for a QEMU of yours
  sfnic up lab.toml                     several guests at one device
  sfnic ctl slice show                  what a running device has
  sfnic top                             its ports, rates, queues and slices, live
  sfnic list commands                   what is implemented
  sfnic matrix                          all guest tests on all kernels

The first guest needs the guest kit (QEMU, kernel, tools), which takes minutes to make once.";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Vm(Box<vm::Args>),
    Run(run::Args),
    Up(up::Args),
    Ctl(ctl::Args),
    Top(top::Args),
    Kit(kit::Args),
    List(list::Args),
    Matrix(Box<matrix::Args>),
    Layout(layout::Args),
    Trace(trace::Args),
    Profile(profile::Args),
    Bench(crate::bench::Args),
    Suite(suite::Args),
}

/// Why a command did not do what it should.
#[derive(Debug)]
enum Failure {
    /// Wrong flags or a wrong configuration: one line.
    Usage(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Failure {
        Failure::Usage(e.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Failure {
        match e.downcast::<sfnic_qemu::kit::Wrong>() {
            Ok(wrong) => Failure::Usage(wrong.to_string()),
            Err(e) => Failure::Other(e),
        }
    }
}

/// What a command comes to: its exit status, or why not.
type Done = Result<u8, Failure>;

impl Command {
    fn run(self) -> Done {
        match self {
            Command::Demo(args) => demo::run(args),
            Command::Vm(args) => vm::run(*args),
            Command::Run(args) => run::run(args),
            Command::Up(args) => up::run(args),
            Command::Ctl(args) => ctl::run(args),
            Command::Top(args) => top::run(&args),
            Command::Kit(args) => kit::run(args),
            Command::List(args) => list::run(args),
            Command::Suite(args) => suite::run(args),
            Command::Matrix(args) => matrix::run(*args),
            Command::Layout(args) => layout::run(args),
            Command::Trace(args) => trace::run(args),
            Command::Profile(args) => profile::run(args),
            Command::Bench(args) => Ok(u8::try_from(crate::bench::run(args)?).unwrap_or(1)),
        }
    }

    /// The status of failures that are not the user's.
    fn failure_status(&self) -> u8 {
        match self {
            Command::Vm(_) | Command::Up(_) => VM_FAILED,
            Command::Trace(args) if args.is_vm() => VM_FAILED,
            _ => 1,
        }
    }
}

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage::explain(&e, &<Cli as clap::CommandFactory>::command()),
    };
    let status = cli.command.failure_status();
    let done = start_log(cli.verbose).and_then(|()| cli.command.run());
    ExitCode::from(finish(status, done))
}

/// Logs to stderr, warnings and worse unless asked for more.
fn start_log(verbose: u8) -> Result<(), Failure> {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose).min(3)];
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|_| {
            Failure::Usage(format!(
                "{LOG_VARIABLE} = {text:?}: allowed is error, warn, info, debug, trace or MODULE=LEVEL,…"
            ))
        })?,
        _ => EnvFilter::new(level),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(colours(&std::io::stderr())).with_target(verbose > 1);
    // Fails only if there is a log already, as in a test.
    let _ = log.try_init();
    Ok(())
}

/// What a command said and came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Said {
    /// Its exit status.
    pub status: u8,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

thread_local! {
    /// Where this thread's output goes instead of stdout and stderr.
    static SAID: RefCell<Option<Said>> = const { RefCell::new(None) };
}

/// Runs `sfnic ctl` with these words on a device, and tells what it would have printed.
pub fn ctl_said(control: &Path, words: &[String]) -> Said {
    let head = ["sfnic".into(), "ctl".into(), "--control".into(), control.into()];
    let cli = match Cli::try_parse_from(head.into_iter().chain(words.iter().map(OsString::from))) {
        Ok(cli) => cli,
        Err(e) => return Said { status: STATUS_USAGE, err: e.to_string(), ..Said::default() },
    };
    SAID.set(Some(Said::default()));
    let status = finish(cli.command.failure_status(), cli.command.run());
    Said { status, ..SAID.take().unwrap_or_default() }
}

/// The status of a command that is done; why it is not 0 is said.
fn finish(failed: u8, done: Done) -> u8 {
    match done {
        Ok(status) => status,
        Err(Failure::Usage(line)) => {
            complain(&line);
            STATUS_USAGE
        }
        Err(Failure::Other(e)) => {
            complain(&format!("{e:#}"));
            failed
        }
    }
}

/// A line of ours on stderr.
fn complain(line: &str) {
    let kept = SAID.with_borrow_mut(|said| said.as_mut().map(|s| s.err += &format!("{line}\n")));
    if kept.is_some() {
        return;
    }
    if colours(&std::io::stderr()) {
        eprintln!("\u{1b}[1;31msfnic:\u{1b}[0m {line}");
    } else {
        eprintln!("sfnic: {line}");
    }
}

/// Does this stream want colours?
fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Writes to stdout. That the reader has gone is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    if SAID.with_borrow_mut(|said| said.as_mut().map(|s| s.out += text)).is_some() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(e).context("cannot write")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_flags_is_sound() {
        Cli::command().debug_assert();
    }
}
