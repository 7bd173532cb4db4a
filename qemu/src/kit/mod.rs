//! What a guest needs, made by the program itself on first use.
//!
//! The kit is a few directories ("stages") in the cache directory. Each is made in a
//! directory of its own and takes its name when it is complete, so an interrupted run is
//! taken up where it stopped. Its name ends in a digest of what it was made from; a stamp in
//! it has that in full. Who uses a stage holds a lock on its stamp, so that nobody removes
//! it meanwhile.

mod apt;
mod built;
mod bzimage;
mod chroot;
mod early;
mod lines;
mod mlx5;
mod modules;
mod own;
mod pack;
mod program;
mod progress;
mod qemu_binary;
mod recipe;
mod release;
mod rootfs;
mod run;
mod selftests;
mod sources;
mod stages;
mod stock;
mod store;
mod tree;
mod version;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use lines::{KernelLine, Origin, line};
pub use qemu_binary::Qemu;
use stages::Stages;
use store::{Hold, Store};

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
    /// Debian packages that the guest has besides the usual ones, by name; what they need
    /// comes along.
    pub with: Vec<String>,
}

/// What was asked for is wrong: one line that says what, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong(pub String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// A finished kit for one kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kit {
    line: Option<String>,
    release: String,
    version: String,
    cache: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    modules: PathBuf,
    source: PathBuf,
    root: PathBuf,
    qemu: Qemu,
    probe: Probe,
    /// Keeps the files from being removed.
    #[serde(skip)]
    _held: Vec<Hold>,
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
    /// which takes minutes the first time, for a whole kernel a quarter of an hour and more.
    ///
    /// # Errors
    /// [`Wrong`] if there is no such line, package or suite; anything else if it cannot be
    /// made.
    pub fn ensure(options: &KitOptions, line: &str) -> Result<Kit> {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            bail!("guests run on x86-64 Linux only");
        }
        let kernel = known(line)?;
        let store = Store::open(options.cache_dir.as_deref())?;
        Stages::new(store, options, kernel).ensure()
    }

    /// The kit for a line if all of it is there; nothing is made.
    ///
    /// # Errors
    /// [`Wrong`] if there is no such line.
    pub fn ready(options: &KitOptions, line: &str) -> Result<Option<Kit>> {
        let kernel = known(line)?;
        let store = Store::open(options.cache_dir.as_deref())?;
        Ok(Stages::new(store, options, kernel).ready())
    }

    /// The kit for a kernel of the user's, as it is: nothing of it is rebuilt.
    ///
    /// `kernel` is an x86-64 `bzImage`, or the build tree that it was made in. `modules` is
    /// its `lib/modules/RELEASE`, or a directory above that. A build tree has its own
    /// modules; an image of the same release as a kernel of the kit does with the kit's.
    /// What guests need besides is made first if it is missing.
    ///
    /// # Errors
    /// [`Wrong`] if the paths are not what they should be, or the kernel lacks what a guest
    /// needs; anything else if the kit cannot be made.
    pub fn ensure_own(options: &KitOptions, kernel: &Path, modules: Option<&Path>) -> Result<Kit> {
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            bail!("guests run on x86-64 Linux only");
        }
        let image = own::Image::find(kernel).map_err(wrong)?;
        let store = Store::open(options.cache_dir.as_deref())?;
        let stages = |line| Stages::new(store.clone(), options, line);
        let default = known(DEFAULT_LINE)?;
        let image = match image.modules(modules).map_err(wrong)? {
            Ok(own) => {
                if !own.lacking(["mlx5_core"]).is_empty() {
                    let text = format!("the kernel {} has no mlx5_core: nothing will drive the device", own.release());
                    progress::Progress::new(options.quiet).note(&text);
                }
                let stock = lines::all().iter().find_map(|line| stages(line).ready());
                let kit = stages(default).ensure_own(&own)?;
                return Ok(Kit { probe: stock.map_or_else(|| kit.probe.clone(), |stock| stock.probe), ..kit });
            }
            Err(image) => image,
        };
        let same = |kit: &Kit| kit.release == image.release();
        let kit = match lines::all().iter().filter_map(|line| stages(line).ready()).find(same) {
            Some(kit) => Some(kit),
            None => own::line_of(image.release()).map(|line| stages(line).ensure()).transpose()?.filter(same),
        };
        match kit {
            Some(kit) => Ok(Kit { kernel: image.file().to_path_buf(), ..kit }),
            None => Err(Wrong(format!(
                "--kernel {}: where are the modules of {release}? Name them by --modules DIR: its lib/modules/{release}, \
                 or an empty directory if all is built in",
                kernel.display(),
                release = image.release()
            ))
            .into()),
        }
    }

    /// The kernel lines that there are.
    pub fn lines() -> impl Iterator<Item = &'static str> {
        lines::all().iter().map(KernelLine::name)
    }

    /// What is in the cache, as text for people.
    pub fn show(options: &KitOptions) -> Result<String> {
        let store = Store::open(options.cache_dir.as_deref())?;
        let mut text = format!("kit in {}\n", store.root().display());
        for line in lines::all() {
            let (name, kind, about) = (line.name(), line.origin().word(), line.about());
            match Stages::new(store.clone(), options, line).ready() {
                Some(kit) => {
                    text += &format!("kernel {name}: {} ({kind}, package {}): {about}\n", kit.release, kit.version);
                    text += &format!("  image {}\n  source {}\n", kit.kernel.display(), kit.source.display());
                    text += &format!("  QEMU {} ({})\n", kit.qemu.version, kit.qemu.words.join(" "));
                }
                None => text += &format!("kernel {name}: not made yet ({kind}): {about}\n"),
            }
        }
        Ok(text)
    }

    /// Removes everything that the kit put into the cache directory, or only what it has of
    /// these lines. What a guest uses stays and is given back.
    ///
    /// # Errors
    /// [`Wrong`] if there is no such line; a directory cannot be removed.
    pub fn clean(options: &KitOptions, only: &[String]) -> Result<Vec<PathBuf>> {
        for line in only {
            known(line)?;
        }
        let store = Store::open(options.cache_dir.as_deref())?;
        let progress = progress::Progress::new(options.quiet);
        let kinds: Vec<&str> = match only {
            [] => ["shared", "own"].into_iter().chain(Self::lines()).collect(),
            _ => only.iter().map(String::as_str).collect(),
        };
        let _locks: Vec<store::Lock> =
            kinds.into_iter().map(|kind| store.lock(kind, &progress)).collect::<Result<_>>()?;
        if !only.is_empty() {
            let of_line = |stem: &str, line: &String| {
                let rest = stem.strip_prefix("kernel-").and_then(|rest| rest.strip_prefix(line.as_str()));
                rest.is_some_and(|part| ["", "-mlx5", "-builder", "-source"].contains(&part))
            };
            return store.clear(|stem| only.iter().any(|line| of_line(stem, line)));
        }
        let kept = store.clear(|_| true)?;
        for entry in fs::read_dir(store.root()).context("cannot read the cache directory")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if path.is_file() && name.starts_with("kvm-probe") {
                let _ = fs::remove_file(&path);
            }
            // Also what older versions of this program called their stages.
            let shared = ["apt", "tools", "qemu", "guest"].contains(&name.as_str());
            let prefixed = [stages::APT_PREFIX, program::PREFIX, "kernel-", "selftests-", ".partial-"]
                .iter()
                .any(|p| name.starts_with(p));
            if path.is_dir() && (shared || prefixed) && !kept.contains(&path) {
                store::remove(&path)?;
            }
        }
        Ok(kept)
    }

    /// The same with further Debian packages in the guest; they are fetched first.
    ///
    /// # Errors
    /// [`Wrong`] if there is no such package; anything else if they cannot be had.
    pub fn with(&self, packages: &[String]) -> Result<Kit> {
        let options = KitOptions {
            cache_dir: Some(self.cache.clone()),
            with: packages.to_vec(),
            quiet: true,
            ..KitOptions::default()
        };
        let other = Self::ensure(&options, self.line.as_deref().unwrap_or(DEFAULT_LINE))?;
        let held = self._held.iter().chain(&other._held).cloned().collect();
        Ok(Kit { root: other.root.clone(), _held: held, ..self.clone() })
    }

    /// The line of kernels that it is; none for a kernel of the user's.
    pub fn line(&self) -> Option<&'static KernelLine> {
        self.line.as_deref().and_then(lines::line)
    }

    /// How much longer than on other kernels a guest may take; at least 1.
    pub fn timeout_factor(&self) -> f64 {
        self.line().map_or(1.0, KernelLine::timeout_factor)
    }

    /// The kernel source's directory that has `include/linux/mlx5/mlx5_ifc.h` and its
    /// neighbours. Of a kernel of the user's only a build tree has one.
    pub fn headers_dir(&self) -> &Path {
        &self.source
    }

    /// The part of the kernel's source that is kept. Of a `built` line it has the kernel's
    /// own tests below `tools/testing/selftests`, their programs compiled, and what they
    /// use: `usr/include`, `tools/net/ynl`, `Documentation/netlink/specs`.
    pub fn source_dir(&self) -> &Path {
        &self.source
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

/// The line of that name.
fn known(line: &str) -> Result<&'static KernelLine> {
    let no_line = || {
        let known: Vec<&str> = Kit::lines().collect();
        Wrong(format!("no kernel line {line:?}: allowed is {}", known.join(", ")))
    };
    Ok(lines::line(line).ok_or_else(no_line)?)
}

/// What is wrong with what the user named.
fn wrong(e: anyhow::Error) -> anyhow::Error {
    Wrong(format!("{e:#}")).into()
}
