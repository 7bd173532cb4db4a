//! The device: its cards, what they are made of, and the life cycle of their
//! functions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::{CmdHcaCap, ESwitchCap};
use sfnic_firmware_cmds::profile::Profile;

use crate::capture::Capture;
use crate::control::caps::Caps;
use crate::control::function::{CommandStats, Function, FunctionKind};
use crate::control::iseg::Iseg;
use crate::control::objects::Objects;
use crate::control::sf::{SfSlot, event_data};
use crate::control::vhca::{Cause, Observer, State};
use crate::control::vport::{Admin, VportControl, guid};
use crate::control::{After, Control, PF};
use crate::dma::Dma;
use crate::events::{Events, Happening};
use crate::explain::Explainer;
use crate::fabric::Fabric;
use crate::fabric::flows::Flows;
use crate::fabric::plane::FunctionPlane;
use crate::fabric::port::{Far, Port};
use crate::fabric::tir::Tir;
use crate::fabric::vport::UPLINK;
use crate::faults::Faults;
use crate::irq::IrqLine;
use crate::later::Later;
use crate::listen::Commands;
use crate::pci::{Config, MSIX_MAX};
use crate::slice::Slices;
use crate::steering::{Counters, Limits, Steering};
use crate::trace::{Noise, Record, Recorder, Trace};
use crate::unmodelled::Unmodelled;
use crate::work::WorkQueue;
use crate::world::{Clock, Waker};

/// Who manages the eswitch of a card, and with it the sub-functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
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
    pub later: Later,
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
    /// Builds a device.
    pub fn new(profile: Profile, cards: Vec<CardConfig>, clock: Arc<dyn Clock>, waker: Arc<dyn Waker>) -> Arc<Self> {
        let events = Arc::new(Events::new(clock.clone()));
        let faults = Arc::new(Faults::new(events.clone()));
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
            later: Later::default(),
            events,
            commands: Arc::default(),
            work: WorkQueue::new(waker),
            flows,
            counters: Arc::default(),
            slices: Slices::default(),
            clock,
            trace: Trace::default(),
            noise: Noise::default(),
        })
    }

    /// Records what happens from here on; once, before the first driver.
    pub fn record(&self, recorder: Arc<dyn Recorder>) {
        self.trace.start(recorder, self.clock.clone());
    }

    /// Executes one command as its function's command queue would, without
    /// one: `input` as the driver sends it, the answer has `out_len` bytes.
    pub fn command(&self, card: &Card, function: u16, input: &[u8], out_len: usize) -> Vec<u8> {
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

    /// Brings a card to the state after power-on: what DEVICE_RESET and a
    /// function level reset do. Sub-functions go with their physical function.
    pub fn reset(&self, card: &Card) {
        let mut ctl = card.control.lock();
        self.trace.record(card.index, PF, &Record::Reset);
        self.events.push(Happening::Reset { pf: card.index });
        self.reset_locked(card, &mut ctl);
        drop(ctl);
        card.pci.lock().reset();
        self.update_links();
    }

    fn reset_locked(&self, card: &Card, ctl: &mut Control) {
        self.host_gone(card, ctl);
        if let Some(f) = ctl.functions.get_mut(&PF) {
            f.plane.vport.function.store(None);
            f.clear_objects();
            f.enabled = false;
            f.issi = 0;
            f.iseg = Iseg::default();
            f.caps = card.pf_caps(&self.profile);
        }
        for v in ctl.vports.values_mut() {
            v.reg_c_id = 0;
            v.publish_reg_c();
            v.mtu = DEFAULT_MTU;
            v.min_inline = 0;
            v.forget_driver();
        }
        ctl.l2_table.clear();
        card.fabric.tunnels.store(Arc::default());
        ctl.port_regs = Default::default();
        card.port.admin_up.store(false, Relaxed);
        card.port.mtu.store(crate::fabric::port::MAX_FRAME, Relaxed);
        self.flows.changed();
    }

    /// The physical function was reset: SFs of its own go with it, slices that
    /// somebody else manages lose their drivers.
    fn host_gone(&self, card: &Card, ctl: &mut Control) {
        if card.config.manager == Manager::Host {
            return self.free_all_sfs(card, ctl);
        }
        let ids: Vec<u16> = ctl.functions.keys().copied().filter(|id| *id != PF).collect();
        for id in ids {
            if ctl.sf_transition(id, Cause::HostReset).is_ok() {
                self.sf_detached(card, ctl, id);
            }
        }
        for s in &mut ctl.sfs {
            s.observer = Observer::new(s.state);
        }
    }

    fn free_all_sfs(&self, card: &Card, ctl: &mut Control) {
        let ids: Vec<u16> = ctl.functions.keys().copied().filter(|id| *id != PF).collect();
        for id in ids {
            // Every state has this transition; a slot without function has none to make.
            if ctl.sf_transition(id, Cause::PfReset).is_ok() {
                self.sf_freed(card, ctl, id);
            }
        }
        for s in &mut ctl.sfs {
            s.observer = Observer::new(s.state);
        }
    }

    /// A new SF: its function and its vport exist from here on.
    pub(crate) fn sf_allocated(&self, card: &Card, ctl: &mut Control, id: u16) {
        let index = id.wrapping_sub(ctl.sf_base);
        let vport = VportControl::new(id, [0; 6], DEFAULT_MTU, Admin::Auto);
        let vhca_id = card.vhca_id(Some(index));
        let mut caps = self.sf_caps.clone();
        caps.fix(CmdHcaCap::vhca_id, vhca_id.into());
        let steering = Steering::with(Limits::default(), self.flows.changes.clone());
        let plane = FunctionPlane::new(id, vhca_id, vport.plane.clone(), card.dma.clone(), steering.reader());
        card.fabric.vports.pin().insert(id, vport.plane.clone());
        ctl.vports.insert(id, vport);
        ctl.functions.insert(id, Function::new(id, FunctionKind::Sf, vhca_id, caps, plane, steering));
        if let Some(s) = ctl.sf_mut(id) {
            s.sw_function_id = 0;
            s.generation = s.generation.wrapping_add(1);
        }
    }

    /// The manager activated an SF: its window answers from here on.
    pub(crate) fn sf_activated(&self, _: &Card, ctl: &mut Control, id: u16) {
        if let Some(f) = ctl.functions.get_mut(&id) {
            f.iseg = Iseg::default();
        }
    }

    /// No driver is attached any more and none may attach: nothing of it stays.
    pub(crate) fn sf_detached(&self, card: &Card, ctl: &mut Control, id: u16) {
        self.teardown_function(card, ctl, id);
        if let Some(f) = ctl.functions.get_mut(&id) {
            f.enabled = false;
            f.iseg = Iseg::default();
            // What the driver enabled goes; what the manager allowed stays.
            f.caps.driver_left();
        }
        self.refresh_vport_link(card, ctl, id);
    }

    /// An SF is gone: function, vport, objects, tables of its ports.
    pub(crate) fn sf_freed(&self, card: &Card, ctl: &mut Control, id: u16) {
        self.teardown_function(card, ctl, id);
        ctl.functions.remove(&id);
        card.fabric.vports.pin().remove(&id);
        ctl.vports.remove(&id);
        self.flows.changed();
        if let Some(s) = ctl.sf_mut(id) {
            s.sw_function_id = 0;
            s.slice = None;
        }
    }

    /// TEARDOWN_HCA: the function's objects are destroyed.
    pub(crate) fn teardown_function(&self, card: &Card, ctl: &mut Control, id: u16) {
        let Some(f) = ctl.functions.get_mut(&id) else { return };
        f.plane.vport.function.store(None);
        f.clear_objects();
        if id == PF {
            ctl.l2_table.clear();
            card.fabric.tunnels.store(Arc::default());
        }
        if let Some(v) = ctl.vports.get_mut(&id) {
            v.forget_driver();
        }
        self.flows.changed();
    }

    /// The function's own DISABLE_HCA.
    pub(crate) fn disable_function(&self, card: &Card, ctl: &mut Control, id: u16) {
        self.teardown_function(card, ctl, id);
        let Some(f) = ctl.functions.get_mut(&id) else { return };
        f.enabled = false;
        f.issi = 0;
        if id == PF {
            // Without a driver there is no manager: its SFs cannot live on.
            if card.config.manager == Manager::Host {
                self.free_all_sfs(card, ctl);
            }
            if let Some(f) = ctl.functions.get_mut(&PF) {
                f.caps = card.pf_caps(&self.profile);
            }
            card.port.admin_up.store(false, Relaxed);
            ctl.after.push(After::PortChanged);
        } else if let Ok((_, after)) = ctl.sf_transition(id, Cause::Detach) {
            match after {
                State::Allocated => self.sf_detached(card, ctl, id),
                // The next driver finds what the manager configured.
                _ => ctl.functions.get_mut(&id).into_iter().for_each(|f| f.caps.driver_left()),
            }
        }
    }

    /// The manager takes an SF back: nothing of it reaches anybody from here on, also if its
    /// driver does not let go of it.
    pub(crate) fn sf_deactivated(&self, card: &Card, ctl: &mut Control, id: u16, after: State) {
        match after {
            State::Allocated => self.sf_detached(card, ctl, id),
            _ => self.refresh_vport_link(card, ctl, id),
        }
    }

    /// Whether a vport's frames pass may have changed: tells the packet path
    /// and the function behind it.
    pub(crate) fn refresh_vport_link(&self, card: &Card, ctl: &mut Control, number: u16) {
        let port_up = card.port.is_up();
        let closed = ctl.sf(number).is_some_and(|s| s.state == State::TeardownRequest);
        let Some(v) = ctl.vports.get_mut(&number) else { return };
        v.closed = closed;
        let up = v.link(port_up);
        v.plane.link.store(up, Relaxed);
        self.flows.changed();
        if std::mem::replace(&mut v.link_told, up) == up {
            return;
        }
        let port = ctl.port_name(number);
        self.events.push(Happening::Link { pf: card.index, vport: number, port, up });
        if let Some(f) = ctl.functions.get(&number).filter(|f| f.initialised) {
            let mut eqe = [0; 64];
            ViewMut::<Eqe>::new(&mut eqe).set(Eqe::port, 1);
            let sub = if up { event::PORT_ACTIVE } else { event::PORT_DOWN };
            f.notify(event::PORT_CHANGE, sub, &event_data(&eqe));
        }
    }

    /// Works out the carrier of every port, and tells whoever it changes for.
    /// Takes one card's lock at a time.
    pub fn update_links(&self) {
        for card in &self.cards {
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
            let carrier = carrier && !gone && !self.faults.link_down(card.index);
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
                ledger: Default::default(),
                functions: BTreeMap::new(),
                sfs: vec![SfSlot::default(); config.max_sfs.into()],
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
        ctl.functions.insert(PF, Function::new(PF, FunctionKind::Pf, vhca_id, caps, plane, steering));
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
const DEFAULT_MTU: u32 = 1500;

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

    /// Why this cannot be built, in words for the user.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MSIX_MAX).contains(&self.vectors) {
            return Err(format!("vectors = {} (allowed: 1 to {MSIX_MAX})", self.vectors));
        }
        if self.max_sfs > 256 {
            return Err(format!("max_sfs = {} (allowed: 0 to 256)", self.max_sfs));
        }
        if !(14..=24).contains(&self.log_sf_window) {
            return Err(format!("log_sf_window = {} (allowed: 14 to 24)", self.log_sf_window));
        }
        if self.sf_base < 0x100 || self.sf_base > 0xf000 {
            return Err(format!("sf_base = {:#x} (allowed: 0x100 to 0xf000)", self.sf_base));
        }
        if self.mac == [0; 6] || self.mac[0] & 1 != 0 {
            return Err("mac must be a unicast address".to_owned());
        }
        Ok(())
    }
}
