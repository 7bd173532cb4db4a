//! What a flow entry can match.

use crate::prm;

prm! {
    fte_match_param / FteMatchParam : 0x200 {
        0x00 [sub] outer_headers: FteMatchSetLyr24;
        0x40 [sub] misc_parameters: FteMatchSetMisc;
        0x80 [sub] inner_headers: FteMatchSetLyr24;
        0xc0 [sub] misc_parameters_2: FteMatchSetMisc2;
        0x100 [sub] misc_parameters_3: FteMatchSetMisc3;
        0x140 [sub] misc_parameters_4: FteMatchSetMisc4;
        0x180 [sub] misc_parameters_5: FteMatchSetMisc5;
    }
    fte_match_set_lyr_2_4 / FteMatchSetLyr24 : 0x40 {
        0x00 [31:0] smac_47_16;
        0x04 [31:16] smac_15_0;
        0x04 [15:0] ethertype;
        0x08 [31:0] dmac_47_16;
        0x0c [31:16] dmac_15_0;
        0x0c [15:13] first_prio;
        0x0c [12:12] first_cfi;
        0x0c [11:0] first_vid;
        0x10 [31:24] ip_protocol;
        0x10 [23:18] ip_dscp;
        0x10 [17:16] ip_ecn;
        0x10 [15:15] cvlan_tag;
        0x10 [14:14] svlan_tag;
        0x10 [13:13] frag;
        0x10 [12:9] ip_version;
        0x10 [8:0] tcp_flags;
        0x14 [31:16] tcp_sport;
        0x14 [15:0] tcp_dport;
        0x18 [31:30] l4_type;
        0x18 [29:26] l4_type_ext;
        0x18 [15:12] ipv4_ihl;
        0x18 [7:0] ttl_hoplimit;
        0x1c [31:16] udp_sport;
        0x1c [15:0] udp_dport;
        0x20 [u8; 16] src_ipv4_src_ipv6;
        0x30 [u8; 16] dst_ipv4_dst_ipv6;
    }
    fte_match_set_misc / FteMatchSetMisc : 0x40 {
        0x00 [31:31] gre_c_present;
        0x00 [29:29] gre_k_present;
        0x00 [28:28] gre_s_present;
        0x00 [27:24] source_vhca_port;
        0x00 [23:0] source_sqn;
        0x04 [31:16] source_eswitch_owner_vhca_id;
        0x04 [15:0] source_port;
        0x08 [31:29] outer_second_prio;
        0x08 [28:28] outer_second_cfi;
        0x08 [27:16] outer_second_vid;
        0x08 [15:13] inner_second_prio;
        0x08 [12:12] inner_second_cfi;
        0x08 [11:0] inner_second_vid;
        0x0c [31:31] outer_second_cvlan_tag;
        0x0c [30:30] inner_second_cvlan_tag;
        0x0c [29:29] outer_second_svlan_tag;
        0x0c [28:28] inner_second_svlan_tag;
        0x0c [15:0] gre_protocol;
        0x10 [u8; 4] gre_key;
        0x14 [31:8] vxlan_vni;
        0x14 [7:0] bth_opcode;
        0x18 [31:8] geneve_vni;
        0x18 [1:1] geneve_tlv_option_0_exist;
        0x18 [0:0] geneve_oam;
        0x1c [19:0] outer_ipv6_flow_label;
        0x20 [19:0] inner_ipv6_flow_label;
        0x24 [21:16] geneve_opt_len;
        0x24 [15:0] geneve_protocol_type;
        0x28 [23:0] bth_dst_qp;
        0x2c [31:0] inner_esp_spi;
        0x30 [31:0] outer_esp_spi;
    }
    fte_match_set_misc2 / FteMatchSetMisc2 : 0x40 {
        0x00 [sub] outer_first_mpls: FteMatchMpls;
        0x04 [sub] inner_first_mpls: FteMatchMpls;
        0x08 [sub] outer_first_mpls_over_gre: FteMatchMpls;
        0x0c [sub] outer_first_mpls_over_udp: FteMatchMpls;
        0x10 [31:0] metadata_reg_c_7;
        0x14 [31:0] metadata_reg_c_6;
        0x18 [31:0] metadata_reg_c_5;
        0x1c [31:0] metadata_reg_c_4;
        0x20 [31:0] metadata_reg_c_3;
        0x24 [31:0] metadata_reg_c_2;
        0x28 [31:0] metadata_reg_c_1;
        0x2c [31:0] metadata_reg_c_0;
        0x30 [31:0] metadata_reg_a;
        0x34 [31:24] psp_syndrome;
        0x34 [23:16] macsec_syndrome;
        0x34 [15:8] ipsec_syndrome;
        0x34 [7:0] ipsec_next_header;
    }
    fte_match_set_misc3 / FteMatchSetMisc3 : 0x40 {
        0x00 [31:0] inner_tcp_seq_num;
        0x04 [31:0] outer_tcp_seq_num;
        0x08 [31:0] inner_tcp_ack_num;
        0x0c [31:0] outer_tcp_ack_num;
        0x10 [23:0] outer_vxlan_gpe_vni;
        0x14 [31:24] outer_vxlan_gpe_next_protocol;
        0x14 [23:16] outer_vxlan_gpe_flags;
        0x18 [31:0] icmp_header_data;
        0x1c [31:0] icmpv6_header_data;
        0x20 [31:24] icmp_type;
        0x20 [23:16] icmp_code;
        0x20 [15:8] icmpv6_type;
        0x20 [7:0] icmpv6_code;
        0x24 [31:0] geneve_tlv_option_0_data;
        0x28 [31:0] gtpu_teid;
        0x2c [31:24] gtpu_msg_type;
        0x2c [23:16] gtpu_msg_flags;
        0x30 [31:0] gtpu_dw_2;
        0x34 [31:0] gtpu_first_ext_dw_0;
        0x38 [31:0] gtpu_dw_0;
    }
    fte_match_set_misc4 / FteMatchSetMisc4 : 0x40 {
        0x00 [31:0] prog_sample_field_value_0;
        0x04 [31:0] prog_sample_field_id_0;
        0x08 [31:0] prog_sample_field_value_1;
        0x0c [31:0] prog_sample_field_id_1;
        0x10 [31:0] prog_sample_field_value_2;
        0x14 [31:0] prog_sample_field_id_2;
        0x18 [31:0] prog_sample_field_value_3;
        0x1c [31:0] prog_sample_field_id_3;
    }
    fte_match_set_misc5 / FteMatchSetMisc5 : 0x40 {
        0x00 [31:0] macsec_tag_0;
        0x04 [31:0] macsec_tag_1;
        0x08 [31:0] macsec_tag_2;
        0x0c [31:0] macsec_tag_3;
        0x10 [31:0] tunnel_header_0;
        0x14 [31:0] tunnel_header_1;
        0x18 [31:0] tunnel_header_2;
        0x1c [31:0] tunnel_header_3;
    }
    fte_match_mpls / FteMatchMpls : 0x4 {
        0x00 [31:12] mpls_label;
        0x00 [11:9] mpls_exp;
        0x00 [8:8] mpls_s_bos;
        0x00 [7:0] mpls_ttl;
    }
    gre_key / GreKey : 0x4 {
        0x00 [sub] nvgre: NvgreKey;
        0x00 [31:0] key;
    }
    nvgre_key / NvgreKey : 0x4 {
        0x00 [31:8] hi;
        0x00 [7:0] lo;
    }
    ipv4_layout / Ipv4Layout : 0x10 {
        0x0c [31:0] ipv4;
    }
    ipv6_layout / Ipv6Layout : 0x10 {
        0x00 [u8; 16] ipv6;
    }
    flow_table_fields_supported / FlowTableFieldsSupported : 0x10 {
        0x00 [31:31] outer_dmac;
        0x00 [30:30] outer_smac;
        0x00 [29:29] outer_ether_type;
        0x00 [28:28] outer_ip_version;
        0x00 [27:27] outer_first_prio;
        0x00 [26:26] outer_first_cfi;
        0x00 [25:25] outer_first_vid;
        0x00 [24:24] outer_ipv4_ttl;
        0x00 [23:23] outer_second_prio;
        0x00 [22:22] outer_second_cfi;
        0x00 [21:21] outer_second_vid;
        0x00 [19:19] outer_sip;
        0x00 [18:18] outer_dip;
        0x00 [17:17] outer_frag;
        0x00 [16:16] outer_ip_protocol;
        0x00 [15:15] outer_ip_ecn;
        0x00 [14:14] outer_ip_dscp;
        0x00 [13:13] outer_udp_sport;
        0x00 [12:12] outer_udp_dport;
        0x00 [11:11] outer_tcp_sport;
        0x00 [10:10] outer_tcp_dport;
        0x00 [9:9] outer_tcp_flags;
        0x00 [8:8] outer_gre_protocol;
        0x00 [7:7] outer_gre_key;
        0x00 [6:6] outer_vxlan_vni;
        0x00 [5:5] outer_geneve_vni;
        0x00 [4:4] outer_geneve_oam;
        0x00 [3:3] outer_geneve_protocol_type;
        0x00 [2:2] outer_geneve_opt_len;
        0x00 [1:1] source_vhca_port;
        0x00 [0:0] source_eswitch_port;
        0x04 [31:31] inner_dmac;
        0x04 [30:30] inner_smac;
        0x04 [29:29] inner_ether_type;
        0x04 [28:28] inner_ip_version;
        0x04 [27:27] inner_first_prio;
        0x04 [26:26] inner_first_cfi;
        0x04 [25:25] inner_first_vid;
        0x04 [23:23] inner_second_prio;
        0x04 [22:22] inner_second_cfi;
        0x04 [21:21] inner_second_vid;
        0x04 [19:19] inner_sip;
        0x04 [18:18] inner_dip;
        0x04 [17:17] inner_frag;
        0x04 [16:16] inner_ip_protocol;
        0x04 [15:15] inner_ip_ecn;
        0x04 [14:14] inner_ip_dscp;
        0x04 [13:13] inner_udp_sport;
        0x04 [12:12] inner_udp_dport;
        0x04 [11:11] inner_tcp_sport;
        0x04 [10:10] inner_tcp_dport;
        0x04 [9:9] inner_tcp_flags;
        0x08 [31:31] geneve_tlv_option_0_data;
        0x08 [30:30] geneve_tlv_option_0_exist;
        0x08 [26:23] outer_first_mpls_over_udp;
        0x08 [22:19] outer_first_mpls_over_gre;
        0x08 [18:15] inner_first_mpls;
        0x08 [14:11] outer_first_mpls;
        0x08 [8:8] outer_esp_spi;
        0x08 [5:5] bth_dst_qp;
        0x0c [7:7] metadata_reg_c_7;
        0x0c [6:6] metadata_reg_c_6;
        0x0c [5:5] metadata_reg_c_5;
        0x0c [4:4] metadata_reg_c_4;
        0x0c [3:3] metadata_reg_c_3;
        0x0c [2:2] metadata_reg_c_2;
        0x0c [1:1] metadata_reg_c_1;
        0x0c [0:0] metadata_reg_c_0;
    }
    flow_table_fields_supported_2 / FlowTableFieldsSupported2 : 0x10 {
        0x00 [31:31] inner_l4_type_ext;
        0x00 [30:30] outer_l4_type_ext;
        0x00 [29:29] inner_l4_type;
        0x00 [28:28] outer_l4_type;
        0x00 [17:17] bth_opcode;
        0x00 [15:15] tunnel_header_0_1;
        0x04 [16:16] ipsec_next_header;
    }
}
