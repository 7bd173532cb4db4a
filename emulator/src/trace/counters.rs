//! Counters in a log's answers: a replay has no traffic, so they differ, but
//! those of one log must go with one another.

use std::collections::HashMap;

use sfnic_device_model::cmd::fields::{Side, bits, walk};
use sfnic_firmware_cmds::opcode::Opcode;

use super::Trace;
use super::file::{Command, Entry, What};

/// Nothing counts to this in a recording's life.
const LIMIT: u64 = 1 << 48;
/// Bytes of a frame, at least and at most (a segmented one counts its parts).
const FRAME: (u64, u64) = (14, 0x1_0100);

/// Does traffic count it? Only counters that count frames or their fate.
pub(super) fn is_counter(opcode: Opcode, of: &str, path: &str) -> bool {
    match opcode {
        Opcode::QUERY_VPORT_COUNTER | Opcode::QUERY_FLOW_COUNTER => of == "traffic_counter",
        Opcode::QUERY_Q_COUNTER => of == "query_q_counter_out" && path.starts_with("out_of_"),
        Opcode::QUERY_VNIC_ENV => of == "vnic_diagnostic_statistics",
        Opcode::ACCESS_REG => of.ends_with("_grp_data_layout"),
        _ => false,
    }
}

/// Whose counter it is, and the field of the answer: functions that ask for
/// the same one have one series. The number tells a counter from the one that
/// had its place before.
type Key = (u8, u16, Vec<u8>, String, u32);

fn key(e: &Entry, opcode: Opcode, input: &[u8], path: &str, life: u32) -> Key {
    let (other, vport) = (bits(input, 64, 1) == 1, bits(input, 80, 16) as u16);
    let (function, asked) = match opcode {
        // The port is the card's, whoever asks.
        Opcode::ACCESS_REG => (0, input.to_vec()),
        Opcode::QUERY_VPORT_COUNTER | Opcode::QUERY_VNIC_ENV => {
            (if other { vport } else { e.function }, input[..2].to_vec())
        }
        _ => (e.function, input.to_vec()),
    };
    (e.card, function, asked, path.to_owned(), life)
}

/// What a command ends the counters of.
fn ends(opcode: Opcode, input: &[u8]) -> Option<Opcode> {
    let clears = bits(input, 0x18 * 8, 1) == 1;
    match opcode {
        Opcode::ALLOC_SF | Opcode::DEALLOC_SF => Some(Opcode::QUERY_VPORT_COUNTER),
        Opcode::DEALLOC_Q_COUNTER => Some(Opcode::QUERY_Q_COUNTER),
        Opcode::DEALLOC_FLOW_COUNTER => Some(Opcode::QUERY_FLOW_COUNTER),
        Opcode::QUERY_VPORT_COUNTER | Opcode::QUERY_Q_COUNTER | Opcode::QUERY_FLOW_COUNTER if clears => Some(opcode),
        _ => None,
    }
}

/// What the log's counters say, in order.
#[derive(Default)]
pub(super) struct Counters {
    samples: HashMap<Key, Vec<u64>>,
    /// How often a field is not zero, whatever it is asked for.
    lively: HashMap<(u16, String), usize>,
    /// Commands, by address, to the place of their samples and the counters' life.
    place: HashMap<usize, (usize, u32)>,
}

/// A name without the numbers of list elements.
fn plain(path: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = *c == '[' || inside && *c != ']';
        !inside
    };
    path.chars().filter(keep).collect()
}

fn address(c: &Command) -> usize {
    std::ptr::from_ref(c) as usize
}

impl Counters {
    pub(super) fn read(trace: &Trace) -> Self {
        let mut all = Self::default();
        let mut lives: HashMap<(u8, Opcode), u32> = HashMap::new();
        for e in &trace.entries {
            let What::Command(c) = &e.what else { continue };
            let (input, output) = (c.input(), c.output());
            let kind = match c.opcode() {
                Opcode::QUERY_VNIC_ENV => Opcode::QUERY_VPORT_COUNTER,
                other => other,
            };
            let life = lives.get(&(e.card, kind)).copied().unwrap_or(0);
            if c.answered && c.status() == 0 {
                walk(&input, Side::Output, &output, |leaf, block| {
                    let counts = is_counter(c.opcode(), leaf.of, leaf.path);
                    let Some(v) = leaf.value(block).filter(|_| counts) else { return };
                    let samples = all.samples.entry(key(e, c.opcode(), &input, leaf.path, life)).or_default();
                    all.place.insert(address(c), (samples.len(), life));
                    samples.push(v);
                    *all.lively.entry((c.opcode().0, plain(leaf.path))).or_default() += usize::from(v != 0);
                });
            }
            if let Some(kind) = ends(c.opcode(), &input) {
                *lives.entry((e.card, kind)).or_default() += 1;
            }
        }
        all
    }

    /// Goes it with the samples before and after, and with its neighbours? A
    /// log of this very model (`same_make`) has no counter that counts once.
    pub(super) fn sound(
        &self,
        e: &Entry,
        c: &Command,
        (path, name): (&str, &str),
        value: u64,
        same_make: bool,
    ) -> bool {
        let input = c.input();
        let (at, life) = self.place.get(&address(c)).copied().unwrap_or_default();
        let series =
            |path: &str| self.samples.get(&key(e, c.opcode(), &input, path, life)).map_or(&[][..], Vec::as_slice);
        let samples = series(path);
        let before = at.checked_sub(1).and_then(|i| samples.get(i)).copied().unwrap_or(0);
        let after = samples.get(at + 1).copied().unwrap_or(u64::MAX);
        let lively = self.lively.get(&(c.opcode().0, plain(path))).copied().unwrap_or(0);
        if value >= LIMIT || value < before || value > after || same_make && lively < 2 {
            return false;
        }
        let twins = [
            ("a_frames_transmitted", "a_octets_transmitted"),
            ("a_frames_received", "a_octets_received"),
            ("packets", "octets"),
        ];
        let twin = twins.iter().find_map(|(frames, octets)| match (name.contains(frames), name.contains(octets)) {
            (true, _) => Some((true, path.replace(frames, octets))),
            (_, true) => Some((false, path.replace(octets, frames))),
            _ => None,
        });
        let Some((frames, twin)) = twin.filter(|_| !name.ends_with("_high")) else { return true };
        let other = series(&twin).get(at).copied().unwrap_or(0);
        let (frames, octets) = if frames { (value, other) } else { (other, value) };
        octets >= frames.saturating_mul(FRAME.0) && octets <= frames.saturating_mul(FRAME.1)
    }
}
