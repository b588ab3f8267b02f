//! What can go wrong about a mount itself. (Requests have errnos: `vfs::Error::errno`.)

use std::io;
use std::path::PathBuf;

/// Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mountpoint is a file or the like.
    #[error("{0} is not a directory: choose another mountpoint")]
    NotDirectory(PathBuf),
    /// Something is in the mountpoint, and would be hidden.
    #[error("{0} is not empty: choose an empty directory as the mountpoint, or empty it")]
    NotEmpty(PathBuf),
    /// Something is mounted there.
    #[error(
        "{path} is a mountpoint already ({what}): unmount it first, or choose another directory"
    )]
    InUse {
        /// The mountpoint.
        path: PathBuf,
        /// Type and source of what is there.
        what: String,
    },
    /// The mountpoint cannot be looked at or made.
    #[error("the mountpoint {path}: {cause}")]
    Mountpoint {
        /// The mountpoint.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The kernel or fusermount3 refuses.
    #[error("cannot mount {path}: {cause}{advice}")]
    Mount {
        /// The mountpoint.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
        /// What to do about it, beginning with a separator; may be empty.
        advice: &'static str,
    },
    /// Files are open in the mount, or a shell is in it.
    #[error(
        "{0} is busy: close the files that are open in it (`fuser -vm` lists who has them), or use --force"
    )]
    Busy(PathBuf),
    /// The kernel or fusermount3 refuses.
    #[error("cannot unmount {path}: {cause}")]
    Unmount {
        /// The mountpoint.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

/// What this room's functions return.
pub type Result<T> = std::result::Result<T, Error>;
