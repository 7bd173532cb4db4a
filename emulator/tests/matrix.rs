//! `sfnic matrix`: what is refused before a guest boots, what is written, and that a device
//! with a fault does not pass.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn matrix(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sfnic")).arg("matrix").args(args).output().expect("the program runs")
}

/// Runs it with a mistake: one line, status 2. The line is the result.
fn refused(args: &[&str]) -> String {
    let output = matrix(args);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    said
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn mistakes_are_one_line_before_any_guest() {
    has(&refused(&["--tests", "stroy"]), &["--tests", "stroy", "smoke, story"]);
    has(&refused(&["--tests", "story,["]), &["\"[\"", "no pattern"]);
    has(&refused(&["--kernels", "7.2,5.4"]), &["--kernels", "5.4", "allowed is", "7.2"]);
    has(&refused(&["--kernels", "7.2,7.2"]), &["twice"]);
    has(&refused(&["--kernels", "./no-such-kernel"]), &["./no-such-kernel", "bzImage"]);
    has(&refused(&["--kernels", "/etc/passwd"]), &["/etc/passwd", "no x86 kernel image"]);
    has(&refused(&["--kernels", "7.2", "--modules", "/tmp"]), &["--modules", "one kernel"]);
    has(&refused(&["--jobs", "0"]), &["--jobs", "1 to 64"]);
    has(&refused(&["--tap", "--json"]), &["--tap", "--json"]);
    for flag in ["--junit", "--markdown"] {
        has(&refused(&[flag, "/nonexistent/file"]), &[flag, "/nonexistent/file", "can be written"]);
    }
    has(&refused(&["--keep", "/proc/x"]), &["--keep", "/proc/x"]);
    has(&refused(&["--join", "/nonexistent/file"]), &["--join", "/nonexistent/file", "--json"]);
    has(&refused(&["--join", "/etc/passwd"]), &["--join", "/etc/passwd", "--json"]);
    has(&refused(&["--join", "a", "--kernels", "7.2"]), &["--join", "--kernels"]);
    has(&refused(&["--inject", "fail:NOTHING"]), &["--inject", "fail:CREATE_TIR"]);
}

#[test]
fn a_text_without_marks_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("text.md");
    fs::write(&file, "mine\n").expect("written");
    has(&refused(&["--markdown", file.to_str().expect("UTF-8")]), &["no marks", "sfnic matrix: begin"]);
    assert_eq!(fs::read_to_string(&file).expect("read"), "mine\n");
}

#[test]
fn tests_and_kernels_are_listed() {
    let output = matrix(&["--list", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(value["tests"].as_array().expect("tests").iter().any(|t| t["name"] == "story"));
    assert!(value["kernels"].as_array().expect("kernels").iter().any(|k| k["name"] == "7.2" && k["kind"] == "stock"));
}

/// Two guests: one with a sound device, one with a device that refuses a command.
#[test]
fn a_fault_turns_its_cell_red() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (junit, readme, logs) = (path("junit.xml"), path("README.md"), path("logs"));
    fs::write(&readme, "# Mine\n\n<!-- sfnic matrix: begin -->\nold\n<!-- sfnic matrix: end -->\n\nmore\n")
        .expect("written");
    let run = |more: &[&str]| {
        let args = ["--kernels", "7.2", "--tests", "smoke", "--junit", &junit, "--markdown", &readme];
        matrix(&[&args[..], &["--keep", &logs], more].concat())
    };

    let good = run(&[]);
    let table = String::from_utf8_lossy(&good.stdout);
    assert_eq!(good.status.code(), Some(0), "{table}{}", String::from_utf8_lossy(&good.stderr));
    has(&table, &["smoke  pass 3", "1 pass, 0 fail"]);
    has(&fs::read_to_string(&junit).expect("JUnit"), &["<testsuite name=\"7.2\" tests=\"4\" failures=\"0\""]);
    let text = fs::read_to_string(&readme).expect("README");
    has(&text, &["# Mine\n\n<!--", "| `smoke`: ", "| 3 pass |", "-->\n\nmore\n"]);
    assert!(!text.contains("old"));
    assert!(Path::new(&logs).join("7.2/smoke.dmesg").exists());

    let bad = run(&["--inject", "fail:CREATE_TIR", "--json"]);
    assert_eq!(bad.status.code(), Some(1), "{}", String::from_utf8_lossy(&bad.stderr));
    has(
        &String::from_utf8_lossy(&bad.stderr),
        &["7.2 smoke: FAIL", "kernel: <3>", "CREATE_TIR(0x900)", "logs: ", &logs],
    );
    let value: serde_json::Value = serde_json::from_slice(&bad.stdout).expect("JSON");
    assert_eq!(value["summary"], serde_json::json!({ "pass": 0, "fail": 1, "skip": 0 }));
    let said = value["cells"][0]["kernel_lines"].to_string();
    has(&said, &["CREATE_TIR(0x900)", "0x5f0010"]);
    has(&fs::read_to_string(&junit).expect("JUnit"), &["failures=\"1\"", "<failure message=", "CREATE_TIR(0x900)"]);
    has(&fs::read_to_string(&readme).expect("README"), &["| **fail** |"]);

    // A table of both: the later one counts.
    let file = path("bad.json");
    fs::write(&file, &bad.stdout).expect("written");
    let joined = matrix(&["--join", &file, "--tap"]);
    assert_eq!(joined.status.code(), Some(1), "{}", String::from_utf8_lossy(&joined.stderr));
    has(&String::from_utf8_lossy(&joined.stdout), &["TAP version", "not ok", "CREATE_TIR(0x900)"]);
}
