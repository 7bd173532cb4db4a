//! The sockets at which guests find slices that are devices of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use sfnic_device_model::endpoint::{ENDPOINT_BAR_SIZE, Endpoint};
use sfnic_device_model::nic::Nic;
use sfnic_device_model::slice::{Flavour, Offer, Outside, VirtioEnd};

use crate::config::socket_name;
use crate::vfio_user::{DmaMap, Interrupts, PciDevice, Server, StopHandle};
use crate::wire::slice::SliceInlet;
use crate::wire::vhost::Meeting;
use crate::wire::{Link, open_vhost};

/// A worker's number that several threads may have: it has no cache of flows, and counts
/// where all may.
const SHARED_WORKER: usize = 1 << 16;

/// The sockets of slices.
#[derive(Default)]
pub struct Offers {
    nic: OnceLock<Weak<Nic>>,
    /// Where they are unless somebody says otherwise.
    dir: OnceLock<PathBuf>,
    /// There are no workers: the threads of sockets do their work.
    inline: bool,
    /// Numbers that threads of slices may have.
    workers: Range<usize>,
    served: Mutex<BTreeMap<u32, Served>>,
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.served.lock().keys()).finish()
    }
}

/// A slice that is offered.
struct Served {
    stop: Stop,
    thread: JoinHandle<()>,
    /// A number that its thread alone has, while it is offered.
    worker: usize,
    /// The link to a virtio slice's machine.
    link: Option<Arc<Link>>,
}

/// What ends a slice's thread.
enum Stop {
    Handle(StopHandle),
    Flag(Arc<AtomicBool>),
}

impl Offers {
    /// None yet. With `inline` there are no workers: the threads of sockets do their work.
    /// Threads that move frames have these numbers.
    pub fn new(inline: bool, workers: Range<usize>) -> Arc<Self> {
        Arc::new(Self { inline, workers, ..Self::default() })
    }

    /// Whose slices they are, and where their sockets are.
    pub fn of(self: &Arc<Self>, nic: &Arc<Nic>, dir: &Path) {
        let _ = self.nic.set(Arc::downgrade(nic));
        let _ = self.dir.set(dir.to_owned());
        nic.offer_slices_to(self.clone());
    }

    /// Takes all of them away.
    pub fn withdraw_all(&self) {
        let all: Vec<u32> = self.served.lock().keys().copied().collect();
        all.into_iter().for_each(|index| self.withdraw(index));
    }

    fn place(&self, offer: &Offer) -> PathBuf {
        match (&offer.socket, self.dir.get()) {
            (Some(path), _) => path.into(),
            (None, Some(dir)) => dir.join(socket_name(offer.index)),
            (None, None) => socket_name(offer.index).into(),
        }
    }

    /// A passthrough slice is a PCI function on a socket of its own.
    fn passthrough(&self, nic: Arc<Nic>, endpoint: Arc<Endpoint>, path: &Path) -> Result<Served, String> {
        let server = Server::bind(path).map_err(|e| e.to_string())?;
        let stop = StopHandle::new().map_err(|e| format!("cannot create the stop handle: {e}"))?;
        let (index, handle, inline) = (endpoint.slice, stop.clone(), self.inline);
        let serve = move || {
            let device = Arc::new(Device { nic, endpoint, inline });
            if let Err(e) = server.serve(device, &handle) {
                tracing::error!("slice {index}: {e}");
            }
        };
        let thread = std::thread::Builder::new().name(format!("slice{index}")).spawn(serve);
        let thread = thread.map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Served { stop: Stop::Handle(stop), thread, worker: SHARED_WORKER, link: None })
    }

    /// A virtio slice is a vhost-user socket, at which a virtual machine has a network device.
    fn virtio(&self, nic: Arc<Nic>, end: Arc<VirtioEnd>, path: &Path) -> Result<Served, String> {
        let wire = open_vhost(Meeting::Server(path.to_owned())).map_err(|e| e.to_string())?;
        let worker = self.free_worker();
        let (done, index, link) = (Arc::new(AtomicBool::new(false)), end.slice, wire.link.clone());
        let mut inlet = SliceInlet::new(nic.clone(), end, wire.outlet, wire.link, worker);
        let flag = done.clone();
        let serve = move || {
            wire.driver.run(&mut inlet, &|| {
                nic.flows.idle(worker);
                flag.load(Relaxed)
            });
        };
        let thread = std::thread::Builder::new().name(format!("slice{index}")).spawn(serve);
        let thread = thread.map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Served { stop: Stop::Flag(done), thread, worker, link: Some(link) })
    }

    /// A number for a thread that moves frames.
    fn free_worker(&self) -> usize {
        let served = self.served.lock();
        let taken = |n: &usize| served.values().any(|s| s.worker == *n);
        self.workers.clone().find(|n| !taken(n)).unwrap_or(SHARED_WORKER)
    }

    /// The links to the machines of virtio slices, by index.
    pub fn links(&self) -> Vec<(u32, Arc<Link>)> {
        let served = self.served.lock();
        served.iter().filter_map(|(index, s)| Some((*index, s.link.clone()?))).collect()
    }
}

impl Outside for Offers {
    fn offer(&self, offer: &Offer) -> Result<String, String> {
        let path = self.place(offer);
        let said = path.display().to_string();
        let Some(nic) = self.nic.get().and_then(Weak::upgrade) else { return Err("the device ends".to_owned()) };
        let served = match (offer.flavour, &offer.endpoint) {
            (Flavour::Passthrough, Some(endpoint)) => self.passthrough(nic, endpoint.clone(), &path)?,
            _ => match &offer.virtio {
                Some(end) => self.virtio(nic, end.clone(), &path)?,
                None => return Err(format!("flavour {}: nobody serves it", offer.flavour)),
            },
        };
        self.served.lock().insert(offer.index, served);
        Ok(said)
    }

    fn withdraw(&self, index: u32) {
        let Some(served) = self.served.lock().remove(&index) else { return };
        match served.stop {
            Stop::Handle(handle) => handle.stop(),
            Stop::Flag(done) => done.store(true, Relaxed),
        }
        let _ = served.thread.join();
    }
}

/// A passthrough slice on its socket.
struct Device {
    nic: Arc<Nic>,
    endpoint: Arc<Endpoint>,
    inline: bool,
}

impl PciDevice for Device {
    fn config_read(&self, offset: u32, data: &mut [u8]) {
        self.nic.endpoint_config_read(&self.endpoint, offset as usize, data);
    }

    fn config_write(&self, offset: u32, data: &[u8]) {
        self.nic.endpoint_config_write(&self.endpoint, offset as usize, data);
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.nic.endpoint_read(&self.endpoint, bar, offset, data);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        self.nic.endpoint_write(&self.endpoint, bar, offset, data);
    }

    fn bar_size(&self, bar: u8) -> u64 {
        if bar == 0 { ENDPOINT_BAR_SIZE } else { 0 }
    }

    fn msix_vectors(&self) -> u16 {
        self.endpoint.vectors
    }

    fn reset(&self) {
        self.nic.endpoint_reset(&self.endpoint);
    }

    fn dma_changed(&self, map: Arc<DmaMap>) {
        self.endpoint.dma.replace(Arc::new(map.memory().clone()));
    }

    fn attached(&self, irq: Arc<dyn Interrupts>) {
        self.endpoint.irq.connect(Some(irq));
    }

    fn detached(&self) {
        self.nic.endpoint_reset(&self.endpoint);
        self.endpoint.irq.connect(None);
    }

    fn idle(&self) {
        while self.inline && self.nic.run(SHARED_WORKER) {}
    }
}
