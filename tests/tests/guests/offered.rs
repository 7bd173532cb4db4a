//! What the device has to offer. A device that offers less would give its driver less to
//! complain about: the other tests are worth something because of this list.

use sfnic_device_model::control::PF;
use sfnic_device_model::control::caps::{Caps, GENERAL, GENERAL_2, Mode};
use sfnic_emulator::lab::Lab;
use sfnic_firmware_cmds::Layout;
use sfnic_firmware_cmds::layout::{Field, View};
use sfnic_firmware_cmds::layouts::{
    CmdHcaCap as Gen, CmdHcaCap2 as Gen2, ESwitchCap as Esw, FlowTableEswitchCap as FtEsw, FlowTableNicCap as FtNic,
    FlowTablePropLayout as Ft, PerProtocolNetworkingOffloadCaps as Eth,
};

const ETH: u16 = 0x01;
const FLOW_NIC: u16 = 0x07;
const FLOW_ESWITCH: u16 = 0x08;
const ESWITCH: u16 = 0x09;

/// Fields of a group that are at least so great in an answer.
fn at_least<S: Layout>(caps: &Caps, group: u16, mode: Mode, fields: &[(Field<S>, u32)]) {
    let bytes = caps.group(group, mode).unwrap_or_else(|| panic!("group {group:#x} is not offered"));
    below(View::<S>::new(bytes), S::NAME, fields);
}

fn below<S: Layout>(view: View<'_, S>, what: &str, fields: &[(Field<S>, u32)]) {
    for (field, least) in fields {
        let got = view.get(*field);
        assert!(got >= *least, "{what}: {} is {got}, not at least {least}", name(field));
    }
}

fn name<S: Layout>(field: &Field<S>) -> &'static str {
    S::info().fields.iter().find(|f| f.bit == field.bit()).map_or("?", |f| f.name)
}

/// What every function offers a netdev.
fn netdev(caps: &Caps) {
    let general = [
        (Gen::eth_net_offloads, 1),
        (Gen::nic_flow_table, 1),
        (Gen::hca_cap_2, 1),
        (Gen::port_type, 1),
        (Gen::num_ports, 1),
        (Gen::log_max_eq, 4),
        (Gen::log_max_cq, 12),
        (Gen::log_max_cq_sz, 14),
        (Gen::log_max_sq, 10),
        (Gen::log_max_rq, 10),
        (Gen::log_max_tir, 10),
        (Gen::log_max_tis, 8),
        (Gen::log_max_rqt, 8),
        (Gen::log_max_rqt_size, 8),
        (Gen::log_max_wq_sz, 13),
        (Gen::log_max_mkey, 16),
        (Gen::log_max_pd, 8),
        (Gen::log_max_transport_domain, 8),
        (Gen::max_tc, 8),
        (Gen::log_max_current_uc_list, 7),
        (Gen::log_max_current_mc_list, 7),
        (Gen::log_max_vlan_list, 12),
        (Gen::device_frequency_khz, 1),
        (Gen::max_wqe_sz_sq, 512),
        (Gen::cq_moderation, 1),
        (Gen::vport_counters, 1),
    ];
    at_least(caps, GENERAL, Mode::Current, &general);
    let eth = [
        (Eth::csum_cap, 1),
        (Eth::vlan_cap, 1),
        (Eth::max_lso_cap, 16),
        (Eth::rss_ind_tbl_cap, 8),
        (Eth::cqe_checksum_full, 1),
        (Eth::self_lb_en_modifiable, 1),
    ];
    at_least(caps, ETH, Mode::Current, &eth);
    let group = caps.group(FLOW_NIC, Mode::Current).expect("NIC flow tables");
    let receive = View::<FtNic>::new(group).sub(FtNic::flow_table_properties_nic_receive);
    tables(receive, "NIC receive", 64, 20);
}

/// Flow tables with everything that the driver's tables use.
fn tables(view: View<'_, Ft>, what: &str, levels: u32, log_size: u32) {
    let fields = [
        (Ft::ft_support, 1),
        (Ft::flow_counter, 1),
        (Ft::flow_modify_en, 1),
        (Ft::modify_root, 1),
        (Ft::identified_miss_table_mode, 1),
        (Ft::flow_table_modify, 1),
        (Ft::log_max_ft_size, log_size),
        (Ft::max_ft_level, levels),
        (Ft::log_max_ft_num, 8),
        (Ft::log_max_flow, 16),
        (Ft::max_modify_header_actions, 16),
    ];
    below(view, what, &fields);
}

#[test]
fn by_a_physical_function() -> anyhow::Result<()> {
    let lab = Lab::new();
    let board = lab.board()?;
    for card in &board.nic.cards {
        let control = card.control.lock();
        let caps = &control.functions[&PF].caps;
        netdev(caps);
        let general = [
            (Gen::vport_group_manager, 1),
            (Gen::eswitch_manager, 1),
            (Gen::vhca_resource_manager, 1),
            (Gen::sf, 1),
            (Gen::max_num_sf, lab.max_sfs.into()),
            (Gen::sf_base_id, 1),
        ];
        at_least(caps, GENERAL, Mode::Current, &general);
        let can_be_set = [
            (Gen::vhca_state, 1),
            (Gen::event_on_vhca_state_allocated, 1),
            (Gen::event_on_vhca_state_active, 1),
            (Gen::event_on_vhca_state_in_use, 1),
            (Gen::event_on_vhca_state_teardown_request, 1),
        ];
        at_least(caps, GENERAL, Mode::Max, &can_be_set);
        at_least(caps, GENERAL_2, Mode::Current, &[(Gen2::sf_eq_usage, 1), (Gen2::max_num_eqs_24b, 12)]);
        at_least(caps, ESWITCH, Mode::Current, &[(Esw::esw_uplink_ingress_acl, 1)]);
        let fdb = [(FtEsw::fdb_to_vport_reg_c_id, 1), (FtEsw::flow_source, 1)];
        at_least(caps, FLOW_ESWITCH, Mode::Current, &fdb);
        let group = View::<FtEsw>::new(caps.group(FLOW_ESWITCH, Mode::Current).expect("eswitch tables"));
        let fdb = group.sub(FtEsw::flow_table_properties_nic_esw_fdb);
        tables(fdb, "FDB", 64, 20);
        // What the kernel's bridge offload needs of the FDB.
        let bridge = [(Ft::push_vlan, 1), (Ft::pop_vlan, 1), (Ft::reformat_insert, 1), (Ft::reformat_remove, 1)];
        below(fdb, "FDB", &bridge);
        // What tc's rules need of it beside that.
        let tc = [
            (Ft::push_vlan_2, 1),
            (Ft::pop_vlan_2, 1),
            (Ft::termination_table, 1),
            (Ft::termination_table_raw_traffic, 1),
            (Ft::ignore_flow_level, 1),
        ];
        below(fdb, "FDB", &tc);
        // Bit 8 is ICMP, bit 9 ICMPv6.
        at_least(caps, GENERAL, Mode::Current, &[(Gen::flex_parser_protocols, 0x300)]);
        tables(group.sub(FtEsw::flow_table_properties_esw_acl_ingress), "ingress ACL", 2, 8);
        let egress = group.sub(FtEsw::flow_table_properties_esw_acl_egress);
        below(egress, "egress ACL", &[(Ft::ft_support, 1), (Ft::flow_counter, 1)]);
    }
    Ok(())
}

#[test]
fn by_a_sub_function() -> anyhow::Result<()> {
    let caps = Caps::new(&Lab::new().board()?.nic.profile.sf);
    netdev(&caps);
    at_least(&caps, GENERAL_2, Mode::Current, &[(Gen2::max_num_eqs_24b, 12)]);
    // An SF that claimed these would try to manage the eswitch and other SFs.
    let general = View::<Gen>::new(caps.group(GENERAL, Mode::Max).expect("general capabilities"));
    for field in [Gen::sf, Gen::vhca_state, Gen::eswitch_manager, Gen::vport_group_manager] {
        assert_eq!(general.get(field), 0, "{}", name(&field));
    }
    Ok(())
}
