//! Watching the device at its edge: commands, events, doorbells, accesses to
//! the windows. What is done with them is the world's ([`Recorder`]).

use std::sync::{Arc, OnceLock};

use crate::world::Clock;

/// Something that crossed the edge of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A command was fetched, executed and answered. `output` is empty where
    /// it could not be delivered.
    Command {
        /// Entry of the command queue.
        slot: u8,
        /// What the entry's status says (`status::Delivery`).
        delivery: u8,
        /// What the driver sent.
        input: &'a [u8],
        /// What it was answered.
        output: &'a [u8],
    },
    /// An event was written to a queue.
    Event {
        /// Number of the queue.
        eqn: u8,
        /// The entry.
        entry: &'a [u8],
    },
    /// A write to a UAR page.
    Doorbell {
        /// Byte in the function's window.
        offset: u64,
        /// What was written.
        data: &'a [u8],
    },
    /// A read from the rest of a window.
    Read {
        /// Byte in the function's window.
        offset: u64,
        /// What was answered.
        data: &'a [u8],
    },
    /// A write to the rest of a window.
    Write {
        /// Byte in the function's window.
        offset: u64,
        /// What was written.
        data: &'a [u8],
    },
    /// The card was reset.
    Reset,
}

/// Where and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The clock's nanoseconds.
    pub time_ns: u64,
    /// Number of the card.
    pub card: u8,
    /// Function of the card.
    pub function: u16,
}

/// Takes what happens. Called from every thread of the device, with locks of
/// the device held: it may not wait long nor call back.
pub trait Recorder: Send + Sync {
    /// Something happened.
    fn record(&self, at: Origin, what: &Record<'_>);
}

struct On {
    recorder: Arc<dyn Recorder>,
    clock: Arc<dyn Clock>,
}

/// A device's recorder, where it has one. Without one a hook costs a load.
#[derive(Default)]
pub struct Trace(OnceLock<Arc<On>>);

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trace").field(&self.0.get().is_some()).finish()
    }
}

impl Trace {
    /// Records from here on; once, before the first driver.
    pub(crate) fn start(&self, recorder: Arc<dyn Recorder>, clock: Arc<dyn Clock>) {
        let _ = self.0.set(Arc::new(On { recorder, clock }));
    }

    /// Hands over what happened, if anyone wants to know.
    pub(crate) fn record(&self, card: usize, function: u16, what: &Record<'_>) {
        if let Some(on) = self.0.get() {
            on.record(card, function, what);
        }
    }

    /// For a queue of a function: who records its events.
    pub(crate) fn tap(&self, card: usize, function: u16) -> Option<Tap> {
        self.0.get().map(|on| Tap { on: on.clone(), card, function })
    }
}

impl On {
    fn record(&self, card: usize, function: u16, what: &Record<'_>) {
        let at = Origin { time_ns: self.clock.now_ns(), card: card as u8, function };
        self.recorder.record(at, what);
    }
}

/// Records events of a function.
pub struct Tap {
    on: Arc<On>,
    card: usize,
    function: u16,
}

impl Tap {
    /// An entry was written.
    pub(crate) fn event(&self, eqn: u8, entry: &[u8]) {
        self.on.record(self.card, self.function, &Record::Event { eqn, entry });
    }
}

/// Fills bits that mean nothing with noise that follows from a seed, to find
/// drivers that read them.
#[derive(Debug, Default)]
pub struct Noise(OnceLock<u64>);

impl Noise {
    /// From here on, with this seed.
    pub fn start(&self, seed: u64) {
        let _ = self.0.set(seed);
    }

    /// Fills the undeclared bits of an answer behind its status and syndrome.
    pub(crate) fn answer(&self, input: &[u8], output: &mut [u8], place: u64) {
        let Some(seed) = self.0.get() else { return };
        use crate::cmd::fields::{Side, bits, set_bits, walk};
        use sfnic_firmware_cmds::Opcode;
        // The masks of MCAM say which registers there are: a bit of them means
        // something though no layout names it.
        const MCAM: u64 = 0x907f;
        // Where Linux 6.1 looks for `shampo` of the general capabilities, which is elsewhere now.
        const SHAMPO: usize = 128 + 186;
        let opcode = Opcode(bits(input, 0, 16) as u16);
        let mask = opcode == Opcode::ACCESS_REG && bits(input, 80, 16) == MCAM;
        // The lowest bit of op_mod says whether the most or the present value is asked for.
        let general = opcode == Opcode::QUERY_HCA_CAP && bits(input, 48, 16) >> 1 == 0;
        let mut holes = vec![];
        walk(input, Side::Output, output, |leaf, _| {
            if !leaf.declared && leaf.bit >= 64 && !mask {
                holes.push((leaf.bit, leaf.width));
            }
        });
        for (bit, width) in holes {
            set_bits(output, bit, width, mix(seed ^ mix(place) ^ mix(bit as u64)));
        }
        if general {
            set_bits(output, SHAMPO, 1, 0);
        }
    }

    /// The seed, for queues that fill entries of their own.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.0.get().copied()
    }
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit
/// of the argument.
pub(crate) const fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sfnic_firmware_cmds::Opcode;

    #[test]
    fn noise_fills_reserved_bits_only_and_the_same_every_time() {
        let noise = Noise::default();
        let mut input = [0; 16];
        input[..2].copy_from_slice(&Opcode::CREATE_CQ.0.to_be_bytes());
        let clean = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0];
        let mut out = clean;
        noise.answer(&input, &mut out, 1);
        assert_eq!(out, clean, "off");
        noise.start(7);
        noise.answer(&input, &mut out, 1);
        assert_ne!(out, clean);
        assert_eq!((&out[..8], &out[9..12]), (&clean[..8], &clean[9..12]));
        let mut again = clean;
        noise.answer(&input, &mut again, 1);
        assert_eq!(out, again);
        noise.answer(&input, &mut again, 2);
        assert_ne!(out, again);
    }

    #[test]
    fn what_an_earlier_driver_reads_stays_as_it_is() {
        let noise = Noise::default();
        noise.start(7);
        let mut input = [0; 16];
        input[..2].copy_from_slice(&Opcode::QUERY_HCA_CAP.0.to_be_bytes());
        let answers: Vec<_> = (0..64)
            .map(|place| {
                let mut out = [0; 16 + 0x100];
                noise.answer(&input, &mut out, place);
                out[16 + 0x17]
            })
            .collect();
        assert!(answers.iter().all(|a| a & 1 << 5 == 0), "shampo of Linux 6.1");
        assert!(answers.iter().any(|a| *a != 0), "its neighbours");
    }
}
