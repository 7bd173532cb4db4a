//! Metrics for Prometheus, in the text format of OpenMetrics.
//!
//! Nothing is counted for them: what the device counts anyway is read when somebody asks.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use sfnic_device_model::capture::Way;
use sfnic_device_model::control::Control;
use sfnic_device_model::control::function::{Body, Function, FunctionKind};
use sfnic_device_model::control::objects::Kind;
use sfnic_device_model::control::vhca::State;
use sfnic_device_model::fabric::counters::Direction;
use sfnic_device_model::fabric::vport::UPLINK;
use sfnic_device_model::ledger::CLASSES;
use sfnic_device_model::nic::Card;

use crate::control::Target;
use crate::wire::Link;

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const NS: f64 = 1e9;

/// The labels of a sample.
type Labels = Vec<(&'static str, String)>;

/// What a sample is.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Count(u64),
    Level(u64),
    /// Sum in seconds, and how many are in each class, with its upper end in seconds.
    Durations(f64, Vec<(f64, u64)>),
}

/// Samples of one name.
#[derive(Debug)]
struct Family {
    help: &'static str,
    unit: Option<Unit>,
    samples: Vec<(Labels, Value)>,
}

/// All samples by name.
#[derive(Debug, Default)]
struct Samples(BTreeMap<&'static str, Family>);

impl Samples {
    fn add(&mut self, name: &'static str, help: &'static str, labels: Labels, value: Value) {
        let unit = match name {
            n if n.ends_with("_bytes") => Some(Unit::Bytes),
            n if n.ends_with("_seconds") => Some(Unit::Seconds),
            _ => None,
        };
        self.0.entry(name).or_insert_with(|| Family { help, unit, samples: vec![] }).samples.push((labels, value));
    }

    fn count(&mut self, name: &'static str, help: &'static str, labels: Labels, n: u64) {
        self.add(name, help, labels, Value::Count(n));
    }

    fn level(&mut self, name: &'static str, help: &'static str, labels: Labels, n: u64) {
        self.add(name, help, labels, Value::Level(n));
    }
}

/// The metrics of a device as text.
///
/// # Errors
/// None that is known: the text is written into memory.
pub fn text(target: &Target) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Device(target.clone())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Device(Target);

impl Collector for Device {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, family) in samples(&self.0).0 {
            let kind = match family.samples.first() {
                Some((_, Value::Count(_))) => MetricType::Counter,
                Some((_, Value::Durations(..))) => MetricType::Histogram,
                _ => MetricType::Gauge,
            };
            // The encoder appends the unit.
            let name = family.unit.as_ref().map_or(name, |u| name.trim_end_matches(u.as_str()).trim_end_matches('_'));
            let mut metric = encoder.encode_descriptor(name, family.help, family.unit.as_ref(), kind)?;
            for (labels, value) in &family.samples {
                if labels.is_empty() {
                    write(&mut metric, value)?;
                } else {
                    write(&mut metric.encode_family(labels)?, value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(sample: &mut MetricEncoder<'_>, value: &Value) -> Result<(), fmt::Error> {
    match value {
        Value::Count(n) => sample.encode_counter::<NoLabelSet, _, u64>(n, None),
        Value::Level(n) => sample.encode_gauge(n),
        Value::Durations(sum, classes) => {
            let count = classes.iter().map(|c| c.1).sum();
            sample.encode_histogram::<NoLabelSet>(*sum, count, classes, None)
        }
    }
}

fn samples(target: &Target) -> Samples {
    let mut all = Samples::default();
    let nic = &target.nic;
    let info = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("profile", nic.profile.name.clone())];
    all.level("sfnic_build_info", "The program and the card that it models", info, 1);
    all.level("sfnic_workers", "Threads that move frames", vec![], target.workers as u64);
    all.level("sfnic_waiting_send_queues", "Send queues that wait for a worker", vec![], nic.work.len() as u64);
    all.count(
        "sfnic_flow_cache_flushes",
        "Changes that made workers forget flows",
        vec![],
        nic.flows.now().epoch().into(),
    );
    all.count("sfnic_events", "Events of GET /v1/events", vec![], nic.events.last());
    let unmodelled = nic.unmodelled.list().iter().map(|(_, n)| n).sum();
    all.count("sfnic_unmodelled_accesses", "What drivers wanted and the model does not have", vec![], unmodelled);
    for card in &nic.cards {
        of_card(&mut all, card);
    }
    for (port, link) in target.wires.iter() {
        wire(&mut all, format!("p{port}"), link);
    }
    for (index, link) in target.offers.links() {
        let port = nic.slice(index).map_or_else(|_| None, |s| Some(format!("pf{}sf{}", s.pfnum, s.sfnum?)));
        wire(&mut all, port.unwrap_or_else(|| format!("slice {index}")), &link);
    }
    for card in &nic.cards {
        impaired(&mut all, card);
    }
    for switch in target.switches.iter() {
        let v = switch.view();
        let labels = |more: Labels| [vec![("switch", v.name.clone())], more].concat();
        for p in &v.ports {
            for (way, n) in [("rx", p.rx_frames), ("tx", p.tx_frames)] {
                let labels = labels(vec![("port", p.port.clone()), ("direction", way.to_owned())]);
                all.count("sfnic_switch_frames", "Frames that came and left by a port of a switch", labels, n);
            }
            let labels = labels(vec![("port", p.port.clone())]);
            all.count(
                "sfnic_switch_lost_frames",
                "Frames that a port of a switch could not take",
                labels,
                p.lost_frames,
            );
        }
        all.level("sfnic_switch_stations", "Addresses that a switch knows", labels(vec![]), v.stations.len() as u64);
        all.count("sfnic_switch_flooded_frames", "Frames that went to all ports", labels(vec![]), v.flooded_frames);
    }
    all
}

/// A link that leaves the device: at a port, or to the machine of a virtio slice.
fn wire(all: &mut Samples, port: String, link: &Link) {
    let c = link.counters();
    let labels = |more: Labels| [vec![("port", port.clone()), ("wire", c.wire.clone())], more].concat();
    all.level("sfnic_wire_up", "Whether the far end of a wire is there", labels(vec![]), c.up.into());
    for (way, n) in [("rx", c.rx_frames), ("tx", c.tx_frames)] {
        let labels = labels(vec![("direction", way.to_owned())]);
        all.count("sfnic_wire_frames", "Frames that passed a wire; a large one is one", labels, n);
    }
    all.count("sfnic_wire_lost_frames", "Frames that the far end could not take", labels(vec![]), c.tx_lost);
    all.count("sfnic_wire_link_downs", "How often the far end of a wire went", labels(vec![]), c.downs);
    all.count("sfnic_wire_errors", "How often the far end of a wire was at fault", labels(vec![]), c.errors);
}

fn of_card(all: &mut Samples, card: &Card) {
    let pf = || vec![("pf", card.index.to_string())];
    all.count("sfnic_interrupts", "Interrupts raised", pf(), card.irq.total());
    let ctl = card.control.lock();
    ports(all, card, &ctl);
    for (command, tally) in ctl.ledger.all() {
        let labels = |more: Labels| [pf(), vec![("command", command.to_owned())], more].concat();
        for (status, n) in &tally.statuses {
            let labels = labels(vec![("status", status.name().to_owned())]);
            all.count("sfnic_commands", "Commands executed, by opcode and status", labels, *n);
        }
        let ends = CLASSES.iter().map(|ns| *ns as f64 / NS).chain([f64::INFINITY]);
        let classes = Value::Durations(tally.total_ns as f64 / NS, ends.zip(tally.classes).collect());
        all.add("sfnic_command_duration_seconds", "How long commands took", labels(vec![]), classes);
    }
    let undelivered = ctl.ledger.undelivered;
    all.count("sfnic_commands_undelivered", "Commands that could not be fetched or answered", pf(), undelivered);
    for state in State::ALL {
        let name = serde_json::to_value(state).ok().and_then(|v| v.as_str().map(str::to_owned));
        let labels = [pf(), vec![("state", name.unwrap_or_default())]].concat();
        let n = ctl.sfs.iter().filter(|s| s.state == state).count();
        all.level("sfnic_sfs", "Sub-functions by state; invalid ones are free", labels, n as u64);
    }
    let guests = ctl.functions.values().filter(|f| matches!(f.kind, FunctionKind::Vf | FunctionKind::Virtio)).count();
    all.level("sfnic_guest_slices", "Slices that are devices of other guests", pf(), guests as u64);
    all.level("sfnic_irq_vectors", "MSI-X vectors", pf(), card.config.vectors.into());
    for f in ctl.functions.values() {
        of_function(all, card, f, ctl.port_name(f.id));
    }
}

/// What a port's wire did to frames on purpose.
fn impaired(all: &mut Samples, card: &Card) {
    for (name, way) in [("in", Way::In), ("out", Way::Out)] {
        let c = card.port.impair.way(way).counts();
        let reasons = [
            ("lost", c.lost),
            ("reordered", c.reordered),
            ("duplicated", c.duplicated),
            ("corrupted", c.corrupted),
            ("overrun", c.overrun),
        ];
        for (fate, n) in reasons {
            let port = format!("p{}", card.index);
            let labels = vec![("port", port), ("direction", name.to_owned()), ("fate", fate.to_owned())];
            all.count("sfnic_wire_impaired_frames", "Frames that an impaired wire did something to", labels, n);
        }
    }
}

fn ports(all: &mut Samples, card: &Card, ctl: &Control) {
    let port = &card.port;
    let name = || vec![("port", format!("p{}", card.index))];
    all.count("sfnic_port_link_downs", "How often a port's link went down", name(), port.link_down_events.get());
    drops(
        all,
        &name()[0].1,
        &[
            ("oversize", port.rx_oversize.get()),
            ("undersize", port.rx_undersize.get()),
            ("rx_discard", port.rx_discards.get()),
            ("tx_no_link", port.tx_discards.get()),
        ],
    );
    for (number, v) in &ctl.vports {
        let name = ctl.port_name(*number);
        let up = if *number == UPLINK { port.is_up() } else { v.link(port.is_up()) };
        all.level(
            "sfnic_port_up",
            "Whether frames pass a port of the eswitch",
            vec![("port", name.clone())],
            up.into(),
        );
        // The physical port counts for itself.
        let (rx, tx) = if *number == UPLINK { (&port.rx, &port.tx) } else { (&v.plane.rx, &v.plane.tx) };
        direction(all, &name, "rx", rx);
        direction(all, &name, "tx", tx);
        let refused = &v.plane.refused;
        drops(
            all,
            &name,
            &[
                ("spoofed", refused.spoofed.get()),
                ("tagged", refused.tagged.get()),
                ("too_long", refused.too_long.get()),
            ],
        );
    }
}

fn direction(all: &mut Samples, port: &str, way: &str, d: &Direction) {
    for (cast, t) in [("unicast", &d.unicast), ("multicast", &d.multicast), ("broadcast", &d.broadcast)] {
        let labels = vec![("port", port.to_owned()), ("direction", way.to_owned()), ("cast", cast.to_owned())];
        let help = "Frames of a port: of p0 from and to the wire, of pf0 and pf0sf4 to (rx) and from their functions";
        all.count("sfnic_port_packets", help, labels.clone(), t.packets.get());
        all.count("sfnic_port_bytes", "Bytes of these frames, without check sequence", labels, t.octets.get());
    }
    drops(all, port, &[(if way == "rx" { "rx_error" } else { "tx_error" }, d.errors.packets.get())]);
}

fn drops(all: &mut Samples, port: &str, reasons: &[(&'static str, u64)]) {
    for (reason, n) in reasons {
        let labels = vec![("port", port.to_owned()), ("reason", (*reason).to_owned())];
        all.count("sfnic_drops", "Frames that were dropped, by port and reason", labels, *n);
    }
}

fn of_function(all: &mut Samples, card: &Card, f: &Function, port: String) {
    let plane = &f.plane;
    drops(
        all,
        &port,
        &[
            ("rx_steering", plane.rx_steering_discards.get()),
            ("rx_link_down", plane.rx_link_down.get()),
            ("tx_link_down", plane.tx_link_down.get()),
        ],
    );
    let labels = |more: Labels| [vec![("pf", card.index.to_string()), ("function", port.clone())], more].concat();
    all.count("sfnic_bad_doorbells", "Doorbells that named nothing", labels(vec![]), plane.bad_doorbells.get());
    for (kind, n) in f.objects.counts() {
        let labels = labels(vec![("kind", format!("{kind:?}"))]);
        all.level("sfnic_objects", "Objects of a function, queues among them", labels, n as u64);
    }
    for (kind, n) in f.steering.counts() {
        let (name, help) = match kind.as_str() {
            "FlowTable" => ("sfnic_flow_tables", "Flow tables of a function"),
            "FlowGroup" => ("sfnic_flow_groups", "Flow groups of a function"),
            _ => ("sfnic_flow_rules", "Rules of a function's flow tables"),
        };
        all.level(name, help, labels(vec![]), n as u64);
    }
    let queue = |name: String| labels(vec![("queue", name)]);
    let (frames, bytes) = ("Frames of a queue since it was created", "Bytes of a queue since it was created");
    let (lost, wqes) = ("Frames that a queue dropped, by reason", "WQEs of a queue that failed or were flushed");
    for kind in [Kind::Sq, Kind::Rq] {
        for (id, body) in f.objects.of_kind(kind) {
            let (name, packets, octets, dropped, errors): (_, _, _, Vec<(&str, u64)>, _) = match body {
                Body::Sq(q) => {
                    let s = q.snapshot();
                    (format!("sq{id}"), s.packets, s.bytes, vec![("dropped", s.dropped)], s.errors)
                }
                Body::Rq(q) => {
                    let s = q.snapshot();
                    let reasons = vec![("no_buffer", s.no_buffer), ("too_long", s.too_long)];
                    (format!("rq{id}"), s.packets, s.bytes, reasons, s.errors)
                }
                _ => continue,
            };
            all.count("sfnic_queue_packets", frames, queue(name.clone()), packets);
            all.count("sfnic_queue_bytes", bytes, queue(name.clone()), octets);
            for (reason, n) in dropped {
                let labels = [queue(name.clone()), vec![("reason", reason.to_owned())]].concat();
                all.count("sfnic_queue_drops", lost, labels, n);
            }
            all.count("sfnic_queue_errors", wqes, queue(name), errors);
        }
    }
    for (id, body) in f.objects.of_kind(Kind::Eq) {
        let Body::Eq(q) = body else { continue };
        let s = q.snapshot();
        let labels = || queue(format!("eq{id}"));
        all.count("sfnic_eq_overruns", "Times that an event queue was full", labels(), s.overruns);
        all.count("sfnic_eq_lost_events", "Events that an event queue lost", labels(), s.lost);
    }
}
