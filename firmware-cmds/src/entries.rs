//! Entries of queues: WQE segments, completions, events.
//!
//! These are not in `mlx5_ifc.h`; the kernel declares them as C structures
//! (`struct mlx5_cqe64`, `mlx5_wqe_ctrl_seg`, …) and the layout check compares
//! them with those. Fields that share bytes in the kernel's unions carry the
//! name of their use.

use crate::prm;

prm! {
    /// Event queue entry (`struct mlx5_eqe`).
    eqe / Eqe : 0x40 {
        0x00 [23:16] r#type;
        0x00 [7:0]   sub_type;
        0x20 [u8; 28] data;
        0x20 [31:0]  cmd_vector;            // command done
        0x20 [31:16] vhca_ec_function;      // VHCA state change
        0x20 [15:0]  vhca_function_id;
        0x20 [15:0]  vport_num;             // NIC vport change
        0x20 [23:0]  cq_err_cqn;            // CQ error
        0x28 [31:28] port;                  // port change: high nibble of its byte
        0x28 [7:0]   cq_err_syndrome;
        0x34 [31:24] queue_type;            // QP, RQ, SQ events
        0x38 [23:0]  cqn;                   // completion
        0x38 [23:0]  queue_number;
        0x3c [15:8]  signature;
        0x3c [7:0]   owner;
    }

    /// Completion queue entry of 64 bytes (`struct mlx5_cqe64`).
    cqe64 / Cqe64 : 0x40 {
        0x00 [24:24] outer_l3_tunneled;     // low bit of the first byte
        0x00 [15:0]  wqe_id;
        0x04 [30:30] lro_tcppsh;
        0x04 [23:16] lro_min_ttl;
        0x04 [15:0]  lro_tcp_win;
        0x08 [31:0]  lro_ack_seq_num;
        0x0c [31:0]  rss_hash_result;
        0x10 [31:24] rss_hash_type;
        0x10 [31:30] rss_l4_type;
        0x10 [27:26] rss_ip_type;
        0x10 [23:16] ml_path;
        0x14 [31:16] check_sum;
        0x14 [15:0]  slid;
        0x18 [31:0]  flags_rqpn;
        0x1c [31:24] hds_ip_ext;
        0x1c [26:26] l4_ok;
        0x1c [25:25] l3_ok;
        0x1c [24:24] l2_ok;
        0x1c [23:16] l4_l3_hdr_type;
        0x1c [22:20] l4_hdr_type;
        0x1c [19:18] l3_hdr_type;
        0x1c [16:16] vlan_stripped;
        0x1c [15:0]  vlan_info;
        0x20 [31:0]  srqn;
        0x20 [31:24] lro_num_seg;
        0x20 [23:0]  user_index;            // user queues (cqe_version 1)
        0x24 [31:0]  ft_metadata;
        0x2c [31:0]  byte_cnt;
        0x2c [31:31] filler;                // striding queues
        0x2c [30:16] consumed_strides;
        0x2c [15:0]  stride_byte_cnt;
        0x30 [u64]   timestamp;
        0x38 [31:0]  sop_drop_qpn;
        0x38 [31:24] send_opcode;
        0x38 [23:0]  flow_tag;
        0x38 [23:0]  qpn;
        0x36 [u8; 2] error_syndromes;       // vendor syndrome, syndrome
        0x3c [31:16] wqe_counter;           // striding queues: the first stride
        0x3c [15:8]  signature;
        0x3c [7:0]   op_own;
        0x3c [7:4]   opcode;
        0x3c [3:2]   format;
        0x3c [1:1]   solicited;
        0x3c [0:0]   owner;
    }

    /// Completion that shares a title with others (`struct mlx5_mini_cqe8`).
    mini_cqe8 / MiniCqe : 0x8 {
        0x00 [31:0]  rx_hash_result;
        0x00 [31:16] checksum;
        0x00 [15:0]  stridx;
        0x04 [31:0]  byte_cnt;
    }

    /// First segment of every send WQE (`struct mlx5_wqe_ctrl_seg`).
    wqe_ctrl_seg / WqeCtrl : 0x10 {
        0x00 [31:24] opmod;
        0x00 [23:8]  wqe_index;
        0x00 [7:0]   opcode;
        0x04 [31:8]  qpn;
        0x04 [5:0]   ds;
        0x08 [31:24] signature;
        0x08 [7:5]   fence;
        0x08 [3:2]   ce;
        0x08 [1:1]   solicited;
        0x0c [31:0]  general_id;
    }

    /// Second segment of a UMR (`struct mlx5_wqe_umr_ctrl_seg`): how a memory key
    /// changes. A context of the key (`Mkc`) follows it, then the translations.
    wqe_umr_ctrl_seg / WqeUmr : 0x30 {
        0x00 [31:31] inline;                // the translations are in the WQE
        0x00 [30:30] check_free;
        0x00 [29:29] check_not_free;
        0x00 [28:28] translation_offset_en;
        0x04 [31:16] xlt_octowords;
        0x04 [15:0]  xlt_offset;            // in octowords
        0x08 [u64]   mkey_mask;             // which fields of the context change
        0x0c [29:29] mask_free;
    }

    /// Ethernet segment (`struct mlx5_wqe_eth_seg`).
    wqe_eth_seg / WqeEth : 0x10 {
        0x00 [31:24] swp_outer_l4_offset;
        0x00 [23:16] swp_outer_l3_offset;
        0x00 [15:8]  swp_inner_l4_offset;
        0x00 [7:0]   swp_inner_l3_offset;
        0x04 [31:31] l4_csum;
        0x04 [30:30] l3_csum;
        0x04 [29:29] l4_inner_csum;
        0x04 [28:28] l3_inner_csum;
        0x04 [23:16] swp_flags;
        0x04 [15:0]  mss;
        0x08 [31:0]  flow_table_metadata;
        0x0c [31:31] vlan_insert;
        0x0c [25:16] inline_hdr_sz;
        0x0c [15:0]  inline_hdr_start;
        0x0c [u8; 2] inline_hdr_sz_bytes;
        0x0e [u8..]  inline_data;           // header bytes run on behind the segment
    }

    /// Scatter/gather element (`struct mlx5_wqe_data_seg`).
    wqe_data_seg / WqeData : 0x10 {
        0x00 [31:31] inline;
        0x00 [30:0]  byte_count;
        0x04 [31:0]  lkey;
        0x08 [u64]   addr;
    }

    /// Head of a segment whose data follows in the WQE
    /// (`struct mlx5_wqe_inline_seg`).
    wqe_inline_seg / WqeInline : 0x4 {
        0x00 [31:31] inline;
        0x00 [9:0]   byte_count;
        0x04 [u8..]  data;
    }

    /// First segment of a receive WQE in a linked list
    /// (`struct mlx5_wqe_srq_next_seg`).
    wqe_srq_next_seg / WqeNext : 0x10 {
        0x00 [15:0]  next_wqe_index;
        0x04 [31:24] signature;
    }

    /// Doorbell record of a work queue: receive counter (`MLX5_RCV_DBR`), send
    /// counter (`MLX5_SND_DBR`).
    wq_dbr / WqRecord : 0x8 {
        0x00 [15:0]  receive_counter;
        0x04 [15:0]  send_counter;
    }

    /// Doorbell record of a completion queue (`mlx5_core_cq::set_ci_db`,
    /// `arm_db`).
    cq_dbr / CqRecord : 0x8 {
        0x00 [23:0]  consumer_counter;
        0x04 [29:28] cmd_sn;
        0x04 [24:24] solicited_only;
        0x04 [23:0]  ci;
    }

    /// First 8 bytes of an SQ doorbell: the head of the control segment.
    sq_doorbell / SqDoorbell : 0x8 {
        0x00 [23:8]  wqe_index;
        0x04 [31:8]  sqn;
    }

    /// CQ doorbell: UAR offset 0x20, and the second word of its record.
    cq_doorbell / CqDoorbell : 0x8 {
        0x00 [29:28] cmd_sn;
        0x00 [24:24] solicited_only;
        0x00 [23:0]  ci;
        0x04 [23:0]  cqn;
    }

    /// EQ doorbell: UAR offset 0x40 (arm) or 0x48 (update only).
    eq_doorbell / EqDoorbell : 0x4 {
        0x00 [31:24] eqn;
        0x00 [23:0]  ci;
    }

    /// Fixed part of the init segment (`struct mlx5_init_seg`).
    init_seg / InitSeg : 0x2010 {
        0x0000 [31:16] fw_rev_minor;
        0x0000 [15:0]  fw_rev_major;
        0x0004 [31:16] cmd_interface_rev;
        0x0004 [15:0]  fw_rev_subminor;
        0x0010 [31:0]  cmdq_phy_addr_63_32;
        0x0014 [31:12] cmdq_phy_addr_31_12;
        0x0014 [10:8]  nic_interface;
        0x0014 [7:4]   log_cmdq_size;
        0x0014 [3:0]   log_cmdq_stride;
        0x0018 [31:0]  command_doorbell_vector;
        0x01fc [31:31] initializing;
        0x01fc [30:30] fw_reset_supported;
        0x01fc [26:24] nic_interface_supported;
        0x01fc [23:23] embedded_cpu;
        0x0230 [31:0]  health_fw_ver;
        0x0234 [31:0]  health_hw_id;
        0x0238 [31:31] health_rfr;
        0x0238 [30:30] health_crr;
        0x0238 [27:27] health_severity_valid;
        0x0238 [26:24] health_severity;
        0x023c [23:16] health_synd;
        0x023c [15:0]  health_ext_synd;
        0x0ff8 [31:0]  cmd_exec_to;
        0x0ffc [31:0]  cmd_q_init_to;
        0x1000 [31:0]  internal_timer_h;
        0x1004 [31:0]  internal_timer_l;
        0x1010 [31:0]  health_counter;
    }
}

/// Event types (`enum mlx5_event`).
pub mod event {
    #![allow(missing_docs)]
    pub const COMPLETION: u8 = 0x00;
    pub const CQ_ERROR: u8 = 0x04;
    pub const WQ_CATASTROPHIC: u8 = 0x05;
    pub const PORT_CHANGE: u8 = 0x09;
    pub const COMMAND: u8 = 0x0a;
    pub const PAGE_REQUEST: u8 = 0x0b;
    pub const NIC_VPORT_CHANGE: u8 = 0x0d;
    pub const ESW_FUNCTIONS_CHANGED: u8 = 0x0e;
    pub const VHCA_STATE_CHANGE: u8 = 0x0f;
    pub const WQ_ACCESS_ERROR: u8 = 0x11;
    /// Sub-types of [`PORT_CHANGE`].
    pub const PORT_DOWN: u8 = 1;
    pub const PORT_ACTIVE: u8 = 4;
}

/// Opcodes of completions (bits 7:4 of the last byte).
pub mod cqe_opcode {
    #![allow(missing_docs)]
    pub const REQ: u32 = 0x0;
    pub const RESP_SEND: u32 = 0x2;
    pub const REQ_ERR: u32 = 0xd;
    pub const RESP_ERR: u32 = 0xe;
}

/// Formats of completions (bits 3:2 of the last byte).
pub mod cqe_format {
    #![allow(missing_docs)]
    pub const COMPRESSED: u32 = 3;
}

/// Syndromes of error completions (`MLX5_CQE_SYNDROME_*`).
pub mod cqe_syndrome {
    #![allow(missing_docs)]
    pub const LOCAL_LENGTH: u8 = 0x01;
    pub const LOCAL_QP_OP: u8 = 0x02;
    pub const LOCAL_PROT: u8 = 0x04;
    pub const WR_FLUSH: u8 = 0x05;
    pub const LOCAL_ACCESS: u8 = 0x11;
}

/// What went wrong with a completion queue (byte 0x2b of a CQ error event).
pub mod cq_error {
    #![allow(missing_docs)]
    pub const OVERRUN: u8 = 0x01;
    pub const ACCESS: u8 = 0x02;
}

/// Ends a receive WQE's list of data segments (`MLX5_TERMINATE_SCATTER_LIST_LKEY`).
pub const TERMINATE_SCATTER_LKEY: u32 = 0x100;

/// Whether a send WQE asks for a completion (`fm_ce_se` bits 3:2).
pub mod wqe_ce {
    #![allow(missing_docs)]
    pub const CQE: u32 = 2;
    pub const CQE_AND_EQE: u32 = 3;
}

/// Opcodes of send WQEs (`enum` `MLX5_OPCODE_*`).
pub mod wqe_opcode {
    #![allow(missing_docs)]
    pub const NOP: u8 = 0x00;
    pub const SEND: u8 = 0x0a;
    pub const LSO: u8 = 0x0e;
    pub const DUMP: u8 = 0x23;
    pub const UMR: u8 = 0x25;
    pub const ENHANCED_MPSW: u8 = 0x29;
    /// Every opcode with a name.
    pub const NAMES: &[(u8, &str)] = &[
        (0x00, "NOP"),
        (0x01, "SEND_INVAL"),
        (0x08, "RDMA_WRITE"),
        (0x09, "RDMA_WRITE_IMM"),
        (0x0a, "SEND"),
        (0x0b, "SEND_IMM"),
        (0x0e, "LSO"),
        (0x10, "RDMA_READ"),
        (0x11, "ATOMIC_CS"),
        (0x12, "ATOMIC_FA"),
        (0x14, "ATOMIC_MASKED_CS"),
        (0x15, "ATOMIC_MASKED_FA"),
        (0x20, "SET_PSV"),
        (0x23, "DUMP"),
        (0x25, "UMR"),
        (0x29, "ENHANCED_MPSW"),
        (0x2c, "FLOW_TBL_ACCESS"),
        (0x2d, "ACCESS_ASO"),
    ];
}
