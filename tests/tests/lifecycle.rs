//! Drivers that come and go leave nothing behind and have nothing to complain about.
//! `offered.rs` guards against passing by offering nothing.

use std::time::Duration;

use sfnic_tests::Lab;

#[test]
fn of_physical_functions() {
    Lab { timeout: Duration::from_secs(400), ..Lab::new() }.run("lifecycle.py").ok();
}

#[test]
fn with_switchdev_and_sub_functions() {
    Lab { timeout: Duration::from_secs(600), ..Lab::new() }.run("lifecycle_sf.py").ok();
}
