//! How long changes have been unsent. This is measured by repeated looks, as no record has a usable
//! time.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::Seq;

/// How many looks are remembered.
const LOOKS: usize = 256;

/// For each look, the last transaction then, and when; only while it is not in the bucket.
#[derive(Debug, Default)]
pub(super) struct UnsentAges(Mutex<VecDeque<(Seq, Instant)>>);

impl UnsentAges {
    /// Looks, and returns for how many seconds at least something has been unsent; `None` if
    /// nothing is.
    pub(super) fn oldest(&self, appended: Seq, confirmed: Seq) -> Option<u64> {
        let (mut looks, now) = (self.0.lock(), Instant::now());
        while looks.front().is_some_and(|(seq, _)| *seq <= confirmed) {
            looks.pop_front();
        }
        if appended <= confirmed {
            return None;
        }
        if looks.back().is_none_or(|(seq, _)| *seq < appended) && looks.len() < LOOKS {
            looks.push_back((appended, now));
        }
        Some(looks.front().map_or(0, |(_, since)| now.duration_since(*since).as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_that_is_unsent_counts() {
        let ages = UnsentAges::default();
        let later = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        assert_eq!(ages.oldest(Seq(5), Seq(5)), None);
        assert_eq!(ages.oldest(Seq(6), Seq(5)), Some(0));
        later(10).await;
        assert_eq!(ages.oldest(Seq(8), Seq(5)), Some(10));
        later(3).await;
        assert_eq!(ages.oldest(Seq(8), Seq(7)), Some(3), "what was there first is sent");
        assert_eq!(ages.oldest(Seq(8), Seq(8)), None);
        for seq in 9..9 + 2 * LOOKS as u64 {
            ages.oldest(Seq(seq), Seq(8));
        }
        later(1).await;
        assert_eq!(ages.oldest(Seq(1000), Seq(8)), Some(1));
    }
}
