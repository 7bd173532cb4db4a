//! A device, its drivers, and what they do to it.

use sfnic_device_model::cmd::table::{self, ROWS};
use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::entries::{WqeCtrl, WqeData, WqeEth, cqe_opcode};
use sfnic_firmware_cmds::layout::{Info, Layout, View};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;

use super::actor::Actor;
use super::book::{Book, Thing};
use super::coverage::Coverage;
use super::templates::{Setting, template};
use super::{Entropy, fields};
use crate::command::{self, CmdError, Entry, INLINE, PCI_TRANSPORT};
use crate::frames::{self, Flow4};
use crate::function::Function;
use crate::netdev::{Netdev, NetdevConfig};
use crate::rig::Rig;
use crate::wqe::Wqe;

/// What the device has beyond its profile.
const CAPS: [&str; 3] = ["striding_rq=1", "enhanced_multi_pkt_send_wqe=1", "cqe_compression=1"];
/// Bytes of guest memory of each card.
const MEMORY: u64 = 8 << 20;
/// Bytes that fuzzed queues may lie in.
const ARENA: u64 = 2 << 20;
/// Send WQE bytes at most.
const MAX_WQE: usize = 1008;

/// What is to be spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Everything, with traffic between.
    All,
    /// Commands and their entries.
    Commands,
    /// WQEs, doorbells and records.
    Wqes,
}

/// Three cards: one that is fuzzed (its physical function and two SFs have
/// drivers), one that it is cabled to, and one that has nothing to do with it.
pub struct World {
    /// The device.
    pub rig: Rig,
    /// What has been reached.
    pub coverage: Coverage,
    actors: Vec<Actor>,
    spare: Function,
    peer: Netdev,
    bystander: Function,
    untouched: Vec<u8>,
    mark: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A world in which everything is in order.
    pub fn new() -> Self {
        let cards = vec![Rig::card(0, Far::Port(1)), Rig::card(1, Far::Port(0)), Rig::card(2, Far::None)];
        let rig = Rig::with(&CAPS, cards, MEMORY);
        let peer = rig.pf(1).bring_up().and_then(|f| f.netdev(&NetdevConfig::default())).expect("the peer's driver");
        let bystander = rig.pf(2).bring_up().and_then(|f| f.netdev(&NetdevConfig::default()));
        let bystander = bystander.expect("the bystander's driver").function;
        let spare = rig.sf(0, 2);
        let mark = rig.memory[0].mark();
        let untouched = contents(&rig, 2);
        let mut w =
            Self { rig, coverage: Coverage::default(), actors: vec![], spare, peer, bystander, untouched, mark };
        w.start();
        w
    }

    /// Brings the fuzzed card up with all its drivers.
    fn start(&mut self) {
        self.actors.clear();
        self.rig.memory[0].rewind(self.mark);
        let arena = self.rig.memory[0].alloc(ARENA);
        let id = |i| self.rig.sf_id(0, i);
        let vports = vec![0, id(0), id(1), id(2), id(7)];
        let spares = vec![id(2), id(3)];
        let pf = self.rig.pf(0).bring_up().expect("the manager's driver");
        for i in 0..3 {
            pf.add_sf(id(i)).expect("a sub-function");
        }
        let functions = [Ok(pf), self.rig.sf(0, 0).bring_up(), self.rig.sf(0, 1).bring_up()];
        for (n, f) in functions.into_iter().enumerate() {
            let dev = f.and_then(|f| f.netdev(&NetdevConfig::default())).expect("a driver");
            let setting = Setting { arena, vports: vports.clone(), spares: spares.clone(), manager: n == 0 };
            let mut book = Book::default();
            let c = &dev.channels[0];
            for (thing, number) in [
                (Thing::Uar, dev.uar),
                (Thing::Pd, dev.pd),
                (Thing::Td, dev.td),
                (Thing::Eq, dev.eq.number),
                (Thing::Cq, c.sq_cq.number),
                (Thing::Cq, c.rq_cq.number),
                (Thing::Rq, c.rq.number),
                (Thing::Tir, dev.tirn),
                (Thing::Tis, dev.tisn),
            ] {
                book.add(thing, number);
            }
            self.actors.push(Actor { dev, book, setting, broken: false });
        }
    }

    /// Resets the fuzzed card, checks that nothing is left of it, and starts
    /// again.
    pub fn restart(&mut self) {
        self.rig.reset(0);
        for (name, counts) in self.rig.nic.object_counts() {
            assert!(!name.starts_with("pf0/") || counts.values().all(|n| *n == 0), "left over: {name} {counts:?}");
        }
        self.rig.run();
        self.start();
    }

    /// Puts another device in the place of the one that is there; see [`Rig::replace`].
    pub fn replace(&mut self) {
        self.rig.replace();
    }

    /// All that the guests can see without asking: their memory, and how often each vector
    /// of their interrupts fired.
    pub fn seen(&self) -> (Vec<Vec<u8>>, Vec<u64>) {
        let memory = (0..self.rig.memory.len()).map(|card| contents(&self.rig, card)).collect();
        let vectors = |irq: &std::sync::Arc<crate::rig::Recorder>| (0..64).map(|v| irq.count(v)).collect::<Vec<_>>();
        (memory, self.rig.irqs.iter().flat_map(vectors).collect())
    }

    /// Does one thing.
    pub fn step(&mut self, mix: Mix, e: &mut impl Entropy) {
        if self.actors.iter().any(|a| a.broken) {
            self.restart();
        }
        let choice = match mix {
            Mix::All => e.below(100),
            Mix::Commands => e.below(66),
            Mix::Wqes => 66 + e.below(32),
        };
        match choice {
            0..57 => self.command(e),
            57..60 => self.life(e),
            60..66 => self.entry(e),
            66..86 => self.send_wqe(e),
            86..88 => self.receive_wqe(e),
            88..93 => self.writes(e),
            93..99 => self.traffic(e),
            _ => self.no_memory(e),
        }
        self.rig.run();
        self.collect();
    }

    /// What must hold whatever happened. Panics where it does not.
    pub fn check(&mut self) {
        for (i, m) in self.rig.memory.iter().enumerate() {
            assert!(m.canary_is_whole(), "card {i} wrote where it must not");
        }
        assert!(contents(&self.rig, 2) == self.untouched, "the bystander's memory changed");
        for f in [&self.peer.function, &self.bystander] {
            f.cmd::<NopIn, NopOut>(Opcode::NOP, |_| ()).expect("others are not disturbed");
        }
        // The commands of the check itself.
        self.untouched = contents(&self.rig, 2);
    }

    /// Runs a command and keeps the books.
    fn command(&mut self, e: &mut impl Entropy) {
        let at = e.below(self.actors.len());
        // What others build on, more often than the rest.
        const WANTED: [Opcode; 5] = [
            Opcode::SET_FLOW_TABLE_ENTRY,
            Opcode::CREATE_FLOW_GROUP,
            Opcode::SET_FLOW_TABLE_ROOT,
            Opcode::MODIFY_SQ,
            Opcode::MODIFY_RQ,
        ];
        let row = loop {
            let row = if e.one_in(4) { table::find(*e.pick(&WANTED)).unwrap_or(&ROWS[0]) } else { e.pick(ROWS) };
            let life = [Opcode::ENABLE_HCA, Opcode::DISABLE_HCA, Opcode::TEARDOWN_HCA, Opcode::INIT_HCA];
            // What ends a driver is done by the spare function, and by others
            // now and then.
            if !life.contains(&row.opcode) || e.one_in(50) || !e.more() {
                break row;
            }
        };
        let a = &mut self.actors[at];
        let t = template(row, &a.book, &a.setting, e);
        let (mut input, mut out_len) = (t.input, t.out_len);
        let spoils = e.below(4);
        let edges = self.rig.memory[0].edges();
        for _ in 0..spoils {
            fields::spoil(&row.input.info(), &a.book, &edges, a.setting.arena, e, &mut input);
        }
        if e.one_in(24) {
            match e.below(3) {
                0 => input.truncate(8 + e.below(input.len())),
                1 => out_len = 8 + e.below(out_len),
                _ => input.resize(input.len() + e.below(64), e.next() as u8),
            }
            self.coverage.mutations += 1;
        } else {
            self.coverage.mutations += u64::from(spoils > 0);
        }
        input.resize(input.len().max(8), 0);
        let opcode = Opcode(u16::from_be_bytes([input[0], input[1]]));
        match a.dev.function.cmdq.exec(&input, out_len.max(8)) {
            Ok(out) => {
                let verdict = command::check(&out);
                note(&mut self.coverage, opcode, &verdict);
                if verdict.is_ok() {
                    a.executed(opcode, &input, &out);
                }
            }
            Err(CmdError::NoAnswer) => a.broken = true,
            Err(other) => panic!("{opcode}: {other}"),
        }
        // A driver without INIT_HCA has no data path; its next life comes soon.
        let dead = [Opcode::DISABLE_HCA, Opcode::TEARDOWN_HCA, Opcode::DEALLOC_SF];
        if dead.contains(&opcode) {
            for (i, a) in self.actors.iter_mut().enumerate() {
                let id = if i == 0 { 0 } else { self.rig.sf_id(0, i as u16 - 1) };
                a.broken |= self.rig.plane(0, id).is_none();
            }
        }
    }

    /// The life cycle of a function that nobody misses.
    fn life(&mut self, e: &mut impl Entropy) {
        let steps = [
            Opcode::ENABLE_HCA,
            Opcode::INIT_HCA,
            Opcode::QUERY_ISSI,
            Opcode::SET_HCA_CAP,
            Opcode::TEARDOWN_HCA,
            Opcode::DISABLE_HCA,
        ];
        let opcode = *e.pick(&steps);
        let Some(row) = table::find(opcode) else { return };
        let mut input = vec![0; row.input.size().max(16)];
        command::set_opcode(&mut input, opcode);
        if e.one_in(4) {
            let book = &self.actors[0].book;
            let edges = self.rig.memory[0].edges();
            fields::spoil(&row.input.info(), book, &edges, 0, e, &mut input);
            self.coverage.mutations += 1;
        }
        self.spare.cmdq.attach();
        if let Ok(out) = self.spare.cmdq.exec(&input, row.output.size()) {
            let opcode = Opcode(u16::from_be_bytes([input[0], input[1]]));
            note(&mut self.coverage, opcode, &command::check(&out));
        }
    }

    /// An entry of the command queue that no driver would write.
    fn entry(&mut self, e: &mut impl Entropy) {
        let edges = self.rig.memory[0].edges();
        let a = &mut self.actors[e.below(3)];
        let f = &a.dev.function;
        let mark = f.mem.mark();
        let token = e.next() as u8;
        let (in_len, out_len) = (8 + e.below(1200), 8 + e.below(1200));
        let (input, output) = (f.cmdq.chain(in_len, token), f.cmdq.chain(out_len, token));
        let mut inline = [0; INLINE];
        command::set_opcode(&mut inline, e.pick(ROWS).opcode);
        let mut entry = Entry {
            kind: PCI_TRANSPORT,
            in_len: in_len as u32,
            in_ptr: input.head(),
            inline,
            out_ptr: output.head(),
            out_len: out_len as u32,
            token,
            ownership: true,
        };
        for _ in 0..1 + e.below(2) {
            let wild = fields::address(&edges, a.setting.arena, e);
            match e.below(9) {
                0 => entry.kind = e.next() as u8 as u32,
                1 => entry.in_len = small_or_wild(e),
                2 => entry.out_len = small_or_wild(e),
                3 => entry.in_ptr = wild,
                4 => entry.out_ptr = wild,
                5 => entry.ownership = false,
                6 => entry.token = e.next() as u8,
                7 => {
                    let chain = if e.one_in(2) { &input } else { &output };
                    if let [at, ..] = chain.boxes() {
                        let next = if e.one_in(2) { *at } else { wild & !0x3ff };
                        command::write_box_head(&f.mem, *at, next, e.below(3) as u32, token);
                    }
                }
                _ => entry.inline[e.below(INLINE)] = e.next() as u8,
            }
        }
        if let Err(CmdError::Delivery(n)) = f.cmdq.submit(e.next() as u32 % 32, &entry) {
            self.coverage.delivery.insert(n);
        }
        f.mem.rewind(mark);
        self.coverage.mutations += 1;
        // Any command may have been executed, by chance one that ends it all.
        for i in 0..3 {
            let id = if i == 0 { 0 } else { self.rig.sf_id(0, i - 1) };
            self.actors[usize::from(i)].broken |= self.rig.plane(0, id).is_none();
        }
    }

    /// A send WQE that is nearly right.
    fn send_wqe(&mut self, e: &mut impl Entropy) {
        let edges = self.rig.memory[0].edges();
        let at = e.below(3);
        let macs = self.macs();
        let a = &mut self.actors[at];
        let arena = a.setting.arena;
        let flow = Flow4::new(*e.pick(&macs), a.dev.mac);
        let size = *e.pick(&[20usize, 40, 64, 300, 1400]);
        let frame =
            if e.one_in(2) { flow.udp(&frames::pattern(size, size)) } else { flow.tcp(9, &frames::pattern(1, size)) };
        let mem = a.dev.function.mem.clone();
        mem.put(arena, &frame);
        let key = a.dev.lkey;
        let len = frame.len() as u32;
        let (at18, at54) = (len.saturating_sub(18), len.saturating_sub(54));
        let wqe = match e.below(9) {
            0 => Wqe::nop(),
            1 | 2 => Wqe::send(&frame[..18]).data(key, arena + 18, at18).checksums(),
            3 => Wqe::send(&frame[..54]).data(key, arena + 54, at54.max(1)),
            4 => Wqe::send(&[]).data(key, arena, len).vlan(e.next() as u16),
            5 => Wqe::send(&frame[..18]).data(key, arena + 18, 2).data(key, arena + 20, len - 20),
            7 => Wqe::multi().data(key, arena, len).inline(&frame[..20]).data(key, arena, len),
            6 => Wqe::send(&frame[..18]).inline(&frame[18..(18 + 200).min(frame.len())]),
            _ => Wqe::lso(*e.pick(&[48, 536, 1448, 9000]), &flow.tcp(1, &[])).data(
                key,
                arena,
                *e.pick(&[1, 3000, 60_000]),
            ),
        };
        let sq = &mut a.dev.channels[0].sq;
        let mut raw = wqe.signalled().bytes(sq.producer, sq.number);
        let spoils = e.below(4);
        for _ in 0..spoils {
            // The first two segments are what they are; the others are data.
            let segment = e.below(raw.len() / 16);
            let info: Info = match segment {
                0 => WqeCtrl::info(),
                1 => WqeEth::info(),
                _ => WqeData::info(),
            };
            fields::spoil(&info, &a.book, &edges, arena, e, &mut raw[segment * 16..]);
        }
        self.coverage.mutations += u64::from(spoils > 0);
        raw.truncate(MAX_WQE);
        let ctrl = View::<WqeCtrl>::new(&raw);
        self.coverage.wqe_opcodes.insert(ctrl.get(WqeCtrl::opcode) as u8);
        if usize::from(sq.room()) * 64 > MAX_WQE {
            sq.post_raw(&raw);
            sq.ring();
        } else {
            a.revive();
        }
    }

    /// A receive WQE that is nearly right; a frame that comes later meets it.
    fn receive_wqe(&mut self, e: &mut impl Entropy) {
        let edges = self.rig.memory[0].edges();
        let a = &mut self.actors[e.below(3)];
        let rq = &a.dev.channels[0].rq;
        let at = rq.wqe_at(rq.producer.wrapping_add(e.below(8) as u16));
        let mut raw = a.dev.function.mem.get(at, 32);
        let segment = e.below(2) * 16;
        fields::spoil(&WqeData::info(), &a.book, &edges, a.setting.arena, e, &mut raw[segment..]);
        a.dev.function.mem.put(at, &raw);
        self.coverage.mutations += 1;
    }

    /// Writes to the window and to doorbell records.
    fn writes(&mut self, e: &mut impl Entropy) {
        let a = &mut self.actors[e.below(3)];
        let c = &a.dev.channels[0];
        self.coverage.mutations += 1;
        let value = e.next();
        match e.below(6) {
            0 => c.sq.publish(value as u16),
            1 => c.rq.publish(value as u16),
            2 => {
                // The doorbells of queues that may not exist.
                let number = (value as u32 & 0x3f).to_be_bytes();
                let offset = *e.pick(&[0x20u64, 0x24, 0x40, 0x48, 0x800, 0x804, 0x900, 0xa00]);
                let data = [&value.to_be_bytes()[..4], &number].concat();
                let n = *e.pick(&[4usize, 8]);
                a.dev.function.window.ring(a.dev.uar + e.below(3) as u32, offset, &data[..n]);
            }
            3 => {
                let sqn = value as u32 & 0xf;
                a.dev.function.window.ring(a.dev.uar, 0x800, &crate::sq::doorbell(sqn, value as u16));
            }
            4 => {
                let at = e.next() & 0xffff;
                let data = e.next().to_be_bytes().repeat(8);
                let n = e.below(64);
                // The queue's address is written again.
                a.dev.function.window.write(at, &data[..n]);
                a.dev.function.cmdq.attach();
            }
            _ => {
                let mut b = [0; 64];
                let n = e.below(64);
                a.dev.function.window.read(e.next() & 0xffff, &mut b[..n]);
            }
        }
        if self.rig.plane(0, 0).is_none() || self.rig.plane(0, self.rig.sf_id(0, 0)).is_none() {
            self.actors[0].broken = true;
        }
    }

    /// Ordinary frames, from anyone to anyone.
    fn traffic(&mut self, e: &mut impl Entropy) {
        let macs = self.macs();
        for _ in 0..4 {
            let to = *e.pick(&macs);
            let size = e.below(1400);
            if e.one_in(3) {
                let frame = Flow4::new(to, self.peer.mac).udp(&frames::pattern(size, size));
                self.peer.send(&frame);
                self.rig.run();
                self.peer.reap(0);
            } else {
                let a = &mut self.actors[e.below(3)];
                let frame = Flow4::new(to, a.dev.mac).tcp(1, &frames::pattern(size, size));
                if a.dev.channels[0].sq.room() >= 16 {
                    a.dev.send(&frame);
                }
            }
        }
        self.rig.clock.advance(1000);
    }

    /// Something happens while guest memory is not there.
    fn no_memory(&mut self, e: &mut impl Entropy) {
        self.rig.unmap(0);
        for a in &self.actors {
            a.dev.channels[0].sq.doorbell();
            a.dev.function.cmdq.doorbell(e.next() as u32);
        }
        self.rig.run();
        self.rig.map(0);
        self.coverage.mutations += 1;
    }

    fn macs(&self) -> Vec<[u8; 6]> {
        let mut all: Vec<_> = self.actors.iter().map(|a| a.dev.mac).collect();
        all.extend([self.peer.mac, [0xff; 6], [1, 0, 0x5e, 0, 0, 1]]);
        all
    }

    /// Takes what arrived and what was sent, and brings queues back.
    fn collect(&mut self) {
        for a in &mut self.actors {
            let done = a.dev.reap(0);
            let failed = done.iter().filter(|c| c.opcode() == cqe_opcode::REQ_ERR);
            self.coverage.send_faults.extend(failed.clone().map(|c| c.error().0));
            self.coverage.sent += done.iter().filter(|c| c.opcode() == cqe_opcode::REQ).count() as u64;
            let got = a.dev.receive();
            let errors = got.iter().filter(|r| r.cqe.opcode() == cqe_opcode::RESP_ERR);
            self.coverage.receive_faults.extend(errors.clone().map(|r| r.cqe.error().0));
            self.coverage.received += got.len() as u64;
            if failed.count() + errors.count() > 0 {
                a.revive();
            }
        }
        self.coverage.received += self.peer.receive().len() as u64;
        for rig_eq in self.actors.iter_mut().map(|a| &mut a.dev.eq) {
            rig_eq.drain();
        }
    }
}

fn note(coverage: &mut Coverage, opcode: Opcode, verdict: &Result<(), CmdError>) {
    let why = match verdict {
        Ok(()) => None,
        Err(CmdError::Refused { syndrome, .. }) => Some(*syndrome),
        Err(_) => return,
    };
    match ROWS.binary_search_by_key(&opcode, |r| r.opcode) {
        Ok(row) => coverage.command(row, why),
        Err(_) => coverage.syndromes.extend(why.map(|w| w.0)),
    }
}

fn small_or_wild(e: &mut impl Entropy) -> u32 {
    if e.one_in(2) { e.below(40) as u32 } else { e.next() as u32 }
}

/// All of a card's guest memory.
fn contents(rig: &Rig, card: usize) -> Vec<u8> {
    let m = &rig.memory[card];
    let [low, low_end, high, high_end] = m.edges();
    let mut all = m.get(low, (low_end - low) as usize);
    all.extend(m.get(high, (high_end - high) as usize));
    all
}
