//! Sub-functions: allocation and the VHCA state.

use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Refusal, Syndrome, View, ViewMut};

use super::{Answer, Cx};
use crate::control::PF;
use crate::control::sf::SfSlot;
use crate::control::vhca::{Cause, State};

/// ALLOC_SF: the function comes into being, to be configured.
pub fn alloc_sf(cx: &mut Cx<'_>, i: View<'_, AllocSfIn>, _: &mut ViewMut<'_, AllocSfOut>) -> Answer {
    let id = i.get(AllocSfIn::function_id) as u16;
    cx.ctl.sf_transition(id, Cause::Alloc)?;
    cx.nic.sf_allocated(cx.card, cx.ctl, id);
    Ok(())
}

/// DEALLOC_SF: nothing of the function remains.
pub fn dealloc_sf(cx: &mut Cx<'_>, i: View<'_, DeallocSfIn>, _: &mut ViewMut<'_, DeallocSfOut>) -> Answer {
    let id = i.get(DeallocSfIn::function_id) as u16;
    cx.ctl.sf_transition(id, Cause::Dealloc)?;
    cx.nic.sf_freed(cx.card, cx.ctl, id);
    Ok(())
}

/// QUERY_VHCA_STATE.
pub fn query_vhca_state(
    cx: &mut Cx<'_>,
    i: View<'_, QueryVhcaStateIn>,
    o: &mut ViewMut<'_, QueryVhcaStateOut>,
) -> Answer {
    let id = i.get(QueryVhcaStateIn::function_id) as u16;
    let slot = visible(cx, id)?;
    slot.observer.queried(slot.state);
    let mut c = o.sub(QueryVhcaStateOut::vhca_state_context);
    c.set(VhcaStateContext::arm_change_event, slot.observer.is_armed().into());
    c.set(VhcaStateContext::vhca_state, slot.told() as u32);
    c.set(VhcaStateContext::sw_function_id, slot.sw_function_id);
    Ok(())
}

/// MODIFY_VHCA_STATE: the user's number, which the manager gives, and arming for
/// the next change.
pub fn modify_vhca_state(
    cx: &mut Cx<'_>,
    i: View<'_, ModifyVhcaStateIn>,
    _: &mut ViewMut<'_, ModifyVhcaStateOut>,
) -> Answer {
    let id = i.get(ModifyVhcaStateIn::function_id) as u16;
    let select = i.sub(ModifyVhcaStateIn::vhca_state_field_select);
    let context = i.sub(ModifyVhcaStateIn::vhca_state_context);
    let manager = cx.require_manager();
    let slot = visible(cx, id)?;
    if select.is(VhcaStateFieldSelect::sw_function_id) {
        manager?;
        if slot.state != State::Allocated {
            return Err(Refusal::state(Syndrome::SF_STATE));
        }
        cx.nic.sf_named(cx.card, cx.ctl, id, context.get(VhcaStateContext::sw_function_id));
    }
    if select.is(VhcaStateFieldSelect::arm_change_event) && context.is(VhcaStateContext::arm_change_event) {
        cx.ctl.sf_arm(id);
    }
    Ok(())
}

/// A slot that the caller may know of: what is another guest's is its manager's alone.
fn visible<'a>(cx: &'a mut Cx<'_>, id: u16) -> Result<&'a mut SfSlot, Refusal> {
    let manager = cx.is_manager();
    let slot = cx.ctl.sf_mut(id).filter(|s| manager || !s.flavour.is_of_a_guest());
    slot.ok_or(Refusal::param(Syndrome::FUNCTION_ID))
}

/// QUERY_ESW_FUNCTIONS: a host-managed eswitch serves no other host.
pub fn query_esw_functions(
    cx: &mut Cx<'_>,
    _: View<'_, QueryEswFunctionsIn>,
    o: &mut ViewMut<'_, QueryEswFunctionsOut>,
) -> Answer {
    debug_assert_eq!(cx.fid, PF);
    let mut raw = [0; 64];
    ViewMut::<HostParamsContext>::new(&mut raw).set(HostParamsContext::host_pf_not_exist, 1);
    o.set_tail(QueryEswFunctionsOut::net_function_params, 0, &raw);
    Ok(())
}
