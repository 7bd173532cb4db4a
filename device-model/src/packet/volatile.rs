//! Sums of guest memory, read through a pointer: they would otherwise cost a
//! second copy of every payload. [`crate::small`] alone does the like.
#![allow(unsafe_code, reason = "sums read guest memory in place")]

use super::checksum::Sum;
use super::frame::GuestSlice;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
/// Words read at once, whose sums are independent of each other.
const LANES: usize = 4;
/// Bytes of these.
const BLOCK: usize = WORD * LANES;

/// Adds the first `len` bytes of a slice, as many as it has, to a sum that
/// starts at an even offset.
pub(super) fn add_to(sum: &mut Sum, slice: &GuestSlice<'_>, len: usize) {
    let guard = slice.ptr_guard();
    let (start, len) = (guard.as_ptr(), guard.len().min(len));
    if len < WORD {
        let mut few = [0; WORD];
        slice.copy_to(&mut few[..len]);
        return sum.add(&few[..len]);
    }
    // Sums of words with their carries: an addition and one of the carry a word, which is
    // more than the compiler makes of vectors.
    let mut lanes = [0u128; LANES];
    for at in (0..len / BLOCK).map(|i| i * BLOCK) {
        // SAFETY: a `VolatileSlice` guarantees `guard.len()` readable bytes at
        // its pointer for as long as the guard lives, and `at + BLOCK` is no more
        // than `len`, which is no more than those. The read needs no alignment, and
        // any bytes are words. The guest may write at the same time: each block is
        // copied once into a value of ours, as `VolatileSlice::copy_to` does, and
        // whatever it holds only enters a sum; nothing is decided by it.
        let block = unsafe { start.add(at).cast::<[u64; LANES]>().read_unaligned() };
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane += u128::from(word);
        }
    }
    // SAFETY: as above, of `WORD` bytes at `at`, where `at + WORD <= len`.
    let word = |at: usize| unsafe { start.add(at).cast::<u64>().read_unaligned() };
    let mut total: u128 = lanes.iter().sum();
    for at in (len / BLOCK * BLOCK..len / WORD * WORD).step_by(WORD) {
        total += u128::from(word(at));
    }
    let rest = len % WORD;
    if rest > 0 {
        // In front of zeros, as the bytes of a shorter word.
        let last = u64::from_le(word(len - WORD)) >> (8 * (WORD - rest));
        total += u128::from(last.to_le());
    }
    sum.words(total);
}
