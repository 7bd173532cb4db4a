//! Where frames leave the program.

pub mod tap;

pub use tap::{TapWire, WireError};
