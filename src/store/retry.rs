//! A deadline for every request, and repetition with jitter as long as that may help.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::BackoffBuilder;
use tokio::time::Instant;

use super::checked::{Checked, Compared};
use super::deadlines::Deadlines;
use super::error::{Error, Result};
use super::line::RequestContext;
use super::object::{Begin, Body, Fetched, HeadReply, Listing, OBJECT_MAX, Put, PutReply, Store};
use super::request_failures::RequestFailures;
use crate::os::ProcessTally;
use crate::types::with_causes;

/// How often a request whose answer was corrupt is repeated: a broken transfer heals, a broken object does not.
const CORRUPT_REPEATS: u32 = 2;

/// A get without a range gets the time for this many bytes: a vault's largest objects have about 16 MiB.
const WHOLE: u64 = 17 << 20;

/// Requests with deadlines and repetitions. Not a [`Store`], because repeating a conditional put takes more than
/// calling it twice.
#[derive(Debug)]
pub(super) struct Retrying {
    store: Checked,
    deadlines: Deadlines,
    /// Attempts at reads (listings, deletions) that got no answer.
    reads_fail: RequestFailures,
    /// How often the store answered, whatever it said.
    answers: AtomicU64,
    /// Failed attempts of puts that are repeated.
    puts_fail: RequestFailures,
}

/// When to pause and when to give up.
pub(super) struct RetryPlan {
    pauses: backon::ExponentialBackoff,
    end: Instant,
    corrupt: u32,
}

impl RetryPlan {
    pub(super) fn new(deadlines: &Deadlines, total: Duration) -> Self {
        Self::beginning(Instant::now(), deadlines, total)
    }

    /// A plan that ends `total` after `now`.
    pub(super) fn beginning(now: Instant, deadlines: &Deadlines, total: Duration) -> Self {
        let pauses = backon::ExponentialBuilder::default()
            .with_min_delay(deadlines.pause)
            .with_max_delay(deadlines.pause_max)
            .with_jitter()
            .without_max_times()
            .build();
        Self { pauses, end: now + total, corrupt: 0 }
    }

    /// How long to pause before repeating, after an attempt that failed at `now`; `None`: give up.
    pub(super) fn pause_after(&mut self, error: &Error, now: Instant) -> Option<Duration> {
        self.corrupt += u32::from(matches!(error, Error::Corrupt { .. }));
        let pause = self.pauses.next().unwrap_or_default();
        let is_due =
            error.is_transient() && self.corrupt <= CORRUPT_REPEATS && now + pause < self.end;
        is_due.then_some(pause)
    }

    /// Pauses before a repetition, or returns the error if it is time to give up.
    pub(super) async fn after(&mut self, error: Error) -> Result<()> {
        let Some(pause) = self.pause_after(&error, Instant::now()) else { return Err(error) };
        tracing::debug!(error = %with_causes(&error), ?pause, "asking the store again");
        ProcessTally::StoreRepeats.add(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Gives one attempt its deadline. Time in which we hold the request back ourselves does not count.
async fn within<T>(
    object: &str,
    limit: Duration,
    attempt: impl Future<Output = Result<T>>,
) -> Result<T> {
    let held_back = RequestContext::current().held_back;
    let mut counted = held_back.total();
    let mut end = Instant::now() + limit;
    tokio::pin!(attempt);
    loop {
        if let Ok(result) = tokio::time::timeout_at(end, &mut attempt).await {
            return result;
        }
        let held = held_back.total();
        if held <= counted {
            return Err(Error::Deadline { object: object.to_owned(), after: limit });
        }
        end += held.saturating_sub(counted);
        counted = held;
    }
}

impl Retrying {
    pub(super) fn over(store: Checked, deadlines: Deadlines) -> Self {
        let (reads_fail, answers, puts_fail) = Default::default();
        Self { store, deadlines, reads_fail, answers, puts_fail }
    }

    /// One conditional put. After any error it is not known whether it was carried out.
    pub(super) async fn put_once(&self, name: &str, body: &Body) -> Result<PutReply> {
        let send = self.while_moving(name, body, self.store.send(name, body, Put::IfAbsent)).await;
        if send.as_ref().err().is_none_or(|error| !error.is_unanswered()) {
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        let put = match send {
            // Reading it back may take as long as a get.
            Ok(reply) => {
                self.puts_fail.ended();
                self.reads_fail.ended();
                let limit = self.deadlines.get(body.length());
                within(name, limit, self.store.verify(name, body, reply)).await
            }
            Err(error) => Err(error),
        };
        if let Err(Error::Corrupt { .. }) = put {
            self.clear_away(name, body).await;
        }
        put
    }

    /// Gives a put its deadline, which counts from the last bytes that moved. So on a slow link it goes on, and
    /// what was sent is not sent again.
    async fn while_moving<T>(
        &self,
        name: &str,
        body: &Body,
        put: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        // The backend may see more precisely that nothing moves, so it is given the first say.
        let after = self.deadlines.stall_put + self.deadlines.stall_put / 8;
        let held_back = RequestContext::current().held_back;
        tokio::pin!(put);
        loop {
            let before = (body.moved().bytes(), held_back.total());
            match tokio::time::timeout(after, &mut put).await {
                Ok(result) => return result,
                Err(_) if body.moved().bytes() > before.0 || held_back.total() > before.1 => {}
                Err(_) => return Err(Error::Deadline { object: name.to_owned(), after }),
            }
        }
    }

    /// Our conditional put was answered with 200, but fewer bytes are there. If they are the beginning of ours,
    /// they are what the store kept of them: nothing refers to them, and they would block the name for ever, so
    /// they are deleted. Anything else may belong to somebody, and stays.
    async fn clear_away(&self, name: &str, body: &Body) {
        let Ok(found) = self.get(name, None).await else { return };
        if found.object_length < body.length() && body.bytes().starts_with(&found.bytes) {
            let deleted = self.delete(&[name.to_owned()]).await;
            tracing::warn!(
                object = name,
                ?deleted,
                "the store kept a part of what it acknowledged"
            );
        }
    }

    /// Repeats a conditional put until the store holds exactly these bytes, however they got there (a reply may
    /// have been lost). If it holds something else: [`Error::Exists`], or [`Error::Corrupt`] if the store
    /// acknowledged ours before.
    pub(super) async fn put_new(&self, name: &str, body: &Body) -> Result<PutReply> {
        let limit = self.deadlines.get(body.length());
        let mut plan = RetryPlan::new(&self.deadlines, self.deadlines.operation);
        let mut acknowledged = false;
        loop {
            let begun = Instant::now();
            let mut error = match self.put_once(name, body).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            acknowledged |= matches!(error, Error::Corrupt { .. });
            if matches!(error, Error::Exists { .. }) {
                error = match within(name, limit, self.store.compare(name, body)).await {
                    Ok(Compared::Same(reply)) => return Ok(reply),
                    Ok(Compared::Differs(reason)) if acknowledged => {
                        return Err(Error::Corrupt { object: name.to_owned(), reason });
                    }
                    Ok(Compared::Differs(_)) => return Err(error),
                    // It lost against a put that did not finish (409).
                    Err(Error::NotFound { object }) => {
                        let cause = "it was said to be there, and is not";
                        Error::Busy { object, cause: std::sync::Arc::from(Box::from(cause)) }
                    }
                    Err(error) => error,
                };
            }
            self.puts_fail.failed(begun, with_causes(&error));
            if let Err(error) = plan.after(error).await {
                self.puts_fail.ended(); // from here on, the caller reports it
                return Err(error);
            }
        }
    }

    /// For people: why puts that are being repeated fail, if none has succeeded for a while.
    pub(super) fn puts_fail(&self) -> Option<String> {
        self.puts_fail.describe()
    }

    pub(super) async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        let bytes = range.as_ref().map_or(WHOLE, |range| range.end.saturating_sub(range.start));
        let total = self.deadlines.get(bytes.min(OBJECT_MAX));
        // A small get has an attempt's share of the deadline; a large one has time as long as it moves.
        let one = if total > self.deadlines.operation { total } else { self.deadlines.stall_get };
        let attempt = || self.store.get(name, range.clone());
        self.repeat(name, one, total, attempt).await
    }

    pub(super) async fn head(&self, name: &str) -> Result<HeadReply> {
        let (one, total) = (self.deadlines.stall_get, self.deadlines.operation);
        self.repeat(name, one, total, || self.store.head(name)).await
    }

    pub(super) async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        let total = self.deadlines.operation;
        self.repeat(prefix, total, total, || self.store.list(prefix, begin)).await
    }

    /// One short request, to see whether the store is there at all.
    pub(super) async fn knock(&self, prefix: &str) -> Result<()> {
        let (one, total) = (self.deadlines.stall_get, self.deadlines.stall_get);
        self.repeat(prefix, one, total, || self.store.list(prefix, &Begin::First)).await.map(drop)
    }

    pub(super) async fn delete(&self, names: &[String]) -> Result<()> {
        let object = names.first().map_or("", String::as_str);
        let (one, total) = (self.deadlines.operation, self.deadlines.operation);
        self.repeat(object, one, total, || self.store.delete(names)).await
    }

    async fn repeat<T, F: Future<Output = Result<T>>>(
        &self,
        object: &str,
        one: Duration,
        total: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        let mut plan = RetryPlan::new(&self.deadlines, total);
        let held_back = RequestContext::current().held_back;
        let mut counted = held_back.total();
        loop {
            let held = held_back.total();
            plan.end += held.saturating_sub(counted);
            counted = held;
            let left = plan.end.saturating_duration_since(Instant::now());
            let begun = Instant::now();
            let answer = within(object, one.min(left), attempt()).await;
            match answer.as_ref().err().filter(|error| error.is_unanswered()) {
                Some(error) => self.reads_fail.failed(begun, with_causes(error)),
                None => {
                    self.reads_fail.ended();
                    self.answers.fetch_add(1, Ordering::Relaxed);
                }
            }
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => plan.after(error).await?,
            }
        }
    }

    /// Whether the last attempt at a read got no answer.
    pub(super) fn is_failing(&self) -> bool {
        self.reads_fail.is_so()
    }

    /// For people: why reads get no answer, if none has got one for a while.
    pub(super) fn reads_fail(&self) -> Option<String> {
        self.reads_fail.describe()
    }

    /// How often the store has answered.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}
