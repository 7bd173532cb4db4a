//! Flow tables, groups, entries, counters and packet actions.

use super::fte::FteMatchParam;
use crate::prm;

prm! {
    create_flow_table_in / CreateFlowTableIn : 0x40 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x10 [31:24] table_type;
        0x10 [15:0] eswitch_owner_vhca_id;
        0x18 [sub] flow_table_context: FlowTableContext;
    }
    create_flow_table_out / CreateFlowTableOut : 0x10 {
        0x00 [31:24] status;
        0x00 [23:0] icm_address_63_40;
        0x04 [31:0] syndrome;
        0x08 [31:24] icm_address_39_32;
        0x08 [23:0] table_id;
        0x0c [31:0] icm_address_31_0;
    }
    modify_flow_table_in / ModifyFlowTableIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x0c [15:0] modify_field_select;
        0x10 [31:24] table_type;
        0x10 [15:0] eswitch_owner_vhca_id;
        0x14 [23:0] table_id;
        0x18 [sub] flow_table_context: FlowTableContext;
    }
    modify_flow_table_out / ModifyFlowTableOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    destroy_flow_table_in / DestroyFlowTableIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x10 [31:24] table_type;
        0x10 [15:0] eswitch_owner_vhca_id;
        0x14 [23:0] table_id;
    }
    destroy_flow_table_out / DestroyFlowTableOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_flow_table_in / QueryFlowTableIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x10 [31:24] table_type;
        0x14 [23:0] table_id;
    }
    query_flow_table_out / QueryFlowTableOut : 0x40 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x18 [sub] flow_table_context: FlowTableContext;
    }
    set_flow_table_root_in / SetFlowTableRootIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x0c [15:0] eswitch_owner_vhca_id;
        0x10 [31:24] table_type;
        0x10 [16:16] table_of_other_vport;
        0x10 [15:0] table_vport_number;
        0x14 [23:0] table_id;
        0x18 [23:0] underlay_qpn;
        0x1c [31:31] table_eswitch_owner_vhca_id_valid;
        0x1c [15:0] table_eswitch_owner_vhca_id;
    }
    set_flow_table_root_out / SetFlowTableRootOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    create_flow_group_in / CreateFlowGroupIn : 0x400 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x10 [31:24] table_type;
        0x10 [19:16] group_type;
        0x10 [15:0] eswitch_owner_vhca_id;
        0x14 [23:0] table_id;
        0x18 [31:31] source_eswitch_owner_vhca_id_valid;
        0x1c [31:0] start_flow_index;
        0x24 [31:0] end_flow_index;
        0x28 [15:0] match_definer_id;
        0x3c [7:0] match_criteria_enable;
        0x40 [sub] match_criteria: FteMatchParam;
    }
    create_flow_group_out / CreateFlowGroupOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] group_id;
    }
    destroy_flow_group_in / DestroyFlowGroupIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x10 [31:24] table_type;
        0x10 [15:0] eswitch_owner_vhca_id;
        0x14 [23:0] table_id;
        0x18 [31:0] group_id;
    }
    destroy_flow_group_out / DestroyFlowGroupOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_flow_group_in / QueryFlowGroupIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x10 [31:24] table_type;
        0x14 [23:0] table_id;
        0x18 [31:0] group_id;
    }
    query_flow_group_out / QueryFlowGroupOut : 0x400 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x1c [31:0] start_flow_index;
        0x24 [31:0] end_flow_index;
        0x3c [7:0] match_criteria_enable;
        0x40 [sub] match_criteria: FteMatchParam;
    }
    set_fte_in / SetFteIn : 0x340 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x10 [31:24] table_type;
        0x10 [15:0] eswitch_owner_vhca_id;
        0x14 [23:0] table_id;
        0x18 [31:31] ignore_flow_level;
        0x18 [7:0] modify_enable_mask;
        0x20 [31:0] flow_index;
        0x40 [sub] flow_context: FlowContext;
    }
    set_fte_out / SetFteOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    delete_fte_in / DeleteFteIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [30:30] other_eswitch;
        0x08 [15:0] vport_number;
        0x10 [31:24] table_type;
        0x10 [15:0] eswitch_owner_vhca_id;
        0x14 [23:0] table_id;
        0x20 [31:0] flow_index;
    }
    delete_fte_out / DeleteFteOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_fte_in / QueryFteIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x10 [31:24] table_type;
        0x14 [23:0] table_id;
        0x20 [31:0] flow_index;
    }
    query_fte_out / QueryFteOut : 0x340 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x40 [sub] flow_context: FlowContext;
    }
    alloc_flow_counter_in / AllocFlowCounterIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x0c [12:8] flow_counter_bulk_log_size;
        0x0c [7:0] flow_counter_bulk;
    }
    alloc_flow_counter_out / AllocFlowCounterOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [31:0] flow_counter_id;
    }
    dealloc_flow_counter_in / DeallocFlowCounterIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:0] flow_counter_id;
    }
    dealloc_flow_counter_out / DeallocFlowCounterOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_flow_counter_in / QueryFlowCounterIn : 0x20 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x18 [31:31] clear;
        0x18 [15:0] num_of_counters;
        0x1c [31:0] flow_counter_id;
    }
    query_flow_counter_out / QueryFlowCounterOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [u8..] flow_statistics;
    }
    alloc_packet_reformat_context_in / AllocPacketReformatContextIn : 0x24 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x1c [sub] packet_reformat_context: PacketReformatContextIn;
    }
    alloc_packet_reformat_context_out / AllocPacketReformatContextOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [31:0] packet_reformat_id;
    }
    dealloc_packet_reformat_context_in / DeallocPacketReformatContextIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:0] packet_reformat_id;
    }
    dealloc_packet_reformat_context_out / DeallocPacketReformatContextOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    alloc_modify_header_context_in / AllocModifyHeaderContextIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x0c [31:24] table_type;
        0x0c [7:0] num_of_actions;
        0x10 [u8..] actions;
    }
    alloc_modify_header_context_out / AllocModifyHeaderContextOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [31:0] modify_header_id;
    }
    dealloc_modify_header_context_in / DeallocModifyHeaderContextIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:0] modify_header_id;
    }
    dealloc_modify_header_context_out / DeallocModifyHeaderContextOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    flow_table_context / FlowTableContext : 0x28 {
        0x00 [31:31] reformat_en;
        0x00 [30:30] decap_en;
        0x00 [29:29] sw_owner;
        0x00 [28:28] termination_table;
        0x00 [27:24] table_miss_action;
        0x00 [23:16] level;
        0x00 [15:15] rtc_valid;
        0x00 [7:0] log_size;
        0x04 [23:0] table_miss_id;
        0x08 [23:0] lag_master_next_table_id;
        0x18 [sub] sws: SwOwnerIcmRootParams;
        0x18 [sub] hws: RtcParams;
    }
    flow_context / FlowContext : 0x300 {
        0x00 [sub] push_vlan: Vlan;
        0x04 [31:0] group_id;
        0x08 [23:0] flow_tag;
        0x0c [15:0] action;
        0x10 [31:31] extended_destination;
        0x10 [30:30] uplink_hairpin_en;
        0x10 [29:28] flow_source;
        0x10 [27:24] encrypt_decrypt_type;
        0x10 [23:0] destination_list_size;
        0x14 [23:0] flow_counter_list_size;
        0x18 [31:0] packet_reformat_id;
        0x1c [31:0] modify_header_id;
        0x20 [sub] push_vlan_2: Vlan;
        0x24 [31:0] encrypt_decrypt_obj_id;
        0x40 [sub] match_value: FteMatchParam;
        0x240 [sub; 4] execute_aso: ExecuteAso;
        0x300 [u8..] destination;
    }
    vlan / Vlan : 0x4 {
        0x00 [31:16] ethtype;
        0x00 [15:13] prio;
        0x00 [12:12] cfi;
        0x00 [11:0] vid;
    }
    dest_format / DestFormat : 0x8 {
        0x00 [31:24] destination_type;
        0x00 [23:0] destination_id;
        0x04 [31:31] destination_eswitch_owner_vhca_id_valid;
        0x04 [30:30] packet_reformat;
        0x04 [15:0] destination_eswitch_owner_vhca_id;
    }
    extended_dest_format / ExtendedDestFormat : 0x10 {
        0x00 [sub] destination_entry: DestFormatStruct;
        0x08 [31:0] packet_reformat_id;
    }
    flow_counter_list / FlowCounterList : 0x8 {
        0x00 [31:0] flow_counter_id;
    }
    packet_reformat_context_in / PacketReformatContextIn : 0x8 {
        0x00 [31:24] reformat_type;
        0x00 [19:16] reformat_param_0;
        0x00 [9:0] reformat_data_size;
        0x04 [31:24] reformat_param_1;
        0x06 [u8; 2] reformat_data;
        0x08 [u8..] more_reformat_data;
    }
    set_action_in / SetActionIn : 0x8 {
        0x00 [31:28] action_type;
        0x00 [27:16] field;
        0x00 [12:8] offset;
        0x00 [4:0] length;
        0x04 [31:0] data;
    }
    add_action_in / AddActionIn : 0x8 {
        0x00 [31:28] action_type;
        0x00 [27:16] field;
        0x04 [31:0] data;
    }
    copy_action_in / CopyActionIn : 0x8 {
        0x00 [31:28] action_type;
        0x00 [27:16] src_field;
        0x00 [12:8] src_offset;
        0x00 [4:0] length;
        0x04 [27:16] dst_field;
        0x04 [12:8] dst_offset;
    }
    rtc_params / RtcParams : 0x10 {
        0x00 [31:0] rtc_id_0;
        0x04 [31:0] rtc_id_1;
    }
    sw_owner_icm_root_params / SwOwnerIcmRootParams : 0x10 {
        0x00 [u64] sw_owner_icm_root_1;
        0x08 [u64] sw_owner_icm_root_0;
    }
    execute_aso / ExecuteAso : 0x8 {
        0x00 [31:31] valid;
        0x00 [23:0] aso_object_id;
        0x04 [u8; 4] exe_aso_ctrl;
    }
    dest_format_struct / DestFormatStruct : 0x8 {
        0x00 [31:24] destination_type;
        0x00 [23:0] destination_id;
        0x04 [31:31] destination_eswitch_owner_vhca_id_valid;
        0x04 [30:30] packet_reformat;
        0x04 [23:16] destination_table_type;
        0x04 [15:0] destination_eswitch_owner_vhca_id;
    }
}
