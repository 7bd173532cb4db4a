//! The objects of one function: who owns each and who refers to it.
//!
//! An object can be destroyed when nothing refers to it any more; whoever
//! creates an object names what it uses, and the table keeps the counts.

use std::collections::{BTreeMap, BTreeSet};

use sfnic_firmware_cmds::{Refusal, Status, Syndrome};
use smallvec::SmallVec;

/// Kinds of objects. Numbers are unique within a kind and a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Uar,
    Pd,
    TransportDomain,
    Xrcd,
    Mkey,
    Eq,
    Cq,
    Sq,
    Rq,
    Rqt,
    Tir,
    Tis,
    QCounter,
    FlowCounter,
    FlowCounterBulk,
    FlowTable,
    FlowGroup,
    ModifyHeader,
    Reformat,
    GeneveOption,
    Uctx,
}

impl Kind {
    /// Its name, as serde writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Uar => "uar",
            Kind::Pd => "pd",
            Kind::TransportDomain => "transport_domain",
            Kind::Xrcd => "xrcd",
            Kind::Mkey => "mkey",
            Kind::Eq => "eq",
            Kind::Cq => "cq",
            Kind::Sq => "sq",
            Kind::Rq => "rq",
            Kind::Rqt => "rqt",
            Kind::Tir => "tir",
            Kind::Tis => "tis",
            Kind::QCounter => "q_counter",
            Kind::FlowCounter => "flow_counter",
            Kind::FlowCounterBulk => "flow_counter_bulk",
            Kind::FlowTable => "flow_table",
            Kind::FlowGroup => "flow_group",
            Kind::ModifyHeader => "modify_header",
            Kind::Reformat => "reformat",
            Kind::GeneveOption => "geneve_option",
            Kind::Uctx => "uctx",
        }
    }
}

/// One object by kind and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjRef(pub Kind, pub u32);

/// What an object refers to.
pub type Uses = SmallVec<[ObjRef; 6]>;

#[derive(Debug)]
struct Entry<B> {
    uid: u16,
    refs: u32,
    uses: Uses,
    body: B,
}

/// An object as an inspector sees it.
#[derive(Debug)]
pub struct Listed<'a, B> {
    /// Kind and number.
    pub object: ObjRef,
    /// User context that owns it; 0 is the kernel.
    pub uid: u16,
    /// How many objects refer to it.
    pub refs: u32,
    /// What it refers to.
    pub uses: &'a [ObjRef],
    /// What stands behind it.
    pub body: &'a B,
}

/// Numbers of a kind: how many were ever given out, and which of them came back.
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Ids {
    next: u32,
    free: BTreeSet<u32>,
}

/// The objects of a function. `B` is what stands behind each.
#[derive(Debug)]
pub struct Objects<B> {
    map: BTreeMap<ObjRef, Entry<B>>,
    ids: BTreeMap<Kind, Ids>,
    /// The number that the next object gets, which had it before.
    wanted: Option<u32>,
    /// They are made again: whose they are was judged when they were made first, and the
    /// kernel may have changed what they refer to since.
    again: bool,
}

impl<B> Default for Objects<B> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), ids: BTreeMap::new(), wanted: None, again: false }
    }
}

impl<B> Objects<B> {
    /// Takes the lowest number of `kind` in `first..first + limit` that is free.
    pub fn take_id(&mut self, kind: Kind, first: u32, limit: u32) -> Result<u32, Refusal> {
        let ids = self.ids.entry(kind).or_default();
        let in_range = |id: u32| id.checked_sub(first).filter(|n| *n < limit);
        if let Some(id) = self.wanted.take() {
            let was_given = in_range(id).is_some_and(|n| n < ids.next) && !ids.free.contains(&id);
            let free = was_given && !self.map.contains_key(&ObjRef(kind, id));
            return free.then_some(id).ok_or(Refusal::new(Status::BadIndex, Syndrome::OBJECT_LIMIT));
        }
        if let Some(id) = ids.free.first().copied().filter(|id| in_range(*id).is_some()) {
            ids.free.remove(&id);
            return Ok(id);
        }
        if ids.next >= limit {
            return Err(Refusal::new(Status::NoResources, Syndrome::OBJECT_LIMIT));
        }
        ids.next += 1;
        Ok(first + ids.next - 1)
    }

    /// The numbers of all kinds.
    pub(crate) fn numbers(&self) -> &BTreeMap<Kind, Ids> {
        &self.ids
    }

    /// Numbers as they were, before the objects that had them are made again.
    pub(crate) fn restore_numbers(&mut self, numbers: BTreeMap<Kind, Ids>) {
        self.ids = numbers;
        self.again = true;
    }

    /// All are there again.
    pub(crate) fn restored(&mut self) {
        self.again = false;
    }

    /// The next object that is made gets a number that it had before, and no other.
    pub(crate) fn want(&mut self, id: u32) {
        self.wanted = Some(id);
    }

    /// Gives a number back that was taken and not used.
    pub fn give_id(&mut self, kind: Kind, id: u32) {
        self.ids.entry(kind).or_default().free.insert(id);
    }

    /// Checks that `r` exists and that user context `uid` may name it (uid 0
    /// is the kernel and may name all).
    pub fn check(&self, r: ObjRef, uid: u16) -> Result<&B, Refusal> {
        let e = self.map.get(&r).ok_or(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT))?;
        if uid != 0 && e.uid != uid && !self.again {
            return Err(Refusal::new(Status::BadRes, Syndrome::FOREIGN_OBJECT));
        }
        Ok(&e.body)
    }

    /// The body of an object, for the holder of a checked reference.
    pub fn get(&self, r: ObjRef) -> Option<&B> {
        self.map.get(&r).map(|e| &e.body)
    }

    /// The body of an object, to change it.
    pub fn get_mut(&mut self, r: ObjRef) -> Option<&mut B> {
        self.map.get_mut(&r).map(|e| &mut e.body)
    }

    /// Adds an object that refers to `uses`, each of which must exist.
    pub fn insert(&mut self, r: ObjRef, uid: u16, uses: Uses, body: B) -> Result<(), Refusal> {
        for u in &uses {
            self.check(*u, uid)?;
        }
        for u in &uses {
            self.hold(*u);
        }
        self.map.insert(r, Entry { uid, refs: 0, uses, body });
        Ok(())
    }

    /// Replaces what an object refers to.
    pub fn set_uses(&mut self, r: ObjRef, uid: u16, uses: Uses) -> Result<(), Refusal> {
        for u in &uses {
            self.check(*u, uid)?;
        }
        for u in &uses {
            self.hold(*u);
        }
        let old = self.map.get_mut(&r).map(|e| std::mem::replace(&mut e.uses, uses)).unwrap_or_default();
        for u in old {
            self.release(u);
        }
        Ok(())
    }

    /// Adds one more thing that an object refers to.
    pub fn add_use(&mut self, r: ObjRef, used: ObjRef) {
        if let Some(e) = self.map.get_mut(&r) {
            e.uses.push(used);
            self.hold(used);
        }
    }

    /// Replaces what an object refers to of one kind, by `id` or by nothing.
    pub fn swap_use(&mut self, r: ObjRef, kind: Kind, id: Option<u32>) {
        let Some(e) = self.map.get_mut(&r) else { return };
        let old = e.uses.iter().position(|u| u.0 == kind).map(|at| e.uses.remove(at));
        if let Some(old) = old {
            self.release(old);
        }
        if let Some(id) = id {
            self.add_use(r, ObjRef(kind, id));
        }
    }

    /// Adds one reference to an object.
    pub fn hold(&mut self, r: ObjRef) {
        if let Some(e) = self.map.get_mut(&r) {
            e.refs += 1;
        }
    }

    /// Drops one reference to an object.
    pub fn release(&mut self, r: ObjRef) {
        if let Some(e) = self.map.get_mut(&r) {
            debug_assert!(e.refs > 0, "{r:?} released more often than held");
            e.refs = e.refs.saturating_sub(1);
        }
    }

    /// Whether the object may be destroyed now: it exists, `uid` may name it
    /// and nothing refers to it.
    pub fn check_removable(&self, r: ObjRef, uid: u16) -> Result<&B, Refusal> {
        let body = self.check(r, uid)?;
        if self.map.get(&r).is_some_and(|e| e.refs > 0) {
            return Err(Refusal::state(Syndrome::OBJECT_REFERENCED));
        }
        Ok(body)
    }

    /// Destroys an object that nothing refers to.
    pub fn remove(&mut self, r: ObjRef, uid: u16) -> Result<B, Refusal> {
        self.check_removable(r, uid)?;
        let e = self.map.remove(&r).ok_or(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT))?;
        for u in e.uses {
            self.release(u);
        }
        self.give_id(r.0, r.1);
        Ok(e.body)
    }

    /// Forgets every object and returns what stood behind them.
    pub fn clear(&mut self) -> Vec<(ObjRef, B)> {
        self.ids.clear();
        (self.wanted, self.again) = (None, false);
        std::mem::take(&mut self.map).into_iter().map(|(r, e)| (r, e.body)).collect()
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut n = BTreeMap::new();
        for r in self.map.keys() {
            *n.entry(r.0).or_default() += 1;
        }
        n
    }

    /// All objects, by kind and number.
    pub fn list(&self) -> impl Iterator<Item = Listed<'_, B>> {
        self.map.iter().map(|(r, e)| Listed { object: *r, uid: e.uid, refs: e.refs, uses: &e.uses, body: &e.body })
    }

    /// Numbers of the objects of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (u32, &B)> {
        self.map.range(ObjRef(kind, 0)..=ObjRef(kind, u32::MAX)).map(|(r, e)| (r.1, &e.body))
    }

    /// Numbers of the objects that a user context owns, children first where
    /// references say so.
    pub fn owned_by(&self, uid: u16) -> Vec<ObjRef> {
        self.map.iter().filter(|(_, e)| e.uid == uid).map(|(r, _)| *r).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    #[test]
    fn a_referenced_object_stays() {
        let mut o = Objects::<()>::default();
        let pd = ObjRef(Kind::Pd, o.take_id(Kind::Pd, 1, 8).unwrap());
        o.insert(pd, 0, Uses::new(), ()).unwrap();
        let mkey = ObjRef(Kind::Mkey, o.take_id(Kind::Mkey, 1, 8).unwrap());
        o.insert(mkey, 0, smallvec![pd], ()).unwrap();
        assert_eq!(o.remove(pd, 0).unwrap_err().syndrome, Syndrome::OBJECT_REFERENCED);
        o.remove(mkey, 0).unwrap();
        o.remove(pd, 0).unwrap();
        assert_eq!(o.remove(pd, 0).unwrap_err().syndrome, Syndrome::NO_SUCH_OBJECT);
    }

    #[test]
    fn a_user_context_sees_its_own_only() {
        let mut o = Objects::<()>::default();
        let pd = ObjRef(Kind::Pd, 1);
        o.insert(pd, 7, Uses::new(), ()).unwrap();
        assert!(o.check(pd, 7).is_ok() && o.check(pd, 0).is_ok());
        assert_eq!(o.check(pd, 8).unwrap_err().syndrome, Syndrome::FOREIGN_OBJECT);
    }

    #[test]
    fn numbers_are_limited_and_reused() {
        let mut o = Objects::<()>::default();
        assert_eq!(o.take_id(Kind::Eq, 1, 2), Ok(1));
        assert_eq!(o.take_id(Kind::Eq, 1, 2), Ok(2));
        assert!(o.take_id(Kind::Eq, 1, 2).is_err());
        o.give_id(Kind::Eq, 1);
        assert_eq!(o.take_id(Kind::Eq, 1, 2), Ok(1));
    }
}
