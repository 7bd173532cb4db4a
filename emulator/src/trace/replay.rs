//! A trace's inputs given to a fresh device, and how its answers differ.
//!
//! The device is this program's model in this process, with memory of its own
//! where the log's driver had some. Handles in inputs are those that the model
//! returned for the log's. A field that differs is explained by the *profile*
//! where the card has a capability that the model has not, or by *chance*
//! where two devices rightly differ: handles, counters of traffic, what only
//! one card is called. Chance is checked against the rest of the log: a handle
//! must be the one that the driver uses, a counter never goes back. A log of
//! this model itself has nothing of either beyond handles and traffic.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use sfnic_device_model::cmd::fields::{Side, bits, walk};
use sfnic_device_model::cmd::table;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::{CardConfig, Nic};
use sfnic_device_model::packet::Frame;
use sfnic_device_model::world::{Clock, Waker, Wire};
use sfnic_firmware_cmds::layout::View;
use sfnic_firmware_cmds::layouts::{EnableHcaIn, ManagePagesIn};
use sfnic_firmware_cmds::opcode::Opcode;
use sfnic_firmware_cmds::profile::Profile;

use super::counters::{self, Counters};
use super::file::{Command, Entry, What};
use super::handles::{self, Witness, Witnesses};
use super::{Trace, guess, memory, text};

/// Why a field or a status rightly differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Explanation {
    /// A capability that one of the two has not.
    Profile,
    /// A handle, an address, a counter, a name.
    Chance,
}

/// A field that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Field {
    /// Its name.
    pub field: String,
    /// The log's value.
    pub log: String,
    /// The model's.
    pub model: String,
    /// What explains it, if anything does.
    pub explanation: Option<Explanation>,
    /// In words.
    pub why: &'static str,
}

/// A status that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Statuses {
    /// The log's.
    pub log: u8,
    /// The model's.
    pub model: u8,
    /// The model's syndrome.
    pub model_syndrome: u32,
    /// What explains it, if anything does.
    pub explanation: Option<Explanation>,
    /// In words.
    pub why: &'static str,
}

/// A command whose answers differ.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// Its place among the commands.
    pub index: usize,
    /// The log's time.
    pub time_ns: u64,
    /// Number of the card.
    pub card: u8,
    /// Function of the card.
    pub function: u16,
    /// The opcode.
    pub opcode: u16,
    /// Its name.
    pub name: Option<&'static str>,
    /// The operation modifier.
    pub op_mod: u16,
    /// The statuses, where they differ.
    pub status: Option<Statuses>,
    /// The fields that differ.
    pub fields: Vec<Field>,
}

/// The whole in numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Commands that have an answer.
    pub commands: usize,
    /// Those with the log's status.
    pub same_status: usize,
    /// In percent.
    pub same_status_percent: f64,
    /// Other statuses that the profile explains.
    pub status_explained: usize,
    /// Other statuses that nothing explains.
    pub status_unexplained: usize,
    /// Output fields that were compared.
    pub fields_compared: usize,
    /// Those that are the same.
    pub fields_same: usize,
    /// Those that the profile explains.
    pub fields_profile: usize,
    /// Those that chance explains.
    pub fields_chance: usize,
    /// Those that nothing explains.
    pub fields_unexplained: usize,
    /// Statuses and fields that nothing explains.
    pub reports: usize,
    /// Commands without an answer, or never delivered: not compared.
    pub not_compared: usize,
    /// The log is of this model with this profile.
    pub same_make: bool,
    /// What is missing in the log.
    pub notes: Vec<String>,
}

/// What came of a replay.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In numbers.
    pub summary: Summary,
    /// The commands that differ.
    pub commands: Vec<Compared>,
}

/// A status in words.
pub fn status_name(status: u8) -> String {
    let name = match status {
        0x00 => "OK",
        0x01 => "INTERNAL_ERR",
        0x02 => "BAD_OP",
        0x03 => "BAD_PARAM",
        0x04 => "BAD_SYS_STATE",
        0x05 => "BAD_RES",
        0x06 => "RES_BUSY",
        0x07 => "NOT_READY",
        0x08 => "LIM",
        0x09 => "BAD_RES_STATE",
        0x0a => "BAD_INDEX",
        0x0f => "NO_RESOURCES",
        0x10 => "BAD_QP_STATE",
        0x50 => "BAD_INPUT_LEN",
        0x51 => "BAD_OUTPUT_LEN",
        _ => return format!("status {status:#x}"),
    };
    format!("{name}({status:#x})")
}

/// Time stands still.
struct NoTime;
impl Clock for NoTime {
    fn now_ns(&self) -> u64 {
        0
    }
}
struct NoWork;
impl Waker for NoWork {
    fn wake(&self) {}
}
/// A port with a link and nobody there.
struct Silence;
impl Wire for Silence {
    fn transmit(&self, _: &Frame<'_>) -> bool {
        true
    }
}

/// A difference before it is explained.
struct Raw {
    command: usize,
    path: String,
    of: &'static str,
    name: &'static str,
    declared: bool,
    log: String,
    model: String,
    log_number: Option<u64>,
    handle: Option<Handle>,
}

/// What a handle's difference comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handle {
    /// The driver uses it.
    Confirmed,
    /// Nothing says so.
    Unconfirmed,
    /// The log says otherwise.
    Wrong,
}

/// Replays a trace. `cards` is the device where the user says what it is.
pub fn replay(trace: &Trace, profile: Profile, cards: Option<Vec<CardConfig>>) -> Report {
    // What a log asks for in vain is in the report.
    let quiet = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(quiet, || Replay::new(trace, profile, cards).run())
}

struct Replay<'a> {
    trace: &'a Trace,
    nic: Arc<Nic>,
    map: handles::Map,
    witnesses: Witnesses,
    raw: Vec<Raw>,
    compared: BTreeMap<usize, Compared>,
    summary: Summary,
    /// Fields that are not zero in both, and those of them that are the same.
    weight: (usize, usize),
    counters: Counters,
}

impl<'a> Replay<'a> {
    fn new(trace: &'a Trace, profile: Profile, cards: Option<Vec<CardConfig>>) -> Self {
        let mut cards = cards.unwrap_or_else(|| guess::cards(trace));
        let count = cards.len();
        for (i, c) in cards.iter_mut().enumerate() {
            c.far = match &c.far {
                Far::Port(to) if *to < count && *to != i => Far::Port(*to),
                Far::Loopback => Far::Loopback,
                Far::None => Far::None,
                _ => Far::Outside(Arc::new(Silence)),
            };
        }
        let nic = Nic::new(profile, cards, Arc::new(NoTime), Arc::new(NoWork));
        nic.update_links();
        for (card, map) in nic.cards.iter().zip(memory::maps(trace, nic.cards.len())) {
            card.dma.replace(Arc::new(map));
        }
        Self {
            trace,
            nic,
            map: handles::Map::default(),
            witnesses: Witnesses::read(trace.commands()),
            raw: vec![],
            compared: BTreeMap::new(),
            summary: Summary { notes: trace.notes.clone(), ..Summary::default() },
            weight: (0, 0),
            counters: Counters::read(trace),
        }
    }

    fn run(mut self) -> Report {
        let mut begun: BTreeMap<(u8, u16), Opcode> = BTreeMap::new();
        let mut n = 0;
        let trace = self.trace;
        for e in &trace.entries {
            match &e.what {
                What::Command(c) => {
                    begun.entry((e.card, e.function)).or_insert(c.opcode());
                    self.command(n, e, c);
                    n += 1;
                }
                What::Reset => {
                    if let Some(card) = self.nic.cards.get(usize::from(e.card)) {
                        self.nic.reset(card);
                    }
                }
                // The driver switches the interface off without a command.
                What::Write(0x14, data) if data.len() == 4 && data[2] & 3 != 0 => self.disable(e, data),
                _ => {}
            }
        }
        for ((card, function), first) in begun {
            if first != Opcode::ENABLE_HCA {
                self.summary.notes.push(format!(
                    "{} begins in the middle, with {first} instead of ENABLE_HCA: what came before is not in the \
                     model, and its commands will differ",
                    text::place(card, function)
                ));
            }
        }
        self.explain();
        let s = &mut self.summary;
        s.reports = s.status_unexplained + s.fields_unexplained;
        s.same_status_percent = match s.commands {
            0 => 100.0,
            n => s.same_status as f64 * 100.0 / n as f64,
        };
        Report { summary: self.summary, commands: self.compared.into_values().collect() }
    }

    fn disable(&self, e: &Entry, data: &[u8]) {
        let Some(card) = self.nic.cards.get(usize::from(e.card)) else { return };
        let base = card.config.sf_base;
        if e.function == 0 {
            self.nic.bar_write(card, 0, 0x14, data);
        } else if let Some(index) = e.function.checked_sub(base) {
            self.nic.bar_write(card, 2, (u64::from(index) << card.config.log_sf_window) + 0x14, data);
        }
    }

    fn command(&mut self, n: usize, e: &Entry, c: &Command) {
        let (input, theirs) = (c.input(), c.output());
        let nic = self.nic.clone();
        let Some(card) = nic.cards.get(usize::from(e.card)) else {
            self.summary.not_compared += 1;
            return;
        };
        if c.delivery != 0 {
            self.summary.not_compared += 1;
            return;
        }
        let least = table::find(c.opcode()).map_or(16, |r| r.output.size());
        let len = match (c.answered, c.rounded) {
            (true, false) => theirs.len(),
            (true, true) => theirs.len().max(least),
            (false, _) => least,
        };
        // A function that is enabled anew was reset in between, which no log shows.
        let own = View::<EnableHcaIn>::new(&input).get(EnableHcaIn::function_id) == 0;
        if c.opcode() == Opcode::ENABLE_HCA && own && e.function == 0 && c.status() == 0 {
            let enabled = card.control.lock().functions.get(&0).is_some_and(|f| f.enabled);
            if enabled {
                nic.reset(card);
            }
        }
        let ours = nic.command(card, e.function, &self.map.translate(e, &input), len);
        if c.answered {
            self.compare(n, e, c, &input, &theirs, &ours);
        } else {
            self.summary.not_compared += 1;
        }
        self.map.executed(e, c.opcode(), &input);
    }

    fn compare(&mut self, n: usize, e: &Entry, c: &Command, input: &[u8], theirs: &[u8], ours: &[u8]) {
        self.summary.commands += 1;
        self.hand_out(n, e, c, input, theirs, ours);
        if theirs[0] != ours[0] {
            self.at(n, e, c).status = Some(Statuses {
                log: theirs[0],
                model: ours[0],
                model_syndrome: bits(ours, 32, 32) as u32,
                explanation: None,
                why: "",
            });
            return;
        }
        self.summary.same_status += 1;
        let refused = theirs[0] != 0;
        let end = theirs.len().min(ours.len()) * 8;
        let mut raw = vec![];
        let (mut compared, mut same) = (0, 0);
        let mut weight = self.weight;
        walk(input, Side::Output, theirs, |leaf, theirs| {
            if leaf.bit + leaf.width > end || leaf.path == "status" || refused && leaf.path != "syndrome" {
                return;
            }
            compared += usize::from(leaf.declared);
            let (log, log_number) = text::value(leaf, theirs);
            let (model, model_number) = text::value(leaf, ours);
            if leaf.declared && log_number.is_none_or(|n| n != 0) {
                weight = (weight.0 + 1, weight.1 + usize::from(log == model));
            }
            if log == model {
                same += usize::from(leaf.declared);
                return;
            }
            let scope = handles::scope(e, input, theirs, leaf);
            let out = handles::hands_out(c.opcode());
            let handle = match (scope, log_number, model_number) {
                (Some(scope), Some(log), Some(model)) if !out => {
                    if self.map.ours(scope, log) == model {
                        same += 1;
                        return;
                    }
                    None
                }
                (Some(scope), Some(log), Some(model)) => Some((scope, leaf.bit, log, model)),
                _ => None,
            };
            let (path, of, name, declared) = (leaf.path.to_owned(), leaf.of, leaf.name, leaf.declared);
            raw.push((Raw { command: n, path, of, name, declared, log, model, log_number, handle: None }, handle));
        });
        self.weight = weight;
        self.summary.fields_compared += compared;
        self.summary.fields_same += same;
        for (mut r, handle) in raw {
            r.handle = handle.map(|(scope, bit, _, model)| match self.witnesses.of(n, bit) {
                Witness::Used => Handle::Confirmed,
                Witness::Taken => Handle::Wrong,
                Witness::Unused => match self.witnesses.instead(scope, n, model) {
                    Some(used) => {
                        self.map.learn(c.opcode(), input, scope, used, model);
                        Handle::Wrong
                    }
                    None => Handle::Unconfirmed,
                },
            });
            self.at(n, e, c);
            self.raw.push(r);
        }
    }

    /// Which of our handles stands for the log's.
    fn hand_out(&mut self, n: usize, e: &Entry, c: &Command, input: &[u8], theirs: &[u8], ours: &[u8]) {
        if !handles::hands_out(c.opcode()) || ours[0] != 0 {
            return;
        }
        for h in handles::find(e, input, Side::Output, theirs) {
            let mine = bits(ours, h.bit, h.width);
            // What another one has stays that one's.
            if h.value == mine || self.witnesses.of(n, h.bit) == Witness::Used {
                self.map.learn(c.opcode(), input, h.scope, h.value, mine);
            }
        }
    }

    fn at(&mut self, n: usize, e: &Entry, c: &Command) -> &mut Compared {
        self.compared.entry(n).or_insert_with(|| Compared {
            index: n,
            time_ns: e.time_ns,
            card: e.card,
            function: e.function,
            opcode: c.opcode().0,
            name: c.opcode().name(),
            op_mod: c.op_mod(),
            status: None,
            fields: vec![],
        })
    }

    /// Says of every difference what explains it.
    fn explain(&mut self) {
        // A device of another make differs in most of what it says of itself.
        let (weighed, alike) = self.weight;
        let same_make = weighed == 0 || alike * 10 >= weighed * 9;
        self.summary.same_make = same_make;
        let commands: Vec<(&Entry, &Command)> = self.trace.commands().collect();
        let others_differ = self.raw.iter().any(|r| r.handle == Some(Handle::Confirmed));
        for r in std::mem::take(&mut self.raw) {
            let (e, c) = commands[r.command];
            let (explanation, why) = self.field(&r, e, c, same_make, others_differ);
            let s = &mut self.summary;
            match explanation {
                Some(Explanation::Profile) => s.fields_profile += 1,
                Some(Explanation::Chance) => s.fields_chance += 1,
                None => s.fields_unexplained += 1,
            }
            if let Some(at) = self.compared.get_mut(&r.command) {
                at.fields.push(Field { field: r.path, log: r.log, model: r.model, explanation, why });
            }
        }
        for at in self.compared.values_mut() {
            let Some(s) = &mut at.status else { continue };
            let c = commands[at.index].1;
            (s.explanation, s.why) = status(c, s, same_make);
            match s.explanation {
                Some(_) => self.summary.status_explained += 1,
                None => self.summary.status_unexplained += 1,
            }
        }
    }

    fn field(
        &self,
        r: &Raw,
        e: &Entry,
        c: &Command,
        same_make: bool,
        others_differ: bool,
    ) -> (Option<Explanation>, &'static str) {
        use Explanation::{Chance, Profile};
        match r.handle {
            Some(Handle::Confirmed) => return (Some(Chance), "a handle, the one that the driver uses"),
            Some(Handle::Wrong) => return (None, "a handle, but not the one that the driver uses"),
            Some(Handle::Unconfirmed) if others_differ => {
                return (Some(Chance), "a handle that is never used; others differ too");
            }
            Some(Handle::Unconfirmed) => return (None, "a handle that is never used, where all others are the same"),
            None => {}
        }
        if r.name.starts_with("time_since_") {
            return (Some(Chance), "a time");
        }
        if counters::is_counter(c.opcode(), r.of, &r.path) {
            let sound = r.log_number.is_some_and(|v| self.counters.sound(e, c, (&r.path, r.name), v, same_make));
            return match sound {
                true => (Some(Chance), "a counter of traffic"),
                false => (None, "a counter that does not go with the rest of the log"),
            };
        }
        if same_make {
            return (None, if r.declared { "" } else { "bits that no field covers" });
        }
        match (c.opcode(), r.of, r.name) {
            (Opcode::QUERY_HCA_CAP | Opcode::SET_HCA_CAP, ..) => (Some(Profile), "a capability"),
            (Opcode::QUERY_PAGES, ..) => (Some(Profile), "the model wants no pages (page_request_disable)"),
            (Opcode::QUERY_ISSI, _, "supported_issi_dw0") => (Some(Profile), "interface steps"),
            (Opcode::QUERY_ADAPTER, ..) => (Some(Chance), "what the card is called"),
            (Opcode::QUERY_SPECIAL_CONTEXTS, ..) => (Some(Chance), "reserved keys"),
            (_, _, "syndrome") => (Some(Chance), "syndromes are each firmware's own"),
            (_, _, n) if n.starts_with("icm_address") => (Some(Chance), "an address in the device"),
            (_, _, n) if n.ends_with("_guid") || n.starts_with("mac_addr") => (Some(Chance), "an address of the card"),
            (Opcode::QUERY_VPORT_STATE, _, "state" | "max_tx_speed") => (Some(Chance), "the link"),
            (_, "mcam_reg" | "mcam_access_reg" | "mcam_enhanced_features", _) => (Some(Profile), "a register"),
            (_, "mcqi_version" | "mcqi_reg" | "mcqs_reg", _) => (Some(Chance), "the firmware's version"),
            (_, "ptys_reg" | "paos_reg" | "pmlp_reg" | "pddr_reg" | "mcia_reg" | "lane_2_module_mapping", _) => {
                (Some(Chance), "the port and what is plugged in")
            }
            _ => (None, if r.declared { "" } else { "bits that no field covers" }),
        }
    }
}

fn status(c: &Command, s: &Statuses, same_make: bool) -> (Option<Explanation>, &'static str) {
    const GIVE: u32 = 1;
    let input = c.input();
    match c.opcode() {
        _ if same_make => (None, ""),
        op if table::find(op).is_none() => (Some(Explanation::Profile), "a command that the model does not offer"),
        Opcode::MANAGE_PAGES if View::<ManagePagesIn>::new(&input).get(ManagePagesIn::op_mod) == GIVE => {
            (Some(Explanation::Profile), "the model wants no pages (page_request_disable)")
        }
        Opcode::QUERY_HCA_CAP if s.log == 0 => (Some(Explanation::Profile), "a group of capabilities"),
        Opcode::ACCESS_REG if s.log == 0 => (Some(Explanation::Profile), "a register that the model does not offer"),
        _ => (None, ""),
    }
}
