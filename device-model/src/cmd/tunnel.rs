//! What the parser is told of tunnels. There is one parser a port, which a physical function
//! sets up for itself and its SFs; it is as after power-on when the function is torn down.

use std::sync::Arc;

use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Refusal, Status, Syndrome, View, ViewMut};

use super::transport::insert;
use super::{Answer, Cx};
use crate::control::function::Body;
use crate::control::objects::{Kind, ObjRef, Uses};
use crate::packet::{GeneveOption, TunnelPorts};

/// `MLX5_OBJ_TYPE_GENEVE_TLV_OPT`.
pub(crate) const GENEVE_TLV_OPT: u32 = 0xb;

fn change(cx: &mut Cx<'_>, how: impl FnOnce(&mut TunnelPorts) -> Answer) -> Answer {
    let mut tunnels = **cx.card.fabric.tunnels.load();
    how(&mut tunnels)?;
    cx.card.fabric.tunnels.store(Arc::new(tunnels));
    Ok(())
}

/// ADD_VXLAN_UDP_DPORT: one more UDP port that means VXLAN. That of IANA is there from the
/// start, and may be added all the same.
pub fn add_vxlan_port(
    cx: &mut Cx<'_>,
    i: View<'_, AddVxlanUdpDportIn>,
    _: &mut ViewMut<'_, AddVxlanUdpDportOut>,
) -> Answer {
    let port = i.get(AddVxlanUdpDportIn::vxlan_udp_port) as u16;
    if port == 0 {
        return Err(Refusal::param(Syndrome::VXLAN_PORT));
    }
    change(cx, |t| t.add(port).then_some(()).ok_or(Refusal::new(Status::NoResources, Syndrome::VXLAN_PORT)))
}

/// DELETE_VXLAN_UDP_DPORT.
pub fn delete_vxlan_port(
    cx: &mut Cx<'_>,
    i: View<'_, DeleteVxlanUdpDportIn>,
    _: &mut ViewMut<'_, DeleteVxlanUdpDportOut>,
) -> Answer {
    let port = i.get(DeleteVxlanUdpDportIn::vxlan_udp_port) as u16;
    change(cx, |t| t.delete(port).then_some(()).ok_or(Refusal::param(Syndrome::VXLAN_PORT)))
}

/// CREATE_GENERAL_OBJECT of the only type that is offered: an option of Geneve that rules
/// can match on. There is one (`max_geneve_tlv_options`).
pub fn create_general_object(
    cx: &mut Cx<'_>,
    i: View<'_, CreateGeneveTlvOptionIn>,
    o: &mut ViewMut<'_, GeneralObjOutCmdHdr>,
) -> Answer {
    use GeneveTlvOption as Tlv;
    offered(cx, i.sub(CreateGeneveTlvOptionIn::hdr))?;
    let option = i.sub(CreateGeneveTlvOptionIn::geneve_tlv_opt);
    let words = option.get(Tlv::option_data_length);
    let (uid, f) = (cx.uid, cx.function()?);
    if words > f.caps.general(CmdHcaCap::max_geneve_tlv_option_data_len) {
        return Err(Refusal::param(Syndrome::GENEVE_OPTION));
    }
    let limit = f.caps.general(CmdHcaCap::max_geneve_tlv_options);
    let id = f.objects.take_id(Kind::GeneveOption, 0, limit)?;
    insert(f, ObjRef(Kind::GeneveOption, id), uid, Uses::new(), Body::Plain)?;
    let (class, kind) = (option.get(Tlv::option_class) as u16, option.get(Tlv::option_type) as u8);
    change(cx, |t| {
        t.geneve = Some(GeneveOption { class, kind, words: words as u8 });
        Ok(())
    })?;
    o.set(GeneralObjOutCmdHdr::obj_id, id);
    Ok(())
}

/// DESTROY_GENERAL_OBJECT.
pub fn destroy_general_object(
    cx: &mut Cx<'_>,
    i: View<'_, GeneralObjInCmdHdr>,
    _: &mut ViewMut<'_, GeneralObjOutCmdHdr>,
) -> Answer {
    offered(cx, i)?;
    let (uid, id) = (cx.uid, i.get(GeneralObjInCmdHdr::obj_id));
    cx.function()?.objects.remove(ObjRef(Kind::GeneveOption, id), uid)?;
    change(cx, |t| {
        t.geneve = None;
        Ok(())
    })
}

/// Refuses types of general objects that the capabilities do not name.
fn offered(cx: &mut Cx<'_>, head: View<'_, GeneralObjInCmdHdr>) -> Answer {
    let types = cx.function()?.caps.of::<CmdHcaCap>(0).get64(CmdHcaCap::general_obj_types);
    let kind = head.get(GeneralObjInCmdHdr::obj_type);
    if kind == GENEVE_TLV_OPT && types >> kind & 1 == 1 {
        return Ok(());
    }
    Err(Refusal::param(Syndrome::OBJECT_TYPE))
}
