//! Moves the live data out of a pack that is mostly dead, so that the pack dies and its room in the bucket is freed.

use std::ops::Range;

use super::defragment::Run;
use super::remove::STEP;
use super::{Result, Vfs};
use crate::content::extents;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

/// Says which extents are to be moved.
pub type Moves<'a> = &'a (dyn Fn(&Extent) -> bool + Send + Sync);

/// The result of moving a window of a file out of packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedOut {
    /// How many bytes were rewritten.
    pub bytes: u64,
    /// Whether nothing of the window is left in those packs.
    pub is_whole: bool,
}

impl Vfs {
    /// Whether staging needs room. Nothing should be rewritten then.
    pub fn is_pressed(&self) -> bool {
        self.inner.content.is_pressed()
    }

    /// Rewrites those extents of a file that are to be moved, in the aligned window of 16 MiB around `offset`. Nobody
    /// waits for this: it ends early when staging needs room, and leaves alone what changes meanwhile. Content and
    /// attributes stay exactly as they are.
    pub async fn move_out(&self, ino: InodeNo, offset: u64, moves: Moves<'_>) -> Result<MovedOut> {
        let start = offset / EXTENT_MAX * EXTENT_MAX;
        let window = start..start.saturating_add(EXTENT_MAX);
        let mut moved = MovedOut { bytes: 0, is_whole: true };
        for run in self.runs_in(ino, window, moves).await? {
            if self.is_pressed() {
                moved.is_whole = false;
                break;
            }
            let copied = self.copy_run(ino, &run).await?;
            match self.put_run(ino, &run, &copied).await? {
                true => moved.bytes += run.length(),
                false => moved.is_whole = false,
            }
        }
        Ok(moved)
    }

    /// The runs in a window, without holes, that are to be moved.
    async fn runs_in(
        &self,
        ino: InodeNo,
        window: Range<u64>,
        moves: Moves<'_>,
    ) -> Result<Vec<Run>> {
        let (size, list) = self
            .read(|view| {
                let Some(inode) = view.inode(ino)? else { return Ok((0, Vec::new())) };
                Ok((inode.size, view.extents(ino, &inode, window.clone())?))
            })
            .await?;
        let mut list = extents::clip(&list, window.start..window.end.min(size));
        list.retain(|(_, extent)| moves(extent));
        let goes_on = |a: &(u64, Extent), b: &(u64, Extent)| a.0 + a.1.length == b.0;
        let runs = list.chunk_by(goes_on).flat_map(|run| run.chunks(STEP));
        Ok(runs.filter_map(|run| Run::new(run.to_vec(), size)).collect())
    }
}
