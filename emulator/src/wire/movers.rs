//! From the kinds of wires to wires, and from those to the threads that serve them.

use std::sync::Arc;

use anyhow::Context as _;

use super::switch::Switch;
use super::{Driver, Wire};
use crate::board::WireKind;

/// A thread that hands in what comes by a wire.
pub(crate) struct Mover {
    pub(crate) name: String,
    /// Of a port.
    pub(crate) port: usize,
    /// As of a worker.
    pub(crate) number: usize,
    pub(crate) driver: Box<dyn Driver>,
}

/// The threads of wires at ports. Each wire has a number by its port; what its further
/// queues have begins with `further`.
pub(crate) fn movers(wires: Vec<(usize, Wire)>, first: usize, further: usize) -> Vec<Mover> {
    let mut numbers = further..;
    let mut all = vec![];
    for (port, mut wire) in wires {
        let parts = wire.driver.further();
        all.push(Mover { name: format!("wire-{port}"), port, number: first + port, driver: wire.driver });
        for ((driver, number), part) in parts.into_iter().zip(&mut numbers).zip(1..) {
            all.push(Mover { name: format!("wire-{port}.{part}"), port, number, driver });
        }
    }
    all
}

/// Opens what port `number` is connected to outside of the device.
pub(crate) fn open(kind: &WireKind, number: usize, switches: &[Arc<Switch>]) -> anyhow::Result<Wire> {
    Ok(match kind {
        WireKind::Tap(interface) => super::open_tap(interface)?,
        WireKind::Vhost(meeting) => super::open_vhost(meeting.clone())?,
        WireKind::Datagram(ends) => super::datagram::open_datagram(ends).with_context(|| format!("{ends:?}"))?,
        WireKind::Stream(meeting) => super::stream::open_stream(meeting.clone())?,
        WireKind::Replay(replay) => super::pcap::open_replay(replay.clone())?,
        WireKind::Switch(name) => {
            let switch =
                switches.iter().find(|s| s.name() == name).with_context(|| format!("there is no switch {name}"))?;
            switch.device_port(format!("p{number}"))
        }
        WireKind::Cable | WireKind::Loopback | WireKind::None => anyhow::bail!("no wire leaves the device there"),
    })
}
