//! Wires, switches and captures: what can be asked of them, and set.

use std::path::{Component, PathBuf};

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use sfnic_device_model::capture::Way;
use sfnic_device_model::fabric::impair::Impairment;
use sfnic_device_model::nic::Card;
use sfnic_device_model::slice::given;

use super::Target;
use super::routes::{Answer, Body, Named, Object, Refused, answer};
use crate::capture::{self, MAX_SNAP, MIN_SNAP, Spec, SpecError};
use crate::inspect;

fn invalid(why: impl ToString) -> Refused {
    Refused::new(StatusCode::UNPROCESSABLE_ENTITY, &why.to_string())
}

pub(super) async fn list(Shared(t): Shared<Target>) -> Answer {
    answer(inspect::wires(&t.nic, &t.wires))
}

/// The card of a port `pN`.
fn card<'a>(t: &'a Target, port: &str) -> Result<&'a Card, Refused> {
    let found = t.nic.cards.iter().find(|c| format!("p{}", c.index) == port);
    let last = t.nic.cards.len().saturating_sub(1);
    found.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, &format!("no port {port:?}: there is p0 to p{last}")))
}

pub(super) async fn one(Shared(t): Shared<Target>, port: Named) -> Answer {
    let Path(port) = port?;
    answer(inspect::wire(card(&t, &port)?, &t.wires))
}

/// What a wire is to do to frames, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireChange {
    #[serde(default, deserialize_with = "given")]
    r#in: Option<String>,
    #[serde(default, deserialize_with = "given")]
    out: Option<String>,
}

pub(super) async fn set(Shared(t): Shared<Target>, port: Named, change: Body<WireChange>) -> Answer {
    let Path(port) = port?;
    let Json(Object(change)) = change?;
    let card = card(&t, &port)?;
    let ways = [(Way::In, "in", change.r#in), (Way::Out, "out", change.out)];
    let parse = |(way, name, text): (Way, &str, Option<String>)| {
        let text = text?;
        Some(text.parse::<Impairment>().map(|set| (way, set)).map_err(|why| invalid(format!("{name}: {why}"))))
    };
    // All or nothing.
    let sets: Vec<(Way, Impairment)> = ways.into_iter().filter_map(parse).collect::<Result<_, _>>()?;
    for (way, set) in sets {
        t.nic.impair(card, way, set);
    }
    answer(inspect::wire(card, &t.wires))
}

pub(super) async fn switches(Shared(t): Shared<Target>) -> Answer {
    answer(t.switches.iter().map(|s| s.view()).collect::<Vec<_>>())
}

/// A capture to start, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCapture {
    file: String,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default, deserialize_with = "given")]
    snap: Option<u32>,
}

impl NewCapture {
    fn spec(self) -> Result<Spec, Refused> {
        let file = PathBuf::from(&self.file);
        let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
        if !file.is_absolute() || !file.components().all(plain) || self.file.contains('\0') {
            return Err(invalid(format!("file = {:?}: allowed is an absolute path without \"..\"", self.file)));
        }
        if let Some(name) = self.ports.iter().find(|p| !capture::is_name(p)) {
            return Err(invalid(SpecError::Port(name.clone())));
        }
        let snap = self.snap.unwrap_or(MAX_SNAP);
        if !(MIN_SNAP..=MAX_SNAP).contains(&snap) {
            return Err(invalid(SpecError::Snap(snap.to_string())));
        }
        Ok(Spec { file, ports: self.ports, snap })
    }
}

pub(super) async fn captures(Shared(t): Shared<Target>) -> Answer {
    answer(t.captures.list())
}

fn running(t: &Target, id: &str) -> Result<Value, Refused> {
    let found = t.captures.list().into_iter().find(|c| c.id.to_string() == id);
    let found = found.ok_or_else(|| no_capture(id))?;
    answer(found).map(|Json(v)| v)
}

fn no_capture(id: &str) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, &format!("no capture {id}"))
}

pub(super) async fn capture(Shared(t): Shared<Target>, id: Named) -> Answer {
    let Path(id) = id?;
    running(&t, &id).map(Json)
}

pub(super) async fn start_capture(
    Shared(t): Shared<Target>,
    new: Body<NewCapture>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let Json(Object(new)) = new?;
    let spec = new.spec()?;
    let file = spec.file.display().to_string();
    let id = t.captures.start_new(spec).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Refused::new(StatusCode::CONFLICT, &format!("file = {file:?}: it is there already; allowed is a new one"))
        }
        std::io::ErrorKind::QuotaExceeded if t.captures.list().len() >= capture::MOST => {
            Refused::new(StatusCode::INSUFFICIENT_STORAGE, &format!("{} captures run already", capture::MOST))
        }
        _ => invalid(format!("file = {file:?}: the device cannot write it: {e}")),
    })?;
    Ok((StatusCode::CREATED, Json(running(&t, &id.to_string())?)))
}

pub(super) async fn stop_capture(Shared(t): Shared<Target>, id: Named) -> Answer {
    let Path(id) = id?;
    let done = id.parse().ok().and_then(|id| t.captures.stop(id));
    answer(done.ok_or_else(|| no_capture(&id))?)
}

pub(super) async fn stop_captures(Shared(t): Shared<Target>) -> Answer {
    answer(t.captures.stop_all())
}
