//! A kernel of the user's: an image or a build tree, and where its modules are.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::bzimage::Header;
use super::lines::{self, KernelLine, Origin};
use super::modules::{Dependencies, module_name};
use super::recipe;
use super::store::Stage;

/// What the stages of such kernels are called.
pub(crate) const STEM: &str = "kernel-own";
/// How many of them stay.
pub(crate) const KEPT: usize = 3;
/// A stage used within this time stays in any case.
pub(crate) const SPARED: Duration = Duration::from_secs(600);

/// Changes when a stage of the same inputs comes out otherwise.
const FORMAT: u32 = 1;

/// The image of a build tree.
const IMAGE: &str = "arch/x86/boot/bzImage";
/// Which kernel a build tree makes.
const TREE_RELEASE: &str = "include/config/kernel.release";

/// What a guest cannot start without: the module and the symbol of the configuration.
const NEEDED: &[(&str, &str)] = &[
    ("virtio_pci", "VIRTIO_PCI"),
    ("virtio_blk", "VIRTIO_BLK"),
    ("virtio_console", "VIRTIO_CONSOLE"),
    ("erofs", "EROFS_FS"),
    ("overlay", "OVERLAY_FS"),
];

/// An image and the tree that it was built in.
#[derive(Debug)]
pub(crate) struct Image {
    file: PathBuf,
    tree: Option<PathBuf>,
    header: Header,
}

impl Image {
    /// `path` is an image or a build tree.
    pub(crate) fn find(path: &Path) -> Result<Image> {
        let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        if !path.is_dir() {
            let header = Header::read(&path)?;
            return Ok(Image { file: path, tree: None, header });
        }
        let file = path.join(IMAGE);
        if !file.is_file() {
            bail!("{} is no build tree of a kernel for x86, or not built yet: it has no {IMAGE}", path.display());
        }
        let header = Header::read(&file)?;
        let tree = fs::read_to_string(path.join(TREE_RELEASE)).unwrap_or_default();
        if !tree.trim().is_empty() && tree.trim() != header.release {
            bail!(
                "{}: the image is {} but the tree is at {}: run make there",
                path.display(),
                header.release,
                tree.trim()
            );
        }
        Ok(Image { file, tree: Some(path), header })
    }

    /// What `uname -r` will say.
    pub(crate) fn release(&self) -> &str {
        &self.header.release
    }

    /// The file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Looks for the modules: in `dir` if there is one, else in the build tree. None for an
    /// image alone.
    pub(crate) fn modules(self, dir: Option<&Path>) -> Result<Result<Own, Image>> {
        let source = match (dir, &self.tree) {
            (Some(dir), _) => Source::find(dir, self.release())?,
            (None, Some(tree)) => Source::Tree(tree.clone()),
            (None, None) => return Ok(Err(self)),
        };
        Own::new(self, source).map(Ok)
    }
}

/// Where modules are.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// Scattered in a build tree.
    Tree(PathBuf),
    /// In `lib/modules/RELEASE`.
    Installed(PathBuf),
}

impl Source {
    /// `dir` is `lib/modules/RELEASE`, a directory above it, or a build tree.
    fn find(dir: &Path, release: &str) -> Result<Source> {
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        for above in ["lib/modules", "usr/lib/modules", ""] {
            let place = dir.join(above).join(release);
            if place.is_dir() {
                return Ok(Source::Installed(place));
            }
        }
        if dir.join(TREE_RELEASE).exists() {
            return Ok(Source::Tree(dir));
        }
        let named = dir.file_name().is_some_and(|name| name == release);
        let installed = ["kernel", "updates", "modules.dep", "modules.order"].iter().any(|n| dir.join(n).exists());
        let empty = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none());
        if named || installed || empty {
            return Ok(Source::Installed(dir));
        }
        bail!(
            "--modules {}: no modules of {release} are there; allowed is its lib/modules/{release}, a directory \
             above that, its build tree, or an empty directory if all is built in",
            dir.display()
        )
    }

    fn dir(&self) -> &Path {
        match self {
            Source::Tree(dir) | Source::Installed(dir) => dir,
        }
    }

    /// All modules that the guest gets.
    fn modules(&self) -> Result<Vec<Module>> {
        match self {
            Source::Tree(tree) => in_tree(tree),
            Source::Installed(dir) => installed(dir),
        }
    }
}

/// A file of a module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Module {
    /// Its place below `lib/modules/RELEASE`.
    pub(crate) place: String,
    /// The file.
    pub(crate) from: PathBuf,
}

/// A kernel of the user's with its modules.
#[derive(Debug)]
pub(crate) struct Own {
    pub(super) image: PathBuf,
    pub(super) header: Header,
    /// Where the modules and their indexes are.
    pub(super) source: PathBuf,
    pub(super) modules: Vec<Module>,
    key: u64,
}

impl Own {
    fn new(image: Image, source: Source) -> Result<Own> {
        let Image { file, tree: _, header } = image;
        let mut modules = source.modules()?;
        modules.sort();
        let source = source.dir().to_path_buf();
        let mut own = Own { image: file, header, source, modules, key: 0 };
        own.key = own.key()?;
        let lacking = own.lacking(NEEDED.iter().map(|(module, _)| *module));
        if !lacking.is_empty() {
            let symbols = NEEDED.iter().filter(|(module, _)| lacking.contains(module));
            let symbols: Vec<String> = symbols.map(|(_, symbol)| format!("CONFIG_{symbol}")).collect();
            bail!(
                "the kernel {} has {} neither built in nor as modules in {}: a guest needs {}",
                own.release(),
                lacking.join(", "),
                own.source.display(),
                symbols.join(", ")
            );
        }
        Ok(own)
    }

    /// Those modules that the kernel certainly hasn't. Only the list of what is built in
    /// makes it certain.
    pub(crate) fn lacking<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let Ok(builtin) = fs::read_to_string(self.source.join("modules.builtin")) else { return Vec::new() };
        let loadable = self.modules.iter().map(|m| m.place.as_str());
        let there: BTreeSet<String> = loadable.chain(builtin.lines()).map(module_name).collect();
        names.into_iter().filter(|name| !there.contains(*name)).collect()
    }

    /// What all of it is: other files, other times or other sizes make another key.
    fn key(&self) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        let lists = (recipe::USELESS_MODULES, recipe::EARLY_MODULES);
        (FORMAT, recipe::REVISION, lists, &self.header.release, &self.header.version).hash(&mut hasher);
        let indexes = INDEXES.iter().map(|index| self.source.join(index)).filter(|file| file.exists());
        let files = self.modules.iter().map(|m| m.from.clone()).chain(indexes).chain([self.image.clone()]);
        for file in files {
            let meta = fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
            (&file, meta.size(), meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    /// Its stage in the cache.
    pub(crate) fn stage(&self) -> Stage {
        Stage::new(STEM, format!("{} {:016x}", self.header.release, self.key))
    }

    /// What `uname -r` will say.
    pub(crate) fn release(&self) -> &str {
        &self.header.release
    }

    /// Which build it is.
    pub(crate) fn version(&self) -> &str {
        &self.header.version
    }

    /// The directory with its source's headers, if it was built there; else one below
    /// `stage` that does not exist.
    pub(crate) fn headers(&self, stage: &Path) -> PathBuf {
        let trees = [self.source.clone(), self.source.join("source")];
        let found = trees.into_iter().find(|tree| tree.join("include/linux/mlx5/mlx5_ifc.h").exists());
        found.unwrap_or_else(|| stage.join("source"))
    }
}

/// The kernel line of the kit whose newest kernel may be this one.
pub(crate) fn line_of(release: &str) -> Option<&'static KernelLine> {
    let same = |rest: &str| rest.starts_with(['.', '-', '+']) && rest.ends_with("-amd64");
    let stock = lines::all().iter().filter(|l| l.origin() == Origin::Stock);
    stock.into_iter().find(|l| release.strip_prefix(l.name()).is_some_and(same))
}

/// Indexes that depmod does not make itself but reads.
pub(super) const INDEXES: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// The modules that a build tree's `modules.order` names and that are there; without one,
/// all in the tree.
fn in_tree(tree: &Path) -> Result<Vec<Module>> {
    let Ok(order) = fs::read_to_string(tree.join("modules.order")) else {
        let place = |place: String| format!("kernel/{place}");
        return Ok(walk(tree)?.into_iter().map(|m| Module { place: place(m.place), ..m }).collect());
    };
    let places: BTreeSet<String> = order.lines().filter_map(tree_place).collect();
    let module = |place: String| Module { from: tree.join(&place), place: format!("kernel/{place}") };
    Ok(places.into_iter().map(module).filter(|m| m.from.is_file()).collect())
}

/// A row of a build tree's `modules.order`: `fs/a.o`, before 6.3 `fs/a.ko`, before 5.17
/// `kernel/fs/a.ko`.
fn tree_place(row: &str) -> Option<String> {
    let row = row.trim();
    let row = row.strip_prefix("kernel/").filter(|rest| rest.contains('/')).unwrap_or(row);
    let stem = row.strip_suffix(".ko").or_else(|| row.strip_suffix(".o"))?;
    let inside = Path::new(stem).components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| format!("{stem}.ko"))
}

/// The modules of `lib/modules/RELEASE` without those for hardware that no guest has,
/// unless others need them.
fn installed(dir: &Path) -> Result<Vec<Module>> {
    let all = walk(dir)?;
    let useless = |place: &str| {
        let below = |rest: &str| recipe::USELESS_MODULES.iter().any(|u| Path::new(rest).starts_with(u));
        place.strip_prefix("kernel/").is_some_and(below)
    };
    let dependencies = fs::read_to_string(dir.join("modules.dep")).unwrap_or_default();
    let dependencies = Dependencies::parse(&dependencies);
    let useful = all.iter().filter(|m| !useless(&m.place));
    let needed: BTreeSet<&String> = useful.flat_map(|m| dependencies.of(&m.place)).collect();
    Ok(all.iter().filter(|m| !useless(&m.place) || needed.contains(&m.place)).cloned().collect())
}

/// All modules below a directory.
fn walk(top: &Path) -> Result<Vec<Module>> {
    let mut found = Vec::new();
    let mut dirs = vec![top.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let what = || format!("cannot read {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(what)? {
            let entry = entry.with_context(what)?;
            let path = entry.path();
            // A link to a directory (`build`, `source`) leads elsewhere; one to a module is a module.
            if entry.file_type().with_context(what)?.is_dir() {
                dirs.push(path);
            } else if is_module(&path) && path.is_file() {
                let place = path.strip_prefix(top).unwrap_or(&path);
                let place = place.to_str().with_context(|| format!("{}: a name in no Unicode", path.display()))?;
                found.push(Module { place: place.to_string(), from: path });
            }
        }
    }
    Ok(found)
}

fn is_module(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes empty files.
    fn touch(dir: &Path, files: &[&str]) -> Result<()> {
        for file in files {
            let file = dir.join(file);
            fs::create_dir_all(file.parent().unwrap_or(dir))?;
            fs::write(file, "")?;
        }
        Ok(())
    }

    fn places(modules: Vec<Module>) -> Vec<String> {
        let mut places: Vec<String> = modules.into_iter().map(|m| m.place).collect();
        places.sort();
        places
    }

    #[test]
    fn modules_are_found_from_each_directory_above_them() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().canonicalize()?;
        touch(&root, &["lib/modules/7.2.0/kernel/a.ko", "lib/modules/7.1.0/kernel/a.ko"])?;
        let right = Source::Installed(root.join("lib/modules/7.2.0"));
        for dir in ["", "lib/modules", "lib/modules/7.2.0"] {
            assert_eq!(Source::find(&root.join(dir), "7.2.0")?, right, "{dir}");
        }
        let said = Source::find(&root, "6.1.0").unwrap_err().to_string();
        assert!(said.starts_with("--modules ") && said.contains("lib/modules/6.1.0"), "{said}");
        touch(&root, &["usr/lib/modules/6.1.0/modules.dep"])?;
        assert_eq!(Source::find(&root, "6.1.0")?, Source::Installed(root.join("usr/lib/modules/6.1.0")));
        fs::create_dir(root.join("empty"))?;
        assert_eq!(Source::find(&root.join("empty"), "6.1.0")?, Source::Installed(root.join("empty")));
        Ok(())
    }

    #[test]
    fn the_kits_modules_fit_kernels_of_its_lines() {
        assert_eq!(line_of("7.2.12+deb13-amd64").map(KernelLine::name), Some("7.2"));
        assert!(line_of("7.20.1-amd64").is_none() && line_of("7.2.12-mine").is_none());
        assert!(line_of("6.12.107").is_none() && line_of("7.2").is_none());
    }

    #[test]
    fn a_tree_has_the_modules_that_its_order_names() -> Result<()> {
        let temp = tempfile::tempdir()?;
        touch(temp.path(), &["fs/a.ko", "fs/b.ko", "net/c.ko", "net/old.ko", "kernel/d.ko"])?;
        assert_eq!(in_tree(temp.path())?.len(), 5);
        let order = "fs/a.o\nfs/b.ko\nkernel/net/c.ko\nnet/gone.o\n../x.o\n/etc/x.ko\nkernel/d.o\n";
        fs::write(temp.path().join("modules.order"), order)?;
        let found = in_tree(temp.path())?;
        assert!(found.iter().all(|m| m.from.is_file()));
        assert_eq!(places(found), ["kernel/fs/a.ko", "kernel/fs/b.ko", "kernel/kernel/d.ko", "kernel/net/c.ko"]);
        Ok(())
    }

    #[test]
    fn hardware_that_no_guest_has_is_left_out_unless_needed() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let dir = temp.path();
        touch(dir, &["kernel/net/a.ko.xz", "kernel/sound/s.ko.zst", "kernel/drivers/usb/u.ko", "extra/sound/x.ko.gz"])?;
        touch(dir, &["modules.symbols", "kernel/net/README"])?;
        assert_eq!(places(installed(dir)?), ["extra/sound/x.ko.gz", "kernel/net/a.ko.xz"]);
        fs::write(dir.join("modules.dep"), "kernel/net/a.ko.xz: kernel/drivers/usb/u.ko\n")?;
        assert_eq!(places(installed(dir)?), ["extra/sound/x.ko.gz", "kernel/drivers/usb/u.ko", "kernel/net/a.ko.xz"]);
        Ok(())
    }

    fn own(dir: &Path) -> Result<Own> {
        fs::write(dir.join("image"), "")?;
        let header = Header { release: "7.2.0".to_string(), version: String::new() };
        let image = Image { file: dir.join("image"), tree: None, header };
        Own::new(image, Source::Installed(dir.to_path_buf()))
    }

    #[test]
    fn what_is_built_in_is_not_missing() -> Result<()> {
        let temp = tempfile::tempdir()?;
        touch(temp.path(), &["kernel/fs/erofs/erofs.ko.xz"])?;
        assert!(own(temp.path())?.lacking(["virtio_blk"]).is_empty(), "nobody says what is built in");
        let builtin = temp.path().join("modules.builtin");
        fs::write(&builtin, "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/block/virtio_blk.ko\n")?;
        let said = own(temp.path()).unwrap_err().to_string();
        assert!(said.contains("has virtio_console, overlay neither"), "{said}");
        assert!(said.ends_with("needs CONFIG_VIRTIO_CONSOLE, CONFIG_OVERLAY_FS"), "{said}");
        touch(temp.path(), &["kernel/virtio_console.ko", "kernel/fs/overlayfs/overlay.ko"])?;
        assert_eq!(own(temp.path())?.lacking(["erofs", "mlx5_core"]), ["mlx5_core"]);
        Ok(())
    }

    #[test]
    fn any_change_makes_another_stage() -> Result<()> {
        let temp = tempfile::tempdir()?;
        touch(temp.path(), &["kernel/a.ko"])?;
        let first = own(temp.path())?.stage();
        fs::write(temp.path().join("kernel/a.ko"), "x")?;
        let second = own(temp.path())?.stage();
        assert!(first != second && second.stem() == STEM);
        touch(temp.path(), &["kernel/b.ko"])?;
        assert_ne!(own(temp.path())?.stage(), second);
        Ok(())
    }
}
