//! The server: a thread with a small runtime of its own, away from the packet path.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use super::{Target, dashboard, routes};

/// A control socket that is served as long as this lives.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    tcp: Option<SocketAddr>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A port on TCP, for who knows the token.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// Where to listen; port 0 is one that is free.
    pub address: SocketAddr,
    /// What a request must have as `Authorization: Bearer TOKEN`.
    pub token: String,
}

impl Server {
    /// Serves a device on a socket, and on a port where one is given.
    ///
    /// # Errors
    /// The socket or port cannot be had, or somebody listens there.
    pub fn start(target: Target, path: &Path, tcp: Option<&Tcp>) -> Result<Server> {
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
        let api = routes::router(target);
        let router = api.clone().merge(dashboard::router());
        let port = match tcp {
            None => None,
            Some(Tcp { address, token }) => {
                let socket = std::net::TcpListener::bind(address)
                    .and_then(|s| s.set_nonblocking(true).map(|()| s))
                    .with_context(|| format!("cannot listen on {address}"))?;
                let _inside = runtime.enter();
                let listener = TcpListener::from_std(socket).context("cannot listen")?;
                let guard = middleware::from_fn_with_state(Arc::<str>::from(token.as_str()), admit);
                // The page is no secret; what it asks is.
                Some((listener, api.layer(guard).merge(dashboard::router())))
            }
        };
        let tcp = port.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
        let serve = async move {
            let ended = async {
                let _ = ended.await;
            };
            if let Some((listener, router)) = port {
                tokio::spawn(async move { axum::serve(listener, router).await });
            }
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
        Ok(Server { path: path.to_owned(), tcp, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The port that it listens on, if it does.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
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

/// Lets a request pass that has the token.
async fn admit(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    if same(given.as_bytes(), token.as_bytes()) {
        return next.run(request).await;
    }
    let why = Json(serde_json::json!({ "error": "a token is wanted: Authorization: Bearer TOKEN" }));
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], why).into_response()
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    !b.is_empty() && a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}
