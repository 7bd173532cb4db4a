//! The program from outside: wrong flags and configurations, and the lists.

use std::path::Path;
use std::process::{Command, Output};

fn sfnic(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfnic"));
    command.args(args).env_remove("SFNIC_LOG").output().unwrap()
}

/// The one line that a wrong use is answered with.
fn refused(args: &[&str]) -> String {
    let output = sfnic(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text:?}");
    text.strip_prefix("sfnic: ").unwrap().trim_end().to_owned()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn wrong_flags_are_named_with_what_is_allowed() {
    has(&refused(&["fly"]), &["fly", "demo, vm, run, "]);
    has(&refused(&["--loud"]), &["--loud", "--verbose"]);
    has(&refused(&["vm", "--colour"]), &["--colour", "`vm`", "--kernel, --modules, --config, --mem"]);
    has(&refused(&["vm", "ls"]), &["ls", "a command comes after --"]);
    has(&refused(&["vm", "--cpus", "many"]), &["--cpus", "\"many\"", "1 to 64"]);
    has(&refused(&["vm", "--mem", "2"]), &["--mem", "\"2\"", "256M to 1024G"]);
    has(&refused(&["vm", "--kernel", "2.6"]), &["--kernel", "\"2.6\"", "7.2", "path"]);
    has(&refused(&["vm", "--timeout", "0"]), &["--timeout", "\"0\"", "1 to"]);
    has(&refused(&["vm", "--share", "/nonexistent"]), &["--share", "/nonexistent", "a directory"]);
    has(&refused(&["vm", "--script", "/nonexistent"]), &["--script", "/nonexistent", "can be read"]);
    has(&refused(&["vm", "--dmesg", "/nonexistent/log", "--", "true"]), &["--dmesg", "/nonexistent/log", "written"]);
    has(&refused(&["vm", "--explain-count", "0"]), &["--explain-count", "\"0\"", "1 to"]);
    has(&refused(&["run", "--explain-count", "1"]), &["--explain"]);
    has(&refused(&["kit", "build", "--kernel", "1.0"]), &["--kernel", "\"1.0\"", "7.2"]);
    has(&refused(&["kit", "build", "--mirror", "nowhere"]), &["--mirror", "\"nowhere\"", "http://"]);
    has(&refused(&["list", "wires"]), &["wires", "commands, caps, registers"]);
    has(&refused(&["list", "caps", "--profile", "connectx9"]), &["--profile", "\"connectx9\"", "connectx6dx"]);
}

#[test]
fn a_socket_is_wanted_for_each_function() {
    has(&refused(&["run", "--socket", "/tmp/one"]), &["--socket", "/tmp/one", "allowed is 2 times"]);
}

#[test]
fn wrong_log_filters_are_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfnic"));
    let output = command.args(["list", "registers"]).env("SFNIC_LOG", "a=b=c").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    has(&String::from_utf8(output.stderr).unwrap(), &["SFNIC_LOG", "a=b=c", "debug"]);
}

#[test]
fn wrong_configurations_name_file_key_value_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nic.toml");
    let cases: &[(&str, &[&str])] = &[
        ("workers = 99", &["workers = 99", "0 to 8"]),
        (
            "speed = 100",
            &["speed", "profile, caps, workers, doorbells, eswitch, handle, noise, faults, capture, switch, pf, slice"],
        ),
        ("profile = 'connectx9'", &["profile = \"connectx9\"", "connectx6dx"]),
        ("workers = ", &["line 1"]),
        ("[[pf]]\nmac = 'ff:ff:ff:ff:ff:ff'", &["pf[0].mac", "\"ff:ff:ff:ff:ff:ff\"", "no multicast"]),
        ("[[pf]]\n[[pf]]\nmax_sfs = 1000", &["pf[1].max_sfs = 1000", "0 to 256"]),
        (
            "[[pf]]\nwire = 'string'",
            &["pf[0].wire = \"string\"", "\"cable\", \"loopback\", \"switch:NAME\", \"tap:NAME[,queues=N]\""],
        ),
        ("[[pf]]\nwire = 'cable'", &["pf[0].wire = \"cable\"", "two [[pf]]"]),
        ("[[pf]]\nsf_window = '1K'", &["pf[0].sf_window = \"1K\"", "\"16K\" to \"16M\""]),
        ("[[pf]]\nlanes = 4", &["pf[0].lanes", "mac, vectors, max_sfs"]),
    ];
    for (text, parts) in cases {
        std::fs::write(&file, text).unwrap();
        for command in ["run", "vm"] {
            let said = refused(&[command, "--config", file.to_str().unwrap()]);
            has(&said, &[file.to_str().unwrap()]);
            has(&said, parts);
        }
    }
    has(&refused(&["run", "--config", "/nonexistent.toml"]), &["/nonexistent.toml", "cannot read"]);
}

#[test]
fn a_kernel_that_is_not_there_is_named() {
    has(&refused(&["vm", "--kernel", "./vmlinuz", "--", "true"]), &["./vmlinuz"]);
    has(&refused(&["vm", "--kernel", "7.2", "--modules", "/nonexistent", "--", "true"]), &["--modules"]);
}

#[test]
fn help_is_no_failure_and_teaches() {
    for args in [&["--help"][..], &["vm", "--help"], &["run", "--help"]] {
        let output = sfnic(args);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        has(&text, &["Usage:", "Examples:", "sfnic "]);
        assert!(!text.contains('\u{1b}'));
    }
    assert_eq!(sfnic(&[]).status.code(), Some(2));
}

#[test]
fn lists_are_json_with_stable_keys() {
    let list = |what: &str| -> Vec<serde_json::Value> {
        let output = sfnic(&["list", what, "--json"]);
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let commands = list("commands");
    let command = |name: &str| commands.iter().find(|c| c["name"] == name).unwrap();
    assert_eq!(command("ENABLE_HCA")["opcode"], 0x104);
    assert_eq!(command("ENABLE_HCA")["implemented"], true);
    assert_eq!(command("FPGA_QUERY_QP")["implemented"], false);
    let caps = list("caps");
    let cap = |field: &str| caps.iter().find(|c| c["field"] == field).unwrap();
    assert_eq!(cap("sf_eq_usage")["group"], "general2");
    assert!(cap("log_max_cq")["pf_max"].as_u64().unwrap() > 0);
    let registers = list("registers");
    assert!(registers.iter().any(|r| r["name"] == "PAOS" && r["id"] == 0x5006 && r["writable"] == true));
}

/// The device process on sockets of its own: it tells how to attach, and a signal ends it.
#[test]
fn the_device_runs_until_a_signal() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let dir = tempfile::tempdir().unwrap();
    let sockets = ["a", "b"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let args = ["run", "--strict", "--socket", &sockets[0], "--socket", &sockets[1]];
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfnic"));
    let mut device = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(device.stdout.take().unwrap()).read_line(&mut line).unwrap();
    has(&line, &["vfio-user-pci", "memory-backend-memfd", &sockets[0], &sockets[1]]);
    assert!(sockets.iter().all(|s| Path::new(s).exists()));

    let second = sfnic(&args);
    assert_eq!(second.status.code(), Some(1), "the sockets are taken");
    has(&String::from_utf8(second.stderr).unwrap(), &[&sockets[0]]);

    let pid = rustix::process::Pid::from_child(&device);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(device.wait().unwrap().code(), Some(0));
    assert!(!sockets.iter().any(|s| Path::new(s).exists()), "the sockets go with the device");
}
