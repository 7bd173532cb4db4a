//! Vports: what managers and drivers set of them, and what passed.

use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use crate::control::vport::{Admin, VportControl};
use crate::fabric::counters::Direction;
use crate::fabric::police::Refused;
use crate::fabric::vport::Vport;
use crate::slice::Policy;

/// A vport.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedVport {
    mac: [u8; 6],
    guids: (u64, u64),
    mtu: u32,
    min_inline: u32,
    unicast: Vec<[u8; 6]>,
    multicast: Vec<[u8; 6]>,
    vlans: Vec<u16>,
    promisc: (bool, bool, bool),
    admin: Admin,
    closed: bool,
    link_told: bool,
    reg_c_id: u32,
    policy: Policy,
    groups: bool,
    user_number: u32,
    link: bool,
    refused: Refused,
    rx: Direction,
    tx: Direction,
}

pub(super) fn save(v: &VportControl) -> SavedVport {
    let VportControl {
        plane,
        mac,
        node_guid,
        port_guid,
        mtu,
        min_inline,
        unicast,
        multicast,
        vlans,
        promisc,
        admin,
        closed,
        link_told,
        reg_c_id,
        policy,
        groups,
    } = v;
    let Vport {
        number: _,
        user_number,
        function: _, // follows from the function
        peer: _,     // comes again
        link,
        reg_c_to_rx: _, // these three follow from the above
        filter: _,
        police: _,
        refused,
        rate: _, // what was saved up of it is forgotten
        rx,
        tx,
    } = &**plane;
    SavedVport {
        mac: *mac,
        guids: (*node_guid, *port_guid),
        mtu: *mtu,
        min_inline: *min_inline,
        unicast: unicast.clone(),
        multicast: multicast.clone(),
        vlans: vlans.clone(),
        promisc: *promisc,
        admin: *admin,
        closed: *closed,
        link_told: *link_told,
        reg_c_id: *reg_c_id,
        policy: policy.clone(),
        groups: *groups,
        user_number: user_number.load(Relaxed),
        link: link.load(Relaxed),
        refused: refused.clone(),
        rx: rx.clone(),
        tx: tx.clone(),
    }
}

/// Makes a vport what it was; false where none can be so.
#[must_use]
pub(super) fn restore(v: &mut VportControl, saved: SavedVport, now: u64) -> bool {
    /// Widest values of the fields that tell of them.
    const MOST_ADDRESSES: usize = 0xfff;
    const MOST_MTU: u32 = 0xffff;
    const MOST_INLINE: u32 = 7;
    const MOST_VLAN: u16 = 0xfff;
    let lists = [saved.unicast.len(), saved.multicast.len(), saved.vlans.len()];
    let sound = lists.iter().all(|n| *n <= MOST_ADDRESSES)
        && saved.mtu <= MOST_MTU
        && saved.min_inline <= MOST_INLINE
        && saved.vlans.iter().all(|v| *v <= MOST_VLAN)
        && saved.policy.vlan <= MOST_VLAN
        && saved.policy.qos <= 7;
    v.mac = saved.mac;
    (v.node_guid, v.port_guid) = saved.guids;
    v.mtu = saved.mtu;
    v.min_inline = saved.min_inline;
    v.unicast = saved.unicast;
    v.multicast = saved.multicast;
    v.vlans = saved.vlans;
    v.promisc = saved.promisc;
    v.admin = saved.admin;
    v.closed = saved.closed;
    v.link_told = saved.link_told;
    v.reg_c_id = saved.reg_c_id;
    v.policy = saved.policy;
    v.groups = saved.groups;
    v.plane.user_number.store(saved.user_number, Relaxed);
    v.plane.link.store(saved.link, Relaxed);
    v.plane.refused.put(&saved.refused);
    v.plane.rx.put(&saved.rx);
    v.plane.tx.put(&saved.tx);
    v.publish_reg_c();
    v.publish_policy(now);
    sound
}
