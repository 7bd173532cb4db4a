//! Three machines at one device: a physical function with two SFs, a slice that is a virtual
//! function, and one that is a virtio network device.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use sfnic_device_model::nic::CardConfig;
use sfnic_device_model::slice::Flavour;
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::capture::{MAX_SNAP, Spec};
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::vm::VirtioNet;
use sfnic_qemu::{Guest, Outcome};
use sfnic_tests::machines::{Stage, faults, left, slice};

#[test]
fn three_machines_meet_in_one_eswitch() -> Result<()> {
    let stage = Stage::new()?;
    let (pf, file) = (stage.path("pf0"), stage.path("all.pcapng"));
    let board = Board::new(BoardConfig {
        cards: vec![CardConfig::default()],
        wires: vec![WireKind::None],
        slices: vec![slice(Flavour::Passthrough, 88), slice(Flavour::Virtio, 99)],
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(std::slice::from_ref(&pf))?;
    board.captures.start(Spec { file: file.clone(), ports: vec![], snap: MAX_SNAP })?;
    let guest = |script, name, number| Guest {
        mem: "512M".to_owned(),
        ..stage.guest(script, &[("NAME", name), ("NUMBER", number)])
    };
    let device = VirtioNet { socket: stage.slice(199), queues: 1, mac: [2, 0, 0, 0, 0, 99] };
    let machines = [
        Guest { slots: vec![vec![pf]], ..guest("three_manager.py", "a", "0") },
        Guest { slots: vec![vec![stage.slice(188)]], no_driver: true, ..guest("three_guest.py", "b", "88") },
        Guest { virtio: vec![device], ..guest("three_guest.py", "c", "99") },
    ];
    let _turn = Turn::wait(capacity())?;
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let all: Vec<_> = machines.iter().map(|m| scope.spawn(|| m.run(&stage.kit))).collect();
        all.into_iter().map(|m| m.join().expect("no panic")).collect()
    });
    let mut wrong = vec![];
    for (who, outcome) in ["a", "b", "c"].into_iter().zip(outcomes) {
        wrong.extend(faults(who, &outcome?));
    }
    board.halt();
    wrong.extend(left(&board));
    for done in board.captures.stop_all() {
        wrong.extend(done.error.map(|e| format!("capture: {e}")));
    }
    wrong.extend(captured(&std::fs::read(&file)?)?);
    wrong.extend(tshark(&file)?);
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}

/// A marked frame at a port: who sent it, to whom, which one, and whether the port's function
/// sent it.
type Seen = (u8, u8, u8, bool);

/// Holds the capture of each port against what was sent: exactly that.
fn captured(data: &[u8]) -> Result<Vec<String>> {
    const EACH: u8 = 5;
    const ALL: [u8; 4] = [1, 2, 88, 99];
    const BRIDGED: [u8; 3] = [1, 88, 99];
    let mut wrong = vec![];
    let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for (port, outbound, frame) in pcapng(data)? {
        let Some(at) = frame.windows(8).position(|w| w == b"sfnicFLO") else { continue };
        let number = frame.get(at + 8..at + 12).context("a frame that was cut")?;
        seen.entry(port).or_default().push((number[1], number[2], number[3], outbound));
    }
    for port in ALL {
        let mut want = BTreeSet::new();
        for (other, n) in ALL.iter().filter(|o| **o != port).flat_map(|o| (0..EACH).map(move |n| (*o, n))) {
            want.insert((port, other, n, true));
            if BRIDGED.contains(&port) && BRIDGED.contains(&other) {
                want.insert((other, port, n, false));
            }
        }
        let name = format!("pf0sf{port}");
        let got = seen.remove(&name).unwrap_or_default();
        let set: BTreeSet<Seen> = got.iter().copied().collect();
        if set != want || got.len() != want.len() {
            let (missing, extra): (Vec<_>, Vec<_>) = (want.difference(&set).collect(), set.difference(&want).collect());
            wrong.push(format!("{name}: {} frames; missing {missing:?}, too many {extra:?}", got.len()));
        }
    }
    // The manager's own port sees what its bridge had to carry, and the physical port nothing.
    for (from, to, ..) in seen.remove("pf0").unwrap_or_default() {
        if from != 2 && to != 2 && !(BRIDGED.contains(&from) && BRIDGED.contains(&to)) {
            wrong.push(format!("pf0: a frame from {from} to {to}"));
        }
    }
    wrong.extend(seen.into_iter().map(|(port, got)| format!("{port}: {got:?}")));
    Ok(wrong)
}

/// The frames of a file: their interface, whether they are outbound, their bytes.
fn pcapng(data: &[u8]) -> Result<Vec<(String, bool, &[u8])>> {
    const INTERFACE: u32 = 1;
    const PACKET: u32 = 6;
    let word = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
    let mut names: Vec<String> = vec![];
    let mut frames = vec![];
    let mut at = 0;
    while at < data.len() {
        let (kind, len) = (word(at).context("type")?, word(at + 4).context("length")? as usize);
        anyhow::ensure!(len >= 12 && len.is_multiple_of(4) && at + len <= data.len(), "a block of {len} bytes at {at}");
        anyhow::ensure!(word(at + len - 4) == Some(len as u32), "the block at {at} ends in another length");
        let options = |from: usize| {
            let mut found: BTreeMap<u16, &[u8]> = BTreeMap::new();
            let mut o = from;
            while let Some(head) = word(o).filter(|_| o + 4 < at + len) {
                let (code, n) = (head as u16, (head >> 16) as usize);
                let Some(value) = data.get(o + 4..o + 4 + n).filter(|_| code != 0) else { break };
                found.insert(code, value);
                o += 4 + n.next_multiple_of(4);
            }
            found
        };
        match kind {
            INTERFACE => {
                let name = options(at + 16).get(&2).map(|n| String::from_utf8_lossy(n).into_owned());
                names.push(name.context("an interface without a name")?);
            }
            PACKET => {
                let n = word(at + 20).context("captured length")? as usize;
                let bytes = data.get(at + 28..at + 28 + n).context("a frame past its block")?;
                let flags = options(at + 28 + n.next_multiple_of(4));
                let flags = flags.get(&2).and_then(|f| f.first()).copied().context("a frame without a direction")?;
                let name = names.get(word(at + 8).context("interface")? as usize).context("an unknown interface")?;
                frames.push((name.clone(), flags & 3 == 2, bytes));
            }
            _ => {}
        }
        at += len;
    }
    anyhow::ensure!(!frames.is_empty(), "no frames");
    Ok(frames)
}

/// What tshark thinks of the file, where there is one.
fn tshark(file: &std::path::Path) -> Result<Option<String>> {
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-Y", "udp.port == 2000"];
    match std::process::Command::new("tshark").arg("-r").arg(file).args(fields).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skip tshark: this machine has none");
            Ok(None)
        }
        out => {
            let out = out?;
            let lines = String::from_utf8_lossy(&out.stdout).lines().filter(|l| l.starts_with("pf0sf")).count();
            // Three that are bridged send 15 each and get 10, the fourth sends 15.
            let fine = out.status.success() && lines == 3 * 25 + 15;
            Ok((!fine).then(|| format!("tshark: {} frames, {}", lines, String::from_utf8_lossy(&out.stderr))))
        }
    }
}
