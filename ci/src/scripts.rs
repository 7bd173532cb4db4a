//! The scripts that run in guests, part of the program.

use std::io;
use std::path::Path;

/// Every script: its name and its text.
pub const ALL: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/scripts.rs"));

/// Is there a script of that name?
pub fn exists(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}

/// Writes all of them into a directory.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    ALL.iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_written_as_they_are() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        write(dir.path())?;
        assert!(std::fs::read_to_string(dir.path().join("lab.py"))?.contains("from basics import *"));
        assert!(exists("story.py") && !exists("nothing.py"));
        Ok(())
    }
}
