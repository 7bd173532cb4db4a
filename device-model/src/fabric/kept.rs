//! Frames that are kept until a burst of them is together.

use super::burst::{self, KEPT, Note, Source};
use super::flows::cache::Cache;
use super::pipeline::Pipeline;
use crate::packet::checksum::Fill;
use crate::packet::{FlowKey, Frame, Sender};

/// Kept frames and what is noted of each; their memory is used again and again.
#[derive(Default)]
pub(super) struct Kept<'m> {
    /// As many as there are notes, and one that is being formed.
    frames: Vec<Frame<'m>>,
    notes: Vec<Note>,
}

impl<'m> Kept<'m> {
    /// The frame that is to be formed, behind those that are kept.
    #[inline]
    pub(super) fn next(&mut self) -> &mut Frame<'m> {
        let n = self.notes.len();
        while self.frames.len() <= n {
            self.frames.push(Frame::empty());
        }
        &mut self.frames[n]
    }

    /// The frame that was formed is kept, or goes the long way where its flow cannot be
    /// known. With `begins` it is the first of its message.
    #[inline(always)]
    pub(super) fn keep(
        &mut self,
        p: &mut Pipeline<'_>,
        cache: &mut Cache,
        from: Source<'_>,
        (sender, fill, begins): (Sender, Fill, bool),
    ) {
        let note = |key, hash| Note { key, hash, fill, reg_a: sender.reg_a, begins };
        let Some((key, hash)) = self.next().quick_key(sender) else {
            return self.cannot_keep(p, cache, from, &note(FlowKey::default(), 0));
        };
        self.notes.push(note(key, hash));
        if self.notes.len() >= KEPT {
            self.flush(p, cache, from);
        }
    }

    /// The frame that was formed goes the long way, behind those that are kept.
    #[inline(never)]
    fn cannot_keep(&mut self, p: &mut Pipeline<'_>, cache: &mut Cache, from: Source<'_>, note: &Note) {
        let at = self.notes.len();
        self.flush(p, cache, from);
        burst::long_way(p, None, from, &mut self.frames[at], note);
    }

    /// What is kept goes its way.
    #[inline(never)]
    pub(super) fn flush(&mut self, p: &mut Pipeline<'_>, cache: &mut Cache, from: Source<'_>) {
        let n = self.notes.len();
        if n > 0 {
            burst::send(p, cache, from, &mut self.frames[..n], &self.notes);
            self.notes.clear();
        }
    }
}
