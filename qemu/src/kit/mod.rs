//! What a guest needs, made by the program itself on first use.
//!
//! The kit is a few directories ("stages") in the cache directory. Each is made in a
//! directory of its own and takes its name when it is complete, so an interrupted run is
//! taken up where it stopped. A stamp in each names what it was made from.

mod apt;
mod bzimage;
mod chroot;
mod early;
mod mlx5;
mod modules;
mod own;
mod pack;
mod progress;
mod qemu_binary;
mod recipe;
mod release;
mod rootfs;
mod run;
mod selftests;
mod sources;
mod stages;
mod store;
mod tree;
mod version;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use qemu_binary::Qemu;
use stages::Stages;
use store::Store;

/// The line of kernels that is used when nobody names one.
pub const DEFAULT_LINE: &str = "7.2";

/// Where and from what the kit is made.
#[derive(Debug, Clone, Default)]
pub struct KitOptions {
    /// Instead of `$XDG_CACHE_HOME/sfnic` or `~/.cache/sfnic`.
    pub cache_dir: Option<PathBuf>,
    /// Instead of the mirror of the machine's own apt configuration; `SFNIC_MIRROR` does
    /// the same.
    pub mirror: Option<String>,
    /// No progress on stderr.
    pub quiet: bool,
}

/// A finished kit for one kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kit {
    release: String,
    version: String,
    cache: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    modules: PathBuf,
    headers: PathBuf,
    root: PathBuf,
    qemu: Qemu,
    probe: Probe,
}

/// What KVM is tried with: a kernel that is known to boot, if there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) release: String,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// Where the result is noted.
    pub(crate) memo: PathBuf,
}

impl Kit {
    /// The kit for the newest kernel of a line (`7.2`); what is missing is made first,
    /// which takes minutes the first time.
    pub fn ensure(options: &KitOptions, line: &str) -> Result<Kit> {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            bail!("guests run on x86-64 Linux only");
        }
        let Some(kernel) = recipe::kernel_line(line) else {
            let known: Vec<&str> = Self::lines().collect();
            bail!("no kernel line {line}: there is {}", known.join(", "));
        };
        let store = Store::open(options.cache_dir.as_deref())?;
        Stages::new(store, options, kernel).ensure()
    }

    /// The kit for a kernel of the user's, as it is: nothing of it is rebuilt.
    ///
    /// `kernel` is an x86-64 `bzImage`, or the build tree that it was made in. `modules` is
    /// its `lib/modules/RELEASE`, or a directory above that. A build tree has its own
    /// modules; an image of the same release as a kernel of the kit does with the kit's.
    /// What guests need besides is made first if it is missing.
    ///
    /// # Errors
    /// The paths are not what they should be, or the kernel lacks what a guest needs.
    pub fn ensure_own(options: &KitOptions, kernel: &Path, modules: Option<&Path>) -> Result<Kit> {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            bail!("guests run on x86-64 Linux only");
        }
        let image = own::Image::find(kernel)?;
        let store = Store::open(options.cache_dir.as_deref())?;
        let stages = |line| Stages::new(store.clone(), options, line);
        let default = recipe::kernel_line(DEFAULT_LINE).context("no kernel line")?;
        let image = match image.modules(modules)? {
            Ok(own) => {
                if !own.lacking(["mlx5_core"]).is_empty() {
                    let text = format!("the kernel {} has no mlx5_core: nothing will drive the device", own.release());
                    progress::Progress::new(options.quiet).note(&text);
                }
                let stock = recipe::KERNEL_LINES.iter().find_map(|line| stages(line).ready());
                let kit = stages(default).ensure_own(&own)?;
                return Ok(Kit { probe: stock.map_or_else(|| kit.probe.clone(), |stock| stock.probe), ..kit });
            }
            Err(image) => image,
        };
        let same = |kit: &Kit| kit.release == image.release();
        let kit = match recipe::KERNEL_LINES.iter().filter_map(|line| stages(line).ready()).find(same) {
            Some(kit) => Some(kit),
            None => own::line_of(image.release()).map(|line| stages(line).ensure()).transpose()?.filter(same),
        };
        match kit {
            Some(kit) => Ok(Kit { kernel: image.file().to_path_buf(), ..kit }),
            None => bail!(
                "--kernel {}: where are the modules of {release}? Name them by --modules DIR: its lib/modules/{release}, \
                 or an empty directory if all is built in",
                kernel.display(),
                release = image.release()
            ),
        }
    }

    /// The kernel lines that there are.
    pub fn lines() -> impl Iterator<Item = &'static str> {
        recipe::KERNEL_LINES.iter().map(|l| l.line)
    }

    /// What is in the cache, as text for people.
    pub fn show(options: &KitOptions) -> Result<String> {
        let store = Store::open(options.cache_dir.as_deref())?;
        let mut text = format!("kit in {}\n", store.root().display());
        for line in recipe::KERNEL_LINES {
            match Stages::new(store.clone(), options, line).ready() {
                Some(kit) => {
                    text += &format!("kernel {}: {} (package {})\n", line.line, kit.release, kit.version);
                    text += &format!("  image {}\n  headers {}\n", kit.kernel.display(), kit.headers.display());
                    text += &format!("  QEMU {} ({})\n", kit.qemu.version, kit.qemu.words.join(" "));
                }
                None => text += &format!("kernel {}: not made yet\n", line.line),
            }
        }
        Ok(text)
    }

    /// Removes everything that the kit put into the cache directory.
    pub fn clean(options: &KitOptions) -> Result<()> {
        let store = Store::open(options.cache_dir.as_deref())?;
        let _lock = store.lock(&progress::Progress::new(options.quiet))?;
        for entry in fs::read_dir(store.root()).context("cannot read the cache directory")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = stages::STAGES.contains(&name.as_str())
                || ["kernel-", "selftests-", "packages-"].iter().any(|p| name.starts_with(p))
                || name.starts_with(".partial-");
            if ours {
                store::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The kernel source's directory that has `include/linux/mlx5/mlx5_ifc.h` and its
    /// neighbours. Of a kernel of the user's only a build tree has one.
    pub fn headers_dir(&self) -> &Path {
        &self.headers
    }

    /// What `uname -r` says in the guest.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The version of the kernel's packages; which build it is of a kernel of the user's.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The cache directory.
    pub fn cache_dir(&self) -> &Path {
        &self.cache
    }

    /// The kernel image.
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// The small first file system, without an init: the runner adds one.
    pub fn initrd(&self) -> &Path {
        &self.initrd
    }

    /// The disk image of the kernel's modules.
    pub fn modules(&self) -> &Path {
        &self.modules
    }

    /// The disk image of the root file system.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What KVM is tried with.
    pub(crate) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// The QEMU.
    pub fn qemu(&self) -> &Qemu {
        &self.qemu
    }
}
