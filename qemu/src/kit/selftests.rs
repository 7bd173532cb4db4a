//! What the kernel's self-tests of network drivers need: their part of the kernel's source
//! and packages of the guest that its root file system lacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::recipe::{self, KernelLine};
use super::stages::Stages;
use super::store::{Store, remove};
use super::tree::{Tree, pipe_into};
use super::{Kit, KitOptions, chroot, run};

/// What builds the programs that go with the tests.
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

/// The parts of the source, from its root. `MAINTAINERS` is how the generators know it.
const PATHS: &[&str] = &[
    "MAINTAINERS",
    "Documentation/netlink",
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

impl Kit {
    /// The self-tests of network drivers, and what they are built from, of the newest kernel
    /// of a line: a directory with the layout of the kernel's source.
    ///
    /// # Errors
    /// There is no such line, or its source cannot be had.
    pub fn selftests(options: &KitOptions, line: &str) -> Result<PathBuf> {
        let Some(line) = recipe::kernel_line(line) else { bail!("no kernel line {line}") };
        let version = Self::ensure(options, line.line)?.version;
        let store = Store::open(options.cache_dir.as_deref())?;
        let (stage, inputs) =
            (format!("selftests-{}", line.line), format!("{version}\n{PATHS:?}\n{BUILDERS:?}\n{BUILD}"));
        if store.ready(&stage, &inputs) {
            return Ok(store.dir(&stage));
        }
        let stages = Stages::new(store.clone(), options, line);
        let _lock = store.lock(stages.progress())?;
        let apt = stages.apt()?;
        let dir = stages.staged(&stage, &inputs, "self-tests", |dir, step| {
            let builders: Vec<String> = BUILDERS.iter().map(ToString::to_string).collect();
            let packages = apt.with_dependencies(&builders, None, step)?;
            let tree = Tree::create(&dir.join("tree"))?;
            tree.unpack(&packages, &[], step)?;
            let work = tree.join("work");
            fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
            unpack(&apt.alone(line.source, &version, step)?, line, &work)?;
            let mut said = Vec::new();
            run::lines(&mut chroot::script(&tree, BUILD)?, "building the self-tests", |row| said.push(row.to_owned()))?;
            for row in said.iter().filter(|row| row.starts_with("not made: ")) {
                stages.progress().note(&format!("self-tests of {version}: {row}"));
            }
            for entry in fs::read_dir(&work).context("cannot read the self-tests")?.flatten() {
                fs::rename(entry.path(), dir.join(entry.file_name())).context("cannot keep the self-tests")?;
            }
            remove(tree.root())
        })?;
        apt.drop_archives()?;
        Ok(dir)
    }

    /// These packages alone, without what they depend on, unpacked below one directory. They
    /// come from the release that the guest's programs come from.
    ///
    /// # Errors
    /// A package cannot be had.
    pub fn packages(options: &KitOptions, name: &str, packages: &[&str]) -> Result<PathBuf> {
        let store = Store::open(options.cache_dir.as_deref())?;
        let line = recipe::kernel_line(super::DEFAULT_LINE).context("no kernel line")?;
        let (stage, inputs) = (format!("packages-{name}"), format!("{}\n{packages:?}", recipe::BASE_SUITE));
        let tree = store.dir(&stage).join("tree");
        if store.ready(&stage, &inputs) {
            return Ok(tree);
        }
        let stages = Stages::new(store.clone(), options, line);
        let _lock = store.lock(stages.progress())?;
        let apt = stages.apt()?;
        stages.staged(&stage, &inputs, name, |dir, step| {
            let mut files = Vec::new();
            for package in packages {
                let versions = apt.versions(package)?;
                let version = versions.last().with_context(|| format!("no package {package} in the lists"))?;
                files.push(apt.alone(package, version, step)?);
            }
            Tree::create(&dir.join("tree"))?.unpack(&files, &[], step)
        })?;
        apt.drop_archives()?;
        Ok(tree)
    }
}

/// Takes the parts out of the package of a kernel's source.
fn unpack(package: &Path, line: &KernelLine, dir: &Path) -> Result<()> {
    let what = "unpacking the self-tests";
    let tarball = dir.join("source.tar.xz");
    let mut tar = Command::new("tar");
    tar.arg("-x").arg(format!("./usr/src/{}.tar.xz", line.source));
    tar.arg("--to-command=cat >\"$SFNIC_TARBALL\"").env("SFNIC_TARBALL", &tarball);
    pipe_into(package, tar)?;
    let out = Command::new("tar")
        .args(["-x", "-J", "--no-same-owner", "--strip-components=1", "-f"])
        .arg(&tarball)
        .arg("-C")
        .arg(dir)
        .args(PATHS.iter().map(|path| format!("{}/{path}", line.source)))
        .stdin(Stdio::null())
        .output()
        .context(what)?;
    let _ = fs::remove_file(&tarball);
    // Not every kernel has every part; without these there are no tests at all.
    for needed in ["tools/testing/selftests/drivers/net/lib/py", "tools/net/ynl", "Documentation/netlink/specs"] {
        if !dir.join(needed).exists() {
            let text = String::from_utf8_lossy(&out.stderr);
            bail!("{what}: no {needed}: {}", text.lines().next().unwrap_or("this kernel has none"));
        }
    }
    Ok(())
}
