//! How long to wait for something that others have already waited for in vain.
//!
//! Callers can queue up behind each other where this process does not see it (at the kernel's lock of a directory, or of a
//! file). Then the waits of all of them add up for the last. So only one whole deadline is waited for. After that, as long as
//! nothing comes, all callers together wait in short *windows* with longer rests between them; in a rest nobody waits. The
//! first caller after a rest opens the next window, and its request is the trial whether anything comes again.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is known about waiting for one thing.
#[derive(Debug)]
pub struct Patience {
    terms: Terms,
    doubt: Mutex<Option<(u64, Doubt)>>,
}

/// The lengths of rests and windows.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    first_rest: Duration,
    window: Duration,
    rest: Duration,
}

/// Records that somebody waited in vain.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    window_ends: Instant,
    rest_ends: Instant,
}

impl Terms {
    /// In proportion to the deadline of a wait: for 30 s, 2 s of rest, then windows of 5 s every 15 s.
    pub fn of(deadline: Duration) -> Self {
        Self { first_rest: deadline / 15, window: deadline / 6, rest: deadline / 3 }
    }
}

impl Doubt {
    /// A doubt that begins now.
    pub fn new(terms: &Terms) -> Self {
        let now = Instant::now();
        Self { window_ends: now, rest_ends: now + terms.first_rest }
    }

    /// Until when a caller that comes now waits. In a rest, that is a moment that has passed already.
    pub fn until(&mut self, terms: &Terms) -> Instant {
        let now = Instant::now();
        if now >= self.rest_ends {
            self.window_ends = now + terms.window;
            self.rest_ends = self.window_ends + terms.rest;
        }
        self.window_ends
    }
}

impl Patience {
    /// For waits with this deadline.
    pub fn of(deadline: Duration) -> Self {
        Self { terms: Terms::of(deadline), doubt: Mutex::default() }
    }

    /// Until when a caller that comes now waits; `None`: for a whole deadline. `come` counts what has come so far.
    pub fn until(&self, come: u64) -> Option<Instant> {
        let mut doubt = self.doubt.lock();
        let (before, known) = doubt.as_mut()?;
        if *before != come {
            *doubt = None;
            return None;
        }
        Some(known.until(&self.terms))
    }

    /// Notes that somebody waited for a whole deadline and nothing came: the count was `come` all the time.
    pub fn in_vain(&self, come: u64) {
        let mut doubt = self.doubt.lock();
        if doubt.is_none_or(|(before, _)| before != come) {
            *doubt = Some((come, Doubt::new(&self.terms)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn seconds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_deadline_is_waited_once_and_then_windows_until_something_comes() {
        let patience = Patience::of(DEADLINE);
        let waits = |come| Some(patience.until(come)?.saturating_duration_since(Instant::now()));
        assert_eq!(waits(7), None);
        patience.in_vain(7);
        assert_eq!(waits(7), Some(Duration::ZERO));
        seconds(2).await;
        assert_eq!(waits(7), Some(Duration::from_secs(5)), "a trial");
        seconds(4).await;
        assert_eq!(waits(7), Some(Duration::from_secs(1)), "all who come wait for the same trial");
        patience.in_vain(7);
        assert_eq!(waits(7), Some(Duration::from_secs(1)), "which is not cut off");
        seconds(2).await;
        assert_eq!(waits(7), Some(Duration::ZERO));
        seconds(9).await;
        assert_eq!(waits(7), Some(Duration::from_secs(5)));
        assert_eq!(waits(8), None, "something came");
        assert_eq!(waits(8), None);
    }

    /// However late each caller is served, callers in a queue wait together for little more than one deadline.
    #[tokio::test(start_paused = true)]
    async fn a_line_of_callers_waits_for_little_more_than_one_deadline() {
        for between in [0, 1, 3] {
            let (patience, begun) = (Patience::of(DEADLINE), Instant::now());
            for _ in 0..12 {
                match patience.until(0) {
                    None => {
                        tokio::time::sleep(DEADLINE).await;
                        patience.in_vain(0);
                    }
                    Some(until) => tokio::time::sleep_until(until).await,
                }
                seconds(between).await;
            }
            let waited = begun.elapsed() - Duration::from_secs(12 * between);
            assert!(
                waited <= DEADLINE + Duration::from_secs(5 + 4 * between),
                "{between}: {waited:?}"
            );
        }
    }
}
