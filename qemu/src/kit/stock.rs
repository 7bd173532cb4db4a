//! The distribution's kernel, with the mlx5 modules rebuilt.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::stages::{KernelInfo, Stages, copy_tree, move_below_usr, read_json, write_json};
use super::store::Stage;
use super::tree::Tree;
use super::{early, mlx5, modules, recipe, release, rootfs};

impl Stages {
    /// The stage with the rebuilt modules and the headers.
    pub(super) fn mlx5_stage(&self) -> Stage {
        Stage::new(self.stem("mlx5"), self.inputs())
    }

    /// The rebuilt modules, the headers that they were made with, and for which kernel.
    fn mlx5(&self, apt: &Apt) -> Result<(PathBuf, KernelInfo)> {
        let line = self.line;
        let stage = self.mlx5_stage();
        if !self.store.ready(&stage) {
            let chosen = release::newest(apt, line)?;
            let (number, version) = (&chosen.release, &chosen.version);
            self.progress.note(&format!("the newest kernel of the line {} is {number}", line.name()));
            let inputs = format!("{}\n{number} {version}", self.inputs());
            let builder = Stage::new(self.stem("builder"), inputs.clone());
            let builder = self.staged(&builder, "compiler and headers", |dir, step| {
                let packages = apt.with_dependencies(&line.builder_packages(number), None, step)?;
                let tree = Tree::create(&dir.join("tree"))?;
                tree.unpack(&packages, &[], step)?;
                tree.link("usr/bin/awk", "mawk")
            })?;
            let source = Stage::new(self.stem("source"), inputs);
            let source = self.staged(&source, "kernel source", |dir, step| {
                mlx5::extract_source(&apt.alone(&line.source, version, step)?, &line.source, recipe::SOURCE_PATHS, dir)
            })?;
            self.staged(&stage, "mlx5 modules", |dir, step| {
                mlx5::compile(&Tree::at(builder.join("tree")), &source, line, number, step)?;
                modules::collect(&builder.join("tree/mlx5"), dir)?;
                copy_tree(&source.join("include"), &dir.join("source/include"))?;
                mlx5::copy_layouts(&source, &dir.join("source"))?;
                write_json(&dir.join("kernel.json"), &KernelInfo { release: number.clone(), version: version.clone() })
            })?;
        }
        self.store.forget(&self.stem("builder"))?;
        self.store.forget(&self.stem("source"))?;
        let dir = self.store.dir(&stage);
        let info = read_json(&dir.join("kernel.json"))?;
        Ok((dir, info))
    }

    /// Makes the kernel's stages.
    pub(super) fn stock(&self, tools: &Tree) -> Result<()> {
        let line = self.line;
        let apt = self.apt(&line.suites, line.name())?;
        let (mlx5, info) = self.mlx5(&apt)?;
        let (number, version) = (&info.release, &info.version);
        self.staged(&self.kernel_stage(), "kernel and modules", |dir, step| {
            let mut packages = Vec::new();
            for package in &line.images {
                packages.push(apt.alone(&package.replace("{}", number), version, step)?);
            }
            let stock = Tree::create(&dir.join("stock"))?;
            // Until 7.x the modules were in /lib.
            let useless: Vec<String> = ["./usr/lib", "./lib"]
                .iter()
                .flat_map(|lib| recipe::USELESS_MODULES.iter().map(move |p| format!("{lib}/modules/*/kernel/{p}")))
                .collect();
            stock.unpack(&packages, &useless.iter().map(String::as_str).collect::<Vec<_>>(), step)?;
            let selected = dir.join("selected");
            modules::select(tools, &stock, &mlx5, &selected, number)?;
            let indexed = selected.join("lib/modules").join(number);
            if let Some(name) = modules::lacking(&indexed, recipe::EARLY_MODULES)?.first() {
                bail!("the kernel {number} lacks the module {name}");
            }
            early::write_initrd(&self.busybox(), &indexed, &dir.join("initrd"))?;
            move_below_usr(&selected)?;
            rootfs::pack(tools, &selected, &dir.join("modules.erofs"))?;
            // Until 7.x the image was in /boot.
            let places = [format!("usr/lib/modules/{number}/vmlinuz"), format!("boot/vmlinuz-{number}")];
            let image = places.iter().map(|place| stock.join(place)).find(|file| file.exists());
            let image = image.with_context(|| format!("the package of {number} has no kernel image"))?;
            fs::copy(image, dir.join("vmlinuz")).context("cannot copy the kernel image")?;
            for tree in [stock.root(), &selected] {
                super::store::remove(tree)?;
            }
            write_json(&dir.join("kernel.json"), &info)
        })?;
        apt.drop_archives()
    }
}
