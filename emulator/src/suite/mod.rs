//! The kernel's own tests, run in a guest against the device.
//!
//! [`data`] says which programs there are and what is known of single cases, [`report`]
//! reads what the guest's script said and tells what came of it.

pub mod data;
pub mod report;

/// Runs the programs in the guest; `/host/suite.py` there.
pub const SCRIPT: &str = include_str!("guest.py");
/// Packages that the tests need and the guest's root file system lacks.
pub const PACKAGES: &[&str] = &["python3-yaml", "libyaml-0-2"];
