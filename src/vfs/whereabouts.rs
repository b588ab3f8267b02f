//! Where the bytes of a file are: on this machine alone, on their way, or in the bucket; and in which objects. Programs
//! read this as extended attributes that no list shows, so copies do not take them along.

use super::{Error, Result, Vfs};
use crate::records::Key;
use crate::types::{InodeNo, PackId};

/// The prefix of s3vault's own attributes.
const PREFIX: &[u8] = b"user.s3vault.";
/// Those that are stored with a file: what was noted about an upload, and WebDAV properties.
const KEPT: [&[u8]; 2] = [b"user.s3vault.upload", b"user.s3vault.dav"];
const STATE: &[u8] = b"user.s3vault.state";
const S3_KEY: &[u8] = b"user.s3vault.s3_key";
/// How many extents one look at the map reads.
const STEP: usize = 1000;
/// The longest list of objects, in bytes. If there are more, the last line is `...`.
const KEYS_MAX: usize = 60 << 10;

/// How far a pack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackProgress {
    /// It is waiting on this machine.
    Here,
    /// It is being sent; or it was sent, and the commit that refers to it is not confirmed.
    Sending,
    /// The bucket has it.
    InBucket,
}

/// Where the bytes of a file are.
#[derive(Clone, Copy)]
enum DataState {
    /// On this machine alone.
    Local,
    /// On their way.
    Uploading,
    /// A commit in the bucket holds content and attributes.
    Durable,
}

impl DataState {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Local => b"local",
            Self::Uploading => b"uploading",
            Self::Durable => b"durable",
        }
    }
}

/// Whether nobody may set or remove an attribute of this name.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX) && !KEPT.contains(&name)
}

impl Vfs {
    /// The value of an attribute that is computed, not stored; `None` for other attributes.
    pub(super) async fn told_xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match name {
            STATE => Ok(Some(self.data_state(ino).await?.name().to_vec())),
            S3_KEY => self.object_keys(ino).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn data_state(&self, ino: InodeNo) -> Result<DataState> {
        // Before the map is read, as everywhere: what is published meanwhile is at worst called unpublished.
        let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
        let is_unsent = self
            .read(|view| {
                view.inode(ino)?.ok_or(Error::Stale)?;
                Ok(view.is_unsent(&Key::Inode(ino))?)
            })
            .await?;
        if unpublished.is_some_and(|unpublished| unpublished.mtime.is_some()) {
            return Ok(DataState::Local);
        }
        if !is_unsent {
            return Ok(DataState::Durable);
        }
        let mut waits = false;
        for pack in self.packs(ino).await? {
            match self.inner.durability.pack_progress(pack) {
                PackProgress::Sending => return Ok(DataState::Uploading),
                PackProgress::Here => waits = true,
                PackProgress::InBucket => {}
            }
        }
        // Without one that waits only the commit is missing, and that is on its way.
        Ok(if waits { DataState::Local } else { DataState::Uploading })
    }

    /// The names of the objects that hold the published content of a file, one a line.
    async fn object_keys(&self, ino: InodeNo) -> Result<Vec<u8>> {
        let packs = self.packs(ino).await?;
        let mut text = String::new();
        for pack in &packs {
            if text.len() > KEYS_MAX {
                text.push_str("...\n");
                break;
            }
            text.push_str(&self.inner.durability.pack_key(*pack));
            text.push('\n');
        }
        if packs.is_empty() {
            return Err(Error::NoAttribute);
        }
        text.pop();
        Ok(text.into_bytes())
    }

    /// The packs of a file in the order of its bytes, without direct repetitions.
    async fn packs(&self, ino: InodeNo) -> Result<Vec<PackId>> {
        let (mut packs, mut from) = (Vec::new(), 0);
        loop {
            let extents = self
                .read(|view| {
                    let inode = view.inode(ino)?.ok_or(Error::Stale)?;
                    match inode.is_file() {
                        true => Ok(view.extents_from(ino, &inode, from, STEP)?),
                        false => Ok(Vec::new()),
                    }
                })
                .await?;
            packs.extend(extents.iter().map(|(_, extent)| extent.reference.pack));
            packs.dedup();
            match extents.last() {
                Some((last, _)) if extents.len() == STEP => from = last + 1,
                _ => return Ok(packs),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_reserved_and_what_is_kept_is_not() {
        for name in [STATE, S3_KEY, b"user.s3vault.", b"user.s3vault.anything"] {
            assert!(is_reserved(name));
        }
        for name in [KEPT[0], KEPT[1], b"user.s3vault", b"user.other", b"trusted.s3vault.state"] {
            assert!(!is_reserved(name));
        }
    }
}
