//! A whole kernel, made from the distribution's source with options of our own, and the
//! kernel's own tests with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::lines::KernelLine;
use super::progress::Step;
use super::stages::{KernelInfo, Stages, copy_tree, move_below_usr, write_json};
use super::store::Stage;
use super::tree::Tree;
use super::{chroot, early, mlx5, modules, recipe, release, rootfs, run};

/// Where the source is in the build tree.
const PLACE: &str = "usr/src/kernel";
/// About how many files are compiled.
const OBJECTS: f64 = 4000.0;

impl Stages {
    /// Makes the kernel's stage.
    pub(super) fn built(&self, tools: &Tree) -> Result<()> {
        let line = self.line;
        let apt = self.apt(&line.suites, line.name())?;
        let version = release::newest_source(&apt, line)?;
        self.progress.note(&format!("the newest source of the line {} is {version}", line.name()));
        let builder = Stage::new(self.stem("builder"), format!("{}\n{version}", self.inputs()));
        let builder = self.staged(&builder, "compiler and kernel source", |dir, step| {
            let packages = apt.with_dependencies(&line.builder_packages(""), None, step)?;
            let tree = Tree::create(&dir.join("tree"))?;
            tree.unpack(&packages, &[], step)?;
            tree.link("usr/bin/awk", "mawk")?;
            let source = tree.join(PLACE);
            fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
            mlx5::extract_source(&apt.alone(&line.source, &version, step)?, &line.source, &[], &source)
        })?;
        let build = Build { tree: Tree::at(builder.join("tree")), line };
        self.staged(&self.kernel_stage(), &format!("kernel {}", line.name()), |dir, step| {
            build.configure()?;
            build.make(step)?;
            let number = build.release()?;
            let selected = dir.join("selected");
            build.install_modules(&selected)?;
            modules::depmod(tools, &selected, &number)?;
            early::write_initrd(&self.busybox(), &selected.join("lib/modules").join(&number), &dir.join("initrd"))?;
            move_below_usr(&selected)?;
            rootfs::pack(tools, &selected, &dir.join("modules.erofs"))?;
            super::store::remove(&selected)?;
            for (from, to) in [("arch/x86/boot/bzImage", "vmlinuz"), (".config", "config")] {
                fs::copy(build.source().join(from), dir.join(to)).with_context(|| format!("cannot copy {from}"))?;
            }
            for tests in &line.selftests {
                if let Err(e) = build.selftests(tests) {
                    self.progress.note(&format!("some of the kernel's tests in {tests} are not there: {e:#}"));
                }
            }
            build.keep(&dir.join("source"))?;
            write_json(&dir.join("kernel.json"), &KernelInfo { release: number, version: version.clone() })
        })?;
        self.store.forget(&self.stem("builder"))?;
        apt.drop_archives()
    }
}

/// A tree with a compiler and the kernel's source.
struct Build<'a> {
    tree: Tree,
    line: &'a KernelLine,
}

impl Build<'_> {
    fn source(&self) -> PathBuf {
        self.tree.join(PLACE)
    }

    /// A command line of make in the source's directory.
    fn command(&self, words: &str) -> Result<Command> {
        let compiler = &self.line.compiler;
        let text = format!(
            "cd /{PLACE} && export KBUILD_BUILD_USER=sfnic KBUILD_BUILD_HOST=kit && \
             exec make CC={compiler} HOSTCC={compiler} {words} 2>&1"
        );
        chroot::script(&self.tree, &text)
    }

    /// Lays the line's options over the base configuration, and checks that each came out
    /// as asked.
    fn configure(&self) -> Result<()> {
        let (name, config) = (self.line.name(), self.source().join(".config"));
        run::output(&mut self.command(&format!("-s {}", self.line.base))?, "configuring the kernel")?;
        let options = self.line.options();
        let base = fs::read_to_string(&config).context("configuring the kernel")?;
        fs::write(&config, format!("{base}\n{options}")).context("configuring the kernel")?;
        run::output(&mut self.command("-s olddefconfig")?, "configuring the kernel")?;
        let made = fs::read_to_string(&config).context("configuring the kernel")?;
        let refused = refused(&options, &made);
        if !refused.is_empty() {
            bail!("the source of the line {name} does not take these options: {}", refused.join(", "));
        }
        Ok(())
    }

    fn make(&self, step: &Step) -> Result<()> {
        let jobs = std::thread::available_parallelism().map_or(2, |n| n.get());
        let what = format!("building the kernel {}", self.line.name());
        let mut done = 0.0;
        let mut complaint = String::new();
        let mut log = String::new();
        let result = run::lines(&mut self.command(&format!("-j{jobs} bzImage modules"))?, &what, |row| {
            if row.starts_with("  CC ") {
                done += 1.0;
                step.at(f64::min(done, OBJECTS * 0.99), OBJECTS);
            }
            if complaint.is_empty() && (row.contains("error:") || row.contains("ERROR:") || row.contains("***")) {
                complaint = row.to_string();
            }
            log.push_str(row);
            log.push('\n');
        });
        tracing::debug!(files = done, "compiled");
        if let Err(e) = result {
            let file = self.tree.join("build.log");
            let _ = fs::write(&file, log);
            let why = if complaint.is_empty() { e.to_string() } else { complaint };
            bail!("{what}: {why} (all of it: {})", file.display());
        }
        run::output(&mut self.command("-s headers")?, &what).map(drop)
    }

    /// What `uname -r` will say.
    fn release(&self) -> Result<String> {
        let file = self.source().join("include/config/kernel.release");
        Ok(fs::read_to_string(file).context("building the kernel")?.trim().to_string())
    }

    /// Puts the modules into `to/lib/modules`, without debug information.
    fn install_modules(&self, to: &Path) -> Result<()> {
        let out = self.tree.join("out");
        super::store::remove(&out)?;
        let words = "-s modules_install INSTALL_MOD_PATH=/out INSTALL_MOD_STRIP=1 DEPMOD=true";
        run::output(&mut self.command(words)?, "collecting the kernel's modules")?;
        // A link in it leads to the source.
        copy_tree(&out, to)?;
        super::store::remove(&out)
    }

    /// Makes the programs of the kernel's own tests in one directory.
    fn selftests(&self, dir: &str) -> Result<()> {
        let words = format!("-k -C tools/testing/selftests/{dir} CLANG=clang");
        let log = self.tree.join(format!("selftests-{}.log", dir.replace('/', "-")));
        let mut text = String::new();
        let result = run::lines(&mut self.command(&words)?, &format!("building {dir}"), |row| {
            text.push_str(row);
            text.push('\n');
        });
        let _ = fs::write(log, &text);
        let reason = text.lines().find(|row| row.contains("error:") || row.contains("***")).map(str::to_string);
        result.map_err(|e| reason.map_or(e, anyhow::Error::msg))
    }

    /// Keeps the parts of the source that the layout check and the kernel's tests read.
    fn keep(&self, to: &Path) -> Result<()> {
        let source = self.source();
        for path in recipe::KEPT_SOURCES {
            let (from, to) = (source.join(path), to.join(path));
            if let Some(dir) = to.parent() {
                fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            }
            if from.exists() {
                let mut copy = Command::new("cp");
                run::output(copy.arg("-a").arg(&from).arg(&to), "keeping parts of the kernel's source")?;
            }
        }
        mlx5::copy_layouts(&source, to)
    }
}

/// The options that a configuration does not have as they were asked for; of an option
/// named twice the last counts.
fn refused(options: &str, made: &str) -> Vec<String> {
    let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
    let (asked, there) = (options.lines().filter_map(option), made.lines().filter_map(option));
    wanted.extend(asked);
    let there: BTreeMap<&str, &str> = there.collect();
    let differs = |(name, value): (&str, &str)| {
        let is = there.get(name).copied().unwrap_or("n");
        (is != value).then(|| format!("{name}={value} (it is {is})"))
    };
    wanted.into_iter().filter_map(differs).collect()
}

/// A row of a configuration: the name of the option and its value, `n` if it is not set.
fn option(row: &str) -> Option<(&str, &str)> {
    if let Some(rest) = row.strip_prefix("# CONFIG_") {
        return rest.strip_suffix(" is not set").map(|name| (name, "n"));
    }
    row.strip_prefix("CONFIG_")?.split_once('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_did_not_come_out_is_named() {
        let options =
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=y\n# text\nCONFIG_C=y\nCONFIG_E=\"-x\"\n";
        let made = "CONFIG_A=y\nCONFIG_C=y\n# CONFIG_D is not set\nCONFIG_E=\"-x\"\n";
        assert_eq!(refused(options, made), ["D=y (it is n)"]);
        assert_eq!(refused("CONFIG_A=m\n# CONFIG_B is not set", "CONFIG_A=y\nCONFIG_B=y\n").len(), 2);
    }
}
