//! What a configuration says of wires, switches and captures.

use std::time::Duration;

use sfnic_device_model::fabric::impair::Impairment;
use toml::Table;

use super::{Parsed, PfConfig, Section, refuse};
use crate::board::WireKind;
use crate::capture::Spec;
use crate::wire::spec::{self, SWITCH_NAME, WIRES};
use crate::wire::switch::AGEING;

const SWITCH_KEYS: &[&str] = &["name", "wires", "ageing"];
/// Most switches, and most further wires of one.
const MOST: usize = 16;
/// Seconds that a switch may remember a silent station.
const AGES: (i64, i64) = (1, 1_000_000);
/// Speeds that PTYS can tell.
const SPEEDS: &str = "\"10G\", \"25G\", \"40G\", \"50G\" or \"100G\"";

/// A switch that ports are at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Its name.
    pub name: String,
    /// Wires that are further ports of it.
    pub wires: Vec<WireKind>,
    /// How long it remembers a silent station.
    pub ageing: Duration,
}

/// The keys of a port.
pub(super) struct Port {
    pub(super) wire: Option<WireKind>,
    pub(super) impair: [Impairment; 2],
    pub(super) speed: Option<u32>,
}

impl Port {
    pub(super) fn read(section: &Section<'_>) -> Parsed<Port> {
        Ok(Port { wire: wire(section)?, impair: impair(section)?, speed: speed(section)? })
    }
}

fn wire(section: &Section<'_>) -> Parsed<Option<WireKind>> {
    let Some(text) = section.text("wire", WIRES)? else { return Ok(None) };
    let kind = spec::kind(text);
    kind.map(Some).map_err(|allowed| format!("{} = {text:?}: allowed is {allowed}", section.key("wire")))
}

/// For frames that come in, and for those that go out.
fn impair(section: &Section<'_>) -> Parsed<[Impairment; 2]> {
    let allowed = "words in quotes such as \"delay=5ms loss=0.01\", or { in = \"…\", out = \"…\" }";
    let read = |section: &Section<'_>, key: &str| match section.text(key, allowed)? {
        None => Ok(Impairment::OFF),
        Some(text) => text.parse().map_err(|why| format!("{}: {why}", section.key(key))),
    };
    match section.table.get("impair") {
        Some(value) if value.is_table() => {
            let table = value.as_table().ok_or_else(|| refuse(&section.key("impair"), value, allowed))?;
            let ways = Section { at: section.key("impair."), table };
            ways.only(&["in", "out"])?;
            Ok([read(&ways, "in")?, read(&ways, "out")?])
        }
        _ => read(section, "impair").map(|both| [both; 2]),
    }
}

fn speed(section: &Section<'_>) -> Parsed<Option<u32>> {
    let Some(text) = section.text("speed", SPEEDS)? else { return Ok(None) };
    match ["10G", "25G", "40G", "50G", "100G"].contains(&text) {
        true => Ok(text.trim_end_matches('G').parse().ok()),
        false => Err(format!("{} = {text:?}: allowed is {SPEEDS}", section.key("speed"))),
    }
}

/// Every switch that a port is at, as its section says, if it has one.
pub(super) fn switches(top: &Table, pfs: &[PfConfig]) -> Parsed<Vec<SwitchConfig>> {
    let mut all: Vec<SwitchConfig> = vec![];
    let mut used: Vec<&str> = vec![];
    for pf in pfs {
        if let WireKind::Switch(name) = &pf.wire
            && !used.contains(&name.as_str())
        {
            used.push(name);
        }
    }
    if let Some(value) = top.get("switch") {
        let wrong = || refuse("switch", value, &format!("up to {MOST} sections [[switch]]"));
        for (n, value) in value.as_array().filter(|l| l.len() <= MOST).ok_or_else(wrong)?.iter().enumerate() {
            let section = Section { at: format!("switch[{n}]."), table: value.as_table().ok_or_else(wrong)? };
            let switch = switch(&section)?;
            if !used.contains(&switch.name.as_str()) || all.iter().any(|s| s.name == switch.name) {
                let names = if used.is_empty() { "none".to_owned() } else { used.join(", ") };
                return Err(format!(
                    "{} = {:?}: allowed is, once, a switch that a port has (wire = \"switch:NAME\"); there is {names}",
                    section.key("name"),
                    switch.name,
                ));
            }
            for (i, wire) in switch.wires.iter().enumerate() {
                let taken = |other: &WireKind| other.excludes(wire);
                let mut others = pfs.iter().map(|pf| &pf.wire).chain(all.iter().flat_map(|s| &s.wires));
                if others.any(taken) || switch.wires[..i].iter().any(taken) {
                    return Err(format!("{}[{i}]: allowed is a wire that nobody else has", section.key("wires")));
                }
            }
            all.push(switch);
        }
    }
    for name in used {
        if !all.iter().any(|s| s.name == name) {
            all.push(SwitchConfig { name: name.to_owned(), wires: vec![], ageing: AGEING });
        }
    }
    Ok(all)
}

fn switch(section: &Section<'_>) -> Parsed<SwitchConfig> {
    section.only(SWITCH_KEYS)?;
    let name = section.text("name", SWITCH_NAME)?.unwrap_or_default();
    if !spec::is_switch(name) {
        return Err(format!("{} = {name:?}: allowed is {SWITCH_NAME}", section.key("name")));
    }
    let outside = "a list of up to 16 wires that leave the device, such as [\"tap:lan0\"]";
    let texts = section.texts("wires", outside)?;
    if texts.len() > MOST {
        return Err(format!("{} = [… {} values]: allowed is {outside}", section.key("wires"), texts.len()));
    }
    let wire = |(n, text): (usize, &&str)| match spec::kind(text) {
        Ok(WireKind::Cable | WireKind::Loopback | WireKind::Switch(_) | WireKind::None) => Err(format!(
            "{}[{n}] = {text:?}: allowed is a wire that leaves the device, such as \"tap:lan0\"",
            section.key("wires")
        )),
        other => other.map_err(|allowed| format!("{}[{n}] = {text:?}: allowed is {allowed}", section.key("wires"))),
    };
    let wires = texts.iter().enumerate().map(wire).collect::<Parsed<_>>()?;
    let ageing = section.number("ageing", AGES)?.map_or(AGEING, |s| Duration::from_secs(s.unsigned_abs()));
    Ok(SwitchConfig { name: name.to_owned(), wires, ageing })
}

/// What is captured, from the beginning.
pub(super) fn captures(top: &Section<'_>) -> Parsed<Vec<Spec>> {
    let texts = match top.table.get("capture") {
        Some(value) if value.is_str() => value.as_str().into_iter().collect(),
        _ => top.texts("capture", "FILE[,port=NAME]…[,snap=BYTES] in quotes, or a list of such")?,
    };
    let spec = |(n, text): (usize, &str)| text.parse().map_err(|why| format!("{}[{n}]: {why}", top.key("capture")));
    texts.into_iter().enumerate().map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, read};
    use super::*;

    fn config(text: &str) -> Config {
        read(text, "nic.toml", None).unwrap()
    }

    fn error(text: &str) -> String {
        let e = read(text, "nic.toml", None).unwrap_err().to_string();
        assert_eq!(e.lines().count(), 1, "{e}");
        e.strip_prefix("nic.toml: ").unwrap().to_owned()
    }

    #[test]
    fn switches_come_with_the_ports_that_name_them() {
        let lan = "[[pf]]\nwire = 'switch:lan'\n[[pf]]\nwire = 'switch:lan'\n[[pf]]\nwire = 'switch:b.1'\n";
        let c = config(lan);
        let names: Vec<&str> = c.switches.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["lan", "b.1"]);
        assert_eq!((c.switches[0].ageing, c.switches[0].wires.len()), (AGEING, 0));
        let c = config(&format!("{lan}[[switch]]\nname = 'lan'\nwires = ['tap:a', 'stream:/s']\nageing = 5"));
        assert_eq!((c.switches.len(), c.switches[0].wires.len(), c.switches[0].ageing.as_secs()), (2, 2, 5));
        let section = |text: &str| error(&format!("{lan}[[switch]]\n{text}"));
        assert!(section("name = 'x'").ends_with("there is lan, b.1"));
        assert!(
            section("name = 'lan'\n[[switch]]\nname = 'lan'").starts_with("switch[1].name = \"lan\": allowed is, once")
        );
        assert_eq!(section(""), format!("switch[0].name = \"\": allowed is {SWITCH_NAME}"));
        assert_eq!(section("colour = 1"), "switch[0].colour = 1: no such key; there is name, wires, ageing");
        for bad in ["cable", "switch:b.1", "none", "loopback"] {
            let e = section(&format!("name = 'lan'\nwires = ['tap:a', '{bad}']"));
            assert!(e.starts_with(&format!("switch[0].wires[1] = \"{bad}\": allowed is a wire that leaves")), "{e}");
        }
        let twice = section("name = 'lan'\nwires = ['tap:a', 'tap:a']");
        assert_eq!(twice, "switch[0].wires[1]: allowed is a wire that nobody else has");
        assert_eq!(section("name = 'lan'\nageing = 0"), "switch[0].ageing = 0: allowed is 1 to 1000000");
        assert_eq!(
            error("[[pf]]\nwire = 'switch:a b'"),
            format!("pf[0].wire = \"switch:a b\": allowed is \"switch:\" and {SWITCH_NAME}")
        );
    }

    #[test]
    fn wires_have_impairments_and_speeds() {
        let c = config("[[pf]]\nimpair = 'delay=5ms seed=7'\nspeed = '25G'\n[[pf]]\nimpair = { out = 'loss=0.5' }");
        let [a, b] = &c.pfs[..] else { panic!() };
        assert_eq!((a.impair[0], a.card.speed, b.card.speed), (a.impair[1], 25, 100));
        assert_eq!((a.impair[0].delay, b.impair[0].is_off(), b.impair[1].loss), (5_000_000, true, 0.5));
        assert!(error("[[pf]]\nimpair = 'lag=1'").starts_with("pf[0].impair: \"lag=1\": allowed is off, or words"));
        assert!(error("[[pf]]\nimpair = { in = 'x' }").starts_with("pf[0].impair.in: \"x\": allowed is off"));
        assert_eq!(error("[[pf]]\nimpair = { up = 'x' }"), "pf[0].impair.up = \"x\": no such key; there is in, out");
        assert!(error("[[pf]]\nimpair = 3").starts_with("pf[0].impair = 3: allowed is words in quotes"));
        assert_eq!(error("[[pf]]\nspeed = '1G'"), format!("pf[0].speed = \"1G\": allowed is {SPEEDS}"));
    }

    #[test]
    fn captures_begin_with_the_device() {
        assert_eq!(config("capture = 'a.pcapng'").captures.len(), 1);
        assert_eq!(config("capture = ['a.pcapng,port=pf0', 'b']").captures[0].ports, ["pf0"]);
        assert_eq!(error("capture = ['a', 'b,snap=1']"), "capture[1]: snap=1: allowed is 14 to 262144");
    }
}
