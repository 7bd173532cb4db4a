//! The interrupts of a physical function, whoever listens at present.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::fabric::counters::Counter;
use crate::world::Interrupts;

struct Target(Arc<dyn Interrupts>);

/// A line to the present listener; silent without one.
#[derive(Default)]
pub struct IrqLine {
    target: ArcSwapOption<Target>,
    /// Interrupts raised.
    pub raised: Counter,
}

impl std::fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IrqLine({} raised)", self.raised.get())
    }
}

impl IrqLine {
    /// A listener came, or the last one went.
    pub fn connect(&self, target: Option<Arc<dyn Interrupts>>) {
        self.target.store(target.map(|t| Arc::new(Target(t))));
    }
}

impl Interrupts for IrqLine {
    fn raise(&self, vector: u16) {
        self.raised.add(1);
        if let Some(t) = &*self.target.load() {
            t.0.raise(vector);
        }
    }
}
