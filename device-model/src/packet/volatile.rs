//! Sums of guest memory, read through a pointer: they would otherwise cost a
//! second copy of every payload. [`crate::small`] alone does the like.
#![allow(unsafe_code, reason = "sums read guest memory in place")]

use super::checksum::Sum;
use super::frame::GuestSlice;

/// Bytes read at once.
const BLOCK: usize = 64;

/// Adds the first `len` bytes of a slice, as many as it has, to a sum that
/// starts at an even offset.
pub(super) fn add_to(sum: &mut Sum, slice: &GuestSlice<'_>, len: usize) {
    let guard = slice.ptr_guard();
    let len = guard.len().min(len);
    let blocks = len / BLOCK;
    let start = guard.as_ptr().cast::<[u8; BLOCK]>();
    for i in 0..blocks {
        // SAFETY: a `VolatileSlice` guarantees `guard.len()` readable bytes at
        // its pointer for as long as the guard lives, and blocks 0..=i lie in
        // its first `len`. An array of bytes needs no alignment and any bytes
        // are one. The guest may write at the same time: each block is copied
        // once into a value of ours, as `VolatileSlice::copy_to` does, and
        // whatever it holds only enters a sum; nothing is decided by it.
        let block = unsafe { start.add(i).read() };
        sum.add(&block);
    }
    let mut last = [0u8; BLOCK];
    let rest = len % BLOCK;
    if let Ok(tail) = slice.offset(len - rest) {
        tail.copy_to(&mut last[..rest]);
        sum.add(&last[..rest]);
    }
}
