//! Two traces, command by command.
//!
//! The commands of each function are aligned by opcode and operation modifier.
//! A handle is compared by what it stands for: the third completion queue of
//! one trace is the third one of the other, whatever their numbers are.

use std::collections::BTreeMap;

use serde::Serialize;
use sfnic_device_model::cmd::fields::{Side, bits, walk};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::file::{Command, Entry};
use super::{Trace, handles, text};

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// Commands that only one of the two has.
    Only {
        /// `a` or `b`.
        of: char,
        /// Card and function.
        place: String,
        /// The first one's place among the function's commands.
        index: usize,
        /// Their names.
        commands: Vec<String>,
    },
    /// The same command with other fields.
    Fields {
        /// Card and function.
        place: String,
        /// Place among the function's commands in A.
        a: usize,
        /// The same in B.
        b: usize,
        /// The command.
        command: String,
        /// Field, in A, in B.
        fields: Vec<(String, String, String)>,
    },
}

/// A function's command, its fields as they are compared.
struct Line {
    key: (u16, u16),
    name: String,
    fields: BTreeMap<String, String>,
}

/// What differs, and how many commands are the same. Addresses of the guest's
/// memory are compared with `addresses` only.
pub fn diff(a: &Trace, b: &Trace, addresses: bool) -> (usize, Vec<Difference>) {
    let (a, b) = (lines(a, addresses), lines(b, addresses));
    let places: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
    let nothing = vec![];
    let (mut same, mut found) = (0, vec![]);
    for at in places {
        let place = text::place(at.0, at.1);
        let (a, b) = (a.get(&at).unwrap_or(&nothing), b.get(&at).unwrap_or(&nothing));
        let keys = |lines: &[Line]| lines.iter().map(|l| l.key).collect::<Vec<_>>();
        let only = |of: char, lines: &[Line], from: usize, len: usize| Difference::Only {
            of,
            place: place.clone(),
            index: from,
            commands: lines[from..from + len].iter().map(|l| l.name.clone()).collect(),
        };
        for op in capture_diff_slices(Algorithm::Myers, &keys(a), &keys(b)) {
            match op {
                DiffOp::Delete { old_index, old_len, .. } => found.push(only('a', a, old_index, old_len)),
                DiffOp::Insert { new_index, new_len, .. } => found.push(only('b', b, new_index, new_len)),
                DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                    found.push(only('a', a, old_index, old_len));
                    found.push(only('b', b, new_index, new_len));
                }
                DiffOp::Equal { old_index, new_index, len } => {
                    for i in 0..len {
                        let (l, r) = (&a[old_index + i], &b[new_index + i]);
                        let fields = fields(l, r);
                        if fields.is_empty() {
                            same += 1;
                            continue;
                        }
                        let (place, command) = (place.clone(), l.name.clone());
                        found.push(Difference::Fields { place, a: old_index + i, b: new_index + i, command, fields });
                    }
                }
            }
        }
    }
    (same, found)
}

fn fields(a: &Line, b: &Line) -> Vec<(String, String, String)> {
    let names: std::collections::BTreeSet<&String> = a.fields.keys().chain(b.fields.keys()).collect();
    let get = |l: &Line, name: &String| l.fields.get(name).cloned().unwrap_or_else(|| "0x0".to_owned());
    let pairs = names.into_iter().map(|n| (n.clone(), get(a, n), get(b, n)));
    pairs.filter(|(_, a, b)| a != b).collect()
}

type Lines = BTreeMap<(u8, u16), Vec<Line>>;

fn lines(trace: &Trace, addresses: bool) -> Lines {
    let mut map = handles::Map::default();
    // How many handles of a scope have been handed out.
    let mut count: BTreeMap<handles::Scope, u64> = BTreeMap::new();
    let mut all = Lines::new();
    for (e, c) in trace.commands() {
        let (input, output) = (c.input(), c.output());
        let mut fields = BTreeMap::new();
        one(&map, e, &input, Side::Input, &input, addresses, &mut fields);
        if handles::hands_out(c.opcode()) && c.status() == 0 && c.answered {
            for h in handles::find(e, &input, Side::Output, &output) {
                let n = count.entry(h.scope).or_default();
                *n += 1;
                map.learn(c.opcode(), &input, h.scope, h.value, *n << 32);
            }
        }
        if c.answered {
            one(&map, e, &input, Side::Output, &output, addresses, &mut fields);
        } else {
            fields.insert("answer".to_owned(), "none".to_owned());
        }
        map.executed(e, c.opcode(), &input);
        let name = format!("{} op_mod={:#x}", c.opcode(), c.op_mod());
        all.entry((e.card, e.function)).or_default().push(Line { key: key(c), name, fields });
    }
    all
}

fn key(c: &Command) -> (u16, u16) {
    (c.opcode().0, c.op_mod())
}

/// The fields of a half that are not zero, handles by their order.
fn one(
    map: &handles::Map,
    e: &Entry,
    input: &[u8],
    side: Side,
    block: &[u8],
    addresses: bool,
    fields: &mut BTreeMap<String, String>,
) {
    let mark = if side == Side::Input { '>' } else { '<' };
    walk(input, side, block, |leaf, block| {
        if !addresses && matches!(leaf.name, "pas" | "dbr_addr") {
            return;
        }
        let (mut text, number) = text::value(leaf, block);
        if let Some(scope) = handles::scope(e, input, block, leaf) {
            let value = bits(block, leaf.bit, leaf.width);
            let nth = map.ours(scope, value);
            if nth != value {
                text = format!("#{}", nth >> 32);
                if nth & 0xffff_ffff != 0 {
                    text += &format!("+{}", nth & 0xffff_ffff);
                }
            }
        }
        let zero = number.map_or_else(|| leaf.bytes(block).iter().all(|b| *b == 0), |n| n == 0);
        if !zero || text.starts_with('#') {
            fields.insert(format!("{mark} {}", leaf.path), text);
        }
    });
}
