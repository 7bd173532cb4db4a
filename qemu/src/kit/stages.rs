//! The stages of the kit, in the order in which they need each other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt::Apt;
use super::progress::{Progress, Step};
use super::qemu_binary::Qemu;
use super::recipe::{self, KernelLine};
use super::store::Store;
use super::tree::Tree;
use super::{Kit, KitOptions, Probe, early, mlx5, modules, own, release, rootfs};

/// Stages that all kernel lines share.
pub(crate) const STAGES: &[&str] = &["apt", "tools", "qemu", "guest"];

/// Makes one kit.
#[derive(Debug)]
pub(crate) struct Stages {
    store: Store,
    mirror: Option<String>,
    progress: Progress,
    line: &'static KernelLine,
}

/// What a kernel stage keeps beside its files.
#[derive(Debug, Serialize, Deserialize)]
struct KernelInfo {
    release: String,
    version: String,
}

impl Stages {
    pub(crate) fn new(store: Store, options: &KitOptions, line: &'static KernelLine) -> Stages {
        let from_env = || std::env::var("SFNIC_MIRROR").ok().filter(|m| !m.is_empty());
        let mirror = options.mirror.clone().or_else(from_env);
        Stages { store, mirror, progress: Progress::new(options.quiet), line }
    }

    fn kernel_stage(&self) -> String {
        format!("kernel-{}", self.line.line)
    }

    fn builder_stage(&self) -> String {
        format!("kernel-{}-builder", self.line.line)
    }

    fn source_stage(&self) -> String {
        format!("kernel-{}-source", self.line.line)
    }

    /// The kit, if all of it is there.
    pub(crate) fn ready(&self) -> Option<Kit> {
        let all = self.store.ready("qemu", &qemu_inputs())
            && self.store.ready("guest", &guest_inputs())
            && self.store.ready(&self.kernel_stage(), &self.kernel_inputs());
        all.then(|| self.kit().ok()).flatten()
    }

    fn kit(&self) -> Result<Kit> {
        let kernel = self.store.dir(&self.kernel_stage());
        let info: KernelInfo = read_json(&kernel.join("kernel.json"))?;
        let qemu: Qemu = read_json(&self.store.dir("qemu").join("qemu.json"))?;
        let probe = Probe {
            release: info.release.clone(),
            kernel: kernel.join("vmlinuz"),
            initrd: kernel.join("initrd"),
            memo: self.store.root().join("kvm-probe"),
        };
        Ok(Kit {
            probe,
            release: info.release,
            version: info.version,
            cache: self.store.root().to_path_buf(),
            initrd: kernel.join("initrd"),
            modules: kernel.join("modules.erofs"),
            headers: self.store.dir(&format!("{}-mlx5", self.kernel_stage())).join("source"),
            kernel: kernel.join("vmlinuz"),
            root: self.store.dir("guest").join("root.erofs"),
            qemu,
        })
    }

    /// Makes what is missing.
    pub(crate) fn ensure(&self) -> Result<Kit> {
        if let Some(kit) = self.ready() {
            return Ok(kit);
        }
        let _lock = self.store.lock(&self.progress)?;
        if let Some(kit) = self.ready() {
            return Ok(kit);
        }
        self.progress.note(&format!(
            "making the guest kit in {}: some minutes, once; an interrupted run is taken up where it stopped",
            self.store.root().display()
        ));
        let apt = self.apt()?;
        self.qemu(&apt)?;
        let tools = self.tools(&apt)?;
        self.guest(&apt, &tools)?;
        self.kernel(&apt, &tools)?;
        apt.drop_archives()?;
        self.kit()
    }

    /// The kit for a kernel of the user's: QEMU, root file system and tools are made if they
    /// are missing, the kernel's disk of modules if it or the kernel is new.
    pub(crate) fn ensure_own(&self, kernel: &own::Own) -> Result<Kit> {
        let stage = kernel.stage();
        let ready = || {
            let made = self.store.ready("qemu", &qemu_inputs()) && self.store.ready("guest", &guest_inputs());
            made && self.store.ready(&stage, &stage)
        };
        if !ready() {
            let _lock = self.store.lock(&self.progress)?;
            if !ready() {
                let tools = self.shared()?;
                let title = format!("modules of {}", kernel.release());
                self.staged(&stage, &stage, &title, |dir, step| kernel.pack(&tools, &self.busybox(), dir, step))?;
            }
            self.store.used(&stage);
            self.store.prune(own::PREFIX, own::KEPT, own::SPARED)?;
        } else {
            self.store.used(&stage);
        }
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
            release: kernel.release().to_string(),
            version: kernel.version().to_string(),
            cache: self.store.root().to_path_buf(),
            initrd: dir.join("initrd"),
            modules: dir.join("modules.erofs"),
            headers: kernel.headers(&dir),
            kernel: dir.join("vmlinuz"),
            root: self.store.dir("guest").join("root.erofs"),
            qemu: read_json(&self.store.dir("qemu").join("qemu.json"))?,
        })
    }

    /// Makes what guests of all kernels share, and the tools, under the caller's lock.
    fn shared(&self) -> Result<Tree> {
        let tools = inputs(recipe::TOOL_PACKAGES);
        let made = [("qemu", qemu_inputs()), ("guest", guest_inputs()), ("tools", tools)];
        if made.iter().all(|(stage, inputs)| self.store.ready(stage, inputs)) {
            return Ok(Tree::at(self.store.dir("tools").join("tree")));
        }
        let apt = self.apt()?;
        self.qemu(&apt)?;
        let tools = self.tools(&apt)?;
        self.guest(&apt, &tools)?;
        apt.drop_archives()?;
        Ok(tools)
    }

    fn busybox(&self) -> PathBuf {
        self.store.dir("guest").join("busybox")
    }

    /// What is said on stderr.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn apt(&self) -> Result<Apt> {
        let apt = Apt::open(&self.store.dir("apt"), self.mirror.as_deref())?;
        let step = self.progress.step("package lists");
        apt.update(&step)?;
        step.done();
        Ok(apt)
    }

    pub(crate) fn staged(
        &self,
        stage: &str,
        inputs: &str,
        title: &str,
        make: impl FnOnce(&Path, &Step) -> Result<()>,
    ) -> Result<PathBuf> {
        self.store.stage(stage, inputs, |dir| {
            let step = self.progress.step(title);
            make(dir, &step)?;
            step.done();
            Ok(())
        })
    }

    fn qemu(&self, apt: &Apt) -> Result<()> {
        let dir = self.staged("qemu", &qemu_inputs(), "QEMU", |dir, step| {
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

    fn tools(&self, apt: &Apt) -> Result<Tree> {
        let dir = self.staged("tools", &inputs(recipe::TOOL_PACKAGES), "tools", |dir, step| {
            let packages = apt.with_dependencies(&strings(recipe::TOOL_PACKAGES), None, step)?;
            Tree::create(&dir.join("tree"))?.unpack(&packages, &[], step)
        })?;
        Ok(Tree::at(dir.join("tree")))
    }

    fn guest(&self, apt: &Apt, tools: &Tree) -> Result<()> {
        self.staged("guest", &guest_inputs(), "guest programs", |dir, step| {
            let packages = apt.with_dependencies(&strings(recipe::GUEST_PACKAGES), None, step)?;
            let tree = rootfs::fill(&dir.join("tree"), &packages, step)?;
            rootfs::pack(tools, tree.root(), &dir.join("root.erofs"))?;
            fs::copy(tree.join("usr/bin/busybox"), dir.join("busybox")).context("cannot copy busybox")?;
            super::store::remove(tree.root())
        })?;
        Ok(())
    }

    fn kernel_inputs(&self) -> String {
        let line = self.line;
        format!("{}\n{:?}\n{:?}\n{:?}", self.mlx5_inputs(), line.images, recipe::GUEST_MODULES, recipe::EARLY_MODULES)
    }

    fn mlx5_inputs(&self) -> String {
        let KernelLine { line, suites, builders, compiler, source, symbols, rebuilt, added, images: _ } = self.line;
        let parts = (line, suites, builders, compiler, source, symbols, rebuilt, added, recipe::SOURCE_PATHS);
        format!("{}\n{parts:?}", recipe::REVISION)
    }

    /// The rebuilt modules, the headers that they were made with, and for which kernel.
    fn mlx5(&self, apt: &Apt) -> Result<(PathBuf, KernelInfo)> {
        let line = self.line;
        let stage = format!("{}-mlx5", self.kernel_stage());
        if !self.store.ready(&stage, &self.mlx5_inputs()) {
            let chosen = release::newest(apt, line)?;
            let (number, version) = (&chosen.release, &chosen.version);
            self.progress.note(&format!("the newest kernel of the line {} is {number}", line.line));
            let inputs = format!("{}\n{number} {version}", self.mlx5_inputs());
            let builder = self.staged(&self.builder_stage(), &inputs, "compiler and headers", |dir, step| {
                let packages = apt.with_dependencies(&line.builder_packages(number), None, step)?;
                let tree = Tree::create(&dir.join("tree"))?;
                tree.unpack(&packages, &[], step)?;
                tree.link("usr/bin/awk", "mawk")
            })?;
            let source = self.staged(&self.source_stage(), &inputs, "kernel source", |dir, step| {
                mlx5::extract_source(&apt.alone(line.source, version, step)?, line, dir)
            })?;
            self.staged(&stage, &self.mlx5_inputs(), "mlx5 modules", |dir, step| {
                mlx5::compile(&Tree::at(builder.join("tree")), &source, line, number, step)?;
                modules::collect(&builder.join("tree/mlx5"), dir)?;
                copy_tree(&source.join("include"), &dir.join("source/include"))?;
                mlx5::copy_layouts(&source, &dir.join("source"))?;
                write_json(&dir.join("kernel.json"), &KernelInfo { release: number.clone(), version: version.clone() })
            })?;
        }
        self.store.forget(&self.builder_stage())?;
        self.store.forget(&self.source_stage())?;
        let dir = self.store.dir(&stage);
        let info = read_json(&dir.join("kernel.json"))?;
        Ok((dir, info))
    }

    fn kernel(&self, apt: &Apt, tools: &Tree) -> Result<()> {
        let line = self.line;
        let (mlx5, info) = self.mlx5(apt)?;
        let (number, version) = (&info.release, &info.version);
        self.staged(&self.kernel_stage(), &self.kernel_inputs(), "kernel and modules", |dir, step| {
            let mut packages = Vec::new();
            for package in line.images {
                packages.push(apt.alone(&package.replace("{}", number), version, step)?);
            }
            let stock = Tree::create(&dir.join("stock"))?;
            let useless: Vec<String> =
                recipe::USELESS_MODULES.iter().map(|p| format!("./usr/lib/modules/*/kernel/{p}")).collect();
            stock.unpack(&packages, &useless.iter().map(String::as_str).collect::<Vec<_>>(), step)?;
            let selected = dir.join("selected");
            modules::select(tools, &stock, &mlx5, &selected, number)?;
            let indexed = selected.join("lib/modules").join(number);
            if let Some(name) = modules::lacking(&indexed, recipe::EARLY_MODULES)?.first() {
                bail!("the kernel {number} lacks the module {name}");
            }
            early::write_initrd(&self.busybox(), &indexed, &dir.join("initrd"))?;
            move_below_usr(&selected)?;
            rootfs::pack(tools, &selected, &dir.join("modules.erofs"))?;
            // Until 7.x the image was in /boot.
            let places = [format!("usr/lib/modules/{number}/vmlinuz"), format!("boot/vmlinuz-{number}")];
            let image = places.iter().map(|place| stock.join(place)).find(|file| file.exists());
            let image = image.with_context(|| format!("the package of {number} has no kernel image"))?;
            fs::copy(image, dir.join("vmlinuz")).context("cannot copy the kernel image")?;
            for tree in [stock.root(), &selected] {
                super::store::remove(tree)?;
            }
            write_json(&dir.join("kernel.json"), &info)
        })?;
        Ok(())
    }
}

/// The root file system has `/lib` as a link to `/usr/lib`; the modules' image is laid over it.
pub(crate) fn move_below_usr(selected: &Path) -> Result<()> {
    fs::create_dir_all(selected.join("usr")).context("cannot arrange the modules")?;
    fs::rename(selected.join("lib"), selected.join("usr/lib")).context("cannot arrange the modules")
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for file in modules::files(from)? {
        let place = to.join(file.strip_prefix(from).unwrap_or(&file));
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::copy(&file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

fn inputs(list: &[&str]) -> String {
    format!("{}\n{} {}\n{list:?}", recipe::REVISION, recipe::BASE_SUITE, recipe::BACKPORTS_SUITE)
}

fn qemu_inputs() -> String {
    let chosen = std::env::var("SFNIC_QEMU").unwrap_or_default();
    format!("{}\n{chosen}", inputs(recipe::QEMU_PACKAGES))
}

fn guest_inputs() -> String {
    let files = (recipe::USELESS_PACKAGES, recipe::USELESS_PATHS, recipe::USELESS_GUEST_PATHS);
    format!("{}\n{files:?}", inputs(recipe::GUEST_PACKAGES))
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot describe the kit")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged: remove the kit and try again", path.display()))
}
