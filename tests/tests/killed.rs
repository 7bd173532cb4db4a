//! A guest whose QEMU is killed in the middle of traffic: the other one goes on, and nothing of
//! the dead is left in the device's process, which is this one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sfnic_device_model::nic::CardConfig;
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::config::SwitchConfig;
use sfnic_emulator::lab::ask;
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::Guest;
use sfnic_tests::machines::{Stage, faults, left};

/// Memory that the device may have more than before the guests, in KiB.
const SLACK: u64 = 32 << 10;

/// The process among our children that has this socket in its arguments.
fn qemu_at(socket: &Path) -> Option<u32> {
    let (socket, own) = (socket.to_str()?, std::process::id());
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()?;
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        (own == parent && String::from_utf8_lossy(&words).contains(socket)).then_some(pid)
    })
}

/// What the descriptors of this process lead to.
fn descriptors() -> Vec<String> {
    let all = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    all.filter_map(|e| Some(std::fs::read_link(e.path()).ok()?.display().to_string())).collect()
}

fn entries(dir: &str) -> Result<usize> {
    Ok(std::fs::read_dir(dir).with_context(|| dir.to_owned())?.count())
}

#[test]
fn the_others_go_on_and_nothing_of_it_is_left() -> Result<()> {
    let stage = Stage::new()?;
    let sockets = [stage.path("pf0"), stage.path("pf1")];
    let mac = |n| [0x52, 0x54, 0, 0x5f, 0, n];
    let lan = SwitchConfig { name: "lan".into(), wires: vec![], ageing: Duration::from_secs(300) };
    let board = Board::new(BoardConfig {
        cards: (0..2).map(|n| CardConfig { mac: mac(n), ..CardConfig::default() }).collect(),
        wires: vec![WireKind::Switch("lan".into()); 2],
        switches: vec![lan],
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(&sockets)?;
    let guest = |pf: usize, script, life| Guest {
        slots: vec![vec![sockets[pf].clone()]],
        ..stage.guest(script, &[("LIFE", life)])
    };
    let a = guest(0, "killed_stays.py", "only");
    let (first, second) = (guest(1, "killed_dies.py", "first"), guest(1, "killed_dies.py", "second"));
    let _turn = Turn::wait(capacity())?;
    let before = (entries("/proc/self/fd")?, entries("/proc/self/task")?, ask::memory().anonymous);
    let (a, dead, second) = std::thread::scope(|scope| {
        let a = scope.spawn(|| a.run(&stage.kit));
        let dies = scope.spawn(|| first.run(&stage.kit));
        let runs = stage.told("a.runs");
        std::thread::sleep(Duration::from_secs(1));
        let killed =
            qemu_at(&sockets[1]).map(|pid| std::process::Command::new("kill").args(["-9", &pid.to_string()]).status());
        let dead = dies.join().expect("no panic");
        let _ = std::fs::write(stage.share.join("b.killed"), "");
        let second = second.run(&stage.kit);
        (a.join().expect("no panic"), (runs, killed, dead), second)
    });
    let mut wrong = faults("a", &a?);
    wrong.extend(faults("b again", &second?));
    let (runs, killed, dead) = dead;
    if !runs || !killed.is_some_and(|k| k.is_ok_and(|s| s.success())) {
        wrong.push("b was not killed in the middle of its traffic".to_owned());
    }
    if dead.is_ok_and(|d| d.failure.is_none() && d.status == 0) {
        wrong.push("b ended well, though it was killed".to_owned());
    }
    // A session ends a moment after its guest.
    let start = Instant::now();
    loop {
        let after = (entries("/proc/self/fd")?, entries("/proc/self/task")?, ask::memory().anonymous);
        if after.0 <= before.0 && after.1 <= before.1 && after.2 <= before.2 + SLACK {
            break;
        }
        if start.elapsed() > Duration::from_secs(10) {
            let open = descriptors();
            wrong.push(format!("descriptors, threads, KiB: {before:?} before, {after:?} after: {open:?}"));
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    wrong.extend(left(&board));
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
