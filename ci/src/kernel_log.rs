//! What a kernel may say while our device works, and what it may not.

/// Lines that are no fault, each with the reason.
pub const ALLOWED: &[(&str, &str)] = &[
    (
        "mlx5_core: loading out-of-tree module taints kernel.",
        "the kit rebuilds the distribution's modules outside of its tree",
    ),
    (
        "mlx5_core: module verification failed: signature and/or required key missing - tainting kernel",
        "the kit cannot sign the modules that it rebuilds",
    ),
    (
        "E-Switch: MPFS/FDB active",
        "mlx5_esw_fdb_active() says so at the level of warnings each time that switchdev mode is entered",
    ),
    (
        "Disabling HW_VLAN CTAG FILTERING, not supported in switchdev mode",
        "mlx5e_fix_uplink_rep_features() drops this feature in switchdev mode whatever the device offers",
    ),
    (
        "Disabling HW MACsec offload, not supported in switchdev mode",
        "6.12's mlx5e_build_nic_netdev() takes the feature for granted and drops it in switchdev mode",
    ),
    (
        "Dropping C-tag vlan stripping offload due to S-tag vlan",
        "mlx5e_fix_features() says so whenever the netdev has no VLAN table, as an uplink representor has none",
    ),
    (
        "S-tagged traffic will be dropped while C-tag vlan stripping is enabled",
        "mlx5e_fs_set_rx_mode_work() says so once when a netdev that strips tags becomes promiscuous",
    ),
    (
        "mlx5_uninit_one: interface is down, NOP",
        "an SF that the machine's end has unloaded is removed afterwards, with nothing left to do",
    ),
    (
        "Kernel compiled without mitigations",
        "a whole kernel of ours has none to leave off, which the command line asks of every kernel",
    ),
    ("RCU lockdep checking is enabled", "a kernel that looks for faults says that it does"),
    ("reboot: Power down", "older kernels say their last words as emergencies"),
    ("reboot: Restarting system", "older kernels say their last words as emergencies"),
];

/// Words that are a fault at any level and in whoever's line.
const BAD: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "Call Trace",
    "cut here",
    "general protection fault",
    "NETDEV WATCHDOG",
    "blocked for more than",
    "lockdep",
    "circular locking",
    "inconsistent lock state",
    "suspicious RCU",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "Tainted: ",
    "irq event",
    "nobody cared",
    "stalls on CPUs",
    "soft lockup",
    "hard LOCKUP",
    "AER: Corr",
    "AER: Uncorr",
    "AER: Multiple",
    "suspected memory leaks",
    "records lost",
    "Kernel panic",
];

/// Words that are a fault in a line of the driver, whatever its level.
const BAD_OF_DRIVER: &[&str] = &["timeout", "timed out", "fail", "error", "syndrome", "health", "unable", "leak"];

/// The lines of a log (as `dmesg -r` prints it) that say that something is wrong.
pub fn faults(log: &str) -> Vec<String> {
    log.lines().filter(|l| is_fault(l)).map(str::to_owned).collect()
}

fn is_fault(line: &str) -> bool {
    let Some((level, text)) = level(line) else { return false };
    if ALLOWED.iter().any(|(known, _)| text.contains(known)) {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    let of_driver = lower.contains("mlx5");
    BAD.iter().any(|b| text.contains(b))
        || (of_driver && (level <= 4 || BAD_OF_DRIVER.iter().any(|b| lower.contains(b))))
        || level <= 3
}

/// A line's level (0 emergency – 7 debug) and what follows the time stamp.
fn level(line: &str) -> Option<(u32, &str)> {
    let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
    let (_, text) = rest.split_once("] ")?;
    Some((number.parse::<u32>().ok()? & 7, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found() {
        for line in [
            "<3>[    1.000000] mlx5_core 0000:01:00.0: mlx5_cmd_out_err:835:(pid 1): CREATE_CQ(0x400) failed",
            "<4>[    1.000000] mlx5_core 0000:01:00.0: E-Switch: Packet reformat INSERT_HEADER is not supported",
            "<4>[    1.000000] WARNING: net/core/dev.c:1 at x, CPU#0",
            "<4>[    1.000000] WARNING: possible circular locking dependency detected",
            "<6>[    1.000000] mlx5_core 0000:01:00.0 eth0: TX timeout detected",
            "<3>[    1.000000] INFO: task devlink:1 blocked for more than 120 seconds.",
            "<4>[    0.000000] sfnic: 3 records lost",
            "<6>[    9.000000] kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "<12>[    1.000000] mlx5_core: facility and level are one number",
        ] {
            assert_eq!(faults(line).len(), 1, "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_none() {
        for line in [
            "<6>[    1.000000] mlx5_core 0000:01:00.0: firmware version: 22.41.1000",
            "<4>[    0.600000] mtrr: your CPUs had inconsistent fixed MTRR settings",
            "<4>[    1.000000] mlx5_core 0000:01:00.0: E-Switch: MPFS/FDB active",
            "<6>[    1.000000] mlx5_core 0000:01:00.0 eth0: Link down",
            "<6>[    0.000000] rcu: \\x09RCU lockdep checking is enabled.",
            "no line of the kernel",
        ] {
            assert_eq!(faults(line), Vec::<String>::new());
        }
    }
}
