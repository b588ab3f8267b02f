//! How memory and disk are divided among the rooms.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::state_dir::StateDir;
use super::this_machine::make_private;
use super::{Error, Result, VaultOptions};
use crate::cache::{Budgets, Cache};
use crate::content::{Content, Limits};
use crate::index::IndexMemory;
use crate::os::Buffers;
use crate::records::TRANSACTION_MAX;
use crate::types::{GIB, MIB};
use crate::upload::{Staging, UploadLimits};

/// The shares of the memory budget: caches, write buffers, packs on the wire, and the changes that a checkpoint holds at a
/// time. Not included are about 80 MiB (less with a small budget) for the process itself and for sled, which takes up to
/// four times its share of rows, 15 memtables in a batch. sled also grows by half of the log since the last checkpoint,
/// which `log` bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub cache: u64,
    pub buffers: u64,
    pub wire: u64,
    /// Bytes of changed records in one pass of a checkpoint over the commits.
    pub pass: usize,
    /// Bytes of transactions in a commit: in memory once while it is read and sealed, and again when a checkpoint opens it.
    pub commit: usize,
    /// Bytes of log after which a checkpoint is due at the latest (K1).
    pub log: u64,
    /// For the index's own layers.
    pub index: IndexMemory,
}

impl Shares {
    pub(super) fn of(memory: u64) -> Self {
        let memory = memory.max(64 * MIB);
        let pass = usize::try_from((memory / 8).min(32 * MIB)).unwrap_or(usize::MAX);
        // The 4 MiB matter most in a small budget, which has little to spare.
        let cache = memory / 8 * 3 - 4 * MIB;
        let (buffers, wire) = (memory / 8, memory / 4);
        let commit = TRANSACTION_MAX + usize::try_from((memory / 64).min(4 * MIB)).unwrap_or(0);
        Self { cache, buffers, wire, pass, commit, log: memory / 4, index: IndexMemory::of(memory) }
    }

    pub(super) fn upload(self) -> UploadLimits {
        UploadLimits { bytes: self.wire, commit: self.commit, ..UploadLimits::default() }
    }
}

/// What may be resident on top of `--memory`, set somewhat low: the process itself, sled, what malloc keeps.
const BESIDE: u64 = 44 * MIB;

/// The current memory for decrypted blocks. Resident memory is more than the sum of the shares (fragmentation, stacks,
/// libraries), so while the process has too much, this share shrinks: it is the one that can at any time.
#[derive(Debug)]
pub(super) struct BlockShare {
    full: u64,
    now: AtomicU64,
    /// Resident bytes that the process should stay below.
    most: u64,
}

impl BlockShare {
    pub(super) fn of(memory: u64) -> Self {
        let full = Budgets::blocks_of(Shares::of(memory).cache);
        Self { full, now: full.into(), most: memory.max(64 * MIB) + BESIDE }
    }

    /// Returns the new share if it changes. `resident`: the process's resident bytes. It shrinks at once and grows little
    /// by little.
    pub(super) fn next(&self, resident: u64) -> Option<u64> {
        let now = self.now.load(Ordering::Relaxed);
        let over = resident.saturating_sub(self.most / 8 * 7);
        let next = match over {
            0 if resident < self.most / 4 * 3 => (now + self.full / 64).min(self.full),
            0 => now,
            over => now.saturating_sub(over).max(self.full / 8),
        };
        self.now.store(next, Ordering::Relaxed);
        (next != now).then_some(next)
    }

    /// Bytes that buffers may keep for the next blocks, while decrypted blocks may take `blocks` bytes: at the full share
    /// as much as read-ahead has (it reads into these buffers), otherwise in proportion.
    pub(super) fn kept_beside(blocks: u64) -> u64 {
        blocks / 5 * 6
    }
}

/// Bytes for cache and staging together, at least 64 MiB. By default 20 GiB, or a fifth of the free space if that is less.
pub(super) fn disk_budget(dir: &Path, asked: Option<u64>) -> u64 {
    asked
        .unwrap_or_else(|| (20 * GIB).min(crate::os::free_bytes(dir).unwrap_or(100 * GIB) / 5))
        .max(64 * MIB)
}

/// Opens the cache with half of the disk budget; staging has the other half at most.
pub(super) fn open_cache(options: &VaultOptions, state_dir: &StateDir) -> Result<Cache> {
    let disk = disk_budget(&state_dir.root, options.cache_size);
    let memory = Shares::of(options.memory).cache;
    make_private(&state_dir.cache())?;
    let budgets = Budgets { memory, disk: disk / 2 };
    Buffers::shared().keep(BlockShare::kept_beside(Budgets::blocks_of(memory)));
    Cache::open(&state_dir.cache(), options.bucket.clone(), budgets)
        .map_err(|error| Error::Local(error.to_string()))
}

/// Builds `Content`, the bytes of files, over these rooms.
pub(super) fn open_content(
    options: &VaultOptions,
    cache: &Cache,
    staging: &Staging,
    budget: u64,
) -> Content {
    let shares = Shares::of(options.memory);
    let limits = Limits { buffers: shares.buffers, unpublished: budget / 4, ..Limits::default() };
    let content =
        Content::new(options.unlocked.keys.clone(), cache.clone(), staging.clone(), limits);
    content.limit_read_ahead(options.bucket.limited_to().read_ahead);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_are_kept_are_half_of_the_cache_and_give_way_with_blocks() {
        let cache = Shares::of(64 * MIB).cache;
        let blocks = Budgets::blocks_of(cache);
        assert!(BlockShare::kept_beside(blocks).abs_diff(cache / 2) < 16);
        assert!(BlockShare::kept_beside(blocks / 8) < cache / 15);
    }

    #[test]
    fn blocks_give_way_at_once_and_come_back_in_time() {
        let share = BlockShare::of(256 * MIB);
        assert_eq!(share.next(200 * MIB), None);
        let less = share.next(280 * MIB).unwrap();
        assert!(less < 30 * MIB, "{less}");
        assert!(share.next(1000 * MIB).unwrap() >= 4 * MIB, "some are always kept");
        assert_eq!(share.next(1000 * MIB), None);
        assert_eq!(share.next(250 * MIB), None, "it waits until there is room");
        let rounds = std::iter::from_fn(|| share.next(100 * MIB)).count();
        assert!((50..70).contains(&rounds), "{rounds}");
        assert_eq!(share.now.load(Ordering::Relaxed), share.full);
    }
}
