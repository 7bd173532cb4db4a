//! A switch inside the process: ports of the device and further wires as its ports.
//!
//! Frames to a port of the device wait in a queue, a bounded one, until the thread of that
//! port takes them; frames to a further wire go straight to its outlet. Large frames pass
//! whole where the far end takes them, and are cut where it does not.

mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use sfnic_device_model::packet::{Frame, lso};

use super::offload::Offload;
use super::port::prepare;
use super::{Driver, Inlet, Link, Outlet, TICK, Wire};
pub use table::{MOST, StationView, Table, Verdict};

/// How long a station may be silent, unless the configuration says otherwise.
pub const AGEING: Duration = Duration::from_secs(300);
/// Most bytes that wait for a port of the device.
const MAX_WAITING: usize = 4 << 20;

/// A switch.
#[derive(Debug)]
pub struct Switch {
    name: String,
    ageing: Duration,
    started: Instant,
    table: Mutex<Table>,
    ports: ArcSwap<Vec<Arc<Port>>>,
    flooded: AtomicU64,
    refused: AtomicU64,
}

/// A port of a switch.
#[derive(Debug)]
struct Port {
    name: String,
    link: Arc<Link>,
    end: End,
    rx: AtomicU64,
    tx: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
enum End {
    /// A port of the device.
    Device(Queue),
    /// A wire that leaves the process.
    Wire(Arc<dyn Outlet>),
}

/// Frames that wait for a port of the device.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
    /// Its port is down: nobody takes them.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<(Offload, Vec<u8>)>,
    bytes: usize,
}

/// A port of a switch, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortView {
    /// `pN` for a port of the device, a wire as the configuration names it.
    pub port: String,
    /// Whether somebody is there.
    pub up: bool,
    /// Frames that came by it.
    pub rx_frames: u64,
    /// Frames that left by it.
    pub tx_frames: u64,
    /// Frames that it could not take.
    pub lost_frames: u64,
}

/// A station and the port where it is, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    #[serde(flatten)]
    station: StationView,
    port: String,
}

/// A switch as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SwitchView {
    /// Its name.
    pub name: String,
    /// Seconds after which a silent station is forgotten.
    pub ageing: u64,
    /// Its ports.
    pub ports: Vec<PortView>,
    /// Who is known.
    pub stations: Vec<Known>,
    /// Frames that went to all ports.
    pub flooded_frames: u64,
    /// Frames that no switch passes on.
    pub refused_frames: u64,
    /// How often a station turned up at another port.
    pub moves: u64,
    /// How often a station was not learnt for want of room.
    pub unlearnt: u64,
}

impl Switch {
    /// A switch without ports.
    pub fn new(name: &str, ageing: Duration) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            ageing,
            started: Instant::now(),
            table: Mutex::new(Table::new(ageing)),
            ports: ArcSwap::default(),
            flooded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn add(&self, port: Port) -> usize {
        let mut ports = (**self.ports.load()).clone();
        ports.push(Arc::new(port));
        let last = ports.len() - 1;
        self.ports.store(Arc::new(ports));
        last
    }

    /// A further port, as the far end of a port of the device. To be called before frames
    /// flow.
    pub fn device_port(self: &Arc<Self>, name: String) -> Wire {
        let link = Arc::new(Link::new(format!("switch:{}", self.name)));
        link.set_up();
        let end = End::Device(Queue::default());
        let number = self.add(Port::new(name, link.clone(), end));
        let near = Arc::new(Near { switch: self.clone(), number, link: link.clone() });
        Wire { outlet: near.clone(), driver: Box::new(Taker(near)), link }
    }

    /// A further port that a wire is at; its driver hands frames to the inlet.
    pub fn wire_port(self: &Arc<Self>, wire: &Wire) -> SwitchInlet {
        let (link, outlet) = (wire.link.clone(), wire.outlet.clone());
        let number = self.add(Port::new(link.name().to_owned(), link.clone(), End::Wire(outlet)));
        SwitchInlet { switch: self.clone(), number, link }
    }

    /// Passes a frame on that came by a port.
    fn forward(&self, from: usize, offload: Offload, frame: &[u8]) {
        let ports = self.ports.load();
        if let Some(port) = ports.get(from) {
            port.rx.fetch_add(1, Relaxed);
        }
        let verdict = self.table.lock().pass(self.started.elapsed(), from, frame);
        match verdict {
            Verdict::Port(to) => {
                if let Some(port) = ports.get(to) {
                    port.send(offload, frame);
                }
            }
            Verdict::Flood => {
                self.flooded.fetch_add(1, Relaxed);
                for (_, port) in ports.iter().enumerate().filter(|(n, _)| *n != from) {
                    port.send(offload, frame);
                }
            }
            Verdict::Back => {}
            Verdict::Refused => {
                self.refused.fetch_add(1, Relaxed);
            }
        }
    }

    /// The frames so far were a burst.
    fn flush(&self) {
        for port in self.ports.load().iter() {
            if let End::Wire(outlet) = &port.end {
                outlet.flush();
            }
        }
    }

    fn forget(&self, port: usize) {
        self.table.lock().forget(port);
    }

    /// All that is known of it.
    pub fn view(&self) -> SwitchView {
        let ports = self.ports.load();
        let (stations, moves, unlearnt) = {
            let table = self.table.lock();
            (table.list(self.started.elapsed()), table.moved, table.full)
        };
        let name = |n: usize| ports.get(n).map(|p| p.name.clone()).unwrap_or_default();
        SwitchView {
            name: self.name.clone(),
            ageing: self.ageing.as_secs(),
            stations: stations.into_iter().map(|s| Known { port: name(s.port), station: s }).collect(),
            ports: ports.iter().map(|p| p.view()).collect(),
            flooded_frames: self.flooded.load(Relaxed),
            refused_frames: self.refused.load(Relaxed),
            moves,
            unlearnt,
        }
    }
}

impl Port {
    fn new(name: String, link: Arc<Link>, end: End) -> Self {
        Self { name, link, end, rx: AtomicU64::new(0), tx: AtomicU64::new(0), lost: AtomicU64::new(0) }
    }

    fn is_up(&self) -> bool {
        match &self.end {
            End::Device(queue) => !queue.closed.load(Relaxed),
            End::Wire(_) => self.link.is_up(),
        }
    }

    fn view(&self) -> PortView {
        PortView {
            port: self.name.clone(),
            up: self.is_up(),
            rx_frames: self.rx.load(Relaxed),
            tx_frames: self.tx.load(Relaxed),
            lost_frames: self.lost.load(Relaxed),
        }
    }

    fn send(&self, offload: Offload, frame: &[u8]) {
        let sent = self.is_up()
            && match &self.end {
                End::Device(queue) => queue.put(offload, frame),
                End::Wire(outlet) => hand_over(&**outlet, offload, frame),
            };
        if sent { &self.tx } else { &self.lost }.fetch_add(1, Relaxed);
    }
}

/// Hands a frame to a wire, with everything done to it that the far end does not do.
fn hand_over(outlet: &dyn Outlet, offload: Offload, frame: &[u8]) -> bool {
    if offload == Offload::default() || offload.large.is_some_and(|l| outlet.joins(l.ipv6)) {
        return outlet.send(offload, frame);
    }
    let mut own = frame.to_vec();
    let Some(segment) = prepare(&mut own, offload) else { return outlet.send(Offload::default(), &own) };
    let Some(mut whole) = Frame::from_bytes(&mut own) else { return false };
    whole.parse();
    let header = whole.layers.l4_end();
    let (mut all, mut bytes) = (true, Vec::new());
    let cut = lso::segment(&whole, segment, header, |f| {
        bytes.resize(f.len(), 0);
        f.write_into(&mut bytes);
        all &= outlet.send(Offload::default(), &bytes);
    });
    cut.is_some() && all
}

impl Queue {
    fn put(&self, offload: Offload, frame: &[u8]) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + frame.len() > MAX_WAITING {
            return false;
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back((offload, frame.to_vec()));
        if waiting.frames.len() == 1 {
            self.came.notify_one();
        }
        true
    }

    /// All that waits; after a while nothing.
    fn take(&self, all: &mut VecDeque<(Offload, Vec<u8>)>) {
        let mut waiting = self.waiting.lock();
        if waiting.frames.is_empty() {
            self.came.wait_for(&mut waiting, TICK);
        }
        waiting.bytes = 0;
        std::mem::swap(&mut waiting.frames, all);
    }
}

/// What a port of the device sees of the switch.
#[derive(Debug)]
struct Near {
    switch: Arc<Switch>,
    number: usize,
    link: Arc<Link>,
}

impl Outlet for Near {
    fn send(&self, offload: Offload, frame: &[u8]) -> bool {
        self.link.tx.fetch_add(1, Relaxed);
        self.switch.forward(self.number, offload, frame);
        true
    }

    fn joins(&self, _: bool) -> bool {
        true
    }

    fn flush(&self) {
        self.switch.flush();
    }
}

/// Hands to a port of the device what waits for it.
struct Taker(Arc<Near>);

impl Driver for Taker {
    fn run(self: Box<Self>, inlet: &mut dyn Inlet, done: &dyn Fn() -> bool) {
        let Near { switch, number, link } = &*self.0;
        let ports = switch.ports.load_full();
        let Some(End::Device(queue)) = ports.get(*number).map(|p| &p.end) else { return };
        let mut frames = VecDeque::new();
        while !done() {
            let closed = !inlet.wanted();
            if queue.closed.swap(closed, Relaxed) != closed && closed {
                switch.forget(*number);
            }
            queue.take(&mut frames);
            for (offload, mut frame) in frames.drain(..) {
                link.rx.fetch_add(1, Relaxed);
                inlet.receive(&mut frame, offload);
            }
            inlet.flush();
        }
    }
}

/// Takes what comes in by a wire that is a port of a switch.
#[derive(Debug, Clone)]
pub struct SwitchInlet {
    switch: Arc<Switch>,
    number: usize,
    link: Arc<Link>,
}

impl Inlet for SwitchInlet {
    fn receive(&mut self, frame: &mut [u8], offload: Offload) {
        self.switch.forward(self.number, offload, frame);
    }

    fn flush(&mut self) {
        self.switch.flush();
    }

    fn link_changed(&mut self) {
        if !self.link.is_up() {
            self.switch.forget(self.number);
        }
    }
}
