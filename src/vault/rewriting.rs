//! Frees the room of mostly dead packs by rewriting what lives in them (K5).
//!
//! A pack's footer tells which files it has parts of: a hint, which is checked against the map. What the footer does not know
//! of (copies that share extents, packs that were mended after a crash) stays where it is, and so does the pack.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::Result;
use super::pack_footer::read_footer;
use crate::crypto::Keys;
use crate::reclaim::{Pace, Runs, SparsePack};
use crate::store::Bucket;
use crate::types::{EXTENT_MAX, Extent, InodeNo, PackId};
use crate::vfs::Vfs;

/// How many packs that were gone through are remembered, so that this is not done again and again.
const DONE: usize = 65_536;
/// In the background, it takes one part in this many of the time.
const SHARE: u32 = 10;

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

    /// Rewrites what lives in these packs. Returns its bytes, and the error if one ended it early. It also stops while staging
    /// is short of room, and in the background when somebody waits for a run: a later run does the rest.
    pub(super) async fn run(
        &self,
        packs: &[SparsePack],
        pace: Pace,
        runs: &Runs,
    ) -> (u64, Result<()>) {
        let all: HashSet<PackId> = packs.iter().map(|sparse| sparse.pack).collect();
        let mut moved = 0;
        for sparse in packs.iter().filter(|sparse| !self.done.lock().contains(&sparse.pack)) {
            let began = Instant::now();
            let goes_on = || !self.vfs.is_pressed() && !runs.gives_way(pace);
            if !goes_on() {
                break;
            }
            match self.empty(sparse, &all, &mut moved, goes_on).await {
                Ok(true) => self.remember(sparse.pack),
                Ok(false) => {}
                Err(error) => return (moved, Err(error)),
            }
            if pace == Pace::Background {
                let rest = (began.elapsed() * (SHARE - 1)).min(Duration::from_secs(60));
                let _ = runs.unless_wanted(pace, sleep(rest)).await;
            }
        }
        (moved, Ok(()))
    }

    /// Moves out what lives in a pack. Returns whether all that can be done for the pack is done.
    async fn empty(
        &self,
        sparse: &SparsePack,
        all: &HashSet<PackId>,
        moved: &mut u64,
        goes_on: impl Fn() -> bool,
    ) -> Result<bool> {
        let mut is_whole = true;
        for (ino, window) in self.windows(sparse).await? {
            if !goes_on() {
                return Ok(false);
            }
            let moves = |extent: &Extent| all.contains(&extent.reference.pack);
            let out = self.vfs.move_out(ino, window * EXTENT_MAX, &moves).await?;
            *moved += out.bytes;
            is_whole &= out.is_whole;
        }
        Ok(is_whole)
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
