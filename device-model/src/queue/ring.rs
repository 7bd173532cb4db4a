//! Guest memory of a queue.

use sfnic_firmware_cmds::{Refusal, Syndrome};

use crate::dma::{DmaAccess, DmaError, bytes_of};

/// log2 of the device's page, `MLX5_ADAPTER_PAGE_SHIFT`.
const ADAPTER_PAGE_SHIFT: u32 = 12;
/// A `page_offset` counts 64ths of a page (`MLX5_CQ_ENTRY` quantum in
/// `mlx5_umem_find_best_cq_quantized_pgoff`).
const OFFSET_QUANTA: u64 = 64;

/// The memory of a queue: a list of pages that form one circular range of
/// bytes. Positions are byte counts that may run on past the end; they wrap.
#[derive(Debug, Clone)]
pub struct Ring {
    pages: Box<[u64]>,
    page_shift: u32,
    start: u64,
    mask: u64,
}

impl Ring {
    /// A ring of `bytes` (a power of two) on pages of
    /// `4096 << log_page_size` bytes, beginning `page_offset` 64ths of a page
    /// into the first one.
    ///
    /// Refuses with QUEUE_SIZE where the size is no power of two, and with
    /// QUEUE_PAGES where the list is too short, a page is not aligned to its
    /// size or ends beyond the address space, or the offset leaves the page.
    pub fn new(pas: &[u64], log_page_size: u32, page_offset: u32, bytes: u64) -> Result<Self, Refusal> {
        let pages_refused = Refusal::param(Syndrome::QUEUE_PAGES);
        if !bytes.is_power_of_two() || bytes > 1 << 40 {
            return Err(Refusal::param(Syndrome::QUEUE_SIZE));
        }
        if log_page_size > 31 || u64::from(page_offset) >= OFFSET_QUANTA {
            return Err(pages_refused);
        }
        let page_shift = ADAPTER_PAGE_SHIFT + log_page_size;
        let page = 1u64 << page_shift;
        let start = u64::from(page_offset) * (page / OFFSET_QUANTA);
        let need = (start + bytes).div_ceil(page);
        // An address is at most 2^64 - page, so no entry's address overflows.
        let pages = usize::try_from(need).ok().and_then(|n| pas.get(..n)).ok_or(pages_refused)?;
        if pages.iter().any(|p| p % page != 0) {
            return Err(pages_refused);
        }
        Ok(Self { pages: pages.into(), page_shift, start, mask: bytes - 1 })
    }

    /// What [`Ring::new`] makes it of: pages, their size, and the offset into the first one.
    pub(crate) fn made_of(&self) -> (&[u64], u32, u32) {
        let quantum = (1u64 << self.page_shift) / OFFSET_QUANTA;
        (&self.pages, self.page_shift - ADAPTER_PAGE_SHIFT, (self.start / quantum) as u32)
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.mask + 1
    }

    /// Never: a ring has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The address of byte `at` and how many bytes follow it in one piece:
    /// to the end of the page or of the ring.
    #[inline(always)]
    fn span(&self, at: u64) -> (u64, usize) {
        let at = at & self.mask;
        let pos = self.start + at;
        let page = 1u64 << self.page_shift;
        let in_page = pos & (page - 1);
        let left = (page - in_page).min(self.len() - at);
        let index = (pos >> self.page_shift) as usize;
        // The constructor keeps as many pages as the last byte needs.
        (self.pages[index] + in_page, left as usize)
    }

    /// The IOVA of byte `offset` of entry `index`, of `stride` bytes each.
    pub fn addr(&self, index: u64, stride: u64, offset: u64) -> u64 {
        self.span(index.wrapping_mul(stride).wrapping_add(offset)).0
    }

    /// Where a range of at most the ring's bytes lies, from position `at` on: IOVAs and lengths.
    pub(super) fn each_piece(&self, at: u64, len: usize, mut each: impl FnMut(u64, u32)) {
        // None that fails.
        let _ = self.pieces(at, len, |iova, part| {
            each(iova, part.len() as u32);
            Ok(())
        });
    }

    /// Splits a range into contiguous pieces: IOVA and the part of the range.
    fn pieces(
        &self,
        at: u64,
        len: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        let mut done = 0;
        while done < len {
            let (iova, left) = self.span(at.wrapping_add(done as u64));
            let n = left.min(len - done);
            each(iova, done..done + n)?;
            done += n;
        }
        Ok(())
    }

    /// Copies out of the ring from byte `at`, around its end where needed.
    #[inline]
    pub fn read(&self, mem: &impl DmaAccess, at: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let (iova, left) = self.span(at);
        if buf.len() <= left {
            return mem.dma_read(iova, buf);
        }
        self.read_pieces(mem, at, buf)
    }

    #[cold]
    fn read_pieces(&self, mem: &impl DmaAccess, at: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        self.pieces(at, buf.len(), |iova, part| mem.dma_read(iova, &mut buf[part]))
    }

    /// As [`Ring::publish`] of an entry of 64 bytes that does not wrap, made of words.
    #[inline(always)]
    pub fn publish_words(&self, mem: &impl DmaAccess, at: u64, entry: &[u64; 8]) -> Result<(), DmaError> {
        let (iova, left) = self.span(at);
        if left >= size_of_val(entry) {
            return mem.dma_publish_words(iova, entry);
        }
        self.publish(mem, at, &bytes_of(entry))
    }

    /// Writes an entry at byte `at`; its last byte is written last, ordered
    /// after the others, so that it can carry the ownership.
    #[inline(always)]
    pub fn publish(&self, mem: &impl DmaAccess, at: u64, entry: &[u8]) -> Result<(), DmaError> {
        let (iova, left) = self.span(at);
        if entry.len() <= left {
            return mem.dma_publish(iova, entry);
        }
        let Some((&owner, body)) = entry.split_last() else { return Ok(()) };
        self.pieces(at, body.len(), |iova, part| mem.dma_write(iova, &body[part]))?;
        mem.dma_publish8(self.span(at.wrapping_add(body.len() as u64)).0, owner)
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;
    use crate::dma::Memory;

    fn memory() -> Memory {
        Memory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
    }

    #[test]
    fn bytes_wrap_around_pages_and_the_ring_end() {
        let mem = memory();
        let r = Ring::new(&[0x3000, 0x1000], 0, 0, 0x2000).unwrap();
        assert_eq!(r.addr(0, 64, 0), 0x3000);
        assert_eq!(r.addr(64, 64, 4), 0x1004);
        assert_eq!(r.addr(128, 64, 0), 0x3000);
        r.publish(&mem, 0x1ff8, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).unwrap();
        let mut b = [0; 8];
        mem.dma_read(0x1ff8, &mut b).unwrap();
        assert_eq!(b, [1, 2, 3, 4, 5, 6, 7, 8]);
        mem.dma_read(0x3000, &mut b[..4]).unwrap();
        assert_eq!(b[..4], [9, 10, 11, 12]);
        let mut all = [0; 12];
        r.read(&mem, 0x1ff8 + (1 << 30), &mut all).unwrap();
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        // An entry across two pages.
        r.publish(&mem, 0xfff, &[7, 8]).unwrap();
        mem.dma_read(0x1000, &mut b[..1]).unwrap();
        assert_eq!(b[0], 8);
    }

    #[test]
    fn an_offset_moves_the_start_and_needs_the_next_page() {
        let mem = memory();
        assert_eq!(
            Ring::new(&[0x1000], 0, 1, 0x1000).unwrap_err().syndrome,
            Syndrome::QUEUE_PAGES,
            "0x1000 bytes from 64 on need two pages"
        );
        let r = Ring::new(&[0x1000, 0x5000, 0x9000], 0, 1, 0x1000).unwrap();
        assert_eq!(r.addr(0, 64, 0), 0x1040);
        assert_eq!(r.addr(63, 64, 0), 0x5000);
        assert_eq!(r.addr(64, 64, 0), 0x1040);
        r.publish(&mem, 0xfbf, &[1, 2]).unwrap();
        let big = Ring::new(&[0x8000], 2, 16, 0x1000).unwrap();
        assert_eq!(big.addr(0, 64, 0), 0x8000 + 16 * 256);
    }

    #[test]
    fn bad_page_lists_are_refused() {
        for (pas, log, off, bytes) in [
            (&[][..], 0, 0, 64),
            (&[0x1040][..], 0, 0, 64),
            (&[0x1000][..], 1, 0, 64),
            (&[0x1000][..], 32, 0, 64),
            (&[0x1000][..], 0, 64, 64),
            (&[0x1000][..], 0, 0, 0x2000),
            (&[0x1000][..], 0, 0, 1 << 40),
        ] {
            assert_eq!(Ring::new(pas, log, off, bytes).unwrap_err().syndrome, Syndrome::QUEUE_PAGES);
        }
        for bytes in [0, 96, 1 << 63] {
            assert_eq!(Ring::new(&[0], 31, 0, bytes).unwrap_err().syndrome, Syndrome::QUEUE_SIZE);
        }
    }

    #[test]
    fn the_top_of_the_address_space_does_not_overflow() {
        let r = Ring::new(&[u64::MAX - 0xfff], 0, 0, 0x1000).unwrap();
        assert_eq!(r.addr(63, 64, 63), u64::MAX);
        assert!(r.read(&memory(), 0xff8, &mut [0; 16]).is_err());
    }
}
