//! Capabilities of one function: the profile's groups, shared until the
//! driver changes one, and what only the device itself can fill in.

use std::collections::BTreeMap;
use std::sync::Arc;

use sfnic_firmware_cmds::layout::{Field, View, ViewMut};
use sfnic_firmware_cmds::layouts::{CmdHcaCap, CmdHcaCap2};
use sfnic_firmware_cmds::profile::{self, GROUP_SIZE};
use sfnic_firmware_cmds::{Layout, Refusal, Syndrome};

/// Group number of the GENERAL capabilities.
pub const GENERAL: u16 = 0x00;
/// Group number of the Ethernet offloads.
pub const ETH: u16 = 0x01;
/// Group number of the GENERAL_2 capabilities.
pub const GENERAL_2: u16 = 0x20;

/// Which answer of QUERY_HCA_CAP (op_mod bit 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What could be enabled.
    Max,
    /// What is in force.
    Current,
}

type Block = Arc<[u8]>;

/// What of a function's capabilities is not as in a new one: the group, and its maximum, what a
/// driver finds, and what is in force where that is something else.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedCaps(Vec<(u16, [Option<Vec<u8>>; 3])>);

/// One group.
#[derive(Debug, Clone)]
struct Group {
    /// What could be enabled.
    max: Block,
    /// What is in force.
    current: Block,
    /// What is in force for a driver that has set nothing yet.
    found: Block,
}

/// The capability groups of one function. A copy costs nothing until one of both changes.
#[derive(Debug, Clone)]
pub struct Caps {
    groups: BTreeMap<u16, Group>,
}

impl Caps {
    /// The groups of a profile.
    pub fn new(p: &profile::Caps) -> Self {
        let group = |(id, (max, cur)): (&u16, &(Vec<u8>, Vec<u8>))| {
            let found = Block::from(cur.as_slice());
            let max = if max == cur { found.clone() } else { Block::from(max.as_slice()) };
            (*id, Group { max, current: found.clone(), found })
        };
        Self { groups: p.groups.iter().map(group).collect() }
    }

    /// Sets a GENERAL field in both answers.
    pub fn fix(&mut self, f: Field<CmdHcaCap>, value: u32) {
        self.fix_in(GENERAL, f, value);
    }

    /// Sets a GENERAL_2 field in both answers.
    pub fn fix2(&mut self, f: Field<CmdHcaCap2>, value: u32) {
        self.fix_in(GENERAL_2, f, value);
    }

    pub(crate) fn fix_in<S: Layout>(&mut self, group: u16, f: Field<S>, value: u32) {
        let Some(g) = self.groups.get_mut(&group) else { return };
        // What was one block stays one.
        let mut done: Vec<(Block, Block)> = vec![];
        for block in [&mut g.max, &mut g.current, &mut g.found] {
            if let Some((_, new)) = done.iter().find(|(old, _)| Arc::ptr_eq(old, block)) {
                *block = new.clone();
                continue;
            }
            let old = block.clone();
            ViewMut::<S>::new(unshare(block)).set(f, value);
            done.push((old, block.clone()));
        }
    }

    /// What differs from those of a new function.
    pub(crate) fn save(&self, fresh: &Self) -> SavedCaps {
        let changed = |now: &Block, then: Option<&Block>| then.is_none_or(|b| b != now).then(|| now.to_vec());
        let group = |(id, g): (&u16, &Group)| {
            let new = fresh.groups.get(id);
            let (max, found) = (changed(&g.max, new.map(|n| &n.max)), changed(&g.found, new.map(|n| &n.found)));
            (*id, [max, found, changed(&g.current, Some(&g.found))])
        };
        SavedCaps(self.groups.iter().map(group).filter(|(_, blocks)| blocks.iter().any(Option::is_some)).collect())
    }

    /// Makes those of a new function what they were, by the rules by which managers and drivers
    /// change them; false where these do not lead there.
    #[must_use]
    pub(crate) fn restore(&mut self, saved: &SavedCaps) -> bool {
        saved.0.iter().all(|(id, [max, found, current])| {
            if let Some(block) = max.as_ref().or(found.as_ref())
                && self.set_by_manager(*id, block).is_err()
            {
                return false;
            }
            if current.as_ref().is_some_and(|block| self.set(*id, block).is_err()) {
                return false;
            }
            let is = |now: &Block, then: &Option<Vec<u8>>| then.as_ref().is_none_or(|t| **t == **now);
            self.groups.get(id).is_some_and(|g| is(&g.max, max) && is(&g.found, found) && is(&g.current, current))
        })
    }

    /// With everything in force that could be: under those every object of the function could
    /// be made, whenever it was.
    pub(crate) fn at_most(&self) -> Self {
        let mut all = self.clone();
        all.groups.values_mut().for_each(|g| g.current = g.max.clone());
        all
    }

    /// What a driver set is forgotten: the next one finds what the device and the manager made.
    pub(crate) fn driver_left(&mut self) {
        for g in self.groups.values_mut() {
            g.current = g.found.clone();
        }
    }

    /// The group is not offered any more.
    pub(crate) fn remove(&mut self, group: u16) {
        self.groups.remove(&group);
    }

    /// A whole group, [`GROUP_SIZE`] bytes, where it is offered.
    pub fn group(&self, id: u16, mode: Mode) -> Option<&[u8]> {
        let g = self.groups.get(&id)?;
        Some(if mode == Mode::Max { &g.max } else { &g.current })
    }

    /// A GENERAL field in force.
    pub fn general(&self, f: Field<CmdHcaCap>) -> u32 {
        self.group(GENERAL, Mode::Current).map_or(0, |g| View::<CmdHcaCap>::new(g).get(f))
    }

    /// A GENERAL_2 field in force.
    pub fn general2(&self, f: Field<CmdHcaCap2>) -> u32 {
        self.group(GENERAL_2, Mode::Current).map_or(0, |g| View::<CmdHcaCap2>::new(g).get(f))
    }

    /// A field of any group in force, with the group's layout.
    pub fn of<S: Layout>(&self, group: u16) -> View<'_, S> {
        View::new(self.group(group, Mode::Current).unwrap_or(&[]))
    }

    /// SET_HCA_CAP by the function's own driver: what it writes becomes
    /// current; a field above its maximum is cut to the maximum.
    pub fn set(&mut self, id: u16, value: &[u8]) -> Result<(), Refusal> {
        let layout = profile::GROUPS.iter().find(|g| g.id == id);
        let (Some(layout), Some(g)) = (layout, self.groups.get_mut(&id)) else {
            return Err(Refusal::param(Syndrome::CAP_GROUP));
        };
        let mut next = vec![0; GROUP_SIZE];
        let n = value.len().min(GROUP_SIZE);
        next[..n].copy_from_slice(&value[..n]);
        cut_to_max(&(layout.layout)(), 0, &g.max, &mut next);
        let same = [&g.max, &g.found].into_iter().find(|b| ***b == next[..]);
        g.current = same.cloned().unwrap_or_else(|| Block::from(next));
        Ok(())
    }

    /// SET_HCA_CAP by the manager: merged into what the function will find,
    /// maximum included where the manager may raise it.
    pub fn set_by_manager(&mut self, id: u16, value: &[u8]) -> Result<(), Refusal> {
        let own = match id {
            GENERAL => &[CmdHcaCap::roce][..],
            _ => &[],
        };
        let own2 = match id {
            GENERAL_2 => &[CmdHcaCap2::max_num_eqs_24b, CmdHcaCap2::sf_eq_usage][..],
            _ => &[],
        };
        if own.is_empty() && own2.is_empty() {
            return Err(Refusal::param(Syndrome::CAP_GROUP));
        }
        for f in own {
            let v = View::<CmdHcaCap>::new(value).get(*f);
            self.fix(*f, v.min(self.limit::<CmdHcaCap>(id, *f)));
        }
        for f in own2 {
            let v = View::<CmdHcaCap2>::new(value).get(*f);
            self.fix2(*f, v);
        }
        Ok(())
    }

    fn limit<S: Layout>(&self, id: u16, f: Field<S>) -> u32 {
        self.group(id, Mode::Max).map_or(0, |g| View::<S>::new(g).get(f))
    }
}

fn unshare(b: &mut Block) -> &mut [u8] {
    if Arc::get_mut(b).is_none() {
        *b = Block::from(b.to_vec());
    }
    Arc::get_mut(b).unwrap_or(&mut [])
}

/// Clears single bits that the maximum does not have, and lowers numbers that
/// are above it. Nested structures are the device's alone.
fn cut_to_max(layout: &sfnic_firmware_cmds::layout::Info, base: u32, max: &[u8], next: &mut [u8]) {
    use sfnic_firmware_cmds::layout::Kind;
    // What the layout does not name cannot be set at all.
    let mut out = max.to_vec();
    out.iter_mut().for_each(|b| *b = 0);
    for f in layout.fields {
        let at = ((base + f.bit) / 32 * 4) as usize;
        match f.kind {
            Kind::Bits => {
                let field = Field::<()>::at(f.bit, f.width);
                let read = |b: &[u8]| field.of_dword(dword(b, at));
                let v = read(next).min(read(max));
                let d = field.in_dword(dword(&out, at), v);
                out[at..at + 4].copy_from_slice(&d.to_be_bytes());
            }
            _ => {
                let (at, len) = ((f.bit / 8) as usize, (f.width * f.count.max(1) / 8) as usize);
                let len = if f.kind == Kind::Sub { (f.width / 8) as usize } else { len };
                let end = (at + len).min(out.len());
                out[at..end].copy_from_slice(&max[at..end]);
            }
        }
    }
    next.copy_from_slice(&out);
}

fn dword(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps() -> Caps {
        Caps::new(&profile::Profile::builtin("connectx6dx").unwrap().pf)
    }

    #[test]
    fn settable_bits_become_current_and_no_more_than_the_maximum() {
        let mut c = caps();
        assert_eq!(c.general(CmdHcaCap::vhca_state), 0);
        let mut want = c.group(GENERAL, Mode::Current).unwrap().to_vec();
        let mut w = ViewMut::<CmdHcaCap>::new(&mut want);
        w.set(CmdHcaCap::vhca_state, 1).set(CmdHcaCap::dct, 1).set(CmdHcaCap::log_max_cq, 31);
        c.set(GENERAL, &want).unwrap();
        assert_eq!(c.general(CmdHcaCap::vhca_state), 1);
        assert_eq!(c.general(CmdHcaCap::dct), 0);
        assert_eq!(c.general(CmdHcaCap::log_max_cq), 16);
        assert!(c.set(0x3f, &[]).is_err());
    }

    #[test]
    fn the_next_driver_finds_what_the_manager_made() {
        let mut c = caps();
        let found = c.group(GENERAL, Mode::Current).unwrap().to_vec();
        let mut want = found.clone();
        ViewMut::<CmdHcaCap>::new(&mut want).set(CmdHcaCap::vhca_state, 1);
        c.set(GENERAL, &want).unwrap();
        c.fix(CmdHcaCap::vhca_id, 5);
        c.fix2(CmdHcaCap2::max_num_eqs_24b, 3);
        assert_eq!((c.general(CmdHcaCap::vhca_state), c.general(CmdHcaCap::vhca_id)), (1, 5));
        c.driver_left();
        assert_eq!((c.general(CmdHcaCap::vhca_state), c.general(CmdHcaCap::vhca_id)), (0, 5));
        assert_eq!(c.general2(CmdHcaCap2::max_num_eqs_24b), 3);
    }

    #[test]
    fn a_change_is_not_seen_by_others() {
        let a = caps();
        let mut b = a.clone();
        b.fix(CmdHcaCap::vhca_id, 9);
        assert_eq!((a.general(CmdHcaCap::vhca_id), b.general(CmdHcaCap::vhca_id)), (0, 9));
    }
}
