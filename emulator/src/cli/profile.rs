//! `sfnic profile`: capability profiles out of logs.

use std::path::PathBuf;

use serde_json::json;

use super::trace::{Source, write_whole};
use super::{Done, Failure, print};
use crate::trace::caps;

/// Make capability profiles.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum What {
    /// Make the profile of a card out of its log: what it has and the model has too.
    ///
    /// DMESG is a kernel's log with mlx5_core's dynamic debug, or a trace. What the card has
    /// and the model has not is listed. `sfnic trace --help` says how to get such a log.
    Import {
        /// The log.
        #[arg(value_name = "DMESG")]
        dmesg: PathBuf,
        /// The profile; by default it goes to stdout, and the list to stderr.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The list as a JSON object (wants --output).
        #[arg(long, requires = "output")]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
}

pub(super) fn run(args: Args) -> Done {
    let What::Import { dmesg, output, json, source } = args.what;
    let trace = source.open(&dmesg)?;
    let name = output.as_ref().unwrap_or(&dmesg).file_stem().map_or_else(|| "imported".into(), |n| n.to_string_lossy());
    let made = caps::import(&trace, &name).map_err(|e| Failure::Usage(format!("{}: {e}", dmesg.display())))?;
    let mut list = String::new();
    if !made.beyond.is_empty() || !made.groups.is_empty() {
        list += "the card has, the model has not:\n";
    }
    for b in &made.beyond {
        list += &format!("  {} {} = {:#x}, here {:#x}\n", b.function, b.field, b.card, b.model);
    }
    for g in &made.groups {
        list += &format!("  capability group {g:#x}\n");
    }
    if !made.sf {
        list += "the log has no SF: an SF is as the model has it, as far as the physical function goes\n";
    }
    let Some(output) = output else {
        eprint!("{list}");
        print(&made.text)?;
        return Ok(0);
    };
    write_whole(&output, |to| to.write_all(made.text.as_bytes()))?;
    if json {
        let value = json!({
            "profile": output, "fields": made.fields, "sf": made.sf,
            "not_modelled": made.beyond, "groups_not_modelled": made.groups,
        });
        print(&format!("{value:#}\n"))?;
    } else {
        print(&format!("{list}{} fields in {}\n", made.fields, output.display()))?;
    }
    Ok(0)
}
