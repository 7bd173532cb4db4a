//! What can be seen of slices, ports and resources.

use std::fmt;

use super::Place;
use super::attributes::{Link, Policy};
use crate::control::PF;
use crate::control::function::FunctionKind;
use crate::control::vhca;
use crate::fabric::vport::UPLINK;
use crate::nic::{Card, Manager};

/// What a slice or a port is (`enum devlink_port_flavour`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// A port with a cable.
    Physical,
    /// A physical function.
    PciPf,
    /// A virtual function.
    PciVf,
    /// A sub-function: an auxiliary device of the host.
    #[default]
    PciSf,
    /// A virtual function of a guest of its own.
    Passthrough,
    /// A virtio network device of a guest of its own.
    Virtio,
}

impl Flavour {
    /// Every flavour.
    pub const ALL: [Flavour; 6] =
        [Flavour::Physical, Flavour::PciPf, Flavour::PciVf, Flavour::PciSf, Flavour::Passthrough, Flavour::Virtio];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Flavour::Physical => "physical",
            Flavour::PciPf => "pcipf",
            Flavour::PciVf => "pcivf",
            Flavour::PciSf => "pcisf",
            Flavour::Passthrough => "passthrough",
            Flavour::Virtio => "virtio",
        }
    }

    /// Whether slices of it can be added.
    pub const fn can_be_added(self) -> bool {
        matches!(self, Flavour::PciSf | Flavour::Passthrough | Flavour::Virtio)
    }

    /// Whether it is a device of another guest than the physical function's.
    pub const fn is_of_a_guest(self) -> bool {
        matches!(self, Flavour::Passthrough | Flavour::Virtio)
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The user's part of a slice's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not offered to the host.
    Inactive,
    /// Offered to the host.
    Active,
}

/// The host's part of a slice's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpState {
    /// No driver has it.
    Detached,
    /// A driver has it.
    Attached,
    /// A driver has it and was asked to let go.
    Detaching,
}

impl State {
    /// Both parts of a VHCA's state.
    pub const fn of(s: vhca::State) -> (State, OpState) {
        match s {
            vhca::State::Invalid | vhca::State::Allocated => (State::Inactive, OpState::Detached),
            vhca::State::Active => (State::Active, OpState::Detached),
            vhca::State::InUse => (State::Active, OpState::Attached),
            vhca::State::TeardownRequest => (State::Inactive, OpState::Detaching),
        }
    }
}

/// A slice.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SliceView {
    /// The user's number of it.
    pub index: u32,
    /// What kind of function.
    pub flavour: Flavour,
    /// Its physical function.
    pub pfnum: u32,
    /// The user's number of an SF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sfnum: Option<u32>,
    /// Address, as `aa:bb:cc:dd:ee:ff`.
    pub hw_addr: String,
    /// The user's part of its state.
    pub state: State,
    /// The host's part of its state.
    pub opstate: OpState,
    /// Number of its port of the eswitch; one that the host has not added yet has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Where a guest finds it, if it is a device of a guest of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// What else can be set of it.
    #[serde(flatten)]
    pub policy: Policy,
}

/// A port of an eswitch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PortView {
    /// Physical function in the upper, vport in the lower 16 bits.
    pub index: u32,
    /// A name that no netdev's name changes: `p0`, `pf0`, `pf0sf4`.
    pub name: String,
    /// What it is.
    pub flavour: Flavour,
    /// Physical function, or number of the physical port.
    pub pfnum: u32,
    /// The user's number of an SF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sfnum: Option<u32>,
    /// Whether frames pass.
    pub link: Link,
}

/// Room of a physical function.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ResourceView {
    /// Which one.
    pub pfnum: u32,
    /// SFs that can exist.
    pub max_sfs: u32,
    /// SFs that exist.
    pub used_sfs: u32,
    /// Slices for other guests that can exist; where the host manages the eswitch they are
    /// among its SFs.
    pub max_guest_slices: u32,
    /// Slices for other guests that exist.
    pub used_guest_slices: u32,
    /// Interrupt vectors, which the physical function and its SFs share.
    pub irq_vectors: u32,
    /// Vectors that event queues are bound to.
    pub used_irq_vectors: u32,
}

pub(super) fn mac(m: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = m;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

pub(super) fn pf_slice(card: &Card) -> SliceView {
    let ctl = card.control.lock();
    let v = ctl.vports.get(&PF);
    let attached = ctl.functions.get(&PF).is_some_and(|f| f.enabled);
    SliceView {
        index: card.index as u32,
        flavour: Flavour::PciPf,
        pfnum: card.index as u32,
        sfnum: None,
        hw_addr: mac(v.map_or([0; 6], |v| v.mac)),
        state: State::Active,
        opstate: if attached { OpState::Attached } else { OpState::Detached },
        port: Some(port_index(card, PF)),
        socket: None,
        policy: v.map(|v| v.policy.clone()).unwrap_or_default(),
    }
}

pub(super) fn sf_slice(card: &Card, index: u32, place: &Place) -> SliceView {
    let ctl = card.control.lock();
    let function = ctl.sf_of_slice(index);
    let slot = function.and_then(|id| ctl.sf(id));
    let v = function.and_then(|id| ctl.vports.get(&id));
    let declared = ctl.declared.get(&place.sfnum).map(|d| d.hw_addr);
    let (state, opstate) = State::of(slot.map(|s| s.state).unwrap_or_default());
    SliceView {
        index,
        flavour: place.flavour,
        pfnum: card.index as u32,
        sfnum: Some(place.sfnum),
        hw_addr: mac(v.map(|v| v.mac).or(declared).unwrap_or_default()),
        state,
        opstate,
        port: function.map(|id| port_index(card, id)),
        socket: place.socket.clone(),
        policy: v.map(|v| v.policy.clone()).unwrap_or_default(),
    }
}

fn port_index(card: &Card, vport: u16) -> u32 {
    (card.index as u32) << 16 | u32::from(vport)
}

pub(super) fn ports(card: &Card) -> Vec<PortView> {
    let pfnum = card.index as u32;
    let port_up = card.port.is_up();
    let ctl = card.control.lock();
    let view = |number: u16| {
        let v = ctl.vports.get(&number)?;
        let slot = ctl.sf(number);
        let name = ctl.port_name(number);
        let (flavour, sfnum) = match (number, slot) {
            (UPLINK, _) => (Flavour::Physical, None),
            (PF, _) => (Flavour::PciPf, None),
            (_, Some(s)) => (s.flavour, Some(s.sw_function_id)),
            _ => (Flavour::PciVf, None),
        };
        let up = if number == UPLINK { port_up } else { v.link(port_up) };
        let link = if up { Link::Up } else { Link::Down };
        Some(PortView { index: port_index(card, number), name, flavour, pfnum, sfnum, link })
    };
    let mut numbers: Vec<u16> = ctl.vports.keys().copied().collect();
    if card.config.manager == Manager::None {
        numbers.retain(|n| *n == UPLINK);
    }
    // The physical port comes first.
    numbers.sort_by_key(|n| (*n != UPLINK, *n));
    numbers.into_iter().filter_map(view).collect()
}

pub(super) fn resources(card: &Card) -> ResourceView {
    let ctl = card.control.lock();
    let own = usize::from(card.config.max_sfs).min(ctl.sfs.len());
    let used = |slots: std::ops::Range<usize>| {
        ctl.sfs[slots].iter().filter(|s| s.state != vhca::State::Invalid).count() as u32
    };
    let mut vectors = std::collections::BTreeSet::new();
    for f in ctl.functions.values().filter(|f| !matches!(f.kind, FunctionKind::Vf | FunctionKind::Virtio)) {
        for eq in f.plane.eqs.pin().values() {
            vectors.insert(eq.queue.vector());
        }
    }
    ResourceView {
        pfnum: card.index as u32,
        max_sfs: card.config.max_sfs.into(),
        used_sfs: used(0..own),
        max_guest_slices: (ctl.sfs.len() - own) as u32,
        used_guest_slices: used(own..ctl.sfs.len()),
        irq_vectors: card.config.vectors.into(),
        used_irq_vectors: vectors.len() as u32,
    }
}
