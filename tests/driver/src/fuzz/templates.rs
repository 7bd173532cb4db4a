//! A valid command of every kind.

use sfnic_device_model::cmd::regs::REGISTERS;
use sfnic_device_model::cmd::table::Row;
use sfnic_firmware_cmds::layout::{Layout, ViewMut};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;
use sfnic_firmware_cmds::profile::{GROUP_SIZE, GROUPS};

use super::book::{Book, TableNote, Thing};
use super::{Entropy, fields};
use crate::command::set_opcode;
use crate::steering::{Destination, criteria, table_type};

/// What a command may name beside the objects of its function.
pub(super) struct Setting {
    /// Start of memory that queues may lie in, at least 1 MiB.
    pub(super) arena: u64,
    /// Vports: the physical function, SFs with and without a driver, and one
    /// that does not exist.
    pub(super) vports: Vec<u16>,
    /// SFs whose drivers nobody will miss.
    pub(super) spares: Vec<u16>,
    /// The function that issues the command is the eswitch's manager.
    pub(super) manager: bool,
}

impl Setting {
    fn page(&self, e: &mut impl Entropy) -> u64 {
        self.arena + (e.below(256) as u64) * 4096
    }
}

/// A command, and bytes that its answer may have behind the fixed part.
pub(super) struct Template {
    /// The input.
    pub(super) input: Vec<u8>,
    /// Bytes of the answer.
    pub(super) out_len: usize,
}

/// Writes the fields of a layout.
fn set<I: Layout>(input: &mut [u8], fill: impl FnOnce(&mut ViewMut<'_, I>)) {
    fill(&mut ViewMut::new(input));
}

/// A valid command, as far as one can be made of what exists.
pub(super) fn template(row: &Row, book: &Book, s: &Setting, e: &mut impl Entropy) -> Template {
    let info = row.input.info();
    let mut i = vec![0; info.size];
    fields::fill(&info, book, e, &mut i);
    let mut out_len = row.output.size();
    match row.opcode {
        Opcode::QUERY_HCA_CAP => set(&mut i, |v: &mut ViewMut<'_, QueryHcaCapIn>| {
            v.set(QueryHcaCapIn::op_mod, u32::from(e.pick(GROUPS).id) * 2 + (e.next() & 1) as u32);
        }),
        Opcode::SET_HCA_CAP => {
            i.resize(i.len().max(SetHcaCapIn::SIZE), 0);
            debug_assert!(i.len() >= GROUP_SIZE);
            set(&mut i, |v: &mut ViewMut<'_, SetHcaCapIn>| {
                v.set(SetHcaCapIn::op_mod, 0x40).set(SetHcaCapIn::other_function, 1);
                v.set(SetHcaCapIn::function_id, u32::from(*e.pick(&s.spares)));
            });
        }
        Opcode::ENABLE_HCA | Opcode::DISABLE_HCA | Opcode::ALLOC_SF | Opcode::DEALLOC_SF => {
            set(&mut i, |v: &mut ViewMut<'_, AllocSfIn>| {
                v.set(AllocSfIn::function_id, u32::from(*e.pick(&s.spares)));
            });
        }
        Opcode::QUERY_VHCA_STATE => set(&mut i, |v: &mut ViewMut<'_, QueryVhcaStateIn>| {
            v.set(QueryVhcaStateIn::function_id, u32::from(*e.pick(&s.spares)));
        }),
        Opcode::MODIFY_VHCA_STATE => set(&mut i, |v: &mut ViewMut<'_, ModifyVhcaStateIn>| {
            v.set(ModifyVhcaStateIn::function_id, u32::from(*e.pick(&s.spares)));
            v.sub(ModifyVhcaStateIn::vhca_state_field_select).set(VhcaStateFieldSelect::arm_change_event, 1);
            v.sub(ModifyVhcaStateIn::vhca_state_context).set(VhcaStateContext::arm_change_event, 1);
        }),
        Opcode::QUERY_PAGES => set(&mut i, |v: &mut ViewMut<'_, QueryPagesIn>| {
            v.set(QueryPagesIn::op_mod, 1 + e.below(3) as u32);
        }),
        Opcode::SET_ISSI => set(&mut i, |v: &mut ViewMut<'_, SetIssiIn>| {
            v.set(SetIssiIn::current_issi, 1);
        }),
        Opcode::ACCESS_REG => {
            let r = e.pick(REGISTERS);
            i.resize(i.len() + r.size, 0);
            out_len += r.size;
            set(&mut i, |v: &mut ViewMut<'_, AccessRegisterIn>| {
                v.set(AccessRegisterIn::register_id, r.id.into()).set(AccessRegisterIn::op_mod, 1);
                // Most registers have the port in the same place.
                ViewMut::<PaosReg>::new(v.tail(AccessRegisterIn::register_data)).set(PaosReg::local_port, 1);
            });
        }
        Opcode::ADD_VXLAN_UDP_DPORT | Opcode::DELETE_VXLAN_UDP_DPORT => {
            set(&mut i, |v: &mut ViewMut<'_, AddVxlanUdpDportIn>| {
                v.set(AddVxlanUdpDportIn::vxlan_udp_port, 1 + e.below(5) as u32);
            });
        }
        Opcode::CREATE_GENERAL_OBJECT | Opcode::DESTROY_GENERAL_OBJECT => {
            /// `MLX5_OBJ_TYPE_GENEVE_TLV_OPT`.
            const GENEVE_TLV_OPT: u32 = 0xb;
            set(&mut i, |v: &mut ViewMut<'_, GeneralObjInCmdHdr>| {
                v.set(GeneralObjInCmdHdr::obj_type, GENEVE_TLV_OPT);
            });
        }
        Opcode::CREATE_MKEY => mkey(&mut i, s, e),
        Opcode::CREATE_EQ => set(&mut i, |v: &mut ViewMut<'_, CreateEqIn>| {
            v.sub(CreateEqIn::eq_context_entry).set(Eqc::log_eq_size, 4).set(Eqc::intr, (e.next() & 3) as u32);
            v.set_bytes(CreateEqIn::event_bitmask, &(e.next() & 0x2_ffff).to_be_bytes());
        }),
        Opcode::CREATE_CQ => set(&mut i, |v: &mut ViewMut<'_, CreateCqIn>| {
            let mut c = v.sub(CreateCqIn::cq_context);
            c.set(Cqc::log_cq_size, 4).set64(Cqc::dbr_addr, s.page(e));
        }),
        Opcode::CREATE_SQ => set(&mut i, |v: &mut ViewMut<'_, CreateSqIn>| {
            let mut c = v.sub(CreateSqIn::ctx);
            c.set(Sqc::tis_lst_sz, 1).set(Sqc::flush_in_error_en, (e.next() & 1) as u32);
            c.set(Sqc::reg_umr, (e.next() & 1) as u32);
            let mut wq = c.sub(Sqc::wq);
            wq.set(Wq::wq_type, 1).set(Wq::log_wq_stride, 6).set(Wq::log_wq_sz, 4);
            wq.set64(Wq::dbr_addr, s.page(e));
        }),
        Opcode::CREATE_RQ => set(&mut i, |v: &mut ViewMut<'_, CreateRqIn>| {
            let mut c = v.sub(CreateRqIn::ctx);
            c.set(Rqc::flush_in_error_en, (e.next() & 1) as u32);
            let mut wq = c.sub(Rqc::wq);
            wq.set(Wq::wq_type, (e.next() & 3) as u32).set(Wq::log_wq_stride, 5).set(Wq::log_wq_sz, 4);
            wq.set(Wq::log_wqe_stride_size, (e.next() & 7) as u32);
            wq.set64(Wq::dbr_addr, s.page(e));
        }),
        Opcode::MODIFY_SQ => set(&mut i, |v: &mut ViewMut<'_, ModifySqIn>| {
            let (from, to) = transition(e);
            v.set(ModifySqIn::sq_state, from).sub(ModifySqIn::ctx).set(Sqc::state, to);
        }),
        Opcode::MODIFY_RQ => set(&mut i, |v: &mut ViewMut<'_, ModifyRqIn>| {
            let (from, to) = transition(e);
            v.set(ModifyRqIn::rq_state, from).set64(ModifyRqIn::modify_bitmask, (e.next() & 1) * 2);
            v.sub(ModifyRqIn::ctx).set(Rqc::state, to);
        }),
        Opcode::CREATE_RQT => {
            let n = 1 + e.below(8);
            for _ in 0..n {
                i.extend(book.any(Thing::Rq, e).to_be_bytes());
            }
            set(&mut i, |v: &mut ViewMut<'_, CreateRqtIn>| {
                v.sub(CreateRqtIn::rqt_context).set(Rqtc::rqt_max_size, 8).set(Rqtc::rqt_actual_size, n as u32);
            });
        }
        Opcode::MODIFY_RQT => {
            i.extend(book.any(Thing::Rq, e).to_be_bytes());
            set(&mut i, |v: &mut ViewMut<'_, ModifyRqtIn>| {
                v.sub(ModifyRqtIn::bitmask).set(RqtBitmask::rqn_list, 1);
                v.sub(ModifyRqtIn::ctx).set(Rqtc::rqt_actual_size, 1);
            });
        }
        Opcode::CREATE_TIR => set(&mut i, |v: &mut ViewMut<'_, CreateTirIn>| {
            let mut c = v.sub(CreateTirIn::ctx);
            c.set(Tirc::disp_type, (e.next() & 1) as u32).set(Tirc::rx_hash_fn, 2);
            c.set(Tirc::packet_merge_mask, (e.next() & 3) as u32).set(Tirc::lro_max_ip_payload_size, 255);
            c.sub(Tirc::rx_hash_field_selector_outer).set(RxHashFieldSelect::selected_fields, 0xf);
        }),
        Opcode::MODIFY_TIR => set(&mut i, |v: &mut ViewMut<'_, ModifyTirIn>| {
            v.sub(ModifyTirIn::bitmask).set(ModifyTirBitmask::hash, 1);
            v.sub(ModifyTirIn::ctx).set(Tirc::rx_hash_fn, (e.next() & 2) as u32);
        }),
        Opcode::MODIFY_NIC_VPORT_CONTEXT => {
            let n = e.below(4);
            i.resize(i.len() + n * 8, e.next() as u8);
            set(&mut i, |v: &mut ViewMut<'_, ModifyNicVportContextIn>| {
                v.sub(ModifyNicVportContextIn::field_select)
                    .set(ModifyNicVportFieldSelect::addresses_list, 1)
                    .set(ModifyNicVportFieldSelect::promisc, 1);
                let mut c = v.sub(ModifyNicVportContextIn::nic_vport_context);
                c.set(NicVportContext::allowed_list_type, e.below(3) as u32);
                c.set(NicVportContext::allowed_list_size, n as u32).set(NicVportContext::promisc_all, 1);
            });
        }
        Opcode::QUERY_FLOW_COUNTER => {
            out_len += TrafficCounter::SIZE * (1 + e.below(4));
        }
        Opcode::ALLOC_PACKET_REFORMAT_CONTEXT => reformat(&mut i, e),
        Opcode::ALLOC_MODIFY_HEADER_CONTEXT => modify_header(&mut i, s, e),
        _ => flow(row.opcode, &mut i, book, s, e),
    }
    pages(row.opcode, &mut i, s, e);
    if matches!(row.opcode, Opcode::QUERY_VPORT_COUNTER | Opcode::MODIFY_VPORT_STATE | Opcode::MODIFY_ESW_VPORT_CONTEXT)
        && s.manager
        && e.one_in(2)
    {
        set(&mut i, |v: &mut ViewMut<'_, QueryVportStateIn>| {
            v.set(QueryVportStateIn::other_vport, 1).set(QueryVportStateIn::vport_number, (*e.pick(&s.vports)).into());
        });
    }
    set_opcode(&mut i, row.opcode);
    Template { input: i, out_len }
}

fn transition(e: &mut impl Entropy) -> (u32, u32) {
    *e.pick(&[(0, 1), (0, 1), (1, 1), (1, 3), (3, 0), (1, 0)])
}

/// The pages of a queue.
fn pages(opcode: Opcode, i: &mut Vec<u8>, s: &Setting, e: &mut impl Entropy) {
    if [Opcode::CREATE_EQ, Opcode::CREATE_CQ, Opcode::CREATE_SQ, Opcode::CREATE_RQ].contains(&opcode) {
        i.extend(s.page(e).to_be_bytes());
    }
}

fn mkey(i: &mut Vec<u8>, s: &Setting, e: &mut impl Entropy) {
    let listed = e.one_in(2);
    if listed {
        for _ in 0..4 {
            i.extend(s.page(e).to_be_bytes());
        }
    }
    set(i, |v: &mut ViewMut<'_, CreateMkeyIn>| {
        v.set(CreateMkeyIn::translations_octword_actual_size, 2);
        let mut c = v.sub(CreateMkeyIn::memory_key_mkey_entry);
        c.set(Mkc::lr, 1).set(Mkc::lw, 1).set(Mkc::mkey_7_0, 0x42).set(Mkc::length64, 1);
        c.set(Mkc::umr_en, (e.next() & 1) as u32).set(Mkc::free, e.one_in(4).into());
        if listed {
            c.set(Mkc::access_mode_1_0, 1).set(Mkc::log_page_size, 12);
            c.set64(Mkc::start_addr, s.arena).set64(Mkc::len, 4 * 4096);
        }
    });
}

fn reformat(i: &mut Vec<u8>, e: &mut impl Entropy) {
    const INSERT: u32 = 0xf;
    const REMOVE: u32 = 0x10;
    const MAC: u32 = 1;
    /// Any tunnel around a frame, and how long its headers are here.
    const TUNNEL: (u32, u32) = (0x2, 50);
    i.resize(i.len() + 64, 0x81);
    let (kind, size) = *e.pick(&[(INSERT, 4), (REMOVE, 4), TUNNEL]);
    set(i, |v: &mut ViewMut<'_, AllocPacketReformatContextIn>| {
        let mut c = v.sub(AllocPacketReformatContextIn::packet_reformat_context);
        c.set(PacketReformatContextIn::reformat_type, kind).set(PacketReformatContextIn::reformat_data_size, size);
        c.set(PacketReformatContextIn::reformat_param_0, MAC).set(PacketReformatContextIn::reformat_param_1, 12);
    });
}

fn modify_header(i: &mut Vec<u8>, s: &Setting, e: &mut impl Entropy) {
    const FIELDS: [u32; 8] = [0x1, 0x2, 0x3, 0x51, 0x52, 0x5, 0x9, 0x17];
    let n = 1 + e.below(4);
    for _ in 0..n {
        let mut a = [0; SetActionIn::SIZE];
        ViewMut::<SetActionIn>::new(&mut a)
            .set(SetActionIn::action_type, 1 + e.below(2) as u32)
            .set(SetActionIn::field, *e.pick(&FIELDS))
            .set(SetActionIn::length, 8)
            .set(SetActionIn::data, e.next() as u32);
        i.extend(a);
    }
    set(i, |v: &mut ViewMut<'_, AllocModifyHeaderContextIn>| {
        v.set(AllocModifyHeaderContextIn::num_of_actions, n as u32);
        v.set(AllocModifyHeaderContextIn::table_type, table_kind(s, e));
    });
}

fn table_kind(s: &Setting, e: &mut impl Entropy) -> u32 {
    use table_type::{EGRESS_ACL, FDB, INGRESS_ACL, NIC_RX, NIC_TX};
    if s.manager { *e.pick(&[NIC_RX, NIC_TX, FDB, FDB, INGRESS_ACL, EGRESS_ACL]) } else { *e.pick(&[NIC_RX, NIC_TX]) }
}

/// Commands of steering.
fn flow(opcode: Opcode, i: &mut Vec<u8>, book: &Book, s: &Setting, e: &mut impl Entropy) {
    if opcode == Opcode::CREATE_FLOW_TABLE {
        let kind = table_kind(s, e);
        let vport = [table_type::INGRESS_ACL, table_type::EGRESS_ACL].contains(&kind).then(|| *e.pick(&s.vports));
        return set(i, |v: &mut ViewMut<'_, CreateFlowTableIn>| {
            v.set(CreateFlowTableIn::table_type, kind).set(CreateFlowTableIn::other_vport, vport.is_some().into());
            v.set(CreateFlowTableIn::vport_number, vport.unwrap_or(0).into());
            v.sub(CreateFlowTableIn::flow_table_context)
                .set(FlowTableContext::log_size, 5)
                .set(FlowTableContext::reformat_en, 1)
                .set(FlowTableContext::level, e.below(8) as u32);
        });
    }
    let steering = [
        Opcode::SET_FLOW_TABLE_ROOT,
        Opcode::DESTROY_FLOW_TABLE,
        Opcode::CREATE_FLOW_GROUP,
        Opcode::DESTROY_FLOW_GROUP,
        Opcode::SET_FLOW_TABLE_ENTRY,
        Opcode::DELETE_FLOW_TABLE_ENTRY,
        Opcode::MODIFY_FLOW_TABLE,
    ];
    if !steering.contains(&opcode) {
        return;
    }
    let entries = [Opcode::SET_FLOW_TABLE_ENTRY, Opcode::DESTROY_FLOW_GROUP].contains(&opcode);
    let Some(t) = book.table(entries, e) else { return };
    // The head is the same in all of them.
    set(i, |v: &mut ViewMut<'_, DestroyFlowTableIn>| {
        v.set(DestroyFlowTableIn::table_type, t.kind).set(DestroyFlowTableIn::table_id, t.id);
        v.set(DestroyFlowTableIn::other_vport, t.vport.is_some().into());
        v.set(DestroyFlowTableIn::vport_number, t.vport.unwrap_or(0).into());
    });
    let group = if t.groups.is_empty() { (0, 0, 0) } else { *e.pick(&t.groups) };
    match opcode {
        Opcode::CREATE_FLOW_GROUP => set(i, |v: &mut ViewMut<'_, CreateFlowGroupIn>| {
            let start = e.below(8) as u32 * 4;
            v.set(CreateFlowGroupIn::start_flow_index, start).set(CreateFlowGroupIn::end_flow_index, start + 3);
            match e.below(3) {
                0 => {}
                1 => {
                    v.set(CreateFlowGroupIn::match_criteria_enable, criteria::MISC);
                    let mut m = v.sub(CreateFlowGroupIn::match_criteria);
                    m.sub(FteMatchParam::misc_parameters).set(FteMatchSetMisc::source_port, 0xffff);
                }
                _ => {
                    v.set(CreateFlowGroupIn::match_criteria_enable, criteria::OUTER);
                    let mut m = v.sub(CreateFlowGroupIn::match_criteria);
                    m.sub(FteMatchParam::outer_headers).set(FteMatchSetLyr24::ethertype, 0xffff);
                }
            }
        }),
        Opcode::DESTROY_FLOW_GROUP => set(i, |v: &mut ViewMut<'_, DestroyFlowGroupIn>| {
            v.set(DestroyFlowGroupIn::group_id, group.0);
        }),
        Opcode::SET_FLOW_TABLE_ENTRY => entry(i, book, s, t, group, e),
        Opcode::DELETE_FLOW_TABLE_ENTRY => set(i, |v: &mut ViewMut<'_, DeleteFteIn>| {
            let index = if t.entries.is_empty() { 0 } else { *e.pick(&t.entries) };
            v.set(DeleteFteIn::flow_index, index);
        }),
        Opcode::MODIFY_FLOW_TABLE => set(i, |v: &mut ViewMut<'_, ModifyFlowTableIn>| {
            let higher = book.tables.iter().find(|o| o.kind == t.kind && o.level > t.level);
            v.set(ModifyFlowTableIn::modify_field_select, 1);
            v.sub(ModifyFlowTableIn::flow_table_context)
                .set(FlowTableContext::table_miss_action, higher.is_some().into())
                .set(FlowTableContext::table_miss_id, higher.map_or(0, |h| h.id));
        }),
        _ => {}
    }
}

fn entry(i: &mut Vec<u8>, book: &Book, s: &Setting, t: &TableNote, group: (u32, u32, u32), e: &mut impl Entropy) {
    use crate::steering::action;
    const UPLINK: u16 = 0xffff;
    let modify = e.one_in(4) && !t.entries.is_empty();
    let dests: Vec<Destination> = match t.kind {
        table_type::NIC_RX => vec![Destination::Tir(book.any(Thing::Tir, e))],
        table_type::FDB => {
            let mut d: Vec<_> = (0..1 + e.below(3)).map(|_| Destination::Vport(*e.pick(&s.vports))).collect();
            if e.one_in(3) {
                d.push(Destination::Vport(UPLINK));
            }
            d
        }
        _ => vec![],
    };
    let higher = book.tables.iter().find(|o| o.kind == t.kind && o.level > t.level);
    let dests = match higher {
        Some(h) if e.one_in(3) => vec![Destination::Table(h.id)],
        _ => dests,
    };
    let mut flags = if dests.is_empty() { *e.pick(&[action::ALLOW, action::DROP]) } else { action::FORWARD };
    let count = book.count(Thing::FlowCounter) > 0 && e.one_in(2);
    if count {
        flags |= action::COUNT;
    }
    let fdb = t.kind == table_type::FDB;
    if fdb && e.one_in(4) {
        flags |= *e.pick(&[action::POP_VLAN, action::PUSH_VLAN]);
    }
    if book.count(Thing::ModifyHeader) > 0 && e.one_in(6) {
        flags |= action::MODIFY_HEADER;
    }
    if fdb && book.count(Thing::Reformat) > 0 && e.one_in(6) {
        const REFORMAT: u32 = 0x10;
        flags |= REFORMAT;
    }
    for d in &dests {
        i.extend(d.bytes());
    }
    if count {
        let mut c = [0; FlowCounterList::SIZE];
        let id = book.any(Thing::FlowCounter, e);
        ViewMut::<FlowCounterList>::new(&mut c).set(FlowCounterList::flow_counter_id, id);
        i.extend(c);
    }
    set(i, |v: &mut ViewMut<'_, SetFteIn>| {
        let (id, from, to) = group;
        let index = if modify { *e.pick(&t.entries) } else { from + e.below((to - from + 1) as usize) as u32 };
        v.set(SetFteIn::op_mod, modify.into()).set(SetFteIn::flow_index, index);
        v.set(SetFteIn::modify_enable_mask, if modify { 0xd } else { 0 });
        let mut c = v.sub(SetFteIn::flow_context);
        c.set(FlowContext::group_id, id).set(FlowContext::action, flags).set(FlowContext::flow_tag, 5);
        c.set(FlowContext::destination_list_size, dests.len() as u32);
        c.set(FlowContext::flow_counter_list_size, count.into());
        c.sub(FlowContext::push_vlan).set(Vlan::ethtype, 0x8100).set(Vlan::vid, 9);
        let mut m = c.sub(FlowContext::match_value);
        m.sub(FteMatchParam::misc_parameters)
            .set(FteMatchSetMisc::source_port, if e.one_in(3) { 0 } else { (*e.pick(&s.vports)).into() });
        m.sub(FteMatchParam::outer_headers).set(FteMatchSetLyr24::ethertype, *e.pick(&[0x0800, 0x88b5]));
    });
}
