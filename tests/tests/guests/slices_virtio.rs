//! Two machines at one device: one has a physical function and manages its eswitch, two
//! slices are virtio network devices of the other.

use std::time::{Duration, Instant};

use anyhow::Result;
use sfnic_ci::{check, kernel_log, scripts};
use sfnic_device_model::nic::CardConfig;
use sfnic_device_model::slice::Flavour;
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::config::SliceConfig;
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::vm::VirtioNet;
use sfnic_qemu::{Guest, Kit, KitOptions, Outcome, What};

/// Variable with which transfers are of so many MiB, instead of few.
const SIZE: &str = "SFNIC_SIZE_MIB";

/// How much scripts are to transfer, where somebody says so.
fn size() -> Vec<(String, String)> {
    std::env::var(SIZE).into_iter().map(|mib| ("SIZE_MIB".to_owned(), mib)).collect()
}

/// How long a machine may take.
fn patience() -> Duration {
    let mib: u64 = std::env::var(SIZE).ok().and_then(|mib| mib.parse().ok()).unwrap_or(0);
    Duration::from_secs(400 + 4 * mib)
}

/// What a machine's script found wrong.
fn faults(who: &str, outcome: &Outcome, killed: bool) -> Vec<String> {
    let checks = check::parse(&String::from_utf8_lossy(&outcome.stdout));
    let mut faults: Vec<String> =
        checks.iter().filter_map(|c| Some(format!("{who}: {}: {}", c.name, c.failure()?))).collect();
    if checks.is_empty() {
        faults.push(format!("{who}: it checked nothing: {}", String::from_utf8_lossy(&outcome.stderr)));
    }
    if let (Some(why), false) = (&outcome.failure, killed) {
        faults.push(format!("{who}: {why}"));
    }
    faults.extend(kernel_log::faults(&outcome.dmesg).into_iter().map(|line| format!("{who}: kernel: {line}")));
    faults
}

#[test]
fn virtio_slices_have_representors_and_their_machine_may_die() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("sfnic-lab-").tempdir()?;
    let (pfs, share) = ([dir.path().join("pf0"), dir.path().join("pf1")], dir.path().join("host"));
    let slice = |number: u32| SliceConfig {
        flavour: Flavour::Virtio,
        pf: 0,
        number,
        index: 100 + number,
        hw_addr: [2, 0, 0, 0, 0, number as u8],
        active: false,
        socket: None,
        vectors: None,
    };
    let mut cards = vec![CardConfig::default(), CardConfig::default()];
    cards[1].mac[5] = 1;
    let board = Board::new(BoardConfig {
        cards,
        wires: vec![WireKind::Cable, WireKind::Cable],
        slices: vec![slice(9), slice(10)],
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(&pfs)?;
    std::fs::create_dir(&share)?;
    scripts::write(&share)?;
    let kit = Kit::ensure(&KitOptions::default(), DEFAULT_LINE)?;
    let guest = |script: &str| Guest {
        mem: "1G".to_owned(),
        share: Some(share.clone()),
        what: What::Command(vec!["python3".into(), format!("/host/{script}").into()]),
        env: size(),
        timeout: Some(patience()),
        capture: true,
        quiet: true,
        extra_args: vec!["-device".into(), "isa-debug-exit,iobase=0xf4,iosize=0x04".into()],
        ..Guest::new()
    };
    let a = Guest { slots: vec![pfs.to_vec()], ..guest("slice_manager.py") };
    let devices = [9u8, 10].map(|number| VirtioNet {
        socket: dir.path().join(format!("slice{}.sock", 100 + u32::from(number))),
        queues: 2,
        mac: [2, 0, 0, 0, 0, number],
    });
    let b = |life: &str| Guest {
        virtio: devices.to_vec(),
        env: [vec![("LIFE".to_owned(), life.to_owned())], size()].concat(),
        ..guest("slice_virtio.py")
    };
    let (first, second) = (b("first"), b("second"));
    let _turn = Turn::wait(capacity())?;
    let (a, lives) = std::thread::scope(|scope| {
        let a = scope.spawn(|| a.run(&kit));
        let waiting = Instant::now();
        while !share.join("a.listens").exists() && waiting.elapsed() < Duration::from_secs(200) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let lives = [first.run(&kit), second.run(&kit)];
        (a.join().expect("no panic"), lives)
    });
    let [first, second] = lives;
    let mut wrong = faults("a", &a?, false);
    wrong.extend(faults("b", &first?, true));
    wrong.extend(faults("b again", &second?, false));
    for link in board.slice_links() {
        let c = link.1.counters();
        if c.errors != 0 || c.up {
            wrong.push(format!("slice {}: {c:?}", link.0));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
