//! Runs a build inside a private tree, so that the machine needs no compiler of its own.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use super::run;
use super::tree::Tree;

/// Mounts what a build needs, privately, then enters. `$1` is the tree, the rest the command.
const ENTER: &str = r#"root=$1; shift
mkdir -p "$root/dev" "$root/proc" "$root/tmp"
if ! mount --rbind /dev "$root/dev" 2>/dev/null; then
    [ -c "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3 || exit 1
fi
mount -t proc proc "$root/proc" 2>/dev/null
exec chroot "$root" "$@""#;

/// A shell script to run inside the tree.
///
/// # Errors
/// This user may not enter a tree on this machine.
pub(crate) fn script(tree: &Tree, text: &str) -> Result<Command> {
    let rooted = rustix::process::geteuid().is_root();
    let spaces: &[&str] = if rooted { &["--mount"] } else { &["--mount", "--user", "--map-root-user"] };
    let separate = run::find_program("unshare").is_some_and(|unshare| {
        Command::new(unshare).args(spaces).arg("true").output().is_ok_and(|out| out.status.success())
    });
    if !rooted && !separate {
        bail!("rebuilding the mlx5 modules needs a private root directory: run as root once, or allow user namespaces");
    }
    let mut command = if separate {
        let mut unshare = Command::new("unshare");
        unshare.args(spaces).arg("sh");
        unshare
    } else {
        Command::new("sh")
    };
    fs::create_dir_all(tree.join("tmp"))?;
    command.args(["-c", ENTER, "sh"]).arg(tree.root()).args(["/usr/bin/dash", "-c", text]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").env("HOME", "/tmp");
    Ok(command)
}
