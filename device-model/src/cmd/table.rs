//! The commands that are implemented, one row each. Dispatch, length checks,
//! `sfnic list commands`, traces and the fuzzers all read this table.

use sfnic_firmware_cmds::layout::{Info, Layout, View, ViewMut};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;

use super::{Answer, Cx, flow, hca, l2_table, queue, regs, sf, transport, tunnel, vport};

/// What must have been executed for the function before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// ENABLE_HCA.
    Enabled,
    /// INIT_HCA.
    Initialised,
}

/// Who may issue a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Every function.
    Any,
    /// A physical function, about itself or its SFs.
    Parent,
    /// The eswitch manager.
    Manager,
}

/// A structure, as data.
#[derive(Clone, Copy)]
pub struct Shape(fn() -> Info);

impl Shape {
    /// Bytes of the fixed part.
    pub fn size(self) -> usize {
        (self.0)().size
    }
    /// Name and fields.
    pub fn info(self) -> Info {
        (self.0)()
    }
}

/// One command.
pub struct Row {
    /// Opcode.
    pub opcode: Opcode,
    /// What must have come before.
    pub needs: Needs,
    /// Who may issue it.
    pub role: Role,
    /// Layout of the input; a shorter one is refused.
    pub input: Shape,
    /// Layout of the output; a shorter one is refused.
    pub output: Shape,
    /// The handler.
    pub run: fn(&mut Cx<'_>, &[u8], &mut [u8]) -> Answer,
}

macro_rules! rows {
    ($($opcode:ident $needs:ident $role:ident $input:ident $output:ident $handler:path;)*) => {
        /// Every implemented command in the order of opcodes.
        pub const ROWS: &[Row] = &[$(Row {
            opcode: Opcode::$opcode,
            needs: Needs::$needs,
            role: Role::$role,
            input: Shape(<$input as Layout>::info),
            output: Shape(<$output as Layout>::info),
            run: |cx, i, o| $handler(cx, View::<$input>::new(i), &mut ViewMut::<$output>::new(o)),
        }),*];
    };
}

rows! {
    QUERY_HCA_CAP          Enabled     Any     QueryHcaCapIn           QueryHcaCapOut         hca::query_hca_cap;
    QUERY_ADAPTER          Enabled     Any     QueryAdapterIn          QueryAdapterOut        hca::query_adapter;
    INIT_HCA               Enabled     Any     InitHcaIn               InitHcaOut             hca::init_hca;
    TEARDOWN_HCA           Enabled     Any     TeardownHcaIn           TeardownHcaOut         hca::teardown_hca;
    ENABLE_HCA             Nothing     Any     EnableHcaIn             EnableHcaOut           hca::enable_hca;
    DISABLE_HCA            Enabled     Any     DisableHcaIn            DisableHcaOut          hca::disable_hca;
    QUERY_PAGES            Enabled     Any     QueryPagesIn            QueryPagesOut          hca::query_pages;
    MANAGE_PAGES           Enabled     Any     ManagePagesIn           ManagePagesOut         hca::manage_pages;
    SET_HCA_CAP            Enabled     Any     SetHcaCapIn             SetHcaCapOut           hca::set_hca_cap;
    QUERY_ISSI             Enabled     Any     QueryIssiIn             QueryIssiOut           hca::query_issi;
    SET_ISSI               Enabled     Any     SetIssiIn               SetIssiOut             hca::set_issi;
    SET_DRIVER_VERSION     Initialised Any     SetDriverVersionIn      SetDriverVersionOut    hca::set_driver_version;
    ALLOC_SF               Initialised Manager AllocSfIn               AllocSfOut             sf::alloc_sf;
    DEALLOC_SF             Initialised Manager DeallocSfIn             DeallocSfOut           sf::dealloc_sf;
    CREATE_MKEY            Initialised Any     CreateMkeyIn            CreateMkeyOut          transport::create_mkey;
    DESTROY_MKEY           Initialised Any     DestroyMkeyIn           DestroyMkeyOut         transport::destroy_mkey;
    QUERY_SPECIAL_CONTEXTS Initialised Any     QuerySpecialContextsIn  QuerySpecialContextsOut hca::query_special_contexts;
    CREATE_EQ              Initialised Any     CreateEqIn              CreateEqOut            queue::create_eq;
    DESTROY_EQ             Initialised Any     DestroyEqIn             DestroyEqOut           queue::destroy_eq;
    QUERY_EQ               Initialised Any     QueryEqIn               QueryEqOut             queue::query_eq;
    CREATE_CQ              Initialised Any     CreateCqIn              CreateCqOut            queue::create_cq;
    DESTROY_CQ             Initialised Any     DestroyCqIn             DestroyCqOut           queue::destroy_cq;
    QUERY_CQ               Initialised Any     QueryCqIn               QueryCqOut             queue::query_cq;
    MODIFY_CQ              Initialised Any     ModifyCqIn              ModifyCqOut            queue::modify_cq;
    QUERY_ESW_FUNCTIONS    Initialised Manager QueryEswFunctionsIn     QueryEswFunctionsOut   sf::query_esw_functions;
    QUERY_VPORT_STATE      Initialised Any     QueryVportStateIn       QueryVportStateOut     vport::query_vport_state;
    MODIFY_VPORT_STATE     Initialised Any     ModifyVportStateIn      ModifyVportStateOut    vport::modify_vport_state;
    QUERY_ESW_VPORT_CONTEXT  Initialised Manager QueryEswVportContextIn  QueryEswVportContextOut  vport::query_esw_vport_context;
    MODIFY_ESW_VPORT_CONTEXT Initialised Manager ModifyEswVportContextIn ModifyEswVportContextOut vport::modify_esw_vport_context;
    QUERY_NIC_VPORT_CONTEXT  Initialised Any   QueryNicVportContextIn  QueryNicVportContextOut  vport::query_nic_vport_context;
    MODIFY_NIC_VPORT_CONTEXT Initialised Any   ModifyNicVportContextIn ModifyNicVportContextOut vport::modify_nic_vport_context;
    QUERY_HCA_VPORT_PKEY     Initialised Any   QueryHcaVportPkeyIn     QueryHcaVportPkeyOut     vport::query_hca_vport_pkey;
    QUERY_VNIC_ENV         Initialised Any     QueryVnicEnvIn          QueryVnicEnvOut        vport::query_vnic_env;
    QUERY_VPORT_COUNTER    Initialised Any     QueryVportCounterIn     QueryVportCounterOut   vport::query_vport_counter;
    ALLOC_Q_COUNTER        Initialised Any     AllocQCounterIn         AllocQCounterOut       vport::alloc_q_counter;
    DEALLOC_Q_COUNTER      Initialised Any     DeallocQCounterIn       DeallocQCounterOut     vport::dealloc_q_counter;
    QUERY_Q_COUNTER        Initialised Any     QueryQCounterIn         QueryQCounterOut       vport::query_q_counter;
    ALLOC_PD               Initialised Any     AllocPdIn               AllocPdOut             transport::alloc_pd;
    DEALLOC_PD             Initialised Any     DeallocPdIn             DeallocPdOut           transport::dealloc_pd;
    ALLOC_UAR              Initialised Any     AllocUarIn              AllocUarOut            transport::alloc_uar;
    DEALLOC_UAR            Initialised Any     DeallocUarIn            DeallocUarOut          transport::dealloc_uar;
    ACCESS_REG             Enabled     Any     AccessRegisterIn        AccessRegisterOut      regs::access_register;
    NOP                    Nothing     Any     NopIn                   NopOut                 hca::nop;
    ALLOC_XRCD             Initialised Any     AllocXrcdIn             AllocXrcdOut           transport::alloc_xrcd;
    DEALLOC_XRCD           Initialised Any     DeallocXrcdIn           DeallocXrcdOut         transport::dealloc_xrcd;
    ALLOC_TRANSPORT_DOMAIN   Initialised Any   AllocTransportDomainIn  AllocTransportDomainOut  transport::alloc_transport_domain;
    DEALLOC_TRANSPORT_DOMAIN Initialised Any   DeallocTransportDomainIn DeallocTransportDomainOut transport::dealloc_transport_domain;
    ADD_VXLAN_UDP_DPORT    Initialised Parent  AddVxlanUdpDportIn      AddVxlanUdpDportOut    tunnel::add_vxlan_port;
    DELETE_VXLAN_UDP_DPORT Initialised Parent  DeleteVxlanUdpDportIn   DeleteVxlanUdpDportOut tunnel::delete_vxlan_port;
    SET_L2_TABLE_ENTRY     Initialised Manager SetL2TableEntryIn       SetL2TableEntryOut     l2_table::set;
    QUERY_L2_TABLE_ENTRY   Initialised Manager QueryL2TableEntryIn     QueryL2TableEntryOut   l2_table::query;
    DELETE_L2_TABLE_ENTRY  Initialised Manager DeleteL2TableEntryIn    DeleteL2TableEntryOut  l2_table::delete;
    CREATE_TIR             Initialised Any     CreateTirIn             CreateTirOut           transport::create_tir;
    MODIFY_TIR             Initialised Any     ModifyTirIn             ModifyTirOut           transport::modify_tir;
    DESTROY_TIR            Initialised Any     DestroyTirIn            DestroyTirOut          transport::destroy_tir;
    CREATE_SQ              Initialised Any     CreateSqIn              CreateSqOut            queue::create_sq;
    MODIFY_SQ              Initialised Any     ModifySqIn              ModifySqOut            queue::modify_sq;
    DESTROY_SQ             Initialised Any     DestroySqIn             DestroySqOut           queue::destroy_sq;
    QUERY_SQ               Initialised Any     QuerySqIn               QuerySqOut             queue::query_sq;
    CREATE_RQ              Initialised Any     CreateRqIn              CreateRqOut            queue::create_rq;
    MODIFY_RQ              Initialised Any     ModifyRqIn              ModifyRqOut            queue::modify_rq;
    DESTROY_RQ             Initialised Any     DestroyRqIn             DestroyRqOut           queue::destroy_rq;
    QUERY_RQ               Initialised Any     QueryRqIn               QueryRqOut             queue::query_rq;
    CREATE_TIS             Initialised Any     CreateTisIn             CreateTisOut           transport::create_tis;
    MODIFY_TIS             Initialised Any     ModifyTisIn             ModifyTisOut           transport::modify_tis;
    DESTROY_TIS            Initialised Any     DestroyTisIn            DestroyTisOut          transport::destroy_tis;
    CREATE_RQT             Initialised Any     CreateRqtIn             CreateRqtOut           transport::create_rqt;
    MODIFY_RQT             Initialised Any     ModifyRqtIn             ModifyRqtOut           transport::modify_rqt;
    DESTROY_RQT            Initialised Any     DestroyRqtIn            DestroyRqtOut          transport::destroy_rqt;
    SET_FLOW_TABLE_ROOT    Initialised Any     SetFlowTableRootIn      SetFlowTableRootOut    flow::set_flow_table_root;
    CREATE_FLOW_TABLE      Initialised Any     CreateFlowTableIn       CreateFlowTableOut     flow::create_flow_table;
    DESTROY_FLOW_TABLE     Initialised Any     DestroyFlowTableIn      DestroyFlowTableOut    flow::destroy_flow_table;
    CREATE_FLOW_GROUP      Initialised Any     CreateFlowGroupIn       CreateFlowGroupOut     flow::create_flow_group;
    DESTROY_FLOW_GROUP     Initialised Any     DestroyFlowGroupIn      DestroyFlowGroupOut    flow::destroy_flow_group;
    SET_FLOW_TABLE_ENTRY   Initialised Any     SetFteIn                SetFteOut              flow::set_fte;
    DELETE_FLOW_TABLE_ENTRY Initialised Any    DeleteFteIn             DeleteFteOut           flow::delete_fte;
    ALLOC_FLOW_COUNTER     Initialised Any     AllocFlowCounterIn      AllocFlowCounterOut    flow::alloc_flow_counter;
    DEALLOC_FLOW_COUNTER   Initialised Any     DeallocFlowCounterIn    DeallocFlowCounterOut  flow::dealloc_flow_counter;
    QUERY_FLOW_COUNTER     Initialised Any     QueryFlowCounterIn      QueryFlowCounterOut    flow::query_flow_counter;
    MODIFY_FLOW_TABLE      Initialised Any     ModifyFlowTableIn       ModifyFlowTableOut     flow::modify_flow_table;
    ALLOC_PACKET_REFORMAT_CONTEXT   Initialised Any AllocPacketReformatContextIn   AllocPacketReformatContextOut   flow::alloc_packet_reformat;
    DEALLOC_PACKET_REFORMAT_CONTEXT Initialised Any DeallocPacketReformatContextIn DeallocPacketReformatContextOut flow::dealloc_packet_reformat;
    ALLOC_MODIFY_HEADER_CONTEXT     Initialised Any AllocModifyHeaderContextIn     AllocModifyHeaderContextOut     flow::alloc_modify_header;
    DEALLOC_MODIFY_HEADER_CONTEXT   Initialised Any DeallocModifyHeaderContextIn   DeallocModifyHeaderContextOut   flow::dealloc_modify_header;
    CREATE_GENERAL_OBJECT  Initialised Parent  CreateGeneveTlvOptionIn GeneralObjOutCmdHdr    tunnel::create_general_object;
    DESTROY_GENERAL_OBJECT Initialised Parent  GeneralObjInCmdHdr      GeneralObjOutCmdHdr    tunnel::destroy_general_object;
    QUERY_VHCA_STATE       Initialised Parent  QueryVhcaStateIn        QueryVhcaStateOut      sf::query_vhca_state;
    MODIFY_VHCA_STATE      Initialised Parent  ModifyVhcaStateIn       ModifyVhcaStateOut     sf::modify_vhca_state;
}

/// The row of an opcode.
pub fn find(opcode: Opcode) -> Option<&'static Row> {
    index(opcode).map(|i| &ROWS[i])
}

/// Where in [`ROWS`] an opcode is.
pub fn index(opcode: Opcode) -> Option<usize> {
    ROWS.binary_search_by_key(&opcode, |r| r.opcode).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_opcode_and_named() {
        assert!(ROWS.windows(2).all(|w| w[0].opcode < w[1].opcode));
        assert!(ROWS.iter().all(|r| r.opcode.name().is_some()));
    }

    #[test]
    fn layouts_belong_to_their_opcode() {
        for r in ROWS {
            let (input, output) = (r.input.info().name, r.output.info().name);
            // General objects share their heads.
            assert!(input.ends_with("_in") || input == "general_obj_in_cmd_hdr", "{}", r.opcode);
            assert!(output.ends_with("_out") || output == "general_obj_out_cmd_hdr", "{}", r.opcode);
        }
    }
}
