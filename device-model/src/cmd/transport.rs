//! Domains, UAR pages, memory keys, and how frames find their queue: RQT, TIR,
//! TIS.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Layout, Refusal, Status, Syndrome, View, ViewMut};
use smallvec::smallvec;

use super::{Answer, Cx};
use crate::bar::FIRST_UAR;
use crate::control::caps::ETH;
use crate::control::function::{Body, Function, Tis};
use crate::control::objects::{Kind, ObjRef, Uses};
use crate::fabric::mkey::{Mkey, PageList, Translation};
use crate::fabric::tir::{Dispatch, Lro, Rqt, Tir, TirState};
use crate::packet::toeplitz::{HashFn, Selector};
use crate::queue::Rq;

/// Allocates an object that is a number and nothing else.
fn alloc_plain(cx: &mut Cx<'_>, kind: Kind, limit: u32) -> Result<u32, Refusal> {
    let uid = cx.uid;
    let f = cx.function()?;
    let id = f.objects.take_id(kind, 1, limit)?;
    f.objects.insert(ObjRef(kind, id), uid, Uses::new(), Body::Plain)?;
    Ok(id)
}

fn remove(cx: &mut Cx<'_>, kind: Kind, id: u32) -> Result<Body, Refusal> {
    let uid = cx.uid;
    cx.function()?.objects.remove(ObjRef(kind, id), uid)
}

fn limit(cx: &mut Cx<'_>, f: sfnic_firmware_cmds::layout::Field<CmdHcaCap>) -> Result<u32, Refusal> {
    Ok(1 << cx.function()?.caps.general(f).min(24))
}

/// ALLOC_PD.
pub fn alloc_pd(cx: &mut Cx<'_>, _: View<'_, AllocPdIn>, o: &mut ViewMut<'_, AllocPdOut>) -> Answer {
    let limit = limit(cx, CmdHcaCap::log_max_pd)?;
    o.set(AllocPdOut::pd, alloc_plain(cx, Kind::Pd, limit)?);
    Ok(())
}

/// DEALLOC_PD.
pub fn dealloc_pd(cx: &mut Cx<'_>, i: View<'_, DeallocPdIn>, _: &mut ViewMut<'_, DeallocPdOut>) -> Answer {
    remove(cx, Kind::Pd, i.get(DeallocPdIn::pd)).map(drop)
}

/// ALLOC_XRCD: a domain that shared receive queues can be of, of which there are none yet.
/// mlx5_ib takes two for itself, whatever it is used for.
pub fn alloc_xrcd(cx: &mut Cx<'_>, _: View<'_, AllocXrcdIn>, o: &mut ViewMut<'_, AllocXrcdOut>) -> Answer {
    let limit = limit(cx, CmdHcaCap::log_max_xrcd)?;
    o.set(AllocXrcdOut::xrcd, alloc_plain(cx, Kind::Xrcd, limit)?);
    Ok(())
}

/// DEALLOC_XRCD.
pub fn dealloc_xrcd(cx: &mut Cx<'_>, i: View<'_, DeallocXrcdIn>, _: &mut ViewMut<'_, DeallocXrcdOut>) -> Answer {
    remove(cx, Kind::Xrcd, i.get(DeallocXrcdIn::xrcd)).map(drop)
}

/// ALLOC_TRANSPORT_DOMAIN.
pub fn alloc_transport_domain(
    cx: &mut Cx<'_>,
    _: View<'_, AllocTransportDomainIn>,
    o: &mut ViewMut<'_, AllocTransportDomainOut>,
) -> Answer {
    let limit = limit(cx, CmdHcaCap::log_max_transport_domain)?;
    o.set(AllocTransportDomainOut::transport_domain, alloc_plain(cx, Kind::TransportDomain, limit)?);
    Ok(())
}

/// DEALLOC_TRANSPORT_DOMAIN.
pub fn dealloc_transport_domain(
    cx: &mut Cx<'_>,
    i: View<'_, DeallocTransportDomainIn>,
    _: &mut ViewMut<'_, DeallocTransportDomainOut>,
) -> Answer {
    remove(cx, Kind::TransportDomain, i.get(DeallocTransportDomainIn::transport_domain)).map(drop)
}

/// ALLOC_UAR: a page of the function's own window.
pub fn alloc_uar(cx: &mut Cx<'_>, _: View<'_, AllocUarIn>, o: &mut ViewMut<'_, AllocUarOut>) -> Answer {
    let (uid, card) = (cx.uid, cx.card);
    let f = cx.function()?;
    let limit = card.uar_limit(f.kind);
    let page = f.objects.take_id(Kind::Uar, FIRST_UAR, limit)?;
    f.objects.insert(ObjRef(Kind::Uar, page), uid, Uses::new(), Body::Plain)?;
    f.plane.uars.pin().insert(page, uid);
    o.set(AllocUarOut::uar, page);
    Ok(())
}

/// DEALLOC_UAR.
pub fn dealloc_uar(cx: &mut Cx<'_>, i: View<'_, DeallocUarIn>, _: &mut ViewMut<'_, DeallocUarOut>) -> Answer {
    let page = i.get(DeallocUarIn::uar);
    remove(cx, Kind::Uar, page)?;
    cx.function()?.plane.uars.pin().remove(&page);
    Ok(())
}

/// CREATE_MKEY: physical addresses, or a list of pages.
pub fn create_mkey(cx: &mut Cx<'_>, i: View<'_, CreateMkeyIn>, o: &mut ViewMut<'_, CreateMkeyOut>) -> Answer {
    const PHYSICAL: u32 = 0;
    const PAGES: u32 = 1;
    const INDIRECT: u32 = 2;
    let uid = cx.uid;
    let c = i.sub(CreateMkeyIn::memory_key_mkey_entry);
    if i.is(CreateMkeyIn::mkey_umem_valid) || i.is(CreateMkeyIn::pg_access) {
        return Err(Refusal::param(Syndrome::MKEY_MODE));
    }
    let mode = c.get(Mkc::access_mode_4_2) << Mkc::access_mode_1_0.width() | c.get(Mkc::access_mode_1_0);
    // A free key waits for a send queue to give it memory (UMR). One that brings no list has
    // no room for one: such are mlx5_ib's, whose queues for UMRs are not modelled.
    let bare = c.is(Mkc::free) && i.get(CreateMkeyIn::translations_octword_actual_size) == 0;
    let translation = match mode {
        PAGES | INDIRECT if bare => Translation::None,
        PHYSICAL => Translation::Physical,
        PAGES => page_list(&i, &c)?,
        _ => return Err(Refusal::param(Syndrome::MKEY_MODE)),
    };
    let pd = c.get(Mkc::pd);
    let limit = limit(cx, CmdHcaCap::log_max_mkey)?;
    let f = cx.function()?;
    // Index 0 and 1 are kept free: key 0x100 ends a scatter list.
    let index = f.objects.take_id(Kind::Mkey, 2, limit.saturating_sub(2))?;
    let mkey = Arc::new(Mkey {
        key: index << 8 | c.get(Mkc::mkey_7_0),
        pd,
        uid,
        local_read: c.is(Mkc::lr),
        local_write: c.is(Mkc::lw),
        umr: c.is(Mkc::umr_en),
        free: AtomicBool::new(c.is(Mkc::free)),
        translation,
    });
    insert(f, ObjRef(Kind::Mkey, index), uid, smallvec![ObjRef(Kind::Pd, pd)], Body::Mkey(mkey.clone()))?;
    f.plane.mkeys.pin().insert(index, mkey);
    o.set(CreateMkeyOut::mkey_index, index);
    Ok(())
}

/// The page list of a CREATE_MKEY in MTT mode.
fn page_list(i: &View<'_, CreateMkeyIn>, c: &View<'_, Mkc>) -> Result<Translation, Refusal> {
    let log_page = c.get(Mkc::log_page_size);
    if !(12..=30).contains(&log_page) {
        return Err(Refusal::param(Syndrome::QUEUE_PAGES));
    }
    let pages = PageList::new(i.tail(CreateMkeyIn::klm_pas_mtt));
    let (start, len) = (c.get64(Mkc::start_addr), c.get64(Mkc::len));
    let first = start & ((1 << log_page) - 1);
    let need = first.checked_add(len).ok_or(Refusal::param(Syndrome::QUEUE_PAGES))?.div_ceil(1 << log_page);
    if need > pages.len() as u64 || start.checked_add(len).is_none() {
        return Err(Refusal::param(Syndrome::QUEUE_PAGES));
    }
    Ok(Translation::Pages { start, len, log_page, pages })
}

/// Adds an object, giving its number back where that fails.
pub(super) fn insert(f: &mut Function, r: ObjRef, uid: u16, uses: Uses, body: Body) -> Answer {
    let added = f.objects.insert(r, uid, uses, body);
    if added.is_err() {
        f.objects.give_id(r.0, r.1);
    }
    added
}

/// DESTROY_MKEY.
pub fn destroy_mkey(cx: &mut Cx<'_>, i: View<'_, DestroyMkeyIn>, _: &mut ViewMut<'_, DestroyMkeyOut>) -> Answer {
    let index = i.get(DestroyMkeyIn::mkey_index);
    remove(cx, Kind::Mkey, index)?;
    cx.function()?.plane.mkeys.pin().remove(&index);
    Ok(())
}

/// CREATE_TIS.
pub fn create_tis(cx: &mut Cx<'_>, i: View<'_, CreateTisIn>, o: &mut ViewMut<'_, CreateTisOut>) -> Answer {
    let uid = cx.uid;
    let c = i.sub(CreateTisIn::ctx);
    if c.is(Tisc::tls_en) {
        return Err(Refusal::param(Syndrome::TIR_DISPATCH));
    }
    let td = c.get(Tisc::transport_domain);
    let limit = limit(cx, CmdHcaCap::log_max_tis)?;
    let f = cx.function()?;
    let id = f.objects.take_id(Kind::Tis, 1, limit)?;
    let body = Body::Tis(Tis { prio: c.get(Tisc::prio), td });
    insert(f, ObjRef(Kind::Tis, id), uid, smallvec![ObjRef(Kind::TransportDomain, td)], body)?;
    o.set(CreateTisOut::tisn, id);
    Ok(())
}

/// MODIFY_TIS: the priority.
pub fn modify_tis(cx: &mut Cx<'_>, i: View<'_, ModifyTisIn>, _: &mut ViewMut<'_, ModifyTisOut>) -> Answer {
    let (uid, r) = (cx.uid, ObjRef(Kind::Tis, i.get(ModifyTisIn::tisn)));
    let prio = i.sub(ModifyTisIn::ctx).get(Tisc::prio);
    let f = cx.function()?;
    f.objects.check(r, uid)?;
    if i.sub(ModifyTisIn::bitmask).is(ModifyTisBitmask::prio)
        && let Some(Body::Tis(t)) = f.objects.get_mut(r)
    {
        t.prio = prio;
    }
    Ok(())
}

/// DESTROY_TIS.
pub fn destroy_tis(cx: &mut Cx<'_>, i: View<'_, DestroyTisIn>, _: &mut ViewMut<'_, DestroyTisOut>) -> Answer {
    remove(cx, Kind::Tis, i.get(DestroyTisIn::tisn)).map(drop)
}

/// The receive queues that an RQT names, and the references to them.
fn rqt_queues(f: &Function, uid: u16, list: &[u8], n: usize) -> Result<(Vec<Arc<Rq>>, Uses), Refusal> {
    let entries = list.as_chunks::<4>().0;
    if entries.len() < n {
        return Err(Refusal::param(Syndrome::RQT_SIZE));
    }
    let mut queues = Vec::with_capacity(n);
    let mut uses = Uses::new();
    for e in &entries[..n] {
        let rqn = View::<RqNum>::new(e).get(RqNum::rq_num);
        let r = ObjRef(Kind::Rq, rqn);
        let Body::Rq(rq) = f.objects.check(r, uid)? else {
            return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT));
        };
        queues.push(rq.clone());
        if !uses.contains(&r) {
            uses.push(r);
        }
    }
    Ok((queues, uses))
}

/// CREATE_RQT.
pub fn create_rqt(cx: &mut Cx<'_>, i: View<'_, CreateRqtIn>, o: &mut ViewMut<'_, CreateRqtOut>) -> Answer {
    let uid = cx.uid;
    let c = i.sub_open(CreateRqtIn::rqt_context);
    if c.is(Rqtc::list_q_type) || c.is(Rqtc::rq_vhca_id_format) {
        return Err(Refusal::param(Syndrome::QUEUE_TYPE));
    }
    let (max, actual) = (c.get(Rqtc::rqt_max_size), c.get(Rqtc::rqt_actual_size));
    let limit = limit(cx, CmdHcaCap::log_max_rqt)?;
    let f = cx.function()?;
    let most = 1 << f.caps.general(CmdHcaCap::log_max_rqt_size);
    if max == 0 || max > most || actual > max {
        return Err(Refusal::param(Syndrome::RQT_SIZE));
    }
    let (queues, uses) = rqt_queues(f, uid, c.tail(Rqtc::rq_num), actual as usize)?;
    let id = f.objects.take_id(Kind::Rqt, 1, limit)?;
    let rqt = Arc::new(Rqt { id, max, queues: ArcSwap::from_pointee(queues) });
    insert(f, ObjRef(Kind::Rqt, id), uid, uses, Body::Rqt(rqt))?;
    o.set(CreateRqtOut::rqtn, id);
    Ok(())
}

/// MODIFY_RQT: another list of queues, at once for all frames.
pub fn modify_rqt(cx: &mut Cx<'_>, i: View<'_, ModifyRqtIn>, _: &mut ViewMut<'_, ModifyRqtOut>) -> Answer {
    let uid = cx.uid;
    let c = i.sub_open(ModifyRqtIn::ctx);
    let r = ObjRef(Kind::Rqt, i.get(ModifyRqtIn::rqtn));
    let f = cx.function()?;
    let Body::Rqt(rqt) = f.objects.check(r, uid)? else {
        return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT));
    };
    let rqt = rqt.clone();
    if !i.sub(ModifyRqtIn::bitmask).is(RqtBitmask::rqn_list) {
        return Ok(());
    }
    let actual = c.get(Rqtc::rqt_actual_size);
    if actual > rqt.max {
        return Err(Refusal::param(Syndrome::RQT_SIZE));
    }
    let (queues, uses) = rqt_queues(f, uid, c.tail(Rqtc::rq_num), actual as usize)?;
    f.objects.set_uses(r, uid, uses)?;
    rqt.queues.store(Arc::new(queues));
    Ok(())
}

/// DESTROY_RQT.
pub fn destroy_rqt(cx: &mut Cx<'_>, i: View<'_, DestroyRqtIn>, _: &mut ViewMut<'_, DestroyRqtOut>) -> Answer {
    remove(cx, Kind::Rqt, i.get(DestroyRqtIn::rqtn)).map(drop)
}

/// Hash function, symmetry and fields of a TIR context.
fn tir_hash(c: &View<'_, Tirc>) -> Result<(HashFn, bool, Selector), Refusal> {
    let mut key = [0; 40];
    key.copy_from_slice(c.bytes(Tirc::rx_hash_toeplitz_key));
    let hash = HashFn::new(c.get(Tirc::rx_hash_fn), &key).ok_or(Refusal::param(Syndrome::TIR_DISPATCH))?;
    Ok((hash, c.is(Tirc::rx_hash_symmetric), Selector::decode(c.sub(Tirc::rx_hash_field_selector_outer))))
}

/// What a TIR context says of joining segments.
fn tir_lro(f: &Function, c: &View<'_, Tirc>) -> Result<Lro, Refusal> {
    /// `MLX5_TIRC_PACKET_MERGE_MASK_*`.
    const IPV4: u32 = 1;
    const IPV6: u32 = 2;
    /// Unit of `lro_max_ip_payload_size`, in bytes.
    const UNIT: u32 = 256;
    let mask = c.get(Tirc::packet_merge_mask);
    let known = if f.caps.of(ETH).is(PerProtocolNetworkingOffloadCaps::lro_cap) { IPV4 | IPV6 } else { 0 };
    if mask & !known != 0 {
        return Err(Refusal::param(Syndrome::TIR_DISPATCH));
    }
    let limit = c.get(Tirc::lro_max_ip_payload_size) * UNIT;
    Ok(Lro { ipv4: mask & IPV4 != 0, ipv6: mask & IPV6 != 0, limit })
}

/// CREATE_TIR.
pub fn create_tir(cx: &mut Cx<'_>, i: View<'_, CreateTirIn>, o: &mut ViewMut<'_, CreateTirOut>) -> Answer {
    const DIRECT: u32 = 0;
    const INDIRECT: u32 = 1;
    let uid = cx.uid;
    let c = i.sub(CreateTirIn::ctx);
    // TLS is not advertised.
    if c.is(Tirc::tls_en) {
        return Err(Refusal::param(Syndrome::TIR_DISPATCH));
    }
    let lro = tir_lro(cx.function()?, &c)?;
    let td = c.get(Tirc::transport_domain);
    let limit = limit(cx, CmdHcaCap::log_max_tir)?;
    let (hash, symmetric, selector) = tir_hash(&c)?;
    let f = cx.function()?;
    let (dispatch, target) = match c.get(Tirc::disp_type) {
        DIRECT => {
            let r = ObjRef(Kind::Rq, c.get(Tirc::inline_rqn));
            match f.objects.check(r, uid)? {
                Body::Rq(rq) => (Dispatch::Direct(rq.clone()), r),
                _ => return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT)),
            }
        }
        INDIRECT => {
            let r = ObjRef(Kind::Rqt, c.get(Tirc::indirect_table));
            match f.objects.check(r, uid)? {
                Body::Rqt(t) => (Dispatch::Table(t.clone()), r),
                _ => return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT)),
            }
        }
        _ => return Err(Refusal::param(Syndrome::TIR_DISPATCH)),
    };
    let id = f.objects.take_id(Kind::Tir, 1, limit)?;
    let state = TirState { dispatch, hash, symmetric, selector, self_lb_block: c.get(Tirc::self_lb_block), lro };
    let tir = Arc::new(Tir { id, td, state: ArcSwap::from_pointee(state) });
    let uses = smallvec![target, ObjRef(Kind::TransportDomain, td)];
    insert(f, ObjRef(Kind::Tir, id), uid, uses, Body::Tir(tir))?;
    o.set(CreateTirOut::tirn, id);
    Ok(())
}

/// MODIFY_TIR: hash, loopback, joining of segments.
pub fn modify_tir(cx: &mut Cx<'_>, i: View<'_, ModifyTirIn>, _: &mut ViewMut<'_, ModifyTirOut>) -> Answer {
    let (uid, r) = (cx.uid, ObjRef(Kind::Tir, i.get(ModifyTirIn::tirn)));
    let c = i.sub(ModifyTirIn::ctx);
    let select = i.sub(ModifyTirIn::bitmask);
    let Body::Tir(tir) = cx.function()?.objects.check(r, uid)? else {
        return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT));
    };
    let tir = tir.clone();
    let mut next = TirState::clone(&tir.state.load());
    if select.is(ModifyTirBitmask::packet_merge) {
        next.lro = tir_lro(cx.function()?, &c)?;
    }
    if select.is(ModifyTirBitmask::hash) {
        (next.hash, next.symmetric, next.selector) = tir_hash(&c)?;
    }
    if select.is(ModifyTirBitmask::self_lb_en) {
        next.self_lb_block = c.get(Tirc::self_lb_block);
    }
    tir.state.store(Arc::new(next));
    Ok(())
}

/// DESTROY_TIR.
pub fn destroy_tir(cx: &mut Cx<'_>, i: View<'_, DestroyTirIn>, _: &mut ViewMut<'_, DestroyTirOut>) -> Answer {
    remove(cx, Kind::Tir, i.get(DestroyTirIn::tirn)).map(drop)
}

const _: () = assert!(RqNum::SIZE == 4);
