//! How much of the map is brought here at once, for listings: as much as has come in a moment before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::{KIB, MIB};

/// Bytes at first, and at least, and at most.
const FIRST: u64 = 256 * KIB;
const LEAST: u64 = 64 * KIB;
const MOST: u64 = 8 * MIB;
/// What took no longer may be twice as much the next time.
const SHORT: Duration = Duration::from_millis(500);
/// Nobody waits longer for it; then it is a quarter the next time. (It goes on its way all the same.)
pub(super) const LONG: Duration = Duration::from_secs(2);

/// Bytes that may be brought at once.
pub(super) struct BringPace(AtomicU64);

impl Default for BringPace {
    fn default() -> Self {
        Self(AtomicU64::new(FIRST))
    }
}

impl BringPace {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// As much as this allows, and no more, was brought, and took so long; `None`: it did not come in time, or not at all.
    pub(super) fn took(&self, duration: Option<Duration>) {
        let bytes = self.bytes();
        let next = match duration {
            Some(duration) if duration <= SHORT => bytes * 2,
            Some(_) => bytes,
            None => bytes / 4,
        };
        self.0.store(next.clamp(LEAST, MOST), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_fast_link_it_grows_and_on_a_slow_one_nobody_waits_long() {
        // Bytes a second, and what comes to be brought at once.
        for (rate, brought) in
            [(100 * MIB, MOST..MOST + 1), (MIB, 512 * KIB..MIB + 1), (20 * KIB, LEAST..LEAST + 1)]
        {
            let pace = BringPace::default();
            for _ in 0..20 {
                let took = Duration::from_millis(30 + 1000 * pace.bytes() / rate);
                pace.took((took <= LONG).then_some(took));
            }
            assert!(brought.contains(&pace.bytes()), "{rate}: {}", pace.bytes());
        }
        let pace = BringPace::default();
        pace.took(None);
        assert_eq!(pace.bytes(), LEAST);
    }
}
