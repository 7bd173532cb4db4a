//! `sfnic ctl capture`: frames of a running device, written to a file.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::super::{Done, Failure};
use super::show::{cell, list};
use super::table::table;
use super::{Form, body, quiet};
use crate::capture::{self, MAX_SNAP, MIN_SNAP};
use crate::control::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Capture {
    /// Starts a capture, and prints its number.
    ///
    /// The device's process writes the file (pcapng), where it runs and with its rights: a
    /// relative path is made absolute here, and a file that is there already is refused.
    #[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl capture start --port pf0sf88 --port uplink0 --file x.pcapng --snap 96
  sfnic ctl capture show
  sfnic ctl capture stop && tshark -r x.pcapng")]
    Start {
        /// A vport or port: uplinkN is a physical port, pfN a physical function, pfNsfM its
        /// SF number M. May be given several times; all of them if left out.
        #[arg(long, value_name = "NAME")]
        port: Vec<String>,

        /// The file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,

        /// Bytes to keep of a frame; all if left out.
        #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(i64::from(MIN_SNAP)..=i64::from(MAX_SNAP)))]
        snap: Option<u32>,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
    /// Ends a capture, and says what it came to.
    Stop {
        /// Its number, or all; needless where only one runs.
        id: Option<String>,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
    /// Shows the captures that run.
    #[command(visible_alias = "list")]
    Show {
        /// The device; needless where only one runs.
        handle: Option<String>,
    },
}

/// An absolute path without dots, as a device takes it, of a file that the user calls `what`.
pub(super) fn absolute(what: &str, file: &Path) -> Result<String, String> {
    let wrong = |why: &str| format!("{what} = {:?}: {why}", file.display().to_string());
    let name = file.file_name().ok_or_else(|| wrong("allowed is the path of a file"))?;
    let folder = match file.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let folder =
        folder.canonicalize().map_err(|e| wrong(&format!("allowed is a file in a folder that is there ({e})")))?;
    folder.join(name).into_os_string().into_string().map_err(|_| wrong("allowed is UTF-8"))
}

pub(super) fn run(capture: Capture, form: Form, choose: impl Fn(Option<&str>) -> Result<Client, Failure>) -> Done {
    match capture {
        Capture::Start { port, file, snap, handle } => {
            if let Some(name) = port.iter().find(|p| !capture::is_name(p)) {
                let why = capture::SpecError::Port(name.clone());
                return Err(Failure::Usage(format!("--{why}")));
            }
            let mut new = json!({ "file": absolute("--file", &file).map_err(Failure::Usage)?, "ports": port });
            if let (Some(snap), Some(new)) = (snap, new.as_object_mut()) {
                new.insert("snap".to_owned(), snap.into());
            }
            let reply = choose(handle.as_deref())?.request(Method::POST, "/v1/captures", Some(&new))?;
            let status = quiet(&reply)?;
            if status == 0 {
                form.print("capture", &reply.body, || format!("{}\n", reply.body["id"]))?;
            }
            Ok(status)
        }
        Capture::Stop { id, handle } => {
            let given = id.as_deref();
            if let Some(id) = given.filter(|id| *id != "all" && id.parse::<u64>().is_err()) {
                return Err(Failure::Usage(format!("id = {id:?}: allowed is a number, or all")));
            }
            let client = choose(handle.as_deref())?;
            let path = match given {
                Some("all") => "/v1/captures".to_owned(),
                Some(id) => format!("/v1/captures/{id}"),
                None => {
                    let all = body(client.get("/v1/captures")?)?;
                    match list(&all) {
                        [] => return Err(anyhow::anyhow!("no capture runs").into()),
                        [one] => format!("/v1/captures/{}", one["id"]),
                        more => {
                            let ids: Vec<String> = more.iter().map(|c| c["id"].to_string()).collect();
                            return Err(Failure::Usage(format!("which of them: {}, or all?", ids.join(", "))));
                        }
                    }
                }
            };
            let reply = client.request(Method::DELETE, &path, None)?;
            let status = quiet(&reply)?;
            if status != 0 {
                return Ok(status);
            }
            let all = if reply.body.is_array() { reply.body } else { Value::Array(vec![reply.body]) };
            form.print("capture", &all, || list(&all).iter().map(summary).collect())?;
            Ok(u8::from(list(&all).iter().any(|c| !c["error"].is_null())))
        }
        Capture::Show { handle } => {
            let all = body(choose(handle.as_deref())?.get("/v1/captures")?)?;
            form.print("capture", &all, || captures(&all))?;
            Ok(0)
        }
    }
}

fn names(v: &Value) -> String {
    let all: Vec<&str> = list(v).iter().filter_map(Value::as_str).collect();
    all.join(" ")
}

fn summary(c: &Value) -> String {
    let ports = names(&c["ports"]);
    let ports = if ports.is_empty() { "no port" } else { &ports };
    let error = c["error"].as_str().map(|e| format!("; it ended early: {e}")).unwrap_or_default();
    format!("{}: {} frames of {ports}{error}\n", cell(c, "file"), c["frames"])
}

fn captures(all: &Value) -> String {
    let row = |c: &Value| {
        let wanted = names(&c["wanted"]);
        let wanted = if wanted.is_empty() { "all".to_owned() } else { wanted };
        vec![
            cell(c, "id"),
            cell(c, "frames"),
            cell(c, "snap"),
            wanted,
            names(&c["ports"]),
            cell(c, "file"),
            cell(c, "error"),
        ]
    };
    let rows: Vec<_> = list(all).iter().map(row).collect();
    table(&["ID", "FRAMES", "SNAP", "WANTED", "SEEN", "FILE", "ERROR"], &rows)
}
