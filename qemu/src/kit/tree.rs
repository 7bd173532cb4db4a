//! Trees of unpacked packages, and programs run from such a tree without installing it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use super::progress::Step;
use super::recipe;

/// Libraries of a Debian tree.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Its dynamic loader.
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// A tree of unpacked packages.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An existing tree.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Tree {
        Tree { root: root.into() }
    }

    /// A new tree with the merged `/usr` that packages expect.
    pub(crate) fn create(root: &Path) -> Result<Tree> {
        for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            fs::create_dir_all(root.join(target)).with_context(|| format!("cannot create {}", root.display()))?;
            symlink(target, root.join(link)).with_context(|| format!("cannot link {link} in {}", root.display()))?;
        }
        Ok(Tree::at(root))
    }

    /// The top of the tree.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the tree.
    pub(crate) fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Unpacks packages side by side, except the given paths.
    pub(crate) fn unpack(&self, packages: &[PathBuf], except: &[&str], step: &Step) -> Result<()> {
        let next = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(4);
        thread::scope(|scope| {
            let work = || -> Result<()> {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(package) = packages.get(index) else { return Ok(()) };
                    self.unpack_one(package, except)?;
                    step.at(index as f64, packages.len() as f64);
                }
            };
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                match thread.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("unpacking packages: a thread failed"),
                }
            }
            Ok(())
        })
    }

    fn unpack_one(&self, package: &Path, except: &[&str]) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "--delay-directory-restore", "-C"])
            .arg(&self.root);
        tar.args(except.iter().chain(recipe::USELESS_PATHS).map(|path| format!("--exclude={path}")));
        pipe_into(package, tar)
    }

    /// A program of the tree, run by the tree's own loader with its own libraries.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.join(LOADER));
        command.arg("--library-path").arg(self.join(LIBRARIES)).arg(self.join(program));
        command
    }

    /// Makes a symbolic link, as packages' own scripts would have.
    pub(crate) fn link(&self, path: &str, target: &str) -> Result<()> {
        let path = self.join(path);
        let _ = fs::remove_file(&path);
        symlink(target, &path).with_context(|| format!("cannot link {}", path.display()))
    }
}

/// Feeds the file system archive of a package to a program.
pub(crate) fn pipe_into(package: &Path, mut consumer: Command) -> Result<()> {
    let what = || format!("unpacking {}", package.display());
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(what)?;
    let stream = dpkg.stdout.take().with_context(what)?;
    let result = consumer.stdin(stream).output().with_context(what)?;
    let source = dpkg.wait_with_output().with_context(what)?;
    for (name, out) in [("dpkg-deb", &source), ("tar", &result)] {
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr);
            bail!("{}: {name} failed: {}", what(), text.lines().last().unwrap_or("no reason given"));
        }
    }
    Ok(())
}

/// The name of the package in a file `name_version_arch.deb`.
pub(crate) fn package_name(file: &Path) -> &str {
    file.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('_').next()).unwrap_or("")
}
