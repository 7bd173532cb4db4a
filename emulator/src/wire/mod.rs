//! Where frames leave the program.

mod coalesce;
pub mod interface;
pub mod offload;
pub mod port;
pub mod tap;

pub use port::{TapPort, pump};
pub use tap::{TapWire, WireError};
