//! The chip: functions, command interface, queues, steering, eswitch.
//!
//! It reads no clock, no socket and no randomness by itself: see [`world`].

mod backlog;
pub mod bar;
pub mod capture;
pub mod cmd;
pub mod cmdq;
pub mod control;
pub mod dma;
pub mod endpoint;
pub mod events;
pub mod explain;
pub mod fabric;
pub mod faults;
pub mod irq;
pub mod later;
pub mod ledger;
mod life;
pub mod listen;
pub mod nic;
pub mod packet;
pub mod pci;
pub mod poll;
pub mod queue;
pub mod slice;
mod small;
pub mod snapshot;
pub mod steering;
pub mod trace;
pub mod unmodelled;
pub mod work;
pub mod world;

pub use nic::{Card, CardConfig, Nic};
