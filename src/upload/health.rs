//! How the tasks of the pipeline fare, for `status`.

use std::time::SystemTime;

use parking_lot::Mutex;

/// What went wrong; the next success clears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The last error, with its causes.
    pub error: String,
    /// Since when nothing succeeded.
    pub since: SystemTime,
    /// Attempts that failed since then.
    pub attempts: u64,
}

/// Whether one of the tasks is in trouble now.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Trouble>>);

impl Health {
    pub(super) fn succeeded(&self) {
        *self.0.lock() = None;
    }

    pub(super) fn failed(&self, error: String) {
        let mut trouble = self.0.lock();
        let (since, attempts) = match &*trouble {
            Some(before) => (before.since, before.attempts + 1),
            None => (SystemTime::now(), 1),
        };
        *trouble = Some(Trouble { error, since, attempts });
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.0.lock().clone()
    }
}
