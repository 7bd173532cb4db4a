//! `sfnic ctl show`: a look inside a running device.

use clap::ValueEnum;
use serde_json::Value;

use super::super::{Done, Failure};
use super::table::table;
use super::{Form, body, text, wire};
use crate::control::client::Client;

/// Look inside the device: readable for people, complete with --json.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl show functions
  sfnic ctl show queues --pf 0 --function 0x8000
  sfnic ctl show objects --kind tir
  sfnic ctl show tables --pf 0 --rules 5
  sfnic ctl show vports --json")]
pub(super) struct Args {
    /// What to look at.
    what: What,

    /// The device; needless where only one runs.
    pub(super) handle: Option<String>,

    /// Of this physical function alone.
    #[arg(long, value_name = "N")]
    pf: Option<usize>,

    /// Of this function alone: its hardware id, which is its vport's number.
    #[arg(long, value_name = "ID", value_parser = id)]
    function: Option<u16>,

    /// Objects of this kind alone: pd, mkey, eq, cq, sq, rq, rqt, tir, tis, …
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,

    /// Most rules that are shown of each flow group.
    #[arg(long, value_name = "N")]
    rules: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Functions with their window, state, driver and commands.
    Functions,
    /// Objects with their owners and who refers to whom.
    Objects,
    /// Queues with their indices.
    Queues,
    /// Flow tables with rules and counters.
    Tables,
    /// Vports with what was set of them, and their frames.
    Vports,
    /// Guest memory that the device reaches.
    Dma,
    /// Interrupt vectors.
    Msix,
    /// What the ports are connected to, and what that counted.
    Wires,
    /// Switches that ports are at, and who is there.
    Switches,
    /// What drivers wanted and the model does not have.
    Unmodelled,
}

/// A number, in hexadecimal with 0x.
fn id(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "allowed is 0 to 0xffff".to_owned())
}

pub(super) fn run(client: &Client, args: &Args, form: Form) -> Done {
    let name = args.what.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let only = |flag: &str, given: bool, fits: bool| match given && !fits {
        true => Err(Failure::Usage(format!("{flag}: not for {name}"))),
        false => Ok(()),
    };
    only("--kind", args.kind.is_some(), args.what == What::Objects)?;
    only("--rules", args.rules.is_some(), args.what == What::Tables)?;
    let filters = args.pf.is_some() || args.function.is_some();
    only("--pf and --function", filters, !matches!(args.what, What::Wires | What::Switches | What::Unmodelled))?;
    let pairs = [
        ("pf", args.pf.map(|n| n.to_string())),
        ("function", args.function.map(|n| n.to_string())),
        ("kind", args.kind.clone()),
        ("rules", args.rules.map(|n| n.to_string())),
    ];
    let query: Vec<String> = pairs.into_iter().filter_map(|(k, v)| Some(format!("{k}={}", v?))).collect();
    if let Some(kind) = args.kind.as_ref().filter(|k| !k.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')) {
        return Err(Failure::Usage(format!("--kind = {kind:?}: allowed is a kind such as mkey, cq or tir")));
    }
    let path = format!("/v1/{name}?{}", query.join("&"));
    let reply = client.get(path.trim_end_matches('?'))?;
    if reply.status.as_u16() == 400 {
        return Err(Failure::Usage(reply.error().unwrap_or_default()));
    }
    let value = body(reply)?;
    form.print(&name, &value, || match args.what {
        What::Functions => functions(&value),
        What::Objects => objects(&value),
        What::Queues => queues(&value),
        What::Tables => tables(&value),
        What::Vports => vports(&value),
        What::Dma => dma(&value),
        What::Msix => msix(&value),
        What::Wires => wire::wires(&value),
        What::Switches => wire::switches(&value),
        What::Unmodelled => text::unmodelled(&value),
    })?;
    Ok(0)
}

pub(super) fn list(v: &Value) -> &[Value] {
    v.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A member as a cell.
pub(super) fn cell(v: &Value, key: &str) -> String {
    match &v[key] {
        Value::String(s) => s.clone(),
        Value::Bool(b) => if *b { "yes" } else { "no" }.to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn hex(v: &Value, key: &str) -> String {
    v[key].as_u64().map(|n| format!("{n:#x}")).unwrap_or_default()
}

fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.to_vec()
}

fn functions(v: &Value) -> String {
    let all = v.as_object().into_iter().flatten();
    let rows: Vec<_> = all
        .map(|(name, f)| {
            let state = match (&f["vhca_state"], f["initialised"].as_bool(), f["enabled"].as_bool()) {
                (Value::String(s), ..) => s.clone(),
                (_, Some(true), _) => "initialised".to_owned(),
                (_, _, Some(true)) => "enabled".to_owned(),
                _ => "no driver".to_owned(),
            };
            let (w, c) = (&f["window"], &f["commands"]);
            let window = format!("{}+{}", cell(w, "bar"), hex(w, "offset"));
            let objects: u64 = f["objects"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
            row([
                name.clone(),
                cell(f, "port"),
                cell(f, "kind"),
                window,
                state,
                cell(c, "executed"),
                cell(c, "refused"),
                cell(c, "undelivered"),
                objects.to_string(),
                cell(f, "driver"),
            ])
        })
        .collect();
    let heads = ["FUNCTION", "PORT", "KIND", "BAR", "STATE", "COMMANDS", "REFUSED", "LOST", "OBJECTS", "DRIVER"];
    table(&heads, &rows)
}

fn objects(v: &Value) -> String {
    let rows: Vec<_> = list(v)
        .iter()
        .map(|o| {
            let uses: Vec<String> = list(&o["uses"]).iter().map(|u| cell(u, "kind") + " " + &hex(u, "id")).collect();
            let about = o["about"].as_object().into_iter().flatten();
            let about: Vec<String> = about.map(|(k, _)| format!("{k} {}", cell(&o["about"], k))).collect();
            let (uid, refs) = (cell(o, "uid"), cell(o, "refs"));
            row([cell(o, "port"), cell(o, "kind"), hex(o, "id"), uid, refs, uses.join(", "), about.join(" ")])
        })
        .collect();
    table(&["PORT", "KIND", "ID", "UID", "REFS", "USES", "ABOUT"], &rows)
}

fn queues(v: &Value) -> String {
    let rows: Vec<_> = list(v)
        .iter()
        .map(|q| {
            let to = ["cq", "eq", "vector"].into_iter().find(|k| !q[*k].is_null());
            let to = to.map(|k| format!("{k} {}", cell(q, k))).unwrap_or_default();
            let lost = ["dropped", "no_buffer", "lost"].into_iter().find(|k| !q[*k].is_null());
            let lost = lost.map(|k| cell(q, k)).unwrap_or_default();
            row([
                cell(q, "port"),
                cell(q, "kind"),
                cell(q, "id"),
                cell(q, "state"),
                cell(q, "producer"),
                cell(q, "consumer"),
                cell(q, "entries"),
                to,
                cell(q, "armed"),
                cell(q, "packets"),
                cell(q, "bytes"),
                lost,
                cell(q, "errors"),
            ])
        })
        .collect();
    let heads = [
        "PORT", "KIND", "ID", "STATE", "PRODUCER", "CONSUMER", "ENTRIES", "TO", "ARMED", "FRAMES", "BYTES", "LOST",
        "ERRORS",
    ];
    table(&heads, &rows)
}

fn vports(v: &Value) -> String {
    let rows: Vec<_> = list(v)
        .iter()
        .map(|p| {
            row([
                cell(p, "port"),
                hex(p, "vport"),
                cell(p, "hw_addr"),
                cell(p, "admin"),
                cell(p, "up"),
                cell(p, "driver"),
                cell(p, "mtu"),
                cell(p, "rx_packets"),
                cell(p, "rx_bytes"),
                cell(p, "tx_packets"),
                cell(p, "tx_bytes"),
                match p["far"]["up"].as_bool() {
                    None => String::new(),
                    Some(true) => format!("is there; could not take {}", cell(&p["far"], "tx_lost")),
                    Some(false) => cell(&p["far"], "reason"),
                },
            ])
        })
        .collect();
    let heads = [
        "PORT",
        "VPORT",
        "ADDRESS",
        "ADMIN",
        "UP",
        "DRIVER",
        "MTU",
        "RX FRAMES",
        "RX BYTES",
        "TX FRAMES",
        "TX BYTES",
        "MACHINE",
    ];
    table(&heads, &rows)
}

/// Whose memory or interrupts they are.
fn owner(v: &Value) -> String {
    if v["slice"].is_null() { format!("pf{}", cell(v, "pf")) } else { format!("slice {}", cell(v, "slice")) }
}

fn dma(v: &Value) -> String {
    let maps = list(v).iter().flat_map(|pf| list(&pf["maps"]).iter().map(move |m| (pf, m)));
    let rows: Vec<_> = maps
        .map(|(pf, m)| {
            let end = m["iova"].as_u64().unwrap_or_default().saturating_add(m["bytes"].as_u64().unwrap_or_default());
            row([owner(pf), hex(m, "iova"), format!("{end:#x}"), cell(m, "bytes")])
        })
        .collect();
    table(&["OF", "FROM", "TO", "BYTES"], &rows)
}

fn msix(v: &Value) -> String {
    let used = list(v).iter().flat_map(|pf| list(&pf["used"]).iter().map(move |u| (pf, u)));
    let rows: Vec<_> = used
        .map(|(pf, u)| {
            let eqs: Vec<String> =
                list(&u["eqs"]).iter().map(|e| format!("{} eq {}", cell(e, "port"), cell(e, "eqn"))).collect();
            row([owner(pf), cell(u, "vector"), cell(u, "raised"), eqs.join(", ")])
        })
        .collect();
    table(&["OF", "VECTOR", "RAISED", "EVENT QUEUES"], &rows)
}

/// Tables, groups and rules, each level further in.
fn tables(v: &Value) -> String {
    let mut text = String::new();
    for f in list(v) {
        let roots: Vec<String> = list(&f["roots"])
            .iter()
            .map(|r| {
                let vport = if r["vport"] == 0 { String::new() } else { format!(" of vport {}", hex(r, "vport")) };
                format!("{}{vport}: {}", cell(r, "kind"), hex(r, "table"))
            })
            .collect();
        text += &format!("{}: roots {}\n", cell(f, "port"), roots.join(", "));
        for t in list(&f["tables"]) {
            let flags: Vec<&str> = list(&t["flags"]).iter().filter_map(Value::as_str).collect();
            let size = 1u64 << t["log_size"].as_u64().unwrap_or_default().min(63);
            text += &format!(
                "  table {} {} level {}, {size} entries, miss {}, {} lead here {}\n",
                hex(t, "id"),
                cell(t, "kind"),
                cell(t, "level"),
                cell(t, "miss"),
                cell(t, "references"),
                flags.join(" ")
            )
            .replace(" \n", "\n");
            for g in list(&t["groups"]) {
                text += &group(g);
            }
        }
    }
    if text.is_empty() { "nothing\n".to_owned() } else { text }
}

fn group(g: &Value) -> String {
    let rules = list(&g["rules"]);
    let fields: Vec<String> =
        list(&g["mask"]).iter().map(|m| format!("{}&{}", cell(m, "field"), hex(m, "value"))).collect();
    let fields = if fields.is_empty() { "everything".to_owned() } else { fields.join(" ") };
    let mut text = format!(
        "    group {} [{}..={}], {} rules, by {fields}\n",
        hex(g, "id"),
        cell(g, "start"),
        cell(g, "end"),
        cell(g, "count")
    );
    for r in rules {
        let value: Vec<String> =
            list(&r["value"]).iter().map(|m| format!("{}={}", cell(m, "field"), hex(m, "value"))).collect();
        let actions: Vec<String> =
            list(&r["actions"]).iter().filter_map(|a| Some(a.as_str()?.to_lowercase())).collect();
        let dests: Vec<String> = list(&r["dests"]).iter().map(dest).collect();
        let counters: Vec<String> = list(&r["counters"])
            .iter()
            .map(|c| format!("counter {}: {} frames, {} bytes", hex(c, "id"), cell(c, "packets"), cell(c, "octets")))
            .collect();
        let parts = [value.join(" "), actions.join(" "), dests.join(", "), counters.join("; ")];
        let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        text += &format!("      {}: {}\n", cell(r, "index"), parts.join(" → "));
    }
    let more = g["count"].as_u64().unwrap_or_default().saturating_sub(rules.len() as u64);
    if more > 0 {
        text += &format!("      … {more} more\n");
    }
    text
}

fn dest(d: &Value) -> String {
    match d["to"].as_str().unwrap_or_default() {
        "vport" => format!("vport {}", hex(d, "num")),
        to => format!("{to} {}", hex(d, "id")).trim_end().to_owned(),
    }
}
