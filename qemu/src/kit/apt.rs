//! A private apt: its own lists, cache and (empty) status beside the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::progress::Step;
use super::{Wrong, run, sources};

/// How old package lists may be when something new is made.
const LISTS_AGE: Duration = Duration::from_secs(12 * 3600);

/// Where distributions keep the keys of the Debian archive.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The private apt state.
#[derive(Debug)]
pub(crate) struct Apt {
    dir: PathBuf,
    config: PathBuf,
    suites: Vec<String>,
    archives: PathBuf,
}

impl Apt {
    /// Prepares the state in `dir` for these suites; `mirror` replaces the machine's own.
    /// What is downloaded for one `purpose` lies apart from the rest.
    pub(crate) fn open(dir: &Path, mirror: Option<&str>, suites: &[&str], purpose: &str) -> Result<Apt> {
        run::require(&[
            ("apt-get", "apt"),
            ("apt-cache", "apt"),
            ("dpkg-deb", "dpkg"),
            ("tar", "tar"),
            ("xz", "xz-utils"),
        ])?;
        let Some(keyring) = KEYRINGS.iter().find(|k| Path::new(k).exists()) else {
            bail!("no keys of the Debian archive on this machine: install the package debian-archive-keyring");
        };
        let mirror = match mirror {
            Some(uri) => uri.trim_end_matches('/').to_string(),
            None => sources::machine_mirror(Path::new("/etc/apt"))?,
        };
        let archives = dir.join(format!("archives-{purpose}"));
        for sub in ["state/lists/partial", "cache", "none/partial", "log"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot create {}", dir.join(sub).display()))?;
        }
        fs::create_dir_all(archives.join("partial"))
            .with_context(|| format!("cannot create {}", archives.display()))?;
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = dir.join(name);
            if fs::read_to_string(&path).is_ok_and(|old| old == text) {
                return Ok(path);
            }
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        write("state/status", String::new())?;
        let list = suites
            .iter()
            .map(|suite| format!("deb [arch=amd64 signed-by={keyring}] {mirror} {suite} main\n"))
            .collect();
        write("sources.list", list)?;
        let config = write("apt.conf", configuration(dir))?;
        let suites = suites.iter().map(|suite| suite.to_string()).collect();
        Ok(Apt { dir: dir.to_path_buf(), config, suites, archives })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").arg("-c").arg(&self.config);
        command.arg("-o").arg(format!("Dir::Cache::archives={}/", self.archives.display()));
        command
    }

    /// Fetches the package lists unless they are recent.
    pub(crate) fn update(&self, step: &Step) -> Result<()> {
        let mark = self.dir.join("updated");
        let sources = fs::read_to_string(self.dir.join("sources.list")).unwrap_or_default();
        let age =
            fs::metadata(&mark).and_then(|m| m.modified()).ok().and_then(|t| SystemTime::now().duration_since(t).ok());
        if age.is_some_and(|a| a < LISTS_AGE) && fs::read_to_string(&mark).is_ok_and(|s| s == sources) {
            return Ok(());
        }
        let mut command = self.command("apt-get");
        command.args(["update", "-q", "-o", "APT::Status-Fd=1", "--error-on=any"]);
        if let Err(e) = self.fetch(&mut command, "fetching the package lists", step) {
            let text = e.to_string();
            if let Some(suite) = self.absent(&text) {
                return Err(Wrong(format!(
                    "the mirror has no suite {suite}: name another mirror with --mirror or SFNIC_MIRROR"
                ))
                .into());
            }
            if text.contains("NO_PUBKEY") || text.contains("not signed") || text.contains("EXPKEYSIG") {
                bail!(
                    "the machine's debian-archive-keyring is too old to verify {}: upgrade that package",
                    self.suites.join(", ")
                );
            }
            return Err(e.context("is the mirror reachable? (SFNIC_MIRROR names another)"));
        }
        fs::write(&mark, sources).with_context(|| format!("cannot write {}", mark.display()))
    }

    /// The suite that apt says is not there.
    fn absent(&self, text: &str) -> Option<&String> {
        let gone = text.contains("does not have a Release file") || text.contains("no longer has a Release file");
        self.suites.iter().find(|suite| gone && text.contains(&format!(" {suite} Release'")))
    }

    /// Fails for packages that are not in the lists.
    pub(crate) fn known(&self, packages: &[String]) -> Result<()> {
        for package in packages {
            if self.versions(package)?.is_empty() {
                let suites = self.suites.join(", ");
                return Err(Wrong(format!(
                    "no package {package:?} in Debian's {suites}: allowed are names of packages"
                ))
                .into());
            }
        }
        Ok(())
    }

    /// All package names that start so.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["pkgnames", prefix]);
        let text = run::output(&mut command, "searching the package lists")?;
        Ok(text.lines().map(|l| l.trim().to_string()).collect())
    }

    /// All versions of a package in the lists.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["madison", package]);
        let text = run::output(&mut command, "searching the package lists")?;
        Ok(text.lines().filter_map(|l| l.split('|').nth(1)).map(|v| v.trim().to_string()).collect())
    }

    fn install(&self, suite: Option<&str>) -> Command {
        let mut install = self.command("apt-get");
        install.args(["install", "-y", "-q", "--no-install-recommends"]);
        if let Some(suite) = suite {
            install.args(["-t", suite]);
        }
        install
    }

    /// The archives of packages (`name` or `name=version`) and of all they depend on;
    /// `suite` is preferred over the others.
    pub(crate) fn resolve(&self, packages: &[String], suite: Option<&str>) -> Result<Vec<String>> {
        let mut list = self.install(suite);
        // The listing leaves out what the cache has, so it gets an empty one.
        list.arg("-o").arg(format!("Dir::Cache::archives={}/none/", self.dir.display()));
        let listed = run::output(list.arg("--print-uris").args(packages), "resolving packages")?;
        Ok(file_names(&listed).collect())
    }

    /// Downloads packages with all they depend on, as [`Apt::resolve`] finds them. Gives
    /// the files.
    pub(crate) fn with_dependencies(
        &self,
        packages: &[String],
        suite: Option<&str>,
        step: &Step,
    ) -> Result<Vec<PathBuf>> {
        let archives = &self.archives;
        let wanted: Vec<PathBuf> = self.resolve(packages, suite)?.into_iter().map(|name| archives.join(name)).collect();
        let mut install = self.install(suite);
        install.args(["--download-only", "-o", "APT::Status-Fd=1"]).args(packages);
        self.fetch(&mut install, "downloading packages", step)?;
        for file in &wanted {
            if !file.exists() {
                bail!("downloading packages: {} did not arrive", file.display());
            }
        }
        Ok(wanted)
    }

    /// Downloads one package alone, in this version.
    pub(crate) fn alone(&self, package: &str, version: &str, step: &Step) -> Result<PathBuf> {
        let archives = &self.archives;
        let mut command = self.command("apt-get");
        command
            .current_dir(archives)
            .args(["download", "-q", "-o", "APT::Status-Fd=1"])
            .arg(format!("{package}={version}"));
        self.fetch(&mut command, &format!("downloading {package}"), step)?;
        let start = format!("{package}_");
        let end = format!("_{}_", version.replace(':', "%3a"));
        let found = fs::read_dir(archives)
            .with_context(|| format!("cannot read {}", archives.display()))?
            .flatten()
            .map(|e| e.path())
            .find(|p| {
                p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&start) && n.contains(&end))
            });
        found.with_context(|| format!("downloading {package}: version {version} did not arrive"))
    }

    /// Drops downloaded packages: their contents are in the stages.
    pub(crate) fn drop_archives(&self) -> Result<()> {
        super::store::remove(&self.archives)
    }

    fn fetch(&self, command: &mut Command, what: &str, step: &Step) -> Result<()> {
        run::lines(command, what, |line| {
            // dlstatus:<n>:<percent>:<text>
            if let Some(percent) = line.strip_prefix("dlstatus:").and_then(|l| l.split(':').nth(1)) {
                step.at(percent.parse().unwrap_or(0.0), 100.0);
            }
        })
    }
}

/// The names of the archives in the answer of `--print-uris`: `'URI' name size hash`.
fn file_names(listed: &str) -> impl Iterator<Item = String> + '_ {
    listed.lines().filter(|l| l.starts_with('\'')).filter_map(|l| l.split_whitespace().nth(1)).map(str::to_string)
}

/// apt's configuration: the machine's (proxies, certificates) with its own places, without
/// its pins and hooks.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"Dir::State "{dir}/state";
Dir::State::status "{dir}/state/status";
Dir::Cache "{dir}/cache";
Dir::Log "{dir}/log";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
DPkg::Lock::Timeout "600";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
Acquire::Languages "none";
Acquire::Retries "3";
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear APT::Default-Release;
#clear APT::Update;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_that_the_mirror_lacks_is_named() {
        let suites = ["trixie", "trixie-backports"].map(String::from).to_vec();
        let apt = Apt { dir: PathBuf::new(), config: PathBuf::new(), suites, archives: PathBuf::new() };
        let text = "apt-get failed: E: The repository 'http://m/debian trixie-backports Release' does not have a Release file.";
        assert_eq!(apt.absent(text).map(String::as_str), Some("trixie-backports"));
        assert_eq!(apt.absent("E: Could not resolve trixie Release'"), None);
    }

    #[test]
    fn names_come_from_the_listing() {
        let text =
            "Reading package lists...\n'http://m/p/libc6_2.41-12_amd64.deb' libc6_2.41-12_amd64.deb 2800 SHA256:x\n";
        assert_eq!(file_names(text).collect::<Vec<_>>(), ["libc6_2.41-12_amd64.deb"]);
    }
}
