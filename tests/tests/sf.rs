//! Sub-functions: one from nothing to nothing, many at once, as many as there can be with
//! fewer interrupts than they want.

use std::time::Duration;

use sfnic_tests::Lab;

#[test]
fn the_story_of_one() {
    Lab::new().run("story.py").ok();
}

#[test]
fn many_at_once() {
    Lab { timeout: Duration::from_secs(480), ..Lab::new() }.run("many.py").ok();
}

#[test]
fn more_than_there_are_interrupts_for() {
    few_vectors(8, 8, 2);
}

#[test]
fn without_interrupts_of_their_own() {
    few_vectors(4, 4, 0);
}

/// Some SFs with that many vectors for them and their physical function, and another number
/// of worker threads than the other tests have.
fn few_vectors(vectors: u16, max_sfs: u16, workers: usize) {
    let env = vec![("VECTORS".into(), vectors.to_string()), ("MAX_SFS".into(), max_sfs.to_string())];
    Lab { vectors, max_sfs, workers, env, ..Lab::new() }.run("few_vectors.py").ok();
}
