//! How sealed ranges come here: joined where they are under way already, bounded in memory, written to the disk tier.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::disk_tier::DiskTier;
use super::doubts::Doubts;
use super::single_flight::{Flight, Joined, Leader, Purpose, SingleFlight};
use super::{Error, Result};
use crate::os;
use crate::store::{self, Bucket, Fetched};
use crate::types::MIB;

/// A fetch has so many bytes at most; a pack that is fetched whole is cut at multiples of it. Large enough that the
/// round trip does not count (30 ms at 130 MiB/s), small enough that several run in parallel within one pack and a
/// reader does not wait long for its first byte.
pub const FETCH_MAX: u64 = 4 * MIB;
/// Packs whose length is remembered; beyond, the table begins anew. About 100 bytes each.
const LENGTHS_MAX: usize = 10_000;
/// Writes to the disk at once. Nobody waits for them, and the threads that block are few: an fsync, say, needs one, too.
const WRITES: usize = 4;
/// Reads of flights from the disk at once.
const READS: usize = 2;
/// How long the end waits for bytes that are on their way to the disk.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Where the bytes of a flight came from.
enum Brought {
    FromDisk(Bytes),
    FromBucket(store::Result<Fetched>),
}

/// All fetches of a cache.
#[derive(Debug)]
pub(super) struct Fetcher {
    bucket: Bucket,
    disk: Arc<DiskTier>,
    flights: SingleFlight,
    /// The length of each pack of which a range was fetched: the next miss in it fetches more.
    lengths: Mutex<HashMap<Box<str>, u64>>,
    /// Bytes that wait to be written to disk.
    unwritten: AtomicU64,
    writes: Semaphore,
    reads: Semaphore,
    fetches: AtomicU64,
    fetched_bytes: AtomicU64,
    /// Requests for what is not in the bucket.
    lacking: AtomicU64,
    doubts: Doubts,
    /// The tasks of all flights.
    tasks: TaskTracker,
    /// Nothing is fetched any more.
    ended: CancellationToken,
}

impl Fetcher {
    /// `memory` is for sealed ranges on their way, in bytes.
    pub(super) fn new(bucket: Bucket, disk: Arc<DiskTier>, memory: u64) -> Self {
        // Whatever the budget: one fetch of each kind must fit, or nothing ever gets in.
        let (demand, ahead) = ((memory / 7 * 2).max(FETCH_MAX), (memory / 7 * 5).max(FETCH_MAX));
        let deadline = bucket.deadlines().operation;
        Self {
            bucket,
            disk,
            flights: SingleFlight::new(demand, ahead),
            lengths: Mutex::default(),
            unwritten: AtomicU64::new(0),
            writes: Semaphore::new(WRITES),
            reads: Semaphore::new(READS),
            fetches: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
            lacking: AtomicU64::new(0),
            doubts: Doubts::of(deadline),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }

    pub(super) fn flights(&self) -> &SingleFlight {
        &self.flights
    }

    /// The length of a pack, if a range of it was fetched before.
    pub(super) fn length_of(&self, object: &str) -> Option<u64> {
        self.lengths.lock().get(object).copied()
    }

    /// How many ranges were fetched, and how many bytes.
    pub(super) fn fetched(&self) -> (u64, u64) {
        (self.fetches.load(Ordering::Relaxed), self.fetched_bytes.load(Ordering::Relaxed))
    }

    /// What is under way of this object is not found any more.
    pub(super) fn forget(&self, object: &str) {
        self.flights.forget(object);
        self.lengths.lock().remove(object);
    }

    /// See `Cache::end`.
    pub(super) async fn end(&self) {
        self.ended.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST_WRITES, self.tasks.wait()).await.is_err() {
            tracing::warn!("the cache's disk does not answer: a write to it is left behind");
        }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// See `Cache::rate`.
    pub(super) fn rate(&self) -> Option<u64> {
        self.bucket.rate_down()
    }

    /// How often the bucket answered so far.
    pub(super) fn answers(&self) -> u64 {
        self.bucket.answers()
    }

    /// Somebody waited for a whole deadline, since the bucket had answered `before` times. On a slow link, where none of
    /// its requests failed, that says nothing.
    pub(super) fn gave_up(&self, before: u64) {
        if self.bucket.is_failing() && self.answers() == before {
            self.doubts.nothing_came(before);
        }
    }

    /// Asks the bucket for these very bytes, whatever else is under way.
    pub(super) async fn get(&self, object: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let before = self.answers();
        let got = self.in_time(object, self.bucket.get(object, range)).await?;
        self.learn(object, before, got.as_ref().err());
        let bytes = got?;
        self.count(bytes.len());
        Ok(bytes)
    }

    /// Waits as long as it makes sense.
    async fn in_time<T>(&self, object: &str, what: impl Future<Output = T>) -> Result<T> {
        match self.doubts.until(object, self.answers()) {
            None => Ok(what.await),
            Some(until) if until <= Instant::now() => Err(Error::Down),
            Some(until) => timeout_at(until, what).await.map_err(|_| Error::Down),
        }
    }

    /// Learns from how a request for an object ended, that began when the bucket had answered `before` times.
    fn learn(&self, object: &str, before: u64, error: Option<&store::Error>) {
        if matches!(error, Some(store::Error::NotFound { .. })) {
            self.lacking.fetch_add(1, Ordering::Relaxed);
        }
        match error {
            Some(error) if error.is_unanswered() => {
                self.doubts.did_not_come(object, before, self.answers());
            }
            _ => self.doubts.came(object),
        }
    }

    /// How often something was asked for that is not in the bucket.
    pub(super) fn lacking(&self) -> u64 {
        self.lacking.load(Ordering::Relaxed)
    }

    /// Fetches `whole` (or joins whoever does) and returns its part `range`.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        object: &str,
        whole: Range<u64>,
        range: &Range<u64>,
    ) -> Result<Bytes> {
        // A waiter whose leader failed tries itself, once: the leader may have been late in its
        // deadline, or its store was just failing.
        let mut tries = 2;
        loop {
            tries -= 1;
            let begin = || self.join(object, whole.clone(), Purpose::Demand).ok_or(Error::Stopped);
            // The flight goes on, however long it is waited for: it finds out whether anything comes again.
            let wait = async {
                let (flight, joined) = begin()?;
                Ok::<_, Error>((flight.wait().await, flight, joined))
            };
            let (outcome, flight, joined) = self.in_time(object, wait).await??;
            match outcome {
                Ok(bytes) => {
                    let short = || Error::Short {
                        object: object.to_owned(),
                        length: flight.range().start + bytes.len() as u64,
                        range: range.clone(),
                    };
                    return flight.slice(&bytes, range).ok_or_else(short);
                }
                Err(error) if !joined || tries == 0 || error.is_final() => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// The flight that brings `range`, begun if nobody began it. `None` when there is no memory for it, or the end came.
    pub(super) fn begin(
        self: &Arc<Self>,
        object: &str,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Option<Arc<Flight>> {
        self.join(object, range, purpose).map(|(flight, _)| flight)
    }

    /// As `begin`, and whether the flight was under way already.
    fn join(
        self: &Arc<Self>,
        object: &str,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Option<(Arc<Flight>, bool)> {
        if self.ended.is_cancelled() {
            return None;
        }
        match self.flights.join(object, range, purpose)? {
            Joined::UnderWay(flight) => Some((flight, true)),
            Joined::New(leader) => {
                let flight = leader.0.clone();
                // After a panic whoever waits is told by the leader's drop.
                self.tasks.spawn(os::watched("fetching", self.clone().lead(leader)));
                Some((flight, false))
            }
        }
    }

    /// One flight from the request to the disk.
    async fn lead(self: Arc<Self>, leader: Leader) {
        let flight = leader.0.clone();
        let fetch = async {
            if !self.flights.admit(&flight).await {
                return None;
            }
            // Whoever asks for it has looked there, but another flight may have brought it, and ended, since.
            if let Some(bytes) = self.from_disk(&flight).await {
                return Some(Brought::FromDisk(bytes));
            }
            let (object, before) = (flight.object(), self.answers());
            let bucket = self.bucket.as_urgent_as(flight.urgency());
            let fetched = bucket.get_timed(object, Some(flight.range().clone())).await;
            self.learn(object, before, fetched.as_ref().err());
            Some(Brought::FromBucket(fetched))
        };
        let bytes = match self.ended.run_until_cancelled(fetch).await {
            Some(Some(Brought::FromBucket(Ok(fetched)))) => {
                self.count(fetched.bytes.len());
                self.note_length(flight.object(), fetched.object_length);
                fetched.bytes
            }
            Some(Some(Brought::FromBucket(Err(error)))) => {
                return flight.complete(Err(error.into()));
            }
            Some(Some(Brought::FromDisk(bytes))) => return flight.complete(Ok(bytes)),
            Some(None) | None => return flight.complete(Err(Error::Stopped)),
        };
        flight.complete(Ok(bytes.clone()));
        let length = bytes.len() as u64;
        let waiting = self.unwritten.fetch_add(length, Ordering::Relaxed) + length;
        // What is asked for singly is little, and the rest of a pack is wanted next.
        if flight.purpose() != Purpose::Ahead || waiting <= self.unwritten_max() {
            let (disk, flight) = (self.disk.clone(), flight.clone());
            let write = move || {
                let (object, start) = (flight.object(), flight.range().start);
                disk.write_if_wanted(object, start, (&bytes, false), || !flight.forgotten());
            };
            let write = move || os::watched_here("writing to the cache", write);
            // The semaphore is never closed.
            let _one = self.writes.acquire().await;
            // Fails only while the runtime shuts down: then it is not cached.
            let _ = os::blocking(write).await;
        }
        self.unwritten.fetch_sub(length, Ordering::Relaxed);
    }

    /// Bytes that may wait for the disk; beyond, what was read ahead is not written: when the disk does not keep up, a scan must
    /// not wait for it. Nor must readers lack memory that what was read already holds.
    fn unwritten_max(&self) -> u64 {
        let quarter = self.flights.ahead_capacity() / 4;
        if self.flights.is_short() { quarter } else { 3 * quarter }
    }

    /// What lies on the disk by now. Of what is read ahead that is the rule: who comes for it then does not wait for the disk.
    async fn from_disk(&self, flight: &Arc<Flight>) -> Option<Bytes> {
        if !self.disk.has(flight.object(), flight.range()) {
            return None;
        }
        let (disk, flight) = (self.disk.clone(), flight.clone());
        let read = move || disk.read(flight.object(), flight.range());
        // The semaphore is never closed.
        let _one = self.reads.acquire().await;
        match os::blocking(read).await {
            Ok(bytes) => bytes,
            // It is this flight's, which is watched.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }

    fn count(&self, bytes: usize) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.fetched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn note_length(&self, object: &str, length: u64) {
        let mut lengths = self.lengths.lock();
        if lengths.len() >= LENGTHS_MAX {
            lengths.clear();
        }
        lengths.insert(object.into(), length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Deadlines, MemoryStore};

    #[test]
    fn where_readers_lack_memory_less_of_it_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(DiskTier::open(dir.path(), 256 * MIB).unwrap());
        let store = Arc::new(MemoryStore::new());
        let bucket = Bucket::over(store, "", Deadlines::of(Duration::from_secs(2)));
        let fetcher = Fetcher::new(bucket, disk, 28 * MIB);
        let join = |from: u64, mib: u64| {
            fetcher.flights.join("pack/ab/abcd", from..from + mib * MIB, Purpose::Ahead)
        };
        let held = join(0, 12).unwrap();
        assert_eq!(fetcher.unwritten_max(), 15 * MIB);
        assert!(join(100 * MIB, 12).is_none());
        assert_eq!(fetcher.unwritten_max(), 5 * MIB);
        drop(held);
        assert!(join(100 * MIB, 12).is_some());
        assert_eq!(fetcher.unwritten_max(), 15 * MIB);
    }
}
