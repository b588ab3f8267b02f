//! How many bytes of the map a listing fetches at once: what the link recently delivered in a moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::{KIB, MIB};

/// Bytes fetched at once: the initial, the least and the largest number.
const FIRST: u64 = 256 * KIB;
const LEAST: u64 = 64 * KIB;
const MOST: u64 = 8 * MIB;
/// A fetch that took no longer than this doubles the next one.
const SHORT: Duration = Duration::from_millis(500);
/// How long a listing waits for a fetch. A fetch that takes longer goes on in the background, and the next one is a
/// quarter as large.
pub(super) const LONG: Duration = Duration::from_secs(2);

/// The number of bytes that may be fetched at once.
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

    /// Adjusts the pace after a fetch of all the bytes that it allows. `duration` is what the fetch took; `None`: it did
    /// not come in time, or it failed.
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
        // Bytes a second of the link, and the number of bytes that the pace settles on.
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
