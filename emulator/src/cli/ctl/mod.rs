//! `sfnic ctl`: talks to a running device, in the words of the devlink slice RFC.

mod capture;
mod commands;
mod events;
mod fault;
mod show;
mod snapshot;
mod table;
mod text;
mod wire;
mod words;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::{Done, Failure, complain, print};
use crate::control::client::{Client, Reply};

/// Look into a running device, and manage its slices.
///
/// A device is found by its handle, a name of its configuration (by default
/// pci/0000:06:00.0), among those that this user runs. Slices are managed here where the
/// configuration says eswitch = "embedded"; the host's driver sees them come and go.
///
/// Status 0; 1 if the device refuses, or none answers; 2 if a word is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl slice add pci/0000:06:00.0 flavour pcisf pfnum 0 sfnum 4 index 100
  sfnic ctl slice add pci/0000:06:00.0 flavour passthrough pfnum 0 sfnum 5 index 101
  sfnic ctl slice set pci/0000:06:00.0/100 hw_addr 00:00:00:00:88:88 state active
  sfnic ctl slice show pci/0000:06:00.0/100 -jp
  sfnic ctl slice set pci/0000:06:00.0/100 state inactive
  sfnic ctl slice del pci/0000:06:00.0/100
  sfnic ctl port show
  sfnic ctl resource show
  sfnic ctl fault add 'fail CREATE_CQ nth=3 status=NO_RESOURCES'
  sfnic ctl wire set p0 delay=5ms loss=0.01
  sfnic ctl capture start --port uplink0 --file x.pcapng
  sfnic ctl snapshot save before.snapshot
  sfnic ctl show queues --pf 0
  sfnic ctl metrics
  sfnic ctl events                      what happens, as it happens
  sfnic ctl commands                    what drivers say, field by field")]
pub(super) struct Args {
    /// The device's control socket, or http://HOST:PORT with the token in SFNIC_TOKEN,
    /// instead of looking for its handle.
    #[arg(long, value_name = "PATH|URL", global = true, env = "SFNIC_CONTROL")]
    control: Option<PathBuf>,

    /// Print JSON.
    #[arg(short, long, global = true)]
    json: bool,

    /// Print JSON in lines, for people.
    #[arg(short, long, global = true)]
    pretty: bool,

    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Slices: the functions of the device as its eswitch system sees them.
    #[command(subcommand)]
    Slice(Slice),
    /// Ports of the eswitch.
    #[command(subcommand)]
    Port(Show),
    /// Devices.
    #[command(subcommand)]
    Dev(Show),
    /// How many SFs and interrupt vectors there are, and how many are used.
    #[command(subcommand)]
    Resource(Show),
    /// Functions with their commands and objects.
    #[command(subcommand)]
    Function(Show),
    /// What drivers wanted and the model does not have.
    #[command(subcommand)]
    Unmodelled(Show),
    /// Faults that are put in on purpose.
    #[command(subcommand)]
    Fault(fault::Fault),
    /// Wires: what ports are connected to, with delay, loss and the like.
    #[command(subcommand)]
    Wire(wire::Wire),
    /// Frames that are written to files.
    #[command(subcommand)]
    Capture(capture::Capture),
    /// The state of the whole device, to a file and back.
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    Events(events::Args),
    Commands(commands::Args),
    Show(show::Args),
    /// What the device counts, as text for Prometheus (OpenMetrics).
    Metrics {
        /// The device; needless where only one runs.
        handle: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Show {
    /// Shows them.
    Show {
        /// The device; needless where only one runs.
        handle: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Slice {
    /// Adds a slice: inactive, detached.
    ///
    /// Words: flavour WORD, pfnum N, sfnum N, index N (a free one if left out).
    ///
    /// The flavour is what the slice is to whoever has it: pcisf (or mlx5), a sub-function of
    /// the host; passthrough, a virtual function of another guest, with `vectors N` of MSI-X;
    /// virtio, a virtio network device of another guest. `slice show` tells the socket to
    /// which that guest's QEMU connects.
    Add {
        /// The device.
        handle: String,
        /// Pairs of a word and its value.
        #[arg(required = true, allow_negative_numbers = true)]
        words: Vec<String>,
    },
    /// Shows one slice, or all.
    Show {
        /// The device, or HANDLE/INDEX for one slice.
        slice: Option<String>,
    },
    /// Configures a slice.
    #[command(after_help = ATTRIBUTES)]
    Set {
        /// HANDLE/INDEX.
        slice: String,
        /// Pairs of a word and its value.
        #[arg(required = true, allow_negative_numbers = true)]
        words: Vec<String>,
    },
    /// Deletes a slice that is inactive and detached.
    Del {
        /// HANDLE/INDEX.
        slice: String,
    },
}

const ATTRIBUTES: &str = "\u{1b}[1;4mWords, at any time:\u{1b}[0m
  state active|inactive    offered to the host, or taken back
  link auto|up|down        as the physical port, always, never
  trust on|off             whether its driver may have frames that are for others
                           (promiscuous, all multicasts); off for a new slice
  spoof_check on|off       frames that it sends come from hw_addr, or are dropped
  vlan N|none [qos N]      its frames are in this VLAN on the wire and among neighbours;
                           it sends and gets them untagged, and those of others not at all
  tx_max RATE|none         it sends no faster
  tx_share RATE|none       it can send so fast whatever others send

\u{1b}[1;4mWhile it is inactive and detached:\u{1b}[0m
  hw_addr MAC              aa:bb:cc:dd:ee:ff
  mtu N                    the largest that its netdev can be set to (it begins with 1500
                           all the same); longer frames are dropped
  max_io_eqs N             completion event queues, and so channels (Linux 6.9 and newer)
  roce on|off              on where the profile's SFs have RoCE; the built-in one's have not

A rate is 100mbit or 10gbit; whole Mbit/s. All words of a call are done, or none.

\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl slice set pci/0000:06:00.0/100 hw_addr 00:00:00:00:88:88 state active
  sfnic ctl slice set pci/0000:06:00.0/100 vlan 7 spoof_check on tx_max 100mbit";

/// How to print an answer.
#[derive(Debug, Clone, Copy)]
struct Form {
    json: bool,
    pretty: bool,
}

impl Form {
    fn print(self, object: &str, value: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let wrapped = || json!({ object: value });
        match (self.json, self.pretty) {
            (_, true) => print(&format!("{:#}\n", wrapped())),
            (true, false) => print(&format!("{}\n", wrapped())),
            _ => print(&text()),
        }
    }
}

pub(super) fn run(args: Args) -> Done {
    let form = Form { json: args.json, pretty: args.pretty };
    let find = |handle: Option<&str>| match &args.control {
        Some(path) => Ok(Client::at(path)),
        None => Client::find(handle),
    };
    match args.what {
        What::Slice(slice) => run_slice(slice, form, find),
        What::Port(Show::Show { handle }) => {
            let (handle, list) = fetch(&find, handle.as_deref(), "/v1/ports")?;
            let value = text::keyed(&handle, &list, "index");
            form.print("port", &value, || text::lines(&value))?;
            Ok(0)
        }
        What::Dev(Show::Show { handle }) => {
            let (handle, device) = fetch(&find, handle.as_deref(), "/v1/device")?;
            let value = json!({ handle: device });
            form.print("dev", &value, || text::lines(&value))?;
            Ok(0)
        }
        What::Resource(Show::Show { handle }) => {
            let (handle, list) = fetch(&find, handle.as_deref(), "/v1/resources")?;
            let value = text::keyed(&handle, &list, "pfnum");
            form.print("resource", &value, || text::lines(&value))?;
            Ok(0)
        }
        What::Function(Show::Show { handle }) => {
            let (_, functions) = fetch(&find, handle.as_deref(), "/v1/functions")?;
            form.print("function", &functions, || text::lines(&functions))?;
            Ok(0)
        }
        What::Unmodelled(Show::Show { handle }) => {
            let (_, list) = fetch(&find, handle.as_deref(), "/v1/unmodelled")?;
            form.print("unmodelled", &list, || text::unmodelled(&list))?;
            Ok(0)
        }
        What::Show(args) => {
            let client = choose(&find, args.handle.as_deref())?;
            show::run(&client, &args, form)
        }
        What::Metrics { handle } => {
            print(&choose(&find, handle.as_deref())?.text("/metrics")?)?;
            Ok(0)
        }
        What::Wire(wire) => wire::run(wire, form, |handle| choose(&find, handle)),
        What::Capture(capture) => capture::run(capture, form, |handle| choose(&find, handle)),
        What::Snapshot(what) => snapshot::run(what, form, |handle| choose(&find, handle)),
        What::Fault(fault) => fault::run(fault, form, |handle| choose(&find, handle)),
        What::Events(args) => {
            let client = choose(&find, args.handle.as_deref())?;
            events::follow(&client, &args, form.json || form.pretty)
        }
        What::Commands(args) => {
            args.check()?;
            let client = choose(&find, args.handle.as_deref())?;
            commands::follow(&client, &args, form.json || form.pretty)
        }
    }
}

pub(super) use events::text as event_line;
pub(super) use table::table;

/// The device of a place, or of a handle.
pub(super) fn device(control: Option<&Path>, handle: Option<&str>) -> Result<Client, Failure> {
    let find = |handle: Option<&str>| match control {
        Some(path) => Ok(Client::at(path)),
        None => Client::find(handle),
    };
    choose(&find, handle)
}

/// The handle of a device, and what it answers to a question.
fn fetch(
    find: &impl Fn(Option<&str>) -> anyhow::Result<Client>,
    handle: Option<&str>,
    path: &str,
) -> Result<(String, Value), Failure> {
    let client = choose(find, handle)?;
    let name = called(&client, handle)?;
    Ok((name, body(client.get(path)?)?))
}

/// The device that a handle names, or the only one.
fn choose(find: &impl Fn(Option<&str>) -> anyhow::Result<Client>, handle: Option<&str>) -> Result<Client, Failure> {
    let client = find(handle.map(words::handle).transpose().map_err(Failure::Usage)?)?;
    called(&client, handle)?;
    Ok(client)
}

/// What a device answered, unless it refused.
fn body(reply: Reply) -> Result<Value, Failure> {
    match reply.error() {
        Some(why) => Err(anyhow::anyhow!(why).into()),
        None => Ok(reply.body),
    }
}

/// The device's own name, which must be the one that was asked for.
fn called(client: &Client, wanted: Option<&str>) -> Result<String, Failure> {
    let device = body(client.get("/v1/device")?)?;
    let name = device.get("handle").and_then(Value::as_str).unwrap_or_default();
    match wanted.filter(|w| *w != name) {
        Some(w) => Err(Failure::Usage(format!("handle = {w:?}: the device is called {name}"))),
        None => Ok(name.to_owned()),
    }
}

fn run_slice(slice: Slice, form: Form, find: impl Fn(Option<&str>) -> anyhow::Result<Client>) -> Done {
    match slice {
        Slice::Add { handle, words } => {
            let new = words::new_slice(&words).map_err(Failure::Usage)?;
            let client = find(Some(words::handle(&handle).map_err(Failure::Usage)?))?;
            called(&client, Some(&handle))?;
            let reply = client.request(Method::POST, "/v1/slices", Some(&new))?;
            show_slice(&reply, &handle, form)
        }
        Slice::Show { slice } => {
            let (handle, index) = match slice.as_deref() {
                None => (None, None),
                Some(text) => words::device_or_slice(text).map_err(Failure::Usage)?,
            };
            let client = find(handle)?;
            let name = called(&client, handle)?;
            let Some(index) = index else {
                let reply = client.get("/v1/slices")?;
                let value = text::keyed(&name, &reply.body, "index");
                form.print("slice", &value, || text::lines(&value))?;
                return Ok(0);
            };
            show_slice(&client.get(&format!("/v1/slices/{index}"))?, &name, form)
        }
        Slice::Set { slice, words } => {
            let (handle, index) = words::slice(&slice).map_err(Failure::Usage)?;
            let change = words::change(&words).map_err(Failure::Usage)?;
            let client = find(Some(handle))?;
            called(&client, Some(handle))?;
            quiet(&client.request(Method::PATCH, &format!("/v1/slices/{index}"), Some(&change))?)
        }
        Slice::Del { slice } => {
            let (handle, index) = words::slice(&slice).map_err(Failure::Usage)?;
            let client = find(Some(handle))?;
            called(&client, Some(handle))?;
            quiet(&client.request(Method::DELETE, &format!("/v1/slices/{index}"), None)?)
        }
    }
}

/// Prints the slice that a device answered with.
fn show_slice(reply: &Reply, handle: &str, form: Form) -> Done {
    let status = quiet(reply)?;
    if status == 0 {
        let value = text::keyed(handle, &Value::Array(vec![reply.body.clone()]), "index");
        form.print("slice", &value, || text::lines(&value))?;
    }
    Ok(status)
}

/// The status of an answer; a refusal's reason goes to stderr. A value that the device does
/// not take is a wrong word.
fn quiet(reply: &Reply) -> Done {
    match reply.error() {
        None => Ok(0),
        Some(why) if matches!(reply.status.as_u16(), 400 | 422) => Err(Failure::Usage(why)),
        Some(why) => {
            complain(&why);
            Ok(1)
        }
    }
}
