//! Makes references of an old state part of a new file (V4): no data moves.

use crate::content::extents;
use crate::index::{self, Draft};
use crate::types::Extent;

use super::publish::{lay, publish_into};
use super::remove::STEP;
use super::{Error, HandleId, Result, Vfs};

impl Vfs {
    /// The next few records of an open file at or after `from`, none beyond its end. For a file that nobody writes.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub async fn records_from(&self, handle: HandleId, from: u64) -> Result<Vec<(u64, Extent)>> {
        let ino = self.inner.handles.get(handle)?.file.ino();
        self.read(|view| {
            let Some(inode) = view.inode(ino)? else { return Err(Error::Stale) };
            let list = view.extents_from(ino, &inode, from, STEP)?;
            Ok(extents::clip(&list, from..inode.size))
        })
        .await
    }

    /// Makes these records (sorted, disjoint, from another state of this vault) part of an open file. `may` is asked
    /// inside the transaction. Returns `false`, with nothing changed, if it says no, or if a pack that they refer to is
    /// about to be deleted in the bucket.
    ///
    /// # Errors
    /// As for any change.
    pub async fn share_old(
        &self,
        handle: HandleId,
        pieces: &[(u64, Extent)],
        may: impl Fn(&Draft<'_>) -> index::Result<bool> + Send + Sync,
    ) -> Result<bool> {
        self.writable()?;
        let handle = self.inner.handles.get(handle)?;
        let (file, ino) = (&handle.file, handle.file.ino());
        let Some((offset, last)) = pieces.last() else { return Ok(true) };
        let end = offset + last.length;
        let publication = self.turn_to(file, end).await?;
        let shared = self
            .change(|draft| {
                if !may(draft)? {
                    return Ok(false);
                }
                let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
                publish_into(draft, ino, &mut inode, &publication)?;
                draft.put_inode(ino, &inode);
                lay(draft, ino, &mut inode, pieces)?;
                inode.size = inode.size.max(end);
                draft.put_inode(ino, &inode);
                Ok(true)
            })
            .await;
        match shared {
            Ok(true) => {
                file.records_changed(pieces.len() as u64);
                file.published(publication);
                Ok(true)
            }
            // K5: the pack is frozen. What is unpublished stays unpublished.
            Ok(false) => Ok(false),
            Err(Error::Index(error)) if error.is_about_a_gone_pack() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
