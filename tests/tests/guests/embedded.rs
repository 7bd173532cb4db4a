//! The eswitch outside the host.

#[test]
fn slices_come_and_go() {
    sfnic_tests::run("embedded");
}
