//! Event, completion, send and receive queues: contexts checked, queues made.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sfnic_firmware_cmds::entries::event;
use sfnic_firmware_cmds::layout::Field;
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Refusal, Status, Syndrome, View, ViewMut};
use smallvec::smallvec;

use super::transport::insert;
use super::{Answer, Cx};
use crate::control::caps::ETH;
use crate::control::function::{Body, Function};
use crate::control::objects::{Kind, ObjRef, Uses};
use crate::fabric::plane::Rung;
use crate::queue::{
    Cq, CqConfig, Eq, EqConfig, MiniFormat, Moderation, QCounter, Ring, Rq, RqConfig, Sq, SqConfig, Strides, WqState,
};
use crate::work::Job;

const ABSENT: Refusal = Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT);

/// Number of queues of a kind that a capability allows.
fn limit(f: &Function, log: Field<CmdHcaCap>) -> u32 {
    1 << f.caps.general(log).min(24)
}

fn check_uar(f: &Function, page: u32, uid: u16) -> Answer {
    f.objects.check(ObjRef(Kind::Uar, page), uid).map(drop).map_err(|_| Refusal::param(Syndrome::UAR_RANGE))
}

/// log2 of the bytes of a queue, refused where it is beyond the capability.
fn log_bytes(log_entries: u32, log_max: u32, log_stride: u32) -> Result<u32, Refusal> {
    if log_entries > log_max || log_entries + log_stride > 32 {
        return Err(Refusal::param(Syndrome::QUEUE_SIZE));
    }
    Ok(log_entries + log_stride)
}

/// How many EQs the function may have.
fn eq_limit(f: &Function) -> u32 {
    let wide = f.caps.general2(CmdHcaCap2::max_num_eqs_24b);
    if wide != 0 { wide.min(255) } else { limit(f, CmdHcaCap::log_max_eq).min(255) }
}

/// CREATE_EQ.
pub fn create_eq(cx: &mut Cx<'_>, i: View<'_, CreateEqIn>, o: &mut ViewMut<'_, CreateEqOut>) -> Answer {
    const LOG_EQE: u32 = 6;
    let uid = cx.uid;
    let c = i.sub(CreateEqIn::eq_context_entry);
    let vector = c.get(Eqc::intr) as u16;
    let irq = cx.function()?.irq.clone();
    if vector >= irq.vectors() {
        return Err(Refusal::param(Syndrome::VECTOR_RANGE));
    }
    let (site, card) = (cx.site(), cx.card);
    let (tap, noise) = (cx.nic.trace.tap(cx.card.index, cx.fid), cx.nic.noise.seed());
    let f = cx.function()?;
    // A completion EQ may be created in the name of every user context.
    let owner = if uid == 0xffff { 0 } else { uid };
    let uar = c.get(Eqc::uar_page);
    check_uar(f, uar, owner)?;
    let log_size = c.get(Eqc::log_eq_size);
    let bytes = 1 << log_bytes(log_size, f.caps.general(CmdHcaCap::log_max_eq_sz), LOG_EQE)?;
    let pas: Vec<u64> = i.tail64(CreateEqIn::pas).collect();
    let ring = Ring::new(&pas, c.get(Eqc::log_page_size), c.get(Eqc::page_offset), bytes)?;
    let mut mask = [0; 4];
    for (m, b) in mask.iter_mut().zip(i.bytes(CreateEqIn::event_bitmask).as_chunks::<8>().0) {
        *m = u64::from_be_bytes(*b);
    }
    let id = f.objects.take_id(Kind::Eq, 1, eq_limit(f))?;
    let config = EqConfig { eqn: id as u8, ring, log_size: log_size as u8, vector, unheard: card.is_polled(&f.plane) };
    let eq = Eq::new(config, irq).inspect_err(|_| f.objects.give_id(Kind::Eq, id))?;
    let eq = Arc::new(eq.watched(tap).noisy(noise).faulty(site));
    insert(f, ObjRef(Kind::Eq, id), owner, smallvec![ObjRef(Kind::Uar, uar)], Body::Eq(eq.clone()))?;
    f.plane.eqs.pin().insert(id, Rung { queue: eq.clone(), uar });
    if mask[0] >> event::COMMAND & 1 == 1 {
        f.command_eq = Some(eq.clone());
        mask[0] &= !(1 << event::COMMAND);
    }
    if mask != [0; 4] {
        f.plane.events.insert(mask, eq);
    }
    o.set(CreateEqOut::eq_number, id);
    Ok(())
}

/// DESTROY_EQ.
pub fn destroy_eq(cx: &mut Cx<'_>, i: View<'_, DestroyEqIn>, _: &mut ViewMut<'_, DestroyEqOut>) -> Answer {
    let id = i.get(DestroyEqIn::eq_number);
    let uid = cx.uid;
    let f = cx.function()?;
    let Body::Eq(eq) = f.objects.remove(ObjRef(Kind::Eq, id), uid)? else { return Err(ABSENT) };
    eq.retire();
    f.plane.eqs.pin().remove(&id);
    f.plane.events.remove(id as u8);
    if f.command_eq.as_ref().is_some_and(|c| Arc::ptr_eq(c, &eq)) {
        f.command_eq = None;
    }
    Ok(())
}

/// QUERY_EQ.
pub fn query_eq(cx: &mut Cx<'_>, i: View<'_, QueryEqIn>, o: &mut ViewMut<'_, QueryEqOut>) -> Answer {
    let uid = cx.uid;
    let Body::Eq(eq) = cx.function()?.objects.check(ObjRef(Kind::Eq, i.get(QueryEqIn::eq_number)), uid)? else {
        return Err(ABSENT);
    };
    let s = eq.snapshot();
    let mut c = o.sub(QueryEqOut::eq_context_entry);
    c.set(Eqc::intr, eq.vector().into());
    c.set(Eqc::consumer_counter, s.consumer & Eqc::consumer_counter.max());
    c.set(Eqc::producer_counter, s.producer & Eqc::producer_counter.max());
    Ok(())
}

/// How completions are compressed, if they are: in the basic layout, as the driver may want it.
fn mini_format(f: &Function, c: &View<'_, Cqc>) -> Result<Option<MiniFormat>, Refusal> {
    const BASIC: u32 = 0;
    let cap = |cap: Field<CmdHcaCap>| f.caps.general(cap) != 0;
    if !c.is(Cqc::cqe_comp_en) {
        return Ok(None);
    }
    let format = MiniFormat::from_raw(c.get(Cqc::mini_cqe_res_format)).filter(|format| {
        let strides = *format == MiniFormat::ChecksumStride;
        cap(CmdHcaCap::cqe_compression) && (!strides || cap(CmdHcaCap::mini_cqe_resp_stride_index))
    });
    let plain = c.get(Cqc::cqe_sz) == 0 && c.get(Cqc::cqe_compression_layout) == BASIC;
    format.filter(|_| plain).map(Some).ok_or(Refusal::param(Syndrome::CQE_SIZE))
}

/// CREATE_CQ.
pub fn create_cq(cx: &mut Cx<'_>, i: View<'_, CreateCqIn>, o: &mut ViewMut<'_, CreateCqOut>) -> Answer {
    let uid = cx.uid;
    let c = i.sub(CreateCqIn::cq_context);
    let log_cqe = match c.get(Cqc::cqe_sz) {
        0 => 6,
        1 | 2 => 7,
        _ => return Err(Refusal::param(Syndrome::CQE_SIZE)),
    };
    let mini = mini_format(cx.function()?, &c)?;
    let (site, card) = (cx.site(), cx.card);
    if i.is(CreateCqIn::cq_umem_valid) || c.is(Cqc::dbr_umem_valid) {
        return Err(Refusal::param(Syndrome::UMEM));
    }
    let f = cx.function()?;
    let uar = c.get(Cqc::uar_page);
    check_uar(f, uar, uid)?;
    let eqn = c.get(Cqc::c_eqn_or_apu_element);
    let Body::Eq(eq) = f.objects.check(ObjRef(Kind::Eq, eqn), 0)? else { return Err(ABSENT) };
    let eq = eq.clone();
    let log_size = c.get(Cqc::log_cq_size);
    let bytes = 1 << log_bytes(log_size, f.caps.general(CmdHcaCap::log_max_cq_sz), log_cqe)?;
    let pas: Vec<u64> = i.tail64(CreateCqIn::pas).collect();
    let ring = Ring::new(&pas, c.get(Cqc::log_page_size), c.get(Cqc::page_offset), bytes)?;
    let id = f.objects.take_id(Kind::Cq, 1, limit(f, CmdHcaCap::log_max_cq))?;
    let config = CqConfig {
        cqn: id,
        ring,
        log_size: log_size as u8,
        cqe_128: c.get(Cqc::cqe_sz) == 1,
        mini,
        overrun_ignore: c.is(Cqc::oi),
        dbr_addr: c.get64(Cqc::dbr_addr),
        poll_record: card.is_polled(&f.plane),
    };
    let events = f.plane.events.clone();
    let cq = Cq::new(config, eq, events).inspect_err(|_| f.objects.give_id(Kind::Cq, id))?;
    let cq = Arc::new(cq.faulty(site));
    let select = PERIOD | COUNT | MODE;
    cq.moderate(|m| moderate(m, &c, select));
    // The EQ is the kernel's even where the CQ is a user's.
    insert(f, ObjRef(Kind::Cq, id), uid, smallvec![ObjRef(Kind::Uar, uar)], Body::Cq(cq.clone()))?;
    f.objects.add_use(ObjRef(Kind::Cq, id), ObjRef(Kind::Eq, eqn));
    f.plane.cqs.pin().insert(id, Rung { queue: cq, uar });
    o.set(CreateCqOut::cqn, id);
    Ok(())
}

/// DESTROY_CQ.
pub fn destroy_cq(cx: &mut Cx<'_>, i: View<'_, DestroyCqIn>, _: &mut ViewMut<'_, DestroyCqOut>) -> Answer {
    let (uid, id) = (cx.uid, i.get(DestroyCqIn::cqn));
    let f = cx.function()?;
    let Body::Cq(cq) = f.objects.remove(ObjRef(Kind::Cq, id), uid)? else { return Err(ABSENT) };
    cq.retire();
    f.plane.cqs.pin().remove(&id);
    Ok(())
}

/// QUERY_CQ.
pub fn query_cq(cx: &mut Cx<'_>, i: View<'_, QueryCqIn>, o: &mut ViewMut<'_, QueryCqOut>) -> Answer {
    let uid = cx.uid;
    let Body::Cq(cq) = cx.function()?.objects.check(ObjRef(Kind::Cq, i.get(QueryCqIn::cqn)), uid)? else {
        return Err(ABSENT);
    };
    let s = cq.snapshot();
    let mut c = o.sub(QueryCqOut::cq_context);
    c.set(Cqc::log_cq_size, cq.config().log_size.into());
    c.set(Cqc::c_eqn_or_apu_element, cq.eq().eqn().into());
    c.set(Cqc::cq_period, s.moderation.period.into());
    c.set(Cqc::cq_max_count, s.moderation.count.into());
    c.set(Cqc::cq_period_mode, s.moderation.from_cqe.into());
    c.set(Cqc::consumer_counter, s.consumer & Cqc::consumer_counter.max());
    c.set(Cqc::producer_counter, s.producer & Cqc::producer_counter.max());
    c.set64(Cqc::dbr_addr, cq.config().dbr_addr);
    Ok(())
}

/// Bits of `modify_field_select` (`MLX5_CQ_MODIFY_PERIOD`, `_COUNT`, `_PERIOD_MODE`).
const PERIOD: u8 = 1;
const COUNT: u8 = 1 << 1;
const MODE: u8 = 1 << 4;

/// Takes over the selected fields.
fn moderate(m: &mut Moderation, c: &View<'_, Cqc>, select: u8) {
    if select & PERIOD != 0 {
        m.period = c.get(Cqc::cq_period) as u16;
    }
    if select & COUNT != 0 {
        m.count = c.get(Cqc::cq_max_count) as u16;
    }
    if select & MODE != 0 {
        m.from_cqe = c.is(Cqc::cq_period_mode);
    }
}

/// MODIFY_CQ: moderation. Resizing is not advertised.
pub fn modify_cq(cx: &mut Cx<'_>, i: View<'_, ModifyCqIn>, _: &mut ViewMut<'_, ModifyCqOut>) -> Answer {
    const RESIZE: u16 = 1;
    if cx.op_mod == RESIZE {
        return Err(Refusal::param(Syndrome::OP_MOD));
    }
    let select = i.bytes(ModifyCqIn::modify_field_select_resize_field_select);
    let [0, 0, 0, select] = *select else { return Err(Refusal::param(Syndrome::FIELD_SELECT)) };
    if select & !(PERIOD | COUNT | MODE) != 0 {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let (uid, cqn) = (cx.uid, i.get(ModifyCqIn::cqn));
    let c = i.sub(ModifyCqIn::cq_context);
    cq_of(cx.function()?, cqn, uid)?.moderate(|m| moderate(m, &c, select));
    Ok(())
}

/// The ring of a work queue, from its `wq` structure.
fn wq_ring(wq: &View<'_, Wq>, log_bytes: u32) -> Result<Ring, Refusal> {
    if wq.is(Wq::wq_umem_valid) || wq.is(Wq::dbr_umem_valid) {
        return Err(Refusal::param(Syndrome::UMEM));
    }
    let pas: Vec<u64> = wq.tail64(Wq::pas).collect();
    Ring::new(&pas, wq.get(Wq::log_wq_pg_sz), wq.get(Wq::page_offset), 1 << log_bytes)
}

fn cq_of(f: &Function, cqn: u32, uid: u16) -> Result<Arc<Cq>, Refusal> {
    match f.objects.check(ObjRef(Kind::Cq, cqn), uid)? {
        Body::Cq(cq) => Ok(cq.clone()),
        _ => Err(ABSENT),
    }
}

/// CREATE_SQ.
pub fn create_sq(cx: &mut Cx<'_>, i: View<'_, CreateSqIn>, o: &mut ViewMut<'_, CreateSqOut>) -> Answer {
    const LOG_WQEBB: u32 = 6;
    const CYCLIC: u32 = 1;
    let uid = cx.uid;
    let c = i.sub_open(CreateSqIn::ctx);
    let wq = c.sub_open(Sqc::wq);
    if c.is(Sqc::hairpin) || c.is(Sqc::allow_multi_pkt_send_wqe) || c.is(Sqc::non_wire) {
        return Err(Refusal::param(Syndrome::QUEUE_TYPE));
    }
    if wq.get(Wq::wq_type) != CYCLIC {
        return Err(Refusal::param(Syndrome::QUEUE_TYPE));
    }
    if wq.get(Wq::log_wq_stride) != LOG_WQEBB {
        return Err(Refusal::param(Syndrome::QUEUE_STRIDE));
    }
    let f = cx.function()?;
    let offloads = f.caps.of::<PerProtocolNetworkingOffloadCaps>(ETH);
    let multi_packet = offloads.is(PerProtocolNetworkingOffloadCaps::enhanced_multi_pkt_send_wqe);
    if c.is(Sqc::reg_umr) && !offloads.is(PerProtocolNetworkingOffloadCaps::reg_umr_sq) {
        return Err(Refusal::param(Syndrome::QUEUE_TYPE));
    }
    let uar = wq.get(Wq::uar_page);
    check_uar(f, uar, uid)?;
    let (cqn, tisn, pd) = (c.get(Sqc::cqn), c.get(Sqc::tis_num_0), wq.get(Wq::pd));
    let cq = cq_of(f, cqn, uid)?;
    let mut uses: Uses = smallvec![ObjRef(Kind::Uar, uar), ObjRef(Kind::Cq, cqn), ObjRef(Kind::Pd, pd)];
    let (mut tdn, mut prio) = (0, 0);
    if c.is(Sqc::tis_lst_sz) {
        let r = ObjRef(Kind::Tis, tisn);
        let Body::Tis(t) = f.objects.check(r, uid)? else { return Err(ABSENT) };
        (tdn, prio) = (t.td, t.prio);
        uses.push(r);
    }
    let log_size = wq.get(Wq::log_wq_sz);
    let bytes = log_bytes(log_size, f.caps.general(CmdHcaCap::log_max_wq_sz), LOG_WQEBB)?;
    let ring = wq_ring(&wq, bytes)?;
    let id = f.objects.take_id(Kind::Sq, 1, limit(f, CmdHcaCap::log_max_sq))?;
    let config = SqConfig {
        sqn: id,
        ring,
        log_size: log_size as u8,
        cq,
        dbr_addr: wq.get64(Wq::dbr_addr),
        pd,
        reserved_key: c.is(Sqc::rlky),
        tdn,
        prio: prio as u8,
        min_inline_mode: c.get(Sqc::min_wqe_inline_mode) as u8,
        reg_umr: c.is(Sqc::reg_umr),
        multi_packet,
        flush_in_error: c.is(Sqc::flush_in_error_en),
        user_index: c.get(Sqc::user_index),
        uid,
    };
    let sq = Arc::new(Sq::new(config).inspect_err(|_| f.objects.give_id(Kind::Sq, id))?);
    insert(f, ObjRef(Kind::Sq, id), uid, uses, Body::Sq(sq.clone()))?;
    f.plane.sqs.pin().insert(id, Rung { queue: sq, uar });
    o.set(CreateSqOut::sqn, id);
    Ok(())
}

/// MODIFY_SQ: states. Rate limits are not advertised.
pub fn modify_sq(cx: &mut Cx<'_>, i: View<'_, ModifySqIn>, _: &mut ViewMut<'_, ModifySqOut>) -> Answer {
    let (uid, r) = (cx.uid, ObjRef(Kind::Sq, i.get(ModifySqIn::sqn)));
    if i.get64(ModifySqIn::modify_bitmask) != 0 {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let from = WqState::from_raw(i.get(ModifySqIn::sq_state))?;
    let to = WqState::from_raw(i.sub(ModifySqIn::ctx).get(Sqc::state))?;
    let card = cx.card.index;
    let f = cx.function()?;
    let dma = f.plane.dma.clone();
    let mem = dma.load();
    let Body::Sq(sq) = f.objects.check(r, uid)? else { return Err(ABSENT) };
    if sq.modify(&mem, from, to)? {
        let job = Job { card, function: f.plane.clone(), sq: sq.clone() };
        cx.nic.work.push(job);
    }
    Ok(())
}

/// DESTROY_SQ.
pub fn destroy_sq(cx: &mut Cx<'_>, i: View<'_, DestroySqIn>, _: &mut ViewMut<'_, DestroySqOut>) -> Answer {
    let (uid, id) = (cx.uid, i.get(DestroySqIn::sqn));
    let f = cx.function()?;
    let Body::Sq(sq) = f.objects.remove(ObjRef(Kind::Sq, id), uid)? else { return Err(ABSENT) };
    f.plane.sqs.pin().remove(&id);
    sq.retire();
    Ok(())
}

/// QUERY_SQ.
pub fn query_sq(cx: &mut Cx<'_>, i: View<'_, QuerySqIn>, o: &mut ViewMut<'_, QuerySqOut>) -> Answer {
    let (uid, r) = (cx.uid, ObjRef(Kind::Sq, i.get(QuerySqIn::sqn)));
    let Body::Sq(sq) = cx.function()?.objects.check(r, uid)? else { return Err(ABSENT) };
    let (s, config) = (sq.snapshot(), sq.config());
    let mut c = o.sub(QuerySqOut::sq_context);
    c.set(Sqc::state, s.state as u32);
    c.set(Sqc::cqn, config.cq.cqn());
    c.set(Sqc::user_index, config.user_index);
    c.set(Sqc::flush_in_error_en, config.flush_in_error.into());
    let mut wq = c.sub(Sqc::wq);
    wq.set(Wq::log_wq_sz, config.log_size.into());
    wq.set(Wq::hw_counter, s.consumer.into());
    wq.set(Wq::sw_counter, s.producer.into());
    Ok(())
}

fn counter_set(f: &Function, id: u32, uid: u16) -> Result<Option<Arc<QCounter>>, Refusal> {
    if id == 0 {
        return Ok(None);
    }
    match f.objects.check(ObjRef(Kind::QCounter, id), uid)? {
        Body::QCounter(c) => Ok(Some(c.clone())),
        _ => Err(ABSENT),
    }
}

/// CREATE_RQ.
pub fn create_rq(cx: &mut Cx<'_>, i: View<'_, CreateRqIn>, o: &mut ViewMut<'_, CreateRqOut>) -> Answer {
    const INLINE: u32 = 0;
    const LINKED_LIST: u32 = 0;
    const CYCLIC: u32 = 1;
    const LINKED_LIST_STRIDING: u32 = 2;
    const CYCLIC_STRIDING: u32 = 3;
    let uid = cx.uid;
    let c = i.sub_open(CreateRqIn::ctx);
    let wq = c.sub_open(Rqc::wq);
    let caps = &cx.function()?.caps;
    let cap = |f: Field<CmdHcaCap>| caps.general(f) != 0;
    let (linked, striding) = match wq.get(Wq::wq_type) {
        LINKED_LIST => (true, false),
        CYCLIC => (false, false),
        LINKED_LIST_STRIDING if cap(CmdHcaCap::striding_rq) => (true, true),
        CYCLIC_STRIDING if cap(CmdHcaCap::striding_rq) => (false, true),
        _ => return Err(Refusal::param(Syndrome::QUEUE_TYPE)),
    };
    let strides = if striding {
        let (size, count) = (wq.get(Wq::log_wqe_stride_size), wq.get(Wq::log_wqe_num_of_strides));
        Some(Strides::new(size, count, cap(CmdHcaCap::ext_stride_num_range))?)
    } else {
        None
    };
    if wq.is(Wq::shampo_enable) || wq.is(Wq::two_byte_shift_en) {
        return Err(Refusal::param(Syndrome::QUEUE_TYPE));
    }
    if c.get(Rqc::mem_rq_type) != INLINE || c.is(Rqc::hairpin) || c.is(Rqc::delay_drop_en) || c.is(Rqc::scatter_fcs) {
        return Err(Refusal::param(Syndrome::QUEUE_TYPE));
    }
    let f = cx.function()?;
    let (cqn, pd, set) = (c.get(Rqc::cqn), wq.get(Wq::pd), c.get(Rqc::counter_set_id));
    let cq = cq_of(f, cqn, uid)?;
    let counter_set = counter_set(f, set, uid)?;
    let mut uses: Uses = smallvec![ObjRef(Kind::Cq, cqn)];
    // The driver's drop queue names no domain: it never has a buffer.
    if pd != 0 {
        uses.push(ObjRef(Kind::Pd, pd));
    }
    if set != 0 {
        uses.push(ObjRef(Kind::QCounter, set));
    }
    let (log_size, log_stride) = (wq.get(Wq::log_wq_sz), wq.get(Wq::log_wq_stride));
    let bytes = log_bytes(log_size, f.caps.general(CmdHcaCap::log_max_wq_sz), log_stride)?;
    let ring = wq_ring(&wq, bytes)?;
    let id = f.objects.take_id(Kind::Rq, 1, limit(f, CmdHcaCap::log_max_rq))?;
    let config = RqConfig {
        rqn: id,
        ring,
        log_size: log_size as u8,
        log_stride: log_stride as u8,
        linked,
        strides,
        cq,
        dbr_addr: wq.get64(Wq::dbr_addr),
        pd,
        reserved_key: c.is(Rqc::rlky),
        vlan_strip_disable: c.is(Rqc::vsd),
        scatter_fcs: false,
        counter_set,
        flush_in_error: c.is(Rqc::flush_in_error_en),
        user_index: c.get(Rqc::user_index),
        uid,
    };
    let rq = Arc::new(Rq::new(config).inspect_err(|_| f.objects.give_id(Kind::Rq, id))?);
    insert(f, ObjRef(Kind::Rq, id), uid, uses, Body::Rq(rq))?;
    o.set(CreateRqOut::rqn, id);
    Ok(())
}

/// MODIFY_RQ: states, VLAN stripping, counter set.
pub fn modify_rq(cx: &mut Cx<'_>, i: View<'_, ModifyRqIn>, _: &mut ViewMut<'_, ModifyRqOut>) -> Answer {
    const VSD: u64 = 1 << 1;
    const SCATTER_FCS: u64 = 1 << 2;
    const COUNTER_SET: u64 = 1 << 3;
    let (uid, r) = (cx.uid, ObjRef(Kind::Rq, i.get(ModifyRqIn::rqn)));
    let select = i.get64(ModifyRqIn::modify_bitmask);
    let c = i.sub(ModifyRqIn::ctx);
    if select & !(VSD | SCATTER_FCS | COUNTER_SET) != 0 || (select & SCATTER_FCS != 0 && c.is(Rqc::scatter_fcs)) {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let from = WqState::from_raw(i.get(ModifyRqIn::rq_state))?;
    let to = WqState::from_raw(c.get(Rqc::state))?;
    let f = cx.function()?;
    let dma = f.plane.dma.clone();
    let mem = dma.load();
    let Body::Rq(rq) = f.objects.check(r, uid)? else { return Err(ABSENT) };
    let rq = rq.clone();
    let set = c.get(Rqc::counter_set_id);
    let counters = if select & COUNTER_SET != 0 { Some(counter_set(f, set, uid)?) } else { None };
    rq.modify(&mem, from, to)?;
    if select & VSD != 0 {
        rq.set_vlan_strip_disable(c.is(Rqc::vsd));
    }
    if let Some(counters) = counters {
        rq.set_counter_set(counters);
        f.objects.swap_use(r, Kind::QCounter, (set != 0).then_some(set));
    }
    Ok(())
}

/// DESTROY_RQ.
pub fn destroy_rq(cx: &mut Cx<'_>, i: View<'_, DestroyRqIn>, _: &mut ViewMut<'_, DestroyRqOut>) -> Answer {
    let (uid, id) = (cx.uid, i.get(DestroyRqIn::rqn));
    let Body::Rq(rq) = cx.function()?.objects.remove(ObjRef(Kind::Rq, id), uid)? else { return Err(ABSENT) };
    rq.retire();
    Ok(())
}

/// QUERY_RQ.
pub fn query_rq(cx: &mut Cx<'_>, i: View<'_, QueryRqIn>, o: &mut ViewMut<'_, QueryRqOut>) -> Answer {
    let (uid, r) = (cx.uid, ObjRef(Kind::Rq, i.get(QueryRqIn::rqn)));
    let Body::Rq(rq) = cx.function()?.objects.check(r, uid)? else { return Err(ABSENT) };
    let (s, config) = (rq.snapshot(), rq.config());
    let mut c = o.sub(QueryRqOut::rq_context);
    c.set(Rqc::state, s.state as u32);
    c.set(Rqc::cqn, config.cq.cqn());
    c.set(Rqc::user_index, config.user_index);
    c.set(Rqc::vsd, s.vlan_strip_disable.into());
    let mut wq = c.sub(Rqc::wq);
    wq.set(Wq::log_wq_sz, config.log_size.into());
    wq.set(Wq::log_wq_stride, config.log_stride.into());
    wq.set(Wq::hw_counter, s.consumer.into());
    wq.set(Wq::sw_counter, s.producer.into());
    Ok(())
}

/// Counts of a set, taken and cleared where the driver says so.
pub fn out_of_buffer(c: &QCounter, clear: bool) -> u64 {
    if clear { c.out_of_buffer.swap(0, Relaxed) } else { c.out_of_buffer.load(Relaxed) }
}
