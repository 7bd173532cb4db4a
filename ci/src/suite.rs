//! The suites: what runs in a guest, and what the guest and its device have to be for it.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use crate::scripts;

/// The table of suites.
const TABLE: &str = include_str!("../suites.toml");

/// A guest test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// What it is called.
    pub name: String,
    /// What it is about, in a line.
    pub about: String,
    /// The script that runs in the guest.
    pub script: String,
    /// The script that runs in another guest on the same device afterwards.
    pub then: Option<String>,
    /// Text of the failure with which the first guest has to end.
    pub ends: Option<String>,
    /// The longest that a guest may take.
    pub timeout: Duration,
    /// CPUs of the guest.
    pub cpus: u32,
    /// MSI-X vectors of each physical function.
    pub vectors: u16,
    /// Most sub-functions of each physical function.
    pub max_sfs: u16,
    /// Worker threads of the device.
    pub workers: usize,
    /// The device is behind an IOMMU.
    pub iommu: bool,
    /// The guest finds its kernel and its initrd in `/host/boot`.
    pub boot_files: bool,
    /// The device manages its eswitch itself.
    pub embedded: bool,
    /// The script runs the kernel's own tests: it needs a kernel that was built with them.
    pub kernel_tests: bool,
    /// Too long for `ci/test`, or for kernels that it does not boot.
    pub matrix_only: bool,
    /// Debian packages that the guest has besides.
    pub with: Vec<String>,
    /// Capabilities that differ from the profile's.
    pub caps: Vec<String>,
    /// Doorbells are polled.
    pub poll: bool,
    /// What the ports are connected to, as a configuration has it; a cable where it is empty.
    pub wires: String,
    /// More options for QEMU.
    pub qemu: Vec<String>,
    /// Variables for the script.
    pub env: BTreeMap<String, String>,
    /// No other run may be beside it in the process.
    pub alone: bool,
    /// The kernel that it needs.
    pub since: Option<Since>,
    /// What is no fault of a run.
    pub expected: Expected,
}

/// The oldest kernel that a suite works on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// Such as `6.12`.
    pub kernel: String,
    /// Why older ones do not do.
    pub reason: String,
}

/// What is no fault of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Kernel messages that have to come.
    pub provokes: Vec<String>,
    /// Kernel messages that may come.
    pub says: Vec<Says>,
    /// What drivers want and the device deliberately lacks.
    pub unmodelled: Vec<Unmodelled>,
}

/// A kernel message that may come.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Says {
    /// A part of it.
    pub text: String,
    /// Why it is no fault.
    pub reason: String,
}

/// Something that drivers want and the device deliberately lacks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unmodelled {
    /// A part of how the device calls it.
    pub what: String,
    /// Why it is no fault.
    pub reason: String,
}

impl Suite {
    /// Why a kernel of that release (`uname -r`) skips it.
    pub fn skip(&self, release: &str) -> Option<String> {
        let since = self.since.as_ref()?;
        (version(release) < version(&since.kernel)).then(|| format!("before {}: {}", since.kernel, since.reason))
    }
}

/// Major and minor number of a kernel's release.
pub fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// All suites, in the order in which they run.
///
/// # Panics
/// Never: a test reads the table.
pub fn suites() -> &'static [Suite] {
    static SUITES: LazyLock<Vec<Suite>> =
        LazyLock::new(|| parse(TABLE).unwrap_or_else(|e| panic!("ci/suites.toml: {e}")));
    &SUITES
}

/// The suite of that name.
pub fn find(name: &str) -> Option<&'static Suite> {
    suites().iter().find(|s| s.name == name)
}

/// The suites whose names match one of these globs, in the order of the table.
///
/// # Errors
/// One line: a glob is malformed or matches nothing.
pub fn matching(globs: &str) -> Result<Vec<&'static Suite>, String> {
    let mut wanted = vec![false; suites().len()];
    for glob in globs.split(',') {
        let pattern = glob::Pattern::new(glob).map_err(|e| format!("{glob:?} is no pattern of names: {}", e.msg))?;
        let mut any = false;
        for (suite, wanted) in suites().iter().zip(&mut wanted) {
            if pattern.matches(&suite.name) {
                (any, *wanted) = (true, true);
            }
        }
        if !any {
            let known: Vec<&str> = suites().iter().map(|s| s.name.as_str()).collect();
            return Err(format!("no test is called {glob:?}; there is {}", known.join(", ")));
        }
    }
    Ok(suites().iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(suite, _)| suite).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    defaults: Defaults,
    suite: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    timeout: u64,
    cpus: u32,
    vectors: u16,
    max_sfs: u16,
    workers: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    about: String,
    script: String,
    then: Option<String>,
    ends: Option<String>,
    timeout: Option<u64>,
    cpus: Option<u32>,
    vectors: Option<u16>,
    max_sfs: Option<u16>,
    workers: Option<usize>,
    #[serde(default)]
    iommu: bool,
    #[serde(default)]
    boot_files: bool,
    #[serde(default)]
    embedded: bool,
    #[serde(default)]
    kernel_tests: bool,
    #[serde(default)]
    matrix_only: bool,
    #[serde(default)]
    with: Vec<String>,
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    poll: bool,
    #[serde(default)]
    wires: String,
    #[serde(default)]
    qemu: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    alone: bool,
    since: Option<Since>,
    #[serde(default)]
    provokes: Vec<String>,
    #[serde(default)]
    says: Vec<Says>,
    #[serde(default)]
    unmodelled: Vec<Unmodelled>,
}

/// Why the table is no good.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    #[error("suite {0:?}: there is another one of that name")]
    Twice(String),
    #[error("suite {suite:?}: there is no script {script:?}")]
    Script { suite: String, script: String },
    #[error("suite {0:?}: a name has small letters, digits and dashes")]
    Name(String),
}

fn parse(text: &str) -> Result<Vec<Suite>, TableError> {
    let File { defaults, suite: rows } = toml::from_str(text)?;
    let mut suites: Vec<Suite> = Vec::new();
    for row in rows {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if row.name.is_empty() || !row.name.bytes().all(good) {
            return Err(TableError::Name(row.name));
        }
        if suites.iter().any(|s| s.name == row.name) {
            return Err(TableError::Twice(row.name));
        }
        for script in [Some(&row.script), row.then.as_ref()].into_iter().flatten() {
            if !scripts::exists(script) {
                return Err(TableError::Script { suite: row.name, script: script.clone() });
            }
        }
        suites.push(Suite {
            name: row.name,
            about: row.about,
            script: row.script,
            then: row.then,
            ends: row.ends,
            timeout: Duration::from_secs(row.timeout.unwrap_or(defaults.timeout)),
            cpus: row.cpus.unwrap_or(defaults.cpus),
            vectors: row.vectors.unwrap_or(defaults.vectors),
            max_sfs: row.max_sfs.unwrap_or(defaults.max_sfs),
            workers: row.workers.unwrap_or(defaults.workers),
            iommu: row.iommu,
            boot_files: row.boot_files,
            embedded: row.embedded,
            kernel_tests: row.kernel_tests,
            matrix_only: row.matrix_only,
            with: row.with,
            caps: row.caps,
            poll: row.poll,
            wires: row.wires,
            qemu: row.qemu,
            env: row.env,
            alone: row.alone,
            since: row.since,
            expected: Expected { provokes: row.provokes, says: row.says, unmodelled: row.unmodelled },
        });
    }
    Ok(suites)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        let story = find("story").expect("the story");
        assert_eq!((story.script.as_str(), story.workers), ("story.py", 1));
        assert!(find("cycle").is_some_and(|s| s.alone));
        assert!(suites().iter().all(|s| !s.about.is_empty() && s.cpus > 0 && !s.timeout.is_zero()));
    }

    #[test]
    fn mistakes_in_the_table_are_named() {
        let head = "[defaults]\ntimeout=1\ncpus=1\nvectors=1\nmax_sfs=1\nworkers=1\n";
        let suite = |rows: &str| parse(&format!("{head}[[suite]]\nabout='a'\n{rows}")).unwrap_err().to_string();
        assert!(suite("name='x'\nscript='no.py'").contains("no.py"));
        assert!(suite("name='X y'\nscript='story.py'").contains("X y"));
        assert!(suite("name='x'\nscript='story.py'\nspeed=1").contains("speed"));
        let twice = "name='x'\nscript='story.py'\n[[suite]]\nabout='a'\nname='x'\nscript='story.py'";
        assert!(suite(twice).contains("another one"));
    }

    #[test]
    fn globs_choose_suites_in_the_tables_order() {
        let names = |globs| matching(globs).map(|l| l.iter().map(|s| s.name.as_str()).collect::<Vec<_>>());
        assert_eq!(names("story"), Ok(vec!["story"]));
        assert_eq!(names("lifecycle*,story"), Ok(vec!["story", "lifecycle", "lifecycle-sf"]));
        assert_eq!(names("*").map(|l| l.len()), Ok(suites().len()));
        assert!(names("stroy").unwrap_err().contains("no test is called \"stroy\"; there is smoke, story"));
        assert!(names("story,").is_err());
        assert!(names("[").unwrap_err().contains("no pattern"));
    }

    #[test]
    fn older_kernels_skip_with_the_reason() {
        let since = Some(Since { kernel: "6.12".into(), reason: "no such thing".into() });
        let suite = Suite { since, ..suites()[0].clone() };
        assert_eq!(suite.skip("6.1.0-30-amd64").as_deref(), Some("before 6.12: no such thing"));
        assert_eq!(suite.skip("6.12.5"), None);
        assert_eq!(suite.skip("7.2-rc1+"), None);
        assert_eq!(suites()[0].skip("2.6"), None);
    }
}
