//! The cache directory: stages that are made once, atomically, by one process at a time.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use super::progress::Progress;

/// A file in each finished stage that names what the stage was made from.
const STAMP: &str = ".stamp";
/// What the name of a stage under way starts with.
const PARTIAL: &str = ".partial-";

/// What the names of lock files start with.
const LOCK_PREFIX: &str = "lock-";

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

/// Held while a stage is used: nobody removes it meanwhile.
pub(crate) type Hold = Arc<File>;

/// A stage: what it is, and what it is made from. A digest of the latter is part of its
/// directory's name, so that other versions of this program have theirs beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    stem: String,
    inputs: String,
}

impl Stage {
    pub(crate) fn new(stem: impl Into<String>, inputs: impl Into<String>) -> Stage {
        Stage { stem: stem.into(), inputs: inputs.into() }
    }

    /// What it is: the name without the digest.
    pub(crate) fn stem(&self) -> &str {
        &self.stem
    }

    /// The name of its directory.
    pub(crate) fn name(&self) -> String {
        format!("{}-{:016x}", self.stem, digest(&self.inputs))
    }
}

/// FNV-1a with 64 bits: the same in every build of this program.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The stem in the name of a stage's directory.
fn stem(name: &str) -> Option<&str> {
    let (stem, digest) = name.rsplit_once('-')?;
    (digest.len() == 16 && digest.bytes().all(|c| c.is_ascii_hexdigit())).then_some(stem)
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
    pub(crate) fn dir(&self, stage: &Stage) -> PathBuf {
        self.root.join(stage.name())
    }

    /// Is the stage there and made from these inputs?
    pub(crate) fn ready(&self, stage: &Stage) -> bool {
        fs::read_to_string(self.dir(stage).join(STAMP)).is_ok_and(|stamp| stamp == stage.inputs)
    }

    /// Keeps a finished stage from being removed as long as the answer lives.
    pub(crate) fn hold(&self, stage: &Stage) -> Option<Hold> {
        let stamp = self.dir(stage).join(STAMP);
        let file = File::open(&stamp).ok()?;
        flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
        // It may have been removed between the two.
        let (held, there) = (file.metadata().ok()?, fs::metadata(&stamp).ok()?);
        if held.ino() != there.ino() || !self.ready(stage) {
            return None;
        }
        // A cache that only others may write serves as well.
        let _ = File::options().append(true).open(&stamp).and_then(|f| f.set_modified(SystemTime::now()));
        Some(Arc::new(file))
    }

    /// Makes a stage unless it is there: `make` fills a directory of its own, which takes
    /// its name only when it is complete.
    pub(crate) fn stage(&self, stage: &Stage, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let dir = self.dir(stage);
        if self.ready(stage) {
            return Ok(dir);
        }
        let partial = self.root.join(format!("{PARTIAL}{}", stage.name()));
        remove(&partial)?;
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        make(&partial)?;
        let stamp = partial.join(STAMP);
        fs::write(&stamp, &stage.inputs).with_context(|| format!("cannot write into {}", partial.display()))?;
        remove(&dir)?;
        fs::rename(&partial, &dir).with_context(|| format!("cannot put {} in place", dir.display()))?;
        Ok(dir)
    }

    /// The finished and unfinished stages of the cache: stem, directory, is it finished.
    fn stages(&self) -> Result<Vec<(String, PathBuf, bool)>> {
        let entries = fs::read_dir(&self.root).with_context(|| format!("cannot read {}", self.root.display()))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let partial = name.strip_prefix(PARTIAL);
            if let Some(stem) = stem(partial.unwrap_or(&name)) {
                found.push((stem.to_string(), entry.path(), partial.is_none()));
            }
        }
        Ok(found)
    }

    /// Drops stages of one kind, and what was left of half-made ones, except the `kept`
    /// used last, those used within the `spared` time, and those in use. The caller has
    /// the lock.
    pub(crate) fn prune(&self, stem: &str, kept: usize, spared: Duration) -> Result<()> {
        let mut stages = Vec::new();
        for (of, dir, finished) in self.stages()? {
            if of != stem {
                continue;
            }
            if finished {
                let used = fs::metadata(dir.join(STAMP)).and_then(|m| m.modified());
                stages.push((used.unwrap_or(SystemTime::UNIX_EPOCH), dir));
            } else {
                remove(&dir)?;
            }
        }
        stages.sort();
        for (used, dir) in stages.iter().rev().skip(kept) {
            if used.elapsed().is_ok_and(|age| age > spared) {
                remove_unused(dir)?;
            }
        }
        Ok(())
    }

    /// Drops all stages of these kinds, half-made ones too. Gives those that are in use
    /// and stay. The caller has the lock.
    pub(crate) fn clear(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        for (stem, dir, finished) in self.stages()? {
            if !wanted(&stem) {
                continue;
            }
            if !finished {
                remove(&dir)?;
            } else if !remove_unused(&dir)? {
                kept.push(dir);
            }
        }
        Ok(kept)
    }

    /// Drops a stage that only served to make others.
    pub(crate) fn forget(&self, stem: &str) -> Result<()> {
        self.clear(|other| other == stem).map(drop)
    }

    /// Keeps other processes from making stages of the same `kind` at the same time.
    pub(crate) fn lock(&self, kind: &str, progress: &Progress) -> Result<Lock> {
        let path = self.root.join(format!("{LOCK_PREFIX}{kind}"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            progress.note(&format!("waiting for another sfnic to finish its part of the kit ({kind})"));
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

/// Removes a finished stage unless somebody holds it. Is it gone?
fn remove_unused(dir: &Path) -> Result<bool> {
    if let Ok(stamp) = File::open(dir.join(STAMP)) {
        if flock(&stamp, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        // Without its stamp nobody takes it for finished while it goes.
        let _ = fs::remove_file(dir.join(STAMP));
    }
    remove(dir)?;
    Ok(true)
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

    fn stage(stem: &str, inputs: &str) -> Stage {
        Stage::new(stem, inputs)
    }

    #[test]
    fn a_stage_is_made_once_for_the_same_inputs() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let store = Store::open(Some(temp.path()))?;
        let mut made = 0;
        for inputs in ["a", "a", "b", "a"] {
            let dir = store.stage(&stage("s", inputs), |dir| {
                made += 1;
                Ok(fs::write(dir.join("x"), inputs)?)
            })?;
            assert_eq!(fs::read_to_string(dir.join("x"))?, inputs);
        }
        assert_eq!(made, 2);
        Ok(())
    }

    #[test]
    fn names_have_a_digest_behind_the_stem() {
        let name = stage("kernel-7.2", "a").name();
        assert_eq!(name, "kernel-7.2-af63dc4c8601ec8c");
        assert_eq!(stem(&name), Some("kernel-7.2"));
        for other in ["kernel-7.2", "apt", "kernel-7.2-source", "lock", "x-af63dc4c8601ec8"] {
            assert_eq!(stem(other), None, "{other}");
        }
    }

    #[test]
    fn old_stages_are_pruned_except_the_last_used_and_those_in_use() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let store = Store::open(Some(temp.path()))?;
        let own: Vec<Stage> = ["a", "b", "c", "d", "e"].iter().map(|inputs| stage("own", inputs)).collect();
        let other = stage("own-other", "x");
        for (age, stage) in own.iter().chain([&other]).enumerate() {
            store.stage(stage, |_| Ok(()))?;
            let old = SystemTime::now() - Duration::from_secs(1000 * age as u64);
            File::options().append(true).open(store.dir(stage).join(STAMP))?.set_modified(old)?;
        }
        let partial = temp.path().join(format!("{PARTIAL}{}", own[0].name()));
        fs::create_dir(&partial)?;
        let held = store.hold(&own[4]).context("held")?;
        let old = SystemTime::now() - Duration::from_secs(9000);
        File::options().append(true).open(store.dir(&own[4]).join(STAMP))?.set_modified(old)?;
        store.prune("own", 1, Duration::from_secs(1500))?;
        let there = |stage: &Stage| store.dir(stage).exists();
        assert_eq!(own.iter().map(there).collect::<Vec<_>>(), [true, true, false, false, true]);
        assert!(there(&other) && !partial.exists());
        drop(held);
        store.prune("own", 1, Duration::from_secs(1500))?;
        assert!(!there(&own[4]));
        Ok(())
    }

    #[test]
    fn what_is_in_use_is_not_cleared() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let store = Store::open(Some(temp.path()))?;
        let (a, b) = (stage("a", "x"), stage("b", "x"));
        for stage in [&a, &b] {
            store.stage(stage, |_| Ok(()))?;
        }
        let held = store.hold(&a).context("held")?;
        assert_eq!(store.clear(|_| true)?, [store.dir(&a)]);
        assert!(store.ready(&a) && !store.dir(&b).exists() && store.hold(&b).is_none());
        drop(held);
        assert!(store.clear(|_| true)?.is_empty() && store.hold(&a).is_none());
        Ok(())
    }

    #[test]
    fn a_stage_that_fails_is_not_there() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let store = Store::open(Some(temp.path()))?;
        let one = stage("s", "a");
        assert!(store.stage(&one, |_| anyhow::bail!("no")).is_err());
        assert!(!store.ready(&one) && store.hold(&one).is_none());
        Ok(())
    }
}
