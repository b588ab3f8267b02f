//! What can go wrong with a path.

use crate::vfs;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the file system.
    #[error(transparent)]
    Vfs(#[from] vfs::Error),
    /// A symlink on the path leads to a place outside the vault, which only a mount has.
    #[error("a symlink on the way leads out of the vault")]
    Outside,
    /// Too many symlinks lead to each other.
    #[error("too many symlinks on the way")]
    Loop,
    /// A directory was given to an operation that was not to be recursive.
    #[error("it is a directory, and what is in it was not asked for")]
    Omitted,
    /// A directory was to be copied or moved to below itself.
    #[error("a directory cannot be put into itself")]
    IntoItself,
    /// Both names are of one file.
    #[error("both are the same file")]
    SameFile,
    /// The root of the vault was to be removed, moved or replaced.
    #[error("it is the root of the vault")]
    Root,
    /// The content of a file changed while it was read.
    #[error("the file was changed meanwhile")]
    Changed,
    /// The caller gave up.
    #[error("given up")]
    GivenUp,
}

/// Results of this module.
pub type Result<T> = std::result::Result<T, Error>;
