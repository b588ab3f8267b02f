//! The index counts in `--cache-size`, too (J8). It cannot be told how large to be: its file grows with what changed since
//! the last checkpoint. So it is measured, and first the cache gives way to it, then what may be written.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::Cache;
use crate::types::MIB;
use crate::upload::Staging;

/// How often it is measured.
const LOOK: Duration = Duration::from_secs(1);
/// What it may grow by between two looks: a few batches. At most a sixteenth of the budget.
const AHEAD: u64 = 4 * MIB;
/// `stat` counts the disk in blocks of so many bytes.
const BLOCK: u64 = 512;

/// The part of the disk budget that the index has.
pub(super) struct IndexRoom {
    dir: PathBuf,
    budget: u64,
    cache: Cache,
    staging: Staging,
    taken: AtomicU64,
}

impl IndexRoom {
    /// Of the index in `dir`; `budget` is for all that a vault has on this disk.
    pub(super) fn new(dir: PathBuf, budget: u64, cache: Cache, staging: Staging) -> Arc<Self> {
        Arc::new(Self { dir, budget, cache, staging, taken: AtomicU64::new(0) })
    }

    /// Bytes of the disk that the index takes, as last measured.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Measures for as long as the vault is open.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            self.look();
            tokio::time::sleep(LOOK).await;
        }
    }

    fn look(&self) {
        let taken = size_of(&self.dir);
        self.taken.store(taken, Ordering::Relaxed);
        let (cache, beside) = shares(self.budget, taken);
        self.cache.limit_disk(cache);
        self.staging.takes_beside(beside);
    }
}

/// What is left for the cache (half of the budget, down to an eighth), and by how much staging (the other half) is less for
/// what is written. By half at most: what is there must get to the bucket, and then a checkpoint takes from the index.
fn shares(budget: u64, index: u64) -> (u64, u64) {
    let (half, least) = (budget / 2, budget / 8);
    let index = index + AHEAD.min(budget / 16);
    let cache = half.saturating_sub(index).max(least);
    (cache, index.saturating_sub(half - least).min(half / 2))
}

/// Of the disk, and not of what the files say: sled makes holes.
fn size_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.blocks() * BLOCK,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j8_cache_then_staging_give_way_to_the_index_and_all_stay_within_the_budget() {
        let budget = 64 * MIB;
        assert_eq!(shares(budget, 0), (28 * MIB, 0));
        assert_eq!(shares(budget, 20 * MIB), (8 * MIB, 0));
        assert_eq!(shares(budget, 30 * MIB), (8 * MIB, 10 * MIB));
        for index in 0..=36 {
            let (cache, beside) = shares(budget, index * MIB);
            assert!(cache + (budget / 2 - beside) + index * MIB <= budget, "{index}");
        }
        assert_eq!(shares(budget, 500 * MIB), (8 * MIB, 16 * MIB), "something can be sent always");
    }

    #[test]
    fn a_directory_is_as_large_as_its_blocks() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("blobs")).unwrap();
        std::fs::write(dir.path().join("blobs/1"), vec![1; 100_000]).unwrap();
        std::fs::File::create(dir.path().join("db")).unwrap().set_len(1 << 30).unwrap();
        let size = size_of(dir.path());
        assert!((100_000..MIB).contains(&size), "{size}");
        assert_eq!(size_of(&dir.path().join("none")), 0);
    }
}
