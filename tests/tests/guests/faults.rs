//! Faults that are put in on purpose, and what a driver makes of them.

#[test]
fn on_the_wire() {
    sfnic_tests::run("faults-wire");
}

#[test]
fn of_commands_objects_and_health() {
    sfnic_tests::run("faults-driver");
}

#[test]
fn of_interrupts_and_events() {
    sfnic_tests::run("faults-recovery");
}

#[test]
fn of_completions_and_the_order_of_events() {
    sfnic_tests::run("faults-events");
}

#[test]
fn of_whole_functions() {
    sfnic_tests::run("faults-fatal");
}
