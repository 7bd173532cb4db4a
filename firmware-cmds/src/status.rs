//! What a command answers when it refuses: the manual's status, and a syndrome
//! of ours that names the reason.
//!
//! The kernel prints both (`status bad parameter(0x3), syndrome (0x5f0301)`),
//! so every syndrome leads to one line of this table.

/// Status of a command (output dword 0, bits 31:24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Executed.
    Ok = 0x00,
    /// Internal error of the device.
    Internal = 0x01,
    /// Opcode not known, or not offered to this function.
    BadOp = 0x02,
    /// A field has a value that is not allowed.
    BadParam = 0x03,
    /// The function is not in a state for this command.
    BadSysState = 0x04,
    /// A named object does not exist.
    BadRes = 0x05,
    /// The object is busy.
    ResBusy = 0x06,
    /// Not ready, try again.
    NotReady = 0x07,
    /// A limit would be exceeded.
    Limit = 0x08,
    /// The object is not in a state for this command.
    BadResState = 0x09,
    /// An index is out of range.
    BadIndex = 0x0a,
    /// Out of resources.
    NoResources = 0x0f,
    /// A QP is not in a state for this command.
    BadQpState = 0x10,
    /// Input length wrong.
    BadInputLen = 0x50,
    /// Output length wrong.
    BadOutputLen = 0x51,
}

impl Status {
    /// Every status and its name.
    pub const ALL: &'static [(Status, &'static str)] = &[
        (Status::Ok, "OK"),
        (Status::Internal, "INTERNAL"),
        (Status::BadOp, "BAD_OP"),
        (Status::BadParam, "BAD_PARAM"),
        (Status::BadSysState, "BAD_SYS_STATE"),
        (Status::BadRes, "BAD_RES"),
        (Status::ResBusy, "RES_BUSY"),
        (Status::NotReady, "NOT_READY"),
        (Status::Limit, "LIMIT"),
        (Status::BadResState, "BAD_RES_STATE"),
        (Status::BadIndex, "BAD_INDEX"),
        (Status::NoResources, "NO_RESOURCES"),
        (Status::BadQpState, "BAD_QP_STATE"),
        (Status::BadInputLen, "BAD_INPUT_LEN"),
        (Status::BadOutputLen, "BAD_OUTPUT_LEN"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|s| s.0 == self).map_or("unknown", |s| s.1)
    }
}

/// Delivery status of a command queue entry: the command was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Delivery {
    /// Executed; see the command's own status.
    Ok = 0x00,
    /// A mailbox carries another token than its entry.
    Token = 0x02,
    /// A mailbox carries the wrong block number.
    BlockNumber = 0x03,
    /// Output mailbox pointer misaligned.
    OutPtrAlign = 0x04,
    /// Input mailbox pointer misaligned.
    InPtrAlign = 0x05,
    /// A mailbox could not be reached.
    FwInternal = 0x06,
    /// Input length impossible.
    InLength = 0x07,
    /// Output length impossible.
    OutLength = 0x08,
    /// Not a command entry.
    BadDescriptor = 0x10,
}

/// Why a command was refused. The number is what the kernel's log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Syndrome(pub u32);

macro_rules! syndromes {
    ($($value:literal $name:ident $text:literal;)*) => {
        impl Syndrome {
            $(#[doc = $text] pub const $name: Syndrome = Syndrome($value);)*
            /// Every syndrome, its name and its meaning.
            pub const ALL: &'static [(Syndrome, &'static str, &'static str)] =
                &[$((Syndrome($value), stringify!($name), $text)),*];
        }
    };
}

impl Syndrome {
    /// What the syndrome means.
    pub fn text(self) -> &'static str {
        Self::ALL.iter().find(|s| s.0 == self).map_or("unknown syndrome", |s| s.2)
    }
}

syndromes! {
    // General: 0x5f00xx
    0x5f_0001 OPCODE_UNKNOWN "the manual has no such opcode";
    0x5f_0002 OPCODE_UNMODELLED "the opcode exists and is not modelled";
    0x5f_0003 OPCODE_FORBIDDEN "the function may not issue this opcode (manager only)";
    0x5f_0004 INPUT_SHORT "the input is shorter than the command's layout";
    0x5f_0005 OUTPUT_SHORT "the output is shorter than the command's layout";
    0x5f_0006 FUNCTION_DISABLED "ENABLE_HCA has not been executed for this function";
    0x5f_0007 NOT_INITIALISED "INIT_HCA has not been executed for this function";
    0x5f_0008 OP_MOD "no such op_mod for this command";
    0x5f_0009 FUNCTION_ID "no such function id";
    0x5f_000a OTHER_FUNCTION "the function does not manage the one that it names";
    0x5f_000b ISSI "that ISSI is not supported";
    0x5f_000c CAP_GROUP "no such capability group";
    0x5f_000d CAP_BEYOND_MAX "a capability was set beyond its maximum";
    0x5f_000e ALREADY_ENABLED "the function is enabled already";
    0x5f_000f PAGES "pages were given or taken that the device does not track";
    0x5f_0010 INJECTED "a fault that was put in on purpose";
    // Objects: 0x5f01xx
    0x5f_0100 NO_SUCH_OBJECT "no object of that kind has this number";
    0x5f_0101 FOREIGN_OBJECT "the object belongs to another user context";
    0x5f_0102 OBJECT_REFERENCED "another object still refers to this one";
    0x5f_0103 OBJECT_LIMIT "the function has as many objects of this kind as its capability allows";
    0x5f_0104 OBJECT_STATE "the object is not in the state that the command names";
    0x5f_0105 QUEUE_SIZE "the queue's size is out of range";
    0x5f_0106 QUEUE_PAGES "the page list is shorter than the queue, or misaligned";
    0x5f_0107 QUEUE_STRIDE "the stride is not allowed for this queue";
    0x5f_0108 QUEUE_TYPE "the queue type is not supported";
    0x5f_0109 STATE_TRANSITION "there is no such state transition";
    0x5f_010a UAR_RANGE "the UAR page is not one of this function's";
    0x5f_010b VECTOR_RANGE "the interrupt vector is beyond the MSI-X table";
    0x5f_010c DOORBELL_ALIGN "the doorbell record is misaligned";
    0x5f_010d MKEY_MODE "the memory key's access mode is not supported";
    0x5f_010e TIR_DISPATCH "the TIR's dispatch type or hash function is not supported";
    0x5f_010f RQT_SIZE "the RQT's size is out of range";
    0x5f_0110 FIELD_SELECT "a field was selected that cannot be modified";
    0x5f_0111 CQE_SIZE "the CQE size is not supported";
    0x5f_0112 UMEM "umem-backed queues are not modelled";
    // Registers: 0x5f02xx
    0x5f_0200 REGISTER_UNMODELLED "the register is not modelled";
    0x5f_0201 REGISTER_PORT "no such local port";
    0x5f_0202 REGISTER_VALUE "a register field has a value that is not allowed";
    0x5f_0203 REGISTER_READ_ONLY "the register cannot be written";
    // Vports and the eswitch: 0x5f03xx
    0x5f_0300 NO_SUCH_VPORT "no such vport";
    0x5f_0301 NOT_ESWITCH_MANAGER "the function is not the eswitch manager";
    0x5f_0302 NOT_VPORT_GROUP_MANAGER "the function is not the vport group manager";
    0x5f_0303 LIST_SIZE "an address list is longer than the capability allows";
    0x5f_0304 L2_INDEX "the L2 table has no entry of this index";
    // Steering: 0x5f04xx
    0x5f_0400 TABLE_TYPE "the flow table type is not supported";
    0x5f_0401 TABLE_LEVEL "the level is beyond the capability";
    0x5f_0402 TABLE_SIZE "the table's size is beyond the capability";
    0x5f_0403 TABLE_TYPE_MISMATCH "the table is of another type than the command says";
    0x5f_0404 GROUP_RANGE "the group's range overlaps another or leaves the table";
    0x5f_0405 FTE_INDEX "the flow index is outside its group";
    0x5f_0406 FTE_EXISTS "the flow index is in use";
    0x5f_0407 FTE_ABSENT "there is no flow entry at this index";
    0x5f_0408 FTE_ACTION "the action is not supported by this table";
    0x5f_0409 FTE_DESTINATION "the destination does not exist or is not reachable from this table";
    0x5f_040a FTE_LIST "more destinations or counters than the capability allows";
    0x5f_040b DESTINATION_LEVEL "the destination table is not at a higher level";
    0x5f_040c MODIFY_FIELD "the header field cannot be modified";
    0x5f_040d REFORMAT_TYPE "the packet reformat type is not supported";
    0x5f_040e TABLE_MISS "the miss action or miss table is not allowed";
    0x5f_040f MATCH_CRITERIA "match criteria name a block that is not supported";
    0x5f_0410 MODIFY_COUNT "more header actions than the capability allows";
    0x5f_0420 VXLAN_PORT "the VXLAN port is 0, not there, or one too many";
    0x5f_0421 GENEVE_OPTION "the data of the Geneve option is longer than the capability allows";
    0x5f_0422 OBJECT_TYPE "general objects of this type are not offered";
    // Sub-functions: 0x5f05xx
    0x5f_0500 SF_STATE "the SF is not in a state for this command";
    0x5f_0501 SF_TEARDOWN "the SF is being torn down and its driver has not detached";
    0x5f_0502 SF_LIMIT "SFs are not offered to this function";
}

/// A refusal: the status the manual prescribes and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Output dword 0, bits 31:24.
    pub status: Status,
    /// Output dword 1.
    pub syndrome: Syndrome,
}

impl Refusal {
    /// Refuses with a status for a reason.
    pub const fn new(status: Status, syndrome: Syndrome) -> Self {
        Self { status, syndrome }
    }
    /// Refuses a parameter ([`Status::BadParam`]).
    pub const fn param(syndrome: Syndrome) -> Self {
        Self::new(Status::BadParam, syndrome)
    }
    /// Refuses for the state of an object ([`Status::BadResState`]).
    pub const fn state(syndrome: Syndrome) -> Self {
        Self::new(Status::BadResState, syndrome)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, syndrome {:#x}: {}", self.status, self.syndrome.0, self.syndrome.text())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syndrome_has_its_own_number() {
        let mut n: Vec<u32> = Syndrome::ALL.iter().map(|s| s.0.0).collect();
        n.sort_unstable();
        n.dedup();
        assert_eq!(n.len(), Syndrome::ALL.len());
    }
}
