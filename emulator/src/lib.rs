//! The board: endpoints, wires and everything else around the chip.

pub mod bench;
pub mod board;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod handover;
pub mod inspect;
pub mod lab;
pub mod metrics;
pub mod offers;
pub mod snapshot;
pub mod suite;
pub mod tapbench;
pub mod trace;
mod uar;
pub mod unix_socket;
pub mod vfio_user;
pub mod wire;
