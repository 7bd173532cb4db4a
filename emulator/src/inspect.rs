//! A look inside a device, as data.

use serde_json::{Map, Value, json};
use sfnic_device_model::Nic;

/// The device as a whole.
pub fn device(nic: &Nic, handle: &str) -> Value {
    let firmware: Vec<String> = nic.profile.firmware.iter().map(u16::to_string).collect();
    json!({
        "handle": handle,
        "version": env!("CARGO_PKG_VERSION"),
        "profile": nic.profile.name,
        "board": nic.profile.board,
        "firmware": firmware.join("."),
        "eswitch": nic.cards.first().map(|c| c.config.manager),
        "physical_functions": nic.cards.len(),
    })
}

/// Functions with their commands and objects.
pub fn functions(nic: &Nic) -> Value {
    let mut objects = nic.object_counts();
    let mut all = Map::new();
    for card in &nic.cards {
        let control = card.control.lock();
        for f in control.functions.values() {
            let name = format!("pf{}/{:#x}", card.index, f.id);
            let state = control.sf(f.id).map(|s| s.state);
            let value = json!({
                "kind": f.kind, "vhca_id": f.vhca_id, "enabled": f.enabled, "initialised": f.initialised,
                "vhca_state": state, "driver": f.driver_version, "commands": f.stats,
                "objects": objects.remove(&name).unwrap_or_default(),
            });
            all.insert(name, value);
        }
    }
    Value::Object(all)
}

/// What drivers wanted and the model does not have.
pub fn unmodelled(nic: &Nic) -> Value {
    let list = nic.unmodelled.list();
    list.iter().map(|(a, n)| json!({ "access": a, "text": a.to_string(), "count": n })).collect()
}
