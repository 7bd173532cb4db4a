//! A function as the packet path sees it: its queues by number, its memory
//! keys, its steering roots.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::Map;
use super::counters::Counter;
use super::flows::Flows;
use super::mkey::{Mkey, RESERVED_LKEY};
use super::tir::Tir;
use super::vport::Vport;
use crate::dma::Dma;
use crate::queue::{Access, AsyncEqs, Cq, Eq, KeyCheck, KeyFault, KeyUse, Remap, Sq};
use crate::steering::Reader;

/// A queue and the UAR page that its owner rings.
#[derive(Debug)]
pub struct Rung<Q> {
    /// The queue.
    pub queue: Arc<Q>,
    /// Page of the function's window.
    pub uar: u32,
}

/// A function's queues and tables.
#[derive(Debug)]
pub struct FunctionPlane {
    /// Function id (0 for the PF).
    pub id: u16,
    /// Number that is unique in the device.
    pub vhca_id: u16,
    /// Its port of the eswitch.
    pub vport: Arc<Vport>,
    /// Its IOVA space (the PF's).
    pub dma: Arc<Dma>,
    /// Send queues.
    pub sqs: Map<u32, Rung<Sq>>,
    /// Completion queues.
    pub cqs: Map<u32, Rung<Cq>>,
    /// Event queues.
    pub eqs: Map<u32, Rung<Eq>>,
    /// Memory keys by index.
    pub mkeys: Map<u32, Arc<Mkey>>,
    /// UAR pages and the user context that owns each.
    pub uars: Map<u32, u16>,
    /// Who asked for asynchronous events.
    pub events: Arc<AsyncEqs>,
    /// Its flow tables.
    pub steering: Reader<Tir>,
    /// Frames that receive steering discarded.
    pub rx_steering_discards: Counter,
    /// Frames for a function whose link is down.
    pub rx_link_down: Counter,
    /// Frames from a function whose link is down.
    pub tx_link_down: Counter,
    /// Doorbells that named nothing of this function.
    pub bad_doorbells: Counter,
}

impl FunctionPlane {
    /// A function without objects.
    pub fn new(id: u16, vhca_id: u16, vport: Arc<Vport>, dma: Arc<Dma>, steering: Reader<Tir>) -> Arc<Self> {
        Arc::new(Self {
            id,
            vhca_id,
            vport,
            dma,
            sqs: Map::default(),
            cqs: Map::default(),
            eqs: Map::default(),
            mkeys: Map::default(),
            uars: Map::default(),
            events: Arc::default(),
            steering,
            rx_steering_discards: Counter::default(),
            rx_link_down: Counter::default(),
            tx_link_down: Counter::default(),
            bad_doorbells: Counter::default(),
        })
    }

    /// Forgets every object: no doorbell and no frame finds one any more.
    pub fn clear(&self) {
        self.events.clear();
        self.sqs.pin().clear();
        self.cqs.pin().clear();
        self.eqs.pin().clear();
        self.mkeys.pin().clear();
        self.uars.pin().clear();
    }
}

/// A function's memory keys during a burst: the last one used is remembered as
/// long as no command may have changed it.
pub struct Keys<'a> {
    function: &'a FunctionPlane,
    flows: &'a Flows,
    /// The epoch in which it was looked up, and the key.
    last: RefCell<Option<(u32, Arc<Mkey>)>>,
    /// The last use of a key whose addresses are IOVAs, which no UMR changes.
    plain: Cell<Option<Plain>>,
}

/// A use of a key that was allowed in an epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Plain {
    epoch: u32,
    lkey: u32,
    pd: u32,
    access: Access,
}

impl<'a> Keys<'a> {
    /// Remembers none yet.
    pub fn new(function: &'a FunctionPlane, flows: &'a Flows) -> Self {
        Self { function, flows, last: RefCell::new(None), plain: Cell::new(None) }
    }
}

impl KeyCheck for Keys<'_> {
    #[inline(always)]
    fn resolve(&self, key: KeyUse, addr: u64, len: u32, mut each: impl FnMut(u64, u32)) -> Result<(), KeyFault> {
        let epoch = self.flows.now().epoch();
        let plain = Plain { epoch, lkey: key.lkey, pd: key.pd, access: key.access };
        if self.plain.get() == Some(plain) && addr.checked_add(len.into()).is_some() {
            each(addr, len);
            return Ok(());
        }
        self.resolve_any(key, plain, (addr, len), each)
    }

    fn remap(&self, remap: &Remap<'_>) -> Result<(), KeyFault> {
        self.function.remap(remap)
    }
}

impl Keys<'_> {
    #[inline]
    fn resolve_any(
        &self,
        key: KeyUse,
        plain: Plain,
        (addr, len): (u64, u32),
        each: impl FnMut(u64, u32),
    ) -> Result<(), KeyFault> {
        if key.reserved && key.lkey == RESERVED_LKEY {
            return self.function.resolve(key, addr, len, each);
        }
        let epoch = plain.epoch;
        let mut last = self.last.borrow_mut();
        let known = last.as_ref().filter(|(seen, mkey)| *seen == epoch && mkey.key == key.lkey);
        let mkey = match known {
            Some((_, mkey)) => mkey,
            None => {
                let keys = self.function.mkeys.pin();
                let found = keys.get(&(key.lkey >> 8)).filter(|m| m.key == key.lkey).ok_or(KeyFault)?;
                &last.insert((epoch, found.clone())).1
            }
        };
        if mkey.pd != key.pd {
            return Err(KeyFault);
        }
        if mkey.is_plain(key.access) {
            self.plain.set(Some(plain));
        }
        mkey.resolve(addr, len, key.access, each)
    }
}

impl KeyCheck for FunctionPlane {
    fn resolve(&self, key: KeyUse, addr: u64, len: u32, mut each: impl FnMut(u64, u32)) -> Result<(), KeyFault> {
        if key.reserved && key.lkey == RESERVED_LKEY {
            addr.checked_add(u64::from(len)).ok_or(KeyFault)?;
            each(addr, len);
            return Ok(());
        }
        let keys = self.mkeys.pin();
        let mkey = keys.get(&(key.lkey >> 8)).ok_or(KeyFault)?;
        if mkey.key != key.lkey || mkey.pd != key.pd {
            return Err(KeyFault);
        }
        mkey.resolve(addr, len, key.access, each)
    }
    fn remap(&self, remap: &Remap<'_>) -> Result<(), KeyFault> {
        let keys = self.mkeys.pin();
        let mkey = keys.get(&(remap.key >> 8)).filter(|m| m.key == remap.key).ok_or(KeyFault)?;
        mkey.remap(remap)
    }
}
