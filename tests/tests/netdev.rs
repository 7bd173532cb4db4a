//! The netdevs of two physical functions on a cable: every kind of traffic, what `ethtool`
//! tells and changes, and counters that agree to the frame.

#[test]
fn traffic_and_settings() {
    sfnic_tests::run("netdev");
}

#[test]
fn counters_and_queues() {
    sfnic_tests::run("counters");
}

#[test]
fn receive_flow_steering() {
    // A queue that is not there, a field that the driver cannot match, a location too high.
    Lab { cpus: 4, ..Lab::new() }.run("ntuple.py").provokes("mlx5e_ethtool_flow_replace: flow is not valid").ok();
}
