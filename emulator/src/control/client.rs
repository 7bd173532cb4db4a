//! The client's side of the control socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{TOKEN_VARIABLE, place};

/// What an address of a control port begins with.
const HTTP: &str = "http://";

/// A device that answers.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
    /// What a port on TCP wants to be told.
    token: Option<String>,
}

/// Where a device listens.
#[derive(Debug, Clone)]
enum Place {
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

/// An answer as it came.
#[derive(Debug)]
pub struct Raw {
    /// Status of HTTP.
    pub status: StatusCode,
    /// Its media type.
    pub media: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Raw {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a device answered: its status, and JSON (null for none).
#[derive(Debug)]
pub struct Reply {
    /// Status of HTTP.
    pub status: StatusCode,
    /// The body.
    pub body: Value,
}

impl Reply {
    /// The reason of a refusal.
    pub fn error(&self) -> Option<String> {
        let text = self.body.get("error").and_then(Value::as_str);
        (!self.status.is_success()).then(|| text.map_or_else(|| self.status.to_string(), str::to_owned))
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "{}", path.display()),
            Place::Tcp(address) => write!(f, "{HTTP}{address}"),
        }
    }
}

impl Client {
    /// The device that listens on a socket, or at `http://HOST:PORT`.
    pub fn at(place: &Path) -> Client {
        let address = place.to_str().and_then(|text| text.strip_prefix(HTTP));
        let place = match address {
            Some(address) => Place::Tcp(address.trim_end_matches('/').to_owned()),
            None => Place::Unix(place.to_owned()),
        };
        Client { place, token: std::env::var(TOKEN_VARIABLE).ok() }
    }

    /// As this one, with another token than that of the environment.
    #[must_use]
    pub fn with_token(self, token: Option<&str>) -> Client {
        Client { token: token.map(str::to_owned), ..self }
    }

    /// The device of this handle among those of this user; without a handle, the only one.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(handle: Option<&str>) -> Result<Client> {
        let mut found = vec![];
        for path in place::all() {
            let client = Client { place: Place::Unix(path), token: None };
            // One that was killed left its socket behind.
            let Ok(reply) = client.get("/v1/device") else { continue };
            let name = reply.body.get("handle").and_then(Value::as_str).unwrap_or_default().to_owned();
            found.push((name, client));
        }
        let names = |found: &[(String, Client)]| {
            let list: Vec<String> = found.iter().map(|(name, c)| format!("{name} (--control {c})")).collect();
            list.join(", ")
        };
        if found.is_empty() {
            bail!("no device runs: start one with `sfnic run` or `sfnic vm`, or name its socket by --control PATH");
        }
        let all = names(&found);
        if let Some(handle) = handle {
            found.retain(|(name, _)| name == handle);
        }
        match found.len() {
            1 => Ok(found.remove(0).1),
            0 => bail!("no device is called {}; there is {all}", handle.unwrap_or_default()),
            _ => bail!("several devices run: {}; choose one", names(&found)),
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.request(Method::GET, path, None)
    }

    /// Makes a request.
    ///
    /// # Errors
    /// The device does not answer, or not as it should.
    pub fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        let raw = self.raw(method, path, body)?;
        let body = if raw.body.is_empty() { Value::Null } else { serde_json::from_slice(&raw.body)? };
        Ok(Reply { status: raw.status, body })
    }

    /// Makes a request that is answered with text.
    ///
    /// # Errors
    /// As [`Self::request`], and a refusal.
    pub fn text(&self, path: &str) -> Result<String> {
        let raw = self.raw(Method::GET, path, None)?;
        if !raw.status.is_success() {
            bail!("{self}: {}", raw.status);
        }
        Ok(raw.text())
    }

    /// Makes a request whose answer may be anything.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn raw(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Raw> {
        self.wait(async {
            let reply = self.ask(method, path, body).await?;
            let status = reply.status();
            let media = reply.headers().get("content-type").and_then(|v| v.to_str().ok());
            let media = media.unwrap_or_default().to_owned();
            let headers = reply.headers().clone();
            let bytes = reply.into_body().collect().await.with_context(|| format!("{self} does not answer"))?;
            Ok(Raw { status, media, headers, body: bytes.to_bytes() })
        })
    }

    /// Hands every line of an answer that goes on to `each`, until it says no. False where
    /// the device ended first.
    ///
    /// # Errors
    /// As [`Self::request`], a refusal, or what `each` says.
    pub fn lines(&self, path: &str, mut each: impl FnMut(&str) -> Result<bool>) -> Result<bool> {
        self.wait(async {
            let reply = self.ask(Method::GET, path, None).await?;
            let status = reply.status();
            let mut body = reply.into_body();
            let mut rest: Vec<u8> = vec![];
            while let Some(frame) = body.frame().await {
                // The device ended in the middle of it.
                let Ok(frame) = frame else { return Ok(false) };
                let Ok(bytes) = frame.into_data() else { continue };
                rest.extend_from_slice(&bytes);
                while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line);
                    if status.is_success() && !each(line.trim_end())? {
                        return Ok(true);
                    }
                }
            }
            if !status.is_success() {
                bail!("{self}: {status}: {}", String::from_utf8_lossy(&rest));
            }
            Ok(false)
        })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        runtime.block_on(work)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "sfnic");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let (Place::Tcp(_), Some(token)) = (&self.place, &self.token) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bytes = body.map(|b| b.to_string()).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(bytes)))?;
        let silent = || format!("no device answers on {self}");
        match &self.place {
            Place::Unix(path) => exchange(UnixStream::connect(path).await.with_context(silent)?, request).await,
            Place::Tcp(address) => exchange(TcpStream::connect(address).await.with_context(silent)?, request).await,
        }
        .with_context(|| format!("{self} does not answer"))
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?)
}
