//! `sfnic ctl wire`: what ports are connected to, and what that does to frames.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value};
use sfnic_device_model::fabric::impair::Impairment;

use super::super::{Done, Failure};
use super::show::{cell, list};
use super::table::table;
use super::{Form, body, quiet};
use crate::control::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Wire {
    /// Shows what the ports are connected to, and what that does to frames.
    Show {
        /// A port such as p0; all if left out.
        port: Option<String>,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
    /// Has a wire delay, lose, reorder, duplicate or change frames, or slows it down.
    #[command(after_help = WORDS)]
    Set {
        /// The port: p0, p1, …
        port: String,

        /// What it does, both ways or behind `in` and `out`; or off.
        #[arg(required = true)]
        words: Vec<String>,

        /// The device; needless where only one runs.
        #[arg(long)]
        handle: Option<String>,
    },
}

const WORDS: &str = "\u{1b}[1;4mWords:\u{1b}[0m
  delay=TIME       a frame is under way for so long: 300us, 5ms, 1.5s (at most 60s)
  jitter=TIME      give or take so much; nobody overtakes
  reorder=P        so many frames take no delay, and overtake
  loss=P           so many frames are lost: 0.01 is one in a hundred
  duplicate=P      so many frames arrive twice
  corrupt=P        of so many frames a bit behind the addresses is changed
  rate=RATE        the wire sends no faster: 100k, 25M, 1.5G bits a second
  queue=TIME       a frame that had to wait longer for a slow wire is lost; 50ms if not said
  seed=N           the same seed and the same frames are the same chance

What is set takes the place of all that was set before for that direction: in is what
comes from the wire to the device, out what goes to it. A cable has two ends, and each
its own directions.

\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl wire set p0 delay=5ms jitter=1ms loss=0.01 seed=7
  sfnic ctl wire set p0 in rate=100M queue=20ms out off
  sfnic ctl wire set p1 off
  sfnic ctl wire show";

/// The body of a request, from words.
fn change(words: &[String]) -> Result<Value, String> {
    let mut ways: Vec<(&str, Vec<&str>)> = vec![];
    for word in words.iter().flat_map(|w| w.split_whitespace()) {
        match word {
            "in" | "out" if ways.iter().any(|(way, _)| *way == word) => return Err(format!("{word}: given twice")),
            "in" | "out" => ways.push((word, vec![])),
            _ => match ways.last_mut() {
                Some((_, words)) => words.push(word),
                None => ways.push(("", vec![word])),
            },
        }
    }
    if ways.len() > 1 && ways.iter().any(|(way, _)| way.is_empty()) {
        return Err("in, out: allowed is words for both, or words behind in and words behind out".to_owned());
    }
    let mut all = Map::new();
    for (way, words) in ways {
        let text = words.join(" ");
        text.parse::<Impairment>()?;
        for name in if way.is_empty() { vec!["in", "out"] } else { vec![way] } {
            all.insert(name.to_owned(), text.clone().into());
        }
    }
    Ok(Value::Object(all))
}

fn path(port: &str) -> Result<String, Failure> {
    let number = port.strip_prefix('p').filter(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()));
    match number {
        Some(_) => Ok(format!("/v1/wires/{port}")),
        None => Err(Failure::Usage(format!("port = {port:?}: allowed is p0, p1, …"))),
    }
}

pub(super) fn run(wire: Wire, form: Form, choose: impl Fn(Option<&str>) -> Result<Client, Failure>) -> Done {
    match wire {
        Wire::Show { port, handle } => {
            let path = port.as_deref().map_or(Ok("/v1/wires".to_owned()), path)?;
            let reply = body(choose(handle.as_deref())?.get(&path)?)?;
            let all = if reply.is_array() { reply } else { Value::Array(vec![reply]) };
            form.print("wire", &all, || wires(&all))?;
            Ok(0)
        }
        Wire::Set { port, words, handle } => {
            // Known before a device is looked for.
            let (path, change) = (path(&port)?, change(&words).map_err(Failure::Usage)?);
            quiet(&choose(handle.as_deref())?.request(Method::PATCH, &path, Some(&change))?)
        }
    }
}

/// A line a direction.
pub(super) fn wires(all: &Value) -> String {
    let mut rows = vec![];
    for w in list(all) {
        let far = &w["far"];
        for (way, frames, lost) in [("in", "rx_frames", ""), ("out", "tx_frames", "tx_lost")] {
            let d = &w[way];
            let first = way == "in";
            let once = |cell: String| if first { cell } else { String::new() };
            let fates = d["frames"].as_object().into_iter().flatten();
            let fates: Vec<String> =
                fates.filter(|(_, n)| n.as_u64() != Some(0)).map(|(fate, n)| format!("{n} {fate}")).collect();
            let reason = if far["up"] == false { cell(far, "reason") } else { String::new() };
            rows.push(vec![
                once(cell(w, "port")),
                once(cell(w, "wire")),
                once(format!("{}G", cell(w, "speed"))),
                once(cell(w, "up")),
                once(cell(far, "errors")),
                way.to_owned(),
                cell(far, frames),
                cell(far, lost),
                cell(d, "impair"),
                [fates.join(", "), once(reason)].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join("; "),
            ]);
        }
    }
    table(&["PORT", "WIRE", "SPEED", "UP", "ERRORS", "WAY", "FRAMES", "LOST", "IMPAIRMENT", "NOTES"], &rows)
}

/// A line a port, and one a station.
pub(super) fn switches(all: &Value) -> String {
    let mut text = String::new();
    for s in list(all) {
        let said = |key: &str| cell(s, key);
        text += &format!(
            "{}: {} frames to all ports, {} refused, {} moves, {} not learnt\n",
            said("name"),
            said("flooded_frames"),
            said("refused_frames"),
            said("moves"),
            said("unlearnt")
        );
        let ports = list(&s["ports"]).iter();
        let ports: Vec<_> = ports
            .map(|p| ["port", "up", "rx_frames", "tx_frames", "lost_frames"].map(|k| cell(p, k)).to_vec())
            .collect();
        text += &table(&["PORT", "UP", "RX FRAMES", "TX FRAMES", "LOST"], &ports);
        let known = list(&s["stations"]).iter();
        let known: Vec<_> = known.map(|p| ["mac", "vlan", "port", "age"].map(|k| cell(p, k)).to_vec()).collect();
        text += &table(&["STATION", "VLAN", "PORT", "AGE"], &known);
    }
    if text.is_empty() { "nothing\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_for_both_ways_or_for_one() {
        let words = |text: &str| change(&[text.to_owned()]);
        assert_eq!(words("delay=5ms loss=0.1"), Ok(json!({ "in": "delay=5ms loss=0.1", "out": "delay=5ms loss=0.1" })));
        assert_eq!(words("out rate=1M in off"), Ok(json!({ "in": "off", "out": "rate=1M" })));
        assert_eq!(words("in off"), Ok(json!({ "in": "off" })));
        assert_eq!(words("in off in off"), Err("in: given twice".into()));
        assert!(words("off in off").is_err_and(|e| e.starts_with("in, out: allowed is")));
        for bad in ["in", "in delay=5", "loss", "colour=red"] {
            assert!(words(bad).is_err_and(|e| e.contains("allowed is off, or words of delay=TIME")), "{bad}");
        }
    }
}
