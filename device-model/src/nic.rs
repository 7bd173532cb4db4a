//! The device: its cards and what they are made of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use sfnic_firmware_cmds::layouts::{CmdHcaCap, ESwitchCap};
use sfnic_firmware_cmds::profile::Profile;

use crate::capture::Capture;
use crate::cmd::regs::LinkModes;
use crate::control::caps::Caps;
use crate::control::function::{CommandStats, Function, FunctionKind};
use crate::control::iseg::Iseg;
use crate::control::objects::Objects;
use crate::control::sf::SfSlot;
use crate::control::vport::{Admin, VportControl, guid};
use crate::control::{After, Control, PF};
use crate::dma::Dma;
use crate::events::Events;
use crate::explain::Explainer;
use crate::fabric::Fabric;
use crate::fabric::flows::Flows;
use crate::fabric::plane::FunctionPlane;
use crate::fabric::port::{Far, Port};
use crate::fabric::tir::Tir;
use crate::fabric::vport::UPLINK;
use crate::faults::{Faults, Place};
use crate::irq::IrqLine;
use crate::later::Later;
use crate::listen::Commands;
use crate::pci::{Config, MSIX_MAX};
use crate::slice::Slices;
use crate::snapshot::{Gate, Shifted};
use crate::steering::{Counters, Limits, Steering};
use crate::trace::{Noise, Recorder, Trace};
use crate::unmodelled::Unmodelled;
use crate::work::WorkQueue;
use crate::world::{Clock, Doorbells, Waker};

/// Who manages the eswitch of a card, and with it the sub-functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// The driver of the physical function.
    #[default]
    Host,
    /// The device itself: slices are added from outside, the host sees them
    /// come and go.
    Embedded,
    /// As embedded, but without an eswitch: each slice goes straight to the
    /// physical port.
    None,
}

/// What one physical function is made of.
#[derive(Debug, Clone)]
pub struct CardConfig {
    /// Permanent address of the physical function.
    pub mac: [u8; 6],
    /// MSI-X vectors, shared by the physical function and its SFs (1–256).
    pub vectors: u16,
    /// Most sub-functions (a power of two up to 256; 0 for none).
    pub max_sfs: u16,
    /// log2 of the bytes of an SF's window in BAR 2 (14–24).
    pub log_sf_window: u32,
    /// Function id and vport number of the first SF.
    pub sf_base: u16,
    /// What the physical port is connected to.
    pub far: Far,
    /// Who manages the eswitch.
    pub manager: Manager,
    /// The UAR pages, where they are plain memory that workers look at; else each write to
    /// one comes by [`Nic::bar_write`].
    pub doorbells: Option<Arc<dyn Doorbells>>,
    /// The fastest that the port's link can be, in Gb/s: 10, 25, 40, 50 or 100. It is what
    /// drivers are told; [`Nic::impair`] makes a wire slow.
    pub speed: u32,
    /// Most slices that are devices of other guests, where the host does not manage the
    /// eswitch; where it does they are SFs of its own, by their numbers.
    pub max_guest_slices: u16,
}

impl Default for CardConfig {
    fn default() -> Self {
        Self {
            mac: [0x52, 0x54, 0x00, 0x5f, 0x00, 0x00],
            vectors: 64,
            max_sfs: 64,
            log_sf_window: 18,
            sf_base: 0x8000,
            far: Far::None,
            manager: Manager::Host,
            doorbells: None,
            speed: 100,
            max_guest_slices: 32,
        }
    }
}

/// A device: one card (physical function, port and eswitch) or several.
pub struct Nic {
    /// What it is modelled on.
    pub profile: Profile,
    /// What a new SF can do.
    pub(crate) sf_caps: Caps,
    /// Its cards, by number of the physical function.
    pub cards: Vec<Card>,
    /// What drivers wanted and the model does not have.
    pub unmodelled: Unmodelled,
    /// Frames that are explained.
    pub explainer: Explainer,
    /// Frames that somebody wants to see.
    pub capture: Capture,
    /// What it does wrong on purpose.
    pub faults: Arc<Faults>,
    /// What it has to do at a later time.
    pub later: Arc<Later>,
    /// What happens to it.
    pub events: Arc<Events>,
    /// Commands, while somebody listens to them.
    pub commands: Arc<Commands>,
    /// Send queues that have work.
    pub work: WorkQueue,
    /// What workers know of flows.
    pub flows: Flows,
    /// Flow counters of all functions.
    pub counters: Arc<Counters>,
    /// Slices that somebody added from outside.
    pub slices: Slices,
    /// Rate of the internal timer in kHz.
    pub timer_khz: u32,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who records what happens.
    pub trace: Trace,
    /// What fills bits that mean nothing.
    pub noise: Noise,
    /// Keeps everybody out while the device is saved or loaded.
    pub(crate) gate: Gate,
    pub(crate) shift: Arc<Shifted>,
}

/// One physical function with its sub-functions, port and eswitch.
pub struct Card {
    /// Number of the physical function.
    pub index: usize,
    /// What it was made of.
    pub config: CardConfig,
    /// Everything that commands change; see [`Control`] for the lock order.
    pub control: Mutex<Control>,
    /// PCI configuration space.
    pub pci: Mutex<Config>,
    /// IOVA space of the physical function and its SFs.
    pub dma: Arc<Dma>,
    /// Interrupts of the physical function.
    pub irq: Arc<IrqLine>,
    /// The physical port.
    pub port: Arc<Port>,
    /// The packet path's side of the eswitch.
    pub fabric: Arc<Fabric>,
    /// GUID that all ports of one switch share.
    pub system_guid: u64,
}

impl std::fmt::Debug for Nic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Nic({}, {} cards)", self.profile.name, self.cards.len())
    }
}

impl Nic {
    /// Whether somebody wants to see, or to spoil, what happens to single frames: then
    /// every decision is made for every frame.
    pub(crate) fn is_watched(&self) -> bool {
        self.explainer.is_on() || self.capture.is_on() || self.faults.at(Place::Frames)
    }

    /// Builds a device.
    pub fn new(profile: Profile, cards: Vec<CardConfig>, clock: Arc<dyn Clock>, waker: Arc<dyn Waker>) -> Arc<Self> {
        let shift = Shifted::new(clock);
        let clock: Arc<dyn Clock> = shift.clone();
        let events = Arc::new(Events::new(clock.clone()));
        let later = Arc::new(Later::default());
        let faults = Arc::new(Faults::new(events.clone(), clock.clone(), later.clone()));
        let flows = Flows::default();
        let card = |(i, c)| Card::new(i, c, &profile, &flows, &faults);
        let cards = cards.into_iter().enumerate().map(card).collect();
        let sf_caps = Caps::new(&profile.sf);
        let timer_khz = Caps::new(&profile.pf).general(CmdHcaCap::device_frequency_khz);
        Arc::new(Self {
            timer_khz,
            sf_caps,
            profile,
            cards,
            unmodelled: Unmodelled::default(),
            explainer: Explainer::default(),
            capture: Capture::default(),
            faults,
            later,
            events,
            commands: Arc::default(),
            work: WorkQueue::new(waker),
            flows,
            counters: Arc::default(),
            slices: Slices::default(),
            clock,
            trace: Trace::default(),
            noise: Noise::default(),
            gate: Gate::default(),
            shift,
        })
    }

    /// Records what happens from here on; once, before the first driver.
    pub fn record(&self, recorder: Arc<dyn Recorder>) {
        self.trace.start(recorder, self.clock.clone());
    }

    /// Executes one command as its function's command queue would, without
    /// one: `input` as the driver sends it, the answer has `out_len` bytes.
    pub fn command(&self, card: &Card, function: u16, input: &[u8], out_len: usize) -> Vec<u8> {
        let _still = self.gate.enter();
        let mut out = vec![0; out_len];
        let mut ctl = card.control.lock();
        let answer = crate::cmd::execute(self, card, &mut ctl, function, input, &mut out);
        if let Some(f) = ctl.functions.get_mut(&function) {
            f.stats.executed += 1;
            f.stats.refused += u64::from(answer.is_err());
        }
        let after = std::mem::take(&mut ctl.after);
        drop(ctl);
        self.finish(&after);
        out
    }

    /// The internal timer now: what time stamps of completions count.
    pub fn ticks(&self) -> u64 {
        (u128::from(self.clock.now_ns()) * u128::from(self.timer_khz) / 1_000_000) as u64
    }

    /// Whether a port's far end shows a signal.
    fn carrier_of(&self, card: &Card) -> bool {
        let carrier = match &card.port.far {
            Far::None => false,
            Far::Loopback => card.port.admin_up.load(Relaxed),
            Far::Port(other) => self.cards.get(*other).is_some_and(|c| c.port.admin_up.load(Relaxed)),
            Far::Outside(wire) => wire.carrier(),
        };
        let gone = match &card.port.far {
            Far::Port(other) => self.faults.link_down(*other),
            _ => false,
        };
        carrier && !gone && !self.faults.link_down(card.index)
    }

    /// As [`Self::update_links`], where a carrier is another one than is known.
    pub(crate) fn update_changed_links(&self) {
        if self.cards.iter().any(|card| card.port.carrier.load(Relaxed) != self.carrier_of(card)) {
            self.update_links();
        }
    }

    /// Works out the carrier of every port, and tells whoever it changes for.
    /// Takes one card's lock at a time.
    pub fn update_links(&self) {
        for card in &self.cards {
            let carrier = self.carrier_of(card);
            let was = card.port.carrier.swap(carrier, Relaxed);
            if was && !carrier {
                card.port.link_down_events.add(1);
            }
        }
        self.flows.changed();
        for card in &self.cards {
            let mut ctl = card.control.lock();
            let numbers: Vec<u16> = ctl.vports.keys().copied().collect();
            for n in numbers {
                self.refresh_vport_link(card, &mut ctl, n);
            }
        }
    }

    /// Does what commands left to do once their lock is released.
    pub(crate) fn finish(&self, after: &[After]) {
        if after.contains(&After::PortChanged) {
            self.update_links();
        }
    }

    /// How many objects of each kind each function has, for inspection.
    pub fn object_counts(&self) -> BTreeMap<String, BTreeMap<String, usize>> {
        let mut all = BTreeMap::new();
        for card in &self.cards {
            let ctl = card.control.lock();
            for f in ctl.functions.values() {
                let counts = f.objects.counts().into_iter().map(|(k, n)| (format!("{k:?}"), n));
                let mut counts: BTreeMap<String, usize> = counts.collect();
                counts.extend(f.steering.counts());
                all.insert(format!("pf{}/{:#x}", card.index, f.id), counts);
            }
        }
        all
    }
}

impl Function {
    /// A function before its driver.
    pub fn new(
        id: u16,
        kind: FunctionKind,
        vhca_id: u16,
        caps: Caps,
        plane: Arc<FunctionPlane>,
        irq: Arc<IrqLine>,
        steering: Steering<Tir>,
    ) -> Self {
        Self {
            id,
            kind,
            vhca_id,
            caps,
            iseg: Iseg::default(),
            enabled: false,
            initialised: false,
            issi: 0,
            objects: Objects::default(),
            steering,
            plane,
            irq,
            command_eq: None,
            driver_version: String::new(),
            node_desc: None,
            stats: CommandStats::default(),
        }
    }
}

impl Card {
    fn new(index: usize, config: CardConfig, profile: &Profile, flows: &Flows, faults: &Arc<Faults>) -> Self {
        let port = Arc::new(Port::new(config.far.clone()));
        let dma = Arc::new(Dma::default());
        let pf_vport = VportControl::new(PF, config.mac, DEFAULT_MTU, Admin::Auto);
        let uplink = VportControl::new(UPLINK, [0; 6], DEFAULT_MTU, Admin::Auto);
        let steering = Steering::with(Limits::default(), flows.changes.clone());
        let fabric = Arc::new(Fabric::new(index, port.clone(), steering.reader()));
        let mut card = Self {
            index,
            system_guid: guid(config.mac),
            control: Mutex::new(Control {
                pf: index,
                events: faults.events().clone(),
                faults: faults.clone(),
                ledger: Default::default(),
                functions: BTreeMap::new(),
                sfs: vec![SfSlot::default(); usize::from(config.max_sfs) + config.room_for_guests()],
                declared: BTreeMap::new(),
                sf_base: config.sf_base,
                vports: BTreeMap::new(),
                l2_table: Default::default(),
                port_regs: Default::default(),
                after: vec![],
            }),
            pci: Mutex::new(Config::new(profile, config.vectors, guid(config.mac), BAR0_SIZE, config.bar2_size())),
            dma,
            irq: Arc::new(IrqLine::new(index, config.vectors, faults.clone())),
            port,
            fabric,
            config,
        };
        let vhca_id = card.vhca_id(None);
        let caps = card.pf_caps(profile);
        let plane = FunctionPlane::new(PF, vhca_id, pf_vport.plane.clone(), card.dma.clone(), steering.reader());
        for v in [&pf_vport, &uplink] {
            card.fabric.vports.pin().insert(v.plane.number, v.plane.clone());
        }
        let ctl = card.control.get_mut();
        ctl.functions.insert(PF, Function::new(PF, FunctionKind::Pf, vhca_id, caps, plane, card.irq.clone(), steering));
        ctl.vports.insert(PF, pf_vport);
        ctl.vports.insert(UPLINK, uplink);
        card
    }

    /// Number of the PF (`None`) or of an SF by index, unique in the device.
    pub const fn vhca_id(&self, sf_index: Option<u16>) -> u16 {
        let base = (self.index as u16) << 10;
        match sf_index {
            None => base,
            Some(i) => base + 1 + i,
        }
    }

    /// Capabilities of the physical function: the profile's and what this
    /// card's configuration decides.
    pub(crate) fn pf_caps(&self, profile: &Profile) -> Caps {
        let mut c = Caps::new(&profile.pf);
        let n = u32::from(self.config.max_sfs);
        c.fix(CmdHcaCap::vhca_id, self.vhca_id(None).into());
        c.fix(CmdHcaCap::sf, (n > 0).into());
        c.fix(CmdHcaCap::max_num_sf, n);
        c.fix(CmdHcaCap::log_max_sf, n.next_power_of_two().ilog2());
        c.fix(CmdHcaCap::log_min_sf_size, self.config.log_sf_window.saturating_sub(12));
        c.fix(CmdHcaCap::sf_base_id, self.config.sf_base.into());
        c.fix_in(0x09, ESwitchCap::log_max_esw_sf, n.next_power_of_two().ilog2());
        c.fix_in(0x09, ESwitchCap::esw_sf_base_id, self.config.sf_base.into());
        if self.config.manager != Manager::Host {
            for f in [CmdHcaCap::eswitch_manager, CmdHcaCap::vport_group_manager, CmdHcaCap::vhca_resource_manager] {
                c.fix(f, 0);
            }
            for group in [0x08, 0x09] {
                c.remove(group);
            }
        }
        c
    }
}

/// MTU of a vport before anybody sets it, in bytes.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// Bytes of BAR 0: the physical function's own window.
pub const BAR0_SIZE: u64 = 1 << 22;

impl CardConfig {
    /// Bytes of BAR 2: a window for each SF.
    pub fn bar2_size(&self) -> u64 {
        match u64::from(self.max_sfs) {
            0 => 0,
            n => n.next_power_of_two() << self.log_sf_window,
        }
    }

    /// Slots for slices that the physical function's own host never hears of.
    pub(crate) fn room_for_guests(&self) -> usize {
        if self.manager == Manager::Host { 0 } else { self.max_guest_slices.into() }
    }

    /// Why this cannot be built, in words for the user.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MSIX_MAX).contains(&self.vectors) {
            return Err(format!("vectors = {} (allowed: 1 to {MSIX_MAX})", self.vectors));
        }
        if self.max_sfs > 256 {
            return Err(format!("max_sfs = {} (allowed: 0 to 256)", self.max_sfs));
        }
        if self.max_guest_slices > 256 {
            return Err(format!("max_guest_slices = {} (allowed: 0 to 256)", self.max_guest_slices));
        }
        if !(14..=24).contains(&self.log_sf_window) {
            return Err(format!("log_sf_window = {} (allowed: 14 to 24)", self.log_sf_window));
        }
        if self.sf_base < 0x100 || self.sf_base > 0xf000 {
            return Err(format!("sf_base = {:#x} (allowed: 0x100 to 0xf000)", self.sf_base));
        }
        if LinkModes::up_to(self.speed).is_empty() {
            return Err(format!("speed = {} (allowed: 10, 25, 40, 50 or 100)", self.speed));
        }
        if self.mac == [0; 6] || self.mac[0] & 1 != 0 {
            return Err("mac must be a unicast address".to_owned());
        }
        Ok(())
    }
}
