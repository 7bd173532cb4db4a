//! Objects: each is kept as the command that would make it again, and as where it is.
//!
//! The command is made from the object as it is now, in the manual's layout; it is carried out
//! by the same handler as a driver's, with the number that the object had. So a snapshot can
//! have only what a driver could have made, whoever wrote it.

use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use sfnic_firmware_cmds::layout::{Field, Sub};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Layout, Opcode, Refusal, Status, Syndrome, ViewMut};

use crate::cmd::{self, Answer, Cx};
use crate::control::function::{Body, Function};
use crate::control::objects::{Kind, Listed, ObjRef};
use crate::fabric::mkey::{Mkey, Translation};
use crate::fabric::tir::{Dispatch, Tir};
use crate::packet::{GeneveOption, TunnelPorts};
use crate::queue::{Ring, RqConfig, SavedCq, SavedEq, SavedRq, SavedSq, SqConfig};
use crate::steering::CounterBulk;

/// An object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedObject {
    kind: Kind,
    id: u32,
    command: Vec<u8>,
    place: Place,
}

impl std::fmt::Display for SavedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:#x}", self.kind.name(), self.id)
    }
}

/// Where an object is in what it does.
#[derive(Debug, Serialize, Deserialize)]
enum Place {
    /// It does nothing.
    Still,
    /// Whether a memory key is free.
    Mkey(bool),
    Eq(SavedEq),
    Cq(SavedCq),
    Sq(SavedSq),
    Rq(SavedRq),
    QCounter([u64; 3]),
    FlowCounter(Vec<(u32, u64, u64)>),
}

/// The command that makes objects of a kind, and when its turn is: behind what it refers to.
/// None for kinds that the tables keep, or nobody.
const fn making(kind: Kind) -> Option<(Opcode, u8)> {
    Some(match kind {
        Kind::Uar => (Opcode::ALLOC_UAR, 0),
        Kind::Pd => (Opcode::ALLOC_PD, 0),
        Kind::TransportDomain => (Opcode::ALLOC_TRANSPORT_DOMAIN, 0),
        Kind::Xrcd => (Opcode::ALLOC_XRCD, 0),
        Kind::QCounter => (Opcode::ALLOC_Q_COUNTER, 0),
        Kind::FlowCounter | Kind::FlowCounterBulk => (Opcode::ALLOC_FLOW_COUNTER, 0),
        Kind::ModifyHeader => (Opcode::ALLOC_MODIFY_HEADER_CONTEXT, 0),
        Kind::Reformat => (Opcode::ALLOC_PACKET_REFORMAT_CONTEXT, 0),
        Kind::GeneveOption => (Opcode::CREATE_GENERAL_OBJECT, 0),
        Kind::Mkey => (Opcode::CREATE_MKEY, 1),
        Kind::Eq => (Opcode::CREATE_EQ, 1),
        Kind::Tis => (Opcode::CREATE_TIS, 1),
        Kind::Cq => (Opcode::CREATE_CQ, 2),
        Kind::Sq => (Opcode::CREATE_SQ, 3),
        Kind::Rq => (Opcode::CREATE_RQ, 3),
        Kind::Rqt => (Opcode::CREATE_RQT, 4),
        Kind::Tir => (Opcode::CREATE_TIR, 5),
        Kind::FlowTable | Kind::FlowGroup | Kind::Uctx => return None,
    })
}

/// The objects of a function, in an order in which they can be made.
pub(super) fn save(f: &Function, tunnels: &TunnelPorts) -> Vec<SavedObject> {
    let mut all: Vec<_> = f.objects.list().filter_map(|o| Some((making(o.object.0)?, o))).collect();
    all.sort_by_key(|((_, turn), _)| *turn);
    let one = |((opcode, _), o): ((Opcode, u8), Listed<'_, Body>)| {
        let (mut command, place) = describe(&o, tunnels);
        command[..2].copy_from_slice(&opcode.0.to_be_bytes());
        command[2..4].copy_from_slice(&o.uid.to_be_bytes());
        SavedObject { kind: o.object.0, id: o.object.1, command, place }
    };
    all.into_iter().map(one).collect()
}

/// Makes an object again, with its number, and brings it where it was.
///
/// Refuses what the command's handler refuses.
pub(super) fn restore(cx: &mut Cx<'_>, saved: SavedObject) -> Answer {
    let SavedObject { kind, id, command, place } = saved;
    let wrong = Refusal::new(Status::BadParam, Syndrome::NO_SUCH_OBJECT);
    let head = |at: usize| command.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let opcode = making(kind).map(|(opcode, _)| opcode).filter(|o| o.0 == head(0)).ok_or(wrong)?;
    let row = cmd::table::find(opcode).ok_or(wrong)?;
    if command.len() < row.input.size() {
        return Err(wrong);
    }
    (cx.uid, cx.op_mod) = (head(2), 0);
    cx.function()?.objects.want(id);
    (row.run)(cx, &command, &mut vec![0; row.output.size()])?;
    let body = cx.function()?.objects.get(ObjRef(kind, id)).ok_or(wrong)?;
    let sound = match (body, place) {
        (Body::Mkey(k), Place::Mkey(free)) => {
            k.free.store(free, Relaxed);
            true
        }
        (Body::Eq(q), Place::Eq(saved)) => q.restore(saved),
        (Body::Cq(q), Place::Cq(saved)) => q.restore(saved),
        (Body::Sq(q), Place::Sq(saved)) => q.restore(saved),
        (Body::Rq(q), Place::Rq(saved)) => q.restore(saved),
        (Body::QCounter(c), Place::QCounter([out_of_buffer, error, flush])) => {
            c.out_of_buffer.store(out_of_buffer, Relaxed);
            c.resp_cqe_error.store(error, Relaxed);
            c.resp_cqe_flush_error.store(flush, Relaxed);
            true
        }
        (Body::FlowCounter(c), Place::FlowCounter(counts)) => c.restore(&counts),
        (
            Body::Plain | Body::Rqt(_) | Body::Tir(_) | Body::Tis(_) | Body::ModifyHeader(_) | Body::Reformat(_),
            Place::Still,
        ) => true,
        _ => false,
    };
    if sound { Ok(()) } else { Err(wrong) }
}

/// A command of a layout, with room for so many bytes behind it.
fn made<S: Layout>(behind: usize, fill: impl FnOnce(&mut ViewMut<'_, S>)) -> Vec<u8> {
    let mut bytes = vec![0; S::SIZE + behind];
    fill(&mut ViewMut::new(&mut bytes));
    bytes
}

fn addresses(ring: &Ring) -> Vec<u8> {
    ring.made_of().0.iter().flat_map(|p| p.to_be_bytes()).collect()
}

fn describe(o: &Listed<'_, Body>, tunnels: &TunnelPorts) -> (Vec<u8>, Place) {
    let used = |kind: Kind| o.uses.iter().find(|u| u.0 == kind).map_or(0, |u| u.1);
    match o.body {
        Body::Plain => {
            let option = tunnels.geneve.filter(|_| o.object.0 == Kind::GeneveOption);
            (option.map_or_else(|| vec![0; 16], |option| geneve(&option)), Place::Still)
        }
        Body::Mkey(k) => (mkey(k), Place::Mkey(k.free.load(Relaxed))),
        Body::Eq(q) => {
            let (ring, log_size) = q.ring();
            let (_, log_page, offset) = ring.made_of();
            let pas = addresses(ring);
            let command = made::<CreateEqIn>(pas.len(), |i| {
                i.set_tail(CreateEqIn::pas, 0, &pas);
                let mut c = i.sub(CreateEqIn::eq_context_entry);
                c.set(Eqc::log_eq_size, log_size.into()).set(Eqc::uar_page, used(Kind::Uar));
                c.set(Eqc::intr, q.vector().into());
                c.set(Eqc::log_page_size, log_page).set(Eqc::page_offset, offset);
            });
            // Which events it hears is kept of the function.
            (command, Place::Eq(q.save()))
        }
        Body::Cq(q) => {
            let config = q.config();
            let (_, log_page, offset) = config.ring.made_of();
            let pas = addresses(&config.ring);
            let command = made::<CreateCqIn>(pas.len(), |i| {
                i.set_tail(CreateCqIn::pas, 0, &pas);
                let mut c = i.sub(CreateCqIn::cq_context);
                c.set(Cqc::cqe_sz, config.cqe_128.into()).set(Cqc::oi, config.overrun_ignore.into());
                c.set(Cqc::log_cq_size, config.log_size.into()).set(Cqc::uar_page, used(Kind::Uar));
                c.set(Cqc::c_eqn_or_apu_element, q.eq().eqn().into());
                c.set(Cqc::log_page_size, log_page).set(Cqc::page_offset, offset);
                c.set64(Cqc::dbr_addr, config.dbr_addr);
                if let Some(format) = config.mini {
                    c.set(Cqc::cqe_comp_en, 1).set(Cqc::mini_cqe_res_format, format as u32);
                }
            });
            (command, Place::Cq(q.save()))
        }
        Body::Sq(q) => (sq(q.config(), used(Kind::Uar), used(Kind::Tis)), Place::Sq(q.save())),
        Body::Rq(q) => {
            let (place, keeps_vlan) = q.save();
            (rq(q.config(), used(Kind::QCounter), keeps_vlan), Place::Rq(place))
        }
        Body::Rqt(t) => {
            let queues = t.queues.load();
            let list: Vec<u8> = queues.iter().flat_map(|q| q.rqn().to_be_bytes()).collect();
            let command = made::<CreateRqtIn>(list.len(), |i| {
                let mut c = i.sub(CreateRqtIn::rqt_context);
                c.set(Rqtc::rqt_max_size, t.max).set(Rqtc::rqt_actual_size, queues.len() as u32);
                put_behind(i, CreateRqtIn::rqt_context, &list);
            });
            (command, Place::Still)
        }
        Body::Tir(t) => (tir(t), Place::Still),
        Body::Tis(t) => {
            let command = made::<CreateTisIn>(0, |i| {
                i.sub(CreateTisIn::ctx).set(Tisc::prio, t.prio).set(Tisc::transport_domain, t.td);
            });
            (command, Place::Still)
        }
        Body::QCounter(c) => {
            let counts = [&c.out_of_buffer, &c.resp_cqe_error, &c.resp_cqe_flush_error].map(|n| n.load(Relaxed));
            (made::<AllocQCounterIn>(0, |_| ()), Place::QCounter(counts))
        }
        Body::FlowCounter(b) => {
            let bulk = if o.object.0 == Kind::FlowCounterBulk { CounterBulk::BITMASK } else { 0 };
            let command = made::<AllocFlowCounterIn>(0, |i| {
                i.set(AllocFlowCounterIn::flow_counter_bulk, bulk);
            });
            (command, Place::FlowCounter(b.save()))
        }
        Body::ModifyHeader(m) => {
            let list: Vec<u8> = m.actions.iter().flat_map(|a| a.encode()).collect();
            let command = made::<AllocModifyHeaderContextIn>(list.len(), |i| {
                i.set(AllocModifyHeaderContextIn::table_type, m.table_type.into());
                i.set(AllocModifyHeaderContextIn::num_of_actions, m.actions.len() as u32);
                i.set_tail(AllocModifyHeaderContextIn::actions, 0, &list);
            });
            (command, Place::Still)
        }
        Body::Reformat(r) => {
            let context = r.action.encode();
            let from = AllocPacketReformatContextIn::packet_reformat_context.offset();
            let mut command = vec![0; AllocPacketReformatContextIn::SIZE.max(from + context.len())];
            command[from..from + context.len()].copy_from_slice(&context);
            (command, Place::Still)
        }
    }
}

/// Writes a list behind a context that ends with it.
fn put_behind<S: Layout, T: Layout>(i: &mut ViewMut<'_, S>, context: Sub<S, T>, list: &[u8]) {
    let from = context.offset() + T::SIZE;
    if let Some(room) = i.raw().get_mut(from..from + list.len()) {
        room.copy_from_slice(list);
    }
}

fn geneve(option: &GeneveOption) -> Vec<u8> {
    use GeneveTlvOption as Tlv;
    made::<CreateGeneveTlvOptionIn>(0, |i| {
        i.sub(CreateGeneveTlvOptionIn::hdr).set(GeneralObjInCmdHdr::obj_type, cmd::tunnel::GENEVE_TLV_OPT);
        let mut o = i.sub(CreateGeneveTlvOptionIn::geneve_tlv_opt);
        o.set(Tlv::option_class, option.class.into()).set(Tlv::option_type, option.kind.into());
        o.set(Tlv::option_data_length, option.words.into());
    })
}

fn mkey(k: &Mkey) -> Vec<u8> {
    const PHYSICAL: u32 = 0;
    const PAGES: u32 = 1;
    let list = match &k.translation {
        Translation::Pages { pages, .. } => pages.raw(),
        Translation::Physical | Translation::None => vec![],
    };
    made::<CreateMkeyIn>(list.len(), |i| {
        i.set_tail(CreateMkeyIn::klm_pas_mtt, 0, &list);
        let mut c = i.sub(CreateMkeyIn::memory_key_mkey_entry);
        c.set(Mkc::mkey_7_0, k.key & Mkc::mkey_7_0.max()).set(Mkc::pd, k.pd).set(Mkc::umr_en, k.umr.into());
        c.set(Mkc::lr, k.local_read.into()).set(Mkc::lw, k.local_write.into());
        match &k.translation {
            Translation::Physical => {
                c.set(Mkc::access_mode_1_0, PHYSICAL);
            }
            // It was free when it was made, without room for a list.
            Translation::None => {
                c.set(Mkc::access_mode_1_0, PAGES).set(Mkc::free, 1);
            }
            Translation::Pages { start, len, log_page, pages: _ } => {
                c.set(Mkc::access_mode_1_0, PAGES).set(Mkc::log_page_size, *log_page);
                c.set64(Mkc::start_addr, *start).set64(Mkc::len, *len);
                i.set(CreateMkeyIn::translations_octword_actual_size, 1);
            }
        }
    })
}

/// What send and receive queues have in common.
fn wq(wq: &mut ViewMut<'_, Wq>, ring: &Ring, pd: u32, dbr_addr: u64, (log_size, log_stride): (u8, u8)) {
    let (_, log_page, offset) = ring.made_of();
    wq.set(Wq::pd, pd).set64(Wq::dbr_addr, dbr_addr);
    wq.set(Wq::log_wq_sz, log_size.into()).set(Wq::log_wq_stride, log_stride.into());
    wq.set(Wq::log_wq_pg_sz, log_page).set(Wq::page_offset, offset);
}

fn sq(q: &SqConfig, uar: u32, tis: u32) -> Vec<u8> {
    const CYCLIC: u32 = 1;
    const LOG_WQEBB: u8 = 6;
    let pas = addresses(&q.ring);
    made::<CreateSqIn>(pas.len(), |i| {
        put_behind(i, CreateSqIn::ctx, &pas);
        let mut c = i.sub(CreateSqIn::ctx);
        c.set(Sqc::cqn, q.cq.cqn()).set(Sqc::rlky, q.reserved_key.into()).set(Sqc::user_index, q.user_index);
        c.set(Sqc::reg_umr, q.reg_umr.into()).set(Sqc::flush_in_error_en, q.flush_in_error.into());
        c.set(Sqc::min_wqe_inline_mode, q.min_inline_mode.into());
        c.set(Sqc::tis_lst_sz, (tis != 0).into()).set(Sqc::tis_num_0, tis);
        let mut w = c.sub(Sqc::wq);
        w.set(Wq::wq_type, CYCLIC).set(Wq::uar_page, uar);
        wq(&mut w, &q.ring, q.pd, q.dbr_addr, (q.log_size, LOG_WQEBB));
    })
}

fn rq(q: &RqConfig, counters: u32, keeps_vlan: bool) -> Vec<u8> {
    let kind = match (q.linked, q.strides.is_some()) {
        (true, false) => 0,
        (false, false) => 1,
        (true, true) => 2,
        (false, true) => 3,
    };
    let pas = addresses(&q.ring);
    made::<CreateRqIn>(pas.len(), |i| {
        put_behind(i, CreateRqIn::ctx, &pas);
        let mut c = i.sub(CreateRqIn::ctx);
        c.set(Rqc::cqn, q.cq.cqn()).set(Rqc::rlky, q.reserved_key.into()).set(Rqc::user_index, q.user_index);
        c.set(Rqc::vsd, keeps_vlan.into()).set(Rqc::flush_in_error_en, q.flush_in_error.into());
        c.set(Rqc::counter_set_id, counters);
        let mut w = c.sub(Rqc::wq);
        w.set(Wq::wq_type, kind);
        wq(&mut w, &q.ring, q.pd, q.dbr_addr, (q.log_size, q.log_stride));
        if let Some(s) = q.strides {
            let (size, count) = s.fields();
            w.set(Wq::log_wqe_stride_size, size).set(Wq::log_wqe_num_of_strides, count);
        }
    })
}

fn tir(t: &Tir) -> Vec<u8> {
    /// Unit of `lro_max_ip_payload_size`, in bytes.
    const UNIT: u32 = 256;
    let s = t.state.load();
    let (disp, field, number): (u32, Field<Tirc>, u32) = match &s.dispatch {
        Dispatch::Direct(rq) => (0, Tirc::inline_rqn, rq.rqn()),
        Dispatch::Table(rqt) => (1, Tirc::indirect_table, rqt.id),
    };
    let (function, key) = s.hash.made_of();
    made::<CreateTirIn>(0, |i| {
        let mut c = i.sub(CreateTirIn::ctx);
        c.set(Tirc::disp_type, disp).set(field, number).set(Tirc::transport_domain, t.td);
        c.set(Tirc::rx_hash_fn, function).set_bytes(Tirc::rx_hash_toeplitz_key, &key);
        c.set(Tirc::rx_hash_symmetric, s.symmetric.into()).set(Tirc::self_lb_block, s.self_lb_block);
        c.set(Tirc::packet_merge_mask, u32::from(s.lro.ipv4) | u32::from(s.lro.ipv6) << 1);
        c.set(Tirc::lro_max_ip_payload_size, s.lro.limit / UNIT);
        s.selector.encode(&mut c.sub(Tirc::rx_hash_field_selector_outer));
    })
}
