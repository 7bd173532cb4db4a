//! The windows through which drivers reach functions: BAR 0 is the physical
//! function's, BAR 2 holds one for each sub-function; BAR 0 of an endpoint is that
//! of the function behind it. A window reaches its own function and nothing else,
//! and only through the PCI function that it belongs to.

use std::sync::Arc;

use crate::cmdq;
use crate::control::function::{Function, FunctionKind};
use crate::control::iseg::{ISEG_SIZE, Iseg, IsegWrite};
use crate::control::{After, Control, PF};
use crate::dma::Dma;
use crate::endpoint::{ENDPOINT_BAR_SIZE, Endpoint};
use crate::fabric::plane::FunctionPlane;
use crate::nic::{BAR0_SIZE, Card, Nic};
use crate::pci::{MSIX_PBA, MSIX_TABLE};
use crate::queue::Doorbell;
use crate::trace::Record;
use crate::unmodelled::Access;
use crate::work::Job;

/// Bytes of a UAR page.
pub(crate) const PAGE: u64 = 4096;
/// First page of a window that can be a UAR: behind the init segment, and in
/// BAR 0 behind the MSI-X table and pending bits.
pub const FIRST_UAR: u32 = 4;

/// Where in the device an address of a BAR leads.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    function: u16,
    offset: u64,
    /// The window is a BAR 0, with an MSI-X table.
    whole_bar: bool,
    /// The memory of whoever has this window, which is the function's too or it is not his.
    dma: &'a Arc<Dma>,
}

impl Place<'_> {
    /// Whether the function that is there is reached through this window.
    fn leads_to(&self, function: &FunctionPlane) -> bool {
        Arc::ptr_eq(&function.dma, self.dma)
    }

    /// The function, while it has a window and this is it.
    fn open<'c>(&self, ctl: &'c mut Control) -> Option<&'c mut Function> {
        if self.function != PF && !ctl.sf(self.function)?.state.has_window() {
            return None;
        }
        ctl.functions.get_mut(&self.function).filter(|f| self.leads_to(&f.plane))
    }

    /// The MSI-X table and pending bits, which QEMU keeps itself.
    fn is_msix(&self) -> bool {
        self.whole_bar && (MSIX_TABLE.max(ISEG_SIZE)..MSIX_PBA + PAGE).contains(&self.offset)
    }
}

impl Card {
    fn place(&self, bar: u8, offset: u64) -> Option<Place<'_>> {
        let place = |function, offset| Place { function, offset, whole_bar: bar == 0, dma: &self.dma };
        match bar {
            0 if offset < BAR0_SIZE => Some(place(PF, offset)),
            2 if offset < self.config.bar2_size() => {
                let index = (offset >> self.config.log_sf_window) as u16;
                let offset = offset & ((1 << self.config.log_sf_window) - 1);
                Some(place(self.config.sf_base.checked_add(index)?, offset))
            }
            _ => None,
        }
    }

    /// Where a function's window lies: the BAR, and the offset in it.
    pub(crate) fn window(&self, function: u16) -> Option<(u8, u64)> {
        if function == PF {
            return Some((0, 0));
        }
        let index = function.checked_sub(self.config.sf_base).filter(|i| *i < self.config.max_sfs)?;
        Some((2, u64::from(index) << self.config.log_sf_window))
    }

    /// The parts of a BAR that are UAR pages, as offset and length in bytes.
    pub fn uar_areas(&self, bar: u8) -> Vec<(u64, u64)> {
        let (kind, windows) = match bar {
            0 => (FunctionKind::Pf, 1),
            2 => (FunctionKind::Sf, self.config.max_sfs),
            _ => return vec![],
        };
        let (first, len) = (u64::from(FIRST_UAR) * PAGE, u64::from(self.uar_limit(kind)) * PAGE);
        let at = |i| first + (u64::from(i) << self.config.log_sf_window);
        (0..windows).map(|i| (at(i), len)).filter(|(_, len)| *len > 0).collect()
    }

    /// Whether nobody is told of a function's doorbells: workers look for them. Those of
    /// another guest's device, with a memory of its own, come one by one always.
    pub(crate) fn is_polled(&self, function: &FunctionPlane) -> bool {
        self.config.doorbells.is_some() && Arc::ptr_eq(&function.dma, &self.dma)
    }

    /// How many UAR pages the window of a function has room for.
    pub fn uar_limit(&self, kind: FunctionKind) -> u32 {
        let size = match kind {
            FunctionKind::Pf | FunctionKind::Ecpf => BAR0_SIZE,
            FunctionKind::Vf => ENDPOINT_BAR_SIZE,
            FunctionKind::Sf | FunctionKind::Virtio => 1 << self.config.log_sf_window,
        };
        (size / PAGE) as u32 - FIRST_UAR
    }
}

impl Nic {
    /// The driver reads a BAR. What is not there reads as ones.
    pub fn bar_read(&self, card: &Card, bar: u8, offset: u64, out: &mut [u8]) {
        out.fill(0xff);
        let Some(p) = card.place(bar, offset).filter(|_| !self.faults.is_gone(card.index)) else { return };
        if p.is_msix() {
            return out.fill(0);
        }
        let mut ctl = card.control.lock();
        if let Some(f) = p.open(&mut ctl) {
            self.window_read(card, p, &f.iseg, out);
        }
    }

    /// The driver of an endpoint's guest reads its BAR. Without an active function the init
    /// segment says that there will be one.
    pub fn endpoint_read(&self, endpoint: &Endpoint, bar: u8, offset: u64, out: &mut [u8]) {
        out.fill(0xff);
        let Some(card) = self.card_of(endpoint, bar, offset) else { return };
        let mut ctl = card.control.lock();
        let place = |function| Place { function, offset, whole_bar: true, dma: &endpoint.dma };
        if place(PF).is_msix() {
            return out.fill(0);
        }
        let function = endpoint.function().map(place);
        match function.and_then(|p| Some((p, p.open(&mut ctl)?))) {
            Some((p, f)) => self.window_read(card, p, &f.iseg, out),
            None => {
                let now = self.clock.now_ns();
                read_dwords(offset, out, |at| Iseg::absent(at, self.profile.firmware, now, self.timer_khz));
            }
        }
    }

    fn window_read(&self, card: &Card, p: Place<'_>, iseg: &Iseg, out: &mut [u8]) {
        let now = self.clock.now_ns();
        read_dwords(p.offset, out, |at| {
            if at >= ISEG_SIZE {
                return 0;
            }
            let Some(dword) = iseg.read(at, self.profile.firmware, now, self.timer_khz) else {
                self.unmodelled.record(card.index, p.function, Access::WindowRead(at as u32));
                return 0;
            };
            self.faults.health(card.index, p.function, at, dword)
        });
        self.trace.record(card.index, p.function, &Record::Read { offset: p.offset, data: out });
    }

    /// The driver writes a BAR. What is not there takes no write.
    pub fn bar_write(&self, card: &Card, bar: u8, offset: u64, data: &[u8]) {
        let _still = self.gate.enter();
        if let Some(p) = card.place(bar, offset).filter(|_| !self.faults.is_gone(card.index)) {
            self.window_write(card, p, data);
        }
    }

    /// The driver of an endpoint's guest writes its BAR.
    pub fn endpoint_write(&self, endpoint: &Endpoint, bar: u8, offset: u64, data: &[u8]) {
        let _still = self.gate.enter();
        if let (Some(card), Some(function)) = (self.card_of(endpoint, bar, offset), endpoint.function()) {
            let p = Place { function, offset, whole_bar: true, dma: &endpoint.dma };
            self.window_write(card, p, data);
        }
    }

    /// The card of an endpoint, if it answers there.
    fn card_of(&self, endpoint: &Endpoint, bar: u8, offset: u64) -> Option<&Card> {
        let here = bar == 0 && offset < ENDPOINT_BAR_SIZE && !self.faults.is_slice_gone(endpoint.slice);
        self.cards.get(endpoint.card).filter(|_| here)
    }

    fn window_write(&self, card: &Card, p: Place<'_>, data: &[u8]) {
        if p.offset >= u64::from(FIRST_UAR) * PAGE {
            self.trace.record(card.index, p.function, &Record::Doorbell { offset: p.offset, data });
            self.doorbell(card, p, data);
            return;
        }
        if p.whole_bar && p.offset >= ISEG_SIZE {
            return; // MSI-X table and pending bits
        }
        self.trace.record(card.index, p.function, &Record::Write { offset: p.offset, data });
        let mut after = vec![];
        for (i, word) in data.chunks(4).enumerate() {
            let at = p.offset + i as u64 * 4;
            let Some(word) = word.first_chunk::<4>().filter(|_| at.is_multiple_of(4)) else {
                self.unmodelled.record(card.index, p.function, Access::WindowWrite(at as u32));
                continue;
            };
            self.iseg_write(card, p, at, u32::from_be_bytes(*word), &mut after);
        }
        self.finish(&after);
    }

    fn iseg_write(&self, card: &Card, p: Place<'_>, at: u64, value: u32, after: &mut Vec<After>) {
        let mut ctl = card.control.lock();
        let function = p.function;
        let Some(f) = p.open(&mut ctl) else { return };
        match f.iseg.write(at, value) {
            IsegWrite::Done => {}
            IsegWrite::Doorbell(bits) => cmdq::doorbell(self, card, &mut ctl, function, bits),
            IsegWrite::FirmwareReset if function == PF => self.firmware_reset(card, &mut ctl),
            IsegWrite::Disable | IsegWrite::FirmwareReset => self.disable_function(card, &mut ctl, function),
            IsegWrite::Unmodelled => {
                self.unmodelled.record(card.index, function, Access::WindowWrite(at as u32));
            }
        }
        after.append(&mut ctl.after);
    }

    /// A write to a UAR page. It takes no control lock; a number that is not
    /// this function's finds nothing.
    fn doorbell(&self, card: &Card, p: Place<'_>, data: &[u8]) {
        let vports = card.fabric.vports.pin();
        let function = vports.get(&p.function).and_then(|v| v.function.load_full());
        let Some(function) = function.filter(|f| p.leads_to(f)) else { return };
        let page = (p.offset / PAGE) as u32;
        let Some(owner) = function.uars.pin().get(&page).copied() else {
            function.bad_doorbells.add(1);
            return;
        };
        let found = match Doorbell::decode((p.offset % PAGE) as u16, data) {
            Some(Doorbell::Sq { sqn, .. }) => match function.sqs.pin().get(&sqn) {
                Some(sq) if may_ring(owner, page, sq.uar) => {
                    if sq.queue.doorbell() {
                        let job = Job { card: card.index, function: function.clone(), sq: sq.queue.clone() };
                        self.work.push(job);
                    }
                    true
                }
                _ => false,
            },
            Some(Doorbell::CqArm { cqn, arm }) => function.cqs.pin().get(&cqn).is_some_and(|cq| {
                may_ring(owner, page, cq.uar) && {
                    match arm {
                        Some(arm) => cq.queue.arm(&p.dma.load(), arm),
                        None => cq.queue.arm_from_record(&p.dma.load()),
                    }
                    true
                }
            }),
            Some(Doorbell::EqArm { eqn, ci }) => function.eqs.pin().get(&u32::from(eqn)).is_some_and(|eq| {
                may_ring(owner, page, eq.uar) && {
                    eq.queue.arm(&p.dma.load(), ci);
                    true
                }
            }),
            Some(Doorbell::EqUpdate { eqn, ci }) => function.eqs.pin().get(&u32::from(eqn)).is_some_and(|eq| {
                may_ring(owner, page, eq.uar) && {
                    eq.queue.update_ci(&p.dma.load(), ci);
                    true
                }
            }),
            None => {
                let at = (p.offset % PAGE) as u32;
                self.unmodelled.record(card.index, p.function, Access::WindowWrite(at));
                true
            }
        };
        if !found {
            function.bad_doorbells.add(1);
        }
    }
}

/// Fills `out` with what is from `offset` on, which `dword` tells of each dword.
fn read_dwords(offset: u64, out: &mut [u8], dword: impl Fn(u64) -> u32) {
    let (mut at, mut rest) = (offset, out);
    while !rest.is_empty() {
        let skip = (at % 4) as usize;
        let (here, behind) = rest.split_at_mut(rest.len().min(4 - skip));
        here.copy_from_slice(&dword(at - skip as u64).to_be_bytes()[skip..skip + here.len()]);
        at += here.len() as u64;
        rest = behind;
    }
}

/// The kernel's pages ring any queue of the function; a user context's page
/// rings the queues that were created on it.
const fn may_ring(owner: u16, page: u32, queue_page: u32) -> bool {
    owner == 0 || page == queue_page
}
