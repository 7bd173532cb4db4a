//! What ports are connected to.

use std::sync::Arc;

use serde_json::{Value, json};
use sfnic_device_model::capture::Way;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::{Card, Nic};

use crate::wire::Link;

fn link<'a>(card: &Card, wires: &'a [(usize, Arc<Link>)]) -> Option<&'a Arc<Link>> {
    wires.iter().find(|(port, _)| *port == card.index).map(|(_, link)| link)
}

/// What a port is connected to: `pN` is another port of the device.
pub(super) fn name(card: &Card, wires: &[(usize, Arc<Link>)]) -> String {
    match card.config.far {
        Far::None => "none".to_owned(),
        Far::Loopback => "loopback".to_owned(),
        Far::Port(other) => format!("p{other}"),
        Far::Outside(_) => link(card, wires).map_or_else(|| "outside".to_owned(), |link| link.name().to_owned()),
    }
}

/// The wire of a port: what it does to frames, and what it counted where it leaves the
/// device.
pub fn wire(card: &Card, wires: &[(usize, Arc<Link>)]) -> Value {
    let way = |way| {
        let direction = card.port.impair.way(way);
        json!({ "impair": direction.get().to_string(), "frames": direction.counts() })
    };
    let all = json!({
        "port": format!("p{}", card.index),
        "wire": name(card, wires),
        "speed": card.config.speed,
        "up": card.port.is_up(),
        "link_downs": card.port.link_down_events.get(),
        "in": way(Way::In),
        "out": way(Way::Out),
    });
    super::with("far", link(card, wires).map(|link| far(link)), all)
}

/// Who is at the far end of a link, and what passed.
pub(super) fn far(link: &Link) -> Value {
    let c = link.counters();
    json!({
        "up": c.up, "rx_frames": c.rx_frames, "tx_frames": c.tx_frames, "tx_lost": c.tx_lost, "ups": c.ups,
        "downs": c.downs, "errors": c.errors, "reason": c.reason,
    })
}

/// The wires of all ports.
pub fn wires(nic: &Nic, wires: &[(usize, Arc<Link>)]) -> Value {
    nic.cards.iter().map(|card| wire(card, wires)).collect()
}
