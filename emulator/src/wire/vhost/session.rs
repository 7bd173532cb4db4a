//! One front end: what its messages mean.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sfnic_device_model::dma::{Memory, Near};
use smallvec::SmallVec;
use vm_memory::{FileOffset, GuestRegionMmap};

use super::message::request::*;
use super::message::{Message, quads, words};
use super::ring::{Fault, MAX_SIZE, Place, Ring};
use super::{Guest, MAX_PAIRS, Running};
use crate::vfio_user::backing::Backing;
use crate::vfio_user::dma::map;
use crate::vfio_user::irq::EventFd;
use crate::wire::offload::{HEADER, Offload};
use crate::wire::{Inlet, LONGEST, Link, Pieces, Sender};

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

/// Protocol features: several queues, acknowledgements, the MTU, resets.
const PROTOCOL_FEATURES: u64 = 1 | REPLY_ACK | 1 << 4 | 1 << 13;
const REPLY_ACK: u64 = 1 << 3;

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
    /// Requests without an answer of their own are acknowledged where wanted.
    acknowledges: bool,
    /// What is wrong with the guest's rings.
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
            acknowledges: false,
            fault: None,
        }
    }

    /// Why the session has to end, if it has to.
    pub(super) fn fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    fn ring(&mut self, index: u32) -> Followed<&mut Vring> {
        let ring = usize::try_from(index).ok().and_then(|i| self.rings.get_mut(i));
        ring.ok_or_else(|| format!("ring {index} (there are {RINGS})"))
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
        let base = if index.is_multiple_of(2) {
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
        if index.is_multiple_of(2) {
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

    /// Hands up to `burst` frames that a pair's guest sends to a port. True where there may be
    /// more; where not, the guest kicks for the next.
    pub(super) fn take(&mut self, pair: usize, burst: usize, inlet: &mut dyn Inlet) -> bool {
        let Some(running) = self.from.get_mut(pair).and_then(Option::as_mut) else { return false };
        match take(running, burst, &self.guest.link, inlet) {
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

/// What a guest's ring sends in one burst.
struct Taking<'r, 'm> {
    ring: &'r mut Ring,
    near: Near<'m>,
    header: usize,
    link: &'r Link,
    /// How many frames may be taken still.
    left: usize,
    /// Chains that are taken and not given back yet.
    heads: SmallVec<[(u16, u32); 64]>,
    more: bool,
    end: std::result::Result<(), Fault>,
}

impl<'m> Taking<'_, 'm> {
    fn frame(&mut self, pieces: &mut Pieces<'m>) -> std::result::Result<Option<Offload>, Fault> {
        let n = self.heads.len() as u16;
        if self.left == 0 {
            return Ok(None);
        }
        if !self.ring.has_more_than(n)? && !self.ring.ask(n)? {
            self.more = false;
            return Ok(None);
        }
        let chain = self.ring.chain(&self.near, n, false, pieces)?;
        let size = pieces.iter().fold(0usize, |sum, p| sum.saturating_add(p.len()));
        if size < self.header || size - self.header > LONGEST {
            return Err(Fault::Length(size));
        }
        let mut head = [0; HEADER + 2];
        behead(pieces, &mut head[..self.header]);
        self.left -= 1;
        self.heads.push((chain, 0));
        let head = head.first_chunk::<HEADER>().copied().unwrap_or_default();
        Ok(Some(Offload::from_bytes(head)))
    }
}

impl<'m> Sender<'m> for Taking<'_, 'm> {
    fn next(&mut self, pieces: &mut Pieces<'m>) -> Option<Offload> {
        self.end.as_ref().ok()?;
        self.frame(pieces).unwrap_or_else(|fault| {
            self.end = Err(fault);
            None
        })
    }

    fn done(&mut self) {
        if self.end.is_ok() && !self.heads.is_empty() {
            self.link.rx.fetch_add(self.heads.len() as u64, Relaxed);
            self.end = self.ring.give_back(&self.heads).and_then(|()| self.ring.publish());
            self.heads.clear();
        }
    }
}

fn take(r: &mut Running, burst: usize, link: &Link, inlet: &mut dyn Inlet) -> std::result::Result<bool, Fault> {
    r.ring.be_quiet()?;
    let mem = r.mem.clone();
    let mut taking = Taking {
        ring: &mut r.ring,
        near: Near::new(&mem),
        header: r.header,
        link,
        left: burst,
        heads: SmallVec::new(),
        more: true,
        end: Ok(()),
    };
    inlet.receive_burst(&mut taking);
    taking.done();
    let more = taking.more;
    taking.end?;
    r.tell()?;
    Ok(more)
}

/// Takes the first bytes off pieces. There have to be as many.
#[inline]
fn behead(pieces: &mut Pieces<'_>, mut head: &mut [u8]) {
    let mut whole = 0;
    for piece in pieces.iter_mut() {
        let n = piece.copy_to(head);
        head = &mut head[n..];
        if n < piece.len() {
            if let Ok(rest) = piece.offset(n) {
                *piece = rest;
            }
            break;
        }
        whole += 1;
        if head.is_empty() {
            break;
        }
    }
    pieces.drain(..whole);
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

/// What is said when a request cannot be followed: what is wrong, in words.
type Followed<T = ()> = std::result::Result<T, String>;

impl Session {
    /// Follows a request; the payload of its answer, if it has one.
    pub(super) fn follow(&mut self, m: Message) -> Followed<Option<SmallVec<[u8; 8]>>> {
        let size = match m.request {
            GET_FEATURES | SET_OWNER | RESET_OWNER | GET_PROTOCOL_FEATURES | GET_QUEUE_NUM | RESET_DEVICE => 0,
            SET_VRING_ADDR => 40,
            SET_MEM_TABLE => 8 + 32 * m.fds.len(),
            _ => 8,
        };
        if m.payload.len() != size {
            return Err(format!("a message: request {} with {} bytes, not {size}", m.request, m.payload.len()));
        }
        let answer = |value: u64| Ok(Some(value.to_le_bytes().into()));
        let [value] = quads(&m.payload);
        let [index, number] = words(&m.payload);
        match m.request {
            SET_OWNER => {}
            RESET_OWNER | RESET_DEVICE => self.reset(),
            GET_FEATURES => return answer(FEATURES),
            SET_FEATURES => self.set_features(value)?,
            GET_PROTOCOL_FEATURES => return answer(PROTOCOL_FEATURES),
            SET_PROTOCOL_FEATURES if value & !PROTOCOL_FEATURES != 0 => {
                return Err(format!("protocol features {:#x} that were not offered", value & !PROTOCOL_FEATURES));
            }
            SET_PROTOCOL_FEATURES => self.acknowledges = value & REPLY_ACK != 0,
            GET_QUEUE_NUM => return answer(MAX_PAIRS as u64),
            SET_MEM_TABLE => self.set_memory(&m.payload, m.fds)?,
            // What our frames have is the port's MTU; the front end limits its own.
            NET_SET_MTU => {}
            SET_VRING_NUM => {
                let size = u16::try_from(number).ok().filter(|n| n.is_power_of_two() && *n <= MAX_SIZE);
                self.ring(index)?.size = size.ok_or_else(|| format!("ring {index}: {}", Fault::Size(number)))?;
            }
            SET_VRING_ADDR => {
                let [_, descriptors, used, available] = quads(&m.payload);
                self.ring(index)?.places = Some([descriptors, available, used]);
                self.apply(index as usize);
            }
            SET_VRING_BASE => {
                self.ring(index)?;
                self.halt(index as usize);
                self.rings[index as usize].base =
                    u16::try_from(number).map_err(|_| format!("ring {index} from position {number}"))?;
                self.apply(index as usize);
            }
            GET_VRING_BASE => return Ok(Some(self.stop(index)?)),
            SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ERR => self.set_event(m.request, value, m.fds)?,
            SET_VRING_ENABLE => {
                self.ring(index)?.enabled = number != 0;
                self.apply(index as usize);
            }
            other => return Err(format!("request {other}, which was not offered")),
        }
        Ok((m.needs_reply && self.acknowledges).then(|| 0u64.to_le_bytes().into()))
    }

    fn reset(&mut self) {
        for index in 0..RINGS {
            self.halt(index);
            self.rings[index] = Vring::default();
        }
        self.features = 0;
        self.update_live();
    }

    fn set_features(&mut self, features: u64) -> Followed {
        if features & !FEATURES != 0 {
            return Err(format!("features {:#x} that were not offered", features & !FEATURES));
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

    fn set_memory(&mut self, table: &[u8], fds: Vec<OwnedFd>) -> Followed {
        let [count] = words(table);
        if count as usize != fds.len() {
            return Err(format!("{count} regions of memory with {} descriptors", fds.len()));
        }
        let mut mapped = vec![];
        let mut windows = vec![];
        for (region, fd) in table.get(8..).unwrap_or_default().chunks(32).zip(fds) {
            let [guest, size, user, offset] = quads(region);
            if user.checked_add(size).is_none() {
                return Err(format!(
                    "guest memory {guest:#x}+{size:#x}: at {user:#x} of the front end, which overflows"
                ));
            }
            if windows.iter().any(|w: &Window| user < w.user + w.size && w.user < user + size) {
                return Err(format!("guest memory {guest:#x}+{size:#x}: overlaps another region in the front end"));
            }
            let memory: std::result::Result<GuestRegionMmap, _> = self
                .backing
                .admit(fd, offset, size, true)
                .and_then(|file| map(FileOffset::from_arc(file, offset), guest, size, true));
            mapped.push(Arc::new(memory.map_err(|why| format!("guest memory {guest:#x}+{size:#x}: {why}"))?));
            windows.push(Window { user, guest, size });
        }
        mapped.sort_by_key(|r| vm_memory::GuestMemoryRegion::start_addr(&**r));
        let memory = match mapped.is_empty() {
            true => Memory::new(),
            false => Memory::from_arc_regions(mapped).map_err(|why| format!("the table of guest memory: {why}"))?,
        };
        // Rings that run go on in the new memory; nothing of the former is kept.
        let ran: Vec<usize> = (0..RINGS).filter(|index| self.runs(*index)).collect();
        ran.iter().for_each(|index| self.halt(*index));
        self.windows = windows;
        self.memory = Some(Arc::new(memory));
        ran.into_iter().for_each(|index| self.apply(index));
        Ok(())
    }

    fn runs(&self, index: usize) -> bool {
        match index % 2 {
            0 => self.guest.queues[index / 2].lock().rings.is_some(),
            _ => self.from[index / 2].is_some(),
        }
    }

    /// Stops a ring for good; index and position.
    fn stop(&mut self, index: u32) -> Followed<SmallVec<[u8; 8]>> {
        self.ring(index)?;
        self.halt(index as usize);
        self.update_live();
        let v = &mut self.rings[index as usize];
        (v.started, v.kick, v.call) = (false, None, None);
        let mut answer: SmallVec<[u8; 8]> = index.to_le_bytes().into_iter().collect();
        answer.extend(u32::from(v.base).to_le_bytes());
        Ok(answer)
    }

    fn set_event(&mut self, request: u32, value: u64, mut fds: Vec<OwnedFd>) -> Followed {
        const INDEX: u64 = 0xff;
        const NONE: u64 = 1 << 8;
        let index = (value & INDEX) as u32;
        let fd = match (fds.pop(), value & NONE != 0) {
            (fd, none) if fd.is_some() == none || !fds.is_empty() => {
                return Err(format!("ring {index}: an event without its descriptor, or with several"));
            }
            (fd, _) => fd.map(EventFd::new).transpose().map_err(|why| format!("ring {index}: {why}"))?,
        };
        let v = self.ring(index)?;
        match request {
            SET_VRING_KICK => {
                let kick = fd.ok_or_else(|| format!("ring {index} without a kick: polling is not supported"))?;
                // What is in the ring already was kicked for before us, perhaps.
                kick.signal();
                v.kick = Some(kick);
                v.started = true;
                self.apply(index as usize);
            }
            SET_VRING_ERR => v.error = fd,
            _ => {
                let call = fd.map(Arc::new);
                v.call = call.clone();
                let index = index as usize;
                let mut queue = self.guest.queues[index / 2].lock();
                let running = if index.is_multiple_of(2) { &mut queue.rings } else { &mut self.from[index / 2] };
                if let Some(r) = running {
                    r.call = call;
                }
            }
        }
        Ok(())
    }
}
