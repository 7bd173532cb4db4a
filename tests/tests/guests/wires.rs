//! Two machines at one wire: a physical function here, a virtio network device there.

use std::time::{Duration, Instant};

use anyhow::Result;
use sfnic_ci::{check, kernel_log, scripts};
use sfnic_device_model::nic::CardConfig;
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_emulator::wire::vhost::Meeting;
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
fn a_switch_and_wires_that_are_impaired() {
    sfnic_tests::run("wires");
}

#[test]
fn a_virtio_guest_at_the_wire_dies_and_comes_back() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("sfnic-lab-").tempdir()?;
    let (pf, port, share) = (dir.path().join("pf0"), dir.path().join("port0"), dir.path().join("host"));
    let board = Board::new(BoardConfig {
        cards: vec![CardConfig::default()],
        wires: vec![WireKind::Vhost(Meeting::Server(port.clone()))],
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(std::slice::from_ref(&pf))?;
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
    let a = Guest { slots: vec![vec![pf]], ..guest("wire_mlx5.py") };
    let device = VirtioNet { socket: port, queues: 2, mac: [2, 0, 0, 0, 0, 2] };
    let b = |life: &str| Guest {
        virtio: vec![device.clone()],
        env: [vec![("LIFE".to_owned(), life.to_owned())], size()].concat(),
        ..guest("wire_virtio.py")
    };
    let (first, second) = (b("first"), b("second"));
    let _turn = Turn::wait(capacity())?;
    let (a, lives) = std::thread::scope(|scope| {
        let a = scope.spawn(|| a.run(&kit));
        // Not before the other one has seen that there is no link without a peer.
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
    let link = board.wires[0].1.counters();
    if (link.ups, link.downs, link.errors, link.tx_lost) != (2, 2, 0, 0) {
        wrong.push(format!("the wire: {link:?}"));
    }
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
