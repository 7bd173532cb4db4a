//! What the parser is told of tunnels: VXLAN's UDP ports, Geneve's options.

use crate::prm;

prm! {
    add_vxlan_udp_dport_in / AddVxlanUdpDportIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x0c [15:0] vxlan_udp_port;
    }
    add_vxlan_udp_dport_out / AddVxlanUdpDportOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    delete_vxlan_udp_dport_in / DeleteVxlanUdpDportIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x0c [15:0] vxlan_udp_port;
    }
    delete_vxlan_udp_dport_out / DeleteVxlanUdpDportOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    general_obj_in_cmd_hdr / GeneralObjInCmdHdr : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [31:16] vhca_tunnel_id;
        0x04 [15:0] obj_type;
        0x08 [31:0] obj_id;
    }
    general_obj_out_cmd_hdr / GeneralObjOutCmdHdr : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [31:0] obj_id;
    }
    geneve_tlv_option / GeneveTlvOption : 0x40 {
        0x00 [u64] modify_field_select;
        0x08 [7:0] geneve_option_fte_index;
        0x0c [31:16] option_class;
        0x0c [15:8] option_type;
        0x0c [4:0] option_data_length;
    }
    create_geneve_tlv_option_in / CreateGeneveTlvOptionIn : 0x50 {
        0x00 [sub] hdr: GeneralObjInCmdHdr;
        0x10 [sub] geneve_tlv_opt: GeneveTlvOption;
    }
}
