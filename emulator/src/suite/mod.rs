//! The kernel's own tests, run in a guest against the device.
//!
//! [`data`] says which programs there are and what is known of single cases, [`report`]
//! reads what the guest's script said and tells what came of it.

pub mod data;
pub mod report;

/// Runs the programs in the guest; `/host/suite.py` there.
pub const SCRIPT: &str = include_str!("guest.py");
/// Packages that the tests need and the guest's root file system lacks.
pub const PACKAGES: &[&str] = &["python3-yaml"];
/// The parts of the kernel's source that the tests read in the guest.
pub const NEEDED: &[&str] = &[
    "Documentation/netlink",
    "tools/net/ynl",
    "tools/testing/selftests/drivers/net",
    "tools/testing/selftests/kselftest",
    "tools/testing/selftests/net/forwarding",
    "tools/testing/selftests/net/lib",
    "tools/testing/selftests/net/lib.sh",
];
