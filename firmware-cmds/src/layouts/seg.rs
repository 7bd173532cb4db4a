//! The init segment, the command queue entry and its mailboxes, event entries.

use crate::prm;

prm! {
    health_buffer / HealthBuffer : 0x40 {
        0x20 [31:0] assert_existptr;
        0x24 [31:0] assert_callra;
        0x2c [31:0] time;
        0x30 [31:0] fw_version;
        0x34 [31:0] hw_id;
        0x38 [31:31] rfr;
        0x38 [27:27] valid;
        0x38 [26:24] severity;
        0x3c [31:24] irisc_index;
        0x3c [23:16] synd;
        0x3c [15:0] ext_synd;
    }
    cmd_queue_entry / CmdQueueEntry : 0x40 {
        0x00 [31:24] r#type;
        0x04 [31:0] input_length;
        0x08 [31:0] input_mailbox_pointer_63_32;
        0x0c [31:9] input_mailbox_pointer_31_9;
        0x10 [u8; 16] command_input_inline_data;
        0x20 [u8; 16] command_output_inline_data;
        0x30 [31:0] output_mailbox_pointer_63_32;
        0x34 [31:9] output_mailbox_pointer_31_9;
        0x38 [31:0] output_length;
        0x3c [31:24] token;
        0x3c [23:16] signature;
        0x3c [7:1] status;
        0x3c [0:0] ownership;
    }
    cmd_if_box / CmdIfBox : 0x240 {
        0x00 [u8; 512] mailbox_data;
        0x230 [31:0] next_pointer_63_32;
        0x234 [31:10] next_pointer_31_10;
        0x238 [31:0] block_number;
        0x23c [23:16] token;
        0x23c [15:8] ctrl_signature;
        0x23c [7:0] signature;
    }
}
