//! Which version of a file there is, what is noted of just that version, and whether the bucket has it.

use crate::content::{Unpublished, VersionHash};
use crate::index::View;
use crate::records::{Inode, Key};
use crate::types::{Hash, InodeNo};

use super::remove::STEP;
use super::{Attributes, Error, Result, Vfs};

/// A named inode as it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What `stat` shows.
    pub attributes: Attributes,
    /// Of a regular file: changes whenever its content does, and only then (a background rewrite of a fragmented
    /// file excepted). `None` while writes to it are not published.
    pub version: Option<Hash>,
    /// Whether the bucket has it, with its name and all that was written to it.
    pub is_durable: bool,
    /// The value of the attribute that was asked for.
    pub note: Option<Vec<u8>>,
}

impl Vfs {
    /// What a name names, which version of it, and the extended attribute `attribute` (not an ACL's).
    pub async fn inspect(
        &self,
        parent: InodeNo,
        name: &[u8],
        attribute: &[u8],
    ) -> Result<Inspected> {
        self.read(|view| {
            let ino = view.entry(parent, name)?.ok_or(Error::NotFound)?.ino;
            // Before the map is read, as everywhere: what is published meanwhile is at worst called unpublished.
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

    /// The version of a regular file, also of one that has lost its name; see [`Inspected::version`].
    pub async fn version(&self, ino: InodeNo) -> Result<Option<Hash>> {
        self.read(|view| {
            let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
            let inode = view.inode(ino)?.ok_or(Error::Stale)?;
            let has_version = inode.is_file() && !is_dirty(unpublished);
            has_version.then(|| version_of(view, ino, &inode)).transpose()
        })
        .await
    }

    /// Returns when everything that was journaled before the call is in the bucket.
    ///
    /// # Errors
    /// [`Error::Durability`] after a few minutes, naming what is missing, or with what makes it impossible.
    pub async fn in_bucket(&self) -> Result<()> {
        let upto = self.journaled();
        // What is sealed waits in an open pack for company: no longer.
        self.inner.content.close_packs()?;
        self.inner.durability.bucket(upto).await.map_err(Error::Durability)
    }
}

/// Whether something was written.
pub(super) fn is_dirty(unpublished: Option<Unpublished>) -> bool {
    unpublished.is_some_and(|unpublished| unpublished.mtime.is_some())
}

/// The version of a regular file, of what is published of it. It takes one record for 16 MiB of a file, all of them
/// in one look.
pub(super) fn version_of(view: &View<'_>, ino: InodeNo, inode: &Inode) -> Result<Hash> {
    let mut version = VersionHash::new(ino, inode.size);
    let mut from = 0;
    loop {
        let mut list = view.extents_from(ino, inode, from, STEP)?;
        let Some((last, _)) = list.last() else { break };
        from = last + 1;
        // Beyond the end there may be extents that a truncation has yet to take away.
        list.retain(|(offset, _)| *offset < inode.size);
        version.add(&list);
    }
    Ok(version.finish())
}
