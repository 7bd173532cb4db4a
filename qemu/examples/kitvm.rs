//! Runs a guest: `kitvm [-d SOCKET]... [-s SCRIPT] [-t SECONDS] [-c CONSOLE] [COMMAND …]`.
//! Without a command it is a shell.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use sfnic_qemu::{Guest, Kit, KitOptions, What};

fn main() -> anyhow::Result<()> {
    let began = Instant::now();
    let kit = Kit::ensure(&KitOptions::default(), "7.2")?;
    let made = began.elapsed();
    let mut guest = Guest::new();
    let mut args = std::env::args_os().skip(1).peekable();
    let mut words: Vec<OsString> = Vec::new();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-s") if words.is_empty() => guest.what = What::Script(args.next().unwrap_or_default().into()),
            Some("-t") if words.is_empty() => {
                let seconds = args.next().and_then(|s| s.to_str()?.parse().ok()).unwrap_or(60);
                guest.timeout = Some(Duration::from_secs(seconds));
            }
            Some("-d") if words.is_empty() => guest.slots.push(args.next().into_iter().map(Into::into).collect()),
            Some("-c") if words.is_empty() => guest.keep_console = args.next().map(Into::into),
            _ => words.push(arg),
        }
    }
    if !words.is_empty() {
        guest.what = What::Command(words);
    }
    let outcome = guest.run(&kit)?;
    eprintln!(
        "kitvm: kit {made:?}, init after {:?}, all {:?}, {} boots, {} lines of kernel log, status {}",
        outcome.booted_after,
        outcome.elapsed,
        outcome.boots,
        outcome.dmesg.lines().count(),
        outcome.status
    );
    if std::env::var_os("KITVM_DMESG").is_some() {
        eprint!("{}", outcome.dmesg);
    }
    std::process::exit(outcome.status);
}
