//! The configuration of a device: a TOML file, or the defaults.
//!
//! ```toml
//! profile = "connectx6dx"     # or the path of a profile file
//! caps = ["striding_rq=1"]    # single capabilities that differ from the profile's
//! workers = 1                 # threads that move frames, 0 to 8
//! eswitch = "host"            # who manages it: "host", "embedded" (sfnic ctl), or "none"
//! handle = "pci/0000:06:00.0" # the device's name for sfnic ctl
//! faults = ["fail CREATE_CQ nth=3"]  # see `sfnic ctl fault add --help`
//! capture = ["all.pcapng,port=uplink0"]  # as --capture
//! noise = 7                   # fill bits that mean nothing with noise from this seed
//!
//! [[pf]]                      # one section a physical function, 1 to 4; two by default
//! mac = "52:54:00:5f:00:00"
//! vectors = 64                # MSI-X vectors, shared with its SFs
//! max_sfs = 64
//! sf_window = "256K"          # or log_sf_window = 18
//! sf_base = 0x8000            # function id of the first SF
//! wire = "cable"              # see [`WIRES`]
//! speed = "25G"               # what drivers are told: 10G, 25G, 40G, 50G or 100G
//! impair = "delay=5ms loss=0.01"  # what the wire does to frames; or { in = "…", out = "…" }
//!
//! [[switch]]                  # of a wire = "switch:lan"; only where it is to have more
//! name = "lan"
//! wires = ["tap:lan0"]        # further ports
//! ageing = 300                # seconds that it remembers a silent station
//!
//! [[slice]]                   # a slice that is there from the beginning
//! flavour = "passthrough"     # a virtual function of another guest, "virtio", or "pcisf"
//! pf = 0
//! number = 88                 # sfnum: where the host manages the eswitch, of the SF it adds
//! index = 100
//! hw_addr = "52:54:00:5f:00:88"
//! state = "active"            # or "inactive"
//! socket = "PATH"             # where its guest finds it; default: slice100.sock beside pf0's
//! vectors = 16                # MSI-X vectors of a passthrough slice
//! ```
//!
//! Everything may be left out. An error is one line that names the file, the key, the
//! value and what is allowed.

mod mac;
mod slice;
mod wires;

use std::path::Path;

use sfnic_device_model::fabric::impair::Impairment;
use sfnic_device_model::faults::Fault;
use sfnic_device_model::nic::{CardConfig, Manager};
use sfnic_device_model::pci::MSIX_MAX;
use sfnic_firmware_cmds::profile::{Profile, ProfileError};
use toml::{Table, Value};

use crate::board::{Begin, BoardConfig, DoorbellMode, WireKind};
use crate::control::DEFAULT_HANDLE;
pub use crate::wire::spec::WIRES;
use mac::Mac;
pub use slice::{SliceConfig, socket_name};
use wires::Port;
pub use wires::SwitchConfig;

/// The profile that is used when none is named.
pub const DEFAULT_PROFILE: &str = "connectx6dx";

/// Most physical functions of a device.
const MAX_PFS: usize = 4;
/// Most threads that move frames.
const MAX_WORKERS: i64 = 8;
/// log2 of the smallest and the largest window of an SF, in bytes.
const LOG_WINDOW: (i64, i64) = (14, 24);
/// Function ids that an SF may have: those below belong to others, the highest is the
/// uplink's.
const SF_BASE: (i64, i64) = (0x100, 0xf000);
/// Most SFs of a physical function.
const MAX_SFS: i64 = 256;
const TOP_KEYS: &[&str] = &[
    "profile",
    "caps",
    "workers",
    "doorbells",
    "eswitch",
    "handle",
    "noise",
    "faults",
    "capture",
    "switch",
    "pf",
    "slice",
];
const PF_KEYS: &[&str] =
    &["mac", "vectors", "max_sfs", "log_sf_window", "sf_window", "sf_base", "wire", "speed", "impair"];

/// A device.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the cards are modelled on.
    pub profile: Profile,
    /// Threads that move frames (0: the threads that serve the sockets do it).
    pub workers: usize,
    /// How doorbells come; polled ones need a worker.
    pub doorbells: DoorbellMode,
    /// The device's name for `sfnic ctl`.
    pub handle: String,
    /// Fills bits that mean nothing with noise from this seed.
    pub noise: Option<u64>,
    /// What it does wrong on purpose, from the beginning.
    pub faults: Vec<Fault>,
    /// What is captured, from the beginning.
    pub captures: Vec<crate::capture::Spec>,
    /// Switches that ports are at.
    pub switches: Vec<SwitchConfig>,
    /// Physical functions, by number.
    pub pfs: Vec<PfConfig>,
    /// Slices that are there from the beginning.
    pub slices: Vec<SliceConfig>,
    /// The state that it begins in, of the command line's.
    pub begin: Begin,
}

/// A physical function.
#[derive(Debug, Clone)]
pub struct PfConfig {
    /// What it is made of; its far end follows from `wire`.
    pub card: CardConfig,
    /// What its port is connected to.
    pub wire: WireKind,
    /// What that does to frames that come in, and to those that go out.
    pub impair: [Impairment; 2],
}

/// Why a configuration cannot be used: one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct ConfigError {
    /// The file's path.
    pub(crate) file: String,
    /// What is wrong in it, and what is allowed.
    pub(crate) problem: String,
}

impl Default for Config {
    /// Two physical functions whose ports a cable joins.
    fn default() -> Self {
        let read = read("", "the defaults", None);
        #[allow(clippy::expect_used, reason = "an invariant of the program, held by a test")]
        read.expect("the defaults are valid")
    }
}

impl Config {
    /// Reads a file; without one, the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let Some(path) = path else { return Ok(Config::default()) };
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError { file: file.clone(), problem: format!("cannot read it: {e}") })?;
        read(&text, &file, path.parent())
    }

    /// What the device is built from.
    pub fn into_board(self) -> BoardConfig {
        let impair = self.pfs.iter().map(|pf| pf.impair).collect();
        let (cards, wires) = self.pfs.into_iter().map(|pf| (pf.card, pf.wire)).unzip();
        BoardConfig {
            profile: self.profile,
            cards,
            wires,
            impair,
            switches: self.switches,
            workers: self.workers,
            doorbells: self.doorbells,
            noise: self.noise,
            faults: self.faults,
            slices: self.slices,
            begin: self.begin,
        }
    }
}

/// A profile by built-in name, or from a file: what has a slash or ends in `.toml`. A
/// relative path starts at `base`.
///
/// # Errors
/// One line, without the name.
pub fn profile(name: &str, base: Option<&Path>) -> Result<Profile, String> {
    let parsed = if name.contains('/') || name.ends_with(".toml") {
        let path = base.map_or_else(|| name.into(), |base| base.join(name));
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read it: {e}"))?;
        Profile::parse(&text)
    } else {
        Profile::builtin(name)
    };
    parsed.map_err(|e| match e {
        ProfileError::Syntax(e) => e.message().lines().collect::<Vec<_>>().join("; "),
        ProfileError::Unknown(_) => format!("allowed is {DEFAULT_PROFILE} or the path of a profile (FILE.toml)"),
        other => other.to_string(),
    })
}

fn read(text: &str, file: &str, base: Option<&Path>) -> Result<Config, ConfigError> {
    let fail = |problem| ConfigError { file: file.to_owned(), problem };
    let table = table(text).map_err(fail)?;
    parse(&table, base).map_err(fail)
}

/// The tables of a text.
pub(crate) fn table(text: &str) -> Parsed<Table> {
    toml::from_str(text).map_err(|e| syntax(&e, text))
}

/// A syntax error with its line.
fn syntax(e: &toml::de::Error, text: &str) -> String {
    let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let message: Vec<&str> = e.message().lines().map(str::trim).collect();
    format!("line {}: {}", before.matches('\n').count() + 1, message.join("; "))
}

pub(crate) type Parsed<T> = Result<T, String>;

/// A device from its table.
pub(crate) fn parse(table: &Table, base: Option<&Path>) -> Parsed<Config> {
    let top = Section { at: String::new(), table };
    top.only(TOP_KEYS)?;
    let name = top.text("profile", "a name or a path in quotes")?.unwrap_or(DEFAULT_PROFILE);
    let mut profile = profile(name, base).map_err(|why| format!("profile = {name:?}: {why}"))?;
    for (n, cap) in top.texts("caps", "a list of capabilities in quotes")?.into_iter().enumerate() {
        profile.set(cap).map_err(|why| format!("caps[{n}]: {why}"))?;
    }
    let workers = top.number("workers", (0, MAX_WORKERS))?.unwrap_or(1);
    let doorbells = match top.text("doorbells", "\"trap\" or \"poll\"")? {
        None => DoorbellMode::default(),
        Some(word) => {
            word.parse().and_then(|mode| doorbells_of(mode, workers > 0)).map_err(|why| format!("doorbells: {why}"))?
        }
    };
    let manager = top.manager()?;
    let handle = top.handle()?;
    let noise = top.number("noise", (0, i64::MAX))?.map(|n| n as u64);
    let faults = top.faults()?;
    let nothing = Table::new();
    let sections: Vec<&Table> = match table.get("pf") {
        None => vec![&nothing; 2],
        Some(value) => {
            let wrong = || refuse("pf", value, &format!("1 to {MAX_PFS} sections [[pf]]"));
            let list = value.as_array().filter(|l| (1..=MAX_PFS).contains(&l.len())).ok_or_else(wrong)?;
            list.iter().map(|v| v.as_table().ok_or_else(wrong)).collect::<Parsed<_>>()?
        }
    };
    let sections = sections.into_iter().enumerate().map(|(i, table)| Section { at: format!("pf[{i}]."), table });
    let sections: Vec<Section<'_>> = sections.collect();
    let mut pfs = Vec::new();
    let mut wires = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        section.only(PF_KEYS)?;
        let port = Port::read(section)?;
        wires.push(port.wire);
        let card = section.card(index)?;
        let card = CardConfig { manager, speed: port.speed.unwrap_or(card.speed), ..card };
        pfs.push(PfConfig { card, wire: WireKind::None, impair: port.impair });
    }
    // A cable is what two ports get when nobody says otherwise.
    let pair = wires.len() == 2 && wires.iter().all(|w| matches!(w, None | Some(WireKind::Cable)));
    for (index, (pf, wire)) in pfs.iter_mut().zip(wires).enumerate() {
        if wire == Some(WireKind::Cable) && !pair {
            return Err(format!("pf[{index}].wire = \"cable\": allowed with exactly two [[pf]] that both have it"));
        }
        pf.wire = wire.unwrap_or(if pair { WireKind::Cable } else { WireKind::None });
    }
    distinct(&pfs)?;
    let switches = wires::switches(table, &pfs)?;
    let captures = wires::captures(&top)?;
    if let Some((n, pf)) = faults.iter().enumerate().find_map(|(n, f)| Some((n, f.pf.filter(|pf| *pf >= pfs.len())?))) {
        return Err(format!("faults[{n}]: pf = \"{pf}\": allowed is 0 to {}", pfs.len().saturating_sub(1)));
    }
    let slices = slices(table, &pfs, base)?;
    Ok(Config {
        profile,
        workers: usize::try_from(workers).unwrap_or_default(),
        doorbells,
        handle,
        noise,
        faults,
        captures,
        begin: Begin::PowerOn,
        switches,
        pfs,
        slices,
    })
}

/// Doorbells as they are wanted.
///
/// # Errors
/// Nobody would poll them.
pub fn doorbells_of(mode: DoorbellMode, workers: bool) -> Result<DoorbellMode, String> {
    match mode {
        DoorbellMode::Poll if !workers => Err("poll: allowed with workers = 1 or more, which do it".to_owned()),
        mode => Ok(mode),
    }
}

impl std::str::FromStr for DoorbellMode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "trap" => Ok(Self::Trap),
            "poll" => Ok(Self::Poll),
            other => Err(format!("{other:?}: allowed is trap or poll")),
        }
    }
}

/// Slices that are there from the beginning.
fn slices(table: &Table, pfs: &[PfConfig], base: Option<&Path>) -> Parsed<Vec<SliceConfig>> {
    let Some(value) = table.get("slice") else { return Ok(vec![]) };
    let wrong = || refuse("slice", value, &format!("up to {} sections [[slice]]", slice::MOST));
    let mut slices = vec![];
    for (i, value) in value.as_array().filter(|l| l.len() <= slice::MOST).ok_or_else(wrong)?.iter().enumerate() {
        let section = Section { at: format!("slice[{i}]."), table: value.as_table().ok_or_else(wrong)? };
        slices.push(slice::parse(&section, pfs, &slices, base)?);
    }
    Ok(slices)
}

/// Two ports with one address, or one TAP interface, would not work.
fn distinct(pfs: &[PfConfig]) -> Parsed<()> {
    for (index, pf) in pfs.iter().enumerate() {
        for (other, earlier) in pfs[..index].iter().enumerate() {
            if pf.card.mac == earlier.card.mac {
                let mac = Mac(pf.card.mac);
                return Err(format!(
                    "pf[{index}].mac = \"{mac}\": allowed is an address that pf[{other}] does not have"
                ));
            }
            if pf.wire.excludes(&earlier.wire) {
                return Err(format!("pf[{index}].wire: allowed is a wire that pf[{other}] does not have"));
            }
        }
    }
    Ok(())
}

/// A table of the file and where it stands.
pub(crate) struct Section<'a> {
    /// What its keys begin with in messages.
    pub(crate) at: String,
    pub(crate) table: &'a Table,
}

impl<'a> Section<'a> {
    pub(crate) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.at)
    }

    /// Refuses keys that do not exist.
    pub(crate) fn only(&self, known: &[&str]) -> Parsed<()> {
        match self.table.iter().find(|(k, _)| !known.contains(&k.as_str())) {
            Some((k, v)) => Err(format!("{} = {}: no such key; there is {}", self.key(k), short(v), known.join(", "))),
            None => Ok(()),
        }
    }

    pub(crate) fn text(&self, key: &str, allowed: &str) -> Parsed<Option<&'a str>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| refuse(&self.key(key), value, allowed))
    }

    pub(crate) fn number(&self, key: &str, (low, high): (i64, i64)) -> Parsed<Option<i64>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let fits = value.as_integer().filter(|n| (low..=high).contains(n));
        fits.map(Some).ok_or_else(|| refuse(&self.key(key), value, &format!("{low} to {high}")))
    }

    /// Who manages the eswitch.
    fn manager(&self) -> Parsed<Manager> {
        let allowed = "\"host\", \"embedded\" or \"none\"";
        Ok(match self.text("eswitch", allowed)? {
            None | Some("host") => Manager::Host,
            Some("embedded") => Manager::Embedded,
            Some("none") => Manager::None,
            Some(text) => return Err(format!("{} = {text:?}: allowed is {allowed}", self.key("eswitch"))),
        })
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str, allowed: &str) -> Parsed<Vec<&'a str>> {
        let Some(value) = self.table.get(key) else { return Ok(vec![]) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| refuse(&self.key(key), value, allowed))
    }

    fn faults(&self) -> Parsed<Vec<Fault>> {
        let texts = self.texts("faults", "a list of faults in quotes")?;
        let fault =
            |(n, text): (usize, &str)| text.parse().map_err(|why| format!("{}[{n}]: {why}", self.key("faults")));
        texts.into_iter().enumerate().map(fault).collect()
    }

    fn handle(&self) -> Parsed<String> {
        let allowed = "BUS/ADDRESS without spaces: \"pci/0000:06:00.0\"";
        let text = self.text("handle", allowed)?.unwrap_or(DEFAULT_HANDLE);
        let parts: Vec<&str> = text.split('/').collect();
        let fits = parts.len() == 2 && parts.iter().all(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_graphic()));
        if fits { Ok(text.to_owned()) } else { Err(format!("{} = {text:?}: allowed is {allowed}", self.key("handle"))) }
    }

    fn card(&self, index: usize) -> Parsed<CardConfig> {
        let mut card = CardConfig::default();
        let number = |n: i64| u16::try_from(n).unwrap_or_default();
        card.mac[5] = u8::try_from(index).unwrap_or_default();
        let allowed = "six pairs of hexadecimal digits, no multicast address: \"52:54:00:5f:00:00\"";
        if let Some(text) = self.text("mac", allowed)? {
            let unicast = Mac::parse(text).filter(|mac| *mac != [0; 6] && mac[0] & 1 == 0);
            card.mac = unicast.ok_or_else(|| format!("{} = {text:?}: allowed is {allowed}", self.key("mac")))?;
        }
        if let Some(n) = self.number("vectors", (1, MSIX_MAX.into()))? {
            card.vectors = number(n);
        }
        if let Some(n) = self.number("max_sfs", (0, MAX_SFS))? {
            card.max_sfs = number(n);
        }
        if let Some(log) = self.window()? {
            card.log_sf_window = log;
        }
        if let Some(value) = self.table.get("sf_base") {
            let fits = value.as_integer().filter(|n| (SF_BASE.0..=SF_BASE.1).contains(n));
            let allowed = format!("{:#x} to {:#x}", SF_BASE.0, SF_BASE.1);
            card.sf_base = fits.map(number).ok_or_else(|| refuse(&self.key("sf_base"), value, &allowed))?;
        }
        // The model's own judgement, should it be stricter.
        card.check().map_err(|why| format!("pf[{index}]: {why}"))?;
        Ok(card)
    }

    /// log2 of the bytes of an SF's window, from either key.
    fn window(&self) -> Parsed<Option<u32>> {
        let log = self.number("log_sf_window", LOG_WINDOW)?;
        let allowed = "a power of two from \"16K\" to \"16M\"";
        let text = self.text("sf_window", allowed)?;
        let (log, text) = match (log, text) {
            (log, None) => return Ok(log.and_then(|l| u32::try_from(l).ok())),
            (None, Some(text)) => (LOG_WINDOW, text),
            (Some(_), Some(text)) => {
                return Err(format!("{} = {text:?}: allowed without log_sf_window", self.key("sf_window")));
            }
        };
        let bytes = bytes(text).filter(|n| n.is_power_of_two()).map(|n| n.ilog2());
        let fits = bytes.filter(|n| (log.0..=log.1).contains(&i64::from(*n)));
        fits.map(Some).ok_or_else(|| format!("{} = {text:?}: allowed is {allowed}", self.key("sf_window")))
    }
}

/// `256K`, `1M`, or plain bytes.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let digits = digits.bytes().all(|c| c.is_ascii_digit()).then_some(digits)?;
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

pub(crate) fn refuse(key: &str, value: &Value, allowed: &str) -> String {
    format!("{key} = {}: allowed is {allowed}", short(value))
}

/// A value on one line, cut if it is long.
fn short(value: &Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        Value::String(s) => format!("{s:?}"),
        Value::Table(_) => "{…}".to_owned(),
        Value::Array(list) if list.is_empty() => "[]".to_owned(),
        Value::Array(list) => format!("[… {} values]", list.len()),
        other => other.to_string(),
    };
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
