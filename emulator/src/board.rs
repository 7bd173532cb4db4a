//! The board that the chip sits on: sockets, guest memory, interrupts, worker
//! threads, wires, a clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::{Condvar, Mutex};
use sfnic_device_model::capture::Way;
use sfnic_device_model::fabric::impair::Impairment;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::faults::Fault;
use sfnic_device_model::nic::{BAR0_SIZE, Card, CardConfig, Manager, Nic};
use sfnic_device_model::pci::Effect;
use sfnic_device_model::poll::Watch;
use sfnic_device_model::world::{Clock, Doorbells, Interrupts, Waker};
use sfnic_firmware_cmds::profile::Profile;

use crate::capture::Captures;
use crate::config::{SliceConfig, SwitchConfig};
use crate::handover::{Giver, Taken};
use crate::offers::Offers;
use crate::snapshot;
use crate::uar::UarFile;
use crate::vfio_user::{BarMapping, DmaMap, MmapArea, PciDevice, Server, StopHandle, Taken as TakenClient};
use crate::wire::datagram::Ends;
use crate::wire::movers::{Mover, movers, open};
use crate::wire::pcap::Replay;
use crate::wire::switch::Switch;
use crate::wire::vhost::Meeting;
use crate::wire::{Interface, Link, PortInlet, Wire, WirePort};

/// What a physical port is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireKind {
    /// The other port of a two-port device.
    Cable,
    /// Itself.
    Loopback,
    /// A TAP interface of the host.
    Tap(Interface),
    /// A virtio network device, or whoever else has the front end's part of vhost-user.
    Vhost(Meeting),
    /// A datagram socket, one frame a datagram.
    Datagram(Ends),
    /// A stream socket, frames behind their lengths.
    Stream(Meeting),
    /// A capture file as a link partner.
    Replay(Replay),
    /// A switch of the configuration, by name.
    Switch(String),
    /// Nothing.
    None,
}

impl WireKind {
    /// Whether two wires cannot be at once: they would be at the same place outside.
    pub fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cable | Self::Loopback | Self::Switch(_) | Self::None, _) => false,
            (Self::Tap(a), Self::Tap(b)) => a.name == b.name,
            (a, b) => a == b,
        }
    }
}

/// How a driver's doorbells come to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DoorbellMode {
    /// Each is a message of QEMU's.
    #[default]
    Trap,
    /// Drivers write to memory that workers look at, also while nothing happens.
    Poll,
}

/// What a device begins with.
#[derive(Debug, Clone, Default)]
pub enum Begin {
    /// Nothing: as after power-on.
    #[default]
    PowerOn,
    /// The state in a file.
    Snapshot(PathBuf),
    /// What another process had, its clients included.
    Taken(Arc<Taken>),
}

/// Numbers of threads that move frames are below this: those have a cache of flows.
const MOST_WORKERS: usize = 16;

/// What a board is made of.
#[derive(Debug, Clone)]
pub struct BoardConfig {
    /// The card to model.
    pub profile: Profile,
    /// One entry a physical function.
    pub cards: Vec<CardConfig>,
    /// What each physical function's port is connected to.
    pub wires: Vec<WireKind>,
    /// What each of them does to frames that come in, and to those that go out.
    pub impair: Vec<[Impairment; 2]>,
    /// The switches that are named there.
    pub switches: Vec<SwitchConfig>,
    /// Worker threads; with none the endpoint threads do the work.
    pub workers: usize,
    /// How doorbells come.
    pub doorbells: DoorbellMode,
    /// Fills what means nothing with noise from this seed.
    pub noise: Option<u64>,
    /// What it does wrong on purpose, from the beginning.
    pub faults: Vec<Fault>,
    /// Slices that are there as soon as it is served.
    pub slices: Vec<SliceConfig>,
    /// The state that it begins in; the slices above are for one after power-on.
    pub begin: Begin,
}

impl BoardConfig {
    /// A device without cards, of this profile, with one worker.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            cards: vec![],
            wires: vec![],
            impair: vec![],
            switches: vec![],
            workers: 1,
            doorbells: DoorbellMode::default(),
            noise: None,
            faults: vec![],
            slices: vec![],
            begin: Begin::PowerOn,
        }
    }
}

/// A running device.
pub struct Board {
    /// The chip.
    pub nic: Arc<Nic>,
    /// Frames that are written to files.
    pub captures: Arc<Captures>,
    /// The wires that leave the device, with the ports that they are at.
    pub wires: Vec<(usize, Arc<Link>)>,
    uars: Vec<Option<Arc<UarFile>>>,
    /// Switches that its ports are at.
    pub switches: Vec<Arc<Switch>>,
    bell: Arc<Bell>,
    due: Arc<Bell>,
    stop: StopHandle,
    pub(crate) offers: Arc<Offers>,
    slices: Vec<SliceConfig>,
    begin: Begin,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// What can be handed over to another process.
    pub giver: Arc<Giver>,
    inline: bool,
}

/// Monotonic time since the board was made.
struct SinceStart(Instant);

impl Clock for SinceStart {
    fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Wakes workers.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    wait: Condvar,
    silent: AtomicBool,
    done: AtomicBool,
}

impl Waker for Bell {
    fn wake(&self) {
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        let mut rung = self.rung.lock();
        if !*rung {
            *rung = true;
            self.wait.notify_one();
        }
    }
}

impl Bell {
    fn wait(&self) {
        let mut rung = self.rung.lock();
        while !*rung && !self.done.load(Ordering::Relaxed) {
            self.wait.wait(&mut rung);
        }
        *rung = false;
    }

    fn wait_at_most(&self, time: Duration) {
        let mut rung = self.rung.lock();
        if !*rung && !self.done.load(Ordering::Relaxed) {
            self.wait.wait_for(&mut rung, time);
        }
        *rung = false;
    }

    fn finish(&self) {
        let _rung = self.rung.lock();
        self.done.store(true, Ordering::Relaxed);
        self.wait.notify_all();
    }
}

impl Board {
    /// Builds the device and starts its workers and wires.
    pub fn new(c: BoardConfig) -> anyhow::Result<Self> {
        let bell = Arc::new(Bell::default());
        bell.silent.store(c.workers == 0, Ordering::Relaxed);
        let mut cards = c.cards;
        let mut outside: Vec<(usize, Wire)> = vec![];
        let switches: Vec<Arc<Switch>> = c.switches.iter().map(|s| Switch::new(&s.name, s.ageing)).collect();
        let count = cards.len();
        for (i, (card, wire)) in cards.iter_mut().zip(&c.wires).enumerate() {
            card.far = match wire {
                WireKind::None => Far::None,
                WireKind::Loopback => Far::Loopback,
                WireKind::Cable if count == 2 => Far::Port(1 - i),
                WireKind::Cable => anyhow::bail!("a cable joins two ports; there are {count}"),
                outside_wire => {
                    let wire = open(outside_wire, i, &switches).with_context(|| format!("port {i}"))?;
                    let port = WirePort::new(wire.outlet.clone(), wire.link.clone());
                    outside.push((i, wire));
                    Far::Outside(Arc::new(port))
                }
            };
        }
        let polls = c.doorbells == DoorbellMode::Poll;
        anyhow::ensure!(!polls || c.workers > 0, "doorbells that are polled need a worker that polls them");
        let mut uars = vec![];
        for (i, card) in cards.iter_mut().enumerate() {
            let uar = match &c.begin {
                Begin::Taken(taken) => taken.uar(i, card)?.map(Arc::new),
                _ if polls => Some(Arc::new(UarFile::new(card)?)),
                _ => None,
            };
            card.doorbells = uar.clone().map(|uar| uar as Arc<dyn Doorbells>);
            uars.push(uar);
        }
        let nic = Nic::new(c.profile, cards, Arc::new(SinceStart(Instant::now())), bell.clone());
        nic.flows.changes.provide();
        if let Some(seed) = c.noise {
            nic.noise.start(seed);
        }
        for (card, [inward, outward]) in nic.cards.iter().zip(&c.impair) {
            nic.impair(card, Way::In, *inward);
            nic.impair(card, Way::Out, *outward);
        }
        nic.update_links();
        for fault in c.faults {
            let text = fault.to_string();
            nic.fault_add(fault).map_err(anyhow::Error::msg).context(text)?;
        }
        let stop = StopHandle::new().context("cannot create the stop handle")?;
        let wires = outside.iter().map(|(i, wire)| (*i, wire.link.clone())).collect();
        let mut further = vec![];
        for (switch, config) in switches.iter().zip(&c.switches) {
            for kind in &config.wires {
                let mut wire = open(kind, 0, &[]).with_context(|| format!("switch {}", config.name))?;
                let (inlet, parts) = (switch.wire_port(&wire), wire.driver.further());
                further.push((inlet.clone(), wire.driver));
                further.extend(parts.into_iter().map(|part| (inlet.clone(), part)));
            }
        }
        let movers = movers(outside, c.workers + 1, c.workers + 2 + count);
        let taken = movers.iter().map(|m| m.number + 1).fold(c.workers + 2 + count, usize::max);
        if taken > MOST_WORKERS {
            tracing::warn!("{taken} threads move frames: {} of them know no flows", taken - MOST_WORKERS);
        }
        let captures = Arc::new(Captures::new(&nic));
        let threads: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let giver = Arc::new(Giver {
            nic: nic.clone(),
            stop: stop.clone(),
            threads: threads.clone(),
            uars: uars.clone(),
            captures: captures.clone(),
            sockets: Mutex::default(),
            busy: Mutex::default(),
        });
        let board = Self {
            nic,
            captures,
            wires,
            uars,
            switches,
            bell,
            due: Arc::default(),
            stop,
            offers: Offers::new(c.workers == 0, taken..MOST_WORKERS),
            slices: c.slices,
            begin: c.begin,
            threads,
            giver,
            inline: c.workers == 0,
        };
        board.nic.later.wake(if polls { board.bell.clone() } else { board.due.clone() });
        if !polls {
            let (nic, due, number, inline) =
                (board.nic.clone(), board.due.clone(), c.workers + 1 + count, board.inline);
            board.spawn("later".to_owned(), move || keep_time(&nic, &due, number, inline))?;
        }
        for n in 0..c.workers {
            let (nic, bell) = (board.nic.clone(), board.bell.clone());
            board.spawn(format!("worker-{n}"), move || match c.doorbells {
                DoorbellMode::Trap => work(&nic, &bell, n),
                DoorbellMode::Poll => poll(&nic, &bell, n, c.workers),
            })?;
        }
        for Mover { name, port, number, driver } in movers {
            let mut inlet = PortInlet::new(board.nic.clone(), port, number);
            let (nic, bell) = (board.nic.clone(), board.bell.clone());
            board.spawn(name, move || {
                driver.run(&mut inlet, &|| {
                    // Asked again and again, also while no frame comes.
                    nic.flows.idle(number);
                    bell.done.load(Ordering::Relaxed)
                });
            })?;
        }
        for (n, (mut inlet, driver)) in further.into_iter().enumerate() {
            let bell = board.bell.clone();
            board
                .spawn(format!("switch-{n}"), move || driver.run(&mut inlet, &|| bell.done.load(Ordering::Relaxed)))?;
        }
        Ok(board)
    }

    fn spawn(&self, name: String, f: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        let t = std::thread::Builder::new().name(name).spawn(f).context("cannot start a thread")?;
        self.threads.lock().push(t);
        Ok(())
    }

    /// Offers each physical function on a socket, `sockets[i]` for function
    /// `i`, and slices on theirs, beside the first one unless they say where;
    /// returns at once.
    pub fn serve(&self, sockets: &[PathBuf]) -> anyhow::Result<()> {
        let paths = sockets.iter().take(self.nic.cards.len());
        let servers = paths.map(Server::bind).collect::<Result<Vec<_>, _>>()?;
        let dir = sockets.first().and_then(|p| p.parent()).unwrap_or(Path::new("."));
        self.offers.of(&self.nic, dir);
        // Nobody is answered before.
        let mut clients: Vec<Option<TakenClient>> = servers.iter().map(|_| None).collect();
        match &self.begin {
            Begin::Snapshot(file) => {
                let failed = || format!("snapshot {}", file.display());
                snapshot::load(&self.nic, file).with_context(failed)?;
            }
            Begin::Taken(taken) => {
                // Memory and interrupts first: what queues have to do they do at once.
                for (i, client) in clients.iter_mut().enumerate() {
                    *client = taken.client(i, self.endpoint(i)).with_context(|| format!("pf {i}"))?;
                }
                self.nic.load(&taken.snapshot)?;
            }
            Begin::PowerOn => {
                for slice in &self.slices {
                    self.add(slice).with_context(|| format!("slice {}", slice.index))?;
                }
            }
        }
        *self.giver.sockets.lock() = sockets.to_vec();
        for (i, (server, client)) in servers.into_iter().zip(clients).enumerate() {
            let endpoint = self.endpoint(i);
            let stop = self.stop.clone();
            self.spawn(format!("pf{i}"), move || {
                if let Err(e) = server.serve_on(endpoint, &stop, client) {
                    tracing::error!("pf{i}: {e}");
                }
            })?;
        }
        Ok(())
    }

    /// A physical function, as a server drives it.
    fn endpoint(&self, card: usize) -> Arc<Endpoint> {
        let uars = self.uars.get(card).cloned().flatten();
        Arc::new(Endpoint { nic: self.nic.clone(), card, inline: self.inline, worker: card, uars })
    }

    /// A slice that is there from the beginning.
    fn add(&self, slice: &SliceConfig) -> anyhow::Result<()> {
        let spec = slice.spec();
        let host = self.nic.cards.get(slice.pf).is_some_and(|c| c.config.manager == Manager::Host);
        if host && slice.flavour.is_of_a_guest() {
            self.nic.slice_declare(&spec, slice.active, slice.hw_addr)?;
        } else {
            let index = self.nic.slice_add(&spec)?;
            self.nic.slice_set(index, &slice.change())?;
        }
        Ok(())
    }

    /// The links to the machines of virtio slices, by index of the slice.
    pub fn slice_links(&self) -> Vec<(u32, Arc<Link>)> {
        self.offers.links()
    }

    /// Stops every thread; clients are disconnected.
    pub fn stop(self) {
        self.halt();
    }

    /// As [`Self::stop`]; what was counted can still be read.
    pub fn halt(&self) {
        self.stop.stop();
        self.offers.withdraw_all();
        self.bell.finish();
        self.due.finish();
        for t in std::mem::take(&mut *self.threads.lock()) {
            let _ = t.join();
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.halt();
    }
}

fn work(nic: &Nic, bell: &Bell, number: usize) {
    while !bell.done.load(Ordering::Relaxed) {
        bell.wait();
        run_all(nic, bell, number, || ());
    }
}

/// Does what there is to do, and something else in between; whether there was anything.
fn run_all(nic: &Nic, bell: &Bell, number: usize, between: impl Fn()) -> bool {
    let mut any = false;
    while nic.run(number) {
        any = true;
        between();
        // More workers than one: let another one help while work is left.
        if !nic.work.is_empty() {
            bell.wait.notify_one();
        }
    }
    any
}

/// The shortest and the longest time between two looks at doorbells that nobody is told of.
/// Guests are slowed down by more looks, each of which takes a CPU from somebody.
const LOOKS: (Duration, Duration) = (Duration::from_micros(70), Duration::from_micros(500));

/// As [`work`], looking at doorbells that nobody is told of, and at the clock for what is due:
/// the longer nothing came, the less often.
fn poll(nic: &Nic, bell: &Bell, number: usize, workers: usize) {
    let (least, most) = LOOKS;
    let nanos = |time: Duration| time.as_nanos() as u64;
    let due_by = |time| nic.run_due_until(number, nic.clock.now_ns() + nanos(time));
    let due = || {
        due_by(Duration::ZERO);
    };
    let mut watch = Watch::default();
    let mut last = Instant::now();
    while !bell.done.load(Ordering::Relaxed) {
        let rung = nic.look_at_doorbells(&mut watch, number, workers);
        if rung | run_all(nic, bell, number, due) {
            due();
            last = Instant::now();
            continue;
        }
        let rest = (last.elapsed() / 16).clamp(least, most);
        let next = due_by(rest).map(|at| Duration::from_nanos(at.saturating_sub(nic.clock.now_ns())));
        bell.wait_at_most(next.map_or(rest, |next| next.min(rest)));
    }
}

/// Does what the device has to do at a later time, where no worker looks at the clock.
fn keep_time(nic: &Nic, due: &Bell, worker: usize, inline: bool) {
    while !due.done.load(Ordering::Relaxed) {
        let next = nic.run_due(worker);
        // Without workers nobody else looks at queues that may go on.
        while inline && nic.run(worker) {}
        match next {
            None => due.wait(),
            Some(at) => due.wait_at_most(Duration::from_nanos(at.saturating_sub(nic.clock.now_ns()))),
        }
    }
}

/// A physical function on its socket.
struct Endpoint {
    nic: Arc<Nic>,
    card: usize,
    inline: bool,
    worker: usize,
    /// UAR pages that the guest maps.
    uars: Option<Arc<UarFile>>,
}

impl Endpoint {
    fn card(&self) -> &Card {
        &self.nic.cards[self.card]
    }
}

impl PciDevice for Endpoint {
    fn config_read(&self, offset: u32, data: &mut [u8]) {
        if self.nic.faults.is_gone(self.card) {
            return data.fill(0xff);
        }
        self.card().pci.lock().read(offset as usize, data);
    }

    fn config_write(&self, offset: u32, data: &[u8]) {
        if self.nic.faults.is_gone(self.card) {
            return;
        }
        let effect = self.card().pci.lock().write(offset as usize, data);
        if effect == Effect::FunctionReset {
            tracing::info!("pf{}: function level reset", self.card);
            self.nic.reset(self.card());
        }
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.nic.bar_read(self.card(), bar, offset, data);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        self.nic.bar_write(self.card(), bar, offset, data);
    }

    fn bar_size(&self, bar: u8) -> u64 {
        match bar {
            0 => BAR0_SIZE,
            2 => self.card().config.bar2_size(),
            _ => 0,
        }
    }

    fn bar_mapping(&self, bar: u8) -> Option<BarMapping> {
        let (fd, offset) = self.uars.as_ref()?.bar(bar)?;
        let areas = self.card().uar_areas(bar).into_iter().map(|(offset, size)| MmapArea { offset, size });
        let areas: Vec<MmapArea> = areas.collect();
        // None would mean all of the BAR.
        (!areas.is_empty()).then_some(BarMapping { fd, offset, areas })
    }

    fn msix_vectors(&self) -> u16 {
        self.card().config.vectors
    }

    fn reset(&self) {
        self.nic.reset(self.card());
    }

    fn dma_changed(&self, map: Arc<DmaMap>) {
        self.card().dma.replace(Arc::new(map.memory().clone()));
    }

    fn attached(&self, irq: Arc<dyn Interrupts>) {
        self.card().irq.connect(Some(irq));
    }

    fn detached(&self) {
        self.nic.reset(self.card());
        self.card().irq.connect(None);
    }

    fn idle(&self) {
        if self.inline {
            while self.nic.run(self.worker) {}
        }
    }
}
