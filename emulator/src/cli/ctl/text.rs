//! Answers as text for people: a line an object, words and values.

use serde_json::{Map, Value};

/// A list as an object with keys `HANDLE/NUMBER`, the number left out of each entry.
pub(super) fn keyed(handle: &str, list: &Value, number: &str) -> Value {
    let mut all = Map::new();
    for entry in list.as_array().map(Vec::as_slice).unwrap_or_default() {
        let mut entry = entry.clone();
        let n = entry.as_object_mut().and_then(|o| match number {
            // The number of a physical function is a word of its own, too.
            "pfnum" => o.get(number).cloned(),
            _ => o.shift_remove(number),
        });
        all.insert(format!("{handle}/{}", n.unwrap_or_default()), entry);
    }
    Value::Object(all)
}

/// `KEY: word value word value …`, a line an entry.
pub(super) fn lines(value: &Value) -> String {
    let Some(all) = value.as_object() else { return String::new() };
    all.iter().map(|(key, entry)| format!("{key}:{}\n", words(entry))).collect()
}

fn words(entry: &Value) -> String {
    match entry {
        Value::Object(o) => o.iter().filter(|(_, v)| !idle(v)).map(|(k, v)| format!(" {k}{}", words(v))).collect(),
        Value::Bool(b) => if *b { " on" } else { " off" }.to_owned(),
        Value::String(s) => format!(" {s}"),
        other => format!(" {other}"),
    }
}

/// What says nothing in a line.
fn idle(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Object(o) => o.values().all(idle),
        Value::String(s) => s.is_empty(),
        _ => false,
    }
}

/// A count and what it counts, a line each.
pub(super) fn unmodelled(list: &Value) -> String {
    let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |v: &Value| {
        let text = v.get("text").and_then(Value::as_str).unwrap_or_default();
        format!("{:>8} × {text}\n", v.get("count").and_then(Value::as_u64).unwrap_or_default())
    };
    match rows.is_empty() {
        true => "nothing\n".to_owned(),
        false => rows.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slice_is_a_line_of_words() {
        let list = json!([{ "index": 100, "flavour": "pcisf", "pfnum": 0, "sfnum": 4, "trust": false }]);
        let value = keyed("pci/0000:06:00.0", &list, "index");
        assert_eq!(value["pci/0000:06:00.0/100"]["sfnum"], 4);
        assert_eq!(lines(&value), "pci/0000:06:00.0/100: flavour pcisf pfnum 0 sfnum 4 trust off\n");
    }
}
