//! Events and commands as streams: server-sent events, each one a line of JSON.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sfnic_device_model::listen::{Heard, Listener};
use sfnic_device_model::{Nic, events};
use tokio::sync::watch;

use super::Target;
use super::routes::{Answer, Refused, answer};
use crate::inspect;

/// Events or commands that are fetched at a time.
const BATCH: usize = 64;

/// Which events are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// Those behind this number.
    since: Option<u64>,
}

/// Which commands are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    /// Of this physical function.
    pf: Option<usize>,
    /// Of the function with this hardware id.
    function: Option<u16>,
    /// Those that went wrong alone.
    #[serde(default)]
    failed: bool,
}

/// What a reader reads.
trait Source: Send + 'static {
    /// At most [`BATCH`] things behind a number: how many were lost, the number of the last
    /// one, and those of them that the reader wants.
    fn since(&self, seen: u64) -> (u64, Option<u64>, Vec<Value>);
}

/// What happens to a device.
struct Happenings(Arc<Nic>);

impl Source for Happenings {
    fn since(&self, seen: u64) -> (u64, Option<u64>, Vec<Value>) {
        let got = self.0.events.since(seen, BATCH);
        (got.lost, got.events.last().map(|e| e.seq), got.events.iter().map(|e| value(&**e)).collect())
    }
}

/// What its drivers say to it.
struct Talk(Listener, Of);

impl Source for Talk {
    fn since(&self, seen: u64) -> (u64, Option<u64>, Vec<Value>) {
        let Talk(listener, of) = self;
        let got = listener.since(seen, BATCH);
        let here = |h: &Heard| of.pf.is_none_or(|p| p == h.at.pf) && of.function.is_none_or(|f| f == h.at.function);
        let wanted = got.commands.iter().filter(|h| here(h) && (!of.failed || inspect::failed(h)));
        (got.lost, got.commands.last().map(|h| h.seq), wanted.map(|h| inspect::command(h)).collect())
    }
}

/// A reader: the latest number that it was given, and what it is to be given next.
struct Reader<S> {
    source: S,
    news: watch::Receiver<()>,
    seen: u64,
    next: VecDeque<Value>,
}

/// What a reader was too slow for.
pub(super) fn lost(count: u64) -> Value {
    json!({ "event": "lost", "count": count })
}

fn value(event: impl Serialize) -> Value {
    serde_json::to_value(event).unwrap_or_default()
}

type Item = Result<Event, Infallible>;

impl<S: Source> Reader<S> {
    /// The next thing; waits for one.
    async fn next(mut self) -> Option<(Item, Reader<S>)> {
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
            self.news.mark_unchanged();
            let (missed, last, list) = self.source.since(self.seen);
            if missed > 0 {
                self.next.push_back(lost(missed));
            }
            self.next.extend(list);
            if let Some(last) = last {
                self.seen = last;
                // Nobody else of this thread waits for a long list.
                tokio::task::yield_now().await;
            } else if self.news.changed().await.is_err() {
                return None;
            }
        }
    }

    fn stream(source: S, news: watch::Receiver<()>, seen: u64) -> Sse<impl Stream<Item = Item>> {
        let reader = Reader { source, news, seen, next: VecDeque::new() };
        Sse::new(stream::unfold(reader, Reader::next)).keep_alive(KeepAlive::default())
    }
}

/// `GET /v1/events`: from now on, or behind a number.
pub(super) async fn events(
    Shared(target): Shared<Target>,
    headers: HeaderMap,
    query: Result<Query<From>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Item>>, Refused> {
    let Query(From { since }) = query?;
    let again = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok());
    let seen = since.or(again).unwrap_or_else(|| target.nic.events.last());
    Ok(Reader::stream(Happenings(target.nic), target.news, seen))
}

/// `GET /v1/commands`: from now on, with their fields. They are kept for readers alone.
pub(super) async fn commands(
    Shared(target): Shared<Target>,
    query: Result<Query<Of>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Item>>, Refused> {
    let Query(of) = query?;
    let listener = target.nic.commands.listen();
    let seen = listener.last();
    Ok(Reader::stream(Talk(listener, of), target.said, seen))
}

/// `GET /v1/events/recent`: what is kept, at once.
pub(super) async fn recent(Shared(target): Shared<Target>, query: Result<Query<From>, QueryRejection>) -> Answer {
    let Query(From { since }) = query?;
    let events = &target.nic.events;
    let got = events.since(since.unwrap_or_default(), events::KEPT);
    let list: Vec<Value> = got.events.iter().map(|e| value(&**e)).collect();
    answer(json!({ "lost": got.lost, "events": list }))
}
