//! The tables as packets see them: an immutable picture, replaced when the
//! structure changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::changes::{Mark, Seed};
use super::group::Group;

/// Type of a flow table (`enum fs_flow_table_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum TableType {
    /// What a function receives.
    NicRx = 0,
    /// What a function sends.
    NicTx = 1,
    /// In front of a vport, from the eswitch.
    EgressAcl = 2,
    /// Behind a vport, to the eswitch.
    IngressAcl = 3,
    /// The eswitch.
    Fdb = 4,
    /// A copy of what is received.
    SnifferRx = 5,
    /// A copy of what is sent.
    SnifferTx = 6,
    /// RoCE that a function receives.
    RdmaRx = 7,
    /// RoCE that a function sends.
    RdmaTx = 8,
    /// Choice of the port of a bond.
    PortSel = 9,
    /// RoCE transport, receiving.
    RdmaTransportRx = 0xd,
    /// RoCE transport, sending.
    RdmaTransportTx = 0xe,
}

impl TableType {
    /// Every type.
    pub const ALL: [Self; 12] = [
        Self::NicRx,
        Self::NicTx,
        Self::EgressAcl,
        Self::IngressAcl,
        Self::Fdb,
        Self::SnifferRx,
        Self::SnifferTx,
        Self::RdmaRx,
        Self::RdmaTx,
        Self::PortSel,
        Self::RdmaTransportRx,
        Self::RdmaTransportTx,
    ];
    /// The `table_type` field of a command; none for a type that does not
    /// exist or belongs to software steering.
    pub fn parse(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| u32::from(*t as u8) == raw)
    }
    /// Whether rules may send to a TIR.
    pub fn receives(self) -> bool {
        matches!(self, Self::NicRx | Self::SnifferRx | Self::SnifferTx | Self::RdmaRx | Self::RdmaTransportRx)
    }
    /// Whether rules may send to a vport or the uplink.
    pub fn switches(self) -> bool {
        matches!(self, Self::Fdb | Self::EgressAcl | Self::PortSel)
    }
}

/// A table, as rules and other tables name it. The serial tells it from a
/// later table that got the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableRef {
    pub(super) id: u32,
    pub(super) serial: u64,
}

impl TableRef {
    /// Number of the table.
    pub fn id(self) -> u32 {
        self.id
    }
}

/// What happens to a packet that no rule of a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Miss {
    /// The domain's default (miss action 0).
    #[default]
    Default,
    /// On to a table (miss action 1).
    Table(TableRef),
    /// On to the next domain, as RDMA_RX does to NIC_RX (miss action 2).
    SwitchDomain,
}

bitflags::bitflags! {
    /// What a table's rules may do, as the driver announced it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct TableFlags: u8 {
        /// `reformat_en`.
        const REFORMAT = 1;
        /// `decap_en`.
        const DECAP = 2;
        /// `termination_table`: nothing follows its rules but vports.
        const TERMINATION = 4;
    }
}

/// A table as packets see it.
pub struct Table<T> {
    pub(super) at: TableRef,
    pub(super) seed: Seed,
    /// Its type.
    pub kind: TableType,
    /// Its level.
    pub level: u8,
    /// It has `1 << log_size` entries.
    pub log_size: u8,
    /// What its rules may do.
    pub flags: TableFlags,
    /// What happens when no rule matches.
    pub miss: Miss,
    /// In order of their ranges, which do not overlap: the first group that
    /// has a rule for a packet has the one with the lowest index.
    pub(super) groups: Vec<Arc<Group<T>>>,
}

impl<T> Table<T> {
    /// How others name it.
    pub fn reference(&self) -> TableRef {
        self.at
    }
    /// Number of the table.
    pub fn id(&self) -> u32 {
        self.at.id
    }
    /// The mark of its groups and its miss.
    pub fn mark(&self) -> Mark {
        Mark::table(self.seed)
    }
    /// Number of entries.
    pub fn size(&self) -> u64 {
        1u64.checked_shl(u32::from(self.log_size)).unwrap_or(u64::MAX)
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { groups: self.groups.clone(), ..*self }
    }
}

/// Tables of a chunk; a change copies one chunk and the list of chunks.
const CHUNK: usize = 128;
type Chunk<T> = Vec<Option<Arc<Table<T>>>>;

/// Where packets enter, by type and vport; looked up several times a packet.
type Roots = std::collections::HashMap<(TableType, u16), TableRef, foldhash::fast::RandomState>;

/// All tables and roots at one moment.
pub(super) struct Domain<T> {
    chunks: Vec<Arc<Chunk<T>>>,
    roots: Arc<Roots>,
}

impl<T> Default for Domain<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), roots: Default::default() }
    }
}

impl<T> Clone for Domain<T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), roots: self.roots.clone() }
    }
}

impl<T> Domain<T> {
    pub(super) fn table(&self, at: TableRef) -> Option<&Arc<Table<T>>> {
        let id = at.id as usize;
        let found = self.chunks.get(id / CHUNK)?.get(id % CHUNK)?.as_ref()?;
        (found.at.serial == at.serial).then_some(found)
    }

    pub(super) fn root(&self, kind: TableType, vport: u16) -> Option<TableRef> {
        self.roots.get(&(kind, vport)).copied()
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    pub(super) fn set_root(&mut self, kind: TableType, vport: u16, table: Option<TableRef>) {
        let roots = Arc::make_mut(&mut self.roots);
        match table {
            Some(t) => roots.insert((kind, vport), t),
            None => roots.remove(&(kind, vport)),
        };
    }

    /// Drops every root that is `table`; whether it was one.
    pub(super) fn unroot(&mut self, table: TableRef) -> bool {
        let root = self.roots.values().any(|t| *t == table);
        if root {
            Arc::make_mut(&mut self.roots).retain(|_, t| *t != table);
        }
        root
    }

    /// Puts a table under a number, or nothing.
    pub(super) fn put(&mut self, id: u32, table: Option<Arc<Table<T>>>) {
        let (chunk, at) = (id as usize / CHUNK, id as usize % CHUNK);
        while self.chunks.len() <= chunk {
            self.chunks.push(Arc::new(vec![None; CHUNK]));
        }
        Arc::make_mut(&mut self.chunks[chunk])[at] = table;
    }
}

pub(super) struct Shared<T> {
    pub(super) domain: ArcSwap<Domain<T>>,
    /// Types that have a root for some vport, a bit each: most frames pass
    /// domains without tables, and need not load the picture to know.
    pub(super) rooted: AtomicU16,
}

impl<T> Shared<T> {
    /// Replaces the picture.
    pub(super) fn publish(&self, domain: Domain<T>) {
        let types = domain.roots.keys().fold(0, |bits, (kind, _)| bits | bit(*kind));
        // Seen too early is harmless, seen too late is not.
        self.rooted.fetch_or(types, Ordering::Release);
        self.domain.store(Arc::new(domain));
        self.rooted.store(types, Ordering::Release);
    }
}

const fn bit(kind: TableType) -> u16 {
    1 << kind as u16
}

/// The data plane's end of a [`Steering`](super::Steering). Cheap to clone.
pub struct Reader<T> {
    pub(super) shared: Arc<Shared<T>>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> std::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl<T> Reader<T> {
    /// The tables as they are now. Hold it for one burst: what a command
    /// removed meanwhile lives until then.
    pub fn load(&self) -> View<'_, T> {
        View { domain: self.shared.domain.load(), shared: &self.shared }
    }

    /// Whether packets of a type may have to enter a table: cheaper than
    /// [`Reader::load`] where the answer is mostly no.
    pub fn has_roots(&self, kind: TableType) -> bool {
        self.shared.rooted.load(Ordering::Acquire) & bit(kind) != 0
    }
}

/// The tables during one burst.
pub struct View<'r, T> {
    pub(super) domain: Guard<Arc<Domain<T>>>,
    pub(super) shared: &'r Shared<T>,
}

impl<T> View<'_, T> {
    /// The table where packets of a type enter; none if the driver set none.
    /// `vport` is 0 for what belongs to the function itself.
    pub fn root(&self, kind: TableType, vport: u16) -> Option<TableRef> {
        self.domain.root(kind, vport)
    }
}
