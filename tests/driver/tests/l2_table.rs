//! The table of a port's addresses: a driver fills it by index and finds in it what it set.

use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Opcode, Status, Syndrome};
use sfnic_test_driver::function::{read_mac, write_mac};
use sfnic_test_driver::{CmdError, Function, Rig};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x5f, 0, 9];

fn set(f: &Function, index: u32, vlan: Option<u32>) -> Result<(), CmdError> {
    let set = f.cmd::<SetL2TableEntryIn, SetL2TableEntryOut>(Opcode::SET_L2_TABLE_ENTRY, |i| {
        i.set(SetL2TableEntryIn::table_index, index);
        i.set(SetL2TableEntryIn::vlan_valid, vlan.is_some().into());
        i.set(SetL2TableEntryIn::vlan, vlan.unwrap_or(0));
        i.sub(SetL2TableEntryIn::mac_address).raw().copy_from_slice(&write_mac(MAC));
    });
    set.map(drop)
}

fn query(f: &Function, index: u32) -> Result<([u8; 6], Option<u32>), CmdError> {
    let out = f.cmd::<QueryL2TableEntryIn, QueryL2TableEntryOut>(Opcode::QUERY_L2_TABLE_ENTRY, |i| {
        i.set(QueryL2TableEntryIn::table_index, index);
    })?;
    let vlan = (out.get(QueryL2TableEntryOut::vlan_valid) == 1).then(|| out.get(QueryL2TableEntryOut::vlan));
    Ok((read_mac(out.sub(QueryL2TableEntryOut::mac_address)), vlan))
}

fn delete(f: &Function, index: u32) -> Result<(), CmdError> {
    let delete = f.cmd::<DeleteL2TableEntryIn, DeleteL2TableEntryOut>(Opcode::DELETE_L2_TABLE_ENTRY, |i| {
        i.set(DeleteL2TableEntryIn::table_index, index);
    });
    delete.map(drop)
}

#[test]
fn entries_are_set_found_and_deleted() {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    let size = 1 << pf.cap(CmdHcaCap::log_max_l2_table).unwrap();
    for index in [0, size - 1] {
        assert!(query(&pf, index).unwrap_err().is(Status::BadRes));
        set(&pf, index, Some(7)).unwrap();
        assert_eq!(query(&pf, index).unwrap(), (MAC, Some(7)));
        set(&pf, index, None).unwrap();
        assert_eq!(query(&pf, index).unwrap(), (MAC, None));
        delete(&pf, index).unwrap();
        assert!(delete(&pf, index).unwrap_err().is(Status::BadRes));
    }
    for beyond in [size, 0xff_ffff] {
        assert!(set(&pf, beyond, None).unwrap_err().because(Syndrome::L2_INDEX));
        assert!(query(&pf, beyond).unwrap_err().because(Syndrome::L2_INDEX));
    }
}

#[test]
fn nothing_is_left_for_the_next_driver() {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    set(&pf, 3, None).unwrap();
    pf.shut_down().unwrap();
    let pf = rig.pf(0).bring_up().unwrap();
    assert!(query(&pf, 3).unwrap_err().is(Status::BadRes));
    set(&pf, 3, None).unwrap();
    rig.reset(0);
    let pf = rig.pf(0).bring_up().unwrap();
    assert!(query(&pf, 3).unwrap_err().is(Status::BadRes));
}
