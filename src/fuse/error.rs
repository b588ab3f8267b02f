//! Errors of mounting and unmounting. (Requests have errnos: `vfs::Error::errno`.)

use std::io;
use std::path::PathBuf;

/// Why a mount or unmount failed. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mountpoint is not a directory.
    #[error("{0} is not a directory: choose another mountpoint")]
    NotDirectory(PathBuf),
    /// The mountpoint is not empty; its content would be hidden.
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
    /// The mountpoint cannot be inspected or created.
    #[error("the mountpoint {path}: {cause}")]
    Mountpoint {
        /// The mountpoint.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The kernel or fusermount3 refuses.
    #[error("cannot mount {path}: {cause}{advice}")]
    Mount {
        /// The mountpoint.
        path: PathBuf,
        /// The cause.
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
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

/// The result of functions of this module.
pub type Result<T> = std::result::Result<T, Error>;
