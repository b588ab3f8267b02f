//! Frees the room of mostly dead packs by rewriting what lives in them (K5).
//!
//! A pack's footer tells which files it has parts of: a hint, which is checked against the map. What the footer does not know
//! of (copies that share extents, packs that were mended after a crash) stays where it is, and so does the pack.

use std::collections::{BTreeSet, HashSet};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::pack_footer::read_footer;
use super::{Error, ErrorClass, Result};
use crate::crypto::Keys;
use crate::reclaim::{Pace, Runs, SparsePack};
use crate::store::{Bucket, Error as StoreError};
use crate::types::{EXTENT_MAX, Extent, InodeNo, PackId, with_causes};
use crate::vfs::Vfs;

/// How many packs that were gone through are remembered, so that this is not done again and again.
const DONE: usize = 65_536;

/// What was done for a pack.
struct Emptied {
    /// Bytes that were moved out.
    bytes: u64,
    /// Whether all that can be done is done.
    is_whole: bool,
    /// The first error.
    outcome: Result<()>,
    /// Whether other packs would fail in the same way.
    ends: bool,
}

impl Emptied {
    fn fails(&mut self, sparse: &SparsePack, error: Error) {
        let pack = sparse.pack;
        tracing::warn!(%pack, error = %with_causes(&error), "a part of a sparse pack cannot be moved");
        self.is_whole = false;
        self.ends = !matches!(
            error.class(),
            ErrorClass::Damaged
                | ErrorClass::Other
                | ErrorClass::Store(StoreError::NotFound { .. } | StoreError::Corrupt { .. })
        );
        if self.outcome.is_ok() {
            self.outcome = Err(error);
        }
    }
}

/// Rewrites packs.
pub(super) struct Rewriting {
    pub(super) bucket: Bucket,
    pub(super) keys: Keys,
    pub(super) vfs: Vfs,
    done: Mutex<HashSet<PackId>>,
}

impl Rewriting {
    pub(super) fn new(bucket: Bucket, keys: Keys, vfs: Vfs) -> Self {
        Self { bucket, keys, vfs, done: Mutex::default() }
    }

    /// Rewrites what lives in these packs. Returns its bytes, and the first error. What cannot be moved stays, and does not stand
    /// before the rest, unless it is the store or the disk that fails. It also stops while staging is short of room, and in the
    /// background when somebody waits for a run: a later run does the rest.
    pub(super) async fn run(
        &self,
        packs: &[SparsePack],
        pace: Pace,
        runs: &Runs,
    ) -> (u64, Result<()>) {
        let all: HashSet<PackId> = packs.iter().map(|sparse| sparse.pack).collect();
        let (mut moved, mut outcome) = (0, Ok(()));
        for sparse in packs.iter().filter(|sparse| !self.done.lock().contains(&sparse.pack)) {
            let began = Instant::now();
            let goes_on = || !self.vfs.is_pressed() && !runs.gives_way(pace);
            if !goes_on() {
                break;
            }
            let emptied = self.empty(sparse, &all, goes_on).await;
            if emptied.is_whole {
                self.remember(sparse.pack);
            }
            moved += emptied.bytes;
            outcome = outcome.and(emptied.outcome);
            if emptied.ends {
                break;
            }
            if pace == Pace::Background {
                let rest = sleep(pace.rest_after(began.elapsed()));
                let _ = runs.unless_wanted(pace, rest).await;
            }
        }
        (moved, outcome)
    }

    /// Moves out what lives in a pack.
    async fn empty(
        &self,
        sparse: &SparsePack,
        all: &HashSet<PackId>,
        goes_on: impl Fn() -> bool,
    ) -> Emptied {
        let mut emptied = Emptied { bytes: 0, is_whole: true, outcome: Ok(()), ends: false };
        let windows = match self.windows(sparse).await {
            Ok(windows) => windows,
            Err(error) => {
                emptied.fails(sparse, error);
                return emptied;
            }
        };
        for (ino, window) in windows {
            if !goes_on() {
                emptied.is_whole = false;
                break;
            }
            let moves = |extent: &Extent| all.contains(&extent.reference.pack);
            match self.vfs.move_out(ino, window * EXTENT_MAX, &moves).await {
                Ok(out) => {
                    emptied.bytes += out.bytes;
                    emptied.is_whole &= out.is_whole;
                }
                Err(error) => emptied.fails(sparse, error.into()),
            }
            if emptied.ends {
                break;
            }
        }
        emptied
    }

    fn remember(&self, pack: PackId) {
        let mut done = self.done.lock();
        if done.len() >= DONE {
            done.clear();
        }
        done.insert(pack);
    }

    /// The windows of files that the pack has parts of, by its footer.
    async fn windows(&self, sparse: &SparsePack) -> Result<BTreeSet<(InodeNo, u64)>> {
        let footer = read_footer(&self.bucket, &self.keys, sparse.pack, sparse.length).await?;
        match footer {
            Ok(footer) => {
                let entries = footer.entries.iter();
                Ok(entries.map(|entry| (entry.inode, entry.offset / EXTENT_MAX)).collect())
            }
            Err(why) => {
                tracing::debug!(pack = %sparse.pack, why, "a sparse pack stays: its footer is of no help");
                Ok(BTreeSet::new())
            }
        }
    }
}
