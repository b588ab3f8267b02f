//! What can go wrong with a path.

use crate::vfs;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the file system says.
    #[error(transparent)]
    Vfs(#[from] vfs::Error),
    /// A symlink on the way names a place that only a mount has.
    #[error("a symlink on the way leads out of the vault")]
    Outside,
    /// Symlinks lead to symlinks, and so on.
    #[error("too many symlinks on the way")]
    Loop,
    /// It was to be done with a file, and without what is in it.
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
    /// A file that is read got another content meanwhile.
    #[error("the file was changed meanwhile")]
    Changed,
    /// Whoever asked for it went away.
    #[error("given up")]
    GivenUp,
}

/// What calls of this room return.
pub type Result<T> = std::result::Result<T, Error>;
