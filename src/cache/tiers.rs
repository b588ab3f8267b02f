//! The cache as its users see it: the memory tier, the disk tier, and the bucket below them.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::disk_tier::DiskTier;
use super::fetcher::{FETCH_MAX, Fetcher};
use super::memory_tier::{BlockId, MemoryTier, Reuse};
use super::single_flight::{Flight, Purpose};
use super::{Error, Result};
use crate::store::Bucket;
use crate::types::{KIB, MIB};

/// An object larger than this is not one of our packs, and is not fetched as a whole.
const WHOLE_MAX: u64 = 20 * MIB;

/// How many whole packs the disk must have room for, so that a pack comes as a whole.
const PACKS_KEPT: u64 = 8;
/// The surroundings that come instead are a multiple of this.
const PIECE: u64 = 128 * KIB;

/// Limits of a cache, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Memory in all: five twelfths for decrypted blocks, as much for read-ahead, and the rest for other sealed ranges on
    /// their way.
    pub memory: u64,
    /// Sealed bytes on disk.
    pub disk: u64,
}

impl Budgets {
    /// The part of `memory` that is for decrypted blocks.
    pub fn blocks_of(memory: u64) -> u64 {
        memory / 12 * 5
    }
}

/// What a cache holds and has done, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of decrypted blocks.
    pub block_bytes: u64,
    /// Look-ups of blocks that were found.
    pub block_hits: u64,
    /// Look-ups of blocks that were not found.
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
    /// How many requests were for objects that the bucket does not have.
    pub lacking: u64,
}

/// The cache of one vault. Clones share it, and are cheap.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: MemoryTier,
    disk: Arc<DiskTier>,
    fetcher: Arc<Fetcher>,
}

impl Cache {
    /// Opens the directory (made with mode 0700 if it does not exist) and lists its files, at most 65,536. Blocking.
    pub fn open(dir: &Path, bucket: Bucket, budgets: Budgets) -> Result<Self> {
        let disk = DiskTier::open(dir, budgets.disk)
            .map_err(|cause| Error::Directory { path: dir.to_owned(), cause: Arc::new(cause) })?;
        let disk = Arc::new(disk);
        let blocks = Budgets::blocks_of(budgets.memory);
        let fetcher = Arc::new(Fetcher::new(bucket, disk.clone(), budgets.memory - blocks));
        Ok(Self(Arc::new(Inner { memory: MemoryTier::new(blocks), disk, fetcher })))
    }

    /// Sets the limit of bytes on disk. Short local I/O.
    pub fn limit_disk(&self, bytes: u64) {
        self.0.disk.limit(bytes);
    }

    /// Sets the limit of bytes for decrypted blocks in memory. Short, no I/O.
    pub fn limit_blocks(&self, bytes: u64) {
        self.0.memory.limit(bytes);
    }

    /// The limit of bytes for decrypted blocks in memory.
    pub fn blocks_limit(&self) -> u64 {
        self.0.memory.limited_to()
    }

    /// A decrypted block, if it is in memory. Short, no I/O.
    pub fn block(&self, id: &BlockId, reuse: Reuse) -> Option<Bytes> {
        self.0.memory.get(id, reuse)
    }

    /// Keeps a decrypted block as long as there is room. It should own its buffer: a slice of a larger one keeps all of that
    /// in memory.
    pub fn insert_block(&self, id: BlockId, block: Bytes) {
        self.0.memory.insert(id, block);
    }

    /// The range (bytes of the object), if all of it is on this machine. Short local I/O.
    pub fn sealed_local(&self, object: &str, range: Range<u64>) -> Option<Bytes> {
        if let Some(flight) = self.0.fetcher.flights().find(object, &range)
            && let Some(Ok(bytes)) = flight.ready()
        {
            return flight.slice(&bytes, &range);
        }
        self.0.disk.read(object, &range)
    }

    /// Whether the range is on this machine's disk.
    pub fn is_on_disk(&self, object: &str, range: &Range<u64>) -> bool {
        self.0.disk.has(object, range)
    }

    /// Whether the range is in memory, or on its way there.
    pub fn expects(&self, object: &str, range: &Range<u64>) -> bool {
        self.0.fetcher.flights().find(object, range).is_some()
    }

    /// The range, from this machine or the bucket. However many callers ask, there is one GET, whose bytes are kept on disk.
    /// Bounded by the bucket's deadlines. Await it within a tokio runtime.
    pub async fn sealed(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        if let Some(bytes) = self.sealed_local(object, range.clone()) {
            return Ok(bytes);
        }
        self.0.fetcher.fetch(object, range.clone(), &range).await
    }

    /// For a range that is here and did not open. Drops everything that is here of the object, and fetches exactly these bytes
    /// from the bucket, whatever else is under way. They replace what was on disk.
    pub async fn sealed_anew(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        self.forget(object);
        let bytes = self.0.fetcher.get(object, Some(range.clone())).await?;
        // Once more: a flight with the wrong bytes may have reached the disk meanwhile.
        self.forget(object);
        self.0.disk.write(object, range.start, &bytes, false);
        Ok(bytes)
    }

    /// As `sealed`, for a small message in a pack that holds others too: the second miss in a pack fetches the whole pack,
    /// because a caller that reads two neighbours will read more. Where the disk has no room for eight such packs, only
    /// the surroundings come along: what is evicted before it is read would be fetched again and again.
    pub async fn sealed_and_neighbours(&self, object: &str, range: Range<u64>) -> Result<Bytes> {
        if let Some(bytes) = self.sealed_local(object, range.clone()) {
            return Ok(bytes);
        }
        let length = self.0.fetcher.length_of(object);
        let whole = length.filter(|length| range.end <= *length && *length <= WHOLE_MAX);
        let Some(length) = whole else {
            return self.0.fetcher.fetch(object, range.clone(), &range).await;
        };
        let kept = self.0.disk.limited_to() / PACKS_KEPT;
        let piece = if length <= kept { FETCH_MAX } else { kept.min(FETCH_MAX) / PIECE * PIECE };
        if piece == 0 {
            return self.0.fetcher.fetch(object, range.clone(), &range).await;
        }
        let first = range.start / piece * piece;
        let mine = first..range.end.next_multiple_of(piece).min(length);
        if length > kept {
            return self.0.fetcher.fetch(object, mine, &range).await;
        }
        let bytes = self.0.fetcher.fetch(object, mine.clone(), &range);
        // Started after `mine` is polled below, so that the awaited request goes out first.
        let others = async {
            let starts = (0..length.div_ceil(FETCH_MAX)).map(|n| n * FETCH_MAX);
            for start in starts.filter(|start| !mine.contains(start)) {
                self.fetch_beside(object, start..(start + FETCH_MAX).min(length));
            }
        };
        let (bytes, ()) = tokio::join!(bytes, others);
        bytes
    }

    /// All bytes of an object, if it is on this machine as a whole. Short local I/O.
    pub fn whole_local(&self, object: &str) -> Option<Bytes> {
        self.0.disk.read_whole(object)
    }

    /// Keeps all bytes of an object as long as there is room. Short local I/O; if the disk is full or fails, they are just not
    /// kept.
    #[allow(clippy::needless_pass_by_value, reason = "who gives them is done with them")]
    pub fn insert_whole(&self, object: &str, bytes: Bytes) {
        self.0.disk.write(object, 0, &bytes, true);
    }

    /// Starts to fetch a range that will probably be asked for, from the disk if it is there. `None` when there is no room for
    /// it now. `sealed_local` finds the bytes as long as the flight is held, and afterwards if they were written to disk. Call
    /// it within a tokio runtime.
    pub fn read_ahead(&self, object: &str, range: Range<u64>) -> Option<Arc<Flight>> {
        self.0.fetcher.begin(object, range, Purpose::Ahead)
    }

    /// Starts to fetch a range that lies beside what was asked for, unless it is here or on its way. It runs when nobody waits
    /// for memory, and only a few such fetches run at once. If the pack's length is known, what follows the range in the pack
    /// comes along, up to the end of one fetch. Call it within a tokio runtime.
    pub fn fetch_beside(&self, object: &str, range: Range<u64>) {
        if self.expects(object, &range) || self.0.disk.has(object, &range) {
            return;
        }
        let whole = |length: &u64| range.end <= *length && *length <= WHOLE_MAX;
        let known = self.0.fetcher.length_of(object).filter(whole);
        let end = known.map_or(range.end, |all| range.end.next_multiple_of(FETCH_MAX).min(all));
        drop(self.0.fetcher.begin(object, range.start..end, Purpose::Beside));
    }

    /// The owner's limit of bytes a second from the bucket, if there is one.
    pub fn rate(&self) -> Option<u64> {
        self.0.fetcher.rate()
    }

    /// Bytes that all read-ahead together may hold.
    pub fn ahead_capacity(&self) -> u64 {
        self.0.fetcher.flights().ahead_capacity()
    }

    /// Takes over the file of a staged pack that is in the bucket now (a rename, so it must be on the same file system).
    pub fn adopt(&self, object: &str, file: &Path) -> io::Result<()> {
        self.0.disk.adopt(object, file)
    }

    /// Drops what is here of an object that does not open, or is gone, so that the next `sealed` asks the bucket. Decrypted
    /// blocks in memory stay: they were verified.
    pub fn forget(&self, object: &str) {
        self.0.fetcher.forget(object);
        self.0.disk.forget(object);
    }

    /// Ends all fetches: those who wait get [`Error::Stopped`], and so does every later caller. When this returns, nothing
    /// writes to the directory any more (unless the disk takes longer than 10 s for a write).
    pub async fn end(&self) {
        self.0.fetcher.end().await;
    }

    /// Figures for `status`.
    pub fn usage(&self) -> Usage {
        let (block_hits, block_misses) = self.0.memory.hits_and_misses();
        let (disk_bytes, disk_files) = self.0.disk.usage();
        let (fetches, fetched_bytes) = self.0.fetcher.fetched();
        Usage {
            block_bytes: self.0.memory.bytes(),
            block_hits,
            block_misses,
            flight_bytes: self.0.fetcher.flights().bytes(),
            disk_bytes,
            disk_files,
            fetches,
            fetched_bytes,
            lacking: self.0.fetcher.lacking(),
        }
    }

    /// How often the bucket has answered.
    pub fn answers(&self) -> u64 {
        self.0.fetcher.answers()
    }

    /// Notes that the caller waited in vain for the bucket for a whole deadline, since it had answered `before` times.
    pub fn gave_up(&self, before: u64) {
        self.0.fetcher.gave_up(before);
    }

    /// Whether no flight's task is left.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.0.fetcher.is_idle()
    }
}
