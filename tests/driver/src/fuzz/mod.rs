//! Structured fuzzing: commands and WQEs that are nearly right.
//!
//! [`World`] is a device with several drivers that know what they made. Each
//! step of [`World::step`] takes a valid command, made from the layouts of
//! `cmd::table::ROWS` and the numbers of objects that exist, and spoils some of
//! its fields; or a WQE, an entry of the command queue, a doorbell, a record;
//! or carries ordinary traffic. The choices come from an [`Entropy`]: a seeded
//! generator in a test, the bytes of the input in a fuzzer.
//!
//! [`World::check`] is what must hold whatever happened.

mod actor;
mod book;
mod coverage;
mod fields;
mod templates;
mod world;

pub use coverage::{Coverage, Reached};
pub use world::{Mix, World};

/// Runs a fuzzer's input as steps of one kind, and checks what must hold.
/// Panics where the device does or where it does not hold.
pub fn one(mix: Mix, input: &[u8]) {
    let mut entropy = Input(input);
    let mut world = World::new();
    while entropy.more() {
        world.step(mix, &mut entropy);
    }
    world.check();
    world.restart();
}

/// Where choices come from.
pub trait Entropy {
    /// 64 bits.
    fn next(&mut self) -> u64;

    /// Whether there is more to come.
    fn more(&self) -> bool {
        true
    }

    /// A number below `n` (0 where `n` is 0).
    fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    /// True once in `n` times.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these; panics where there is none.
    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A generator with a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Seeded(pub u64);

impl Entropy for Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The input of a fuzzer, taken two bytes at a time; zeros behind its end.
#[derive(Debug, Clone)]
pub struct Input<'a>(pub &'a [u8]);

impl Entropy for Input<'_> {
    fn next(&mut self) -> u64 {
        match self.0 {
            [a, b, rest @ ..] => {
                self.0 = rest;
                let n = u64::from(u16::from_le_bytes([*a, *b]));
                // Small numbers choose, and fill a wide field all the same.
                n | n << 16 | n << 32 | n << 48
            }
            _ => {
                self.0 = &[];
                0
            }
        }
    }
    fn more(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_input_comes_to_an_end() {
        let mut e = Seeded(1);
        for len in [0, 1, 2, 3, 64, 2000] {
            for mix in [Mix::Commands, Mix::Wqes, Mix::All] {
                one(mix, &[0, 0xff, 0x7f].map(|b| vec![b; len]).concat());
                one(mix, &(0..len).map(|_| e.next() as u8).collect::<Vec<_>>());
            }
        }
    }
}
