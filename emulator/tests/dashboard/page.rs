//! The page without a browser: what is served, and whether what it refers to is there.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::Value;
use sfnic_device_model::faults::Fault;
use sfnic_emulator::control::OPENAPI;
use sfnic_emulator::control::client::Client;
use sfnic_emulator::control::dashboard::{FILES, File, POLICY};

use super::stage::Stage;

fn text(name: &str) -> &'static str {
    FILES.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no file {name}")).text
}

fn scripts() -> impl Iterator<Item = &'static File> {
    FILES.iter().filter(|f| f.name.ends_with(".js"))
}

/// What stands between `before` and the next `after`, everywhere.
fn between<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(move |rest| rest.split(after).next().unwrap_or_default())
}

#[test]
fn files_are_served_to_anyone_with_headers_that_keep_them_at_home() {
    let stage = Stage::new(1);
    let client = Client::at(stage.url().as_ref()).with_token(None);
    let paths = FILES.iter().map(|f| (format!("/dashboard/{}", f.name), f)).chain([("/".to_owned(), &FILES[0])]);
    for (path, file) in paths {
        let reply = client.raw(Method::GET, &path, None).unwrap();
        let header = |name: &str| reply.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default();
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, file.text), "{path}");
        assert_eq!(header("content-type"), file.media, "{path}");
        assert_eq!(header("content-security-policy"), POLICY, "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
    }
    for needed in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(POLICY.contains(needed), "{needed}");
    }
    let foreign = ["*", "http", "data:", "unsafe"];
    assert!(foreign.iter().all(|word| !POLICY.contains(word)), "nothing from elsewhere: {POLICY}");
    assert_eq!(client.get("/v1/device").unwrap().status.as_u16(), 401, "the token guards what the page asks for");
}

#[test]
fn nothing_outside_is_referred_to() {
    for f in FILES {
        let own = f.text.replace("http://www.w3.org/2000/svg", "");
        for word in ["://", "\"//", "url(", "@import", "src='", "innerHTML", "eval(", " style=\""] {
            assert!(!own.contains(word), "{}: {word}", f.name);
        }
    }
    let names: BTreeSet<String> = FILES.iter().map(|f| format!("/dashboard/{}", f.name)).collect();
    let page = text("index.html");
    for mark in ["src=\"", "href=\""] {
        for to in between(page, mark, '"').filter(|to| !to.starts_with('#')) {
            assert!(names.contains(to), "{to} is not there");
        }
    }
    for f in scripts() {
        for to in between(f.text, "from \"", '"') {
            assert!(to.strip_prefix("./").is_some_and(|n| FILES.iter().any(|f| f.name == n)), "{}: {to}", f.name);
        }
    }
}

#[test]
fn every_path_that_the_page_asks_for_is_documented() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut used = 0;
    for f in scripts() {
        for line in f.text.lines().filter(|l| !l.trim_start().starts_with("/")) {
            for literal in line.split('"').skip(1).step_by(2).filter(|l| l.contains("/v1") || l.contains("/metrics")) {
                let (method, path) = literal.split_once(' ').unwrap_or_else(|| panic!("{}: {literal}", f.name));
                let documented = document["paths"].get(path).and_then(|p| p.get(method.to_lowercase()));
                assert!(documented.is_some(), "{}: {literal} is not in the OpenAPI file", f.name);
                used += 1;
            }
        }
        assert!(f.name == "api.js" || !f.text.contains("/v1"), "{}: paths belong into api.js", f.name);
    }
    assert!(used > 10, "{used}");
}

#[test]
fn elements_and_faults_that_are_named_are_there() {
    let page = text("index.html");
    let ids: Vec<&str> = between(page, " id=\"", '"').collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "an id is there twice");
    for f in scripts() {
        for id in between(f.text, "$(\"", '"') {
            assert!(ids.contains(&id), "{}: no element {id}", f.name);
        }
    }
    for to in between(page, "aria-labelledby=\"", '"').chain(between(page, "list=\"", '"')) {
        assert!(ids.contains(&to), "no element {to}");
    }
    let faults: Vec<&str> = between(page, "data-fault=\"", '"').chain(between(page, "<option value=\"", '"')).collect();
    assert!(faults.len() > 10);
    for fault in faults {
        let parsed: Fault = fault.parse().unwrap_or_else(|e| panic!("{fault}: {e}"));
        assert_eq!(parsed.to_string(), fault, "as the device says it, so that the page knows it again");
    }
    for fault in between(page, "data-fault=\"", '"') {
        assert!(format!("{fault} pf=0").parse::<Fault>().is_ok(), "{fault} at one function");
    }
    let hint = between(page, "placeholder=\"fail", '"').next().unwrap();
    format!("fail{hint}").parse::<Fault>().unwrap();
}
