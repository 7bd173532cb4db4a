//! Peers of a device's wires that are killed in the middle of traffic: the others go on, and
//! nothing of the dead is left in the device's process.
//!
//! The device is `sfnic run` whose switch has a further wire of each kind; no guest is needed.
//! Peers are `sfnic run` too: their switches join a wire and a capture that is replayed.

mod process;
mod vhost;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use process::{Process, Usage};
use serde_json::Value;

/// How often each peer is killed.
const LIVES: usize = 4;

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Frames in bursts of 50, a burst each 5 ms.
fn capture(path: &Path, from: u8) {
    let mut file: Vec<u8> =
        [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, 65535, 1u32].iter().flat_map(|n| n.to_ne_bytes()).collect();
    for n in 0..200u32 {
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, from], &[0x88, 0xb5], &[from; 600]].concat();
        let head = [0, n / 50 * 5_000_000, frame.len() as u32, frame.len() as u32];
        file.extend(head.iter().flat_map(|n| n.to_ne_bytes()));
        file.extend(frame);
    }
    std::fs::write(path, file).unwrap();
}

/// The configuration of a switch that these wires are at, and a port of the device.
fn switch(wires: &[String]) -> String {
    format!("[[pf]]\nwire = 'switch:x'\n[[switch]]\nname = 'x'\nwires = {wires:?}\n")
}

/// A peer that sends all the time.
fn peer(dir: &Path, name: &str, wire: String, from: u8) -> Process {
    let frames = dir.join("frames");
    let own = dir.join(format!("frames.{from}"));
    if !own.exists() {
        capture(&frames, from);
        std::fs::rename(frames, &own).unwrap();
    }
    Process::start(dir, name, &switch(&[wire, format!("pcap:{},times=1000000", own.display())]))
}

/// A port of the device's switch.
fn port(device: &Process, number: usize) -> Value {
    device.get("/v1/switches")[0]["ports"][number].clone()
}

fn count(device: &Process, number: usize, key: &str) -> u64 {
    port(device, number)[key].as_u64().unwrap()
}

/// Frames come from a port, and leave for another one.
fn passes(device: &Process, from: usize, to: usize) {
    let (rx, tx) = (count(device, from, "rx_frames"), count(device, to, "tx_frames"));
    until(&format!("traffic from {from} to {to}: {}", device.get("/v1/switches")), || {
        count(device, from, "rx_frames") > rx + 200 && count(device, to, "tx_frames") > tx + 200
    });
}

fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|s| s.local_addr().unwrap().port())
}

#[test]
fn peers_are_killed_and_nothing_of_them_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let [here, there] = free_ports();
    let wires = [
        format!("stream:{}", at("server")),
        format!("stream:{},client", at("client")),
        format!("unix:{},{}", at("a"), at("b")),
        format!("udp:127.0.0.1:{here},127.0.0.1:{there}"),
        format!("stream:{}", at("witness")),
    ];
    // What is at the other end of the first four.
    let theirs = [
        format!("stream:{},client", at("server")),
        format!("stream:{}", at("client")),
        format!("unix:{},{}", at("b"), at("a")),
        format!("udp:127.0.0.1:{there},127.0.0.1:{here}"),
    ];
    let device = Process::start(dir.path(), "device", &switch(&wires));
    let _witness = peer(dir.path(), "witness", format!("stream:{},client", at("witness")), 9);
    let start = |n: usize| peer(dir.path(), &format!("peer{n}"), theirs[n].clone(), n as u8 + 1);
    let mut before: Option<Usage> = None;
    for life in 0..=LIVES {
        let mut peers: Vec<Process> = (0..4).map(start).collect();
        for n in 1..=4 {
            until("its peer is there", || port(&device, n)["up"] == true);
            passes(&device, n, 5);
            passes(&device, 5, n);
        }
        while let Some(peer) = peers.pop() {
            let n = peers.len() + 1;
            peer.kill();
            // Of a UDP peer nobody knows.
            if n != 4 {
                until("its peer is gone", || port(&device, n)["up"] == false);
            }
            for other in 1..n {
                passes(&device, other, 5);
                passes(&device, 5, other);
            }
        }
        // The first life is for what is made once.
        match &before {
            None => before = Some(device.usage()),
            Some(before) => device.uses_no_more(before, &format!("life {life}")),
        }
    }
    device.end();
}

#[test]
fn a_peer_that_does_not_read_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let device = Process::start(
        dir.path(),
        "device",
        &switch(&[
            format!("stream:{}", at("s")),
            format!("unix:{},{}", at("a"), at("b")),
            format!("stream:{}", at("t")),
        ]),
    );
    let sender = peer(dir.path(), "sender", format!("stream:{},client", at("s")), 1);
    let stopped = peer(dir.path(), "stopped", format!("unix:{},{}", at("b"), at("a")), 2);
    let silent = std::os::unix::net::UnixStream::connect(at("t")).unwrap();
    until("both are there", || (1..4).all(|n| port(&device, n)["up"] == true));
    stopped.signal(rustix::process::Signal::STOP);
    for n in [2, 3] {
        until("it cannot take more", || count(&device, n, "lost_frames") > 500);
    }
    let came = count(&device, 1, "rx_frames");
    until("the sender goes on", || count(&device, 1, "rx_frames") > came + 200);
    let used = device.usage();
    std::thread::sleep(Duration::from_millis(300));
    device.uses_no_more(&used, "while nobody reads");
    stopped.signal(rustix::process::Signal::CONT);
    let before = count(&device, 2, "tx_frames");
    until("it reads again", || count(&device, 2, "tx_frames") > before + 200);
    drop((silent, sender));
    until("the silent one is gone", || port(&device, 3)["up"] == false);
    device.end();
}

/// `ip` in the network of a process; false where it fails.
fn ip(network_of: &Process, words: &str) -> bool {
    let net = format!("--net=/proc/{}/ns/net", network_of.id());
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(net).arg("ip").args(words.split(' ')).status().is_ok_and(|s| s.success())
}

#[test]
fn a_tap_interface_goes_down_vanishes_and_comes_back() {
    follows_a_tap_interface("tap:x0", "tuntap add x0 mode tap");
}

#[test]
fn so_does_one_with_two_queues() {
    follows_a_tap_interface("tap:x0,queues=2", "tuntap add x0 mode tap multi_queue");
}

fn follows_a_tap_interface(wire: &str, add: &str) {
    let can = Command::new("unshare").args(["-n", "ip", "tuntap", "add", "x", "mode", "tap"]).output();
    if !can.as_ref().is_ok_and(|o| o.status.success()) {
        let why = can.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_else(|e| e.to_string());
        return eprintln!("skipped: no TAP interface in a network namespace: {}", why.trim());
    }
    let dir = tempfile::tempdir().unwrap();
    let stream = dir.path().join("s");
    let config = switch(&[wire.to_owned(), format!("stream:{}", stream.display())]);
    let device = Process::start_in_network(dir.path(), "device", &config);
    let _sender = peer(dir.path(), "sender", format!("stream:{},client", stream.display()), 1);
    until("the interface is up", || port(&device, 1)["up"] == true);
    passes(&device, 2, 1);
    let before = device.usage();
    for _ in 0..3 {
        assert!(ip(&device, "link set x0 down"));
        until("link down", || port(&device, 1)["up"] == false);
        assert!(ip(&device, "link set x0 up"));
        until("link up", || port(&device, 1)["up"] == true);
        passes(&device, 2, 1);
        assert!(ip(&device, "link del x0"));
        until("the interface is gone", || port(&device, 1)["up"] == false);
        assert!(ip(&device, add));
        until("the interface is back", || port(&device, 1)["up"] == true);
        passes(&device, 2, 1);
        device.uses_no_more(&before, "after the interface came back");
    }
    device.end();
}
