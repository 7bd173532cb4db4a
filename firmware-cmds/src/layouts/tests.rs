//! What must hold of every declaration, whatever the kernel says.

use std::collections::HashSet;

use crate::layout::{FieldInfo, Info, Kind};

/// Fields that share bits on purpose: unions of the manual, and fields that
/// are also read as parts.
const SHARED: &[(&str, &[&str])] = &[
    ("flow_table_context", &["sws", "hws"]),
    ("gre_key", &["nvgre", "key"]),
    // As the completion queue's format says.
    ("mini_cqe8", &["rx_hash_result", "checksum", "stridx"]),
    ("mcam_reg", &["access_regs", "access_regs1", "access_regs2", "access_regs3"]),
    // One event's data at a time.
    (
        "eqe",
        &[
            "data",
            "cmd_vector",
            "vhca_ec_function",
            "vhca_function_id",
            "vport_num",
            "cq_err_cqn",
            "port",
            "cq_err_syndrome",
            "queue_type",
            "cqn",
            "queue_number",
        ],
    ),
    ("cqe64", &["rss_hash_type", "rss_l4_type", "rss_ip_type"]),
    ("cqe64", &["hds_ip_ext", "l4_ok", "l3_ok", "l2_ok"]),
    ("cqe64", &["l4_l3_hdr_type", "l4_hdr_type", "l3_hdr_type", "vlan_stripped"]),
    ("cqe64", &["srqn", "lro_num_seg", "user_index"]),
    // A striding queue has less for the length, and tells of strides in what is left.
    ("cqe64", &["byte_cnt", "filler", "consumed_strides", "stride_byte_cnt"]),
    // The timestamp of a good completion, the syndromes of a bad one.
    ("cqe64", &["timestamp", "error_syndromes"]),
    ("cqe64", &["sop_drop_qpn", "send_opcode", "flow_tag", "qpn"]),
    ("cqe64", &["op_own", "opcode", "format", "solicited", "owner"]),
    // With or without an inlined header.
    ("wqe_eth_seg", &["vlan_insert", "inline_hdr_sz", "inline_hdr_sz_bytes"]),
    // The one bit of the mask that is looked at.
    ("wqe_umr_ctrl_seg", &["mkey_mask", "mask_free"]),
    ("mnvda_reg", &["parameter_index", "pf_parameter_index"]),
];

fn everything() -> impl Iterator<Item = Info> {
    super::ALL.iter().chain(crate::entries::ALL).map(|info| info())
}

/// A list may begin where the fixed part ends; whatever else it covers is not
/// known here.
fn end(f: &FieldInfo) -> u32 {
    if f.kind == Kind::Tail { f.bit } else { f.bit + f.width }
}

#[test]
fn fields_overlap_only_where_that_is_meant() {
    let mut used = HashSet::new();
    for info in everything() {
        for (i, a) in info.fields.iter().enumerate() {
            for b in info.fields[i + 1..].iter().filter(|b| a.bit < end(b) && b.bit < end(a)) {
                let group = SHARED
                    .iter()
                    .find(|(name, group)| *name == info.name && group.contains(&a.name) && group.contains(&b.name));
                assert!(group.is_some(), "{}: {} and {} overlap", info.name, a.name, b.name);
                used.extend([(info.name, a.name), (info.name, b.name)]);
            }
        }
    }
    for (name, group) in SHARED {
        for field in *group {
            assert!(used.contains(&(*name, *field)), "{name}.{field} shares its bits with nothing");
        }
    }
}

#[test]
fn fields_lie_inside_their_structure() {
    for info in everything() {
        assert_eq!(info.size % 4, 0, "{} is not made of dwords", info.name);
        for f in info.fields {
            assert!(end(f) as usize <= info.size * 8, "{}.{} leaves its structure", info.name, f.name);
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names = HashSet::new();
    for info in everything() {
        assert!(names.insert(info.name), "{} is declared twice", info.name);
        let fields: HashSet<&str> = info.fields.iter().map(|f| f.name).collect();
        assert_eq!(fields.len(), info.fields.len(), "{} has a field twice", info.name);
    }
}

#[test]
fn a_keyword_is_a_name_like_any_other() {
    let eqe = everything().find(|info| info.name == "eqe").expect("the event entry is declared");
    assert!(eqe.fields.iter().any(|f| f.name == "type"));
}
