//! A file's bytes: what is written and not yet published, how it is sealed into packs, and how ranges are read.
//!
//! Write path: `File::write` (writes.rs) buffers; what runs on in order streams into a pack of its own (stream.rs);
//! `File::seal` puts the rest into the shared open pack (packer.rs). Then the caller publishes the pieces in one
//! transaction (extents.rs says which records change) and says so by `File::published`.
//! Read path: `Content::read` (reader.rs) lays the overlay of unpublished pieces over the published extents.
//!
//! Order of locks: a file's publishing lock, then the file's state, then the open pack, then staging.

mod budget;
mod chunks;
mod error;
pub mod extents;
mod file;
mod footer;
mod overlay;
mod packer;
mod pieces;
mod readahead;
mod reader;
#[cfg(test)]
mod reader_tests;
mod replaced;
mod rewrite;
mod seal;
mod stream;
mod table;
mod version;
mod writes;

#[cfg(test)]
mod write_tests;

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::crypto::Keys;
use crate::types::{InodeNo, MIB};
use crate::upload::Staging;

pub use error::{Error, Result};
pub use file::{File, Message, Publication, Took, Turn, Unpublished};
pub use footer::{Footer, FooterEntry, FooterKeys, open_footer, seal_footer};
pub use overlay::{Overlay, OverlayPiece, Source};
pub use replaced::{Answers, Counted, Question};
pub use rewrite::Copied;
pub use seal::{SealedExtent, extent_opens, seal_extent};
pub use version::VersionHash;

pub use crate::upload::Reservation;

/// Budgets of this room.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of plaintext in write buffers, over all files; beyond it buffers are sealed early.
    pub buffers: u64,
    /// Unpublished bytes of one file in staging at which it must be published: a quarter of staging's budget (V1).
    pub unpublished: u64,
    /// What one transaction takes of a publication, in bytes, old records that go weighed in (V1).
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

/// The contents of all files of a vault. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Content {
    inner: Arc<Inner>,
}

struct Inner {
    keys: Keys,
    cache: Cache,
    staging: Staging,
    limits: Limits,
    sealing: Arc<writes::Sealing>,
    files: Arc<table::Table>,
    readers: reader::Shared,
}

impl Content {
    /// Over an open staging area and cache; nothing is read or sent yet. The first small extent starts the thread
    /// that closes lingering packs, which ends with the last clone.
    pub fn new(keys: Keys, cache: Cache, staging: Staging, limits: Limits) -> Self {
        Self::lingering(keys, cache, staging, limits, packer::LINGER)
    }

    fn lingering(
        keys: Keys,
        cache: Cache,
        staging: Staging,
        limits: Limits,
        linger: packer::Linger,
    ) -> Self {
        let readers = reader::Shared::default();
        let packer = packer::Packer::new(keys.clone(), staging.clone(), linger);
        let budget = budget::Budget::new(limits.buffers);
        let sealing = writes::Sealing {
            keys: keys.clone(),
            staging: staging.clone(),
            packer,
            budget,
            limits,
        };
        let (sealing, files) = (Arc::new(sealing), Arc::default());
        Self { inner: Arc::new(Inner { keys, cache, staging, limits, sealing, files, readers }) }
    }

    /// The one `File` of this inode. A handle keeps it; so does what is unpublished in it.
    pub fn file(&self, ino: InodeNo) -> Arc<File> {
        self.inner.files.get_or_new(ino, &self.inner.sealing)
    }

    /// The file of this inode if anyone has it open or something of it is unpublished.
    pub fn known(&self, ino: InodeNo) -> Option<Arc<File>> {
        self.inner.files.get(ino)
    }

    /// Every file with unpublished writes (for `sync`, unmount, SIGTERM).
    pub fn unpublished(&self) -> Vec<Arc<File>> {
        let mut files = self.inner.files.dirty();
        files.sort_by_key(|file| file.ino());
        files
    }

    /// The files that must be published now: what is `age` old (V1: 30 s), what has reached its limits, and
    /// everything while a writer waits for room in staging. To be asked about once a second.
    pub fn overdue(&self, age: Duration) -> Vec<Arc<File>> {
        let mut files = self.unpublished();
        if *self.inner.sealing.staging.waiting().borrow() == 0 {
            let due = |now: Unpublished| now.must_publish || now.since.elapsed() >= age;
            files.retain(|file| file.unpublished().is_some_and(due));
        }
        files
    }

    /// Closes the shared open pack, so that it is uploaded now (`sync`, `fsync` into the bucket).
    pub fn close_packs(&self) -> Result<()> {
        self.inner.sealing.packer.close()
    }

    /// Bytes of plaintext in write buffers now.
    #[cfg(test)]
    pub fn buffered(&self) -> u64 {
        self.inner.sealing.budget.used()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Files that are kept refer to the table that keeps them.
        self.files.clear();
    }
}
