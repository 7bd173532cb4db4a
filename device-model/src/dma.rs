//! Guest memory as the device sees it: bounds-checked at every access, through
//! a snapshot that the owner of the mapping may replace at any time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, Guard};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, VolatileSlice};

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
}

impl Default for Dma {
    fn default() -> Self {
        Self { map: ArcSwap::from_pointee(Memory::new()) }
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
        let old = self.map.swap(new);
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
    }
}
