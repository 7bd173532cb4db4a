//! A split virtqueue, as the device sees it.
//!
//! Facts are from the Virtual I/O Device specification, version 1.2, section 2.7. The
//! driver's side of a ring is read once into local memory and checked there; whatever it
//! holds, a walk ends within the ring's size, and memory outside of the guest's is not
//! reached. What is wrong with a ring is a [`Fault`], which says it in words.
//!
//! The three areas of a ring are looked up once, when it starts; the driver's index is read
//! when what is known of it has been used up, ours is written for several buffers at a time.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use sfnic_device_model::dma::{Memory, Near};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion, VolatileMemory, VolatileSlice,
};

use crate::wire::Pieces;

/// Most buffers of a ring.
pub(super) const MAX_SIZE: u16 = 1024;
/// Most pieces of one chain, tables of indirect descriptors included.
const MAX_PIECES: usize = 1024;

const DESCRIPTOR: usize = 16;
const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;
/// In the driver's flags: no interrupts, please.
const NO_INTERRUPT: u16 = 1;
/// In ours: no kicks, please.
const NO_NOTIFY: u16 = 1;

/// What is wrong with a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the {0} at {1:#x} is not in guest memory")]
    Unmapped(&'static str, u64),
    #[error("the {0} at {1:#x} is not aligned")]
    Unaligned(&'static str, u64),
    #[error("a ring of {0} buffers (allowed: a power of two up to {MAX_SIZE})")]
    Size(u32),
    #[error("the driver offers {0} buffers in a ring of {1}")]
    Ahead(u16, u16),
    #[error("descriptor {0} in a table of {1}")]
    Index(u16, usize),
    #[error("a chain of more than {0} descriptors: it goes in circles")]
    Loop(usize),
    #[error("an indirect table of {0} bytes")]
    Table(u32),
    #[error("an indirect descriptor inside an indirect table, or with a next one")]
    Nested,
    #[error("a buffer of {0} bytes to {1} where the others are not")]
    Direction(u32, &'static str),
    #[error("a chain without any room")]
    Empty,
    #[error("a frame of {0} bytes")]
    Length(usize),
}

/// Where the driver put a ring, as guest addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A part of a ring, in one mapped piece of guest memory.
#[derive(Debug)]
struct Area {
    what: &'static str,
    guest: u64,
    mapping: Arc<MmapRegion<()>>,
    at: usize,
    len: usize,
}

impl Area {
    fn new(mem: &Memory, what: &'static str, guest: u64, len: usize) -> Result<Self, Fault> {
        let lacking = Fault::Unmapped(what, guest);
        let (region, at) = mem.to_region_addr(GuestAddress(guest)).ok_or_else(|| lacking.clone())?;
        let left = region.len() - at.raw_value();
        if (len as u64) > left {
            return Err(lacking);
        }
        let at = usize::try_from(at.raw_value()).map_err(|_| lacking)?;
        Ok(Self { what, guest, mapping: region.get_mmap(), at, len })
    }

    #[inline]
    fn slice(&self) -> Result<VolatileSlice<'_, ()>, Fault> {
        self.mapping.get_slice(self.at, self.len).map_err(|_| Fault::Unmapped(self.what, self.guest))
    }

    #[inline]
    fn load(&self, at: usize) -> Result<u16, Fault> {
        let value: u16 = self.slice()?.load(at, Ordering::Acquire).map_err(|_| self.wrong(at))?;
        Ok(u16::from_le(value))
    }

    #[inline]
    fn store(&self, at: usize, value: u16) -> Result<(), Fault> {
        self.slice()?.store(value.to_le(), at, Ordering::Release).map_err(|_| self.wrong(at))
    }

    /// The offset is inside of every ring; where the memory lies decides on the rest.
    #[cold]
    fn wrong(&self, at: usize) -> Fault {
        Fault::Unaligned(self.what, self.guest.wrapping_add(at as u64))
    }
}

/// A ring and how far it has been worked off.
#[derive(Debug)]
pub(super) struct Ring {
    size: u16,
    event_idx: bool,
    descriptors: Area,
    available: Area,
    used: Area,
    /// The driver's index as it was read last.
    seen: u16,
    next_available: u16,
    /// What was given back, and up to where the driver can see it.
    next_used: u16,
    published: u16,
    /// What the driver could see when it was told last.
    told: u16,
    /// Whether it was asked not to kick.
    quiet: bool,
    /// The piece of memory that the last buffer to be written was in: mostly that of the next.
    hot: Option<Hot>,
}

/// A mapped piece of guest memory.
#[derive(Debug)]
struct Hot {
    start: u64,
    mapping: Arc<MmapRegion<()>>,
}

struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Ring {
    /// A ring from position `base` on.
    pub(super) fn new(mem: &Memory, place: Place, base: u16, event_idx: bool) -> Result<Self, Fault> {
        let Place { size, descriptors, available, used } = place;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(Fault::Size(size.into()));
        }
        for (what, at, align) in
            [("descriptor table", descriptors, 16), ("available ring", available, 2), ("used ring", used, 4)]
        {
            if at % align != 0 {
                return Err(Fault::Unaligned(what, at));
            }
        }
        let n = usize::from(size);
        let event = if event_idx { 2 } else { 0 };
        let descriptors = Area::new(mem, "descriptor table", descriptors, DESCRIPTOR * n)?;
        let available = Area::new(mem, "available ring", available, 4 + 2 * n + event)?;
        let used = Area::new(mem, "used ring", used, 4 + 8 * n + event)?;
        available.load(INDEX)?;
        let next_used = used.load(INDEX)?;
        Ok(Self {
            size,
            event_idx,
            descriptors,
            available,
            used,
            seen: base,
            next_available: base,
            next_used,
            published: next_used,
            told: next_used,
            quiet: false,
            hot: None,
        })
    }

    /// The position to go on from.
    pub(super) fn base(&self) -> u16 {
        self.next_available
    }

    /// Whether more than `n` chains wait that were not taken yet.
    #[inline]
    pub(super) fn has_more_than(&mut self, n: u16) -> Result<bool, Fault> {
        if self.seen.wrapping_sub(self.next_available) > n {
            return Ok(true);
        }
        let index = self.available.load(INDEX)?;
        let ahead = index.wrapping_sub(self.next_available);
        if ahead > self.size {
            return Err(Fault::Ahead(ahead, self.size));
        }
        self.seen = index;
        Ok(ahead > n)
    }

    /// Asks to be kicked for the next chain after `n`, and whether there is one already.
    pub(super) fn ask(&mut self, n: u16) -> Result<bool, Fault> {
        self.publish()?;
        if self.event_idx {
            let at = 4 + 8 * usize::from(self.size);
            self.used.store(at, self.next_available.wrapping_add(n))?;
        } else {
            self.used.store(FLAGS, 0)?;
        }
        self.quiet = false;
        fence(Ordering::SeqCst);
        self.has_more_than(n)
    }

    /// No kicks are needed until [`Self::ask`].
    #[inline]
    pub(super) fn be_quiet(&mut self) -> Result<(), Fault> {
        // With an event index nothing is asked for beyond what was.
        if !self.quiet && !self.event_idx {
            self.used.store(FLAGS, NO_NOTIFY)?;
        }
        self.quiet = true;
        Ok(())
    }

    /// The `n`th chain that was not taken yet: its head, and its pieces, all to be written
    /// or all to be read. There have to be more than `n` waiting.
    #[inline]
    pub(super) fn chain<'m>(
        &self,
        near: &Near<'m>,
        n: u16,
        write: bool,
        pieces: &mut Pieces<'m>,
    ) -> Result<u16, Fault> {
        let slot = usize::from(self.next_available.wrapping_add(n) & (self.size - 1));
        let head = self.available.load(ELEMENTS + 2 * slot)?;
        let (mut index, mut table, mut count) = (head, None, 0);
        loop {
            count += 1;
            if count > MAX_PIECES {
                return Err(Fault::Loop(MAX_PIECES));
            }
            let d = match table {
                None => self.descriptor(index)?,
                Some(table) => indirect(near.memory(), table, index)?,
            };
            if d.flags & F_INDIRECT != 0 {
                if table.is_some() || d.flags & F_NEXT != 0 {
                    return Err(Fault::Nested);
                }
                let entries = d.length as usize / DESCRIPTOR;
                if d.length == 0 || !(d.length as usize).is_multiple_of(DESCRIPTOR) || entries > MAX_PIECES {
                    return Err(Fault::Table(d.length));
                }
                table = Some((d.address, entries));
                index = 0;
                continue;
            }
            if (d.flags & F_WRITE != 0) != write {
                return Err(Fault::Direction(d.length, if write { "read" } else { "write" }));
            }
            if d.length == 0 && write {
                return Err(Fault::Empty);
            }
            let mapped = near.slices(d.address, d.length as usize, |s| pieces.push(s));
            mapped.map_err(|_| Fault::Unmapped("buffer", d.address))?;
            if d.flags & F_NEXT == 0 {
                return Ok(head);
            }
            index = d.next;
        }
    }

    /// The next chain that was not taken yet, where it is one buffer of at least `need` bytes:
    /// its head and the buffer. Whatever is wrong with it, [`Self::chain`] says.
    #[inline]
    pub(super) fn single(&mut self, mem: &Memory, need: usize) -> Option<(u16, VolatileSlice<'_, ()>)> {
        let slot = usize::from(self.next_available & (self.size - 1));
        let head = self.available.load(ELEMENTS + 2 * slot).ok()?;
        let d = self.descriptor(head).ok()?;
        if d.flags & (F_NEXT | F_INDIRECT | F_WRITE) != F_WRITE || (d.length as usize) < need {
            return None;
        }
        let near = |hot: &Hot| {
            let at = d.address.checked_sub(hot.start)?;
            let room = (hot.mapping.size() as u64).checked_sub(at)?;
            (u64::from(d.length) <= room).then_some(at as usize)
        };
        if self.hot.as_ref().and_then(near).is_none() {
            let (region, _) = mem.to_region_addr(GuestAddress(d.address))?;
            self.hot = Some(Hot { start: region.start_addr().raw_value(), mapping: region.get_mmap() });
        }
        let hot = self.hot.as_ref()?;
        let slice = hot.mapping.get_slice(near(hot)?, need).ok()?;
        Some((head, slice))
    }

    #[inline]
    fn descriptor(&self, index: u16) -> Result<Descriptor, Fault> {
        if index >= self.size {
            return Err(Fault::Index(index, self.size.into()));
        }
        let at = DESCRIPTOR * usize::from(index);
        let table = self.descriptors.slice()?;
        let bytes = table.get_ref::<[u8; DESCRIPTOR]>(at).map_err(|_| self.descriptors.wrong(at))?;
        Ok(Descriptor::new(bytes.load()))
    }

    /// Gives back the next chains in order, each with how many bytes were written to it. The
    /// driver sees them once they are published, all of them or none.
    #[inline]
    pub(super) fn give_back(&mut self, chains: &[(u16, u32)]) -> Result<(), Fault> {
        let area = self.used.slice()?;
        for (n, (head, written)) in (0u16..).zip(chains) {
            let slot = usize::from(self.next_used.wrapping_add(n) & (self.size - 1));
            let at = ELEMENTS + 8 * slot;
            let mut element = [0; 8];
            element[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
            element[4..].copy_from_slice(&written.to_le_bytes());
            area.get_ref(at).map_err(|_| self.used.wrong(at))?.store(element);
        }
        let n = chains.len() as u16;
        self.next_available = self.next_available.wrapping_add(n);
        self.next_used = self.next_used.wrapping_add(n);
        Ok(())
    }

    /// Shows the driver what was given back.
    #[inline]
    pub(super) fn publish(&mut self) -> Result<(), Fault> {
        if self.published != self.next_used {
            self.used.store(INDEX, self.next_used)?;
            self.published = self.next_used;
        }
        Ok(())
    }

    /// How many chains were given back that the driver does not see yet.
    pub(super) fn unpublished(&self) -> u16 {
        self.next_used.wrapping_sub(self.published)
    }

    /// Shows the driver what was given back, and whether it wants to be told of it.
    pub(super) fn tells(&mut self) -> Result<bool, Fault> {
        self.publish()?;
        if self.told == self.published {
            return Ok(false);
        }
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.told, self.published);
        if !self.event_idx {
            return Ok(self.available.load(FLAGS)? & NO_INTERRUPT == 0);
        }
        let event = self.available.load(ELEMENTS + 2 * usize::from(self.size))?;
        let (new, passed) = (self.published, self.published.wrapping_sub(old));
        Ok(new.wrapping_sub(event).wrapping_sub(1) < passed)
    }
}

// Offsets in the available and in the used ring.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ELEMENTS: usize = 4;

impl Descriptor {
    fn new(b: [u8; DESCRIPTOR]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = b;
        Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }
}

fn indirect(mem: &Memory, (table, entries): (u64, usize), index: u16) -> Result<Descriptor, Fault> {
    if usize::from(index) >= entries {
        return Err(Fault::Index(index, entries));
    }
    let at = table.wrapping_add(u64::from(index) * DESCRIPTOR as u64);
    let mut b = [0u8; DESCRIPTOR];
    mem.read_slice(&mut b, GuestAddress(at)).map_err(|_| Fault::Unmapped("descriptor table", at))?;
    Ok(Descriptor::new(b))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const SIZE: u16 = 8;
    pub(in super::super) const PLACE: Place =
        Place { size: SIZE, descriptors: 0x1000, available: 0x2000, used: 0x3000 };

    pub(in super::super) fn memory() -> Memory {
        Memory::from_ranges(&[(GuestAddress(0x1000), 0x1_0000)]).expect("memory")
    }

    pub(in super::super) fn describe(
        mem: &Memory,
        table: u64,
        i: u16,
        (address, length): (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let mut b = address.to_le_bytes().to_vec();
        b.extend(length.to_le_bytes());
        b.extend(flags.to_le_bytes());
        b.extend(next.to_le_bytes());
        mem.write_slice(&b, GuestAddress(table + u64::from(i) * 16)).expect("in memory");
    }

    pub(in super::super) fn offer(mem: &Memory, heads: &[u16]) {
        let index: u16 = mem.read_obj(GuestAddress(PLACE.available + 2)).expect("in memory");
        for (i, head) in (0..).zip(heads) {
            let slot = u64::from(index.wrapping_add(i) % SIZE);
            mem.write_obj(*head, GuestAddress(PLACE.available + 4 + 2 * slot)).expect("in memory");
        }
        mem.write_obj(index.wrapping_add(heads.len() as u16), GuestAddress(PLACE.available + 2)).expect("in memory");
    }

    fn first(mem: &Memory) -> Result<usize, Fault> {
        let mut ring = Ring::new(mem, PLACE, 0, false)?;
        assert!(ring.has_more_than(0)?);
        let mut pieces = Pieces::new();
        ring.chain(&Near::new(mem), 0, false, &mut pieces)?;
        Ok(pieces.iter().map(VolatileSlice::len).sum())
    }

    #[test]
    fn chains_are_walked_direct_and_indirect() {
        let mem = memory();
        describe(&mem, 0x1000, 3, (0x4000, 12), F_NEXT, 5);
        describe(&mem, 0x1000, 5, (0x5000, 100), 0, 7);
        offer(&mem, &[3]);
        assert_eq!(first(&mem), Ok(112));
        describe(&mem, 0x1000, 3, (0x6000, 48), F_INDIRECT, 0);
        describe(&mem, 0x6000, 0, (0x4000, 1), F_NEXT, 2);
        describe(&mem, 0x6000, 2, (0x4000, 2), 0, 0);
        assert_eq!(first(&mem), Ok(3));
    }

    #[test]
    fn hostile_rings_have_names_for_what_is_wrong() {
        let set = |d: &[(u16, (u64, u32), u16, u16)]| {
            let mem = memory();
            for (i, place, flags, next) in d {
                describe(&mem, 0x1000, *i, *place, *flags, *next);
            }
            offer(&mem, &[0]);
            first(&mem)
        };
        let room = (0x4000, 64);
        assert_eq!(set(&[(0, room, F_NEXT, 0)]), Err(Fault::Loop(MAX_PIECES)));
        assert_eq!(set(&[(0, room, F_NEXT, 8)]), Err(Fault::Index(8, 8)));
        assert_eq!(set(&[(0, room, F_WRITE, 0)]), Err(Fault::Direction(64, "write")));
        assert_eq!(set(&[(0, (0x9_0000, 64), 0, 0)]), Err(Fault::Unmapped("buffer", 0x9_0000)));
        assert_eq!(set(&[(0, (u64::MAX, 64), 0, 0)]), Err(Fault::Unmapped("buffer", u64::MAX)));
        assert_eq!(set(&[(0, (0x4000, u32::MAX), 0, 0)]), Err(Fault::Unmapped("buffer", 0x4000)));
        assert_eq!(set(&[(0, (0x4000, 17), F_INDIRECT, 0)]), Err(Fault::Table(17)));
        assert_eq!(set(&[(0, (0x4000, 0), F_INDIRECT, 0)]), Err(Fault::Table(0)));
        assert_eq!(set(&[(0, (0x4000, 1 << 20), F_INDIRECT, 0)]), Err(Fault::Table(1 << 20)));
        assert_eq!(set(&[(0, (0x1000, 16), F_INDIRECT, 0)]), Err(Fault::Nested));
        assert_eq!(
            set(&[(0, (u64::MAX - 7, 16), F_INDIRECT, 0)]),
            Err(Fault::Unmapped("descriptor table", u64::MAX - 7))
        );
        let mem = memory();
        mem.write_obj(9u16, GuestAddress(PLACE.available + 2)).expect("in memory");
        assert_eq!(Ring::new(&mem, PLACE, 0, false).and_then(|mut r| r.has_more_than(0)), Err(Fault::Ahead(9, 8)));
        offer(&mem, &[]);
        for place in [
            Place { size: 0, ..PLACE },
            Place { size: 7, ..PLACE },
            Place { size: 2048, ..PLACE },
            Place { used: 0x3002, ..PLACE },
            Place { used: u64::MAX - 3, ..PLACE },
            Place { available: 0x9_0000, ..PLACE },
        ] {
            assert!(Ring::new(&mem, place, 0, true).is_err(), "{place:?}");
        }
    }

    #[test]
    fn what_is_given_back_is_seen_together_and_told_as_wanted() {
        let mem = memory();
        mem.write_obj(0xfffeu16, GuestAddress(PLACE.used + 2)).expect("in memory");
        let mut ring = Ring::new(&mem, PLACE, 7, true).expect("good");
        // The driver wants to hear of the second from here on.
        mem.write_obj(0xffffu16, GuestAddress(PLACE.available + 4 + 16)).expect("in memory");
        ring.give_back(&[(1, 10)]).expect("good");
        assert!(!ring.tells().expect("good"));
        ring.give_back(&[(2, 20), (3, 30)]).expect("good");
        assert_eq!((ring.unpublished(), mem.read_obj(GuestAddress(PLACE.used + 2)).ok()), (2, Some(0xffffu16)));
        assert!(ring.tells().expect("good") && !ring.tells().expect("good"));
        assert_eq!(mem.read_obj::<u16>(GuestAddress(PLACE.used + 2)).expect("in memory"), 1);
        assert_eq!(mem.read_obj::<u32>(GuestAddress(PLACE.used + 4 + 8 * 7)).expect("in memory"), 2);
        assert_eq!(ring.base(), 10);
    }
}
