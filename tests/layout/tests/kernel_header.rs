//! Our declarations against the headers of the kernel that the guests run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sfnic_layout_check::{Mismatch, check, unchecked};
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Kit, KitOptions};

fn kit() -> Result<Kit> {
    Kit::ensure(&KitOptions::default(), DEFAULT_LINE)
}

#[test]
fn the_kernel_declares_what_we_declare() -> Result<()> {
    let kit = kit()?;
    let found = check(kit.headers_dir())?;
    for (name, why) in unchecked(kit.headers_dir()) {
        println!("not compared: {name}: {why}");
    }
    let lines: Vec<String> = found.iter().map(Mismatch::to_string).collect();
    ensure!(lines.is_empty(), "{} mismatches with kernel {}:\n{}", lines.len(), kit.release(), lines.join("\n"));
    Ok(())
}

/// Older kernels lack what came later; what they have is where we have it.
#[test]
fn no_kernel_has_a_field_elsewhere() -> Result<()> {
    for line in Kit::lines() {
        let Some(kit) = Kit::ready(&KitOptions::default(), line)? else {
            println!("kernel {line} is skipped: it is not made yet (sfnic kit build --kernel {line})");
            continue;
        };
        let (unknown, wrong): (Vec<_>, Vec<_>) = check(kit.headers_dir())?.into_iter().partition(Mismatch::is_unknown);
        for mismatch in unknown {
            println!("kernel {line}: {mismatch}");
        }
        let lines: Vec<String> = wrong.iter().map(Mismatch::to_string).collect();
        ensure!(lines.is_empty(), "{} mismatches with kernel {}:\n{}", lines.len(), kit.release(), lines.join("\n"));
    }
    Ok(())
}

/// Puts `new` in place of `old` in a header.
fn edit(dir: &Path, header: &str, old: &str, new: &str) -> Result<()> {
    let path = dir.join("include/linux/mlx5").join(header);
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains(old), "{header} has no {old:?}");
    Ok(fs::write(&path, text.replacen(old, new, 1))?)
}

#[test]
fn every_kind_of_change_in_a_header_is_noticed() -> Result<()> {
    let kit = kit()?;
    let dir = tempfile::tempdir()?;
    let to = dir.path().join("include/linux/mlx5");
    fs::create_dir_all(&to)?;
    for entry in fs::read_dir(kit.headers_dir().join("include/linux/mlx5"))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name())).context("cannot copy the headers")?;
    }
    let ifc = |old: &str, new: &str| edit(dir.path(), "mlx5_ifc.h", old, new);
    ifc("struct mlx5_ifc_alloc_sf_in_bits {", "struct mlx5_ifc_new_sf_in_bits {")?;
    ifc("umr_ptr_rlky[0x1];", "umr_ptr_relaxed[0x1];")?;
    ifc("scqe_break_moderation_en[0x1];\n\tu8         oi[0x1];", "oi[0x1], scqe_break_moderation_en[0x1];")?;
    ifc("cqe_compression_layout[0x2];", "cqe_compression_layout[0x1], spare[0x1];")?;
    ifc("ext_synd[0x10];", "ext_synd[0x10], more[0x20];")?;
    ifc("struct mlx5_ifc_vlan_bits push_vlan;", "struct mlx5_ifc_fte_match_mpls_bits push_vlan;")?;
    ifc("MLX5_CMD_OP_NOP  ", "MLX5_CMD_OP_IDLE ")?;
    edit(dir.path(), "device.h", "return cqe->op_own >> 4;", "return cqe->op_own >> 5;")?;
    edit(
        dir.path(),
        "device.h",
        "= 0x8,\n\tMLX5_CMD_STAT_BAD_RES_STATE_ERR",
        "= 0x18,\n\tMLX5_CMD_STAT_BAD_RES_STATE_ERR",
    )?;
    let before = check(kit.headers_dir())?;
    let new = check(dir.path())?.into_iter().filter(|mismatch| !before.contains(mismatch));
    let mut found: Vec<String> = new.map(|mismatch| mismatch.to_string()).collect();
    found.sort();
    let expected = [
        "IDLE: an opcode of the kernel's without a name here",
        "MLX5_CMD_OP_NOP: the kernel has no such constant",
        "MLX5_CMD_STAT_LIM_ERR: 0x8 here, 0x18 in the kernel",
        "alloc_sf_in: the kernel has no such structure",
        "cmd_hca_cap.umr_ptr_rlky: the kernel has no such field",
        "cqc.cqe_compression_layout: 2 bits here, 1 in the kernel",
        "cqc.oi: at bit 0xe here, 0xd in the kernel",
        "cqc.scqe_break_moderation_en: at bit 0xd here, 0xe in the kernel",
        "cqe64.opcode: bits [1f8, 1f9, 1fa, 1fb] here, [1f8, 1f9, 1fa] in the kernel",
        "flow_context.push_vlan: a vlan here, something else in the kernel",
        "health_buffer: 0x40 bytes here, 0x44 in the kernel",
    ];
    assert_eq!(found, expected);
    Ok(())
}

/// Files outside the lists of `firmware-cmds` that declare structures.
const ELSEWHERE: &[(&str, &str)] = &[
    ("device-model/src/cmd/regs.rs", "its own list is compared too"),
    ("device-model/src/packet/headers.rs", "headers of network protocols, not of the device"),
];

#[test]
fn no_structure_is_declared_out_of_sight() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for part in ["firmware-cmds/src", "device-model/src", "emulator/src", "qemu/src"] {
        declaring(&root.join(part), &mut found)?;
    }
    let elsewhere = |name: &str| ELSEWHERE.iter().any(|(file, _)| *file == name);
    for file in found {
        let name = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        let listed = name.starts_with("firmware-cmds/src/layouts/") || name == "firmware-cmds/src/entries.rs";
        ensure!(listed || elsewhere(&name), "{name} declares structures that nothing compares with the kernel's");
    }
    Ok(())
}

/// Collects the files below a directory that have a `prm!` block.
fn declaring(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            declaring(&path, found)?;
        } else if fs::read_to_string(&path)?.lines().any(|line| line.starts_with("prm! {")) {
            found.push(path);
        }
    }
    Ok(())
}
