//! Routes: the state of the device, to a file and back.

use std::path::{Component, PathBuf};

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sfnic_device_model::snapshot::SnapshotError;

use super::Target;
use super::routes::{Answer, Body, Object, Refused, answer};
use crate::snapshot::{self, Failed};

/// A file where the device runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Where {
    file: String,
}

/// A snapshot that was saved or loaded.
#[derive(Debug, Serialize)]
struct Snapshot {
    file: String,
    bytes: u64,
}

pub(super) async fn save(Shared(t): Shared<Target>, at: Body<Where>) -> Answer {
    let (file, path) = absolute(at?.0)?;
    let bytes = snapshot::save(&t.nic, &path).map_err(|why| refused(&file, &why))?;
    answer(Snapshot { file, bytes })
}

pub(super) async fn load(Shared(t): Shared<Target>, at: Body<Where>) -> Answer {
    let (file, path) = absolute(at?.0)?;
    let bytes = snapshot::load(&t.nic, &path).map_err(|why| refused(&file, &why))?;
    answer(Snapshot { file, bytes })
}

/// A socket where another process listens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    socket: String,
}

/// The other process is told on its socket what comes of it.
pub(super) async fn hand_over(Shared(t): Shared<Target>, to: Body<To>) -> Result<StatusCode, Refused> {
    let Json(Object(To { socket })) = to?;
    let path = plain("socket", &socket)?;
    let none = || Refused::new(StatusCode::CONFLICT, "this device cannot be handed over");
    let giver = t.giver.clone().ok_or_else(none)?;
    let give = move || {
        // Where it is handed over nobody comes back from there.
        let Err(why) = giver.give(&path);
        tracing::warn!("not handed over: {why:#}");
    };
    std::thread::Builder::new().name("hand-over".into()).spawn(give).map_err(|_| none())?;
    Ok(StatusCode::ACCEPTED)
}

fn absolute(Object(Where { file }): Object<Where>) -> Result<(String, PathBuf), Refused> {
    let path = plain("file", &file)?;
    Ok((file, path))
}

fn plain(what: &str, text: &str) -> Result<PathBuf, Refused> {
    let path = PathBuf::from(text);
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) || text.contains('\0') {
        let why = format!("{what} = {text:?}: allowed is an absolute path without \"..\"");
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, &why));
    }
    Ok(path)
}

fn refused(file: &str, why: &Failed) -> Refused {
    let status = match why {
        Failed::Taken | Failed::Device(SnapshotError::InUse(_) | SnapshotError::Busy) => StatusCode::CONFLICT,
        Failed::File(_) | Failed::Device(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Refused::new(status, &format!("file = {file:?}: {why}"))
}
