//! `sfnic ctl` against a server: what is wrong is one line, and the status says whose fault it is.

use std::process::{Command, Output};

use sfnic_device_model::nic::Manager;

use super::Stage;

const DEV: &str = "pci/0000:06:00.0";

fn ctl(stage: &Stage, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfnic"));
    command.arg("ctl").arg("--control").arg(stage.server.path()).env_remove("SFNIC_LOG").env_remove("SFNIC_CONTROL");
    command.args(words.split_whitespace().map(|w| w.replace("DEV", DEV))).output().unwrap()
}

/// A call that is refused: its words, its status, and what the line has to say.
type Refused = (&'static str, i32, &'static [&'static str]);

/// Everything that can be wrong with a slice of a device that has 100 (active, attached), 101
/// (inactive), and room for six more.
const REFUSED: &[Refused] = &[
    // Paths.
    ("slice show nothing", 2, &["slice = \"nothing\"", "HANDLE/INDEX"]),
    ("slice show pci/0000:07:00.0", 2, &["pci/0000:07:00.0", "called pci/0000:06:00.0"]),
    ("slice show pci/0000:07:00.0/100", 2, &["pci/0000:07:00.0"]),
    ("slice show DEV/999", 1, &["no slice 999"]),
    ("slice show DEV/x", 2, &["DEV/x"]),
    ("slice show DEV/-1", 2, &["DEV/-1"]),
    ("slice show DEV/4294967296", 2, &["HANDLE/INDEX"]),
    ("slice set DEV/999 state active", 1, &["no slice 999"]),
    ("slice set DEV state active", 2, &["HANDLE/INDEX"]),
    ("slice del DEV/999", 1, &["no slice 999"]),
    ("slice del DEV", 2, &["HANDLE/INDEX"]),
    ("port show pci/x", 2, &["pci/x"]),
    // Files.
    ("snapshot save", 2, &["FILE"]),
    ("snapshot save /nowhere/x", 2, &["FILE = \"/nowhere/x\"", "a folder that is there"]),
    ("snapshot save /etc/passwd", 1, &["/etc/passwd", "a snapshot to replace"]),
    ("snapshot load /nowhere/x", 2, &["FILE = \"/nowhere/x\""]),
    ("snapshot load /etc/passwd", 2, &["/etc/passwd", "not a snapshot"]),
    ("snapshot load /etc/no-such-file", 2, &["/etc/no-such-file", "No such file"]),
    // Flavours.
    ("slice add DEV flavour pcixf pfnum 0 sfnum 9", 2, &["flavour = \"pcixf\"", "pcisf"]),
    ("slice add DEV flavour pcivf pfnum 0", 1, &["pcivf", "exists from the beginning"]),
    ("slice add DEV flavour pcipf pfnum 0", 1, &["pcipf"]),
    ("slice add DEV flavour physical pfnum 0", 1, &["physical"]),
    ("slice add DEV pfnum 0 sfnum 9", 2, &["flavour is missing"]),
    ("slice add DEV flavour", 2, &["flavour: its value is missing"]),
    ("slice add DEV flavour pcisf flavour pcisf", 2, &["given twice"]),
    ("slice add DEV colour red", 2, &["\"colour\"", "flavour, pfnum, sfnum, index"]),
    // Numbers.
    ("slice add DEV flavour pcisf pfnum 2 sfnum 9", 2, &["pfnum 2", "0 to 1"]),
    ("slice add DEV flavour pcisf pfnum x sfnum 9", 2, &["pfnum = \"x\"", "a number"]),
    ("slice add DEV flavour pcisf pfnum -1 sfnum 9", 2, &["pfnum = \"-1\""]),
    ("slice add DEV flavour pcisf pfnum 0", 2, &["needs an sfnum"]),
    ("slice add DEV flavour pcisf pfnum 0 sfnum 65536", 2, &["sfnum 65536", "0 to 65535"]),
    ("slice add DEV flavour pcisf pfnum 0 sfnum 9 index 3", 2, &["index 3", "below 16"]),
    ("slice add DEV flavour pcisf pfnum 0 sfnum 9 index 100", 1, &["slice 100 exists already"]),
    ("slice add DEV flavour pcisf pfnum 0 sfnum 4 index 200", 1, &["sfnum 4 already"]),
    ("slice add DEV flavour pcisf pfnum 99999999999 sfnum 9", 2, &["pfnum = \"99999999999\""]),
    // Addresses.
    ("slice set DEV/101 hw_addr 00:00:00:00:88", 2, &["hw_addr = \"00:00:00:00:88\"", "six pairs"]),
    ("slice set DEV/101 hw_addr 00:00:00:00:88:8g", 2, &["hw_addr"]),
    ("slice set DEV/101 hw_addr 0:0:0:0:88:88", 2, &["hw_addr"]),
    ("slice set DEV/101 hw_addr 01:00:00:00:88:88", 2, &["01:00:00:00:88:88", "unicast"]),
    ("slice set DEV/101 hw_addr ff:ff:ff:ff:ff:ff", 2, &["unicast"]),
    // States.
    ("slice set DEV/100 state on", 2, &["state = \"on\"", "active or inactive"]),
    ("slice set DEV/100 state", 2, &["state: its value is missing"]),
    ("slice set DEV/0 state inactive", 1, &["always active"]),
    ("slice set DEV/1 hw_addr 00:00:00:00:00:01", 1, &["physical function", "changed"]),
    ("slice set DEV/100 hw_addr 00:00:00:00:00:01", 1, &["slice 100 is active", "hw_addr"]),
    ("slice set DEV/100 mtu 1500", 1, &["slice 100 is active", "mtu"]),
    ("slice set DEV/100 max_io_eqs 2", 1, &["slice 100 is active", "max_io_eqs"]),
    ("slice del DEV/100", 1, &["slice 100 is active", "inactive first"]),
    ("slice del DEV/0", 1, &["physical function", "deleted"]),
    // Wires and captures.
    ("wire set p0 delay=5", 2, &["\"delay=5\"", "delay=TIME"]),
    ("wire set p0 reorder=0.1", 2, &["reorder=", "allowed with delay="]),
    ("wire set p0 in off in off", 2, &["in: given twice"]),
    ("wire set p7 off", 1, &["no port \"p7\"", "p0 to p1"]),
    ("wire set uplink0 off", 2, &["port = \"uplink0\"", "p0, p1"]),
    ("wire show x", 2, &["port = \"x\""]),
    ("capture start --file /nowhere/x", 2, &["--file = \"/nowhere/x\"", "folder that is there"]),
    ("capture start --file /proc/x", 2, &["\"/proc/x\"", "cannot write"]),
    ("capture start --file /tmp/.. --port pf0", 2, &["--file"]),
    ("capture start --file /dev/null", 1, &["there already"]),
    ("capture start --file /x --port eth0", 2, &["port=eth0", "uplinkN"]),
    ("capture stop x", 2, &["id = \"x\"", "a number, or all"]),
    ("capture stop 9", 1, &["no capture 9"]),
    ("capture stop", 1, &["no capture runs"]),
    // Other attributes.
    ("slice set DEV/101 max_io_eqs 0", 2, &["max_io_eqs 0", "1 to 60"]),
    ("slice set DEV/101 max_io_eqs 61", 2, &["max_io_eqs 61", "1 to 60"]),
    ("slice set DEV/101 link sideways", 2, &["link = \"sideways\"", "auto or up or down"]),
    ("slice set DEV/101 trust yes", 2, &["trust = \"yes\"", "on or off"]),
    ("slice set DEV/101 spoof_check 1", 2, &["spoof_check = \"1\"", "on or off"]),
    ("slice set DEV/101 roce on", 2, &["roce on", "no RoCE"]),
    ("slice set DEV/101 vlan 4095", 2, &["vlan 4095", "1 to 4094"]),
    ("slice set DEV/101 vlan many", 2, &["vlan = \"many\"", "1 to 4094"]),
    ("slice set DEV/101 qos 3", 2, &["qos 3 without a vlan"]),
    ("slice set DEV/101 vlan 5 qos 8", 2, &["qos 8", "0 to 7"]),
    ("slice set DEV/101 tx_max fast", 2, &["tx_max = \"fast\"", "100mbit"]),
    ("slice set DEV/101 tx_max 1500kbit", 2, &["tx_max 1500000", "multiples of 1000000"]),
    ("slice set DEV/101 tx_max 2000gbit", 2, &["tx_max 2000000000000", "up to 1000000000000"]),
    ("slice set DEV/101 tx_share 20mbit tx_max 10mbit", 2, &["tx_share 20000000 above tx_max"]),
    ("slice set DEV/101 mtu 67", 2, &["mtu 67", "68 to 9978"]),
    ("slice set DEV/101 mtu 9979", 2, &["mtu 9979", "68 to 9978"]),
    ("slice set DEV/101 speed 9", 2, &["\"speed\"", "state, hw_addr, link"]),
    // Faults and looks inside.
    ("fault add fail", 2, &["a command is missing", "sfnic list commands"]),
    ("fault add explode", 2, &["explode"]),
    ("fault add drop frames pf=9", 2, &["pf"]),
    ("fault del 99", 1, &["no fault 99"]),
    ("fault del some", 2, &["\"some\"", "a number, or all"]),
    ("show queues --kind tir", 2, &["--kind", "queues"]),
    ("show objects --kind chair", 2, &["chair"]),
    ("show vports --function 65536", 2, &["65536"]),
    ("show unmodelled --pf 0", 2, &["--pf"]),
    ("commands --opcode SING", 2, &["SING", "sfnic list commands"]),
    ("events --only weather", 2, &["weather", "vhca_state"]),
];

#[test]
fn what_is_wrong_is_one_line_and_the_right_status() {
    let stage = Stage::new(Manager::Embedded, None);
    let _netdevs = stage.populate();
    let before = stage.rig.nic.slices();
    for (words, status, parts) in REFUSED {
        let output = ctl(&stage, words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{words}: {text}");
        assert!(output.stdout.is_empty(), "{words}");
        assert_eq!(text.lines().count(), 1, "{words}: {text}");
        assert!(text.starts_with("sfnic: "), "{words}: {text}");
        for part in parts.iter().map(|p| p.replace("DEV", DEV)) {
            assert!(text.contains(&part), "{words}: {part:?} is not in {text:?}");
        }
        assert_eq!(stage.rig.nic.slices(), before, "{words} has changed something");
    }
}

#[test]
fn a_detaching_slice_is_refused_with_its_reason() {
    let stage = Stage::new(Manager::Embedded, None);
    let _netdevs = stage.populate();
    assert_eq!(ctl(&stage, "slice set DEV/100 state inactive").status.code(), Some(0));
    for words in ["slice set DEV/100 state active", "slice del DEV/100"] {
        let output = ctl(&stage, words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{words}: {text}");
        assert!(text.contains("slice 100 is detaching") && text.contains("reset of pf 0"), "{text}");
    }
    let output = ctl(&stage, "slice set DEV/100 mtu 1400");
    assert!(String::from_utf8(output.stderr).unwrap().contains("slice 100 is detaching"));
}

#[test]
fn a_host_that_manages_its_eswitch_is_named() {
    let stage = Stage::new(Manager::Host, None);
    for words in ["slice add DEV flavour pcisf pfnum 0 sfnum 4", "slice set DEV/0 state inactive", "slice del DEV/0"] {
        let output = ctl(&stage, words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{words}: {text}");
        assert!(text.contains("devlink") && text.contains("embedded"), "{words}: {text}");
    }
}

/// The RFC's examples: what is printed has its keys and values.
#[test]
fn the_examples_of_the_rfc_print_what_it_says() {
    let stage = Stage::new(Manager::Embedded, None);
    let json = |words: &str| -> serde_json::Value {
        let output = ctl(&stage, words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let added = json("slice add DEV flavour pcisf pfnum 0 sfnum 4 index 100 -j");
    let slice = |v: &serde_json::Value| v["slice"][format!("{DEV}/100")].clone();
    let has = |v: serde_json::Value, keys: &[(&str, serde_json::Value)]| {
        for (key, value) in keys {
            assert_eq!(&v[key], value, "{key} of {v}");
        }
    };
    let what = [("flavour", "pcisf".into()), ("pfnum", 0.into()), ("sfnum", 4.into())];
    let state = |s: &str, o: &str| [("state", s.into()), ("opstate", o.into())];
    has(slice(&added), &what);
    has(slice(&added), &state("inactive", "detached"));
    has(slice(&added), &[("hw_addr", "00:00:00:00:00:00".into())]);
    assert!(ctl(&stage, "slice set DEV/100 hw_addr 00:00:00:00:88:88").status.success());
    has(slice(&json("slice show DEV/100 -jp")), &[("hw_addr", "00:00:00:00:88:88".into())]);
    assert!(ctl(&stage, "slice set DEV/100 state active").status.success());
    has(slice(&json("slice show DEV/100 -jp")), &state("active", "detached"));
    let _host = stage.rig.pf(0).bring_up().unwrap();
    let sf = stage.rig.sf(0, 0).bring_up().unwrap();
    has(slice(&json("slice show DEV/100 -jp")), &state("active", "attached"));
    assert!(ctl(&stage, "slice set DEV/100 state inactive").status.success());
    has(slice(&json("slice show DEV/100 -jp")), &state("inactive", "detaching"));
    sf.disable().unwrap();
    has(slice(&json("slice show DEV/100 -jp")), &state("inactive", "detached"));
    assert!(ctl(&stage, "slice del DEV/100").status.success());
    assert!(json("slice show -j")["slice"].get(format!("{DEV}/100")).is_none());
    // Ports, devices and resources by the same handle.
    assert_eq!(json("port show -j")["port"][format!("{DEV}/0")]["flavour"], "pcipf");
    assert_eq!(json("port show -j")["port"][format!("{DEV}/65535")]["name"], "p0");
    assert_eq!(json("dev show -j")["dev"][DEV]["eswitch"], "embedded");
    assert_eq!(json("resource show -j")["resource"][format!("{DEV}/0")]["max_sfs"], 8);
}

#[test]
fn wires_are_set_and_captures_taken() {
    let stage = Stage::new(Manager::Embedded, None);
    let _netdevs = stage.populate();
    let said = |words: &str| {
        let out = ctl(&stage, words);
        assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(said("wire set p0 in delay=5ms loss=0.25 seed=7"), "");
    let shown = said("wire show p0");
    assert!(shown.contains("delay=5ms loss=0.25 seed=7") && shown.contains("100G"), "{shown}");
    assert!(said("show wires").lines().count() == 5 && said("show switches") == "nothing\n");
    assert!(said("metrics").contains("sfnic_wire_impaired_frames_total{port=\"p0\",direction=\"in\",fate=\"lost\"} 0"));
    said("wire set p0 off");
    assert!(!said("wire show p0").contains("delay"));

    let file = stage.dir.path().join("x.pcapng");
    let started = said(&format!("capture start --port pf0sf4 --port uplink0 --snap 96 --file {}", file.display()));
    assert_eq!(started, "1\n");
    assert!(said("capture show").contains("pf0sf4 uplink0"));
    assert_eq!(said("capture stop"), format!("{}: 0 frames of no port\n", file.display()));
    assert_eq!(std::fs::read(file).unwrap()[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert_eq!(said("capture stop all"), "");
}
