//! How much of the map is brought here at once, for listings: as much as has just come in a moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::{KIB, MIB};

/// Bytes at first, and at least, and at most.
const FIRST: u64 = 256 * KIB;
const LEAST: u64 = 64 * KIB;
const MOST: u64 = 8 * MIB;
/// What took no longer may be twice as much the next time.
const SHORT: Duration = Duration::from_millis(500);
/// What took longer is to be a quarter: somebody waits for it.
const LONG: Duration = Duration::from_secs(2);

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

    /// What was brought took so long; `None`: it did not come. Of several who bring something at once, one counts.
    pub(super) fn took(&self, duration: Option<Duration>) {
        let bytes = self.bytes();
        let next = match duration {
            Some(duration) if duration <= SHORT => bytes * 2,
            Some(duration) if duration <= LONG => bytes,
            Some(_) | None => bytes / 4,
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
                pace.took(Some(Duration::from_millis(30 + 1000 * pace.bytes() / rate)));
            }
            assert!(brought.contains(&pace.bytes()), "{rate}: {}", pace.bytes());
        }
        let pace = BringPace::default();
        pace.took(None);
        assert_eq!(pace.bytes(), LEAST);
    }
}
