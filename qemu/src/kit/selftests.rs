//! What the kernel's self-tests of network drivers need: their part of the kernel's source,
//! and the programs that go with them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::stages::Stages;
use super::store::{Stage, Store, remove};
use super::tree::Tree;
use super::{Kit, KitOptions, chroot, known, mlx5, run};

/// What builds the programs.
const BUILDERS: &[&str] = &[
    "binutils-bpf",
    "coreutils",
    "dash",
    "findutils",
    "gcc",
    "gcc-bpf",
    "grep",
    "libbpf-dev",
    "libc6-dev",
    "python3",
    "python3-yaml",
];
/// How they are built, for a shell in the build tree.
const BUILD: &str = include_str!("selftests.sh");

/// The parts of the source. `MAINTAINERS` is how the generators know its root.
const PATHS: &[&str] = &[
    "MAINTAINERS",
    "Documentation/netlink",
    "include/linux/mlx5",
    "include/uapi",
    "tools/arch/x86/include/uapi",
    "tools/include/uapi",
    "tools/net/ynl",
    "tools/testing/selftests/drivers/net",
    "tools/testing/selftests/kselftest",
    "tools/testing/selftests/kselftest.h",
    "tools/testing/selftests/kselftest_harness.h",
    "tools/testing/selftests/net/forwarding",
    "tools/testing/selftests/net/lib",
    "tools/testing/selftests/net/lib.sh",
];

/// Without it there are no tests.
const LIBRARY: &str = "tools/testing/selftests/drivers/net/lib/py";

impl Kit {
    /// Were the self-tests of network drivers built with this kernel?
    pub fn has_selftests(&self) -> bool {
        self.source.join(LIBRARY).exists()
    }

    /// The self-tests of network drivers with their programs, of the kernel that this is a
    /// kit for: a directory with the layout of the kernel's source. A whole kernel's kit has
    /// them; for others they are made first.
    ///
    /// # Errors
    /// It is a kernel of the user's, or the source cannot be had, or this kernel is so old
    /// that it has no such tests.
    pub fn selftests(&self, options: &KitOptions) -> Result<PathBuf> {
        if self.has_selftests() {
            return Ok(self.source.clone());
        }
        let line = self.line().context("the self-tests come with the kernels of the kit: --kernel names one")?;
        let line = known(line.name())?;
        let store = Store::open(options.cache_dir.as_deref())?;
        let inputs = format!("{}\n{PATHS:?}\n{BUILDERS:?}\n{BUILD}", self.version);
        let stage = Stage::new(format!("selftests-{}", line.name()), inputs);
        if store.ready(&stage) {
            return Ok(store.dir(&stage));
        }
        let stages = Stages::new(store.clone(), options, line);
        let _lock = store.lock(line.name(), &stages.progress)?;
        let apt = stages.apt(&line.suites, line.name())?;
        let dir = stages.staged(&stage, "self-tests", |dir, step| {
            let builders: Vec<String> = BUILDERS.iter().map(ToString::to_string).collect();
            let packages = apt.with_dependencies(&builders, None, step)?;
            let tree = Tree::create(&dir.join("tree"))?;
            tree.unpack(&packages, &[], step)?;
            let work = tree.join("work");
            fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
            mlx5::extract_source(&apt.alone(&line.source, &self.version, step)?, &line.source, PATHS, &work)?;
            anyhow::ensure!(work.join(LIBRARY).exists(), "the kernel {} has no such tests", line.name());
            self.build(&tree, &stages)?;
            keep(&work, dir)?;
            remove(tree.root())
        })?;
        apt.drop_archives()?;
        Ok(dir)
    }

    fn build(&self, tree: &Tree, stages: &Stages) -> Result<()> {
        let mut left_out = Vec::new();
        run::lines(&mut chroot::script(tree, BUILD)?, "building the self-tests", |row| {
            left_out.extend(row.strip_prefix("not made: ").map(str::to_owned));
        })?;
        for row in left_out {
            stages.progress.note(&format!("self-tests of {}: not made: {row}", self.version));
        }
        Ok(())
    }
}

fn keep(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).context("cannot read the self-tests")?.flatten() {
        fs::rename(entry.path(), to.join(entry.file_name())).context("cannot keep the self-tests")?;
    }
    Ok(())
}
