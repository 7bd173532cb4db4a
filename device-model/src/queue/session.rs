//! Frames into a receive queue, as long as somebody holds its lock.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use sfnic_firmware_cmds::Words;
use sfnic_firmware_cmds::entries::{Cqe64, cqe_opcode};
use sfnic_firmware_cmds::layout::Field;

use super::cq::{CqBatch, CqFault, Debtor};
use super::rq::{Inner, Rq, RxDrop, RxFrame, RxInfo};
use super::scatter::{Scatter, Source, VLAN_AT, VLAN_LEN, scatter};
use super::wqe::WqeFault;
use super::{KeyCheck, WqState};
use crate::dma::Near;
use crate::small;

/// A receive queue and its completion queue, locked for several frames. What
/// becomes of them is told by one event when the session ends.
pub struct RxSession<'a, 'm, K> {
    pub(super) rq: &'a Rq,
    /// Declared before the queue's lock: the completion queue is released first.
    pub(super) cq: CqBatch<'a, 'm>,
    pub(super) inner: MutexGuard<'a, Inner>,
    pub(super) mem: &'a Near<'m>,
    pub(super) keys: &'a K,
    now: u64,
    /// The queue is ready, and buffers are for one frame each, one behind the other.
    simple: bool,
}

impl<'a, 'm, K: KeyCheck> RxSession<'a, 'm, K> {
    pub(super) fn new(
        rq: &'a Rq,
        inner: MutexGuard<'a, Inner>,
        cq: CqBatch<'a, 'm>,
        mem: &'a Near<'m>,
        keys: &'a K,
        now: u64,
    ) -> Self {
        let c = &rq.config;
        let simple = c.strides.is_none() && !c.linked && !inner.scatter_fcs && rq.state.get() == WqState::Rdy;
        Self { rq, cq, inner, mem, keys, now, simple }
    }

    /// The queue.
    pub fn rq(&self) -> &Rq {
        self.rq
    }

    /// As [`Rq::is_starved`].
    pub fn is_starved(&mut self, len: usize) -> bool {
        self.rq.lacks(&mut self.inner, self.mem, len)
    }

    /// Receives a frame: copies it into the next posted buffers and writes the
    /// completion. The receive counter is read only when the posted buffers
    /// known of are used up.
    #[inline(always)]
    pub fn deliver(&mut self, frame: &impl RxFrame, info: &RxInfo) -> Result<(), RxDrop> {
        match self.deliver_at_once(frame, info) {
            Some(end) => end,
            // A copy, so that what is told of most frames need not lie in memory.
            None => self.deliver_slowly(frame, &RxInfo { ..*info }),
        }
    }

    /// Receives a frame that is one piece of our memory into a buffer that is one of the guest's,
    /// and known of: most frames' case. None where it is not so; nothing has happened then.
    #[inline(always)]
    fn deliver_at_once(&mut self, frame: &impl RxFrame, info: &RxInfo) -> Option<Result<(), RxDrop>> {
        let (rq, q) = (self.rq, &mut *self.inner);
        let bytes = frame.whole().filter(|_| self.simple)?;
        if info.vlan.is_some() && !q.vlan_strip_disable {
            return None;
        }
        let iova = rq.one_piece(q, self.mem, self.keys, bytes.len())?;
        let room = self.mem.slice(iova, bytes.len(), true)?;
        small::write(&room, bytes);
        let told = Told { debtor: rq.debtor(rq.index(q)), len: bytes.len(), strip: false, frames: 1 };
        rq.advance(q, 0);
        Some(self.complete(told, info, |_| ()))
    }

    /// Receives any frame.
    #[inline(never)]
    fn deliver_slowly(&mut self, frame: &impl RxFrame, info: &RxInfo) -> Result<(), RxDrop> {
        if self.rq.state.get() != WqState::Rdy {
            return Err(RxDrop::NotReady);
        }
        if let Some(strides) = self.rq.config.strides {
            return self.deliver_strided(strides, frame, info);
        }
        let posted = self.some_buffer()?;
        let (source, len) = self.source(frame, info);
        let (rq, q, mem) = (self.rq, &mut *self.inner, self.mem);
        let index = rq.index(q);
        let told = Told { debtor: rq.debtor(index), len, strip: source.strip, frames: 1 };
        let found = rq.read_wqe(q, mem, posted).and_then(|next| rq.find(q, self.keys, 0, len).map(|()| next));
        let next = match found {
            Ok(next) => next,
            Err(WqeFault::Length) => {
                q.too_long += 1;
                return Err(RxDrop::TooLong);
            }
            Err(fault) => return Err(self.broken(index, fault)),
        };
        match scatter(mem, &q.ranges, &source) {
            Ok(()) => {}
            Err(Scatter::Source) => return Err(RxDrop::Source),
            Err(Scatter::Buffer) => return Err(self.broken(index, WqeFault::Dma)),
        }
        rq.advance(q, next);
        self.complete(told, info, |_| ())
    }

    /// How many WQEs are posted; refuses where none is.
    pub(super) fn some_buffer(&mut self) -> Result<u16, RxDrop> {
        let q = &mut *self.inner;
        let posted = self.rq.posted(q, self.mem);
        if posted > 0 {
            return Ok(posted);
        }
        q.no_buffer += 1;
        if let Some(c) = &q.counter_set {
            c.out_of_buffer.fetch_add(1, Ordering::Relaxed);
        }
        Err(RxDrop::NoBuffer)
    }

    /// What of a frame is written, and how long that is.
    pub(super) fn source<'f, F: RxFrame>(&self, frame: &'f F, info: &RxInfo) -> (Source<'f, F>, usize) {
        let strip = !self.inner.vlan_strip_disable && info.vlan.is_some() && frame.len() >= VLAN_AT + VLAN_LEN;
        let fcs = info.fcs.filter(|_| self.inner.scatter_fcs);
        let body = frame.len() - if strip { VLAN_LEN } else { 0 };
        (Source { frame, strip, body, fcs }, body + fcs.map_or(0, |f| f.len()))
    }

    /// WQE `index` is at fault: the queue is in error.
    pub(super) fn broken(&mut self, index: u16, fault: WqeFault) -> RxDrop {
        self.rq.fail(&mut self.inner, &mut self.cq, index, fault);
        self.stop();
        RxDrop::Buffer(fault)
    }

    #[cold]
    fn stop(&mut self) {
        self.simple = false;
        self.rq.state.set(WqState::Err);
        self.inner.merge = None;
        self.rq.flush(&mut self.inner, self.mem, &mut self.cq);
    }

    /// Writes the completion of what has been received, with what `more` sets.
    /// Where that fails the queue is in error.
    #[inline(always)]
    pub(super) fn complete(
        &mut self,
        told: Told,
        info: &RxInfo,
        more: impl FnOnce(&mut Words<Cqe64, 8>),
    ) -> Result<(), RxDrop> {
        let cut = |field: Field<Cqe64>, value: u32| value & field.max();
        let Told { debtor, len, strip, frames } = told;
        let sum = if strip { info.check_sum_stripped } else { info.check_sum };
        let mut cqe = Words::new();
        debtor
            .signs(&mut cqe)
            .set(Cqe64::rss_hash_result, info.rss_hash)
            .set(Cqe64::rss_ip_type, cut(Cqe64::rss_ip_type, info.rss_type.ip.into()))
            .set(Cqe64::rss_l4_type, cut(Cqe64::rss_l4_type, info.rss_type.l4.into()))
            .set(Cqe64::check_sum, sum.into())
            .set(Cqe64::outer_l3_tunneled, info.tunneled.into())
            .set(Cqe64::l2_ok, 1)
            .set(Cqe64::l3_ok, info.l3_ok.into())
            .set(Cqe64::l4_ok, info.l4_ok.into())
            .set(Cqe64::l3_hdr_type, cut(Cqe64::l3_hdr_type, info.l3_type.into()))
            .set(Cqe64::l4_hdr_type, cut(Cqe64::l4_hdr_type, info.l4_type.into()))
            .set(Cqe64::vlan_stripped, strip.into())
            .set(Cqe64::vlan_info, info.vlan.unwrap_or(0).into())
            .set(Cqe64::ft_metadata, info.metadata)
            .set(Cqe64::flow_tag, cut(Cqe64::flow_tag, info.flow_tag))
            .set(Cqe64::byte_cnt, len as u32)
            .set(Cqe64::opcode, cqe_opcode::RESP_SEND)
            .set64(Cqe64::timestamp, self.now);
        more(&mut cqe);
        let written = self.cq.put(false, cqe);
        self.written(written)?;
        self.inner.packets += frames;
        self.inner.bytes += len as u64;
        Ok(())
    }

    /// The queue is in error where a completion could not be written.
    pub(super) fn written(&mut self, written: Result<(), CqFault>) -> Result<(), RxDrop> {
        if written.is_err() {
            self.stop();
        }
        written.map_err(RxDrop::Completion)
    }
}

/// What a completion tells beside what is known of the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// Who owes it; the number of the first stride in a striding queue.
    pub(super) debtor: Debtor,
    /// Bytes in memory.
    pub(super) len: usize,
    /// The VLAN tag is not among them.
    pub(super) strip: bool,
    /// Frames.
    pub(super) frames: u64,
}
