//! The data plane: vports, the physical port, and the pipeline that takes a
//! frame from one queue to another. Nothing here takes a control lock.
//!
//! A frame's way: send queue → NIC TX tables → ingress ACL of its vport → FDB
//! (or legacy switching) → egress ACL of the destination → NIC RX tables → TIR
//! → receive queue; or through the physical port to whatever is connected.

pub mod arrive;
pub mod burst;
pub mod counters;
pub mod flows;
pub mod impair;
mod kept;
mod message;
pub mod mkey;
pub mod peer;
pub mod pipeline;
pub mod plane;
pub mod police;
pub mod port;
mod port_fault;
pub mod rate;
mod receive;
mod steer;
pub mod tir;
pub mod transmit;
pub mod vport;

use std::sync::Arc;

/// A concurrent map, read by the packet path.
pub type Map<K, V> = papaya::HashMap<K, V, foldhash::fast::RandomState>;

use arc_swap::ArcSwap;

use crate::packet::TunnelPorts;
use crate::steering::Reader;
use port::Port;
use tir::Tir;
use vport::Vport;

/// The packet path's side of one eswitch.
pub struct Fabric {
    /// Number of the card.
    pub card: usize,
    /// The physical port.
    pub port: Arc<Port>,
    /// Vports by number.
    pub vports: Map<u16, Arc<Vport>>,
    /// Tables of the eswitch manager: FDB and ACLs.
    pub eswitch: Reader<Tir>,
    /// What the port's parser is told of tunnels.
    pub tunnels: ArcSwap<TunnelPorts>,
}

impl Fabric {
    /// An eswitch without vports.
    pub fn new(card: usize, port: Arc<Port>, eswitch: Reader<Tir>) -> Self {
        Self { card, port, vports: Map::default(), eswitch, tunnels: ArcSwap::default() }
    }
}

impl std::fmt::Debug for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fabric({}, {} vports)", self.card, self.vports.len())
    }
}
