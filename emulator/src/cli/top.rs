//! `sfnic top`: ports, rates, queues and slices of a running device, live.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::ctl::{event_line, table};
use super::{Done, print};
use crate::control::client::Client;

/// Watch a running device: ports with their rates, slices, the busiest queues, what happens.
///
/// q or Ctrl-C ends it. Without a terminal it prints one picture after the other.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic top
  sfnic top --interval 5 --count 12 > a-minute.txt")]
pub(super) struct Args {
    /// The device; needless where only one runs.
    handle: Option<String>,

    /// The device's control socket, or http://HOST:PORT with the token in SFNIC_TOKEN.
    #[arg(long, value_name = "PATH|URL", env = "SFNIC_CONTROL")]
    control: Option<PathBuf>,

    /// Seconds between two pictures.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,

    /// End after so many pictures.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// What the device said at a time.
#[derive(Debug)]
struct Sample {
    at: Instant,
    device: Value,
    functions: Value,
    vports: Value,
    queues: Value,
    slices: Value,
    faults: Value,
    events: Vec<Value>,
}

/// Most events that are shown.
const EVENTS: usize = 8;
/// Most queues that are shown.
const QUEUES: usize = 10;

impl Sample {
    fn take(client: &Client, before: Option<&Sample>) -> Result<Sample> {
        let get = |path: &str| -> Result<Value> {
            let reply = client.get(path)?;
            match reply.error() {
                Some(why) => Err(anyhow::anyhow!(why)),
                None => Ok(reply.body),
            }
        };
        let seen = before.and_then(|b| b.events.last()).and_then(|e| e["seq"].as_u64()).unwrap_or_default();
        let news = get(&format!("/v1/events/recent?since={seen}"))?;
        let mut events: Vec<Value> = before.map(|b| b.events.clone()).unwrap_or_default();
        events.extend(list(&news["events"]).iter().cloned());
        events.drain(..events.len().saturating_sub(EVENTS));
        Ok(Sample {
            at: Instant::now(),
            device: get("/v1/device")?,
            functions: get("/v1/functions")?,
            vports: get("/v1/vports")?,
            queues: get("/v1/queues")?,
            slices: get("/v1/slices")?,
            faults: get("/v1/faults")?,
            events,
        })
    }
}

fn list(v: &Value) -> &[Value] {
    v.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(v: &Value, key: &str) -> String {
    v[key].as_str().map_or_else(|| v[key].to_string(), str::to_owned)
}

/// Growth of a number a second; what shrank began again.
fn rate(before: Option<&Value>, now: &Value, key: &str, seconds: f64) -> f64 {
    let value = |v: &Value| v[key].as_u64().unwrap_or_default();
    let Some(was) = before.map(value) else { return 0.0 };
    let is = value(now);
    is.checked_sub(was).unwrap_or(is) as f64 / seconds.max(1e-3)
}

/// `1234`, `56.7k`, `8.90M`.
fn short(n: f64) -> String {
    match n {
        n if n < 1e4 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1}k", n / 1e3),
        n if n < 1e9 => format!("{:.2}M", n / 1e6),
        n => format!("{:.2}G", n / 1e9),
    }
}

/// A list by the name of each entry.
fn by_name(v: &Value, name: impl Fn(&Value) -> String) -> BTreeMap<String, &Value> {
    list(v).iter().map(|e| (name(e), e)).collect()
}

fn queue_name(q: &Value) -> String {
    format!("{} {}{}", text(q, "port"), text(q, "kind"), text(q, "id"))
}

/// The picture.
fn picture(before: &Sample, now: &Sample) -> String {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let commands = |s: &Sample, key: &str| -> u64 {
        s.functions.as_object().into_iter().flatten().filter_map(|(_, f)| f["commands"][key].as_u64()).sum()
    };
    let commands = |key: &str| commands(now, key).saturating_sub(commands(before, key)) as f64 / seconds.max(1e-3);
    let d = &now.device;
    let mut out = format!(
        "{} · {} · eswitch {} · {} commands/s, {} refused · {} faults\n\n",
        text(d, "handle"),
        text(d, "profile"),
        text(d, "eswitch"),
        short(commands("executed")),
        short(commands("refused")),
        list(&now.faults).len()
    );
    let was = by_name(&before.vports, |v| text(v, "port"));
    let rows: Vec<Vec<String>> = list(&now.vports)
        .iter()
        .map(|v| {
            let per = |key: &str| rate(was.get(&text(v, "port")).copied(), v, key, seconds);
            vec![
                text(v, "port"),
                if v["up"] == true { "up" } else { "down" }.to_owned(),
                short(per("rx_packets")),
                short(per("rx_bytes") * 8.0),
                short(per("tx_packets")),
                short(per("tx_bytes") * 8.0),
                text(v, "rx_errors"),
                text(v, "tx_errors"),
            ]
        })
        .collect();
    out += &table(&["PORT", "LINK", "RX f/s", "RX bit/s", "TX f/s", "TX bit/s", "RX ERR", "TX ERR"], &rows);
    let slices: Vec<Vec<String>> = list(&now.slices)
        .iter()
        .filter(|s| s["flavour"] != "pcipf")
        .map(|s| ["index", "pfnum", "sfnum", "hw_addr", "state", "opstate"].map(|k| text(s, k)).to_vec())
        .collect();
    if !slices.is_empty() {
        out += &format!("\n{}", table(&["SLICE", "PF", "SF", "ADDRESS", "STATE", "OPSTATE"], &slices));
    }
    let was = by_name(&before.queues, queue_name);
    let mut busy: Vec<(f64, f64, &Value)> = list(&now.queues)
        .iter()
        .filter(|q| !q["packets"].is_null())
        .map(|q| {
            let per = |key: &str| rate(was.get(&queue_name(q)).copied(), q, key, seconds);
            (per("packets"), per("bytes") * 8.0, q)
        })
        .filter(|(frames, ..)| *frames > 0.0)
        .collect();
    busy.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rows: Vec<Vec<String>> = busy
        .iter()
        .take(QUEUES)
        .map(|(frames, bits, q)| {
            let lost = if q["no_buffer"].is_null() { text(q, "dropped") } else { text(q, "no_buffer") };
            let (producer, consumer) = (q["producer"].as_u64().unwrap_or(0), q["consumer"].as_u64().unwrap_or(0));
            let posted = producer.wrapping_sub(consumer) & 0xffff;
            vec![queue_name(q), short(*frames), short(*bits), posted.to_string(), text(q, "entries"), lost]
        })
        .collect();
    if !rows.is_empty() {
        out += &format!("\n{}", table(&["BUSY QUEUE", "f/s", "bit/s", "POSTED", "ENTRIES", "LOST"], &rows));
    }
    if !now.events.is_empty() {
        out.push('\n');
        now.events.iter().for_each(|e| out += &format!("{}\n", event_line(e)));
    }
    out
}

/// A terminal that gives keys one by one and shows a screen of its own, as long as this lives.
struct Screen(Option<Termios>);

impl Screen {
    fn open() -> Result<Screen> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(&stdin, OptionalActions::Now, &modes).context("cannot set the terminal")?;
        }
        print("\u{1b}[?1049h\u{1b}[?25l")?;
        Ok(Screen(before))
    }

    fn draw(&self, text: &str) -> Result<()> {
        let size = tcgetwinsize(std::io::stdout()).ok();
        let (rows, columns) = size.map_or((24, 80), |s| (usize::from(s.ws_row), usize::from(s.ws_col)));
        let mut out = String::from("\u{1b}[H");
        for line in text.lines().take(rows.saturating_sub(1)) {
            out.extend(line.chars().take(columns));
            out += "\u{1b}[K\r\n";
        }
        print(&(out + "\u{1b}[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = std::io::stdout().write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = std::io::stdout().flush();
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Waits; true where the user wants to end it.
fn wait(time: Duration, keys: bool, ended: &AtomicBool) -> bool {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if ended.load(Ordering::SeqCst) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
        let stdin = std::io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let fds = if keys { &mut fds[..] } else { &mut fds[..0] };
        // A signal interrupts it.
        if poll(fds, Timespec::try_from(left).ok().as_ref()).is_ok_and(|n| n > 0) {
            let mut key = [0];
            match rustix::io::read(&stdin, &mut key) {
                Ok(1) if key[0] == b'q' => return true,
                Ok(0) | Err(_) => return true,
                Ok(_) => {}
            }
        }
    }
}

pub(super) fn run(args: &Args) -> Done {
    let client = super::ctl::device(args.control.as_deref(), args.handle.as_deref())?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, ended.clone()).context("cannot catch signals")?;
    }
    let mut before = Sample::take(&client, None)?;
    let screen = if std::io::stdout().is_terminal() { Some(Screen::open()?) } else { None };
    let keys = screen.is_some() && std::io::stdin().is_terminal();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 && !wait(Duration::from_secs(args.interval), keys, &ended) {
        let now = Sample::take(&client, Some(&before))?;
        let text = picture(&before, &now);
        match &screen {
            Some(screen) => screen.draw(&text)?,
            None => print(&format!("{text}\n"))?,
        }
        before = now;
        left -= 1;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_are_growth_a_second() {
        let at = Instant::now();
        let sample = |seconds: u64, n: u64| Sample {
            at: at + Duration::from_secs(seconds),
            device: json!({ "handle": "pci/x", "profile": "card", "eswitch": "host" }),
            functions: json!({ "pf0/0x0": { "commands": { "executed": n, "refused": 0 } } }),
            vports: json!([{ "port": "p0", "up": true, "rx_packets": n * 10, "rx_bytes": n * 1000, "tx_packets": 0,
                "tx_bytes": 0, "rx_errors": 0, "tx_errors": 3 }]),
            queues: json!([
                { "port": "pf0", "kind": "sq", "id": 1, "packets": n, "bytes": n, "dropped": 0, "producer": 5,
                  "consumer": 3, "entries": 64 },
                { "port": "pf0", "kind": "rq", "id": 2, "packets": 7, "bytes": 7, "no_buffer": 0, "producer": 5,
                  "consumer": 3, "entries": 64 },
                { "port": "pf0", "kind": "eq", "id": 3 },
            ]),
            slices: json!([]),
            faults: json!([{}]),
            events: vec![],
        };
        let text = picture(&sample(0, 100), &sample(2, 300));
        let has = |words: &[&str]| text.lines().any(|l| l.split_whitespace().collect::<Vec<_>>() == words);
        assert!(text.starts_with("pci/x · card · eswitch host · 100 commands/s, 0 refused · 1 faults\n"), "{text}");
        assert!(has(&["p0", "up", "1000", "800.0k", "0", "0", "0", "3"]), "{text}");
        assert!(has(&["pf0", "sq1", "100", "800", "2", "64", "0"]), "{text}");
        assert!(!text.contains("rq2"), "an idle queue is not busy");
    }

    #[test]
    fn numbers_are_short_and_may_begin_again() {
        assert_eq!([0.4, 9999.0, 12_345.0, 2e6, 3e9].map(short), ["0", "9999", "12.3k", "2.00M", "3.00G"]);
        assert_eq!(rate(Some(&json!({ "n": 50 })), &json!({ "n": 20 }), "n", 2.0), 10.0);
        assert_eq!(rate(None, &json!({ "n": 20 }), "n", 2.0), 0.0);
    }
}
