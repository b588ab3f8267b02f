//! The errors of this module, and the one place that maps them to errnos.

use crate::{content, index};

/// Why a call failed. Variants without a cause have the meaning that POSIX gives their errno.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ENOENT
    #[error("no such file or directory")]
    NotFound,
    /// EEXIST
    #[error("it exists")]
    Exists,
    /// ENOTDIR
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR
    #[error("is a directory")]
    IsDirectory,
    /// ENOTEMPTY
    #[error("the directory is not empty")]
    NotEmpty,
    /// EINVAL
    #[error("invalid argument")]
    Invalid,
    /// ENAMETOOLONG
    #[error("the name is too long")]
    NameTooLong,
    /// EPERM
    #[error("operation not permitted")]
    NotPermitted,
    /// EMLINK
    #[error("too many links")]
    TooManyLinks,
    /// EFBIG
    #[error("the file would be too large")]
    TooBig,
    /// EBADF
    #[error("no such open file, or not open for this")]
    BadHandle,
    /// ESTALE: the kernel looks the name up again.
    #[error("the inode is gone")]
    Stale,
    /// ENODATA
    #[error("no such attribute")]
    NoAttribute,
    /// E2BIG
    #[error("the attribute's value is too long")]
    AttributeTooBig,
    /// ERANGE
    #[error("the attribute's name is too long")]
    AttributeNameTooLong,
    /// ENOSPC
    #[error("no room for more")]
    NoSpace,
    /// ENXIO: `SEEK_DATA` or `SEEK_HOLE` beyond the end.
    #[error("no data from there on")]
    NoMoreData,
    /// EOPNOTSUPP
    #[error("not supported")]
    NotSupported,
    /// EROFS
    #[error("the mount is read-only")]
    ReadOnly,
    /// EIO: the caller got its reply before the operation was done (V5).
    #[error("too late: its caller has had a reply")]
    Late,
    /// EIO: what was fetched was evicted from memory before it could be used. A retry may work.
    #[error("memory is short: what was fetched is gone again")]
    PushedOut,
    /// EIO: a snapshot that cannot be opened, or as many are open as can be. The log says why.
    #[error("the snapshot cannot be shown")]
    SnapshotUnavailable,
    /// The mount has not heard of earlier changes yet (EIO; the kernel itself never sees it).
    #[error("the mount does not take the news of changes")]
    Unheard,
    /// The index or the journal.
    #[error("the map: {0}")]
    Index(#[from] index::Error),
    /// A file's bytes.
    #[error("content: {0}")]
    Content(#[from] content::Error),
    /// What was written could not be made durable.
    #[error("not made durable: {0}")]
    Durability(#[source] super::DurabilityError),
}

/// What kind of failure an error is, for reports to people rather than to the kernel. [`ErrorKind::Other`] covers the
/// rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing can be changed, for this reason.
    ReadOnly(String),
    /// There is no room for what is not uploaded yet.
    Full,
    /// The store does not answer; a retry may work.
    Store,
    /// Anything else: damage, or a failure of this machine.
    Other,
}

/// The result of calls of this module.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The errno that the caller gets. No other place decides it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::Invalid => libc::EINVAL,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::NotPermitted => libc::EPERM,
            Self::TooManyLinks => libc::EMLINK,
            Self::TooBig => libc::EFBIG,
            Self::BadHandle => libc::EBADF,
            Self::Stale => libc::ESTALE,
            Self::NoAttribute => libc::ENODATA,
            Self::AttributeTooBig => libc::E2BIG,
            Self::AttributeNameTooLong => libc::ERANGE,
            Self::NoSpace => libc::ENOSPC,
            Self::NoMoreData => libc::ENXIO,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::ReadOnly => libc::EROFS,
            Self::Index(error) => index_errno(error),
            Self::Content(error) => content_errno(error),
            Self::Durability(super::DurabilityError::Full) => libc::ENOSPC,
            Self::Late
            | Self::PushedOut
            | Self::Unheard
            | Self::SnapshotUnavailable
            | Self::Durability(_) => libc::EIO,
        }
    }
}

impl Error {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ReadOnly => ErrorKind::ReadOnly("it was opened for reading".into()),
            Self::Index(index::Error::ReadOnly(reason)) => ErrorKind::ReadOnly(reason.clone()),
            Self::NoSpace | Self::Durability(super::DurabilityError::Full) => ErrorKind::Full,
            Self::Index(error) if error.is_full() => ErrorKind::Full,
            Self::Content(error) if error.is_full() => ErrorKind::Full,
            Self::Content(error) if error.is_transient() => ErrorKind::Store,
            Self::PushedOut | Self::SnapshotUnavailable | Self::Durability(_) => ErrorKind::Store,
            Self::Index(error) if error.is_transient() => ErrorKind::Store,
            _ => ErrorKind::Other,
        }
    }
}

fn index_errno(error: &index::Error) -> i32 {
    match error {
        index::Error::ReadOnly(_) => libc::EROFS,
        error if error.is_full() => libc::ENOSPC,
        _ => libc::EIO,
    }
}

fn content_errno(error: &content::Error) -> i32 {
    match error {
        content::Error::TooLarge => libc::EFBIG,
        _ if error.is_full() => libc::ENOSPC,
        _ => libc::EIO,
    }
}
