//! tc flower in hardware. The default kernel has no tc offload and skips these, with the
//! reason; `sfnic matrix --kernels full-7.2,6.1 --tests 'flower*'` runs them.

#[test]
fn matches_chains_and_counters() {
    sfnic_tests::run("flower");
}

#[test]
fn actions() {
    sfnic_tests::run("flower-actions");
}

#[test]
fn a_functions_own_receive_side() {
    sfnic_tests::run("flower-nic");
}

#[test]
fn many_rules() {
    sfnic_tests::run("flower-batch");
}
