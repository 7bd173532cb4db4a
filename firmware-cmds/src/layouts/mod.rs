//! The manual's structures, by subject. Names are the kernel's
//! (`struct mlx5_ifc_NAME_bits`), types the same in camel case.

pub mod caps;
pub mod caps_steering;
pub mod flow;
pub mod fte;
pub mod hca;
pub mod port_counters;
pub mod queue;
pub mod regs;
pub mod seg;
pub mod sf;
pub mod transport;
pub mod vport;

pub use caps::*;
pub use caps_steering::*;
pub use flow::*;
pub use fte::*;
pub use hca::*;
pub use port_counters::*;
pub use queue::*;
pub use regs::*;
pub use seg::*;
pub use sf::*;
pub use transport::*;
pub use vport::*;
