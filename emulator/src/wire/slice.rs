//! A wire at a virtio slice: its far end is the host side of the slice's vport.

use std::sync::Arc;
use std::time::Duration;

use sfnic_device_model::Nic;
use sfnic_device_model::fabric::arrive::Door;
use sfnic_device_model::fabric::peer::Peer;
use sfnic_device_model::fabric::vport::Vport;
use sfnic_device_model::slice::VirtioEnd;

use super::offload::Offload;
use super::port::{Patience, prepare, take_burst};
use super::{Inlet, Link, Outlet, Sender, WirePort};

/// Hands what a virtual machine sends to the vport of its slice.
pub struct SliceInlet {
    nic: Arc<Nic>,
    end: Arc<VirtioEnd>,
    link: Arc<Link>,
    peer: Arc<Peer>,
    worker: usize,
    patience: Patience,
}

impl SliceInlet {
    /// A slice whose machine is at the far end of a wire; `worker` is a number that no other
    /// thread has.
    pub fn new(nic: Arc<Nic>, end: Arc<VirtioEnd>, outlet: Arc<dyn Outlet>, link: Arc<Link>, worker: usize) -> Self {
        let peer = Peer::new(Arc::new(WirePort::new(outlet, link.clone())));
        Self { nic, end, link, peer, worker, patience: Patience::default() }
    }

    fn vport(&self) -> Option<Arc<Vport>> {
        self.end.vport()
    }
}

impl Inlet for SliceInlet {
    fn receive(&mut self, frame: &mut [u8], offload: Offload) {
        let Some(vport) = self.vport() else { return };
        let segment = prepare(frame, offload);
        let patience = &self.patience;
        patience.grant(frame.len(), segment);
        let door = (self.end.card, &*vport);
        self.nic.receive_at_vport(self.worker, door, frame, segment, &mut || patience.wait());
    }

    fn receive_burst<'m>(&mut self, sender: &mut dyn Sender<'m>) {
        let (Some(vport), Some(card)) = (self.vport(), self.nic.cards.get(self.end.card)) else {
            // Nobody is to send here: what comes is lost.
            let mut pieces = super::Pieces::new();
            while sender.next(&mut pieces).is_some() {
                pieces.clear();
            }
            return sender.done();
        };
        take_burst(&self.nic, self.worker, Door::Vport(card, &vport), &self.patience, sender);
    }

    fn link_changed(&mut self) {
        self.nic.virtio_peer(&self.end, self.link.is_up().then(|| self.peer.clone()));
    }

    fn wanted(&self) -> bool {
        self.end.is_wanted()
    }

    fn pause(&self) -> Option<Duration> {
        let now = self.nic.clock.now_ns();
        let due = self.vport()?.rate.allowance(|| now).err()?;
        Some(Duration::from_nanos(due.saturating_sub(now)))
    }
}
