//! Events as a stream: server-sent events, each one a line of JSON.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sfnic_device_model::events;

use super::Target;
use super::routes::{Answer, Refused, answer};

/// Events that are fetched at a time.
const BATCH: usize = 256;

/// Which events are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// Those behind this number.
    since: Option<u64>,
}

/// A reader: the latest number that it was given, and what it is to be given next.
struct Reader {
    target: Target,
    seen: u64,
    next: VecDeque<Value>,
}

/// Events that a reader was too slow for.
pub(super) fn lost(count: u64) -> Value {
    json!({ "event": "lost", "count": count })
}

fn value(event: impl Serialize) -> Value {
    serde_json::to_value(event).unwrap_or_default()
}

impl Reader {
    /// The next event; waits for one.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Reader)> {
        loop {
            if let Some(event) = self.next.pop_front() {
                let entry = Event::default().data(event.to_string());
                let entry = match event.get("seq") {
                    Some(seq) => entry.id(seq.to_string()),
                    None => entry,
                };
                return Some((Ok(entry), self));
            }
            // Before looking: what comes meanwhile wakes us.
            self.target.news.mark_unchanged();
            let got = self.target.nic.events.since(self.seen, BATCH);
            if got.lost > 0 {
                self.next.push_back(lost(got.lost));
            }
            if let Some(last) = got.events.last() {
                self.seen = last.seq;
                self.next.extend(got.events.iter().map(|e| value(&**e)));
            } else if self.target.news.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// `GET /v1/events`: from now on, or behind a number.
pub(super) async fn events(
    Shared(target): Shared<Target>,
    headers: HeaderMap,
    query: Result<Query<From>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let Query(From { since }) = query?;
    let again = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok());
    let seen = since.or(again).unwrap_or_else(|| target.nic.events.last());
    let reader = Reader { target, seen, next: VecDeque::new() };
    Ok(Sse::new(stream::unfold(reader, Reader::next)).keep_alive(KeepAlive::default()))
}

/// `GET /v1/events/recent`: what is kept, at once.
pub(super) async fn recent(Shared(target): Shared<Target>, query: Result<Query<From>, QueryRejection>) -> Answer {
    let Query(From { since }) = query?;
    let events = &target.nic.events;
    let got = events.since(since.unwrap_or_default(), events::KEPT);
    let list: Vec<Value> = got.events.iter().map(|e| value(&**e)).collect();
    answer(json!({ "lost": got.lost, "events": list }))
}
