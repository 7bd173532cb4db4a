//! One function: physical or sub-function, a virtual or embedded-CPU function
//! later. They differ by what they are granted, not by code paths.

use std::sync::Arc;

use super::caps::Caps;
use super::iseg::Iseg;
use super::objects::Objects;
use crate::fabric::mkey::Mkey;
use crate::fabric::plane::FunctionPlane;
use crate::fabric::tir::{Rqt, Tir};
use crate::irq::IrqLine;
use crate::queue::{Cq, Eq, QCounter, Rq, Sq};
use crate::steering::{CounterBulk, ModifyHeader, Reformat, Steering};

/// Kind of a function (`enum mlx5_coredev_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// Physical function.
    Pf,
    /// Virtual function.
    Vf,
    /// Sub-function.
    Sf,
    /// The unseen one behind a port that speaks virtio: no driver commands it.
    Virtio,
    /// The embedded CPU's physical function.
    Ecpf,
}

/// Transport interface send object.
#[derive(Debug, Clone, Copy)]
pub struct Tis {
    /// Priority (traffic class).
    pub prio: u32,
    /// Transport domain.
    pub td: u32,
}

/// What stands behind an object's number.
#[derive(Debug)]
pub enum Body {
    /// Nothing but the number.
    Plain,
    /// Memory key.
    Mkey(Arc<Mkey>),
    /// Event queue.
    Eq(Arc<Eq>),
    /// Completion queue.
    Cq(Arc<Cq>),
    /// Send queue.
    Sq(Arc<Sq>),
    /// Receive queue.
    Rq(Arc<Rq>),
    /// Receive queue table.
    Rqt(Arc<Rqt>),
    /// Transport interface receive.
    Tir(Arc<Tir>),
    /// Transport interface send.
    Tis(Tis),
    /// Queue counter set.
    QCounter(Arc<QCounter>),
    /// Flow counters from this number on.
    FlowCounter(Arc<CounterBulk>),
    /// Header actions.
    ModifyHeader(Arc<ModifyHeader>),
    /// Encapsulation.
    Reformat(Arc<Reformat>),
}

/// Counts that QUERY_VNIC_ENV and the inspector show.
#[derive(Debug, Default, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct CommandStats {
    /// Commands executed, whatever they answered.
    pub executed: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Entries that could not be delivered.
    pub undelivered: u64,
}

/// A function's control side.
#[derive(Debug)]
pub struct Function {
    /// Hardware function id: 0 for the PF, the vport number for others.
    pub id: u16,
    /// Kind.
    pub kind: FunctionKind,
    /// Number that is unique in the device.
    pub vhca_id: u16,
    /// Capabilities.
    pub caps: Caps,
    /// Registers that the driver wrote.
    pub iseg: Iseg,
    /// ENABLE_HCA was executed.
    pub enabled: bool,
    /// INIT_HCA was executed.
    pub initialised: bool,
    /// Interface step sequence id in force.
    pub issi: u32,
    /// Objects.
    pub objects: Objects<Body>,
    /// Flow tables.
    pub steering: Steering<Tir>,
    /// The packet path's side.
    pub plane: Arc<FunctionPlane>,
    /// Interrupts of the PCI function that it is reached through.
    pub irq: Arc<IrqLine>,
    /// Where command completions go.
    pub command_eq: Option<Arc<Eq>>,
    /// SET_DRIVER_VERSION.
    pub driver_version: String,
    /// The text that is this node's for RDMA's management; none until somebody sets one.
    pub node_desc: Option<[u8; 64]>,
    /// Commands.
    pub stats: CommandStats,
}

impl Function {
    /// Posts an event to every queue that asked for its type.
    pub fn notify(&self, event: u8, sub_type: u8, data: &[u8; 28]) {
        self.plane.events.post(&self.plane.dma.load(), event, sub_type, *data);
    }

    /// Destroys every object and forgets what the driver set, as after
    /// TEARDOWN_HCA. The command interface stays.
    pub fn clear_objects(&mut self) {
        self.plane.clear();
        self.steering.clear();
        self.command_eq = None;
        for (_, body) in self.objects.clear() {
            match body {
                Body::Eq(q) => q.retire(),
                Body::Cq(q) => q.retire(),
                Body::Sq(q) => q.retire(),
                Body::Rq(q) => q.retire(),
                _ => {}
            }
        }
        self.initialised = false;
    }
}
