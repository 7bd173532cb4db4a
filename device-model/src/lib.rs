//! The chip: functions, command interface, queues, steering, eswitch.

pub mod dma;
pub mod packet;
pub mod queue;
pub mod steering;
pub mod world;
