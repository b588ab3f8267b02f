//! Brings what many look-ups missed: what lies close together by one request, several requests at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::Result;
use super::base::{Base, BlockSpan, Miss, OpenBase, Pins, WHOLE_PAGE, read_index};

/// Blocks between two that were missed which come along: 128 KiB take hardly longer than a request more.
const GAP_MAX: usize = 8;
/// Requests at once.
const REQUESTS: usize = 8;

impl Base {
    /// Brings what look-ups of this base missed, into the cache: a look-up may find, all the same, that it is not there any more.
    /// What is malformed is left to who looks it up.
    ///
    /// # Errors
    /// As [`Base::fetch`].
    pub async fn fetch_all(&self, misses: Vec<Miss>) -> Result<()> {
        let Some(opened) = &self.0 else { return Ok(()) };
        let mut pages: BTreeMap<usize, Vec<Miss>> = BTreeMap::new();
        for miss in misses.into_iter().filter(Miss::is_sound) {
            pages.entry(miss.page()).or_default().push(miss);
        }
        // Boxed: else the compiler cannot tell that this may go from thread to thread.
        let fetches: Vec<_> =
            pages.into_values().map(|missed| opened.fetch_blocks_of(missed).boxed()).collect();
        stream::iter(fetches).buffer_unordered(REQUESTS).try_collect().await
    }
}

impl OpenBase {
    /// Brings the blocks of one page that were missed.
    async fn fetch_blocks_of(&self, missed: Vec<Miss>) -> Result<()> {
        let Some(page) = missed.first().map(|miss| &self.manifest.pages[miss.page()]) else {
            return Ok(());
        };
        let pins = &mut Pins::new();
        if page.sealed_length <= WHOLE_PAGE {
            return self.fetch_whole(page, pins).await;
        }
        let bytes = match self.index(page, pins) {
            Some(bytes) => bytes,
            None => self.fetch_index(page, pins).await?,
        };
        let index = read_index(page, &bytes)?;
        let blocks = missed.iter().map(|miss| index.block_of(miss.key())).collect();
        for (first, last) in runs(&blocks) {
            let spans: Vec<_> = (first..=last).map(|block| BlockSpan::of(&index, block)).collect();
            self.fetch_blocks(page, &spans, pins).await?;
        }
        Ok(())
    }
}

/// The first and the last of each run of blocks between which few are not wanted.
fn runs(blocks: &BTreeSet<usize>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &block in blocks {
        match runs.last_mut() {
            Some((_, last)) if block - *last <= GAP_MAX + 1 => *last = block,
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
        let runs = |blocks: &[usize]| runs(&blocks.iter().copied().collect());
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[3]), [(3, 3)]);
        assert_eq!(runs(&[0, 1, 10, 20, 21]), [(0, 10), (20, 21)]);
    }
}
