//! What is live of a pack that is mostly dead is written anew, so that the pack dies and its room in the bucket comes back.

use std::collections::HashSet;
use std::ops::Range;

use super::defragment::Run;
use super::remove::STEP;
use super::{Result, Vfs};
use crate::content::extents;
use crate::types::{EXTENT_MAX, Extent, InodeNo, PackId};

impl Vfs {
    /// Writes anew what of a file, in the window of 16 MiB around `offset`, lies in these packs; as many bytes as it returns.
    /// Nobody waits for it: it ends early while staging is in need of room, and leaves alone what changes meanwhile. The
    /// content stays what it is, to the byte, and so does every attribute.
    pub async fn move_out(
        &self,
        ino: InodeNo,
        offset: u64,
        packs: &HashSet<PackId>,
    ) -> Result<u64> {
        let start = offset / EXTENT_MAX * EXTENT_MAX;
        let window = start..start.saturating_add(EXTENT_MAX);
        let mut moved = 0;
        for run in self.runs_in(ino, window, packs).await? {
            if self.inner.content.is_pressed() {
                break;
            }
            let copied = self.copy_run(ino, &run).await?;
            if self.put_run(ino, &run, &copied).await? {
                moved += run.length();
            }
        }
        Ok(moved)
    }

    /// Where a window's data lies in these packs, without a hole.
    async fn runs_in(
        &self,
        ino: InodeNo,
        window: Range<u64>,
        packs: &HashSet<PackId>,
    ) -> Result<Vec<Run>> {
        let (size, list) = self
            .read(|view| {
                let Some(inode) = view.inode(ino)? else { return Ok((0, Vec::new())) };
                Ok((inode.size, view.extents(ino, &inode, window.clone())?))
            })
            .await?;
        let mut list = extents::clip(&list, window.start..window.end.min(size));
        list.retain(|(_, extent)| packs.contains(&extent.reference.pack));
        let goes_on = |a: &(u64, Extent), b: &(u64, Extent)| a.0 + a.1.length == b.0;
        let runs = list.chunk_by(goes_on).flat_map(|run| run.chunks(STEP));
        Ok(runs.filter_map(|run| Run::new(run.to_vec(), size)).collect())
    }
}
