//! Joining of TCP segments in a striding queue (LRO).
//!
//! The first segment is written as it is, with its headers; the payload of each one
//! that follows it goes behind it. The completion, of all of them, tells how many
//! there were and what the driver has to put into the headers
//! (`mlx5e_lro_update_hdr`). It is written when a frame does not follow, when the
//! sender pushes, when there is no more room, or when the burst ends: at most one
//! message of one flow is being joined in a queue at a time.

use sfnic_firmware_cmds::entries::Cqe64;

use super::KeyCheck;
use super::WqState;
use super::rq::{RxDrop, RxFrame, RxInfo};
use super::scatter::{Scatter, scatter_with};
use super::session::{RxSession, Told};
use super::stride::{MAX_BYTES, Open, Strides};
use super::wqe::WqeFault;
use crate::packet::checksum;

/// Most bytes of headers, from Ethernet with a tag to TCP with all options.
pub const SAME: usize = 128;
/// Most segments of a completion (`lro_num_seg`).
const MAX_SEGMENTS: u32 = Cqe64::lro_num_seg.max();
/// `CQE_L4_HDR_TYPE_TCP_ACK_AND_DATA`.
const ACK_AND_DATA: u32 = 4;

/// A TCP segment with data and an ACK, whose checksums are right, that may be
/// joined with others of its flow.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Its headers, without what may differ: lengths, identification, time to live,
    /// checksums, sequence numbers, window and PSH. Zeros behind them.
    pub same: [u8; SAME],
    /// Bytes of all headers in the frame.
    pub header: u16,
    /// Bytes of the TCP header.
    pub tcp_header: u16,
    /// Bytes of payload, with which the frame ends.
    pub payload: u16,
    /// Their sum, not complemented.
    pub sum: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window, not scaled.
    pub window: u16,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// The sender wants it to be read: the message ends.
    pub push: bool,
}

/// Segments that are being joined.
#[derive(Debug)]
pub(super) struct Merge {
    same: [u8; SAME],
    info: RxInfo,
    strip: bool,
    /// Bytes in memory.
    len: usize,
    /// Bytes behind the IP header.
    ip_payload: u32,
    segments: u32,
    next_seq: u32,
    ack: u32,
    window: u16,
    ttl: u8,
    push: bool,
    /// Sum of the payload, and whether it has an odd number of bytes.
    sum: u16,
    odd: bool,
}

impl Merge {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a segment goes on with it.
    fn goes_on(&self, s: &Segment, info: &RxInfo) -> bool {
        let tags = |i: &RxInfo| (i.rss_hash, i.flow_tag, i.metadata, i.vlan);
        self.next_seq == s.seq && tags(&self.info) == tags(info) && self.same == s.same
    }

    /// Takes in a segment, or the payload of so many that differ in nothing else.
    fn add(&mut self, s: &Segment, count: u32) {
        self.len += usize::from(s.payload);
        self.ip_payload += u32::from(s.payload);
        self.segments += count;
        self.next_seq = s.seq.wrapping_add(s.payload.into());
        (self.ack, self.window, self.push) = (s.ack, s.window, s.push);
        self.ttl = self.ttl.min(s.ttl);
        self.sum = checksum::add(self.sum, if self.odd { s.sum.swap_bytes() } else { s.sum });
        self.odd ^= s.payload % 2 == 1;
    }
}

impl<K: KeyCheck> RxSession<'_, '_, K> {
    /// As [`RxSession::deliver`] for a segment that may be joined with those before
    /// it and behind it, as long as no more than `limit` bytes follow the IP header.
    /// True where the queue now waits for more: [`RxSession::end_merge`] has to be
    /// called. In queues without strides each frame is by itself.
    pub fn deliver_segment(
        &mut self,
        frame: &impl RxFrame,
        info: &RxInfo,
        segment: &Segment,
        limit: u32,
    ) -> Result<bool, RxDrop> {
        let strides = self.rq.config.strides.filter(|_| !self.inner.scatter_fcs);
        let Some(strides) = strides else { return self.deliver(frame, info).map(|()| false) };
        if self.rq.state.get() != WqState::Rdy {
            return Err(RxDrop::NotReady);
        }
        if let Some(at) = self.follows(strides, info, segment, limit) {
            self.append(frame, segment, 1, at)?;
        } else {
            self.end_merge()?;
            self.begin(strides, frame, info, segment)?;
        }
        self.end_full()
    }

    /// How many more segments of `each` bytes of payload fit what is being joined.
    pub fn room_for(&self, each: usize, limit: u32) -> usize {
        let (Some(m), Some(strides)) = (self.inner.merge.as_deref(), self.rq.config.strides) else { return 0 };
        let buffer = (strides.left(self.inner.open) as usize) << strides.log_size();
        let bytes = MAX_BYTES.min(buffer).saturating_sub(m.len);
        let bytes = bytes.min(limit.saturating_sub(m.ip_payload) as usize);
        (bytes / each.max(1)).min(MAX_SEGMENTS.saturating_sub(m.segments) as usize)
    }

    /// As [`RxSession::deliver_segment`] of so many segments of one message at once, none of which
    /// is pushed: the frame has the payload of all, as `all` tells. None, and nothing done, where
    /// they do not go on with what is being joined, or there is no [`RxSession::room_for`] for them.
    pub fn deliver_run(
        &mut self,
        frame: &impl RxFrame,
        info: &RxInfo,
        all: &Segment,
        count: u32,
        limit: u32,
    ) -> Option<Result<bool, RxDrop>> {
        let strides = self.rq.config.strides.filter(|_| self.rq.state.get() == WqState::Rdy)?;
        let at = self.follows(strides, info, all, limit)?;
        if self.inner.merge.as_ref().is_none_or(|m| m.segments + count > MAX_SEGMENTS) {
            return None;
        }
        Some(self.append(frame, all, count, at).and_then(|()| self.end_full()))
    }

    /// Ends what has been joined where nothing may follow it; whether it goes on.
    fn end_full(&mut self) -> Result<bool, RxDrop> {
        let ends = |m: &Merge| m.push || m.segments >= MAX_SEGMENTS;
        if self.inner.merge.as_deref().is_some_and(ends) {
            self.end_merge()?;
        }
        Ok(self.inner.merge.is_some())
    }

    /// Where in the buffer a segment's payload goes, if it is joined.
    fn follows(&self, strides: Strides, info: &RxInfo, s: &Segment, limit: u32) -> Option<u64> {
        let (m, open) = (self.inner.merge.as_deref()?, self.inner.open?);
        let len = m.len + usize::from(s.payload);
        let fits = len <= MAX_BYTES
            && strides.of(len) <= strides.left(Some(open))
            && m.ip_payload + u32::from(s.payload) <= limit;
        (fits && m.goes_on(s, info)).then(|| strides.at(open.used) + m.len as u64)
    }

    fn begin(&mut self, strides: Strides, frame: &impl RxFrame, info: &RxInfo, s: &Segment) -> Result<(), RxDrop> {
        self.place(strides, frame, info)?;
        let (source, len) = self.source(frame, info);
        self.inner.merge = Some(Box::new(Merge {
            same: s.same,
            info: *info,
            strip: source.strip,
            len,
            ip_payload: u32::from(s.tcp_header) + u32::from(s.payload),
            segments: 1,
            next_seq: s.seq.wrapping_add(s.payload.into()),
            ack: s.ack,
            window: s.window,
            ttl: s.ttl,
            push: s.push,
            sum: s.sum,
            odd: s.payload % 2 == 1,
        }));
        Ok(())
    }

    /// Writes a segment's payload, or that of `count`, behind those before it.
    fn append(&mut self, frame: &impl RxFrame, s: &Segment, count: u32, at: u64) -> Result<(), RxDrop> {
        let index = self.inner.open.map_or(0, |o| o.index);
        let found = self.rq.find(&mut self.inner, self.keys, at, s.payload.into());
        let written = found.and_then(|()| {
            let header = usize::from(s.header);
            let done = scatter_with(self.mem, &self.inner.ranges, |pos, piece| frame.copy_to(header + pos, &piece));
            match done {
                Err(Scatter::Buffer) => Err(WqeFault::Dma),
                other => Ok(other),
            }
        });
        match written {
            Ok(Ok(())) => {
                if let Some(m) = &mut self.inner.merge {
                    m.add(s, count);
                }
                Ok(())
            }
            // Those before it are as they were.
            Ok(Err(_)) => Err(RxDrop::Source),
            // Those before it are lost with the rest of the buffer.
            Err(fault) => Err(self.broken(index, fault)),
        }
    }

    /// Completes what has been joined, if anything.
    pub fn end_merge(&mut self) -> Result<(), RxDrop> {
        let (Some(m), Some(strides), Some(open)) = (self.inner.merge.take(), self.rq.config.strides, self.inner.open)
        else {
            return Ok(());
        };
        let done = self.tell(&m, strides, open);
        self.take(strides, strides.of(m.len));
        done
    }

    fn tell(&mut self, m: &Merge, strides: Strides, open: Open) -> Result<(), RxDrop> {
        let told = Told { debtor: self.stride_debtor(open), len: m.len, strip: m.strip, frames: m.segments.into() };
        self.complete(told, &m.info, |cqe| {
            cqe.set(Cqe64::wqe_id, open.index.into()).set(Cqe64::consumed_strides, strides.of(m.len));
            // The driver takes a single one as any other frame.
            if m.segments > 1 {
                cqe.set(Cqe64::lro_num_seg, m.segments)
                    .set(Cqe64::lro_tcppsh, m.push.into())
                    .set(Cqe64::lro_min_ttl, m.ttl.into())
                    .set(Cqe64::lro_tcp_win, m.window.into())
                    .set(Cqe64::lro_ack_seq_num, m.ack)
                    .set(Cqe64::l4_hdr_type, ACK_AND_DATA)
                    .set(Cqe64::check_sum, m.sum.into());
            }
        })
    }
}
