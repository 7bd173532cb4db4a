//! The driver's side of the queues, over memory on the heap. Written from the
//! driver's view, so that both sides do not share a mistake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use vm_memory::{GuestAddress, VolatileSlice};

use super::cq::{Arm, Cq, CqConfig, MiniFormat};
use super::eq::{AsyncEqs, Eq, EqConfig};
use super::ring::Ring;
use super::rq::{Rq, RqConfig, RxFrame};
use super::sq::{Sq, SqConfig};
use super::{KeyCheck, KeyFault, KeyUse, WqState};
use crate::dma::{DmaAccess, DmaError, Memory};
use crate::world::Interrupts;

pub(super) const SIZE: u64 = 4 << 20;
/// A key that no one made.
pub(super) const BAD_KEY: u32 = 0xbad;
pub(super) const GOOD_KEY: u32 = 0x1234;

/// Counts interrupts and lets a thread wait for one.
#[derive(Default)]
pub(super) struct Irqs {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Irqs {
    pub(super) fn count(&self) -> usize {
        *self.count.lock()
    }

    /// Waits until more than `seen` came; false after a second.
    pub(super) fn wait(&self, seen: usize) -> bool {
        let mut count = self.count.lock();
        let late = |c: &mut usize| *c <= seen;
        !self.changed.wait_while_for(&mut count, late, std::time::Duration::from_secs(1)).timed_out()
    }
}

impl Interrupts for Irqs {
    fn raise(&self, _vector: u16) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }
}

/// Every key but the bad one maps an address to itself, page by page.
pub(super) struct IdentityKeys {
    pub(super) page: u64,
}

impl Default for IdentityKeys {
    fn default() -> Self {
        Self { page: u64::MAX }
    }
}

impl KeyCheck for IdentityKeys {
    fn resolve(&self, key: KeyUse, addr: u64, len: u32, mut each: impl FnMut(u64, u32)) -> Result<(), KeyFault> {
        if key.lkey == BAD_KEY || addr.checked_add(len.into()).is_none() {
            return Err(KeyFault);
        }
        let mut done = 0;
        while done < len {
            let at = addr + u64::from(done);
            let n = (self.page - at % self.page).min((len - done).into()) as u32;
            each(at, n);
            done += n;
        }
        Ok(())
    }
}

/// Guest memory and what is taken of it.
pub(super) struct Guest {
    pub(super) mem: Memory,
    next: AtomicU64,
    pub(super) async_eqs: Arc<AsyncEqs>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let half = SIZE / 2;
        let ranges = [(GuestAddress(0), half as usize), (GuestAddress(half), half as usize)];
        Self { mem: Memory::from_ranges(&ranges).unwrap(), next: AtomicU64::new(0x1000), async_eqs: Arc::default() }
    }

    pub(super) fn alloc(&self, bytes: u64) -> u64 {
        self.next.fetch_add(bytes.next_multiple_of(0x1000), Ordering::Relaxed)
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        self.mem.dma_write(at, bytes).unwrap();
    }

    pub(super) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut b = vec![0; len];
        self.mem.dma_read(at, &mut b).unwrap();
        b
    }

    pub(super) fn put32(&self, at: u64, v: u32) {
        self.put(at, &v.to_be_bytes());
    }

    /// Ring memory in pages that are not in order, filled with `fill`.
    fn ring(&self, bytes: u64, fill: u8) -> Ring {
        let mut pas: Vec<u64> = (0..bytes.div_ceil(0x1000)).map(|_| self.alloc(0x1000)).collect();
        pas.reverse();
        for p in &pas {
            self.put(*p, &[fill; 0x1000]);
        }
        Ring::new(&pas, 0, 0, bytes).unwrap()
    }

    pub(super) fn eq(&self, irqs: &Arc<Irqs>, eqn: u8, log_size: u8) -> Eq {
        let ring = self.ring(64 << log_size, 1);
        Eq::new(EqConfig { eqn, ring, log_size, vector: 0, unheard: false }, irqs.clone()).unwrap()
    }

    pub(super) fn eq_driver(&self, eq: &Eq) -> EqDriver {
        EqDriver { ring: eq.ring_for_test().clone(), log_size: eq.log_size_for_test(), ci: 0 }
    }

    pub(super) fn cq(&self, eq: &Arc<Eq>, log_size: u8, tweak: impl FnOnce(&mut CqConfig)) -> (Arc<Cq>, CqDriver) {
        let mut config = CqConfig {
            cqn: 0x70 + u32::from(log_size),
            ring: self.ring(128 << log_size, 0xf1),
            log_size,
            cqe_128: false,
            mini: None,
            overrun_ignore: false,
            dbr_addr: self.alloc(8),
            poll_record: false,
        };
        tweak(&mut config);
        let stride = if config.cqe_128 { 128 } else { 64 };
        config.ring = self.ring(stride << log_size, 0xf1);
        let (ring, dbr) = (config.ring.clone(), config.dbr_addr);
        // A test may place the record where no memory is.
        let _ = self.mem.dma_write(dbr + 4, &(2u32 << 28).to_be_bytes());
        let cq = Arc::new(Cq::new(config, eq.clone(), self.async_eqs.clone()).unwrap());
        (cq, CqDriver { ring, log_size, stride, dbr, cc: 0, sn: 0 })
    }

    pub(super) fn sq(&self, cq: &Arc<Cq>, log_size: u8, tweak: impl FnOnce(&mut SqConfig)) -> (Arc<Sq>, SqDriver) {
        let mut config = SqConfig {
            sqn: 0x51,
            ring: self.ring(64 << log_size, 0xee),
            log_size,
            cq: cq.clone(),
            dbr_addr: self.alloc(8),
            pd: 1,
            reserved_key: false,
            tdn: 0,
            prio: 0,
            min_inline_mode: 0,
            reg_umr: false,
            multi_packet: false,
            flush_in_error: true,
            user_index: 0,
            uid: 0,
        };
        tweak(&mut config);
        let (ring, dbr) = (config.ring.clone(), config.dbr_addr);
        let sq = Arc::new(Sq::new(config).unwrap());
        sq.modify(&self.mem, WqState::Rst, WqState::Rdy).unwrap();
        (sq.clone(), SqDriver { sq, ring, log_size, dbr, pc: 0, cc: 0, wqes: Default::default() })
    }

    pub(super) fn rq(
        &self,
        cq: &Arc<Cq>,
        log_size: u8,
        log_stride: u8,
        tweak: impl FnOnce(&mut RqConfig),
    ) -> (Arc<Rq>, RqDriver) {
        let mut config = RqConfig {
            rqn: 0x31,
            ring: self.ring(1 << (log_size + log_stride), 0),
            log_size,
            log_stride,
            linked: false,
            strides: None,
            cq: cq.clone(),
            dbr_addr: self.alloc(8),
            pd: 1,
            reserved_key: false,
            vlan_strip_disable: false,
            scatter_fcs: false,
            counter_set: None,
            flush_in_error: false,
            user_index: 0,
            uid: 0,
        };
        tweak(&mut config);
        let d = RqDriver { ring: config.ring.clone(), stride: 1 << log_stride, dbr: config.dbr_addr, pc: 0 };
        let rq = Arc::new(Rq::new(config).unwrap());
        rq.modify(&self.mem, WqState::Rst, WqState::Rdy).unwrap();
        (rq, d)
    }
}

/// `struct mlx5_eq`.
pub(super) struct EqDriver {
    ring: Ring,
    log_size: u8,
    pub(super) ci: u32,
}

impl EqDriver {
    /// Type and number of the next entry.
    pub(super) fn poll(&mut self, mem: &Memory) -> Option<(u8, u32)> {
        let mut e = [0; 64];
        self.ring.read(mem, u64::from(self.ci) * 64, &mut e).unwrap();
        if u32::from(e[63] & 1) != (self.ci >> self.log_size) & 1 {
            return None;
        }
        self.ci += 1;
        let word = |at: usize| u32::from_be_bytes([0, e[at + 1], e[at + 2], e[at + 3]]);
        Some((e[1], word(if e[1] == 4 { 0x20 } else { 0x38 })))
    }
}

/// `struct mlx5_cqwq` and `mlx5_core_cq`.
pub(super) struct CqDriver {
    ring: Ring,
    log_size: u8,
    stride: u64,
    dbr: u64,
    pub(super) cc: u32,
    pub(super) sn: u8,
}

impl CqDriver {
    /// The next completion; the record is not updated.
    pub(super) fn poll(&mut self, mem: &Memory) -> Option<Cqe> {
        let mut e = [0; 64];
        let at = u64::from(self.cc) * self.stride + (self.stride - 64);
        // The owner first, as the driver does.
        self.ring.read(mem, at + 63, &mut e[63..]).unwrap();
        if u32::from(e[63] & 1) != (self.cc >> self.log_size) & 1 || e[63] >> 4 == 0xf {
            return None;
        }
        std::sync::atomic::fence(Ordering::Acquire);
        self.ring.read(mem, at, &mut e[..63]).unwrap();
        self.cc += 1;
        Some(Cqe(e))
    }

    /// The next completion, or the next session's and how many they are, as
    /// `mlx5e_decompress_cqes_start` and `_cont` make them.
    pub(super) fn poll_packed(&mut self, mem: &Memory, format: MiniFormat) -> Option<(Vec<Cqe>, u32)> {
        const COMPRESSED: u8 = 3;
        let first = self.cc;
        let mut title = self.poll(mem)?.0;
        if title[63] >> 2 & 3 != COMPRESSED {
            return Some((vec![Cqe(title)], 1));
        }
        let n = u32::from_be_bytes(title[44..48].try_into().unwrap());
        let mut next = u16::from_be_bytes(title[60..62].try_into().unwrap());
        let (mut all, mut array) = (vec![], [0; 64]);
        for i in 0..n {
            if i % 8 == 0 {
                let slot = first + i.max(1);
                self.ring.read(mem, u64::from(slot) * self.stride, &mut array).unwrap();
            }
            let mini = &array[i as usize % 8 * 8..][..8];
            title[44..48].copy_from_slice(&mini[4..]);
            match format {
                MiniFormat::Hash => title[12..16].copy_from_slice(&mini[..4]),
                _ => title[20..22].copy_from_slice(&mini[..2]),
            }
            if format == MiniFormat::ChecksumStride {
                next = u16::from_be_bytes([mini[2], mini[3]]);
            }
            title[60..62].copy_from_slice(&next.to_be_bytes());
            next = next.wrapping_add((u16::from_be_bytes([mini[4], mini[5]]) & 0x7fff).max(1));
            all.push(Cqe(title));
        }
        // Nobody else gives the entries back that the device did not write.
        for i in 0..n {
            let owner = ((first + i) >> self.log_size & 1) as u8;
            let at = u64::from(first + i) * self.stride + 63;
            mem.dma_write(self.ring.addr(0, 0, at), &[owner]).unwrap();
        }
        self.cc = first + n;
        Some((all, n))
    }

    pub(super) fn update(&self, guest: &Guest) {
        guest.put32(self.dbr, self.cc & 0xff_ffff);
    }

    /// The arm word in the record, and the doorbell's content.
    pub(super) fn arm(&self, guest: &Guest) -> Arm {
        let (sn, ci) = (self.sn & 3, self.cc & 0xff_ffff);
        guest.put32(self.dbr + 4, u32::from(sn) << 28 | ci);
        Arm { sn, ci, solicited_only: false }
    }
}

/// A completion as the driver reads it.
pub(super) struct Cqe(pub(super) [u8; 64]);

impl Cqe {
    pub(super) fn opcode(&self) -> u8 {
        self.0[63] >> 4
    }
    pub(super) fn wqe_counter(&self) -> u16 {
        u16::from_be_bytes([self.0[60], self.0[61]])
    }
    pub(super) fn syndrome(&self) -> u8 {
        self.0[55]
    }
    pub(super) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.0[at..at + 4].try_into().unwrap())
    }
}

/// Bytes of a send WQE.
#[derive(Clone)]
pub(super) struct WqeBuilder(Vec<u8>);

impl WqeBuilder {
    pub(super) fn control(opcode: u8) -> Self {
        let mut b = vec![0; 16];
        b[3] = opcode;
        Self(b)
    }
    pub(super) fn nop() -> Self {
        Self::control(0)
    }
    pub(super) fn send(header: &[u8]) -> Self {
        Self::control(0x0a).eth(0, header)
    }
    pub(super) fn lso(mss: u16, header: &[u8]) -> Self {
        Self::control(0x0e).eth(mss, header)
    }
    /// Several frames (`MLX5_OPCODE_ENHANCED_MPSW`).
    pub(super) fn multi() -> Self {
        Self::control(0x29).eth(0, &[])
    }
    /// Changes its bytes.
    pub(super) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
    fn eth(mut self, mss: u16, header: &[u8]) -> Self {
        let mut e = vec![0; 14];
        e[6..8].copy_from_slice(&mss.to_be_bytes());
        e[12..14].copy_from_slice(&(header.len() as u16).to_be_bytes());
        e.extend_from_slice(header);
        e.resize(e.len().max(16).next_multiple_of(16), 0);
        self.0.extend(e);
        self
    }
    pub(super) fn data(self, addr: u64, len: u32) -> Self {
        self.key_data(GOOD_KEY, addr, len)
    }
    pub(super) fn key_data(mut self, lkey: u32, addr: u64, len: u32) -> Self {
        self.0.extend(len.to_be_bytes());
        self.0.extend(lkey.to_be_bytes());
        self.0.extend(addr.to_be_bytes());
        self
    }
    pub(super) fn inline_data(mut self, bytes: &[u8]) -> Self {
        self.0.extend((1 << 31 | bytes.len() as u32).to_be_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        self
    }
    /// The byte of the Ethernet segment that asks for checksums (`cs_flags`), of a send.
    pub(super) fn checksum_bits(mut self, bits: u8) -> Self {
        self.0[16 + 4] = bits;
        self
    }
    /// Has a tag inserted instead of the inline bytes (`MLX5_ETH_WQE_INSERT_VLAN`).
    pub(super) fn insert(mut self, on: bool) -> Self {
        self.0[16 + 12] |= u8::from(on) << 7;
        self
    }
    /// Asks for a completion (`MLX5_WQE_CTRL_CQ_UPDATE`).
    pub(super) fn signalled(mut self) -> Self {
        self.0[11] |= 2 << 2;
        self
    }
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut b = self.0.clone();
        b[7] = (b.len() / 16) as u8;
        b
    }
}

/// `struct mlx5e_txqsq`: remembers what it posted and checks completions the
/// way `mlx5e_poll_tx_cq` walks them.
pub(super) struct SqDriver {
    pub(super) sq: Arc<Sq>,
    ring: Ring,
    log_size: u8,
    pub(super) dbr: u64,
    pub(super) pc: u16,
    pub(super) cc: u16,
    wqes: std::collections::VecDeque<(u16, u16)>,
}

impl SqDriver {
    pub(super) fn room(&self) -> u16 {
        (1 << self.log_size) - self.pc.wrapping_sub(self.cc)
    }

    /// Writes a WQE, across the ring's end if need be, and rings no doorbell.
    pub(super) fn post(&mut self, guest: &Guest, wqe: &WqeBuilder) {
        self.post_raw(guest, &wqe.bytes());
    }

    pub(super) fn post_raw(&mut self, guest: &Guest, bytes: &[u8]) {
        let blocks = bytes.len().div_ceil(64) as u16;
        assert!(blocks <= self.room());
        let mut bytes = bytes.to_vec();
        bytes[1..3].copy_from_slice(&self.pc.to_be_bytes());
        for (i, chunk) in bytes.chunks(64).enumerate() {
            let at = self.ring.addr(u64::from(self.pc) + i as u64, 64, 0);
            guest.put(at, chunk);
        }
        self.wqes.push_back((self.pc, blocks));
        self.pc = self.pc.wrapping_add(blocks);
    }

    /// `mlx5e_notify_hw`: record, then doorbell.
    pub(super) fn ring(&self, guest: &Guest) -> bool {
        guest.put32(self.dbr, 0);
        guest.put32(self.dbr + 4, self.pc.into());
        self.sq.doorbell()
    }

    /// Retires WQEs up to the one that a completion names; panics where the
    /// completion names none.
    pub(super) fn completed(&mut self, cqe: &Cqe) -> usize {
        for n in 1.. {
            let (index, blocks) = self.wqes.pop_front().expect("a completion for a WQE that is posted");
            self.cc = self.cc.wrapping_add(blocks);
            if index == cqe.wqe_counter() {
                return n;
            }
        }
        0
    }

    /// ERR → RST → RDY and counters at zero, as `mlx5e_health_sq_to_ready`;
    /// the record stays as it is.
    pub(super) fn recover(&mut self, guest: &Guest) {
        assert_eq!(self.sq.state(), WqState::Err);
        assert_eq!(self.cc, self.pc, "flushed");
        self.sq.modify(&guest.mem, WqState::Err, WqState::Rst).unwrap();
        self.sq.modify(&guest.mem, WqState::Rst, WqState::Rdy).unwrap();
        (self.pc, self.cc) = (0, 0);
    }
}

/// `struct mlx5_wq_cyc` of a receive queue.
pub(super) struct RqDriver {
    ring: Ring,
    stride: u64,
    dbr: u64,
    pub(super) pc: u16,
}

impl RqDriver {
    /// Posts a WQE of these segments, and a terminator where there is room.
    pub(super) fn post(&mut self, guest: &Guest, segs: &[(u32, u64, u32)]) {
        let mut b = WqeBuilder(vec![]);
        for &(lkey, addr, len) in segs {
            b = b.key_data(lkey, addr, len);
        }
        if (b.0.len() as u64) < self.stride {
            b = b.key_data(0x100, 0, 0);
        }
        self.post_raw(guest, self.pc, &b.0);
    }

    pub(super) fn post_raw(&mut self, guest: &Guest, index: u16, bytes: &[u8]) {
        guest.put(self.ring.addr(index.into(), self.stride, 0), bytes);
        self.pc = self.pc.wrapping_add(1);
        self.publish(guest, self.pc);
    }

    pub(super) fn publish(&self, guest: &Guest, pc: u16) {
        guest.put32(self.dbr, pc.into());
    }
}

/// A frame of bytes; fails to be read from a given byte on.
pub(super) struct TestFrame {
    pub(super) bytes: Vec<u8>,
    pub(super) gone_from: usize,
    pub(super) copies: AtomicUsize,
}

impl TestFrame {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, gone_from: usize::MAX, copies: AtomicUsize::new(0) }
    }
}

impl RxFrame for TestFrame {
    fn len(&self) -> usize {
        self.bytes.len()
    }
    fn copy_to(&self, offset: usize, dst: &VolatileSlice<'_>) -> Result<(), DmaError> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        if offset + dst.len() > self.gone_from {
            return Err(DmaError { iova: 0, len: dst.len() });
        }
        dst.copy_from(&self.bytes[offset..offset + dst.len()]);
        Ok(())
    }
}
