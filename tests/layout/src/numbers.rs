//! Opcodes, statuses, events and other numbers with a name in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sfnic_firmware_cmds::entries::{self, cqe_format, cqe_opcode, cqe_syndrome, event, wqe_ce, wqe_opcode};
use sfnic_firmware_cmds::{Opcode, Status};

use crate::Mismatch;
use crate::compiler::{Answers, Id, Sheet};

/// What the kernel puts before the name of a command, and once instead.
const COMMAND: [&str; 2] = ["MLX5_CMD_OP_", "MLX5_CMD_OPCODE_"];

/// Names with that beginning that we have no opcode for, and why.
const NO_OPCODE: &[(&str, &str)] = &[
    ("MAX", "the end of the enumeration"),
    ("GENERAL_START", "the first number of a range, not a command"),
    ("GENERAL_END", "the last number of a range, not a command"),
    ("MOD_UPDATE_HEADER_MODIFY_ARGUMENT", "an operation modifier"),
];

const STATUSES: &[(Status, &str)] = &[
    (Status::Ok, "OK"),
    (Status::Internal, "INT_ERR"),
    (Status::BadOp, "BAD_OP_ERR"),
    (Status::BadParam, "BAD_PARAM_ERR"),
    (Status::BadSysState, "BAD_SYS_STATE_ERR"),
    (Status::BadRes, "BAD_RES_ERR"),
    (Status::ResBusy, "RES_BUSY"),
    (Status::NotReady, "NOT_READY"),
    (Status::Limit, "LIM_ERR"),
    (Status::BadResState, "BAD_RES_STATE_ERR"),
    (Status::BadIndex, "IX_ERR"),
    (Status::NoResources, "NO_RES_ERR"),
    (Status::BadQpState, "BAD_QP_STATE_ERR"),
    (Status::BadInputLen, "BAD_INP_LEN_ERR"),
    (Status::BadOutputLen, "BAD_OUTP_LEN_ERR"),
];

const EVENTS: &[(u8, &str)] = &[
    (event::COMPLETION, "COMP"),
    (event::CQ_ERROR, "CQ_ERROR"),
    (event::WQ_CATASTROPHIC, "WQ_CATAS_ERROR"),
    (event::PORT_CHANGE, "PORT_CHANGE"),
    (event::COMMAND, "CMD"),
    (event::PAGE_REQUEST, "PAGE_REQUEST"),
    (event::NIC_VPORT_CHANGE, "NIC_VPORT_CHANGE"),
    (event::ESW_FUNCTIONS_CHANGED, "ESW_FUNCTIONS_CHANGED"),
    (event::VHCA_STATE_CHANGE, "VHCA_STATE_CHANGE"),
    (event::WQ_ACCESS_ERROR, "WQ_ACCESS_ERROR"),
];

/// Numbers and the kernel's expressions for them.
const OTHERS: &[(u64, &str)] = &[
    (event::PORT_DOWN as u64, "MLX5_PORT_CHANGE_SUBTYPE_DOWN"),
    (event::PORT_ACTIVE as u64, "MLX5_PORT_CHANGE_SUBTYPE_ACTIVE"),
    (cqe_opcode::REQ as u64, "MLX5_CQE_REQ"),
    (cqe_opcode::RESP_SEND as u64, "MLX5_CQE_RESP_SEND"),
    (cqe_opcode::REQ_ERR as u64, "MLX5_CQE_REQ_ERR"),
    (cqe_opcode::RESP_ERR as u64, "MLX5_CQE_RESP_ERR"),
    (cqe_format::COMPRESSED as u64, "MLX5_COMPRESSED"),
    (cqe_syndrome::LOCAL_LENGTH as u64, "MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR"),
    (cqe_syndrome::LOCAL_QP_OP as u64, "MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR"),
    (cqe_syndrome::LOCAL_PROT as u64, "MLX5_CQE_SYNDROME_LOCAL_PROT_ERR"),
    (cqe_syndrome::WR_FLUSH as u64, "MLX5_CQE_SYNDROME_WR_FLUSH_ERR"),
    (cqe_syndrome::LOCAL_ACCESS as u64, "MLX5_CQE_SYNDROME_LOCAL_ACCESS_ERR"),
    (entries::TERMINATE_SCATTER_LKEY as u64, "be32_to_cpu(MLX5_TERMINATE_SCATTER_LIST_LKEY)"),
    // Fields of fm_ce_se bits 3:2.
    (wqe_ce::CQE as u64, "MLX5_WQE_CTRL_CQ_UPDATE >> 2"),
    (wqe_ce::CQE_AND_EQE as u64, "MLX5_WQE_CTRL_CQ_UPDATE_AND_EQE >> 2"),
    (wqe_opcode::NOP as u64, "MLX5_OPCODE_NOP"),
    (wqe_opcode::SEND as u64, "MLX5_OPCODE_SEND"),
    (wqe_opcode::LSO as u64, "MLX5_OPCODE_LSO"),
    (wqe_opcode::DUMP as u64, "MLX5_OPCODE_DUMP"),
    (wqe_opcode::UMR as u64, "MLX5_OPCODE_UMR"),
    (wqe_opcode::ENHANCED_MPSW as u64, "MLX5_OPCODE_ENHANCED_MPSW"),
];

/// Numbers that the headers do not have.
pub(crate) const UNCHECKED: &[(&str, &str)] = &[
    ("status::Delivery", "an enumeration of the driver's core/cmd.c (MLX5_CMD_DELIVERY_STAT_*)"),
    ("entries::cq_error", "in the manual; the driver prints the number"),
];

/// All questions about numbers.
pub(crate) struct Questions {
    /// Name, our number, and what each spelling of the name is.
    asked: Vec<(String, u64, Vec<Id>)>,
}

impl Questions {
    pub(crate) fn put(sheet: &mut Sheet) -> Self {
        let commands = Opcode::ALL
            .iter()
            .map(|(op, name)| (u64::from(op.0), COMMAND.map(|prefix| format!("{prefix}{}", plain(name))).to_vec()));
        let statuses = STATUSES.iter().map(|(s, name)| (*s as u64, format!("MLX5_CMD_STAT_{name}")));
        let events = EVENTS.iter().map(|(n, name)| (u64::from(*n), format!("MLX5_EVENT_TYPE_{name}")));
        let wqes = wqe_opcode::NAMES.iter().map(|(n, name)| (u64::from(*n), format!("MLX5_OPCODE_{name}")));
        let others = OTHERS.iter().map(|(n, name)| (*n, name.to_string()));
        let single = statuses.chain(events).chain(wqes).chain(others).map(|(ours, name)| (ours, vec![name]));
        let all = commands.chain(single);
        let ask = |(ours, names): (u64, Vec<String>)| {
            let name = names.first().cloned().unwrap_or_default();
            (name, ours, names.into_iter().map(|n| sheet.constant(n)).collect())
        };
        Self { asked: all.map(ask).collect() }
    }

    pub(crate) fn compare(&self, answers: &Answers) -> Vec<Mismatch> {
        let differs = |(name, ours, ids): &(String, u64, Vec<Id>)| {
            let (name, ours) = (name.clone(), *ours);
            match ids.iter().find_map(|id| answers.constant(*id)) {
                None => Some(Mismatch::NoNumber { name }),
                Some(kernel) => (kernel != ours).then_some(Mismatch::Number { name, ours, kernel }),
            }
        };
        self.asked.iter().filter_map(differs).collect()
    }
}

/// The kernel's name of an opcode: ours may not begin with a digit.
fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("OP_").unwrap_or(name)
}

/// Names of commands in the header that we have no name for, and excuses for
/// names that need none.
pub(crate) fn new_opcodes(headers_dir: &Path) -> Result<Vec<Mismatch>> {
    let path = headers_dir.join("include/linux/mlx5/mlx5_ifc.h");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: BTreeSet<&str> =
        words.filter_map(|word| COMMAND.iter().find_map(|prefix| word.strip_prefix(prefix))).collect();
    let ours = |name: &str| Opcode::ALL.iter().any(|(_, ours)| plain(ours) == name);
    let excused = |name: &str| NO_OPCODE.iter().any(|(row, _)| *row == name);
    let new = names.into_iter().filter(|name| !ours(name) && !excused(name));
    let stale = NO_OPCODE.iter().filter(|(name, _)| ours(name));
    Ok(new
        .map(|name| Mismatch::NewOpcode { name: name.to_string() })
        .chain(stale.map(|(name, _)| Mismatch::Stale { table: "NO_OPCODE", row: name.to_string() }))
        .collect())
}
