//! Where the control sockets of this user's devices are.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Ending of a control socket's name.
const SUFFIX: &str = ".control";

/// Where programs of this user keep their sockets, if there is such a place.
pub fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir())
}

/// The directory of this user's sockets, whether it is there or not:
/// `$XDG_RUNTIME_DIR/sfnic`, or `/tmp/sfnic-UID`.
pub fn directory() -> PathBuf {
    match runtime_dir() {
        Some(dir) => dir.join("sfnic"),
        None => PathBuf::from(format!("/tmp/sfnic-{}", rustix::process::getuid().as_raw())),
    }
}

/// Makes that directory, for this user alone.
///
/// # Errors
/// It cannot be made, or it is somebody else's.
pub fn make_directory() -> Result<PathBuf> {
    let dir = directory();
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("cannot create {}", dir.display()));
        }
        _ => {}
    }
    // In /tmp the name may be someone else's.
    let user = rustix::process::getuid().as_raw();
    let meta = fs::symlink_metadata(&dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    if !meta.is_dir() || meta.uid() != user || meta.mode() & 0o022 != 0 {
        bail!("{} is not a directory of this user's alone", dir.display());
    }
    Ok(dir)
}

/// The control socket of this process.
///
/// # Errors
/// As [`make_directory`].
pub fn own() -> Result<PathBuf> {
    Ok(make_directory()?.join(format!("{}{SUFFIX}", std::process::id())))
}

/// The control sockets that there are, of devices that may have ended.
pub fn all() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory()) else { return vec![] };
    let is_socket = |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().ends_with(SUFFIX));
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_socket(p)).collect();
    found.sort();
    found
}
