//! A device that remembers what was done to it, and a server around it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags};
use sfnic_emulator::vfio_user::{BarMapping, DmaMap, Interrupts, MmapArea, PciDevice, Server, ServerError, StopHandle};

use crate::client::Client;

pub(crate) const BAR0_SIZE: u64 = 0x200_0000;
pub(crate) const BAR2_SIZE: u64 = 0x4000;
pub(crate) const VECTORS: u16 = 32;

/// What a device sees, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Attached,
    Detached,
    Reset,
    ConfigWrite(u32, Vec<u8>),
    BarWrite(u8, u64, Vec<u8>),
    Dma(usize),
}

#[derive(Default)]
pub(crate) struct Mock {
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) memory: Mutex<Arc<DmaMap>>,
    pub(crate) irq: Mutex<Option<Arc<dyn Interrupts>>>,
    pub(crate) idles: AtomicU64,
    pub(crate) reads: AtomicU64,
    /// Offered for BAR 2.
    pub(crate) mapping: Mutex<Option<Arc<OwnedFd>>>,
}

impl Mock {
    fn saw(&self, event: Event) {
        self.events.lock().expect("events").push(event);
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().expect("events"))
    }

    pub(crate) fn memory(&self) -> Arc<DmaMap> {
        self.memory.lock().expect("memory").clone()
    }

    pub(crate) fn raise(&self, vector: u16) {
        self.irq.lock().expect("irq").as_ref().expect("attached").raise(vector);
    }
}

impl PciDevice for Mock {
    fn config_read(&self, offset: u32, data: &mut [u8]) {
        assert!((1..=4096).contains(&data.len()) && offset as usize + data.len() <= 4096);
        data.fill(0);
        for (i, byte) in [0xb3, 0x15, 0x1d, 0x10].into_iter().enumerate() {
            let at = (offset as usize..offset as usize + data.len()).position(|p| p == i);
            if let Some(at) = at {
                data[at] = byte;
            }
        }
    }

    fn config_write(&self, offset: u32, data: &[u8]) {
        assert!((1..=4096).contains(&data.len()) && offset as usize + data.len() <= 4096);
        self.saw(Event::ConfigWrite(offset, data.to_vec()));
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        assert!(!data.is_empty() && offset + data.len() as u64 <= self.bar_size(bar));
        self.reads.fetch_add(1, SeqCst);
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = (offset as usize + i) as u8 ^ bar;
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        assert!(!data.is_empty() && offset + data.len() as u64 <= self.bar_size(bar));
        self.saw(Event::BarWrite(bar, offset, data.to_vec()));
    }

    fn bar_size(&self, bar: u8) -> u64 {
        match bar {
            0 => BAR0_SIZE,
            2 => BAR2_SIZE,
            1 | 3..=5 => 0,
            _ => panic!("BAR {bar}"),
        }
    }

    fn bar_mapping(&self, bar: u8) -> Option<BarMapping> {
        let fd = self.mapping.lock().expect("mapping").clone().filter(|_| bar == 2)?;
        let areas = vec![MmapArea { offset: 0x1000, size: 0x1000 }, MmapArea { offset: 0x3000, size: 0x1000 }];
        Some(BarMapping { fd, offset: 0x10000, areas })
    }

    fn msix_vectors(&self) -> u16 {
        VECTORS
    }

    fn reset(&self) {
        self.saw(Event::Reset);
    }

    fn dma_changed(&self, map: Arc<DmaMap>) {
        self.saw(Event::Dma(map.regions().len()));
        *self.memory.lock().expect("memory") = map;
    }

    fn attached(&self, irq: Arc<dyn Interrupts>) {
        *self.irq.lock().expect("irq") = Some(irq);
        self.saw(Event::Attached);
    }

    fn detached(&self) {
        *self.irq.lock().expect("irq") = None;
        self.saw(Event::Detached);
    }

    fn idle(&self) {
        self.idles.fetch_add(1, SeqCst);
    }
}

/// Tests of one process take turns: they count its descriptors.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for this test's turn.
pub(crate) fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A server with a mock device, in a thread of its own.
pub(crate) struct Bench {
    pub(crate) device: Arc<Mock>,
    pub(crate) server: Arc<Server>,
    pub(crate) path: PathBuf,
    pub(crate) stop: StopHandle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let turn = take_turn();
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("nic.sock");
        let server = Arc::new(Server::bind(&path).expect("bind"));
        let device = Arc::new(Mock::default());
        let stop = StopHandle::new().expect("stop handle");
        let thread = std::thread::spawn({
            let (server, device, stop) = (server.clone(), device.clone(), stop.clone());
            move || server.serve(device, &stop)
        });
        Self { device, server, path, stop, thread: Some(thread), _dir: dir, _turn: turn }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.path)
    }

    pub(crate) fn attach(&self) -> Client {
        Client::attach(&self.path)
    }

    /// Asserts that a client that comes now is served.
    pub(crate) fn still_serves(&self) {
        let mut client = self.attach();
        assert_eq!(client.read(7, 0, 4), Ok(vec![0xb3, 0x15, 0x1d, 0x10]));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            let result = ended.expect("thread").expect("the server panicked");
            result.expect("the server failed");
        }
    }
}

/// Waits for something that another thread does.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Guest memory as QEMU's memory-backend-memfd makes it.
pub(crate) fn memory(size: u64) -> OwnedFd {
    memory_with(size, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
}

pub(crate) fn memory_with(size: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("guest", flags).expect("memfd");
    rustix::fs::ftruncate(&fd, size).expect("size");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("seals");
    fd
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd")
}

/// Takes an eventfd's count.
pub(crate) fn signals(fd: &OwnedFd) -> u64 {
    let mut value = [0; 8];
    rustix::io::read(fd, &mut value).map_or(0, |_| u64::from_ne_bytes(value))
}

/// Open descriptors of this process.
pub(crate) fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// Peak memory of this process, in KiB. The kernel's number is approximate and
/// may even go down a little.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("number")
}
