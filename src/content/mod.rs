//! The bytes of files: those written and not yet published, how they are sealed into packs, and how ranges are read.
//!
//! Write path: `File::take` (writes.rs) puts bytes into buffers (`write_buffer.rs`); sequential bytes stream into packs
//! of their own (stream.rs). `File::seal` puts the rest into the shared open pack (packer.rs). The caller then
//! publishes the pieces in one transaction (extents.rs says which records change), and reports that with
//! `File::published`.
//!
//! Read path: `Content::read` (reader.rs) lays the overlay of unpublished pieces over the published extents, opens what
//! is on this machine and fetches the rest (`partial_read.rs`). It reads ahead within a file (readahead.rs), and from one
//! small file to others that were made with it (neighbours.rs). Only seal.rs knows how an extent is sealed and opened.
//!
//! Lock order: a file's publishing turn, then the file's state, then the open pack, then staging.

mod budget;
mod chunks;
mod error;
pub mod extents;
mod file;
mod footer;
#[cfg(feature = "testing")]
mod fuzzing;
mod neighbours;
mod open_files;
mod overlay;
mod packer;
mod partial_read;
mod piece_map;
mod publication;
mod readahead;
mod reader;
mod replaced;
mod rewrite;
mod seal;
mod staged_extent;
mod staging_writer;
mod stream;
mod version;
mod write_buffer;
mod writes;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Cache;
use crate::crypto::Keys;
use crate::types::{Extent, InodeNo, MIB};
use crate::upload::Staging;

pub use error::{Error, Result};
pub use file::File;
pub use footer::{Footer, FooterEntry, FooterKeys, open_footer, seal_footer};
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
pub use neighbours::Lookout;
pub use overlay::{Overlay, OverlayBytes, OverlayPiece};
pub use publication::{Publication, Took, Turn, Unpublished};
pub use replaced::{Answers, OverlapCount, Question};
pub use rewrite::Copied;
pub use seal::{SealedExtent, extent_opens, part_opens, seal_extent};
pub use staged_extent::StagedExtent;
pub use version::VersionHash;

pub use crate::upload::Reservation;

/// More unsent bytes than this are much: two full packs, which a link of 8 Mbit/s carries in half a minute.
const PRESSED: u64 = 32 * MIB;

/// Budgets of this module.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of plaintext in write buffers, over all files; above it buffers are sealed early.
    pub buffers: u64,
    /// Unpublished bytes of one file in staging at which it must be published: a quarter of staging's budget (V1).
    pub unpublished: u64,
    /// The most that one transaction takes of a publication, in bytes; replaced records count too (V1).
    pub records: u64,
    /// The deadline of a read.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buffers: 48 * MIB,
            unpublished: 1024 * MIB,
            records: 2 * MIB,
            deadline: Duration::from_secs(30),
        }
    }
}

/// The contents of all files of a vault. Cheap to clone: all clones share one state.
#[derive(Clone)]
pub struct Content {
    inner: Arc<Inner>,
}

struct Inner {
    reader: reader::Reader,
    writer: Arc<staging_writer::StagingWriter>,
    files: Arc<open_files::OpenFiles<File>>,
}

impl Content {
    /// Makes it over an open staging area and cache; nothing is read or sent yet. The first small extent starts the
    /// thread that closes lingering packs, which ends with the last clone.
    pub fn new(keys: Keys, cache: Cache, staging: Staging, limits: Limits) -> Self {
        Self::lingering(keys, cache, staging, limits, packer::Linger::of_program())
    }

    /// How long a write waits for room in staging.
    pub fn room_wait(&self) -> Duration {
        self.inner.writer.staging.wait()
    }

    fn lingering(
        keys: Keys,
        cache: Cache,
        staging: Staging,
        limits: Limits,
        linger: packer::Linger,
    ) -> Self {
        let writer = staging_writer::StagingWriter {
            keys: keys.clone(),
            staging: staging.clone(),
            packer: packer::Packer::new(keys.clone(), staging.clone(), linger),
            budget: budget::Budget::new(limits.buffers),
            limits,
        };
        let reader = reader::Reader::new(keys, cache, staging, limits.deadline);
        Self { inner: Arc::new(Inner { reader, writer: Arc::new(writer), files: Arc::default() }) }
    }

    /// The one `File` of this inode. It lives as long as a handle, or unpublished writes in it.
    pub fn file(&self, ino: InodeNo) -> Arc<File> {
        let Inner { writer, files, .. } = &*self.inner;
        files.get_or_new(ino, || File::new(ino, writer.clone(), files.clone()))
    }

    /// The file of this inode, if anyone has it open or it has unpublished writes.
    pub fn known(&self, ino: InodeNo) -> Option<Arc<File>> {
        self.inner.files.get(ino)
    }

    /// Every file with unpublished writes (for `sync`, unmount, SIGTERM).
    pub fn unpublished(&self) -> Vec<Arc<File>> {
        let mut files = self.inner.files.dirty();
        files.sort_by_key(|file| file.ino());
        files
    }

    /// The files that must be published now: those with writes at least `age` old (V1: 30 s), those at one of their
    /// limits, and all of them while a writer waits for room in staging. Call it once a second.
    pub fn overdue(&self, age: Duration) -> Vec<Arc<File>> {
        let mut files = self.unpublished();
        if *self.inner.writer.staging.waiting().borrow() == 0 {
            let due = |now: Unpublished| now.must_publish || now.since.elapsed() >= age;
            files.retain(|file| file.unpublished().is_some_and(due));
        }
        files
    }

    /// The bytes of `range`, cut at `size`: the overlay over the published extents, and zeros where neither has bytes.
    /// Ready at the first poll if all of it is on this machine. `published` holds at least the extents of `range`; with
    /// those of `File::window`, read-ahead knows what to fetch. Needs a tokio runtime.
    ///
    /// # Errors
    /// `Seal` if the bytes are not what they must be, `Cache` if the bucket fails, `Deadline` if it is too slow.
    pub async fn read(
        &self,
        file: &File,
        range: Range<u64>,
        overlay: Overlay,
        published: Vec<(u64, Extent)>,
        size: u64,
    ) -> Result<Bytes> {
        let reader = &self.inner.reader;
        let read = reader.read(&file.reads, range, overlay, &published, size).await;
        read.inspect_err(|error| match error {
            Error::Removed(_) => {} // the caller looks again
            error => reader.report(file.ino(), error),
        })
    }

    /// Notes that the file `ino`, which consists of this extent alone, is read from its beginning. Returns `Some` if
    /// the reader goes from file to file: the caller then looks up the files in the inodes that it names, for
    /// [`Content::fetch_ahead`].
    pub fn look_ahead(&self, ino: InodeNo, extent: &Extent) -> Option<Lookout> {
        self.inner.reader.look_ahead(ino, extent)
    }

    /// Begins to fetch what is not here of `files`: those found, in order, in the inodes of `look` below `reached`.
    /// Never waits. Needs a tokio runtime.
    pub fn fetch_ahead(&self, look: &Lookout, files: &[(InodeNo, Extent)], reached: InodeNo) {
        self.inner.reader.fetch_ahead(look, files, reached);
    }

    /// Limits how far one reader reads ahead, in bytes; `None`: as far as it helps.
    pub fn limit_read_ahead(&self, most: Option<u64>) {
        self.inner.reader.limit_read_ahead(most);
    }

    /// Whether much is on its way to the bucket, or a writer waits for room. Nothing should be rewritten then, as that
    /// would take room in staging, and the link, from those who wait.
    pub fn is_pressed(&self) -> bool {
        let staging = &self.inner.writer.staging;
        *staging.waiting().borrow() > 0 || staging.usage().unsent_bytes > PRESSED
    }

    /// Closes the shared open pack, so that it is uploaded now (`sync`, and `fsync` into the bucket).
    pub fn close_packs(&self) -> Result<()> {
        self.inner.writer.packer.close()
    }

    /// Bytes of plaintext in write buffers now.
    #[cfg(test)]
    pub fn buffered(&self) -> u64 {
        self.inner.writer.budget.used()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A file that the table keeps refers to the table: without this, neither would be dropped.
        self.files.clear();
    }
}

/// Converts a distance within bytes in memory to an index: it always fits.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
