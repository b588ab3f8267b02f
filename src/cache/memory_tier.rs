//! The memory tier: decrypted blocks, which are 16 KiB chunks of extents and blocks of pages.
//!
//! A segmented LRU in independent shards. A content block begins on *probation*, and is *kept* once
//! it is used a second time. So a long scan passes through the probation part only. Blocks of pages
//! have a part of their own and go last: every path needs them.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::types::{ExtentId, MIB, PageId};

/// The largest number of shards: 16 nearly double the throughput of one lock (measured with the
/// crate `lru` 0.19).
const SHARDS: u64 = 16;
/// What an entry costs besides its bytes: key, links, hash slot, and the allocation's own header.
const OVERHEAD: u64 = 128;

/// Names a decrypted block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockId {
    /// A chunk of an extent's plaintext, counted from 0.
    Extent(ExtentId, u64),
    /// A part of a page.
    Page(PageId, PagePart),
}

/// A part of a page that is read on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PagePart {
    /// A block, counted from 0.
    Block(u64),
    /// The index of its blocks.
    BlockIndex,
}

/// How a look-up of a block counts as a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The caller may ask again: the block is worth keeping.
    Expected,
    /// A scan passes by: the block stays on probation.
    Unlikely,
}

/// One part of the segmented LRU, and what is in it.
#[derive(Debug)]
struct WeighedLru {
    lru: LruCache<BlockId, Bytes>,
    bytes: u64,
}

impl WeighedLru {
    fn new() -> Self {
        Self { lru: LruCache::unbounded(), bytes: 0 }
    }

    fn push(&mut self, id: BlockId, block: Bytes) -> Option<Bytes> {
        self.bytes += weight(&block);
        let old = self.lru.put(id, block);
        self.bytes -= old.as_ref().map_or(0, weight);
        old
    }

    fn take(&mut self, id: &BlockId) -> Option<Bytes> {
        let block = self.lru.pop(id)?;
        self.bytes -= weight(&block);
        Some(block)
    }

    fn take_oldest(&mut self) -> Option<(BlockId, Bytes)> {
        let (id, block) = self.lru.pop_lru()?;
        self.bytes -= weight(&block);
        Some((id, block))
    }
}

#[derive(Debug)]
struct Shard {
    budget: u64,
    pages: WeighedLru,
    kept: WeighedLru,
    probation: WeighedLru,
}

impl Shard {
    fn total(&self) -> u64 {
        self.pages.bytes + self.kept.bytes + self.probation.bytes
    }

    /// A quarter of the memory for content stays for newcomers. Otherwise no new block could prove
    /// itself.
    fn kept_limit(&self) -> u64 {
        self.budget.saturating_sub(self.pages.bytes) / 4 * 3
    }

    fn get(&mut self, id: &BlockId, reuse: Reuse) -> Option<Bytes> {
        if matches!(id, BlockId::Page(..)) {
            return self.pages.lru.get(id).cloned();
        }
        if let Some(block) = self.kept.lru.get(id) {
            return Some(block.clone());
        }
        if reuse == Reuse::Unlikely {
            return self.probation.lru.get(id).cloned();
        }
        let block = self.probation.take(id)?;
        self.kept.push(*id, block.clone());
        while self.kept.bytes > self.kept_limit() {
            let Some((id, block)) = self.kept.take_oldest() else { break };
            self.probation.push(id, block);
        }
        Some(block)
    }

    /// Inserts the block, and moves what has to leave to `out`, to be dropped outside the lock.
    fn insert(&mut self, id: BlockId, block: Bytes, out: &mut Vec<Bytes>) {
        let segment = match id {
            BlockId::Page(..) => &mut self.pages,
            BlockId::Extent(..) if self.kept.lru.contains(&id) => &mut self.kept,
            BlockId::Extent(..) => &mut self.probation,
        };
        out.extend(segment.push(id, block));
        self.shrink(out);
    }

    /// Moves what exceeds the budget to `out`.
    fn shrink(&mut self, out: &mut Vec<Bytes>) {
        // Pages are preferred, but a huge tree must leave something for content.
        while self.pages.bytes > self.budget / 4 * 3 {
            let Some((_, block)) = self.pages.take_oldest() else { break };
            out.push(block);
        }
        while self.total() > self.budget {
            let kept_first = self.kept.bytes > self.kept_limit();
            let oldest = (if kept_first { self.kept.take_oldest() } else { None })
                .or_else(|| self.probation.take_oldest())
                .or_else(|| self.kept.take_oldest())
                .or_else(|| self.pages.take_oldest());
            let Some((_, block)) = oldest else { break };
            out.push(block);
        }
    }
}

/// The decrypted blocks of one vault. All methods are short, without I/O.
#[derive(Debug)]
pub(super) struct MemoryTier {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl MemoryTier {
    /// Holds at most `budget` bytes, overhead included.
    pub(super) fn new(budget: u64) -> Self {
        let count = (budget / MIB).clamp(1, SHARDS);
        let shard = || Shard {
            budget: budget / count,
            pages: WeighedLru::new(),
            kept: WeighedLru::new(),
            probation: WeighedLru::new(),
        };
        Self {
            shards: (0..count).map(|_| Mutex::new(shard())).collect(),
            hasher: RandomState::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    fn shard(&self, id: &BlockId) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(id);
        let count = self.shards.len() as u64;
        // The remainder is below the number of shards, at most 16.
        &self.shards[usize::try_from(hash % count).unwrap_or(0)]
    }

    pub(super) fn get(&self, id: &BlockId, reuse: Reuse) -> Option<Bytes> {
        let found = self.shard(id).lock().get(id, reuse);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Inserts a block, unless it alone exceeds a quarter of its shard.
    pub(super) fn insert(&self, id: BlockId, block: Bytes) {
        let mut out = Vec::new();
        let mut shard = self.shard(&id).lock();
        if weight(&block) <= shard.budget / 4 {
            shard.insert(id, block, &mut out);
        }
        drop(shard);
        drop(out); // freeing memory takes time, so not under the lock
    }

    /// Sets the budget to `budget` bytes, and evicts what exceeds it.
    pub(super) fn limit(&self, budget: u64) {
        for shard in &self.shards {
            let mut out = Vec::new();
            let mut shard = shard.lock();
            shard.budget = budget / self.shards.len() as u64;
            shard.shrink(&mut out);
        }
    }

    /// The budget in bytes.
    pub(super) fn limited_to(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().budget).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().total()).sum()
    }

    pub(super) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

fn weight(block: &Bytes) -> u64 {
    block.len() as u64 + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(n: u64) -> BlockId {
        BlockId::Extent(ExtentId([7; 16]), n)
    }

    fn block(n: u64) -> Bytes {
        Bytes::from(vec![u8::try_from(n % 251).unwrap(); 1024])
    }

    /// One shard, with room for about 100 blocks.
    fn small() -> MemoryTier {
        MemoryTier::new(100 * (1024 + OVERHEAD))
    }

    #[test]
    fn what_is_put_in_comes_out_and_the_budget_holds() {
        let blocks = MemoryTier::new(4 * MIB);
        for n in 0..10_000 {
            blocks.insert(extent(n), block(n));
            assert!(blocks.bytes() <= 4 * MIB);
        }
        assert_eq!(blocks.get(&extent(9_999), Reuse::Expected), Some(block(9_999)));
        assert_eq!(blocks.get(&extent(0), Reuse::Expected), None);
        assert_eq!(blocks.hits_and_misses(), (1, 1));
    }

    #[test]
    fn what_is_more_than_a_new_limit_leaves_the_oldest_first() {
        let blocks = MemoryTier::new(4 * MIB);
        (0..4_000).for_each(|n| blocks.insert(extent(n), block(n)));
        blocks.limit(MIB);
        let left = blocks.bytes();
        assert!(left <= MIB && left > MIB / 2, "{left}");
        assert_eq!(blocks.get(&extent(3_999), Reuse::Expected), Some(block(3_999)));
        (4_000..8_000).for_each(|n| blocks.insert(extent(n), block(n)));
        assert!(blocks.bytes() <= MIB);
        blocks.limit(4 * MIB);
        (8_000..12_000).for_each(|n| blocks.insert(extent(n), block(n)));
        assert!(blocks.bytes() > 2 * MIB);
    }

    #[test]
    fn a_scan_does_not_flush_what_was_used_twice() {
        let blocks = small();
        for n in 0..50 {
            blocks.insert(extent(n), block(n));
            assert!(blocks.get(&extent(n), Reuse::Expected).is_some());
        }
        for n in 1_000..3_000 {
            blocks.insert(extent(n), block(n));
            assert!(blocks.get(&extent(n), Reuse::Unlikely).is_some());
        }
        for n in 0..50 {
            assert!(blocks.get(&extent(n), Reuse::Expected).is_some(), "{n}");
        }
    }

    #[test]
    fn pages_stay_when_content_comes() {
        let blocks = small();
        let page = |n| BlockId::Page(PageId([1; 16]), PagePart::Block(n));
        (0..40).for_each(|n| blocks.insert(page(n), block(n)));
        for n in 0..1_000 {
            blocks.insert(extent(n), block(n));
            blocks.get(&extent(n), Reuse::Expected);
        }
        assert!((0..40).all(|n| blocks.get(&page(n), Reuse::Expected).is_some()));
        // Still, they do not take everything.
        (0..1_000).for_each(|n| blocks.insert(page(n), block(n)));
        blocks.insert(extent(5_000), block(1));
        assert!(blocks.get(&extent(5_000), Reuse::Unlikely).is_some());
    }

    #[test]
    fn newcomers_can_prove_themselves_when_all_is_kept() {
        let blocks = small();
        for n in 0..1_000 {
            blocks.insert(extent(n), block(n));
            blocks.get(&extent(n), Reuse::Expected);
        }
        assert!(blocks.get(&extent(999), Reuse::Expected).is_some());
        assert!(blocks.bytes() <= 100 * (1024 + OVERHEAD));
    }

    #[test]
    fn replacing_a_block_does_not_leak_weight() {
        let blocks = small();
        (0..1_000).for_each(|n| blocks.insert(extent(1), block(n)));
        assert_eq!(blocks.bytes(), 1024 + OVERHEAD);
        blocks.insert(extent(2), Bytes::from(vec![0; 90 * 1024]));
        assert_eq!(blocks.get(&extent(2), Reuse::Expected), None, "larger than its share");
    }
}
