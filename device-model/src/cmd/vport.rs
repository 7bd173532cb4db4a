//! Vport contexts, state and counters.

use std::sync::atomic::Ordering::Relaxed;

use sfnic_firmware_cmds::layout::Sub;
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Layout, Refusal, Status, Syndrome, View, ViewMut};

use super::{Answer, Cx};
use crate::control::PF;
use crate::control::function::Body;
use crate::control::objects::{Kind, ObjRef, Uses};
use crate::control::vport::{Admin, VportControl};
use crate::fabric::counters::{Direction, Traffic};
use crate::fabric::vport::UPLINK;
use crate::queue::QCounter;

/// Kinds of address lists (`allowed_list_type`).
mod list {
    pub(super) const UNICAST: u32 = 0;
    pub(super) const MULTICAST: u32 = 1;
    pub(super) const VLAN: u32 = 2;
}

/// The vport that a command names: the caller's own, or another one where the
/// caller manages the group.
fn target(cx: &Cx<'_>, other: bool, number: u32) -> Result<u16, Refusal> {
    if !other {
        return Ok(cx.fid);
    }
    if !cx.is_manager() {
        return Err(Refusal::new(Status::BadParam, Syndrome::NOT_VPORT_GROUP_MANAGER));
    }
    let number = number as u16;
    if cx.ctl.vports.contains_key(&number) { Ok(number) } else { Err(Refusal::param(Syndrome::NO_SUCH_VPORT)) }
}

fn vport<'a>(cx: &'a mut Cx<'_>, number: u16) -> Result<&'a mut VportControl, Refusal> {
    cx.ctl.vports.get_mut(&number).ok_or(Refusal::param(Syndrome::NO_SUCH_VPORT))
}

/// QUERY_VPORT_STATE.
pub fn query_vport_state(
    cx: &mut Cx<'_>,
    i: View<'_, QueryVportStateIn>,
    o: &mut ViewMut<'_, QueryVportStateOut>,
) -> Answer {
    const UPLINK_VPORT: u16 = 2;
    let mut number = target(cx, i.is(QueryVportStateIn::other_vport), i.get(QueryVportStateIn::vport_number))?;
    if cx.op_mod == UPLINK_VPORT {
        number = UPLINK;
    }
    let port_up = cx.card.port.is_up();
    let v = vport(cx, number)?;
    o.set(QueryVportStateOut::admin_state, v.admin as u32);
    o.set(QueryVportStateOut::state, v.link(port_up).into());
    Ok(())
}

/// MODIFY_VPORT_STATE.
pub fn modify_vport_state(
    cx: &mut Cx<'_>,
    i: View<'_, ModifyVportStateIn>,
    _: &mut ViewMut<'_, ModifyVportStateOut>,
) -> Answer {
    const ESW_VPORT: u16 = 1;
    let number = target(cx, i.is(ModifyVportStateIn::other_vport), i.get(ModifyVportStateIn::vport_number))?;
    let admin = match i.get(ModifyVportStateIn::admin_state) {
        0 => Admin::Down,
        1 => Admin::Up,
        2 => Admin::Auto,
        _ => return Err(Refusal::param(Syndrome::REGISTER_VALUE)),
    };
    if cx.op_mod == ESW_VPORT && number != UPLINK && number != PF {
        vport(cx, number)?.admin = admin;
        cx.nic.refresh_vport_link(cx.card, cx.ctl, number);
    } else {
        // A function's own state, and the uplink's, follow the port.
        vport(cx, number)?;
    }
    Ok(())
}

/// QUERY_ESW_VPORT_CONTEXT.
pub fn query_esw_vport_context(
    cx: &mut Cx<'_>,
    i: View<'_, QueryEswVportContextIn>,
    o: &mut ViewMut<'_, QueryEswVportContextOut>,
) -> Answer {
    let number = target(cx, i.is(QueryEswVportContextIn::other_vport), i.get(QueryEswVportContextIn::vport_number))?;
    let reg_c = vport(cx, number)?.reg_c_id;
    let mut c = o.sub(QueryEswVportContextOut::esw_vport_context);
    c.set(EswVportContext::fdb_to_vport_reg_c_id, reg_c);
    Ok(())
}

/// MODIFY_ESW_VPORT_CONTEXT: metadata that goes along to the vport. VLAN
/// stripping and insertion by the eswitch are not advertised.
pub fn modify_esw_vport_context(
    cx: &mut Cx<'_>,
    i: View<'_, ModifyEswVportContextIn>,
    _: &mut ViewMut<'_, ModifyEswVportContextOut>,
) -> Answer {
    let number = target(cx, i.is(ModifyEswVportContextIn::other_vport), i.get(ModifyEswVportContextIn::vport_number))?;
    let select = i.sub(ModifyEswVportContextIn::field_select);
    let context = i.sub(ModifyEswVportContextIn::esw_vport_context);
    let offered = cx.function()?.caps.of::<FlowTableEswitchCap>(0x08).get(FlowTableEswitchCap::fdb_to_vport_reg_c_id);
    let wanted = context.get(EswVportContext::fdb_to_vport_reg_c_id);
    let vlan = [
        (EswVportContextFieldsSelect::vport_svlan_strip, EswVportContext::vport_svlan_strip),
        (EswVportContextFieldsSelect::vport_cvlan_strip, EswVportContext::vport_cvlan_strip),
        (EswVportContextFieldsSelect::vport_svlan_insert, EswVportContext::vport_svlan_insert),
        (EswVportContextFieldsSelect::vport_cvlan_insert, EswVportContext::vport_cvlan_insert),
    ];
    if vlan.iter().any(|(s, f)| select.is(*s) && context.is(*f)) {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    if select.is(EswVportContextFieldsSelect::fdb_to_vport_reg_c_id) {
        if wanted & !offered != 0 {
            return Err(Refusal::param(Syndrome::FIELD_SELECT));
        }
        let v = vport(cx, number)?;
        v.reg_c_id = wanted;
        v.publish_reg_c();
    }
    Ok(())
}

/// QUERY_HCA_VPORT_PKEY: an Ethernet port is in the default partition and in no other.
pub fn query_hca_vport_pkey(
    cx: &mut Cx<'_>,
    i: View<'_, QueryHcaVportPkeyIn>,
    o: &mut ViewMut<'_, QueryHcaVportPkeyOut>,
) -> Answer {
    const ALL: u32 = 0xffff;
    const DEFAULT_PARTITION: u32 = 0xffff;
    let number = target(cx, i.is(QueryHcaVportPkeyIn::other_vport), i.get(QueryHcaVportPkeyIn::vport_number))?;
    vport(cx, number)?;
    let index = i.get(QueryHcaVportPkeyIn::pkey_index);
    // `mlx5_to_sw_pkey_sz`.
    let entries = 128u32 << cx.function()?.caps.general(CmdHcaCap::pkey_table_size).min(5);
    if index != ALL && index >= entries {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    if index == 0 || index == ALL {
        o.set_tail(QueryHcaVportPkeyOut::pkey, 0, &DEFAULT_PARTITION.to_be_bytes());
    }
    Ok(())
}

/// QUERY_NIC_VPORT_CONTEXT.
pub fn query_nic_vport_context(
    cx: &mut Cx<'_>,
    i: View<'_, QueryNicVportContextIn>,
    o: &mut ViewMut<'_, QueryNicVportContextOut>,
) -> Answer {
    let number = target(cx, i.is(QueryNicVportContextIn::other_vport), i.get(QueryNicVportContextIn::vport_number))?;
    let system_guid = cx.card.system_guid;
    let v = vport(cx, number)?;
    let kind = i.get(QueryNicVportContextIn::allowed_list_type);
    let entries: Vec<u8> = match kind {
        list::UNICAST => mac_list(&v.unicast),
        list::MULTICAST => mac_list(&v.multicast),
        list::VLAN => v
            .vlans
            .iter()
            .flat_map(|vid| {
                let mut e = [0; 8];
                ViewMut::<VlanLayout>::new(&mut e).set(VlanLayout::vlan, (*vid).into());
                e
            })
            .collect(),
        _ => return Err(Refusal::param(Syndrome::FIELD_SELECT)),
    };
    let mut c = o.sub(QueryNicVportContextOut::nic_vport_context);
    c.set(NicVportContext::min_wqe_inline_mode, v.min_inline);
    c.set(NicVportContext::mtu, v.mtu);
    c.set64(NicVportContext::system_image_guid, system_guid);
    c.set64(NicVportContext::port_guid, v.port_guid);
    c.set64(NicVportContext::node_guid, v.node_guid);
    c.set(NicVportContext::promisc_uc, v.promisc.0.into());
    c.set(NicVportContext::promisc_mc, v.promisc.1.into());
    c.set(NicVportContext::promisc_all, v.promisc.2.into());
    c.set(NicVportContext::allowed_list_type, kind);
    c.set(NicVportContext::allowed_list_size, (entries.len() / 8) as u32);
    write_mac(&mut c.sub(NicVportContext::permanent_address), v.mac);
    let at = QueryNicVportContextOut::nic_vport_context.offset() + NicVportContext::current_uc_mac_address.offset();
    let raw = o.raw();
    if let Some(space) = raw.get_mut(at..) {
        let n = entries.len().min(space.len());
        space[..n].copy_from_slice(&entries[..n]);
    }
    Ok(())
}

/// MODIFY_NIC_VPORT_CONTEXT.
pub fn modify_nic_vport_context(
    cx: &mut Cx<'_>,
    i: View<'_, ModifyNicVportContextIn>,
    _: &mut ViewMut<'_, ModifyNicVportContextOut>,
) -> Answer {
    use ModifyNicVportFieldSelect as Select;
    let other = i.is(ModifyNicVportContextIn::other_vport);
    let number = target(cx, other, i.get(ModifyNicVportContextIn::vport_number))?;
    let select = i.sub(ModifyNicVportContextIn::field_select);
    let c = i.sub_open(ModifyNicVportContextIn::nic_vport_context);
    for refused in [Select::affiliation, Select::disable_uc_local_lb, Select::disable_mc_local_lb] {
        if select.is(refused) {
            return Err(Refusal::param(Syndrome::FIELD_SELECT));
        }
    }
    if select.is(Select::roce_en) && c.is(NicVportContext::roce_en) {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let caps = &cx.function()?.caps;
    let limits = [
        1usize << caps.general(CmdHcaCap::log_max_current_uc_list),
        1usize << caps.general(CmdHcaCap::log_max_current_mc_list),
        1usize << caps.general(CmdHcaCap::log_max_vlan_list),
    ];
    let v = vport(cx, number)?;
    if select.is(Select::addresses_list) {
        let kind = c.get(NicVportContext::allowed_list_type);
        let size = c.get(NicVportContext::allowed_list_size) as usize;
        let raw = c.tail(NicVportContext::current_uc_mac_address);
        let limit = *limits.get(kind as usize).ok_or(Refusal::param(Syndrome::FIELD_SELECT))?;
        if size > limit || raw.len() < size * 8 {
            return Err(Refusal::param(Syndrome::LIST_SIZE));
        }
        let entries = raw.as_chunks::<8>().0.iter().take(size);
        match kind {
            list::UNICAST => v.unicast = entries.map(get_mac).collect(),
            list::MULTICAST => v.multicast = entries.map(get_mac).collect(),
            _ => v.vlans = entries.map(|e| View::<VlanLayout>::new(e).get(VlanLayout::vlan) as u16).collect(),
        }
    }
    if select.is(Select::promisc) {
        v.promisc =
            (c.is(NicVportContext::promisc_uc), c.is(NicVportContext::promisc_mc), c.is(NicVportContext::promisc_all));
    }
    if select.is(Select::permanent_address) {
        let m = c.sub(NicVportContext::permanent_address);
        let mut raw = [0; 8];
        raw.copy_from_slice(m.raw());
        v.mac = get_mac(&raw);
    }
    if select.is(Select::mtu) {
        v.mtu = c.get(NicVportContext::mtu);
    }
    if select.is(Select::min_inline) {
        v.min_inline = c.get(NicVportContext::min_wqe_inline_mode);
    }
    if select.is(Select::node_guid) {
        v.node_guid = c.get64(NicVportContext::node_guid);
    }
    if select.is(Select::port_guid) {
        v.port_guid = c.get64(NicVportContext::port_guid);
    }
    v.publish_filter();
    Ok(())
}

/// An 8-byte list entry: two bytes of nothing, then the address.
fn get_mac(e: &[u8; 8]) -> [u8; 6] {
    read_mac(View::new(e))
}

/// The address of a field.
pub(super) fn read_mac(m: View<'_, MacAddressLayout>) -> [u8; 6] {
    let hi = (m.get(MacAddressLayout::mac_addr_47_32) as u16).to_be_bytes();
    let lo = m.get(MacAddressLayout::mac_addr_31_0).to_be_bytes();
    [hi[0], hi[1], lo[0], lo[1], lo[2], lo[3]]
}

/// Puts an address into a field.
pub(super) fn write_mac(m: &mut ViewMut<'_, MacAddressLayout>, mac: [u8; 6]) {
    m.set(MacAddressLayout::mac_addr_47_32, u16::from_be_bytes([mac[0], mac[1]]).into());
    m.set(MacAddressLayout::mac_addr_31_0, u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]));
}

fn mac_list(macs: &[[u8; 6]]) -> Vec<u8> {
    macs.iter()
        .flat_map(|m| {
            let mut e = [0; 8];
            write_mac(&mut ViewMut::new(&mut e), *m);
            e
        })
        .collect()
}

/// QUERY_VPORT_COUNTER. "Received" is what the function received.
pub fn query_vport_counter(
    cx: &mut Cx<'_>,
    i: View<'_, QueryVportCounterIn>,
    o: &mut ViewMut<'_, QueryVportCounterOut>,
) -> Answer {
    use QueryVportCounterOut as Out;
    let number = target(cx, i.is(QueryVportCounterIn::other_vport), i.get(QueryVportCounterIn::vport_number))?;
    let clear = i.is(QueryVportCounterIn::clear);
    let v = vport(cx, number)?.plane.clone();
    let mut put = |f: Sub<Out, TrafficCounter>, t: &Traffic| {
        o.sub(f)
            .set64(TrafficCounter::packets, t.packets.take(clear))
            .set64(TrafficCounter::octets, t.octets.take(clear));
    };
    let Direction { unicast, multicast, broadcast, errors } = &v.rx;
    put(Out::received_eth_unicast, unicast);
    put(Out::received_eth_multicast, multicast);
    put(Out::received_eth_broadcast, broadcast);
    put(Out::received_errors, errors);
    let Direction { unicast, multicast, broadcast, errors } = &v.tx;
    put(Out::transmitted_eth_unicast, unicast);
    put(Out::transmitted_eth_multicast, multicast);
    put(Out::transmitted_eth_broadcast, broadcast);
    put(Out::transmit_errors, errors);
    Ok(())
}

/// QUERY_VNIC_ENV: why frames and commands were lost.
pub fn query_vnic_env(cx: &mut Cx<'_>, i: View<'_, QueryVnicEnvIn>, o: &mut ViewMut<'_, QueryVnicEnvOut>) -> Answer {
    use VnicDiagnosticStatistics as Env;
    let number = target(cx, i.is(QueryVnicEnvIn::other_vport), i.get(QueryVnicEnvIn::vport_number))?;
    let Some(f) = cx.ctl.functions.get(&number) else { return Ok(()) };
    let mut e = o.sub(QueryVnicEnvOut::vport_env);
    e.set64(Env::nic_receive_steering_discard, f.plane.rx_steering_discards.get());
    e.set64(Env::receive_discard_vport_down, f.plane.rx_link_down.get());
    e.set64(Env::transmit_discard_vport_down, f.plane.tx_link_down.get());
    e.set(Env::invalid_command, f.stats.refused as u32);
    let (mut overrun, mut cq_overrun) = (0u64, 0u64);
    for (_, b) in f.objects.of_kind(Kind::Eq) {
        if let Body::Eq(eq) = b {
            overrun += eq.snapshot().overruns;
        }
    }
    for (_, b) in f.objects.of_kind(Kind::Cq) {
        if let Body::Cq(cq) = b {
            cq_overrun += u64::from(cq.snapshot().error);
        }
    }
    e.set(Env::async_eq_overrun, overrun as u32);
    e.set(Env::cq_overrun, cq_overrun as u32);
    Ok(())
}

/// ALLOC_Q_COUNTER.
pub fn alloc_q_counter(cx: &mut Cx<'_>, _: View<'_, AllocQCounterIn>, o: &mut ViewMut<'_, AllocQCounterOut>) -> Answer {
    let uid = cx.uid;
    let f = cx.function()?;
    let limit = f.caps.general(CmdHcaCap::max_qp_cnt).min(0xff);
    let id = f.objects.take_id(Kind::QCounter, 1, limit)?;
    f.objects.insert(
        ObjRef(Kind::QCounter, id),
        uid,
        Uses::new(),
        Body::QCounter(std::sync::Arc::new(QCounter::default())),
    )?;
    o.set(AllocQCounterOut::counter_set_id, id);
    Ok(())
}

/// DEALLOC_Q_COUNTER.
pub fn dealloc_q_counter(
    cx: &mut Cx<'_>,
    i: View<'_, DeallocQCounterIn>,
    _: &mut ViewMut<'_, DeallocQCounterOut>,
) -> Answer {
    let (uid, id) = (cx.uid, i.get(DeallocQCounterIn::counter_set_id));
    cx.function()?.objects.remove(ObjRef(Kind::QCounter, id), uid)?;
    Ok(())
}

/// QUERY_Q_COUNTER.
pub fn query_q_counter(cx: &mut Cx<'_>, i: View<'_, QueryQCounterIn>, o: &mut ViewMut<'_, QueryQCounterOut>) -> Answer {
    let clear = i.is(QueryQCounterIn::clear);
    let (uid, id) = (cx.uid, i.get(QueryQCounterIn::counter_set_id));
    if i.is(QueryQCounterIn::other_vport) || i.is(QueryQCounterIn::aggregate) {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let Body::QCounter(c) = cx.function()?.objects.check(ObjRef(Kind::QCounter, id), uid)? else {
        return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT));
    };
    o.set(QueryQCounterOut::out_of_buffer, super::queue::out_of_buffer(c, clear) as u32);
    Ok(())
}

const _: () = assert!(<MacAddressLayout as Layout>::SIZE == 8);

/// Whether a vport's frames pass now, told to the packet path.
pub fn publish_link(v: &VportControl, up: bool) {
    v.plane.link.store(up, Relaxed);
}
