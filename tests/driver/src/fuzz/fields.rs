//! Fields of a structure, found and changed by its layout's table.

use sfnic_firmware_cmds::layout::{Field, FieldInfo, Info, Kind};

use super::Entropy;
use super::book::{Book, Thing};

/// A field somewhere in a command: where the structure that holds it starts.
#[derive(Clone, Copy)]
pub(super) struct At {
    base: u32,
    field: FieldInfo,
}

/// Reads the dword that holds a field.
fn dword(buf: &[u8], at: usize) -> Option<u32> {
    buf.get(at..at + 4).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b))
}

impl At {
    fn place(&self) -> (Field<()>, usize) {
        let bit = self.base + self.field.bit;
        let f = Field::<()>::at(bit, self.field.width);
        (f, f.dword() * 4)
    }

    /// Writes a number into a field of bits, cut to its width.
    pub(super) fn put(&self, buf: &mut [u8], value: u32) {
        let (f, at) = self.place();
        if let Some(d) = dword(buf, at) {
            buf[at..at + 4].copy_from_slice(&f.in_dword(d, value).to_be_bytes());
        }
    }

    fn get(&self, buf: &[u8]) -> u32 {
        let (f, at) = self.place();
        dword(buf, at).map_or(0, |d| f.of_dword(d))
    }
}

/// Calls `each` with every field of bits, those of nested structures too.
pub(super) fn each(info: &Info, base: u32, each_field: &mut impl FnMut(At)) {
    for f in info.fields {
        match (f.kind, f.sub) {
            (Kind::Bits, _) => each_field(At { base, field: *f }),
            (Kind::Sub, Some(sub)) => each(&sub(), base + f.bit, each_field),
            _ => {}
        }
    }
}

/// Fills every field whose name says what it numbers with one that exists.
pub(super) fn fill(info: &Info, book: &Book, e: &mut impl Entropy, buf: &mut [u8]) {
    each(info, 0, &mut |at| {
        if let Some(t) = Thing::of(&at.field) {
            at.put(buf, book.any(t, e));
        }
    });
}

/// A number from the borders of a field, or from anywhere.
fn number(width: u32, was: u32, e: &mut impl Entropy) -> u32 {
    let max = Field::<()>::at(32 - width, width).max();
    match e.below(9) {
        0 => 0,
        1 => 1,
        2 => max,
        3 => max - 1,
        4 => was.wrapping_add(1),
        5 => was.wrapping_sub(1),
        6 => was ^ (1 << e.below(width as usize)),
        7 => (e.next() & 0x1f) as u32,
        _ => e.next() as u32,
    }
}

/// An address: of memory that is there, of its borders, or wild. Never the
/// canary's but by a fault of the device.
pub(super) fn address(edges: &[u64; 4], arena: u64, e: &mut impl Entropy) -> u64 {
    let near = [0, 8, 64, 4096];
    match e.below(8) {
        0 => arena,
        1 => arena + (e.next() & 0xf_fff8),
        2 => e.pick(edges).wrapping_sub(*e.pick(&near)),
        3 => e.pick(edges).wrapping_add(*e.pick(&near)),
        4 => e.next() & 0xfff,
        5 => u64::MAX - (e.next() & 0xffff),
        6 => 1 << e.below(64),
        _ => (e.next() & !0xfff) | 1 << 62,
    }
}

/// Spoils one field: a top-level one is chosen first, so that small fields
/// beside large structures are not lost.
pub(super) fn spoil(info: &Info, book: &Book, edges: &[u64; 4], arena: u64, e: &mut impl Entropy, buf: &mut [u8]) {
    let (mut info, mut base) = (*info, 0u32);
    loop {
        if info.fields.is_empty() {
            return;
        }
        let f = *e.pick(info.fields);
        match (f.kind, f.sub) {
            (Kind::Bits, _) => {
                let at = At { base, field: f };
                let value = match Thing::of(&f) {
                    Some(t) if e.below(3) > 0 => book.any(t, e),
                    _ => number(f.width, at.get(buf), e),
                };
                return at.put(buf, value);
            }
            (Kind::U64, _) => {
                let at = ((base + f.bit) / 8) as usize;
                let value = if e.one_in(2) { address(edges, arena, e) } else { e.next() };
                if let Some(b) = buf.get_mut(at..at + 8) {
                    b.copy_from_slice(&value.to_be_bytes());
                }
                return;
            }
            (Kind::Sub, Some(sub)) => {
                info = sub();
                base += f.bit;
            }
            (Kind::Bytes, _) => {
                let (at, len) = (((base + f.bit) / 8) as usize, (f.width / 8) as usize);
                let i = at + e.below(len);
                if let Some(b) = buf.get_mut(i) {
                    *b = e.next() as u8;
                }
                return;
            }
            (Kind::Tail, _) | (Kind::Sub, None) => {
                // A list: a whole element, as an address or as bytes.
                let at = ((base + f.bit) / 8) as usize;
                let Some(list) = buf.get_mut(at..).filter(|l| l.len() >= 8) else { return };
                let i = e.below(list.len() / 8) * 8;
                let value = if e.one_in(2) { address(edges, arena, e) } else { e.next() };
                list[i..i + 8].copy_from_slice(&value.to_be_bytes());
                return;
            }
        }
    }
}
