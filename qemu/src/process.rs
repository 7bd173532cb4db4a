//! Starts QEMU so that it cannot outlive this process, with files handed over by number.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// A file without a name, for data that QEMU reads by path.
pub(crate) fn memory_file(name: &str, data: &[u8]) -> Result<std::fs::File> {
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).context("cannot create a memory file")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(data).context("cannot fill a memory file")?;
    Ok(file)
}

/// The path by which a process finds an open file that it was handed.
pub(crate) fn path_of(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// The program gets a process group of its own (a terminal's Ctrl-C is ours to handle), is
/// killed when the calling thread ends, and inherits these files, which the caller keeps
/// open until the program runs.
pub(crate) fn tie_to_parent(command: &mut Command, files: &[&dyn AsFd]) {
    command.process_group(0);
    ends_with_parent(command, Signal::KILL, files.iter().map(|f| f.as_fd().as_raw_fd()).collect());
}

/// The program is asked to end when the calling thread ends, whatever ended that.
pub(crate) fn ask_to_end_with_parent(command: &mut Command) {
    ends_with_parent(command, Signal::TERM, vec![]);
}

#[allow(unsafe_code)]
fn ends_with_parent(command: &mut Command, signal: Signal, files: Vec<RawFd>) {
    let parent = rustix::process::getpid();
    let prepare = move || -> std::io::Result<()> {
        set_parent_process_death_signal(Some(signal))?;
        if getppid() != Some(parent) {
            return Err(std::io::Error::other("the parent ended"));
        }
        for file in &files {
            // SAFETY: the caller keeps the files open until the command is spawned.
            let file = unsafe { BorrowedFd::borrow_raw(*file) };
            fcntl_setfd(file, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls; it neither
    // allocates nor takes locks.
    unsafe {
        command.pre_exec(prepare);
    }
}
