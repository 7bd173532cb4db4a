//! Memory keys: what a queue may reach of the IOVA space.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::queue::{Access, KeyFault, Remap};

/// Key that stands for the whole IOVA space in queues created with `rlky`.
pub const RESERVED_LKEY: u32 = 0xffff_ff00;
/// Key that ends a scatter list (`MLX5_TERMINATE_SCATTER_LIST_LKEY`).
pub const TERMINATE_LKEY: u32 = 0x100;

/// How a key's addresses become IOVAs (`mkc.access_mode`).
#[derive(Debug)]
pub enum Translation {
    /// The address is the IOVA; the whole space.
    Physical,
    /// No list, and no way to get one: no address is within.
    None,
    /// A list of pages of `1 << log_page` bytes from address `start`.
    Pages {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
        /// log2 of a page's bytes.
        log_page: u32,
        /// IOVA of each page.
        pages: PageList,
    },
}

/// IOVAs of pages. A UMR may change them while others read: each entry is the old
/// one or the new one, and which frames get the new ones is the driver's business,
/// who posts buffers behind its UMR's completion.
#[derive(Debug)]
pub struct PageList(Box<[AtomicU64]>);

impl PageList {
    /// Low bits of an entry carry permissions (`MLX5_EN_WR`).
    const ADDRESS: u64 = !0x7;

    /// The pages of a list of translations (`struct mlx5_mtt`).
    pub fn new(raw: &[u8]) -> Self {
        Self(entries(raw).map(AtomicU64::new).collect())
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The list of translations as [`PageList::new`] reads it.
    pub(crate) fn raw(&self) -> Vec<u8> {
        self.0.iter().flat_map(|p| p.load(Ordering::Relaxed).to_be_bytes()).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, index: usize) -> Option<u64> {
        self.0.get(index).map(|p| p.load(Ordering::Relaxed))
    }
}

fn entries(raw: &[u8]) -> impl Iterator<Item = u64> + '_ {
    raw.as_chunks::<8>().0.iter().map(|p| u64::from_be_bytes(*p) & PageList::ADDRESS)
}

/// A memory key.
#[derive(Debug)]
pub struct Mkey {
    /// The whole key: index and the driver's low byte.
    pub key: u32,
    /// Protection domain.
    pub pd: u32,
    /// User context that owns it; zero for the kernel.
    pub uid: u16,
    /// The device may read.
    pub local_read: bool,
    /// The device may write.
    pub local_write: bool,
    /// A send queue may change it (`mkc.umr_en`).
    pub umr: bool,
    /// It has no memory for now (`mkc.free`).
    pub free: AtomicBool,
    /// Where its memory is.
    pub translation: Translation,
}

impl Mkey {
    /// Whether an access is allowed whatever the address, which is the IOVA, and stays so until a
    /// command says otherwise.
    pub fn is_plain(&self, access: Access) -> bool {
        matches!(self.translation, Translation::Physical) && !self.umr && self.allows(access)
    }

    fn allows(&self, access: Access) -> bool {
        let allowed = match access {
            Access::Read => self.local_read,
            Access::Write => self.local_write,
        };
        allowed && !self.free.load(Ordering::Acquire)
    }

    /// Hands the IOVA ranges of `len` bytes at `addr` to `each`, in order.
    #[inline(always)]
    pub fn resolve(&self, addr: u64, len: u32, access: Access, mut each: impl FnMut(u64, u32)) -> Result<(), KeyFault> {
        let end = addr.checked_add(u64::from(len)).filter(|_| self.allows(access)).ok_or(KeyFault)?;
        match &self.translation {
            Translation::Physical => each(addr, len),
            Translation::None => return Err(KeyFault),
            Translation::Pages { start, len: size, log_page, pages } => {
                let limit = start.checked_add(*size).ok_or(KeyFault)?;
                if addr < *start || end > limit {
                    return Err(KeyFault);
                }
                let page = 1u64 << log_page;
                // The first page is entered at the start address's own offset.
                let mut at = addr - (start & !(page - 1));
                let mut left = u64::from(len);
                while left > 0 {
                    let base = pages.get((at >> log_page) as usize).ok_or(KeyFault)?;
                    let n = left.min(page - (at & (page - 1)));
                    each(base.wrapping_add(at & (page - 1)), n as u32);
                    at += n;
                    left -= n;
                }
            }
        }
        Ok(())
    }

    /// A UMR by a send queue of the same domain and user context. Nothing is
    /// changed where it is refused: the key does not allow it, is free or is
    /// not against what the UMR says, or the list ends beyond the key's.
    pub fn remap(&self, r: &Remap<'_>) -> Result<(), KeyFault> {
        let free = self.free.load(Ordering::Relaxed);
        if !self.umr || r.pd != self.pd || r.uid != self.uid || r.expect_free.is_some_and(|e| e != free) {
            return Err(KeyFault);
        }
        if !r.translations.is_empty() {
            let Translation::Pages { pages, .. } = &self.translation else { return Err(KeyFault) };
            let n = r.translations.len() / size_of::<u64>();
            let end = r.first.checked_add(n).ok_or(KeyFault)?;
            let places = pages.0.get(r.first..end).ok_or(KeyFault)?;
            for (place, page) in places.iter().zip(entries(r.translations)) {
                place.store(page, Ordering::Relaxed);
            }
        }
        if let Some(free) = r.free {
            self.free.store(free, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(translation: Translation) -> Mkey {
        Mkey {
            key: 0x100,
            pd: 1,
            uid: 0,
            local_read: true,
            local_write: false,
            umr: true,
            free: AtomicBool::new(false),
            translation,
        }
    }

    fn list(pages: &[u64]) -> Vec<u8> {
        pages.iter().flat_map(|p| p.to_be_bytes()).collect()
    }

    fn pages(start: u64, len: u64, of: &[u64]) -> Mkey {
        key(Translation::Pages { start, len, log_page: 12, pages: PageList::new(&list(of)) })
    }

    fn refused(k: &Mkey, addr: u64, len: u32, access: Access) -> bool {
        k.resolve(addr, len, access, |_, _| ()).is_err()
    }

    #[test]
    fn pages_are_walked_and_bounded() {
        let k = pages(0x1_0800, 0x1800, &[0xa000, 0xc002]);
        let mut r = vec![];
        k.resolve(0x1_0f00, 0x200, Access::Read, |a, n| r.push((a, n))).unwrap();
        assert_eq!(r, [(0xaf00, 0x100), (0xc000, 0x100)]);
        assert!(refused(&k, 0x1_0000, 1, Access::Read));
        assert!(refused(&k, 0x1_1fff, 2, Access::Read));
        assert!(refused(&k, 0x1_0f00, 1, Access::Write));
        assert!(refused(&key(Translation::Physical), u64::MAX, 2, Access::Read));
        assert!(refused(&key(Translation::None), 0, 1, Access::Read));
        k.free.store(true, Ordering::Relaxed);
        assert!(refused(&k, 0x1_0f00, 1, Access::Read));
    }

    #[test]
    fn a_umr_changes_some_pages_and_frees() {
        let k = pages(0, 0x4000, &[0x1000; 4]);
        let new = list(&[0xa003, 0xb000]);
        let umr = Remap { key: 0x100, pd: 1, uid: 0, first: 1, translations: &new, expect_free: None, free: None };
        k.remap(&umr).unwrap();
        let mut r = vec![];
        k.resolve(0x800, 0x2800, Access::Read, |a, n| r.push((a, n))).unwrap();
        assert_eq!(r, [(0x1800, 0x800), (0xa000, 0x1000), (0xb000, 0x1000)]);
        k.remap(&Remap { translations: &[], free: Some(true), expect_free: Some(false), ..umr }).unwrap();
        assert!(refused(&k, 0, 1, Access::Read));
        k.remap(&Remap { first: 2, free: Some(false), expect_free: Some(true), ..umr }).unwrap();
        assert!(!refused(&k, 0, 1, Access::Read));
    }

    #[test]
    fn a_umr_that_may_not_changes_nothing() {
        let new = list(&[0xa000, 0xb000]);
        let umr =
            Remap { key: 0x100, pd: 1, uid: 0, first: 1, translations: &new, expect_free: None, free: Some(true) };
        let k = pages(0, 0x4000, &[0x1000; 4]);
        for bad in [
            Remap { pd: 2, ..umr },
            Remap { uid: 1, ..umr },
            Remap { first: 3, ..umr },
            Remap { first: usize::MAX, ..umr },
            Remap { expect_free: Some(true), ..umr },
        ] {
            assert!(k.remap(&bad).is_err(), "{bad:?}");
        }
        let mut fixed = pages(0, 0x4000, &[0x1000; 4]);
        fixed.umr = false;
        assert!(fixed.remap(&umr).is_err());
        assert!(key(Translation::None).remap(&umr).is_err());
        for k in [k, fixed] {
            let mut r = vec![];
            k.resolve(0, 0x4000, Access::Read, |a, _| r.push(a)).unwrap();
            assert_eq!(r, [0x1000; 4]);
        }
    }
}
