//! Programs of Debian packages for the machine itself: unpacked in the cache, and run from
//! there without being installed.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::stages::{Stages, inputs};
use super::store::{Stage, Store};
use super::tree::Tree;
use super::{DEFAULT_LINE, Kit, KitOptions, known, recipe};

/// What the directories of such packages start with.
pub(super) const PREFIX: &str = "program-";

impl Kit {
    /// A program of a Debian package, `usr/bin/tshark` of `tshark` for example; the package is
    /// fetched first, with all that it depends on.
    ///
    /// # Errors
    /// [`Wrong`](super::Wrong) if there is no such package; anything else if it cannot be had.
    pub fn program(&self, package: &str, path: &str) -> Result<Command> {
        let options = KitOptions { quiet: true, ..KitOptions::default() };
        let store = Store::open(Some(&self.cache))?;
        let stages = Stages::new(store.clone(), &options, known(DEFAULT_LINE)?);
        let name = format!("{PREFIX}{package}");
        let stage = Stage::new(name.clone(), inputs(&[package]));
        let tree = |dir: &Path| Tree::at(dir.join("tree")).command(path);
        if store.ready(&stage) {
            return Ok(tree(&store.dir(&stage)));
        }
        let _lock = store.lock(&name, &stages.progress)?;
        let apt = stages.apt(&[recipe::BASE_SUITE, recipe::BACKPORTS_SUITE], &name)?;
        let packages = [package.to_owned()];
        apt.known(&packages)?;
        let dir = stages.staged(&stage, &name, |dir, step| {
            let files = apt.with_dependencies(&packages, None, step)?;
            Tree::create(&dir.join("tree"))?.unpack(&files, &[], step)
        })?;
        apt.drop_archives()?;
        Ok(tree(&dir))
    }
}
