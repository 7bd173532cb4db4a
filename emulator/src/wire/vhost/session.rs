//! One front end: what its messages mean.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sfnic_device_model::dma::Memory;
use smallvec::SmallVec;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::{FileOffset, GuestRegionMmap, VolatileSlice};

use super::ring::{Fault, MAX_SIZE, Pieces, Place, Ring};
use super::{Guest, MAX_PAIRS, Running};
use crate::vfio_user::backing::Backing;
use crate::vfio_user::dma::map;
use crate::vfio_user::irq::EventFd;
use crate::wire::LONGEST;
use crate::wire::offload::{HEADER, Offload};

/// Feature bits (`linux/virtio_net.h`, `virtio_config.h`, `virtio_ring.h`, `vhost_types.h`).
mod feature {
    pub(super) const CSUM: u64 = 1;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const GUEST_TSO4: u64 = 1 << 7;
    pub(super) const GUEST_TSO6: u64 = 1 << 8;
    pub(super) const HOST_TSO4: u64 = 1 << 11;
    pub(super) const HOST_TSO6: u64 = 1 << 12;
    pub(super) const HOST_ECN: u64 = 1 << 13;
    pub(super) const MRG_RXBUF: u64 = 1 << 15;
    pub(super) const MQ: u64 = 1 << 22;
    pub(super) const INDIRECT_DESC: u64 = 1 << 28;
    pub(super) const EVENT_IDX: u64 = 1 << 29;
    pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub(super) const VERSION_1: u64 = 1 << 32;
}

/// What we can do.
pub(super) const FEATURES: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::MTU
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF
    | feature::MQ
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::PROTOCOL_FEATURES
    | feature::VERSION_1;

/// Rings in all: of each pair first the one to the guest.
const RINGS: usize = 2 * MAX_PAIRS;

/// A ring as the messages describe it.
#[derive(Debug, Default)]
struct Vring {
    size: u16,
    /// Addresses in the front end's process: descriptors, available, used.
    places: Option<[u64; 3]>,
    base: u16,
    kick: Option<EventFd>,
    call: Option<Arc<EventFd>>,
    error: Option<EventFd>,
    started: bool,
    enabled: bool,
}

/// A piece of guest memory by its address in the front end's process.
#[derive(Debug, Clone, Copy)]
struct Window {
    user: u64,
    guest: u64,
    size: u64,
}

/// A front end's session.
pub(super) struct Session {
    guest: Arc<Guest>,
    features: u64,
    backing: Backing,
    windows: Vec<Window>,
    memory: Option<Arc<Memory>>,
    rings: [Vring; RINGS],
    /// Rings from the guest that run, by pair.
    from: [Option<Running>; MAX_PAIRS],
    /// What the front end did wrong.
    fault: Option<String>,
}

impl Session {
    /// A session with a process, if its number is known.
    pub(super) fn new(guest: Arc<Guest>, peer: Option<u32>) -> Self {
        Self {
            guest,
            features: 0,
            backing: Backing::new(peer, false),
            windows: vec![],
            memory: None,
            rings: Default::default(),
            from: Default::default(),
            fault: None,
        }
    }

    /// Why the session has to end, if it has to.
    pub(super) fn fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// The front end did what it must not.
    fn wrong<T>(&mut self, what: impl std::fmt::Display) -> Result<T> {
        self.fault.get_or_insert(what.to_string());
        Err(Error::InvalidParam)
    }

    fn ring(&mut self, index: u32) -> Result<&mut Vring> {
        match usize::try_from(index).ok().filter(|i| *i < RINGS) {
            Some(i) => Ok(&mut self.rings[i]),
            None => self.wrong(format_args!("ring {index} (there are {RINGS})")),
        }
    }

    fn has(&self, bit: u64) -> bool {
        self.features & bit != 0
    }

    /// A guest address for one of the front end's.
    fn translate(&self, user: u64) -> Option<u64> {
        let window = self.windows.iter().find(|w| user.wrapping_sub(w.user) < w.size && user >= w.user)?;
        Some(window.guest.wrapping_add(user - window.user))
    }

    /// Starts or stops a ring as its state now says.
    fn apply(&mut self, index: usize) {
        let v = &self.rings[index];
        let complete = v.started && v.enabled && v.places.is_some() && v.size > 0;
        let run = complete && self.memory.is_some();
        self.halt(index);
        if run && let Err(why) = self.start(index) {
            self.fault.get_or_insert(format!("ring {index}: {why}"));
        }
        self.update_live();
    }

    /// Stops a ring, and keeps where it was.
    fn halt(&mut self, index: usize) {
        let base = if index % 2 == 0 {
            self.guest.queues[index / 2].lock().stop(&self.guest.link)
        } else {
            self.from[index / 2].take().map(|r| r.ring.base())
        };
        if let Some(base) = base {
            self.rings[index].base = base;
        }
    }

    fn start(&mut self, index: usize) -> std::result::Result<(), Fault> {
        let v = &self.rings[index];
        let (Some(mem), Some(places)) = (self.memory.clone(), v.places) else { return Ok(()) };
        let [descriptors, available, used] = places.map(|user| self.translate(user).ok_or(user));
        let place = Place {
            size: v.size,
            descriptors: descriptors.map_err(|at| Fault::Unmapped("descriptor table", at))?,
            available: available.map_err(|at| Fault::Unmapped("available ring", at))?,
            used: used.map_err(|at| Fault::Unmapped("used ring", at))?,
        };
        let mergeable = self.has(feature::MRG_RXBUF);
        let running = Running {
            ring: Ring::new(&mem, place, v.base, self.has(feature::EVENT_IDX))?,
            mem,
            call: v.call.clone(),
            header: HEADER + if mergeable || self.has(feature::VERSION_1) { 2 } else { 0 },
            mergeable,
        };
        if index % 2 == 0 {
            self.guest.queues[index / 2].lock().rings = Some(running);
        } else {
            self.from[index / 2] = Some(running);
        }
        Ok(())
    }

    /// Tells the packet path how many queues there are.
    fn update_live(&self) {
        let live = self.guest.queues.iter().take_while(|q| q.lock().rings.is_some()).count();
        self.guest.live.store(live, Relaxed);
    }

    /// Whether frames pass both ways.
    pub(super) fn is_up(&self) -> bool {
        self.guest.live.load(Relaxed) > 0 && self.from[0].is_some()
    }

    /// The kicks to wait for, with the ring of each.
    pub(super) fn kicks(&self) -> SmallVec<[(usize, &EventFd); RINGS]> {
        self.rings.iter().enumerate().filter_map(|(i, v)| v.kick.as_ref().map(|k| (i, k))).collect()
    }

    /// A ring was kicked: frames that waited go on. True where it is one from the guest.
    pub(super) fn kicked(&mut self, index: usize) -> bool {
        if let Some(kick) = self.rings.get(index).and_then(|v| v.kick.as_ref()) {
            kick.clear();
        }
        if index % 2 == 1 {
            return true;
        }
        if let Some(queue) = self.guest.queues.get(index / 2) {
            let mut queue = queue.lock();
            if let Err(fault) = queue.resume(&self.guest.link) {
                self.guest.give_up(&mut queue, fault);
            }
        }
        false
    }

    /// Takes up to `burst` frames that a pair's guest sends, and hands each to `each`. True
    /// where there may be more; where not, the guest kicks for the next.
    pub(super) fn take(
        &mut self,
        pair: usize,
        buf: &mut [u8],
        burst: usize,
        each: &mut dyn FnMut(&mut [u8], Offload),
    ) -> bool {
        let Some(running) = self.from.get_mut(pair).and_then(Option::as_mut) else { return false };
        match take(running, buf, burst, each) {
            Ok(more) => more,
            Err(fault) => {
                let index = 2 * pair + 1;
                if let Some(error) = &self.rings[index].error {
                    error.signal();
                }
                self.fault.get_or_insert(format!("ring {index}: {fault}"));
                false
            }
        }
    }
}

fn take(
    r: &mut Running,
    buf: &mut [u8],
    burst: usize,
    each: &mut dyn FnMut(&mut [u8], Offload),
) -> std::result::Result<bool, Fault> {
    let mut more = true;
    for _ in 0..burst {
        if r.ring.waiting(&r.mem)? == 0 && !r.ring.ask(&r.mem, 0)? {
            more = false;
            break;
        }
        let mut pieces = Pieces::new();
        let chain = r.ring.chain(&r.mem, 0, false, &mut pieces)?;
        let size = pieces.iter().fold(0usize, |sum, p| sum.saturating_add(p.len()));
        if size < r.header || size - r.header > LONGEST.min(buf.len()) {
            return Err(Fault::Length(size));
        }
        let mut head = [0; HEADER + 2];
        let frame = &mut buf[..size - r.header];
        gather(&pieces, &mut [&mut head[..r.header], frame]);
        r.ring.give_back(&r.mem, &[(chain, 0)])?;
        let head = head.first_chunk::<HEADER>().copied().unwrap_or_default();
        each(frame, Offload::from_bytes(head));
    }
    r.tell()?;
    Ok(more)
}

/// Copies pieces one after the other into parts one after the other.
fn gather(pieces: &[VolatileSlice<'_, ()>], parts: &mut [&mut [u8]]) {
    let mut parts = parts.iter_mut();
    let mut at = 0;
    let mut part = parts.next();
    for piece in pieces {
        let mut piece = *piece;
        while !piece.is_empty() {
            let Some(room) = part.as_mut() else { return };
            let n = piece.copy_to(&mut room[at..]);
            at += n;
            if at == room.len() {
                (part, at) = (parts.next(), 0);
            }
            match piece.offset(n) {
                Ok(rest) => piece = rest,
                Err(_) => return,
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for index in 0..RINGS {
            self.halt(index);
        }
        for joins in &self.guest.joins {
            joins.store(false, Relaxed);
        }
        self.update_live();
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        for index in 0..RINGS {
            self.halt(index);
            self.rings[index] = Vring::default();
        }
        self.features = 0;
        self.update_live();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return self.wrong(format_args!("features {:#x} that were not offered", features & !FEATURES));
        }
        self.features = features;
        let [four, six] = &self.guest.joins;
        four.store(self.has(feature::GUEST_TSO4), Relaxed);
        six.store(self.has(feature::GUEST_TSO6), Relaxed);
        if !self.has(feature::PROTOCOL_FEATURES) {
            // Then there is no message to enable rings.
            self.rings.iter_mut().for_each(|v| v.enabled = true);
        }
        (0..RINGS).for_each(|index| self.apply(index));
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(()) // those that change anything here are the crate's
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(MAX_PAIRS as u64)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let mut mapped = vec![];
        let mut windows = vec![];
        for (region, file) in regions.iter().zip(files) {
            let (guest, size) = (region.guest_phys_addr, region.memory_size);
            let (user, offset) = (region.user_addr, region.mmap_offset);
            let memory: std::result::Result<GuestRegionMmap, _> = self
                .backing
                .admit(OwnedFd::from(file), offset, size, true)
                .and_then(|file| map(FileOffset::from_arc(file, offset), guest, size, true));
            match memory {
                Ok(memory) => mapped.push(Arc::new(memory)),
                Err(why) => return self.wrong(format_args!("guest memory {guest:#x}+{size:#x}: {why}")),
            }
            windows.push(Window { user, guest, size });
        }
        mapped.sort_by_key(|r| vm_memory::GuestMemoryRegion::start_addr(&**r));
        let memory = match Memory::from_arc_regions(mapped) {
            Ok(memory) => Arc::new(memory),
            Err(why) => return self.wrong(format_args!("the table of guest memory: {why}")),
        };
        // Rings that run go on in the new memory; nothing of the former is kept.
        (0..RINGS).for_each(|index| self.halt(index));
        self.windows = windows;
        self.memory = Some(memory);
        (0..RINGS).for_each(|index| self.apply(index));
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).ok().filter(|n| n.is_power_of_two() && *n <= MAX_SIZE);
        let Some(size) = size else { return self.wrong(format_args!("ring {index}: {}", Fault::Size(num))) };
        self.ring(index)?.size = size;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.ring(index)?.places = Some([descriptor, available, used]);
        self.apply(index as usize);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let Ok(base) = u16::try_from(base) else {
            return self.wrong(format_args!("ring {index} from position {base}"));
        };
        self.ring(index)?;
        self.halt(index as usize);
        self.rings[index as usize].base = base;
        self.apply(index as usize);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.ring(index)?;
        self.halt(index as usize);
        let v = &mut self.rings[index as usize];
        v.started = false;
        v.kick = None;
        v.call = None;
        let base = v.base.into();
        self.update_live();
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let Some(kick) = self.eventfd(fd)? else {
            return self.wrong(format_args!("ring {index} without a kick: polling is not supported"));
        };
        let v = self.ring(index.into())?;
        // What is in the ring already has been kicked for before us, perhaps.
        kick.signal();
        v.kick = Some(kick);
        v.started = true;
        self.apply(index.into());
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let call = self.eventfd(fd)?.map(Arc::new);
        self.ring(index.into())?.call = call.clone();
        let index = usize::from(index);
        if index % 2 == 0 {
            if let Some(r) = &mut self.guest.queues[index / 2].lock().rings {
                r.call = call;
            }
        } else if let Some(r) = &mut self.from[index / 2] {
            r.call = call;
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let error = self.eventfd(fd)?;
        self.ring(index.into())?.error = error;
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.enabled = enable;
        self.apply(index as usize);
        Ok(())
    }

    fn get_config(&mut self, _offset: u32, _size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.unsupported()
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        self.unsupported()
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        self.unsupported()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        self.unsupported()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        self.unsupported()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        self.unsupported()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        self.unsupported()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        self.unsupported()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.unsupported()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        self.unsupported()
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.unsupported()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        self.unsupported()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        self.unsupported()
    }
}

impl Session {
    /// A request that needs a protocol feature we do not offer.
    fn unsupported<T>(&mut self) -> Result<T> {
        self.wrong("a request that was not offered")
    }

    fn eventfd(&mut self, fd: Option<File>) -> Result<Option<EventFd>> {
        match fd.map(|fd| EventFd::new(fd.into())).transpose() {
            Ok(fd) => Ok(fd),
            Err(why) => self.wrong(why),
        }
    }
}
