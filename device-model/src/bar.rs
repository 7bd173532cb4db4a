//! The windows through which drivers reach functions: BAR 0 is the physical
//! function's, BAR 2 holds one for each sub-function. A window reaches its own
//! function and nothing else.

use crate::cmdq;
use crate::control::PF;
use crate::control::iseg::{ISEG_SIZE, IsegWrite};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    function: u16,
    offset: u64,
}

impl Card {
    fn place(&self, bar: u8, offset: u64) -> Option<Place> {
        match bar {
            0 if offset < BAR0_SIZE => Some(Place { function: PF, offset }),
            2 if offset < self.config.bar2_size() => {
                let index = (offset >> self.config.log_sf_window) as u16;
                let offset = offset & ((1 << self.config.log_sf_window) - 1);
                Some(Place { function: self.config.sf_base.checked_add(index)?, offset })
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
        let first = u64::from(FIRST_UAR) * PAGE;
        let functions = std::iter::once(PF).chain((0..self.config.max_sfs).map(|i| self.config.sf_base + i));
        let windows = functions.filter_map(|f| self.window(f).filter(|(b, _)| *b == bar).map(|(_, at)| (f, at)));
        let area = |(f, at)| (at + first, u64::from(self.uar_limit(f)) * PAGE);
        windows.map(area).filter(|(_, len)| *len > 0).collect()
    }

    /// How many UAR pages a function's window has room for.
    pub fn uar_limit(&self, function: u16) -> u32 {
        let size = if function == PF { BAR0_SIZE } else { 1 << self.config.log_sf_window };
        (size / PAGE) as u32 - FIRST_UAR
    }
}

impl Nic {
    /// The driver reads a BAR. What is not there reads as ones.
    pub fn bar_read(&self, card: &Card, bar: u8, offset: u64, out: &mut [u8]) {
        out.fill(0xff);
        let Some(p) = card.place(bar, offset).filter(|_| !self.faults.is_gone(card.index)) else { return };
        if p.function == PF && (MSIX_TABLE..MSIX_PBA + PAGE).contains(&p.offset) && p.offset >= ISEG_SIZE {
            out.fill(0); // QEMU keeps table and pending bits itself
            return;
        }
        let ctl = card.control.lock();
        if p.function != PF && !ctl.sf(p.function).is_some_and(|s| s.state.has_window()) {
            return;
        }
        let Some(f) = ctl.functions.get(&p.function) else { return };
        let khz = self.timer_khz;
        let now = self.clock.now_ns();
        for (i, b) in out.iter_mut().enumerate() {
            let at = p.offset + i as u64;
            let dword = if at < ISEG_SIZE { f.iseg.read(at & !3, self.profile.firmware, now, khz) } else { Some(0) };
            let dword = dword.map(|d| self.faults.health(card.index, p.function, at & !3, d));
            if dword.is_none() && at & 3 == 0 {
                self.unmodelled.record(card.index, p.function, Access::WindowRead((at & !3) as u32));
            }
            *b = dword.unwrap_or(0).to_be_bytes()[(at & 3) as usize];
        }
        self.trace.record(card.index, p.function, &Record::Read { offset: p.offset, data: out });
    }

    /// The driver writes a BAR. What is not there takes no write.
    pub fn bar_write(&self, card: &Card, bar: u8, offset: u64, data: &[u8]) {
        let Some(p) = card.place(bar, offset).filter(|_| !self.faults.is_gone(card.index)) else { return };
        if p.offset >= u64::from(FIRST_UAR) * PAGE {
            self.trace.record(card.index, p.function, &Record::Doorbell { offset: p.offset, data });
            self.doorbell(card, p, data);
            return;
        }
        if p.function == PF && p.offset >= ISEG_SIZE {
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
            self.iseg_write(card, p.function, at, u32::from_be_bytes(*word), &mut after);
        }
        self.finish(&after);
    }

    fn iseg_write(&self, card: &Card, function: u16, at: u64, value: u32, after: &mut Vec<crate::control::After>) {
        let mut ctl = card.control.lock();
        if function != PF && !ctl.sf(function).is_some_and(|s| s.state.has_window()) {
            return;
        }
        let Some(f) = ctl.functions.get_mut(&function) else { return };
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
    fn doorbell(&self, card: &Card, p: Place, data: &[u8]) {
        let vports = card.fabric.vports.pin();
        let Some(function) = vports.get(&p.function).and_then(|v| v.function.load_full()) else { return };
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
                        Some(arm) => cq.queue.arm(&card.dma.load(), arm),
                        None => cq.queue.arm_from_record(&card.dma.load()),
                    }
                    true
                }
            }),
            Some(Doorbell::EqArm { eqn, ci }) => function.eqs.pin().get(&u32::from(eqn)).is_some_and(|eq| {
                may_ring(owner, page, eq.uar) && {
                    eq.queue.arm(&card.dma.load(), ci);
                    true
                }
            }),
            Some(Doorbell::EqUpdate { eqn, ci }) => function.eqs.pin().get(&u32::from(eqn)).is_some_and(|eq| {
                may_ring(owner, page, eq.uar) && {
                    eq.queue.update_ci(&card.dma.load(), ci);
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

/// The kernel's pages ring any queue of the function; a user context's page
/// rings the queues that were created on it.
const fn may_ring(owner: u16, page: u32, queue_page: u32) -> bool {
    owner == 0 || page == queue_page
}
