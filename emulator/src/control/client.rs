//! The client's side of the control socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::place;

/// A device that answers.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
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

impl Client {
    /// The device that listens on a socket.
    pub fn at(path: &Path) -> Client {
        Client { path: path.to_owned() }
    }

    /// The device of this handle among those of this user; without a handle, the only one.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(handle: Option<&str>) -> Result<Client> {
        let mut found = vec![];
        for path in place::all() {
            let client = Client { path };
            // One that was killed left its socket behind.
            let Ok(reply) = client.get("/v1/device") else { continue };
            let name = reply.body.get("handle").and_then(Value::as_str).unwrap_or_default().to_owned();
            found.push((name, client));
        }
        let names = |found: &[(String, Client)]| {
            let list: Vec<String> =
                found.iter().map(|(name, c)| format!("{name} (--control {})", c.path.display())).collect();
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        runtime.block_on(self.ask(method, path, body))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        let place = self.path.display();
        let stream = UnixStream::connect(&self.path).await.with_context(|| format!("no device answers on {place}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let bytes = body.map(|b| b.to_string()).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path).header("host", "sfnic");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::from(bytes)))?;
        let reply = sender.send_request(request).await.with_context(|| format!("{place} does not answer"))?;
        let status = reply.status();
        let bytes = reply.into_body().collect().await.with_context(|| format!("{place} does not answer"))?.to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        Ok(Reply { status, body })
    }
}
