//! Numbered things that readers follow: the latest are kept. A reader says up to
//! which number it has seen them and takes what came since; one that is too slow
//! is told how many it missed.

use std::collections::VecDeque;
use std::sync::Arc;

/// The latest things.
pub(crate) struct Backlog<T> {
    /// Number of the latest one; 0 before the first.
    last: u64,
    kept: VecDeque<Arc<T>>,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { last: 0, kept: VecDeque::new() }
    }
}

impl<T> Backlog<T> {
    /// Number of the latest one; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Things that are kept, in order.
    pub(crate) fn kept(&self) -> &VecDeque<Arc<T>> {
        &self.kept
    }

    /// A new one, made with its number; no number is left out.
    pub(crate) fn push(&mut self, make: impl FnOnce(u64) -> T) {
        self.last += 1;
        self.kept.push_back(Arc::new(make(self.last)));
    }

    /// The oldest one is kept no longer.
    pub(crate) fn forget(&mut self) -> Option<Arc<T>> {
        self.kept.pop_front()
    }

    /// None is kept any longer, nor room for them; the numbers go on.
    pub(crate) fn clear(&mut self) {
        self.kept = VecDeque::new();
    }

    /// How many a reader who has seen number `seen` missed, and at most `most` of
    /// those that came since.
    pub(crate) fn since(&self, seen: u64, most: usize) -> (u64, Vec<Arc<T>>) {
        let first = self.last + 1 - self.kept.len() as u64;
        let lost = first.saturating_sub(seen.saturating_add(1));
        let skip = seen.saturating_add(1).saturating_sub(first);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        (lost, self.kept.iter().skip(skip).take(most).cloned().collect())
    }
}
