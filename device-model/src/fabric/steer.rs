//! Frames as the steering engine sees them.

use crate::packet::Frame;
use crate::packet::key::MatchKey;
use crate::steering::{ModifyHeader, Packet, PushVlan, Reformat};

impl Packet for Frame<'_> {
    fn key(&self) -> &MatchKey {
        &self.key
    }
    fn octets(&self) -> u64 {
        self.len() as u64
    }
    fn is_from_uplink(&self) -> bool {
        self.meta.from_wire
    }
    fn set_flow_tag(&mut self, tag: u32) {
        self.meta.flow_tag = tag;
    }
    fn decap(&mut self) -> bool {
        self.decap_l2()
    }
    fn modify(&mut self, edits: &ModifyHeader) -> bool {
        for a in &edits.actions {
            a.apply(self);
        }
        true
    }
    fn pop_vlan(&mut self) -> bool {
        Frame::pop_vlan(self).is_some()
    }
    fn push_vlan(&mut self, vlan: PushVlan) -> bool {
        Frame::push_vlan(self, vlan.ethertype, vlan.tci)
    }
    fn reformat(&mut self, context: &Reformat) -> bool {
        context.action.apply(self)
    }
    fn replicate(&self) -> Self {
        Frame::replicate(self)
    }
}
