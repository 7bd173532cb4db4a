//! Configurations that are read, and those that are refused.

use super::*;
use crate::wire::Interface;

pub(super) fn config(text: &str) -> Config {
    read(text, "nic.toml", None).unwrap()
}

/// The error without the name of the file.
pub(super) fn error(text: &str) -> String {
    let e = read(text, "nic.toml", None).unwrap_err().to_string();
    assert_eq!(e.lines().count(), 1, "{e}");
    e.strip_prefix("nic.toml: ").unwrap().to_owned()
}

#[test]
fn the_defaults_are_two_ports_on_a_cable() {
    let c = Config::default();
    assert_eq!(c.profile.name, DEFAULT_PROFILE);
    assert_eq!(c.workers, 1);
    let wires: Vec<&WireKind> = c.pfs.iter().map(|p| &p.wire).collect();
    assert_eq!(wires, [&WireKind::Cable, &WireKind::Cable]);
    assert_ne!(c.pfs[0].card.mac, c.pfs[1].card.mac);
    let board = c.into_board();
    assert!(matches!(board.wires[..], [WireKind::Cable, WireKind::Cable]));
    assert_eq!(board.cards.len(), 2);
}

#[test]
fn every_key_is_read() {
    let c = config(
        "profile = 'connectx6dx'\nworkers = 0\neswitch = 'embedded'\nhandle = 'pci/x'\n[[pf]]\nmac = '02:00:00:00:00:0A'\nvectors = 8\nmax_sfs = 0\n\
         sf_window = '1M'\nsf_base = 0x4000\nwire = 'tap:nic0'\n[[pf]]\nlog_sf_window = 16\nwire = 'loopback'",
    );
    assert_eq!((c.workers, c.handle.as_str()), (0, "pci/x"));
    assert!(c.pfs.iter().all(|p| p.card.manager == Manager::Embedded));
    let card = &c.pfs[0].card;
    assert_eq!((card.mac, card.vectors, card.max_sfs), ([2, 0, 0, 0, 0, 10], 8, 0));
    assert_eq!((card.log_sf_window, card.sf_base), (20, 0x4000));
    assert_eq!(c.pfs[0].wire, WireKind::Tap(Interface::new("nic0")));
    assert_eq!(c.pfs[1].card.log_sf_window, 16);
    assert_eq!(c.pfs[1].wire, WireKind::Loopback);
}

#[test]
fn faults_are_read_and_what_is_wrong_is_named() {
    assert_eq!(config("faults = ['fail NOP nth=3', 'drop frames pf=1 p=0.1']").into_board().faults.len(), 2);
    assert!(error("faults = ['fail NOP', 'fail']").starts_with("faults[1]: a command is missing"));
    assert_eq!(error("faults = ['stop health pf=2']"), "faults[0]: pf = \"2\": allowed is 0 to 1");
}

#[test]
fn wires_have_defaults() {
    let wires = |text| config(text).pfs.into_iter().map(|p| p.wire).collect::<Vec<_>>();
    use WireKind::{Cable, Loopback, None};
    assert_eq!(wires("[[pf]]"), [None]);
    assert_eq!(wires("[[pf]]\n[[pf]]\nvectors = 9"), [Cable, Cable]);
    assert_eq!(wires("[[pf]]\nwire = 'cable'\n[[pf]]"), [Cable, Cable]);
    assert_eq!(wires("[[pf]]\nwire = 'loopback'\n[[pf]]"), [Loopback, None]);
    assert_eq!(wires("[[pf]]\n[[pf]]\n[[pf]]"), [None, None, None]);
}

#[test]
fn syntax_errors_have_a_line() {
    assert!(error("workers = 1\nworkers = = 2").starts_with("line 2: "));
    assert!(error("workers = 1\nworkers = 2").starts_with("line 2: "));
}

#[test]
fn unknown_keys_are_named_with_the_known_ones() {
    assert_eq!(
        error("worker = 2"),
        "worker = 2: no such key; there is profile, caps, workers, doorbells, eswitch, handle, noise, faults, capture, switch, pf, slice"
    );
    let keys = PF_KEYS.join(", ");
    assert_eq!(
        error("[[pf]]\n[[pf]]\nmacc = 'x\ny'").split_once(": ").unwrap().0.lines().count(),
        1,
        "one line whatever the value"
    );
    assert_eq!(error("[[pf]]\n[[pf]]\nmacc = 1"), format!("pf[1].macc = 1: no such key; there is {keys}"));
}

#[test]
fn profiles_are_names_or_files() {
    assert_eq!(
        error("profile = 'connectx9'"),
        "profile = \"connectx9\": allowed is connectx6dx or the path of a profile (FILE.toml)"
    );
    assert_eq!(error("profile = 5"), "profile = 5: allowed is a name or a path in quotes");
    assert!(error("profile = './nowhere.toml'").starts_with("profile = \"./nowhere.toml\": cannot read it: "));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.toml"), "name = 'x'\n").unwrap();
    std::fs::write(dir.path().join("nic.toml"), "profile = 'p.toml'\n").unwrap();
    let e = Config::load(Some(&dir.path().join("nic.toml"))).unwrap_err().to_string();
    assert!(e.contains("profile = \"p.toml\": missing field `vendor_id`"), "{e}");
    assert_eq!(e.lines().count(), 1);
}

#[test]
fn numbers_have_ranges() {
    assert_eq!(error("workers = 9"), "workers = 9: allowed is 0 to 8");
    assert_eq!(error("workers = 'two'"), "workers = \"two\": allowed is 0 to 8");
    assert_eq!(error("[[pf]]\nvectors = 0"), "pf[0].vectors = 0: allowed is 1 to 256");
    assert_eq!(error("[[pf]]\nmax_sfs = 257"), "pf[0].max_sfs = 257: allowed is 0 to 256");
    assert_eq!(error("[[pf]]\nlog_sf_window = 13"), "pf[0].log_sf_window = 13: allowed is 14 to 24");
    assert_eq!(error("[[pf]]\nsf_base = 5"), "pf[0].sf_base = 5: allowed is 0x100 to 0xf000");
}

#[test]
fn windows_are_powers_of_two() {
    for bad in ["100K", "8K", "32M", "K", "1G", "-1K", ""] {
        assert_eq!(
            error(&format!("[[pf]]\nsf_window = '{bad}'")),
            format!("pf[0].sf_window = \"{bad}\": allowed is a power of two from \"16K\" to \"16M\"")
        );
    }
    assert_eq!(
        error("[[pf]]\nlog_sf_window = 18\nsf_window = '256K'"),
        "pf[0].sf_window = \"256K\": allowed without log_sf_window"
    );
}

#[test]
fn addresses_are_unicast_and_distinct() {
    for bad in ["01:00:00:00:00:00", "00:00:00:00:00:00", "52:54:00:5f:00", "52:54:00:5f:00:0x", "5254005f0000"] {
        let e = error(&format!("[[pf]]\nmac = '{bad}'"));
        assert!(e.starts_with(&format!("pf[0].mac = \"{bad}\": allowed is six pairs")), "{e}");
    }
    assert_eq!(
        error("[[pf]]\nmac = '52:54:00:5f:00:01'\n[[pf]]"),
        "pf[1].mac = \"52:54:00:5f:00:01\": allowed is an address that pf[0] does not have"
    );
}

#[test]
fn wires_are_known_and_cables_have_two_ends() {
    let allowed = format!("allowed is {WIRES}");
    assert_eq!(
        config("[[pf]]\nwire = 'vhost-user:/a'\n[[pf]]\nwire = 'vhost-user:/a,client'").pfs[1].wire,
        WireKind::Vhost(crate::wire::vhost::Meeting::Client("/a".into()))
    );
    for bad in ["vhost-user:", "vhost-user:,client", "vhost-user:/a,b"] {
        assert!(error(&format!("[[pf]]\nwire = '{bad}'")).contains("allowed is PATH or PATH,client"));
    }
    assert_eq!(error("[[pf]]\nwire = 'fibre'"), format!("pf[0].wire = \"fibre\": {allowed}"));
    assert_eq!(error("[[pf]]\nwire = 3"), format!("pf[0].wire = 3: {allowed}"));
    const TAP: &str = "\"tap:\" and an interface of 1 to 15 characters without a comma, and perhaps ,queues=N (1 to 8)";
    let queues = |n| WireKind::Tap(Interface { name: "a".to_owned(), queues: n });
    assert_eq!(config("[[pf]]\nwire = 'tap:a,queues=8'").pfs[0].wire, queues(8));
    assert_eq!(config("[[pf]]\nwire = 'tap:a,queues=1'").pfs[0].wire, queues(1));
    let bad_queues = ["tap:a,", "tap:a,queues=", "tap:a,queues=0", "tap:a,queues=9", "tap:a,b", "tap:,queues=2"];
    for bad in ["tap:", "tap:a/b", "tap:0123456789abcdef", "tap:eth%d"].into_iter().chain(bad_queues) {
        let e = error(&format!("[[pf]]\nwire = '{bad}'"));
        assert_eq!(e, format!("pf[0].wire = \"{bad}\": allowed is {TAP}"));
    }
    let cable = "wire = \"cable\": allowed with exactly two [[pf]] that both have it";
    assert_eq!(error("[[pf]]\nwire = 'cable'"), format!("pf[0].{cable}"));
    assert_eq!(error("[[pf]]\nwire = 'none'\n[[pf]]\nwire = 'cable'"), format!("pf[1].{cable}"));
    assert_eq!(error("[[pf]]\nwire = 'cable'\n[[pf]]\n[[pf]]"), format!("pf[0].{cable}"));
    assert_eq!(
        error("[[pf]]\nwire = 'tap:a'\n[[pf]]\nwire = 'tap:a,queues=2'"),
        "pf[1].wire: allowed is a wire that pf[0] does not have"
    );
}

#[test]
fn there_are_one_to_four_physical_functions() {
    assert_eq!(error("pf = []"), "pf = []: allowed is 1 to 4 sections [[pf]]");
    assert_eq!(error("[pf]\nmac = 1"), "pf = {…}: allowed is 1 to 4 sections [[pf]]");
    assert_eq!(error(&"[[pf]]\n".repeat(5)), "pf = [… 5 values]: allowed is 1 to 4 sections [[pf]]");
    assert_eq!(config(&"[[pf]]\n".repeat(4)).pfs.len(), 4);
}

#[test]
fn a_missing_file_is_named() {
    let e = Config::load(Some(Path::new("/nonexistent/nic.toml"))).unwrap_err().to_string();
    assert!(e.starts_with("/nonexistent/nic.toml: cannot read it: "), "{e}");
}
