//! UAR pages that are plain memory.
//!
//! A doorbell that the device is told of costs the guest an exit, and a message of
//! QEMU's. Where the pages are memory that guest and device share it costs a store, and
//! workers look at the pages. Drivers write a doorbell behind the record that says the
//! same, so what counts is that something was rung: a doorbell that another one replaced
//! before anybody looked is found by its record. Only the doorbells of event queues have
//! none; see [`crate::queue::EqConfig::unheard`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bar::PAGE;
use crate::fabric::plane::FunctionPlane;
use crate::nic::{Card, Nic};
use crate::queue::{CQ_DOORBELL, Cq, Doorbell, Sq, sq_doorbells};
use crate::trace::Record;
use crate::work::Job;
use crate::world::Doorbells;

/// The pages that a worker looks at.
#[derive(Debug, Default)]
pub struct Watch {
    /// When the list was made.
    epoch: Option<u32>,
    pages: Vec<Page>,
}

/// A page, and the queues that are rung there.
#[derive(Debug)]
struct Page {
    card: usize,
    function: Arc<FunctionPlane>,
    bar: u8,
    /// Of the page in the BAR, and in the function's window.
    offset: u64,
    at: u64,
    sqs: Vec<Arc<Sq>>,
    cqs: Vec<Arc<Cq>>,
}

impl Nic {
    /// Looks at the UAR pages that are plain memory and rings what was rung there; true
    /// where anything was. Of `workers` threads each has pages of its own.
    pub fn look_at_doorbells(&self, watch: &mut Watch, worker: usize, workers: usize) -> bool {
        let _still = self.gate.enter();
        self.look_at_all(watch, worker, workers)
    }

    /// The same for one who is in the device already.
    pub(crate) fn look_at_all(&self, watch: &mut Watch, worker: usize, workers: usize) -> bool {
        let epoch = self.flows.now().epoch();
        if watch.epoch != Some(epoch) {
            let pages = self.cards.iter().flat_map(|card| self.pages(card, worker, workers)).collect();
            *watch = Watch { epoch: Some(epoch), pages };
        }
        let mut any = false;
        for page in &watch.pages {
            any |= self.look_at(page);
        }
        any
    }

    /// The pages of a card that a worker looks at.
    fn pages(&self, card: &Card, worker: usize, workers: usize) -> Vec<Page> {
        let mut pages = vec![];
        for vport in card.fabric.vports.pin().values() {
            let Some(function) = vport.function.load_full() else { continue };
            if !card.is_polled(&function) {
                continue;
            }
            let Some((bar, window)) = card.window(function.id) else { continue };
            let mut of_function: BTreeMap<u32, Page> = BTreeMap::new();
            let new = |number: u32| {
                let at = u64::from(number) * PAGE;
                let function = function.clone();
                Page { card: card.index, function, bar, offset: window + at, at, sqs: vec![], cqs: vec![] }
            };
            for sq in function.sqs.pin().values() {
                of_function.entry(sq.uar).or_insert_with(|| new(sq.uar)).sqs.push(sq.queue.clone());
            }
            for cq in function.cqs.pin().values() {
                of_function.entry(cq.uar).or_insert_with(|| new(cq.uar)).cqs.push(cq.queue.clone());
            }
            let mine = |number: u32| (usize::from(function.id) + number as usize) % workers.max(1) == worker;
            pages.extend(of_function.into_iter().filter(|(number, _)| mine(*number)).map(|(_, page)| page));
        }
        pages
    }

    fn look_at(&self, page: &Page) -> bool {
        let Some(card) = self.cards.get(page.card) else { return false };
        let Some(doorbells) = card.config.doorbells.as_ref().filter(|_| !self.faults.is_gone(card.index)) else {
            return false;
        };
        let take = |at: u16| self.take(card, page, doorbells.as_ref(), at);
        let mut any = false;
        for rung in sq_doorbells().filter_map(take) {
            any = true;
            let Doorbell::Sq { sqn, .. } = rung else { continue };
            let mem = card.dma.load();
            for sq in &page.sqs {
                // Whose doorbell was replaced is told by its record.
                let news = if sq.config().sqn == sqn { sq.doorbell() } else { sq.scan(&mem) };
                if news {
                    let (card, function) = (card.index, page.function.clone());
                    self.work.push_back_quietly(Job { card, function, sq: sq.clone() });
                }
            }
        }
        if take(CQ_DOORBELL).is_some() {
            any = true;
            let mem = card.dma.load();
            page.cqs.iter().for_each(|cq| cq.poll_arm(&mem));
        }
        any
    }

    /// What was written at a place of a page since somebody looked.
    fn take(&self, card: &Card, page: &Page, doorbells: &dyn Doorbells, at: u16) -> Option<Doorbell> {
        let data = doorbells.take(page.bar, page.offset + u64::from(at));
        if data == [0; 8] {
            return None;
        }
        let record = Record::Doorbell { offset: page.at + u64::from(at), data: &data };
        self.trace.record(card.index, page.function.id, &record);
        Doorbell::decode(at, &data)
    }
}
