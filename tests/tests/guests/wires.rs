//! Two machines at one wire: a physical function here, a virtio network device there.

use anyhow::Result;
use sfnic_device_model::nic::CardConfig;
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_emulator::wire::vhost::Meeting;
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::Guest;
use sfnic_qemu::vm::VirtioNet;
use sfnic_tests::machines::Stage;

#[test]
fn a_switch_and_wires_that_are_impaired() {
    sfnic_tests::run("wires");
}

#[test]
fn a_virtio_guest_at_the_wire_dies_and_comes_back() -> Result<()> {
    let stage = Stage::new()?;
    let (pf, port) = (stage.path("pf0"), stage.path("port0"));
    let board = Board::new(BoardConfig {
        cards: vec![CardConfig::default()],
        wires: vec![WireKind::Vhost(Meeting::Server(port.clone()))],
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(std::slice::from_ref(&pf))?;
    let a = Guest { slots: vec![vec![pf]], ..stage.guest("wire_mlx5.py", &[]) };
    let device = VirtioNet { socket: port, queues: 2, mac: [2, 0, 0, 0, 0, 2] };
    let b = |life| Guest { virtio: vec![device.clone()], ..stage.guest("wire_virtio.py", &[("LIFE", life)]) };
    let _turn = Turn::wait(capacity())?;
    // The second machine comes only once the first has seen that there is no link without it.
    let mut wrong = stage.two_lives(&a, &b("first"), &b("second"))?;
    let link = board.wires[0].1.counters();
    if (link.ups, link.downs, link.errors, link.tx_lost) != (2, 2, 0, 0) {
        wrong.push(format!("the wire: {link:?}"));
    }
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
