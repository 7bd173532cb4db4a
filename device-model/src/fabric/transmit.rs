//! From a send WQE to frames.

use std::sync::atomic::Ordering;

use super::burst::{self, From, Source};
use super::flows::cache::Cache;
use super::kept::Kept;
use super::message;
use super::pipeline::Pipeline;
use super::plane::FunctionPlane;
use crate::dma::Near;
use crate::packet::checksum::{self, Fill};
use crate::packet::frame::{HDR_CAP, MIN_LEN};
use crate::packet::{Frame, Sender, TunnelPorts, lso};
use crate::queue::{Csum, PLAIN_MAX, Piece, PlainSend, TxResult, TxSink, TxWqe, WqeFault};
use crate::unmodelled::Access;

/// Shortest frame on a wire without its check sequence; shorter ones are
/// padded, and the driver counts them so.
const MIN_FRAME: usize = 60;
/// EtherType of a C-VLAN tag.
const C_VLAN: u16 = 0x8100;

/// Sends what a function's send queue holds.
pub struct Transmit<'a, 'n> {
    /// The way through the device.
    pipeline: &'a mut Pipeline<'n>,
    /// Known flows; none where every frame is to go the long way.
    cache: Option<&'a mut Cache>,
    from: From<'a>,
    /// Guest memory of this burst.
    near: Near<'a>,
    /// Frames whose flows may be known, and the one that is being formed.
    kept: Kept<'a>,
    /// A message that is cut into frames, where there was one.
    message: Option<Box<Frame<'a>>>,
    /// What the port's parser knows of tunnels.
    tunnels: TunnelPorts,
    /// Bytes that may be sent, and that were.
    allowance: u64,
    sent: u64,
}

impl<'a, 'n> Transmit<'a, 'n> {
    /// One burst of a send queue, over when so many bytes were sent.
    pub fn new(
        pipeline: &'a mut Pipeline<'n>,
        cache: Option<&'a mut Cache>,
        from: From<'a>,
        near: Near<'a>,
        allowance: u64,
    ) -> Self {
        let cache = cache.filter(|_| !pipeline.nic.is_watched());
        let tunnels = **from.card.fabric.tunnels.load();
        let kept = Kept::default();
        Self { pipeline, cache, from, near, kept, message: None, tunnels, allowance, sent: 0 }
    }

    /// Bytes that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Forms the bytes of the next frame, of an LSO the whole message.
    fn form(&mut self, wqe: &TxWqe<'_>) -> Result<&mut Frame<'a>, WqeFault> {
        let f = self.kept.next();
        f.tunnel_ports = self.tunnels;
        gather(f, wqe, &self.near)?;
        Ok(f)
    }

    /// A frame whose flow may be known: it is kept, or goes the long way.
    fn keep(&mut self, wqe: &TxWqe<'_>) -> Result<TxResult, WqeFault> {
        let sender = sender(&self.from, wqe.metadata);
        let bytes = self.form(wqe)?.len() as u64;
        self.keep_formed(sender, fill(wqe.csum), true);
        Ok(TxResult::Sent { frames: 1, bytes })
    }

    /// The frame that was formed last. With `begins` it is the first of its message.
    #[inline(never)]
    fn keep_formed(&mut self, sender: Sender, fill: Fill, begins: bool) {
        if let Some(cache) = self.cache.as_deref_mut() {
            self.kept.keep(self.pipeline, cache, Source::Queue(self.from), (sender, fill, begins));
        }
    }

    /// A message whose segments' flows may be known: they are kept, or it goes the
    /// long way.
    fn keep_segments(&mut self, wqe: &TxWqe<'_>, mss: usize) -> Result<TxResult, WqeFault> {
        let sender = sender(&self.from, wqe.metadata);
        let mut message = self.message.take().unwrap_or_else(|| Box::new(Frame::empty()));
        message.tunnel_ports = self.tunnels;
        gather(&mut message, wqe, &self.near)?;
        let Some(key) = message.quick_parse(sender) else { return self.send_now(wqe) };
        let cut = lso::Cut::new(&message, mss, wqe.header.len()).ok_or(WqeFault::LsoParameters)?;
        let taken = self.cache.as_deref_mut().map_or(0, |cache| {
            let from = Source::Queue(self.from);
            message::take(self.pipeline, cache, from, (sender, &key), (&message, &cut), &mut self.kept)
        });
        for i in taken..cut.count() {
            cut.segment(&message, i, self.kept.next());
            self.keep_formed(sender, cut.fill(), i == 0);
        }
        let (frames, headers) = (cut.count(), wqe.header.len());
        let bytes = message.len() + (frames - 1) * headers;
        self.message = Some(message);
        Ok(TxResult::Sent { frames: frames as u32, bytes: bytes as u64 })
    }

    /// A frame or message that goes the long way.
    fn send_now(&mut self, wqe: &TxWqe<'_>) -> Result<TxResult, WqeFault> {
        self.flush();
        let from = self.from;
        let f = self.form(wqe)?;
        f.key.0.fill(0);
        burst::read_headers(from, f, wqe.metadata);
        if let Some(tci) = wqe.vlan
            && !f.push_vlan(C_VLAN, tci)
        {
            return Err(WqeFault::Length);
        }
        self.pipeline.begin_message();
        let (mut frames, mut bytes) = (0, 0);
        let (pipeline, f) = (&mut *self.pipeline, self.kept.next());
        let mut one = |f: &mut Frame<'_>| {
            frames += 1;
            bytes += f.len() as u64;
            pipeline.send(from.card, from.function, f);
        };
        if let Some(mss) = wqe.mss {
            let hdr = wqe.header.len() + if wqe.vlan.is_some() { 4 } else { 0 };
            if lso::segment(f, mss.get().into(), hdr, one).is_none() {
                return Err(WqeFault::LsoParameters);
            }
        } else {
            checksum::fill(f, fill(wqe.csum));
            one(f);
        }
        Ok(TxResult::Sent { frames, bytes })
    }
}

impl TxSink for Transmit<'_, '_> {
    fn send(&mut self, wqe: &TxWqe<'_>) -> TxResult {
        if is_down(self.from.function) {
            // What is wrong with the WQE is told all the same.
            if let Err(fault) = self.form(wqe) {
                return TxResult::Failed(fault);
            }
            self.from.function.tx_link_down.add(1);
            return TxResult::Dropped;
        }
        let sent = match wqe.mss {
            _ if self.cache.is_none() || wqe.vlan.is_some() => self.send_now(wqe),
            Some(mss) => self.keep_segments(wqe, mss.get().into()),
            None => self.keep(wqe),
        };
        if let Ok(TxResult::Sent { bytes, .. }) = &sent {
            self.sent = self.sent.saturating_add(*bytes);
        }
        sent.unwrap_or_else(TxResult::Failed)
    }

    #[inline(always)]
    fn send_plain(&mut self, send: &PlainSend<'_>) -> Option<u64> {
        const _: () = assert!(PLAIN_MAX <= HDR_CAP);
        let len = send.head_len + send.len;
        let cache = self.cache.as_deref_mut().filter(|_| len >= MIN_FRAME)?;
        if is_down(self.from.function) {
            return None;
        }
        let slice = self.near.slice(send.iova, send.len, false)?;
        let f = self.kept.next();
        f.tunnel_ports = self.tunnels;
        f.refill(send.head, send.head_len, &slice);
        let sender = sender(&self.from, send.metadata);
        self.kept.keep(self.pipeline, cache, Source::Queue(self.from), (sender, fill(send.csum), true));
        let bytes = len as u64;
        self.sent = self.sent.saturating_add(bytes);
        Some(bytes)
    }

    fn flush(&mut self) {
        if let Some(cache) = self.cache.as_deref_mut() {
            self.kept.flush(self.pipeline, cache, Source::Queue(self.from));
        }
    }

    fn has_done_enough(&self) -> bool {
        self.sent >= self.allowance || self.pipeline.has_done_enough()
    }

    fn unmodelled(&mut self, _: u32, opcode: u8) {
        let from = &self.from;
        self.pipeline.nic.unmodelled.record(from.card.index, from.function.id, Access::WqeOpcode(opcode));
    }
}

/// Who sends, as flows are told apart.
fn sender(from: &From<'_>, reg_a: u32) -> Sender {
    Sender { card: from.card.index as u8, vport: from.function.vport.number, sqn: from.sqn, reg_a }
}

fn is_down(f: &FunctionPlane) -> bool {
    f.id != 0 && !f.vport.link.load(Ordering::Relaxed)
}

fn fill(c: Csum) -> Fill {
    Fill { l3: c.l3, l4: c.l4, inner_l3: c.inner_l3, inner_l4: c.inner_l4 }
}

/// The bytes of a WQE's frame, padded; of an LSO the whole message.
fn gather<'a>(f: &mut Frame<'a>, wqe: &TxWqe<'_>, near: &Near<'a>) -> Result<(), WqeFault> {
    let copy = if wqe.mss.is_some() { wqe.header.len().clamp(MIN_LEN, HDR_CAP) } else { HDR_CAP };
    f.restart();
    let (mut fits, mut gathered) = (true, false);
    for piece in wqe.pieces() {
        match piece {
            // Inline data that does not fit the header buffer, or behind gathered data, is not taken.
            Piece::Bytes(b) => fits &= !gathered && f.append(b),
            Piece::Guest { iova, len } => {
                gathered = true;
                let mapped = near.slices(iova, len as usize, |s| fits &= f.append_slice(s, copy));
                mapped.map_err(|_| WqeFault::Dma)?;
            }
        }
    }
    if !fits || !f.is_long_enough() {
        return Err(WqeFault::Length);
    }
    if wqe.mss.is_none() {
        f.pad(MIN_FRAME);
    }
    Ok(())
}
