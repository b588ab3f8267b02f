//! How memory and disk are divided among the rooms.

use std::path::Path;

use super::state_dir::StateDir;
use super::this_machine::make_private;
use super::{Error, Result, VaultOptions};
use crate::cache::{Budgets, Cache};
use crate::content::{Content, Limits};
use crate::types::{GIB, MIB};
use crate::upload::Staging;

/// The shares of the memory budget: caches, write buffers, what is on the wire, and the changes that a checkpoint holds at
/// a time. sled, the index's memtable and the process itself take some 80 MiB that are not in these; what sled takes grows
/// with the log since the last checkpoint (by half as much), so that is bounded, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub cache: u64,
    pub buffers: u64,
    pub wire: u64,
    /// Of changed records, in a pass of a checkpoint over the commits.
    pub pass: usize,
    /// Of the log, after which a checkpoint is due at the latest (K1).
    pub log: u64,
}

impl Shares {
    pub(super) fn of(memory: u64) -> Self {
        let memory = memory.max(64 * MIB);
        let pass = usize::try_from((memory / 8).min(32 * MIB)).unwrap_or(usize::MAX);
        let (cache, buffers, wire) = (memory / 16 * 5, memory / 8, memory / 4);
        Self { cache, buffers, wire, pass, log: memory / 4 }
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
    Content::new(options.unlocked.keys.clone(), cache.clone(), staging.clone(), limits)
}
