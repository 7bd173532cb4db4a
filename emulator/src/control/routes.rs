//! What can be asked of a device, and what it answers.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use sfnic_device_model::control::objects::Kind;
use sfnic_device_model::slice::{Change, Flavour, SliceError, Spec, given};

use super::{OPENAPI, Target, snapshot, stream, wires};
use crate::inspect::{self, Which};
use crate::metrics;

/// A refusal: its status, and the reason for people.
#[derive(Debug)]
pub(super) struct Refused(StatusCode, String);

impl Refused {
    pub(super) fn new(status: StatusCode, why: &str) -> Refused {
        Refused(status, why.into())
    }

    /// The path is one, and the method is not for it.
    pub(super) fn method() -> Refused {
        Refused::new(StatusCode::METHOD_NOT_ALLOWED, "not by this method")
    }
}

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

impl From<PathRejection> for Refused {
    fn from(_: PathRejection) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, "no such path: it is not UTF-8")
    }
}

impl From<QueryRejection> for Refused {
    fn from(e: QueryRejection) -> Refused {
        Refused(StatusCode::BAD_REQUEST, e.body_text())
    }
}

pub(super) type Answer = Result<Json<Value>, Refused>;

/// The body of a request: a JSON object.
pub(super) type Body<T> = Result<Json<Object<T>>, JsonRejection>;

/// What has names in JSON: fields in a list, one behind the other, are none.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = Map::<String, Value>::deserialize(from)?;
        T::deserialize(Value::Object(fields)).map(Self).map_err(D::Error::custom)
    }
}

pub(super) fn answer(value: impl Serialize) -> Answer {
    match serde_json::to_value(value) {
        Ok(v) => Ok(Json(v)),
        Err(e) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $handler:path;)*) => {
        /// Every route of the API: its method and path, as the OpenAPI file has them.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn routes() -> Router<Target> {
            Router::new()$(.route($path, on(MethodFilter::$method, $handler)))*
        }
    };
}

routes! {
    GET    "/v1/openapi.json"     openapi;
    GET    "/v1/device"           device;
    GET    "/v1/slices"           slices;
    POST   "/v1/slices"           add_slice;
    GET    "/v1/slices/{index}"   slice;
    PATCH  "/v1/slices/{index}"   set_slice;
    DELETE "/v1/slices/{index}"   del_slice;
    GET    "/v1/ports"            ports;
    GET    "/v1/resources"        resources;
    GET    "/v1/functions"        functions;
    GET    "/v1/objects"          objects;
    GET    "/v1/queues"           queues;
    GET    "/v1/tables"           tables;
    GET    "/v1/vports"           vports;
    GET    "/v1/dma"              dma;
    GET    "/v1/msix"             msix;
    GET    "/v1/unmodelled"       unmodelled;
    GET    "/v1/wires"            wires::list;
    GET    "/v1/wires/{port}"     wires::one;
    PATCH  "/v1/wires/{port}"     wires::set;
    GET    "/v1/switches"         wires::switches;
    GET    "/v1/captures"         wires::captures;
    POST   "/v1/captures"         wires::start_capture;
    DELETE "/v1/captures"         wires::stop_captures;
    GET    "/v1/captures/{id}"    wires::capture;
    DELETE "/v1/captures/{id}"    wires::stop_capture;
    POST   "/v1/snapshot/save"    snapshot::save;
    POST   "/v1/snapshot/load"    snapshot::load;
    POST   "/v1/hand-over"        snapshot::hand_over;
    GET    "/v1/faults"           faults;
    POST   "/v1/faults"           add_fault;
    DELETE "/v1/faults"           del_faults;
    GET    "/v1/faults/{id}"      fault;
    DELETE "/v1/faults/{id}"      del_fault;
    GET    "/v1/events"           stream::events;
    GET    "/v1/events/recent"    stream::recent;
    GET    "/v1/commands"         stream::commands;
    GET    "/metrics"             metrics_text;
}

/// All that can be asked of the device.
pub(super) fn router(target: Target) -> Router {
    routes()
        .fallback(async || Refused::new(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || Refused::method())
        .with_state(target)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn device(Shared(t): Shared<Target>) -> Answer {
    answer(inspect::device(&t.nic, &t.handle, &t.wires))
}

async fn slices(Shared(t): Shared<Target>) -> Answer {
    answer(t.nic.slices())
}

async fn slice(Shared(t): Shared<Target>, index: Named) -> Answer {
    answer(t.nic.slice(number(index)?)?)
}

/// A slice to add, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSlice {
    pub(super) flavour: Flavour,
    pub(super) pfnum: u32,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(super) sfnum: Option<u32>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<u32>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(super) vectors: Option<u16>,
}

async fn add_slice(Shared(t): Shared<Target>, new: Body<NewSlice>) -> Result<(StatusCode, Json<Value>), Refused> {
    let Json(Object(NewSlice { flavour, pfnum, sfnum, index, vectors })) = new?;
    let index = t.nic.slice_add(&Spec { flavour, pfnum, sfnum, index, vectors, socket: None })?;
    Ok((StatusCode::CREATED, answer(t.nic.slice(index)?)?))
}

async fn set_slice(Shared(t): Shared<Target>, index: Named, change: Body<Change>) -> Answer {
    let index = number(index)?;
    let Json(Object(change)) = change?;
    t.nic.slice_set(index, &change)?;
    answer(t.nic.slice(index)?)
}

async fn del_slice(Shared(t): Shared<Target>, index: Named) -> Result<StatusCode, Refused> {
    t.nic.slice_del(number(index)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn ports(Shared(t): Shared<Target>) -> Answer {
    answer(t.nic.ports())
}

async fn resources(Shared(t): Shared<Target>) -> Answer {
    answer(t.nic.resources())
}

/// Of which functions something is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    pf: Option<usize>,
    function: Option<u16>,
}

/// The same, and of which objects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectFilter {
    pf: Option<usize>,
    function: Option<u16>,
    kind: Option<Kind>,
}

/// The same, and how many rules of each group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFilter {
    pf: Option<usize>,
    function: Option<u16>,
    rules: Option<usize>,
}

/// Rules of a group that are shown unless more are asked for.
const RULES: usize = 64;

type Asked<T> = Result<Query<T>, QueryRejection>;

/// The part of a path that names something.
pub(super) type Named = Result<Path<String>, PathRejection>;

fn which(asked: Asked<Filter>) -> Result<Which, Refused> {
    let Query(Filter { pf, function }) = asked?;
    Ok(Which { pf, function })
}

async fn functions(Shared(t): Shared<Target>, asked: Asked<Filter>) -> Answer {
    answer(inspect::functions(&t.nic, which(asked)?))
}

async fn objects(Shared(t): Shared<Target>, asked: Asked<ObjectFilter>) -> Answer {
    let Query(ObjectFilter { pf, function, kind }) = asked?;
    answer(inspect::objects(&t.nic, Which { pf, function }, kind))
}

async fn queues(Shared(t): Shared<Target>, asked: Asked<Filter>) -> Answer {
    answer(inspect::queues(&t.nic, which(asked)?))
}

async fn tables(Shared(t): Shared<Target>, asked: Asked<TableFilter>) -> Answer {
    let Query(TableFilter { pf, function, rules }) = asked?;
    answer(inspect::tables(&t.nic, Which { pf, function }, rules.unwrap_or(RULES)))
}

async fn vports(Shared(t): Shared<Target>, asked: Asked<Filter>) -> Answer {
    answer(inspect::vports(&t.nic, which(asked)?, &t.offers.links()))
}

async fn dma(Shared(t): Shared<Target>, asked: Asked<Filter>) -> Answer {
    answer(inspect::dma(&t.nic, which(asked)?))
}

async fn msix(Shared(t): Shared<Target>, asked: Asked<Filter>) -> Answer {
    answer(inspect::msix(&t.nic, which(asked)?))
}

async fn metrics_text(Shared(t): Shared<Target>) -> Result<impl IntoResponse, Refused> {
    match metrics::text(&t) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text)),
        Err(e) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
    }
}

async fn unmodelled(Shared(t): Shared<Target>) -> Answer {
    answer(inspect::unmodelled(&t.nic))
}

/// A fault to put in, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault {
    fault: String,
}

async fn faults(Shared(t): Shared<Target>) -> Answer {
    answer(t.nic.faults.list())
}

async fn fault(Shared(t): Shared<Target>, id: Named) -> Answer {
    let Path(id) = id?;
    let found = t.nic.faults.list().into_iter().find(|f| f.id.to_string() == id);
    answer(found.ok_or_else(|| no_fault(&id))?)
}

async fn add_fault(Shared(t): Shared<Target>, new: Body<NewFault>) -> Result<(StatusCode, Json<Value>), Refused> {
    let invalid = |why| Refused(StatusCode::UNPROCESSABLE_ENTITY, why);
    let Json(Object(NewFault { fault })) = new?;
    let id = t.nic.fault_add(fault.parse().map_err(invalid)?).map_err(invalid)?;
    let added = t.nic.faults.list().into_iter().find(|f| f.id == id);
    Ok((StatusCode::CREATED, answer(added)?))
}

async fn del_fault(Shared(t): Shared<Target>, id: Named) -> Result<StatusCode, Refused> {
    let Path(id) = id?;
    let deleted = id.parse().is_ok_and(|id| t.nic.fault_del(id));
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(no_fault(&id)) }
}

async fn del_faults(Shared(t): Shared<Target>) -> StatusCode {
    for f in t.nic.faults.list() {
        t.nic.fault_del(f.id);
    }
    StatusCode::NO_CONTENT
}

fn no_fault(id: &str) -> Refused {
    Refused(StatusCode::NOT_FOUND, format!("no fault {id}"))
}

fn number(index: Named) -> Result<u32, Refused> {
    let Path(text) = index?;
    text.parse().map_err(|_| Refused(StatusCode::NOT_FOUND, format!("no slice {text:?}: an index is a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_names() {
        let read = serde_json::from_str::<Object<Change>>;
        assert!(read("{}").is_ok() && read(r#"{"trust": true}"#).is_ok());
        for bad in ["[]", "[true]", "null", "7", r#"{"trust": 1}"#, r#"{"no": 1}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
