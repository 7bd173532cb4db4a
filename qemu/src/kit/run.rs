//! Runs helper programs and turns their failures into one line.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::process::ask_to_end_with_parent;

/// Runs a program to its end and gives its standard output.
pub(crate) fn output(command: &mut Command, what: &str) -> Result<String> {
    let mut text = String::new();
    lines(command, what, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    Ok(text)
}

/// Runs a program to its end and hands over each line of its standard output.
///
/// # Errors
/// The program is missing, or it failed: then the line that explains most.
pub(crate) fn lines(command: &mut Command, what: &str, mut line: impl FnMut(&str)) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    tracing::debug!(?command, "run");
    // Else a compiler goes on for minutes after the one that asked for it is gone.
    ask_to_end_with_parent(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what}: cannot run {name}"))?;
    let errors = child.stderr.take().map(|mut pipe| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    let mut last = String::new();
    if let Some(pipe) = child.stdout.take() {
        for bytes in BufReader::new(pipe).split(b'\n') {
            let text =
                String::from_utf8_lossy(&bytes.with_context(|| format!("{what}: reading from {name}"))?).into_owned();
            line(&text);
            if !text.trim().is_empty() {
                last = text;
            }
        }
    }
    let status = child.wait().with_context(|| format!("{what}: waiting for {name}"))?;
    let errors = errors.and_then(|t| t.join().ok()).unwrap_or_default();
    if !status.success() {
        bail!("{what}: {name} failed ({status}): {}", reason(&errors).unwrap_or(&last));
    }
    Ok(())
}

/// The line of a program's complaints that explains most: the first that says it is an
/// error, else the last.
fn reason(text: &str) -> Option<&str> {
    let mut rows = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let is_error = |l: &&str| l.starts_with("E:") || l.contains("error:") || l.contains("Error") || l.contains("***");
    rows.clone().find(is_error).or_else(|| rows.next_back())
}

/// Looks a program up in PATH and in the directories of administrators.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Fails with the remedy when one of the programs that the kit is made with is missing.
pub(crate) fn require(programs: &[(&str, &str)]) -> Result<()> {
    for (program, package) in programs {
        if find_program(program).is_none() {
            bail!("the kit needs {program}, which this machine lacks: install the package {package}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_with_who_asked_for_it() {
        let (told, pid) = std::sync::mpsc::channel();
        let asking = thread::spawn(move || {
            let mut command = Command::new("sh");
            command.args(["-c", "echo $$; exec sleep 600"]);
            ask_to_end_with_parent(&mut command);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut first = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
            told.send((first, child)).unwrap();
        });
        let (first, mut child) = pid.recv().unwrap();
        assert_eq!(first.trim(), child.id().to_string());
        asking.join().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn a_failure_is_one_line_with_its_reason() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo noise >&2; echo 'E: no such thing' >&2; echo more >&2; exit 3"]);
        let text = output(&mut command, "asking").unwrap_err().to_string();
        assert!(text.starts_with("asking: sh failed") && text.ends_with("E: no such thing"), "{text}");
    }
}
