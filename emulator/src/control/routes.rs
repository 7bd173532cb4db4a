//! What can be asked of a device, and what it answers.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sfnic_device_model::slice::{Change, Flavour, SliceError, Spec};

use super::Target;
use crate::inspect;

/// A refusal: its status, and the reason for people.
#[derive(Debug)]
pub(super) struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<SliceError> for Refused {
    fn from(e: SliceError) -> Refused {
        let status = match &e {
            SliceError::NotFound(_) => StatusCode::NOT_FOUND,
            SliceError::Exists(_) | SliceError::State(_) => StatusCode::CONFLICT,
            SliceError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            SliceError::Unsupported(_) => StatusCode::FORBIDDEN,
            SliceError::Exhausted(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        Refused(status, e.to_string())
    }
}

impl From<JsonRejection> for Refused {
    fn from(e: JsonRejection) -> Refused {
        let text = e.body_text();
        Refused(StatusCode::BAD_REQUEST, text.lines().collect::<Vec<_>>().join(" "))
    }
}

type Answer = Result<Json<Value>, Refused>;

fn answer(value: impl Serialize) -> Answer {
    match serde_json::to_value(value) {
        Ok(v) => Ok(Json(v)),
        Err(e) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
    }
}

/// Everything that the server knows.
pub(super) fn router(target: Target) -> Router {
    Router::new()
        .route("/v1/device", get(device))
        .route("/v1/slices", get(slices).post(add_slice))
        .route("/v1/slices/{index}", get(slice).patch(set_slice).delete(del_slice))
        .route("/v1/ports", get(ports))
        .route("/v1/resources", get(resources))
        .route("/v1/functions", get(functions))
        .route("/v1/unmodelled", get(unmodelled))
        .fallback(async || Refused(StatusCode::NOT_FOUND, "no such path".into()))
        .method_not_allowed_fallback(async || Refused(StatusCode::METHOD_NOT_ALLOWED, "not by this method".into()))
        .with_state(target)
}

async fn device(Shared(t): Shared<Target>) -> Answer {
    answer(inspect::device(&t.nic, &t.handle))
}

async fn slices(Shared(t): Shared<Target>) -> Answer {
    answer(t.nic.slices())
}

async fn slice(Shared(t): Shared<Target>, Path(index): Path<String>) -> Answer {
    answer(t.nic.slice(number(&index)?)?)
}

/// A slice to add, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSlice {
    pub(super) flavour: Flavour,
    pub(super) pfnum: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sfnum: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<u32>,
}

async fn add_slice(
    Shared(t): Shared<Target>,
    new: Result<Json<NewSlice>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let Json(NewSlice { flavour, pfnum, sfnum, index }) = new?;
    let index = t.nic.slice_add(&Spec { flavour, pfnum, sfnum, index })?;
    Ok((StatusCode::CREATED, answer(t.nic.slice(index)?)?))
}

async fn set_slice(
    Shared(t): Shared<Target>,
    Path(index): Path<String>,
    change: Result<Json<Change>, JsonRejection>,
) -> Answer {
    let index = number(&index)?;
    let Json(change) = change?;
    t.nic.slice_set(index, &change)?;
    answer(t.nic.slice(index)?)
}

async fn del_slice(Shared(t): Shared<Target>, Path(index): Path<String>) -> Result<StatusCode, Refused> {
    t.nic.slice_del(number(&index)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn ports(Shared(t): Shared<Target>) -> Answer {
    answer(t.nic.ports())
}

async fn resources(Shared(t): Shared<Target>) -> Answer {
    answer(t.nic.resources())
}

async fn functions(Shared(t): Shared<Target>) -> Answer {
    answer(inspect::functions(&t.nic))
}

async fn unmodelled(Shared(t): Shared<Target>) -> Answer {
    answer(inspect::unmodelled(&t.nic))
}

fn number(text: &str) -> Result<u32, Refused> {
    text.parse().map_err(|_| Refused(StatusCode::NOT_FOUND, format!("no slice {text:?}: an index is a number")))
}
