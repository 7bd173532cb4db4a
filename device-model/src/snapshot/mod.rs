//! The whole state of the device, kept and brought back: in another process, in another
//! device of the same configuration.
//!
//! What a driver makes by a command is kept as that command ([`object`]), beside where it is
//! in what it does; rules are kept as the tables have them, and made by the calls that their
//! commands make; what else drivers, managers and the wire can notice is kept as it is. So
//! loading is refused where a driver would be refused, and a snapshot is read like what a
//! guest says: nobody believes it.
//!
//! Each structure is taken apart by name when it is kept, so that a new field does not compile
//! until somebody has thought of it here.
//!
//! Not kept: guest memory and who is mapped into it, faults and impairments (they are
//! configuration), frames that are under way on an impaired wire, commands that a fault holds
//! up, what a rate has saved up, what this process counted of itself (interrupts, commands by
//! status, events, captures).

mod card;
mod clock;
mod file;
mod function;
mod gate;
mod object;
mod vport;

use serde::{Deserialize, Serialize};
use sfnic_firmware_cmds::Refusal;
use sfnic_firmware_cmds::profile::{Caps, Profile};

pub(crate) use clock::Shifted;
pub use file::FORMAT;
use gate::Closed;
pub(crate) use gate::Gate;

use crate::control::PF;
use crate::control::vhca::State;
use crate::fabric::plane::FunctionPlane;
use crate::nic::Nic;
use crate::poll::Watch;
use crate::slice::SavedSlice;
use crate::work::Job;
use card::SavedCard;

/// Why a snapshot is not saved or loaded, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It does not begin like one.
    #[error("not a snapshot of a device")]
    Foreign,
    /// It is of another version of the program.
    #[error("of format {0}; this program reads format {FORMAT}")]
    Format(u32),
    /// It is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// It is of another device.
    #[error("of another device: {0}")]
    Other(String),
    /// Somebody uses the device.
    #[error("{0}; a snapshot is loaded into a device that no driver uses")]
    InUse(String),
    /// The device did not come to rest.
    #[error("the device is busy: a burst did not end in time")]
    Busy,
    /// A slice cannot be offered again.
    #[error("{0}")]
    Slice(#[from] crate::slice::SliceError),
}

/// The device stands still.
#[must_use]
#[derive(Debug)]
pub struct Still<'a>(#[expect(dead_code, reason = "as of what it holds")] Closed<'a>);

fn refused(what: &str, why: Refusal) -> SnapshotError {
    SnapshotError::Damaged(format!("{what}: {why}"))
}

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    profile: String,
    /// Of what the profile offers, changes by the user included.
    offers: u32,
    now_ns: u64,
    slices: Vec<SavedSlice>,
    cards: Vec<SavedCard>,
}

/// A snapshot's content as text, to find what differs.
///
/// # Errors
/// It is none.
pub fn text(bytes: &[u8]) -> Result<String, SnapshotError> {
    let saved: Saved = file::open(bytes)?;
    Ok(format!("{saved:#?}"))
}

/// A sum over what a profile offers.
fn offers(p: &Profile) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    for Caps { groups } in [&p.pf, &p.sf] {
        for (id, (max, current)) in groups {
            sum.update(&id.to_be_bytes());
            sum.update(max);
            sum.update(current);
        }
    }
    sum.finalize()
}

impl Nic {
    /// The state of the device, as bytes for a file. Everybody waits meanwhile: no burst runs,
    /// no command is executed.
    ///
    /// # Errors
    /// The device does not come to rest.
    pub fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        let still = self.hold_still()?;
        self.save_still(&still)
    }

    /// Keeps the device still as long as the answer lives.
    ///
    /// # Errors
    /// It does not come to rest.
    pub fn hold_still(&self) -> Result<Still<'_>, SnapshotError> {
        self.gate.close().map(Still).ok_or(SnapshotError::Busy)
    }

    /// As [`Nic::save`], of a device that is still and may stay so.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn save_still(&self, _: &Still<'_>) -> Result<Vec<u8>, SnapshotError> {
        // What was rung and nobody has looked at would be lost.
        self.look_at_all(&mut Watch::default(), 0, 1);
        let saved = Saved {
            profile: self.profile.name.clone(),
            offers: offers(&self.profile),
            now_ns: self.clock.now_ns(),
            slices: self.save_slices(),
            cards: self.cards.iter().map(|card| self.save_card(card)).collect(),
        };
        file::seal(&saved)
    }

    /// Makes this device what the other one was. Slices that it has are no more. What queues
    /// have to do is done as soon as workers come to it; links are as the wires here are, and
    /// drivers hear of it where that is something else.
    ///
    /// # Errors
    /// `bytes` are no snapshot, or one of another version or device; somebody uses this one.
    /// Then it is as after power-on.
    pub fn load(&self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let saved: Saved = file::open(bytes)?;
        self.fits(&saved)?;
        self.check_unused()?;
        self.forget_all();
        let closed = self.gate.close().ok_or(SnapshotError::Busy)?;
        let done = self.check_unused().and_then(|()| self.bring_back(saved));
        drop(closed);
        if let Err(why) = done {
            self.forget_all();
            return Err(why);
        }
        self.flows.changed();
        self.update_changed_links();
        self.resume();
        Ok(())
    }

    fn fits(&self, saved: &Saved) -> Result<(), SnapshotError> {
        if saved.profile != self.profile.name {
            let (there, here) = (&saved.profile, &self.profile.name);
            return Err(SnapshotError::Other(format!("its profile is {there}, here it is {here}")));
        }
        if saved.offers != offers(&self.profile) {
            return Err(SnapshotError::Other("its profile offers other capabilities (--cap)".to_owned()));
        }
        if saved.cards.len() != self.cards.len() {
            let (there, here) = (saved.cards.len(), self.cards.len());
            return Err(SnapshotError::Other(format!("it has {there} physical functions, here are {here}")));
        }
        self.cards.iter().zip(&saved.cards).try_for_each(|(card, saved)| saved.fits(card))
    }

    fn check_unused(&self) -> Result<(), SnapshotError> {
        for card in &self.cards {
            let ctl = card.control.lock();
            if ctl.functions.get(&PF).is_some_and(|f| f.enabled) {
                return Err(SnapshotError::InUse(format!("pf {} has a driver", card.index)));
            }
            let used = |s: &State| matches!(s, State::InUse | State::TeardownRequest);
            if let Some(slot) = ctl.sfs.iter().find(|s| used(&s.state)) {
                return Err(SnapshotError::InUse(format!(
                    "slice sfnum {} of pf {} has a driver",
                    slot.sw_function_id, card.index
                )));
            }
        }
        Ok(())
    }

    /// As after power-on, without slices.
    fn forget_all(&self) {
        self.forget_slices();
        for card in &self.cards {
            self.reset(card);
            self.forget_sfs(card);
        }
    }

    fn bring_back(&self, saved: Saved) -> Result<(), SnapshotError> {
        self.shift.set(saved.now_ns);
        let endpoints = self.restore_slices(&saved.slices)?;
        for (card, saved) in self.cards.iter().zip(saved.cards) {
            self.restore_card(card, saved, &endpoints)?;
        }
        self.offer_restored(&saved.slices)?;
        self.settle_slices();
        Ok(())
    }

    /// Hands queues to workers that had work before.
    fn resume(&self) {
        for card in &self.cards {
            let planes: Vec<_> = card.control.lock().functions.values().map(|f| f.plane.clone()).collect();
            planes.into_iter().for_each(|function| self.resume_function(card.index, &function));
        }
    }

    fn resume_function(&self, card: usize, function: &std::sync::Arc<FunctionPlane>) {
        for cq in function.cqs.pin().values() {
            cq.queue.resume();
        }
        for sq in function.sqs.pin().values() {
            if sq.queue.waits() {
                self.work.push(Job { card, function: function.clone(), sq: sq.queue.clone() });
            }
        }
    }
}
