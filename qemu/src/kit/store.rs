//! The cache directory: stages that are made once, atomically, by one process at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use super::progress::Progress;

/// A file in each finished stage that names what the stage was made from.
const STAMP: &str = ".stamp";

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

/// Held while stages are made.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Store {
    /// The store in `dir`, or in the user's cache directory.
    pub(crate) fn open(dir: Option<&Path>) -> Result<Store> {
        let root = match dir {
            Some(dir) => dir.to_path_buf(),
            None => default_dir()?,
        };
        fs::create_dir_all(&root)
            .with_context(|| format!("cannot create the cache directory {}: set XDG_CACHE_HOME", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("cannot resolve {}", root.display()))?;
        Ok(Store { root })
    }

    /// Where the stages are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a stage, made or not.
    pub(crate) fn dir(&self, stage: &str) -> PathBuf {
        self.root.join(stage)
    }

    /// Is the stage there and made from these inputs?
    pub(crate) fn ready(&self, stage: &str, inputs: &str) -> bool {
        fs::read_to_string(self.dir(stage).join(STAMP)).is_ok_and(|stamp| stamp == inputs)
    }

    /// Makes a stage unless it is there: `make` fills a directory of its own, which takes
    /// its name only when it is complete.
    pub(crate) fn stage(&self, stage: &str, inputs: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let dir = self.dir(stage);
        if self.ready(stage, inputs) {
            return Ok(dir);
        }
        let partial = self.root.join(format!(".partial-{stage}"));
        remove(&partial)?;
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        make(&partial)?;
        fs::write(partial.join(STAMP), inputs).with_context(|| format!("cannot write into {}", partial.display()))?;
        remove(&dir)?;
        fs::rename(&partial, &dir).with_context(|| format!("cannot put {} in place", dir.display()))?;
        Ok(dir)
    }

    /// Notes that a stage is in use, for [`Store::prune`].
    pub(crate) fn used(&self, stage: &str) {
        let file = File::options().append(true).open(self.dir(stage).join(STAMP));
        // A cache that only others may write serves as well.
        let _ = file.and_then(|f| f.set_modified(SystemTime::now()));
    }

    /// Drops stages of one kind, and what was left of half-made ones, except the `kept`
    /// used last and those used within the `spared` time: a guest may be starting from
    /// one. The caller has the lock.
    pub(crate) fn prune(&self, prefix: &str, kept: usize, spared: Duration) -> Result<()> {
        let partial = format!(".partial-{prefix}");
        let mut stages = Vec::new();
        let entries = fs::read_dir(&self.root).with_context(|| format!("cannot read {}", self.root.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&partial) {
                remove(&entry.path())?;
            } else if name.starts_with(prefix) {
                let used = fs::metadata(entry.path().join(STAMP)).and_then(|m| m.modified());
                stages.push((used.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
            }
        }
        stages.sort();
        for (used, dir) in stages.iter().rev().skip(kept) {
            if used.elapsed().is_ok_and(|age| age > spared) {
                remove(dir)?;
            }
        }
        Ok(())
    }

    /// Drops a stage that only served to make others.
    pub(crate) fn forget(&self, stage: &str) -> Result<()> {
        remove(&self.dir(stage))
    }

    /// Keeps other processes from making stages at the same time.
    pub(crate) fn lock(&self, progress: &Progress) -> Result<Lock> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            progress.note("waiting for another sfnic to finish the kit");
            flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Lock { _file: file })
    }
}

fn default_dir() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(dir) = absolute("XDG_CACHE_HOME") {
        return Ok(dir.join("sfnic"));
    }
    let home = absolute("HOME").context("neither XDG_CACHE_HOME nor HOME names a directory for the kit")?;
    Ok(home.join(".cache/sfnic"))
}

/// Removes a tree if it exists.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_made_once_and_again_when_its_inputs_change() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let store = Store::open(Some(temp.path()))?;
        let mut made = 0;
        for inputs in ["a", "a", "b"] {
            store.stage("s", inputs, |dir| {
                made += 1;
                Ok(fs::write(dir.join("x"), inputs)?)
            })?;
        }
        assert_eq!(made, 2);
        assert_eq!(fs::read_to_string(store.dir("s").join("x"))?, "b");
        Ok(())
    }

    #[test]
    fn old_stages_are_pruned_except_the_last_used() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let store = Store::open(Some(temp.path()))?;
        for (age, name) in ["own-d", "own-c", "own-b", "own-a", "other"].iter().enumerate() {
            store.stage(name, "x", |_| Ok(()))?;
            let old = SystemTime::now() - Duration::from_secs(1000 * age as u64);
            File::options().append(true).open(store.dir(name).join(STAMP))?.set_modified(old)?;
        }
        fs::create_dir(store.dir(".partial-own-x"))?;
        store.prune("own-", 1, Duration::from_secs(1500))?;
        for (name, there) in [("own-d", true), ("own-c", true), ("own-b", false), ("own-a", false), ("other", true)] {
            assert_eq!(store.dir(name).exists(), there, "{name}");
        }
        assert!(!store.dir(".partial-own-x").exists());
        store.used("own-c");
        store.prune("own-", 1, Duration::ZERO)?;
        assert!(store.dir("own-c").exists() && !store.dir("own-d").exists());
        Ok(())
    }

    #[test]
    fn a_stage_that_fails_leaves_the_old_one() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let store = Store::open(Some(temp.path()))?;
        store.stage("s", "a", |_| Ok(()))?;
        assert!(store.stage("s", "b", |_| anyhow::bail!("no")).is_err());
        assert!(store.ready("s", "a"));
        Ok(())
    }
}
