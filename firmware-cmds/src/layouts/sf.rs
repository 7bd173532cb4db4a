//! Sub-functions and the VHCA state machine.

use crate::prm;

prm! {
    alloc_sf_in / AllocSfIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [15:0] function_id;
    }
    alloc_sf_out / AllocSfOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    dealloc_sf_in / DeallocSfIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
        0x08 [15:0] function_id;
    }
    dealloc_sf_out / DeallocSfOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_vhca_state_in / QueryVhcaStateIn : 0x10 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [31:31] embedded_cpu_function;
        0x08 [15:0] function_id;
    }
    query_vhca_state_out / QueryVhcaStateOut : 0x20 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x10 [sub] vhca_state_context: VhcaStateContext;
    }
    modify_vhca_state_in / ModifyVhcaStateIn : 0x20 {
        0x00 [31:16] opcode;
        0x00 [15:0] uid;
        0x04 [15:0] op_mod;
        0x08 [31:31] embedded_cpu_function;
        0x08 [15:0] function_id;
        0x0c [sub] vhca_state_field_select: VhcaStateFieldSelect;
        0x10 [sub] vhca_state_context: VhcaStateContext;
    }
    modify_vhca_state_out / ModifyVhcaStateOut : 0x10 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
    }
    query_esw_functions_in / QueryEswFunctionsIn : 0x10 {
        0x00 [31:16] opcode;
        0x04 [15:0] op_mod;
    }
    query_esw_functions_out / QueryEswFunctionsOut : 0x80 {
        0x00 [31:24] status;
        0x04 [31:0] syndrome;
        0x0c [31:24] net_function_num;
        0x10 [u8..] net_function_params;
    }
    vhca_state_context / VhcaStateContext : 0x10 {
        0x00 [31:31] arm_change_event;
        0x00 [19:16] vhca_state;
        0x04 [31:0] sw_function_id;
    }
    vhca_state_field_select / VhcaStateFieldSelect : 0x4 {
        0x00 [1:1] sw_function_id;
        0x00 [0:0] arm_change_event;
    }
    host_params_context / HostParamsContext : 0x40 {
        0x00 [31:24] host_number;
        0x00 [18:18] host_pf_not_exist;
        0x00 [16:16] host_pf_disabled;
        0x00 [15:0] host_num_of_vfs;
        0x04 [31:16] host_total_vfs;
        0x04 [15:0] host_pci_bus;
        0x08 [15:0] host_pci_device;
        0x0c [15:0] host_pci_function;
    }
}
