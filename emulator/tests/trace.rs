//! Traces and logs from outside and as a library: a recording of a guest
//! (kernel 7.2: both functions, switchdev, an SF, and back) replayed and
//! mutated, as a trace and as the kernel's log in each of its forms.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};

use sfnic_device_model::cmd::fields::{Side, set_bits, walk};
use sfnic_emulator::trace::{self, Trace, What, caps, file, import, replay};
use sfnic_firmware_cmds::profile::Profile;

/// The recording.
fn recording() -> Trace {
    let packed = &include_bytes!("fixtures/story-7.2.trace.gz")[..];
    let mut raw = vec![];
    flate2::read::GzDecoder::new(packed).read_to_end(&mut raw).unwrap();
    file::read(&raw[..]).unwrap()
}

/// The capabilities of the device that was recorded: the model's grow.
fn profile() -> Profile {
    static RECORDED: std::sync::LazyLock<Profile> =
        std::sync::LazyLock::new(|| Profile::parse(&caps::import(&recording(), "recorded").unwrap().text).unwrap());
    RECORDED.clone()
}

fn replayed(t: &Trace) -> replay::Report {
    replay::replay(t, profile(), None)
}

/// How a kernel's log looks.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// The commands alone (debug_mask=1).
    Data,
    /// Whole entries and mailboxes.
    Whole,
    /// The same before 4.10, in a syslog.
    Old,
}

/// The log that a kernel would have written.
fn as_log(t: &Trace, form: Form) -> String {
    let mut log = String::from("[    0.000000] Linux version\n");
    let mut names = std::collections::BTreeMap::new();
    let host = "Jan  2 03:04:05 host kernel:";
    for e in &t.entries {
        match &e.what {
            What::Name(name) => {
                names.insert((e.card, e.function), name.clone());
            }
            What::Command(c) => {
                let name = &names[&(e.card, e.function)];
                for input in [true, false] {
                    let (half, side) = if input { (c.input(), "INPUT") } else { (c.output(), "OUTPUT") };
                    let op = c.opcode();
                    let text = format!("{}({:#x}) {side}", op.name().unwrap_or("unknown"), op.0);
                    let (slot, data) = (c.slot, if form == Form::Data { "data " } else { "" });
                    let (head, row) = match form {
                        Form::Old => (
                            format!("{host} mlx5_core {name}:dump_command:749:(pid 12): dump command {text}"),
                            format!("{host} "),
                        ),
                        _ => (
                            format!(
                                "[    1.000000] mlx5_core {name}: dump_command:890:(pid 12): cmd[{slot}]: dump command {data}{text}"
                            ),
                            format!("[    1.000000] cmd[{slot}]: "),
                        ),
                    };
                    log += &head;
                    log.push('\n');
                    let mut block = half.clone();
                    if form != Form::Data {
                        block = vec![0; 0x40];
                        block[0] = 7;
                        block[4..8].copy_from_slice(&(c.input().len() as u32).to_be_bytes());
                        block[0x38..0x3c].copy_from_slice(&(c.output().len() as u32).to_be_bytes());
                        let (inline, n) = (if input { 0x10 } else { 0x20 }, half.len().min(16));
                        block[inline..inline + n].copy_from_slice(&half[..n]);
                        for part in half.get(16..).unwrap_or(&[]).chunks(0x200) {
                            let at = block.len();
                            block.resize(at + 0x240, 0);
                            block[at..at + part.len()].copy_from_slice(part);
                        }
                    }
                    for (i, line) in block.chunks(16).enumerate() {
                        write!(log, "{row}{:03x}:", i * 16).unwrap();
                        let mut line = line.to_vec();
                        line.resize(16, 0);
                        for w in line.chunks(4) {
                            write!(log, " {:02x}{:02x}{:02x}{:02x}", w[0], w[1], w[2], w[3]).unwrap();
                        }
                        log.push('\n');
                    }
                }
            }
            _ => {}
        }
    }
    log
}

#[test]
fn every_status_is_the_same_and_every_difference_explained() {
    let t = recording();
    let s = replayed(&t).summary;
    assert!(s.commands > 1000 && s.same_status == s.commands, "{s:?}");
    assert_eq!((s.reports, s.fields_unexplained), (0, 0));
    for form in [Form::Data, Form::Whole] {
        let log = as_log(&t, form);
        let back = import::read(log.as_bytes()).unwrap();
        assert_eq!(back.commands().count(), t.commands().count());
        assert!(back.notes.is_empty(), "{:?}", back.notes);
        let places = |t: &Trace| t.commands().map(|(e, _)| (e.card, e.function)).collect::<Vec<_>>();
        assert_eq!(places(&back), places(&t), "functions are told apart");
        let s = replayed(&back).summary;
        assert_eq!((s.reports, s.commands), (0, t.commands().count()));
    }
    // A kernel before 4.10 knew no SFs.
    let mut old = t.clone();
    old.entries.retain(|e| e.function == 0);
    let back = import::read(as_log(&old, Form::Old).as_bytes()).unwrap();
    assert_eq!(back.commands().count(), old.commands().count());
}

/// Random numbers that a failure can be found again with.
struct Random(u64);
impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A field of an answer, by command.
#[derive(Debug, Clone)]
struct Target {
    entry: usize,
    path: String,
    bit: usize,
    width: usize,
}

/// Every field of every answer but counters of traffic.
fn targets(t: &Trace) -> Vec<Target> {
    let mut all = vec![];
    for (n, e) in t.entries.iter().enumerate() {
        let What::Command(c) = &e.what else { continue };
        let (input, output) = (c.input(), c.output());
        walk(&input, Side::Output, &output, |leaf, _| {
            let counter = leaf.of == "traffic_counter" || leaf.of.ends_with("_grp_data_layout");
            if leaf.declared && leaf.width <= 64 && !counter && leaf.path != "syndrome" {
                all.push(Target { entry: n, path: leaf.path.to_owned(), bit: leaf.bit, width: leaf.width });
            }
        });
    }
    all
}

/// Another value of a field.
fn mutate(t: &mut Trace, target: &Target, random: &mut Random) {
    let What::Command(c) = &mut t.entries[target.entry].what else { return };
    let mut output = c.output();
    let flip = random.below(target.width.min(16));
    let one = sfnic_device_model::cmd::fields::bits(&output, target.bit, target.width) ^ 1 << flip;
    set_bits(&mut output, target.bit, target.width, one);
    *c = trace::Command::new(c.slot, c.delivery, &c.input(), Some(&output), c.rounded);
}

#[test]
fn each_of_a_hundred_mutations_is_one_report() {
    let t = recording();
    let all = targets(&t);
    // As many handles and statuses as anything else: they are few among the fields.
    let handles: Vec<Target> = all
        .iter()
        .filter(|f| {
            let last = f.path.rsplit('.').next().unwrap_or_default();
            ["cqn", "sqn", "rqn", "tirn", "tisn", "rqtn", "mkey_index", "eq_number", "table_id", "group_id", "pd"]
                .contains(&last)
        })
        .cloned()
        .collect();
    let mut random = Random(7);
    for n in 0..100 {
        let list = if n % 2 == 0 { &all } else { &handles };
        let target = &list[random.below(list.len())];
        let mut mutant = t.clone();
        mutate(&mut mutant, target, &mut random);
        let report = replayed(&mutant);
        assert_eq!(report.summary.reports, 1, "{n}: {target:?}: {:#?}", unexplained(&report));
    }
}

fn unexplained(r: &replay::Report) -> Vec<String> {
    let of = |c: &replay::Compared| {
        let fields = c.fields.iter().filter(|f| f.explanation.is_none());
        let fields = fields.map(|f| format!("{} {} | {} {}", f.field, f.log, f.model, f.why)).collect::<Vec<_>>();
        format!("#{} {:?} status {:?} {fields:?}", c.index, c.name, c.status)
    };
    r.commands
        .iter()
        .filter(|c| c.status.is_some() || c.fields.iter().any(|f| f.explanation.is_none()))
        .map(of)
        .collect()
}

#[test]
fn a_hundred_mutations_at_once_are_a_hundred_reports() {
    let t = recording();
    let all = targets(&t);
    let mut random = Random(11);
    let mut mutant = t.clone();
    let mut done = std::collections::BTreeSet::new();
    while done.len() < 100 {
        let target = &all[random.below(all.len())];
        if done.insert(target.entry) {
            mutate(&mut mutant, target, &mut random);
        }
    }
    let report = replayed(&mutant);
    assert_eq!(report.summary.reports, 100, "{:#?}", unexplained(&report));
}

/// What another card hands out and has more of is explained; the log of one
/// that hands out other numbers is told from one with a wrong number.
#[test]
fn another_card_is_explained() {
    let mut t = recording();
    for e in &mut t.entries {
        let place = e.clone();
        let What::Command(c) = &mut e.what else { continue };
        let (mut input, mut output) = (c.input(), c.output());
        for (side, block) in [(Side::Input, &mut input), (Side::Output, &mut output)] {
            for h in trace::handles::find(&place, &c.input(), side, &block.clone()) {
                if h.value != 0 && (side == Side::Input || trace::handles::hands_out(c.opcode())) {
                    set_bits(block, h.bit, h.width, h.value + 0x40);
                }
            }
        }
        if c.opcode().0 == 0x100 && c.status() == 0 {
            let mut bits = vec![];
            walk(&input, Side::Output, &output, |leaf, _| {
                if leaf.path.starts_with("capability.") && leaf.width == 1 && leaf.declared {
                    bits.push(leaf.bit);
                }
            });
            bits.iter().for_each(|b| set_bits(&mut output, *b, 1, 1));
        }
        *c = trace::Command::new(c.slot, c.delivery, &input, Some(&output), c.rounded);
    }
    let r = replayed(&t);
    let s = &r.summary;
    assert!(!s.same_make && s.fields_profile > 1000 && s.fields_chance > 300, "{s:?}");
    assert_eq!((s.same_status, s.reports), (s.commands, 0), "{:#?}", unexplained(&r));
    let made = trace::caps::import(&t, "card").unwrap();
    assert!(made.beyond.iter().any(|b| b.field == "general.cqe_compression"), "{:?}", made.beyond);
}

/// Nothing in a log can make the replay panic.
#[test]
fn any_damage_to_a_log_is_survived() {
    let mut t = recording();
    t.entries.truncate(400);
    let log = as_log(&t, Form::Data);
    let mut random = Random(3);
    for _ in 0..30 {
        let mut raw = log.clone().into_bytes();
        for _ in 0..200 {
            let at = random.below(raw.len());
            raw[at] = b"0123456789abcdef \n[]:x"[random.below(22)];
        }
        if let Ok(t) = import::read(&raw[..]) {
            replayed(&t);
        }
    }
    for _ in 0..30 {
        let mut raw = vec![];
        file::write(&mut raw, &t).unwrap();
        for _ in 0..50 {
            let at = random.below(raw.len());
            raw[at] = random.below(256) as u8;
        }
        if let Ok(t) = file::read(&raw[..]) {
            replayed(&t);
        }
    }
}

#[test]
fn a_trace_is_the_same_as_itself_and_handles_are_compared_by_order() {
    let t = recording();
    let (same, found) = trace::diff::diff(&t, &t, true);
    assert_eq!((same, found.len()), (t.commands().count(), 0));
    let mut other = t.clone();
    other.entries.truncate(t.entries.len() - 5);
    assert!(!trace::diff::diff(&t, &other, false).1.is_empty());
}

#[test]
fn the_models_own_capabilities_come_back() {
    let t = recording();
    let made = trace::caps::import(&t, "again").unwrap();
    assert!(made.sf && made.beyond.is_empty() && made.groups.is_empty(), "{:?}", made.beyond);
    let again = Profile::parse(&made.text).unwrap();
    let report = replay::replay(&t, again, None);
    assert_eq!(report.summary.reports, 0, "{:#?}", unexplained(&report));
}

fn sfnic(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sfnic")).args(args).env_remove("SFNIC_LOG").output().unwrap()
}

fn refused(args: &[&str], parts: &[&str]) {
    let output = sfnic(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

fn at(dir: &Path, name: &str, text: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_commands_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let t = recording();
    let log = at(dir.path(), "log", as_log(&t, Form::Data).as_bytes());
    let out = dir.path().join("t").to_str().unwrap().to_owned();
    assert!(sfnic(&["trace", "import", &log, "--output", &out]).status.success());
    let shown = sfnic(&["trace", "show", &out, "--opcode", "create_cq", "--function", "0x8000", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let commands: Vec<_> = list.as_array().unwrap().iter().filter(|e| e["kind"] == "command").collect();
    assert!(!commands.is_empty() && commands.iter().all(|c| c["opcode"] == 0x400 && c["function"] == 0x8000));
    assert!(commands[0]["output"]["cqn"].as_u64().unwrap() > 0);
    let text = String::from_utf8(sfnic(&["trace", "show", &log, "--opcode", "0x805"]).stdout).unwrap();
    assert!(text.contains("ACCESS_REG(0x805)") && text.contains("register_data.PAOS."), "{text}");
    let profile = dir.path().join("p.toml").to_str().unwrap().to_owned();
    assert!(sfnic(&["profile", "import", &log, "--output", &profile, "--json"]).status.success());
    let replay = sfnic(&["trace", "replay", &out, "--profile", &profile, "--json"]);
    assert_eq!(replay.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&replay.stdout).unwrap();
    assert_eq!(report["summary"]["same_status_percent"], 100.0);
    assert_eq!(report["summary"]["fields_unexplained"], 0);
    assert_eq!(sfnic(&["trace", "diff", &out, &log]).status.code(), Some(0));
    assert_eq!(sfnic(&["trace", "replay", &log, "--profile", &profile]).status.code(), Some(0));
    // A trace whose writer was killed.
    let raw = std::fs::read(&out).unwrap();
    let cut = at(dir.path(), "cut", &raw[..raw.len() / 2 + 1]);
    refused(&["trace", "show", &cut, "--opcode", "NOP"], &[&cut, "was cut off within the record", "--partial"]);
    let told = sfnic(&["trace", "show", &cut, "--opcode", "NOP", "--partial"]);
    assert!(told.status.success() && String::from_utf8_lossy(&told.stderr).contains("was cut off within the record"));
}

/// A log that was cut off anywhere but between two dumps says so.
#[test]
fn a_log_that_was_cut_off_is_not_taken_for_a_whole_one() {
    let cut = |log: &str| import::parse(log.as_bytes()).unwrap().cut;
    for form in [Form::Whole, Form::Old] {
        let log = as_log(&recording(), form);
        assert_eq!(cut(&log), None);
        let lines: Vec<&str> = log.split_inclusive('\n').collect();
        for n in (lines.len() / 2..lines.len()).step_by(1499) {
            let head = lines[n].contains("dump command");
            let before = lines[..n].concat();
            assert_eq!(cut(&before).is_some(), !head, "{before}");
            // In the middle of a line.
            assert_eq!(cut(&format!("{before}{}", &lines[n][..lines[n].len() / 2])).is_some(), !head, "{before}");
        }
    }
    // The commands alone: nothing but the kernel's mark says where a dump ends.
    let line = |text: &str| format!("[    1.0] mlx5_core 0000:01:00.0: dump_command:8:(pid 9): cmd[0]: {text}\n");
    let row = "[    1.0] cmd[0]: 000: 010a0000 00000000 00000000 00000000\n";
    let whole = line("start dump") + &line("dump command data QUERY_ISSI(0x10a) INPUT") + row + &line("end dump");
    assert_eq!(cut(&whole), None);
    let part = whole.clone() + &line("start dump") + &line("dump command data QUERY_ISSI(0x10a) OUTPUT");
    assert_eq!(cut(&part).as_deref(), Some("within a dump of QUERY_ISSI(0x10a), OUTPUT"));
    assert!(cut(&(part.clone() + row)).is_some() && cut(&(part.clone() + &row[..40])).is_some());
    assert_eq!(cut(&(part + row + &line("end dump"))), None);
    // Without the marks a whole row may be the last one.
    let old = line("dump command data QUERY_ISSI(0x10a) INPUT") + row.trim_end();
    assert_eq!(cut(&old), None);
    assert!(cut(&(old + "\n" + &row[..40])).is_some());
}

#[test]
fn bad_input_is_one_line_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = at(dir.path(), "foreign", b"[    0.000000] Linux version\nhello\n");
    let cut = at(
        dir.path(),
        "cut",
        b"mlx5_core 0000:01:00.0: dump_command:1:(pid 1): cmd[0]: dump command QUERY_ISSI(0x10a) INPUT\ncmd[0]: 000: 07000000 00000010 00000000 00000000\n",
    );
    let output = dir.path().join("out").to_str().unwrap().to_owned();
    for file in ["/nonexistent", "/", &foreign, &cut] {
        for words in [&["trace", "show"][..], &["trace", "replay"], &["trace", "diff", &foreign]] {
            let args: Vec<&str> = words.iter().copied().chain([file]).collect();
            refused(&args, &[if words[1] == "diff" { foreign.as_str() } else { file }]);
        }
        refused(&["trace", "import", file, "--output", &output], &[file]);
        refused(&["profile", "import", file, "--output", &output], &[file]);
    }
    // A log without capabilities.
    let mut t = recording();
    t.entries.retain(|e| !matches!(&e.what, What::Command(c) if c.opcode().0 == 0x100));
    let none = at(dir.path(), "none", as_log(&t, Form::Data).as_bytes());
    refused(&["profile", "import", &none, "--output", &output], &["QUERY_HCA_CAP"]);
    refused(&["trace", "replay", &none, "--profile", "connectx9"], &["--profile", "connectx9", "connectx6dx"]);
    refused(&["trace", "show", &none, "--opcode", "FLY"], &["--opcode", "FLY", "0x104"]);
    refused(&["trace", "show", &none, "--function", "x"], &["--function", "pf0"]);
    refused(&["trace", "import", &none, "--output", "/nonexistent/x"], &["--output", "/nonexistent/x"]);
    refused(&["run", "--trace", "/nonexistent/x"], &["--trace", "/nonexistent/x"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing was written");
}
