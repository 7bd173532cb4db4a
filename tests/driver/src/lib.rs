//! A driver for the device model, in the same process.
//!
//! It knows the device only as a kernel driver does: windows in two BARs, and
//! guest memory that the device reaches by DMA. It is what the tests of hostile
//! and well-behaved drivers, the fuzzers and the benchmarks are written with,
//! and it shows how the model is driven:
//!
//! ```
//! use sfnic_test_driver::{Rig, NetdevConfig};
//!
//! let rig = Rig::cable();
//! let mut a = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
//! let mut b = rig.pf(1).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
//! let frame = sfnic_test_driver::frames::ethernet(b.mac, a.mac, 0x88b5, b"hello");
//! a.send(&frame);
//! rig.run();
//! assert_eq!(b.receive()[0].bytes[..frame.len()], frame);
//! ```
//!
//! From the outside in: [`Rig`] is the machine (device, clock, guest memory of
//! each card), [`Function`] a PCI or sub-function with its command queue,
//! [`Eq`], [`Cq`], [`Sq`] and [`Rq`] its queues, [`Netdev`] the whole of them
//! with receive steering. Nothing here asserts what the device answers: every
//! refusal is a [`CmdError`] for the caller to judge.

pub mod command;
pub mod cq;
pub mod eq;
pub mod eswitch;
pub mod frames;
pub mod function;
pub mod fuzz;
pub mod memory;
pub mod netdev;
pub mod objects;
pub mod rig;
pub mod rq;
pub mod sq;
pub mod steering;
pub mod window;
pub mod wqe;

pub use command::{CmdError, Out};
pub use cq::{Cq, Cqe};
pub use eq::{Eq, EqEvent};
pub use function::Function;
pub use memory::GuestMemory;
pub use netdev::{Netdev, NetdevConfig};
pub use rig::{ManualClock, Rig};
pub use rq::{Received, Rq};
pub use sq::Sq;
pub use steering::{Destination, Flow, Table};
pub use window::Window;
pub use wqe::Wqe;
