//! What a QEMU that does not go on is doing, from the outside.

use std::fs;

/// The threads of a process, and where each is: `"qemu-system-x86: S do_sys_poll, CPU 0/TCG: R"`.
/// Empty if the process is gone.
pub(crate) fn describe(pid: u32) -> String {
    let mut threads: Vec<(u64, String)> = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let read = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, line(&read("stat"), &read("wchan"))?))
        })
        .collect();
    threads.sort();
    threads.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join(", ")
}

/// A thread by its `stat` and `wchan` of proc(5): name, state, the kernel's function in which
/// it sleeps, the time that it ran, in hundredths of a second.
fn line(stat: &str, wchan: &str) -> Option<String> {
    // The name is in brackets, and may have brackets and spaces.
    let (front, rest) = stat.rsplit_once(')')?;
    let name = front.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ran = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    let ticks = ran(11)? + ran(12)?;
    let place = Some(wchan.trim()).filter(|w| !w.is_empty() && *w != "0").map(|w| format!(" in {w}"));
    Some(format!("{name}: {}{}, ran {ticks}", fields.first()?, place.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_named_with_its_place() {
        let stat = "7 (CPU 0/(TCG)) S 1 7 7 0 -1 4194304 1 2 3 4 120 3 0 0 20 0 1 0 5";
        assert_eq!(line(stat, "do_sys_poll").as_deref(), Some("CPU 0/(TCG): S in do_sys_poll, ran 123"));
        assert_eq!(line(stat, "0").as_deref(), Some("CPU 0/(TCG): S, ran 123"));
        assert_eq!(line("", ""), None);
    }

    #[test]
    fn this_process_has_threads_and_one_that_is_gone_none() {
        assert!(describe(std::process::id()).contains(": "), "{}", describe(std::process::id()));
        assert_eq!(describe(u32::MAX), "");
    }
}
