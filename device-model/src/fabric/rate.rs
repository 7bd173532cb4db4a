//! How fast a function may send, and how fast it can whatever others send.
//!
//! Each rate is a time: when what was sent would have been sent at exactly that rate. Who is
//! ahead of its highest rate waits for that time; who is behind its guaranteed rate is served
//! before others. A rate that was not used is saved up for [`SAVED_NS`] and no longer.
//!
//! A card counts with the scheduling elements of its transmit scheduler (`max_average_bw`,
//! `bw_share`, drivers/net/ethernet/mellanox/mlx5/core/esw/qos.c). There a share is a weight
//! among those that have something to send; here it is what it is called, a rate.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

/// How long a rate that is not used is saved up for.
const SAVED_NS: u64 = 10_000_000;
const NS: u128 = 1_000_000_000;

/// One rate.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Bits a second, not zero.
    rate: u64,
    /// When all that was sent would have been sent at this rate.
    sent_by: u64,
}

impl Pace {
    /// From here on; zero is none.
    fn new(rate: u64, now: u64) -> Option<Self> {
        (rate > 0).then_some(Self { rate, sent_by: now })
    }

    fn begin(&self, now: u64) -> u64 {
        self.sent_by.max(now.saturating_sub(SAVED_NS))
    }

    /// Bytes until it is ahead of its rate; at least one.
    fn left(&self, now: u64) -> u64 {
        let ns = now.saturating_sub(self.begin(now));
        let bytes = u128::from(ns) * u128::from(self.rate) / (8 * NS);
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }

    fn charge(&mut self, now: u64, bytes: u64) {
        let ns = u128::from(bytes) * 8 * NS / u128::from(self.rate.max(1));
        self.sent_by = self.begin(now).saturating_add(u64::try_from(ns).unwrap_or(u64::MAX));
    }
}

#[derive(Debug, Default)]
struct Paces {
    max: Option<Pace>,
    share: Option<Pace>,
}

/// The rates of a function's port.
#[derive(Debug, Default)]
pub struct Rate {
    /// Whether there is one.
    is_set: AtomicBool,
    paces: Mutex<Paces>,
}

impl Rate {
    /// Sets both, in bits a second; zero is none.
    pub fn set(&self, share: u64, max: u64, now: u64) {
        let mut p = self.paces.lock();
        *p = Paces { max: Pace::new(max, now), share: Pace::new(share, now) };
        self.is_set.store(p.max.is_some() || p.share.is_some(), Relaxed);
    }

    /// How many bytes it may send now, or else when it may.
    ///
    /// # Errors
    /// It has sent too much: the time, in nanoseconds of the device's clock.
    pub fn allowance(&self, now: impl FnOnce() -> u64) -> Result<u64, u64> {
        if !self.is_set.load(Relaxed) {
            return Ok(u64::MAX);
        }
        let now = now();
        match &self.paces.lock().max {
            Some(p) if p.sent_by > now => Err(p.sent_by),
            Some(p) => Ok(p.left(now)),
            None => Ok(u64::MAX),
        }
    }

    /// It has sent so many bytes.
    pub fn charge(&self, now: impl FnOnce() -> u64, bytes: u64) {
        if !self.is_set.load(Relaxed) || bytes == 0 {
            return;
        }
        let now = now();
        let p = &mut *self.paces.lock();
        [&mut p.max, &mut p.share].into_iter().flatten().for_each(|p| p.charge(now, bytes));
    }

    /// Whether it has had less than what is guaranteed, and may send more.
    pub fn comes_first(&self, now: u64) -> bool {
        if !self.is_set.load(Relaxed) {
            return false;
        }
        let p = self.paces.lock();
        p.share.is_some_and(|p| p.sent_by <= now) && p.max.is_none_or(|p| p.sent_by <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn without_a_rate_nobody_waits() {
        let r = Rate::default();
        r.charge(|| panic!("a clock is read"), 1 << 40);
        assert_eq!(r.allowance(|| panic!("a clock is read")), Ok(u64::MAX));
        assert!(!r.comes_first(0));
    }

    #[test]
    fn what_was_too_much_is_waited_for_and_what_was_too_little_is_saved_for_a_moment() {
        let r = Rate::default();
        // A byte a microsecond.
        r.set(0, 8_000_000, 0);
        r.charge(|| 0, 5000);
        assert_eq!(r.allowance(|| 0), Err(5 * MS));
        assert_eq!(r.allowance(|| 5 * MS), Ok(1));
        assert_eq!(r.allowance(|| 6 * MS), Ok(1000));
        assert_eq!(r.allowance(|| 1000 * MS), Ok(10_000));
        r.set(0, 0, 0);
        assert_eq!(r.allowance(|| 0), Ok(u64::MAX));
    }

    #[test]
    fn who_is_behind_its_share_comes_first() {
        let r = Rate::default();
        r.set(8_000_000, 0, 0);
        assert!(r.comes_first(0));
        r.charge(|| 0, 1000);
        assert!(!r.comes_first(0) && r.comes_first(MS));
        assert_eq!(r.allowance(|| 0), Ok(u64::MAX), "more than its share may be sent");
        r.set(8_000_000, 8_000_000, 0);
        r.charge(|| 0, 1000);
        assert!(!r.comes_first(MS - 1));
    }

    proptest! {
        /// However long and whenever somebody sends: never more than the rate, what is saved up,
        /// and the last message.
        #[test]
        fn no_more_than_the_rate(
            rate in 1_000_000u64..100_000_000_000,
            steps in proptest::collection::vec((0u64..50 * MS, 60u64..65_536), 1..300),
        ) {
            let r = Rate::default();
            r.set(0, rate, 0);
            let (mut now, mut sent) = (0u64, 0u128);
            for (pause, message) in steps {
                now += pause;
                let Ok(mut left) = r.allowance(|| now) else { continue };
                let mut bytes = 0;
                while left > 0 && bytes < 1 << 20 {
                    bytes += message;
                    left = left.saturating_sub(message);
                }
                r.charge(|| now, bytes);
                sent += u128::from(bytes);
                let allowed = u128::from(now + SAVED_NS) * u128::from(rate) / (8 * NS) + 65_536 + 1;
                prop_assert!(sent <= allowed, "{sent} bytes, {allowed} are allowed");
            }
        }

        /// Nothing overflows, whatever the numbers.
        #[test]
        fn any_numbers(share in any::<u64>(), max in any::<u64>(), now in any::<u64>(), bytes in any::<u64>()) {
            let r = Rate::default();
            r.set(share, max, now);
            r.charge(|| now, bytes);
            let _ = (r.allowance(|| now), r.comes_first(now), r.allowance(|| u64::MAX));
        }
    }
}
