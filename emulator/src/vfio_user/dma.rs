//! Guest memory as immutable snapshots.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress, MmapRegion,
    VolatileSlice,
};

use super::backing::Backing;
use super::error::Reject;
use super::payload::{DmaMapRequest, DmaUnmapRequest};
use super::protocol::PAGE_SIZE;

/// Most ranges that can be mapped at a time (`max_dma_maps`). A guest has tens
/// of them; one with an IOMMU has one for each page that its driver mapped, which
/// are some thousands a queue pair of full rings. The kernel allows a process
/// 65,530 mappings in all, and two functions have to share them.
pub const MAX_REGIONS: usize = 24 << 10;

/// What the device may do with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaAccess {
    /// Read and write.
    ReadWrite,
    /// Read only (guest ROM).
    ReadOnly,
    /// Nothing: the client sent no descriptor. Mirrored BARs are such, and
    /// all guest memory if QEMU has no memory backend.
    Inaccessible,
}

/// One mapped range of I/O virtual addresses.
#[derive(Clone)]
pub struct DmaRegion {
    start: u64,
    size: u64,
    access: DmaAccess,
    memory: Option<Arc<GuestRegionMmap>>,
}

impl DmaRegion {
    /// First address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Size in bytes, at least one page.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What may be done with it.
    pub fn access(&self) -> DmaAccess {
        self.access
    }

    /// The request that maps it, and its file.
    pub(super) fn request(&self) -> (DmaMapRequest, Option<Arc<File>>) {
        let file = self.memory.as_ref().and_then(|m| m.file_offset());
        let flags = match self.access {
            DmaAccess::ReadOnly => DmaMapRequest::READ,
            DmaAccess::ReadWrite | DmaAccess::Inaccessible => DmaMapRequest::READ | DmaMapRequest::WRITE,
        };
        let offset = file.map_or(0, FileOffset::start);
        let request = DmaMapRequest { flags, offset, address: self.start, size: self.size };
        (request, file.map(|f| f.arc().clone()))
    }

    /// One past the last address.
    fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

impl fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x} {:?}", self.start, self.size, self.access)
    }
}

/// Why an access to guest memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// The address, or part of the range, is not mapped.
    #[error("address {0:#x} is not mapped")]
    Unmapped(u64),
    /// The range is mapped and does not allow this.
    #[error("address {0:#x} does not allow this access")]
    Denied(u64),
}

/// Guest memory at one moment: sorted ranges, never changed once published.
///
/// A clone of the `Arc` it comes in keeps the memory mapped, so a device must
/// let go of it when [`dma_changed`](super::PciDevice::dma_changed) hands it
/// the next one.
#[derive(Clone, Default)]
pub struct DmaMap {
    regions: Vec<DmaRegion>,
    memory: GuestMemoryMmap,
}

impl fmt::Debug for DmaMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.regions).finish()
    }
}

impl DmaMap {
    /// A map without any memory.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A map of memory that does not come from a client (a test's, a
    /// simulation's): every region readable and writable.
    pub fn from_memory(memory: GuestMemoryMmap) -> Self {
        use vm_memory::GuestMemoryBackend;
        let regions = memory
            .iter()
            .map(|r| (r.start_addr().0, r.len(), GuestRegionMmap::with_arc(r.get_mmap(), r.start_addr())))
            .filter_map(|(start, size, memory)| {
                let memory = Some(Arc::new(memory?));
                Some(DmaRegion { start, size, access: DmaAccess::ReadWrite, memory })
            })
            .collect();
        Self { regions, memory }
    }

    fn new(regions: Vec<DmaRegion>) -> Self {
        let memory: Vec<_> = regions.iter().filter_map(|r| r.memory.clone()).collect();
        // Fails for no regions only: these are sorted and do not overlap.
        let memory = GuestMemoryMmap::from_arc_regions(memory).unwrap_or_default();
        Self { regions, memory }
    }

    /// All ranges, sorted by address.
    pub fn regions(&self) -> &[DmaRegion] {
        &self.regions
    }

    /// The ranges that may be read. Not all may be written: a range that is
    /// read-only (guest ROM, what an IOMMU lets a device only read) is mapped
    /// without write permission, and a write through `vm_memory`, which knows no
    /// permissions, would be fatal. The region's `prot()` tells.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The range that contains an address.
    pub fn find(&self, address: u64) -> Option<&DmaRegion> {
        let after = self.regions.partition_point(|r| r.start <= address);
        let region = self.regions.get(after.checked_sub(1)?)?;
        (address - region.start < region.size).then_some(region)
    }

    /// At most `len` bytes of readable and writable memory at `address`, as
    /// many as lie in one range; at least one if `len` is.
    ///
    /// # Errors
    /// [`DmaError`] with `address` if there is no memory, or no permission to
    /// write it: a slice knows no permissions.
    pub fn slice(&self, address: u64, len: usize) -> Result<VolatileSlice<'_>, DmaError> {
        self.part(address, len, true)
    }

    fn part(&self, address: u64, len: usize, write: bool) -> Result<VolatileSlice<'_>, DmaError> {
        let region = self.find(address).ok_or(DmaError::Unmapped(address))?;
        let memory = match (region.access, &region.memory) {
            (DmaAccess::ReadWrite, Some(memory)) => memory,
            (DmaAccess::ReadOnly, Some(memory)) if !write => memory,
            _ => return Err(DmaError::Denied(address)),
        };
        let offset = address - region.start;
        let len = usize::try_from(region.size - offset).unwrap_or(usize::MAX).min(len);
        memory.get_slice(MemoryRegionAddress(offset), len).map_err(|_| DmaError::Unmapped(address))
    }

    /// Reads guest memory; a range of addresses may span mapped ranges.
    ///
    /// # Errors
    /// [`DmaError`] with the first address that failed; `data` is then partly
    /// filled.
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        let mut at = address;
        let mut rest = data;
        while !rest.is_empty() {
            let slice = self.part(at, rest.len(), false)?;
            let (chunk, tail) = rest.split_at_mut(slice.len().max(1).min(rest.len()));
            slice.copy_to(chunk);
            at = at.checked_add(chunk.len() as u64).ok_or(DmaError::Unmapped(u64::MAX))?;
            rest = tail;
        }
        Ok(())
    }

    /// Writes guest memory; a range of addresses may span mapped ranges.
    ///
    /// # Errors
    /// [`DmaError`] with the first address that failed; what lies before it
    /// has been written.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        let mut at = address;
        let mut rest = data;
        while !rest.is_empty() {
            let slice = self.part(at, rest.len(), true)?;
            let (chunk, tail) = rest.split_at(slice.len().max(1).min(rest.len()));
            slice.copy_from(chunk);
            at = at.checked_add(chunk.len() as u64).ok_or(DmaError::Unmapped(u64::MAX))?;
            rest = tail;
        }
        Ok(())
    }

    /// Whether any range can be accessed.
    pub fn is_accessible(&self) -> bool {
        self.regions.iter().any(|r| r.access != DmaAccess::Inaccessible)
    }

    /// A copy with one more range.
    ///
    /// # Errors
    /// A [`Reject`] of one of the DMA kinds.
    pub(super) fn with_mapped(
        &self,
        request: &DmaMapRequest,
        fd: Option<OwnedFd>,
        backing: &mut Backing,
    ) -> Result<Self, Reject> {
        let &DmaMapRequest { flags, offset, address, size } = request;
        let wrong = |why| Reject::DmaRange { address, size, why };
        let access = match flags {
            DmaMapRequest::READ => DmaAccess::ReadOnly,
            f if f == DmaMapRequest::READ | DmaMapRequest::WRITE => DmaAccess::ReadWrite,
            DmaMapRequest::WRITE => return Err(wrong("write-only memory is not supported")),
            _ => return Err(wrong("unknown flags, or no access at all")),
        };
        if size == 0 {
            return Err(wrong("empty"));
        }
        if [address, size, offset].iter().any(|v| v % PAGE_SIZE != 0) {
            return Err(wrong("not page aligned"));
        }
        let end = address.checked_add(size).ok_or(wrong("overflows the address space"))?;
        if fd.is_none() && offset != 0 {
            return Err(wrong("file offset without a file"));
        }
        let at = self.regions.partition_point(|r| r.start < address);
        let overlaps = |r: &DmaRegion| r.start < end && address < r.end();
        let neighbours = self.regions.get(at.saturating_sub(1)..).unwrap_or_default();
        if neighbours.iter().take(2).any(overlaps) {
            return Err(Reject::DmaOverlap { address, size });
        }
        if self.regions.len() >= MAX_REGIONS {
            return Err(Reject::DmaLimit("ranges"));
        }
        let region = match fd {
            None => DmaRegion { start: address, size, access: DmaAccess::Inaccessible, memory: None },
            Some(fd) => {
                let writable = access == DmaAccess::ReadWrite;
                let file = backing.admit(fd, offset, size, writable)?;
                let memory = map(FileOffset::from_arc(file, offset), address, size, writable)?;
                DmaRegion { start: address, size, access, memory: Some(Arc::new(memory)) }
            }
        };
        let mut regions = self.regions.clone();
        regions.insert(at, region);
        Ok(Self::new(regions))
    }

    /// A copy without the ranges that lie in one, or without any; none if there is
    /// nothing to unmap, as when the client clears the address space of an IOMMU.
    ///
    /// # Errors
    /// [`Reject::DmaUnknown`] if a mapped range would have to be cut, or
    /// [`Reject::DmaRange`].
    pub(super) fn with_unmapped(&self, request: &DmaUnmapRequest) -> Result<Option<Self>, Reject> {
        let &DmaUnmapRequest { flags, address, size } = request;
        let wrong = |why| Reject::DmaRange { address, size, why };
        match flags {
            DmaUnmapRequest::ALL if address == 0 && size == 0 => Ok(Some(Self::empty())),
            DmaUnmapRequest::ALL => Err(wrong("unmap-all of a range")),
            0 => {
                let end = address.saturating_add(size);
                let first = self.regions.partition_point(|r| r.end() <= address);
                let after = self.regions.partition_point(|r| r.start < end);
                let Some(inside) = self.regions.get(first..after).filter(|found| !found.is_empty()) else {
                    return Ok(None);
                };
                if inside.iter().any(|r| r.start < address || r.end() > end) {
                    return Err(Reject::DmaUnknown { address, size });
                }
                let mut regions = self.regions.clone();
                regions.drain(first..after);
                Ok(Some(Self::new(regions)))
            }
            _ => Err(wrong("unknown flags")),
        }
    }
}

/// Maps a file whose size has been checked and cannot shrink.
///
/// The mapping is shared and reserves what it needs: a mapping without
/// reservation could fail at a later access, with a signal.
pub(crate) fn map(file: FileOffset, address: u64, size: u64, writable: bool) -> Result<GuestRegionMmap, Reject> {
    let wrong = |why| Reject::DmaRange { address, size, why };
    let len = usize::try_from(size).map_err(|_| wrong("exceeds our address space"))?;
    let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let mapping = MmapRegion::build(Some(file), len, prot, libc::MAP_SHARED).map_err(|error| {
        let source = match error {
            vm_memory::mmap::MmapRegionError::Mmap(source) => source,
            other => std::io::Error::other(other),
        };
        Reject::DmaMapping { what: "mmap", source }
    })?;
    GuestRegionMmap::new(mapping, GuestAddress(address)).ok_or(wrong("overflows the address space"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_of(ranges: &[(u64, usize)]) -> DmaMap {
        let ranges: Vec<_> = ranges.iter().map(|&(a, l)| (GuestAddress(a), l)).collect();
        DmaMap::from_memory(GuestMemoryMmap::from_ranges(&ranges).expect("anonymous memory"))
    }

    #[test]
    fn accesses_span_adjacent_ranges_and_stop_at_holes() {
        let map = map_of(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x4000, 0x1000)]);
        let data: Vec<u8> = (0..64).collect();
        map.write(0x1fe0, &data).expect("adjacent");
        let mut back = [0; 64];
        map.read(0x1fe0, &mut back).expect("adjacent");
        assert_eq!(&back[..], &data[..]);
        assert_eq!(map.read(0x2fe0, &mut back), Err(DmaError::Unmapped(0x3000)));
        assert_eq!(map.write(0xfff, &[1]), Err(DmaError::Unmapped(0xfff)));
        assert_eq!(map.read(u64::MAX, &mut back), Err(DmaError::Unmapped(u64::MAX)));
        assert_eq!(map.slice(0x2ff0, 100).expect("mapped").len(), 16);
        assert_eq!(map.read(0, &mut []), Ok(()));
    }

    #[test]
    fn ranges_without_memory_are_known_and_denied() {
        let mut backing = Backing::new(None, false);
        let request = DmaMapRequest { flags: 3, offset: 0, address: 0x8000, size: 0x1000 };
        let map = map_of(&[(0x1000, 0x1000)]).with_mapped(&request, None, &mut backing).expect("no descriptor is fine");
        assert_eq!(map.read(0x8000, &mut [0]), Err(DmaError::Denied(0x8000)));
        assert_eq!(map.find(0x8fff).map(DmaRegion::access), Some(DmaAccess::Inaccessible));
        assert!(map.find(0x9000).is_none());
    }

    #[test]
    fn whole_ranges_are_unmapped() {
        let map = map_of(&[(0x1000, 0x1000), (0x2000, 0x2000), (0x8000, 0x1000)]);
        for (address, size, left) in [
            (0x1000, 0x1000, Some(2)),
            (0x1000, 0x3000, Some(1)),
            (0, u64::MAX - 0xfff, Some(0)),
            (0x4000, 0x4000, Some(3)),
            (0x9000, 0x1000, Some(3)),
            (0x2000, 0x1000, None),
            (0x3000, 0x6000, None),
            (0x1000, 0x2000, None),
        ] {
            let request = DmaUnmapRequest { flags: 0, address, size };
            let found = map.with_unmapped(&request).map(|m| m.map_or(3, |m| m.regions().len()));
            assert_eq!(found.ok(), left, "{address:#x}+{size:#x}");
        }
    }

    #[test]
    fn overlaps_are_found_on_either_side() {
        let mut backing = Backing::new(None, false);
        let map = map_of(&[(0x2000, 0x2000), (0x8000, 0x1000)]);
        for (address, size, free) in [
            (0x1000, 0x1000, true),
            (0x1000, 0x2000, false),
            (0x3000, 0x1000, false),
            (0x4000, 0x4000, true),
            (0x4000, 0x5000, false),
            (0x0, 0x10000, false),
            (0x9000, 0x1000, true),
        ] {
            let request = DmaMapRequest { flags: 3, offset: 0, address, size };
            let result = map.with_mapped(&request, None, &mut backing);
            assert_eq!(result.is_ok(), free, "{address:#x}+{size:#x}");
        }
    }
}
