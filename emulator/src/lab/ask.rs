//! Questions of a guest to the process that runs its device, through the shared directory:
//! the guest makes a file `ask.N` with the question in it, and finds the answer in
//! `answer.N`. Both appear complete, by renaming.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use sfnic_device_model::Nic;
use sfnic_device_model::faults::Fault;

use crate::cli;

/// What a guest may ask: `memory`, `objects`, `faults`, `fault add FAULT` (its number, or why
/// not), `fault del NUMBER`, `ctl [WORD, …]` (what `sfnic ctl` says, with its status).
pub fn answer(nic: &Nic, control: &Path, question: &str) -> Result<Value, serde_json::Error> {
    if let Some(words) = question.strip_prefix("ctl ") {
        let words: Vec<String> = serde_json::from_str(words)?;
        return serde_json::to_value(cli::ctl_said(control, &words));
    }
    if let Some(text) = question.strip_prefix("fault add ") {
        let added = text.parse::<Fault>().and_then(|fault| nic.fault_add(fault));
        return Ok(added.map_or_else(Value::String, |id| json!(id)));
    }
    if let Some(id) = question.strip_prefix("fault del ") {
        return Ok(json!(id.parse().is_ok_and(|id| nic.fault_del(id))));
    }
    match question {
        "memory" => serde_json::to_value(memory()),
        "objects" => serde_json::to_value(nic.object_counts()),
        "faults" => serde_json::to_value(nic.faults.list()),
        _ => Ok(Value::Null),
    }
}

/// The thread that answers.
pub struct Answers {
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Answers {
    /// Answers what is asked in a directory, until [`Answers::stop`].
    pub fn start(dir: &Path, answer: impl Fn(&str) -> Result<Value, serde_json::Error> + Send + 'static) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (dir, stop) = (dir.to_owned(), done.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (path, number) in asked(&dir) {
                    let Ok(question) = std::fs::read_to_string(&path) else { continue };
                    let text = answer(question.trim()).unwrap_or_else(|e| Value::String(e.to_string())).to_string();
                    let (part, whole) = (dir.join("answer.part"), dir.join(format!("answer.{number}")));
                    let written = std::fs::remove_file(&path)
                        .and_then(|()| std::fs::write(&part, text))
                        .and_then(|()| std::fs::rename(&part, &whole));
                    if let Err(e) = written {
                        eprintln!("cannot answer the guest: {e}");
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { done, thread }
    }

    /// No more answers.
    pub fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

/// The questions that wait, with their numbers.
fn asked(dir: &Path) -> Vec<(PathBuf, u64)> {
    let number = |path: PathBuf| {
        let n = path.file_name()?.to_str()?.strip_prefix("ask.")?.parse().ok()?;
        Some((path, n))
    };
    std::fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| number(e.path())).collect()
}

/// Resident memory of this process in KiB.
///
/// The guest's own memory is mapped here too and becomes resident as the device touches
/// it; it is shared, and counted apart from what the device allocates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// What is private: heap and stacks.
    pub anonymous: u64,
    /// Of files: programs.
    pub files: u64,
    /// Shared: the guest's.
    pub shared: u64,
}

/// This process's memory now, without what the allocator keeps for later: that goes back first.
pub fn memory() -> Memory {
    give_back();
    parse_memory(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Pages of freed memory go back to the system.
#[allow(unsafe_code)]
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers; nothing that is allocated changes.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn parse_memory(status: &str) -> Memory {
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
    };
    Memory { anonymous: field("RssAnon"), files: field("RssFile"), shared: field("RssShmem") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_kind() {
        let text = "VmRSS:\t 60 kB\nRssAnon:\t      10 kB\nRssFile:\t      20 kB\nRssShmem:\t      30 kB\n";
        assert_eq!(parse_memory(text), Memory { anonymous: 10, files: 20, shared: 30 });
        assert!(memory().anonymous > 0);
    }

    #[test]
    fn a_question_is_answered_once() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let answers = Answers::start(dir.path(), |q| serde_json::to_value(q.len()));
        std::fs::write(dir.path().join("part"), "four\n")?;
        std::fs::rename(dir.path().join("part"), dir.path().join("ask.7"))?;
        let answer = dir.path().join("answer.7");
        for _ in 0..500 {
            if answer.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(std::fs::read_to_string(answer)?, "4");
        assert!(!dir.path().join("ask.7").exists());
        answers.stop();
        Ok(())
    }
}
