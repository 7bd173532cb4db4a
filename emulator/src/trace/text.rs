//! Commands in words: fields by name.

use serde_json::{Map, Value, json};
use sfnic_device_model::cmd::fields::{Leaf, Side, walk};
use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layout::{Kind, Layout, View};

use super::file::{Command, Entry, What};

/// A field with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub path: String,
    /// Its value, in hexadecimal.
    pub text: String,
    /// The value of a field of up to 64 bits.
    pub number: Option<u64>,
}

/// A field's value as people read it.
pub fn value(leaf: &Leaf<'_>, block: &[u8]) -> (String, Option<u64>) {
    match leaf.value(block) {
        Some(n) => (format!("{n:#x}"), Some(n)),
        None => (leaf.bytes(block).iter().map(|b| format!("{b:02x}")).collect(), None),
    }
}

/// The fields of one half of a command; those that are zero only with `all`.
pub fn fields(input: &[u8], side: Side, block: &[u8], all: bool) -> Vec<Shown> {
    let mut shown = vec![];
    walk(input, side, block, |leaf, block| {
        let (text, number) = value(leaf, block);
        let zero = number.map_or_else(|| leaf.bytes(block).iter().all(|b| *b == 0), |n| n == 0);
        if (all && leaf.declared) || !zero {
            shown.push(Shown { path: leaf.path.to_owned(), text, number });
        }
    });
    shown
}

/// Which records are shown.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these opcodes; all where there are none.
    pub opcodes: Vec<u16>,
    /// Of these functions: card (any where there is none) and number.
    pub functions: Vec<(Option<u8>, u16)>,
    /// Records other than commands too.
    pub events: bool,
    /// Fields that are zero too.
    pub all: bool,
}

impl Filter {
    /// Is it shown?
    pub fn wants(&self, e: &Entry) -> bool {
        let of = self.functions.is_empty()
            || self.functions.iter().any(|(c, f)| c.is_none_or(|c| c == e.card) && *f == e.function);
        of && match &e.what {
            What::Command(c) => self.opcodes.is_empty() || self.opcodes.contains(&c.opcode().0),
            What::Lost(_) | What::Reset | What::Name(_) => self.opcodes.is_empty(),
            _ => self.events && self.opcodes.is_empty(),
        }
    }
}

fn hex(b: &[u8]) -> String {
    b.iter().map(|b| format!("{b:02x}")).collect()
}

/// `pf0` or `pf0/0x8000`.
pub fn place(card: u8, function: u16) -> String {
    if function == 0 { format!("pf{card}") } else { format!("pf{card}/{function:#x}") }
}

/// Type and the fields of an event's entry that are its.
fn event_fields(entry: &[u8]) -> (String, Vec<Shown>) {
    let e = View::<Eqe>::new(entry);
    let kind = e.get(Eqe::r#type) as u8;
    let (name, wanted): (&str, &[&str]) = match kind {
        event::COMPLETION => ("COMPLETION", &["cqn"]),
        event::COMMAND => ("COMMAND", &["cmd_vector"]),
        event::VHCA_STATE_CHANGE => ("VHCA_STATE_CHANGE", &["vhca_ec_function", "vhca_function_id"]),
        event::PORT_CHANGE => ("PORT_CHANGE", &["port"]),
        event::CQ_ERROR => ("CQ_ERROR", &["cq_err_cqn", "cq_err_syndrome"]),
        _ => ("EVENT", &["queue_type", "queue_number"]),
    };
    let shown = Eqe::FIELDS
        .iter()
        .filter(|f| f.kind == Kind::Bits)
        .filter(|f| wanted.contains(&f.name) || matches!(f.name, "sub_type" | "owner"));
    let shown = shown.map(|f| {
        let n = sfnic_device_model::cmd::fields::bits(entry, f.bit as usize, f.width as usize);
        Shown { path: f.name.to_owned(), text: format!("{n:#x}"), number: Some(n) }
    });
    (format!("{name}({kind:#x})"), shown.collect())
}

/// One record for a terminal, without the newline at its end.
pub fn lines(e: &Entry, filter: &Filter) -> String {
    let head = format!("{:>14.6} {:<10}", e.time_ns as f64 / 1e9, place(e.card, e.function));
    match &e.what {
        What::Command(c) => command_lines(&head, c, filter.all),
        What::Event(eqn, entry) => {
            let (name, shown) = event_fields(entry);
            let shown: Vec<String> =
                shown.iter().filter(|s| s.number != Some(0)).map(|s| format!("{}={}", s.path, s.text)).collect();
            format!("{head} event {name} eqn={eqn:#x} {}", shown.join(" "))
        }
        What::Doorbell(at, data) => format!("{head} doorbell {at:#x} {}", hex(data)),
        What::Read(at, data) => format!("{head} read  {at:#x} {}", hex(data)),
        What::Write(at, data) => format!("{head} write {at:#x} {}", hex(data)),
        What::Reset => format!("{head} reset"),
        What::Name(name) => format!("{head} is {name}"),
        What::Lost(n) => format!("{head} {n} records were lost here"),
    }
}

fn command_lines(head: &str, c: &Command, all: bool) -> String {
    let (input, output) = (c.input(), c.output());
    let answer = match (c.answered, c.delivery) {
        (false, _) => "no answer".to_owned(),
        (_, 0) => super::replay::status_name(c.status()),
        (_, d) => format!("not delivered ({d:#x})"),
    };
    let mut text = format!("{head} {} op_mod={:#x} slot={} {answer}", c.opcode(), c.op_mod(), c.slot);
    for (mark, side, block) in [('>', Side::Input, &input), ('<', Side::Output, &output)] {
        for s in fields(&input, side, block, all) {
            if !matches!((side, s.path.as_str()), (Side::Input, "opcode" | "op_mod")) {
                text += &format!("\n    {mark} {} = {}", s.path, s.text);
            }
        }
    }
    text
}

/// Fields as the members of an object.
pub(crate) fn object(shown: Vec<Shown>) -> Value {
    let pairs = shown.into_iter().map(|s| {
        let v = s.number.map_or_else(|| Value::String(s.text), |n| json!(n));
        (s.path, v)
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// One record as JSON.
pub fn json(e: &Entry, filter: &Filter) -> Value {
    let mut v = json!({ "time_ns": e.time_ns, "card": e.card, "function": e.function });
    let more = match &e.what {
        What::Command(c) => {
            let (input, output) = (c.input(), c.output());
            json!({
                "kind": "command", "opcode": c.opcode().0, "name": c.opcode().name(), "op_mod": c.op_mod(),
                "slot": c.slot, "delivery": c.delivery, "answered": c.answered,
                "status": c.answered.then(|| c.status()),
                "input_length": input.len(), "output_length": output.len(),
                "input": object(fields(&input, Side::Input, &input, filter.all)),
                "output": object(fields(&input, Side::Output, &output, filter.all)),
            })
        }
        What::Event(eqn, entry) => {
            let (name, shown) = event_fields(entry);
            json!({ "kind": "event", "eqn": eqn, "name": name, "fields": object(shown), "entry": hex(entry) })
        }
        What::Doorbell(at, data) => json!({ "kind": "doorbell", "offset": at, "data": hex(data) }),
        What::Read(at, data) => json!({ "kind": "read", "offset": at, "data": hex(data) }),
        What::Write(at, data) => json!({ "kind": "write", "offset": at, "data": hex(data) }),
        What::Reset => json!({ "kind": "reset" }),
        What::Name(name) => json!({ "kind": "name", "name": name }),
        What::Lost(n) => json!({ "kind": "lost", "records": n }),
    };
    if let (Some(v), Value::Object(more)) = (v.as_object_mut(), more) {
        v.extend(more);
    }
    v
}
