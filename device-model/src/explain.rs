//! Explains what became of a frame: every table, rule and decision on its way.
//!
//! Off by default; the packet path then looks at one flag a frame.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use crate::fabric::tir::Tir;
use crate::packet::Frame;
use crate::steering::trace::{Metadata, why};
use crate::steering::{Step, Verdict};

/// Takes explanations, one frame a call.
pub type Output = Arc<dyn Fn(&str) + Send + Sync>;

struct Request {
    words: Vec<String>,
    output: Output,
}

/// Decides which frames are explained.
#[derive(Default)]
pub struct Explainer {
    request: ArcSwapOption<Request>,
    left: AtomicU32,
}

impl Explainer {
    /// Explains the next `count` frames whose one-line summary (as an
    /// explanation begins) contains every word of `filter`, whatever its case.
    pub fn start(&self, filter: &str, count: u32, output: Output) {
        let words = filter.split_whitespace().map(str::to_lowercase).collect();
        self.left.store(count, Relaxed);
        self.request.store(Some(Arc::new(Request { words, output })));
    }

    /// Explains no more.
    pub fn stop(&self) {
        self.left.store(0, Relaxed);
        self.request.store(None);
    }

    /// Whether frames are looked for.
    pub fn is_on(&self) -> bool {
        self.left.load(Relaxed) != 0
    }

    /// A record for this frame, if it is to be explained.
    pub fn begin(&self, from: impl FnOnce() -> String, frame: &Frame<'_>) -> Option<Record> {
        if self.left.load(Relaxed) == 0 {
            return None;
        }
        let request = self.request.load_full()?;
        let head = format!("{}: {frame}", from());
        let lower = head.to_lowercase();
        if !request.words.iter().all(|w| lower.contains(w)) {
            return None;
        }
        self.left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).ok()?;
        Some(Record { text: head, output: request.output.clone() })
    }
}

/// The way of one frame so far.
pub struct Record {
    text: String,
    output: Output,
}

impl Record {
    /// Adds a line.
    pub fn note(&mut self, line: impl std::fmt::Display) {
        let _ = write!(self.text, "\n  {line}");
    }

    /// Adds what a step of the flow tables did.
    pub fn step(&mut self, step: Step<'_, Tir>) {
        match step {
            Step::Enter { table, metadata } => {
                let m = registers(metadata);
                self.note(format_args!("table {:#x} {:?} level {}{m}", table.id(), table.kind, table.level));
            }
            Step::Miss { group, packet } => {
                self.note(format_args!(
                    "  group {:#x} [{}..={}]: {}",
                    group.id,
                    group.start,
                    group.end,
                    why(group, packet)
                ));
            }
            Step::Hit { group, fte } => {
                let actions = fte.actions.flags.names().join(" ").to_lowercase();
                self.note(format_args!("  group {:#x} entry {}: {actions}", group.id, fte.index));
            }
            Step::Acted { done, metadata, .. } => {
                let how = if done { "done" } else { "could not be done" };
                self.note(format_args!("  actions {how}{}", registers(metadata)));
            }
            Step::Copy { number } => self.note(format_args!("copy {number}")),
            Step::End { verdict } => match verdict {
                Verdict::Tir { id, .. } => self.note(format_args!("→ TIR {id:#x}")),
                Verdict::Vport { num, .. } => self.note(format_args!("→ vport {num:#x}")),
                Verdict::Uplink { .. } => self.note("→ uplink"),
                Verdict::VhcaRx { vhca_id } => self.note(format_args!("→ vhca {vhca_id:#x}")),
                Verdict::Allow => self.note("→ allowed"),
                Verdict::Default => self.note("→ no rule: default of the domain"),
                Verdict::SwitchDomain => self.note("→ no rule: next domain"),
                Verdict::Drop(reason) => self.note(format_args!("→ dropped: {reason:?}")),
            },
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        (self.output)(&self.text);
    }
}

fn registers(m: Metadata) -> String {
    let mut s = String::new();
    if m.reg_a != 0 {
        let _ = write!(s, " reg_a={:#x}", m.reg_a);
    }
    for (i, r) in m.reg_c.iter().enumerate().filter(|(_, r)| **r != 0) {
        let _ = write!(s, " reg_c{i}={r:#x}");
    }
    s
}
