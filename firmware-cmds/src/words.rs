//! Small structures that are made in registers: entries of queues.

use std::marker::PhantomData;

use crate::layout::{Bytes, Field, Field64, Layout};

/// A structure of `N` words of 64 bits that is being made; all zero at first. Fields that are
/// known where it is used cost no access to memory until it is written whole.
#[derive(Debug)]
pub struct Words<S, const N: usize> {
    words: [u64; N],
    of: PhantomData<fn() -> S>,
}

impl<S: Layout, const N: usize> Default for Words<S, N> {
    fn default() -> Self {
        Self { words: [0; N], of: PhantomData }
    }
}

impl<S: Layout, const N: usize> Words<S, N> {
    const FITS: () = assert!(S::SIZE == 8 * N, "as many words as the structure has");

    /// A structure of zeros.
    #[inline(always)]
    pub fn new() -> Self {
        let () = Self::FITS;
        Self::default()
    }

    /// Sets a field of up to 32 bits. The value must fit: a wider one is a
    /// fault of ours, caught in debug builds and cut in release builds.
    #[inline(always)]
    pub fn set(&mut self, f: Field<S>, value: u32) -> &mut Self {
        debug_assert!(value <= f.max(), "{value:#x} does not fit {} bits of {}", f.width(), S::NAME);
        let shift = 64 - f.bit() % 64 - f.width();
        let word = &mut self.words[f.bit() as usize / 64];
        *word = *word & !(u64::from(f.max()) << shift) | u64::from(value & f.max()) << shift;
        self
    }

    /// Sets a field of 64 bits.
    #[inline(always)]
    pub fn set64(&mut self, f: Field64<S>, value: u64) -> &mut Self {
        match f.offset() {
            at if at % 8 == 0 => self.words[at / 8] = value,
            at => self.put(at, &value.to_be_bytes()),
        }
        self
    }

    /// Writes a field of bytes; a shorter value leaves the rest as it is.
    #[inline(always)]
    pub fn set_bytes(&mut self, f: Bytes<S>, value: &[u8]) -> &mut Self {
        self.put(f.offset(), &value[..value.len().min(f.count())]);
        self
    }

    #[inline(always)]
    fn put(&mut self, at: usize, value: &[u8]) {
        for (at, byte) in (at..).zip(value) {
            let shift = 56 - 8 * (at % 8);
            let word = &mut self.words[at / 8];
            *word = *word & !(0xff << shift) | u64::from(*byte) << shift;
        }
    }

    /// Its words, each as the number that its bytes in memory are (most significant first).
    #[inline(always)]
    pub fn words(&self) -> &[u64; N] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::Cqe64;
    use crate::layout::ViewMut;

    #[test]
    fn what_is_made_of_words_is_what_is_made_of_bytes() {
        let mut words = Words::<Cqe64, 8>::new();
        let mut bytes = [0; 64];
        let mut view = ViewMut::<Cqe64>::new(&mut bytes);
        words.set(Cqe64::owner, 1).set(Cqe64::owner, 0).set64(Cqe64::timestamp, 0x0123_4567_89ab_cdef);
        view.set64(Cqe64::timestamp, 0x0123_4567_89ab_cdef);
        for (n, f) in
            [Cqe64::opcode, Cqe64::qpn, Cqe64::byte_cnt, Cqe64::check_sum, Cqe64::wqe_counter].iter().enumerate()
        {
            let value = 0x1234_5678 >> n & f.max();
            words.set(*f, value);
            view.set(*f, value);
        }
        words.set_bytes(Cqe64::error_syndromes, &[7, 9]);
        view.set_bytes(Cqe64::error_syndromes, &[7, 9]);
        let made: Vec<u8> = words.words().iter().flat_map(|w| w.to_be_bytes()).collect();
        assert_eq!(made, bytes);
    }
}
