//! Fetches what many look-ups missed: blocks close together in one request, and several requests at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::Result;
use super::base::{Base, BlockSpan, Miss, OpenBase, Pins, WHOLE_PAGE, read_index};
use crate::crypto::layout;
use crate::records::Tag;

/// How many requests run at once.
const REQUESTS: usize = 16;
/// The most blocks between two missed ones that are fetched along with them: 128 KiB take hardly longer than another request.
const GAP_MAX: usize = 8;

impl Base {
    /// Whether all of the base's inode records are on this machine's disk.
    pub fn has_inodes_here(&self) -> bool {
        let Some(opened) = &self.0 else { return true };
        let (from, to) = (Tag::Inode.begin(), Tag::Inode.end());
        let pages = &opened.manifest.pages;
        let first = pages.partition_point(|page| page.first_key[..] <= from[..]).saturating_sub(1);
        pages[first..].iter().take_while(|page| page.first_key[..] < to[..]).all(|page| {
            let chunks = 0..layout::chunk_count(page.plain_length);
            opened.cache.is_on_disk(&page.name(), &layout::sealed_range(&chunks, page.plain_length))
        })
    }

    /// Fetches the first of these misses into the cache: at most `most` bytes of blocks (but at least one block), and no more
    /// than the cache can keep besides others. A later look-up may still miss, if the cache dropped a block again. Half of the
    /// bytes are for the blocks in between. Malformed pages are left to the look-ups that find them, and so are misses in another
    /// base than the first one's. Returns whether misses were left out because of the limit.
    ///
    /// # Errors
    /// As [`Base::fetch`].
    pub async fn fetch_all(misses: Vec<Miss>, most: u64) -> Result<bool> {
        let Some(opened) = misses.first().and_then(|miss| miss.base().cloned()) else {
            return Ok(false);
        };
        let is_of_it = |miss: &Miss| miss.base().is_some_and(|base| Arc::ptr_eq(base, &opened));
        let most = most.min(opened.cache.blocks_limit() / 4) / layout::CHUNK;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut missed = misses.into_iter().filter(is_of_it).filter(Miss::is_sound);
        let mut pages: BTreeMap<usize, Vec<Miss>> = BTreeMap::new();
        for miss in missed.by_ref().take((most / 2).max(1)) {
            pages.entry(miss.page()).or_default().push(miss);
        }
        let is_left_out = missed.next().is_some();
        let blocks: BTreeMap<_, _> =
            at_once(pages.values().map(|missed| opened.blocks_of(missed).boxed())).await?;
        let parts = runs(&blocks, most);
        let fetches = parts.iter().map(|(page, blocks)| opened.fetch_run(*page, blocks).boxed());
        at_once::<(), ()>(fetches).await?;
        Ok(is_left_out)
    }
}

impl OpenBase {
    /// A page, and its blocks in which something was missed; no blocks for a small page, which is fetched whole here.
    async fn blocks_of(&self, missed: &[Miss]) -> Result<(usize, BTreeSet<usize>)> {
        let at = missed.first().map_or(0, Miss::page);
        let page = &self.manifest.pages[at];
        if page.sealed_length <= WHOLE_PAGE {
            self.fetch_whole(page, &mut Pins::new()).await?;
            return Ok((at, BTreeSet::new()));
        }
        let mut pins = Pins::new();
        let bytes = match self.index(page, &pins) {
            Some(bytes) => bytes,
            None => self.fetch_index(page, &mut pins).await?,
        };
        let index = read_index(page, &bytes)?;
        Ok((at, missed.iter().map(|miss| index.block_of(miss.key())).collect()))
    }

    /// Fetches these blocks of a page in one request.
    async fn fetch_run(&self, page: usize, blocks: &RangeInclusive<usize>) -> Result<()> {
        let page = &self.manifest.pages[page];
        let mut pins = Pins::new();
        let bytes = match self.index(page, &pins) {
            Some(bytes) => bytes,
            None => self.fetch_index(page, &mut pins).await?,
        };
        let index = read_index(page, &bytes)?;
        let spans: Vec<_> = blocks.clone().map(|block| BlockSpan::of(&index, block)).collect();
        self.fetch_blocks(page, &spans, &mut pins).await
    }
}

/// Runs futures at once. They are boxed because the compiler cannot prove otherwise that they are `Send`.
async fn at_once<T, C: Default + Extend<T>>(
    work: impl Iterator<Item = BoxFuture<'_, Result<T>>>,
) -> Result<C> {
    stream::iter(work.collect::<Vec<_>>()).buffer_unordered(REQUESTS).try_collect().await
}

/// Groups the blocks of these pages into requests. Gaps between two blocks of a page are fetched along, the shortest first, as
/// long as that is at most `most` blocks in all.
fn runs(
    pages: &BTreeMap<usize, BTreeSet<usize>>,
    most: usize,
) -> Vec<(usize, RangeInclusive<usize>)> {
    let mut gaps: Vec<_> = pages
        .iter()
        .flat_map(|(page, blocks)| {
            let pairs = blocks.iter().zip(blocks.iter().skip(1));
            pairs.map(|(before, after)| (after - before - 1, *page, *after))
        })
        .filter(|(gap, ..)| *gap <= GAP_MAX)
        .collect();
    gaps.sort_unstable();
    let mut total: usize = pages.values().map(BTreeSet::len).sum();
    let joined: HashSet<_> = gaps
        .into_iter()
        .take_while(|(gap, ..)| {
            total += gap;
            total <= most || *gap == 0
        })
        .map(|(_, page, after)| (page, after))
        .collect();
    let mut runs: Vec<(usize, RangeInclusive<usize>)> = Vec::new();
    for (&page, blocks) in pages {
        for &block in blocks {
            match runs.last_mut() {
                Some((_, run)) if joined.contains(&(page, block)) => *run = *run.start()..=block,
                _ => runs.push((page, block..=block)),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_close_together_come_at_once_as_far_as_they_may() {
        let pages: BTreeMap<_, BTreeSet<_>> =
            [(3, [0, 1, 10, 20, 21].into()), (4, [0, 3].into())].into();
        let all = vec![(3, 0..=10), (3, 20..=21), (4, 0..=3)];
        assert_eq!(runs(&pages, 100), all);
        assert_eq!(runs(&pages, 17), all);
        let shortest = vec![(3, 0..=1), (3, 10..=10), (3, 20..=21), (4, 0..=3)];
        assert_eq!(runs(&pages, 16), shortest);
        let none = vec![(3, 0..=1), (3, 10..=10), (3, 20..=21), (4, 0..=0), (4, 3..=3)];
        assert_eq!(runs(&pages, 7), none);
        assert_eq!(runs(&BTreeMap::new(), 7), []);
    }
}
