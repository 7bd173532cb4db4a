//! Numbers that a device hands out: which fields are such, and which of one
//! device's stand for which of another's.
//!
//! A field is a handle by its name (the kernel uses a name for one thing); a
//! command hands one out if it is called CREATE_… or ALLOC_…, and takes it
//! back if it is called DESTROY_… or DEALLOC_….

use std::collections::{BTreeMap, HashMap};

use sfnic_device_model::cmd::fields::{Leaf, Side, bits, set_bits, walk};
use sfnic_firmware_cmds::layout::View;
use sfnic_firmware_cmds::layouts::{AllocFlowCounterIn, DestFormatStruct, DisableHcaIn, EnableHcaIn, TeardownHcaIn};
use sfnic_firmware_cmds::opcode::Opcode;

use super::file::{Command, Entry};

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Uar,
    Pd,
    TransportDomain,
    Xrcd,
    Mkey,
    Eq,
    Cq,
    Sq,
    Rq,
    Rqt,
    Tir,
    Tis,
    QCounter,
    FlowCounter,
    FlowTable,
    FlowGroup,
    ModifyHeader,
    Reformat,
    GeneralObject,
}

/// Fields by name.
const NAMES: &[(&str, Kind)] = &[
    ("uar", Kind::Uar),
    ("uar_page", Kind::Uar),
    ("pd", Kind::Pd),
    ("transport_domain", Kind::TransportDomain),
    ("xrcd", Kind::Xrcd),
    ("mkey_index", Kind::Mkey),
    ("eq_number", Kind::Eq),
    ("c_eqn_or_apu_element", Kind::Eq),
    ("cqn", Kind::Cq),
    ("sqn", Kind::Sq),
    ("rqn", Kind::Rq),
    ("inline_rqn", Kind::Rq),
    ("rq_num", Kind::Rq),
    ("rqtn", Kind::Rqt),
    ("indirect_table", Kind::Rqt),
    ("tirn", Kind::Tir),
    ("tisn", Kind::Tis),
    ("tis_num_0", Kind::Tis),
    ("counter_set_id", Kind::QCounter),
    ("flow_counter_id", Kind::FlowCounter),
    ("table_id", Kind::FlowTable),
    ("table_miss_id", Kind::FlowTable),
    ("group_id", Kind::FlowGroup),
    ("modify_header_id", Kind::ModifyHeader),
    ("packet_reformat_id", Kind::Reformat),
    ("obj_id", Kind::GeneralObject),
];

/// Where a number means something: card, function, kind, and for tables their
/// type, for groups their table too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    card: u8,
    function: u16,
    kind: Kind,
    within: u64,
}

/// The scope of a field, if it is a handle.
pub fn scope(e: &Entry, input: &[u8], block: &[u8], leaf: &Leaf<'_>) -> Option<Scope> {
    if !leaf.declared || leaf.width > 32 {
        return None;
    }
    let kind = match (leaf.of, leaf.name) {
        (_, "destination_id") => match bits(block, leaf.bit - 8, 8) {
            1 => Kind::FlowTable,
            2 => Kind::Tir,
            _ => return None,
        },
        (_, name) => NAMES.iter().find(|n| n.0 == name)?.1,
    };
    debug_assert_eq!(DestFormatStruct::destination_id.bit(), 8, "its type stands before it");
    // All commands of flow tables have type and table at the same place.
    let (table_type, table) = (bits(input, 0x80, 8), bits(input, 0xa8, 24));
    let within = match kind {
        Kind::FlowTable => table_type,
        Kind::FlowGroup => table_type << 32 | table,
        _ => 0,
    };
    Some(Scope { card: e.card, function: e.function, kind, within })
}

/// A handle in a command.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Where it means something.
    pub scope: Scope,
    /// Offset in bits.
    pub bit: usize,
    /// Width in bits.
    pub width: usize,
    /// The number.
    pub value: u64,
}

/// The handles of one half of a command.
pub fn find(e: &Entry, input: &[u8], side: Side, block: &[u8]) -> Vec<Found> {
    let mut found = vec![];
    walk(input, side, block, |leaf, block| {
        if let Some(scope) = scope(e, input, block, leaf) {
            let value = bits(block, leaf.bit, leaf.width);
            found.push(Found { scope, bit: leaf.bit, width: leaf.width, value });
        }
    });
    found
}

/// What a command does to handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    HandsOut,
    TakesBack(Option<Kind>),
    Uses,
}

fn does(opcode: Opcode) -> Does {
    let name = opcode.name().unwrap_or_default();
    if name.starts_with("CREATE_") || name.starts_with("ALLOC_") {
        Does::HandsOut
    } else if name.starts_with("DESTROY_") || name.starts_with("DEALLOC_") {
        // Beside the group its table is named.
        Does::TakesBack((opcode == Opcode::DESTROY_FLOW_GROUP).then_some(Kind::FlowGroup))
    } else {
        Does::Uses
    }
}

/// Hands out handles with its answers.
pub fn hands_out(opcode: Opcode) -> bool {
    does(opcode) == Does::HandsOut
}

/// After this command its function has no handles.
fn forgets(opcode: Opcode, input: &[u8]) -> bool {
    match opcode {
        Opcode::TEARDOWN_HCA => View::<TeardownHcaIn>::new(input).get(TeardownHcaIn::profile) == 0,
        Opcode::ENABLE_HCA => View::<EnableHcaIn>::new(input).get(EnableHcaIn::function_id) == 0,
        Opcode::DISABLE_HCA => View::<DisableHcaIn>::new(input).get(DisableHcaIn::function_id) == 0,
        _ => false,
    }
}

/// How many numbers from the first on a command handed out.
fn run_length(opcode: Opcode, input: &[u8]) -> u64 {
    let v = View::<AllocFlowCounterIn>::new(input);
    match (opcode, v.get(AllocFlowCounterIn::flow_counter_bulk_log_size)) {
        (Opcode::ALLOC_FLOW_COUNTER, 0) => (u64::from(v.get(AllocFlowCounterIn::flow_counter_bulk)) * 128).max(1),
        (Opcode::ALLOC_FLOW_COUNTER, log) => 1 << log,
        _ => 1,
    }
}

/// What the rest of a log says of a handle that an answer handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// It is used, and was nobody else's.
    Used,
    /// It is never used.
    Unused,
    /// Another one had it at that time.
    Taken,
}

/// What a log says of its own handles.
#[derive(Debug, Default)]
pub struct Witnesses {
    of: HashMap<(usize, usize), Witness>,
    strangers: BTreeMap<Scope, Vec<(usize, u64)>>,
}

#[derive(Debug, Default)]
struct Life {
    issued: Vec<((usize, usize), Witness)>,
    strangers: Vec<(usize, u64)>,
}

impl Witnesses {
    /// Reads a log: commands by number.
    pub fn read<'a>(commands: impl Iterator<Item = (&'a Entry, &'a Command)>) -> Self {
        // First number to its run and the answer that handed it out.
        let mut live: BTreeMap<Scope, BTreeMap<u64, (u64, usize)>> = BTreeMap::new();
        let mut lives: BTreeMap<Scope, Life> = BTreeMap::new();
        for (n, (e, c)) in commands.enumerate() {
            let (input, output) = (c.input(), c.output());
            let does = does(c.opcode());
            for h in find(e, &input, Side::Input, &input) {
                let known = live.get(&h.scope).and_then(|l| l.range(..=h.value).next_back());
                let known = known.filter(|(first, (run, _))| h.value - **first < *run).map(|(f, (_, i))| (*f, *i));
                let life = lives.entry(h.scope).or_default();
                match known {
                    Some((first, i)) => {
                        let back = matches!(does, Does::TakesBack(k) if k.is_none_or(|k| k == h.scope.kind));
                        // Zero in any other command may be a field that is not set.
                        let names = first == h.value && (h.value != 0 || back);
                        if life.issued[i].1 == Witness::Unused && names {
                            life.issued[i].1 = Witness::Used;
                        }
                        if back && let Some(l) = live.get_mut(&h.scope) {
                            l.remove(&first);
                        }
                    }
                    None if h.value != 0 && !life.strangers.iter().any(|s| s.1 == h.value) => {
                        life.strangers.push((n, h.value));
                    }
                    None => {}
                }
            }
            if forgets(c.opcode(), &input) {
                live.retain(|s, _| (s.card, s.function) != (e.card, e.function));
            }
            if does == Does::HandsOut && c.answered {
                for h in find(e, &input, Side::Output, &output) {
                    if c.status() != 0 && h.value == 0 {
                        continue;
                    }
                    let life = lives.entry(h.scope).or_default();
                    let l = live.entry(h.scope).or_default();
                    let taken = l.contains_key(&h.value);
                    life.issued.push(((n, h.bit), if taken { Witness::Taken } else { Witness::Unused }));
                    l.insert(h.value, (run_length(c.opcode(), &input), life.issued.len() - 1));
                }
            }
        }
        let mut w = Self::default();
        for (scope, life) in lives {
            w.of.extend(life.issued);
            w.strangers.insert(scope, life.strangers);
        }
        w
    }

    /// What the log says of the handle at `bit` in the answer of command `n`.
    pub fn of(&self, n: usize, bit: usize) -> Witness {
        self.of.get(&(n, bit)).copied().unwrap_or(Witness::Unused)
    }

    /// A number that is used after command `n` though nothing handed it out:
    /// `ours`, or else the first one. It is given once.
    pub fn instead(&mut self, scope: Scope, n: usize, ours: u64) -> Option<u64> {
        let list = self.strangers.get_mut(&scope)?;
        let later = |s: &(usize, u64)| s.0 > n;
        let at = list.iter().position(|s| later(s) && s.1 == ours).or_else(|| list.iter().position(later))?;
        Some(list.remove(at).1)
    }
}

/// Which of our numbers stands for which of the log's.
#[derive(Debug, Default)]
pub struct Map {
    ours: BTreeMap<Scope, BTreeMap<u64, (u64, u64)>>,
}

impl Map {
    /// Our number for one of the log's; the same where nothing is known.
    pub fn ours(&self, scope: Scope, theirs: u64) -> u64 {
        let known = self.ours.get(&scope).and_then(|m| m.range(..=theirs).next_back());
        match known {
            Some((first, (run, ours))) if theirs - first < *run => ours + (theirs - first),
            _ => theirs,
        }
    }

    /// An answer handed out `ours` where the log's handed out `theirs`.
    pub fn learn(&mut self, opcode: Opcode, input: &[u8], scope: Scope, theirs: u64, ours: u64) {
        self.ours.entry(scope).or_default().insert(theirs, (run_length(opcode, input), ours));
    }

    /// A command's input with our numbers in place of the log's.
    pub fn translate(&self, e: &Entry, input: &[u8]) -> Vec<u8> {
        let mut ours = input.to_vec();
        for h in find(e, input, Side::Input, input) {
            let n = self.ours(h.scope, h.value);
            if n != h.value {
                set_bits(&mut ours, h.bit, h.width, n);
            }
        }
        ours
    }

    /// A command was executed: what it took back means nothing any more.
    pub fn executed(&mut self, e: &Entry, opcode: Opcode, input: &[u8]) {
        if forgets(opcode, input) {
            self.ours.retain(|s, _| (s.card, s.function) != (e.card, e.function));
        }
        if let Does::TakesBack(kind) = does(opcode) {
            for h in find(e, input, Side::Input, input) {
                if kind.is_none_or(|k| k == h.scope.kind)
                    && let Some(m) = self.ours.get_mut(&h.scope)
                {
                    m.remove(&h.value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::What;
    use super::*;

    fn command(opcode: Opcode, handle: u32, answer: u32) -> Entry {
        let mut input = [0; 16];
        input[..2].copy_from_slice(&opcode.0.to_be_bytes());
        input[8..12].copy_from_slice(&handle.to_be_bytes());
        let mut output = [0; 16];
        output[8..12].copy_from_slice(&answer.to_be_bytes());
        let command = Command::new(0, 0, &input, Some(&output), false);
        Entry { time_ns: 0, card: 0, function: 0, what: What::Command(command) }
    }

    fn read(log: &[Entry]) -> Witnesses {
        Witnesses::read(log.iter().filter_map(|e| match &e.what {
            What::Command(c) => Some((e, c)),
            _ => None,
        }))
    }

    #[test]
    fn a_log_bears_witness_to_its_handles() {
        let (alloc, free) = (Opcode::ALLOC_PD, Opcode::DEALLOC_PD);
        let good = [command(alloc, 0, 5), command(alloc, 0, 6), command(free, 5, 0), command(free, 6, 0)];
        let w = read(&good);
        assert_eq!((w.of(0, 72), w.of(1, 72)), (Witness::Used, Witness::Used));
        let wrong = [command(alloc, 0, 9), command(alloc, 0, 6), command(free, 5, 0), command(free, 6, 0)];
        let mut w = read(&wrong);
        let What::Command(c) = &wrong[0].what else { return };
        let scope = find(&wrong[0], &c.input(), Side::Output, &c.output())[0].scope;
        assert_eq!((w.of(0, 72), w.instead(scope, 0, 1), w.instead(scope, 0, 1)), (Witness::Unused, Some(5), None));
        let twice = [command(alloc, 0, 6), command(alloc, 0, 6), command(free, 6, 0)];
        assert_eq!((read(&twice).of(0, 72), read(&twice).of(1, 72)), (Witness::Unused, Witness::Taken));
    }

    #[test]
    fn numbers_are_translated_until_they_are_taken_back() {
        let mut map = Map::default();
        let e = command(Opcode::DEALLOC_PD, 5, 0);
        let What::Command(c) = &e.what else { return };
        let scope = find(&e, &c.input(), Side::Input, &c.input())[0].scope;
        map.learn(Opcode::ALLOC_PD, &[], scope, 5, 1);
        assert_eq!(map.translate(&e, &c.input())[11], 1);
        map.executed(&e, c.opcode(), &c.input());
        assert_eq!(map.translate(&e, &c.input())[11], 5);
    }
}
