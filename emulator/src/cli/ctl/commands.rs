//! `sfnic ctl commands`: what drivers say to a device, as they say it.

use serde_json::Value;
use sfnic_firmware_cmds::Opcode;

use super::super::{Done, Failure, print};
use super::events::each;
use crate::control::client::Client;

/// Commands of drivers as they are answered, with their fields by name.
///
/// The device keeps commands only while somebody reads; `--trace FILE` of run and vm
/// records everything from the beginning.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic ctl commands
  sfnic ctl commands --failed
  sfnic ctl commands --opcode CREATE_CQ --pf 0 --count 3 --json

A reader that is too slow is told how many commands it missed; the device waits for nobody.")]
pub(super) struct Args {
    /// The device; needless where only one runs.
    pub(super) handle: Option<String>,

    /// Of this physical function alone.
    #[arg(long, value_name = "N")]
    pf: Option<u32>,

    /// Those that were refused or not delivered alone.
    #[arg(long)]
    failed: bool,

    /// Of this opcode alone; may be given several times.
    #[arg(long, value_name = "NAME")]
    opcode: Vec<String>,

    /// End after so many commands.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Args {
    /// Refuses what is no opcode.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.opcode.iter().find(|name| !Opcode::ALL.iter().any(|e| e.1 == name.as_str())) {
            Some(name) => Err(Failure::Usage(format!(
                "--opcode = {name:?}: allowed is the name of a command, as `sfnic list commands` has them"
            ))),
            None => Ok(()),
        }
    }
}

/// Prints commands until there were enough, or the device ends.
pub(super) fn follow(client: &Client, args: &Args, json: bool) -> Done {
    let mut path = format!("/v1/commands?failed={}", args.failed);
    if let Some(pf) = args.pf {
        path += &format!("&pf={pf}");
    }
    let mut left = args.count.unwrap_or(u64::MAX);
    each(client, &path, |one| {
        let lost = !one["event"].is_null();
        let name = one["command"].as_str().unwrap_or_default();
        if !lost && !args.opcode.is_empty() && !args.opcode.iter().any(|o| o == name) {
            return Ok(true);
        }
        print(&if json { format!("{one}\n") } else { format!("{}\n", text(&one)) })?;
        left -= u64::from(!lost);
        Ok(left > 0)
    })
}

/// A command in a line, and its fields in one each.
fn text(c: &Value) -> String {
    let number = |key: &str| c[key].as_u64().unwrap_or_default();
    let word = |key: &str| c[key].as_str().unwrap_or_default();
    if !c["event"].is_null() {
        return format!("{:>12} … {} commands lost", "", number("count"));
    }
    let answer = match c["status"].as_str() {
        None => format!("not delivered: {}", word("delivery")),
        Some("OK") => "OK".to_owned(),
        Some(status) => format!("{status} ({:#x}): {}", number("syndrome"), word("reason")),
    };
    let mut out = format!(
        "{:>12.6} pf{}/{:#x} {} op_mod {:#x} slot {} {} µs {answer}",
        number("time_ns") as f64 / 1e9,
        number("pf"),
        number("function"),
        word("command"),
        number("op_mod"),
        number("slot"),
        number("duration_ns") / 1000,
    );
    for (mark, half) in [('>', &c["input"]), ('<', &c["output"])] {
        for (name, value) in half.as_object().into_iter().flatten() {
            // The first line has them.
            if mark == '<' || !matches!(name.as_str(), "opcode" | "op_mod") {
                let value =
                    value.as_u64().map_or_else(|| value.as_str().unwrap_or_default().to_owned(), |n| format!("{n:#x}"));
                out += &format!("\n    {mark} {name} = {value}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_is_a_line_and_its_fields() {
        let mut c = json!({ "seq": 1, "time_ns": 1_500_000_000u64, "duration_ns": 7_000, "pf": 1, "function": 0x8000,
            "slot": 31, "command": "CREATE_CQ", "op_mod": 0, "delivery": "Ok", "status": "OK", "syndrome": 0, "reason": "",
            "input": { "opcode": 0x400, "ctx.c_eqn": 3 }, "output": { "cqn": 7 }, "cut": false });
        let line = "    1.500000 pf1/0x8000 CREATE_CQ op_mod 0x0 slot 31 7 µs OK";
        assert_eq!(text(&c), format!("{line}\n    > ctx.c_eqn = 0x3\n    < cqn = 0x7"));
        c["status"] = json!("LIMIT");
        c["reason"] = json!("too many");
        assert!(text(&c).lines().next().unwrap().ends_with("LIMIT (0x0): too many"));
        c["status"] = Value::Null;
        c["delivery"] = json!("Token");
        assert!(text(&c).lines().next().unwrap().ends_with("not delivered: Token"));
    }
}
