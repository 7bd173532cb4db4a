//! UAR pages that guest and device share.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use sfnic_device_model::CardConfig;
use sfnic_device_model::nic::BAR0_SIZE;
use sfnic_device_model::world::Doorbells;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// A card's BARs as one file: BAR 0, and BAR 2 behind it. Only what is written takes
/// memory.
#[derive(Debug)]
pub(crate) struct UarFile {
    fd: Arc<OwnedFd>,
    memory: MmapRegion<()>,
    bar2: u64,
}

impl UarFile {
    /// Memory for all UAR pages of a card.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn new(card: &CardConfig) -> Result<Self> {
        let bar2 = card.bar2_size();
        let fd = memfd_create("sfnic-uar", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .context("cannot create memory for doorbells")?;
        ftruncate(&fd, BAR0_SIZE + bar2).context("cannot size the memory for doorbells")?;
        // The client has the file too, and could cut it under our feet.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .context("cannot seal the memory for doorbells")?;
        Self::of(fd, bar2)
    }

    /// Those that another process made for such a card, and a client may have mapped.
    ///
    /// # Errors
    /// It is no such memory.
    pub(crate) fn taken(fd: OwnedFd, card: &CardConfig) -> Result<Self> {
        let bar2 = card.bar2_size();
        let (sealed, stat) = (fcntl_get_seals(&fd), fstat(&fd));
        let sealed = sealed.is_ok_and(|s| s.contains(SealFlags::SHRINK));
        let long = stat.is_ok_and(|s| u64::try_from(s.st_size) == Ok(BAR0_SIZE + bar2));
        anyhow::ensure!(sealed && long, "the memory for doorbells is another device's");
        Self::of(fd, bar2)
    }

    fn of(fd: OwnedFd, bar2: u64) -> Result<Self> {
        let file = File::from(fd.try_clone().context("no more file descriptors")?);
        let size = usize::try_from(BAR0_SIZE + bar2)?;
        let memory = MmapRegion::from_file(FileOffset::new(file, 0), size).context("cannot map doorbells")?;
        Ok(Self { fd: Arc::new(fd), memory, bar2 })
    }

    /// The file.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// The file, and where byte 0 of a BAR is in it.
    pub(crate) fn bar(&self, bar: u8) -> Option<(Arc<OwnedFd>, u64)> {
        let at = match bar {
            0 => 0,
            2 if self.bar2 > 0 => BAR0_SIZE,
            _ => return None,
        };
        Some((self.fd.clone(), at))
    }
}

impl Doorbells for UarFile {
    fn take(&self, bar: u8, offset: u64) -> [u8; 8] {
        let at = match bar {
            0 => Some(offset).filter(|o| *o < BAR0_SIZE),
            2 => Some(offset).filter(|o| *o < self.bar2).map(|o| BAR0_SIZE + o),
            _ => None,
        };
        let at = at.and_then(|at| usize::try_from(at).ok());
        let Some(Ok(word)) = at.map(|at| self.memory.get_atomic_ref::<AtomicU64>(at)) else { return [0; 8] };
        // Most times nothing is there, and the line stays the guest's.
        let value = if word.load(Ordering::Relaxed) == 0 { 0 } else { word.swap(0, Ordering::Acquire) };
        value.to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::pwrite;

    #[test]
    fn a_doorbell_is_taken_once_and_only_where_it_was_written() {
        let card = CardConfig { max_sfs: 2, ..CardConfig::default() };
        let uar = UarFile::new(&card).unwrap();
        for (bar, offset) in [(0, 0x4800), (2, 0x4020)] {
            let (fd, at) = uar.bar(bar).unwrap();
            pwrite(&fd, &[1, 2, 3, 4, 5, 6, 7, 8], at + offset).unwrap();
            assert_eq!(uar.take(2 - bar, offset), [0; 8]);
            assert_eq!(uar.take(bar, offset + 8), [0; 8]);
            assert_eq!(uar.take(bar, offset), [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(uar.take(bar, offset), [0; 8]);
        }
        // Beyond the BAR, in no BAR, and not aligned.
        for (bar, offset) in [(0, BAR0_SIZE), (2, card.bar2_size()), (1, 0), (0, u64::MAX), (0, 0x4801)] {
            assert_eq!(uar.take(bar, offset), [0; 8]);
        }
        let (fd, _) = uar.bar(0).unwrap();
        assert!(ftruncate(&fd, 0).is_err(), "a client cannot cut it");
    }
}
