//! Since when one kind of request fails, and why: for people, and for callers that need not wait in vain.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures that last for a shorter time are not reported.
const SAID_AFTER: Duration = Duration::from_secs(5);

/// The failures of one kind of request; the next success clears them.
#[derive(Debug, Default)]
pub(super) struct RequestFailures(Mutex<Option<FailedAttempts>>);

#[derive(Debug)]
struct FailedAttempts {
    since: Instant,
    last: Instant,
    why: String,
}

impl RequestFailures {
    pub(super) fn ended(&self) {
        *self.0.lock() = None;
    }

    /// Notes that an attempt that began at `begun` failed.
    pub(super) fn failed(&self, begun: Instant, why: String) {
        let mut failure = self.0.lock();
        let since = failure.as_ref().map_or(begun, |before| before.since);
        *failure = Some(FailedAttempts { since, last: Instant::now(), why });
    }

    pub(super) fn is_so(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Why requests fail and for how long, if that is long enough to report; and how long ago the last attempt was, if
    /// that is long ago too.
    pub(super) fn describe(&self) -> Option<String> {
        let failure = self.0.lock();
        let FailedAttempts { since, last, why } = failure.as_ref()?;
        let time = Some(since.elapsed()).filter(|time| *time >= SAID_AFTER)?.as_secs();
        let idle = last.elapsed();
        let when = if idle < SAID_AFTER {
            String::new()
        } else {
            format!(", last tried {} s ago", idle.as_secs())
        };
        Some(format!("{why} (for {time} s{when})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_after_a_while_and_until_something_succeeds() {
        let failing = RequestFailures::default();
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(4)).await;
        failing.failed(begun, "no route".into());
        assert!(failing.is_so());
        assert_eq!(failing.describe(), None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        failing.failed(Instant::now(), "no answer".into());
        assert_eq!(failing.describe().unwrap(), "no answer (for 6 s)");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(failing.describe().unwrap(), "no answer (for 66 s, last tried 60 s ago)");
        failing.ended();
        assert!(!failing.is_so());
        assert_eq!(failing.describe(), None);
    }
}
