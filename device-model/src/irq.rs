//! The interrupts of a physical function, whoever listens at present.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::fabric::counters::Counter;
use crate::faults::{Faults, Place};
use crate::world::Interrupts;

struct Target(Arc<dyn Interrupts>);

/// A line to the present listener; silent without one.
pub struct IrqLine {
    target: ArcSwapOption<Target>,
    /// Interrupts raised, by vector.
    raised: Box<[Counter]>,
    faults: Arc<Faults>,
    pf: usize,
}

impl std::fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IrqLine({} raised)", self.total())
    }
}

impl IrqLine {
    /// The line of a card, of so many vectors.
    pub fn new(pf: usize, vectors: u16, faults: Arc<Faults>) -> Self {
        let raised = (0..vectors).map(|_| Counter::default()).collect();
        Self { target: ArcSwapOption::empty(), raised, faults, pf }
    }

    /// A listener came, or the last one went.
    pub fn connect(&self, target: Option<Arc<dyn Interrupts>>) {
        self.target.store(target.map(|t| Arc::new(Target(t))));
    }

    /// Whether somebody listens.
    pub fn is_connected(&self) -> bool {
        self.target.load().is_some()
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.raised.len() as u16
    }

    /// How often each vector was raised.
    pub fn raised(&self) -> impl Iterator<Item = u64> {
        self.raised.iter().map(Counter::get)
    }

    /// How many interrupts were raised.
    pub fn total(&self) -> u64 {
        self.raised().sum()
    }
}

impl Interrupts for IrqLine {
    fn raise(&self, vector: u16) {
        if self.faults.at(Place::Interrupt) && self.faults.loses_interrupt(self.pf, vector) {
            return;
        }
        // A vector beyond the table is refused when its queue is created.
        if let Some(n) = self.raised.get(usize::from(vector)) {
            n.add(1);
        }
        if let Some(t) = &*self.target.load() {
            t.0.raise(vector);
        }
    }
}
