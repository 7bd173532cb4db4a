//! A look inside a device, as data.

mod commands;
mod objects;
mod queues;
mod wires;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sfnic_device_model::control::Control;
use sfnic_device_model::control::function::{Function, FunctionKind};
use sfnic_device_model::control::vport::VportControl;
use sfnic_device_model::dma::Dma;
use sfnic_device_model::endpoint::ENDPOINT_BAR_SIZE;
use sfnic_device_model::fabric::vport::UPLINK;
use sfnic_device_model::irq::IrqLine;
use sfnic_device_model::nic::BAR0_SIZE;
use sfnic_device_model::{Card, Nic};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::wire::Link;

pub use commands::{command, failed};
pub use objects::objects;
pub use queues::queues;
pub use wires::{wire, wires};

/// The device as a whole; `wires` are those that leave it, with their ports.
pub fn device(nic: &Nic, handle: &str, wires: &[(usize, Arc<Link>)]) -> Value {
    let firmware: Vec<String> = nic.profile.firmware.iter().map(u16::to_string).collect();
    json!({
        "handle": handle,
        "version": env!("CARGO_PKG_VERSION"),
        "profile": nic.profile.name,
        "board": nic.profile.board,
        "firmware": firmware.join("."),
        "eswitch": nic.cards.first().map(|c| c.config.manager),
        "physical_functions": nic.cards.len(),
        "wires": nic.cards.iter().map(|card| wires::name(card, wires)).collect::<Vec<_>>(),
    })
}

/// Which functions somebody wants to see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Which {
    /// Of this physical function.
    pub pf: Option<usize>,
    /// With this hardware id.
    pub function: Option<u16>,
}

impl Which {
    fn card(&self, card: &Card) -> bool {
        self.pf.is_none_or(|pf| pf == card.index)
    }

    fn id(&self, id: u16) -> bool {
        self.function.is_none_or(|f| f == id)
    }

    /// Something of each card that is wanted, one list of all.
    fn cards(&self, nic: &Nic, mut each: impl FnMut(&Card, &Control) -> Vec<Value>) -> Value {
        let cards = nic.cards.iter().filter(|c| self.card(c));
        cards.flat_map(|card| each(card, &card.control.lock())).collect()
    }

    /// Something of each function that is wanted, one list of all.
    fn functions(&self, nic: &Nic, mut each: impl FnMut(&Card, &Function, &str) -> Vec<Value>) -> Value {
        self.cards(nic, |card, control| {
            let wanted = control.functions.values().filter(|f| self.id(f.id));
            wanted.flat_map(|f| each(card, f, &control.port_name(f.id))).collect()
        })
    }
}

/// Functions with their commands and objects.
pub fn functions(nic: &Nic, which: Which) -> Value {
    let mut objects = nic.object_counts();
    let mut all = Map::new();
    for card in nic.cards.iter().filter(|c| which.card(c)) {
        let control = card.control.lock();
        for f in control.functions.values().filter(|f| which.id(f.id)) {
            let name = format!("pf{}/{:#x}", card.index, f.id);
            let state = control.sf(f.id).map(|s| s.state);
            let window = match f.kind {
                FunctionKind::Pf | FunctionKind::Ecpf => json!({ "bar": 0, "offset": 0, "size": BAR0_SIZE }),
                // Of its own device.
                FunctionKind::Vf => json!({ "bar": 0, "offset": 0, "size": ENDPOINT_BAR_SIZE }),
                FunctionKind::Virtio => Value::Null,
                FunctionKind::Sf => {
                    let index = f.id.saturating_sub(control.sf_base);
                    let log = card.config.log_sf_window;
                    json!({ "bar": 2, "offset": u64::from(index) << log, "size": 1u64 << log })
                }
            };
            let value = json!({
                "port": control.port_name(f.id), "kind": f.kind, "vhca_id": f.vhca_id, "window": window,
                "enabled": f.enabled, "initialised": f.initialised, "issi": f.issi,
                "vhca_state": state, "driver": f.driver_version, "commands": f.stats,
                "objects": objects.remove(&name).unwrap_or_default(),
                "drops": {
                    "rx_steering": f.plane.rx_steering_discards.get(), "rx_link_down": f.plane.rx_link_down.get(),
                    "tx_link_down": f.plane.tx_link_down.get(), "bad_doorbells": f.plane.bad_doorbells.get(),
                },
            });
            all.insert(name, value);
        }
    }
    Value::Object(all)
}

/// Vports with what their managers and drivers set, and their frames; those of virtio slices
/// with the links to their machines, of which `machines` are those that are offered.
pub fn vports(nic: &Nic, which: Which, machines: &[(u32, Arc<Link>)]) -> Value {
    which.cards(nic, |card, control| {
        let port_up = card.port.is_up();
        let wanted = control.vports.iter().filter(|(n, _)| which.id(**n));
        let view = |(number, v): (&u16, &VportControl)| {
            let (rx, tx) = match *number {
                UPLINK => (&card.port.rx, &card.port.tx),
                _ => (&v.plane.rx, &v.plane.tx),
            };
            let slice = control.sf(*number).and_then(|s| s.slice);
            let link = machines.iter().find(|(index, _)| slice == Some(*index));
            let far = link.map(|(_, link)| wires::far(link));
            let vport = json!({
                "pf": card.index, "vport": number, "port": control.port_name(*number), "hw_addr": mac(v.mac),
                "admin": v.admin, "up": if *number == UPLINK { port_up } else { v.link(port_up) }, "mtu": v.mtu,
                "driver": v.plane.function.load().is_some(),
                "unicast": v.unicast.iter().copied().map(mac).collect::<Vec<_>>(),
                "multicast": v.multicast.iter().copied().map(mac).collect::<Vec<_>>(), "vlans": v.vlans,
                "promisc": { "unicast": v.promisc.0, "multicast": v.promisc.1, "all": v.promisc.2 },
                "rx_packets": rx.packets(), "rx_bytes": rx.octets(), "rx_errors": rx.errors.packets.get(),
                "tx_packets": tx.packets(), "tx_bytes": tx.octets(), "tx_errors": tx.errors.packets.get(),
                "refused": {
                    "spoofed": v.plane.refused.spoofed.get(), "tagged": v.plane.refused.tagged.get(),
                    "too_long": v.plane.refused.too_long.get(),
                },
            });
            with("far", far, vport)
        };
        wanted.map(view).collect()
    })
}

/// What of guest memory each physical function, and each passthrough slice, can reach.
pub fn dma(nic: &Nic, which: Which) -> Value {
    let cards = nic.cards.iter().filter(|c| which.card(c));
    let view = |pf: usize, slice: Option<u32>, dma: &Dma| {
        let memory = dma.load();
        let maps: Vec<_> = memory.iter().map(|r| json!({ "iova": r.start_addr().0, "bytes": r.len() })).collect();
        of_slice(slice, json!({ "pf": pf, "bytes": memory.iter().map(|r| r.len()).sum::<u64>(), "maps": maps }))
    };
    let own = cards.map(|c| view(c.index, None, &c.dma));
    let endpoints = nic.endpoints().into_iter().filter(|e| which.pf.is_none_or(|pf| pf == e.card));
    own.chain(endpoints.map(|e| view(e.card, Some(e.slice), &e.dma))).collect()
}

/// Says which slice something is of, if it is one's.
fn of_slice(slice: Option<u32>, value: Value) -> Value {
    with("slice", slice.map(Value::from), value)
}

/// An object with one member more, if there is that.
fn with(key: &str, more: Option<Value>, mut value: Value) -> Value {
    if let (Some(more), Some(map)) = (more, value.as_object_mut()) {
        map.insert(key.to_owned(), more);
    }
    value
}

/// Interrupt vectors that are used or were raised.
pub fn msix(nic: &Nic, which: Which) -> Value {
    let endpoints = nic.endpoints();
    which.cards(nic, |card, control| {
        let others = endpoints.iter().filter(|e| e.card == card.index).map(|e| (Some(e.slice), &e.irq));
        [(None, &card.irq)].into_iter().chain(others).map(|(slice, irq)| vectors(card, control, slice, irq)).collect()
    })
}

/// The vectors of one PCI function.
fn vectors(card: &Card, control: &Control, slice: Option<u32>, irq: &Arc<IrqLine>) -> Value {
    let raised: Vec<u64> = irq.raised().collect();
    let mut users: Vec<Vec<Value>> = vec![vec![]; raised.len()];
    for f in control.functions.values().filter(|f| Arc::ptr_eq(&f.irq, irq)) {
        for (eqn, eq) in &f.plane.eqs.pin() {
            if let Some(list) = users.get_mut(usize::from(eq.queue.vector())) {
                list.push(json!({ "function": f.id, "port": control.port_name(f.id), "eqn": eqn }));
            }
        }
    }
    let all = raised.iter().zip(users).enumerate().filter(|(_, (n, eqs))| **n > 0 || !eqs.is_empty());
    let vectors: Vec<_> = all.map(|(v, (n, eqs))| json!({ "vector": v, "raised": n, "eqs": eqs })).collect();
    of_slice(
        slice,
        json!({
            "pf": card.index, "vectors": raised.len(), "connected": irq.is_connected(),
            "raised": irq.total(), "used": vectors,
        }),
    )
}

/// Flow tables with at most `rules` rules of each group.
pub fn tables(nic: &Nic, which: Which, rules: usize) -> Value {
    which.functions(nic, |card, f, port| {
        let dump = f.steering.dump(rules);
        if dump.tables.is_empty() {
            return vec![];
        }
        vec![json!({ "pf": card.index, "function": f.id, "port": port, "roots": dump.roots, "tables": dump.tables })]
    })
}

fn mac(m: [u8; 6]) -> String {
    m.map(|b| format!("{b:02x}")).join(":")
}

/// What drivers wanted and the model does not have.
pub fn unmodelled(nic: &Nic) -> Value {
    let list = nic.unmodelled.list();
    list.iter().map(|(a, n)| json!({ "access": a, "text": a.to_string(), "count": n })).collect()
}
