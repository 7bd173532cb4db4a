//! The server: a thread with a small runtime of its own, away from the packet path.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::{Target, routes};

/// A control socket that is served as long as this lives.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a device on a socket.
    ///
    /// # Errors
    /// The socket cannot be made, or somebody listens there.
    pub fn start(target: Target, path: &Path) -> Result<Server> {
        if UnixStream::connect(path).is_ok() {
            bail!("{}: somebody serves this socket already", path.display());
        }
        // What a process that was killed left behind.
        let _ = fs::remove_file(path);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context("cannot protect the control socket")?;
        let (end, ended) = oneshot::channel::<()>();
        let router = routes::router(target);
        let serve = async move {
            let ended = async {
                let _ = ended.await;
            };
            tokio::select! {
                done = axum::serve(listener, router).into_future() => {
                    if let Err(e) = done {
                        tracing::error!("control: {e}");
                    }
                }
                () = ended => {}
            }
        };
        let thread = std::thread::Builder::new().name("control".into());
        let thread = thread.spawn(move || runtime.block_on(serve)).context("cannot start a thread")?;
        Ok(Server { path: path.to_owned(), end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}
