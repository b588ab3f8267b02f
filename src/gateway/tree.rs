//! Finds what a key names. Symlinks are not followed.

use super::Gateway;
use super::HttpProblem;
use super::errors::Result;
use super::metadata::{ATTRIBUTE, FileKind};
use super::s3_key::S3Key;
use crate::types::InodeNo;
use crate::vfs::{Error, Inspected};

/// New directories are readable by everybody, as new files are.
const DIRECTORY_MODE: u32 = 0o755;

impl Gateway {
    /// Whether [`Gateway::make_directory`] can succeed: nothing but directories stands on the path.
    pub(super) async fn may_make(&self, names: &[Vec<u8>]) -> Result<()> {
        match self.vfs.directory_at(names).await {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that these names lead to. Missing directories are made, and belong to the daemon's user.
    pub(super) async fn make_directory(&self, names: &[Vec<u8>]) -> Result<InodeNo> {
        let mut at = InodeNo::ROOT;
        for name in names {
            let seen = match self.vfs.lookup(at, name).await {
                Err(Error::NotFound) => {
                    match self.vfs.mkdir(&self.owner, at, name, DIRECTORY_MODE).await {
                        // Somebody else was faster.
                        Err(Error::Exists) => self.vfs.lookup(at, name).await?,
                        made => made?,
                    }
                }
                seen => seen?,
            };
            if FileKind::of(seen.mode) != FileKind::Directory {
                return Err(Error::NotDirectory.into());
            }
            at = seen.ino;
        }
        Ok(at)
    }

    /// Makes a directory and the missing ones above it. It is an error if the directory exists.
    pub(super) async fn make_new_directory(&self, key: &S3Key) -> Result<()> {
        let (above, name) = key.split().ok_or_else(|| HttpProblem::from(Error::Exists))?;
        let parent = self.make_directory(above).await?;
        self.vfs.mkdir(&self.owner, parent, name, DIRECTORY_MODE).await?;
        Ok(())
    }

    /// The directory that a key's last name is in, and that name. The root has no parent: 409.
    pub(super) async fn place<'k>(&self, key: &'k S3Key) -> Result<(InodeNo, &'k [u8])> {
        let (directories, name) =
            key.split().ok_or_else(|| HttpProblem::from(Error::IsDirectory))?;
        match self.vfs.directory_at(directories).await {
            Ok(parent) => Ok((parent, name)),
            // Nothing can exist below a file.
            Err(Error::NotDirectory) => Err(Error::NotFound.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// What a key names.
    pub(super) async fn inspect(&self, key: &S3Key) -> Result<(Inspected, InodeNo)> {
        let (parent, name) = self.place(key).await?;
        Ok((self.vfs.inspect(parent, name, ATTRIBUTE).await?, parent))
    }

    /// Like [`Gateway::inspect`], but anything other than a regular file is an error that says what it is.
    pub(super) async fn inspect_file(&self, key: &S3Key) -> Result<Inspected> {
        let (inspected, _) = self.inspect(key).await?;
        match FileKind::of(inspected.attributes.mode) {
            FileKind::File => Ok(inspected),
            FileKind::Directory => Err(HttpProblem::conflict(
                "is_a_directory",
                "This is a directory. GET /files/?prefix=PATH/ lists what is in it.",
            )),
            FileKind::Symlink => Err(HttpProblem::conflict(
                "not_a_file",
                "This is a symlink, and this service follows none. Name the file itself.",
            )),
            FileKind::Other => Err(HttpProblem::conflict(
                "not_a_file",
                "This is a device, a fifo or a socket: it has no content to send.",
            )),
        }
    }
}
