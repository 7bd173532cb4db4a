//! Cards: their port, their functions and the eswitch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::SnapshotError;
use super::function::{self, SavedFunction};
use super::vport::{self, SavedVport};
use crate::cmd::l2_table::L2Table;
use crate::cmd::regs::PortRegs;
use crate::control::sf::SfSlot;
use crate::control::vhca::{Observer, State};
use crate::control::vport::{Admin, VportControl};
use crate::control::{Control, PF};
use crate::endpoint::Endpoint;
use crate::fabric::counters::{Counter, Direction, SIZES};
use crate::fabric::port::{MAX_FRAME, Port};
use crate::fabric::vport::UPLINK;
use crate::nic::{Card, DEFAULT_MTU, Nic};
use crate::packet::TunnelPorts;
use crate::pci::SavedConfig;
use crate::slice::Flavour;

/// A card.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedCard {
    /// What it was made of, in words.
    shape: Vec<(String, String)>,
    pci: SavedConfig,
    port: SavedPort,
    l2_table: L2Table,
    port_regs: PortRegs,
    tunnels: TunnelPorts,
    slots: Vec<(u16, SavedSlot)>,
    vports: Vec<(u16, SavedVport)>,
    functions: Vec<SavedFunction>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedPort {
    admin_up: bool,
    carrier: bool,
    mtu: u32,
    rx: Direction,
    tx: Direction,
    rx_sizes: [Counter; SIZES.len()],
    /// Oversize, undersize, discards of both directions, and how often the link went down.
    counters: [Counter; 5],
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedSlot {
    state: State,
    sw_function_id: u32,
    flavour: Flavour,
    slice: Option<u32>,
    observer: Observer,
    generation: u32,
}

/// What a snapshot's device and the one that it is loaded into must have in common.
fn shape(card: &Card) -> Vec<(String, String)> {
    let c = &card.config;
    let [a, b, d, e, f, g] = c.mac;
    let all = [
        ("mac", format!("{a:02x}:{b:02x}:{d:02x}:{e:02x}:{f:02x}:{g:02x}")),
        ("vectors", c.vectors.to_string()),
        ("max_sfs", c.max_sfs.to_string()),
        ("max_guest_slices", c.max_guest_slices.to_string()),
        ("log_sf_window", c.log_sf_window.to_string()),
        ("sf_base", c.sf_base.to_string()),
        ("eswitch", format!("{:?}", c.manager).to_lowercase()),
        ("speed", c.speed.to_string()),
        ("doorbells", if c.doorbells.is_some() { "poll" } else { "trap" }.to_owned()),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl SavedCard {
    /// Whether it can be brought back in this card.
    pub(super) fn fits(&self, card: &Card) -> Result<(), SnapshotError> {
        let here = shape(card);
        match self.shape.iter().zip(&here).find(|(a, b)| a != b) {
            _ if self.shape.len() != here.len() => Err(SnapshotError::Damaged(format!("pf {}", card.index))),
            Some((there, here)) => Err(SnapshotError::Other(format!(
                "{} of pf {} is {} there and {} here",
                there.0, card.index, there.1, here.1
            ))),
            None => Ok(()),
        }
    }
}

impl Nic {
    /// Keeps a card; nothing moves in it meanwhile.
    pub(super) fn save_card(&self, card: &Card) -> SavedCard {
        let ctl = card.control.lock();
        let tunnels = **card.fabric.tunnels.load();
        let Control {
            pf: _,
            events: _, // what happened is past
            faults: _, // whoever wants them sets them again
            ledger: _, // of this process
            functions,
            sfs,
            declared: _, // with the slices
            sf_base: _,
            vports,
            l2_table,
            port_regs,
            after: _, // done before the lock was released
        } = &*ctl;
        let slots = sfs.iter().enumerate().map(|(at, slot)| {
            let SfSlot { state, sw_function_id, flavour, endpoint: _, slice, observer, generation } = slot;
            let (state, flavour, observer) = (*state, *flavour, *observer);
            let (sw_function_id, slice, generation) = (*sw_function_id, *slice, *generation);
            (at as u16, SavedSlot { state, sw_function_id, flavour, slice, observer, generation })
        });
        let functions = functions.values().map(|f| function::save(f, &self.new_caps(card, f.id), &tunnels));
        SavedCard {
            shape: shape(card),
            pci: card.pci.lock().save(),
            port: save_port(&card.port),
            l2_table: l2_table.clone(),
            port_regs: port_regs.clone(),
            tunnels,
            slots: slots.collect(),
            vports: vports.iter().map(|(number, v)| (*number, vport::save(v))).collect(),
            functions: functions.collect(),
        }
    }

    /// Makes a new card what it was.
    pub(super) fn restore_card(
        &self,
        card: &Card,
        saved: SavedCard,
        endpoints: &BTreeMap<u32, Arc<Endpoint>>,
    ) -> Result<(), SnapshotError> {
        let damaged = |why: &str| SnapshotError::Damaged(format!("pf {}: {why}", card.index));
        let mut ctl = card.control.lock();
        let ctl = &mut *ctl;
        if !card.pci.lock().restore(&saved.pci) {
            return Err(damaged("configuration space of another device"));
        }
        if !restore_port(&card.port, &saved.port) {
            return Err(damaged("its port"));
        }
        ctl.l2_table = saved.l2_table;
        ctl.port_regs = saved.port_regs;
        for (at, slot) in saved.slots {
            let place = ctl.sfs.get_mut(usize::from(at)).ok_or_else(|| damaged("an SF that there is no room for"))?;
            let SavedSlot { state, sw_function_id, flavour, slice, observer, generation } = slot;
            let endpoint = slice.and_then(|index| endpoints.get(&index)).cloned();
            if flavour == Flavour::Passthrough && slice.is_some() != endpoint.is_some() {
                return Err(damaged("a slice without its device"));
            }
            *place = SfSlot { state, sw_function_id, flavour, endpoint, slice, observer, generation };
        }
        for (number, v) in saved.vports {
            if number != PF && number != UPLINK {
                if ctl.sf(number).is_none_or(|s| s.state == State::Invalid) {
                    return Err(damaged("a vport of nobody"));
                }
                let new = VportControl::new(number, [0; 6], DEFAULT_MTU, Admin::Auto);
                card.fabric.vports.pin().insert(number, new.plane.clone());
                ctl.vports.insert(number, new);
                self.sf_made(card, ctl, number);
            }
            let place = ctl.vports.get_mut(&number).ok_or_else(|| damaged("a vport of nobody"))?;
            if !vport::restore(place, v, self.clock.now_ns()) {
                return Err(damaged("a vport"));
            }
        }
        let have = |n: usize| n == ctl.functions.len() && ctl.functions.len() + 1 == ctl.vports.len();
        if !have(saved.functions.len()) {
            return Err(damaged("functions and vports do not go together"));
        }
        card.fabric.tunnels.store(Arc::new(saved.tunnels));
        for f in saved.functions {
            function::restore(self, card, ctl, f)?;
        }
        // Objects that make their part of it have done so again.
        card.fabric.tunnels.store(Arc::new(saved.tunnels));
        Ok(())
    }
}

fn save_port(p: &Port) -> SavedPort {
    let Port {
        far: _,
        admin_up,
        carrier,
        mtu,
        rx,
        tx,
        rx_sizes,
        rx_oversize,
        rx_undersize,
        rx_discards,
        tx_discards,
        impair: _, // of the configuration
        link_down_events,
    } = p;
    SavedPort {
        admin_up: admin_up.load(Relaxed),
        carrier: carrier.load(Relaxed),
        mtu: mtu.load(Relaxed),
        rx: rx.clone(),
        tx: tx.clone(),
        rx_sizes: rx_sizes.clone(),
        counters: [rx_oversize, rx_undersize, rx_discards, tx_discards, link_down_events].map(Counter::clone),
    }
}

fn restore_port(p: &Port, saved: &SavedPort) -> bool {
    let SavedPort { admin_up, carrier, mtu, rx, tx, rx_sizes, counters } = saved;
    p.admin_up.store(*admin_up, Relaxed);
    p.carrier.store(*carrier, Relaxed);
    p.mtu.store(*mtu, Relaxed);
    p.rx.put(rx);
    p.tx.put(tx);
    p.rx_sizes.iter().zip(rx_sizes).for_each(|(to, from)| to.put(from));
    let places = [&p.rx_oversize, &p.rx_undersize, &p.rx_discards, &p.tx_discards, &p.link_down_events];
    places.into_iter().zip(counters).for_each(|(to, from)| to.put(from));
    *mtu <= MAX_FRAME
}
