//! Functions: what their drivers set, their objects, their tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::object::{self, SavedObject};
use super::{SnapshotError, refused};
use crate::cmd::Cx;
use crate::cmd::flow::{account, bulk_among};
use crate::control::Control;
use crate::control::caps::{Caps, SavedCaps};
use crate::control::function::{Body, CommandStats, Function};
use crate::control::iseg::Iseg;
use crate::control::objects::{Ids, Kind, ObjRef, Objects};
use crate::fabric::counters::Counter;
use crate::fabric::plane::FunctionPlane;
use crate::fabric::tir::Tir;
use crate::nic::{Card, Nic};
use crate::packet::TunnelPorts;
use crate::steering::{FlowCounter, ModifyHeader, Reformat, Resolve, SavedSteering};

/// A function.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedFunction {
    pub(super) id: u16,
    caps: SavedCaps,
    iseg: Iseg,
    enabled: bool,
    initialised: bool,
    issi: u32,
    driver_version: String,
    node_desc: Option<Vec<u8>>,
    stats: CommandStats,
    counters: [Counter; 4],
    numbers: BTreeMap<Kind, Ids>,
    objects: Vec<SavedObject>,
    steering: SavedSteering,
    /// The EQ that hears of commands.
    command_eq: Option<u8>,
    /// What other EQs hear of.
    events: Vec<([u64; 4], u8)>,
}

/// Keeps a function; `fresh` is what a new one could do.
pub(super) fn save(f: &Function, fresh: &Caps, tunnels: &TunnelPorts) -> SavedFunction {
    let Function {
        id,
        kind: _,    // follows from the slice's flavour
        vhca_id: _, // and from the number
        caps,
        iseg,
        enabled,
        initialised,
        issi,
        objects,
        steering,
        plane,
        irq: _,
        command_eq,
        driver_version,
        node_desc,
        stats,
    } = f;
    SavedFunction {
        id: *id,
        caps: caps.save(fresh),
        iseg: iseg.clone(),
        enabled: *enabled,
        initialised: *initialised,
        issi: *issi,
        driver_version: driver_version.clone(),
        node_desc: node_desc.map(|d| d.to_vec()),
        stats: *stats,
        counters: counters(plane).map(Counter::clone),
        numbers: objects.numbers().clone(),
        objects: object::save(f, tunnels),
        steering: steering.save(),
        command_eq: command_eq.as_ref().map(|q| q.eqn()),
        events: plane.events.list(),
    }
}

/// What the packet path counts of a function.
fn counters(plane: &FunctionPlane) -> [&Counter; 4] {
    let FunctionPlane {
        // Found by number, or set by commands.
        id: _,
        vhca_id: _,
        vport: _,
        dma: _,
        sqs: _,
        cqs: _,
        eqs: _,
        mkeys: _,
        uars: _,
        events: _,
        steering: _,
        rx_steering_discards,
        rx_link_down,
        tx_link_down,
        bad_doorbells,
    } = plane;
    [rx_steering_discards, rx_link_down, tx_link_down, bad_doorbells]
}

/// The objects that rules use.
struct Those<'a>(&'a Objects<Body>);

impl Resolve<Tir> for Those<'_> {
    fn counter(&self, id: u32) -> Option<FlowCounter> {
        bulk_among(self.0, id)?.counter(id)
    }
    fn modify_header(&self, id: u32) -> Option<Arc<ModifyHeader>> {
        match self.0.get(ObjRef(Kind::ModifyHeader, id))? {
            Body::ModifyHeader(m) => Some(m.clone()),
            _ => None,
        }
    }
    fn reformat(&self, id: u32) -> Option<Arc<Reformat>> {
        match self.0.get(ObjRef(Kind::Reformat, id))? {
            Body::Reformat(r) => Some(r.clone()),
            _ => None,
        }
    }
    fn tir(&self, id: u32) -> Option<Arc<Tir>> {
        match self.0.get(ObjRef(Kind::Tir, id))? {
            Body::Tir(t) => Some(t.clone()),
            _ => None,
        }
    }
}

/// Makes a new function what it was.
pub(super) fn restore(nic: &Nic, card: &Card, ctl: &mut Control, saved: SavedFunction) -> Result<(), SnapshotError> {
    let fid = saved.id;
    let what = || format!("pf {} function {fid:#x}", card.index);
    let damaged = |why: &str| SnapshotError::Damaged(format!("{}: {why}", what()));
    let eq = |f: &Function, eqn: u8| match f.objects.get(ObjRef(Kind::Eq, eqn.into())) {
        Some(Body::Eq(q)) => Ok(q.clone()),
        _ => Err(damaged("an event queue that is not there")),
    };
    let f = ctl.functions.get_mut(&fid).ok_or_else(|| damaged("nobody has its number"))?;
    let caps = {
        let mut caps = nic.new_caps(card, fid);
        if !caps.restore(&saved.caps) {
            return Err(damaged("its capabilities"));
        }
        f.caps = caps.at_most();
        caps
    };
    const LONGEST_NAME: usize = 64;
    if saved.issi > 1 || saved.driver_version.len() > LONGEST_NAME {
        return Err(damaged("its driver"));
    }
    f.iseg = saved.iseg;
    f.enabled = saved.enabled;
    f.initialised = saved.initialised;
    f.issi = saved.issi;
    f.driver_version = saved.driver_version;
    f.node_desc = match saved.node_desc.map(<[u8; 64]>::try_from).transpose() {
        Ok(desc) => desc,
        Err(_) => return Err(damaged("its description")),
    };
    f.stats = saved.stats;
    for (counter, n) in counters(&f.plane).into_iter().zip(&saved.counters) {
        counter.put(n);
    }
    f.objects.restore_numbers(saved.numbers);
    for saved in saved.objects {
        let mut cx = Cx { nic, card, ctl: &mut *ctl, fid, uid: 0, op_mod: 0 };
        let which = saved.to_string();
        object::restore(&mut cx, saved).map_err(|why| refused(&format!("{}: {which}", what()), why))?;
    }
    let f = ctl.functions.get_mut(&fid).ok_or_else(|| damaged("nobody has its number"))?;
    f.caps = caps;
    f.objects.restored();
    let change = f.steering.restore(saved.steering, &Those(&f.objects)).map_err(|why| refused(&what(), why))?;
    account(f, change);
    f.command_eq = saved.command_eq.map(|eqn| eq(f, eqn)).transpose()?;
    for (mask, eqn) in saved.events {
        f.plane.events.insert(mask, eq(f, eqn)?);
    }
    if f.initialised {
        f.plane.vport.function.store(Some(f.plane.clone()));
    }
    Ok(())
}
