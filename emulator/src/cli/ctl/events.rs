//! `sfnic ctl events`: what happens to a device, as it happens.

use serde_json::Value;

use super::super::{Done, complain, print};
use crate::control::client::Client;

/// What happens to the device, as it happens: slices, links, commands that failed, resets,
/// faults.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl events
  sfnic ctl events --since 0 --count 20 --json
  sfnic ctl events --only link --only vhca_state

A reader that is too slow is told how many events it missed; the device waits for nobody.")]
pub(super) struct Args {
    /// The device; needless where only one runs.
    pub(super) handle: Option<String>,

    /// Begin behind the event of this number; 0 is everything that is kept.
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,

    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Events of this kind alone: vhca_state, slice, link, command_failed,
    /// command_undelivered, reset, fault.
    #[arg(long, value_name = "KIND", value_parser = KINDS)]
    only: Vec<String>,
}

const KINDS: [&str; 7] = ["vhca_state", "slice", "link", "command_failed", "command_undelivered", "reset", "fault"];

/// Prints events until there were enough, or the device ends.
pub(super) fn follow(client: &Client, args: &Args, json: bool) -> Done {
    let path = match args.since {
        Some(seq) => format!("/v1/events?since={seq}"),
        None => "/v1/events".to_owned(),
    };
    let mut left = args.count.unwrap_or(u64::MAX);
    each(client, &path, |event| {
        let kind = event["event"].as_str().unwrap_or_default();
        if !args.only.is_empty() && kind != "lost" && !args.only.iter().any(|k| k == kind) {
            return Ok(true);
        }
        print(&if json { format!("{event}\n") } else { format!("{}\n", text(&event)) })?;
        left -= 1;
        Ok(left > 0)
    })
}

/// Takes what a stream of the device has to say until that was enough (false), or the device
/// ends.
pub(super) fn each(client: &Client, path: &str, mut take: impl FnMut(Value) -> anyhow::Result<bool>) -> Done {
    let ended = client.lines(path, |line| match line.strip_prefix("data:") {
        Some(data) => take(serde_json::from_str(data.trim())?),
        None => Ok(true),
    })?;
    if !ended {
        complain("the device has ended");
        return Ok(1);
    }
    Ok(0)
}

/// An event in a line.
pub(in crate::cli) fn text(e: &Value) -> String {
    let word = |key: &str| match &e[key] {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let hex = |key: &str| format!("{:#x}", e[key].as_u64().unwrap_or_default());
    let function = || format!("pf{}/{}", word("pf"), hex("function"));
    let what = match e["event"].as_str().unwrap_or_default() {
        "lost" => return format!("{:>12} … {} events lost", "", word("count")),
        "vhca_state" => {
            let slice = if e["slice"].is_null() { String::new() } else { format!(" slice {}", word("slice")) };
            let (name, now) = (format!("pf{}sf{}", word("pf"), word("sfnum")), word("state") + "/" + &word("opstate"));
            format!("{name}{slice}: {} → {} ({}), {now}", word("before"), word("after"), word("cause"))
        }
        "slice" => format!("{} {}", word("index"), word("action")),
        "link" => format!("{} {}", word("port"), if e["up"] == true { "up" } else { "down" }),
        "command_failed" => format!(
            "{} {} op_mod {}: {} ({}): {}",
            function(),
            word("command"),
            hex("op_mod"),
            word("status"),
            hex("syndrome"),
            word("reason")
        ),
        "command_undelivered" => format!("{}: {}", function(), word("delivery")),
        "reset" => format!("pf{}", word("pf")),
        "fault" => {
            format!("{} {}: {} {}", word("id"), word("action"), word("fault"), word("what")).trim_end().to_owned()
        }
        _ => e.to_string(),
    };
    let seconds = e["time_ns"].as_u64().unwrap_or_default() as f64 / 1e9;
    format!("{seconds:>12.6} {:<14} {what}", word("event"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let link = json!({ "seq": 1, "time_ns": 1_500_000_000, "event": "link", "pf": 0, "port": "p0", "up": false });
        assert_eq!(text(&link), "    1.500000 link           p0 down");
        let failed = json!({ "seq": 2, "time_ns": 0, "event": "command_failed", "pf": 1, "function": 0x8000,
            "command": "CREATE_CQ", "op_mod": 0, "status": "LIMIT", "syndrome": 0x5f_0103, "reason": "too many" });
        assert!(text(&failed).ends_with("pf1/0x8000 CREATE_CQ op_mod 0x0: LIMIT (0x5f0103): too many"));
        let state = json!({ "time_ns": 0, "event": "vhca_state", "pf": 0, "sfnum": 4, "slice": 100, "before": "active",
            "after": "in_use", "cause": "attach", "state": "active", "opstate": "attached" });
        assert!(text(&state).ends_with("pf0sf4 slice 100: active → in_use (attach), active/attached"));
        assert!(text(&json!({ "event": "lost", "count": 7 })).ends_with("7 events lost"));
    }
}
