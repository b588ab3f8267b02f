//! One run at a time; a run that nobody waits for gives way to one that somebody waits for.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};

/// Work that nobody waits for takes one part in this many of the time.
const SHARE: u32 = 10;
/// The longest rest between two of its steps: a slow step does not put off the next one for hours.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The speed of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Somebody waits for it.
    Full,
    /// Nobody waits for it: it takes a tenth of the time, behind all uploads, and ends when somebody waits for a run.
    Background,
}

impl Pace {
    /// How long to rest after a step that took `worked`.
    pub fn rest_after(self, worked: Duration) -> Duration {
        match self {
            Self::Full => Duration::ZERO,
            Self::Background => worked.saturating_mul(SHARE - 1).min(LONGEST_REST),
        }
    }
}

/// The run under way, and how many callers wait for one.
#[derive(Debug)]
pub struct Runs {
    /// Held by a run.
    one: Mutex<()>,
    /// How many callers wait for a run of theirs.
    waiting: watch::Sender<usize>,
}

/// A run; it ends when this is dropped.
pub type RunUnderWay<'a> = MutexGuard<'a, ()>;

/// Counts as a waiting caller while it lives.
struct Waits<'a>(&'a watch::Sender<usize>);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Default for Runs {
    fn default() -> Self {
        Self { one: Mutex::default(), waiting: watch::Sender::new(0) }
    }
}

impl Runs {
    /// Waits until no other run is under way. A caller at full pace makes a background run end after its current step.
    pub async fn begin(&self, pace: Pace) -> RunUnderWay<'_> {
        let _waits = (pace == Pace::Full).then(|| Waits::begin(&self.waiting));
        self.one.lock().await
    }

    /// Whether a run of this pace should end now: nobody waits for it, and somebody waits for another.
    pub fn gives_way(&self, pace: Pace) -> bool {
        pace == Pace::Background && *self.waiting.borrow() > 0
    }

    /// Awaits `wait`, which does nothing but wait. `None`: given up, as the run should end.
    pub async fn unless_wanted<T>(&self, pace: Pace, wait: impl Future<Output = T>) -> Option<T> {
        if pace == Pace::Full {
            return Some(wait.await);
        }
        let mut waiting = self.waiting.subscribe();
        tokio::select! {
            biased;
            _ = waiting.wait_for(|waiting| *waiting > 0) => None,
            done = wait => Some(done),
        }
    }
}
