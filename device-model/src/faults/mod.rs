//! Faults that are put in on purpose, to see how drivers bear them and that
//! tests notice them. [`language`] says what there is.
//!
//! Each place of the device that a fault can be at looks at one flag. Chance
//! follows from the fault's own seed and the number of the occasion, so the same
//! faults strike the same occasions.

pub mod language;
mod site;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use sfnic_firmware_cmds::entries::InitSeg;
use sfnic_firmware_cmds::layout::Field;
use sfnic_firmware_cmds::{Opcode, Refusal, Status, Syndrome};

pub use language::{Fault, What, When};
pub use site::Site;

use crate::capture::Way;
use crate::events::{Events, FaultAction, Happening};
use crate::later::{Deed, Later};
use crate::nic::Nic;
use crate::trace::mix;
use crate::world::Clock;

/// Most faults at a time.
const MOST: usize = 256;

/// Places that faults can be at, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// Commands.
    Command = 1,
    /// Event queues.
    Event = 2,
    /// Completion queues.
    Completion = 4,
    /// Interrupts.
    Interrupt = 8,
    /// The health buffer.
    Health = 16,
    /// Frames on wires.
    Frames = 32,
    /// Carriers of ports.
    Link = 64,
    /// Guest memory.
    Dma = 128,
    /// The bus.
    Pcie = 256,
    /// The life of functions.
    Function = 512,
}

/// A fault as it is in force.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FaultView {
    /// Its number.
    pub id: u32,
    /// In the words of its language.
    pub fault: String,
    /// How many occasions it had.
    pub occasions: u64,
    /// How often it struck.
    pub struck: u64,
}

#[derive(Debug)]
struct InForce {
    id: u32,
    fault: Fault,
    occasions: u64,
    struck: u64,
    /// Of a link: whether it is down now. Of the health counter: where it
    /// stands. Of the health buffer: whether a reset cleared it.
    state: u32,
}

#[derive(Debug, Default)]
struct List {
    last: u32,
    all: Vec<InForce>,
    /// A wire is impaired.
    impaired: bool,
}

/// What a device does wrong.
pub struct Faults {
    places: AtomicU32,
    list: Mutex<List>,
    events: Arc<Events>,
    clock: Arc<dyn Clock>,
    later: Arc<Later>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list.lock().all).finish()
    }
}

/// An occasion for a fault.
#[derive(Debug, Clone, Copy)]
struct Occasion {
    pf: usize,
    function: Option<u16>,
    opcode: Option<Opcode>,
    number: Option<u32>,
    way: Option<Way>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventFate {
    Written,
    Lost,
    WrittenTwice,
    /// Until the next one, or its time, comes.
    HeldBack,
}

/// What becomes of a frame on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameFate {
    Dropped,
    /// By so many nanoseconds.
    Delayed(u64),
    /// The bit that changes, modulo the frame's bits.
    Corrupted(u64),
}

/// What becomes of a command before it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandFate {
    Lost,
    /// By so many nanoseconds.
    Delayed(u64),
}

impl What {
    const fn place(&self) -> Place {
        match self {
            What::FailCommand(_) | What::DelayCommand(_) | What::LoseCommand | What::Exhaust(_) => Place::Command,
            What::LoseEvent | What::DuplicateEvent | What::ReorderEvent(_) => Place::Event,
            What::LoseCompletion => Place::Completion,
            What::LoseInterrupt => Place::Interrupt,
            What::StopHealth | What::Health { .. } => Place::Health,
            What::DropFrame | What::CorruptFrame | What::DelayFrame(_) => Place::Frames,
            What::FlapLink { .. } => Place::Link,
            What::LoseDma => Place::Dma,
            What::LosePcie => Place::Pcie,
            What::HoldDetach | What::Reset(_) => Place::Function,
        }
    }
}

impl InForce {
    /// Whether this is an occasion for it.
    fn matches(&self, o: &Occasion) -> bool {
        fn fits<T: PartialEq>(wanted: Option<T>, is: Option<T>) -> bool {
            wanted.is_none() || wanted == is
        }
        let f = &self.fault;
        fits(f.pf, Some(o.pf))
            && fits(f.function, o.function)
            && fits(f.opcode, o.opcode)
            && fits(f.number, o.number)
            && fits(f.way, o.way)
    }

    /// One more occasion: whether it strikes.
    fn strikes(&mut self) -> bool {
        self.occasions += 1;
        let strikes = match self.fault.when {
            When::Always => true,
            When::Nth(n) => self.occasions == n,
            When::Every(n) => self.occasions.is_multiple_of(n),
            When::Chance { p, seed } => {
                // The upper 53 bits are a fraction that a float holds.
                let draw = (mix(seed ^ mix(self.occasions)) >> 11) as f64 / (1u64 << 53) as f64;
                draw < p
            }
        };
        let strikes = strikes && self.struck < self.fault.times;
        self.struck += u64::from(strikes);
        strikes
    }
}

impl Faults {
    /// None so far.
    pub fn new(events: Arc<Events>, clock: Arc<dyn Clock>, later: Arc<Later>) -> Self {
        Self { places: AtomicU32::new(0), list: Mutex::default(), events, clock, later }
    }

    /// Something is to be done in so many nanoseconds.
    fn put_off(&self, ns: u64, deed: Deed) {
        let _ = self.later.put(self.clock.now_ns().saturating_add(ns), deed);
    }

    /// Where what happens is told.
    pub(crate) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Whether any fault is at a place.
    #[inline]
    pub fn at(&self, place: Place) -> bool {
        self.places.load(Relaxed) & place as u32 != 0
    }

    /// All that are in force, in the order in which they were added.
    pub fn list(&self) -> Vec<FaultView> {
        let view =
            |f: &InForce| FaultView { id: f.id, fault: f.fault.text.clone(), occasions: f.occasions, struck: f.struck };
        self.list.lock().all.iter().map(view).collect()
    }

    fn publish(&self, list: &List) {
        let places = list.all.iter().fold(0, |bits, f| bits | f.fault.what.place() as u32);
        self.places.store(places | if list.impaired { Place::Frames as u32 } else { 0 }, Relaxed);
    }

    /// Whether any wire is impaired: then frames are looked at one by one, as with a fault.
    pub(crate) fn set_impaired(&self, impaired: bool) {
        let mut list = self.list.lock();
        list.impaired = impaired;
        self.publish(&list);
    }

    fn tell(&self, f: &InForce, action: FaultAction, what: String) {
        self.events.push(Happening::Fault { id: f.id, fault: f.fault.text.clone(), action, what });
    }

    /// The first fault among those that `of` picks that strikes on this
    /// occasion, and what `of` says of it. `what` tells whom it strikes.
    fn strike<T>(
        &self,
        occasion: &Occasion,
        of: impl Fn(&InForce) -> Option<T>,
        what: impl Fn() -> String,
    ) -> Option<T> {
        let mut list = self.list.lock();
        for f in &mut list.all {
            if let Some(fate) = of(f)
                && f.matches(occasion)
                && f.strikes()
            {
                // Frames and completions may be many: the first one is told.
                let often = matches!(f.fault.what.place(), Place::Frames | Place::Completion | Place::Interrupt);
                if !often || f.struck == 1 {
                    self.tell(f, FaultAction::Struck, what());
                }
                return Some(fate);
            }
        }
        None
    }

    /// Whether a command is kept from being executed now.
    pub(crate) fn command(&self, pf: usize, function: u16, opcode: Opcode) -> Option<CommandFate> {
        if !self.at(Place::Command) {
            return None;
        }
        let o = Occasion { pf, function: Some(function), opcode: Some(opcode), number: None, way: None };
        let fate = |f: &InForce| match f.fault.what {
            What::LoseCommand => Some(CommandFate::Lost),
            What::DelayCommand(ns) => Some(CommandFate::Delayed(ns)),
            _ => None,
        };
        self.strike(&o, fate, || format!("{opcode} of pf{pf}/{function:#x}"))
    }

    /// Why a command is refused, if it is. `count` tells how many objects of a
    /// kind there are.
    pub(crate) fn refusal(
        &self,
        pf: usize,
        function: u16,
        opcode: Opcode,
        count: impl Fn(&str) -> usize,
    ) -> Option<Refusal> {
        if !self.at(Place::Command) {
            return None;
        }
        let o = Occasion { pf, function: Some(function), opcode: Some(opcode), number: None, way: None };
        let fate = |f: &InForce| match f.fault.what {
            What::FailCommand(refusal) => Some(refusal),
            What::Exhaust(limit) => {
                let kind = language::KINDS.iter().find(|k| Some(k.1) == f.fault.opcode)?.0;
                let full = Some(opcode) == f.fault.opcode && count(kind) >= limit;
                full.then_some(Refusal::new(Status::NoResources, Syndrome::INJECTED))
            }
            _ => None,
        };
        self.strike(&o, fate, || format!("{opcode} of pf{pf}/{function:#x}"))
    }

    /// What the init segment's dword at byte `at` reads as, instead of `dword`.
    pub(crate) fn health(&self, pf: usize, function: u16, at: u64, dword: u32) -> u32 {
        if !self.at(Place::Health) {
            return dword;
        }
        let is = |f: Field<InitSeg>| (f.dword() * 4) as u64 == at;
        let o = Occasion { pf, function: Some(function), opcode: None, number: None, way: None };
        let mut dword = dword;
        for f in self.list.lock().all.iter_mut().filter(|f| f.matches(&o)) {
            match f.fault.what {
                What::StopHealth if is(InitSeg::health_counter) => {
                    if f.state == 0 {
                        f.state = dword;
                    }
                    dword = f.state;
                }
                What::Health { .. } if f.state != 0 => continue,
                What::Health { syndrome, extended, .. } if is(InitSeg::health_synd) => {
                    dword = InitSeg::health_synd.in_dword(dword, syndrome.into());
                    dword = InitSeg::health_ext_synd.in_dword(dword, extended.into());
                }
                What::Health { severity, rfr, .. } if is(InitSeg::health_rfr) => {
                    dword = InitSeg::health_rfr.in_dword(dword, rfr.into());
                    if let Some(severity) = severity {
                        dword = InitSeg::health_severity_valid.in_dword(dword, 1);
                        dword = InitSeg::health_severity.in_dword(dword, severity.into());
                    }
                }
                _ => continue,
            }
            f.occasions += 1;
            f.struck += 1;
        }
        dword
    }

    /// A reset of the firmware cleared what a card's health buffer asked one for.
    pub(crate) fn cured(&self, pf: usize) {
        let asks = |f: &&mut InForce| {
            matches!(f.fault.what, What::Health { rfr: true, .. }) && f.fault.pf.is_none_or(|p| p == pf)
        };
        self.list.lock().all.iter_mut().filter(asks).for_each(|f| f.state = 1);
    }

    /// What becomes of a frame that passes a port's wire.
    pub(crate) fn frame(&self, pf: usize, way: Way) -> Option<FrameFate> {
        let o = Occasion { pf, function: None, opcode: None, number: None, way: Some(way) };
        let fate = |f: &InForce| match f.fault.what {
            What::DropFrame => Some(FrameFate::Dropped),
            What::DelayFrame(ns) => Some(FrameFate::Delayed(ns)),
            What::CorruptFrame => Some(FrameFate::Corrupted(mix(f.occasions))),
            _ => None,
        };
        self.strike(&o, fate, || format!("a frame of p{pf}"))
    }

    /// Whether an interrupt is lost.
    pub(crate) fn loses_interrupt(&self, pf: usize, vector: u16) -> bool {
        let o = Occasion { pf, function: None, opcode: None, number: Some(vector.into()), way: None };
        let lost = |f: &InForce| (f.fault.what == What::LoseInterrupt).then_some(());
        self.strike(&o, lost, || format!("vector {vector} of pf{pf}")).is_some()
    }

    /// Whether the host holds on to an SF now that it is taken back, or lets go
    /// of it.
    pub(crate) fn holds_detach(&self, pf: usize, function: u16, sfnum: u32) -> bool {
        let o = Occasion { pf, function: Some(function), opcode: None, number: Some(sfnum), way: None };
        let holds = |f: &InForce| (f.fault.what == What::HoldDetach).then_some(());
        self.at(Place::Function) && self.strike(&o, holds, || format!("sf {sfnum} of pf{pf}")).is_some()
    }

    /// Whether [`Self::holds_detach`] would say so.
    pub(crate) fn is_detach_held(&self, pf: usize, function: u16, sfnum: u32) -> bool {
        let o = Occasion { pf, function: Some(function), opcode: None, number: Some(sfnum), way: None };
        let holds = |f: &InForce| f.fault.what == What::HoldDetach && f.matches(&o);
        self.at(Place::Function) && self.list.lock().all.iter().any(holds)
    }

    /// Whether a port has no carrier whatever its far end says.
    pub(crate) fn link_down(&self, pf: usize) -> bool {
        let of = |f: &&InForce| f.fault.what.place() == Place::Link && f.fault.pf.is_none_or(|p| p == pf);
        self.at(Place::Link) && self.list.lock().all.iter().filter(of).any(|f| f.state != 0)
    }

    /// Whether a fault that is a state is at a place, of those that `of` picks.
    fn holds(&self, place: Place, of: impl Fn(&Fault) -> bool) -> bool {
        let here = |f: &InForce| f.fault.what.place() == place && of(&f.fault);
        self.at(place) && self.list.lock().all.iter().any(here)
    }

    /// Whether a card does not answer on its bus.
    #[inline]
    pub fn is_gone(&self, pf: usize) -> bool {
        self.at(Place::Pcie) && self.holds(Place::Pcie, of_card(pf))
    }

    /// Whether the device that a passthrough slice is does not answer on its bus.
    #[inline]
    pub(crate) fn is_slice_gone(&self, slice: u32) -> bool {
        self.at(Place::Pcie) && self.holds(Place::Pcie, of_slice(slice))
    }

    /// Whether the device that a passthrough slice is reaches no memory.
    pub(crate) fn is_slice_cut(&self, slice: u32) -> bool {
        self.holds(Place::Dma, of_slice(slice)) || self.holds(Place::Pcie, of_slice(slice))
    }

    /// What a fault resets now: a slice's device, one card, or all of them.
    fn resets(&self, id: u32) -> Option<(Option<u32>, Option<usize>)> {
        let mut list = self.list.lock();
        let f = list.all.iter_mut().find(|f| f.id == id)?;
        f.occasions += 1;
        f.struck += 1;
        self.tell(f, FaultAction::Struck, String::new());
        Some((f.fault.slice, f.fault.pf))
    }

    /// A link that flaps changes now. When it does the next time, if it does.
    fn flap(&self, id: u32) -> Option<u64> {
        let mut list = self.list.lock();
        let f = list.all.iter_mut().find(|f| f.id == id)?;
        let What::FlapLink { down, up } = f.fault.what else { return None };
        if f.state != 0 {
            f.state = 0;
            return (f.struck < f.fault.times).then_some(up);
        }
        f.state = 1;
        f.occasions += 1;
        f.struck += 1;
        self.tell(f, FaultAction::Struck, String::new());
        down
    }
}

/// Picks faults of a card.
fn of_card(pf: usize) -> impl Fn(&Fault) -> bool {
    move |f| f.slice.is_none() && f.pf.is_none_or(|p| p == pf)
}

/// Picks faults of the device that a passthrough slice is.
fn of_slice(slice: u32) -> impl Fn(&Fault) -> bool {
    move |f| f.slice == Some(slice)
}

impl Nic {
    /// Puts a fault in. Its number.
    ///
    /// # Errors
    /// There are too many, or no such card: one line.
    pub fn fault_add(&self, fault: Fault) -> Result<u32, String> {
        if let Some(pf) = fault.pf.filter(|pf| *pf >= self.cards.len()) {
            let last = self.cards.len().saturating_sub(1);
            return Err(format!("pf = \"{pf}\": allowed is 0 to {last}"));
        }
        let what = fault.what;
        let id = {
            let mut list = self.faults.list.lock();
            if list.all.len() >= MOST {
                return Err(format!("there are {MOST} faults already"));
            }
            list.last += 1;
            let f = InForce { id: list.last, fault, occasions: 0, struck: 0, state: 0 };
            self.faults.tell(&f, FaultAction::Added, String::new());
            list.all.push(f);
            self.faults.publish(&list);
            list.last
        };
        match what {
            What::FlapLink { .. } => self.flap(id),
            What::Reset(0) => self.reset_by(id),
            What::Reset(ns) => self.faults.put_off(ns, Deed::Reset { id }),
            // A link that goes down resets what is behind it.
            What::LosePcie => self.reset_by(id),
            _ => {}
        }
        self.cut_memory();
        // Frames whose way is known take it no more.
        self.flows.changed();
        Ok(id)
    }

    /// Takes a fault out; false where there is none of this number.
    pub fn fault_del(&self, id: u32) -> bool {
        let removed = {
            let mut list = self.faults.list.lock();
            let at = list.all.iter().position(|f| f.id == id);
            let removed = at.map(|at| list.all.remove(at));
            self.faults.publish(&list);
            removed
        };
        if let Some(f) = &removed {
            self.faults.tell(f, FaultAction::Deleted, String::new());
            self.cut_memory();
            match f.fault.what {
                What::ReorderEvent(_) => self.release_events(),
                What::HoldDetach => self.release_detach(),
                _ => {}
            }
            self.update_links();
        }
        removed.is_some()
    }

    /// A fault resets what it is of.
    pub(crate) fn reset_by(&self, id: u32) {
        match self.faults.resets(id) {
            None => {}
            Some((Some(slice), _)) => {
                if let Some(endpoint) = self.endpoint(slice) {
                    self.endpoint_reset_behind(&endpoint);
                }
            }
            Some((None, pf)) => {
                for card in self.cards.iter().filter(|c| pf.is_none_or(|pf| pf == c.index)) {
                    self.reset_behind(card);
                }
            }
        }
    }

    /// The events that any queue holds back are written.
    fn release_events(&self) {
        for card in &self.cards {
            for vport in card.fabric.vports.pin().values() {
                let Some(plane) = vport.function.load_full() else { continue };
                plane.eqs.pin().values().for_each(|eq| eq.queue.release(&plane.dma.load()));
            }
        }
    }

    /// Cuts cards and endpoints off from guest memory that are to be, and connects others.
    fn cut_memory(&self) {
        for card in &self.cards {
            let of = of_card(card.index);
            card.dma.cut(self.faults.holds(Place::Dma, &of) || self.faults.holds(Place::Pcie, &of));
        }
        for endpoint in self.endpoints() {
            endpoint.dma.cut(self.faults.is_slice_cut(endpoint.slice));
        }
    }

    /// A link that flaps goes down or comes back, and will again.
    pub(crate) fn flap(&self, id: u32) {
        if let Some(ns) = self.faults.flap(id) {
            self.faults.put_off(ns, Deed::Flap { id });
        }
        self.update_links();
    }
}
