//! Outgoing files: the content of one version of a file, piece by piece.

use bytes::Bytes;

use super::{Error, Files, HandleGuard, Result};
use crate::types::{Hash, InodeNo};
use crate::vfs::{self, OpenFlags, Seek};

/// A file that is being read from beginning to end. Holes are skipped.
pub struct OutgoingFile {
    open: HandleGuard,
    ino: InodeNo,
    version: Option<Hash>,
    /// The length of the file.
    size: u64,
    at: u64,
    /// Where the data that contains `at` ends. If it equals `at`, the next data has to be found.
    end: u64,
}

/// A piece of the file.
#[derive(Debug)]
pub struct OutgoingPiece {
    /// Its offset in the file.
    pub offset: u64,
    /// Its bytes.
    pub data: Bytes,
}

impl Files {
    /// Opens a regular file to read it whole.
    pub async fn read(&self, ino: InodeNo) -> Result<OutgoingFile> {
        let flags = OpenFlags { read: true, ..OpenFlags::default() };
        let open = HandleGuard::new(&self.vfs, self.vfs.open(ino, flags).await?);
        let version = self.vfs.version(ino).await?;
        let size = self.vfs.attributes(ino).await?.size;
        Ok(OutgoingFile { open, ino, version, size, at: 0, end: 0 })
    }
}

impl OutgoingFile {
    /// The file's length when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece, of at most `most` bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Changed`]: the content changed meanwhile, and what was read is a mix of both
    /// versions.
    pub async fn next(&mut self, most: u32) -> Result<Option<OutgoingPiece>> {
        let (vfs, handle) = (self.open.vfs(), self.open.handle());
        if self.at == self.end && self.at < self.size {
            (self.at, self.end) = match vfs.seek(handle, self.at, Seek::Data).await {
                Ok(begin) => (begin, vfs.seek(handle, begin, Seek::Hole).await?.min(self.size)),
                Err(vfs::Error::NoMoreData) => (self.size, self.size),
                Err(error) => return Err(error.into()),
            };
        }
        if self.at >= self.end {
            return self.finish().await;
        }
        let length = u32::try_from((self.end - self.at).min(most.into())).unwrap_or(most);
        let data = vfs.read_data(handle, self.at, length).await?;
        if data.len() != length as usize {
            return Err(Error::Changed);
        }
        let offset = self.at;
        self.at += u64::from(length);
        Ok(Some(OutgoingPiece { offset, data }))
    }

    async fn finish(&self) -> Result<Option<OutgoingPiece>> {
        let vfs = self.open.vfs();
        let is_same = match self.version {
            Some(version) => vfs.version(self.ino).await? == Some(version),
            // The file was being written when it was opened, so there is no version to compare.
            None => vfs.attributes(self.ino).await?.size == self.size,
        };
        if is_same { Ok(None) } else { Err(Error::Changed) }
    }
}
