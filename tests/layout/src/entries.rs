//! Entries of queues and the init segment, against the C structures of
//! `device.h`, `qp.h` and `cq.h`.

use sfnic_firmware_cmds::entries;
use sfnic_firmware_cmds::layout::{FieldInfo, Kind};

use crate::Mismatch;
use crate::compiler::{Answers, Id, Sheet};

mod table;

use table::STRUCTURES;

/// Where the kernel has a field of ours.
#[derive(Debug)]
enum Place {
    /// It is this member.
    Is(&'static str),
    /// It is the bits of this member (read as a big-endian number) under a
    /// mask: an expression of the header's, or a literal that the driver has
    /// in its code.
    Part(&'static str, &'static str),
    /// It lies in this member; the driver has no name or mask for its bits.
    Inside(&'static str),
    /// It lies in the 32-bit word with this index.
    Word(&'static str),
    /// It begins where this member begins.
    Starts(&'static str),
    /// It is the bits that this function reads.
    ReadBy(&'static str),
    /// It is the bits that these statements set (see `c/ask.h`).
    SetBy(&'static str),
    /// The headers do not have it; the reason says where it is.
    Nowhere(&'static str),
}

/// A structure of ours: its name, its C type, its fields.
type Structure = (&'static str, &'static str, &'static [(&'static str, Place)]);

/// The answer is wanted as one of these.
enum Asked {
    /// First byte, bytes, mask.
    Masked(Id, Id, Id),
    /// First byte, byte behind the end; must be the field exactly.
    Exact(Id, Id),
    /// First byte, byte behind the end; must contain the field.
    Around(Id, Id),
    /// First byte of the field.
    From(Id),
    /// Every bit of the field.
    Bits(Id),
}

/// All questions about the entries.
pub(crate) struct Questions {
    asked: Vec<(&'static str, &'static FieldInfo, Asked)>,
    tables: Vec<Mismatch>,
}

impl Questions {
    pub(crate) fn put(sheet: &mut Sheet) -> Self {
        let mut all = Self { asked: Vec::new(), tables: Vec::new() };
        for info in entries::ALL.iter().map(|info| info()) {
            let known = STRUCTURES.iter().find(|(name, ..)| *name == info.name);
            for field in info.fields {
                let place = known.and_then(|(_, c, fields)| Some((c, fields.iter().find(|(n, _)| *n == field.name)?)));
                match place {
                    Some((c, (_, place))) => {
                        let asked = ask(sheet, c, place);
                        all.asked.extend(asked.map(|asked| (info.name, field, asked)));
                    }
                    None => all
                        .tables
                        .push(Mismatch::Unlisted { structure: info.name.to_string(), field: field.name.to_string() }),
                }
            }
        }
        for (name, _, fields) in STRUCTURES {
            let info = entries::ALL.iter().map(|info| info()).find(|info| info.name == *name);
            for (field, _) in *fields {
                if !info.is_some_and(|info| info.fields.iter().any(|f| f.name == *field)) {
                    let row = format!("{name}.{field}");
                    all.tables.push(Mismatch::Stale { table: "STRUCTURES", row });
                }
            }
        }
        all
    }

    pub(crate) fn compare(&self, answers: &Answers) -> Vec<Mismatch> {
        let mut found = self.tables.clone();
        for (structure, field, asked) in &self.asked {
            found.extend(asked.compare(structure, field, answers));
        }
        found
    }
}

fn ask(sheet: &mut Sheet, c: &str, place: &Place) -> Option<Asked> {
    let start = |m: &str| format!("__builtin_offsetof({c}, {m})");
    let size = |m: &str| format!("sizeof((({c} *)0)->{m})");
    let end = |m: &str| format!("{} + {}", start(m), size(m));
    Some(match place {
        Place::Is(m) => Asked::Exact(sheet.constant(start(m)), sheet.constant(end(m))),
        Place::Inside(m) => Asked::Around(sheet.constant(start(m)), sheet.constant(end(m))),
        Place::Word(n) => Asked::Around(sheet.constant(format!("4 * ({n})")), sheet.constant(format!("4 * ({n}) + 4"))),
        Place::Part(m, mask) => {
            Asked::Masked(sheet.constant(start(m)), sheet.constant(size(m)), sheet.constant(format!("(u32)({mask})")))
        }
        Place::Starts(m) => Asked::From(sheet.constant(start(m))),
        Place::ReadBy(function) => Asked::Bits(sheet.bits(format!("READ_BY({c}, {function})"))),
        Place::SetBy(statements) => Asked::Bits(sheet.bits(statements.to_string())),
        Place::Nowhere(_) => return None,
    })
}

impl Asked {
    fn compare(&self, structure: &str, field: &FieldInfo, answers: &Answers) -> Option<Mismatch> {
        let (structure, name) = (structure.to_string(), field.name.to_string());
        let missing = Mismatch::NoField { structure: structure.clone(), field: name.clone() };
        let answer = |id: &Id| answers.constant(*id);
        let ours: Vec<u32> = (field.bit..field.bit + field.width).collect();
        let kernel: Option<Vec<u32>> = match self {
            Self::Bits(id) => answers.bits(*id).map(<[u32]>::to_vec),
            Self::Exact(a, b) | Self::Around(a, b) => {
                answer(a).zip(answer(b)).map(|(a, b)| (a as u32 * 8..b as u32 * 8).collect())
            }
            Self::Masked(at, size, mask) => answer(at).zip(answer(size)).zip(answer(mask)).map(|((at, size), mask)| {
                let (first, width) = (at as u32 * 8, size as u32 * 8);
                (0..width).filter(|bit| mask >> (width - 1 - bit) & 1 == 1).map(|bit| first + bit).collect()
            }),
            Self::From(at) => {
                let at = answer(at).map(|at| at * 8);
                let ours = u64::from(field.bit);
                return match at {
                    None => Some(missing),
                    Some(kernel) if kernel != ours || field.kind != Kind::Tail => {
                        Some(Mismatch::Moved { structure, field: name, ours, kernel })
                    }
                    Some(_) => None,
                };
            }
        };
        let Some(kernel) = kernel else { return Some(missing) };
        let fits = match self {
            Self::Around(..) => ours.iter().all(|bit| kernel.contains(bit)),
            _ => ours == kernel,
        };
        (!fits).then_some(Mismatch::Bits { structure, field: name, ours, kernel })
    }
}

/// Fields that the headers do not have.
pub(crate) fn unchecked() -> Vec<(String, &'static str)> {
    let fields = STRUCTURES.iter().flat_map(|(name, _, fields)| fields.iter().map(move |(f, place)| (name, f, place)));
    fields
        .filter_map(|(name, field, place)| match place {
            Place::Nowhere(why) => Some((format!("{name}.{field}"), *why)),
            _ => None,
        })
        .collect()
}
