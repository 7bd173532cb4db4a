//! Runs suites by name, for the tests in `tests/`: `sfnic matrix` runs the same.

pub mod machines;

use std::path::PathBuf;

use sfnic_ci::{Cell, Evidence, Status, Suite, report, suite};
use sfnic_emulator::lab::{self, Lab, Ran};
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Kit, KitOptions};

/// Runs a suite on the kit's first kernel. `SFNIC_LAB_KEEP` names a directory for what was
/// said.
///
/// # Panics
/// Something is not as it should be: with all that is wrong, and the ends of what was said.
pub fn run(name: &str) {
    let suite = suite::find(name).unwrap_or_else(|| panic!("no suite {name} in ci/suites.toml"));
    let kit = Kit::ensure(&KitOptions::default(), DEFAULT_LINE).unwrap_or_else(|e| panic!("no kit: {e:#}"));
    let guests = match lab::run_suite(&kit, suite, Lab::of(suite)) {
        Ok(Ran::Done(guests)) => guests,
        Ok(Ran::Interrupted(signal)) => panic!("{name}: interrupted by signal {signal}"),
        Err(e) => panic!("{name}: the lab cannot run it: {e:#}"),
    };
    if let Some(dir) = std::env::var_os("SFNIC_LAB_KEEP").map(PathBuf::from) {
        for evidence in &guests {
            let script = evidence.script.trim_end_matches(".py");
            evidence.keep(&dir, script).unwrap_or_else(|e| panic!("SFNIC_LAB_KEEP={}: {e}", dir.display()));
        }
    }
    judge(suite, &guests);
}

/// Holds what guests left against what a suite wants.
///
/// # Panics
/// As [`run`].
pub fn judge(suite: &Suite, guests: &[Evidence]) {
    let name = &suite.name;
    let cell = Cell::judge(DEFAULT_LINE, suite, guests);
    eprintln!("{name}: {}, {:.1} s", cell.summary(), cell.seconds);
    for (check, reason) in cell.skips() {
        eprintln!("{name}: skipped {check:?}: {reason}");
    }
    if cell.status == Status::Fail {
        let tails: String = guests.iter().map(Evidence::tails).collect();
        panic!("{}{tails}", report::table::failure(&cell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_is_run_by_a_test() -> std::io::Result<()> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut text = String::new();
        for dir in [root.join("tests"), root.join("tests/guests"), root.join("../emulator/tests")] {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "rs") {
                    text += &std::fs::read_to_string(path)?;
                }
            }
        }
        // The rest takes too long or needs another kernel: `sfnic matrix` has it.
        for suite in suite::suites().iter().filter(|s| !s.kernel_tests && !s.matrix_only) {
            // `smoke` is what the test of the matrix itself runs.
            let name = &suite.name;
            let called = [format!("run(\"{name}\")"), format!("find(\"{name}\")"), format!("\"--tests\", \"{name}\"")];
            assert!(called.iter().any(|c| text.contains(c)), "nothing runs the suite {:?}", suite.name);
        }
        Ok(())
    }
}
