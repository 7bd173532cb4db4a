//! Memory keys: what a queue may reach of the IOVA space.

use crate::queue::{Access, KeyFault};

/// Key that stands for the whole IOVA space in queues created with `rlky`.
pub const RESERVED_LKEY: u32 = 0xffff_ff00;
/// Key that ends a scatter list (`MLX5_TERMINATE_SCATTER_LIST_LKEY`).
pub const TERMINATE_LKEY: u32 = 0x100;

/// How a key's addresses become IOVAs (`mkc.access_mode`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Translation {
    /// The address is the IOVA; the whole space.
    Physical,
    /// None yet (`mkc.free`): no address is within.
    Free,
    /// A list of pages of `1 << log_page` bytes from address `start`.
    Pages {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
        /// log2 of a page's bytes.
        log_page: u32,
        /// IOVA of each page.
        pages: Box<[u64]>,
    },
}

/// A memory key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mkey {
    /// The whole key: index and the driver's low byte.
    pub key: u32,
    /// Protection domain.
    pub pd: u32,
    /// The device may read.
    pub local_read: bool,
    /// The device may write.
    pub local_write: bool,
    /// Where its memory is.
    pub translation: Translation,
}

impl Mkey {
    /// Hands the IOVA ranges of `len` bytes at `addr` to `each`, in order.
    pub fn resolve(&self, addr: u64, len: u32, access: Access, mut each: impl FnMut(u64, u32)) -> Result<(), KeyFault> {
        let allowed = match access {
            Access::Read => self.local_read,
            Access::Write => self.local_write,
        };
        let end = addr.checked_add(u64::from(len)).ok_or(KeyFault)?;
        if !allowed {
            return Err(KeyFault);
        }
        match &self.translation {
            Translation::Physical => each(addr, len),
            Translation::Free => return Err(KeyFault),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(translation: Translation) -> Mkey {
        Mkey { key: 0x100, pd: 1, local_read: true, local_write: false, translation }
    }

    #[test]
    fn pages_are_walked_and_bounded() {
        let k = key(Translation::Pages { start: 0x1_0800, len: 0x1800, log_page: 12, pages: [0xa000, 0xc000].into() });
        let mut r = vec![];
        k.resolve(0x1_0f00, 0x200, Access::Read, |a, n| r.push((a, n))).unwrap();
        assert_eq!(r, [(0xaf00, 0x100), (0xc000, 0x100)]);
        let refused = |k: &Mkey, addr, len, access| k.resolve(addr, len, access, |_, _| ()).is_err();
        assert!(refused(&k, 0x1_0000, 1, Access::Read));
        assert!(refused(&k, 0x1_1fff, 2, Access::Read));
        assert!(refused(&k, 0x1_0f00, 1, Access::Write));
        assert!(refused(&key(Translation::Physical), u64::MAX, 2, Access::Read));
        assert!(refused(&key(Translation::Free), 0, 1, Access::Read));
    }
}
