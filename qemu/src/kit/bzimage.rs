//! The setup header of an x86 kernel image: which kernel it is.
//!
//! The offsets are those of the boot protocol (the kernel's
//! `Documentation/arch/x86/boot.rst`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// How much of an image has all that is read of it: the largest setup part is 64 sectors.
const HEAD: usize = 65 * SECTOR;
const SECTOR: usize = 512;

/// How many sectors the setup part has (`setup_sects`).
const SETUP_SECTORS: usize = 0x1f1;
/// `boot_flag`
const BOOT_FLAG: usize = 0x1fe;
/// `header`
const MAGIC: usize = 0x202;
/// `version` of the protocol.
const PROTOCOL: usize = 0x206;
/// `kernel_version`: where the version is, counted from the second sector.
const VERSION: usize = 0x20e;
/// `xloadflags`, from protocol 2.12 on; the lowest bit says that the kernel has 64 bits.
const LOAD_FLAGS: usize = 0x236;

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// What `uname -r` will say.
    pub(crate) release: String,
    /// Who built it, which build it is and when.
    pub(crate) version: String,
}

impl Header {
    /// Reads the header of the image in a file.
    ///
    /// # Errors
    /// The file cannot be read or is no x86-64 `bzImage`.
    pub(crate) fn read(file: &Path) -> Result<Header> {
        let what = || format!("cannot read {}", file.display());
        let image = File::open(file).with_context(what)?;
        let mut bytes = vec![0; HEAD];
        let mut filled = 0;
        loop {
            let at = u64::try_from(filled).unwrap_or(u64::MAX);
            match image.read_at(&mut bytes[filled..], at).with_context(what)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Header::parse(&bytes).with_context(|| format!("{} cannot be booted", file.display()))
    }

    /// Reads the header at the start of an image.
    fn parse(bytes: &[u8]) -> Result<Header> {
        if bytes.starts_with(b"\x7fELF") {
            bail!("it is the bare vmlinux: take arch/x86/boot/bzImage");
        }
        if half(bytes, BOOT_FLAG) != Some(0xaa55) || bytes.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
            bail!("it is no x86 kernel image (bzImage, vmlinuz)");
        }
        let old = half(bytes, PROTOCOL).is_none_or(|protocol| protocol < 0x20c);
        if old || half(bytes, LOAD_FLAGS).is_none_or(|flags| flags & 1 == 0) {
            bail!("it is no 64-bit kernel");
        }
        let text = version(bytes).context("its header has no version")?;
        let (release, rest) = text.split_once(' ').unwrap_or((&text, ""));
        if !plausible(release) {
            bail!("its header has the version {release:?}");
        }
        Ok(Header { release: release.to_string(), version: rest.to_string() })
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The text that `kernel_version` points to.
fn version(bytes: &[u8]) -> Option<String> {
    let pointer = usize::from(half(bytes, VERSION)?);
    let sectors = match bytes.get(SETUP_SECTORS)? {
        0 => 4,
        count => usize::from(*count),
    };
    if pointer == 0 || pointer >= sectors * SECTOR {
        return None;
    }
    let text = bytes.get(pointer + SECTOR..)?;
    let end = text.iter().take(512).position(|c| *c == 0)?;
    String::from_utf8(text[..end].to_vec()).ok()
}

/// A release names a directory below `lib/modules`, and nothing outside of it.
pub(crate) fn plausible(release: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._~:".contains(c);
    !release.is_empty() && release.len() <= 64 && !release.starts_with('.') && release.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image whose version is `text`.
    fn image(text: &str) -> Vec<u8> {
        let mut bytes = vec![0; 3 * SECTOR];
        bytes[SETUP_SECTORS] = 2;
        bytes[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&0xaa55u16.to_le_bytes());
        bytes[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        bytes[PROTOCOL..PROTOCOL + 2].copy_from_slice(&0x20fu16.to_le_bytes());
        bytes[VERSION..VERSION + 2].copy_from_slice(&0x100u16.to_le_bytes());
        bytes[LOAD_FLAGS..LOAD_FLAGS + 2].copy_from_slice(&0x7fu16.to_le_bytes());
        bytes[SECTOR + 0x100..SECTOR + 0x100 + text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    fn refused(bytes: &[u8]) -> String {
        Header::parse(bytes).unwrap_err().to_string()
    }

    #[test]
    fn the_version_is_found_by_its_pointer() -> Result<()> {
        let header = Header::parse(&image("6.12.107+deb13-amd64 (me@here) #1 SMP PREEMPT"))?;
        assert_eq!(header.release, "6.12.107+deb13-amd64");
        assert_eq!(header.version, "(me@here) #1 SMP PREEMPT");
        assert_eq!(Header::parse(&image("7.2.0"))?.version, "");
        Ok(())
    }

    #[test]
    fn setup_sectors_of_zero_mean_four() -> Result<()> {
        let mut bytes = image("7.2.0");
        bytes[SETUP_SECTORS] = 0;
        assert_eq!(Header::parse(&bytes)?.release, "7.2.0");
        Ok(())
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(refused(b"").contains("no x86 kernel image"));
        assert!(refused(b"\x7fELF\x02\x01\x01").contains("bzImage"));
        let good = image("7.2.0");
        for length in 0..good.len() {
            let _ = Header::parse(&good[..length]);
        }
        assert!(Header::parse(&good[..SECTOR + 0x100]).is_err());
        for (at, value, why) in [
            (BOOT_FLAG, 0, "no x86 kernel image"),
            (MAGIC, 0, "no x86 kernel image"),
            (LOAD_FLAGS, 0, "64-bit"),
            (PROTOCOL, 0x0b, "64-bit"),
            (VERSION + 1, 0, "no version"),
            (VERSION + 1, 0xff, "no version"),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert!(refused(&bytes).contains(why), "{at:#x}: {}", refused(&bytes));
        }
    }

    #[test]
    fn a_release_stays_below_the_modules() {
        for bad in ["", "..", "../x", "a/b", "a b", "x\n"] {
            assert!(!plausible(bad), "{bad:?}");
        }
        assert!(plausible("7.2.0-rc1-00012-gdeadbeef-dirty"));
        assert!(refused(&image("../../etc x")).contains("../../etc"));
    }
}
