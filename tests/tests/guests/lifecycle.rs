//! Drivers that come and go leave nothing behind and have nothing to complain about.
//! `offered.rs` guards against passing by offering nothing.

#[test]
fn of_physical_functions() {
    sfnic_tests::run("lifecycle");
}

#[test]
fn with_switchdev_and_sub_functions() {
    sfnic_tests::run("lifecycle-sf");
}

#[test]
fn of_a_guest_that_dies() {
    sfnic_tests::run("death");
}
