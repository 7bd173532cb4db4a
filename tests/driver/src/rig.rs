//! The machine: a device, a clock that is set by hand, and guests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use sfnic_device_model::dma::Memory;
use sfnic_device_model::fabric::plane::FunctionPlane;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::Manager;
use sfnic_device_model::poll::Watch;
use sfnic_device_model::slice::{OpState, State};
use sfnic_device_model::snapshot;
use sfnic_device_model::world::{Clock, Interrupts, Waker};
use sfnic_device_model::{Card, CardConfig, Nic};
use sfnic_firmware_cmds::profile::Profile;

use crate::function::Function;
use crate::memory::GuestMemory;
use crate::window::{Chip, Pages, Window};

/// Time that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Moves the time on.
    pub fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Remembers interrupts, by vector.
#[derive(Debug)]
pub struct Recorder(Mutex<Vec<u64>>);

impl Recorder {
    /// How often a vector fired.
    pub fn count(&self, vector: u16) -> u64 {
        self.0.lock().get(usize::from(vector)).copied().unwrap_or(0)
    }
}

impl Interrupts for Recorder {
    fn raise(&self, vector: u16) {
        let mut counts = self.0.lock();
        match counts.get_mut(usize::from(vector)) {
            Some(n) => *n += 1,
            None => panic!("vector {vector} is beyond the table"),
        }
    }
}

/// Nobody has to be woken: [`Rig::run`] looks.
struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

/// A device and the guests that its cards are plugged into.
pub struct Rig {
    /// The device.
    pub nic: Arc<Nic>,
    /// The same, as drivers reach it.
    chip: Chip,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Guest memory of each card.
    pub memory: Vec<Arc<GuestMemory>>,
    /// Interrupts of each card.
    pub irqs: Vec<Arc<Recorder>>,
    /// UAR pages of each card, where they are plain memory.
    pages: Vec<Arc<Pages>>,
    watch: Mutex<Watch>,
}

/// Guest memory of a rig that does not say otherwise, in bytes.
pub const MEMORY: u64 = 16 << 20;

impl Rig {
    /// Two cards whose ports are joined.
    pub fn cable() -> Self {
        Self::new(vec![Self::card(0, Far::Port(1)), Self::card(1, Far::Port(0))], MEMORY)
    }

    /// As [`Rig::cable`], with somebody who manages the eswitches.
    pub fn managed(manager: Manager, bytes: u64) -> Self {
        let card = |index, far| CardConfig { manager, ..Self::card(index, far) };
        Self::new(vec![card(0, Far::Port(1)), card(1, Far::Port(0))], bytes)
    }

    /// As [`Rig::new`], with UAR pages that are plain memory: [`Rig::run`] looks at them.
    pub fn polled(cards: Vec<CardConfig>, bytes: u64) -> Self {
        let pages: Vec<_> = cards.iter().map(|_| Arc::new(Pages::default())).collect();
        let shared = |(card, pages): (CardConfig, &Arc<Pages>)| CardConfig { doorbells: Some(pages.clone()), ..card };
        let mut rig = Self::new(cards.into_iter().zip(&pages).map(shared).collect(), bytes);
        rig.pages = pages;
        rig
    }

    /// One card whose port is connected to itself.
    pub fn loopback() -> Self {
        Self::new(vec![Self::card(0, Far::Loopback)], MEMORY)
    }

    /// A card with an address of its own.
    pub fn card(index: u8, far: Far) -> CardConfig {
        CardConfig { mac: [0x52, 0x54, 0, 0x5f, 0, index], max_sfs: 8, far, ..CardConfig::default() }
    }

    /// As [`Rig::loopback`], with capabilities that differ from the profile's.
    pub fn offering(caps: &[&str]) -> Self {
        Self::with(caps, vec![Self::card(0, Far::Loopback)], MEMORY)
    }

    /// A device of these cards, each with `bytes` of guest memory.
    pub fn new(cards: Vec<CardConfig>, bytes: u64) -> Self {
        Self::with(&[], cards, bytes)
    }

    /// As [`Rig::new`], with capabilities that differ from the profile's.
    pub fn with(caps: &[&str], cards: Vec<CardConfig>, bytes: u64) -> Self {
        let mut profile = Profile::builtin("connectx6dx").expect("the built-in profile");
        caps.iter().for_each(|cap| profile.set(cap).expect("a capability"));
        let clock = Arc::new(ManualClock::default());
        let vectors: Vec<u16> = cards.iter().map(|c| c.vectors).collect();
        let nic = Nic::new(profile, cards, clock.clone(), Arc::new(NoWaker));
        nic.update_links();
        let memory: Vec<_> = nic.cards.iter().map(|_| Arc::new(GuestMemory::new(bytes))).collect();
        let irqs: Vec<_> = vectors.iter().map(|v| Arc::new(Recorder(Mutex::new(vec![0; usize::from(*v)])))).collect();
        for ((card, memory), irq) in nic.cards.iter().zip(&memory).zip(&irqs) {
            card.dma.replace(memory.map());
            card.irq.connect(Some(irq.clone()));
        }
        let chip = Arc::new(RwLock::new(nic.clone()));
        Self { nic, chip, clock, memory, irqs, pages: vec![], watch: Mutex::default() }
    }

    /// A new device of the same configuration, beside the one that is there.
    pub fn another(&self) -> Arc<Nic> {
        let cards = self.nic.cards.iter().map(|c| c.config.clone()).collect();
        let nic = Nic::new(self.nic.profile.clone(), cards, self.clock.clone(), Arc::new(NoWaker));
        nic.update_links();
        nic
    }

    /// Saves the device and puts a new one in its place that has loaded it. Drivers notice
    /// nothing. Panics where the new one is not the same.
    pub fn replace(&mut self) {
        let saved = self.nic.save().expect("a device that is at rest");
        let next = self.another();
        // From here on memory and interrupts are the new one's.
        for card in &self.nic.cards {
            card.dma.replace(Arc::new(Memory::new()));
            card.irq.connect(None);
        }
        for ((card, memory), irq) in next.cards.iter().zip(&self.memory).zip(&self.irqs) {
            card.dma.replace(memory.map());
            card.irq.connect(Some(irq.clone()));
        }
        next.load(&saved).expect("a snapshot of such a device");
        let again = next.save().expect("a device that is at rest");
        if saved != again {
            let [was, is] = [&saved, &again].map(|s| snapshot::text(s).expect("a snapshot"));
            let at = was.lines().zip(is.lines()).position(|(a, b)| a != b).unwrap_or_default();
            let near = |text: &str| text.lines().skip(at.saturating_sub(30)).take(34).collect::<Vec<_>>().join("\n");
            panic!("the new device is not what the old one was:\n{}\nbut\n{}", near(&was), near(&is));
        }
        let old = std::mem::replace(&mut self.nic, next.clone());
        *self.chip.write() = next;
        *self.watch.lock() = Watch::default();
        old.cards.iter().for_each(|card| old.reset(card));
    }

    /// A card.
    pub fn card_at(&self, index: usize) -> &Card {
        &self.nic.cards[index]
    }

    /// The physical function of a card, before its driver.
    pub fn pf(&self, card: usize) -> Function {
        let window = Window::pf(self.chip.clone(), card).with_pages(self.pages.get(card).cloned());
        Function::new(window, self.memory[card].clone())
    }

    /// The sub-function with this index, before its driver; whether there is
    /// one shows when it is talked to.
    pub fn sf(&self, card: usize, index: u16) -> Function {
        let window = Window::sf(self.chip.clone(), card, index).with_pages(self.pages.get(card).cloned());
        Function::new(window, self.memory[card].clone())
    }

    /// The guest that has the passthrough slice with this index: its function, before its
    /// driver, its memory and its interrupts.
    pub fn guest(&self, slice: u32) -> (Function, Arc<GuestMemory>, Arc<Recorder>) {
        let endpoint = self.nic.endpoint(slice).expect("a passthrough slice");
        let memory = Arc::new(GuestMemory::new(MEMORY));
        let irq = Arc::new(Recorder(Mutex::new(vec![0; usize::from(endpoint.vectors)])));
        endpoint.dma.replace(memory.map());
        endpoint.irq.connect(Some(irq.clone()));
        (Function::new(Window::endpoint(self.chip.clone(), endpoint), memory.clone()), memory, irq)
    }

    /// Hardware function id, and vport number, of the SF with this index.
    pub fn sf_id(&self, card: usize, index: u16) -> u16 {
        self.card_at(card).config.sf_base + index
    }

    /// Where the slice with this index is in its life.
    pub fn states(&self, slice: u32) -> (State, OpState) {
        let s = self.nic.slice(slice).expect("a slice");
        (s.state, s.opstate)
    }

    /// What the packet path knows of an initialised function, to look at.
    pub fn plane(&self, card: usize, id: u16) -> Option<Arc<FunctionPlane>> {
        self.card_at(card).fabric.vports.pin().get(&id).and_then(|v| v.function.load_full())
    }

    /// How many objects a function has, by kind.
    pub fn objects(&self, card: usize, id: u16) -> BTreeMap<String, usize> {
        let mut all = self.nic.object_counts().remove(&format!("pf{card}/{id:#x}")).unwrap_or_default();
        all.retain(|_, n| *n > 0);
        all
    }

    /// Does all that send queues have to do. Returns how many bursts it took;
    /// panics where there is no end to it.
    pub fn run(&self) -> usize {
        let mut bursts = 0;
        let look = || self.nic.look_at_doorbells(&mut self.watch.lock(), 0, 1);
        while look() | self.nic.run(0) {
            bursts += 1;
            assert!(bursts < 1_000_000, "the work does not end");
        }
        bursts
    }

    /// Function level reset of a card.
    pub fn reset(&self, card: usize) {
        self.nic.reset(self.card_at(card));
    }

    /// Takes a card's guest memory away, as after an unmap.
    pub fn unmap(&self, card: usize) {
        self.card_at(card).dma.replace(Arc::new(Memory::new()));
    }

    /// Gives it back.
    pub fn map(&self, card: usize) {
        self.card_at(card).dma.replace(self.memory[card].map());
    }
}

impl Drop for Rig {
    /// Power off: functions and the eswitch refer to one another until then.
    fn drop(&mut self) {
        for card in &self.nic.cards {
            self.nic.reset(card);
        }
    }
}
