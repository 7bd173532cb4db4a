//! Two machines at one device: one has a physical function and manages its eswitch, two
//! slices are virtio network devices of the other.

use anyhow::Result;
use sfnic_device_model::nic::CardConfig;
use sfnic_device_model::slice::Flavour;
use sfnic_emulator::board::{Board, BoardConfig, WireKind};
use sfnic_emulator::lab::turn::{Turn, capacity};
use sfnic_firmware_cmds::profile::Profile;
use sfnic_qemu::Guest;
use sfnic_qemu::vm::VirtioNet;
use sfnic_tests::machines::{Stage, slice};

/// `sfnum` of the slices.
const NUMBERS: [u8; 2] = [9, 10];

#[test]
fn virtio_slices_have_representors_and_their_machine_may_die() -> Result<()> {
    let stage = Stage::new()?;
    let pfs = [stage.path("pf0"), stage.path("pf1")];
    let mut cards = vec![CardConfig::default(), CardConfig::default()];
    cards[1].mac[5] = 1;
    let board = Board::new(BoardConfig {
        cards,
        wires: vec![WireKind::Cable, WireKind::Cable],
        slices: NUMBERS.map(|n| slice(Flavour::Virtio, n)).into(),
        ..BoardConfig::new(Profile::builtin("connectx6dx")?)
    })?;
    board.serve(&pfs)?;
    let a = Guest { slots: vec![pfs.to_vec()], ..stage.guest("slice_manager.py", &[]) };
    let devices =
        NUMBERS.map(|n| VirtioNet { socket: stage.slice(100 + u32::from(n)), queues: 2, mac: [2, 0, 0, 0, 0, n] });
    let b = |life| Guest { virtio: devices.to_vec(), ..stage.guest("slice_virtio.py", &[("LIFE", life)]) };
    let _turn = Turn::wait(capacity())?;
    let mut wrong = stage.two_lives(&a, &b("first"), &b("second"))?;
    for link in board.slice_links() {
        let c = link.1.counters();
        if c.errors != 0 || c.up {
            wrong.push(format!("slice {}: {c:?}", link.0));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}
