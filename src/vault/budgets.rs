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

/// The shares of the memory budget: caches, write buffers, what is on the wire, and the changes that a checkpoint holds at
/// a time. What sled takes (up to four times its share of rows, 15 memtables in a batch) and the process itself are some 80
/// MiB that are not in these, less with a small budget; sled's part grows with the log since the last checkpoint (by half
/// as much), so that is bounded, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub cache: u64,
    pub buffers: u64,
    pub wire: u64,
    /// Of changed records, in a pass of a checkpoint over the commits.
    pub pass: usize,
    /// Of transactions in a commit: read and sealed at once, and once more when a checkpoint opens it.
    pub commit: usize,
    /// Of the log, after which a checkpoint is due at the latest (K1).
    pub log: u64,
    /// Of the index's own layers.
    pub index: IndexMemory,
}

impl Shares {
    pub(super) fn of(memory: u64) -> Self {
        let memory = memory.max(64 * MIB);
        let pass = usize::try_from((memory / 8).min(32 * MIB)).unwrap_or(usize::MAX);
        // A small budget has less to spare for it.
        let cache = memory / 8 * 3 - 4 * MIB;
        let (buffers, wire) = (memory / 8, memory / 4);
        let commit = TRANSACTION_MAX + usize::try_from((memory / 64).min(4 * MIB)).unwrap_or(0);
        Self { cache, buffers, wire, pass, commit, log: memory / 4, index: IndexMemory::of(memory) }
    }

    pub(super) fn upload(self) -> UploadLimits {
        UploadLimits { bytes: self.wire, commit: self.commit, ..UploadLimits::default() }
    }
}

/// What may be resident beside `--memory`, and somewhat less: the process itself, sled, what malloc keeps.
const BESIDE: u64 = 44 * MIB;

/// How much memory decrypted blocks have now. What is resident is not the sum of the shares: there are fragments, stacks,
/// libraries. So the one share that can be less at any time is, while the process has too much.
#[derive(Debug)]
pub(super) struct BlockShare {
    full: u64,
    now: AtomicU64,
    /// Of the process.
    most: u64,
}

impl BlockShare {
    pub(super) fn of(memory: u64) -> Self {
        let full = Budgets::blocks_of(Shares::of(memory).cache);
        Self { full, now: full.into(), most: memory.max(64 * MIB) + BESIDE }
    }

    /// What it is from now on, if that is another; `resident`: bytes of the process. Less at once, more little by little.
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

    /// What buffers may keep for the blocks that are read next, in bytes, while blocks have so much: as much as read-ahead
    /// has (what is read is in these), and less in proportion.
    pub(super) fn kept_beside(blocks: u64) -> u64 {
        blocks / 5 * 6
    }
}

/// Cache and staging in all: 20 GiB, or a fifth of what is free, if less.
pub(super) fn disk_budget(dir: &Path, asked: Option<u64>) -> u64 {
    asked
        .unwrap_or_else(|| (20 * GIB).min(crate::os::free_bytes(dir).unwrap_or(100 * GIB) / 5))
        .max(64 * MIB)
}

/// The shares of the disk budget: staging has half at most, so the cache may have all of it.
pub(super) fn open_cache(options: &VaultOptions, state_dir: &StateDir) -> Result<Cache> {
    let disk = disk_budget(&state_dir.root, options.cache_size);
    let memory = Shares::of(options.memory).cache;
    make_private(&state_dir.cache())?;
    let budgets = Budgets { memory, disk: disk / 2 };
    Buffers::shared().keep(BlockShare::kept_beside(Budgets::blocks_of(memory)));
    Cache::open(&state_dir.cache(), options.bucket.clone(), budgets)
        .map_err(|error| Error::Local(error.to_string()))
}

/// The bytes of files, over these rooms.
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
