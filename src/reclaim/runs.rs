//! One run at a time; and one that nobody waits for gives way to one that somebody does.

use tokio::sync::{Mutex, MutexGuard, watch};

/// How fast it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Somebody waits for it.
    Full,
    /// Nobody does: a tenth of the time, behind all uploads, and until somebody waits for a run.
    Background,
}

/// Who runs, and who waits for it.
#[derive(Debug)]
pub struct Runs {
    /// Held by a run.
    one: Mutex<()>,
    /// How many people wait for theirs.
    waiting: watch::Sender<usize>,
}

/// A run; over when it is dropped.
pub type RunUnderWay<'a> = MutexGuard<'a, ()>;

/// Somebody who waits, for as long as this lives.
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
    /// Waits until no other runs. Who waits at full pace is noticed by a run in the background, which ends after its step.
    pub async fn begin(&self, pace: Pace) -> RunUnderWay<'_> {
        let _waits = (pace == Pace::Full).then(|| Waits::begin(&self.waiting));
        self.one.lock().await
    }

    /// Whether a run of this pace should end now: it is for nobody, and somebody waits.
    pub fn gives_way(&self, pace: Pace) -> bool {
        pace == Pace::Background && *self.waiting.borrow() > 0
    }

    /// Does something that only waits; `None`: it was given up, as the run should end.
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
