//! `sfnic ctl snapshot`: the state of a running device, to a file and back.

use std::path::PathBuf;

use clap::Subcommand;
use hyper::Method;
use serde_json::json;

use super::super::{Done, Failure};
use super::capture::absolute;
use super::show::cell;
use super::{Form, quiet};
use crate::control::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Snapshot {
    /// Saves the state of the device: objects, queues, rules, counters, vports, slices.
    ///
    /// Everybody waits meanwhile, some milliseconds; then the device goes on. The device's
    /// process writes the file, where it runs and with its rights, whole or not at all; a
    /// snapshot that is there is replaced, any other file is refused.
    ///
    /// Not in it: guest memory, what wires and faults are configured to, frames that are under
    /// way on an impaired wire.
    #[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl snapshot save before.snapshot
  sfnic run --snapshot before.snapshot      another device that begins there")]
    Save {
        /// The file.
        file: PathBuf,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
    /// Brings the device to a saved state.
    ///
    /// It has to be one of the same configuration (functions, profile, eswitch) that no driver
    /// uses: what a driver believes of its device would be wrong from one moment to the next.
    /// Slices that it has are no more. A QEMU that attaches resets its function, as at power-on:
    /// then slices are what remains of the saved state, and what the reset spares.
    ///
    /// A snapshot is for the version of sfnic that saved it.
    Load {
        /// The file.
        file: PathBuf,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
}

pub(super) fn run(what: Snapshot, form: Form, choose: impl Fn(Option<&str>) -> Result<Client, Failure>) -> Done {
    let (path, file, handle, done) = match what {
        Snapshot::Save { file, handle } => ("/v1/snapshot/save", file, handle, "saved"),
        Snapshot::Load { file, handle } => ("/v1/snapshot/load", file, handle, "loaded"),
    };
    let at = json!({ "file": absolute("FILE", &file).map_err(Failure::Usage)? });
    let reply = choose(handle.as_deref())?.request(Method::POST, path, Some(&at))?;
    let status = quiet(&reply)?;
    if status == 0 {
        let text = || format!("{}: {} bytes {done}\n", cell(&reply.body, "file"), reply.body["bytes"]);
        form.print("snapshot", &reply.body, text)?;
    }
    Ok(status)
}
