//! The language of faults: what is done wrong, to whom, and when.
//!
//! ```text
//! fail CREATE_CQ nth=3 status=NO_RESOURCES syndrome=0x123456
//! delay any ms=200 p=0.1 seed=7
//! lose event COMMAND every=10 pf=0
//! reorder event any p=0.1 seed=3
//! hold detach pf=0 sfnum=4
//! lose pcie slice=100
//! drop frames pf=1 way=in p=0.05 seed=1
//! flap link pf=0 down=500 up=1000 times=3
//! ```

use std::fmt;
use std::str::FromStr;

use sfnic_firmware_cmds::entries::event;
use sfnic_firmware_cmds::{Opcode, Refusal, Status, Syndrome};

use crate::capture::Way;
use crate::slice::MAX_SFNUM;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// A command is refused instead of executed.
    FailCommand(Refusal),
    /// A command is executed so many nanoseconds later.
    DelayCommand(u64),
    /// A command is neither executed nor answered.
    LoseCommand,
    /// Objects of a kind run out at so many; of the opcode that makes them.
    Exhaust(usize),
    /// An event is not written to its queue.
    LoseEvent,
    /// An event is written twice.
    DuplicateEvent,
    /// An event changes places with the next one of its queue; alone, it is
    /// written so many nanoseconds later.
    ReorderEvent(u64),
    /// A completion is not written to its queue.
    LoseCompletion,
    /// An interrupt is not raised.
    LoseInterrupt,
    /// The health counter stands still.
    StopHealth,
    /// The health buffer tells of an error.
    Health {
        /// `synd`.
        syndrome: u8,
        /// `ext_synd`.
        extended: u16,
        /// Severity, where it is valid.
        severity: Option<u8>,
        /// The firmware asks for a reset.
        rfr: bool,
    },
    /// A frame on the wire is lost.
    DropFrame,
    /// A bit of a frame on the wire, behind its addresses, is another one.
    CorruptFrame,
    /// A frame on the wire arrives so many nanoseconds later.
    DelayFrame(u64),
    /// No access to guest memory succeeds.
    LoseDma,
    /// The function is gone from its bus: reads are ones, writes are lost, and
    /// it reaches no memory. When it comes back it has been reset.
    LosePcie,
    /// The function is reset behind its driver's back, so many nanoseconds from
    /// now.
    Reset(u64),
    /// The host holds on to an SF that is taken back: it does not hear of it,
    /// and if its driver detaches all the same, we do not.
    HoldDetach,
    /// A port's carrier goes and comes back.
    FlapLink {
        /// How long it is gone, in nanoseconds; until the fault is taken out
        /// if not said.
        down: Option<u64>,
        /// How long it is there in between, in nanoseconds.
        up: u64,
    },
}

/// When a fault strikes, of the occasions that match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Always.
    Always,
    /// The one of this number, from 1.
    Nth(u64),
    /// Every one of a multiple of this number.
    Every(u64),
    /// By chance that follows from a seed.
    Chance {
        /// From 0 to 1.
        p: f64,
        /// The same seed is the same chance.
        seed: u64,
    },
}

/// A fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What is done wrong.
    pub what: What,
    /// To commands of this opcode alone.
    pub opcode: Option<Opcode>,
    /// To this one alone: type of an event, number of a completion queue, a
    /// vector or an SF (`sfnum`).
    pub number: Option<u32>,
    /// To frames that go this way alone.
    pub way: Option<Way>,
    /// On this card alone.
    pub pf: Option<usize>,
    /// To this function alone, by its hardware id.
    pub function: Option<u16>,
    /// To the passthrough slice of this index alone; without, to no slice.
    pub slice: Option<u32>,
    /// On which occasions.
    pub when: When,
    /// How often at most.
    pub times: u64,
    /// As it was written.
    pub text: String,
}

/// Kinds of objects that can run out, and the command that makes each.
pub const KINDS: &[(&str, Opcode)] = &[
    ("uar", Opcode::ALLOC_UAR),
    ("pd", Opcode::ALLOC_PD),
    ("transport_domain", Opcode::ALLOC_TRANSPORT_DOMAIN),
    ("mkey", Opcode::CREATE_MKEY),
    ("eq", Opcode::CREATE_EQ),
    ("cq", Opcode::CREATE_CQ),
    ("sq", Opcode::CREATE_SQ),
    ("rq", Opcode::CREATE_RQ),
    ("rqt", Opcode::CREATE_RQT),
    ("tir", Opcode::CREATE_TIR),
    ("tis", Opcode::CREATE_TIS),
    ("q_counter", Opcode::ALLOC_Q_COUNTER),
    ("flow_counter", Opcode::ALLOC_FLOW_COUNTER),
    ("flow_table", Opcode::CREATE_FLOW_TABLE),
    ("flow_group", Opcode::CREATE_FLOW_GROUP),
    ("flow_rule", Opcode::SET_FLOW_TABLE_ENTRY),
    ("modify_header", Opcode::ALLOC_MODIFY_HEADER_CONTEXT),
    ("reformat", Opcode::ALLOC_PACKET_REFORMAT_CONTEXT),
    ("sf", Opcode::ALLOC_SF),
];

/// Events by name.
const EVENTS: &[(&str, u8)] = &[
    ("COMPLETION", event::COMPLETION),
    ("CQ_ERROR", event::CQ_ERROR),
    ("PORT_CHANGE", event::PORT_CHANGE),
    ("COMMAND", event::COMMAND),
    ("PAGE_REQUEST", event::PAGE_REQUEST),
    ("NIC_VPORT_CHANGE", event::NIC_VPORT_CHANGE),
    ("ESW_FUNCTIONS_CHANGED", event::ESW_FUNCTIONS_CHANGED),
    ("VHCA_STATE_CHANGE", event::VHCA_STATE_CHANGE),
];

/// What begins a fault, for whoever wrote something else.
pub const FORMS: &str = "fail COMMAND, delay COMMAND ms=N, lose command NAME, lose|duplicate|reorder event TYPE, \
     lose completion, lose interrupt, lose dma, lose pcie, stop health, set health syndrome=N, drop|corrupt|delay frames, flap link, \
     exhaust KIND, hold detach, reset";

/// How long an event that is to change places waits for the next one, if not
/// said, in nanoseconds.
const REORDER: u64 = 100_000_000;

/// Longest time that can be named, in milliseconds: an hour.
const MOST_MS: u64 = 3_600_000;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

type Parsed<T> = Result<T, String>;

fn refuse<T>(key: &str, value: &str, allowed: &str) -> Parsed<T> {
    Err(format!("{key} = {value:?}: allowed is {allowed}"))
}

/// The words of a fault, taken one after the other.
struct Words<'a> {
    /// Those without a value that are left.
    plain: std::vec::IntoIter<&'a str>,
    /// Those with one that nobody asked for yet.
    pairs: Vec<(&'a str, &'a str)>,
    /// What was asked for.
    known: Vec<&'static str>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Parsed<Self> {
        let (mut plain, mut pairs): (Vec<&str>, Vec<(&str, &str)>) = (vec![], vec![]);
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) if pairs.iter().any(|p| p.0 == key) => {
                    return Err(format!("{key} = {value:?}: given twice"));
                }
                Some(pair) => pairs.push(pair),
                None => plain.push(word),
            }
        }
        Ok(Self { plain: plain.into_iter(), pairs, known: vec![] })
    }

    fn take(&mut self, key: &'static str) -> Option<&'a str> {
        self.known.push(key);
        let at = self.pairs.iter().position(|p| p.0 == key)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// A number, in hexadecimal with 0x.
    fn number(&mut self, key: &'static str, low: u64, high: u64) -> Parsed<Option<u64>> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        match parsed.filter(|n| (low..=high).contains(n)) {
            Some(n) => Ok(Some(n)),
            None => refuse(key, text, &format!("{low} to {high}")),
        }
    }

    /// Milliseconds, as nanoseconds.
    fn time(&mut self, key: &'static str) -> Parsed<Option<u64>> {
        Ok(self.number(key, 1, MOST_MS)?.map(|ms| ms * 1_000_000))
    }

    fn must<T>(&self, key: &str, value: Option<T>) -> Parsed<T> {
        value.ok_or_else(|| format!("{key}=N is missing"))
    }

    /// Refuses what nobody asked for.
    fn end(mut self) -> Parsed<()> {
        if let Some(word) = self.plain.next() {
            return Err(format!("{word:?}: no such word here; there is {}", self.known.join("=, ") + "="));
        }
        match self.pairs.first() {
            Some((key, _)) => Err(format!("{key}=: not for this fault; there is {}", self.known.join("=, ") + "=")),
            None => Ok(()),
        }
    }
}

fn opcode(word: Option<&str>) -> Parsed<Option<Opcode>> {
    let allowed = "the name of a command (`sfnic list commands`), or any";
    match word {
        None => Err(format!("a command is missing: allowed is {allowed}")),
        Some("any") => Ok(None),
        Some(name) => match Opcode::ALL.iter().find(|o| o.1 == name) {
            Some((opcode, _)) => Ok(Some(*opcode)),
            None => refuse("command", name, allowed),
        },
    }
}

fn event(word: Option<&str>) -> Parsed<Option<u32>> {
    let names = EVENTS.iter().map(|e| e.0).collect::<Vec<_>>().join(", ");
    match word {
        None => Err(format!("an event is missing: allowed is any, {names}")),
        Some("any") => Ok(None),
        Some(name) => match EVENTS.iter().find(|e| e.0 == name) {
            Some((_, kind)) => Ok(Some((*kind).into())),
            None => refuse("event", name, &format!("any, {names}")),
        },
    }
}

fn refusal(w: &mut Words<'_>) -> Parsed<Refusal> {
    let status = match w.take("status") {
        None => Status::Internal,
        Some(name) => match Status::ALL.iter().find(|s| s.1 == name && s.0 != Status::Ok) {
            Some((status, _)) => *status,
            None => {
                let names: Vec<&str> = Status::ALL.iter().skip(1).map(|s| s.1).collect();
                return refuse("status", name, &names.join(", "));
            }
        },
    };
    let syndrome = w.number("syndrome", 0, u32::MAX.into())?;
    Ok(Refusal::new(status, syndrome.map_or(Syndrome::INJECTED, |n| Syndrome(n as u32))))
}

fn when(w: &mut Words<'_>) -> Parsed<When> {
    let (nth, every) = (w.number("nth", 1, u64::MAX)?, w.number("every", 1, u64::MAX)?);
    let chance = match w.take("p") {
        None => None,
        Some(text) => match text.parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p)) {
            Some(p) => Some(p),
            None => return refuse("p", text, "0 to 1"),
        },
    };
    let seed = w.number("seed", 0, u64::MAX)?;
    if seed.is_some() && chance.is_none() {
        return Err("seed=: allowed with p= alone".to_owned());
    }
    match (nth, every, chance) {
        (None, None, None) => Ok(When::Always),
        (Some(n), None, None) => Ok(When::Nth(n)),
        (None, Some(n), None) => Ok(When::Every(n)),
        (None, None, Some(p)) => Ok(When::Chance { p, seed: seed.unwrap_or(1) }),
        _ => Err("nth=, every= and p=: allowed is one of them".to_owned()),
    }
}

impl FromStr for Fault {
    type Err = String;

    /// Reads a fault; the error is one line that says what is allowed.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut w = Words::new(text)?;
        let verb = w.plain.next().unwrap_or_default();
        let noun = w.plain.next();
        let mut f = Fault {
            what: What::LoseCommand,
            opcode: None,
            number: None,
            way: None,
            pf: None,
            function: None,
            slice: None,
            when: When::Always,
            times: u64::MAX,
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        // Whether it strikes on occasions, or is a state.
        let (mut occasions, mut functions) = (true, true);
        // Whether it can be that of another guest's device.
        let mut slices = false;
        match (verb, noun) {
            ("lose", Some("command")) => f.opcode = opcode(w.plain.next())?,
            ("lose", Some("event")) => (f.what, f.number) = (What::LoseEvent, event(w.plain.next())?),
            ("duplicate", Some("event")) => (f.what, f.number) = (What::DuplicateEvent, event(w.plain.next())?),
            ("reorder", Some("event")) => {
                f.number = event(w.plain.next())?;
                f.what = What::ReorderEvent(w.time("ms")?.unwrap_or(REORDER));
            }
            ("lose", Some("completion")) => {
                f.what = What::LoseCompletion;
                f.number = w.number("cq", 0, 0xff_ffff)?.map(|n| n as u32);
            }
            ("lose", Some("interrupt")) => {
                (f.what, functions) = (What::LoseInterrupt, false);
                f.number = w.number("vector", 0, 2047)?.map(|n| n as u32);
            }
            ("lose", Some("dma")) => (f.what, occasions, functions, slices) = (What::LoseDma, false, false, true),
            ("lose", Some("pcie")) => (f.what, occasions, functions, slices) = (What::LosePcie, false, false, true),
            ("stop", Some("health")) => (f.what, occasions) = (What::StopHealth, false),
            ("set", Some("health")) => {
                let syndrome = w.number("syndrome", 1, 255)?;
                let syndrome = w.must("syndrome", syndrome)? as u8;
                let extended = w.number("ext", 0, 0xffff)?.unwrap_or_default() as u16;
                let severity = w.number("severity", 0, 7)?.map(|n| n as u8);
                let rfr = w.number("rfr", 0, 1)? == Some(1);
                (f.what, occasions) = (What::Health { syndrome, extended, severity, rfr }, false);
            }
            ("drop" | "corrupt" | "delay", Some("frames")) => {
                f.what = match verb {
                    "drop" => What::DropFrame,
                    "corrupt" => What::CorruptFrame,
                    _ => {
                        let ms = w.time("ms")?;
                        What::DelayFrame(w.must("ms", ms)?)
                    }
                };
                f.way = match w.take("way") {
                    None => None,
                    Some("in") => Some(Way::In),
                    Some("out") => Some(Way::Out),
                    Some(other) => return refuse("way", other, "in or out"),
                };
                functions = false;
            }
            ("flap", Some("link")) => {
                let (down, up) = (w.time("down")?, w.time("up")?.unwrap_or(1_000_000_000));
                f.times = w.number("times", 1, u64::MAX)?.unwrap_or(1);
                f.what = What::FlapLink { down, up };
                (occasions, functions) = (false, false);
            }
            ("hold", Some("detach")) => {
                (f.what, occasions) = (What::HoldDetach, false);
                f.number = w.number("sfnum", 0, MAX_SFNUM.into())?.map(|n| n as u32);
            }
            ("reset", None) => {
                f.what = What::Reset(w.time("after")?.unwrap_or_default());
                (occasions, functions, slices) = (false, false, true);
            }
            ("exhaust", kind) => {
                let Some((_, makes)) = KINDS.iter().find(|k| Some(k.0) == kind) else {
                    let names: Vec<&str> = KINDS.iter().map(|k| k.0).collect();
                    return refuse("exhaust", kind.unwrap_or_default(), &names.join(", "));
                };
                let limit = w.number("limit", 0, u32::MAX.into())?.unwrap_or_default();
                f.opcode = Some(*makes);
                (f.what, occasions) = (What::Exhaust(limit as usize), false);
            }
            ("fail", name) => {
                f.opcode = opcode(name)?;
                f.what = What::FailCommand(refusal(&mut w)?);
            }
            ("delay", name) => {
                f.opcode = opcode(name)?;
                let ms = w.time("ms")?;
                f.what = What::DelayCommand(w.must("ms", ms)?);
            }
            _ => return refuse("fault", &f.text, FORMS),
        }
        if slices {
            f.slice = w.number("slice", 0, u32::MAX.into())?.map(|n| n as u32);
        }
        if f.slice.is_none() {
            f.pf = w.number("pf", 0, 255)?.map(|n| n as usize);
        }
        if functions {
            f.function = w.number("function", 0, 0xffff)?.map(|n| n as u16);
        }
        if occasions {
            f.when = when(&mut w)?;
            f.times = w.number("times", 1, u64::MAX)?.unwrap_or(u64::MAX);
        }
        w.end()?;
        Ok(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn every_form_is_read() {
        let f = fault("fail CREATE_CQ nth=3  status=NO_RESOURCES syndrome=0x123456");
        assert_eq!(f.what, What::FailCommand(Refusal::new(Status::NoResources, Syndrome(0x12_3456))));
        assert_eq!((f.opcode, f.when, f.times), (Some(Opcode::CREATE_CQ), When::Nth(3), u64::MAX));
        assert_eq!(f.to_string(), "fail CREATE_CQ nth=3 status=NO_RESOURCES syndrome=0x123456");
        assert_eq!(fault("fail any").what, What::FailCommand(Refusal::new(Status::Internal, Syndrome::INJECTED)));
        let f = fault("delay any ms=200 p=0.25 seed=7 pf=1 function=0x8000 times=2");
        assert_eq!((f.what, f.when), (What::DelayCommand(200_000_000), When::Chance { p: 0.25, seed: 7 }));
        assert_eq!((f.pf, f.function, f.times, f.opcode), (Some(1), Some(0x8000), 2, None));
        assert_eq!(fault("lose command NOP").opcode, Some(Opcode::NOP));
        assert_eq!(fault("lose event COMMAND every=10").number, Some(event::COMMAND.into()));
        assert_eq!(fault("duplicate event any").what, What::DuplicateEvent);
        let f = fault("reorder event COMPLETION every=2 ms=5");
        assert_eq!((f.what, f.number), (What::ReorderEvent(5_000_000), Some(event::COMPLETION.into())));
        assert_eq!(fault("reorder event any").what, What::ReorderEvent(100_000_000));
        assert_eq!(fault("lose completion cq=5").number, Some(5));
        let f = fault("hold detach pf=1 sfnum=4");
        assert_eq!((f.what, f.pf, f.number), (What::HoldDetach, Some(1), Some(4)));
        assert_eq!(fault("hold detach function=0x8000").function, Some(0x8000));
        assert_eq!((fault("reset").what, fault("reset pf=0 after=50").what), (What::Reset(0), What::Reset(50_000_000)));
        assert_eq!(fault("lose interrupt vector=1 pf=0").number, Some(1));
        assert_eq!((fault("lose dma pf=0").what, fault("lose pcie").what), (What::LoseDma, What::LosePcie));
        let of_slice = ["lose dma slice=100", "lose pcie slice=100", "reset slice=100 after=5"].map(|t| fault(t).slice);
        assert_eq!((of_slice, fault("lose dma").slice), ([Some(100); 3], None));
        assert_eq!(fault("stop health pf=0").what, What::StopHealth);
        let health = What::Health { syndrome: 16, extended: 0x8a, severity: Some(1), rfr: true };
        assert_eq!(fault("set health syndrome=0x10 ext=0x8a severity=1 rfr=1").what, health);
        assert_eq!(fault("drop frames pf=1 way=in").way, Some(Way::In));
        assert_eq!(fault("corrupt frames").what, What::CorruptFrame);
        assert_eq!(fault("delay frames ms=5").what, What::DelayFrame(5_000_000));
        let flap = What::FlapLink { down: Some(500_000_000), up: 1_000_000_000 };
        assert_eq!((fault("flap link pf=0 down=500 times=3").what, fault("flap link times=3").times), (flap, 3));
        assert_eq!(fault("exhaust flow_rule limit=12").opcode, Some(Opcode::SET_FLOW_TABLE_ENTRY));
    }

    #[test]
    fn what_is_wrong_is_one_line_that_says_what_is_allowed() {
        for (text, parts) in [
            ("", &["fault = \"\"", "fail COMMAND"][..]),
            ("break CREATE_CQ", &["\"break CREATE_CQ\"", "exhaust KIND"]),
            ("fail", &["a command is missing", "any"]),
            ("fail CREATE_QUBIT", &["command = \"CREATE_QUBIT\"", "sfnic list commands"]),
            ("fail NOP status=BAD", &["status = \"BAD\"", "NO_RESOURCES"]),
            ("fail NOP status=OK", &["status = \"OK\""]),
            ("fail NOP nth=0", &["nth = \"0\"", "1 to"]),
            ("fail NOP nth=1 every=2", &["one of them"]),
            ("fail NOP p=1.5", &["p = \"1.5\"", "0 to 1"]),
            ("fail NOP p=NaN", &["p = \"NaN\""]),
            ("fail NOP seed=1", &["seed=", "with p="]),
            ("fail NOP nth=1 nth=2", &["nth = \"2\": given twice"]),
            ("fail NOP way=in", &["way=: not for this fault", "status=", "nth="]),
            ("fail NOP twice", &["\"twice\""]),
            ("delay NOP", &["ms=N is missing"]),
            ("delay NOP ms=9999999999", &["ms = ", "1 to 3600000"]),
            ("lose event RAIN", &["event = \"RAIN\"", "PORT_CHANGE"]),
            ("lose interrupt function=1", &["function=: not for this fault"]),
            ("set health", &["syndrome=N is missing"]),
            ("lose pcie function=1", &["function=: not for this fault"]),
            ("lose dma slice=100 pf=0", &["pf=: not for this fault; there is slice="]),
            ("lose interrupt slice=100", &["slice=: not for this fault"]),
            ("stop health nth=1", &["nth=: not for this fault"]),
            ("reorder event", &["an event is missing", "COMPLETION"]),
            ("reorder event any ms=0", &["ms = \"0\"", "1 to 3600000"]),
            ("hold detach sfnum=65536", &["sfnum = \"65536\"", "0 to 65535"]),
            ("hold detach nth=1", &["nth=: not for this fault"]),
            ("hold breath", &["\"hold breath\"", "hold detach"]),
            ("reset function=0x8000", &["function=: not for this fault"]),
            ("reset now", &["\"reset now\"", "reset"]),
            ("drop frames way=up", &["way = \"up\"", "in or out"]),
            ("exhaust patience", &["exhaust = \"patience\"", "mkey"]),
        ] {
            let e = text.parse::<Fault>().expect_err(text);
            assert_eq!(e.lines().count(), 1, "{e}");
            for part in parts {
                assert!(e.contains(part), "{text}: {part:?} is not in {e:?}");
            }
        }
    }
}
