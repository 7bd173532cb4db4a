//! Layouts of vfio-user payloads.
//!
//! Offsets count from the end of the header, as in
//! `docs/interop/vfio-user.rst`; the structures of regions and interrupts are
//! those of `linux/vfio.h`.

use super::error::Reject;
use super::protocol::{Command, IRQ_COUNT, IRQ_INTX, REGION_COUNT, u16_at, u32_at, u64_at};

/// Checks that a payload has exactly `expected` bytes.
pub(crate) fn exact(command: Command, payload: &[u8], expected: usize) -> Result<(), Reject> {
    if payload.len() == expected { Ok(()) } else { Err(Reject::PayloadSize { command, got: payload.len(), expected }) }
}

fn at_least(command: Command, payload: &[u8], expected: usize) -> Result<(), Reject> {
    if payload.len() >= expected { Ok(()) } else { Err(Reject::PayloadSize { command, got: payload.len(), expected }) }
}

fn arg_size(command: Command, payload: &[u8], least: u32) -> Result<u32, Reject> {
    let got = u32_at(payload, 0);
    if got < least { Err(Reject::ArgSize { command, got, least }) } else { Ok(got) }
}

/// `VERSION` without its data.
pub(crate) struct VersionRequest<'a> {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    /// The capability string with its NUL; empty if there is none.
    pub(crate) data: &'a [u8],
}

impl<'a> VersionRequest<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Reject> {
        at_least(Command::Version, payload, 4)?;
        Ok(Self { major: u16_at(payload, 0), minor: u16_at(payload, 2), data: payload.get(4..).unwrap_or_default() })
    }
}

/// `DMA_MAP`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DmaMapRequest {
    pub(crate) flags: u32,
    /// Offset in the descriptor's file.
    pub(crate) offset: u64,
    /// I/O virtual address.
    pub(crate) address: u64,
    pub(crate) size: u64,
}

impl DmaMapRequest {
    /// The payload, as [`Self::parse`] reads it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { flags, offset, address, size } = self;
        let words = [32u32.to_ne_bytes(), flags.to_ne_bytes()].concat();
        [words, [offset.to_ne_bytes(), address.to_ne_bytes(), size.to_ne_bytes()].concat()].concat()
    }

    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Reject> {
        exact(Command::DmaMap, payload, 32)?;
        arg_size(Command::DmaMap, payload, 32)?;
        Ok(Self {
            flags: u32_at(payload, 4),
            offset: u64_at(payload, 8),
            address: u64_at(payload, 16),
            size: u64_at(payload, 24),
        })
    }
}

/// `DMA_UNMAP`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DmaUnmapRequest {
    pub(crate) flags: u32,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

impl DmaUnmapRequest {
    /// Unmap everything; address and size are zero.
    pub(crate) const ALL: u32 = 2;

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Reject> {
        exact(Command::DmaUnmap, payload, 24)?;
        arg_size(Command::DmaUnmap, payload, 24)?;
        Ok(Self { flags: u32_at(payload, 4), address: u64_at(payload, 8), size: u64_at(payload, 16) })
    }
}

/// Parses a request of which only `argsz` counts, and returns it. The fields
/// that only a reply fills are not looked at: clients reuse the structure.
pub(crate) fn parse_device_info(payload: &[u8]) -> Result<u32, Reject> {
    exact(Command::DeviceGetInfo, payload, 16)?;
    arg_size(Command::DeviceGetInfo, payload, 16)
}

/// Appends the reply to `DEVICE_GET_INFO`: a resettable PCI device.
pub(crate) fn put_device_info(out: &mut Vec<u8>) {
    const RESET: u32 = 1;
    const PCI: u32 = 2;
    for field in [16, RESET | PCI, REGION_COUNT, IRQ_COUNT] {
        out.extend_from_slice(&field.to_ne_bytes());
    }
}

/// `argsz` and index of `DEVICE_GET_REGION_INFO`.
pub(crate) fn parse_region_info(payload: &[u8]) -> Result<(u32, u32), Reject> {
    exact(Command::DeviceGetRegionInfo, payload, 32)?;
    let argsz = arg_size(Command::DeviceGetRegionInfo, payload, 32)?;
    Ok((argsz, u32_at(payload, 8)))
}

/// The reply to `DEVICE_GET_REGION_INFO`.
pub(crate) struct RegionInfo<'a> {
    pub(crate) index: u32,
    pub(crate) size: u64,
    /// Offset in the mappable file at which the region begins.
    pub(crate) offset: u64,
    pub(crate) mappable: bool,
    /// Mappable parts (offset, size); empty for all of the region.
    pub(crate) areas: &'a [super::device::MmapArea],
}

impl RegionInfo<'_> {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    const MMAP: u32 = 4;
    const CAPS: u32 = 8;
    const BASE_LEN: usize = 32;
    const SPARSE_LEN: usize = 16;
    const AREA_LEN: usize = 16;

    /// Appends the reply, cut to its fixed part if `argsz` leaves no room for
    /// all of it; the client then asks again with the size it is told.
    /// Returns whether all of it was written.
    pub(crate) fn put(&self, argsz: u32, out: &mut Vec<u8>) -> bool {
        let caps = !self.areas.is_empty();
        let needed =
            if caps { Self::BASE_LEN + Self::SPARSE_LEN + Self::AREA_LEN * self.areas.len() } else { Self::BASE_LEN };
        let needed32 = u32::try_from(needed).unwrap_or(u32::MAX);
        let mut flags = 0;
        if self.size > 0 {
            flags |= Self::READ | Self::WRITE;
        }
        if self.mappable {
            flags |= Self::MMAP;
        }
        if caps {
            flags |= Self::CAPS;
        }
        let cap_offset = if caps { Self::BASE_LEN as u32 } else { 0 };
        for field in [needed32, flags, self.index, cap_offset] {
            out.extend_from_slice(&field.to_ne_bytes());
        }
        out.extend_from_slice(&self.size.to_ne_bytes());
        out.extend_from_slice(&self.offset.to_ne_bytes());
        if !caps {
            return true;
        }
        if argsz < needed32 {
            return false;
        }
        const SPARSE_MMAP: u16 = 1;
        const CAP_VERSION: u16 = 1;
        out.extend_from_slice(&SPARSE_MMAP.to_ne_bytes());
        out.extend_from_slice(&CAP_VERSION.to_ne_bytes());
        let count = u32::try_from(self.areas.len()).unwrap_or(u32::MAX);
        for field in [0, count, 0] {
            out.extend_from_slice(&u32::to_ne_bytes(field));
        }
        for area in self.areas {
            out.extend_from_slice(&area.offset.to_ne_bytes());
            out.extend_from_slice(&area.size.to_ne_bytes());
        }
        true
    }
}

/// The index asked for by `DEVICE_GET_IRQ_INFO`.
pub(crate) fn parse_irq_info(payload: &[u8]) -> Result<u32, Reject> {
    exact(Command::DeviceGetIrqInfo, payload, 16)?;
    arg_size(Command::DeviceGetIrqInfo, payload, 16)?;
    Ok(u32_at(payload, 8))
}

/// Appends the reply to `DEVICE_GET_IRQ_INFO`.
pub(crate) fn put_irq_info(index: u32, count: u32, out: &mut Vec<u8>) {
    const EVENTFD: u32 = 1;
    const MASKABLE: u32 = 2;
    const AUTOMASKED: u32 = 4;
    // NORESIZE stays clear: vectors are armed one at a time.
    let flags = if index == IRQ_INTX { EVENTFD | MASKABLE | AUTOMASKED } else { EVENTFD };
    for field in [16, flags, index, count] {
        out.extend_from_slice(&field.to_ne_bytes());
    }
}

/// The data of `SET_IRQS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IrqData<'a> {
    None,
    /// One byte an interrupt.
    Bool(&'a [u8]),
    /// Descriptors, or none to disarm.
    EventFd,
}

/// The action of `SET_IRQS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IrqAction {
    Mask,
    Unmask,
    Trigger,
}

/// `DEVICE_SET_IRQS`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetIrqs<'a> {
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
    pub(crate) data: IrqData<'a>,
    pub(crate) action: IrqAction,
}

impl<'a> SetIrqs<'a> {
    const LEN: usize = 20;
    const DATA_NONE: u32 = 1;
    const DATA_BOOL: u32 = 2;
    const DATA_EVENTFD: u32 = 4;
    /// The payload that arms one vector with an eventfd.
    pub(super) fn arm(index: u32, vector: u32) -> Vec<u8> {
        let words = [Self::LEN as u32, Self::DATA_EVENTFD | Self::TRIGGER, index, vector, 1];
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    const MASK: u32 = 8;
    const UNMASK: u32 = 16;
    const TRIGGER: u32 = 32;

    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Reject> {
        let command = Command::DeviceSetIrqs;
        at_least(command, payload, Self::LEN)?;
        arg_size(command, payload, Self::LEN as u32)?;
        let flags = u32_at(payload, 4);
        let count = u32_at(payload, 16);
        let rest = payload.get(Self::LEN..).unwrap_or_default();
        let action = match flags & !(Self::DATA_NONE | Self::DATA_BOOL | Self::DATA_EVENTFD) {
            Self::MASK => IrqAction::Mask,
            Self::UNMASK => IrqAction::Unmask,
            Self::TRIGGER => IrqAction::Trigger,
            _ => return Err(Reject::IrqFlags(flags)),
        };
        let (data, expected) = match flags & (Self::DATA_NONE | Self::DATA_BOOL | Self::DATA_EVENTFD) {
            Self::DATA_NONE => (IrqData::None, 0),
            Self::DATA_BOOL => (IrqData::Bool(rest), usize::try_from(count).unwrap_or(usize::MAX)),
            Self::DATA_EVENTFD => (IrqData::EventFd, 0),
            _ => return Err(Reject::IrqFlags(flags)),
        };
        if rest.len() != expected {
            let expected = Self::LEN.saturating_add(expected);
            return Err(Reject::PayloadSize { command, got: payload.len(), expected });
        }
        Ok(Self { flags, index: u32_at(payload, 8), start: u32_at(payload, 12), count, data, action })
    }
}

/// The fixed part of `REGION_READ` and `REGION_WRITE`, and of their replies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionAccess {
    /// Offset within the region.
    pub(crate) offset: u64,
    pub(crate) region: u32,
    pub(crate) count: u32,
}

impl RegionAccess {
    pub(crate) const LEN: usize = 16;

    fn at(data: &[u8], offset: usize) -> Self {
        Self { offset: u64_at(data, offset), region: u32_at(data, offset + 8), count: u32_at(data, offset + 12) }
    }

    pub(crate) fn parse_read(payload: &[u8]) -> Result<Self, Reject> {
        exact(Command::RegionRead, payload, Self::LEN)?;
        Ok(Self::at(payload, 0))
    }

    /// The access and exactly its data.
    pub(crate) fn parse_write(payload: &[u8]) -> Result<(Self, &[u8]), Reject> {
        at_least(Command::RegionWrite, payload, Self::LEN)?;
        let access = Self::at(payload, 0);
        let data = payload.get(Self::LEN..).unwrap_or_default();
        let count = usize::try_from(access.count).unwrap_or(usize::MAX);
        if data.len() != count {
            return Err(Reject::PayloadSize {
                command: Command::RegionWrite,
                got: payload.len(),
                expected: Self::LEN.saturating_add(count),
            });
        }
        Ok((access, data))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_ne_bytes());
        out.extend_from_slice(&self.region.to_ne_bytes());
        out.extend_from_slice(&self.count.to_ne_bytes());
    }
}

/// `REGION_WRITE_MULTI`: many small writes in one message.
pub(crate) struct WriteMulti<'a> {
    entries: &'a [u8],
}

impl<'a> WriteMulti<'a> {
    const ENTRY_LEN: usize = 24;
    const DATA_LEN: usize = 8;

    /// Checks the count against the length. A message may be longer than its
    /// count asks for, by whole entries: QEMU always sends room for 200.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Reject> {
        at_least(Command::RegionWriteMulti, payload, 8)?;
        let count = u64_at(payload, 0);
        let rest = payload.get(8..).unwrap_or_default();
        let wrong = Reject::MultiCount { count, got: rest.len() };
        if !rest.len().is_multiple_of(Self::ENTRY_LEN) {
            return Err(wrong);
        }
        let used = usize::try_from(count).ok().and_then(|n| n.checked_mul(Self::ENTRY_LEN));
        match used.and_then(|used| rest.get(..used)) {
            Some(entries) => Ok(Self { entries }),
            None => Err(wrong),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        (self.entries.len() / Self::ENTRY_LEN) as u64
    }

    /// The writes. An entry that claims more than its eight bytes comes with
    /// no data.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RegionAccess, Option<&'a [u8]>)> + use<'a> {
        self.entries.chunks_exact(Self::ENTRY_LEN).map(|entry| {
            let access = RegionAccess::at(entry, 0);
            let count = usize::try_from(access.count).unwrap_or(usize::MAX);
            let data = entry.get(RegionAccess::LEN..).and_then(|d| d.get(..count));
            debug_assert!(entry.len() == RegionAccess::LEN + Self::DATA_LEN);
            (access, data)
        })
    }
}
