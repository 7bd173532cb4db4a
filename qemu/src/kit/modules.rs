//! Picks the kernel modules of the guest, swaps the rebuilt ones in, and packs them.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::recipe;
use super::run;
use super::tree::Tree;

/// What needs what, as `modules.dep` says: paths relative to the modules' directory.
#[derive(Debug, Default)]
pub(crate) struct Dependencies {
    needs: HashMap<String, Vec<String>>,
}

impl Dependencies {
    /// Reads the text of a `modules.dep`.
    pub(crate) fn parse(text: &str) -> Dependencies {
        let row = |line: &str| {
            let (module, needs) = line.split_once(':')?;
            Some((module.to_string(), needs.split_whitespace().map(str::to_string).collect()))
        };
        Dependencies { needs: text.lines().filter_map(row).collect() }
    }

    /// What a module needs, directly or not.
    pub(crate) fn of(&self, path: &str) -> &[String] {
        self.needs.get(path).map_or(&[], Vec::as_slice)
    }

    /// All paths that start with one of these below `kernel/`, and all that they need.
    pub(crate) fn closure(&self, prefixes: &[&str]) -> BTreeSet<String> {
        let wanted = |path: &&String| {
            path.strip_prefix("kernel/").is_some_and(|p| prefixes.iter().any(|prefix| p.starts_with(prefix)))
        };
        let mut found = BTreeSet::new();
        for path in self.needs.keys().filter(wanted) {
            found.extend(self.of(path).iter().cloned());
            found.insert(path.clone());
        }
        found
    }

    /// The order in which to load modules by hand, those that they need first.
    pub(crate) fn load_order(&self, names: &[&str]) -> Vec<String> {
        let mut order: Vec<String> = Vec::new();
        for name in names {
            let Some((path, needs)) = self.needs.iter().find(|(path, _)| module_name(path) == *name) else {
                continue; // built in
            };
            // The list has the most dependent first.
            for path in needs.iter().rev().chain([path]) {
                if !order.contains(path) {
                    order.push(path.clone());
                }
            }
        }
        order
    }
}

/// `kernel/a/b-c.ko.xz` is the module `b_c`.
pub(crate) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// Makes indexes for `root/lib/modules/release`.
pub(crate) fn depmod(tools: &Tree, root: &Path, release: &str) -> Result<()> {
    let mut command = tools.command("usr/bin/kmod");
    // The one program is told by its name what to do.
    let mut renamed = Command::new(command.get_program());
    renamed.args(["--argv0", "depmod"]).args(command.get_args());
    command = renamed;
    run::output(command.arg("-b").arg(root).arg(release), "indexing the modules").map(drop)
}

/// Fills `target/lib/modules/release` from the unpacked stock modules and the rebuilt ones.
pub(crate) fn select(tools: &Tree, stock: &Tree, rebuilt: &Path, target: &Path, release: &str) -> Result<()> {
    let below = Path::new("lib/modules").join(release);
    let (from, to) = (stock.join(&below), target.join(&below));
    depmod(tools, stock.root(), release)?;
    let text = fs::read_to_string(from.join("modules.dep")).context("indexing the stock modules")?;
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    for path in Dependencies::parse(&text).closure(recipe::GUEST_MODULES) {
        if module_name(&path).starts_with("mlx5") {
            continue;
        }
        let place = to.join(&path);
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::copy(from.join(&path), &place).with_context(|| format!("cannot copy {path}"))?;
    }
    for index in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        let _ = fs::copy(from.join(index), to.join(index));
    }
    let extra = to.join("updates");
    fs::create_dir_all(&extra).with_context(|| format!("cannot create {}", extra.display()))?;
    collect(rebuilt, &extra)?;
    decompress(tools, &to)?;
    depmod(tools, target, release)
}

/// Copies all modules below a directory into another, side by side.
pub(crate) fn collect(from: &Path, to: &Path) -> Result<()> {
    let mut count = 0;
    for file in files(from)?.into_iter().filter(|f| f.extension().is_some_and(|x| x == "ko")) {
        if let Some(name) = file.file_name() {
            fs::copy(&file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("there are no modules in {}", from.display());
    }
    Ok(())
}

/// Decompresses all modules: doing it at every boot costs an emulated CPU seconds.
pub(crate) fn decompress(tools: &Tree, dir: &Path) -> Result<()> {
    let files = files(dir)?;
    for suffix in ["xz", "zst", "gz"] {
        let packed: Vec<&PathBuf> = files.iter().filter(|f| f.extension().is_some_and(|x| x == suffix)).collect();
        for some in packed.chunks(200) {
            let mut command = match suffix {
                "xz" => Command::new("xz"),
                "zst" => tools.command("usr/bin/zstd"),
                _ => Command::new("gzip"),
            };
            command.args(["-d", "-q"]).args(if suffix == "zst" { &["--rm"][..] } else { &[] });
            run::output(command.args(some), "decompressing the modules")?;
        }
    }
    Ok(())
}

/// Those of `names` that are neither in `dir` (`lib/modules/RELEASE`, indexed) nor built in.
pub(crate) fn lacking<'a>(dir: &Path, names: &[&'a str]) -> Result<Vec<&'a str>> {
    let read = |index: &str| fs::read_to_string(dir.join(index)).context("indexing the modules");
    let (loadable, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let loadable = loadable.lines().filter_map(|row| row.split(':').next());
    let there: BTreeSet<String> = loadable.chain(builtin.lines()).map(module_name).collect();
    Ok(names.iter().copied().filter(|name| !there.contains(*name)).collect())
}

/// All plain files below a directory.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
        let kind = entry.file_type().with_context(|| format!("cannot read {}", dir.display()))?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a/virtio.ko:\nkernel/a/ring.ko: kernel/a/virtio.ko\n\
        kernel/a/virtio-pci.ko.xz: kernel/a/ring.ko kernel/a/virtio.ko\nkernel/b/other.ko:\n";

    #[test]
    fn load_order_has_needed_modules_first() {
        let deps = Dependencies::parse(DEP);
        assert_eq!(
            deps.load_order(&["virtio_pci", "ring", "built_in"]),
            ["kernel/a/virtio.ko", "kernel/a/ring.ko", "kernel/a/virtio-pci.ko.xz"]
        );
    }

    #[test]
    fn closure_brings_what_is_needed() {
        let deps = Dependencies::parse(DEP);
        assert_eq!(
            deps.closure(&["a/ring"]).into_iter().collect::<Vec<_>>(),
            ["kernel/a/ring.ko", "kernel/a/virtio.ko"]
        );
    }
}
