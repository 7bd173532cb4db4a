//! Vport contexts, state and counters.

use crate::prm;

prm! {
    query_vport_state_in / QueryVportStateIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
    }
    query_vport_state_out / QueryVportStateOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x0c [31:16] max_tx_speed;
        0x0c [7:4] admin_state;
        0x0c [3:0] state;
    }
    modify_vport_state_in / ModifyVportStateIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
        0x0c [31:16] max_tx_speed;
        0x0c [15:15] ingress_connect;
        0x0c [14:14] egress_connect;
        0x0c [13:13] ingress_connect_valid;
        0x0c [12:12] egress_connect_valid;
        0x0c [7:4] admin_state;
    }
    modify_vport_state_out / ModifyVportStateOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_esw_vport_context_in / QueryEswVportContextIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
    }
    query_esw_vport_context_out / QueryEswVportContextOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] esw_vport_context: EswVportContext;
    }
    modify_esw_vport_context_in / ModifyEswVportContextIn : 0x110 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
        0x0c [sub] field_select: EswVportContextFieldsSelect;
        0x10 [sub] esw_vport_context: EswVportContext;
    }
    modify_esw_vport_context_out / ModifyEswVportContextOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_nic_vport_context_in / QueryNicVportContextIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
        0x0c [26:24] allowed_list_type;
    }
    query_nic_vport_context_out / QueryNicVportContextOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] nic_vport_context: NicVportContext;
    }
    query_hca_vport_pkey_in / QueryHcaVportPkeyIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [19:16] port_num;
        0x08 [15:0] vport_number;
        0x0c [15:0] pkey_index;
    }
    query_hca_vport_pkey_out / QueryHcaVportPkeyOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [u32..] pkey;
    }
    modify_nic_vport_context_in / ModifyNicVportContextIn : 0x200 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
        0x0c [sub] field_select: ModifyNicVportFieldSelect;
        0x100 [sub] nic_vport_context: NicVportContext;
    }
    modify_nic_vport_context_out / ModifyNicVportContextOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_vnic_env_in / QueryVnicEnvIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
    }
    query_vnic_env_out / QueryVnicEnvOut : 0x210 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] vport_env: VnicDiagnosticStatistics;
    }
    query_vport_counter_in / QueryVportCounterIn : 0x20 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [19:16] port_num;
        0x08 [15:0] vport_number;
        0x18 [31:31] clear;
    }
    query_vport_counter_out / QueryVportCounterOut : 0x210 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] received_errors: TrafficCounter;
        0x20 [sub] transmit_errors: TrafficCounter;
        0x30 [sub] received_ib_unicast: TrafficCounter;
        0x40 [sub] transmitted_ib_unicast: TrafficCounter;
        0x50 [sub] received_ib_multicast: TrafficCounter;
        0x60 [sub] transmitted_ib_multicast: TrafficCounter;
        0x70 [sub] received_eth_broadcast: TrafficCounter;
        0x80 [sub] transmitted_eth_broadcast: TrafficCounter;
        0x90 [sub] received_eth_unicast: TrafficCounter;
        0xa0 [sub] transmitted_eth_unicast: TrafficCounter;
        0xb0 [sub] received_eth_multicast: TrafficCounter;
        0xc0 [sub] transmitted_eth_multicast: TrafficCounter;
        0xd0 [sub] local_loopback: TrafficCounter;
    }
    alloc_q_counter_in / AllocQCounterIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
    }
    alloc_q_counter_out / AllocQCounterOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [7:0] counter_set_id;
    }
    dealloc_q_counter_in / DeallocQCounterIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [7:0] counter_set_id;
    }
    dealloc_q_counter_out / DeallocQCounterOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_q_counter_in / QueryQCounterIn : 0x20 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_vport;
        0x08 [15:0] vport_number;
        0x18 [31:31] clear;
        0x18 [30:30] aggregate;
        0x1c [7:0] counter_set_id;
    }
    query_q_counter_out / QueryQCounterOut : 0x100 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [31:0] rx_write_requests;
        0x18 [31:0] rx_read_requests;
        0x20 [31:0] rx_atomic_requests;
        0x28 [31:0] rx_dct_connect;
        0x30 [31:0] out_of_buffer;
        0x38 [31:0] out_of_sequence;
        0x40 [31:0] duplicate_request;
        0x48 [31:0] rnr_nak_retry_err;
        0x50 [31:0] packet_seq_err;
        0x58 [31:0] implied_nak_seq_err;
        0x60 [31:0] local_ack_timeout_err;
        0x70 [31:0] req_rnr_retries_exceeded;
        0x78 [31:0] resp_local_length_error;
        0x7c [31:0] req_local_length_error;
        0x80 [31:0] resp_local_qp_error;
        0x84 [31:0] local_operation_error;
        0x88 [31:0] resp_local_protection;
        0x8c [31:0] req_local_protection;
        0x90 [31:0] resp_cqe_error;
        0x94 [31:0] req_cqe_error;
        0x98 [31:0] req_mw_binding;
        0x9c [31:0] req_bad_response;
        0xa0 [31:0] req_remote_invalid_request;
        0xa4 [31:0] resp_remote_invalid_request;
        0xa8 [31:0] req_remote_access_errors;
        0xac [31:0] resp_remote_access_errors;
        0xb0 [31:0] req_remote_operation_errors;
        0xb4 [31:0] req_transport_retries_exceeded;
        0xb8 [31:0] cq_overflow;
        0xbc [31:0] resp_cqe_flush_error;
        0xc0 [31:0] req_cqe_flush_error;
        0xc8 [31:0] roce_adp_retrans;
        0xcc [31:0] roce_adp_retrans_to;
        0xd0 [31:0] roce_slow_restart;
        0xd4 [31:0] roce_slow_restart_cnps;
        0xd8 [31:0] roce_slow_restart_trans;
    }
    set_l2_table_entry_in / SetL2TableEntryIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x14 [23:0] table_index;
        0x1c [15:15] silent_mode_valid;
        0x1c [14:14] silent_mode;
        0x1c [12:12] vlan_valid;
        0x1c [11:0] vlan;
        0x20 [sub] mac_address: MacAddressLayout;
    }
    set_l2_table_entry_out / SetL2TableEntryOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_l2_table_entry_in / QueryL2TableEntryIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x10 [31:31] silent_mode_query;
        0x14 [23:0] table_index;
    }
    query_l2_table_entry_out / QueryL2TableEntryOut : 0x40 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x1c [14:14] silent_mode;
        0x1c [12:12] vlan_valid;
        0x1c [11:0] vlan;
        0x20 [sub] mac_address: MacAddressLayout;
    }
    delete_l2_table_entry_in / DeleteL2TableEntryIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x14 [23:0] table_index;
    }
    delete_l2_table_entry_out / DeleteL2TableEntryOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    set_roce_address_in / SetRoceAddressIn : 0x30 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:16] roce_address_index;
        0x08 [3:0] vhca_port_num;
        0x10 [sub] roce_address: RoceAddrLayout;
    }
    set_roce_address_out / SetRoceAddressOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_roce_address_in / QueryRoceAddressIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:16] roce_address_index;
        0x08 [3:0] vhca_port_num;
    }
    query_roce_address_out / QueryRoceAddressOut : 0x30 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] roce_address: RoceAddrLayout;
    }
    esw_vport_context / EswVportContext : 0x100 {
        0x00 [31:31] fdb_to_vport_reg_c;
        0x00 [28:28] vport_svlan_strip;
        0x00 [27:27] vport_cvlan_strip;
        0x00 [26:26] vport_svlan_insert;
        0x00 [25:24] vport_cvlan_insert;
        0x00 [23:16] fdb_to_vport_reg_c_id;
        0x08 [31:31] svlan_cfi;
        0x08 [30:28] svlan_pcp;
        0x08 [27:16] svlan_id;
        0x08 [15:15] cvlan_cfi;
        0x08 [14:12] cvlan_pcp;
        0x08 [11:0] cvlan_id;
        0xf0 [u64] sw_steering_vport_icm_address_rx;
        0xf8 [u64] sw_steering_vport_icm_address_tx;
    }
    esw_vport_context_fields_select / EswVportContextFieldsSelect : 0x4 {
        0x00 [4:4] fdb_to_vport_reg_c_id;
        0x00 [3:3] vport_cvlan_insert;
        0x00 [2:2] vport_svlan_insert;
        0x00 [1:1] vport_cvlan_strip;
        0x00 [0:0] vport_svlan_strip;
    }
    nic_vport_context / NicVportContext : 0x100 {
        0x00 [26:24] min_wqe_inline_mode;
        0x00 [2:2] disable_mc_local_lb;
        0x00 [1:1] disable_uc_local_lb;
        0x00 [0:0] roce_en;
        0x04 [31:31] arm_change_event;
        0x04 [4:4] event_on_mtu;
        0x04 [3:3] event_on_promisc_change;
        0x04 [2:2] event_on_vlan_change;
        0x04 [1:1] event_on_mc_address_change;
        0x04 [0:0] event_on_uc_address_change;
        0x08 [31:31] vhca_id_type;
        0x08 [19:16] affiliation_criteria;
        0x08 [15:0] affiliated_vhca_id;
        0x20 [30:28] sd_group;
        0x20 [23:16] sd_group_size;
        0x24 [15:0] mtu;
        0x28 [u64] system_image_guid;
        0x30 [u64] port_guid;
        0x38 [u64] node_guid;
        0x68 [31:16] qkey_violation_counter;
        0xf0 [31:31] promisc_uc;
        0xf0 [30:30] promisc_mc;
        0xf0 [29:29] promisc_all;
        0xf0 [26:24] allowed_list_type;
        0xf0 [15:0] allowed_list_size;
        0xf4 [sub] permanent_address: MacAddressLayout;
        0x100 [u64..] current_uc_mac_address;
    }
    modify_nic_vport_field_select / ModifyNicVportFieldSelect : 0x4 {
        0x00 [13:13] affiliation;
        0x00 [11:11] disable_uc_local_lb;
        0x00 [10:10] disable_mc_local_lb;
        0x00 [9:9] node_guid;
        0x00 [8:8] port_guid;
        0x00 [7:7] min_inline;
        0x00 [6:6] mtu;
        0x00 [5:5] change_event;
        0x00 [4:4] promisc;
        0x00 [3:3] permanent_address;
        0x00 [2:2] addresses_list;
        0x00 [1:1] roce_en;
    }
    mac_address_layout / MacAddressLayout : 0x8 {
        0x00 [15:0] mac_addr_47_32;
        0x04 [31:0] mac_addr_31_0;
    }
    vlan_layout / VlanLayout : 0x8 {
        0x00 [11:0] vlan;
    }
    traffic_counter / TrafficCounter : 0x10 {
        0x00 [u64] packets;
        0x08 [u64] octets;
    }
    vnic_diagnostic_statistics / VnicDiagnosticStatistics : 0x200 {
        0x00 [31:0] counter_error_queues;
        0x04 [31:0] total_error_queues;
        0x08 [31:0] send_queue_priority_update_flow;
        0x10 [u64] nic_receive_steering_discard;
        0x18 [u64] receive_discard_vport_down;
        0x20 [u64] transmit_discard_vport_down;
        0x28 [31:0] async_eq_overrun;
        0x2c [31:0] comp_eq_overrun;
        0x34 [31:0] invalid_command;
        0x38 [31:0] quota_exceeded_command;
        0x3c [31:0] internal_rq_out_of_buffer;
        0x40 [31:0] cq_overrun;
        0x44 [31:0] eth_wqe_too_small;
        0x60 [u64] generated_pkt_steering_fail;
        0x68 [u64] handled_pkt_steering_fail;
        0x70 [31:0] bar_uar_access;
        0x74 [31:0] odp_local_triggered_page_fault;
        0x78 [31:0] odp_remote_triggered_page_fault;
    }
    roce_addr_layout / RoceAddrLayout : 0x20 {
        0x00 [u8; 16] source_l3_address;
        0x10 [28:28] vlan_valid;
        0x10 [27:16] vlan_id;
        0x10 [15:0] source_mac_47_32;
        0x14 [31:0] source_mac_31_0;
        0x18 [11:8] roce_l3_type;
        0x18 [7:0] roce_version;
    }
}
