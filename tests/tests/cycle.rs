//! Sub-functions that come and go leave nothing behind: no object, no memory.

#[test]
fn two_hundred_lives() {
    sfnic_tests::run("cycle");
}
