//! Sub-functions that come and go leave nothing behind: no object, no memory.

use std::time::Duration;

use sfnic_tests::Lab;

#[test]
fn two_hundred_lives() {
    Lab { timeout: Duration::from_secs(480), ..Lab::new() }.run("cycle.py").ok();
}
