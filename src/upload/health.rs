//! The health of the pipeline's tasks, for `status`.

use std::time::SystemTime;

use parking_lot::Mutex;

/// The current trouble of a task; its next success clears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The last error, with its causes.
    pub error: String,
    /// When the failures began.
    pub since: SystemTime,
    /// Failed attempts since then.
    pub attempts: u64,
}

impl Trouble {
    /// For people: what fails, and since when.
    pub fn describe(&self) -> String {
        let plural = if self.attempts == 1 { "" } else { "s" };
        let seconds = self.since.elapsed().unwrap_or_default().as_secs();
        format!("{} (for {seconds} s, {} attempt{plural})", self.error, self.attempts)
    }
}

/// The trouble of one task; `None` while it succeeds.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn trouble_is_told_with_its_beginning_until_something_succeeds() {
        let health = Health::default();
        health.failed("no route".into());
        let first = health.trouble().unwrap();
        let long_ago = first.since - Duration::from_secs(65);
        *health.0.lock() = Some(Trouble { since: long_ago, ..first });
        health.failed("no answer".into());
        let said = health.trouble().unwrap().describe();
        assert!(
            said.starts_with("no answer (for 6") && said.ends_with(" s, 2 attempts)"),
            "{said}"
        );
        health.succeeded();
        assert_eq!(health.trouble(), None);
    }
}
