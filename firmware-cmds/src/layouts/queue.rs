//! Event, completion, send and receive queues.

use crate::prm;

prm! {
    create_eq_in / CreateEqIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x10 [sub] eq_context_entry: Eqc;
        0x58 [u8; 32] event_bitmask;
        0x110 [u64..] pas;
    }
    create_eq_out / CreateEqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [7:0] eq_number;
    }
    destroy_eq_in / DestroyEqIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [7:0] eq_number;
    }
    destroy_eq_out / DestroyEqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_eq_in / QueryEqIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [7:0] eq_number;
    }
    query_eq_out / QueryEqOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] eq_context_entry: Eqc;
        0x58 [u64] event_bitmask;
        0x110 [u64..] pas;
    }
    create_cq_in / CreateCqIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x10 [sub] cq_context: Cqc;
        0x5c [31:31] cq_umem_valid;
        0x110 [u64..] pas;
    }
    create_cq_out / CreateCqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] cqn;
    }
    destroy_cq_in / DestroyCqIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] cqn;
    }
    destroy_cq_out / DestroyCqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_cq_in / QueryCqIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] cqn;
    }
    query_cq_out / QueryCqOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] cq_context: Cqc;
        0x110 [u64..] pas;
    }
    modify_cq_in / ModifyCqIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] cqn;
        0x0c [u8; 4] modify_field_select_resize_field_select;
        0x10 [sub] cq_context: Cqc;
        0x5c [31:31] cq_umem_valid;
        0x110 [u64..] pas;
    }
    modify_cq_out / ModifyCqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    create_sq_in / CreateSqIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x20 [sub] ctx: Sqc;
    }
    create_sq_out / CreateSqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] sqn;
    }
    modify_sq_in / ModifySqIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [31:28] sq_state;
        0x08 [23:0] sqn;
        0x10 [u64] modify_bitmask;
        0x20 [sub] ctx: Sqc;
    }
    modify_sq_out / ModifySqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    destroy_sq_in / DestroySqIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] sqn;
    }
    destroy_sq_out / DestroySqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_sq_in / QuerySqIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] sqn;
    }
    query_sq_out / QuerySqOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x20 [sub] sq_context: Sqc;
    }
    create_rq_in / CreateRqIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x20 [sub] ctx: Rqc;
    }
    create_rq_out / CreateRqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] rqn;
    }
    modify_rq_in / ModifyRqIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [31:28] rq_state;
        0x08 [23:0] rqn;
        0x10 [u64] modify_bitmask;
        0x20 [sub] ctx: Rqc;
    }
    modify_rq_out / ModifyRqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    destroy_rq_in / DestroyRqIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] rqn;
    }
    destroy_rq_out / DestroyRqOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_rq_in / QueryRqIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] rqn;
    }
    query_rq_out / QueryRqOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x20 [sub] rq_context: Rqc;
    }
    create_rmp_in / CreateRmpIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x20 [sub] ctx: Rmpc;
    }
    create_rmp_out / CreateRmpOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [23:0] rmpn;
    }
    modify_rmp_in / ModifyRmpIn : 0x110 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [31:28] rmp_state;
        0x08 [23:0] rmpn;
        0x10 [sub] bitmask: RmpBitmask;
        0x20 [sub] ctx: Rmpc;
    }
    modify_rmp_out / ModifyRmpOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    destroy_rmp_in / DestroyRmpIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [23:0] rmpn;
    }
    destroy_rmp_out / DestroyRmpOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_rmp_in / QueryRmpIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [23:0] rmpn;
    }
    query_rmp_out / QueryRmpOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x20 [sub] rmp_context: Rmpc;
    }
    eqc / Eqc : 0x40 {
        0x00 [31:28] status;
        0x00 [18:18] ec;
        0x00 [17:17] oi;
        0x00 [11:8] st;
        0x08 [11:6] page_offset;
        0x0c [28:24] log_eq_size;
        0x0c [23:0] uar_page;
        0x14 [11:0] intr;
        0x18 [28:24] log_page_size;
        0x28 [23:0] consumer_counter;
        0x2c [23:0] producer_counter;
    }
    cqc / Cqc : 0x40 {
        0x00 [31:28] status;
        0x00 [25:25] dbr_umem_valid;
        0x00 [24:24] apu_cq;
        0x00 [23:21] cqe_sz;
        0x00 [20:20] cc;
        0x00 [18:18] scqe_break_moderation_en;
        0x00 [17:17] oi;
        0x00 [16:15] cq_period_mode;
        0x00 [14:14] cqe_comp_en;
        0x00 [13:12] mini_cqe_res_format;
        0x00 [11:8] st;
        0x00 [1:0] cqe_compression_layout;
        0x08 [11:6] page_offset;
        0x0c [28:24] log_cq_size;
        0x0c [23:0] uar_page;
        0x10 [27:16] cq_period;
        0x10 [15:0] cq_max_count;
        0x14 [31:0] c_eqn_or_apu_element;
        0x18 [28:24] log_page_size;
        0x20 [23:0] last_notified_index;
        0x24 [23:0] last_solicit_index;
        0x28 [23:0] consumer_counter;
        0x2c [23:0] producer_counter;
        0x38 [u64] dbr_addr;
    }
    sqc / Sqc : 0xf0 {
        0x00 [31:31] rlky;
        0x00 [30:30] cd_master;
        0x00 [29:29] fre;
        0x00 [28:28] flush_in_error_en;
        0x00 [27:27] allow_multi_pkt_send_wqe;
        0x00 [26:24] min_wqe_inline_mode;
        0x00 [23:20] state;
        0x00 [19:19] reg_umr;
        0x00 [18:18] allow_swp;
        0x00 [17:17] hairpin;
        0x00 [16:16] non_wire;
        0x00 [5:4] ts_format;
        0x04 [23:0] user_index;
        0x08 [23:0] cqn;
        0x0c [23:0] hairpin_peer_rq;
        0x10 [15:0] hairpin_peer_vhca;
        0x18 [23:0] ts_cqe_to_dest_cqn;
        0x1c [15:0] packet_pacing_rate_limit_index;
        0x20 [31:16] tis_lst_sz;
        0x20 [15:0] qos_queue_group_id;
        0x2c [23:0] tis_num_0;
        0x30 [sub] wq: Wq;
    }
    rqc / Rqc : 0xf0 {
        0x00 [31:31] rlky;
        0x00 [30:30] delay_drop_en;
        0x00 [29:29] scatter_fcs;
        0x00 [28:28] vsd;
        0x00 [27:24] mem_rq_type;
        0x00 [23:20] state;
        0x00 [18:18] flush_in_error_en;
        0x00 [17:17] hairpin;
        0x00 [5:4] ts_format;
        0x04 [23:0] user_index;
        0x08 [23:0] cqn;
        0x0c [31:24] counter_set_id;
        0x10 [23:0] rmpn;
        0x14 [23:0] hairpin_peer_sq;
        0x18 [15:0] hairpin_peer_vhca;
        0x24 [25:24] shampo_no_match_alignment_granularity;
        0x24 [17:16] shampo_match_criteria_type;
        0x24 [15:0] reservation_timeout;
        0x30 [sub] wq: Wq;
    }
    rmpc / Rmpc : 0xf0 {
        0x00 [23:20] state;
        0x04 [31:31] basic_cyclic_rcv_wqe;
        0x30 [sub] wq: Wq;
    }
    wq / Wq : 0xc0 {
        0x00 [31:28] wq_type;
        0x00 [27:27] wq_signature;
        0x00 [26:25] end_padding_mode;
        0x00 [24:24] cd_slave;
        0x04 [31:31] hds_skip_first_sge;
        0x04 [30:28] log2_hds_buf_size;
        0x04 [20:16] page_offset;
        0x04 [15:0] lwm;
        0x08 [23:0] pd;
        0x0c [23:0] uar_page;
        0x10 [u64] dbr_addr;
        0x18 [31:0] hw_counter;
        0x1c [31:0] sw_counter;
        0x20 [19:16] log_wq_stride;
        0x20 [12:8] log_wq_pg_sz;
        0x20 [4:0] log_wq_sz;
        0x24 [31:31] dbr_umem_valid;
        0x24 [30:30] wq_umem_valid;
        0x24 [28:24] log_hairpin_num_packets;
        0x24 [20:16] log_hairpin_data_sz;
        0x24 [11:8] log_wqe_num_of_strides;
        0x24 [7:7] two_byte_shift_en;
        0x24 [2:0] log_wqe_stride_size;
        0x28 [31:0] dbr_umem_id;
        0x2c [31:0] wq_umem_id;
        0x30 [u64] wq_umem_offset;
        0x38 [31:0] headers_mkey;
        0x3c [31:31] shampo_enable;
        0x3c [29:28] shampo_mode;
        0x3c [26:24] log_reservation_size;
        0x3c [18:16] log_max_num_of_packets_per_reservation;
        0x3c [9:8] log_headers_entry_size;
        0x3c [3:0] log_headers_buffer_entry_num;
        0xc0 [u8..] pas;
    }
    rmp_bitmask / RmpBitmask : 0x8 {
        0x04 [0:0] lwm;
    }
}
