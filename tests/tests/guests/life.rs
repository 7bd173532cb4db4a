//! More of the driver's life: sleep, an IOMMU, drivers that leave one by one, the next
//! kernel without a reset, names.

#[test]
fn suspend_and_resume() {
    sfnic_tests::run("suspend");
}

#[test]
fn behind_an_iommu() {
    sfnic_tests::run("iommu");
}

#[test]
fn drivers_leave_one_by_one() {
    sfnic_tests::run("unbind");
}

#[test]
fn the_next_kernel_without_a_reset() {
    sfnic_tests::run("kexec");
}

#[test]
fn names_by_udev() {
    sfnic_tests::run("names");
}
