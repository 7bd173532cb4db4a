//! Files that are written at the end of long work, whole or not at all.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::{Builder, NamedTempFile};

use super::Failure;

/// A file to write at the end. That it can be written is known before the work.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    /// A terminal or a pipe: there is nothing to rename.
    direct: bool,
}

impl Output {
    /// Looks whether the file can be written; nothing of it changes yet.
    pub(super) fn new(flag: &str, path: &Path) -> Result<Output, Failure> {
        let wrong = |why: String| {
            Failure::Usage(format!("{flag} = {:?}: allowed is a file that can be written ({why})", path.display()))
        };
        let meta = fs::metadata(path).ok();
        if meta.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(wrong("it is a directory".to_owned()));
        }
        let direct = meta.as_ref().is_some_and(|m| !m.is_file());
        // Behind a symbolic link, so that the link stays.
        let path_of = if direct { path.to_owned() } else { path.canonicalize().unwrap_or_else(|_| path.to_owned()) };
        let output = Output { path: path_of, direct };
        if meta.is_some() {
            fs::OpenOptions::new().append(true).open(&output.path).map_err(|e| wrong(e.to_string()))?;
        }
        if !direct {
            output.beside().map_err(|e| wrong(e.to_string()))?;
        }
        Ok(output)
    }

    /// A file in the same directory, with the rights that the new file will have.
    fn beside(&self) -> std::io::Result<NamedTempFile> {
        let dir = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mode = fs::metadata(&self.path).map_or(0o666, |m| m.permissions().mode());
        Builder::new().prefix(".sfnic-").permissions(Permissions::from_mode(mode & 0o777)).tempfile_in(dir)
    }

    /// What is in the file; empty if it is not there.
    pub(super) fn text(&self) -> Result<String> {
        if self.direct || !self.path.exists() {
            return Ok(String::new());
        }
        fs::read_to_string(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// Writes the file.
    pub(super) fn write(&self, text: &str) -> Result<()> {
        let written = if self.direct {
            fs::write(&self.path, text)
        } else {
            self.beside().and_then(|file| {
                fs::write(file.path(), text)?;
                file.persist(&self.path).map_err(|e| e.error)?;
                Ok(())
            })
        };
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_a_link_stays() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (file, link) = (dir.path().join("a.xml"), dir.path().join("link"));
        fs::write(&file, "old")?;
        fs::set_permissions(&file, Permissions::from_mode(0o640))?;
        std::os::unix::fs::symlink("a.xml", &link)?;
        let output = Output::new("--junit", &link).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        assert_eq!(output.text()?, "old");
        output.write("new")?;
        assert_eq!(fs::read_to_string(&file)?, "new");
        assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link)?.is_symlink());
        assert_eq!(fs::read_dir(dir.path())?.count(), 2, "nothing else is left");
        Ok(())
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        for bad in ["/", "/nonexistent/x.xml", "/proc/x.xml"] {
            let Err(Failure::Usage(line)) = Output::new("--junit", Path::new(bad)) else { panic!("{bad}") };
            assert!(line.contains("--junit") && line.contains(bad), "{line}");
        }
    }
}
