//! How a bucket fares, for people and for who waits for it: limits, failures, quirks, counts. Nothing here asks the store.

use super::bucket::Bucket;
use super::counted::Counts;
use super::deadlines::Deadlines;
use crate::types::{RequestsOfADay, StoreLimits};

impl Bucket {
    /// From now on no more than this is asked of it. Requests that are under way follow.
    pub fn limit(&self, limits: &StoreLimits) {
        self.inner.pace.set(limits);
    }

    /// What is asked of it at most.
    pub fn limited_to(&self) -> StoreLimits {
        self.inner.pace.limits()
    }

    /// Bytes of objects that come in a second now at most, if that is limited.
    pub fn rate_down(&self) -> Option<u64> {
        self.inner.pace.down.rate()
    }

    /// For people: why puts that are made again fail, when none was carried out for a while.
    pub fn puts_fail(&self) -> Option<String> {
        self.inner.store.puts_fail()
    }

    /// For people: why what is read there gets no answer, when nothing did for a while.
    pub fn reads_fail(&self) -> Option<String> {
        self.inner.store.reads_fail()
    }

    /// Whether the last attempt at a read got no answer: then whoever comes next need not wait in vain, too.
    pub fn is_failing(&self) -> bool {
        self.inner.store.is_failing()
    }

    /// How often the store answered so far, whatever it said: while that stands still, nothing comes from it.
    pub fn answers(&self) -> u64 {
        self.inner.store.answers()
    }

    /// In what the store differs from others, for people; a line each.
    pub fn quirks(&self) -> Vec<String> {
        self.inner.quirks.describe()
    }

    /// What was learned of the store and is worth remembering on this machine; empty if nothing.
    pub fn learned(&self) -> String {
        self.inner.quirks.text()
    }

    /// Takes in what [`Bucket::learned`] said in an earlier process.
    pub fn recall(&self, learned: &str) {
        self.inner.quirks.recall(learned);
    }

    /// If the store refuses the credentials: since when, and what to do. For people.
    pub fn refuses_credentials(&self) -> Option<String> {
        self.inner.s3.as_ref()?.refuses_credentials()
    }

    /// The place in words, for messages; no secrets.
    #[cfg(any(test, feature = "testing"))]
    pub fn describe(&self) -> String {
        self.inner.shown.clone()
    }

    /// Attempts at requests that ended: method, what came of them, how many.
    pub fn ended(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.inner.counters.ended()
    }

    /// How many requests were made so far.
    pub fn requests(&self) -> Counts {
        self.inner.counters.read()
    }

    /// What was asked of it today, by UTC.
    pub fn today(&self) -> RequestsOfADay {
        self.inner.counters.today()
    }

    /// The limits that it was opened with.
    pub fn deadlines(&self) -> Deadlines {
        self.inner.limits
    }

    /// Bytes that the store can still take; `None` if it knows no end. Asks the local disk at most.
    pub fn free(&self) -> Option<u64> {
        crate::os::free_bytes(self.inner.directory.as_ref()?).ok()
    }
}
