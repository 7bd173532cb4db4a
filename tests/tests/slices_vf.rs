//! Slices that are virtual functions of a machine, where no host is: their life by `sfnic ctl`,
//! and the end of the machine in the middle of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sfnic_ci::{check, kernel_log, scripts};
use sfnic_device_model::nic::{CardConfig, Manager};
use sfnic_device_model::slice::{Flavour, OpState, State};
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::config::SliceConfig;
use sfnic_emulator::control::server::Server;
use sfnic_emulator::control::{DEFAULT_HANDLE, Target};
use sfnic_emulator::lab::ask::{self, Answers};
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Guest, Kit, KitOptions, Outcome, What};

/// What a machine's script found wrong; it ends itself abruptly.
fn faults(life: &str, outcome: &Outcome) -> Vec<String> {
    let said = String::from_utf8_lossy(&outcome.stdout);
    let checks = check::parse(&said);
    let mut faults: Vec<String> =
        checks.iter().filter_map(|c| Some(format!("{life}: {}: {}", c.name, c.failure()?))).collect();
    let want = if life == "first" { 6 } else { 3 };
    if checks.len() != want {
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        faults.push(format!("{life}: {} checks of {want}: {said} {stderr}", checks.len()));
    }
    faults.extend(kernel_log::faults(&outcome.dmesg).into_iter().map(|line| format!("{life}: kernel: {line}")));
    faults
}

#[test]
fn virtual_functions_live_without_a_host() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("sfnic-lab-").tempdir()?;
    let (pf, share) = (dir.path().join("pf0"), dir.path().join("host"));
    let slice = |number: u32| SliceConfig {
        flavour: Flavour::Passthrough,
        pf: 0,
        number,
        index: 99 + number,
        hw_addr: if number == 1 { [2, 0, 0, 0, 0, 0x64] } else { [0; 6] },
        active: number == 1,
        socket: None,
        vectors: Some(9),
    };
    let board = Board::new(BoardConfig {
        cards: vec![CardConfig { manager: Manager::Embedded, ..CardConfig::default() }],
        wires: vec![WireKind::None],
        slices: vec![slice(1), slice(2)],
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(std::slice::from_ref(&pf))?;
    let control = Server::start(Target::new(board.nic.clone(), DEFAULT_HANDLE), &dir.path().join("control"), None)?;
    std::fs::create_dir(&share)?;
    scripts::write(&share)?;
    let kit = Kit::ensure(&KitOptions::default(), DEFAULT_LINE)?;
    let guest = |life: &str| Guest {
        mem: "1G".to_owned(),
        slots: [100, 101].map(|index| vec![dir.path().join(format!("slice{index}.sock"))]).into(),
        share: Some(share.clone()),
        no_driver: true,
        what: What::Command(vec!["python3".into(), "/host/slice_vf.py".into()]),
        env: vec![("LIFE".to_owned(), life.to_owned())],
        timeout: Some(Duration::from_secs(300)),
        capture: true,
        quiet: true,
        extra_args: vec!["-device".into(), "isa-debug-exit,iobase=0xf4,iosize=0x04".into()],
        ..Guest::new()
    };
    let _turn = Turn::wait(capacity())?;
    let (nic, path) = (board.nic.clone(), control.path().to_owned());
    let answers = Answers::start(&share, move |question| ask::answer(&nic, &path, question));
    let mut wrong = vec![];
    // The device may take a moment to see the end of its machine.
    let reaches = |index: u32, want: (State, OpState)| {
        let waiting = Instant::now();
        loop {
            let state = board.nic.slice(index).map(|s| (s.state, s.opstate));
            match state {
                Ok(state) if state == want => return None,
                other if waiting.elapsed() > Duration::from_secs(10) => {
                    return Some(format!("slice {index}: {other:?}"));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    };
    wrong.extend(faults("first", &guest("first").run(&kit)?));
    wrong.extend([100, 101].iter().filter_map(|i| reaches(*i, (State::Active, OpState::Detached))));
    // The next life asks under the same numbers.
    for entry in std::fs::read_dir(&share)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("answer.")) {
            std::fs::remove_file(path)?;
        }
    }
    wrong.extend(faults("second", &guest("second").run(&kit)?));
    wrong.extend(reaches(101, (State::Inactive, OpState::Detached)));
    answers.stop();
    wrong.extend(board.nic.slice_del(101).err().map(|e| e.to_string()));
    let sockets = [100, 101].map(|index| dir.path().join(format!("slice{index}.sock")));
    wrong.extend(sockets.iter().filter(|p| p.exists()).map(|p| format!("{} is still there", p.display())));
    let left = board.nic.object_counts();
    wrong.extend(left.iter().filter(|(_, kinds)| kinds.values().any(|n| *n > 0)).map(|o| format!("left: {o:?}")));
    let unmodelled = board.nic.unmodelled.list();
    wrong.extend(unmodelled.iter().map(|(access, n)| format!("not modelled: {n} × {access}")));
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
