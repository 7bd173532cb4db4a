//! A Unix socket to listen on, whose name goes when it is dropped.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tracing::debug;

/// Why a name cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves this path.
    #[error("{0} is in use: another process listens there")]
    InUse(PathBuf),
    /// Something other than a socket has that name; it is left alone.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The socket could not be created.
    #[error("cannot listen on {path}: {source}")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A listening socket that never blocks.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file, to remove no one else's.
    identity: Option<(u64, u64)>,
}

impl Listening {
    /// Listens on `path`. A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// [`SocketError`] if somebody listens there, if the name belongs to
    /// something else, or if the socket cannot be created.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
            Ok(_) => match UnixStream::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    debug!(path = %path.display(), "replacing a stale socket");
                    fs::remove_file(path).map_err(failed)?;
                }
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(SocketError::InUse(path.to_owned())),
                Err(e) => return Err(failed(e)),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let identity = identity(path);
        Ok(Self { listener, path: path.to_owned(), identity })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who connected, if somebody did; its stream blocks.
    ///
    /// # Errors
    /// As `accept(2)`; [`io::ErrorKind::WouldBlock`] where nobody did.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let now = identity(&self.path);
        if now.is_some() && now == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_claimed_and_given_back() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("s");
        let first = Listening::bind(&path).expect("free");
        assert!(first.accept().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
        assert!(matches!(Listening::bind(&path), Err(SocketError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        // Nobody listens on what a dead process left.
        drop(UnixListener::bind(&path).expect("free"));
        drop(Listening::bind(&path).expect("stale"));
        fs::write(&path, "x").expect("a file");
        assert!(matches!(Listening::bind(&path), Err(SocketError::NotASocket(_))));
    }
}
