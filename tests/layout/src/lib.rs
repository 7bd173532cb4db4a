//! Compares what `sfnic-firmware-cmds` declares with the kernel's headers.
//!
//! The oracle is the C compiler. In `mlx5_ifc.h` a structure's member is an
//! array with one byte a bit, so `offsetof` and `sizeof` are the bit offset
//! and the width of a field; the structures of `device.h`, `qp.h` and `cq.h`
//! are ordinary ones, and where the kernel has a function that reads or
//! writes a bit field, that function is run. Nothing of a header is parsed
//! here but the names of its command opcodes.
//!
//! What differs from a header on purpose stands in tables, each row with its
//! reason: in the modules `manual`, `entries` and `numbers`.

mod compiler;
mod entries;
mod manual;
mod numbers;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use compiler::Sheet;

/// Something that is declared otherwise than in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The kernel has no structure of that name.
    NoStructure { structure: String },
    /// Its size differs (bits).
    Size { structure: String, ours: u64, kernel: u64 },
    /// The structure has no field of that name.
    NoField { structure: String, field: String },
    /// The field is elsewhere (bits from the structure's start).
    Moved { structure: String, field: String, ours: u64, kernel: u64 },
    /// The field has another width (bits).
    Width { structure: String, field: String, ours: u64, kernel: u64 },
    /// The kernel knows only the low bits of the field, as one from before it grew.
    Narrower { structure: String, field: String, ours: u64, kernel: u64 },
    /// The kernel means something else by this name, and that is known.
    Elsewhere { structure: String, field: String, why: &'static str },
    /// The field is a structure of another type.
    Type { structure: String, field: String, ours: String },
    /// The kernel reads or writes other bits for this field.
    Bits { structure: String, field: String, ours: Vec<u32>, kernel: Vec<u32> },
    /// A field of a structure outside `mlx5_ifc.h` is in no table.
    Unlisted { structure: String, field: String },
    /// A table names what is not declared, or excuses what needs no excuse.
    Stale { table: &'static str, row: String },
    /// The kernel has no constant of that name.
    NoNumber { name: String },
    /// A constant has another value.
    Number { name: String, ours: u64, kernel: u64 },
    /// The kernel has an opcode that we have no name for.
    NewOpcode { name: String },
}

impl Mismatch {
    /// Is it merely something that the kernel does not have, as one that is older than the
    /// declaration? What it has elsewhere or otherwise is not.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::NoStructure { .. } | Self::NoField { .. } | Self::NoNumber { .. } => true,
            Self::Narrower { .. } | Self::Elsewhere { .. } => true,
            // A structure grows at its end. A field of ours beyond the kernel's end is
            // reported of itself.
            Self::Size { ours, kernel, .. } => kernel < ours,
            Self::Moved { .. }
            | Self::Width { .. }
            | Self::Type { .. }
            | Self::Bits { .. }
            | Self::Unlisted { .. }
            | Self::Stale { .. }
            | Self::Number { .. }
            | Self::NewOpcode { .. } => false,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStructure { structure } => write!(f, "{structure}: the kernel has no such structure"),
            Self::Size { structure, ours, kernel } => {
                write!(f, "{structure}: {:#x} bytes here, {:#x} in the kernel", ours / 8, kernel / 8)
            }
            Self::NoField { structure, field } => write!(f, "{structure}.{field}: the kernel has no such field"),
            Self::Moved { structure, field, ours, kernel } => {
                write!(f, "{structure}.{field}: at bit {ours:#x} here, {kernel:#x} in the kernel")
            }
            Self::Width { structure, field, ours, kernel } => {
                write!(f, "{structure}.{field}: {ours} bits here, {kernel} in the kernel")
            }
            Self::Narrower { structure, field, ours, kernel } => {
                write!(f, "{structure}.{field}: {ours} bits here, the low {kernel} of them in the kernel")
            }
            Self::Elsewhere { structure, field, why } => write!(f, "{structure}.{field}: {why}"),
            Self::Type { structure, field, ours } => {
                write!(f, "{structure}.{field}: a {ours} here, something else in the kernel")
            }
            Self::Bits { structure, field, ours, kernel } => {
                write!(f, "{structure}.{field}: bits {ours:x?} here, {kernel:x?} in the kernel")
            }
            Self::Unlisted { structure, field } => {
                write!(f, "{structure}.{field}: say in the table what it is in the kernel")
            }
            Self::Stale { table, row } => write!(f, "{table}: the row {row} is not needed"),
            Self::NoNumber { name } => write!(f, "{name}: the kernel has no such constant"),
            Self::Number { name, ours, kernel } => write!(f, "{name}: {ours:#x} here, {kernel:#x} in the kernel"),
            Self::NewOpcode { name } => write!(f, "{name}: an opcode of the kernel's without a name here"),
        }
    }
}

/// Compares everything that is declared with the headers of a kernel's source
/// directory (the one that has `include/linux/mlx5/mlx5_ifc.h`), of any
/// version. Returns what differs.
///
/// # Errors
/// There is no C compiler (`cc`, or what `CC` names), the header is missing,
/// or the headers do not compile.
pub fn check(headers_dir: &Path) -> Result<Vec<Mismatch>> {
    let mut sheet = Sheet::default();
    let manual = manual::Questions::put(&mut sheet, headers_dir);
    let entries = entries::Questions::put(&mut sheet);
    let numbers = numbers::Questions::put(&mut sheet);
    let answers = sheet.ask(headers_dir)?;
    let mut found = manual.compare(&answers);
    found.extend(entries.compare(&answers));
    found.extend(numbers.compare(&answers));
    found.extend(numbers::new_opcodes(headers_dir)?);
    Ok(found)
}

/// What [`check`] cannot compare with these headers, and why.
pub fn unchecked(headers_dir: &Path) -> Vec<(String, &'static str)> {
    let mut list = manual::unchecked(headers_dir);
    list.extend(entries::unchecked());
    list.extend(numbers::UNCHECKED.iter().map(|(name, why)| (name.to_string(), *why)));
    list
}
