//! Transport objects: TIR, TIS, RQT, memory keys, domains, UARs.

use crate::prm;

prm! {
    create_tir_in / CreateTirIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x20 [sub] ctx: Tirc;
    }
    create_tir_out / CreateTirOut : 0x10 {
        0x00 [31:24] status;
        0x00 [23:0] icm_address_63_40;
        0x04 [31:0] syndrome;
        0x08 [31:24] icm_address_39_32;
        0x08 [23:0] tirn;
        0x0c [31:0] icm_address_31_0;
    }
    modify_tir_in / ModifyTirIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] tirn;
        0x10 [sub] bitmask: ModifyTirBitmask;
        0x20 [sub] ctx: Tirc;
    }
    modify_tir_out / ModifyTirOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    destroy_tir_in / DestroyTirIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] tirn;
    }
    destroy_tir_out / DestroyTirOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_tir_in / QueryTirIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] tirn;
    }
    query_tir_out / QueryTirOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x20 [sub] tir_context: Tirc;
    }
    create_tis_in / CreateTisIn : 0xc0 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x20 [sub] ctx: Tisc;
    }
    create_tis_out / CreateTisOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] tisn;
    }
    modify_tis_in / ModifyTisIn : 0xc0 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] tisn;
        0x10 [sub] bitmask: ModifyTisBitmask;
        0x20 [sub] ctx: Tisc;
    }
    modify_tis_out / ModifyTisOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    destroy_tis_in / DestroyTisIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] tisn;
    }
    destroy_tis_out / DestroyTisOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_tis_in / QueryTisIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] tisn;
    }
    query_tis_out / QueryTisOut : 0xb0 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] tis_context: Tisc;
    }
    create_rqt_in / CreateRqtIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x20 [sub] rqt_context: Rqtc;
    }
    create_rqt_out / CreateRqtOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] rqtn;
    }
    modify_rqt_in / ModifyRqtIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] rqtn;
        0x10 [sub] bitmask: RqtBitmask;
        0x20 [sub] ctx: Rqtc;
    }
    modify_rqt_out / ModifyRqtOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    destroy_rqt_in / DestroyRqtIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] rqtn;
    }
    destroy_rqt_out / DestroyRqtOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_rqt_in / QueryRqtIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] rqtn;
    }
    query_rqt_out / QueryRqtOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x20 [sub] rqt_context: Rqtc;
    }
    create_mkey_in / CreateMkeyIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x0c [31:31] pg_access;
        0x0c [30:30] mkey_umem_valid;
        0x0c [29:29] data_direct;
        0x10 [sub] memory_key_mkey_entry: Mkc;
        0x60 [31:0] translations_octword_actual_size;
        0x110 [u32..] klm_pas_mtt;
    }
    create_mkey_out / CreateMkeyOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] mkey_index;
    }
    destroy_mkey_in / DestroyMkeyIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] mkey_index;
    }
    destroy_mkey_out / DestroyMkeyOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_mkey_in / QueryMkeyIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] mkey_index;
        0x0c [31:31] pg_access;
    }
    query_mkey_out / QueryMkeyOut : 0x130 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] memory_key_mkey_entry: Mkc;
        0x110 [u8; 16] bsf0_klm0_pas_mtt0_1;
        0x120 [u8; 16] bsf1_klm1_pas_mtt2_3;
    }
    alloc_pd_in / AllocPdIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
    }
    alloc_pd_out / AllocPdOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] pd;
    }
    dealloc_pd_in / DeallocPdIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] pd;
    }
    dealloc_pd_out / DeallocPdOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    alloc_transport_domain_in / AllocTransportDomainIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
    }
    alloc_transport_domain_out / AllocTransportDomainOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] transport_domain;
    }
    dealloc_transport_domain_in / DeallocTransportDomainIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] transport_domain;
    }
    dealloc_transport_domain_out / DeallocTransportDomainOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    alloc_uar_in / AllocUarIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
    }
    alloc_uar_out / AllocUarOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] uar;
    }
    dealloc_uar_in / DeallocUarIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] uar;
    }
    dealloc_uar_out / DeallocUarOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    alloc_xrcd_in / AllocXrcdIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
    }
    alloc_xrcd_out / AllocXrcdOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] xrcd;
    }
    dealloc_xrcd_in / DeallocXrcdIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] xrcd;
    }
    dealloc_xrcd_out / DeallocXrcdOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    create_uctx_in / CreateUctxIn : 0x40 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x10 [sub] uctx: Uctx;
    }
    create_uctx_out / CreateUctxOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [15:0] uid;
    }
    destroy_uctx_in / DestroyUctxIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [15:0] uid;
    }
    destroy_uctx_out / DestroyUctxOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    create_umem_in / CreateUmemIn : 0x30 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x10 [sub] umem: Umem;
    }
    create_umem_out / CreateUmemOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] umem_id;
    }
    destroy_umem_in / DestroyUmemIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] umem_id;
    }
    destroy_umem_out / DestroyUmemOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    tirc / Tirc : 0xf0 {
        0x04 [31:28] disp_type;
        0x04 [27:27] tls_en;
        0x10 [27:12] lro_timeout_period_usecs;
        0x10 [11:8] packet_merge_mask;
        0x10 [7:0] lro_max_ip_payload_size;
        0x1c [23:0] inline_rqn;
        0x20 [31:31] rx_hash_symmetric;
        0x20 [29:29] tunneled_offload_en;
        0x20 [23:0] indirect_table;
        0x24 [31:28] rx_hash_fn;
        0x24 [25:24] self_lb_block;
        0x24 [23:0] transport_domain;
        0x28 [u8; 40] rx_hash_toeplitz_key;
        0x50 [sub] rx_hash_field_selector_outer: RxHashFieldSelect;
        0x54 [sub] rx_hash_field_selector_inner: RxHashFieldSelect;
    }
    tisc / Tisc : 0xa0 {
        0x00 [31:31] strict_lag_tx_port_affinity;
        0x00 [30:30] tls_en;
        0x00 [27:24] lag_tx_port_affinity;
        0x00 [19:16] prio;
        0x24 [23:0] transport_domain;
        0x28 [23:0] underlay_qpn;
        0x2c [23:0] pd;
    }
    rqtc / Rqtc : 0xf0 {
        0x14 [26:24] list_q_type;
        0x14 [15:0] rqt_max_size;
        0x18 [31:31] rq_vhca_id_format;
        0x18 [15:0] rqt_actual_size;
        0xf0 [u8..] rq_num;
        0xf0 [u8..] rq_vhca;
    }
    mkc / Mkc : 0x40 {
        0x00 [30:30] free;
        0x00 [28:26] access_mode_4_2;
        0x00 [18:18] relaxed_ordering_write;
        0x00 [16:16] small_fence_on_rdma_read_response;
        0x00 [15:15] umr_en;
        0x00 [14:14] a;
        0x00 [13:13] rw;
        0x00 [12:12] rr;
        0x00 [11:11] lw;
        0x00 [10:10] lr;
        0x00 [9:8] access_mode_1_0;
        0x00 [5:4] ma_translation_mode;
        0x04 [31:8] qpn;
        0x04 [7:0] mkey_7_0;
        0x0c [31:31] length64;
        0x0c [30:30] bsf_en;
        0x0c [29:29] sync_umr;
        0x0c [26:26] expected_sigerr_count;
        0x0c [24:24] en_rinval;
        0x0c [23:0] pd;
        0x10 [u64] start_addr;
        0x18 [u64] len;
        0x20 [31:0] bsf_octword_size;
        0x30 [31:16] crossing_target_vhca_id;
        0x34 [31:0] translations_octword_size;
        0x38 [6:6] relaxed_ordering_read;
        0x38 [5:0] log_page_size;
        0x3c [26:26] pcie_tph_en;
        0x3c [25:24] pcie_tph_ph;
        0x3c [23:16] pcie_tph_steering_tag_index;
    }
    rx_hash_field_select / RxHashFieldSelect : 0x4 {
        0x00 [31:31] l3_prot_type;
        0x00 [30:30] l4_prot_type;
        0x00 [29:0] selected_fields;
    }
    modify_tir_bitmask / ModifyTirBitmask : 0x8 {
        0x04 [4:4] self_lb_en;
        0x04 [2:2] hash;
        0x04 [0:0] packet_merge;
    }
    modify_tis_bitmask / ModifyTisBitmask : 0x8 {
        0x04 [2:2] lag_tx_port_affinity;
        0x04 [1:1] strict_lag_tx_port_affinity;
        0x04 [0:0] prio;
    }
    rqt_bitmask / RqtBitmask : 0x8 {
        0x04 [0:0] rqn_list;
    }
    uctx / Uctx : 0x30 {
        0x00 [31:0] cap;
    }
    umem / Umem : 0x20 {
        0x10 [31:31] ats;
        0x10 [4:0] log_page_size;
        0x14 [31:0] page_offset;
        0x18 [u64] num_of_mtt;
        0x20 [u8..] mtt;
    }
    mtt / Mtt : 0x8 {
        0x00 [31:0] ptag_63_32;
        0x04 [31:8] ptag_31_8;
        0x04 [1:1] wr_en;
        0x04 [0:0] rd_en;
    }
    rq_num / RqNum : 0x4 {
        0x00 [23:0] rq_num;
    }
}
