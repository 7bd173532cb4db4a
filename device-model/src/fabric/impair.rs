//! Impairments: what a real wire does to frames, as data. Each direction of a port has its
//! own; both ends of a cable are wires of their own.
//!
//! ```text
//! delay=5ms jitter=1ms loss=0.01 reorder=0.02 duplicate=0.001 corrupt=1e-4 rate=100M seed=7
//! ```
//!
//! A frame is lost or not, waits until the wire has sent those before it (`rate`), and is
//! under way for `delay`, give or take `jitter`. Jitter does not let frames overtake each
//! other. With `reorder` some do: they take no delay, as in the kernel's netem. All chance
//! follows from the seed and the number of the frame. What waits lies in [`Later`].
//!
//! [`Later`]: crate::later::Later

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;
use smallvec::SmallVec;

use crate::capture::Way;
use crate::nic::{Card, Nic};
use crate::trace::mix;

/// What may be said, for whoever said something else.
pub const WORDS: &str = "off, or words of delay=TIME jitter=TIME loss=P reorder=P duplicate=P corrupt=P rate=RATE queue=TIME seed=N, \
     with TIME from 1us to 60s, P from 0 to 1, RATE from 1k to 400G bits a second (delay=5ms loss=0.01 rate=100M seed=7)";

/// Longest time that can be named, in nanoseconds.
const MOST_NS: u64 = 60_000_000_000;
/// Fastest and slowest rate that can be named, in bits a second.
const RATES: (u64, u64) = (1_000, 400_000_000_000);
/// How long frames wait for a slow wire at most, if not said: what a switch's buffer holds.
const QUEUE_NS: u64 = 50_000_000;
/// Bytes of each frame on the wire beside its own: preamble, check sequence, gap.
const OVERHEAD: u64 = 8 + 4 + 12;
const NS: u64 = 1_000_000_000;

/// What a direction of a wire does to frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    /// How long a frame is under way, in nanoseconds.
    pub delay: u64,
    /// By how much that differs at most, in nanoseconds.
    pub jitter: u64,
    /// How likely a frame is lost.
    pub loss: f64,
    /// How likely a frame overtakes those that are under way.
    pub reorder: f64,
    /// How likely a frame arrives twice.
    pub duplicate: f64,
    /// How likely a bit of it is another one, behind its addresses.
    pub corrupt: f64,
    /// Bits a second; 0 for no limit.
    pub rate: u64,
    /// Longest that a frame waits for those before it, in nanoseconds; one that had to wait
    /// longer is lost.
    pub queue: u64,
    /// What chance follows from.
    pub seed: u64,
}

impl Impairment {
    /// None.
    pub const OFF: Self = Self {
        delay: 0,
        jitter: 0,
        loss: 0.0,
        reorder: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        rate: 0,
        queue: QUEUE_NS,
        seed: 0,
    };

    /// Whether it does nothing.
    pub fn is_off(&self) -> bool {
        let Self { delay, jitter, loss, reorder, duplicate, corrupt, rate, .. } = *self;
        delay == 0 && jitter == 0 && rate == 0 && [loss, reorder, duplicate, corrupt].iter().all(|p| *p <= 0.0)
    }
}

impl Default for Impairment {
    fn default() -> Self {
        Self::OFF
    }
}

/// Nanoseconds of `5ms`.
fn time(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let ns = number(digits)? * unit;
    (1e3..=MOST_NS as f64).contains(&ns).then_some(ns as u64)
}

/// Bits a second of `2.5G`.
fn rate(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "" => 1e0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    let bits = number(digits)? * unit;
    (RATES.0 as f64..=RATES.1 as f64).contains(&bits).then_some(bits as u64)
}

/// A decimal number.
fn number(digits: &str) -> Option<f64> {
    let plain = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    digits.parse().ok().filter(|_| plain)
}

/// A probability.
fn chance(text: &str) -> Option<f64> {
    text.parse().ok().filter(|p: &f64| (0.0..=1.0).contains(p))
}

impl FromStr for Impairment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::OFF;
        if text.trim() == "off" {
            return Ok(all);
        }
        let mut known: Vec<&str> = vec![];
        for word in text.split_whitespace() {
            let wrong = || format!("{word:?}: allowed is {WORDS}");
            let (key, value) = word.split_once('=').ok_or_else(wrong)?;
            if known.contains(&key) {
                return Err(format!("{word:?}: {key} is given twice"));
            }
            known.push(key);
            let probability = || chance(value).ok_or_else(wrong);
            let span = || time(value).ok_or_else(wrong);
            match key {
                "delay" => all.delay = span()?,
                "jitter" => all.jitter = span()?,
                "loss" => all.loss = probability()?,
                "reorder" => all.reorder = probability()?,
                "duplicate" => all.duplicate = probability()?,
                "corrupt" => all.corrupt = probability()?,
                "rate" => all.rate = rate(value).ok_or_else(wrong)?,
                "queue" => all.queue = span()?,
                "seed" => all.seed = value.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        if known.is_empty() {
            return Err(format!("{text:?}: allowed is {WORDS}"));
        }
        let needs = |key: &str, other: &str, have: bool| match known.contains(&key) && !have {
            true => Err(format!("{key}=: allowed with {other}=")),
            false => Ok(()),
        };
        needs("reorder", "delay", all.delay > 0)?;
        needs("queue", "rate", all.rate > 0)?;
        if all.jitter > all.delay {
            return Err("jitter=: allowed is no more than delay=".to_owned());
        }
        Ok(all)
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() {
            return f.write_str("off");
        }
        let mut words: Vec<String> = vec![];
        let mut word = |key: &str, value: String| words.push(format!("{key}={value}"));
        for (key, ns) in [("delay", self.delay), ("jitter", self.jitter)] {
            if ns > 0 {
                word(key, in_units(ns, &[(NS, "s"), (1_000_000, "ms"), (1000, "us")]));
            }
        }
        let chances =
            [("loss", self.loss), ("reorder", self.reorder), ("duplicate", self.duplicate), ("corrupt", self.corrupt)];
        for (key, p) in chances {
            if p > 0.0 {
                word(key, p.to_string());
            }
        }
        if self.rate > 0 {
            word("rate", in_units(self.rate, &[(NS, "G"), (1_000_000, "M"), (1000, "k"), (1, "")]));
            word("queue", in_units(self.queue, &[(NS, "s"), (1_000_000, "ms"), (1000, "us")]));
        }
        word("seed", self.seed.to_string());
        f.write_str(&words.join(" "))
    }
}

/// A number in the largest unit that it is at least one of.
fn in_units(n: u64, units: &[(u64, &str)]) -> String {
    let (unit, name) = units.iter().copied().find(|(unit, _)| n >= *unit).unwrap_or((1, ""));
    format!("{}{name}", n as f64 / unit as f64)
}

/// What became of frames.
#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
    reordered: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
    /// Lost because too many waited.
    overrun: AtomicU64,
}

/// The same, as data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Impaired {
    /// Frames that were lost by chance.
    pub lost: u64,
    /// Frames that overtook others.
    pub reordered: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames of which a bit was changed.
    pub corrupted: u64,
    /// Frames that were lost because too many waited.
    pub overrun: u64,
}

/// A frame, or one of its copies, on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    /// When it arrives, in nanoseconds of the clock.
    pub(crate) due: u64,
    /// The bit that changes, modulo the frame's bits.
    pub(crate) corrupt: Option<u64>,
}

/// What arrives of a frame.
pub(crate) type Arrivals = SmallVec<[Copy; 2]>;

/// What chance decides.
#[derive(Debug, Clone, Copy)]
enum Dice {
    Loss,
    Reorder,
    Duplicate,
    Corrupt,
    Bit,
    Jitter,
}

#[derive(Debug, Default)]
struct State {
    set: Impairment,
    /// Frames so far.
    frames: u64,
    /// When the wire has sent what it has.
    free: u64,
    /// When the last one arrives.
    last: u64,
}

impl State {
    /// 64 bits for a decision on the present frame.
    fn bits(&self, dice: Dice) -> u64 {
        mix(self.set.seed ^ mix(self.frames ^ (dice as u64) << 56))
    }

    /// From 0 to 1, without 1.
    fn draw(&self, dice: Dice) -> f64 {
        // The upper 53 bits are a fraction that a float holds.
        (self.bits(dice) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn happens(&self, dice: Dice, p: f64) -> bool {
        p > 0.0 && self.draw(dice) < p
    }

    /// What becomes of the next frame, of `bytes`, that comes at the time `now`.
    fn judge(&mut self, now: u64, bytes: usize, counts: &Counts) -> Arrivals {
        let set = self.set;
        self.frames += 1;
        if self.happens(Dice::Loss, set.loss) {
            counts.lost.fetch_add(1, Relaxed);
            return Arrivals::new();
        }
        let mut sent = now;
        if set.rate > 0 {
            let start = self.free.max(now);
            if start - now > set.queue {
                counts.overrun.fetch_add(1, Relaxed);
                return Arrivals::new();
            }
            let bits = u128::from((bytes as u64).saturating_add(OVERHEAD)) * 8;
            let takes = u64::try_from(bits * u128::from(NS) / u128::from(set.rate)).unwrap_or(u64::MAX);
            sent = start.saturating_add(takes);
            self.free = sent;
        }
        let overtakes = self.happens(Dice::Reorder, set.reorder) && self.last > sent;
        let due = if overtakes {
            counts.reordered.fetch_add(1, Relaxed);
            sent
        } else {
            let off = (self.draw(Dice::Jitter) * 2.0 * set.jitter as f64) as u64;
            self.last = self.last.max(sent.saturating_add(set.delay - set.jitter).saturating_add(off));
            self.last
        };
        let corrupt = self.happens(Dice::Corrupt, set.corrupt).then(|| self.bits(Dice::Bit));
        counts.corrupted.fetch_add(corrupt.is_some().into(), Relaxed);
        let mut all = Arrivals::new();
        all.push(Copy { due, corrupt });
        if self.happens(Dice::Duplicate, set.duplicate) {
            counts.duplicated.fetch_add(1, Relaxed);
            all.push(Copy { due, corrupt });
        }
        all
    }
}

/// A direction of a port's wire.
#[derive(Debug, Default)]
pub struct Direction {
    state: Mutex<State>,
    counts: Counts,
}

impl Direction {
    /// What it does to frames.
    pub fn get(&self) -> Impairment {
        self.state.lock().set
    }

    /// What it did.
    pub fn counts(&self) -> Impaired {
        let c = &self.counts;
        let [lost, reordered, duplicated, corrupted, overrun] =
            [&c.lost, &c.reordered, &c.duplicated, &c.corrupted, &c.overrun].map(|n| n.load(Relaxed));
        Impaired { lost, reordered, duplicated, corrupted, overrun }
    }

    /// What arrives of a frame, of `bytes`, that comes at the time `now`; none where it
    /// passes as it is.
    pub(crate) fn judge(&self, now: u64, bytes: usize) -> Option<Arrivals> {
        let mut state = self.state.lock();
        (!state.set.is_off()).then(|| state.judge(now, bytes, &self.counts))
    }

    /// There was no room to let a frame wait.
    pub(crate) fn overrun(&self) {
        self.counts.overrun.fetch_add(1, Relaxed);
    }
}

/// Both directions of a port's wire.
#[derive(Debug, Default)]
pub struct Wire {
    inward: Direction,
    outward: Direction,
}

impl Wire {
    /// One of them.
    pub fn way(&self, way: Way) -> &Direction {
        match way {
            Way::In => &self.inward,
            Way::Out => &self.outward,
        }
    }
}

impl Nic {
    /// Has a port's wire do this to frames that go this way. Chance begins anew; frames that
    /// wait arrive when they would have.
    pub fn impair(&self, card: &Card, way: Way, set: Impairment) {
        *card.port.impair.way(way).state.lock() = State { set, ..State::default() };
        let any = |c: &Card| [Way::In, Way::Out].iter().any(|w| !c.port.impair.way(*w).get().is_off());
        self.faults.set_impaired(self.cards.iter().any(any));
        // Frames whose way is known take it no more.
        self.flows.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn wire(text: &str) -> Direction {
        let d = Direction::default();
        d.state.lock().set = text.parse().unwrap();
        d
    }

    /// When each of so many frames of 1000 bytes, one a millisecond, arrives.
    fn arrivals(text: &str, frames: u64) -> (Vec<Vec<u64>>, Impaired) {
        let d = wire(text);
        let each = |n| d.judge(n * MS, 1000).map_or(vec![n * MS], |a| a.iter().map(|c| c.due).collect());
        ((0..frames).map(each).collect(), d.counts())
    }

    #[test]
    fn texts_are_read_and_written() {
        let text =
            "delay=5ms jitter=1.5ms loss=0.01 reorder=0.02 duplicate=0.5 corrupt=0.0001 rate=100M queue=20ms seed=7";
        let all: Impairment = text.parse().unwrap();
        assert_eq!((all.delay, all.jitter, all.rate, all.queue), (5 * MS, 3 * MS / 2, 100 * MS, 20 * MS));
        assert_eq!(all.to_string(), text);
        assert_eq!("rate=2.5G".parse::<Impairment>().unwrap().to_string(), "rate=2.5G queue=50ms seed=0");
        for off in ["off", " off ", "seed=3", "loss=0"] {
            assert_eq!(off.parse::<Impairment>().unwrap().to_string(), "off");
        }
        assert!(Direction::default().judge(0, 64).is_none());
    }

    #[test]
    fn wrong_words_are_named_with_what_is_allowed() {
        for bad in [
            "",
            "x",
            "delay",
            "delay=5",
            "delay=-1ms",
            "delay=61s",
            "delay=0ms",
            "loss=1.1",
            "loss=nan",
            "loss=-0.1",
            "rate=1T",
            "rate=1",
            "rate=inf",
            "seed=-1",
            "jitter=1e3ms",
            "colour=red",
            "delay=ms",
            "rate=G",
            "rate=100m",
        ] {
            let why = bad.parse::<Impairment>().unwrap_err();
            assert_eq!(why, format!("{bad:?}: allowed is {WORDS}"));
            assert_eq!(why.lines().count(), 1);
        }
        let why = |text: &str| text.parse::<Impairment>().unwrap_err();
        assert_eq!(why("loss=0.1 loss=0.2"), "\"loss=0.2\": loss is given twice");
        assert_eq!(why("reorder=0.1"), "reorder=: allowed with delay=");
        assert_eq!(why("queue=1ms"), "queue=: allowed with rate=");
        assert_eq!(why("delay=1ms jitter=2ms"), "jitter=: allowed is no more than delay=");
    }

    #[test]
    fn chance_follows_from_the_seed() {
        let (a, counts) = arrivals("loss=0.25 seed=1", 4000);
        let lost = a.iter().filter(|f| f.is_empty()).count();
        assert!((800..1200).contains(&lost) && counts.lost == lost as u64, "{lost}");
        assert_eq!(a, arrivals("loss=0.25 seed=1", 4000).0);
        assert_ne!(a, arrivals("loss=0.25 seed=2", 4000).0);
        // One chance says nothing of another: none of those that are lost would be spared.
        let (b, counts) = arrivals("loss=0.25 duplicate=0.5 corrupt=0.5 seed=1", 4000);
        assert!(a.iter().zip(&b).all(|(a, b)| a.is_empty() == b.is_empty()));
        for n in [counts.duplicated, counts.corrupted] {
            assert!((1300..1700).contains(&n), "{counts:?}");
        }
        assert_eq!(arrivals("loss=1", 10).1.lost, 10);
    }

    #[test]
    fn jitter_lets_nobody_overtake() {
        let (all, _) = arrivals("delay=20ms jitter=15ms seed=3", 1000);
        let times: Vec<u64> = all.concat();
        assert!(times.windows(2).all(|w| w[0] <= w[1]));
        let late = |n: usize| times[n] - n as u64 * MS;
        assert!((0..1000).all(|n| (5 * MS..35 * MS).contains(&late(n))));
        assert!((0..1000).map(late).collect::<std::collections::BTreeSet<_>>().len() > 100);
    }

    #[test]
    fn some_frames_overtake_where_it_is_asked_for() {
        let (all, counts) = arrivals("delay=5ms reorder=0.1 seed=4", 1000);
        let early = all.concat().iter().enumerate().filter(|(n, t)| **t == *n as u64 * MS).count();
        assert!((60..140).contains(&early) && counts.reordered == early as u64, "{early}");
    }

    #[test]
    fn a_slow_wire_sends_one_frame_after_the_other_and_drops_what_waits_too_long() {
        // 1024 bytes on the wire take 8.192 ms.
        let d = wire("rate=1M queue=20ms");
        let due: Vec<u64> = (0..5).flat_map(|_| d.judge(0, 1000).unwrap()).map(|c| c.due).collect();
        assert_eq!(due, [8_192_000, 16_384_000, 24_576_000]);
        assert_eq!(d.counts().overrun, 2);
        // It is free again, and adds its delay.
        assert_eq!(d.judge(100 * MS, 1000).unwrap()[0].due, 108_192_000);
        let d = wire("rate=1M delay=1s");
        assert_eq!(d.judge(0, 1000).unwrap()[0].due, 1_008_192_000);
    }
}
