//! Versions of files: which one there is, what is noted for exactly that version, and whether it is in the bucket.

use crate::content::{Unpublished, VersionHash};
use crate::index::View;
use crate::records::{Inode, Key};
use crate::types::{Hash, InodeNo};

use super::remove::STEP;
use super::{Attributes, Error, Result, Vfs};

/// A named inode at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What `stat` shows.
    pub attributes: Attributes,
    /// The version of a regular file: it changes exactly when its content does, except for a background rewrite of a
    /// fragmented file. `None` while it has unpublished writes.
    pub version: Option<Hash>,
    /// Whether the bucket has the inode, with its name and all that was written to it.
    pub is_durable: bool,
    /// The value of the attribute that was asked for.
    pub note: Option<Vec<u8>>,
}

impl Vfs {
    /// What a name refers to, in which version, and its extended attribute `attribute` (not an ACL's).
    pub async fn inspect(
        &self,
        parent: InodeNo,
        name: &[u8],
        attribute: &[u8],
    ) -> Result<Inspected> {
        self.read(|view| {
            let ino = view.entry(parent, name)?.ok_or(Error::NotFound)?.ino;
            // Taken before the map is read: a publication in between is at worst reported as unpublished.
            let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
            let inode = view.inode(ino)?.ok_or(Error::NotFound)?;
            let is_dirty = is_dirty(unpublished);
            let has_version = inode.is_file() && !is_dirty;
            let version = has_version.then(|| version_of(view, ino, &inode)).transpose()?;
            let entry = Key::Entry(parent, view.name_hash(parent, name));
            let is_unsent = view.is_unsent(&Key::Inode(ino))? || view.is_unsent(&entry)?;
            let note =
                if self.inner.bare.contains(ino) { None } else { view.xattr(ino, attribute)? };
            let attributes = self.merged(ino, &inode, unpublished);
            Ok(Inspected { attributes, version, is_durable: !is_dirty && !is_unsent, note })
        })
        .await
    }

    /// The version of a regular file, even of one without a name; see [`Inspected::version`].
    pub async fn version(&self, ino: InodeNo) -> Result<Option<Hash>> {
        self.read(|view| {
            let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
            let inode = view.inode(ino)?.ok_or(Error::Stale)?;
            let has_version = inode.is_file() && !is_dirty(unpublished);
            has_version.then(|| version_of(view, ino, &inode)).transpose()
        })
        .await
    }

    /// Returns when all that was journaled before the call is in the bucket.
    ///
    /// # Errors
    /// [`Error::Durability`] after a few minutes, with what is missing, or with what makes it impossible.
    pub async fn in_bucket(&self) -> Result<()> {
        let upto = self.journaled();
        // Sealed extents may be waiting in the open pack for others: they wait no longer.
        self.inner.content.close_packs()?;
        self.inner.durability.bucket(upto).await.map_err(Error::Durability)
    }
}

/// Whether it has unpublished writes.
pub(super) fn is_dirty(unpublished: Option<Unpublished>) -> bool {
    unpublished.is_some_and(|unpublished| unpublished.mtime.is_some())
}

/// The version of the published content of a regular file. Reads all its extent records, in one view of the map; a file
/// has at least one for every 16 MiB.
pub(super) fn version_of(view: &View<'_>, ino: InodeNo, inode: &Inode) -> Result<Hash> {
    let mut version = VersionHash::new(ino, inode.size);
    let mut from = 0;
    loop {
        let mut list = view.extents_from(ino, inode, from, STEP)?;
        let Some((last, _)) = list.last() else { break };
        from = last + 1;
        // Beyond the end there may be extents that a truncation has yet to remove.
        list.retain(|(offset, _)| *offset < inode.size);
        version.add(&list);
    }
    Ok(version.finish())
}
