//! Device life cycle, capabilities, pages, registers.

use crate::prm;

prm! {
    query_hca_cap_in / QueryHcaCapIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_function;
        0x08 [30:30] ec_vf_function;
        0x08 [28:28] function_id_type;
        0x08 [15:0] function_id;
    }
    query_hca_cap_out / QueryHcaCapOut : 0x1010 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [u8..] capability;
    }
    set_hca_cap_in / SetHcaCapIn : 0x1010 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] other_function;
        0x08 [30:30] ec_vf_function;
        0x08 [28:28] function_id_type;
        0x08 [15:0] function_id;
        0x10 [u8..] capability;
    }
    set_hca_cap_out / SetHcaCapOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_adapter_in / QueryAdapterIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
    }
    query_adapter_out / QueryAdapterOut : 0x110 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] query_adapter_struct: QueryAdapterParamBlock;
    }
    init_hca_in / InitHcaIn : 0x20 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x0c [29:16] sw_vhca_id;
        0x10 [u8; 16] sw_owner_id;
    }
    init_hca_out / InitHcaOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    teardown_hca_in / TeardownHcaIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [15:0] profile;
    }
    teardown_hca_out / TeardownHcaOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x0c [0:0] state;
    }
    enable_hca_in / EnableHcaIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] embedded_cpu_function;
        0x08 [28:28] function_id_type;
        0x08 [15:0] function_id;
    }
    enable_hca_out / EnableHcaOut : 0xc {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    disable_hca_in / DisableHcaIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] embedded_cpu_function;
        0x08 [28:28] function_id_type;
        0x08 [15:0] function_id;
    }
    disable_hca_out / DisableHcaOut : 0xc {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_pages_in / QueryPagesIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] embedded_cpu_function;
        0x08 [15:0] function_id;
    }
    query_pages_out / QueryPagesOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [31:31] embedded_cpu_function;
        0x08 [15:0] function_id;
        0x0c [31:0] num_pages;
    }
    manage_pages_in / ManagePagesIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [31:31] embedded_cpu_function;
        0x08 [15:0] function_id;
        0x0c [31:0] input_num_entries;
        0x10 [u64..] pas;
    }
    manage_pages_out / ManagePagesOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [31:0] output_num_entries;
        0x10 [u64..] pas;
    }
    query_issi_in / QueryIssiIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
    }
    query_issi_out / QueryIssiOut : 0x70 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [15:0] current_issi;
        0x6c [31:0] supported_issi_dw0;
    }
    set_issi_in / SetIssiIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [15:0] current_issi;
    }
    set_issi_out / SetIssiOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    set_driver_version_in / SetDriverVersionIn : 0x50 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x10 [u8; 64] driver_version;
    }
    set_driver_version_out / SetDriverVersionOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_special_contexts_in / QuerySpecialContextsIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
    }
    query_special_contexts_out / QuerySpecialContextsOut : 0x20 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x08 [31:0] dump_fill_mkey;
        0x0c [31:0] resd_lkey;
        0x10 [31:0] null_mkey;
        0x14 [31:0] terminate_scatter_list_mkey;
        0x18 [31:0] repeated_mkey;
    }
    access_register_in / AccessRegisterIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [15:0] register_id;
        0x0c [31:0] argument;
        0x10 [u32..] register_data;
    }
    access_register_out / AccessRegisterOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [u32..] register_data;
    }
    nop_in / NopIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
    }
    nop_out / NopOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_vuid_in / QueryVuidIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x0c [31:31] query_vfs_vuid;
        0x0c [30:30] data_direct;
        0x0c [15:0] vhca_id;
    }
    query_vuid_out / QueryVuidOut : 0x40 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x3c [15:0] num_of_entries;
        0x40 [u8..] vuid;
    }
    query_adapter_param_block / QueryAdapterParamBlock : 0x100 {
        0x18 [23:0] ieee_vendor_id;
        0x1c [15:0] vsd_vendor_id;
        0x20 [u8; 208] vsd;
        0xf0 [u8; 16] vsd_contd_psid;
    }
}
