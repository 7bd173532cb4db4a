//! Queues with their indices.

use serde_json::{Value, json};
use sfnic_device_model::Nic;
use sfnic_device_model::control::function::{Body, Function};
use sfnic_device_model::control::objects::Kind;

use super::Which;

/// The queues of functions: event, completion, send and receive queues.
pub fn queues(nic: &Nic, which: Which) -> Value {
    which.functions(nic, |card, f, port| {
        let mut all = of(f);
        for queue in &mut all {
            if let Some(q) = queue.as_object_mut() {
                q.insert("pf".into(), card.index.into());
                q.insert("function".into(), f.id.into());
                q.insert("port".into(), port.into());
            }
        }
        all
    })
}

fn of(f: &Function) -> Vec<Value> {
    let mut all = vec![];
    for kind in [Kind::Eq, Kind::Cq, Kind::Sq, Kind::Rq] {
        all.extend(f.objects.of_kind(kind).filter_map(|(id, body)| queue(kind, id, body)));
    }
    all
}

fn queue(kind: Kind, id: u32, body: &Body) -> Option<Value> {
    let state = |s| format!("{s:?}").to_lowercase();
    Some(match body {
        Body::Eq(q) => {
            let s = q.snapshot();
            json!({
                "kind": kind, "id": id, "state": if s.error { "err" } else { "rdy" }, "producer": s.producer,
                "consumer": s.consumer, "armed": s.armed, "vector": q.vector(), "held": s.held,
                "overruns": s.overruns, "lost": s.lost,
            })
        }
        Body::Cq(q) => {
            let s = q.snapshot();
            json!({
                "kind": kind, "id": id, "state": if s.error { "err" } else { "rdy" }, "producer": s.producer,
                "consumer": s.consumer, "armed": s.armed.is_some(), "eq": q.eq().eqn(), "events": s.events,
                "entries": 1u64 << q.config().log_size, "period_us": s.moderation.period, "count": s.moderation.count,
                "forgotten": s.forgotten,
            })
        }
        Body::Sq(q) => {
            let s = q.snapshot();
            json!({
                "kind": kind, "id": id, "state": state(s.state), "producer": s.producer, "consumer": s.consumer,
                "cq": q.config().cq.cqn(), "entries": 1u64 << q.config().log_size, "wqes": s.wqes,
                "packets": s.packets, "bytes": s.bytes, "dropped": s.dropped, "errors": s.errors,
            })
        }
        Body::Rq(q) => {
            let s = q.snapshot();
            json!({
                "kind": kind, "id": id, "state": state(s.state), "producer": s.producer, "consumer": s.consumer,
                "cq": q.config().cq.cqn(), "entries": 1u64 << q.config().log_size,
                "packets": s.packets, "bytes": s.bytes, "no_buffer": s.no_buffer, "too_long": s.too_long,
                "errors": s.errors,
            })
        }
        _ => return None,
    })
}
