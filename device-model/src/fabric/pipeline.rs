//! The way of a frame through eswitch and receive steering.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::RwLockReadGuard;
use sfnic_firmware_cmds::layout::Field;
use sfnic_firmware_cmds::layouts::FteMatchSetMisc2;
use smallvec::SmallVec;

use super::burst::Learnt;
use super::counters::Cast;
use super::flows::cache::End;
use super::flows::record::Record as FlowRecord;
use super::peer::{HostSide, Peer};
use super::plane::FunctionPlane;
use super::police::Police;
use super::port::Far;
use super::tir::Tir;
use super::vport::{UPLINK, Vport};
use crate::capture::Way;
use crate::explain::Record;
use crate::nic::{Card, Manager, Nic};
use crate::packet::key::MISC2;
use crate::packet::lso::Cut;
use crate::packet::{FlowKey, Frame};
use crate::queue::Rq;
use crate::steering::{NoTrace, Reader, TableType, Verdict};
use crate::world::Wire;

/// How often one frame may pass a port or a vport, copies included: far more
/// than any sensible configuration, and an end to loops through wires.
const MAX_CROSSINGS: u32 = 4096;
/// How often the frames of one message may do so. A message of 64 KiB in frames
/// of 1500 bytes reaches 700 vports; a driver that wants its smallest segments
/// copied to hundreds of vports would keep a worker for seconds.
const MAX_MESSAGE: u32 = 1 << 15;
/// After so many a burst ends, and other queues get their turn.
const MAX_BURST: u32 = 1 << 13;
/// How deep ways may nest: eswitch, wire, eswitch, …
const MAX_DEPTH: u32 = 8;
/// Bytes of a frame check sequence, which MTUs of the port include.
const FCS: usize = 4;

/// Takes frames through the device on behalf of one worker.
pub struct Pipeline<'n> {
    /// The device.
    pub nic: &'n Nic,
    /// Number of the worker, for counters.
    pub worker: usize,
    /// Time stamp of completions, in ticks of the internal timer.
    pub now: u64,
    /// Of this frame, of this message, of this burst.
    crossings: u32,
    message: u32,
    burst: u32,
    depth: u32,
    record: Option<Record>,
    /// What the frame's way teaches, where somebody wants to learn.
    pub(super) flow: Option<Rc<RefCell<FlowRecord>>>,
    /// Whether a wire outside has got frames.
    left: bool,
    /// Peers that have got frames, by vport.
    pub(super) peers: SmallVec<[(Arc<Vport>, Arc<Peer>); 2]>,
    /// Receive queues that are joining segments.
    pub(super) merging: SmallVec<[(Arc<FunctionPlane>, Arc<Rq>); 2]>,
    /// Asked while a receive queue has no buffer: true to look again.
    pub(super) pause: Option<&'n mut dyn FnMut() -> bool>,
    /// Nobody saves the device meanwhile.
    _still: RwLockReadGuard<'n, ()>,
}

/// Where steering sends a frame, without borrowing the tables.
enum Next {
    Tir(Arc<Tir>),
    Vport(u16),
    Pass,
    /// No rule is for it.
    Default,
    /// There are no tables of this kind.
    NoTables,
    Drop,
}

impl<'n> Pipeline<'n> {
    /// A pipeline for one burst.
    pub fn new(nic: &'n Nic, worker: usize, now: u64) -> Self {
        Self {
            nic,
            worker,
            now,
            crossings: 0,
            message: 0,
            burst: 0,
            depth: 0,
            record: None,
            flow: None,
            left: false,
            peers: SmallVec::new(),
            merging: SmallVec::new(),
            pause: None,
            _still: nic.gate.enter(),
        }
    }

    /// As [`Self::new`], for frames from a wire whose other end can wait: as
    /// long as `pause` says so, frames wait for receive buffers.
    pub fn with_pause(nic: &'n Nic, worker: usize, now: u64, pause: &'n mut dyn FnMut() -> bool) -> Self {
        let mut p = Self::new(nic, worker, now);
        p.pause = Some(pause);
        p
    }

    /// What follows are the frames of another message.
    pub fn begin_message(&mut self) {
        self.message = 0;
    }

    /// Whether this burst has done enough.
    pub fn has_done_enough(&self) -> bool {
        self.burst >= MAX_BURST
    }

    /// A parsed frame that a function's send queue sends.
    pub fn send(&mut self, card: &Card, function: &FunctionPlane, frame: &mut Frame<'_>) {
        self.crossings = 0;
        self.depth = 0;
        let vport = &function.vport;
        let sqn = frame.meta.source_sqn;
        self.record =
            self.nic.explainer.begin(|| format!("pf{} vport {:#x} sq {sqn:#x}", card.index, vport.number), frame);
        vport.tx.count(Cast::of(frame.headers()), frame.len());
        self.nic.capture.see(card.index, vport.number, Way::Out, frame);
        self.walk(&function.steering, TableType::NicTx, 0, frame, &mut |p, f, next| match next {
            Next::Pass | Next::Default | Next::NoTables => {
                if p.allowed(vport, f, Police::leave) {
                    p.enter_eswitch(card, vport.number, f);
                }
            }
            _ => p.drop_tx(vport, f),
        });
        self.record = None;
    }

    /// As [`Self::send`]; answers what is to be known of the frame's flow, where
    /// its next frame will go the same way.
    pub fn send_learning(
        &mut self,
        card: &Card,
        function: &FunctionPlane,
        frame: &mut Frame<'_>,
        key: FlowKey,
    ) -> Learnt {
        self.learning(key, |p| p.send(card, function, frame))
    }

    fn learning(&mut self, key: FlowKey, take: impl FnOnce(&mut Self)) -> Learnt {
        let record = Rc::new(RefCell::new(FlowRecord::default()));
        self.flow = Some(record.clone());
        take(self);
        self.flow = None;
        let mut record = Rc::into_inner(record)?.into_inner();
        record.way.crossings = self.crossings;
        record.finish(key)
    }

    /// As [`Self::receive_parsed`]; answers as [`Self::send_learning`] does.
    pub fn receive_learning(&mut self, card: &Card, frame: &mut Frame<'_>, key: FlowKey) -> Learnt {
        self.learning(key, |p| p.receive_parsed(card, frame))
    }

    /// Frames went a known way, each with so many crossings.
    pub fn account(&mut self, crossings: u32, frames: usize) {
        self.burst = self.burst.saturating_add(crossings.saturating_mul(frames as u32));
    }

    pub(super) fn learn(&self, what: impl FnOnce(&mut FlowRecord)) {
        if let Some(flow) = &self.flow {
            what(&mut flow.borrow_mut());
        }
    }

    /// A rule of the eswitch dropped the frame.
    fn drop_by_rule(&mut self, which: &str) {
        self.learn(|r| r.end(End::Drop, [0; 3]));
        self.note(|| format!("dropped by the {which}"));
    }

    /// A frame that arrives at a physical port.
    pub fn receive_wire(&mut self, card: &Card, mut frame: Frame<'_>) {
        frame.parse();
        self.receive_parsed(card, &mut frame);
    }

    /// A parsed frame that arrives at a physical port.
    pub fn receive_parsed(&mut self, card: &Card, frame: &mut Frame<'_>) {
        self.crossings = 0;
        self.message = 0;
        self.depth = 0;
        self.record = self.nic.explainer.begin(|| format!("wire {}", card.index), frame);
        self.enter_port(card, frame);
        self.record = None;
    }

    /// A parsed frame that the peer behind a vport sends.
    pub fn send_from_peer(&mut self, card: &Card, vport: &Vport, frame: &mut Frame<'_>) {
        self.crossings = 0;
        self.depth = 0;
        self.record =
            self.nic.explainer.begin(|| format!("pf{} vport {:#x}, its peer", card.index, vport.number), frame);
        vport.tx.count(Cast::of(frame.headers()), frame.len());
        self.nic.capture.see(card.index, vport.number, Way::Out, frame);
        if self.allowed(vport, frame, Police::leave) {
            self.enter_eswitch(card, vport.number, frame);
        }
        self.record = None;
    }

    /// As [`Self::send_from_peer`]; answers as [`Self::send_learning`] does.
    pub fn send_from_peer_learning(
        &mut self,
        card: &Card,
        vport: &Vport,
        frame: &mut Frame<'_>,
        key: FlowKey,
    ) -> Learnt {
        self.learning(key, |p| p.send_from_peer(card, vport, frame))
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(r) = &mut self.record {
            r.note(line());
        }
    }

    fn drop_tx(&mut self, vport: &Vport, frame: &Frame<'_>) {
        self.note(|| format!("dropped on transmit of vport {:#x}", vport.number));
        vport.tx.errors.count(frame.len());
    }

    /// Leads a frame through the tables of a type, if there are any, and hands
    /// it and its copies to `then`.
    fn walk<'m>(
        &mut self,
        tables: &Reader<Tir>,
        kind: TableType,
        vport: u16,
        frame: &mut Frame<'m>,
        then: &mut dyn FnMut(&mut Self, &mut Frame<'m>, Next),
    ) {
        if !tables.has_roots(kind) {
            return then(self, frame, Next::NoTables);
        }
        let view = tables.load();
        let Some(root) = view.root(kind, vport) else { return then(self, frame, Next::NoTables) };
        let worker = self.worker;
        if let Some(mut record) = self.record.take() {
            self.learn(FlowRecord::spoil);
            // What follows a delivery is told after the walk's own steps.
            let mut ends = vec![];
            view.walk(
                root,
                frame,
                worker,
                &mut |f: &mut Frame<'m>, v: Verdict<'_, Tir>| ends.push((f.replicate(), next(v))),
                &mut |step: crate::steering::Step<'_, Tir>| record.step(step),
            );
            self.record = Some(record);
            for (mut f, n) in ends {
                then(self, &mut f, n);
            }
        } else if let Some(flow) = self.flow.clone() {
            view.walk(
                root,
                frame,
                worker,
                &mut |f: &mut Frame<'m>, v: Verdict<'_, Tir>| then(self, f, next(v)),
                &mut |step: crate::steering::Step<'_, Tir>| flow.borrow_mut().step(&step),
            );
        } else {
            view.walk(
                root,
                frame,
                worker,
                &mut |f: &mut Frame<'m>, v: Verdict<'_, Tir>| then(self, f, next(v)),
                &mut NoTrace,
            );
        }
    }

    /// A frame enters the eswitch from a vport (or [`UPLINK`]).
    fn enter_eswitch(&mut self, card: &Card, from: u16, frame: &mut Frame<'_>) {
        let fabric = &card.fabric;
        self.walk(&fabric.eswitch, TableType::IngressAcl, from, frame, &mut |p, f, next| match next {
            Next::Pass | Next::Default | Next::NoTables => p.forward(card, from, f),
            _ => p.drop_by_rule("ingress ACL"),
        });
    }

    /// The FDB decides, or the addresses where there is none.
    fn forward(&mut self, card: &Card, from: u16, frame: &mut Frame<'_>) {
        self.walk(&card.fabric.eswitch, TableType::Fdb, 0, frame, &mut |p, f, next| match next {
            Next::NoTables => p.forward_legacy(card, from, f),
            Next::Vport(UPLINK) => p.leave_port(card, f),
            Next::Vport(n) => p.enter_vport(card, n, f),
            _ => p.drop_by_rule("FDB"),
        });
    }

    /// Without an FDB frames go where their address is registered, everything
    /// else that a vport sends goes to the wire.
    fn forward_legacy(&mut self, card: &Card, from: u16, frame: &mut Frame<'_>) {
        let Some(dmac) = frame.headers().first_chunk::<6>().copied() else { return };
        let unicast = Cast::of(&dmac) == Cast::Unicast;
        // Without an eswitch functions reach the wire, and nobody else here.
        let switched = from == UPLINK || card.config.manager != Manager::None;
        let mut taken = false;
        let mut wanted: SmallVec<[u16; 8]> = SmallVec::new();
        for (number, v) in &card.fabric.vports.pin() {
            // A function's own unicast comes back to it; its TIRs say whether they take it.
            let filter = v.filter.load();
            let registered = unicast && filter.unicast.contains(&dmac);
            let reaches = switched && *number != UPLINK && (*number != from || registered);
            if reaches && filter.wants(&dmac) {
                taken |= registered;
                wanted.push(*number);
            }
        }
        let to_wire = from != UPLINK && !taken;
        if wanted.len() + usize::from(to_wire) != 1 {
            self.learn(FlowRecord::spoil);
        }
        // The last one takes the frame itself.
        let last = if to_wire { None } else { wanted.pop() };
        for number in wanted {
            self.note(|| format!("legacy switching: vport {number:#x} wants it"));
            self.enter_vport(card, number, &mut frame.replicate());
        }
        if let Some(number) = last {
            self.note(|| format!("legacy switching: vport {number:#x} wants it"));
            self.enter_vport(card, number, frame);
        }
        if to_wire {
            self.note(|| "legacy switching: to the wire".into());
            self.leave_port(card, frame);
        }
    }

    /// One more crossing; false where the frame has had enough.
    fn cross(&mut self) -> bool {
        self.crossings += 1;
        self.message += 1;
        self.burst += 1;
        if self.crossings > MAX_CROSSINGS || self.message > MAX_MESSAGE || self.depth >= MAX_DEPTH {
            self.note(|| "dropped: goes in circles, or to too many".into());
            return false;
        }
        true
    }

    /// A frame is delivered to a vport: egress ACL, then its function's
    /// receive steering.
    fn enter_vport(&mut self, card: &Card, number: u16, frame: &mut Frame<'_>) {
        if !self.cross() {
            return;
        }
        let vports = card.fabric.vports.pin();
        let Some(vport) = vports.get(&number).cloned() else {
            return self.note(|| format!("dropped: no vport {number:#x}"));
        };
        drop(vports);
        let Some(host) = vport.host_side() else {
            return self.note(|| format!("dropped: no driver behind vport {number:#x}"));
        };
        if !vport.link.load(Relaxed) && number != 0 {
            if let HostSide::Function(function) = &host {
                function.rx_link_down.add(1);
            }
            return self.note(|| format!("dropped: link of vport {number:#x} is down"));
        }
        self.depth += 1;
        self.walk(&card.fabric.eswitch, TableType::EgressAcl, number, frame, &mut |p, f, next| match next {
            Next::Pass | Next::Default | Next::NoTables => {
                if p.allowed(&vport, f, Police::enter) {
                    p.nic.capture.see(card.index, number, Way::In, f);
                    match &host {
                        HostSide::Function(function) => p.receive(function, &vport, f),
                        HostSide::Peer(peer) => p.deliver_to_peer(&vport, peer, f),
                    }
                }
            }
            _ => p.drop_by_rule("egress ACL"),
        });
        self.depth -= 1;
    }

    /// Receive steering of a function.
    fn receive(&mut self, function: &Arc<FunctionPlane>, vport: &Vport, frame: &mut Frame<'_>) {
        vport.rx.count(Cast::of(frame.headers()), frame.len());
        keep_metadata(frame, vport.reg_c_to_rx.load(Relaxed));
        self.walk(&function.steering, TableType::NicRx, 0, frame, &mut |p, f, next| match next {
            Next::Tir(tir) => p.deliver(function, &tir, f),
            _ => {
                function.rx_steering_discards.add(1);
                p.note(|| "dropped: receive steering has no TIR for it".into());
            }
        });
    }

    /// Whether frames may wait for receive buffers.
    pub(super) fn can_wait(&self) -> bool {
        self.pause.is_some()
    }

    /// Has a frame wait for a receive buffer, if it may and as long as it may. No queue's
    /// lock is held: what is being joined ends first, for the driver gives back only what
    /// it has been told of.
    pub(super) fn wait_while(&mut self, starved: impl Fn() -> bool) {
        if self.pause.is_some() && !self.merging.is_empty() && starved() {
            self.end_merges();
        }
        if let Some(pause) = &mut self.pause {
            while starved() && pause() {}
        }
    }

    /// A frame leaves by the physical port.
    fn leave_port(&mut self, card: &Card, frame: &mut Frame<'_>) {
        if !self.cross() {
            return;
        }
        let port = &card.port;
        self.depth += 1;
        self.walk(&card.fabric.eswitch, TableType::EgressAcl, UPLINK, frame, &mut |p, f, next| match next {
            Next::Pass | Next::Default | Next::NoTables if !port.is_up() => {
                port.tx_discards.add(1);
                p.note(|| "dropped: the port's link is down".into());
            }
            Next::Pass | Next::Default | Next::NoTables => {
                port.count_tx(f.headers(), f.len());
                p.nic.capture.see(card.index, UPLINK, Way::Out, f);
                p.learn(|r| r.way.ports_out.push(card.index));
                if p.unharmed(card, Way::Out, f) {
                    p.cross_wire(card, f);
                }
            }
            _ => p.drop_by_rule("uplink's egress ACL"),
        });
        self.depth -= 1;
    }

    pub(super) fn cross_wire(&mut self, card: &Card, frame: &mut Frame<'_>) {
        let nic = self.nic;
        match &card.port.far {
            Far::None => {}
            Far::Loopback => self.enter_port(card, frame),
            Far::Port(other) => {
                if let Some(other) = nic.cards.get(*other) {
                    self.note(|| format!("cable to port {}", other.index));
                    self.enter_port(other, frame);
                }
            }
            Far::Outside(_) => {
                self.learn(|r| r.end(End::Wire(card.index), [0; 3]));
                self.leave_by_wire(card, frame);
                self.note(|| "left by the wire".into());
            }
        }
    }

    /// A frame leaves the process.
    pub(super) fn leave_by_wire(&mut self, card: &Card, frame: &Frame<'_>) {
        let Far::Outside(wire) = &card.port.far else { return };
        self.left = true;
        if !wire.transmit(frame) {
            card.port.tx_discards.add(1);
        }
    }

    /// The segments of a message, counted already, leave together.
    pub(super) fn leave_as_message(&mut self, card: &Card, wire: &dyn Wire, message: &Frame<'_>, cut: &Cut) {
        self.left = true;
        if !wire.transmit_message(message, cut.mss()) {
            card.port.tx_discards.add(cut.count() as u64);
        }
    }

    /// A frame arrives at a port: nothing of where it came from is known here.
    fn enter_port(&mut self, card: &Card, frame: &mut Frame<'_>) {
        let port = &card.port;
        if !port.is_up() {
            return self.note(|| "dropped: the port's link is down".into());
        }
        if self.unharmed(card, Way::In, frame) {
            self.arrive(card, frame);
        }
    }

    /// A frame has come in at a port.
    pub(super) fn arrive(&mut self, card: &Card, frame: &mut Frame<'_>) {
        let port = &card.port;
        let tags = 4 * usize::from(frame.layers.vlans);
        if frame.len() + FCS > port.mtu.load(Relaxed) as usize + tags {
            port.rx_oversize.add(1);
            return self.note(|| "dropped: longer than the port's MTU".into());
        }
        port.count_rx(frame.headers(), frame.len());
        if frame.parse_as(**card.fabric.tunnels.load()) {
            // What the sender's key did not hold.
            self.learn(FlowRecord::spoil);
        }
        self.nic.capture.see(card.index, UPLINK, Way::In, frame);
        self.learn(|r| {
            r.way.ports_in.push(card.index);
            r.way.max_len = r.way.max_len.min((port.mtu.load(Relaxed) as usize + tags).saturating_sub(FCS));
        });
        keep_metadata(frame, 0);
        frame.set_source(UPLINK, 0);
        frame.meta.from_wire = true;
        frame.meta.source_td = 0;
        frame.meta.flow_tag = 0;
        frame.meta.reg_b = 0;
        if self.cross() {
            self.depth += 1;
            self.enter_eswitch(card, UPLINK, frame);
            self.depth -= 1;
        }
    }
}

impl Drop for Pipeline<'_> {
    /// The burst is over: joined segments are received, wires outside send what they
    /// held back.
    fn drop(&mut self) {
        self.end_merges();
        self.flush_peers();
        if !self.left {
            return;
        }
        for card in &self.nic.cards {
            if let Far::Outside(wire) = &card.port.far {
                card.port.tx_discards.add(wire.flush());
            }
        }
    }
}

fn next(v: Verdict<'_, Tir>) -> Next {
    match v {
        Verdict::Tir { tir, .. } => Next::Tir(tir.clone()),
        Verdict::Vport { num, .. } => Next::Vport(num),
        Verdict::Uplink { .. } => Next::Vport(UPLINK),
        Verdict::Allow => Next::Pass,
        Verdict::Default | Verdict::SwitchDomain => Next::Default,
        Verdict::VhcaRx { .. } | Verdict::Drop(_) => Next::Drop,
    }
}

/// Metadata registers that do not go along are cleared (bit n: reg_c_n stays).
fn keep_metadata(frame: &mut Frame<'_>, keep: u8) {
    const REGISTERS: [Field<FteMatchSetMisc2>; 8] = [
        FteMatchSetMisc2::metadata_reg_c_0,
        FteMatchSetMisc2::metadata_reg_c_1,
        FteMatchSetMisc2::metadata_reg_c_2,
        FteMatchSetMisc2::metadata_reg_c_3,
        FteMatchSetMisc2::metadata_reg_c_4,
        FteMatchSetMisc2::metadata_reg_c_5,
        FteMatchSetMisc2::metadata_reg_c_6,
        FteMatchSetMisc2::metadata_reg_c_7,
    ];
    for (i, f) in REGISTERS.iter().enumerate() {
        if keep >> i & 1 == 0 {
            frame.key.set(MISC2, *f, 0);
        }
    }
    frame.key.set(MISC2, FteMatchSetMisc2::metadata_reg_a, 0);
}
