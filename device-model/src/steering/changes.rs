//! What changed, so that what packets' ways have taught is forgotten where it
//! no longer holds, and only there.
//!
//! A packet's way through the tables is the answer to questions: which rule
//! does a group have for this value, which groups and which miss does a table
//! have. Each question has a [`Mark`], and the answers of one way hold until one
//! of its marks is touched. Marks are hashes: two questions may share one, and
//! then more is forgotten than need be, never less.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Marks that there are: of 8 bytes of zeroed memory each two, of which only
/// what is touched becomes real.
const MARKS: usize = 1 << 21;

/// A question that a way asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(u32);

impl Mark {
    /// Which rules a group has for a masked value.
    pub(super) fn value(group: Seed, words: impl Iterator<Item = u32>) -> Self {
        Self::of(words.fold(group.0, mix))
    }

    /// Which groups a table has, and what it does with a miss.
    pub(super) fn table(table: Seed) -> Self {
        Self::of(mix(table.0, u32::MAX))
    }

    fn of(hash: u64) -> Self {
        Self((hash >> 40) as u32 & (MARKS as u32 - 1))
    }
}

fn mix(hash: u64, word: u32) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let m = u128::from(hash ^ u64::from(word)) * u128::from(ODD);
    m as u64 ^ (m >> 64) as u64
}

/// What a table's or a group's marks begin with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64);

/// A moment: how often everything changed, and how often rules did since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment(u64);

impl Moment {
    /// How often everything changed.
    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// Of the changes to rules in this epoch, the last.
    pub fn edit(self) -> u32 {
        self.0 as u32
    }
}

/// The changes of all tables of a device.
#[derive(Default)]
pub struct Changes {
    now: AtomicU64,
    /// When each mark was touched last, as an edit of this epoch or an earlier
    /// one.
    touched: OnceLock<Box<[AtomicU32]>>,
    /// Held while something changes; the number of seeds.
    writer: Mutex<u64>,
}

impl Changes {
    /// The moment now. What is read after it is at least as new.
    pub fn now(&self) -> Moment {
        Moment(self.now.load(Ordering::Acquire))
    }

    /// Anything may have changed.
    pub fn everything(&self) {
        let _writer = self.writer.lock();
        self.now.fetch_add(1 << 32, Ordering::AcqRel);
    }

    /// Has the memory of all marks there at once, which otherwise becomes real bit
    /// by bit, as rules come and go: a device that lives long is as large on its
    /// first day as on its last.
    pub fn provide(&self) {
        const PAGE: usize = 4096 / size_of::<AtomicU32>();
        let _writer = self.writer.lock();
        let touched = self.touched.get_or_init(|| bytemuck::zeroed_slice_box(MARKS));
        touched.iter().step_by(PAGE).for_each(|t| t.store(t.load(Ordering::Relaxed), Ordering::Relaxed));
    }

    /// The answers to some questions changed.
    pub fn touch(&self, marks: impl IntoIterator<Item = Mark>) {
        let _writer = self.writer.lock();
        let touched = self.touched.get_or_init(|| bytemuck::zeroed_slice_box(MARKS));
        let mut now = self.now.load(Ordering::Relaxed) + 1;
        if now as u32 == 0 {
            // Edits are used up. Another epoch begins, and with it they start again.
            self.now.store(now, Ordering::Release);
            touched.iter().for_each(|t| t.store(0, Ordering::Relaxed));
            now += 1;
        }
        for m in marks {
            if let Some(t) = touched.get(m.0 as usize) {
                t.store(now as u32, Ordering::Relaxed);
            }
        }
        // A worker that sees the moment sees the marks.
        self.now.store(now, Ordering::Release);
    }

    /// When the last of some marks was touched, up to a moment of this epoch
    /// that was loaded before: answers that were found at an earlier edit do not
    /// hold any more.
    #[inline]
    pub fn newest(&self, marks: &[Mark]) -> u32 {
        let Some(touched) = self.touched.get() else { return 0 };
        let each = marks.iter().filter_map(|m| touched.get(m.0 as usize)).map(|t| t.load(Ordering::Relaxed));
        each.fold(0, u32::max)
    }

    /// A beginning for marks that others hardly have.
    pub(super) fn seed(&self) -> Seed {
        let mut seeds = self.writer.lock();
        *seeds += 1;
        Seed(mix(*seeds, 0))
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now = self.now();
        write!(f, "Changes({} of all, {} of rules)", now.epoch(), now.edit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(c: &Changes, marks: &[Mark], edit: u32) -> bool {
        c.newest(marks) <= edit
    }

    fn marks(c: &Changes, n: u32) -> Vec<Mark> {
        let seed = c.seed();
        (0..n).map(|i| Mark::value(seed, [i, 7].into_iter())).collect()
    }

    #[test]
    fn a_touch_ends_what_was_known_before_it() {
        let c = Changes::default();
        let m = marks(&c, 3);
        let before = c.now();
        assert!(hold(&c, &m, before.edit()));
        c.touch([m[1]]);
        let after = c.now();
        assert_eq!((before.epoch(), after.edit()), (after.epoch(), 1));
        assert!(hold(&c, &[m[0], m[2]], before.edit()) && !hold(&c, &m, before.edit()));
        assert!(hold(&c, &m, after.edit()));
        c.everything();
        assert_eq!((c.now().epoch(), c.now().edit()), (1, 1));
    }

    #[test]
    fn edits_that_are_used_up_begin_an_epoch() {
        let c = Changes::default();
        let m = marks(&c, 2);
        c.touch([m[0]]);
        c.now.store(u64::from(u32::MAX), Ordering::Relaxed);
        c.touch([m[1]]);
        let now = c.now();
        assert_eq!((now.epoch(), now.edit()), (1, 1));
        assert!(hold(&c, &[m[0]], 0) && !hold(&c, &[m[1]], 0) && hold(&c, &m, 1));
    }

    #[test]
    fn marks_are_spread() {
        let c = Changes::default();
        let mut all: Vec<Mark> = (0..4).flat_map(|_| marks(&c, 10_000)).collect();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 39_000, "few of 40000 share one: {}", all.len());
    }
}
