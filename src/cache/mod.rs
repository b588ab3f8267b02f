//! What was fetched and may be asked for again: decrypted blocks in memory, sealed bytes on disk.
//!
//! Nothing here is trusted and nothing here is durable: sealed bytes are opened by whoever reads
//! them, and what does not open is forgotten and fetched anew. Plaintext is in memory only.

mod disk;
mod fetch;
mod memory;
mod room;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::store::{self, Bucket};
use crate::types::MIB;
use disk::Disk;
use fetch::{Boarding, Pilot, Purpose, Registry};
use memory::Blocks;

pub use fetch::Flight;
pub use memory::{BlockId, Use};

/// Fetches in one piece at most; also the grid by which an object is fetched as a whole. Large
/// enough that the round trip does not count (30 ms at 130 MiB/s), small enough that several
/// run in parallel within one pack and a reader does not wait long for its first byte.
pub const PIECE: u64 = 4 * MIB;
/// Objects remembered as missed once; beyond, the table begins anew. About 100 bytes each.
const MISSED_MAX: usize = 10_000;
/// After somebody waited in vain for a whole deadline, others are refused for so long without a wait, unless something
/// comes: the kernel asks for each page again whose read-ahead failed.
#[cfg(not(test))]
const DOWN: Duration = Duration::from_secs(2);
#[cfg(test)]
const DOWN: Duration = Duration::from_millis(300);
/// How long the end waits for bytes that are on their way to the disk.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// An object larger than this is no pack of ours, and not fetched as a whole.
const WHOLE_MAX: u64 = 20 * MIB;

/// Errors of the cache. Cheap to clone: one failure answers all who wait for a range.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The bucket did not answer, or not as it must.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The cache's directory cannot be used.
    #[error("the cache directory {path}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The bucket has fewer bytes than the range that was asked for.
    #[error("{object} has {length} bytes, of which {}..{} were asked for", range.start, range.end)]
    Short {
        /// The object's name.
        object: String,
        /// The object's length in bytes.
        length: u64,
        /// The range in bytes.
        range: Range<u64>,
    },
    /// Somebody waited in vain for a whole deadline a moment ago, and nothing has come since.
    #[error("the store did not answer a moment ago")]
    Down,
    /// The task that fetched ended without an answer (the daemon is stopping).
    #[error("the fetch was stopped")]
    Stopped,
}

impl Error {
    /// Whether the same may work later, rather than something being broken or missing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Down | Self::Stopped => true,
            Self::Directory { .. } | Self::Short { .. } => false,
        }
    }
}

/// Results of the cache.
pub type Result<T> = std::result::Result<T, Error>;

/// Limits of a cache, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Memory in all: half for decrypted blocks, the rest for sealed ranges on their way
    /// (two thirds of that for read-ahead).
    pub memory: u64,
    /// Sealed bytes on disk.
    pub disk: u64,
}

/// What a cache holds and did, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of decrypted blocks.
    pub block_bytes: u64,
    /// Look-ups of blocks that found one.
    pub block_hits: u64,
    /// Look-ups of blocks that found none.
    pub block_misses: u64,
    /// Bytes of sealed ranges in memory: on their way, or waiting to be read or written.
    pub flight_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Files on disk.
    pub disk_files: usize,
    /// Ranges that were fetched from the bucket, and their bytes.
    pub fetches: u64,
    pub fetched_bytes: u64,
}

/// The cache of one vault. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blocks: Blocks,
    disk: Disk,
    bucket: Bucket,
    registry: Registry,
    /// Packs of which a range was fetched, with their length: the next miss fetches more.
    missed: Mutex<HashMap<Box<str>, u64>>,
    /// Bytes that wait to be written to disk.
    unwritten: AtomicU64,
    /// Beyond this many of them, what was read ahead is not written.
    unwritten_max: u64,
    fetches: AtomicU64,
    fetched_bytes: AtomicU64,
    /// When somebody last waited in vain.
    gave_up: Mutex<Option<Instant>>,
    /// The tasks of all flights.
    tasks: TaskTracker,
    /// Nothing is fetched any more.
    ended: CancellationToken,
}

impl Cache {
    /// Opens the directory (made if it is not there, 0700) and lists what is in it: at most
    /// 65,536 files. Blocking.
    pub fn open(dir: &Path, bucket: Bucket, budgets: Budgets) -> Result<Self> {
        let disk = Disk::open(dir, budgets.disk)
            .map_err(|cause| Error::Directory { path: dir.to_owned(), cause: Arc::new(cause) })?;
        let sealed = budgets.memory / 2;
        // Whatever the budget: one piece of each kind must fit, or nothing ever gets in.
        let (demand, ahead) = ((sealed / 3).max(PIECE), (sealed / 3 * 2).max(PIECE));
        Ok(Self(Arc::new(Inner {
            blocks: Blocks::new(budgets.memory / 2),
            disk,
            bucket,
            registry: Registry::new(demand, ahead),
            missed: Mutex::default(),
            unwritten: AtomicU64::new(0),
            unwritten_max: sealed / 3,
            fetches: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
            gave_up: Mutex::default(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        })))
    }

    /// A decrypted block, if it is in memory. Short, no I/O.
    pub fn block(&self, id: &BlockId, how: Use) -> Option<Bytes> {
        self.0.blocks.get(id, how)
    }

    /// Keeps a decrypted block for as long as there is room. Its buffer should be its own: a
    /// slice of a larger one keeps all of that in memory.
    pub fn insert_block(&self, id: BlockId, block: Bytes) {
        self.0.blocks.insert(id, block);
    }

    /// The range (bytes of the object), if all of it is on this machine. Short local I/O.
    pub fn sealed_local(&self, object: &str, range: Range<u64>) -> Option<Bytes> {
        if let Some(flight) = self.0.registry.find(object, &range)
            && let Some(Ok(bytes)) = flight.ready()
        {
            return flight.slice(&bytes, &range);
        }
        self.0.disk.read(object, &range)
    }

    /// Is the range on this machine, or on its way?
    pub fn expects(&self, object: &str, range: &Range<u64>) -> bool {
        self.0.registry.find(object, range).is_some() || self.0.disk.has(object, range)
    }

    /// The range, from this machine or the bucket. One GET however many ask; kept on disk.
    /// Bounded by the bucket's deadlines. To be awaited within a tokio runtime.
    pub async fn sealed(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        if let Some(bytes) = self.sealed_local(object, range.clone()) {
            return Ok(bytes);
        }
        self.fetch(object, range.clone(), &range).await
    }

    /// What is here of the range did not open: drops all that is here of the object, and asks the
    /// bucket for these very bytes, whatever else is under way. They replace what was on disk.
    pub async fn sealed_anew(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        self.forget(object);
        let bytes = self.0.bucket.get(object, Some(range.clone())).await?;
        self.0.count_fetch(bytes.len());
        // Once more: a flight with the wrong bytes may have reached the disk meanwhile.
        self.forget(object);
        self.0.disk.write(object, range.start, &bytes, false);
        Ok(bytes)
    }

    /// As `sealed`, for a small message in a pack that it shares with others: the second miss
    /// in a pack brings all of the pack, because whoever reads two neighbours reads more.
    pub async fn sealed_and_neighbours(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        if let Some(bytes) = self.sealed_local(object, range.clone()) {
            return Ok(bytes);
        }
        let length = self.0.missed.lock().get(object).copied();
        let whole = length.filter(|length| range.end <= *length && *length <= WHOLE_MAX);
        let Some(length) = whole else {
            return self.fetch(object, range.clone(), &range).await;
        };
        let first = range.start / PIECE * PIECE;
        let mine = first..range.end.next_multiple_of(PIECE).min(length);
        let bytes = self.fetch(object, mine.clone(), &range);
        // Boarded after `mine` is polled below, so that what is waited for goes out first.
        let others = async {
            let starts = (0..length.div_ceil(PIECE)).map(|n| n * PIECE);
            for start in starts.filter(|start| !mine.contains(start)) {
                let piece = start..(start + PIECE).min(length);
                if !self.0.disk.has(object, &piece) {
                    drop(self.launch(object, piece, Purpose::Beside));
                }
            }
        };
        let (bytes, ()) = tokio::join!(bytes, others);
        bytes
    }

    /// All bytes of an object whose length is not known (a commit, a manifest), from this
    /// machine or the bucket; kept on disk.
    #[cfg(test)]
    pub async fn whole(&self, object: &str) -> Result<Bytes> {
        if let Some(bytes) = self.whole_local(object) {
            return Ok(bytes);
        }
        let bytes = self.0.bucket.get(object, None).await?;
        self.0.count_fetch(bytes.len());
        self.insert_whole(object, bytes.clone());
        Ok(bytes)
    }

    /// All bytes of an object, if it is on this machine as a whole. Short local I/O.
    pub fn whole_local(&self, object: &str) -> Option<Bytes> {
        self.0.disk.read_whole(object)
    }

    /// Keeps all bytes of an object (as long as they last). Short local I/O; a full disk or an
    /// error of it only means that they are not kept.
    #[allow(clippy::needless_pass_by_value, reason = "who gives them is done with them")]
    pub fn insert_whole(&self, object: &str, bytes: Bytes) {
        self.0.disk.write(object, 0, &bytes, true);
    }

    /// Begins to fetch a range that will probably be asked for. `None` when there is no room for
    /// it now. The bytes are found by `sealed_local` for as long as the flight is held, and
    /// afterwards when they went to disk. Within a tokio runtime.
    pub fn read_ahead(&self, object: &str, range: Range<u64>) -> Option<Arc<Flight>> {
        self.launch(object, range, Purpose::Ahead)
    }

    /// Bytes that all read-ahead together may hold.
    pub fn ahead_capacity(&self) -> u64 {
        self.0.registry.ahead_capacity()
    }

    /// Takes a staged pack over that is in the bucket now (a rename: same file system).
    pub fn adopt(&self, object: &str, file: &Path) -> io::Result<()> {
        self.0.disk.adopt(object, file)
    }

    /// What is here of this object did not open, or the object is gone: drop it, so that the
    /// next `sealed` asks the bucket. Blocks in memory stay: they were verified.
    pub fn forget(&self, object: &str) {
        self.0.registry.forget(object);
        self.0.disk.forget(object);
        self.0.missed.lock().remove(object);
    }

    /// Ends what is under way: who waits for it learns [`Error::Stopped`], as does who asks from now on. When this
    /// returns, nothing writes to the directory any more (unless the disk takes longer than 10 s for a write).
    pub async fn end(&self) {
        self.0.ended.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(LAST_WRITES, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("the cache's disk does not answer: a write to it is left behind");
        }
    }

    /// Figures for `status`.
    pub fn usage(&self) -> Usage {
        let (block_hits, block_misses) = self.0.blocks.hits_and_misses();
        let (disk_bytes, disk_files) = self.0.disk.usage();
        Usage {
            block_bytes: self.0.blocks.bytes(),
            block_hits,
            block_misses,
            flight_bytes: self.0.registry.bytes(),
            disk_bytes,
            disk_files,
            fetches: self.0.fetches.load(Ordering::Relaxed),
            fetched_bytes: self.0.fetched_bytes.load(Ordering::Relaxed),
        }
    }

    /// Somebody waited for the bucket for a whole deadline, in vain.
    pub fn gave_up(&self) {
        *self.0.gave_up.lock() = Some(Instant::now());
    }

    /// Whether to wait is known to be in vain. As soon as anything is read from the bucket it is not.
    fn is_down(&self) -> bool {
        self.0.bucket.is_failing()
            && self.0.gave_up.lock().is_some_and(|when| when.elapsed() < DOWN)
    }

    /// Fetches `whole` (or joins whoever does) and answers its part `range`.
    async fn fetch(&self, object: &str, whole: Range<u64>, range: &Range<u64>) -> Result<Bytes> {
        // A waiter whose leader failed tries itself, once: the leader may have been late in its
        // deadline, or its store was just failing.
        let mut tries = 2;
        loop {
            tries -= 1;
            if self.is_down() {
                return Err(Error::Down);
            }
            let Some((flight, joined)) = self.board(object, whole.clone(), Purpose::Demand) else {
                return Err(Error::Stopped);
            };
            match flight.wait().await {
                Ok(bytes) => {
                    let short = || Error::Short {
                        object: object.to_owned(),
                        length: flight.range().start + bytes.len() as u64,
                        range: range.clone(),
                    };
                    return flight.slice(&bytes, range).ok_or_else(short);
                }
                Err(error) => {
                    if error.is_unanswered() {
                        self.gave_up();
                    }
                    if !joined || tries == 0 || error.is_final() {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn launch(&self, object: &str, range: Range<u64>, purpose: Purpose) -> Option<Arc<Flight>> {
        self.board(object, range, purpose).map(|(flight, _)| flight)
    }

    /// The flight, and whether it was under way already.
    fn board(
        &self,
        object: &str,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Option<(Arc<Flight>, bool)> {
        if self.0.ended.is_cancelled() {
            return None;
        }
        match self.0.registry.board(object, range, purpose)? {
            Boarding::Joined(flight) => Some((flight, true)),
            Boarding::New(pilot) => {
                let flight = pilot.0.clone();
                self.0.tasks.spawn(fly(self.0.clone(), pilot));
                Some((flight, false))
            }
        }
    }
}

/// One flight from the request to the disk.
async fn fly(inner: Arc<Inner>, pilot: Pilot) {
    let flight = pilot.0.clone();
    let fetch = async {
        if !inner.registry.admit(&flight).await {
            return None;
        }
        Some(inner.bucket.get_timed(flight.object(), Some(flight.range().clone())).await)
    };
    let Some(Some(fetched)) = inner.ended.run_until_cancelled(fetch).await else {
        return flight.land(Err(Error::Stopped));
    };
    let bytes = match fetched {
        Ok(fetched) => {
            inner.count_fetch(fetched.bytes.len());
            inner.note_length(flight.object(), fetched.object_length);
            fetched.bytes
        }
        Err(error) => return flight.land(Err(error.into())),
    };
    flight.land(Ok(bytes.clone()));
    let length = bytes.len() as u64;
    let waiting = inner.unwritten.fetch_add(length, Ordering::Relaxed) + length;
    // When the disk does not keep up, a scan must not wait for it. What is asked for singly is
    // little, and the rest of a pack is wanted next.
    if flight.purpose() != Purpose::Ahead || waiting <= inner.unwritten_max {
        let (disk, flight) = (inner.clone(), flight.clone());
        let write = move || {
            if !flight.forgotten() {
                disk.disk.write(flight.object(), flight.range().start, &bytes, false);
            }
        };
        // Fails only while the runtime shuts down: then it is not cached.
        let _ = tokio::task::spawn_blocking(write).await;
    }
    inner.unwritten.fetch_sub(length, Ordering::Relaxed);
}

impl Inner {
    fn count_fetch(&self, bytes: usize) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.fetched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn note_length(&self, object: &str, length: u64) {
        let mut missed = self.missed.lock();
        if missed.len() >= MISSED_MAX {
            missed.clear();
        }
        missed.insert(object.into(), length);
    }
}

impl Error {
    /// Asking again at once cannot help.
    fn is_final(&self) -> bool {
        matches!(self, Self::Store(cause) if !cause.is_transient())
    }

    /// The bucket gave no answer for as long as it was asked.
    fn is_unanswered(&self) -> bool {
        matches!(self, Self::Store(cause) if cause.is_unanswered())
    }

    /// The bucket has no such object.
    #[cfg(test)]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(store::Error::NotFound { .. }))
    }
}
