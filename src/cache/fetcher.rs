//! Fetches sealed ranges: joins fetches that are under way, bounds their memory, and writes them to the disk tier.

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

/// The most bytes of one fetch. A pack that is fetched whole is cut at multiples of it. It is large enough that the round trip
/// does not matter (30 ms at 130 MiB/s), and small enough that several run in parallel within one pack and a reader soon gets
/// its first byte.
pub const FETCH_MAX: u64 = 4 * MIB;
/// How many packs' lengths are remembered; beyond that the table starts anew. About 100 bytes each.
const LENGTHS_MAX: usize = 10_000;
/// Concurrent writes to the disk. Nobody waits for them, and the threads that may block are few: an fsync, for example, needs
/// one too.
const WRITES: usize = 4;
/// Concurrent reads of flights from the disk.
const READS: usize = 2;
/// How long shutdown waits for bytes that are being written to the disk.
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
    /// The length of each pack of which a range was fetched: the next miss in such a pack fetches more of it.
    lengths: Mutex<HashMap<Box<str>, u64>>,
    /// Bytes that wait to be written to the disk.
    unwritten: AtomicU64,
    writes: Semaphore,
    reads: Semaphore,
    fetches: AtomicU64,
    fetched_bytes: AtomicU64,
    /// Requests for objects that the bucket does not have.
    lacking: AtomicU64,
    doubts: Doubts,
    /// The tasks of all flights.
    tasks: TaskTracker,
    /// Cancelled at shutdown: nothing is fetched any more.
    ended: CancellationToken,
}

impl Fetcher {
    /// `memory` is the number of bytes for sealed ranges on their way.
    pub(super) fn new(bucket: Bucket, disk: Arc<DiskTier>, memory: u64) -> Self {
        // Whatever the budget, one fetch of each kind must fit, or nothing would ever get in.
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

    /// The numbers of fetched ranges and bytes.
    pub(super) fn fetched(&self) -> (u64, u64) {
        (self.fetches.load(Ordering::Relaxed), self.fetched_bytes.load(Ordering::Relaxed))
    }

    /// Forgets an object: its flights are not found any more.
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

    /// How often the bucket has answered.
    pub(super) fn answers(&self) -> u64 {
        self.bucket.answers()
    }

    /// Notes that somebody waited for a whole deadline, since the bucket had answered `before` times. If none of its requests
    /// failed, the link is just slow, and the wait says nothing.
    pub(super) fn gave_up(&self, before: u64) {
        if self.bucket.is_failing() && self.answers() == before {
            self.doubts.nothing_came(before);
        }
    }

    /// Fetches exactly these bytes from the bucket, whatever else is under way.
    pub(super) async fn get(&self, object: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let before = self.answers();
        let got = self.in_time(object, self.bucket.get(object, range)).await?;
        self.learn(object, before, got.as_ref().err());
        let bytes = got?;
        self.count(bytes.len());
        Ok(bytes)
    }

    /// Waits for `what` as long as that makes sense.
    async fn in_time<T>(&self, object: &str, what: impl Future<Output = T>) -> Result<T> {
        match self.doubts.until(object, self.answers()) {
            None => Ok(what.await),
            Some(until) if until <= Instant::now() => Err(Error::Down),
            Some(until) => timeout_at(until, what).await.map_err(|_| Error::Down),
        }
    }

    /// Learns from how a request for an object ended. When it began, the bucket had answered `before` times.
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

    /// How many requests were for objects that the bucket does not have.
    pub(super) fn lacking(&self) -> u64 {
        self.lacking.load(Ordering::Relaxed)
    }

    /// Fetches `whole` (or joins a flight that does) and returns its part `range`.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        object: &str,
        whole: Range<u64>,
        range: &Range<u64>,
    ) -> Result<Bytes> {
        // A waiter whose leader failed tries once itself: the leader may have been near its deadline, or the store may have been
        // failing just then.
        let mut tries = 2;
        loop {
            tries -= 1;
            let begin = || self.join(object, whole.clone(), Purpose::Demand).ok_or(Error::Stopped);
            // The flight goes on even after the waiter gives up: it finds out whether anything comes again.
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

    /// The flight that brings `range`, started if there is none. `None` when there is no memory for it, or at shutdown.
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
                // After a panic the leader's drop tells those who wait.
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
            // Whoever asks has looked on the disk, but another flight may have brought the range, and ended, since.
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
        // Singly requested ranges are small, and the rest of a pack is wanted next: both are always written.
        if flight.purpose() != Purpose::Ahead || waiting <= self.unwritten_max() {
            let (disk, flight) = (self.disk.clone(), flight.clone());
            let write = move || {
                let (object, start) = (flight.object(), flight.range().start);
                disk.write_if_wanted(object, start, (&bytes, false), || !flight.forgotten());
            };
            let write = move || os::watched_here("writing to the cache", write);
            // The semaphore is never closed.
            let _one = self.writes.acquire().await;
            // This fails only while the runtime shuts down. Then the range is not cached.
            let _ = os::blocking(write).await;
        }
        self.unwritten.fetch_sub(length, Ordering::Relaxed);
    }

    /// The most bytes that may wait for the disk. Beyond that, ranges read ahead are not written, because a scan must not wait
    /// for a slow disk. If memory is what keeps readers from reading ahead, the limit is lower: bytes that wait to be written
    /// must not take it.
    fn unwritten_max(&self) -> u64 {
        let quarter = self.flights.ahead_capacity() / 4;
        if self.flights.is_short() { quarter } else { 3 * quarter }
    }

    /// The range, if it is on the disk by now. For read-ahead that is the usual case, and it saves the later reader the wait for
    /// the disk.
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
            // The panic is this flight's, whose task is watched.
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
