//! What the driver says of its commands is what the device recorded, and both replay.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use sfnic_ci::suite;
use sfnic_emulator::lab::Lab;
use sfnic_emulator::trace::file::Header;
use sfnic_emulator::trace::record::Recording;
use sfnic_emulator::trace::replay::{Report, replay};
use sfnic_emulator::trace::{Trace, file, import};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Kit, KitOptions};

fn replayed(t: &Trace) -> Report {
    replay(t, Profile::builtin("connectx6dx").unwrap(), None)
}

fn unexplained(r: &Report) -> Vec<String> {
    let bad = r.commands.iter().filter(|c| c.status.is_some() || c.fields.iter().any(|f| f.explanation.is_none()));
    bad.map(|c| format!("{c:?}")).collect()
}

/// The kernel prints a dump line by line, without the device's name: where the dumps of two
/// functions mix, nobody can tell them apart. With one CPU that is rare, and another guest is
/// asked then.
#[test]
fn what_the_driver_dumps_replays() {
    const TRIES: usize = 3;
    for attempt in 1..=TRIES {
        let log = recorded();
        let said = import::read(log.as_bytes()).unwrap();
        let r = replayed(&said);
        assert!(r.summary.commands > 500, "{:?}", r.summary);
        if (r.summary.same_status, r.summary.reports) == (r.summary.commands, 0) && r.summary.notes.is_empty() {
            return mutations(&log);
        }
        let why = format!("{:#?}, {:?}", unexplained(&r), r.summary.notes);
        assert!(attempt < TRIES, "{why}");
        eprintln!("dumps are mixed: {why}");
    }
}

/// A recording of the device, which replays, and the log of the driver that it had.
fn recorded() -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace");
    let suite = suite::find("dumps").unwrap();
    let lab = Lab::of(suite);
    let kit = Kit::ensure(&KitOptions::default(), DEFAULT_LINE).unwrap();
    let bench = lab.start().unwrap();
    let recording = Recording::create(&path, &Header { source: "device".into(), ..Header::default() }).unwrap();
    bench.board.nic.record(recording.recorder());
    let report = bench.run(&kit, &suite.script).unwrap().expect("nobody interrupts");
    sfnic_tests::judge(suite, std::slice::from_ref(&report));
    let outcome = recording.finish();
    assert_eq!((outcome.lost, outcome.error), (0, None));

    let hex = report.stdout.lines().find_map(|l| l.strip_prefix("dumps ")).expect("the script prints the log");
    let packed: Vec<u8> =
        hex.as_bytes().chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect();
    let mut log = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut log).unwrap();

    let seen = file::read(std::fs::File::open(&path).unwrap()).unwrap();
    let r = replayed(&seen);
    assert_eq!((r.summary.same_status, r.summary.reports), (r.summary.commands, 0), "{:#?}", unexplained(&r));
    assert!(r.summary.commands > 500, "{:?}", r.summary);
    log
}

/// A hundred logs with one wrong digit in an answer each: one report each.
fn mutations(log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    // Rows of answers that say something, but for those with counters of traffic and the
    // parts of an entry that are not the answer.
    let counters = ["0x805", "0x770", "0x773", "0x93b", "0x76f"];
    let mut rows = vec![];
    // Two slots' dumps may come line by line in turn: what each of them is in now.
    let mut slots = BTreeMap::new();
    for (n, line) in lines.iter().enumerate() {
        let Some((slot, row)) = line.rsplit_once("cmd[").and_then(|(_, r)| r.split_once("]: ")) else { continue };
        if row.starts_with("dump command ") {
            let answer = row.ends_with("OUTPUT") && !counters.iter().any(|c| row.contains(c));
            // Two functions may dump from slots of the same number: whose a row is, it does not say.
            let open = slots.get(slot).map_or(0u32, |(_, _, open)| *open);
            slots.insert(slot, (answer && open == 0, !row.contains("command data"), open + 1));
        } else if row == "end dump"
            && let Some(of) = slots.get_mut(slot)
        {
            *of = (false, of.1, of.2.saturating_sub(1));
        }
        let Some((answer, whole, _)) = slots.get(slot).copied() else { continue };
        let Some((offset, words)) = row.split_once(": ") else { continue };
        let offset = usize::from_str_radix(offset, 16).unwrap_or(1);
        let inline = if whole { offset == 0x20 } else { offset == 0 };
        if answer && words.len() == 35 && (inline || (!whole && words.bytes().any(|b| b.is_ascii_digit() && b != b'0')))
        {
            rows.push((n, inline));
        }
    }
    assert!(rows.len() > 200, "{}", rows.len());
    let mut tried = BTreeSet::new();
    let mut state = 7u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    while tried.len() < 100 {
        let (n, inline) = rows[below(rows.len())];
        if !tried.insert(n) {
            continue;
        }
        let line = lines[n];
        let words = line.len() - 35;
        // In the first row, what a command answers; elsewhere a digit that is there.
        let digits: Vec<usize> = (words..line.len())
            .filter(|at| match line.as_bytes()[*at] {
                b' ' => false,
                _ if inline => (words + 20..words + 26).contains(at),
                d => d != b'0',
            })
            .collect();
        let at = digits[below(digits.len())];
        let old = char::from(line.as_bytes()[at]).to_digit(16).unwrap();
        let new = std::char::from_digit(old ^ (1 << below(4)), 16).unwrap();
        let changed = format!("{}{new}{}", &line[..at], &line[at + 1..]);
        let mutant: Vec<&str> =
            lines.iter().enumerate().map(|(i, l)| if i == n { changed.as_str() } else { l }).collect();
        let r = replayed(&import::read(mutant.join("\n").as_bytes()).unwrap());
        assert_eq!(r.summary.reports, 1, "line {n}: {line} is now {changed}: {:#?}", unexplained(&r));
    }
}
