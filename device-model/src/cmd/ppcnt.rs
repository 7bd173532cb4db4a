//! PPCNT, the counters of the physical port.
//!
//! A card counts whole frames at the port: "including Ethernet header and FCS"
//! (the kernel's mlx5 `counters.rst`, `rx_bytes_phy`). The model carries no
//! FCS, so its four bytes are added here, once a frame and in both directions;
//! `rx_bytes_phy` of one minimal frame is 64. The vport counters stay without.
//!
//! What a software port cannot have stays zero: symbol, alignment and FCS
//! errors, FEC, collisions, pause frames, buffer thresholds.

use std::collections::BTreeMap;

use sfnic_firmware_cmds::layout::{Field, Field64, Layout};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Refusal, Syndrome, View, ViewMut};

use super::{Answer, Cx};
use crate::control::PF;
use crate::fabric::counters::{Counter, Direction};
use crate::fabric::port::Port;
use crate::unmodelled::Access;

/// Bytes of the frame check sequence.
const FCS: u64 = 4;

/// Priorities, and traffic classes, of a port.
const PRIORITIES: u8 = 8;

/// `enum` of `MLX5_*_COUNTERS_GROUP` (`include/linux/mlx5/device.h`).
mod group {
    pub(super) const IEEE_802_3: u8 = 0x00;
    pub(super) const RFC_2863: u8 = 0x01;
    pub(super) const RFC_2819: u8 = 0x02;
    pub(super) const RFC_3635: u8 = 0x03;
    pub(super) const ETHERNET_EXTENDED: u8 = 0x05;
    pub(super) const PER_PRIORITY: u8 = 0x10;
    pub(super) const PER_TRAFFIC_CLASS: u8 = 0x11;
    pub(super) const PHYSICAL_LAYER: u8 = 0x12;
    pub(super) const PER_TRAFFIC_CLASS_CONGESTION: u8 = 0x13;
    pub(super) const PHYSICAL_LAYER_STATISTICAL: u8 = 0x16;
    pub(super) const INFINIBAND_PORT: u8 = 0x20;
}

/// What each group counts from: the `clr` bit starts one again from zero
/// without disturbing the others, nor the port's own counters.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Cleared(BTreeMap<(u8, u8), Baseline>);

#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
struct Baseline {
    counts: Counts,
    at_ns: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Flow {
    unicast: u64,
    multicast: u64,
    broadcast: u64,
    octets: u64,
    errors: u64,
}

impl Flow {
    fn of(d: &Direction) -> Self {
        Self {
            unicast: d.unicast.packets.get(),
            multicast: d.multicast.packets.get(),
            broadcast: d.broadcast.packets.get(),
            octets: d.octets(),
            errors: d.errors.packets.get(),
        }
    }

    fn frames(&self) -> u64 {
        self.unicast.wrapping_add(self.multicast).wrapping_add(self.broadcast)
    }

    /// Bytes on the wire, FCS included.
    fn wire_octets(&self) -> u64 {
        self.octets.wrapping_add(self.frames().wrapping_mul(FCS))
    }

    fn since(&self, base: &Self) -> Self {
        Self {
            unicast: self.unicast.wrapping_sub(base.unicast),
            multicast: self.multicast.wrapping_sub(base.multicast),
            broadcast: self.broadcast.wrapping_sub(base.broadcast),
            octets: self.octets.wrapping_sub(base.octets),
            errors: self.errors.wrapping_sub(base.errors),
        }
    }
}

/// The port's counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Counts {
    rx: Flow,
    tx: Flow,
    rx_sizes: [u64; 10],
    rx_oversize: u64,
    rx_undersize: u64,
    rx_discards: u64,
    tx_discards: u64,
    link_downs: u64,
}

impl Counts {
    fn of(p: &Port) -> Self {
        Self {
            rx: Flow::of(&p.rx),
            tx: Flow::of(&p.tx),
            rx_sizes: p.rx_sizes.each_ref().map(Counter::get),
            rx_oversize: p.rx_oversize.get(),
            rx_undersize: p.rx_undersize.get(),
            rx_discards: p.rx_discards.get(),
            tx_discards: p.tx_discards.get(),
            link_downs: p.link_down_events.get(),
        }
    }

    fn since(&self, base: &Self) -> Self {
        let mut rx_sizes = self.rx_sizes;
        for (n, b) in rx_sizes.iter_mut().zip(base.rx_sizes) {
            *n = n.wrapping_sub(b);
        }
        Self {
            rx: self.rx.since(&base.rx),
            tx: self.tx.since(&base.tx),
            rx_sizes,
            rx_oversize: self.rx_oversize.wrapping_sub(base.rx_oversize),
            rx_undersize: self.rx_undersize.wrapping_sub(base.rx_undersize),
            rx_discards: self.rx_discards.wrapping_sub(base.rx_discards),
            tx_discards: self.tx_discards.wrapping_sub(base.tx_discards),
            link_downs: self.link_downs.wrapping_sub(base.link_downs),
        }
    }

    /// Frames that came with a wrong length.
    fn rx_length_errors(&self) -> u64 {
        self.rx_oversize.wrapping_add(self.rx_undersize)
    }
}

/// Reads one group. A group that is not modelled is counted and refused.
pub(super) fn read(cx: &mut Cx<'_>, i: View<'_, PpcntReg>, o: &mut ViewMut<'_, PpcntReg>) -> Answer {
    const HOST_PORT: u32 = 2;
    let (port, pnat) = (i.get(PpcntReg::local_port), i.get(PpcntReg::pnat));
    // Per traffic class the driver numbers host ports, from 0.
    if port != 1 && (port, pnat) != (0, HOST_PORT) {
        return Err(Refusal::param(Syndrome::REGISTER_PORT));
    }
    let clear = i.is(PpcntReg::clr);
    if clear && cx.fid != PF {
        // The port is shared; its counters are the physical function's to clear.
        return Err(Refusal::param(Syndrome::REGISTER_READ_ONLY));
    }
    let grp = i.get(PpcntReg::grp) as u8;
    let prio = if is_per_priority(grp) { i.get(PpcntReg::prio_tc) as u8 } else { 0 };
    if prio >= PRIORITIES {
        return Err(Refusal::param(Syndrome::REGISTER_VALUE));
    }
    let now = Baseline { counts: Counts::of(&cx.card.port), at_ns: cx.nic.clock.now_ns() };
    let base = cx.ctl.port_regs.cleared.0.get(&(grp, prio)).copied().unwrap_or_default();
    let ms = now.at_ns.saturating_sub(base.at_ns) / 1_000_000;
    o.set(PpcntReg::local_port, port).set(PpcntReg::pnat, pnat);
    o.set(PpcntReg::grp, grp.into()).set(PpcntReg::prio_tc, prio.into());
    if !fill(grp, prio, &now.counts.since(&base.counts), ms, o.tail(PpcntReg::counter_set)) {
        cx.unmodelled(Access::CounterGroup(grp));
        return Err(Refusal::param(Syndrome::REGISTER_VALUE));
    }
    if clear {
        // Bounded: only groups and priorities that exist get here.
        cx.ctl.port_regs.cleared.0.insert((grp, prio), now);
    }
    Ok(())
}

fn is_per_priority(grp: u8) -> bool {
    [group::PER_PRIORITY, group::PER_TRAFFIC_CLASS, group::PER_TRAFFIC_CLASS_CONGESTION].contains(&grp)
}

/// Writes a group; false where there is no such group.
fn fill(grp: u8, prio: u8, c: &Counts, ms: u64, set: &mut [u8]) -> bool {
    match grp {
        group::IEEE_802_3 => ieee_802_3(c, ViewMut::new(set)),
        group::RFC_2863 => rfc_2863(c, ViewMut::new(set)),
        group::RFC_2819 => rfc_2819(c, ViewMut::new(set)),
        group::RFC_3635 => rfc_3635(c, ViewMut::new(set)),
        group::PER_PRIORITY if prio == 0 => priority_0(c, ViewMut::new(set)),
        group::PHYSICAL_LAYER => physical_layer(c, ms, ViewMut::new(set)),
        group::PHYSICAL_LAYER_STATISTICAL => statistical(c, ms, ViewMut::new(set)),
        group::INFINIBAND_PORT => infiniband(c, ViewMut::new(set)),
        // All traffic is of priority 0; there are no shared buffers to overrun.
        group::PER_PRIORITY
        | group::PER_TRAFFIC_CLASS
        | group::PER_TRAFFIC_CLASS_CONGESTION
        | group::ETHERNET_EXTENDED => {}
        _ => return false,
    }
    true
}

/// Writes a 64-bit counter, named by its high half.
fn put<S: Layout>(v: &mut ViewMut<'_, S>, high: Field<S>, n: u64) {
    v.set64(Field64::at(high.bit() / 8), n);
}

/// Writes a counter that stops at its largest value.
fn put_sticky<S: Layout>(v: &mut ViewMut<'_, S>, f: Field<S>, n: u64) {
    v.set(f, u32::try_from(n).unwrap_or(u32::MAX).min(f.max()));
}

fn ieee_802_3(c: &Counts, mut v: ViewMut<'_, Eth8023CntrsGrpDataLayout>) {
    use Eth8023CntrsGrpDataLayout as G;
    put(&mut v, G::a_frames_transmitted_ok_high, c.tx.frames());
    put(&mut v, G::a_frames_received_ok_high, c.rx.frames());
    put(&mut v, G::a_octets_transmitted_ok_high, c.tx.wire_octets());
    put(&mut v, G::a_octets_received_ok_high, c.rx.wire_octets());
    put(&mut v, G::a_multicast_frames_xmitted_ok_high, c.tx.multicast);
    put(&mut v, G::a_broadcast_frames_xmitted_ok_high, c.tx.broadcast);
    put(&mut v, G::a_multicast_frames_received_ok_high, c.rx.multicast);
    put(&mut v, G::a_broadcast_frames_received_ok_high, c.rx.broadcast);
    put(&mut v, G::a_frame_too_long_errors_high, c.rx_oversize);
}

fn rfc_2863(c: &Counts, mut v: ViewMut<'_, Eth2863CntrsGrpDataLayout>) {
    use Eth2863CntrsGrpDataLayout as G;
    put(&mut v, G::if_in_octets_high, c.rx.wire_octets());
    put(&mut v, G::if_in_ucast_pkts_high, c.rx.unicast);
    put(&mut v, G::if_in_discards_high, c.rx_discards);
    put(&mut v, G::if_in_errors_high, c.rx.errors.wrapping_add(c.rx_length_errors()));
    put(&mut v, G::if_out_octets_high, c.tx.wire_octets());
    put(&mut v, G::if_out_ucast_pkts_high, c.tx.unicast);
    put(&mut v, G::if_out_discards_high, c.tx_discards);
    put(&mut v, G::if_out_errors_high, c.tx.errors);
    put(&mut v, G::if_in_multicast_pkts_high, c.rx.multicast);
    put(&mut v, G::if_in_broadcast_pkts_high, c.rx.broadcast);
    put(&mut v, G::if_out_multicast_pkts_high, c.tx.multicast);
    put(&mut v, G::if_out_broadcast_pkts_high, c.tx.broadcast);
}

fn rfc_2819(c: &Counts, mut v: ViewMut<'_, Eth2819CntrsGrpDataLayout>) {
    use Eth2819CntrsGrpDataLayout as G;
    put(&mut v, G::ether_stats_drop_events_high, c.rx_discards);
    put(&mut v, G::ether_stats_octets_high, c.rx.wire_octets());
    put(&mut v, G::ether_stats_pkts_high, c.rx.frames().wrapping_add(c.rx_length_errors()));
    put(&mut v, G::ether_stats_broadcast_pkts_high, c.rx.broadcast);
    put(&mut v, G::ether_stats_multicast_pkts_high, c.rx.multicast);
    put(&mut v, G::ether_stats_undersize_pkts_high, c.rx_undersize);
    put(&mut v, G::ether_stats_oversize_pkts_high, c.rx_oversize);
    let sizes = [
        G::ether_stats_pkts64octets_high,
        G::ether_stats_pkts65to127octets_high,
        G::ether_stats_pkts128to255octets_high,
        G::ether_stats_pkts256to511octets_high,
        G::ether_stats_pkts512to1023octets_high,
        G::ether_stats_pkts1024to1518octets_high,
        G::ether_stats_pkts1519to2047octets_high,
        G::ether_stats_pkts2048to4095octets_high,
        G::ether_stats_pkts4096to8191octets_high,
        G::ether_stats_pkts8192to10239octets_high,
    ];
    for (f, n) in sizes.into_iter().zip(c.rx_sizes) {
        put(&mut v, f, n);
    }
}

fn rfc_3635(c: &Counts, mut v: ViewMut<'_, Eth3635CntrsGrpDataLayout>) {
    use Eth3635CntrsGrpDataLayout as G;
    put(&mut v, G::dot3stats_internal_mac_transmit_errors_high, c.tx.errors);
    put(&mut v, G::dot3stats_frame_too_longs_high, c.rx_oversize);
    put(&mut v, G::dot3stats_internal_mac_receive_errors_high, c.rx.errors);
}

fn priority_0(c: &Counts, mut v: ViewMut<'_, EthPerPrioGrpDataLayout>) {
    use EthPerPrioGrpDataLayout as G;
    put(&mut v, G::rx_octets_high, c.rx.wire_octets());
    put(&mut v, G::rx_frames_high, c.rx.frames());
    put(&mut v, G::tx_octets_high, c.tx.wire_octets());
    put(&mut v, G::tx_frames_high, c.tx.frames());
    put(&mut v, G::rx_discards_high, c.rx_discards);
}

fn physical_layer(c: &Counts, ms: u64, mut v: ViewMut<'_, PhysLayerCntrs>) {
    put(&mut v, PhysLayerCntrs::time_since_last_clear_high, ms);
    put_sticky(&mut v, PhysLayerCntrs::link_down_events, c.link_downs);
}

fn statistical(c: &Counts, ms: u64, mut v: ViewMut<'_, PhysLayerStatisticalCntrs>) {
    put(&mut v, PhysLayerStatisticalCntrs::time_since_last_clear_high, ms);
    put(&mut v, PhysLayerStatisticalCntrs::phy_received_bits_high, c.rx.wire_octets().wrapping_mul(8));
}

fn infiniband(c: &Counts, mut v: ViewMut<'_, IbPortCntrsGrpDataLayout>) {
    use IbPortCntrsGrpDataLayout as G;
    put_sticky(&mut v, G::link_downed_counter, c.link_downs);
    put_sticky(&mut v, G::port_rcv_errors, c.rx.errors.wrapping_add(c.rx_length_errors()));
    put_sticky(&mut v, G::port_xmit_discards, c.tx_discards);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::port::Far;

    fn port() -> Port {
        let p = Port::new(Far::None);
        p.count_rx(&[0xff; 6], 60);
        p.count_rx(&[0x33; 6], 1514);
        p.count_rx(&[0x52; 6], 60);
        p.count_tx(&[0x52; 6], 100);
        p.rx_oversize.add(3);
        p.rx_discards.add(5);
        p.tx_discards.add(70_000);
        p.link_down_events.add(300);
        p
    }

    fn get<S: Layout>(set: &[u8], high: Field<S>) -> u64 {
        View::<S>::new(set).get64(Field64::at(high.bit() / 8))
    }

    fn set_of(grp: u8, prio: u8, c: &Counts) -> Vec<u8> {
        let mut set = vec![0; 0xf8];
        assert!(fill(grp, prio, c, 7, &mut set));
        set
    }

    #[test]
    fn octets_at_the_port_include_the_fcs_and_agree_between_groups() {
        let c = Counts::of(&port());
        let rx = 60 + 1514 + 60 + 3 * 4;
        let ieee = set_of(group::IEEE_802_3, 0, &c);
        assert_eq!(get(&ieee, Eth8023CntrsGrpDataLayout::a_octets_received_ok_high), rx);
        assert_eq!(get(&ieee, Eth8023CntrsGrpDataLayout::a_octets_transmitted_ok_high), 104);
        assert_eq!(get(&ieee, Eth8023CntrsGrpDataLayout::a_frames_received_ok_high), 3);
        assert_eq!(get(&ieee, Eth8023CntrsGrpDataLayout::a_multicast_frames_received_ok_high), 1);
        assert_eq!(get(&ieee, Eth8023CntrsGrpDataLayout::a_frame_too_long_errors_high), 3);
        let rfc = set_of(group::RFC_2863, 0, &c);
        assert_eq!(get(&rfc, Eth2863CntrsGrpDataLayout::if_in_octets_high), rx);
        assert_eq!(get(&rfc, Eth2863CntrsGrpDataLayout::if_in_discards_high), 5);
        assert_eq!(get(&rfc, Eth2863CntrsGrpDataLayout::if_in_errors_high), 3);
        let prio = set_of(group::PER_PRIORITY, 0, &c);
        assert_eq!(get(&prio, EthPerPrioGrpDataLayout::rx_octets_high), rx);
        assert!(set_of(group::PER_PRIORITY, 7, &c).iter().all(|b| *b == 0));
    }

    #[test]
    fn every_size_class_has_its_own_place() {
        let mut c = Counts::default();
        for (i, n) in c.rx_sizes.iter_mut().enumerate() {
            *n = i as u64 + 1;
        }
        let set = set_of(group::RFC_2819, 0, &c);
        // The classes follow one another at 0x58.
        let got: Vec<u64> = View::<PpcntReg>::new(&set[0x58 - 8..]).tail64(PpcntReg::counter_set).take(10).collect();
        assert_eq!(got, (1..=10).collect::<Vec<u64>>());
    }

    #[test]
    fn narrow_counters_stop_at_their_largest_value() {
        let c = Counts::of(&port());
        let set = set_of(group::INFINIBAND_PORT, 0, &c);
        let v = View::<IbPortCntrsGrpDataLayout>::new(&set);
        assert_eq!(v.get(IbPortCntrsGrpDataLayout::link_downed_counter), 255);
        assert_eq!(v.get(IbPortCntrsGrpDataLayout::port_xmit_discards), 0xffff);
        let phy = set_of(group::PHYSICAL_LAYER, 0, &c);
        assert_eq!(View::<PhysLayerCntrs>::new(&phy).get(PhysLayerCntrs::link_down_events), 300);
        assert_eq!(get(&phy, PhysLayerCntrs::time_since_last_clear_high), 7);
    }

    #[test]
    fn a_cleared_group_counts_from_its_baseline() {
        let p = port();
        let base = Counts::of(&p);
        assert_eq!(Counts::of(&p).since(&base), Counts::default());
        p.count_rx(&[0x52; 6], 60);
        let c = Counts::of(&p).since(&base);
        assert_eq!((c.rx.frames(), c.rx.wire_octets(), c.rx_sizes[0], c.link_downs), (1, 64, 1, 0));
    }

    #[test]
    fn only_groups_that_exist_are_filled() {
        let c = Counts::default();
        for grp in 0..64 {
            let known = matches!(grp, 0..=3 | 5 | 0x10..=0x13 | 0x16 | 0x20);
            assert_eq!(fill(grp, 0, &c, 0, &mut [0; 0xf8]), known, "{grp:#x}");
        }
    }

    #[test]
    fn a_short_buffer_is_harmless() {
        let c = Counts::of(&port());
        for grp in 0..64 {
            fill(grp, 0, &c, 0, &mut [0; 5]);
        }
    }
}
