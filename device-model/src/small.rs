//! Copies of few bytes between guest memory and ours, in pieces whose length the compiler knows:
//! a call that copies any number of bytes costs more than copying sixty-four.
#![allow(unsafe_code, reason = "guest memory is read and written in place")]

use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::VolatileSlice;

/// Most bytes that are copied so.
const MOST: usize = 256;
/// Bytes of a piece.
const PIECE: usize = 32;

/// Copies as many bytes as both have out of guest memory. Each is read at least once, some twice,
/// and what arrives is what the rest of the device sees.
#[inline(always)]
pub(crate) fn read(from: &VolatileSlice<'_, ()>, to: &mut [u8]) {
    let len = to.len().min(from.len());
    if !(PIECE..=MOST).contains(&len) {
        from.copy_to(to);
        return;
    }
    let guard = from.ptr_guard();
    each_piece(len, |at| {
        if let Some(room) = to.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<PIECE>) {
            // SAFETY: a `VolatileSlice` guarantees `from.len()` readable bytes at its pointer for
            // as long as the guard lives, and `each_piece` ends at `len`, which is not more. An
            // array of bytes needs no alignment and any bytes are one. The guest may write at the
            // same time: the bytes are copied into memory of ours, as `VolatileSlice::copy_to`
            // does, and only what has arrived there is looked at.
            *room = unsafe { guard.as_ptr().add(at).cast::<[u8; PIECE]>().read() };
        }
    });
}

/// Copies as many bytes as both have into guest memory.
#[inline(always)]
pub(crate) fn write(to: &VolatileSlice<'_, ()>, from: &[u8]) {
    let len = from.len().min(to.len());
    if !(PIECE..=MOST).contains(&len) {
        to.copy_from(from);
        return;
    }
    let guard = to.ptr_guard_mut();
    each_piece(len, |at| {
        if let Some(piece) = from.get(at..).and_then(<[u8]>::first_chunk::<PIECE>) {
            // SAFETY: as in `read`, of writable bytes; nothing of ours is at the same place, for a
            // `VolatileSlice` is never lent as a reference.
            unsafe { guard.as_ptr().add(at).cast::<[u8; PIECE]>().write(*piece) };
        }
    });
}

/// Writes big-endian words, the last of them in one piece and ordered after the others. None, and
/// nothing written, where it is not aligned, or they do not fit.
#[inline(always)]
pub(crate) fn publish(to: &VolatileSlice<'_, ()>, words: &[u64; 8]) -> Option<()> {
    let [body @ .., last] = words;
    let guard = to.ptr_guard_mut();
    if to.len() < size_of_val(words) || !(guard.as_ptr() as usize).is_multiple_of(align_of::<u64>()) {
        return None;
    }
    for (i, word) in body.iter().enumerate() {
        // SAFETY: as in `write`: the slice has room for all words.
        unsafe { guard.as_ptr().cast::<u64>().add(i).write_unaligned(word.to_be()) };
    }
    // SAFETY: as above, and aligned; other threads of ours reach it as atomics only, if at all.
    unsafe { AtomicU64::from_ptr(guard.as_ptr().cast::<u64>().add(body.len())) }.store(last.to_be(), Ordering::Release);
    Some(())
}

/// Where pieces begin that together are the first `len` bytes, at least one piece: the last one
/// may overlap the one before it.
#[inline(always)]
fn each_piece(len: usize, mut piece: impl FnMut(usize)) {
    piece(0);
    if len > 2 * PIECE {
        (PIECE..len - PIECE).step_by(PIECE).for_each(&mut piece);
    }
    piece(len - PIECE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_and_none_beside_them() {
        for len in 0..300 {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + 1) as u8).collect();
            let mut guest = vec![0xee; 400];
            let all = VolatileSlice::from(&mut guest[..]);
            write(&all.subslice(3, len).unwrap(), &bytes);
            let mut back = vec![0xdd; len];
            read(&all.subslice(3, len).unwrap(), &mut back);
            assert_eq!(back, bytes);
            assert_eq!(&guest[3..3 + len], &bytes);
            assert!(guest[..3].iter().chain(&guest[3 + len..]).all(|b| *b == 0xee), "{len}");
        }
    }

    #[test]
    fn the_shorter_one_decides() {
        let mut guest = [7; 40];
        let all = VolatileSlice::from(&mut guest[..]);
        let mut to = [0; 60];
        read(&all, &mut to);
        assert!(to[..40] == [7; 40] && to[40..] == [0; 20]);
        write(&all, &[9; 60]);
        assert_eq!(guest, [9; 40]);
    }

    #[test]
    fn words_are_published_where_they_are_aligned_and_fit() {
        let mut guest = [0u64; 10];
        let bytes = guest.as_mut_ptr().cast::<u8>();
        // SAFETY: the array outlives the slice and is not used meanwhile.
        let all = unsafe { VolatileSlice::new(bytes, size_of_val(&guest)) };
        let words = std::array::from_fn(|i| 0x0102_0304_0506_0700 + i as u64);
        assert!(publish(&all.subslice(8, 64).unwrap(), &words).is_some());
        assert!(publish(&all.subslice(4, 64).unwrap(), &words).is_none());
        assert!(publish(&all.subslice(0, 63).unwrap(), &words).is_none());
        assert_eq!((guest[0], guest[1..9].to_vec(), guest[9]), (0, words.map(u64::to_be).to_vec(), 0));
    }
}
