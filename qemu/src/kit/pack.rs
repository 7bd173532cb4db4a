//! Makes the stage of a kernel of the user's: its disk of modules and first file system.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::own::{INDEXES, Own};
use super::progress::Step;
use super::tree::Tree;
use super::{early, modules, rootfs, run, stages, store};

/// The end of a signed module.
const SIGNED: &[u8] = b"~Module signature appended~\n";

impl Own {
    /// Fills `dir`.
    pub(crate) fn pack(&self, tools: &Tree, busybox: &Path, dir: &Path, step: &Step) -> Result<()> {
        let release = self.release();
        let selected = dir.join("selected");
        let to = selected.join("lib/modules").join(release);
        fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
        for (index, module) in self.modules.iter().enumerate() {
            copy(&module.from, &to.join(&module.place))?;
            step.at(index as f64, self.modules.len() as f64);
        }
        for index in INDEXES {
            let _ = fs::copy(self.source.join(index), to.join(index));
        }
        modules::decompress(tools, &to)?;
        let files = modules::files(&to)?;
        let files: Vec<&PathBuf> = files.iter().filter(|f| f.extension().is_some_and(|x| x == "ko")).collect();
        self.check(&files)?;
        strip(&files)?;
        modules::depmod(tools, &selected, release)?;
        early::write_initrd(busybox, &to, &dir.join("initrd"))?;
        stages::move_below_usr(&selected)?;
        rootfs::pack(tools, &selected, &dir.join("modules.erofs"))?;
        store::remove(&selected)?;
        copy(&self.image, &dir.join("vmlinuz"))
    }

    /// The kernel would refuse modules of another one, each with a line in its log only.
    fn check(&self, files: &[&PathBuf]) -> Result<()> {
        let driver = files.iter().find(|f| f.file_name().is_some_and(|n| n == "mlx5_core.ko"));
        let Some(file) = driver.or(files.first()) else { return Ok(()) };
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        match made_for(&bytes) {
            Some(other) if other != self.release() => bail!(
                "the modules in {} are those of the kernel {other}, not of {}: name others with --modules",
                self.source.display(),
                self.release()
            ),
            _ => Ok(()),
        }
    }
}

/// The release in a module's `vermagic`.
fn made_for(module: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\0vermagic=";
    let at = module.windows(KEY.len()).position(|w| w == KEY)?;
    let text = module.get(at + KEY.len()..)?;
    let end = text.iter().position(|c| matches!(c, b' ' | 0))?;
    String::from_utf8(text[..end].to_vec()).ok()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, Permissions::from_mode(0o644)).with_context(|| format!("cannot change {}", to.display()))
}

/// Takes the debug information out, which can be gigabytes, if this machine has the program
/// for it. A signature would not survive that.
fn strip(files: &[&PathBuf]) -> Result<()> {
    let Some(program) = run::find_program("strip") else { return Ok(()) };
    let fat: Vec<&&PathBuf> = files.iter().filter(|f| fat(f) == Some(true)).collect();
    for some in fat.chunks(200) {
        let mut command = Command::new(&program);
        run::output(command.arg("--strip-debug").args(some), "stripping the modules")?;
    }
    Ok(())
}

/// Has this module debug information, and no signature?
fn fat(file: &Path) -> Option<bool> {
    let file = File::open(file).ok()?;
    let read = |at: u64, count: usize| -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    let length = file.metadata().ok()?.len();
    if read(length.checked_sub(SIGNED.len() as u64)?, SIGNED.len())? == SIGNED {
        return Some(false);
    }
    // The ELF header (elf.h, Elf64_Ehdr) has the place of the section headers, their size
    // and the number of the one with the names.
    let header = read(0, 64)?;
    let half = |at: usize| Some(u64::from(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?)));
    let word = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let place = half(58)?.checked_mul(half(62)?)?.checked_add(word(&header, 40)?)?;
    let section = read(place, 64)?;
    let (offset, size) = (word(&section, 24)?, word(&section, 32)?);
    let names = read(offset, usize::try_from(size.min(1 << 20)).ok()?)?;
    Some(names.split(|c| *c == 0).any(|name| name.ends_with(b".debug_info")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_its_kernel() {
        let text = b"\x7fELF\0license=GPL\0vermagic=7.2.0-rc1+ SMP preempt mod_unload \0name=x\0";
        assert_eq!(made_for(text).as_deref(), Some("7.2.0-rc1+"));
        assert_eq!(made_for(b"\0vermagic=7.2"), None);
        assert_eq!(made_for(b""), None);
    }

    /// An ELF header, the names of sections, and the header of their section.
    fn elf(names: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[40..48].copy_from_slice(&(64 + names.len() as u64).to_le_bytes());
        bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
        bytes.extend(names);
        let mut section = [0; 64];
        section[24..32].copy_from_slice(&64u64.to_le_bytes());
        section[32..40].copy_from_slice(&(names.len() as u64).to_le_bytes());
        bytes.extend(section);
        bytes
    }

    #[test]
    fn only_unsigned_modules_with_debug_information_are_stripped() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let fat = |bytes: &[u8]| -> Result<Option<bool>> {
            fs::write(file.path(), bytes)?;
            Ok(fat(file.path()))
        };
        let debug = elf(b"\0.text\0.rela.debug_info\0");
        assert_eq!(fat(&debug)?, Some(true));
        assert_eq!(fat(&elf(b"\0.text\0.debug_information\0"))?, Some(false));
        assert_eq!(fat(&[&debug[..], SIGNED].concat())?, Some(false));
        assert_eq!(fat(&debug[..100])?, None);
        assert_eq!(fat(b"")?, None);
        Ok(())
    }
}
