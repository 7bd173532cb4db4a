//! The life cycle of functions: what resets, attaching, detaching and their ends
//! do to everything else.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::CmdHcaCap;

use crate::control::caps::Caps;
use crate::control::function::{Function, FunctionKind};
use crate::control::iseg::Iseg;
use crate::control::sf::{SfSlot, event_data};
use crate::control::vhca::{Cause, Observer, State};
use crate::control::vport::{Admin, VportControl};
use crate::control::{After, Control, PF};
use crate::events::Happening;
use crate::fabric::plane::FunctionPlane;
use crate::irq::IrqLine;
use crate::nic::{Card, DEFAULT_MTU, Manager, Nic};
use crate::slice::{Flavour, default_address};
use crate::steering::{Limits, Steering};
use crate::trace::Record;

impl Nic {
    /// Brings a card to the state after power-on: what DEVICE_RESET and a
    /// function level reset do. Sub-functions go with their physical function.
    pub fn reset(&self, card: &Card) {
        self.reset_behind(card);
        card.pci.lock().reset();
    }

    /// As [`Self::reset`], behind the driver's back: whoever did it left
    /// configuration space as it was, as a hypervisor does.
    pub(crate) fn reset_behind(&self, card: &Card) {
        let mut ctl = card.control.lock();
        self.trace.record(card.index, PF, &Record::Reset);
        self.reset_locked(card, &mut ctl);
        drop(ctl);
        self.update_links();
    }

    /// The firmware begins again, because the driver asks for it by the init
    /// segment (`reset_fw_if_needed`). Of what ails it nothing remains.
    pub(crate) fn firmware_reset(&self, card: &Card, ctl: &mut Control) {
        self.faults.cured(card.index);
        self.reset_locked(card, ctl);
        ctl.after.push(After::PortChanged);
    }

    fn reset_locked(&self, card: &Card, ctl: &mut Control) {
        self.events.push(Happening::Reset { pf: card.index });
        self.host_gone(card, ctl);
        if let Some(f) = ctl.functions.get_mut(&PF) {
            f.plane.vport.function.store(None);
            f.clear_objects();
            f.enabled = false;
            f.issi = 0;
            f.iseg = Iseg::default();
            f.caps = card.pf_caps(&self.profile);
        }
        for (_, v) in own_vports(ctl) {
            v.reg_c_id = 0;
            v.publish_reg_c();
            v.mtu = DEFAULT_MTU;
            v.min_inline = 0;
            v.forget_driver();
        }
        ctl.l2_table.clear();
        card.fabric.tunnels.store(Arc::default());
        ctl.port_regs = Default::default();
        card.port.admin_up.store(false, Relaxed);
        card.port.mtu.store(crate::fabric::port::MAX_FRAME, Relaxed);
        self.flows.changed();
    }

    /// The physical function was reset: SFs of its own go with it, slices that
    /// somebody else manages lose their drivers.
    fn host_gone(&self, card: &Card, ctl: &mut Control) {
        match card.config.manager {
            Manager::Host => self.all_sfs(card, ctl, Cause::PfReset, Self::sf_freed),
            _ => self.all_sfs(card, ctl, Cause::HostReset, Self::sf_detached),
        }
    }

    /// The same happens to every SF that it changes anything for.
    fn all_sfs(&self, card: &Card, ctl: &mut Control, cause: Cause, end: fn(&Self, &Card, &mut Control, u16)) {
        // What is another guest's goes with its manager only.
        let concerned = |id: &u16| cause == Cause::PfReset || ctl.sf(*id).is_some_and(|s| !s.flavour.is_of_a_guest());
        let ids: Vec<u16> = ctl.functions.keys().copied().filter(|id| *id != PF && concerned(id)).collect();
        for id in ids {
            if ctl.sf_transition(id, cause).is_ok() {
                end(self, card, ctl, id);
            }
        }
        for s in &mut ctl.sfs {
            s.observer = Observer::new(s.state);
        }
    }

    /// A new SF: its function and its vport exist from here on.
    pub(crate) fn sf_allocated(&self, card: &Card, ctl: &mut Control, id: u16) {
        let vport = VportControl::new(id, [0; 6], DEFAULT_MTU, Admin::Auto);
        card.fabric.vports.pin().insert(id, vport.plane.clone());
        ctl.vports.insert(id, vport);
        if let Some(s) = ctl.sf_mut(id) {
            s.sw_function_id = 0;
            s.generation = s.generation.wrapping_add(1);
        }
        self.sf_made(card, ctl, id);
    }

    /// What a function of a card can do before anybody changes it.
    pub(crate) fn new_caps(&self, card: &Card, id: u16) -> Caps {
        if id == PF {
            return card.pf_caps(&self.profile);
        }
        let mut caps = self.sf_caps.clone();
        caps.fix(CmdHcaCap::vhca_id, card.vhca_id(Some(id.wrapping_sub(card.config.sf_base))).into());
        caps
    }

    /// Makes the function of an SF's slot, of the flavour that the slot has.
    pub(crate) fn sf_made(&self, card: &Card, ctl: &mut Control, id: u16) {
        let Some(slot) = ctl.sf(id).cloned() else { return };
        let Some(vport) = ctl.vports.get_mut(&id) else { return };
        let vhca_id = card.vhca_id(Some(id.wrapping_sub(ctl.sf_base)));
        let caps = self.new_caps(card, id);
        let (kind, dma, irq) = match (slot.flavour, &slot.endpoint) {
            (Flavour::Passthrough, Some(e)) => {
                e.lead_to(Some(id));
                (FunctionKind::Vf, e.dma.clone(), e.irq.clone())
            }
            // Nobody reaches it: its memory and its interrupts are nobody's.
            (Flavour::Virtio | Flavour::Passthrough, _) => {
                let irq = IrqLine::new(card.index, 0, self.faults.clone());
                (FunctionKind::Virtio, Arc::default(), Arc::new(irq))
            }
            _ => (FunctionKind::Sf, card.dma.clone(), card.irq.clone()),
        };
        vport.set_groups(slot.flavour == Flavour::Virtio);
        let steering = Steering::with(Limits::default(), self.flows.changes.clone());
        let plane = FunctionPlane::new(id, vhca_id, vport.plane.clone(), dma, steering.reader());
        ctl.functions.insert(id, Function::new(id, kind, vhca_id, caps, plane, irq, steering));
    }

    /// The host's manager gives an SF its number. Where that is a slice's, the SF is a device
    /// of another guest from here on.
    pub(crate) fn sf_named(&self, card: &Card, ctl: &mut Control, id: u16, number: u32) {
        let declared = ctl.declared.get(&number).cloned();
        // Two of a number are the manager's mistake; the first one has the slice.
        let declared = declared.filter(|d| ctl.sf_of_slice(d.index).is_none());
        let Some(slot) = ctl.sf_mut(id) else { return };
        slot.sw_function_id = number;
        let before = slot.flavour;
        slot.flavour = declared.as_ref().map_or(Flavour::PciSf, |d| d.flavour);
        slot.slice = declared.as_ref().map(|d| d.index);
        let old = std::mem::replace(&mut slot.endpoint, declared.as_ref().and_then(|d| d.endpoint.clone()));
        let changed = slot.flavour != before || declared.is_some();
        if let Some(e) = old {
            e.lead_to(None);
        }
        if let Some(v) = ctl.vports.get_mut(&id) {
            v.plane.user_number.store(number, Relaxed);
            if let Some(d) = declared.as_ref().filter(|d| d.hw_addr != [0; 6]) {
                v.set_address(d.hw_addr);
            } else if let Some(d) = declared.as_ref().filter(|d| d.flavour == Flavour::Virtio) {
                v.set_address(default_address(d.index));
            }
        }
        if changed {
            self.sf_made(card, ctl, id);
        }
        if declared.is_some_and(|d| d.active) && ctl.sf_transition(id, Cause::Activate).is_ok() {
            self.sf_activated(card, ctl, id);
        }
    }

    /// The manager activated an SF: its window answers from here on.
    pub(crate) fn sf_activated(&self, card: &Card, ctl: &mut Control, id: u16) {
        if let Some(f) = ctl.functions.get_mut(&id) {
            f.iseg = Iseg::default();
        }
        self.virtio_settle(card, ctl, id);
    }

    /// No driver is attached any more and none may attach: nothing of it stays.
    pub(crate) fn sf_detached(&self, card: &Card, ctl: &mut Control, id: u16) {
        self.teardown_function(card, ctl, id);
        if let Some(f) = ctl.functions.get_mut(&id) {
            f.enabled = false;
            f.iseg = Iseg::default();
            // What the driver enabled goes; what the manager allowed stays.
            f.caps.driver_left();
        }
        self.refresh_vport_link(card, ctl, id);
    }

    /// An SF is gone: function, vport, objects, tables of its ports.
    pub(crate) fn sf_freed(&self, card: &Card, ctl: &mut Control, id: u16) {
        self.teardown_function(card, ctl, id);
        ctl.functions.remove(&id);
        card.fabric.vports.pin().remove(&id);
        ctl.vports.remove(&id);
        self.flows.changed();
        if let Some(slice) = ctl.sf(id).filter(|s| s.flavour == Flavour::Virtio).and_then(|s| s.slice) {
            self.virtio_gone(slice);
        }
        if let Some(s) = ctl.sf_mut(id) {
            s.sw_function_id = 0;
            s.slice = None;
            s.flavour = Flavour::PciSf;
            if let Some(e) = s.endpoint.take() {
                e.lead_to(None);
            }
        }
    }

    /// No SF is there any more, whoever manages them; none has a driver.
    pub(crate) fn forget_sfs(&self, card: &Card) {
        let mut ctl = card.control.lock();
        self.all_sfs(card, &mut ctl, Cause::PfReset, Self::sf_freed);
        // Slots whose functions were never made, where that failed.
        ctl.sfs.fill_with(SfSlot::default);
    }

    /// TEARDOWN_HCA: the function's objects are destroyed.
    pub(crate) fn teardown_function(&self, card: &Card, ctl: &mut Control, id: u16) {
        let Some(f) = ctl.functions.get_mut(&id) else { return };
        f.plane.vport.function.store(None);
        f.plane.vport.peer.store(None);
        f.clear_objects();
        if id == PF {
            ctl.l2_table.clear();
            card.fabric.tunnels.store(Arc::default());
        }
        if let Some(v) = ctl.vports.get_mut(&id) {
            v.forget_driver();
        }
        self.flows.changed();
    }

    /// The function's own DISABLE_HCA.
    pub(crate) fn disable_function(&self, card: &Card, ctl: &mut Control, id: u16) {
        self.teardown_function(card, ctl, id);
        let Some(f) = ctl.functions.get_mut(&id) else { return };
        f.enabled = false;
        f.issi = 0;
        if id == PF {
            // Without a driver there is no manager: its SFs cannot live on.
            if card.config.manager == Manager::Host {
                self.all_sfs(card, ctl, Cause::PfReset, Self::sf_freed);
            }
            if let Some(f) = ctl.functions.get_mut(&PF) {
                f.caps = card.pf_caps(&self.profile);
            }
            card.port.admin_up.store(false, Relaxed);
            ctl.after.push(After::PortChanged);
        } else {
            // Where a fault holds on to it, its driver is gone and nobody hears of it.
            let after = match ctl.holds_detach(id) {
                true => Ok(State::TeardownRequest),
                false => ctl.sf_transition(id, Cause::Detach).map(|(_, after)| after),
            };
            match after {
                Ok(State::Allocated) => self.sf_detached(card, ctl, id),
                // The next driver finds what the manager configured.
                Ok(_) => ctl.functions.get_mut(&id).into_iter().for_each(|f| f.caps.driver_left()),
                Err(_) => {}
            }
        }
    }

    /// The manager takes an SF back: nothing of it reaches anybody from here on, also if its
    /// driver does not let go of it.
    pub(crate) fn sf_deactivated(&self, card: &Card, ctl: &mut Control, id: u16, after: State) {
        match after {
            State::Allocated => self.sf_detached(card, ctl, id),
            _ => self.refresh_vport_link(card, ctl, id),
        }
        self.virtio_settle(card, ctl, id);
    }

    /// Nobody keeps hosts from hearing that SFs are taken back, nor us from
    /// hearing that they are detached: both is made up for.
    pub(crate) fn release_detach(&self) {
        for card in &self.cards {
            let mut ctl = card.control.lock();
            for id in ctl.waiting_for_detach() {
                if ctl.functions.get(&id).is_some_and(|f| f.enabled) {
                    ctl.sf_remind(id);
                } else if ctl.sf_transition(id, Cause::Detach).is_ok() {
                    self.sf_detached(card, &mut ctl, id);
                }
            }
        }
    }

    /// Whether a vport's frames pass may have changed: tells the packet path
    /// and the function behind it.
    pub(crate) fn refresh_vport_link(&self, card: &Card, ctl: &mut Control, number: u16) {
        let port_up = card.port.is_up();
        let closed = ctl.detaching(number).is_some();
        let Some(v) = ctl.vports.get_mut(&number) else { return };
        v.closed = closed;
        let up = v.link(port_up);
        v.plane.link.store(up, Relaxed);
        self.flows.changed();
        if std::mem::replace(&mut v.link_told, up) == up {
            return;
        }
        let port = ctl.port_name(number);
        self.events.push(Happening::Link { pf: card.index, vport: number, port, up });
        if let Some(f) = ctl.functions.get(&number).filter(|f| f.initialised) {
            let mut eqe = [0; 64];
            ViewMut::<Eqe>::new(&mut eqe).set(Eqe::port, 1);
            let sub = if up { event::PORT_ACTIVE } else { event::PORT_DOWN };
            f.notify(event::PORT_CHANGE, sub, &event_data(&eqe));
        }
    }
}

/// The vports that the physical function's host has a part in: its own, its SFs', the uplink.
fn own_vports(ctl: &mut Control) -> impl Iterator<Item = (u16, &mut VportControl)> {
    let Control { vports, sfs, sf_base, .. } = ctl;
    let others = |n: u16| {
        let slot = n.checked_sub(*sf_base).and_then(|i| sfs.get(usize::from(i)));
        slot.is_some_and(|s| s.flavour.is_of_a_guest())
    };
    vports.iter_mut().map(|(n, v)| (*n, v)).filter(move |(n, _)| !others(*n))
}
