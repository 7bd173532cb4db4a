//! The job of a guest: what its init reads, packed beside the kit's first file system.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::cpio::Cpio;
use super::{Guest, What, tty};

/// The guest's first program and its init.
const EARLY: &[u8] = include_bytes!("../../guest/early");
const INIT: &[u8] = include_bytes!("../../guest/init");

/// The archive with the init and the job.
pub(crate) fn archive(guest: &Guest, token: &str) -> Result<Vec<u8>> {
    let mut cpio = Cpio::new();
    cpio.file("init", 0o755, EARLY);
    cpio.dir("job");
    cpio.file("job/init", 0o755, INIT);
    cpio.file("job/token", 0o644, token.as_bytes());
    cpio.file("job/env", 0o644, &environment(&guest.env)?);
    if guest.no_driver {
        cpio.file("job/no-driver", 0o644, b"");
    }
    match &guest.what {
        What::Shell => {
            cpio.file("job/shell", 0o644, b"");
            cpio.file("job/size", 0o644, tty::size().as_bytes());
        }
        What::Command(words) => cpio.file("job/command", 0o644, &command(words)),
        What::Script(path) => {
            let text = fs::read(path).with_context(|| format!("cannot read the script {}", path.display()))?;
            let executable =
                fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o111 != 0) && text.starts_with(b"#!");
            let place = format!("script/{}", name_of(path));
            cpio.dir("job/script");
            cpio.file(&format!("job/{place}"), 0o755, &text);
            let place = OsString::from(format!("/run/sfnic/{place}"));
            let words = if executable { vec![place] } else { vec!["sh".into(), place] };
            cpio.file("job/command", 0o644, &command(&words));
        }
    }
    Ok(cpio.finish())
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if name.is_empty() { "script".to_string() } else { name }
}

/// `exec` with each word quoted.
fn command(words: &[OsString]) -> Vec<u8> {
    let mut text = b"exec".to_vec();
    for word in words {
        text.push(b' ');
        text.extend(quote(word));
    }
    text.push(b'\n');
    text
}

/// Variables for the job, as lines that a shell reads.
fn environment(variables: &[(String, String)]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (name, value) in variables {
        let good = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
        anyhow::ensure!(good, "{name:?} cannot be the name of an environment variable");
        text.extend(format!("export {name}=").bytes());
        text.extend(quote(OsStr::new(value)));
        text.push(b'\n');
    }
    Ok(text)
}

fn quote(word: &OsStr) -> Vec<u8> {
    let mut text = b"'".to_vec();
    for byte in word.as_bytes() {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(command(&["echo".into(), "it's $x".into(), "".into()]), b"exec 'echo' 'it'\\''s $x' ''\n");
    }

    #[test]
    fn variables_are_exported() -> Result<()> {
        assert_eq!(environment(&[("A".into(), "b c".into())])?, b"export A='b c'\n");
        assert!(environment(&[("A;B".into(), String::new())]).is_err());
        Ok(())
    }
}
