//! The netdevs of two physical functions on a cable: every kind of traffic, what `ethtool`
//! tells and changes, and counters that agree to the frame.

use sfnic_tests::Lab;

#[test]
fn traffic_and_settings() {
    Lab { cpus: 4, ..Lab::new() }.run("netdev.py").ok();
}

#[test]
fn counters_and_queues() {
    Lab { cpus: 4, ..Lab::new() }.run("counters.py").ok();
}
