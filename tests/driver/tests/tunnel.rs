//! What the driver tells the parser of tunnels, and the headers that rules put on.

use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Opcode, Status, Syndrome};
use sfnic_test_driver::{CmdError, Function, Rig};

const GENEVE_TLV_OPT: u32 = 0xb;

fn add(f: &Function, port: u32) -> Result<(), CmdError> {
    let add = f.cmd::<AddVxlanUdpDportIn, AddVxlanUdpDportOut>(Opcode::ADD_VXLAN_UDP_DPORT, |i| {
        i.set(AddVxlanUdpDportIn::vxlan_udp_port, port);
    });
    add.map(drop)
}

fn delete(f: &Function, port: u32) -> Result<(), CmdError> {
    let delete = f.cmd::<DeleteVxlanUdpDportIn, DeleteVxlanUdpDportOut>(Opcode::DELETE_VXLAN_UDP_DPORT, |i| {
        i.set(DeleteVxlanUdpDportIn::vxlan_udp_port, port);
    });
    delete.map(drop)
}

fn create(f: &Function, kind: u32, words: u32) -> Result<u32, CmdError> {
    let out = f.cmd::<CreateGeneveTlvOptionIn, GeneralObjOutCmdHdr>(Opcode::CREATE_GENERAL_OBJECT, |i| {
        i.sub(CreateGeneveTlvOptionIn::hdr).set(GeneralObjInCmdHdr::obj_type, kind);
        i.sub(CreateGeneveTlvOptionIn::geneve_tlv_opt)
            .set(GeneveTlvOption::option_class, 0x102)
            .set(GeneveTlvOption::option_type, 0x80)
            .set(GeneveTlvOption::option_data_length, words);
    })?;
    Ok(out.get(GeneralObjOutCmdHdr::obj_id))
}

fn destroy(f: &Function, kind: u32, id: u32) -> Result<(), CmdError> {
    let destroy = f.cmd::<GeneralObjInCmdHdr, GeneralObjOutCmdHdr>(Opcode::DESTROY_GENERAL_OBJECT, |i| {
        i.set(GeneralObjInCmdHdr::obj_type, kind).set(GeneralObjInCmdHdr::obj_id, id);
    });
    destroy.map(drop)
}

#[test]
fn ports_of_vxlan_come_and_go() {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    // The driver adds what is there from the start.
    for port in [4789, 1, 2, 0xffff] {
        add(&pf, port).unwrap();
    }
    assert!(add(&pf, 4).unwrap_err().is(Status::NoResources));
    assert!(add(&pf, 0).unwrap_err().because(Syndrome::VXLAN_PORT));
    delete(&pf, 1).unwrap();
    assert!(delete(&pf, 1).unwrap_err().because(Syndrome::VXLAN_PORT));
    assert!(delete(&pf, 0).unwrap_err().because(Syndrome::VXLAN_PORT));
    add(&pf, 4).unwrap();
    // The next driver finds what is there after power-on.
    pf.shut_down().unwrap();
    let pf = rig.pf(0).bring_up().unwrap();
    for port in [1, 2, 3] {
        add(&pf, port).unwrap();
    }
}

#[test]
fn there_is_one_option_of_geneve() {
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    let id = create(&pf, GENEVE_TLV_OPT, 1).unwrap();
    assert!(create(&pf, GENEVE_TLV_OPT, 1).unwrap_err().is(Status::NoResources));
    assert!(destroy(&pf, GENEVE_TLV_OPT, id + 1).unwrap_err().is(Status::BadRes));
    destroy(&pf, GENEVE_TLV_OPT, id).unwrap();
    assert!(destroy(&pf, GENEVE_TLV_OPT, id).unwrap_err().is(Status::BadRes));
    assert!(create(&pf, GENEVE_TLV_OPT, 2).unwrap_err().because(Syndrome::GENEVE_OPTION));
    for other in [0, 0x0c, 0x25, 0x3f, 0x40, 0xffff] {
        assert!(create(&pf, other, 1).unwrap_err().because(Syndrome::OBJECT_TYPE));
        assert!(destroy(&pf, other, 0).unwrap_err().because(Syndrome::OBJECT_TYPE));
    }
}

#[test]
fn headers_are_as_long_as_the_capability_says() {
    const TYPES: [(u32, bool); 9] = [
        (0x0, true),  // VXLAN
        (0x1, true),  // NVGRE
        (0x2, true),  // any tunnel of L2
        (0x3, false), // L3 decap is not offered
        (0x4, false), // nor encap
        (0x5, false),
        (0x12, false),
        (0x11, false),
        (0xff, false),
    ];
    let rig = Rig::loopback();
    let pf = rig.pf(0).bring_up().unwrap();
    let alloc = |kind: u32, size: usize| {
        // Two bytes of the data lie in the fixed part.
        let tail = vec![0; size.saturating_sub(2)];
        let made = pf.cmd_with::<AllocPacketReformatContextIn, AllocPacketReformatContextOut>(
            Opcode::ALLOC_PACKET_REFORMAT_CONTEXT,
            &tail,
            0,
            |i| {
                i.sub(AllocPacketReformatContextIn::packet_reformat_context)
                    .set(PacketReformatContextIn::reformat_type, kind)
                    .set(PacketReformatContextIn::reformat_data_size, size as u32);
            },
        );
        made.map(drop)
    };
    for (kind, offered) in TYPES {
        for size in [14, 50, 128] {
            assert_eq!(alloc(kind, size).is_ok(), offered, "type {kind:#x}, {size} bytes");
        }
        for size in [0, 13, 129, 1023] {
            assert!(alloc(kind, size).unwrap_err().because(Syndrome::REFORMAT_TYPE), "type {kind:#x}, {size} bytes");
        }
    }
}
