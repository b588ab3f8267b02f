//! Why a request did not complete, and what its client is told.

use std::io;

use crate::cli::exit::{Exit, Failure};
use crate::files::{Error, VfsError};
use crate::vault;

/// Turns an error of the vault into a failure for the user.
pub(in super::super) type Fail<'a> = &'a (dyn Fn(&vault::Error) -> Failure + Send + Sync);

/// Why a request did not complete.
pub(super) enum Broken {
    /// It failed, and the client is told why.
    Failed(Failure),
    /// The content that was sent mixes two versions of the file.
    Changed,
    /// The connection cannot be used any more.
    Lost(io::Error),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

pub(super) fn refused(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Other, text)
}

/// The failure that a client is told.
pub(super) fn told_as(error: Error, fail: Fail<'_>) -> Failure {
    match plain(&error) {
        Some(text) => refused(text),
        None => match error {
            Error::Vfs(error) => fail(&vault::Error::from(error)),
            error => refused(error.to_string()),
        },
    }
}

/// The same for one of many items.
pub(super) fn of_one(error: &Error) -> Failure {
    refused(plain(error).map_or_else(|| error.to_string(), str::to_owned))
}

/// The wording of the command line for common errors.
fn plain(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Vfs(VfsError::NotFound | VfsError::Stale) => {
            "there is no such file or directory in the vault"
        }
        Error::Vfs(VfsError::Exists) => "it is there already, and was left as it is",
        Error::Vfs(VfsError::NotDirectory) => {
            "it is, or lies below, something that is no directory; nothing was changed"
        }
        Error::Vfs(VfsError::IsDirectory) => "it is a directory; nothing was changed",
        Error::Vfs(VfsError::NotEmpty) => "the directory is not empty, and was left as it is",
        Error::Vfs(VfsError::NameTooLong) => {
            "a name has more than 255 bytes, or the path more than 4,095; nothing was changed"
        }
        Error::Vfs(VfsError::Invalid) => {
            "the vault cannot have something of this name or kind; nothing was changed"
        }
        Error::Vfs(VfsError::TooBig) => {
            "the file would be too large for a vault; nothing was changed"
        }
        Error::Outside => "a symlink on the way leads out of the vault; name what it leads to",
        Error::Loop => "too many symlinks on the way; do some lead to themselves?",
        Error::Omitted => {
            "it is a directory; nothing was changed; with -r it goes with all that is in it"
        }
        Error::IntoItself => "a directory cannot be put into itself; nothing was changed",
        Error::SameFile => "both names are of the same file; nothing was changed",
        Error::Root => "it is the root of the vault, which stays; nothing was changed",
        Error::Vfs(_) | Error::Changed | Error::GivenUp => return None,
    })
}
