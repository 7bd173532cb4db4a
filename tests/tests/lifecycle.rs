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

#[test]
fn of_a_guest_that_dies() {
    // Its machine is gone at once, in the middle of traffic of PFs and SFs.
    let bench = Lab::new().start();
    let dead = bench.run("die.py");
    let why = dead.outcome.failure.clone().unwrap_or_default();
    assert!(why.contains("QEMU ended"), "{why}");
    let faults: Vec<String> = dead.faults().into_iter().filter(|f| !f.contains(&why)).collect();
    assert_eq!(faults, Vec::<String>::new());

    // The next one on the same sockets finds a device as new.
    bench.run("after.py").ok();
}
