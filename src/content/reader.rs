//! The read path: lays the overlay over the published extents, and verifies each byte before anyone sees it.
//!
//! 1. `chunks::spans` says which extents, buffers and holes make up the range.
//! 2. What is on this machine is taken at once: chunks in memory, sealed bytes in staging, in flights of read-ahead, or
//!    on disk. If that is everything, the read never waits.
//! 3. Everything else is fetched, all at the same time.
//! 4. The chunks are opened (`PartialRead::assemble`). Bytes that do not open are dropped, and fetched once more from
//!    the bucket; if those do not open either, the read fails.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::Mutex;

use super::chunks::{self, Fetch, ReadSpan};
use super::neighbours::{Lookout, Neighbours};
use super::overlay::Overlay;
use super::partial_read::{ChunkRun, Obstacle, PartialRead, PartialSpan};
use super::readahead::{Readahead, ReadaheadPool, Upstream};
use super::seal;
use super::{Error, Result};
use crate::cache::{BlockId, Cache, Reuse};
use crate::crypto::Keys;
use crate::os::Buffers;
use crate::types::{Extent, InodeNo, Reference, with_causes};
use crate::upload::{Staging, pack_object};

/// How many failures are remembered as logged; at that number all are forgotten.
const REPORTED_MAX: usize = 1024;

/// Reads all files of a vault.
pub(super) struct Reader {
    pub keys: Keys,
    pub cache: Cache,
    pub staging: Staging,
    /// How long a read may wait for the bucket.
    deadline: Duration,
    pool: ReadaheadPool,
    neighbours: Neighbours,
    /// For the bytes of replies.
    buffers: Buffers,
    /// Failures that were logged: each is logged only once.
    reported: Mutex<HashSet<(InodeNo, String)>>,
}

impl Reader {
    pub(super) fn new(keys: Keys, cache: Cache, staging: Staging, deadline: Duration) -> Self {
        let (pool, reported) = (ReadaheadPool::default(), Mutex::default());
        let buffers = Buffers::shared();
        let neighbours = Neighbours::default();
        Self { keys, cache, staging, deadline, pool, neighbours, buffers, reported }
    }

    fn upstream(&self) -> Upstream<'_> {
        Upstream { cache: &self.cache, staging: &self.staging, pool: &self.pool }
    }

    /// See `Content::look_ahead`.
    pub(super) fn look_ahead(&self, ino: InodeNo, extent: &Extent) -> Option<Lookout> {
        self.neighbours.read(ino, extent, self.upstream().most())
    }

    /// See `Content::fetch_ahead`.
    pub(super) fn fetch_ahead(
        &self,
        look: &Lookout,
        files: &[(InodeNo, Extent)],
        reached: InodeNo,
    ) {
        self.neighbours.fetch(look, files, reached, self.upstream());
    }

    /// See `Content::limit_read_ahead`.
    pub(super) fn limit_read_ahead(&self, most: Option<u64>) {
        self.pool.limit(most);
    }

    /// `Content::read`, with `reads`: what the file remembers of earlier reads.
    pub(super) async fn read(
        &self,
        reads: &Readahead,
        range: Range<u64>,
        overlay: Overlay,
        published: &[(u64, Extent)],
        size: u64,
    ) -> Result<Bytes> {
        let range = range.start..range.end.min(size);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let scan = reads.continues(&range);
        let mut partial = self.gather(&range, overlay, published, scan)?;
        // After the local look-up and before the wait: so read-ahead is under way meanwhile.
        reads.advance(&range, published, size, self.upstream());
        match partial.assemble(&self.keys, &self.cache, &self.buffers) {
            Ok(bytes) => return Ok(bytes),
            Err(Obstacle::Error(error)) => return Err(error),
            Err(Obstacle::Run(..)) => {}
        }
        let before = self.cache.answers();
        let complete = self.complete(&mut partial);
        tokio::time::timeout(self.deadline, complete).await.unwrap_or_else(|_| {
            self.cache.gave_up(before);
            Err(Error::Deadline)
        })
    }

    /// Finds what of `range` is on this machine. Never waits for the network.
    fn gather(
        &self,
        range: &Range<u64>,
        overlay: Overlay,
        published: &[(u64, Extent)],
        scan: bool,
    ) -> Result<PartialRead> {
        let mut spans = Vec::new();
        for span in chunks::spans(range, overlay.pieces, published) {
            spans.push(match span {
                ReadSpan::Hole(length) => PartialSpan::Hole(length),
                ReadSpan::Plain(bytes) => PartialSpan::Plain(bytes),
                ReadSpan::Sealed(extent) => {
                    seal::check(&self.keys, &extent)?;
                    let mut runs = Vec::with_capacity(1);
                    let reuse = if scan { Reuse::Unlikely } else { Reuse::Expected };
                    self.find(&extent.reference, seal::chunks(&extent), reuse, &mut runs)?;
                    PartialSpan::Sealed(extent, runs)
                }
            });
        }
        let length = range.end - range.start;
        let length = usize::try_from(length).map_err(|_| Error::TooLarge)?;
        Ok(PartialRead { length, spans, scan })
    }

    /// Finds the chunks that are open in memory, and for the chunks between them what is here sealed.
    fn find(
        &self,
        reference: &Reference,
        range: Range<u64>,
        reuse: Reuse,
        runs: &mut Vec<ChunkRun>,
    ) -> Result<()> {
        let mut from = range.start;
        for index in range.clone() {
            let id = BlockId::Extent(reference.extent, index);
            if let Some(block) = self.cache.block(&id, reuse) {
                self.find_sealed(reference, from..index, runs)?;
                runs.push(ChunkRun::Open(index, block));
                from = index + 1;
            }
        }
        self.find_sealed(reference, from..range.end, runs)
    }

    /// Finds the sealed bytes of these chunks: in staging, in a flight of read-ahead, or on disk.
    fn find_sealed(
        &self,
        reference: &Reference,
        range: Range<u64>,
        runs: &mut Vec<ChunkRun>,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let sealed = chunks::in_pack(reference, &range);
        let staged = self.staging.read(reference.pack, sealed.clone())?;
        let object = pack_object(reference.pack);
        if let Some(bytes) = staged.or_else(|| self.cache.sealed_local(&object, sealed)) {
            runs.push(ChunkRun::Sealed { chunks: range, bytes, asked_again: false });
        } else if self.staging.was_dropped(reference.pack) {
            return Err(Error::Removed(reference.pack));
        } else if range.end - range.start > 1 {
            // A part of it may be here: two fetches of read-ahead may meet in the middle.
            let middle = range.start.midpoint(range.end);
            self.find_sealed(reference, range.start..middle, runs)?;
            self.find_sealed(reference, middle..range.end, runs)?;
        } else if let Some(ChunkRun::Missing(last)) = runs.last_mut() {
            last.end = range.end;
        } else {
            runs.push(ChunkRun::Missing(range));
        }
        Ok(())
    }

    /// Fetches everything missing at once, and opens it. What does not open is fetched once more.
    async fn complete(&self, partial: &mut PartialRead) -> Result<Bytes> {
        let missing = partial.runs().filter_map(|(reference, run)| match run {
            ChunkRun::Missing(range) => Some((reference, range.clone())),
            _ => None,
        });
        let fetches = chunks::fetches(missing);
        let got = try_join_all(fetches.iter().map(|fetch| self.fetch(fetch))).await?;
        for (reference, run) in partial.runs() {
            let ChunkRun::Missing(chunks) = run else { continue };
            let range = chunks::in_pack(reference, chunks);
            let part = |(fetch, bytes)| Fetch::part(fetch, bytes, reference.pack, &range);
            if let Some(bytes) = fetches.iter().zip(&got).find_map(part) {
                *run = ChunkRun::Sealed { chunks: chunks.clone(), bytes, asked_again: false };
            }
        }
        loop {
            match partial.assemble(&self.keys, &self.cache, &self.buffers) {
                Ok(bytes) => return Ok(bytes),
                Err(Obstacle::Error(error)) => return Err(error),
                Err(Obstacle::Run(span, run)) => {
                    self.ask_again(&mut partial.spans[span], run).await?;
                }
            }
        }
    }

    async fn fetch(&self, fetch: &Fetch) -> Result<Bytes> {
        let object = pack_object(fetch.pack);
        let range = fetch.range.clone();
        let reads_ahead = self.upstream().most() > 0;
        Ok(if fetch.shared && reads_ahead {
            self.cache.sealed_and_neighbours(&object, range).await?
        } else {
            self.cache.sealed(&object, range).await?
        })
    }

    /// The bytes of a run did not open: drops all that is here of its pack, and asks the bucket again, but only once.
    async fn ask_again(&self, span: &mut PartialSpan, run: usize) -> Result<()> {
        let PartialSpan::Sealed(extent, runs) = span else { return Ok(()) };
        let reference = &extent.reference;
        let object = pack_object(reference.pack);
        let chunks = match &runs[run] {
            // What was decrypted once is shorter than its record says: asking again would change nothing.
            ChunkRun::Open(..) => return Err(Error::Seal { extent: reference.extent }),
            ChunkRun::Sealed { asked_again: true, .. } => {
                self.cache.forget(&object);
                return Err(Error::Seal { extent: reference.extent });
            }
            ChunkRun::Sealed { chunks, .. } | ChunkRun::Missing(chunks) => chunks.clone(),
        };
        let bytes = self.cache.sealed_anew(&object, chunks::in_pack(reference, &chunks)).await?;
        runs[run] = ChunkRun::Sealed { chunks, bytes, asked_again: true };
        Ok(())
    }

    /// Logs why a file cannot be read: the inode and the object, never a name. Each cause is logged once.
    pub(super) fn report(&self, ino: InodeNo, error: &Error) {
        let cause = with_causes(error);
        let mut reported = self.reported.lock();
        if reported.len() >= REPORTED_MAX {
            reported.clear();
        }
        if reported.insert((ino, cause.clone())) {
            drop(reported);
            tracing::error!(inode = ino.0, cause, "a read failed");
        }
    }
}
