//! Guest memory as the device sees it: bounds-checked at every access, through
//! a snapshot that the owner of the mapping may replace at any time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, VolatileSlice};

use crate::small;

/// `PROT_WRITE` of `mmap`.
const PROT_WRITE: i32 = 2;

/// An immutable set of mapped ranges, keyed by IOVA.
pub type Memory = GuestMemoryMmap<()>;

/// The address is not mapped (or not for this kind of access).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("DMA address {iova:#x}+{len:#x} is not mapped")]
pub struct DmaError {
    /// First byte of the access.
    pub iova: u64,
    /// Length in bytes.
    pub len: usize,
}

/// The IOVA space of one PCI function, shared by its sub-functions.
#[derive(Debug)]
pub struct Dma {
    map: ArcSwap<Memory>,
    /// While nothing is to be reached: what would be.
    cut: Mutex<Option<Arc<Memory>>>,
}

impl Default for Dma {
    fn default() -> Self {
        Self { map: ArcSwap::from_pointee(Memory::new()), cut: Mutex::default() }
    }
}

impl Dma {
    /// Takes the present snapshot. Hold it for one burst, not longer: whoever
    /// unmaps memory waits until no one holds the old snapshot.
    pub fn load(&self) -> DmaGuard {
        DmaGuard(self.map.load())
    }

    /// Replaces the mapping and returns when no reader holds the former one.
    pub fn replace(&self, new: Arc<Memory>) {
        let old = match &mut *self.cut.lock() {
            Some(kept) => std::mem::replace(kept, new),
            None => self.map.swap(new),
        };
        // The swap turned every reader's guard into a counted reference.
        let mut spins = 0u32;
        while Arc::strong_count(&old) > 1 && spins < 1_000_000 {
            spins += 1;
            if spins.is_multiple_of(64) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Cuts the device off from memory, or connects it again. A burst that runs
    /// ends with what it has.
    pub(crate) fn cut(&self, cut: bool) {
        let mut kept = self.cut.lock();
        if cut && kept.is_none() {
            *kept = Some(self.map.swap(Arc::new(Memory::new())));
        } else if let Some(memory) = kept.take_if(|_| !cut) {
            self.map.store(memory);
        }
    }
}

/// A snapshot of the mapping, held for one burst of work.
pub struct DmaGuard(Guard<Arc<Memory>>);

impl std::ops::Deref for DmaGuard {
    type Target = Memory;
    fn deref(&self) -> &Memory {
        &self.0
    }
}

/// Accesses to guest memory that the device makes. Values in queues are
/// big-endian.
pub trait DmaAccess {
    /// Copies out of guest memory.
    fn dma_read(&self, iova: u64, buf: &mut [u8]) -> Result<(), DmaError>;
    /// Copies into guest memory.
    fn dma_write(&self, iova: u64, buf: &[u8]) -> Result<(), DmaError>;
    /// Reads a big-endian dword in one piece, ordered before later accesses.
    fn dma_read32(&self, iova: u64) -> Result<u32, DmaError>;
    /// Writes a byte in one piece, ordered after earlier accesses.
    fn dma_publish8(&self, iova: u64, value: u8) -> Result<(), DmaError>;
    /// Copies into guest memory, the last byte in one piece and ordered after
    /// the others.
    fn dma_publish(&self, iova: u64, buf: &[u8]) -> Result<(), DmaError>;
    /// As [`DmaAccess::dma_publish`] of big-endian words.
    fn dma_publish_words(&self, iova: u64, words: &[u64; 8]) -> Result<(), DmaError> {
        self.dma_publish(iova, &bytes_of(words))
    }
    /// The pieces of mapped memory that make up a range, in order, handed to
    /// `each`; one a mapped region, which behind an IOMMU is a page. They may be
    /// read and, if they lie in memory that only may be read, not written.
    fn dma_slices<'a>(&'a self, iova: u64, len: usize, each: impl FnMut(VolatileSlice<'a, ()>))
    -> Result<(), DmaError>;
    /// The same of memory that may be written.
    fn dma_slices_to_write<'a>(
        &'a self,
        iova: u64,
        len: usize,
        each: impl FnMut(VolatileSlice<'a, ()>),
    ) -> Result<(), DmaError>;
}

/// The access that a mapping's pages allow; a write to others would end the process.
fn allows(region: &GuestRegionMmap<()>, write: bool) -> bool {
    !write || region.prot() & PROT_WRITE != 0
}

/// Guest memory with a memory of its own for where the last access was: most
/// accesses of a burst fall into the same mapped range, and need not look it
/// up among all.
pub struct Near<'m> {
    mem: &'m Memory,
    last: Cell<Option<Last<'m>>>,
}

/// A mapped range.
#[derive(Clone, Copy)]
struct Last<'m> {
    start: u64,
    writable: bool,
    all: VolatileSlice<'m, ()>,
}

impl<'m> Near<'m> {
    /// Knows of no access yet.
    pub fn new(mem: &'m Memory) -> Self {
        Self { mem, last: Cell::new(None) }
    }

    /// The map.
    pub fn memory(&self) -> &'m Memory {
        self.mem
    }

    /// The memory of a range, where one mapped region holds all of it and allows the access.
    #[inline(always)]
    pub(crate) fn slice(&self, iova: u64, len: usize, write: bool) -> Option<VolatileSlice<'m, ()>> {
        if let Some(last) = self.last.get()
            && let Some(at) = iova.checked_sub(last.start)
            && let Ok(s) = last.all.subslice(usize::try_from(at).unwrap_or(usize::MAX), len)
        {
            return (last.writable || !write).then_some(s);
        }
        self.look_up(iova, len, write)
    }

    #[inline(never)]
    fn look_up(&self, iova: u64, len: usize, write: bool) -> Option<VolatileSlice<'m, ()>> {
        let (region, offset) = self.mem.to_region_addr(GuestAddress(iova))?;
        let all = vm_memory::GuestMemoryRegion::as_volatile_slice(region).ok()?;
        let start = iova.checked_sub(offset.raw_value())?;
        let writable = allows(region, true);
        self.last.set(Some(Last { start, writable, all }));
        all.subslice(usize::try_from(offset.raw_value()).ok()?, len).ok().filter(|_| writable || !write)
    }

    /// As [`DmaAccess::dma_slices`], the pieces living as long as the map.
    #[inline(always)]
    pub fn slices(&self, iova: u64, len: usize, mut each: impl FnMut(VolatileSlice<'m, ()>)) -> Result<(), DmaError> {
        match self.slice(iova, len, false) {
            Some(s) if len > 0 => each(s),
            _ => return self.mem.dma_slices(iova, len, each),
        }
        Ok(())
    }

    /// The same of memory that may be written.
    #[inline(always)]
    pub fn slices_to_write(
        &self,
        iova: u64,
        len: usize,
        mut each: impl FnMut(VolatileSlice<'m, ()>),
    ) -> Result<(), DmaError> {
        match self.slice(iova, len, true) {
            Some(s) if len > 0 => each(s),
            _ => return self.mem.dma_slices_to_write(iova, len, each),
        }
        Ok(())
    }
}

impl DmaAccess for Near<'_> {
    #[inline(always)]
    fn dma_read(&self, iova: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        match self.slice(iova, buf.len(), false) {
            Some(s) => {
                s.copy_to(buf);
                Ok(())
            }
            None => self.mem.dma_read(iova, buf),
        }
    }
    #[inline(always)]
    fn dma_write(&self, iova: u64, buf: &[u8]) -> Result<(), DmaError> {
        match self.slice(iova, buf.len(), true) {
            Some(s) => {
                small::write(&s, buf);
                Ok(())
            }
            None => self.mem.dma_write(iova, buf),
        }
    }
    fn dma_read32(&self, iova: u64) -> Result<u32, DmaError> {
        match self.slice(iova, 4, false).map(|s| s.load::<u32>(0, Ordering::Acquire)) {
            Some(Ok(v)) => Ok(u32::from_be(v)),
            _ => self.mem.dma_read32(iova),
        }
    }
    fn dma_publish8(&self, iova: u64, value: u8) -> Result<(), DmaError> {
        self.mem.dma_publish8(iova, value)
    }
    #[inline(always)]
    fn dma_publish(&self, iova: u64, buf: &[u8]) -> Result<(), DmaError> {
        if let Some((last, body)) = buf.split_last()
            && let Some(s) = self.slice(iova, buf.len(), true)
        {
            s.copy_from(body);
            return s.store(*last, body.len(), Ordering::Release).map_err(|_| DmaError { iova, len: buf.len() });
        }
        self.mem.dma_publish(iova, buf)
    }
    #[inline(always)]
    fn dma_publish_words(&self, iova: u64, words: &[u64; 8]) -> Result<(), DmaError> {
        if let Some(s) = self.slice(iova, size_of_val(words), true)
            && small::publish(&s, words).is_some()
        {
            return Ok(());
        }
        self.dma_publish(iova, &bytes_of(words))
    }
    #[inline(always)]
    fn dma_slices<'a>(
        &'a self,
        iova: u64,
        len: usize,
        mut each: impl FnMut(VolatileSlice<'a, ()>),
    ) -> Result<(), DmaError> {
        // The closure shortens the slices' life.
        #[expect(clippy::redundant_closure, reason = "without it the lifetimes do not fit")]
        self.slices(iova, len, |s| each(s))
    }
    #[inline(always)]
    fn dma_slices_to_write<'a>(
        &'a self,
        iova: u64,
        len: usize,
        mut each: impl FnMut(VolatileSlice<'a, ()>),
    ) -> Result<(), DmaError> {
        #[expect(clippy::redundant_closure, reason = "as above")]
        self.slices_to_write(iova, len, |s| each(s))
    }
}

/// Big-endian words as they lie in memory.
pub(crate) fn bytes_of(words: &[u64; 8]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *to = word.to_be_bytes();
    }
    bytes
}

/// The piece of memory that is a whole range, where one region holds it: one
/// look-up, and nothing to put together.
fn whole(mem: &Memory, iova: u64, len: usize, write: bool) -> Option<VolatileSlice<'_, ()>> {
    let (region, offset) = mem.to_region_addr(GuestAddress(iova))?;
    vm_memory::GuestMemoryRegion::get_slice(region, offset, len).ok().filter(|_| allows(region, write))
}

/// The pieces of a range, in order.
fn pieces<'a>(
    mem: &'a Memory,
    iova: u64,
    len: usize,
    write: bool,
    mut each: impl FnMut(VolatileSlice<'a, ()>),
) -> Result<(), DmaError> {
    if let Some(s) = whole(mem, iova, len, write).filter(|_| len > 0) {
        each(s);
        return Ok(());
    }
    let fault = DmaError { iova, len };
    let mut at = GuestAddress(iova);
    let mut left = len;
    while left > 0 {
        let (region, offset) = mem.to_region_addr(at).filter(|(r, _)| allows(r, write)).ok_or(fault)?;
        let here = (vm_memory::GuestMemoryRegion::len(region) - offset.raw_value()) as usize;
        let n = left.min(here);
        each(vm_memory::GuestMemoryRegion::get_slice(region, offset, n).map_err(|_| fault)?);
        left -= n;
        if left > 0 {
            at = at.checked_add(n as u64).ok_or(fault)?;
        }
    }
    Ok(())
}

impl DmaAccess for Memory {
    fn dma_read(&self, iova: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        if let Some(s) = whole(self, iova, buf.len(), false) {
            s.copy_to(buf);
            return Ok(());
        }
        self.read_slice(buf, GuestAddress(iova)).map_err(|_| DmaError { iova, len: buf.len() })
    }
    fn dma_write(&self, iova: u64, buf: &[u8]) -> Result<(), DmaError> {
        if let Some(s) = whole(self, iova, buf.len(), true) {
            s.copy_from(buf);
            return Ok(());
        }
        let mut rest = buf;
        pieces(self, iova, buf.len(), true, |s| {
            let (part, tail) = rest.split_at(s.len().min(rest.len()));
            s.copy_from(part);
            rest = tail;
        })
    }
    fn dma_read32(&self, iova: u64) -> Result<u32, DmaError> {
        let v: u32 = self.load(GuestAddress(iova), Ordering::Acquire).map_err(|_| DmaError { iova, len: 4 })?;
        Ok(u32::from_be(v))
    }
    fn dma_publish8(&self, iova: u64, value: u8) -> Result<(), DmaError> {
        let fault = DmaError { iova, len: 1 };
        whole(self, iova, 1, true).ok_or(fault)?.store(value, 0, Ordering::Release).map_err(|_| fault)
    }
    fn dma_publish(&self, iova: u64, buf: &[u8]) -> Result<(), DmaError> {
        let Some((last, body)) = buf.split_last() else { return Ok(()) };
        if let Some(s) = whole(self, iova, buf.len(), true) {
            s.copy_from(body);
            return s.store(*last, body.len(), Ordering::Release).map_err(|_| DmaError { iova, len: buf.len() });
        }
        self.dma_write(iova, body)?;
        self.dma_publish8(iova.wrapping_add(body.len() as u64), *last)
    }
    fn dma_slices<'a>(
        &'a self,
        iova: u64,
        len: usize,
        each: impl FnMut(VolatileSlice<'a, ()>),
    ) -> Result<(), DmaError> {
        pieces(self, iova, len, false, each)
    }
    fn dma_slices_to_write<'a>(
        &'a self,
        iova: u64,
        len: usize,
        each: impl FnMut(VolatileSlice<'a, ()>),
    ) -> Result<(), DmaError> {
        pieces(self, iova, len, true, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_the_last_access_bounds_nothing_and_allows_nothing() {
        let ranges = [(GuestAddress(0x1000), 0x1000), (GuestAddress(0x2000), 0x1000), (GuestAddress(0x8000), 0x1000)];
        let mem = Memory::from_ranges(&ranges).unwrap();
        let near = Near::new(&mem);
        for at in [0x1000u64, 0x1ff8, 0x1ffc, 0x1ffe, 0x2ff8, 0x2ffe, 0x8000, 0x7ffe, 0, u64::MAX - 1, 0x8ff8, 0x1004] {
            let want = mem.dma_write(at, &at.to_be_bytes());
            assert_eq!(near.dma_write(at, &at.to_be_bytes()), want, "{at:#x}");
            assert_eq!(near.dma_publish(at, &at.to_be_bytes()), mem.dma_publish(at, &at.to_be_bytes()), "{at:#x}");
            assert_eq!(near.dma_read32(at), mem.dma_read32(at), "{at:#x}");
            let (mut a, mut b) = ([0; 8], [1; 8]);
            assert_eq!(near.dma_read(at, &mut a), mem.dma_read(at, &mut b), "{at:#x}");
            assert!(want.is_err() || a == b && u64::from_be_bytes(a) == at);
            let (mut x, mut y) = (vec![], vec![]);
            assert_eq!(near.dma_slices(at, 8, |s| x.push(s.len())), mem.dma_slices(at, 8, |s| y.push(s.len())));
            assert!(want.is_err() || x == y);
        }
    }

    #[test]
    fn accesses_stop_at_the_end_of_the_map() {
        let dma = Dma::default();
        assert!(dma.load().dma_read32(0).is_err());
        dma.replace(Arc::new(
            Memory::from_ranges(&[(GuestAddress(0x1000), 0x1000), (GuestAddress(0x2000), 0x1000)]).unwrap(),
        ));
        let m = dma.load();
        m.dma_write(0x1ffe, &[1, 2, 3, 4]).unwrap();
        let mut lens = vec![];
        m.dma_slices(0x1ffe, 4, |s| lens.push(s.len())).unwrap();
        assert_eq!(lens, [2, 2]);
        assert!(m.dma_write(0x2ffe, &[1, 2, 3, 4]).is_err());
        let mut b = [0; 4];
        for at in [0x1ffc, 0x1ffd, 0x1ffe, 0x1fff, 0x2ffc] {
            m.dma_publish(at, &[5, 6, 7, 8]).unwrap();
            m.dma_read(at, &mut b).unwrap();
            assert_eq!(b, [5, 6, 7, 8]);
        }
        assert!(m.dma_publish(0x2ffd, &[0; 4]).is_err() && m.dma_publish(u64::MAX, &[0; 4]).is_err());
        assert!(m.dma_slices(u64::MAX - 1, 4, |_| ()).is_err());
    }

    #[test]
    fn what_may_only_be_read_is_not_written() {
        let region = |start, prot| {
            let pages = vm_memory::MmapRegion::build(None, 0x1000, prot, 0x22).unwrap();
            vm_memory::GuestRegionMmap::new(pages, GuestAddress(start)).unwrap()
        };
        let m = Memory::from_regions(vec![region(0x1000, 3), region(0x2000, 1)]).unwrap();
        let mut b = [0; 8];
        m.dma_read(0x1ffc, &mut b).unwrap();
        assert!(m.dma_slices(0x1ffc, 8, |_| ()).is_ok());
        assert!(m.dma_write(0x2000, &b).is_err() && m.dma_write(0x1ffc, &b).is_err());
        assert!(m.dma_publish8(0x2000, 1).is_err() && m.dma_publish(0x1ffc, &b).is_err());
        assert!(m.dma_slices_to_write(0x1ffc, 8, |_| ()).is_err());
        assert!(m.dma_write(0x1ff8, &b).is_ok() && m.dma_publish(0x1ff8, &b).is_ok());
        let near = Near::new(&m);
        for _ in 0..2 {
            assert!(near.dma_read(0x2000, &mut b).is_ok() && near.dma_read32(0x2000) == Ok(0));
            assert!(near.dma_write(0x2000, &b).is_err() && near.dma_write(0x1ffc, &b).is_err());
            assert!(near.dma_publish8(0x2000, 1).is_err() && near.dma_publish(0x2000, &b).is_err());
            assert!(near.dma_slices(0x2000, 8, |_| ()).is_ok());
            assert!(near.dma_slices_to_write(0x2000, 8, |_| ()).is_err());
            assert!(near.dma_slices_to_write(0x1000, 8, |_| ()).is_ok());
        }
    }
}
