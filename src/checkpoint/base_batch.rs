//! Brings what many look-ups missed: what lies close together by one request, several requests at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::Result;
use super::base::{Base, BlockSpan, Miss, OpenBase, Pins, WHOLE_PAGE, read_index};
use crate::crypto::layout;
use crate::types::MIB;

/// Requests at once.
const REQUESTS: usize = 16;
/// From so many bytes on, what lies between comes along.
const CLOSE_FROM: u64 = 8 * MIB;
/// Blocks between two that were missed which come along then: 128 KiB take hardly longer than a request more.
const GAP_MAX: usize = 8;

impl Base {
    /// Brings what look-ups missed, the first of them, into the cache: about `most` bytes of blocks that were missed, and no more
    /// than the cache keeps beside others. (A look-up may find, all the same, that it is not there any more.) What is malformed is
    /// left to who looks it up, as is what was missed in another base than the first.
    ///
    /// # Errors
    /// As [`Base::fetch`].
    pub async fn fetch_all(misses: Vec<Miss>, most: u64) -> Result<()> {
        let Some(opened) = misses.first().and_then(|miss| miss.base().cloned()) else {
            return Ok(());
        };
        let is_of_it = |miss: &Miss| miss.base().is_some_and(|base| Arc::ptr_eq(base, &opened));
        let most = most.min(opened.cache.blocks_limit() / 4);
        let count = usize::try_from(most / layout::CHUNK).unwrap_or(usize::MAX).max(1);
        let mut pages: BTreeMap<usize, Vec<Miss>> = BTreeMap::new();
        for miss in misses.into_iter().filter(is_of_it).filter(Miss::is_sound).take(count) {
            pages.entry(miss.page()).or_default().push(miss);
        }
        let gap = if most >= CLOSE_FROM { GAP_MAX } else { 0 };
        let parts: Vec<_> =
            at_once(pages.values().map(|missed| opened.parts_of(missed, gap).boxed())).await?;
        at_once(parts.iter().flatten().map(|part| opened.fetch_part(part).boxed())).await
    }
}

/// What one request brings of a page.
enum PagePart {
    Whole(usize),
    Blocks(usize, Vec<BlockSpan>),
}

impl OpenBase {
    /// The parts of one page in which all of this was missed.
    async fn parts_of(&self, missed: &[Miss], gap: usize) -> Result<Vec<PagePart>> {
        let Some(at) = missed.first().map(Miss::page) else { return Ok(Vec::new()) };
        let page = &self.manifest.pages[at];
        if page.sealed_length <= WHOLE_PAGE {
            return Ok(vec![PagePart::Whole(at)]);
        }
        let mut pins = Pins::new();
        let bytes = match self.index(page, &pins) {
            Some(bytes) => bytes,
            None => self.fetch_index(page, &mut pins).await?,
        };
        let index = read_index(page, &bytes)?;
        let blocks = missed.iter().map(|miss| index.block_of(miss.key())).collect();
        let spans = |(first, last): (usize, usize)| {
            (first..=last).map(|block| BlockSpan::of(&index, block)).collect()
        };
        let runs = runs(&blocks, gap).into_iter().map(spans);
        Ok(runs.map(|spans| PagePart::Blocks(at, spans)).collect())
    }

    async fn fetch_part(&self, part: &PagePart) -> Result<()> {
        // What comes is found in the cache.
        let pins = &mut Pins::new();
        match part {
            PagePart::Whole(at) => self.fetch_whole(&self.manifest.pages[*at], pins).await,
            PagePart::Blocks(at, spans) => {
                self.fetch_blocks(&self.manifest.pages[*at], spans, pins).await
            }
        }
    }
}

/// Several at once. (Boxed: else the compiler cannot tell that they may go from thread to thread.)
async fn at_once<T, C: Default + Extend<T>>(
    work: impl Iterator<Item = BoxFuture<'_, Result<T>>>,
) -> Result<C> {
    stream::iter(work.collect::<Vec<_>>()).buffer_unordered(REQUESTS).try_collect().await
}

/// The first and the last of each run of blocks between which no more than `gap` are not wanted.
fn runs(blocks: &BTreeSet<usize>, gap: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &block in blocks {
        match runs.last_mut() {
            Some((_, last)) if block - *last <= gap + 1 => *last = block,
            _ => runs.push((block, block)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_close_together_come_at_once() {
        let runs = |blocks: &[usize], gap| runs(&blocks.iter().copied().collect(), gap);
        assert_eq!(runs(&[], 8), []);
        assert_eq!(runs(&[3], 8), [(3, 3)]);
        assert_eq!(runs(&[0, 1, 10, 20, 21], 8), [(0, 10), (20, 21)]);
        assert_eq!(runs(&[0, 1, 10, 20, 21], 0), [(0, 1), (10, 10), (20, 21)]);
    }
}
