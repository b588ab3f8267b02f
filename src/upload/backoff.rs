//! Pauses between attempts, while the store fails.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses that grow while the store fails, and end with its first success.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    pause: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pause: None, until: None }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether an attempt may be made now.
    pub(super) fn is_due(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn succeeded(&mut self) {
        (self.pause, self.until) = (None, None);
    }

    /// Ends the pause; the next one is as long as if it had not ended.
    pub(super) fn end_pause(&mut self) {
        self.until = None;
    }

    /// Returns how long to pause. What fails during a pause began before it, so all of that is one failure.
    pub(super) fn failed(&mut self) -> Duration {
        if let (Some(pause), false) = (self.pause, self.is_due()) {
            return pause;
        }
        let pause = self.pause.map_or(self.first, |pause| (pause * 2).min(self.longest));
        self.pause = Some(pause);
        self.until = Some(Instant::now() + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_once_for_all_that_fails_together() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(3));
        assert!(backoff.is_due() && !backoff.is_failing());
        let pause = |backoff: &mut Backoff| {
            let pause = backoff.failed();
            assert_eq!(backoff.failed(), pause, "begun before the pause");
            std::thread::sleep(pause);
            pause.as_millis()
        };
        assert_eq!([pause(&mut backoff), pause(&mut backoff), pause(&mut backoff)], [1, 2, 3]);
        backoff.failed();
        backoff.end_pause();
        assert!(backoff.is_due() && backoff.is_failing());
        backoff.succeeded();
        assert!(!backoff.is_failing());
    }
}
