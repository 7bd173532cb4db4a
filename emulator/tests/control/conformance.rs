//! Whatever is sent: no status that is not documented, no answer that is not as documented, and
//! a device that goes on.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use sfnic_device_model::nic::Manager;

use super::generate::{Meant, requests};
use super::http::{Answer, Framing, Request};
use super::schema::Document;
use super::{Stage, document};

/// What an operation may answer: a status and the schemas of its media types.
fn documented<'a>(d: &'a Document, path: &str, method: &str, status: u16) -> Option<&'a Value> {
    let operation = d.0["paths"].get(path)?.get(method.to_lowercase())?;
    operation["responses"].get(status.to_string()).map(|r| d.follow(r))
}

/// What is wrong with an answer.
fn judge(d: &Document, meant: &Meant, answer: &Answer) -> Result<(), String> {
    let (o, r) = (&meant.operation, &meant.request);
    let error = |why: &str| Err(format!("{why}: {} {:?}", answer.status, String::from_utf8_lossy(&answer.body)));
    let refusal = || match serde_json::from_slice::<Value>(&answer.body) {
        Ok(v) => d.check(&d.0["components"]["schemas"]["Error"], &v, "error"),
        Err(e) => Err(format!("{} without a reason: {e}", answer.status)),
    };
    if answer.status >= 500 && answer.status != 507 {
        return error("a failure of the server");
    }
    // What is no HTTP is refused by who reads HTTP.
    let unreadable = [400, 413, 414, 431].contains(&answer.status) && answer.body.is_empty();
    if unreadable && (!meant.http || r.target.len() > 4096 || !r.target.is_ascii()) {
        return Ok(());
    }
    let methods = &d.0["paths"][&o.path];
    let known = methods.get(r.method.to_lowercase()).is_some();
    let head = r.method == "HEAD" && methods.get("get").is_some();
    // A path of another shape is another path.
    let path = r.target.split('?').next().unwrap_or_default();
    let shape = path.split('/').count() == o.path.split('/').count() && !path.contains("//");
    if !shape || (!known && !head) {
        return match answer.status {
            // Its answer has no body, whatever it says.
            404 | 405 if r.method == "HEAD" && answer.body.is_empty() => Ok(()),
            404 | 405 => refusal(),
            _ => error("neither path nor method is documented"),
        };
    }
    if head {
        return if answer.body.is_empty() { Ok(()) } else { error("HEAD has a body") };
    }
    let Some(response) = documented(d, &o.path, &r.method, answer.status) else {
        return error("the status is not documented");
    };
    match response.get("content").and_then(Value::as_object) {
        None if answer.body.is_empty() => {}
        None => return error("a body where none is documented"),
        Some(content) => {
            let Some((media, c)) = content.iter().find(|(media, _)| answer.media.starts_with(media.as_str())) else {
                return error(&format!("media type {:?}", answer.media));
            };
            match media.as_str() {
                "application/json" => match serde_json::from_slice(&answer.body) {
                    Ok(v) => d.check(&c["schema"], &v, "answer")?,
                    Err(e) => return error(&e.to_string()),
                },
                _ if std::str::from_utf8(&answer.body).is_err() => return error("no text"),
                _ => {}
            }
        }
    }
    if r.method != o.method {
        return Ok(());
    }
    // What is allowed is understood, what is not allowed is refused.
    let Some(schema) = &o.body else {
        return match answer.status {
            400 if meant.proper => error("a proper request is not understood"),
            200..300 if !meant.proper => error("an improper request is answered"),
            _ => Ok(()),
        };
    };
    let understood = meant.body.as_ref().map(|v| d.check(schema, v, "body"));
    match (understood, answer.status) {
        (Some(Ok(())), 400) if meant.proper => error("a proper body is not understood"),
        (Some(Err(why)), 200..300) => error(&format!("a body that is not allowed ({why}) is taken")),
        (None, 200..300) => error("what is no JSON is taken"),
        _ => Ok(()),
    }
}

#[test]
fn whatever_is_asked_the_answer_is_documented() {
    let (stage, d) = (Stage::new(Manager::Embedded, None), document());
    let _netdevs = stage.populate();
    let cases = std::env::var("SFNIC_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10000);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let seen = std::cell::RefCell::new(BTreeMap::<u16, u32>::new());
    let run = TestRunner::new(config).run(&requests(&d), |meant| {
        let answer = meant.request.send(stage.server.path());
        match answer {
            Some(answer) => {
                *seen.borrow_mut().entry(answer.status).or_default() += 1;
                judge(&d, &meant, &answer).map_err(TestCaseError::fail)?;
            }
            None => prop_assert!(!meant.http, "no answer"),
        }
        Ok(())
    });
    if let Err(e) = run {
        panic!("{e}");
    }
    println!("answers by status: {:?}", seen.borrow());
    for status in [200, 201, 204, 400, 404, 405, 409, 422] {
        assert!(seen.borrow().contains_key(&status), "{status} never came: {:?}", seen.borrow());
    }
    // The device is as well as before, and so are its neighbours.
    assert!(stage.client().get("/v1/device").unwrap().error().is_none());
    for f in stage.rig.nic.faults.list() {
        stage.rig.nic.fault_del(f.id);
    }
    stage.rig.reset(0);
    stage.rig.pf(0).bring_up().unwrap();
}

#[test]
fn what_is_no_http_ends_its_connection_and_nothing_else() {
    use std::io::{Read as _, Write as _};
    let stage = Stage::new(Manager::Host, None);
    let long = format!("GET /v1/device HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET /v1/device HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(5000));
    let odd: [&[u8]; 9] = [
        b"",
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/device HTTP/9.9\r\n\r\n",
        b"GET /v1/device HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/faults HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        long.as_bytes(),
        many.as_bytes(),
    ];
    let open: Vec<_> = (0..64).map(|_| std::os::unix::net::UnixStream::connect(stage.server.path()).unwrap()).collect();
    for bytes in odd {
        let mut stream = std::os::unix::net::UnixStream::connect(stage.server.path()).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.starts_with("HTTP/1.1 5") && !text.starts_with("HTTP/1.1 200"), "{bytes:?}: {text}");
    }
    // Those that say nothing keep nobody from being served.
    let plain = Request {
        method: "GET".into(),
        target: "/v1/device".into(),
        headers: vec![],
        body: vec![],
        framing: Framing::Length,
    };
    assert_eq!(plain.send(stage.server.path()).unwrap().status, 200);
    drop(open);
}
