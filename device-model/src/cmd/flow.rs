//! Flow tables, groups, entries, counters and packet actions.

use std::sync::Arc;

use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Layout, Refusal, Status, Syndrome, View, ViewMut};
use smallvec::SmallVec;

use super::transport::insert;
use super::{Answer, Cx};
use crate::control::function::{Body, Function};
use crate::control::objects::{Kind, ObjRef, Objects, Uses};
use crate::fabric::tir::Tir;
use crate::packet::{self, HeaderAction, MatchKey};
use crate::steering::{
    Action, Actions, Change, CounterBulk, Dest, FlowCounter, FlowSource, FteSpec, Miss, Modify, ModifyHeader, PushVlan,
    Reformat, TableFlags, TableSpec, TableType, Used,
};

/// What a table belongs to: the type, and the vport where it has one.
struct Owner {
    kind: TableType,
    vport: u16,
}

/// Reads the head that all steering commands share. Eswitch tables belong to
/// the manager; a vport other than its own must exist.
fn owner(cx: &mut Cx<'_>, raw: u32, other_vport: bool, vport: u32) -> Result<Owner, Refusal> {
    let kind = TableType::parse(raw).ok_or(Refusal::param(Syndrome::TABLE_TYPE))?;
    let vport = vport as u16;
    let eswitch = matches!(kind, TableType::Fdb | TableType::IngressAcl | TableType::EgressAcl);
    if eswitch && !cx.is_manager() {
        return Err(Refusal::new(Status::BadParam, Syndrome::NOT_ESWITCH_MANAGER));
    }
    if !other_vport {
        return Ok(Owner { kind, vport: 0 });
    }
    if !cx.is_manager() || !eswitch {
        return Err(Refusal::new(Status::BadParam, Syndrome::NOT_VPORT_GROUP_MANAGER));
    }
    if !cx.ctl.vports.contains_key(&vport) {
        return Err(Refusal::param(Syndrome::NO_SUCH_VPORT));
    }
    Ok(Owner { kind, vport })
}

/// Properties of a table type as the capabilities offer them.
fn properties(f: &Function, kind: TableType) -> Option<View<'_, FlowTablePropLayout>> {
    const NIC: u16 = 0x07;
    const ESWITCH: u16 = 0x08;
    let nic = f.caps.of::<FlowTableNicCap>(NIC);
    let esw = f.caps.of::<FlowTableEswitchCap>(ESWITCH);
    let p = match kind {
        TableType::NicRx => nic.sub(FlowTableNicCap::flow_table_properties_nic_receive),
        TableType::NicTx => nic.sub(FlowTableNicCap::flow_table_properties_nic_transmit),
        TableType::Fdb => esw.sub(FlowTableEswitchCap::flow_table_properties_nic_esw_fdb),
        TableType::IngressAcl => esw.sub(FlowTableEswitchCap::flow_table_properties_esw_acl_ingress),
        TableType::EgressAcl => esw.sub(FlowTableEswitchCap::flow_table_properties_esw_acl_egress),
        _ => return None,
    };
    p.is(FlowTablePropLayout::ft_support).then_some(p)
}

/// What a table's context says of misses.
fn miss(f: &Function, c: &View<'_, FlowTableContext>) -> Result<Miss, Refusal> {
    match c.get(FlowTableContext::table_miss_action) {
        0 => Ok(Miss::Default),
        1 => Ok(Miss::Table(f.steering.table_ref(c.get(FlowTableContext::table_miss_id))?)),
        2 => Ok(Miss::SwitchDomain),
        _ => Err(Refusal::param(Syndrome::TABLE_MISS)),
    }
}

/// CREATE_FLOW_TABLE.
pub fn create_flow_table(
    cx: &mut Cx<'_>,
    i: View<'_, CreateFlowTableIn>,
    o: &mut ViewMut<'_, CreateFlowTableOut>,
) -> Answer {
    let own = owner(
        cx,
        i.get(CreateFlowTableIn::table_type),
        i.is(CreateFlowTableIn::other_vport),
        i.get(CreateFlowTableIn::vport_number),
    )?;
    let c = i.sub(CreateFlowTableIn::flow_table_context);
    let f = cx.function()?;
    let p = properties(f, own.kind).ok_or(Refusal::param(Syndrome::TABLE_TYPE))?;
    let log_size = c.get(FlowTableContext::log_size);
    if log_size > p.get(FlowTablePropLayout::log_max_ft_size) {
        return Err(Refusal::param(Syndrome::TABLE_SIZE));
    }
    let terminates = c.is(FlowTableContext::termination_table);
    if c.is(FlowTableContext::sw_owner) || terminates && !p.is(FlowTablePropLayout::termination_table) {
        return Err(Refusal::param(Syndrome::TABLE_TYPE));
    }
    let mut flags = TableFlags::empty();
    flags.set(TableFlags::REFORMAT, c.is(FlowTableContext::reformat_en));
    flags.set(TableFlags::DECAP, c.is(FlowTableContext::decap_en));
    flags.set(TableFlags::TERMINATION, terminates);
    // The driver's levels may lie beyond max_ft_level; any is taken.
    let spec = TableSpec {
        kind: own.kind,
        level: c.get(FlowTableContext::level) as u8,
        log_size: log_size as u8,
        flags,
        miss: miss(f, &c)?,
    };
    let id = f.steering.create_table(spec)?;
    o.set(CreateFlowTableOut::table_id, id);
    Ok(())
}

/// MODIFY_FLOW_TABLE: where packets go that no entry is for.
pub fn modify_flow_table(
    cx: &mut Cx<'_>,
    i: View<'_, ModifyFlowTableIn>,
    _: &mut ViewMut<'_, ModifyFlowTableOut>,
) -> Answer {
    const MISS_TABLE: u32 = 1;
    let own = owner(
        cx,
        i.get(ModifyFlowTableIn::table_type),
        i.is(ModifyFlowTableIn::other_vport),
        i.get(ModifyFlowTableIn::vport_number),
    )?;
    if i.get(ModifyFlowTableIn::modify_field_select) != MISS_TABLE {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let f = cx.function()?;
    let m = miss(f, &i.sub(ModifyFlowTableIn::flow_table_context))?;
    f.steering.modify_table(own.kind, i.get(ModifyFlowTableIn::table_id), m)
}

/// DESTROY_FLOW_TABLE.
pub fn destroy_flow_table(
    cx: &mut Cx<'_>,
    i: View<'_, DestroyFlowTableIn>,
    _: &mut ViewMut<'_, DestroyFlowTableOut>,
) -> Answer {
    let own = owner(
        cx,
        i.get(DestroyFlowTableIn::table_type),
        i.is(DestroyFlowTableIn::other_vport),
        i.get(DestroyFlowTableIn::vport_number),
    )?;
    cx.function()?.steering.destroy_table(own.kind, i.get(DestroyFlowTableIn::table_id))
}

/// SET_FLOW_TABLE_ROOT: op_mod 0 sets, 1 disconnects.
pub fn set_flow_table_root(
    cx: &mut Cx<'_>,
    i: View<'_, SetFlowTableRootIn>,
    _: &mut ViewMut<'_, SetFlowTableRootOut>,
) -> Answer {
    let own = owner(
        cx,
        i.get(SetFlowTableRootIn::table_type),
        i.is(SetFlowTableRootIn::other_vport),
        i.get(SetFlowTableRootIn::vport_number),
    )?;
    let op_mod = cx.op_mod;
    let vport = if own.kind == TableType::Fdb { 0 } else { own.vport };
    let f = cx.function()?;
    match op_mod {
        0 => f.steering.set_root(own.kind, vport, i.get(SetFlowTableRootIn::table_id)),
        1 => {
            f.steering.clear_root(own.kind, vport);
            Ok(())
        }
        _ => Err(Refusal::param(Syndrome::OP_MOD)),
    }
}

/// CREATE_FLOW_GROUP.
pub fn create_flow_group(
    cx: &mut Cx<'_>,
    i: View<'_, CreateFlowGroupIn>,
    o: &mut ViewMut<'_, CreateFlowGroupOut>,
) -> Answer {
    let own = owner(
        cx,
        i.get(CreateFlowGroupIn::table_type),
        i.is(CreateFlowGroupIn::other_vport),
        i.get(CreateFlowGroupIn::vport_number),
    )?;
    if i.is(CreateFlowGroupIn::group_type) {
        return Err(Refusal::param(Syndrome::MATCH_CRITERIA));
    }
    let range = (i.get(CreateFlowGroupIn::start_flow_index), i.get(CreateFlowGroupIn::end_flow_index));
    let criteria = i.get(CreateFlowGroupIn::match_criteria_enable) as u8;
    let mask = MatchKey::from_bytes(i.sub(CreateFlowGroupIn::match_criteria).raw());
    let table = i.get(CreateFlowGroupIn::table_id);
    let id = cx.function()?.steering.create_group(own.kind, table, range, criteria, &mask)?;
    o.set(CreateFlowGroupOut::group_id, id);
    Ok(())
}

/// DESTROY_FLOW_GROUP.
pub fn destroy_flow_group(
    cx: &mut Cx<'_>,
    i: View<'_, DestroyFlowGroupIn>,
    _: &mut ViewMut<'_, DestroyFlowGroupOut>,
) -> Answer {
    let own = owner(
        cx,
        i.get(DestroyFlowGroupIn::table_type),
        i.is(DestroyFlowGroupIn::other_vport),
        i.get(DestroyFlowGroupIn::vport_number),
    )?;
    let (table, group) = (i.get(DestroyFlowGroupIn::table_id), i.get(DestroyFlowGroupIn::group_id));
    cx.function()?.steering.destroy_group(own.kind, table, group)
}

/// SET_FLOW_TABLE_ENTRY: op_mod 0 creates, 1 modifies what the mask selects.
pub fn set_fte(cx: &mut Cx<'_>, i: View<'_, SetFteIn>, _: &mut ViewMut<'_, SetFteOut>) -> Answer {
    let own = owner(cx, i.get(SetFteIn::table_type), i.is(SetFteIn::other_vport), i.get(SetFteIn::vport_number))?;
    let c = i.sub_open(SetFteIn::flow_context);
    let op_mod = cx.op_mod;
    let f = cx.function()?;
    let mut actions = read_actions(f, own.kind, &c)?;
    actions.ignore_flow_level = i.is(SetFteIn::ignore_flow_level);
    let (table, index) = (i.get(SetFteIn::table_id), i.get(SetFteIn::flow_index));
    let change = match op_mod {
        0 => {
            let value = MatchKey::from_bytes(c.sub(FlowContext::match_value).raw());
            let spec = FteSpec { group: c.get(FlowContext::group_id), index, value: &value, actions };
            f.steering.create_fte(own.kind, table, spec)?
        }
        1 => {
            let mask = i.get(SetFteIn::modify_enable_mask);
            let what = u8::try_from(mask).ok().and_then(Modify::from_bits);
            let what = what.ok_or(Refusal::param(Syndrome::FIELD_SELECT))?;
            f.steering.modify_fte(own.kind, table, index, what, actions)?
        }
        _ => return Err(Refusal::param(Syndrome::OP_MOD)),
    };
    account(f, change);
    Ok(())
}

/// DELETE_FLOW_TABLE_ENTRY.
pub fn delete_fte(cx: &mut Cx<'_>, i: View<'_, DeleteFteIn>, _: &mut ViewMut<'_, DeleteFteOut>) -> Answer {
    let own =
        owner(cx, i.get(DeleteFteIn::table_type), i.is(DeleteFteIn::other_vport), i.get(DeleteFteIn::vport_number))?;
    let f = cx.function()?;
    let change = f.steering.delete_fte(own.kind, i.get(DeleteFteIn::table_id), i.get(DeleteFteIn::flow_index))?;
    account(f, change);
    Ok(())
}

/// Keeps the object table's counts in step with what entries use.
pub(crate) fn account(f: &mut Function, change: Change) {
    let object = |u: Used| match u {
        Used::Counter(id) => counter_object(id),
        Used::ModifyHeader(id) => ObjRef(Kind::ModifyHeader, id),
        Used::Reformat(id) => ObjRef(Kind::Reformat, id),
        Used::Tir(id) => ObjRef(Kind::Tir, id),
    };
    for u in change.taken {
        f.objects.hold(object(u));
    }
    for u in change.released {
        f.objects.release(object(u));
    }
}

fn read_actions(f: &Function, kind: TableType, c: &View<'_, FlowContext>) -> Result<Actions<Tir>, Refusal> {
    let flags = Action::parse(c.get(FlowContext::action))?;
    let absent = Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT);
    let mut a = Actions {
        flags,
        flow_tag: c.get(FlowContext::flow_tag),
        flow_source: FlowSource::parse(c.get(FlowContext::flow_source)),
        ..Actions::default()
    };
    if flags.contains(Action::MODIFY_HEADER) {
        a.modify = match f.objects.check(ObjRef(Kind::ModifyHeader, c.get(FlowContext::modify_header_id)), 0)? {
            Body::ModifyHeader(m) => Some(m.clone()),
            _ => return Err(absent),
        };
    }
    if flags.contains(Action::REFORMAT) {
        a.reformat = Some(reformat(f, c.get(FlowContext::packet_reformat_id))?);
    }
    if flags.contains(Action::PUSH_VLAN) {
        a.push_vlan[0] = PushVlan::read(c.sub(FlowContext::push_vlan));
    }
    if flags.contains(Action::PUSH_VLAN_2) {
        a.push_vlan[1] = PushVlan::read(c.sub(FlowContext::push_vlan_2));
    }
    let p = properties(f, kind).ok_or(Refusal::param(Syndrome::TABLE_TYPE))?;
    let offered = [
        (Action::COUNT, FlowTablePropLayout::flow_counter),
        (Action::DECAP, FlowTablePropLayout::decap),
        (Action::POP_VLAN, FlowTablePropLayout::pop_vlan),
        (Action::PUSH_VLAN, FlowTablePropLayout::push_vlan),
        (Action::POP_VLAN_2, FlowTablePropLayout::pop_vlan_2),
        (Action::PUSH_VLAN_2, FlowTablePropLayout::push_vlan_2),
    ];
    if offered.iter().any(|(action, cap)| flags.contains(*action) && !p.is(*cap)) {
        return Err(Refusal::param(Syndrome::FTE_ACTION));
    }
    let reformats =
        [FlowTablePropLayout::reformat, FlowTablePropLayout::reformat_insert, FlowTablePropLayout::reformat_remove];
    if flags.contains(Action::REFORMAT) && !reformats.iter().any(|cap| p.is(*cap)) {
        return Err(Refusal::param(Syndrome::FTE_ACTION));
    }
    let extended = c.is(FlowContext::extended_destination);
    let list = c.tail(FlowContext::destination);
    let n = if flags.contains(Action::FORWARD) { c.get(FlowContext::destination_list_size) as usize } else { 0 };
    let stride = if extended { ExtendedDestFormat::SIZE } else { DestFormat::SIZE };
    let too_many = Refusal::param(Syndrome::FTE_LIST);
    if n as u64 > 1 << p.get(FlowTablePropLayout::log_max_destination).min(16) || list.len() < n * stride {
        return Err(too_many);
    }
    for d in list.chunks_exact(stride).take(n) {
        a.dests.push(destination(f, d, extended)?);
    }
    if flags.contains(Action::COUNT) {
        a.counters = counters(f, &list[n * stride..], c.get(FlowContext::flow_counter_list_size) as usize)?;
    }
    Ok(a)
}

fn counters(f: &Function, list: &[u8], n: usize) -> Result<SmallVec<[FlowCounter; 1]>, Refusal> {
    if list.len() / FlowCounterList::SIZE < n {
        return Err(Refusal::param(Syndrome::FTE_LIST));
    }
    let mut out = SmallVec::new();
    for e in list.chunks_exact(FlowCounterList::SIZE).take(n) {
        let id = View::<FlowCounterList>::new(e).get(FlowCounterList::flow_counter_id);
        let counter = bulk_of(f, id).and_then(|b| b.counter(id));
        out.push(counter.ok_or(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT))?);
    }
    Ok(out)
}

fn reformat(f: &Function, id: u32) -> Result<Arc<Reformat>, Refusal> {
    match f.objects.check(ObjRef(Kind::Reformat, id), 0)? {
        Body::Reformat(r) => Ok(r.clone()),
        _ => Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT)),
    }
}

fn destination(f: &Function, raw: &[u8], extended: bool) -> Result<Dest<Tir>, Refusal> {
    const VPORT: u32 = 0;
    const FLOW_TABLE: u32 = 1;
    const TIR: u32 = 2;
    const UPLINK: u32 = 8;
    const TABLE_TYPE: u32 = 0xa;
    let d = View::<DestFormat>::new(raw);
    let id = d.get(DestFormat::destination_id);
    let vhca_id = d
        .is(DestFormat::destination_eswitch_owner_vhca_id_valid)
        .then(|| d.get(DestFormat::destination_eswitch_owner_vhca_id) as u16);
    let own = if extended && d.is(DestFormat::packet_reformat) {
        let e = View::<ExtendedDestFormat>::new(raw);
        Some(reformat(f, e.get(ExtendedDestFormat::packet_reformat_id))?)
    } else {
        None
    };
    let unreachable = Refusal::new(Status::BadRes, Syndrome::FTE_DESTINATION);
    if vhca_id.is_some_and(|v| v != f.vhca_id) {
        return Err(unreachable); // a merged eswitch is not advertised
    }
    Ok(match d.get(DestFormat::destination_type) {
        VPORT => Dest::Vport { num: id as u16, vhca_id, reformat: own },
        FLOW_TABLE => Dest::Table(f.steering.table_ref(id)?),
        TIR => match f.objects.check(ObjRef(Kind::Tir, id), 0)? {
            Body::Tir(tir) => Dest::Tir { id, tir: tir.clone() },
            _ => return Err(unreachable),
        },
        UPLINK => Dest::Uplink { vhca_id, reformat: own },
        TABLE_TYPE => Dest::TableOfType(f.steering.table_ref(id)?),
        _ => return Err(Refusal::param(Syndrome::FTE_DESTINATION)),
    })
}

/// Numbers from here on are those of bulks.
const FIRST_OF_BULKS: u32 = 1 << 16;

/// The object that a counter's number falls into: itself, or a bulk by its
/// place among the bulks.
fn counter_object(id: u32) -> ObjRef {
    match id.checked_sub(FIRST_OF_BULKS) {
        Some(n) => ObjRef(Kind::FlowCounterBulk, n / CounterBulk::LEN),
        None => ObjRef(Kind::FlowCounter, id),
    }
}

fn bulk_of(f: &Function, id: u32) -> Option<&Arc<CounterBulk>> {
    bulk_among(&f.objects, id)
}

/// The counters that a number is one of.
pub(crate) fn bulk_among(objects: &Objects<Body>, id: u32) -> Option<&Arc<CounterBulk>> {
    match objects.get(counter_object(id))? {
        Body::FlowCounter(b) => Some(b),
        _ => None,
    }
}

/// ALLOC_FLOW_COUNTER: one counter, or a bulk of the size that is advertised.
pub fn alloc_flow_counter(
    cx: &mut Cx<'_>,
    i: View<'_, AllocFlowCounterIn>,
    o: &mut ViewMut<'_, AllocFlowCounterOut>,
) -> Answer {
    let (uid, store) = (cx.uid, cx.nic.counters.clone());
    let f = cx.function()?;
    let bulk = i.get(AllocFlowCounterIn::flow_counter_bulk);
    let offered = f.caps.general(CmdHcaCap::flow_counter_bulk_alloc);
    if bulk != 0 && (bulk != offered || bulk != CounterBulk::BITMASK)
        || i.is(AllocFlowCounterIn::flow_counter_bulk_log_size)
    {
        return Err(Refusal::param(Syndrome::FTE_LIST));
    }
    let (kind, first, limit) = match bulk {
        0 => (Kind::FlowCounter, 1, f.caps.general(CmdHcaCap::max_flow_counter_15_0)),
        _ => {
            let numbers = f.caps.general(CmdHcaCap::max_flow_counter_31_16) << 16;
            (Kind::FlowCounterBulk, 0, numbers / CounterBulk::LEN)
        }
    };
    let n = f.objects.take_id(kind, first, limit)?;
    let id = if bulk == 0 { n } else { FIRST_OF_BULKS + n * CounterBulk::LEN };
    let made = store.allocate(id, bulk != 0).inspect_err(|_| f.objects.give_id(kind, n))?;
    insert(f, ObjRef(kind, n), uid, Uses::new(), Body::FlowCounter(made))?;
    o.set(AllocFlowCounterOut::flow_counter_id, id);
    Ok(())
}

/// DEALLOC_FLOW_COUNTER: what one ALLOC_FLOW_COUNTER answered.
pub fn dealloc_flow_counter(
    cx: &mut Cx<'_>,
    i: View<'_, DeallocFlowCounterIn>,
    _: &mut ViewMut<'_, DeallocFlowCounterOut>,
) -> Answer {
    let (uid, id) = (cx.uid, i.get(DeallocFlowCounterIn::flow_counter_id));
    let f = cx.function()?;
    if bulk_of(f, id).is_some_and(|b| b.base() != id) {
        return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT));
    }
    f.objects.remove(counter_object(id), uid).map(drop)
}

/// QUERY_FLOW_COUNTER: one, or a run of numbers; one that is not allocated
/// reads as zero, since a run may have holes.
pub fn query_flow_counter(
    cx: &mut Cx<'_>,
    i: View<'_, QueryFlowCounterIn>,
    o: &mut ViewMut<'_, QueryFlowCounterOut>,
) -> Answer {
    let first = i.get(QueryFlowCounterIn::flow_counter_id);
    let run = i.get(QueryFlowCounterIn::num_of_counters);
    let clear = i.is(QueryFlowCounterIn::clear);
    let f = cx.function()?;
    if run == 0 && bulk_of(f, first).is_none() {
        return Err(Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT));
    }
    for (n, out) in o.tail(QueryFlowCounterOut::flow_statistics).chunks_exact_mut(TrafficCounter::SIZE).enumerate() {
        if n >= run.max(1) as usize {
            break;
        }
        let id = first.wrapping_add(n as u32);
        if let Some(c) = bulk_of(f, id).and_then(|b| b.counter(id)) {
            let (packets, octets) = if clear { c.read_and_clear() } else { c.read() };
            let mut t = ViewMut::<TrafficCounter>::new(out);
            t.set64(TrafficCounter::packets, packets).set64(TrafficCounter::octets, octets);
        }
    }
    Ok(())
}

/// ALLOC_PACKET_REFORMAT_CONTEXT: headers to put on, insert or remove, of the types and
/// sizes that the capabilities name.
pub fn alloc_packet_reformat(
    cx: &mut Cx<'_>,
    i: View<'_, AllocPacketReformatContextIn>,
    o: &mut ViewMut<'_, AllocPacketReformatContextOut>,
) -> Answer {
    const ESWITCH: u16 = 0x09;
    let uid = cx.uid;
    let context = i.sub_open(AllocPacketReformatContextIn::packet_reformat_context);
    let kind = context.get(PacketReformatContextIn::reformat_type);
    let action = packet::Reformat::decode(context)?;
    let f = cx.function()?;
    let esw = f.caps.of::<ESwitchCap>(ESWITCH);
    let encap = esw.get(ESwitchCap::max_encap_header_size);
    let offers = |cap| properties(f, TableType::Fdb).is_some_and(|p| p.is(cap));
    // Longest data, and how far behind the anchor it may begin.
    let (size, max_size, offset, max_offset) = match &action {
        packet::Reformat::Insert { data, offset, .. } => {
            let max = f.caps.general2(CmdHcaCap2::max_reformat_insert_size);
            (data.len(), max, *offset, f.caps.general2(CmdHcaCap2::max_reformat_insert_offset))
        }
        packet::Reformat::Remove { size, offset, .. } => {
            let max = f.caps.general2(CmdHcaCap2::max_reformat_remove_size);
            (*size, max, *offset, f.caps.general2(CmdHcaCap2::max_reformat_remove_offset))
        }
        packet::Reformat::Encap { header, l2_to_l3: false } if offers(FlowTablePropLayout::reformat) => {
            let offered = match kind {
                packet::reformat::kind::L2_TO_VXLAN => esw.is(ESwitchCap::vxlan_encap_decap),
                packet::reformat::kind::L2_TO_NVGRE => esw.is(ESwitchCap::nvgre_encap_decap),
                _ => true,
            };
            (header.len(), if offered { encap } else { 0 }, 0, 0)
        }
        packet::Reformat::Encap { header, l2_to_l3: true } if offers(FlowTablePropLayout::reformat_l2_to_l3_tunnel) => {
            (header.len(), encap, 0, 0)
        }
        packet::Reformat::DecapL3 { header } if offers(FlowTablePropLayout::reformat_l3_tunnel_to_l2) => {
            (header.len(), encap, 0, 0)
        }
        _ => return Err(Refusal::param(Syndrome::REFORMAT_TYPE)),
    };
    if size > max_size as usize || offset > max_offset as usize {
        return Err(Refusal::param(Syndrome::REFORMAT_TYPE));
    }
    let log = match esw.get(ESwitchCap::log_max_packet_reformat_context) {
        0 => return Err(Refusal::param(Syndrome::REFORMAT_TYPE)),
        log => log.min(24),
    };
    let id = f.objects.take_id(Kind::Reformat, 1, 1 << log)?;
    insert(f, ObjRef(Kind::Reformat, id), uid, Uses::new(), Body::Reformat(Arc::new(Reformat { id, action })))?;
    o.set(AllocPacketReformatContextOut::packet_reformat_id, id);
    Ok(())
}

/// DEALLOC_PACKET_REFORMAT_CONTEXT.
pub fn dealloc_packet_reformat(
    cx: &mut Cx<'_>,
    i: View<'_, DeallocPacketReformatContextIn>,
    _: &mut ViewMut<'_, DeallocPacketReformatContextOut>,
) -> Answer {
    let (uid, id) = (cx.uid, i.get(DeallocPacketReformatContextIn::packet_reformat_id));
    cx.function()?.objects.remove(ObjRef(Kind::Reformat, id), uid).map(drop)
}

/// ALLOC_MODIFY_HEADER_CONTEXT.
pub fn alloc_modify_header(
    cx: &mut Cx<'_>,
    i: View<'_, AllocModifyHeaderContextIn>,
    o: &mut ViewMut<'_, AllocModifyHeaderContextOut>,
) -> Answer {
    let uid = cx.uid;
    let raw_type = i.get(AllocModifyHeaderContextIn::table_type);
    let own = owner(cx, raw_type, false, 0)?;
    let f = cx.function()?;
    let p = properties(f, own.kind).ok_or(Refusal::param(Syndrome::TABLE_TYPE))?;
    let n = i.get(AllocModifyHeaderContextIn::num_of_actions);
    if n == 0 || n > p.get(FlowTablePropLayout::max_modify_header_actions) {
        return Err(Refusal::param(Syndrome::MODIFY_COUNT));
    }
    let log_limit = p.get(FlowTablePropLayout::log_max_modify_header_context);
    let raw = i.tail(AllocModifyHeaderContextIn::actions).as_chunks::<8>().0;
    let raw = raw.get(..n as usize).ok_or(Refusal::new(Status::BadInputLen, Syndrome::INPUT_SHORT))?;
    let actions: Result<Box<[HeaderAction]>, Refusal> = raw.iter().map(HeaderAction::decode).collect();
    let actions = actions?;
    let id = f.objects.take_id(Kind::ModifyHeader, 1, 1 << log_limit.min(24))?;
    let body = Body::ModifyHeader(Arc::new(ModifyHeader { id, table_type: raw_type as u8, actions }));
    insert(f, ObjRef(Kind::ModifyHeader, id), uid, Uses::new(), body)?;
    o.set(AllocModifyHeaderContextOut::modify_header_id, id);
    Ok(())
}

/// DEALLOC_MODIFY_HEADER_CONTEXT.
pub fn dealloc_modify_header(
    cx: &mut Cx<'_>,
    i: View<'_, DeallocModifyHeaderContextIn>,
    _: &mut ViewMut<'_, DeallocModifyHeaderContextOut>,
) -> Answer {
    let (uid, id) = (cx.uid, i.get(DeallocModifyHeaderContextIn::modify_header_id));
    cx.function()?.objects.remove(ObjRef(Kind::ModifyHeader, id), uid).map(drop)
}
