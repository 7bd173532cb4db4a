//! A vport as its managers configure it: the NIC vport context, the eswitch
//! vport context, administrative state.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::fabric::police::Police;
use crate::fabric::vport::{RxFilter, Vport};
use crate::slice::Policy;

/// Administrative state (MODIFY_VPORT_STATE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// No frames pass.
    Down = 0,
    /// Frames pass whatever the port does.
    Up = 1,
    /// As the physical port.
    Auto = 2,
}

/// What commands set of a vport.
#[derive(Debug)]
pub struct VportControl {
    /// The packet path's side.
    pub plane: Arc<Vport>,
    /// Permanent address.
    pub mac: [u8; 6],
    /// GUIDs.
    pub node_guid: u64,
    /// GUID of the port.
    pub port_guid: u64,
    /// MTU.
    pub mtu: u32,
    /// Bytes that the send queue wants inline.
    pub min_inline: u32,
    /// Unicast list.
    pub unicast: Vec<[u8; 6]>,
    /// Multicast list.
    pub multicast: Vec<[u8; 6]>,
    /// VLAN list.
    pub vlans: Vec<u16>,
    /// Promiscuous for unicast, multicast, all.
    pub promisc: (bool, bool, bool),
    /// Administrative state.
    pub admin: Admin,
    /// Its function is to detach: no frames pass, whatever the state above says.
    pub closed: bool,
    /// Whether QUERY reports it so at present (what was last told).
    pub link_told: bool,
    /// Metadata registers to pass on (bit n: reg_c_n).
    pub reg_c_id: u32,
    /// What an eswitch manager outside the host set.
    pub policy: Policy,
    /// It takes frames to all groups: nobody tells which ones its function wants.
    pub(crate) groups: bool,
}

impl VportControl {
    /// A vport that nothing has been configured of.
    pub fn new(number: u16, mac: [u8; 6], mtu: u32, admin: Admin) -> Self {
        let v = Self {
            plane: Vport::new(number),
            mac,
            node_guid: guid(mac),
            port_guid: guid(mac),
            mtu,
            min_inline: 0,
            unicast: vec![],
            multicast: vec![],
            vlans: vec![],
            promisc: (false, false, false),
            admin,
            closed: false,
            link_told: false,
            reg_c_id: 0,
            policy: Policy::default(),
            groups: false,
        };
        v.publish_filter();
        v
    }

    /// Gives it a permanent address, and GUIDs that go with it.
    pub fn set_address(&mut self, mac: [u8; 6]) {
        self.mac = mac;
        (self.node_guid, self.port_guid) = (guid(mac), guid(mac));
        self.publish_filter();
    }

    /// What the function's driver set is gone; what the manager set stays.
    pub fn forget_driver(&mut self) {
        self.unicast.clear();
        self.multicast.clear();
        self.vlans.clear();
        self.promisc = (false, false, false);
        self.publish_filter();
    }

    /// Whether it takes frames to all groups whatever its function's driver says.
    pub fn set_groups(&mut self, all: bool) {
        self.groups = all;
        self.publish_filter();
    }

    /// Hands the address lists to the packet path.
    pub fn publish_filter(&self) {
        let mut f = RxFilter {
            unicast: self.unicast.iter().copied().collect(),
            multicast: self.multicast.iter().copied().collect(),
            // Who is not trusted gets no frames of others (`esw_update_vport_rx_mode`).
            promisc_uc: self.promisc.0 && self.policy.trust,
            promisc_mc: self.groups || (self.promisc.1 && self.policy.trust),
            promisc_all: self.promisc.2 && self.policy.trust,
        };
        if self.mac != [0; 6] && self.unicast.is_empty() {
            f.unicast.insert(self.mac);
        }
        self.plane.filter.store(Arc::new(f));
    }

    /// Hands what the manager wants of frames to the packet path; `now` is the device's time.
    pub fn publish_policy(&self, now: u64) {
        let p = &self.policy;
        let police = Police {
            source: p.spoof_check.then_some(self.mac),
            tag: (p.vlan != 0).then_some(u16::from(p.qos) << 13 | p.vlan),
            mtu: p.mtu as usize,
        };
        let needless = police.source.is_none() && police.tag.is_none() && p.mtu == Policy::default().mtu;
        self.plane.police.store((!needless).then(|| Arc::new(police)));
        self.plane.rate.set(p.tx_share, p.tx_max, now);
        self.publish_filter();
    }

    /// Hands the metadata registers to the packet path.
    pub fn publish_reg_c(&self) {
        self.plane.reg_c_to_rx.store(self.reg_c_id as u8, Relaxed);
    }

    /// Whether frames pass, given the physical port.
    pub const fn link(&self, port_up: bool) -> bool {
        match self.admin {
            _ if self.closed => false,
            Admin::Down => false,
            Admin::Up => true,
            Admin::Auto => port_up,
        }
    }
}

/// EUI-64 of a MAC address; zero for none.
pub fn guid(mac: [u8; 6]) -> u64 {
    if mac == [0; 6] {
        return 0;
    }
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_follows_admin_then_port() {
        let mut v = VportControl::new(1, [0; 6], 1500, Admin::Auto);
        assert!(v.link(true) && !v.link(false));
        v.admin = Admin::Up;
        assert!(v.link(false));
        v.closed = true;
        assert!(!v.link(true));
        v.closed = false;
        v.admin = Admin::Down;
        assert!(!v.link(true));
        assert_eq!(guid([0; 6]), 0);
        assert_eq!(guid([0, 0x11, 0x22, 0x33, 0x44, 0x55]), 0x0211_22ff_fe33_4455);
    }
}
