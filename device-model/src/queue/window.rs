//! WQEs, read from their ring some at a time.

use super::ring::Ring;
use super::wqe::MAX_WQE;
use crate::dma::{DmaAccess, DmaError};

/// Bytes that are read at once where so many are posted.
const AHEAD: usize = 512;

/// A copy of posted bytes of a ring. Each is read once from the time that it is
/// posted until it is used: what is checked is what is used.
#[derive(Debug)]
pub(super) struct Window {
    bytes: [u8; MAX_WQE],
    /// Position in the ring of the first byte, which never wraps within a window.
    at: u64,
    len: usize,
    /// Where the WQE that was asked for last begins.
    last: usize,
}

/// A window, to be kept.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedWindow {
    bytes: Vec<u8>,
    at: u64,
    last: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { bytes: [0; MAX_WQE], at: 0, len: 0, last: 0 }
    }
}

impl Window {
    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// The `len` bytes of the ring from position `at` on, at most [`MAX_WQE`].
    /// Of the ring `there` bytes from `at` on are posted, and may be read with them.
    #[inline]
    pub(super) fn get(
        &mut self,
        ring: &Ring,
        mem: &impl DmaAccess,
        at: u64,
        len: usize,
        there: usize,
    ) -> Result<&[u8], DmaError> {
        let from = usize::try_from(at.wrapping_sub(self.at)).unwrap_or(usize::MAX);
        if from.checked_add(len).is_none_or(|end| end > self.len) {
            self.read(ring, mem, (at, len, there))?;
        } else {
            self.last = from;
        }
        self.bytes.get(self.last..self.last + len).ok_or(DmaError { iova: at, len })
    }

    /// The same, of which some may have been read already.
    #[inline(never)]
    fn read(
        &mut self,
        ring: &Ring,
        mem: &impl DmaAccess,
        (at, len, there): (u64, usize, usize),
    ) -> Result<(), DmaError> {
        let from = usize::try_from(at.wrapping_sub(self.at)).unwrap_or(usize::MAX);
        let have = self.len.saturating_sub(from);
        if have > 0 {
            self.bytes.copy_within(from..from + have, 0);
        }
        (self.at, self.len, self.last) = (at, have, 0);
        let begin = at.wrapping_add(have as u64);
        // Whether what is behind the WQE can be read is no matter of this one.
        let more = there.clamp(len, AHEAD.max(len));
        for end in [more, len] {
            let Some(room) = self.bytes.get_mut(have..end) else { continue };
            match ring.read(mem, begin, room) {
                Ok(()) => {
                    self.len = end;
                    return Ok(());
                }
                Err(e) if end == len => return Err(e),
                Err(_) => {}
            }
        }
        Err(DmaError { iova: at, len })
    }

    /// Its bytes, where they are in the ring, and where among them the last WQE begins.
    pub(super) fn save(&self) -> SavedWindow {
        SavedWindow { bytes: self.bytes.get(..self.len).unwrap_or(&[]).to_vec(), at: self.at, last: self.last as u32 }
    }

    /// None where there cannot be such a one.
    pub(super) fn restore(saved: &SavedWindow) -> Option<Self> {
        let mut window = Self { at: saved.at, len: saved.bytes.len(), last: saved.last as usize, ..Self::default() };
        window.bytes.get_mut(..window.len)?.copy_from_slice(&saved.bytes);
        // What was read may have been forgotten since; where it was has not.
        (window.last < window.bytes.len()).then_some(window)
    }

    /// The same, without what was not read.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.last..self.len).unwrap_or(&[])
    }

    /// The WQE that was asked for last, and all behind it.
    pub(super) fn last(&self) -> &[u8] {
        self.bytes.get(self.last..).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;
    use crate::dma::Memory;

    const ALL: usize = 0x1000;

    fn ring(mem: &Memory) -> Ring {
        for at in 0..ALL as u64 {
            mem.dma_write(0x1000 + at, &[(at / 16) as u8]).unwrap();
        }
        Ring::new(&[0x1000], 0, 0, ALL as u64).unwrap()
    }

    #[test]
    fn each_byte_is_read_once() {
        let mem = Memory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let r = ring(&mem);
        let mut w = Window::default();
        assert_eq!(w.get(&r, &mem, 0, 64, 256).unwrap()[63], 3);
        // The driver has no business there any more.
        mem.dma_write(0x1000, &[0xee; 256]).unwrap();
        for n in 1..4 {
            assert_eq!(w.get(&r, &mem, 64 * n, 64, 256 - 64 * n as usize).unwrap()[0], 4 * n as u8);
        }
        // A WQE that is longer than what was read of it.
        assert_eq!(w.get(&r, &mem, 192, 16, 64).unwrap()[0], 12);
        let long = w.get(&r, &mem, 192, 1008, 1024).unwrap();
        assert_eq!((long[0], long[64], long[1007]), (12, 16, 12 + 62));
        // Not posted, not read.
        mem.dma_write(0x1000 + 1216, &[0xee; 16]).unwrap();
        assert_eq!(w.get(&r, &mem, 1216, 16, 16).unwrap()[0], 0xee);
    }

    #[test]
    fn positions_wrap_with_the_ring() {
        let mem = Memory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let r = ring(&mem);
        let mut w = Window::default();
        let at = 3 * ALL as u64 - 64;
        assert_eq!(w.get(&r, &mem, at, 64, 192).unwrap()[0], 0xfc);
        assert_eq!(w.get(&r, &mem, at + 64, 64, 128).unwrap()[0], 0);
        assert_eq!(w.get(&r, &mem, 0, 64, 64).unwrap()[0], 0);
        w.clear();
        mem.dma_write(0x1000, &[7; 64]).unwrap();
        assert_eq!(w.get(&r, &mem, 0, 64, 64).unwrap()[0], 7);
    }

    #[test]
    fn what_lies_behind_a_wqe_need_not_be_mapped() {
        let mem = Memory::from_ranges(&[(GuestAddress(0x1000), 0x1000)]).unwrap();
        let r = Ring::new(&[0x1000, 0x8000], 0, 0, 0x2000).unwrap();
        let mut w = Window::default();
        assert!(w.get(&r, &mem, 0xfc0, 64, 640).is_ok());
        assert!(w.get(&r, &mem, 0x1000, 64, 576).is_err());
        assert!(w.get(&r, &mem, 0xfc0, 64, 640).is_ok());
        assert!(w.get(&r, &mem, 0, 2000, 2000).is_err());
    }
}
