//! The guest's root file system: packages without their documentation, as a disk image.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::progress::Step;
use super::tree::{Tree, package_name};
use super::{recipe, run};

/// Files that packages' own scripts would have written.
const FILES: [(&str, &str); 7] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
         tcpdump:x:100:100::/nonexistent:/bin/false\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\ndaemon:x:1:\ntty:x:5:\nkvm:x:99:\ntcpdump:x:100:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/hostname", "guest\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n"),
    ("etc/bash.bashrc", "PS1='guest:\\w\\$ '\nalias ls='ls --color=auto' ll='ls -l'\n"),
    ("root/.bashrc", ". /etc/bash.bashrc\n"),
];

/// Names that the alternatives system would have made.
const LINKS: [(&str, &str); 5] = [
    ("usr/bin/sh", "dash"),
    ("usr/bin/awk", "mawk"),
    ("usr/bin/nc", "nc.openbsd"),
    ("usr/bin/python", "python3"),
    ("etc/mtab", "../proc/self/mounts"),
];

/// Unpacks the guest's packages into `dir` and completes them. Those that are `needed` by
/// their names are unpacked whole, even if a usual guest can do without.
pub(crate) fn fill(dir: &Path, packages: &[PathBuf], needed: &[String], step: &Step) -> Result<Tree> {
    let tree = Tree::create(dir)?;
    let useless: HashSet<&str> = recipe::USELESS_PACKAGES.iter().copied().collect();
    let is_needed = |p: &&PathBuf| needed.iter().any(|name| name == package_name(p));
    let (whole, usual): (Vec<&PathBuf>, Vec<&PathBuf>) = packages.iter().partition(is_needed);
    let usual: Vec<PathBuf> = usual.into_iter().filter(|p| !useless.contains(package_name(p))).cloned().collect();
    tree.unpack(&usual, recipe::USELESS_GUEST_PATHS, step)?;
    tree.unpack(&whole.into_iter().cloned().collect::<Vec<_>>(), &[], step)?;
    for sub in ["dev", "proc", "sys", "run", "tmp", "root", "host", "mnt", "var/log", "var/lib", "var/tmp", "etc"] {
        fs::create_dir_all(tree.join(sub)).with_context(|| format!("cannot create {sub} of the guest"))?;
    }
    for (path, text) in FILES {
        fs::write(tree.join(path), text).with_context(|| format!("cannot write {path} of the guest"))?;
    }
    for (path, target) in LINKS {
        tree.link(path, target)?;
    }
    busybox_links(&tree)?;
    compile_python(&tree)?;
    Ok(tree)
}

/// Gives busybox every name that no other package of the guest has.
fn busybox_links(tree: &Tree) -> Result<()> {
    let mut busybox = Command::new(tree.join("usr/bin/busybox"));
    let text = run::output(busybox.arg("--list"), "listing the programs of busybox")?;
    for applet in text.lines().filter(|name| !name.is_empty() && !name.contains('/')) {
        let taken = ["usr/bin", "usr/sbin"].iter().any(|dir| tree.join(dir).join(applet).symlink_metadata().is_ok());
        if !taken {
            symlink("busybox", tree.join("usr/bin").join(applet)).with_context(|| format!("cannot link {applet}"))?;
        }
    }
    Ok(())
}

/// Compiles Python's library now: a guest that has to would do it at every start.
fn compile_python(tree: &Tree) -> Result<()> {
    let bin = tree.join("usr/bin");
    let found = fs::read_dir(&bin)
        .with_context(|| format!("cannot read {}", bin.display()))?
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .find(|n| n.strip_prefix("python3.").is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit())));
    let name = found.context("the guest has no Python: remove the kit and try again")?;
    let root = tree.root().to_string_lossy().into_owned();
    let library = tree.join("usr/lib").join(&name);
    let mut python = tree.command(Path::new("usr/bin").join(&name));
    python
        .env("PYTHONHOME", tree.join("usr"))
        .args(["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", &root, "-p", "/"])
        .arg(library);
    run::output(&mut python, "compiling the guest's Python library").map(drop)
}

/// Packs a tree into a read-only disk image.
pub(crate) fn pack(tools: &Tree, tree: &Path, image: &Path) -> Result<()> {
    let mut command = tools.command("usr/bin/mkfs.erofs");
    command.args(["--quiet", "--all-root", "-T0"]).arg(image).arg(tree);
    run::output(&mut command, "packing a disk image").map(drop)
}
