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
    sfnic_tests::run("ntuple");
}
