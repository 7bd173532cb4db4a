//! What the eswitch manager can set of a slice.

use sfnic_firmware_cmds::layouts::{CmdHcaCap, CmdHcaCap2};

use super::view::State;
use super::{Place, SliceError, detaching, missing};
use crate::cmd::regs_mtu::HARD_MTU;
use crate::control::Control;
use crate::control::vhca::{self, Cause};
use crate::control::vport::Admin;
use crate::fabric::port::MAX_FRAME;
use crate::nic::{Card, Nic};

/// Event queues of an SF that are not for completions (`MLX5_ESW_MAX_CTRL_EQS`).
const CONTROL_EQS: u32 = 4;
/// The largest MTU of a netdev.
pub const MAX_MTU: u32 = MAX_FRAME - HARD_MTU;
/// The smallest: what IPv4 asks of every link.
pub const MIN_MTU: u32 = 68;
/// What rates are multiples of, in bits a second: a card's scheduler counts in Mbit/s.
pub const RATE_STEP: u64 = 1_000_000;
/// The fastest rate, in bits a second.
pub const MAX_RATE: u64 = 1_000_000 * RATE_STEP;
/// The highest number of a VLAN.
const MAX_VLAN: u16 = 4094;
const MAX_QOS: u8 = 7;

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
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// Whether frames pass.
    pub link: Link,
    /// Completion event queues that its driver may have.
    pub max_io_eqs: u32,
    /// Whether it may ask for frames that are for others (promiscuous, all multicasts).
    pub trust: bool,
    /// Whether frames that it sends have to come from its own address.
    pub spoof_check: bool,
    /// Whether its driver finds RoCE.
    pub roce: bool,
    /// The VLAN that it is in without knowing it; 0 for none.
    pub vlan: u16,
    /// Priority of its frames in that VLAN.
    pub qos: u8,
    /// Bits a second that it can send whatever others do; 0 for none.
    pub tx_share: u64,
    /// Bits a second that it may send; 0 for as many as there are.
    pub tx_max: u64,
    /// The largest MTU that its driver finds, and bytes behind the Ethernet header of the longest
    /// frame that passes.
    pub mtu: u32,
}

impl Default for Policy {
    /// Of a function that nobody restricts.
    fn default() -> Self {
        Self {
            link: Link::Auto,
            max_io_eqs: 0,
            trust: true,
            spoof_check: false,
            roce: false,
            vlan: 0,
            qos: 0,
            tx_share: 0,
            tx_max: 0,
            mtu: MAX_MTU,
        }
    }
}

impl Policy {
    /// Of a new slice: it is not trusted.
    pub(super) fn of_slice(nic: &Nic) -> Self {
        let roce = nic.sf_caps.general(CmdHcaCap::roce) != 0;
        Self { trust: false, max_io_eqs: most_eqs(nic), roce, ..Self::default() }
    }
}

/// A change of a slice: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// Address, while it is inactive and detached.
    #[serde(deserialize_with = "given")]
    pub hw_addr: Option<[u8; 6]>,
    /// Offers it to the host, or takes it back.
    #[serde(deserialize_with = "given")]
    pub state: Option<State>,
    /// See [`Policy::link`].
    #[serde(deserialize_with = "given")]
    pub link: Option<Link>,
    /// See [`Policy::max_io_eqs`]; while it is inactive and detached.
    #[serde(deserialize_with = "given")]
    pub max_io_eqs: Option<u32>,
    /// See [`Policy::trust`].
    #[serde(deserialize_with = "given")]
    pub trust: Option<bool>,
    /// See [`Policy::spoof_check`].
    #[serde(deserialize_with = "given")]
    pub spoof_check: Option<bool>,
    /// See [`Policy::roce`]; while it is inactive and detached.
    #[serde(deserialize_with = "given")]
    pub roce: Option<bool>,
    /// See [`Policy::vlan`].
    #[serde(deserialize_with = "given")]
    pub vlan: Option<u16>,
    /// See [`Policy::qos`].
    #[serde(deserialize_with = "given")]
    pub qos: Option<u8>,
    /// See [`Policy::tx_share`].
    #[serde(deserialize_with = "given")]
    pub tx_share: Option<u64>,
    /// See [`Policy::tx_max`].
    #[serde(deserialize_with = "given")]
    pub tx_max: Option<u64>,
    /// See [`Policy::mtu`]; while it is inactive and detached.
    #[serde(deserialize_with = "given")]
    pub mtu: Option<u32>,
}

/// What is there is a value; `null` is none.
pub fn given<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

impl Change {
    /// The policy that it makes of another one.
    fn made_of(&self, p: &Policy) -> Policy {
        Policy {
            link: self.link.unwrap_or(p.link),
            max_io_eqs: self.max_io_eqs.unwrap_or(p.max_io_eqs),
            trust: self.trust.unwrap_or(p.trust),
            spoof_check: self.spoof_check.unwrap_or(p.spoof_check),
            roce: self.roce.unwrap_or(p.roce),
            vlan: self.vlan.unwrap_or(p.vlan),
            qos: self.qos.unwrap_or(p.qos),
            tx_share: self.tx_share.unwrap_or(p.tx_share),
            tx_max: self.tx_max.unwrap_or(p.tx_max),
            mtu: self.mtu.unwrap_or(p.mtu),
        }
    }
}

/// Checks a change as a whole, then makes it.
pub(super) fn apply(
    nic: &Nic,
    card: &Card,
    ctl: &mut Control,
    index: u32,
    place: &Place,
    id: u16,
    change: &Change,
) -> Result<(), SliceError> {
    let state = ctl.sf(id).ok_or_else(|| missing(index))?.state;
    let before = ctl.vports.get(&id).ok_or_else(|| missing(index))?.policy.clone();
    let after = change.made_of(&before);
    check_values(nic, change, &after)?;
    check_state(place, index, state, change)?;
    let v = ctl.vports.get_mut(&id).ok_or_else(|| missing(index))?;
    if let Some(mac) = change.hw_addr {
        v.set_address(mac);
    }
    v.admin = match after.link {
        Link::Auto => Admin::Auto,
        Link::Up => Admin::Up,
        Link::Down => Admin::Down,
    };
    if after.tx_share > 0 {
        nic.work.look_for_shares();
    }
    v.policy = after;
    v.publish_policy(nic.clock.now_ns());
    if let Some(f) = ctl.functions.get_mut(&id) {
        if let Some(n) = change.max_io_eqs {
            f.caps.fix2(CmdHcaCap2::max_num_eqs_24b, n + CONTROL_EQS);
        }
        if let Some(on) = change.roce {
            f.caps.fix(CmdHcaCap::roce, on.into());
        }
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

/// Completion event queues that an SF can have.
fn most_eqs(nic: &Nic) -> u32 {
    nic.sf_caps.general2(CmdHcaCap2::max_num_eqs_24b).saturating_sub(CONTROL_EQS)
}

/// Whether the values of a change are ones, and fit each other.
fn check_values(nic: &Nic, c: &Change, after: &Policy) -> Result<(), SliceError> {
    let wrong = |what: String, allowed: &str| Err(SliceError::Invalid(format!("{what} (allowed: {allowed})")));
    if let Some(mac) = c.hw_addr
        && mac[0] & 1 != 0
    {
        return wrong(format!("hw_addr {}", super::view::mac(mac)), "a unicast address");
    }
    let most = most_eqs(nic);
    if let Some(n) = c.max_io_eqs.filter(|n| !(1..=most).contains(n)) {
        return wrong(format!("max_io_eqs {n}"), &format!("1 to {most}"));
    }
    if c.roce == Some(true) && nic.sf_caps.general(CmdHcaCap::roce) == 0 {
        return wrong("roce on".into(), "off: the profile's sub-functions have no RoCE");
    }
    if let Some(n) = c.vlan.filter(|n| *n > MAX_VLAN) {
        return wrong(format!("vlan {n}"), &format!("1 to {MAX_VLAN}, or 0 for none"));
    }
    if let Some(n) = c.qos.filter(|n| *n > MAX_QOS) {
        return wrong(format!("qos {n}"), &format!("0 to {MAX_QOS}"));
    }
    if after.qos != 0 && after.vlan == 0 {
        return wrong(format!("qos {} without a vlan", after.qos), "0, or a vlan with it");
    }
    for (name, rate) in [("tx_share", c.tx_share), ("tx_max", c.tx_max)] {
        if let Some(n) = rate.filter(|n| !n.is_multiple_of(RATE_STEP) || *n > MAX_RATE) {
            let allowed = format!("multiples of {RATE_STEP} up to {MAX_RATE} bits a second, or 0 for none");
            return wrong(format!("{name} {n}"), &allowed);
        }
    }
    if after.tx_max != 0 && after.tx_share > after.tx_max {
        return wrong(format!("tx_share {} above tx_max {}", after.tx_share, after.tx_max), "at most tx_max");
    }
    if let Some(n) = c.mtu.filter(|n| !(MIN_MTU..=MAX_MTU).contains(n)) {
        return wrong(format!("mtu {n}"), &format!("{MIN_MTU} to {MAX_MTU}"));
    }
    Ok(())
}

/// Whether a change can be made in a state.
fn check_state(place: &Place, index: u32, state: vhca::State, c: &Change) -> Result<(), SliceError> {
    // What a driver has read already cannot change under it.
    let early = [
        ("hw_addr", c.hw_addr.is_some()),
        ("max_io_eqs", c.max_io_eqs.is_some()),
        ("roce", c.roce.is_some()),
        ("mtu", c.mtu.is_some()),
    ];
    let early: Vec<&str> = early.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
    if !early.is_empty() && state != vhca::State::Allocated {
        let what = if state == vhca::State::TeardownRequest { "detaching" } else { "active" };
        return Err(SliceError::State(format!(
            "slice {index} is {what}: {} can be set while it is inactive and detached",
            early.join(" and ")
        )));
    }
    if c.state == Some(State::Active) && state == vhca::State::TeardownRequest {
        return Err(detaching(index, place));
    }
    Ok(())
}
