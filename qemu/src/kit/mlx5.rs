//! Rebuilds the mlx5 modules from the distribution's unmodified source.
//!
//! The stock modules lack subfunctions and most offloads. All mlx5 modules are rebuilt
//! together, for they share structures whose layout depends on these symbols: a stock
//! `mlx5_ib` loads over a rebuilt `mlx5_core` without complaint and then reads the wrong
//! fields.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::lines::{KernelLine, Value};
use super::progress::Step;
use super::tree::{Tree, pipe_into};
use super::{chroot, run};

/// Extracts the kernel's source from the package `name` into `dir`: these subtrees, or all.
pub(crate) fn extract_source(package: &Path, name: &str, subtrees: &[&str], dir: &Path) -> Result<()> {
    let tarball = dir.join("source.tar.xz");
    let mut tar = Command::new("tar");
    tar.arg("-x").arg(format!("./usr/src/{name}.tar.xz"));
    tar.arg("--to-command=cat >\"$SFNIC_TARBALL\"").env("SFNIC_TARBALL", &tarball);
    pipe_into(package, tar)?;
    let mut xz = Command::new("xz")
        .args(["-dc", "-T0"])
        .arg(&tarball)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("unpacking the kernel's source: cannot run xz")?;
    let stream = xz.stdout.take().context("unpacking the kernel's source: no stream from xz")?;
    let result = Command::new("tar")
        .args(["-x", "--no-same-owner", "--strip-components=1", "-C"])
        .arg(dir)
        .args(subtrees.iter().map(|path| format!("{name}/{path}")))
        .stdin(stream)
        .output()
        .context("unpacking the kernel's source: cannot run tar")?;
    let status = xz.wait().context("unpacking the kernel's source")?;
    let _ = fs::remove_file(&tarball);
    let missing = !dir.join("include/linux/mlx5/mlx5_ifc.h").exists();
    if missing || !status.success() {
        let text = String::from_utf8_lossy(&result.stderr);
        bail!("unpacking the kernel's source: {}", text.lines().next().unwrap_or("the archive is damaged"));
    }
    Ok(())
}

/// Keeps the driver's header with the layouts that `mlx5_ifc.h` leaves out,
/// where this kernel has one.
pub(crate) fn copy_layouts(source: &Path, to: &Path) -> Result<()> {
    let header = "drivers/net/ethernet/mellanox/mlx5/core/sf/mlx5_ifc_vhca_event.h";
    let (from, to) = (source.join(header), to.join(header));
    if from.exists() {
        let dir = to.parent().context("a path without a folder")?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

/// The one `Kbuild` that makes all modules resolve against each other.
pub(crate) fn kbuild(line: &KernelLine, exists: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for dir in line.rebuilt().iter().filter(|dir| exists(dir)) {
        let _ = writeln!(text, "obj-m += {dir}/");
    }
    for file in line.added().iter().filter(|file| exists(file)) {
        let _ = writeln!(text, "obj-m += {}.o", file.trim_end_matches(".c"));
    }
    text
}

/// The symbols for make, and for the compiler, which reads them from a generated header
/// that make's variables don't reach.
pub(crate) fn symbols(line: &KernelLine) -> (String, String) {
    let (mut to_make, mut to_compiler) = (String::new(), String::new());
    for (symbol, value) in line.symbols() {
        let (letter, module) = match value {
            Value::BuiltIn => ('y', ""),
            Value::Module => ('m', "_MODULE"),
        };
        let _ = write!(to_make, " CONFIG_{symbol}={letter}");
        let _ = write!(to_compiler, " -DCONFIG_{symbol}{module}=1");
    }
    (to_make, to_compiler)
}

/// Compiles in the build tree; the modules appear below `/mlx5` of that tree.
pub(crate) fn compile(tree: &Tree, source: &Path, line: &KernelLine, release: &str, step: &Step) -> Result<()> {
    let build = tree.join("mlx5");
    // Written last: with it, make goes on where it was interrupted.
    let list = build.join("Kbuild");
    if !list.exists() {
        super::store::remove(&build)?;
        run::output(Command::new("cp").arg("-r").arg(source).arg(&build), "copying the mlx5 sources")?;
        let text = kbuild(line, |dir| build.join(dir).exists());
        fs::write(&list, text).with_context(|| format!("cannot write into {}", build.display()))?;
    }
    let (to_make, to_compiler) = symbols(line);
    let compiler = &line.compiler;
    let jobs = std::thread::available_parallelism().map_or(2, |n| n.get());
    let script = format!(
        "cd /mlx5 && exec make -j{jobs} -C /usr/src/linux-headers-{release} M=/mlx5 CC={compiler} HOSTCC={compiler} \
         CONFIG_DEBUG_INFO= CONFIG_DEBUG_INFO_BTF= CONFIG_DEBUG_INFO_BTF_MODULES= \
         {to_make} KCFLAGS='{to_compiler} -I/mlx5/drivers/vdpa/mlx5/core' modules 2>&1"
    );
    let expected = objects(&build) as f64;
    let mut done = 0.0;
    let mut complaint = String::new();
    let log = tree.join("mlx5-build.log");
    let mut text = String::new();
    let result = run::lines(&mut chroot::script(tree, &script)?, "rebuilding the mlx5 modules", |row| {
        if row.contains("  CC ") {
            done += 1.0;
            step.at(done, expected);
        }
        if complaint.is_empty() && (row.contains("error:") || row.contains("ERROR:") || row.contains("***")) {
            complaint = row.to_string();
        }
        text.push_str(row);
        text.push('\n');
    });
    let _ = fs::write(&log, text);
    if let Err(e) = result {
        let why = if complaint.is_empty() { e.to_string() } else { complaint };
        bail!("rebuilding the mlx5 modules for {release}: {why} (all of it: {})", log.display());
    }
    let mut strip = chroot::script(tree, "find /mlx5 -name '*.ko' -exec strip --strip-debug {} +")?;
    run::output(&mut strip, "stripping the mlx5 modules").map(drop)
}

/// About how many files make will compile.
fn objects(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.file_type() {
            Ok(t) if t.is_dir() => objects(&e.path()),
            _ => usize::from(e.path().extension().is_some_and(|x| x == "c")),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::lines;

    #[test]
    fn every_symbol_goes_to_make_and_to_the_compiler() -> Result<()> {
        let line = lines::line("7.2").context("7.2")?;
        let (make, compiler) = symbols(line);
        assert!(make.contains(" CONFIG_MLX5_SF=y") && compiler.contains(" -DCONFIG_MLX5_SF=1"));
        assert!(make.contains(" CONFIG_MLX5_VDPA_NET=m") && compiler.contains(" -DCONFIG_MLX5_VDPA_NET_MODULE=1"));
        assert_eq!(make.split_whitespace().count(), compiler.split_whitespace().count());
        Ok(())
    }

    #[test]
    fn kbuild_leaves_out_what_the_source_lacks() -> Result<()> {
        let line = lines::line("7.2").context("7.2")?;
        let text = kbuild(line, |dir| dir.starts_with("drivers/net"));
        assert_eq!(text, "obj-m += drivers/net/ethernet/mellanox/mlx5/core/\n");
        Ok(())
    }
}
