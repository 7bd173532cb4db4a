//! UMR: send WQEs that change the translations of a memory key.
//!
//! The driver's internal queues post them (`mlx5e_alloc_rx_mpwqe`): the control
//! segment names the key, the UMR segment says what changes, a context of the key
//! has the new values of its fields, and the translations follow in the WQE or
//! lie where a data segment says.

use sfnic_firmware_cmds::entries::{WqeCtrl, WqeData, WqeUmr};
use sfnic_firmware_cmds::layouts::Mkc;
use sfnic_firmware_cmds::{Layout, View};

use super::wqe::WqeFault;
use super::{Access, KeyCheck, KeyUse, Remap};
use crate::dma::{DmaAccess, Near};

/// Bytes of an octoword, in which translations are counted (`MLX5_OCTWORD`).
const OCTOWORD: usize = 16;
/// Bytes of a translation (`struct mlx5_mtt`).
const MTT: usize = 8;
/// `mkey_mask` with nothing but `free` (`MLX5_MKEY_MASK_FREE`).
const MASK_FREE: u64 = WqeUmr::mask_free.mask() as u64;

/// What of a queue's configuration a UMR is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct UmrRules {
    pub(super) pd: u32,
    pub(super) uid: u16,
    pub(super) reserved_key: bool,
}

/// Executes a UMR. `raw` is the WQE, exactly as long as its control segment says.
///
/// The work is bounded by the field that counts translations: 1 MiB of them.
pub(super) fn execute(raw: &[u8], rules: UmrRules, mem: &Near<'_>, keys: &impl KeyCheck) -> Result<(), WqeFault> {
    const UMR_AT: usize = WqeCtrl::SIZE;
    const KEY_AT: usize = UMR_AT + WqeUmr::SIZE;
    const LIST_AT: usize = KEY_AT + Mkc::SIZE;
    let rest = raw.get(LIST_AT..).ok_or(WqeFault::UmrTooShort)?;
    let umr = View::<WqeUmr>::new(&raw[UMR_AT..KEY_AT]);
    let context = View::<Mkc>::new(&raw[KEY_AT..LIST_AT]);
    let mask = umr.get64(WqeUmr::mkey_mask);
    if mask & !MASK_FREE != 0 {
        return Err(WqeFault::UmrFields);
    }
    let expect_free = match (umr.is(WqeUmr::check_free), umr.is(WqeUmr::check_not_free)) {
        (true, true) => return Err(WqeFault::UmrFields),
        (true, false) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    };
    let octowords = umr.get(WqeUmr::xlt_octowords) as usize;
    let bytes = octowords * OCTOWORD;
    // Without it the field has another meaning.
    let first =
        if umr.is(WqeUmr::translation_offset_en) { umr.get(WqeUmr::xlt_offset) as usize * (OCTOWORD / MTT) } else { 0 };
    let fetched;
    let translations = if umr.is(WqeUmr::inline) {
        rest.get(..bytes).ok_or(WqeFault::InlineBeyondWqe)?
    } else {
        fetched = fetch(rest, bytes, rules, mem, keys)?;
        &fetched
    };
    let remap = Remap {
        key: View::<WqeCtrl>::new(&raw[..UMR_AT]).get(WqeCtrl::general_id),
        pd: rules.pd,
        uid: rules.uid,
        first,
        translations,
        expect_free,
        free: (mask != 0).then(|| context.is(Mkc::free)),
    };
    keys.remap(&remap).map_err(|_| WqeFault::Key)
}

/// Reads translations from where a data segment says.
fn fetch(
    segment: &[u8],
    bytes: usize,
    rules: UmrRules,
    mem: &Near<'_>,
    keys: &impl KeyCheck,
) -> Result<Vec<u8>, WqeFault> {
    if bytes == 0 {
        return Ok(vec![]);
    }
    let seg = View::<WqeData>::new(segment.get(..WqeData::SIZE).ok_or(WqeFault::UmrTooShort)?);
    if (seg.get(WqeData::byte_count) as usize) < bytes {
        return Err(WqeFault::Length);
    }
    let key = KeyUse { lkey: seg.get(WqeData::lkey), pd: rules.pd, reserved: rules.reserved_key, access: Access::Read };
    let mut list = vec![0; bytes];
    let (mut at, mut fault) = (0, false);
    let resolved = keys.resolve(key, seg.get64(WqeData::addr), bytes as u32, |iova, n| {
        let part = list.get_mut(at..at + n as usize);
        fault = fault || part.is_none_or(|part| mem.dma_read(iova, part).is_err());
        at += n as usize;
    });
    resolved.map_err(|_| WqeFault::Key)?;
    if fault { Err(WqeFault::Dma) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::super::KeyFault;
    use super::super::mini_driver::{BAD_KEY, GOOD_KEY, Guest, IdentityKeys};
    use super::*;

    const RULES: UmrRules = UmrRules { pd: 7, uid: 3, reserved_key: false };

    /// Remembers what it was asked for.
    #[derive(Default)]
    struct Keys(RefCell<Vec<String>>, IdentityKeys);

    impl KeyCheck for Keys {
        fn resolve(&self, key: KeyUse, addr: u64, len: u32, each: impl FnMut(u64, u32)) -> Result<(), KeyFault> {
            self.1.resolve(key, addr, len, each)
        }
        fn remap(&self, r: &Remap<'_>) -> Result<(), KeyFault> {
            let sum: u64 = r.translations.iter().map(|b| u64::from(*b)).sum();
            let said = format!(
                "{:#x} {}/{} {}+{} ={sum} {:?} {:?}",
                r.key,
                r.pd,
                r.uid,
                r.first,
                r.translations.len(),
                r.expect_free,
                r.free
            );
            self.0.borrow_mut().push(said);
            if r.key == BAD_KEY { Err(KeyFault) } else { Ok(()) }
        }
    }

    /// A UMR as mlx5e builds it, in its own words.
    fn wqe(key: u32, flags: u8, octowords: u16, offset: u16, mask: u64, status: u8, list: &[u8]) -> Vec<u8> {
        let mut b = vec![0; 128];
        b[3] = 0x25;
        b[12..16].copy_from_slice(&key.to_be_bytes());
        b[16] = flags;
        b[20..22].copy_from_slice(&octowords.to_be_bytes());
        b[22..24].copy_from_slice(&offset.to_be_bytes());
        b[24..32].copy_from_slice(&mask.to_be_bytes());
        b[64] = status;
        b.extend_from_slice(list);
        b
    }

    const INLINE_AT: u8 = 0x90;
    const FREE: u64 = 1 << 29;

    fn run(guest: &Guest, raw: &[u8]) -> Result<String, WqeFault> {
        let keys = Keys::default();
        let done = execute(raw, RULES, &Near::new(&guest.mem), &keys);
        done.map(|()| keys.0.borrow_mut().pop().unwrap_or_default())
    }

    #[test]
    fn translations_come_from_the_wqe() {
        let guest = Guest::new();
        let raw = wqe(0x1234, INLINE_AT, 2, 36, FREE, 0, &[1; 64]);
        assert_eq!(run(&guest, &raw).unwrap(), "0x1234 7/3 72+32 =32 None Some(false)");
        let raw = wqe(0x1234, 0x80 | 0x40, 4, 36, FREE, 0x40, &[1; 64]);
        assert_eq!(run(&guest, &raw).unwrap(), "0x1234 7/3 0+64 =64 Some(true) Some(true)");
        let raw = wqe(0x1234, 0x80 | 0x20, 0, 0, 0, 0x40, &[]);
        assert_eq!(run(&guest, &raw).unwrap(), "0x1234 7/3 0+0 =0 Some(false) None");
    }

    #[test]
    fn translations_come_from_memory() {
        let guest = Guest::new();
        let at = guest.alloc(0x4000);
        guest.put(at, &[2; 0x4000]);
        let segment = |key: u32, len: u32| [&len.to_be_bytes()[..], &key.to_be_bytes(), &at.to_be_bytes()].concat();
        let raw = wqe(0x1234, 0x10, 0x400, 2, FREE, 0, &segment(GOOD_KEY, 0x4000));
        assert_eq!(run(&guest, &raw).unwrap(), "0x1234 7/3 4+16384 =32768 None Some(false)");
        let short = wqe(0x1234, 0x10, 0x400, 2, FREE, 0, &segment(GOOD_KEY, 0x3fff));
        assert_eq!(run(&guest, &short), Err(WqeFault::Length));
        let bad = wqe(0x1234, 0x10, 0x400, 2, FREE, 0, &segment(BAD_KEY, 0x4000));
        assert_eq!(run(&guest, &bad), Err(WqeFault::Key));
        let beyond = wqe(0x1234, 0x10, 0xffff, 2, FREE, 0, &segment(GOOD_KEY, 0x10_0000)[..15]);
        assert_eq!(run(&guest, &beyond), Err(WqeFault::UmrTooShort));
        let mut gone = wqe(0x1234, 0x10, 0x400, 2, FREE, 0, &segment(GOOD_KEY, 0x4000));
        gone[136] = 0x7f;
        assert_eq!(run(&guest, &gone), Err(WqeFault::Dma));
    }

    #[test]
    fn faults_have_their_reason() {
        let guest = Guest::new();
        for (raw, fault) in [
            (wqe(0x1234, INLINE_AT, 2, 0, FREE, 0, &[1; 31]), WqeFault::InlineBeyondWqe),
            (wqe(0x1234, INLINE_AT, 2, 0, FREE | 1, 0, &[1; 64]), WqeFault::UmrFields),
            (wqe(0x1234, INLINE_AT | 0x60, 2, 0, FREE, 0, &[1; 64]), WqeFault::UmrFields),
            (wqe(BAD_KEY, INLINE_AT, 2, 0, FREE, 0, &[1; 64]), WqeFault::Key),
            (vec![0; 112], WqeFault::UmrTooShort),
        ] {
            assert_eq!(run(&guest, &raw), Err(fault));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_executed_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..=1008)) {
            let _ = run(&Guest::new(), &raw);
        }
    }
}
