//! The stages of the kit, in the order in which they need each other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::apt::Apt;
use super::lines::{KernelLine, Origin};
use super::progress::{Progress, Step};
use super::qemu_binary::Qemu;
use super::recipe;
use super::store::{Hold, Stage, Store};
use super::tree::{Tree, package_name};
use super::{Kit, KitOptions, Probe, modules, own, rootfs};

/// How many stages of one kind stay when a new one is made, besides those used lately.
const KEPT: usize = 1;
/// How many root file systems with further packages stay.
const KEPT_ROOTS: usize = 4;
/// A stage used within this time stays in any case.
const SPARED: Duration = Duration::from_secs(24 * 3600);

/// Makes one kit.
#[derive(Debug)]
pub(crate) struct Stages {
    pub(super) store: Store,
    pub(super) progress: Progress,
    pub(super) line: &'static KernelLine,
    mirror: Option<String>,
    /// Packages that the guest's root file system has besides, sorted.
    with: Vec<String>,
}

/// What a kernel stage keeps beside its files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KernelInfo {
    pub(super) release: String,
    pub(super) version: String,
}

impl Stages {
    pub(crate) fn new(store: Store, options: &KitOptions, line: &'static KernelLine) -> Stages {
        let from_env = || std::env::var("SFNIC_MIRROR").ok().filter(|m| !m.is_empty());
        let mirror = options.mirror.clone().or_else(from_env);
        let mut with = options.with.clone();
        with.sort();
        with.dedup();
        Stages { store, mirror, progress: Progress::new(options.quiet), line, with }
    }

    /// What the stages of this line's kernel are called.
    pub(super) fn stem(&self, part: &str) -> String {
        let dash = if part.is_empty() { "" } else { "-" };
        format!("kernel-{}{dash}{part}", self.line.name())
    }

    /// The stage with the image and its modules.
    pub(super) fn kernel_stage(&self) -> Stage {
        let lists = match self.line.origin() {
            Origin::Stock => format!("{:?}\n{:?}", self.line.images, recipe::GUEST_MODULES),
            Origin::Built => format!("{:?}", recipe::KEPT_SOURCES),
        };
        Stage::new(self.stem(""), format!("{}\n{lists}\n{:?}", self.inputs(), recipe::EARLY_MODULES))
    }

    /// What decides how the line's modules come out.
    pub(super) fn inputs(&self) -> String {
        format!("{}\n{}\n{:?}", recipe::REVISION, self.line.inputs(), recipe::SOURCE_PATHS)
    }

    /// The root file system that the guest will have.
    fn root_stage(&self) -> Stage {
        if self.with.is_empty() {
            guest()
        } else {
            Stage::new("guest-with", format!("{:?}\n{}", self.with, root_inputs()))
        }
    }

    /// The kit, if all of it is there.
    pub(crate) fn ready(&self) -> Option<Kit> {
        let mut stages = vec![qemu(), self.root_stage(), self.kernel_stage()];
        if self.line.origin() == Origin::Stock {
            stages.push(self.mlx5_stage());
        }
        let held: Option<Vec<Hold>> = stages.iter().map(|stage| self.store.hold(stage)).collect();
        self.kit(held?).ok()
    }

    fn kit(&self, held: Vec<Hold>) -> Result<Kit> {
        let kernel = self.store.dir(&self.kernel_stage());
        let info: KernelInfo = read_json(&kernel.join("kernel.json"))?;
        let probe = Probe {
            release: info.release.clone(),
            kernel: kernel.join("vmlinuz"),
            initrd: kernel.join("initrd"),
            memo: self.store.root().join(format!("{PROBE_PREFIX}{}", self.line.name())),
        };
        let source = match self.line.origin() {
            Origin::Stock => self.store.dir(&self.mlx5_stage()).join("source"),
            Origin::Built => kernel.join("source"),
        };
        Ok(Kit {
            probe,
            line: Some(self.line.name().to_string()),
            release: info.release,
            version: info.version,
            cache: self.store.root().to_path_buf(),
            initrd: kernel.join("initrd"),
            modules: kernel.join("modules.erofs"),
            source,
            kernel: kernel.join("vmlinuz"),
            root: self.store.dir(&self.root_stage()).join("root.erofs"),
            qemu: read_json(&self.store.dir(&qemu()).join("qemu.json"))?,
            _held: held,
        })
    }

    /// Makes what is missing.
    pub(crate) fn ensure(&self) -> Result<Kit> {
        if let Some(kit) = self.ready() {
            return Ok(kit);
        }
        self.progress.note(&format!(
            "making the guest kit in {}: some minutes, once; an interrupted run is taken up where it stopped",
            self.store.root().display()
        ));
        let (tools, _held) = self.shared()?;
        let _lock = self.store.lock(self.line.name(), &self.progress)?;
        if !self.store.ready(&self.kernel_stage()) {
            match self.line.origin() {
                Origin::Stock => self.stock(&tools)?,
                Origin::Built => self.built(&tools)?,
            }
            for part in ["", "mlx5"] {
                self.store.prune(&self.stem(part), KEPT, SPARED)?;
            }
        }
        self.ready().with_context(|| self.gone())
    }

    fn gone(&self) -> String {
        format!("the kit in {} is damaged: remove it (sfnic kit clean) and try again", self.store.root().display())
    }

    /// The kit for a kernel of the user's: QEMU, root file system and tools are made if they
    /// are missing, the kernel's disk of modules if it or the kernel is new.
    pub(crate) fn ensure_own(&self, kernel: &own::Own) -> Result<Kit> {
        let stage = kernel.stage();
        let stages = [qemu(), self.root_stage(), stage.clone()];
        let hold = || -> Option<Vec<Hold>> { stages.iter().map(|stage| self.store.hold(stage)).collect() };
        let held = match hold() {
            Some(held) => held,
            None => {
                let (tools, _held) = self.shared()?;
                let _lock = self.store.lock("own", &self.progress)?;
                let title = format!("modules of {}", kernel.release());
                self.staged(&stage, &title, |dir, step| kernel.pack(&tools, &self.busybox(), dir, step))?;
                let held = hold().with_context(|| self.gone())?;
                self.store.prune(stage.stem(), own::KEPT, own::SPARED)?;
                held
            }
        };
        let dir = self.store.dir(&stage);
        let probe = Probe {
            release: kernel.release().to_string(),
            kernel: dir.join("vmlinuz"),
            initrd: dir.join("initrd"),
            // With the kernel: the next one may boot where this one does not.
            memo: dir.join("kvm-probe"),
        };
        Ok(Kit {
            probe,
            line: None,
            release: kernel.release().to_string(),
            version: kernel.version().to_string(),
            cache: self.store.root().to_path_buf(),
            initrd: dir.join("initrd"),
            modules: dir.join("modules.erofs"),
            source: kernel.headers(&dir),
            kernel: dir.join("vmlinuz"),
            root: self.store.dir(&self.root_stage()).join("root.erofs"),
            qemu: read_json(&self.store.dir(&qemu()).join("qemu.json"))?,
            _held: held,
        })
    }

    /// Makes what guests of all kernels share, and the tools. They stay as long as the
    /// second part of the answer lives.
    fn shared(&self) -> Result<(Tree, Vec<Hold>)> {
        let stages = [tools(), qemu(), guest(), self.root_stage()];
        let hold = || -> Option<Vec<Hold>> { stages.iter().map(|stage| self.store.hold(stage)).collect() };
        let tree = Tree::at(self.store.dir(&tools()).join("tree"));
        if let Some(held) = hold() {
            return Ok((tree, held));
        }
        let _lock = self.store.lock("shared", &self.progress)?;
        if let Some(held) = hold() {
            return Ok((tree, held));
        }
        let apt = self.apt(&[recipe::BASE_SUITE, recipe::BACKPORTS_SUITE], "shared")?;
        // Before all else: nothing is made for a name that is wrong.
        apt.known(&self.with)?;
        self.qemu(&apt)?;
        self.tools(&apt)?;
        self.root(&apt, &tree, &guest(), &[])?;
        self.root(&apt, &tree, &self.root_stage(), &self.with)?;
        apt.drop_archives()?;
        let held = hold().with_context(|| self.gone())?;
        for (stem, kept) in [("qemu", KEPT), ("tools", KEPT), ("guest", KEPT), ("guest-with", KEPT_ROOTS)] {
            self.store.prune(stem, kept, SPARED)?;
        }
        Ok((tree, held))
    }

    pub(super) fn busybox(&self) -> PathBuf {
        self.store.dir(&guest()).join("busybox")
    }

    /// The private apt for these suites, with recent lists.
    pub(super) fn apt<S: AsRef<str>>(&self, suites: &[S], purpose: &str) -> Result<Apt> {
        let suites: Vec<&str> = suites.iter().map(AsRef::as_ref).collect();
        let dir = self.store.root().join(format!("{APT_PREFIX}{}", suites.join("+")));
        let _lock = self.store.lock(&format!("{APT_PREFIX}{}", suites.join("+")), &self.progress)?;
        let apt = Apt::open(&dir, self.mirror.as_deref(), &suites, purpose)?;
        let step = self.progress.step("package lists");
        apt.update(&step)?;
        step.done();
        Ok(apt)
    }

    pub(super) fn staged(
        &self,
        stage: &Stage,
        title: &str,
        make: impl FnOnce(&Path, &Step) -> Result<()>,
    ) -> Result<PathBuf> {
        self.store.stage(stage, |dir| {
            let step = self.progress.step(title);
            make(dir, &step)?;
            step.done();
            Ok(())
        })
    }

    fn qemu(&self, apt: &Apt) -> Result<()> {
        let dir = self.staged(&qemu(), "QEMU", |dir, step| {
            if let Some(qemu) = Qemu::of_machine() {
                return write_json(&dir.join("qemu.json"), &qemu);
            }
            let packages =
                apt.with_dependencies(&strings(recipe::QEMU_PACKAGES), Some(recipe::BACKPORTS_SUITE), step)?;
            let tree = Tree::create(&dir.join("tree"))?;
            tree.unpack(&packages, &[], step)?;
            Qemu::of_tree(tree.root()).map(drop)
        })?;
        let file = dir.join("qemu.json");
        if !file.exists() {
            write_json(&file, &Qemu::of_tree(&dir.join("tree"))?)?;
        }
        Ok(())
    }

    fn tools(&self, apt: &Apt) -> Result<()> {
        self.staged(&tools(), "tools", |dir, step| {
            let packages = apt.with_dependencies(&strings(recipe::TOOL_PACKAGES), None, step)?;
            Tree::create(&dir.join("tree"))?.unpack(&packages, &[], step)
        })?;
        Ok(())
    }

    /// A root file system of the usual packages and these.
    fn root(&self, apt: &Apt, tools: &Tree, stage: &Stage, with: &[String]) -> Result<()> {
        let title = if with.is_empty() { "guest programs" } else { "guest programs with further packages" };
        self.staged(stage, title, |dir, step| {
            let usual = strings(recipe::GUEST_PACKAGES);
            let packages = apt.with_dependencies(&[&usual[..], with].concat(), None, step)?;
            let needed: Vec<String> = match with {
                [] => Vec::new(),
                _ => apt.resolve(with, None)?.iter().map(|file| package_name(Path::new(file)).to_string()).collect(),
            };
            let tree = rootfs::fill(&dir.join("tree"), &packages, &needed, step)?;
            rootfs::pack(tools, tree.root(), &dir.join("root.erofs"))?;
            fs::copy(tree.join("usr/bin/busybox"), dir.join("busybox")).context("cannot copy busybox")?;
            super::store::remove(tree.root())
        })?;
        Ok(())
    }
}

/// What the notes whether KVM boots a kernel start with.
pub(super) const PROBE_PREFIX: &str = "kvm-probe-";
/// What the directories of the private apts start with.
pub(super) const APT_PREFIX: &str = "apt-";

fn qemu() -> Stage {
    let chosen = std::env::var("SFNIC_QEMU").unwrap_or_default();
    Stage::new("qemu", format!("{}\n{chosen}", inputs(recipe::QEMU_PACKAGES)))
}

fn tools() -> Stage {
    Stage::new("tools", inputs(recipe::TOOL_PACKAGES))
}

fn guest() -> Stage {
    Stage::new("guest", root_inputs())
}

fn root_inputs() -> String {
    let files = (recipe::USELESS_PACKAGES, recipe::USELESS_PATHS, recipe::USELESS_GUEST_PATHS);
    format!("{}\n{files:?}", inputs(recipe::GUEST_PACKAGES))
}

/// The root file system has `/lib` as a link to `/usr/lib`; the modules' image is laid over it.
pub(crate) fn move_below_usr(selected: &Path) -> Result<()> {
    fs::create_dir_all(selected.join("usr")).context("cannot arrange the modules")?;
    fs::rename(selected.join("lib"), selected.join("usr/lib")).context("cannot arrange the modules")
}

pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for file in modules::files(from)? {
        let place = to.join(file.strip_prefix(from).unwrap_or(&file));
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::copy(&file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

pub(super) fn inputs(list: &[&str]) -> String {
    format!("{}\n{} {}\n{list:?}", recipe::REVISION, recipe::BASE_SUITE, recipe::BACKPORTS_SUITE)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot describe the kit")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged: remove the kit and try again", path.display()))
}
