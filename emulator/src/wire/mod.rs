//! Where frames leave the program.

pub mod interface;
pub mod port;
pub mod tap;

pub use port::{TapPort, pump};
pub use tap::{TapWire, WireError};
