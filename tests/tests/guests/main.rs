//! Tests with guests. One program, so that as many run at a time as the machine carries;
//! only what measures its own process has one for itself.

mod embedded;
mod faults;
mod life;
mod lifecycle;
mod netdev;
mod offered;
mod sf;
mod slices_vf;
mod slices_virtio;
mod three;
mod trace;
mod wires;
