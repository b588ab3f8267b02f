//! The index counts in `--cache-size`, too (J8). Its size cannot be set: its file grows with what changed since the last
//! checkpoint. So it is measured while it is written to, and first the cache gives way to it, then what may be written.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::Cache;
use crate::index::Index;
use crate::os;
use crate::types::MIB;
use crate::upload::Staging;

/// How often the index is measured while it is written to.
const LOOK: Duration = Duration::from_secs(1);
/// Without writes it is still measured every this many looks: sled has threads of its own.
const IDLE: u32 = 60;
/// How much it may grow between two looks: a few batches. At most a sixteenth of the budget.
const AHEAD: u64 = 4 * MIB;
/// `stat` counts the disk in blocks of this many bytes.
const BLOCK: u64 = 512;

/// The index's part of the disk budget.
pub(super) struct IndexRoom {
    dir: PathBuf,
    budget: u64,
    /// How often the index was written to. A counter, not the index itself: a look may outlive the vault for a moment.
    writes: Arc<AtomicU64>,
    cache: Cache,
    staging: Staging,
    taken: AtomicU64,
}

/// Decides when a look is worth it.
#[derive(Default)]
struct Looks {
    /// The count of writes at the last look.
    writes: Option<u64>,
    /// How many looks there were since it changed.
    idle: u32,
}

impl IndexRoom {
    /// For `index`, which lies in `dir`. `budget` is for all that the vault has on this disk.
    pub(super) fn new(
        (index, dir): (&Index, PathBuf),
        budget: u64,
        cache: Cache,
        staging: Staging,
    ) -> Arc<Self> {
        let writes = index.writes();
        Arc::new(Self { dir, budget, writes, cache, staging, taken: AtomicU64::new(0) })
    }

    /// Bytes of disk that the index takes, as last measured.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Measures while the vault is open.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut looks = Looks::default();
        loop {
            if looks.is_due(self.writes.load(Ordering::Relaxed)) {
                let this = self.clone();
                let look = move || os::watched_here("measuring the index", || this.look());
                // A panic is logged; the next look still comes.
                if os::blocking(look).await.is_err() {
                    return; // the runtime is shutting down
                }
            }
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

impl Looks {
    /// After a write, and once more after the last one: sled may write to the disk a little later.
    fn is_due(&mut self, writes: u64) -> bool {
        let is_new = self.writes.replace(writes) != Some(writes);
        self.idle = if is_new { 0 } else { self.idle + 1 };
        self.idle <= 1 || self.idle.is_multiple_of(IDLE)
    }
}

/// What remains for the cache (half of the budget, down to an eighth), and how many bytes of staging (the other half)
/// writes may not use. That is half of staging at most: what is there must get to the bucket, and then a checkpoint makes
/// the index smaller.
fn shares(budget: u64, index: u64) -> (u64, u64) {
    let (half, least) = (budget / 2, budget / 8);
    let index = index + AHEAD.min(budget / 16);
    let cache = half.saturating_sub(index).max(least);
    (cache, index.saturating_sub(half - least).min(half / 2))
}

/// Bytes on disk, not the files' lengths: sled makes holes.
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
    fn an_index_that_nobody_writes_to_is_measured_seldom() {
        let mut looks = Looks::default();
        let due: Vec<_> = [3, 3, 3, 3, 4, 5, 5, 5].map(|writes| looks.is_due(writes)).into();
        assert_eq!(due, [true, true, false, false, true, true, true, false]);
        assert_eq!((0..6000).filter(|_| looks.is_due(5)).count(), 100);
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
