//! Access registers.

use crate::prm;

prm! {
    paos_reg / PaosReg : 0x10 {
        0x00 [31:24] swid;
        0x00 [23:16] local_port;
        0x00 [11:8] admin_status;
        0x00 [3:0] oper_status;
        0x04 [31:31] ase;
        0x04 [30:30] ee;
        0x04 [1:0] e;
    }
    pmtu_reg / PmtuReg : 0x10 {
        0x00 [23:16] local_port;
        0x04 [31:16] max_mtu;
        0x08 [31:16] admin_mtu;
        0x0c [31:16] oper_mtu;
    }
    ptys_reg / PtysReg : 0x40 {
        0x00 [30:30] an_disable_admin;
        0x00 [29:29] an_disable_cap;
        0x00 [23:16] local_port;
        0x00 [7:4] plane_ind;
        0x00 [2:0] proto_mask;
        0x04 [31:28] an_status;
        0x04 [15:0] data_rate_oper;
        0x08 [31:0] ext_eth_proto_capability;
        0x0c [31:0] eth_proto_capability;
        0x10 [31:16] ib_link_width_capability;
        0x10 [15:0] ib_proto_capability;
        0x14 [31:0] ext_eth_proto_admin;
        0x18 [31:0] eth_proto_admin;
        0x1c [31:16] ib_link_width_admin;
        0x1c [15:0] ib_proto_admin;
        0x20 [31:0] ext_eth_proto_oper;
        0x24 [31:0] eth_proto_oper;
        0x28 [31:16] ib_link_width_oper;
        0x28 [15:0] ib_proto_oper;
        0x2c [23:4] lane_rate_oper;
        0x2c [3:0] connector_type;
        0x30 [31:0] eth_proto_lp_advertise;
    }
    ppcnt_reg / PpcntReg : 0x100 {
        0x00 [31:24] swid;
        0x00 [23:16] local_port;
        0x00 [15:14] pnat;
        0x00 [5:0] grp;
        0x04 [31:31] clr;
        0x04 [11:8] plane_ind;
        0x04 [4:0] prio_tc;
        0x08 [u8..] counter_set;
    }
    pmlp_reg / PmlpReg : 0x40 {
        0x00 [31:31] rxtx;
        0x00 [23:16] local_port;
        0x00 [7:0] width;
        0x04 [31:0] lane0_module_mapping;
        0x08 [31:0] lane1_module_mapping;
        0x0c [31:0] lane2_module_mapping;
        0x10 [31:0] lane3_module_mapping;
    }
    pfcc_reg / PfccReg : 0x20 {
        0x00 [27:26] buf_ownership;
        0x00 [23:16] local_port;
        0x00 [5:5] cable_length_mask;
        0x00 [4:4] ppan_mask_n;
        0x00 [3:3] minor_stall_mask;
        0x00 [2:2] critical_stall_mask;
        0x04 [31:28] ppan;
        0x04 [23:16] prio_mask_tx;
        0x04 [7:0] prio_mask_rx;
        0x08 [31:31] pptx;
        0x08 [30:30] aptx;
        0x08 [29:29] pptx_mask_n;
        0x08 [23:16] pfctx;
        0x0c [31:31] pprx;
        0x0c [30:30] aprx;
        0x0c [29:29] pprx_mask_n;
        0x0c [23:16] pfcrx;
        0x10 [31:16] device_stall_minor_watermark;
        0x10 [15:0] device_stall_critical_watermark;
        0x14 [7:0] cable_length;
    }
    plib_reg / PlibReg : 0x10 {
        0x00 [23:16] local_port;
        0x00 [7:0] ib_port;
    }
    pcam_reg / PcamReg : 0x50 {
        0x00 [23:16] feature_group;
        0x00 [7:0] access_reg_group;
        0x08 [sub] regs_5000_to_507f: PcamRegs5000To507f;
        0x28 [sub] enhanced_features: PcamEnhancedFeatures;
    }
    mcam_reg / McamReg : 0x48 {
        0x00 [23:16] feature_group;
        0x00 [7:0] access_reg_group;
        0x08 [u8; 16] access_regs;
        0x08 [u8; 16] access_regs1;
        0x08 [u8; 16] access_regs2;
        0x08 [u8; 16] access_regs3;
        0x28 [sub] enhanced_features: McamEnhancedFeatures;
    }
    pplm_reg / PplmReg : 0x78 {
        0x00 [23:16] local_port;
        0x08 [31:24] port_profile_mode;
        0x08 [23:16] static_port_profile;
        0x08 [15:8] active_port_profile;
        0x0c [31:24] retransmission_active;
        0x0c [23:0] fec_mode_active;
        0x10 [31:28] rs_fec_correction_bypass_cap;
        0x10 [19:16] fec_override_cap_56g;
        0x10 [15:12] fec_override_cap_100g;
        0x10 [11:8] fec_override_cap_50g;
        0x10 [7:4] fec_override_cap_25g;
        0x10 [3:0] fec_override_cap_10g_40g;
        0x14 [31:28] rs_fec_correction_bypass_admin;
        0x14 [19:16] fec_override_admin_56g;
        0x14 [15:12] fec_override_admin_100g;
        0x14 [11:8] fec_override_admin_50g;
        0x14 [7:4] fec_override_admin_25g;
        0x14 [3:0] fec_override_admin_10g_40g;
        0x18 [31:16] fec_override_cap_400g_8x;
        0x18 [15:0] fec_override_cap_200g_4x;
        0x1c [31:16] fec_override_cap_100g_2x;
        0x1c [15:0] fec_override_cap_50g_1x;
        0x20 [31:16] fec_override_admin_400g_8x;
        0x20 [15:0] fec_override_admin_200g_4x;
        0x24 [31:16] fec_override_admin_100g_2x;
        0x24 [15:0] fec_override_admin_50g_1x;
        0x28 [31:16] fec_override_cap_800g_8x;
        0x28 [15:0] fec_override_cap_400g_4x;
        0x2c [31:16] fec_override_cap_200g_2x;
        0x2c [15:0] fec_override_cap_100g_1x;
        0x44 [31:16] fec_override_admin_800g_8x;
        0x44 [15:0] fec_override_admin_400g_4x;
        0x48 [31:16] fec_override_admin_200g_2x;
        0x48 [15:0] fec_override_admin_100g_1x;
        0x58 [31:16] fec_override_cap_1600g_8x;
        0x58 [15:0] fec_override_cap_800g_4x;
        0x5c [31:16] fec_override_cap_400g_2x;
        0x5c [15:0] fec_override_cap_200g_1x;
        0x60 [31:16] fec_override_admin_1600g_8x;
        0x60 [15:0] fec_override_admin_800g_4x;
        0x64 [31:16] fec_override_admin_400g_2x;
        0x64 [15:0] fec_override_admin_200g_1x;
    }
    pptb_reg / PptbReg : 0xc {
        0x00 [29:28] mm;
        0x00 [23:16] local_port;
        0x00 [9:9] cm;
        0x00 [8:8] um;
        0x00 [7:0] pm;
        0x04 [31:0] prio_x_buff;
        0x08 [31:24] pm_msb;
        0x08 [7:4] ctrl_buff;
        0x08 [3:0] untagged_buff;
    }
    pbmc_reg / PbmcReg : 0x6c {
        0x00 [23:16] local_port;
        0x04 [31:16] xoff_timer_value;
        0x04 [15:0] xoff_refresh;
        0x08 [22:16] fullness_threshold;
        0x08 [15:0] port_buffer_size;
        0x0c [sub; 10] buffer: BufferxReg;
        0x5c [sub] shared_headroom_pool: BufferxReg;
    }
    bufferx_reg / BufferxReg : 0x8 {
        0x00 [25:25] lossy;
        0x00 [24:24] epsb;
        0x00 [15:0] size;
        0x04 [31:16] xoff_threshold;
        0x04 [15:0] xon_threshold;
    }
    qpts_reg / QptsReg : 0x8 {
        0x00 [23:16] local_port;
        0x04 [2:0] trust_state;
    }
    qetc_reg / QetcReg : 0x50 {
        0x00 [23:16] port_number;
        0x08 [sub; 8] tc_configuration: EtsTcnConfigReg;
        0x48 [sub] global_configuration: EtsGlobalConfigReg;
    }
    ets_tcn_config_reg / EtsTcnConfigReg : 0x8 {
        0x00 [31:31] g;
        0x00 [30:30] b;
        0x00 [29:29] r;
        0x00 [19:16] group;
        0x00 [6:0] bw_allocation;
        0x04 [19:16] max_bw_units;
        0x04 [15:0] max_bw_value;
    }
    ets_global_config_reg / EtsGlobalConfigReg : 0x8 {
        0x00 [29:29] r;
        0x04 [19:16] max_bw_units;
        0x04 [7:0] max_bw_value;
    }
    mpein_reg / MpeinReg : 0x30 {
        0x00 [29:24] depth;
        0x00 [23:16] pcie_index;
        0x00 [15:8] node;
        0x04 [31:0] capability_mask;
        0x08 [23:16] link_width_enabled;
        0x08 [15:0] link_speed_enabled;
        0x0c [31:24] lane0_physical_position;
        0x0c [23:16] link_width_active;
        0x0c [15:0] link_speed_active;
        0x10 [31:16] num_of_pfs;
        0x10 [15:0] num_of_vfs;
        0x14 [31:16] bdf0;
        0x18 [31:28] max_read_request_size;
        0x18 [27:24] max_payload_size;
        0x18 [18:16] pwr_status;
        0x18 [15:12] port_type;
        0x18 [0:0] lane_reversal;
        0x1c [11:0] pci_power;
        0x24 [31:16] device_status;
        0x24 [15:8] port_state;
        0x28 [15:0] receiver_detect_result;
    }
    mpcnt_reg / MpcntReg : 0x100 {
        0x00 [23:16] pcie_index;
        0x00 [5:0] grp;
        0x04 [31:31] clr;
        0x08 [u8..] counter_set;
    }
    mcia_reg / MciaReg : 0x90 {
        0x00 [31:31] l;
        0x00 [23:16] module;
        0x00 [7:0] status;
        0x04 [31:24] i2c_device_address;
        0x04 [23:16] page_number;
        0x04 [15:0] device_address;
        0x08 [15:0] size;
        0x10 [u8; 128] dwords;
    }
    pmaos_reg / PmaosReg : 0x10 {
        0x00 [23:16] module;
        0x00 [11:8] admin_status;
        0x00 [3:0] oper_status;
        0x04 [31:31] ase;
        0x04 [30:30] ee;
        0x04 [1:0] e;
    }
    node_desc / NodeDesc : 0x40 {
        0x00 [u8; 64] desc;
    }
    register_host_endianness / RegisterHostEndianness : 0x10 {
        0x00 [31:31] he;
    }
    dtor_reg / DtorReg : 0x40 {
        0x04 [sub] pcie_toggle_to: DefaultTimeout;
        0x14 [sub] health_poll_to: DefaultTimeout;
        0x18 [sub] full_crdump_to: DefaultTimeout;
        0x1c [sub] fw_reset_to: DefaultTimeout;
        0x20 [sub] flush_on_err_to: DefaultTimeout;
        0x24 [sub] pci_sync_update_to: DefaultTimeout;
        0x28 [sub] tear_down_to: DefaultTimeout;
        0x2c [sub] fsm_reactivate_to: DefaultTimeout;
        0x30 [sub] reclaim_pages_to: DefaultTimeout;
        0x34 [sub] reclaim_vfs_pages_to: DefaultTimeout;
        0x38 [sub] reset_unload_to: DefaultTimeout;
    }
    pvlc_reg / PvlcReg : 0x10 {
        0x00 [23:16] local_port;
        0x04 [3:0] vl_hw_cap;
        0x08 [3:0] vl_admin;
        0x0c [3:0] vl_operational;
    }
    lane_2_module_mapping / Lane2ModuleMapping : 0x4 {
        0x00 [27:24] rx_lane;
        0x00 [19:16] tx_lane;
        0x00 [7:0] module;
    }
    pcam_regs_5000_to_507f / PcamRegs5000To507f : 0x10 {
        0x00 [31:0] port_access_reg_cap_mask_127_to_96;
        0x04 [31:0] port_access_reg_cap_mask_95_to_64;
        0x08 [31:31] port_access_reg_cap_mask_63;
        0x08 [30:30] pphcr;
        0x08 [29:4] port_access_reg_cap_mask_61_to_36;
        0x08 [3:3] pplm;
        0x08 [2:0] port_access_reg_cap_mask_34_to_32;
        0x0c [31:13] port_access_reg_cap_mask_31_to_13;
        0x0c [12:12] pbmc;
        0x0c [11:11] pptb;
        0x0c [10:9] port_access_reg_cap_mask_10_to_09;
        0x0c [8:8] ppcnt;
        0x0c [7:0] port_access_reg_cap_mask_07_to_00;
    }
    pcam_enhanced_features / PcamEnhancedFeatures : 0x10 {
        0x00 [15:15] ppcnt_recovery_counters;
        0x00 [7:7] cable_length;
        0x00 [2:2] fec_200G_per_lane_in_pplm;
        0x08 [23:23] fec_100G_per_lane_in_pplm;
        0x08 [20:20] shp_pbmc_pbsr_support;
        0x08 [12:12] buffer_ownership;
        0x0c [23:23] fec_50G_per_lane_in_pplm;
        0x0c [18:18] rx_icrc_encapsulated_counter;
        0x0c [13:13] ptys_extended_ethernet;
        0x0c [9:9] pfcc_mask;
        0x0c [5:5] per_lane_error_counters;
        0x0c [4:4] rx_buffer_fullness_counters;
        0x0c [3:3] ptys_connector_type;
        0x0c [1:1] ppcnt_discard_group;
        0x0c [0:0] ppcnt_statistical_group;
    }
    mcam_enhanced_features / McamEnhancedFeatures : 0x10 {
        0x08 [15:15] mtutc_freq_adj_units;
        0x08 [14:14] mtutc_time_adjustment_extended_range;
        0x08 [2:2] mcia_32dwords;
        0x08 [1:1] out_pulse_duration_ns;
        0x08 [0:0] npps_period;
        0x0c [21:21] reset_state;
        0x0c [20:20] ptpcyc2realtime_modify;
        0x0c [17:17] pci_status_and_power;
        0x0c [11:11] mark_tx_action_cnp;
        0x0c [10:10] mark_tx_action_cqe;
        0x0c [9:9] dynamic_tx_overflow;
        0x0c [4:4] pcie_outbound_stalled;
        0x0c [3:3] tx_overflow_buffer_pkt;
        0x0c [2:2] mtpps_enh_out_per_adj;
        0x0c [1:1] mtpps_fs;
        0x0c [0:0] pcie_performance_group;
    }
    default_timeout / DefaultTimeout : 0x4 {
        0x00 [31:29] to_multiplier;
        0x00 [19:0] to_value;
    }
    mcam_access_reg / McamAccessReg : 0x10 {
        0x00 [3:3] mcda;
        0x00 [2:2] mcc;
        0x00 [1:1] mcqi;
        0x00 [0:0] mcqs;
    }
    mcqs_reg / McqsReg : 0x10 {
        0x00 [31:31] last_index_flag;
        0x00 [23:16] fw_device;
        0x00 [15:0] component_index;
        0x04 [15:0] identifier;
        0x08 [8:4] component_status;
        0x08 [3:0] component_update_state;
        0x0c [31:28] last_update_state_changer_type;
        0x0c [27:24] last_update_state_changer_host_id;
    }
    mcqi_reg / McqiReg : 0x18 {
        0x00 [31:31] read_pending_component;
        0x00 [15:0] component_index;
        0x08 [4:0] info_type;
        0x0c [31:0] info_size;
        0x10 [31:0] offset;
        0x14 [15:0] data_size;
        0x18 [u8..] data;
    }
    mcqi_version / McqiVersion : 0x7c {
        0x00 [29:29] build_time_valid;
        0x00 [28:28] user_defined_time_valid;
        0x00 [7:0] version_string_length;
        0x04 [31:0] version;
        0x08 [u64] build_time;
        0x10 [u64] user_defined_time;
        0x18 [31:0] build_tool_version;
        0x20 [u8; 92] version_string;
    }
    /// PDDR with its troubleshooting page.
    pddr_reg / PddrReg : 0x100 {
        0x00 [23:16] local_port;
        0x00 [15:14] pnat;
        0x04 [7:0] page_select;
        0x08 [15:0] group_opcode;
        0x0c [15:0] monitor_opcode;
    }
    /// MNVDA with its header (`struct mlx5_ifc_mnvda_reg_bits`, `lib/nv_param.c`).
    mnvda_reg / MnvdaReg : 0x10c {
        0x00 [23:22] access_mode;
        0x00 [8:0] length;
        0x04 [31:24] type_class;
        0x04 [23:0] parameter_index;
        0x04 [9:0] pf_parameter_index;
    }
}
