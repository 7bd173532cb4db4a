//! Life cycle of a function, capabilities, pages.

use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Refusal, Status, Syndrome, View, ViewMut};

use super::{Answer, Cx};
use crate::control::PF;
use crate::control::caps::Mode;
use crate::control::vhca::{Cause, State};
use crate::unmodelled::Access;

/// ENABLE_HCA: the caller's own (function 0), or the manager activates an SF.
pub fn enable_hca(cx: &mut Cx<'_>, i: View<'_, EnableHcaIn>, _: &mut ViewMut<'_, EnableHcaOut>) -> Answer {
    let target = i.get(EnableHcaIn::function_id) as u16;
    if target != 0 {
        cx.require_manager()?;
        // One that the configuration activated is so already.
        if cx.ctl.is_active_anyway(target) {
            return Ok(());
        }
        cx.ctl.sf_transition(target, Cause::Activate)?;
        cx.nic.sf_activated(cx.card, cx.ctl, target);
        return Ok(());
    }
    let fid = cx.fid;
    if cx.function()?.enabled {
        return Err(Refusal::state(Syndrome::ALREADY_ENABLED));
    }
    if fid != PF {
        cx.ctl.sf_transition(fid, Cause::Attach)?;
    }
    let f = cx.function()?;
    f.enabled = true;
    f.issi = 0;
    Ok(())
}

/// DISABLE_HCA: the caller's own, or the manager deactivates an SF.
pub fn disable_hca(cx: &mut Cx<'_>, i: View<'_, DisableHcaIn>, _: &mut ViewMut<'_, DisableHcaOut>) -> Answer {
    let target = i.get(DisableHcaIn::function_id) as u16;
    if target != 0 {
        cx.require_manager()?;
        let (_, after) = cx.ctl.sf_transition(target, Cause::Deactivate)?;
        cx.nic.sf_deactivated(cx.card, cx.ctl, target, after);
        return Ok(());
    }
    let fid = cx.fid;
    cx.nic.disable_function(cx.card, cx.ctl, fid);
    Ok(())
}

/// INIT_HCA.
pub fn init_hca(cx: &mut Cx<'_>, _: View<'_, InitHcaIn>, _: &mut ViewMut<'_, InitHcaOut>) -> Answer {
    let f = cx.function()?;
    if f.initialised {
        return Err(Refusal::state(Syndrome::ALREADY_ENABLED));
    }
    f.initialised = true;
    let plane = f.plane.clone();
    plane.vport.function.store(Some(plane.clone()));
    let fid = cx.fid;
    cx.nic.refresh_vport_link(cx.card, cx.ctl, fid);
    Ok(())
}

/// TEARDOWN_HCA: everything the driver left behind goes.
pub fn teardown_hca(cx: &mut Cx<'_>, i: View<'_, TeardownHcaIn>, _: &mut ViewMut<'_, TeardownHcaOut>) -> Answer {
    if i.get(TeardownHcaIn::profile) != 0 {
        // Force and fast teardown are not advertised.
        return Err(Refusal::param(Syndrome::OP_MOD));
    }
    let fid = cx.fid;
    cx.nic.teardown_function(cx.card, cx.ctl, fid);
    Ok(())
}

/// QUERY_ISSI: interface steps 0 and 1.
pub fn query_issi(cx: &mut Cx<'_>, _: View<'_, QueryIssiIn>, o: &mut ViewMut<'_, QueryIssiOut>) -> Answer {
    let issi = cx.function()?.issi;
    o.set(QueryIssiOut::current_issi, issi).set(QueryIssiOut::supported_issi_dw0, 0x3);
    Ok(())
}

/// SET_ISSI.
pub fn set_issi(cx: &mut Cx<'_>, i: View<'_, SetIssiIn>, _: &mut ViewMut<'_, SetIssiOut>) -> Answer {
    let issi = i.get(SetIssiIn::current_issi);
    if issi > 1 {
        return Err(Refusal::param(Syndrome::ISSI));
    }
    cx.function()?.issi = issi;
    Ok(())
}

/// QUERY_PAGES: the model keeps its state on the host and wants no memory.
pub fn query_pages(cx: &mut Cx<'_>, i: View<'_, QueryPagesIn>, o: &mut ViewMut<'_, QueryPagesOut>) -> Answer {
    if !matches!(cx.op_mod, 1..=3) {
        return Err(Refusal::param(Syndrome::OP_MOD));
    }
    o.set(QueryPagesOut::function_id, i.get(QueryPagesIn::function_id));
    Ok(())
}

/// MANAGE_PAGES: none were asked for, so none can be given or taken.
pub fn manage_pages(_: &mut Cx<'_>, i: View<'_, ManagePagesIn>, o: &mut ViewMut<'_, ManagePagesOut>) -> Answer {
    const TAKE: u32 = 2;
    if i.get(ManagePagesIn::op_mod) == TAKE || i.get(ManagePagesIn::input_num_entries) == 0 {
        o.set(ManagePagesOut::output_num_entries, 0);
        return Ok(());
    }
    Err(Refusal::param(Syndrome::PAGES))
}

/// QUERY_HCA_CAP: own, or the manager asks for another function's.
pub fn query_hca_cap(cx: &mut Cx<'_>, i: View<'_, QueryHcaCapIn>, o: &mut ViewMut<'_, QueryHcaCapOut>) -> Answer {
    let target = other_function(cx, i.is(QueryHcaCapIn::other_function), i.get(QueryHcaCapIn::function_id))?;
    let group = cx.op_mod >> 1;
    let mode = if cx.op_mod & 1 == 1 { Mode::Current } else { Mode::Max };
    let f = cx.ctl.functions.get(&target).ok_or(Refusal::param(Syndrome::FUNCTION_ID))?;
    let Some(block) = f.caps.group(group, mode) else {
        cx.unmodelled(Access::CapGroup(group));
        return Err(Refusal::param(Syndrome::CAP_GROUP));
    };
    o.set_tail(QueryHcaCapOut::capability, 0, block);
    Ok(())
}

/// SET_HCA_CAP: own, or the manager sets another function's.
pub fn set_hca_cap(cx: &mut Cx<'_>, i: View<'_, SetHcaCapIn>, _: &mut ViewMut<'_, SetHcaCapOut>) -> Answer {
    let other = i.is(SetHcaCapIn::other_function);
    let target = other_function(cx, other, i.get(SetHcaCapIn::function_id))?;
    let group = cx.op_mod >> 1;
    let value = i.tail(SetHcaCapIn::capability);
    let f = cx.ctl.functions.get_mut(&target).ok_or(Refusal::param(Syndrome::FUNCTION_ID))?;
    if other {
        if f.enabled {
            return Err(Refusal::state(Syndrome::SF_STATE));
        }
        return f.caps.set_by_manager(group, value);
    }
    if f.initialised {
        return Err(Refusal::state(Syndrome::ALREADY_ENABLED));
    }
    f.caps.set(group, value)
}

fn other_function(cx: &Cx<'_>, other: bool, id: u32) -> Result<u16, Refusal> {
    if !other {
        return Ok(cx.fid);
    }
    if !cx.is_manager() {
        return Err(Refusal::new(Status::BadParam, Syndrome::OTHER_FUNCTION));
    }
    let id = id as u16;
    match cx.ctl.sf(id) {
        Some(s) if s.state != State::Invalid => Ok(id),
        _ if id == PF => Ok(PF),
        _ => Err(Refusal::param(Syndrome::FUNCTION_ID)),
    }
}

/// QUERY_ADAPTER: vendor and parameter-set id.
pub fn query_adapter(cx: &mut Cx<'_>, _: View<'_, QueryAdapterIn>, o: &mut ViewMut<'_, QueryAdapterOut>) -> Answer {
    const IEEE_VENDOR: u32 = 0x2c9;
    let mut b = o.sub(QueryAdapterOut::query_adapter_struct);
    b.set(QueryAdapterParamBlock::ieee_vendor_id, IEEE_VENDOR);
    b.set_bytes(QueryAdapterParamBlock::vsd_contd_psid, cx.nic.profile.psid.as_bytes());
    Ok(())
}

/// SET_DRIVER_VERSION: kept for the inspector.
pub fn set_driver_version(
    cx: &mut Cx<'_>,
    i: View<'_, SetDriverVersionIn>,
    _: &mut ViewMut<'_, SetDriverVersionOut>,
) -> Answer {
    let raw = i.bytes(SetDriverVersionIn::driver_version);
    let end = raw.iter().position(|b| *b == 0).unwrap_or(raw.len());
    let text: String = raw[..end].iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '?' }).collect();
    cx.function()?.driver_version = text;
    Ok(())
}

/// NOP.
pub fn nop(_: &mut Cx<'_>, _: View<'_, NopIn>, _: &mut ViewMut<'_, NopOut>) -> Answer {
    Ok(())
}

/// QUERY_SPECIAL_CONTEXTS: the reserved key that means "the address is the
/// IOVA"; keys of features that are not offered are 0.
pub fn query_special_contexts(
    _: &mut Cx<'_>,
    _: View<'_, QuerySpecialContextsIn>,
    o: &mut ViewMut<'_, QuerySpecialContextsOut>,
) -> Answer {
    o.set(QuerySpecialContextsOut::resd_lkey, crate::fabric::mkey::RESERVED_LKEY);
    o.set(QuerySpecialContextsOut::terminate_scatter_list_mkey, crate::fabric::mkey::TERMINATE_LKEY);
    Ok(())
}
