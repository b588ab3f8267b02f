//! A window of a file that has come to consist of too many pieces is written anew in the background, so that it is
//! read with few requests, and its packs can die. Holes stay holes.

use std::collections::HashMap;
use std::ops::Range;

use parking_lot::Mutex;

use crate::content::extents;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

use super::publish::apply;
use super::{Result, Vfs};

/// So many publications into one window later it is worth a look at how many pieces it has.
const LOOK_EVERY: u32 = 16;
/// Windows of which publications are counted; beyond it counting begins anew.
const WINDOWS_MAX: usize = 4096;

/// The windows that were published into.
#[derive(Debug, Default)]
pub(super) struct Windows {
    counts: Mutex<HashMap<(InodeNo, u64), u32>>,
    due: Mutex<Vec<(InodeNo, u64)>>,
}

impl Windows {
    /// A publication of `ino` put these pieces.
    pub(super) fn published(&self, ino: InodeNo, pieces: &[(u64, Extent)]) {
        let mut counts = self.counts.lock();
        let mut last = None;
        for (offset, _) in pieces {
            let window = offset / EXTENT_MAX;
            // Pieces of one publication in one window count one by one: each is a record.
            if counts.len() >= WINDOWS_MAX && last != Some(window) {
                counts.clear();
            }
            last = Some(window);
            let count = counts.entry((ino, window)).or_default();
            *count += 1;
            if *count == LOOK_EVERY {
                counts.remove(&(ino, window));
                let mut due = self.due.lock();
                if due.len() < WINDOWS_MAX && !due.contains(&(ino, window)) {
                    due.push((ino, window));
                }
            }
        }
    }

    fn take(&self) -> Vec<(InodeNo, u64)> {
        std::mem::take(&mut *self.due.lock())
    }
}

impl Vfs {
    /// Writes the windows anew that need it.
    pub(super) async fn defragment(&self) {
        for (ino, window) in self.inner.windows.take() {
            if let Err(error) = self.defragment_window(ino, window).await {
                tracing::debug!(%error, ino = ino.0, "a fragmented file stays so for now");
            }
        }
    }

    async fn defragment_window(&self, ino: InodeNo, window: u64) -> Result<()> {
        let window = window * EXTENT_MAX..window.saturating_add(1).saturating_mul(EXTENT_MAX);
        // Most are not: that takes no turn.
        let list = self.read(|view| Ok(view.extents(ino, window.clone())?)).await?;
        if extents::fragmented(&list).is_none() {
            return Ok(());
        }
        let file = self.inner.content.file(ino);
        let mut publication = self.turn(&file).await?;
        let overlay = file.overlay(window.clone())?;
        if !publication.covers(&overlay) || !publication.pieces.is_empty() {
            return Ok(()); // it is being written: the next publications count again
        }
        drop(overlay);
        let (size, list) = self
            .read(|view| {
                let size = view.inode(ino)?.map_or(0, |inode| inode.size);
                let wanted = window.start..window.end.min(size);
                Ok((size, extents::clip(&view.extents(ino, wanted.clone())?, wanted)))
            })
            .await?;
        for run in runs(&list) {
            let overlay = file.overlay(run.clone())?;
            if !publication.covers(&overlay) {
                return Ok(());
            }
            let published = extents::clip(&list, run.clone());
            let content = &self.inner.content;
            let data = content.read(&file, run.clone(), overlay, published, size).await?;
            file.rewrite(&mut publication, run.start, &data).await?;
        }
        if publication.pieces.is_empty() {
            return Ok(());
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
        Ok(())
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
