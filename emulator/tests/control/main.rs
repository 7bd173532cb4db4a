//! The control plane from outside: what it answers, and whether that is what is documented.

mod captures;
mod conformance;
mod generate;
mod http;
mod lint;
mod schema;
mod words;

use std::collections::BTreeSet;
use std::path::PathBuf;

use hyper::Method;
use lint::lint;
use schema::Document;
use serde_json::{Value, json};
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::Manager;
use sfnic_device_model::slice::{Change, Flavour, Spec, State};
use sfnic_device_model::{CardConfig, events};
use sfnic_emulator::control::client::Client;
use sfnic_emulator::control::dashboard::{FILES, PAGES};
use sfnic_emulator::control::server::{Server, Tcp};
use sfnic_emulator::control::{OPENAPI, ROUTES, TOKEN_VARIABLE, Target};
use sfnic_test_driver::{NetdevConfig, Rig};

/// A device with two slices, one of them attached, and its server.
struct Stage {
    rig: Rig,
    server: Server,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new(manager: Manager, tcp: Option<&Tcp>) -> Stage {
        let card = |i, far| CardConfig { manager, ..Rig::card(i, far) };
        let rig = Rig::new(vec![card(0, Far::Port(1)), card(1, Far::Port(0))], 16 << 20);
        let dir = tempfile::tempdir().unwrap();
        let target = Target::new(rig.nic.clone(), "pci/0000:06:00.0").with([].into(), 1);
        let server = Server::start(target, &dir.path().join("control"), tcp).unwrap();
        Stage { rig, server, dir }
    }

    fn client(&self) -> Client {
        Client::at(self.server.path())
    }

    /// Drivers on both functions and on a slice, with traffic between them.
    fn populate(&self) -> Vec<sfnic_test_driver::Netdev> {
        let mut netdevs = vec![];
        for card in 0..2 {
            netdevs.push(self.rig.pf(card).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
        }
        for (sfnum, state) in [(4, Some(State::Active)), (5, None)] {
            let spec = Spec {
                flavour: Flavour::PciSf,
                pfnum: 0,
                sfnum: Some(sfnum),
                index: Some(96 + sfnum),
                ..Spec::default()
            };
            let index = self.rig.nic.slice_add(&spec).unwrap();
            let hw_addr = Some([0, 0, 0, 0, 0x88, sfnum as u8]);
            self.rig.nic.slice_set(index, &Change { hw_addr, state, ..Change::default() }).unwrap();
        }
        netdevs.push(self.rig.sf(0, 0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
        let frame = sfnic_test_driver::frames::ethernet(netdevs[1].mac, netdevs[0].mac, 0x88b5, b"hello");
        netdevs[0].send(&frame);
        self.rig.run();
        netdevs
    }
}

fn document() -> Document {
    Document(serde_json::from_str(OPENAPI).unwrap())
}

/// Method, path, status.
type Operation = (String, String, String);

/// Every answer that is documented, with the schema of each media type.
fn documented(d: &Document) -> Vec<(Operation, Vec<(String, Value)>)> {
    let mut all = vec![];
    for (path, methods) in d.0["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let content = d.follow(response).get("content").and_then(Value::as_object);
                let content = content.into_iter().flatten().map(|(t, c)| (t.clone(), c["schema"].clone())).collect();
                all.push(((method.to_uppercase(), path.clone(), status.clone()), content));
            }
        }
    }
    all
}

#[test]
fn every_route_is_documented_and_every_documented_route_is_served() {
    let served = ROUTES.iter().chain(PAGES).map(|(m, p)| ((*m).to_owned(), (*p).to_owned()));
    let served: BTreeSet<(String, String)> = served.collect();
    let told = documented(&document()).into_iter().map(|((m, p, _), _)| (m, p)).collect();
    assert_eq!(served, told);
}

/// Stands for a folder in the bodies of requests.
const FOLDER: &str = "/FOLDER";

/// Requests that provoke every answer that is documented but those without a token: method,
/// documented path, what is asked instead of it, body, status.
fn requests() -> Vec<(&'static str, &'static str, &'static str, Option<Value>, u16)> {
    const ONE: &str = "/v1/slices/{index}";
    let sf = |sfnum: u32, index: u32| json!({ "flavour": "pcisf", "pfnum": 0, "sfnum": sfnum, "index": index });
    let mut all = vec![
        ("POST", "/v1/slices", "", Some(sf(9, 200)), 201),
        ("POST", "/v1/slices", "", Some(json!({ "flavour": "brick" })), 400),
        ("POST", "/v1/slices", "", Some(json!({ "flavour": "pcivf", "pfnum": 0 })), 403),
        ("POST", "/v1/slices", "", Some(json!({ "flavour": "pcisf", "pfnum": 7, "sfnum": 1 })), 422),
        ("POST", "/v1/slices", "", Some(sf(10, 200)), 409),
        ("POST", "/v1/slices", "", Some(sf(11, 3)), 422),
        ("GET", ONE, "/v1/slices/100", None, 200),
        ("GET", ONE, "/v1/slices/7", None, 404),
        ("GET", ONE, "/v1/slices/x", None, 404),
        ("PATCH", ONE, "/v1/slices/101", Some(json!({ "link": "up" })), 200),
        ("PATCH", ONE, "/v1/slices/101", Some(json!({ "colour": "red" })), 400),
        ("PATCH", ONE, "/v1/slices/0", Some(json!({ "state": "inactive" })), 403),
        ("PATCH", ONE, "/v1/slices/7", Some(json!({})), 404),
        ("PATCH", ONE, "/v1/slices/100", Some(json!({ "max_io_eqs": 4 })), 409),
        ("PATCH", ONE, "/v1/slices/101", Some(json!({ "max_io_eqs": 0 })), 422),
        ("DELETE", ONE, "/v1/slices/0", None, 403),
        ("DELETE", ONE, "/v1/slices/7", None, 404),
        ("DELETE", ONE, "/v1/slices/100", None, 409),
        ("DELETE", ONE, "/v1/slices/200", None, 204),
        ("GET", "/v1/events/recent", "/v1/events/recent?since=1", None, 200),
        ("GET", "/v1/events/recent", "/v1/events/recent?since=x", None, 400),
        ("GET", "/v1/events", "/v1/events?from=1", None, 400),
        ("GET", "/v1/commands", "/v1/commands?pf=x", None, 400),
    ];
    const FILE: &str = "/dashboard/{file}";
    const FAULT: &str = "/v1/faults/{id}";
    let fault = |text: &str| Some(json!({ "fault": text }));
    all.extend([
        ("POST", "/v1/faults", "", fault("fail NOP nth=3"), 201),
        ("POST", "/v1/faults", "", fault("flap link pf=1"), 201),
        ("POST", "/v1/faults", "", Some(json!({ "text": "fail NOP" })), 400),
        ("POST", "/v1/faults", "", fault("fail"), 422),
        ("POST", "/v1/faults", "", fault("drop frames pf=9"), 422),
        ("GET", "/v1/faults", "", None, 200),
        ("GET", FAULT, "/v1/faults/1", None, 200),
        ("GET", FAULT, "/v1/faults/x", None, 404),
        ("DELETE", FAULT, "/v1/faults/1", None, 204),
        ("DELETE", FAULT, "/v1/faults/1", None, 404),
        ("DELETE", "/v1/faults", "", None, 204),
    ]);
    const WIRE: &str = "/v1/wires/{port}";
    const CAPTURE: &str = "/v1/captures/{id}";
    let capture = |name: &str| Some(json!({ "file": format!("{FOLDER}/{name}"), "ports": ["uplink0"], "snap": 64 }));
    all.extend([
        ("GET", "/v1/wires", "", None, 200),
        ("GET", WIRE, "/v1/wires/p1", None, 200),
        ("GET", WIRE, "/v1/wires/p2", None, 404),
        ("PATCH", WIRE, "/v1/wires/p0", Some(json!({ "in": "delay=5ms jitter=1ms loss=0.5 seed=7" })), 200),
        ("PATCH", WIRE, "/v1/wires/p0", Some(json!({ "in": "off", "out": "off" })), 200),
        ("PATCH", WIRE, "/v1/wires/p0", Some(json!({ "impair": "off" })), 400),
        ("PATCH", WIRE, "/v1/wires/p9", Some(json!({ "in": "off" })), 404),
        ("PATCH", WIRE, "/v1/wires/p0", Some(json!({ "in": "off", "out": "slow" })), 422),
        ("GET", "/v1/switches", "", None, 200),
        ("POST", "/v1/captures", "", capture("a"), 201),
        ("GET", "/v1/captures", "", None, 200),
        ("GET", CAPTURE, "/v1/captures/1", None, 200),
        ("GET", CAPTURE, "/v1/captures/x", None, 404),
        ("POST", "/v1/captures", "", Some(json!({ "path": "/x" })), 400),
        ("POST", "/v1/captures", "", capture("a"), 409),
        ("POST", "/v1/captures", "", capture("nowhere/a"), 422),
        ("POST", "/v1/captures", "", capture("../a"), 422),
        ("POST", "/v1/captures", "", Some(json!({ "file": "a" })), 422),
        ("POST", "/v1/captures", "", Some(json!({ "file": "/a", "ports": ["eth0"] })), 422),
        ("DELETE", CAPTURE, "/v1/captures/1", None, 200),
        ("DELETE", CAPTURE, "/v1/captures/1", None, 404),
    ]);
    for n in 0..17 {
        let status = if n == 16 { 507 } else { 201 };
        all.push(("POST", "/v1/captures", "", capture(&format!("full{n}")), status));
    }
    all.push(("DELETE", "/v1/captures", "", None, 200));
    for sfnum in 20..27 {
        let status = if sfnum == 26 { 507 } else { 201 };
        all.push(("POST", "/v1/slices", "", Some(sf(sfnum, 300 + sfnum)), status));
    }
    all.extend(FILES.iter().map(|f| ("GET", FILE, &*format!("/dashboard/{}", f.name).leak(), None, 200)));
    all.push(("GET", FILE, "/dashboard/x.js", None, 404));
    let plain = [
        "/",
        "/v1/openapi.json",
        "/v1/device",
        "/v1/slices",
        "/v1/ports",
        "/v1/resources",
        "/v1/functions",
        "/v1/unmodelled",
        "/v1/events/recent",
        "/v1/objects",
        "/v1/queues",
        "/v1/tables",
        "/v1/vports",
        "/v1/dma",
        "/v1/msix",
        "/metrics",
    ];
    let filters = [
        ("/v1/functions", "?pf=0&function=32768"),
        ("/v1/objects", "?kind=tir"),
        ("/v1/queues", "?function=0"),
        ("/v1/tables", "?rules=0"),
        ("/v1/vports", "?function=65535"),
        ("/v1/dma", "?pf=1"),
        ("/v1/msix", "?pf=0"),
    ];
    for (path, query) in filters {
        all.push(("GET", path, format!("{path}{query}").leak(), None, 200));
        all.push(("GET", path, format!("{path}?pf=-1").leak(), None, 400));
        all.push(("GET", path, format!("{path}?shape=round").leak(), None, 400));
    }
    all.extend(plain.map(|path| ("GET", path, "", None, 200)));
    let (save, load) = ("/v1/snapshot/save", "/v1/snapshot/load");
    let file = |name: &str| Some(json!({ "file": format!("{FOLDER}/{name}") }));
    all.extend([
        ("POST", save, "", file("device"), 200),
        ("POST", save, "", file("device"), 200),
        ("POST", save, "", Some(json!({ "path": "/x" })), 400),
        ("POST", save, "", file("a"), 409),
        ("POST", save, "", file("nowhere/device"), 422),
        ("POST", load, "", Some(json!({ "path": "/x" })), 400),
        ("POST", load, "", file("device"), 409),
        ("POST", load, "", file("a"), 422),
        ("POST", load, "", file("nowhere"), 422),
        ("POST", load, "", file("device"), 200),
        // A stage is no process of its own.
        ("POST", "/v1/hand-over", "", Some(json!({ "socket": "/nowhere" })), 409),
        ("POST", "/v1/hand-over", "", Some(json!({ "socket": "nowhere" })), 422),
        ("POST", "/v1/hand-over", "", Some(json!({ "path": "/x" })), 400),
    ]);
    all
}

#[test]
fn answers_are_as_documented() {
    let (stage, d) = (Stage::new(Manager::Embedded, None), document());
    let _netdevs = stage.populate();
    stage.rig.nic.unmodelled.record(0, 0, sfnic_device_model::unmodelled::Access::Opcode(0x115));
    let client = stage.client();
    let all = documented(&d);
    let mut seen = BTreeSet::new();
    for (method, path, asked, body, status) in requests() {
        let asked = if asked.is_empty() { path } else { asked };
        if let Some(body) = body.as_ref().filter(|_| status != 400) {
            let schema = &d.0["paths"][path][method.to_lowercase()]["requestBody"]["content"]["application/json"];
            d.check(&schema["schema"], body, "body").unwrap_or_else(|e| panic!("{method} {asked}: {e}"));
        }
        if (path, status) == ("/v1/snapshot/load", 200) {
            // Its drivers are gone.
            (0..2).for_each(|card| stage.rig.reset(card));
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let here = stage.dir.path().to_str().unwrap();
        let body = body.map(|b| serde_json::from_str(&b.to_string().replace(FOLDER, here)).unwrap());
        let reply = client.raw(method.clone(), asked, body.as_ref()).unwrap();
        assert_eq!(reply.status.as_u16(), status, "{method} {asked}: {:?}", reply.text());
        let operation = (method.to_string(), path.to_owned(), status.to_string());
        let found = all.iter().find(|(o, _)| *o == operation);
        let (_, content) = found.unwrap_or_else(|| panic!("{operation:?} is not documented"));
        match content.iter().find(|(media, _)| reply.media.starts_with(media)) {
            None => assert!(reply.body.is_empty() && content.is_empty(), "{operation:?} is {:?}", reply.media),
            Some((media, schema)) => {
                let value = match media.as_str() {
                    "application/json" => serde_json::from_slice(&reply.body).unwrap(),
                    _ => Value::String(reply.text()),
                };
                d.check(schema, &value, "answer").unwrap_or_else(|e| panic!("{operation:?}: {e}"));
            }
        }
        seen.insert(operation);
    }
    // Streams have tests of their own, and so have the token and what ends a process.
    let stream = |o: &Operation| match o.1.as_str() {
        "/v1/events" | "/v1/commands" => o.2 == "200",
        path => (path, o.2.as_str()) == ("/v1/hand-over", "202"),
    };
    let unseen: Vec<_> = all.iter().map(|(o, _)| o).filter(|o| o.2 != "401" && !stream(o)).collect();
    let unseen: Vec<_> = unseen.into_iter().filter(|o| !seen.contains(*o)).collect();
    assert!(unseen.is_empty(), "documented and never answered: {unseen:?}");
    for (method, path, status) in
        [(Method::GET, "/v2", 404), (Method::PUT, "/v1/slices", 405), (Method::POST, "/", 405)]
    {
        let reply = client.request(method, path, None).unwrap();
        assert_eq!(reply.status.as_u16(), status);
        d.check(&d.0["components"]["schemas"]["Error"], &reply.body, "error").unwrap();
    }
}

#[test]
fn a_port_wants_the_token() {
    let tcp = Tcp { address: "127.0.0.1:0".parse().unwrap(), token: "sesame".into() };
    let (stage, d) = (Stage::new(Manager::Host, Some(&tcp)), document());
    let place: PathBuf = format!("http://{}", stage.server.tcp().unwrap()).into();
    let client = Client::at(&place);
    for token in [None, Some(""), Some("sesam"), Some("sesame x"), Some("Sesame"), Some("sesamesesame")] {
        for (method, path) in ROUTES {
            let path = path.replace("{index}", "100").replace("{id}", "1");
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = client.clone().with_token(token).request(method, &path, None).unwrap();
            assert_eq!(reply.status.as_u16(), 401, "{token:?} {path}");
            d.check(&d.0["components"]["schemas"]["Error"], &reply.body, "error").unwrap();
        }
    }
    for (_, path) in PAGES {
        let reply = client.clone().with_token(None).raw(Method::GET, &path.replace("{file}", "main.js"), None).unwrap();
        assert_eq!(reply.status.as_u16(), 200, "{path}: the page is no secret");
    }
    assert!(client.with_token(Some("sesame")).get("/v1/device").unwrap().error().is_none());
    assert!(stage.client().get("/v1/device").unwrap().error().is_none(), "the socket is the user's own");
    // The environment is where the program's token comes from.
    assert_eq!(TOKEN_VARIABLE, "SFNIC_TOKEN");
}

/// The events of a stream, until there are so many.
fn events(client: &Client, path: &str, count: usize) -> Vec<Value> {
    let mut got = vec![];
    let enough = client.lines(path, |line| {
        if let Some(data) = line.strip_prefix("data:") {
            got.push(serde_json::from_str(data.trim()).unwrap());
        }
        Ok(got.len() < count)
    });
    assert!(enough.unwrap(), "the stream ended");
    got
}

#[test]
fn what_happens_is_streamed_in_order() {
    let (stage, d) = (Stage::new(Manager::Embedded, None), document());
    let _netdevs = stage.populate();
    // A command that is refused.
    stage.rig.nic.command(stage.rig.card_at(0), 0, &[0x07, 0x12, 0, 0, 0, 0, 0, 0], 16);
    stage.rig.reset(0);
    let last = stage.rig.nic.events.last();
    let got = events(&stage.client(), "/v1/events?since=0", usize::try_from(last).unwrap());
    for (n, event) in got.iter().enumerate() {
        d.check(&d.0["components"]["schemas"]["StreamedEvent"], event, "event").unwrap();
        assert_eq!(event["seq"], n as u64 + 1);
    }
    let kinds: BTreeSet<&str> = got.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert!(
        kinds.is_superset(&BTreeSet::from(["vhca_state", "slice", "link", "command_failed", "reset"])),
        "{kinds:?}"
    );
    let attach = got.iter().find(|e| e["cause"] == "attach").unwrap();
    assert_eq!((&attach["slice"], &attach["sfnum"], &attach["opstate"]), (&json!(100), &json!(4), &json!("attached")));

    // One that waits hears of what comes.
    let (client, nic) = (stage.client(), stage.rig.nic.clone());
    let waiting = std::thread::spawn(move || events(&client, &format!("/v1/events?since={last}"), 1));
    nic.slice_del(101).unwrap();
    let heard = waiting.join().unwrap();
    assert_eq!(heard[0]["after"], "invalid");
}

#[test]
fn commands_are_told_with_their_fields_while_somebody_listens() {
    let (stage, d) = (Stage::new(Manager::Embedded, None), document());
    let (client, path) = (stage.client(), "/v1/commands?pf=0&function=0");
    let listening = std::thread::spawn(move || events(&client, path, 12));
    while format!("{:?}", stage.rig.nic.commands) == "Commands(0 listeners)" {
        std::thread::yield_now();
    }
    let _netdevs = stage.populate();
    let heard = listening.join().unwrap();
    for (n, one) in heard.iter().enumerate() {
        d.check(&d.0["components"]["schemas"]["StreamedCommand"], one, "command").unwrap();
        assert_eq!((&one["seq"], &one["pf"], &one["function"]), (&json!(n + 1), &json!(0), &json!(0)));
    }
    let find = |name: &str| heard.iter().find(|c| c["command"].as_str().unwrap().starts_with(name)).unwrap();
    let enable = find("ENABLE_HCA");
    assert_eq!((&enable["status"], &enable["delivery"]), (&json!("OK"), &json!("Ok")));
    let names: Vec<&String> = heard.iter().flat_map(|c| c["output"].as_object().unwrap().keys()).collect();
    assert!(names.iter().any(|n| *n == "nic_vport_context.mtu"), "{names:?}");
}

#[test]
fn a_slow_reader_is_told_what_it_lost() {
    let stage = Stage::new(Manager::Host, None);
    for _ in 0..events::KEPT + 10 {
        stage.rig.nic.reset(stage.rig.card_at(0));
    }
    let last = stage.rig.nic.events.last();
    let got = events(&stage.client(), "/v1/events?since=0", 2);
    let lost = last - events::KEPT as u64;
    assert_eq!(got[0], json!({ "event": "lost", "count": lost }));
    assert_eq!(got[1]["seq"], lost + 1);
    assert!(stage.dir.path().exists());
}

#[test]
fn metrics_are_clean_and_agree_with_the_device() {
    let stage = Stage::new(Manager::Embedded, None);
    let netdevs = stage.populate();
    let text = stage.client().text("/metrics").unwrap();
    let series = lint(&text);
    let get = |name: &str| series.get(name).unwrap_or_else(|| panic!("{name} is not in {text}")).as_str();
    assert_eq!(get("sfnic_port_packets_total{port=\"pf1\",direction=\"rx\",cast=\"unicast\"}"), "1");
    assert_eq!(get("sfnic_port_bytes_total{port=\"p0\",direction=\"tx\",cast=\"unicast\"}"), "60");
    assert_eq!(get("sfnic_sfs{pf=\"0\",state=\"in_use\"}"), "1");
    assert_eq!(get("sfnic_sfs{pf=\"0\",state=\"allocated\"}"), "1");
    assert_eq!(get("sfnic_commands_total{pf=\"0\",command=\"ENABLE_HCA\",status=\"OK\"}"), "2");
    assert_eq!(get("sfnic_command_duration_seconds_count{pf=\"0\",command=\"ENABLE_HCA\"}"), "2");
    assert_eq!(get("sfnic_workers"), "1");
    assert!(get("sfnic_flow_rules{pf=\"1\",function=\"pf1\"}").parse::<u64>().unwrap() > 0);
    stage.rig.nic.command(stage.rig.card_at(0), 0, &[0x07, 0x12, 0, 0, 0, 0, 0, 0], 16);
    let refused = lint(&stage.client().text("/metrics").unwrap());
    assert!(refused.keys().any(|k| k.starts_with("sfnic_commands_total{pf=\"0\"") && !k.contains("\"OK\"")));
    drop(netdevs);
}
