//! The language that an mlx5 driver and its device speak: structures, opcodes,
//! statuses, queue entries and capability profiles. No behaviour lives here.

pub mod entries;
pub mod layout;
pub mod layouts;
pub mod opcode;
pub mod profile;
pub mod status;
mod words;

pub use layout::{Layout, View, ViewMut};
pub use opcode::Opcode;
pub use status::{Delivery, Refusal, Status, Syndrome};
pub use words::Words;
