//! Slices that are virtual functions of a machine, where no host is: their life by `sfnic ctl`,
//! and the end of the machine in the middle of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sfnic_ci::check;
use sfnic_device_model::nic::{CardConfig, Manager};
use sfnic_device_model::slice::{Flavour, OpState, State};
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::cli;
use sfnic_emulator::config::SliceConfig;
use sfnic_emulator::control::server::Server;
use sfnic_emulator::control::{DEFAULT_HANDLE, Target};
use sfnic_emulator::lab::ask::{self, Answers};
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::vm::VirtioNet;
use sfnic_qemu::{Guest, Outcome};
use sfnic_tests::machines::{self, Stage, left};

/// What a machine's script found wrong, which ends itself abruptly.
fn faults(life: &str, outcome: &Outcome) -> Vec<String> {
    let mut faults = machines::faults_until_death(life, outcome);
    let said = String::from_utf8_lossy(&outcome.stdout);
    let (checks, want) = (check::parse(&said).len(), if life == "first" { 7 } else { 5 });
    if checks != want {
        faults.push(format!("{life}: {checks} checks of {want}: {said}"));
    }
    faults
}

#[test]
fn virtual_functions_live_without_a_host() -> Result<()> {
    let stage = Stage::new()?;
    let pf = stage.path("pf0");
    let slice =
        |number, index| SliceConfig { index, vectors: Some(9), ..machines::slice(Flavour::Passthrough, number) };
    let slices = vec![
        SliceConfig { hw_addr: [2, 0, 0, 0, 0, 0x64], active: true, ..slice(1, 100) },
        SliceConfig { hw_addr: [0; 6], ..slice(2, 101) },
    ];
    let board = Board::new(BoardConfig {
        cards: vec![CardConfig { manager: Manager::Embedded, ..CardConfig::default() }],
        wires: vec![WireKind::None],
        slices,
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(std::slice::from_ref(&pf))?;
    let control = Server::start(Target::of(&board, DEFAULT_HANDLE, 1), &stage.path("control"), None)?;
    let sockets = [100, 101, 102].map(|index| stage.slice(index));
    // As somebody adds it who has nothing but the command.
    for words in [
        "slice add pci/0000:06:00.0 flavour virtio pfnum 0 sfnum 3 index 102",
        "slice set pci/0000:06:00.0/102 hw_addr 02:00:00:00:00:66",
    ] {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let said = cli::ctl_said(control.path(), &words);
        anyhow::ensure!(said.status == 0, "{}", said.err);
    }
    let guest = |life| Guest {
        slots: sockets[..2].iter().map(|s| vec![s.clone()]).collect(),
        virtio: vec![VirtioNet { socket: sockets[2].clone(), queues: 1, mac: [2, 0, 0, 0, 0, 0x66] }],
        no_driver: true,
        ..stage.guest("slice_vf.py", &[("LIFE", life)])
    };
    let _turn = Turn::wait(capacity())?;
    let (nic, path) = (board.nic.clone(), control.path().to_owned());
    let answers = Answers::start(&stage.share, move |question| ask::answer(&nic, &path, question));
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
    wrong.extend(faults("first", &guest("first").run(&stage.kit)?));
    wrong.extend([100, 101].iter().filter_map(|i| reaches(*i, (State::Active, OpState::Detached))));
    // The next life asks under the same numbers.
    for entry in std::fs::read_dir(&stage.share)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("answer.")) {
            std::fs::remove_file(path)?;
        }
    }
    wrong.extend(faults("second", &guest("second").run(&stage.kit)?));
    wrong.extend(reaches(101, (State::Inactive, OpState::Detached)));
    answers.stop();
    wrong.extend(board.nic.slice_del(101).err().map(|e| e.to_string()));
    wrong.extend(sockets.iter().filter(|p| p.exists()).map(|p| format!("{} is still there", p.display())));
    wrong.extend(left(&board));
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
