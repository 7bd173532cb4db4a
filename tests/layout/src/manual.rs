//! The structures of `mlx5_ifc.h`.

use std::path::Path;

use sfnic_firmware_cmds::layout::{FieldInfo, Info, Kind};
use sfnic_firmware_cmds::layouts;

use crate::Mismatch;
use crate::compiler::{Answers, Id, Sheet};

/// Structures whose C type is not `struct mlx5_ifc_NAME_bits`.
const C_TYPES: &[(&str, &str)] = &[("gre_key", "union mlx5_ifc_gre_key_bits")];

/// Structures of a header that only the driver itself includes.
const VHCA_EVENT: &[&str] = &[
    "query_vhca_state_in",
    "query_vhca_state_out",
    "modify_vhca_state_in",
    "modify_vhca_state_out",
    "vhca_state_context",
    "vhca_state_field_select",
];

/// Where that header is in the kernel's source.
const VHCA_EVENT_HEADER: &str = "drivers/net/ethernet/mellanox/mlx5/core/sf/mlx5_ifc_vhca_event.h";

/// Structures that no header declares, and where they are.
const NO_HEADER: &[(&str, &str)] = &[
    ("mnvda_reg", "declared in the driver's core/lib/nv_param.c"),
    ("node_desc", "struct mlx5_reg_node_desc in drivers/infiniband/hw/mlx5/main.c"),
];

/// Fields that the kernel has inside a named union or under another name:
/// structure, our name, the kernel's expression.
const PLACES: &[(&str, &str, &str)] = &[
    ("pcam_reg", "regs_5000_to_507f", "port_access_reg_cap_mask.regs_5000_to_507f"),
    ("pcam_reg", "enhanced_features", "feature_cap_mask.enhanced_features"),
    ("mcam_reg", "access_regs", "mng_access_reg_cap_mask.access_regs"),
    ("mcam_reg", "access_regs1", "mng_access_reg_cap_mask.access_regs1"),
    ("mcam_reg", "access_regs2", "mng_access_reg_cap_mask.access_regs2"),
    ("mcam_reg", "access_regs3", "mng_access_reg_cap_mask.access_regs3"),
    ("mcam_reg", "enhanced_features", "mng_feature_cap_mask.enhanced_features"),
    ("pddr_reg", "group_opcode", "page_data.pddr_troubleshooting_page.group_opcode"),
    (
        "pddr_reg",
        "monitor_opcode",
        "page_data.pddr_troubleshooting_page.status_opcode.pddr_monitor_opcode.monitor_opcode",
    ),
];

/// Names that some kernels have for other bits: structure, field, their bit, what it is.
const ELSEWHERE: &[(&str, &str, u64, &str)] = &[
    ("cmd_hca_cap", "relaxed_ordering_read", 0xe9, "here the kernel's name for relaxed_ordering_read_pci_enabled"),
    ("cmd_hca_cap", "shampo", 0xba, "the kernel looks at bit 0xba, in which nothing is declared here"),
];

struct Field {
    info: &'static FieldInfo,
    bit: Id,
    width: Id,
    /// Is it of our type? Or, of a list, how many bits has an element?
    detail: Option<Id>,
}

struct Structure {
    info: Info,
    size: Id,
    fields: Vec<Field>,
}

/// All questions about the structures.
pub(crate) struct Questions {
    structures: Vec<Structure>,
}

fn checked(headers_dir: &Path) -> impl Iterator<Item = Info> {
    let missing: Vec<String> = unchecked(headers_dir).into_iter().map(|(name, _)| name).collect();
    let all = layouts::ALL.iter().map(|info| info());
    all.filter(move |info| !missing.iter().any(|name| name == info.name))
}

fn type_of(name: &str) -> String {
    let other = C_TYPES.iter().find(|(structure, _)| *structure == name);
    other.map_or_else(|| format!("struct mlx5_ifc_{name}_bits"), |(_, c)| c.to_string())
}

impl Questions {
    pub(crate) fn put(sheet: &mut Sheet, headers_dir: &Path) -> Self {
        let structures = checked(headers_dir).map(|info| {
            let ty = type_of(info.name);
            let size = sheet.constant(format!("sizeof({ty})"));
            let fields = info.fields.iter().map(|f| question(sheet, &ty, info.name, f)).collect();
            Structure { info, size, fields }
        });
        Self { structures: structures.collect() }
    }

    pub(crate) fn compare(&self, answers: &Answers) -> Vec<Mismatch> {
        let mut found: Vec<Mismatch> = self.structures.iter().flat_map(|s| s.compare(answers)).collect();
        // A type that the kernel has no name for is reported of itself; the place was compared.
        let unknown =
            |name: &String| self.structures.iter().any(|s| s.info.name == name && answers.constant(s.size).is_none());
        found.retain(|mismatch| !matches!(mismatch, Mismatch::Type { ours, .. } if unknown(ours)));
        let places = PLACES.iter().map(|(structure, field, _)| ("PLACES", structure, field));
        let elsewhere = ELSEWHERE.iter().map(|(structure, field, ..)| ("ELSEWHERE", structure, field));
        for (table, structure, field) in places.chain(elsewhere) {
            let declared = |s: &Structure| s.info.fields.iter().any(|f| f.name == *field);
            if !self.structures.iter().any(|s| s.info.name == *structure && declared(s)) {
                found.push(Mismatch::Stale { table, row: format!("{structure}.{field}") });
            }
        }
        found
    }
}

fn question(sheet: &mut Sheet, ty: &str, structure: &str, info: &'static FieldInfo) -> Field {
    let place = PLACES.iter().find(|(s, f, _)| *s == structure && *f == info.name);
    let path = place.map_or(info.name, |(_, _, path)| path);
    let member = format!("(({ty} *)0)->{path}");
    let detail = match (info.kind, info.sub) {
        (Kind::Sub, Some(sub)) => {
            let element = if info.count > 1 { "[0]" } else { "" };
            let theirs = format!("__typeof__({member}{element})");
            Some(sheet.constant(format!("__builtin_types_compatible_p({theirs}, {})", type_of(sub().name))))
        }
        (Kind::Tail, _) if info.width > 8 => Some(sheet.constant(format!("sizeof({member}[0])"))),
        _ => None,
    };
    Field {
        info,
        bit: sheet.constant(format!("__builtin_offsetof({ty}, {path})")),
        width: sheet.constant(format!("sizeof({member})")),
        detail,
    }
}

impl Structure {
    fn compare(&self, answers: &Answers) -> Vec<Mismatch> {
        let structure = self.info.name.to_string();
        let Some(size) = answers.constant(self.size) else {
            return vec![Mismatch::NoStructure { structure }];
        };
        let mut found: Vec<Mismatch> = self.fields.iter().filter_map(|f| f.compare(&structure, answers)).collect();
        let ours = self.info.size as u64 * 8;
        if size != ours {
            found.push(Mismatch::Size { structure, ours, kernel: size });
        }
        found
    }
}

impl Field {
    fn compare(&self, structure: &str, answers: &Answers) -> Option<Mismatch> {
        let (structure, field) = (structure.to_string(), self.info.name.to_string());
        let (ours, width) = (u64::from(self.info.bit), u64::from(self.info.width));
        let Some(kernel) = answers.constant(self.bit) else {
            return Some(Mismatch::NoField { structure, field });
        };
        let known = ELSEWHERE.iter().find(|(s, f, bit, _)| *s == structure && *f == field && *bit == kernel);
        if let Some((_, _, _, why)) = known {
            return Some(Mismatch::Elsewhere { structure, field, why });
        }
        if kernel != ours {
            return Some(match answers.constant(self.width) {
                Some(low) if low < width && kernel + low == ours + width => {
                    Mismatch::Narrower { structure, field, ours: width, kernel: low }
                }
                _ => Mismatch::Moved { structure, field, ours, kernel },
            });
        }
        let detail = self.detail.and_then(|id| answers.constant(id));
        if self.info.kind == Kind::Tail {
            // An element's size: the list itself has none.
            let kernel = detail.filter(|kernel| *kernel != width)?;
            return Some(Mismatch::Width { structure, field, ours: width, kernel });
        }
        match answers.constant(self.width) {
            Some(kernel) if kernel != width => return Some(Mismatch::Width { structure, field, ours: width, kernel }),
            None => return Some(Mismatch::Width { structure, field, ours: width, kernel: 0 }),
            Some(_) => {}
        }
        let other = self.info.kind == Kind::Sub && detail != Some(1);
        let ours = self.info.sub.map(|sub| sub().name.to_string()).unwrap_or_default();
        other.then_some(Mismatch::Type { structure, field, ours })
    }
}

/// Structures that these headers do not have.
pub(crate) fn unchecked(headers_dir: &Path) -> Vec<(String, &'static str)> {
    let why = "declared in core/sf/mlx5_ifc_vhca_event.h of the driver, which these headers are without";
    let vhca = VHCA_EVENT.iter().map(|name| (name.to_string(), why));
    let vhca = vhca.filter(|_| !headers_dir.join(VHCA_EVENT_HEADER).exists());
    NO_HEADER.iter().map(|(name, why)| (name.to_string(), *why)).chain(vhca).collect()
}
