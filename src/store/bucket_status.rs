//! The state of a bucket, for people and for callers that wait for it: limits, failures, quirks, counts. Nothing here
//! makes a request.

use super::bucket::Bucket;
use super::counted::Counts;
use super::deadlines::Deadlines;
use crate::types::{RequestsOfADay, StoreLimits};

impl Bucket {
    /// Sets the limits. They apply to requests under way, too.
    pub fn limit(&self, limits: &StoreLimits) {
        self.inner.pace.set(limits);
    }

    /// The current limits.
    pub fn limited_to(&self) -> StoreLimits {
        self.inner.pace.limits()
    }

    /// The current limit of bytes a second from the store, if there is one.
    pub fn rate_down(&self) -> Option<u64> {
        self.inner.pace.down.rate()
    }

    /// For people: why puts that are being repeated fail, if none has succeeded for a while.
    pub fn puts_fail(&self) -> Option<String> {
        self.inner.store.puts_fail()
    }

    /// For people: why reads get no answer, if none has got one for a while.
    pub fn reads_fail(&self) -> Option<String> {
        self.inner.store.reads_fail()
    }

    /// Whether the last attempt at a read got no answer. Then later callers need not wait in vain too.
    pub fn is_failing(&self) -> bool {
        self.inner.store.is_failing()
    }

    /// How often the store has answered, whatever it said. As long as this does not grow, nothing comes from it.
    pub fn answers(&self) -> u64 {
        self.inner.store.answers()
    }

    /// For people: how the store differs from others, a line each.
    pub fn quirks(&self) -> Vec<String> {
        self.inner.quirks.describe()
    }

    /// What was learned of the store and is worth remembering on this machine; empty if nothing.
    pub fn learned(&self) -> String {
        self.inner.quirks.text()
    }

    /// Restores what [`Bucket::learned`] returned in an earlier process.
    pub fn recall(&self, learned: &str) {
        self.inner.quirks.recall(learned);
    }

    /// For people: since when the store has refused the credentials, if it does, and what to do.
    pub fn refuses_credentials(&self) -> Option<String> {
        self.inner.s3.as_ref()?.refuses_credentials()
    }

    /// The place in words, for messages; without secrets.
    #[cfg(any(test, feature = "testing"))]
    pub fn describe(&self) -> String {
        self.inner.shown.clone()
    }

    /// Completed attempts at requests: method, outcome, count.
    pub fn ended(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.inner.counters.ended()
    }

    /// How many requests were made so far.
    pub fn requests(&self) -> Counts {
        self.inner.counters.read()
    }

    /// The requests of today (UTC).
    pub fn today(&self) -> RequestsOfADay {
        self.inner.counters.today()
    }

    /// The deadlines with which it was opened.
    pub fn deadlines(&self) -> Deadlines {
        self.inner.deadlines
    }

    /// Bytes that the store can still take; `None` if it has no limit. At most it asks the local disk.
    pub fn free(&self) -> Option<u64> {
        crate::os::free_bytes(self.inner.directory.as_ref()?).ok()
    }
}
