//! From a send WQE to frames.

use super::burst::{self, From, KEPT, Note, Source};
use super::flows::cache::Cache;
use super::pipeline::Pipeline;
use crate::dma::Near;
use crate::faults::Place;
use crate::packet::checksum::{self, Fill};
use crate::packet::frame::{HDR_CAP, MIN_LEN};
use crate::packet::{Frame, Sender, TunnelPorts, lso};
use crate::queue::{Piece, TxResult, TxSink, TxWqe, WqeFault};
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
    /// Frames that are kept, as many as there are notes, and one that is being
    /// formed; used again and again.
    frames: Vec<Frame<'a>>,
    notes: Vec<Note>,
    /// A message that is cut into frames; one at most.
    message: Vec<Frame<'a>>,
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
        // Who wants to see every decision gets every decision made.
        let nic = pipeline.nic;
        let watched = nic.explainer.is_on() || nic.capture.is_on() || nic.faults.at(Place::Frames);
        let cache = cache.filter(|_| !watched);
        let tunnels = **from.card.fabric.tunnels.load();
        let (frames, notes, message) = (Vec::new(), Vec::new(), Vec::new());
        Self { pipeline, cache, from, near, frames, notes, message, tunnels, allowance, sent: 0 }
    }

    /// Bytes that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Forms the bytes of the next frame, of an LSO the whole message.
    fn form(&mut self, wqe: &TxWqe<'_>) -> Result<&mut Frame<'a>, WqeFault> {
        let f = nth(&mut self.frames, self.notes.len());
        f.tunnel_ports = self.tunnels;
        gather(f, wqe, &self.near)?;
        Ok(f)
    }

    /// Who sends, as flows are told apart.
    fn sender(&self, wqe: &TxWqe<'_>) -> Sender {
        let From { card, function, .. } = self.from;
        Sender { card: card.index as u8, vport: function.vport.number, sqn: wqe.sqn, reg_a: wqe.metadata }
    }

    fn is_down(&self) -> bool {
        let f = self.from.function;
        f.id != 0 && !f.vport.link.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A frame whose flow may be known: it is kept, or goes the long way.
    fn keep(&mut self, wqe: &TxWqe<'_>) -> Result<TxResult, WqeFault> {
        let sender = self.sender(wqe);
        let bytes = self.form(wqe)?.len() as u64;
        self.keep_formed(sender, fill(wqe), true);
        Ok(TxResult::Sent { frames: 1, bytes })
    }

    /// The frame that was formed last. With `begins` it is the first of its message.
    #[inline]
    fn keep_formed(&mut self, sender: Sender, fill: Fill, begins: bool) {
        let at = self.notes.len();
        let reg_a = sender.reg_a;
        match self.frames[at].quick_parse(sender) {
            Some(key) => {
                self.notes.push(Note { key, hash: key.hash(), fill, reg_a, begins });
                if self.notes.len() >= KEPT {
                    self.flush();
                }
            }
            None => {
                // Those before it first.
                self.flush();
                let (from, f) = (self.from, &mut self.frames[at]);
                f.key.0.fill(0);
                burst::read_headers(from, f, reg_a);
                checksum::fill(f, fill);
                if begins {
                    self.pipeline.begin_message();
                }
                self.pipeline.send(from.card, from.function, f);
            }
        }
    }

    /// A message whose segments' flows may be known: they are kept, or it goes the
    /// long way.
    fn keep_segments(&mut self, wqe: &TxWqe<'_>, mss: usize) -> Result<TxResult, WqeFault> {
        let sender = self.sender(wqe);
        let message = nth(&mut self.message, 0);
        message.tunnel_ports = self.tunnels;
        gather(message, wqe, &self.near)?;
        if message.quick_parse(sender).is_none() {
            return self.send_now(wqe);
        }
        let cut = lso::Cut::new(message, mss, wqe.header.len()).ok_or(WqeFault::LsoParameters)?;
        let (mut frames, mut bytes) = (0, 0);
        for i in 0..cut.count() {
            let segment = nth(&mut self.frames, self.notes.len());
            cut.segment(&self.message[0], i, segment);
            frames += 1;
            bytes += segment.len() as u64;
            self.keep_formed(sender, cut.fill(), i == 0);
        }
        Ok(TxResult::Sent { frames, bytes })
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
        let (pipeline, f) = (&mut *self.pipeline, &mut self.frames[0]);
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
            checksum::fill(f, fill(wqe));
            one(f);
        }
        Ok(TxResult::Sent { frames, bytes })
    }
}

impl TxSink for Transmit<'_, '_> {
    fn send(&mut self, wqe: &TxWqe<'_>) -> TxResult {
        if self.is_down() {
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

    fn flush(&mut self) {
        let n = self.notes.len();
        if let Some(cache) = self.cache.as_deref_mut().filter(|_| n > 0) {
            burst::send(self.pipeline, cache, Source::Queue(self.from), &mut self.frames[..n], &self.notes);
            self.notes.clear();
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

/// A frame that is there to be used again.
fn nth<'f, 'm>(frames: &'f mut Vec<Frame<'m>>, n: usize) -> &'f mut Frame<'m> {
    while frames.len() <= n {
        frames.push(Frame::empty());
    }
    &mut frames[n]
}

fn fill(wqe: &TxWqe<'_>) -> Fill {
    let c = wqe.csum;
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
