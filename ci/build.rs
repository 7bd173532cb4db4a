//! Makes the list of the guest's scripts, so that the program has them wherever it is.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

/// Where the scripts are, seen from this package.
const SCRIPTS: &str = "../tests/guest";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={SCRIPTS}");
    let dir = fs::canonicalize(SCRIPTS)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let name = entry?.file_name().into_string().map_err(|_| io::Error::other("a script's name is not UTF-8"))?;
        if name.ends_with(".py") || name.ends_with(".sh") {
            names.push(name);
        }
    }
    names.sort();
    let mut list = String::from("&[\n");
    for name in names {
        let path = dir.join(&name);
        let _ = writeln!(list, "    ({name:?}, include_str!({:?})),", path.display().to_string());
    }
    list.push_str("]\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("scripts.rs"), list)
}
