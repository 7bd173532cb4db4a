//! Requests out of the OpenAPI file: what it allows, what it nearly allows, and what nobody
//! in his right mind would send.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::http::{Framing, Request};
use super::schema::Document;

/// An operation of the document.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// In capitals.
    pub(crate) method: String,
    /// With names in braces.
    pub(crate) path: String,
    /// Names and schemas of what comes behind the question mark.
    pub(crate) query: Vec<(String, Value)>,
    /// Schema of its body, if it has one.
    pub(crate) body: Option<Value>,
}

/// A request, and what it was meant to be.
#[derive(Debug, Clone)]
pub(crate) struct Meant {
    pub(crate) operation: Operation,
    pub(crate) request: Request,
    /// The body as a value, where it is JSON that is sent as such.
    pub(crate) body: Option<Value>,
    /// What comes behind the question mark is as documented.
    pub(crate) proper: bool,
    /// It is HTTP.
    pub(crate) http: bool,
}

/// Every operation of a document.
pub(crate) fn operations(d: &Document) -> Vec<Operation> {
    let mut all = vec![];
    for (path, methods) in d.0["paths"].as_object().unwrap() {
        for (method, o) in methods.as_object().unwrap() {
            let parameters = o["parameters"].as_array().cloned().unwrap_or_default();
            let query = parameters.iter().map(|p| d.follow(p)).filter(|p| p["in"] == "query");
            let query = query.map(|p| (p["name"].as_str().unwrap().to_owned(), p["schema"].clone())).collect();
            let body = o.pointer("/requestBody/content/application~1json/schema").cloned();
            all.push(Operation { method: method.to_uppercase(), path: path.clone(), query, body });
        }
    }
    all
}

/// Values that a schema allows.
fn valid(d: &Document, schema: &Value) -> BoxedStrategy<Value> {
    let schema = d.follow(schema).clone();
    if let Some(list) = schema["enum"].as_array() {
        return select(list.clone()).boxed();
    }
    match schema["type"].as_str().unwrap_or_else(|| panic!("no generator for {schema}")) {
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "string" => prop_oneof![
            3 => select(TEXTS.to_vec()).prop_map(Value::from),
            1 => "\\PC{0,40}".prop_map(Value::from),
        ]
        .boxed(),
        "integer" => {
            let least = schema["minimum"].as_u64().unwrap_or(0);
            let most = schema["maximum"].as_u64().unwrap_or(u64::from(u32::MAX));
            let small = least..=most.min(least.saturating_add(130));
            prop_oneof![3 => small, 1 => least..=most, 1 => Just(most)].prop_map(Value::from).boxed()
        }
        "array" => {
            let bound = |key: &str, other: u64| schema[key].as_u64().unwrap_or(other) as usize;
            let count = bound("minItems", 0)..=bound("maxItems", 8);
            proptest::collection::vec(valid(d, &schema["items"]), count).prop_map(Value::from).boxed()
        }
        "object" => {
            let needed = schema["required"].as_array().cloned().unwrap_or_default();
            let member = |(name, schema): (&String, &Value)| {
                let name = name.clone();
                let value = valid(d, schema);
                let value = match needed.contains(&json!(name)) {
                    true => value.prop_map(Some).boxed(),
                    false => proptest::option::weighted(0.35, value).boxed(),
                };
                value.prop_map(move |v| v.map(|v| (name.clone(), v))).boxed()
            };
            let members: Vec<_> = schema["properties"].as_object().into_iter().flatten().map(member).collect();
            members.prop_map(|m| Value::Object(m.into_iter().flatten().collect())).boxed()
        }
        other => panic!("no generator for {other}"),
    }
}

/// Texts that mean something somewhere, and texts that hurt.
const TEXTS: &[&str] = &[
    "fail NOP nth=3",
    "fail CREATE_CQ status=NO_RESOURCES times=1",
    "hold detach sfnum=4",
    "flap link pf=1 down=1",
    "drop frames pf=0 p=0.5 seed=1",
    "delay=5ms jitter=1ms loss=0.5 reorder=0.1 seed=7",
    "rate=1k queue=60s",
    "off",
    "delay=99999999999s",
    "/proc/1/nowhere/x.pcapng",
    "uplink0",
    "fail NOP nth=99999999999999999999",
    "drop frames p=nan",
    "delay any ms=18446744073709551615",
    "pcisf",
    "active",
    "",
    " ",
    "null",
    "-1",
    "'; DROP TABLE slices; --",
    "<script>alert(1)</script>",
    "%s%n",
    "\u{0}",
    "🦀",
    "A\u{202e}B",
];

/// Values that fit nearly nowhere.
fn odd() -> impl Strategy<Value = Value> {
    let deep = (1usize..200).prop_map(|n| (0..n).fold(json!(1), |v, _| json!([v])));
    let long = (0usize..70_000).prop_map(|n| Value::from("x".repeat(n)));
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("a number of JSON", |f| f.is_finite() && f.fract() != 0.0).prop_map(Value::from),
        select(TEXTS.to_vec()).prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        deep,
        long,
    ]
}

/// A value with one thing wrong, or maybe not.
fn nearly(d: &Document, schema: &Value) -> BoxedStrategy<Value> {
    (valid(d, schema), odd(), any::<Index>(), 0..4)
        .prop_map(|(mut value, odd, which, how)| {
            let Some(members) = value.as_object_mut() else { return odd };
            let names: Vec<String> = members.keys().cloned().collect();
            let name = if names.is_empty() { "colour" } else { which.get(&names) };
            match how {
                0 => drop(members.insert("colour".into(), odd)),
                1 => drop(members.remove(name)),
                2 => return odd,
                _ => drop(members.insert(name.to_owned(), odd)),
            }
            value
        })
        .boxed()
}

/// What a name in a path can be: one segment, as a URL has it.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(vec!["100", "101", "0", "1", "16", "7", "x"]).prop_map(str::to_owned),
        2 => any::<u32>().prop_map(|n| n.to_string()),
        3 => select(vec![
            "..", ".", "%2e%2e", "%2f", "%ff", "%00", "1%0a", "%0d%0aset-cookie:a", "-1", "+1", "1e3", "0x10", "1.0",
            "18446744073709551616", "%D9%A3", "1;2", "*", "~", "main.js", "%",
        ])
        .prop_map(str::to_owned),
        1 => (1usize..9000).prop_map(|n| "9".repeat(n)),
    ]
}

/// A query of declared parameters, each as documented or not. Whether all are.
fn query(d: &Document, o: &Operation) -> BoxedStrategy<(String, bool)> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let one = |(name, schema): &(String, Value)| {
        let name = name.clone();
        let wrong = select(vec!["", "-1", "x", "1e9", "18446744073709551616", "%ff", "1&1", "nan"]);
        let value = prop_oneof![
            4 => valid(d, schema).prop_map(move |v| (text(&v), true)),
            1 => wrong.prop_map(|w| (w.to_owned(), false)),
        ];
        proptest::option::weighted(0.4, value.prop_map(move |(v, ok)| (format!("{name}={v}"), ok))).boxed()
    };
    let declared: Vec<_> = o.query.iter().map(one).collect();
    let more = prop_oneof![
        9 => Just(None),
        1 => select(vec!["colour=red", "=", "pf", "%", "?"]).prop_map(|s| Some((s.to_owned(), false))),
    ];
    (declared, more)
        .prop_map(|(all, more)| {
            let all: Vec<(String, bool)> = all.into_iter().chain([more]).flatten().collect();
            let text = all.iter().map(|(t, _)| t.as_str()).collect::<Vec<_>>().join("&");
            let text = if text.is_empty() { text } else { format!("?{text}") };
            (text, all.iter().all(|(_, ok)| *ok))
        })
        .boxed()
}

/// A body: its bytes, and its value if it is JSON.
fn body(d: &Document, schema: &Value) -> BoxedStrategy<(Vec<u8>, Option<Value>)> {
    let json = |v: Value| (v.to_string().into_bytes(), Some(v));
    let broken = select(vec![
        "",
        "{",
        "nul",
        "{\"a\":1,}",
        "[1e999]",
        "{\"fault\":\"fail NOP\",\"fault\":1}",
        "\u{feff}{}",
        "{}{}",
        "'a'",
    ]);
    let deep = (100usize..100_000).prop_map(|n| ("[".repeat(n).into_bytes(), None));
    prop_oneof![
        5 => valid(d, schema).prop_map(json),
        5 => nearly(d, schema).prop_map(json),
        1 => broken.prop_map(|s| (s.as_bytes().to_vec(), None)),
        1 => deep,
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(|b| (b, None)),
        1 => Just((vec![b' '; 3 << 20], None)),
    ]
    .boxed()
}

/// Headers that nobody asked for.
fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let one = select(vec![
        ("accept", "application/xml"),
        ("accept-encoding", "gzip, br"),
        ("authorization", "Bearer wrong"),
        ("authorization", "Basic OnNlc2FtZQ=="),
        ("cookie", "token=sesame"),
        ("expect", "100-continue"),
        ("if-none-match", "*"),
        ("last-event-id", "-1"),
        ("last-event-id", "99999999999999999999"),
        ("origin", "http://elsewhere"),
        ("range", "bytes=0-1"),
        ("upgrade", "websocket"),
        ("x-http-method-override", "DELETE"),
        ("x-long", "y"),
    ]);
    proptest::collection::vec(one.prop_map(|(n, v)| (n.to_owned(), v.to_owned())), 0..4)
}

/// Requests for an operation.
fn of(d: &Document, o: &Operation) -> BoxedStrategy<Meant> {
    let o = o.clone();
    let no_body = prop_oneof![9 => Just((vec![], None)), 1 => Just((b"{}".to_vec(), None))].boxed();
    let bodies = o.body.as_ref().map_or(no_body, |schema| body(d, schema));
    let media = prop_oneof![
        12 => Just(Some("application/json")),
        1 => Just(Some("application/json; charset=utf-8")),
        1 => Just(Some("text/plain")),
        1 => Just(None),
    ];
    let framing = prop_oneof![
        8 => Just(Framing::Length),
        2 => (1usize..64).prop_map(Framing::Chunked),
        1 => Just(Framing::BadChunk),
        1 => Just(Framing::TooShort),
    ];
    let method = prop_oneof![
        14 => Just(None),
        1 => select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"]).prop_map(Some),
    ];
    let q = query(d, &o);
    (bodies, media, framing, method, segment(), q, headers())
        .prop_map(move |((bytes, value), media, framing, method, segment, (query, asked), mut headers)| {
            let method = method.map_or(o.method.clone(), str::to_owned);
            let path = ["{index}", "{id}", "{file}"].iter().fold(o.path.clone(), |p, name| p.replace(name, &segment));
            // What is chunked has a body, if it is an empty one.
            let framing = if bytes.is_empty() { Framing::Length } else { framing };
            headers.extend(media.map(|m| ("content-type".to_owned(), m.to_owned())));
            let json = media.is_some_and(|m| m.starts_with("application/json"));
            let http = matches!(framing, Framing::Length | Framing::Chunked(_));
            Meant {
                body: value.filter(|_| json && http),
                // Who takes no parameters does not look at them.
                proper: asked || o.query.is_empty(),
                http,
                request: Request { method, target: path + &query, headers, body: bytes, framing },
                operation: o.clone(),
            }
        })
        .boxed()
}

/// Requests for anything.
pub(crate) fn requests(d: &Document) -> BoxedStrategy<Meant> {
    let all: Vec<_> = operations(d).iter().map(|o| of(d, o)).collect();
    (0..all.len()).prop_flat_map(move |n| all[n].clone()).boxed()
}

#[test]
fn generated_values_are_what_their_schema_allows() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let d = super::document();
    let mut runner = TestRunner::deterministic();
    let (mut good, mut bad) = (0, 0);
    for o in operations(&d) {
        let Some(schema) = &o.body else { continue };
        for _ in 0..100 {
            let value = valid(&d, schema).new_tree(&mut runner).unwrap().current();
            d.check(schema, &value, "body").unwrap();
            let value = nearly(&d, schema).new_tree(&mut runner).unwrap().current();
            *if d.check(schema, &value, "body").is_ok() { &mut good } else { &mut bad } += 1;
        }
    }
    assert!(good > 10 && bad > 100, "{good} good and {bad} bad ones");
}
