//! The kernel's own tests, run in a guest against the device.
//!
//! [`data`] says which programs there are and what is known of single cases, [`report`]
//! reads what the guest's script said and tells what came of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use data::{Data, Program};

pub mod data;
pub mod report;

/// Runs the programs in the guest.
pub const SCRIPT: &str = "kselftest.py";
/// What the programs said, beside the script.
pub const LOG: &str = "suite.log";
/// The guest's memory: the tests are copied into it.
pub const MEMORY: &str = "3G";
/// Packages that the tests need and the guest's root file system lacks.
pub const PACKAGES: &[&str] = &["bpftool", "python3-yaml"];
/// The parts of the kernel's source that the tests read in the guest.
const NEEDED: &[&str] = &[
    "Documentation/netlink",
    "tools/net/ynl",
    "tools/testing/selftests/drivers/net",
    "tools/testing/selftests/kselftest",
    "tools/testing/selftests/net/forwarding",
    "tools/testing/selftests/net/lib",
    "tools/testing/selftests/net/lib.sh",
];

/// Programs to run in a guest.
#[derive(Debug, Clone)]
pub struct Job {
    programs: Vec<Program>,
    data: Data,
    retries: u32,
}

impl Job {
    /// Runs these, each again as often as allowed while cases fail.
    pub fn new(data: Data, programs: Vec<Program>, retries: u32) -> Self {
        Self { programs, data, retries }
    }

    /// Puts what the guest needs beside the script.
    ///
    /// # Errors
    /// A file could not be read or written.
    pub fn supply(&self, tests: &Path, share: &Path) -> Result<()> {
        copy(tests, &share.join("linux"))
    }

    /// Words for the script.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.programs.iter().map(|p| format!("{}:{}", p.path, p.seconds))
    }

    /// Variables for the script.
    pub fn env(&self) -> Vec<(String, String)> {
        let known: Vec<&str> = self.data.known.iter().map(|k| k.case.as_str()).collect();
        vec![("SUITE_RETRIES".to_owned(), self.retries.to_string()), ("SUITE_KNOWN".to_owned(), known.join(" "))]
    }

    /// The longest that it may take.
    pub fn timeout(&self) -> Duration {
        let tries = u64::from(self.retries) + 1;
        Duration::from_secs(300 + self.programs.iter().map(|p| u64::from(p.seconds) * tries).sum::<u64>())
    }

    /// What the programs said, of which the guest left a log beside the script, and what came
    /// of it.
    pub fn outcome(&self, share: &Path) -> (String, Vec<report::Ran>) {
        let said = std::fs::read(share.join(LOG)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let ran = report::judge(&said, &self.programs, &self.data);
        (said, ran)
    }
}

/// Copies what the tests read and run.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for part in NEEDED.iter().filter(|part| from.join(part).exists()) {
        let (from, to) = (from.join(part), to.join(part));
        std::fs::create_dir_all(to.parent().unwrap_or(&to)).with_context(|| format!("cannot make {}", to.display()))?;
        let out = std::process::Command::new("cp").arg("-a").arg(&from).arg(&to).output().context("cannot run cp")?;
        let why = String::from_utf8_lossy(&out.stderr);
        anyhow::ensure!(out.status.success(), "cannot copy {}: {}", from.display(), why.trim());
    }
    Ok(())
}
