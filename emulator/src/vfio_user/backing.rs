//! Which file descriptors may become guest memory.
//!
//! # The danger of a file that shrinks
//! Touching a mapped page past the end of its file raises SIGBUS and kills the
//! process, and a client could cut its file at any time after we looked at its
//! size. So a file is only mapped if it can not shrink any more: it is a memfd
//! that has `F_SEAL_SHRINK` (QEMU's `memory-backend-memfd` sets it), or to
//! which we can add that seal. The order matters: first the seal, then the
//! size, then the mapping. No signal handler is needed, and a file on a
//! file system that may fail or stall page faults (FUSE, NFS) never gets in.
//! An operator who trusts the client can lift the rule for
//! `memory-backend-file` with [`Options::allow_unsealed`].
//!
//! # Memory that is not shared
//! With `share=off` QEMU sends the descriptor of a file that it maps
//! privately: the guest's writes never reach the file and we would read
//! zeros. On receipt nothing distinguishes such a file from fresh memory of a
//! guest that has not started, except how the client maps it, which
//! `/proc/PID/maps` of the connected process shows. If it maps the file and no
//! mapping is shared, the memory is refused. If that cannot be read (another
//! user, another PID namespace) the file is taken, and looked at once more
//! when the guest enables bus mastering: a guest that has run by then has
//! touched its memory, so a file without a single block is not its memory
//! ([`Backing::all_untouched`]).
//!
//! [`Options::allow_unsealed`]: super::Options::allow_unsealed

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use rustix::fs::{FileType, OFlags, SealFlags};

use super::error::Reject;

/// Most distinct files that can be mapped at a time. Guests have one, or one
/// a NUMA node or DIMM. Each holds one open descriptor.
const MAX_FILES: usize = 64;
/// `f_type` of hugetlbfs.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
/// Most bytes of `/proc/PID/maps` we look at.
const MAX_MAPS_BYTES: u64 = 16 << 20;

/// A file, and how it was opened; two descriptors of one file share an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileKey {
    device: u64,
    inode: u64,
    writable: bool,
}

/// A file that has been admitted.
struct KnownFile {
    key: FileKey,
    /// The ranges that map it keep it open.
    file: Weak<File>,
    sharing: Sharing,
}

/// The files behind the guest memory of one client.
pub(crate) struct Backing {
    files: Vec<KnownFile>,
    peer: Option<u32>,
    allow_unsealed: bool,
}

impl Backing {
    /// `peer` is the client's process id, if known.
    pub(crate) fn new(peer: Option<u32>, allow_unsealed: bool) -> Self {
        Self { files: Vec::new(), peer, allow_unsealed }
    }

    /// Checks that `fd` can serve bytes `offset` to `offset + size`, and
    /// returns its file; a file already known is returned again and the new
    /// descriptor closed, so that open descriptors are bounded by files and
    /// not by ranges.
    ///
    /// # Errors
    /// [`Reject::DmaBacking`] and [`Reject::DmaMapping`] for a descriptor
    /// that will not do, [`Reject::DmaLimit`] for too many files.
    pub(crate) fn admit(&mut self, fd: OwnedFd, offset: u64, size: u64, writable: bool) -> Result<Arc<File>, Reject> {
        let stat = rustix::fs::fstat(&fd).map_err(failed("fstat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Reject::DmaBacking("the descriptor is not a memory file"));
        }
        let mode = rustix::fs::fcntl_getfl(&fd).map_err(failed("fcntl"))? & OFlags::RWMODE;
        if mode == OFlags::WRONLY || (writable && mode != OFlags::RDWR) {
            return Err(Reject::DmaBacking("the descriptor's access mode is too narrow"));
        }
        let key = FileKey { device: stat.st_dev, inode: stat.st_ino, writable: mode == OFlags::RDWR };
        self.files.retain(|known| known.file.strong_count() > 0);
        let known = self.files.iter().find(|known| known.key == key).and_then(|known| known.file.upgrade());
        let file = match known {
            Some(file) => file,
            None => {
                if self.files.len() >= MAX_FILES {
                    return Err(Reject::DmaLimit("files"));
                }
                let sharing = self.check_new(&fd, &key)?;
                let file = Arc::new(File::from(fd));
                self.files.push(KnownFile { key, file: Arc::downgrade(&file), sharing });
                file
            }
        };
        // Only now: the size can no longer go down.
        let length = file.metadata().map_err(|e| failed("fstat")(e))?.len();
        match offset.checked_add(size) {
            Some(end) if end <= length => Ok(file),
            _ => Err(Reject::DmaBacking("the range exceeds its file")),
        }
    }

    /// Whether there is memory, none of it is known to be shared, and none of
    /// it has ever been written: not the memory of a guest that runs.
    pub(super) fn all_untouched(&self) -> bool {
        let untouched = |known: &KnownFile| {
            known.sharing == Sharing::Unknown
                && known
                    .file
                    .upgrade()
                    .is_some_and(|file| rustix::fs::fstat(&*file).is_ok_and(|stat| stat.st_blocks == 0))
        };
        !self.files.is_empty() && self.files.iter().all(untouched)
    }

    /// The checks that a file passes once. Returns how the client maps it.
    fn check_new(&self, fd: &OwnedFd, key: &FileKey) -> Result<Sharing, Reject> {
        let fs = rustix::fs::fstatfs(fd).map_err(failed("fstatfs"))?;
        if u64::try_from(fs.f_type).is_ok_and(|t| t == HUGETLBFS_MAGIC) {
            return Err(Reject::DmaBacking("huge pages are not supported; start QEMU without hugetlb=on"));
        }
        if !seal(fd) && !self.allow_unsealed {
            return Err(Reject::DmaBacking(
                "the file could shrink under us; start QEMU with \
                 -object memory-backend-memfd,share=on",
            ));
        }
        let sharing = self.peer.map_or(Sharing::Unknown, |pid| sharing(pid, key));
        if sharing == Sharing::Private {
            return Err(Reject::DmaBacking(
                "the client maps it privately, its writes would not be seen here; \
                 start QEMU with share=on on the memory backend",
            ));
        }
        Ok(sharing)
    }
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Reject {
    move |source| Reject::DmaMapping { what, source: source.into() }
}

/// Makes sure that the file cannot shrink, and returns whether that is so.
fn seal(fd: &OwnedFd) -> bool {
    let sealed = |fd| rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    sealed(fd) || (rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK).is_ok() && sealed(fd))
}

/// How a process maps a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Shared,
    Private,
    /// It does not, or we cannot know.
    Unknown,
}

fn sharing(pid: u32, key: &FileKey) -> Sharing {
    match File::open(format!("/proc/{pid}/maps")) {
        Ok(maps) => sharing_in(BufReader::new(maps.take(MAX_MAPS_BYTES)), key),
        Err(_) => Sharing::Unknown,
    }
}

/// Looks for the file in lines of `address perms offset major:minor inode`.
fn sharing_in(maps: impl BufRead, key: &FileKey) -> Sharing {
    let device = format!("{:02x}:{:02x}", rustix::fs::major(key.device), rustix::fs::minor(key.device));
    let inode = key.inode.to_string();
    let mut found = Sharing::Unknown;
    for line in maps.split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(perms), Some(_), Some(dev), Some(ino)) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if dev == device && ino == inode {
            if perms.ends_with('s') {
                return Sharing::Shared;
            }
            found = Sharing::Private;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_tell_private_from_shared() {
        let key = FileKey { device: rustix::fs::makedev(0, 1), inode: 77, writable: true };
        let private = "7f00-7f10 rw-p 00000000 00:01 77   /memfd:ram (deleted)\n";
        let shared = "7f20-7f30 rw-s 00000000 00:01 77   /memfd:ram (deleted)\n";
        let other = "7f20-7f30 rw-s 00000000 00:01 78   /memfd:x\ngarbage\n\n";
        assert_eq!(sharing_in(other.as_bytes(), &key), Sharing::Unknown);
        assert_eq!(sharing_in([other, private].concat().as_bytes(), &key), Sharing::Private);
        assert_eq!(sharing_in([private, shared].concat().as_bytes(), &key), Sharing::Shared);
    }
}
