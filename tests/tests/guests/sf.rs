//! Sub-functions: one from nothing to nothing, many at once, as many as there can be with
//! fewer interrupts than they want.

#[test]
fn the_story_of_one() {
    sfnic_tests::run("story");
}

#[test]
fn the_story_of_one_whose_doorbells_nobody_hears() {
    sfnic_tests::run("story-poll");
}

#[test]
fn many_at_once() {
    sfnic_tests::run("many");
}

#[test]
fn more_than_there_are_interrupts_for() {
    sfnic_tests::run("few-vectors");
}

#[test]
fn without_interrupts_of_their_own() {
    sfnic_tests::run("no-vectors");
}
