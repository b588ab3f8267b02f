//! Mostly dead packs give their room back: what lives in them is written anew (K5).
//!
//! Which files a pack has parts of is told by its footer: a hint, which the map is asked about. What the hint does not know of
//! (copies that share extents, packs that were mended after a crash) stays where it is, and so does the pack.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::Result;
use super::pack_footer::read_footer;
use crate::crypto::Keys;
use crate::reclaim::SparsePack;
use crate::store::Bucket;
use crate::types::{EXTENT_MAX, InodeNo, PackId};
use crate::vfs::Vfs;

/// Packs that were tried and are remembered, so that they are not tried over and over.
const TRIED: usize = 65_536;
/// In the background, of so much time one part is spent.
const SHARE: u32 = 10;

/// What writes packs anew.
pub(super) struct Rewriting {
    pub(super) bucket: Bucket,
    pub(super) keys: Keys,
    pub(super) vfs: Vfs,
    tried: Mutex<HashSet<PackId>>,
}

impl Rewriting {
    pub(super) fn new(bucket: Bucket, keys: Keys, vfs: Vfs) -> Self {
        Self { bucket, keys, vfs, tried: Mutex::default() }
    }

    /// Writes anew what lives in these packs; returns its bytes. `paced`: nobody waits for it.
    pub(super) async fn run(&self, packs: &[SparsePack], paced: bool) -> Result<u64> {
        let all: HashSet<PackId> = packs.iter().map(|sparse| sparse.pack).collect();
        let mut moved = 0;
        for sparse in packs {
            if !self.is_new(sparse.pack) {
                continue;
            }
            let began = Instant::now();
            for (ino, window) in self.windows(sparse).await? {
                moved += self.vfs.move_out(ino, window * EXTENT_MAX, &all).await?;
            }
            if paced {
                sleep((began.elapsed() * (SHARE - 1)).min(Duration::from_secs(60))).await;
            }
        }
        Ok(moved)
    }

    fn is_new(&self, pack: PackId) -> bool {
        let mut tried = self.tried.lock();
        if tried.len() >= TRIED {
            tried.clear();
        }
        tried.insert(pack)
    }

    /// The windows of files that the footer says the pack has parts of.
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
