//! Objects of a function: created, destroyed, changed.

use sfnic_firmware_cmds::entries::{CqRecord, Cqe64, Eqe};
use sfnic_firmware_cmds::layout::{Field, Layout, View, ViewMut};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;

use crate::command::{CmdError, Out};
use crate::cq::{Cq, INVALID};
use crate::eq::Eq;
use crate::function::Function;
use crate::memory::PAGE;
use crate::rq::Rq;
use crate::sq::{BLOCK, Sq};

/// States of a send or receive queue.
pub mod state {
    #![allow(missing_docs)]
    pub const RST: u32 = 0;
    pub const RDY: u32 = 1;
    pub const ERR: u32 = 3;
}

/// `wq_type` of a cyclic queue.
const CYCLIC: u32 = 1;
/// `rx_hash_fn`: Toeplitz.
pub const TOEPLITZ: u32 = 2;
/// `selected_fields`: source and destination address, source and destination
/// port.
pub const FOUR_TUPLE: u32 = 0xf;
/// `arm_sn` of a completion queue before its first arming
/// (`MLX5_CQ_INIT_CMD_SN`).
const INIT_CMD_SN: u32 = 2;

/// A list of pages behind a context, for contiguous memory.
pub fn pages(at: u64, bytes: u64) -> Vec<u8> {
    (0..bytes.div_ceil(PAGE)).flat_map(|i| (at + i * PAGE).to_be_bytes()).collect()
}

/// How a TIR spreads frames.
#[derive(Debug, Clone, Copy)]
pub struct Hash {
    /// Toeplitz key.
    pub key: [u8; 40],
    /// Fields ([`FOUR_TUPLE`]).
    pub fields: u32,
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// UDP instead of TCP.
    pub udp: bool,
}

impl Function {
    fn number<I: Layout, O: Layout>(
        &self,
        opcode: Opcode,
        number: Field<O>,
        fill: impl FnOnce(&mut ViewMut<'_, I>),
    ) -> Result<u32, CmdError> {
        Ok(self.cmd::<I, O>(opcode, fill)?.get(number))
    }

    /// ALLOC_UAR.
    pub fn alloc_uar(&self) -> Result<u32, CmdError> {
        self.number::<AllocUarIn, _>(Opcode::ALLOC_UAR, AllocUarOut::uar, |_| ())
    }

    /// ALLOC_PD.
    pub fn alloc_pd(&self) -> Result<u32, CmdError> {
        self.number::<AllocPdIn, _>(Opcode::ALLOC_PD, AllocPdOut::pd, |_| ())
    }

    /// ALLOC_TRANSPORT_DOMAIN.
    pub fn alloc_td(&self) -> Result<u32, CmdError> {
        let number = AllocTransportDomainOut::transport_domain;
        self.number::<AllocTransportDomainIn, _>(Opcode::ALLOC_TRANSPORT_DOMAIN, number, |_| ())
    }

    /// CREATE_MKEY for the whole of guest memory; the key.
    pub fn create_mkey(&self, pd: u32) -> Result<u32, CmdError> {
        const BYTE: u32 = 0x42;
        let index = self.number::<CreateMkeyIn, _>(Opcode::CREATE_MKEY, CreateMkeyOut::mkey_index, |i| {
            let mut c = i.sub(CreateMkeyIn::memory_key_mkey_entry);
            c.set(Mkc::lr, 1).set(Mkc::lw, 1).set(Mkc::length64, 1).set(Mkc::pd, pd);
            c.set(Mkc::mkey_7_0, BYTE).set(Mkc::qpn, Mkc::qpn.max());
        })?;
        // The index is the upper three bytes of the key.
        Ok(index * 0x100 + BYTE)
    }

    /// CREATE_EQ with `1 << log_size` entries, which hears the events whose
    /// bits are set in `mask` (completions need none).
    pub fn create_eq(&self, uar: u32, vector: u32, log_size: u32, mask: u64) -> Result<Eq, CmdError> {
        let bytes = (Eqe::SIZE as u64) << log_size;
        let ring = self.mem.alloc(bytes);
        for i in 0..1u64 << log_size {
            self.mem.put(ring + (i + 1) * Eqe::SIZE as u64 - 1, &[1]);
        }
        let out: Out<CreateEqOut> =
            self.cmd_with(Opcode::CREATE_EQ, &pages(ring, bytes), 0, |i: &mut ViewMut<'_, CreateEqIn>| {
                i.set_bytes(CreateEqIn::event_bitmask, &mask.to_be_bytes());
                let mut c = i.sub(CreateEqIn::eq_context_entry);
                c.set(Eqc::log_eq_size, log_size).set(Eqc::uar_page, uar).set(Eqc::intr, vector);
            })?;
        let number = out.get(CreateEqOut::eq_number);
        let (window, mem) = (self.window.clone(), self.mem.clone());
        Ok(Eq { number, window, mem, ring, log_size, uar, consumer: 0 })
    }

    /// CREATE_CQ.
    pub fn create_cq(&self, uar: u32, eqn: u32, log_size: u32) -> Result<Cq, CmdError> {
        self.create_cq_with(uar, eqn, log_size, |_| ())
    }

    /// CREATE_CQ, after `set` has had its way with the context.
    pub fn create_cq_with(
        &self,
        uar: u32,
        eqn: u32,
        log_size: u32,
        set: impl FnOnce(&mut ViewMut<'_, Cqc>),
    ) -> Result<Cq, CmdError> {
        let bytes = (Cqe64::SIZE as u64) << log_size;
        let ring = self.mem.alloc(bytes);
        for i in 0..1u64 << log_size {
            self.mem.put(ring + (i + 1) * Cqe64::SIZE as u64 - 1, &[INVALID << 4 | 1]);
        }
        let record = self.mem.alloc(PAGE);
        self.mem.put32(record + 4, CqRecord::cmd_sn.in_dword(0, INIT_CMD_SN));
        let out: Out<CreateCqOut> =
            self.cmd_with(Opcode::CREATE_CQ, &pages(ring, bytes), 0, |i: &mut ViewMut<'_, CreateCqIn>| {
                let mut c = i.sub(CreateCqIn::cq_context);
                c.set(Cqc::log_cq_size, log_size).set(Cqc::uar_page, uar).set(Cqc::c_eqn_or_apu_element, eqn);
                c.set64(Cqc::dbr_addr, record);
                set(&mut c);
            })?;
        let number = out.get(CreateCqOut::cqn);
        let (window, mem, session) = (self.window.clone(), self.mem.clone(), Default::default());
        Ok(Cq { number, window, mem, ring, log_size, record, uar, consumer: 0, arm_sn: 0, session, sessions: 0 })
    }

    /// MODIFY_CQ of the fields that a mask selects.
    pub fn modify_cq(&self, cqn: u32, select: u32, fill: impl FnOnce(&mut ViewMut<'_, Cqc>)) -> Result<(), CmdError> {
        self.cmd::<ModifyCqIn, ModifyCqOut>(Opcode::MODIFY_CQ, |i| {
            i.set(ModifyCqIn::cqn, cqn);
            i.set_bytes(ModifyCqIn::modify_field_select_resize_field_select, &select.to_be_bytes());
            fill(&mut i.sub(ModifyCqIn::cq_context));
        })
        .map(drop)
    }

    /// MODIFY_CQ: events wait for so many microseconds, or completions.
    pub fn moderate(&self, cqn: u32, period: u32, count: u32, from_cqe: bool) -> Result<(), CmdError> {
        const PERIOD_COUNT_MODE: u32 = 0x13;
        self.modify_cq(cqn, PERIOD_COUNT_MODE, |c| {
            c.set(Cqc::cq_period, period).set(Cqc::cq_max_count, count).set(Cqc::cq_period_mode, from_cqe.into());
        })
    }

    /// QUERY_CQ.
    pub fn query_cq<R>(&self, cqn: u32, read: impl FnOnce(View<'_, Cqc>) -> R) -> Result<R, CmdError> {
        let out: Out<QueryCqOut> = self.cmd(Opcode::QUERY_CQ, |i: &mut ViewMut<'_, QueryCqIn>| {
            i.set(QueryCqIn::cqn, cqn);
        })?;
        Ok(read(out.view().sub(QueryCqOut::cq_context)))
    }

    /// CREATE_TIS.
    pub fn create_tis(&self, td: u32) -> Result<u32, CmdError> {
        self.number::<CreateTisIn, _>(Opcode::CREATE_TIS, CreateTisOut::tisn, |i| {
            i.sub(CreateTisIn::ctx).set(Tisc::transport_domain, td);
        })
    }

    /// CREATE_SQ of `1 << log_size` blocks, in reset.
    pub fn create_sq(&self, uar: u32, pd: u32, cqn: u32, tisn: u32, log_size: u32) -> Result<Sq, CmdError> {
        self.create_sq_with(uar, pd, cqn, tisn, log_size, |_| ())
    }

    /// As [`Self::create_sq`], after `set` has had its way with the context.
    pub fn create_sq_with(
        &self,
        uar: u32,
        pd: u32,
        cqn: u32,
        tisn: u32,
        log_size: u32,
        set: impl FnOnce(&mut ViewMut<'_, Sqc>),
    ) -> Result<Sq, CmdError> {
        let bytes = BLOCK << log_size;
        let (ring, record) = (self.mem.alloc(bytes), self.mem.alloc(PAGE));
        let out: Out<CreateSqOut> =
            self.cmd_with(Opcode::CREATE_SQ, &pages(ring, bytes), 0, |i: &mut ViewMut<'_, CreateSqIn>| {
                let mut c = i.sub(CreateSqIn::ctx);
                c.set(Sqc::cqn, cqn).set(Sqc::tis_lst_sz, 1).set(Sqc::tis_num_0, tisn).set(Sqc::flush_in_error_en, 1);
                let mut wq = c.sub(Sqc::wq);
                wq.set(Wq::wq_type, CYCLIC).set(Wq::pd, pd).set(Wq::uar_page, uar);
                wq.set(Wq::log_wq_stride, BLOCK.ilog2()).set(Wq::log_wq_sz, log_size);
                wq.set64(Wq::dbr_addr, record);
                set(&mut c);
            })?;
        Ok(Sq {
            number: out.get(CreateSqOut::sqn),
            window: self.window.clone(),
            mem: self.mem.clone(),
            ring,
            log_size,
            record,
            uar,
            producer: 0,
            consumer: 0,
            posted: Default::default(),
        })
    }

    /// MODIFY_SQ: a state.
    pub fn modify_sq(&self, sqn: u32, from: u32, to: u32) -> Result<(), CmdError> {
        self.cmd::<ModifySqIn, ModifySqOut>(Opcode::MODIFY_SQ, |i| {
            i.set(ModifySqIn::sqn, sqn).set(ModifySqIn::sq_state, from);
            i.sub(ModifySqIn::ctx).set(Sqc::state, to);
        })
        .map(drop)
    }

    /// CREATE_RQ of `1 << log_size` WQEs with a buffer of `buffer` bytes each,
    /// in reset. `counters` is a counter set or 0.
    pub fn create_rq(
        &self,
        (pd, lkey): (u32, u32),
        cqn: u32,
        counters: u32,
        log_size: u32,
        buffer: u32,
    ) -> Result<Rq, CmdError> {
        const LOG_STRIDE: u32 = 5;
        let bytes = 1u64 << (log_size + LOG_STRIDE);
        let (ring, record) = (self.mem.alloc(bytes), self.mem.alloc(PAGE));
        let buffers = self.mem.alloc(u64::from(buffer) << log_size);
        let out: Out<CreateRqOut> =
            self.cmd_with(Opcode::CREATE_RQ, &pages(ring, bytes), 0, |i: &mut ViewMut<'_, CreateRqIn>| {
                let mut c = i.sub(CreateRqIn::ctx);
                c.set(Rqc::cqn, cqn).set(Rqc::flush_in_error_en, 1).set(Rqc::counter_set_id, counters);
                let mut wq = c.sub(Rqc::wq);
                wq.set(Wq::wq_type, CYCLIC).set(Wq::pd, pd);
                wq.set(Wq::log_wq_stride, LOG_STRIDE).set(Wq::log_wq_sz, log_size);
                wq.set64(Wq::dbr_addr, record);
            })?;
        let rq = Rq {
            number: out.get(CreateRqOut::rqn),
            mem: self.mem.clone(),
            ring,
            log_size,
            log_stride: LOG_STRIDE,
            record,
            lkey,
            buffers,
            buffer,
            producer: 0,
        };
        rq.prepare();
        Ok(rq)
    }

    /// MODIFY_RQ: a state.
    pub fn modify_rq(&self, rqn: u32, from: u32, to: u32) -> Result<(), CmdError> {
        self.cmd::<ModifyRqIn, ModifyRqOut>(Opcode::MODIFY_RQ, |i| {
            i.set(ModifyRqIn::rqn, rqn).set(ModifyRqIn::rq_state, from);
            i.sub(ModifyRqIn::ctx).set(Rqc::state, to);
        })
        .map(drop)
    }

    /// MODIFY_RQ of a ready queue: whether VLAN tags stay in frames.
    pub fn keep_vlan(&self, rqn: u32, keep: bool) -> Result<(), CmdError> {
        const VSD: u64 = 2;
        self.cmd::<ModifyRqIn, ModifyRqOut>(Opcode::MODIFY_RQ, |i| {
            i.set(ModifyRqIn::rqn, rqn).set(ModifyRqIn::rq_state, state::RDY).set64(ModifyRqIn::modify_bitmask, VSD);
            i.sub(ModifyRqIn::ctx).set(Rqc::state, state::RDY).set(Rqc::vsd, keep.into());
        })
        .map(drop)
    }

    /// CREATE_RQT over these queues.
    pub fn create_rqt(&self, rqns: &[u32]) -> Result<u32, CmdError> {
        let list: Vec<u8> = rqns.iter().flat_map(|n| n.to_be_bytes()).collect();
        let out: Out<CreateRqtOut> =
            self.cmd_with(Opcode::CREATE_RQT, &list, 0, |i: &mut ViewMut<'_, CreateRqtIn>| {
                i.sub(CreateRqtIn::rqt_context)
                    .set(Rqtc::rqt_max_size, rqns.len() as u32)
                    .set(Rqtc::rqt_actual_size, rqns.len() as u32);
            })?;
        Ok(out.get(CreateRqtOut::rqtn))
    }

    /// CREATE_TIR that sends everything to one queue.
    pub fn create_direct_tir(&self, td: u32, rqn: u32) -> Result<u32, CmdError> {
        self.number::<CreateTirIn, _>(Opcode::CREATE_TIR, CreateTirOut::tirn, |i| {
            i.sub(CreateTirIn::ctx).set(Tirc::inline_rqn, rqn).set(Tirc::transport_domain, td);
        })
    }

    /// CREATE_TIR that spreads frames over an RQT.
    pub fn create_hash_tir(&self, td: u32, rqtn: u32, hash: &Hash) -> Result<u32, CmdError> {
        const INDIRECT: u32 = 1;
        self.number::<CreateTirIn, _>(Opcode::CREATE_TIR, CreateTirOut::tirn, |i| {
            let mut c = i.sub(CreateTirIn::ctx);
            c.set(Tirc::disp_type, INDIRECT).set(Tirc::indirect_table, rqtn).set(Tirc::transport_domain, td);
            c.set(Tirc::rx_hash_fn, TOEPLITZ).set_bytes(Tirc::rx_hash_toeplitz_key, &hash.key);
            c.sub(Tirc::rx_hash_field_selector_outer)
                .set(RxHashFieldSelect::l3_prot_type, hash.ipv6.into())
                .set(RxHashFieldSelect::l4_prot_type, hash.udp.into())
                .set(RxHashFieldSelect::selected_fields, hash.fields);
        })
    }

    /// MODIFY_TIR: whether it takes frames that its own function sent. The
    /// field is named for the opposite of what a set bit does.
    pub fn take_own_frames(&self, tirn: u32, take: bool) -> Result<(), CmdError> {
        self.cmd::<ModifyTirIn, ModifyTirOut>(Opcode::MODIFY_TIR, |i| {
            i.set(ModifyTirIn::tirn, tirn);
            i.sub(ModifyTirIn::bitmask).set(ModifyTirBitmask::self_lb_en, 1);
            i.sub(ModifyTirIn::ctx).set(Tirc::self_lb_block, if take { Tirc::self_lb_block.max() } else { 0 });
        })
        .map(drop)
    }

    /// ALLOC_Q_COUNTER.
    pub fn alloc_q_counter(&self) -> Result<u32, CmdError> {
        self.number::<AllocQCounterIn, _>(Opcode::ALLOC_Q_COUNTER, AllocQCounterOut::counter_set_id, |_| ())
    }

    /// Frames that found no buffer, by a counter set.
    pub fn out_of_buffer(&self, set: u32) -> Result<u32, CmdError> {
        self.number::<QueryQCounterIn, _>(Opcode::QUERY_Q_COUNTER, QueryQCounterOut::out_of_buffer, |i| {
            i.set(QueryQCounterIn::counter_set_id, set);
        })
    }

    /// Destroys an object by the opcode that does it. All of these commands
    /// have the number in the same place.
    pub fn destroy(&self, opcode: Opcode, number: u32) -> Result<(), CmdError> {
        self.cmd::<DestroyTirIn, DestroyTirOut>(opcode, |i| {
            i.set(DestroyTirIn::tirn, number);
        })
        .map(drop)
    }

    /// State of a send queue (QUERY_SQ).
    pub fn sq_state(&self, sqn: u32) -> Result<u32, CmdError> {
        let out: Out<QuerySqOut> = self.cmd(Opcode::QUERY_SQ, |i: &mut ViewMut<'_, QuerySqIn>| {
            i.set(QuerySqIn::sqn, sqn);
        })?;
        Ok(out.sub(QuerySqOut::sq_context).get(Sqc::state))
    }

    /// State of a receive queue (QUERY_RQ).
    pub fn rq_state(&self, rqn: u32) -> Result<u32, CmdError> {
        let out: Out<QueryRqOut> = self.cmd(Opcode::QUERY_RQ, |i: &mut ViewMut<'_, QueryRqIn>| {
            i.set(QueryRqIn::rqn, rqn);
        })?;
        Ok(out.sub(QueryRqOut::rq_context).get(Rqc::state))
    }
}
