//! The guest's first file system: busybox, and the modules that are loaded before the
//! disks are there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::modules::{Dependencies, module_name};
use super::recipe;
use crate::vm::cpio::Cpio;

/// A module to load by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Load {
    /// Below the modules' directory.
    path: String,
    /// Serves another one if this CPU has what it wants: it may fail.
    optional: bool,
}

/// Writes the archive for the modules in `dir` (`lib/modules/RELEASE`, indexed, decompressed).
/// What `dir` lacks is built in.
pub(crate) fn write_initrd(busybox: &Path, dir: &Path, file: &Path) -> Result<()> {
    let index = |name: &str| fs::read_to_string(dir.join(name));
    let dependencies = Dependencies::parse(&index("modules.dep").context("indexing the modules")?);
    let soft = index("modules.softdep").unwrap_or_default();
    let aliases = index("modules.alias").unwrap_or_default();
    let mut cpio = Cpio::new();
    for name in ["bin", "dev", "proc", "lower", "mods", "rw", "new", "m"] {
        cpio.dir(name);
    }
    cpio.file("bin/busybox", 0o755, &fs::read(busybox).context("cannot read busybox")?);
    for (number, load) in order(&dependencies, &soft, &aliases, recipe::EARLY_MODULES).iter().enumerate() {
        let bytes = fs::read(dir.join(&load.path)).with_context(|| format!("cannot read {}", load.path))?;
        let end = if load.optional { "optional.ko" } else { "ko" };
        cpio.file(&format!("m/{number:02}-{}.{end}", module_name(&load.path)), 0o644, &bytes);
    }
    fs::write(file, cpio.finish()).with_context(|| format!("cannot write {}", file.display()))
}

/// These modules and all that they need; before each, what it wants first by `soft`
/// dependencies (`softdep A pre: B`), whose names may be `aliases` (`alias B MODULE`).
fn order(dependencies: &Dependencies, soft: &str, aliases: &str, names: &[&str]) -> Vec<Load> {
    let mut order: Vec<Load> = Vec::new();
    let needed = dependencies.load_order(names);
    let mut add = |path: &String| {
        if !order.iter().any(|load| load.path == *path) {
            order.push(Load { path: path.clone(), optional: !needed.contains(path) });
        }
    };
    for path in &needed {
        for wanted in before(soft, &module_name(path)) {
            let providers = std::iter::once(wanted).chain(providers(aliases, wanted)).collect::<Vec<_>>();
            dependencies.load_order(&providers).iter().for_each(&mut add);
        }
        add(path);
    }
    order
}

/// What a module wants to be loaded before it.
fn before<'a>(soft: &'a str, module: &str) -> Vec<&'a str> {
    let rows = soft.lines().filter_map(|row| row.strip_prefix("softdep ")?.split_once(' '));
    let lists = rows.filter(|(name, _)| module_name(name) == module).map(|(_, list)| list);
    let mut found = Vec::new();
    for list in lists {
        let words = list.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
        found.extend(words.take_while(|word| !word.ends_with(':')));
    }
    found
}

/// The modules that go by another name.
fn providers<'a>(aliases: &'a str, name: &str) -> Vec<&'a str> {
    let rows = aliases.lines().filter_map(|row| row.strip_prefix("alias ")?.split_once(' '));
    rows.filter(|(alias, _)| *alias == name).map(|(_, module)| module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/lib/crc.ko:\nkernel/fs/a.ko: kernel/lib/crc.ko\nkernel/x86/crc32c-fast.ko: kernel/x86/simd.ko\n\
        kernel/x86/simd.ko:\nkernel/crc32c_slow.ko:\n";

    #[test]
    fn soft_dependencies_come_first_and_may_fail() {
        let order = order(
            &Dependencies::parse(DEP),
            "# soft\nsoftdep crc pre: crc32c post: other\nsoftdep a post: crc\n",
            "alias crc32c crc32c_slow\nalias crc32c crc32c_fast\nalias crc32 other\n",
            &["a", "built_in"],
        );
        let names: Vec<_> = order.iter().map(|l| (module_name(&l.path), l.optional)).collect();
        let expected = [("crc32c_slow", true), ("simd", true), ("crc32c_fast", true), ("crc", false), ("a", false)];
        assert_eq!(names, expected.map(|(name, optional)| (name.to_string(), optional)));
    }

    #[test]
    fn what_is_needed_may_not_fail() {
        let dep = "kernel/b.ko: kernel/c.ko\nkernel/c.ko:\n";
        let order = order(&Dependencies::parse(dep), "softdep b pre: c\n", "", &["b"]);
        assert!(order.iter().all(|load| !load.optional), "{order:?}");
    }
}
