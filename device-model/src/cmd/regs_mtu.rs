//! PMTU: bytes of a frame. The driver counts Ethernet header, one VLAN tag and
//! FCS (`MLX5E_ETH_HARD_MTU`, 22 bytes): a netdev's largest MTU is 9978.

use std::sync::atomic::Ordering::Relaxed;

use sfnic_firmware_cmds::layouts::PmtuReg;
use sfnic_firmware_cmds::{Refusal, View, ViewMut};

use super::regs::{bad_value, local_port};
use super::{Answer, Cx};
use crate::control::PF;
use crate::fabric::port::MAX_FRAME;

/// What the driver adds to a netdev's MTU.
pub(crate) const HARD_MTU: u32 = 22;
/// The smallest frame.
const MIN_MTU: u32 = 64;

/// PMTU, read.
pub(super) fn pmtu_read(cx: &mut Cx<'_>, i: View<'_, PmtuReg>, o: &mut ViewMut<'_, PmtuReg>) -> Answer {
    local_port(i, PmtuReg::local_port)?;
    let max = max_mtu(cx);
    let mtu = cx.card.port.mtu.load(Relaxed).min(max);
    o.set(PmtuReg::local_port, 1).set(PmtuReg::max_mtu, max);
    o.set(PmtuReg::admin_mtu, mtu).set(PmtuReg::oper_mtu, mtu);
    Ok(())
}

/// What the eswitch's manager allows the caller, at most what the port carries.
fn max_mtu(cx: &Cx<'_>) -> u32 {
    let allowed = cx.ctl.vports.get(&cx.fid).map(|v| v.policy.mtu.saturating_add(HARD_MTU));
    allowed.map_or(MAX_FRAME, |n| n.min(MAX_FRAME))
}

fn pmtu_wanted(i: View<'_, PmtuReg>, max: u32) -> Result<u32, Refusal> {
    match i.get(PmtuReg::admin_mtu) {
        n if (MIN_MTU..=max).contains(&n) => Ok(n),
        _ => bad_value(),
    }
}

/// PMTU, written.
pub(super) fn pmtu_write(cx: &mut Cx<'_>, i: View<'_, PmtuReg>) -> Answer {
    local_port(i, PmtuReg::local_port)?;
    // A driver begins with 1500 whatever it has read. What it writes of a port that is not its own
    // has no effect; frames that are too long for its vport are dropped there.
    let mtu = pmtu_wanted(i, MAX_FRAME)?;
    if cx.fid == PF {
        cx.card.port.mtu.store(mtu, Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pmtu_is_bounded() {
        for (n, ok) in [(0, false), (63, false), (64, true), (1522, true), (10_000, true), (10_001, false)] {
            let mut raw = [0; 16];
            ViewMut::<PmtuReg>::new(&mut raw).set(PmtuReg::admin_mtu, n);
            assert_eq!(pmtu_wanted(View::new(&raw), MAX_FRAME).is_ok(), ok, "{n}");
        }
    }
}
