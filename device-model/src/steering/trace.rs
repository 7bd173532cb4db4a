//! Explaining a packet's way, step by step. Costs nothing when off.

use sfnic_firmware_cmds::layout::{Field, Info, Kind, Layout};
use sfnic_firmware_cmds::layouts::{FteMatchParam, FteMatchSetMisc2};

use super::domain::Table;
use super::group::Group;
use super::object::Fte;
use super::walk::Verdict;
use crate::packet::MatchKey;
use crate::packet::key::MISC2;

/// Is told every step of a walk.
pub trait Trace<T> {
    /// Whether it wants to know; where false, the steps are not even made.
    const ON: bool = true;
    /// A step.
    fn step(&mut self, step: Step<'_, T>);
}

/// Explains nothing.
pub struct NoTrace;

impl<T> Trace<T> for NoTrace {
    const ON: bool = false;
    fn step(&mut self, _: Step<'_, T>) {}
}

impl<T, F: FnMut(Step<'_, T>)> Trace<T> for F {
    fn step(&mut self, step: Step<'_, T>) {
        self(step);
    }
}

/// A step of a packet's way.
pub enum Step<'a, T> {
    /// It enters a table.
    Enter {
        /// The table.
        table: &'a Table<T>,
        /// The registers that it carries.
        metadata: Metadata,
    },
    /// A group has no rule for it; see [`why`].
    Miss {
        /// The group.
        group: &'a Group<T>,
        /// What the packet shows.
        packet: &'a MatchKey,
    },
    /// A group has a rule for it.
    Hit {
        /// The group.
        group: &'a Group<T>,
        /// The rule.
        fte: &'a Fte<T>,
    },
    /// The rule's actions were executed.
    Acted {
        /// The rule.
        fte: &'a Fte<T>,
        /// Whether all of them could be.
        done: bool,
        /// The registers afterwards.
        metadata: Metadata,
    },
    /// A copy was made for one of several destinations; the steps up to its
    /// [`Step::End`] are the copy's.
    Copy {
        /// Of the copies of this packet, counted from one.
        number: u32,
    },
    /// It leaves the tables.
    End {
        /// How.
        verdict: Verdict<'a, T>,
    },
}

/// The metadata registers of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Metadata {
    /// reg_a.
    pub reg_a: u32,
    /// reg_c_0 to reg_c_7.
    pub reg_c: [u32; 8],
}

impl Metadata {
    /// The registers that a packet carries.
    pub fn of(key: &MatchKey) -> Self {
        type R = FteMatchSetMisc2;
        let reg_c = [
            R::metadata_reg_c_0,
            R::metadata_reg_c_1,
            R::metadata_reg_c_2,
            R::metadata_reg_c_3,
            R::metadata_reg_c_4,
            R::metadata_reg_c_5,
            R::metadata_reg_c_6,
            R::metadata_reg_c_7,
        ];
        Self { reg_a: key.get(MISC2, R::metadata_reg_a), reg_c: reg_c.map(|f| key.get(MISC2, f)) }
    }
}

/// Why a group has no rule for a packet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It has no rules at all, or only such that are for packets of another
    /// source.
    NoRule,
    /// The rule that comes nearest differs.
    Differs {
        /// The rule's index.
        index: u32,
        /// The first field that differs.
        field: String,
        /// Its value in the packet, under the mask.
        packet: u32,
        /// Its value in the rule.
        rule: u32,
    },
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::NoRule => f.write_str("no entry"),
            Why::Differs { index, field, packet, rule } => {
                write!(f, "no match; entry {index} wants {field} {rule:#x}, the frame has {packet:#x}")
            }
        }
    }
}

/// Rules that an explanation looks at to find the nearest.
const LOOK: usize = 256;

/// Why a group has no rule for a packet; among its rules the nearest of a
/// bounded number speaks.
pub fn why<T: Send + Sync + 'static>(group: &Group<T>, packet: &MatchKey) -> Why {
    let Some((fte, at)) = group.nearest(packet, LOOK) else { return Why::NoRule };
    let (dword, mask) = group.mask().dwords()[at];
    let (rule, have) = (fte.key.0[at], packet.0[dword] & mask);
    let (name, cut) = match fields_in(dword, mask, rule ^ have).next() {
        Some(p) => (p.name, p.field),
        None => (format!("dword {:#x}", dword * 4), whole(dword)),
    };
    Why::Differs { index: fte.index, field: name, packet: cut.of_dword(have), rule: cut.of_dword(rule) }
}

/// A match field, or the part of it that lies in one dword.
pub(super) struct Place {
    /// Block and field, as the manual names them.
    pub(super) name: String,
    /// Its bits.
    pub(super) field: Field<FteMatchParam>,
}

/// The fields of `fte_match_param` in a dword that the mask touches and whose
/// bits are among `among`.
pub(super) fn fields_in(dword: usize, mask: u32, among: u32) -> impl Iterator<Item = Place> {
    let mut found = Vec::new();
    collect(FteMatchParam::info(), 0, String::new(), dword, &mut found);
    found.into_iter().filter(move |p: &Place| p.field.mask() & mask & among != 0)
}

const fn whole(dword: usize) -> Field<FteMatchParam> {
    Field::at(dword as u32 * 32, 32)
}

/// Adds the leaf fields of a structure at bit `base` that lie in a dword.
fn collect(info: Info, base: u32, path: String, dword: usize, found: &mut Vec<Place>) {
    let here = whole(dword);
    for f in info.fields {
        let start = base + f.bit;
        if start + f.width <= here.bit() || start >= here.bit() + here.width() {
            continue;
        }
        let name = if path.is_empty() { f.name.to_string() } else { format!("{path}.{}", f.name) };
        match (f.kind, f.sub) {
            (Kind::Sub, Some(sub)) => collect(sub(), start, name, dword, found),
            (Kind::Bits, _) => found.push(Place { name, field: Field::at(start, f.width) }),
            // Longer fields are whole dwords.
            _ => found.push(Place { name, field: here }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dword: usize, mask: u32) -> Vec<(String, u32)> {
        fields_in(dword, mask, u32::MAX).map(|p| (p.name, p.field.mask())).collect()
    }

    #[test]
    fn dwords_are_named_by_the_fields_that_they_hold() {
        assert_eq!(names(2, u32::MAX), [("outer_headers.dmac_47_16".into(), u32::MAX)]);
        let vlan = names(3, 0x0000_ffff);
        assert_eq!(vlan[2], ("outer_headers.first_vid".into(), 0xfff));
        assert_eq!(names(0xec / 4, 1), [("misc_parameters_2.metadata_reg_c_0".into(), u32::MAX)]);
        assert_eq!(names(0x3c / 4, 1), [("outer_headers.dst_ipv4_dst_ipv6".into(), u32::MAX)]);
        assert_eq!(names(0xc0 / 4, 0xff)[0].0, "misc_parameters_2.outer_first_mpls.mpls_ttl");
    }
}
