//! Objects with their owners, and who refers to whom.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use sfnic_device_model::Nic;
use sfnic_device_model::control::function::Body;
use sfnic_device_model::control::objects::{Kind, Listed, ObjRef};
use sfnic_device_model::fabric::mkey::Translation;
use sfnic_device_model::fabric::tir::Dispatch;

use super::Which;

/// Objects of functions, of one kind if one is named.
pub fn objects(nic: &Nic, which: Which, kind: Option<Kind>) -> Value {
    which.functions(nic, |card, f, port| {
        let wanted = f.objects.list().filter(|o| kind.is_none_or(|k| k == o.object.0));
        let view = |o: Listed<'_, Body>| {
            json!({
                "pf": card.index, "function": f.id, "port": port, "kind": o.object.0, "id": o.object.1,
                "uid": o.uid, "refs": o.refs, "uses": o.uses.iter().map(reference).collect::<Vec<_>>(),
                "about": about(o.body),
            })
        };
        wanted.map(view).collect()
    })
}

fn reference(r: &ObjRef) -> Value {
    json!({ "kind": r.0, "id": r.1 })
}

/// What is to be known of an object, beyond the queues' own list.
fn about(body: &Body) -> Value {
    match body {
        Body::Mkey(m) => match &m.translation {
            Translation::Physical => json!({ "key": m.key, "pd": m.pd, "translation": "physical" }),
            Translation::None => json!({ "key": m.key, "pd": m.pd, "translation": "free" }),
            Translation::Pages { start, len, log_page, pages } => json!({
                "key": m.key, "pd": m.pd, "translation": "pages", "start": start, "bytes": len,
                "page_bytes": 1u64 << log_page.min(&63), "pages": pages.len(),
                "umr": m.umr, "free": m.free.load(Ordering::Relaxed),
            }),
        },
        Body::Rqt(t) => {
            let queues: Vec<u32> = t.queues.load().iter().map(|q| q.rqn()).collect();
            json!({ "max": t.max, "rqs": queues })
        }
        Body::Tir(t) => match &t.state.load().dispatch {
            Dispatch::Direct(rq) => json!({ "td": t.td, "rq": rq.rqn() }),
            Dispatch::Table(rqt) => json!({ "td": t.td, "rqt": rqt.id }),
        },
        Body::Tis(t) => json!({ "prio": t.prio, "td": t.td }),
        Body::QCounter(c) => {
            use std::sync::atomic::Ordering::Relaxed;
            json!({ "out_of_buffer": c.out_of_buffer.load(Relaxed) })
        }
        Body::FlowCounter(bulk) => {
            let read = |i: u32| bulk.counter(bulk.base().wrapping_add(i)).map(|c| c.read()).unwrap_or_default();
            let (packets, bytes) = (0..bulk.len()).map(read).fold((0, 0), |(p, b), (q, c)| (p + q, b + c));
            json!({ "counters": bulk.len(), "packets": packets, "bytes": bytes })
        }
        Body::ModifyHeader(m) => json!({ "actions": m.actions.len() }),
        Body::Reformat(r) => json!({ "removes": r.removes() }),
        _ => Value::Object(Map::new()),
    }
}
