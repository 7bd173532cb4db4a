//! A network interface: queues, receive steering and the port, ready for
//! frames.

use sfnic_firmware_cmds::entries::{Cqe64, cqe_opcode};
use sfnic_firmware_cmds::layouts::Cqc;

use crate::command::CmdError;
use crate::cq::{Cq, Cqe};
use crate::eq::Eq;
use crate::function::Function;
use crate::objects::{FOUR_TUPLE, Hash, state};
use crate::rq::{Received, Rq};
use crate::sq::Sq;
use crate::steering::{Destination, Flow, Table, criteria, table_type};
use crate::wqe::Wqe;

/// The queues of an interface.
#[derive(Debug, Clone)]
pub struct NetdevConfig {
    /// Pairs of send and receive queues; with more than one, UDP over IPv4 is
    /// spread over them by a hash.
    pub channels: usize,
    /// log2 of the blocks of a send queue.
    pub log_sq: u32,
    /// log2 of the buffers of a receive queue.
    pub log_rq: u32,
    /// Bytes of a receive buffer, and of a send buffer.
    pub buffer: u32,
    /// Completions of frames are compressed, with their checksums.
    pub compressed: bool,
    /// Hash key.
    pub key: [u8; 40],
    /// Sets the physical port up (by a function that may).
    pub port_up: bool,
}

impl Default for NetdevConfig {
    fn default() -> Self {
        Self {
            channels: 1,
            log_sq: 6,
            log_rq: 6,
            buffer: 2048,
            compressed: false,
            key: std::array::from_fn(|i| (i * 37 + 11) as u8),
            port_up: true,
        }
    }
}

/// A pair of queues with their completion queues.
pub struct Channel {
    /// Send queue.
    pub sq: Sq,
    /// Its completions.
    pub sq_cq: Cq,
    /// Receive queue.
    pub rq: Rq,
    /// Its completions.
    pub rq_cq: Cq,
    /// Send buffers, one a block of the send queue.
    buffers: u64,
}

/// An interface of a function.
pub struct Netdev {
    /// The function.
    pub function: Function,
    /// Its address; zero where it has none.
    pub mac: [u8; 6],
    /// UAR page of all queues.
    pub uar: u32,
    /// Protection domain.
    pub pd: u32,
    /// Transport domain.
    pub td: u32,
    /// Key for all of guest memory.
    pub lkey: u32,
    /// Completion events.
    pub eq: Eq,
    /// Send context of all queues.
    pub tisn: u32,
    /// Counters of the receive queues.
    pub counters: u32,
    /// Where everything that is received goes, or what the hash does not cover.
    pub tirn: u32,
    /// The root of receive steering.
    pub table: Table,
    /// Queues.
    pub channels: Vec<Channel>,
    buffer: u32,
}

impl Function {
    /// Makes all of a network interface.
    pub fn netdev(self, c: &NetdevConfig) -> Result<Netdev, CmdError> {
        let mac = self.mac()?;
        let (uar, pd, td) = (self.alloc_uar()?, self.alloc_pd()?, self.alloc_td()?);
        let lkey = self.create_mkey(pd)?;
        let eq = self.create_eq(uar, 1, 7, 0)?;
        let tisn = self.create_tis(td)?;
        let counters = self.alloc_q_counter()?;
        let mut channels = vec![];
        for _ in 0..c.channels {
            let sq_cq = self.create_cq(uar, eq.number, c.log_sq)?;
            let rq_cq = self.create_cq_with(uar, eq.number, c.log_rq, |cqc| {
                cqc.set(Cqc::cqe_comp_en, c.compressed.into());
                cqc.set(Cqc::mini_cqe_res_format, c.compressed.into());
            })?;
            let sq = self.create_sq(uar, pd, sq_cq.number, tisn, c.log_sq)?;
            let mut rq = self.create_rq((pd, lkey), rq_cq.number, counters, c.log_rq, c.buffer)?;
            self.modify_sq(sq.number, state::RST, state::RDY)?;
            self.modify_rq(rq.number, state::RST, state::RDY)?;
            rq.post_all();
            let buffers = self.mem.alloc(u64::from(c.buffer) << c.log_sq);
            channels.push(Channel { sq, sq_cq, rq, rq_cq, buffers });
        }
        let tirn = self.create_direct_tir(td, channels.first().map_or(0, |c| c.rq.number))?;
        let table = if c.channels > 1 {
            let rqns: Vec<u32> = channels.iter().map(|c| c.rq.number).collect();
            let rqtn = self.create_rqt(&rqns)?;
            let hash = Hash { key: c.key, fields: FOUR_TUPLE, ipv6: false, udp: true };
            let spread = self.create_hash_tir(td, rqtn, &hash)?;
            self.receive_by_hash(spread, tirn)?
        } else {
            self.receive_to(tirn)?
        };
        if c.port_up {
            self.set_port(true)?;
        }
        let buffer = c.buffer;
        Ok(Netdev { function: self, mac, uar, pd, td, lkey, eq, tisn, counters, tirn, table, channels, buffer })
    }

    /// UDP over IPv4 to one TIR, the rest to another.
    fn receive_by_hash(&self, udp: u32, rest: u32) -> Result<Table, CmdError> {
        use sfnic_firmware_cmds::layouts::{FteMatchParam, FteMatchSetLyr24 as Headers};
        const UDP: u32 = 17;
        const V4: u32 = 4;
        let t = self.create_table(table_type::NIC_RX, None, 0, 3)?;
        let typed = self.create_group(t, (0, 3), criteria::OUTER, |m| {
            let mut h = m.sub(FteMatchParam::outer_headers);
            h.set(Headers::ip_protocol, Headers::ip_protocol.max()).set(Headers::ip_version, Headers::ip_version.max());
        })?;
        let all = self.create_group(t, (4, 7), 0, |_| ())?;
        self.create_entry(t, typed, 0, &Flow::to(&[Destination::Tir(udp)]), |v| {
            v.sub(FteMatchParam::outer_headers).set(Headers::ip_protocol, UDP).set(Headers::ip_version, V4);
        })?;
        self.create_entry(t, all, 4, &Flow::to(&[Destination::Tir(rest)]), |_| ())?;
        self.set_root(t)?;
        Ok(t)
    }
}

impl Channel {
    /// Address of a send buffer, one a block of the send queue.
    pub fn buffer_at(&self, slot: u64) -> u64 {
        self.buffers + slot
    }
}

impl Netdev {
    /// Sends a frame on the first channel; its head lies in the WQE.
    pub fn send(&mut self, frame: &[u8]) {
        self.send_with(0, frame, 18, |w| w);
    }

    /// Sends a frame on a channel with `head` bytes inline, after `set` has
    /// had its way with the WQE. [`Rig::run`](crate::Rig::run) carries it.
    pub fn send_with(&mut self, channel: usize, frame: &[u8], head: usize, set: impl FnOnce(Wqe) -> Wqe) {
        let (head, rest) = frame.split_at(head.min(frame.len()));
        let wqe = self.stage(channel, Wqe::send(head), rest);
        self.post(channel, &set(wqe).signalled());
    }

    /// Sends `payload` cut into frames of `mss` bytes, each behind `header`.
    pub fn send_lso(&mut self, channel: usize, header: &[u8], payload: &[u8], mss: u16) {
        let wqe = self.stage(channel, Wqe::lso(mss, header), payload);
        self.post(channel, &wqe.checksums().signalled());
    }

    /// Puts bytes into guest memory and adds them to a WQE. What does not fit
    /// a send buffer gets memory of its own.
    pub fn stage(&mut self, channel: usize, wqe: Wqe, bytes: &[u8]) -> Wqe {
        if bytes.is_empty() {
            return wqe;
        }
        let c = &self.channels[channel];
        let slot = u64::from(c.sq.producer) & ((1 << c.sq.log_size) - 1);
        let at = match bytes.len() <= self.buffer as usize {
            true => c.buffers + slot * u64::from(self.buffer),
            false => self.function.mem.alloc(bytes.len() as u64),
        };
        self.function.mem.put(at, bytes);
        wqe.data(self.lkey, at, bytes.len() as u32)
    }

    /// Writes a WQE and rings. Completions are looked at when there is no room.
    pub fn post(&mut self, channel: usize, wqe: &Wqe) {
        if self.channels[channel].sq.room() < 16 {
            self.reap(channel);
        }
        let c = &mut self.channels[channel];
        c.sq.post(wqe);
        c.sq.ring();
    }

    /// Completions of a channel's send queue.
    pub fn reap(&mut self, channel: usize) -> Vec<Cqe> {
        let c = &mut self.channels[channel];
        let all = c.sq_cq.drain();
        for cqe in &all {
            c.sq.complete(cqe);
        }
        all
    }

    /// Everything that was received, channel by channel; the buffers are
    /// posted again. An error completion has no bytes.
    pub fn receive(&mut self) -> Vec<Received> {
        (0..self.channels.len()).flat_map(|n| self.receive_on(n)).collect()
    }

    /// As [`Netdev::receive`] for one channel.
    pub fn receive_on(&mut self, channel: usize) -> Vec<Received> {
        let c = &mut self.channels[channel];
        let mut all = vec![];
        for cqe in c.rq_cq.drain() {
            if cqe.get(Cqe64::opcode) == cqe_opcode::RESP_SEND {
                all.push(c.rq.take(cqe));
                c.rq.post(1);
            } else {
                all.push(Received { bytes: vec![], cqe });
            }
        }
        all
    }
}
