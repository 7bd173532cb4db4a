//! Which QEMU: the machine's own if it has `vfio-user-pci`, else one unpacked privately.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::run;
use super::tree::Tree;

/// A QEMU and how it is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Qemu {
    /// The words before the options.
    pub words: Vec<String>,
    /// Where it finds its own loadable parts.
    pub module_dir: Option<PathBuf>,
    /// What it says of its version.
    pub version: String,
}

impl Qemu {
    /// A command without options yet.
    pub fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("qemu-system-x86_64", String::as_str));
        command.args(words);
        if let Some(dir) = &self.module_dir {
            command.env("QEMU_MODULE_DIR", dir);
        }
        command
    }

    /// The machine's own, if it can attach a vfio-user device.
    pub(crate) fn of_machine() -> Option<Qemu> {
        let path = match std::env::var_os("SFNIC_QEMU") {
            Some(path) => PathBuf::from(path),
            None => run::find_program("qemu-system-x86_64")?,
        };
        probe(vec![path.to_str()?.to_string()], None).ok()
    }

    /// One from packages unpacked in `dir`.
    pub(crate) fn of_tree(dir: &Path) -> Result<Qemu> {
        let tree = Tree::at(dir);
        let command = tree.command("usr/bin/qemu-system-x86_64");
        let mut words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|w| w.to_string_lossy().into_owned())
            .collect();
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            words.extend(["-L".to_string(), tree.join(data).to_string_lossy().into_owned()]);
        }
        probe(words, Some(tree.join("usr/lib/x86_64-linux-gnu/qemu")))
            .context("the QEMU of the kit does not run; remove the kit and try again")
    }
}

fn probe(words: Vec<String>, module_dir: Option<PathBuf>) -> Result<Qemu> {
    let mut qemu = Qemu { words, module_dir, version: String::new() };
    let text = run::output(qemu.command().arg("--version"), "asking QEMU for its version")?;
    qemu.version = text.split_whitespace().nth(3).unwrap_or("unknown").to_string();
    run::output(qemu.command().args(["-device", "vfio-user-pci,help"]), "asking QEMU for vfio-user-pci")?;
    Ok(qemu)
}
