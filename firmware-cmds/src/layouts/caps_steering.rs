//! Capability groups of steering and the eswitch.

use super::fte::{FlowTableFieldsSupported, FlowTableFieldsSupported2};
use crate::prm;

prm! {
    flow_table_nic_cap / FlowTableNicCap : 0x1000 {
        0x00 [31:31] nic_rx_multi_path_tirs;
        0x00 [30:30] nic_rx_multi_path_tirs_fts;
        0x00 [29:29] allow_sniffer_and_nic_rx_shared_tir;
        0x00 [24:24] sw_owner_reformat_supported;
        0x04 [31:31] encap_general_header;
        0x04 [20:16] log_max_packet_reformat_context;
        0x04 [9:0] max_encap_header_size;
        0x40 [sub] flow_table_properties_nic_receive: FlowTablePropLayout;
        0x80 [sub] flow_table_properties_nic_receive_rdma: FlowTablePropLayout;
        0xc0 [sub] flow_table_properties_nic_receive_sniffer: FlowTablePropLayout;
        0x100 [sub] flow_table_properties_nic_transmit: FlowTablePropLayout;
        0x140 [sub] flow_table_properties_nic_transmit_rdma: FlowTablePropLayout;
        0x180 [sub] flow_table_properties_nic_transmit_sniffer: FlowTablePropLayout;
        0x280 [sub] ft_field_support_2_nic_receive: FlowTableFieldsSupported2;
        0x2a0 [sub] ft_field_support_2_nic_receive_rdma: FlowTableFieldsSupported2;
        0x300 [sub] ft_field_support_2_nic_transmit_rdma: FlowTableFieldsSupported2;
        0x400 [u64] sw_steering_nic_rx_action_drop_icm_address;
        0x408 [u64] sw_steering_nic_tx_action_drop_icm_address;
        0x410 [u64] sw_steering_nic_tx_action_allow_icm_address;
    }
    flow_table_eswitch_cap / FlowTableEswitchCap : 0x1000 {
        0x00 [31:24] fdb_to_vport_reg_c_id;
        0x00 [18:18] fdb_uplink_hairpin;
        0x00 [17:17] fdb_multi_path_any_table_limit_regc;
        0x00 [15:15] fdb_dynamic_tunnel;
        0x00 [13:13] fdb_multi_path_any_table;
        0x00 [10:10] fdb_modify_header_fwd_to_table;
        0x00 [9:9] fdb_ipv4_ttl_modify;
        0x00 [8:8] flow_source;
        0x00 [5:5] multi_fdb_encap;
        0x00 [4:4] egress_acl_forward_to_vport;
        0x00 [3:3] fdb_multi_path_to_table;
        0x40 [sub] flow_table_properties_nic_esw_fdb: FlowTablePropLayout;
        0x80 [sub] flow_table_properties_esw_acl_ingress: FlowTablePropLayout;
        0xc0 [sub] flow_table_properties_esw_acl_egress: FlowTablePropLayout;
        0x280 [sub] ft_field_support_2_esw_fdb: FlowTableFieldsSupported2;
        0x290 [sub] ft_field_bitmask_support_2_esw_fdb: FlowTableFieldsSupported2;
        0x300 [u64] sw_steering_fdb_action_drop_icm_address_rx;
        0x308 [u64] sw_steering_fdb_action_drop_icm_address_tx;
        0x310 [u64] sw_steering_uplink_icm_address_rx;
        0x318 [u64] sw_steering_uplink_icm_address_tx;
    }
    flow_table_prop_layout / FlowTablePropLayout : 0x40 {
        0x00 [31:31] ft_support;
        0x00 [29:29] flow_counter;
        0x00 [28:28] flow_modify_en;
        0x00 [27:27] modify_root;
        0x00 [26:26] identified_miss_table_mode;
        0x00 [25:25] flow_table_modify;
        0x00 [24:24] reformat;
        0x00 [23:23] decap;
        0x00 [22:22] reset_root_to_default;
        0x00 [21:21] pop_vlan;
        0x00 [20:20] push_vlan;
        0x00 [18:18] pop_vlan_2;
        0x00 [17:17] push_vlan_2;
        0x00 [16:16] reformat_and_vlan_action;
        0x00 [14:14] sw_owner;
        0x00 [13:13] reformat_l3_tunnel_to_l2;
        0x00 [12:12] reformat_l2_to_l3_tunnel;
        0x00 [11:11] reformat_and_modify_action;
        0x00 [10:10] ignore_flow_level;
        0x00 [8:8] table_miss_action_domain;
        0x00 [7:7] termination_table;
        0x00 [6:6] reformat_and_fwd_to_table;
        0x00 [5:5] forward_vhca_rx;
        0x00 [3:3] ipsec_encrypt;
        0x00 [2:2] ipsec_decrypt;
        0x00 [1:1] sw_owner_v2;
        0x04 [31:31] termination_table_raw_traffic;
        0x04 [29:24] log_max_ft_size;
        0x04 [23:16] log_max_modify_header_context;
        0x04 [15:8] max_modify_header_actions;
        0x04 [7:0] max_ft_level;
        0x08 [31:31] reformat_add_esp_trasport;
        0x08 [30:30] reformat_l2_to_l3_esp_tunnel;
        0x08 [29:29] reformat_add_esp_transport_over_udp;
        0x08 [28:28] reformat_del_esp_trasport;
        0x08 [27:27] reformat_l3_esp_tunnel_to_l2;
        0x08 [26:26] reformat_del_esp_transport_over_udp;
        0x08 [25:25] execute_aso;
        0x0c [31:31] reformat_l2_to_l3_psp_tunnel;
        0x0c [30:30] reformat_l3_psp_tunnel_to_l2;
        0x0c [29:29] reformat_insert;
        0x0c [28:28] reformat_remove;
        0x0c [27:27] macsec_encrypt;
        0x0c [26:26] macsec_decrypt;
        0x0c [25:25] psp_encrypt;
        0x0c [24:24] psp_decrypt;
        0x0c [23:23] reformat_add_macsec;
        0x0c [22:22] reformat_remove_macsec;
        0x0c [21:21] reparse;
        0x0c [19:19] cross_vhca_object;
        0x0c [18:18] reformat_l2_to_l3_audp_tunnel;
        0x0c [17:17] reformat_l3_audp_tunnel_to_l2;
        0x0c [16:16] ignore_flow_level_rtc_valid;
        0x0c [7:0] log_max_ft_num;
        0x10 [15:8] log_max_flow_counter;
        0x10 [7:0] log_max_destination;
        0x14 [7:0] log_max_flow;
        0x20 [sub] ft_field_support: FlowTableFieldsSupported;
        0x30 [sub] ft_field_bitmask_support: FlowTableFieldsSupported;
    }
    e_switch_cap / ESwitchCap : 0x100 {
        0x00 [31:31] vport_svlan_strip;
        0x00 [30:30] vport_cvlan_strip;
        0x00 [29:29] vport_svlan_insert;
        0x00 [28:28] vport_cvlan_insert_if_not_exist;
        0x00 [27:27] vport_cvlan_insert_overwrite;
        0x00 [25:25] vport_cvlan_insert_always;
        0x00 [24:24] esw_shared_ingress_acl;
        0x00 [23:23] esw_uplink_ingress_acl;
        0x00 [22:22] root_ft_on_other_esw;
        0x00 [20:20] esw_vport_state_max_tx_speed;
        0x00 [6:6] esw_functions_changed;
        0x00 [4:4] ecpf_vport_exists;
        0x00 [3:3] counter_eswitch_affinity;
        0x00 [2:2] merged_eswitch;
        0x00 [1:1] nic_vport_node_guid_modify;
        0x00 [0:0] nic_vport_port_guid_modify;
        0x04 [31:31] vxlan_encap_decap;
        0x04 [30:30] nvgre_encap_decap;
        0x04 [28:24] log_max_fdb_encap_uplink;
        0x04 [20:16] log_max_packet_reformat_context;
        0x04 [9:0] max_encap_header_size;
        0x08 [20:16] log_max_esw_sf;
        0x08 [15:0] esw_sf_base_id;
    }
}
