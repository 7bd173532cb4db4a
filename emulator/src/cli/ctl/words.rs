//! The words of `sfnic ctl`: pairs of a key and its value, as devlink takes them.

use serde_json::{Map, Value, json};
use sfnic_device_model::slice::Flavour;

/// What is wrong with the words, in one line.
type Parsed<T> = Result<T, String>;

/// The name of a device, `BUS/ADDRESS`.
pub(super) fn handle(text: &str) -> Parsed<&str> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [bus, address] if !bus.is_empty() && !address.is_empty() => Ok(text),
        _ => Err(format!("handle = {text:?}: allowed is BUS/ADDRESS, such as pci/0000:06:00.0")),
    }
}

/// `HANDLE/INDEX`.
pub(super) fn slice(text: &str) -> Parsed<(&str, u32)> {
    let wrong = || format!("slice = {text:?}: allowed is HANDLE/INDEX, such as pci/0000:06:00.0/100");
    let (device, index) = text.rsplit_once('/').ok_or_else(wrong)?;
    handle(device).map_err(|_| wrong())?;
    Ok((device, index.parse().map_err(|_| wrong())?))
}

/// `HANDLE` or `HANDLE/INDEX`.
pub(super) fn device_or_slice(text: &str) -> Parsed<(Option<&str>, Option<u32>)> {
    match text.matches('/').count() {
        1 => Ok((Some(handle(text)?), None)),
        _ => slice(text).map(|(device, index)| (Some(device), Some(index))),
    }
}

/// The pairs, each key known and given once.
fn pairs<'a>(words: &'a [String], known: &[&str]) -> Parsed<Vec<(&'a str, &'a str)>> {
    let mut all: Vec<(&str, &str)> = vec![];
    for pair in words.chunks(2) {
        let key = pair[0].as_str();
        if !known.contains(&key) {
            return Err(format!("{key:?}: no such word; there is {}", known.join(", ")));
        }
        let Some(value) = pair.get(1) else { return Err(format!("{key}: its value is missing")) };
        if all.iter().any(|(k, _)| *k == key) {
            return Err(format!("{key} = {value:?}: given twice"));
        }
        all.push((key, value));
    }
    Ok(all)
}

fn refuse<T>(key: &str, value: &str, allowed: &str) -> Parsed<T> {
    Err(format!("{key} = {value:?}: allowed is {allowed}"))
}

fn number(key: &str, value: &str) -> Parsed<u32> {
    value.parse().or_else(|_| refuse(key, value, "a number"))
}

/// What a slice is to be.
pub(super) fn new_slice(words: &[String]) -> Parsed<Value> {
    let mut new = Map::new();
    for (key, value) in pairs(words, &["flavour", "pfnum", "sfnum", "index", "vectors"])? {
        let value = match key {
            // An SF is the flavour of the mlx5 driver of the host.
            "flavour" if value == "mlx5" => json!(Flavour::PciSf.name()),
            "flavour" => match Flavour::ALL.iter().find(|f| f.name() == value) {
                Some(f) => json!(f.name()),
                None => return refuse(key, value, "pcisf (or mlx5), passthrough or virtio"),
            },
            _ => json!(number(key, value)?),
        };
        new.insert(key.to_owned(), value);
    }
    for needed in ["flavour", "pfnum"] {
        if !new.contains_key(needed) {
            return Err(format!("{needed} is missing: flavour pcisf|passthrough|virtio pfnum N sfnum N"));
        }
    }
    Ok(Value::Object(new))
}

/// What is to change of a slice.
pub(super) fn change(words: &[String]) -> Parsed<Value> {
    const KEYS: &[&str] = &[
        "state",
        "hw_addr",
        "link",
        "max_io_eqs",
        "trust",
        "spoof_check",
        "roce",
        "vlan",
        "qos",
        "tx_share",
        "tx_max",
        "mtu",
    ];
    let mut change = Map::new();
    for (key, value) in pairs(words, KEYS)? {
        let one_of = |allowed: &[&str]| match allowed.contains(&value) {
            true => Ok(json!(value)),
            false => refuse(key, value, &allowed.join(" or ")),
        };
        let value = match key {
            "state" => one_of(&["active", "inactive"])?,
            "link" => one_of(&["auto", "up", "down"])?,
            "trust" | "spoof_check" | "roce" => json!(one_of(&["on", "off"])? == "on"),
            "vlan" if value == "none" => json!(0),
            "tx_share" | "tx_max" => json!(rate(key, value)?),
            // What fits no field is refused here, what does not fit the device by the device.
            "vlan" => json!(value.parse::<u16>().or_else(|_| refuse(key, value, "1 to 4094, or none"))?),
            "qos" => json!(value.parse::<u8>().or_else(|_| refuse(key, value, "0 to 7"))?),
            "hw_addr" => json!(mac(value).map_or_else(|| refuse(key, value, "six pairs of hexadecimal digits"), Ok)?),
            _ => json!(number(key, value)?),
        };
        change.insert(key.to_owned(), value);
    }
    Ok(Value::Object(change))
}

/// Bits a second, with a unit as devlink has them; `none` is 0.
fn rate(key: &str, value: &str) -> Parsed<u64> {
    const UNITS: [(&str, u64); 4] = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("bit", 1)];
    if value == "none" {
        return Ok(0);
    }
    let (digits, factor) = UNITS.iter().find_map(|(u, n)| Some((value.strip_suffix(u)?, *n))).unwrap_or((value, 1));
    let bits = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bits.map_or_else(|| refuse(key, value, "a number with kbit, mbit or gbit, such as 100mbit, or none"), Ok)
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_words_of_the_rfc() {
        let new = new_slice(&words("flavour pcisf pfnum 0 sfnum 4 index 100")).unwrap();
        assert_eq!(new, json!({ "flavour": "pcisf", "pfnum": 0, "sfnum": 4, "index": 100 }));
        let set = change(&words("hw_addr 00:00:00:00:88:88 state active")).unwrap();
        assert_eq!(set, json!({ "hw_addr": [0, 0, 0, 0, 0x88, 0x88], "state": "active" }));
        let set = change(&words("trust on spoof_check off vlan none tx_share 100mbit tx_max 10gbit mtu 9000")).unwrap();
        let wanted = json!({ "trust": true, "spoof_check": false, "vlan": 0, "tx_share": 100_000_000,
            "tx_max": 10_000_000_000u64, "mtu": 9000 });
        assert_eq!(set, wanted);
        assert_eq!(change(&words("tx_max none qos 3")).unwrap(), json!({ "tx_max": 0, "qos": 3 }));
        assert_eq!(slice("pci/0000:06:00.0/100"), Ok(("pci/0000:06:00.0", 100)));
        assert_eq!(device_or_slice("pci/0000:06:00.0"), Ok((Some("pci/0000:06:00.0"), None)));
    }

    #[test]
    fn a_wrong_word_is_one_line_that_says_what_is_allowed() {
        let error = |text: &str| change(&words(text)).unwrap_err();
        assert_eq!(error("state on"), "state = \"on\": allowed is active or inactive");
        assert_eq!(error("hw_addr 00:00"), "hw_addr = \"00:00\": allowed is six pairs of hexadecimal digits");
        assert_eq!(error("trust yes"), "trust = \"yes\": allowed is on or off");
        assert_eq!(error("vlan 65536"), "vlan = \"65536\": allowed is 1 to 4094, or none");
        let rate = "allowed is a number with kbit, mbit or gbit, such as 100mbit, or none";
        for bad in ["fast", "1e3", "-1", "18446744073709551615kbit"] {
            assert_eq!(error(&format!("tx_max {bad}")), format!("tx_max = {bad:?}: {rate}"));
        }
        assert_eq!(error("link"), "link: its value is missing");
        assert_eq!(error("link up link down"), "link = \"down\": given twice");
        assert!(error("speed 9").starts_with("\"speed\": no such word; there is state, hw_addr"));
        let error = |text: &str| new_slice(&words(text)).unwrap_err();
        assert_eq!(error("flavour vf pfnum 0"), "flavour = \"vf\": allowed is pcisf (or mlx5), passthrough or virtio");
        assert_eq!(new_slice(&words("flavour mlx5 pfnum 0 sfnum 4")).unwrap()["flavour"], "pcisf");
        assert_eq!(error("flavour pcisf pfnum x"), "pfnum = \"x\": allowed is a number");
        assert!(error("flavour pcisf sfnum 3").starts_with("pfnum is missing"));
        for bad in ["pci", "pci/0000:06:00.0", "/x/1", "pci/0000:06:00.0/x", "a/b/c/1"] {
            assert!(slice(bad).unwrap_err().starts_with("slice = "), "{bad}");
        }
    }
}
