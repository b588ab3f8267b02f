//! A window of a file that has come to consist of too many pieces is written anew in the background, so that it is
//! read with few requests, and its packs can die. Holes stay holes.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::content::extents;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

use super::publish::apply;
use super::{Result, Vfs};

/// So many pieces published into one window later it is worth a look at how many it has.
const LOOK_EVERY: u32 = 16;
/// Windows of which publications are counted; beyond it counting begins anew.
const WINDOWS_MAX: usize = 4096;
/// Windows that are written anew before other background work has its turn.
const AT_ONCE: usize = 4;
/// A window into which nothing was published for so long is written anew: while a file is written at random, its windows
/// would be written anew over and over.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// One that is never quiet is written anew after this.
const PATIENCE: Duration = Duration::from_mins(5);

/// The windows that were published into.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<HashMap<(InodeNo, u64), Window>>);

/// What was published into a window since it was last written anew.
#[derive(Clone, Copy, Debug)]
struct Window {
    pieces: u32,
    first: Instant,
    last: Instant,
}

impl Windows {
    /// A publication of `ino` put these pieces.
    pub(super) fn published(&self, ino: InodeNo, pieces: &[(u64, Extent)]) {
        let number = |piece: &(u64, Extent)| piece.0 / EXTENT_MAX;
        for window in pieces.chunk_by(|a, b| number(a) == number(b)) {
            let count = u32::try_from(window.len()).unwrap_or(u32::MAX);
            self.count(ino, number(&window[0]), count);
        }
    }

    /// Each piece counts: each is a record.
    fn count(&self, ino: InodeNo, number: u64, pieces: u32) {
        let now = Instant::now();
        let mut windows = self.0.lock();
        if windows.len() >= WINDOWS_MAX {
            windows.retain(|_, window| window.pieces >= LOOK_EVERY);
            if windows.len() >= WINDOWS_MAX {
                windows.clear();
            }
        }
        let new = Window { pieces: 0, first: now, last: now };
        let window = windows.entry((ino, number)).or_insert(new);
        window.pieces = window.pieces.saturating_add(pieces);
        window.last = now;
    }

    /// A window that was being written when it was looked at: it is looked at again.
    fn again(&self, ino: InodeNo, number: u64) {
        self.count(ino, number, LOOK_EVERY);
    }

    /// Some of those that have many new pieces and were left alone for `quiet`.
    fn take(&self, quiet: Duration) -> Vec<(InodeNo, u64)> {
        let is_due = |window: &Window| {
            let is_left = window.last.elapsed() >= quiet || window.first.elapsed() >= PATIENCE;
            window.pieces >= LOOK_EVERY && is_left
        };
        let mut windows = self.0.lock();
        let due = windows.extract_if(|_, window| is_due(window));
        due.map(|(window, _)| window).take(AT_ONCE).collect()
    }
}

impl Vfs {
    /// Writes the windows anew that need it and were left alone for `quiet`.
    pub(super) async fn defragment(&self, quiet: Duration) {
        for (ino, window) in self.inner.windows.take(quiet) {
            match self.defragment_window(ino, window).await {
                Ok(true) => {}
                Ok(false) => self.inner.windows.again(ino, window),
                Err(error) => {
                    tracing::debug!(%error, ino = ino.0, "a fragmented file stays so for now");
                }
            }
        }
    }

    /// `false`: it is being written.
    async fn defragment_window(&self, ino: InodeNo, window: u64) -> Result<bool> {
        let window = window * EXTENT_MAX..window.saturating_add(1).saturating_mul(EXTENT_MAX);
        // Most are not: that takes no turn.
        let list = self.read(|view| Ok(view.extents(ino, window.clone())?)).await?;
        if extents::fragmented(&list).is_none() {
            return Ok(true);
        }
        let file = self.inner.content.file(ino);
        let mut publication = self.turn(&file).await?;
        if !publication.pieces.is_empty() {
            return Ok(false);
        }
        let (size, list) = self
            .read(|view| {
                let size = view.inode(ino)?.map_or(0, |inode| inode.size);
                let wanted = window.start..window.end.min(size);
                Ok((size, extents::clip(&view.extents(ino, wanted.clone())?, wanted)))
            })
            .await?;
        for run in runs(&list) {
            let read = |range: Range<u64>, overlay| {
                let published = extents::clip(&list, range.clone());
                self.inner.content.read(&file, range, overlay, published, size)
            };
            if !file.rewrite(&mut publication, run, read).await? {
                return Ok(false);
            }
        }
        if publication.pieces.is_empty() {
            return Ok(true);
        }
        self.change(|draft| {
            if let Some(mut inode) = draft.inode(ino)? {
                apply(draft, ino, &mut inode, &publication)?;
                draft.put_inode(ino, &inode);
            }
            Ok(())
        })
        .await?;
        file.published(publication);
        Ok(true)
    }
}

/// Where data goes on without a hole, over more than one piece.
fn runs(list: &[(u64, Extent)]) -> Vec<Range<u64>> {
    let goes_on = |a: &(u64, Extent), b: &(u64, Extent)| a.0 + a.1.length == b.0;
    list.chunk_by(goes_on)
        .filter(|run| run.len() > 1)
        .filter_map(|run| Some(run.first()?.0..run.last().map(|(at, extent)| at + extent.length)?))
        .collect()
}
