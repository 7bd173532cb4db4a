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

#[test]
fn receive_flow_steering() {
    // A queue that is not there, a field that the driver cannot match, a location too high.
    Lab { cpus: 4, ..Lab::new() }.run("ntuple.py").provokes("mlx5e_ethtool_flow_replace: flow is not valid").ok();
}
