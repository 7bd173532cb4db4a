//! The guest kit and the runner of guests.
//!
//! * [`kit`] makes what a guest needs, once, in a cache directory: a QEMU with
//!   `vfio-user-pci`, a stock kernel with the mlx5 modules rebuilt from the
//!   distribution's unmodified source, and a root file system with the network tools.
//! * [`vm`] boots such a guest with vfio-user devices, runs a command in it and brings
//!   back its output, its exit status and the kernel log.

pub mod kit;
mod process;
pub mod vm;

pub use kit::{Kit, KitOptions};
pub use vm::{Guest, Outcome, VirtioNet, What};
