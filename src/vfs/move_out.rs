//! What is live of a pack that is mostly dead is written anew, so that the pack dies and its room in the bucket comes back.

use std::ops::Range;

use super::defragment::Run;
use super::remove::STEP;
use super::{Result, Vfs};
use crate::content::extents;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

/// What is to be written anew.
pub type Moves<'a> = &'a (dyn Fn(&Extent) -> bool + Send + Sync);

/// What came of moving a window of a file out of packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedOut {
    /// Bytes that were written anew.
    pub bytes: u64,
    /// Whether nothing of the window is left there.
    pub is_whole: bool,
}

impl Vfs {
    /// Whether staging is in need of room: then nothing should be written anew.
    pub fn is_pressed(&self) -> bool {
        self.inner.content.is_pressed()
    }

    /// Writes anew what of a file, in the window of 16 MiB around `offset`, is to move.
    /// Nobody waits for it: it ends early while staging is in need of room, and leaves alone what changes meanwhile. The
    /// content stays what it is, to the byte, and so does every attribute.
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

    /// Where a window's data is to move, without a hole.
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
