//! `sfnic ctl fault`: faults that are put in on purpose.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::super::{Done, Failure};
use super::table::table;
use super::{Form, body, quiet};
use crate::control::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Fault {
    /// Puts a fault in, and prints its number.
    #[command(after_help = LANGUAGE)]
    Add {
        /// The fault, one or several words.
        #[arg(required = true)]
        words: Vec<String>,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
    /// Shows all that are in force, with how often they struck.
    #[command(visible_alias = "show")]
    List {
        /// The device; needless where only one runs.
        handle: Option<String>,
    },
    /// Takes a fault out, or all of them.
    Del {
        /// Its number, or all.
        id: String,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
}

const LANGUAGE: &str = "\u{1b}[1;4mFaults:\u{1b}[0m
  fail COMMAND|any [status=NAME] [syndrome=N]   refused instead of executed
  delay COMMAND|any ms=N                        executed later
  lose command COMMAND|any                      neither executed nor answered
  exhaust KIND [limit=N]                        no more objects: cq, tir, flow_rule, sf, …
  lose|duplicate event TYPE|any                 COMMAND, PORT_CHANGE, COMPLETION, …
  reorder event TYPE|any [ms=N]                 written behind the next one of its queue;
                                                alone, after 100 ms or so many
  lose completion [cq=N]
  lose interrupt [vector=N]
  lose dma                                      no access to guest memory succeeds
  lose pcie                                     reads are ones, writes are lost; a
                                                function that comes back has been reset
  reset [after=MS]                              a function level reset that no driver
                                                asked for; its driver has to notice
  hold detach [sfnum=N]                         the host holds on to an SF that is taken
                                                back: it stays detaching until its PF is
                                                reset or the fault is taken out
  stop health                                   the health counter stands still
  set health syndrome=N [ext=N] [severity=N] [rfr=1]
                                                rfr: the firmware asks for a reset; the
                                                one that the driver makes clears it
  drop|corrupt frames [way=in|out]              on the wire of a port
  delay frames ms=N [way=in|out]
  flap link [down=MS] [up=MS] [times=N]         without down: until it is taken out

\u{1b}[1;4mWhere and when:\u{1b}[0m
  pf=N, function=ID (its hardware id)           everywhere if left out
  slice=N (of lose dma, lose pcie, reset)       the device that a passthrough slice is to
                                                its machine; left out: no slice's
  nth=N, every=N, p=0.1 [seed=N]; times=N       always if left out; the same seed is the
                                                same chance

\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl fault add 'fail CREATE_CQ nth=3 status=NO_RESOURCES syndrome=0x123456'
  sfnic ctl fault add lose event COMMAND every=50 pf=0
  sfnic ctl fault add 'drop frames pf=1 way=in p=0.01 seed=7'
  sfnic ctl fault add lose pcie slice=100
  sfnic ctl fault add 'flap link pf=0 down=500 up=2000 times=3'";

pub(super) fn run(fault: Fault, form: Form, choose: impl Fn(Option<&str>) -> Result<Client, Failure>) -> Done {
    match fault {
        Fault::Add { words, handle } => {
            let text = words.join(" ");
            // Known before a device is looked for.
            text.parse::<sfnic_device_model::faults::Fault>().map_err(Failure::Usage)?;
            let client = choose(handle.as_deref())?;
            let reply = client.request(Method::POST, "/v1/faults", Some(&json!({ "fault": text })))?;
            let status = quiet(&reply)?;
            if status == 0 {
                form.print("fault", &reply.body, || format!("{}\n", reply.body["id"]))?;
            }
            Ok(status)
        }
        Fault::List { handle } => {
            let all = body(choose(handle.as_deref())?.get("/v1/faults")?)?;
            form.print("fault", &all, || list(&all))?;
            Ok(0)
        }
        Fault::Del { id, handle } => {
            let path = match id.as_str() {
                "all" => "/v1/faults".to_owned(),
                id if id.parse::<u32>().is_ok() => format!("/v1/faults/{id}"),
                _ => return Err(Failure::Usage(format!("id = {id:?}: allowed is a number, or all"))),
            };
            quiet(&choose(handle.as_deref())?.request(Method::DELETE, &path, None)?)
        }
    }
}

fn list(all: &Value) -> String {
    let cell = |f: &Value, key: &str| f[key].as_str().map_or_else(|| f[key].to_string(), str::to_owned);
    let rows = all.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let rows: Vec<Vec<String>> =
        rows.map(|f| ["id", "struck", "occasions", "fault"].map(|k| cell(f, k)).to_vec()).collect();
    table(&["ID", "STRUCK", "OCCASIONS", "FAULT"], &rows)
}
