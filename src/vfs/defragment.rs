//! Rewrites, in the background, a window of a file that has come to consist of too many pieces, so that it can be read
//! with few requests, and its packs can die. Holes stay holes.
//!
//! The bytes are read and sealed without the file's publishing turn, however long that takes. The turn is held only for
//! the one transaction, which checks that the records are still those that were read. So a rewrite keeps nobody
//! waiting. Nor do unpublished writes matter: they lie over the old records as over the new ones.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::content::{Copied, Overlay, extents};
use crate::index::Draft;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

use super::publish::lay;
use super::remove::STEP;
use super::{ErrorKind, Result, Vfs};

/// How many pieces must be published into a window before its records are counted.
const LOOK_EVERY: u32 = 16;
/// For how many windows publications are counted; at that number, those with few pieces are forgotten, or else all.
const WINDOWS_MAX: usize = 4096;
/// How many windows are rewritten before other housekeeping has its turn.
const AT_ONCE: usize = 4;
/// How long nothing must be published into a window before it is rewritten. Without this, a file that is written at
/// random would be rewritten over and over.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// A window that is never quiet is rewritten after this time.
const PATIENCE: Duration = Duration::from_mins(5);

/// Counts what is published into each window.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<HashMap<(InodeNo, u64), WindowChurn>>);

/// What was published into a window since its last rewrite.
#[derive(Clone, Copy, Debug)]
struct WindowChurn {
    pieces: u32,
    first: Instant,
    last: Instant,
}

impl Windows {
    /// A publication put these pieces of `ino`.
    pub(super) fn published(&self, ino: InodeNo, pieces: &[(u64, Extent)]) {
        let number = |piece: &(u64, Extent)| piece.0 / EXTENT_MAX;
        for window in pieces.chunk_by(|a, b| number(a) == number(b)) {
            let count = u32::try_from(window.len()).unwrap_or(u32::MAX);
            self.count(ino, number(&window[0]), count);
        }
    }

    /// Adds to a window's count: each piece is a record.
    fn count(&self, ino: InodeNo, number: u64, pieces: u32) {
        let now = Instant::now();
        let mut windows = self.0.lock();
        if windows.len() >= WINDOWS_MAX {
            windows.retain(|_, window| window.pieces >= LOOK_EVERY);
            if windows.len() >= WINDOWS_MAX {
                windows.clear();
            }
        }
        let new = WindowChurn { pieces: 0, first: now, last: now };
        let window = windows.entry((ino, number)).or_insert(new);
        window.pieces = window.pieces.saturating_add(pieces);
        window.last = now;
    }

    /// A window was not, or not wholly, rewritten: it is to be looked at again.
    pub(super) fn again(&self, ino: InodeNo, number: u64) {
        self.count(ino, number, LOOK_EVERY);
    }

    /// Takes a window with many new pieces that was left alone for `quiet`.
    fn take(&self, quiet: Duration) -> Option<(InodeNo, u64)> {
        let is_due = |window: &WindowChurn| {
            let is_left = window.last.elapsed() >= quiet || window.first.elapsed() >= PATIENCE;
            window.pieces >= LOOK_EVERY && is_left
        };
        let mut windows = self.0.lock();
        windows.extract_if(|_, window| is_due(window)).next().map(|(window, _)| window)
    }
}

/// A range without a hole that is to be rewritten, and its records.
#[derive(Debug)]
pub(super) struct Run {
    range: Range<u64>,
    records: Vec<(u64, Extent)>,
    /// The file's size when the records were read.
    size: u64,
}

impl Run {
    /// A run of records without a hole between them; `None` if there are no records.
    pub(super) fn new(records: Vec<(u64, Extent)>, size: u64) -> Option<Self> {
        let range = records.first()?.0..records.last().map(|(at, extent)| at + extent.length)?;
        Some(Self { range, records, size })
    }

    /// The length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.range.end - self.range.start
    }
}

#[cfg(test)]
impl Run {
    pub(super) fn ends_after(&self, offset: u64) -> bool {
        self.range.end > offset
    }
}

impl Vfs {
    /// Rewrites windows that need it and were left alone for `quiet`, as long as that gets in nobody's way.
    pub(super) async fn defragment(&self, quiet: Duration) {
        for _ in 0..AT_ONCE {
            if self.inner.content.is_pressed() {
                return;
            }
            let Some((ino, window)) = self.inner.windows.take(quiet) else { return };
            match self.defragment_window(ino, window).await {
                Ok(true) => {}
                Ok(false) => self.inner.windows.again(ino, window),
                Err(error) => {
                    tracing::debug!(%error, ino = ino.0, "a fragmented file stays so for now");
                    if matches!(error.kind(), ErrorKind::Full | ErrorKind::Store) {
                        self.inner.windows.again(ino, window);
                    }
                }
            }
        }
    }

    /// Rewrites a window. Returns `false` if part of it must be looked at again.
    async fn defragment_window(&self, ino: InodeNo, window: u64) -> Result<bool> {
        let window = window * EXTENT_MAX..window.saturating_add(1).saturating_mul(EXTENT_MAX);
        let mut is_done = true;
        for run in self.runs(ino, window).await? {
            let copied = self.copy_run(ino, &run).await?;
            is_done &= self.put_run(ino, &run, &copied).await?;
        }
        Ok(is_done)
    }

    /// The runs of a window that are to be rewritten: none, unless it has too many records.
    pub(super) async fn runs(&self, ino: InodeNo, window: Range<u64>) -> Result<Vec<Run>> {
        let (size, list) = self
            .read(|view| {
                let Some(inode) = view.inode(ino)? else { return Ok((0, Vec::new())) };
                Ok((inode.size, view.extents(ino, &inode, window.clone())?))
            })
            .await?;
        if extents::fragmented(&list).is_none() {
            return Ok(Vec::new());
        }
        Ok(runs(&extents::clip(&list, window.start..window.end.min(size)), size))
    }

    /// Copies the published bytes of a run into staging. This may wait for the network, as nobody waits for it.
    pub(super) async fn copy_run(&self, ino: InodeNo, run: &Run) -> Result<Copied> {
        let file = self.inner.content.file(ino);
        let read = |part: Range<u64>| {
            let published = extents::clip(&run.records, part.clone());
            self.inner.content.read(&file, part, Overlay::default(), published, run.size)
        };
        Ok(file.copy_anew(run.range.clone(), read).await?)
    }

    /// Puts the copy in place of the records that it was made of, under the file's turn, and without waiting while
    /// holding it. Returns `false` if the file was changed there meanwhile, or a page of the map was evicted.
    pub(super) async fn put_run(&self, ino: InodeNo, run: &Run, copied: &Copied) -> Result<bool> {
        let file = self.inner.content.file(ino);
        let is_put = |draft: &mut Draft<'_>| -> Result<bool> {
            let Some(mut inode) = draft.inode(ino)? else { return Ok(true) };
            let now = draft.extents(ino, &inode, run.range.clone())?;
            // Extents beyond the size are those that a truncation has yet to remove.
            if inode.size < run.range.end || extents::clip(&now, run.range.clone()) != run.records {
                return Ok(false);
            }
            lay(draft, ino, &mut inode, &copied.pieces)?;
            draft.put_inode(ino, &inode);
            Ok(true)
        };
        // Fetches the pages that the transaction needs.
        self.read(|view| {
            let Some(inode) = view.inode(ino)? else { return Ok(()) };
            Ok(view.extents(ino, &inode, run.range.clone()).map(drop)?)
        })
        .await?;
        let _turn = file.turn().await;
        let is_put = self.change(is_put).now_or_never().unwrap_or(Ok(false));
        // A record that reaches beyond the window on either side leaves a remainder there.
        file.records_changed(2);
        is_put
    }
}

/// The runs of a list that have more than one record, split so that one transaction can replace each.
fn runs(list: &[(u64, Extent)], size: u64) -> Vec<Run> {
    let goes_on = |a: &(u64, Extent), b: &(u64, Extent)| a.0 + a.1.length == b.0;
    let whole = list.chunk_by(goes_on).flat_map(|run| run.chunks(STEP));
    whole.filter(|run| run.len() > 1).filter_map(|run| Run::new(run.to_vec(), size)).collect()
}
