//! What the eswitch manager can set of a slice.

use sfnic_firmware_cmds::layouts::CmdHcaCap2;

use super::view::State;
use super::{SliceError, detaching, missing};
use crate::control::Control;
use crate::control::vhca::{self, Cause};
use crate::control::vport::{Admin, guid};
use crate::nic::{Card, Nic};

/// Event queues of an SF that are not for completions (`MLX5_ESW_MAX_CTRL_EQS`).
const CONTROL_EQS: u32 = 4;

/// Whether frames of a port pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// As the physical port.
    #[default]
    Auto,
    /// Always.
    Up,
    /// Never.
    Down,
}

/// What a slice may do, beyond its address and state.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Policy {
    /// Whether frames pass.
    pub link: Link,
    /// Completion event queues that its driver may have.
    pub max_io_eqs: u32,
}

/// A change of a slice: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// Address, while it is inactive and detached.
    pub hw_addr: Option<[u8; 6]>,
    /// Offers it to the host, or takes it back.
    pub state: Option<State>,
    /// See [`Policy::link`].
    pub link: Option<Link>,
    /// See [`Policy::max_io_eqs`]; while it is inactive and detached.
    pub max_io_eqs: Option<u32>,
}

/// Checks a change as a whole, then makes it.
pub(super) fn apply(
    nic: &Nic,
    card: &Card,
    ctl: &mut Control,
    index: u32,
    id: u16,
    change: &Change,
) -> Result<(), SliceError> {
    let state = ctl.sf(id).ok_or_else(|| missing(index))?.state;
    check(card, index, state, change)?;
    let most = nic.sf_caps.general2(CmdHcaCap2::max_num_eqs_24b).saturating_sub(CONTROL_EQS);
    if let Some(n) = change.max_io_eqs
        && !(1..=most).contains(&n)
    {
        return Err(SliceError::Invalid(format!("max_io_eqs {n} (allowed: 1 to {most})")));
    }
    let v = ctl.vports.get_mut(&id).ok_or_else(|| missing(index))?;
    if let Some(mac) = change.hw_addr {
        v.mac = mac;
        (v.node_guid, v.port_guid) = (guid(mac), guid(mac));
        v.publish_filter();
    }
    let p = &mut v.policy;
    p.link = change.link.unwrap_or(p.link);
    p.max_io_eqs = change.max_io_eqs.unwrap_or(p.max_io_eqs);
    v.admin = match p.link {
        Link::Auto => Admin::Auto,
        Link::Up => Admin::Up,
        Link::Down => Admin::Down,
    };
    v.publish_filter();
    if let Some(n) = change.max_io_eqs
        && let Some(f) = ctl.functions.get_mut(&id)
    {
        f.caps.fix2(CmdHcaCap2::max_num_eqs_24b, n + CONTROL_EQS);
    }
    nic.refresh_vport_link(card, ctl, id);
    match (change.state, State::of(state).0) {
        (Some(State::Active), State::Inactive) => {
            ctl.sf_transition(id, Cause::Activate).map_err(|e| SliceError::State(e.to_string()))?;
            nic.sf_activated(card, ctl, id);
        }
        (Some(State::Inactive), State::Active) => {
            let (_, after) = ctl.sf_transition(id, Cause::Deactivate).map_err(|e| SliceError::State(e.to_string()))?;
            nic.sf_deactivated(card, ctl, id, after);
        }
        _ => {}
    }
    Ok(())
}

/// Whether a change can be made in a state.
fn check(card: &Card, index: u32, state: vhca::State, c: &Change) -> Result<(), SliceError> {
    if let Some(mac) = c.hw_addr
        && mac[0] & 1 != 0
    {
        let mac = super::view::mac(mac);
        return Err(SliceError::Invalid(format!("hw_addr {mac} (allowed: a unicast address)")));
    }
    // What a driver has read already cannot change under it.
    let early: Vec<&str> = [("hw_addr", c.hw_addr.is_some()), ("max_io_eqs", c.max_io_eqs.is_some())]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
    if !early.is_empty() && state != vhca::State::Allocated {
        let what = if state == vhca::State::TeardownRequest { "detaching" } else { "active" };
        return Err(SliceError::State(format!(
            "slice {index} is {what}: {} can be set while it is inactive and detached",
            early.join(" and ")
        )));
    }
    if c.state == Some(State::Active) && state == vhca::State::TeardownRequest {
        return Err(detaching(index, card.index));
    }
    Ok(())
}
