//! What can go wrong with a vault as a whole. The messages are for people.

use super::no_state::NoState;
use crate::types::{CommitNo, Timestamp};
use crate::{checkpoint, content, crypto, index, log, reclaim, records, store, upload, vfs};

/// Shorthand for this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The way out if the superblock is lost.
const WAY_OUT: &str = "Give the newest copy with --superblock FILE: one of `s3vault key backup`, or the one that each machine \
                       which used the vault keeps (<vault id>.superblock in ~/.local/share/s3vault)";

/// Why a vault cannot be made, opened, synced or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket holds no vault.
    #[error("there is no vault here; `s3vault init` makes one")]
    NoVault,
    /// The store refuses objects of a storage class, or with tags.
    #[error("the store does not take objects of this storage class, or with these tags: {0}")]
    PutAs(store::Error),
    /// `init` found a vault.
    #[error("there is a vault here already; mount it, or name another bucket or prefix")]
    Exists,
    /// `init` could not show the recovery key; it made nothing.
    #[error("the recovery key cannot be shown ({0}); nothing was made")]
    NotShown(std::io::Error),
    /// The secret is neither a passphrase nor the recovery key of this vault.
    #[error("the passphrase (or recovery key) is wrong")]
    WrongSecret,
    /// A superblock that does not verify. An older one is never taken instead (O1), unless it ends early (K6).
    #[error(
        "{object} cannot be trusted: {why}. If somebody put it beside the vault's own, move it out of the bucket. Otherwise it \
         was damaged. {WAY_OUT}"
    )]
    Superblock {
        /// The object.
        object: String,
        /// What is wrong.
        why: String,
    },
    /// The superblock is older than what the newest commit or checkpoint names (O1).
    #[error(
        "the newest superblock is gone from the bucket: an older one was put in its place. {WAY_OUT}"
    )]
    OldSuperblock,
    /// The bucket has other objects of a vault, but no superblock.
    #[error(
        "the superblock is gone from the bucket, and without it no key opens the rest of the vault, which is there. {WAY_OUT}"
    )]
    SuperblockLost,
    /// A file that was to stand in for the superblock cannot.
    #[error("{} is not used: {why}", path.display())]
    SuperblockFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The vault was made by a later version.
    #[error(
        "this vault has format {format}, which this version of s3vault does not know; use a newer one"
    )]
    Format {
        /// The vault's.
        format: u32,
    },
    /// Conditional puts are ignored or refused (W6).
    #[error(
        "this store does not honour conditional puts, so two machines could overwrite each other's changes; \
         if only one machine ever writes, use --single-machine"
    )]
    NoConditionalPuts,
    /// Another machine has claimed the vault (W2).
    #[error(
        "the vault is in use by {host} (since {}); unmount it there, or, if that machine is gone, \
         mount with --take-over: what it has not uploaded stays on it",
        seconds(claimed)
    )]
    OtherWriter {
        /// That machine's host name.
        host: String,
        /// When it claimed the vault, by its clock.
        claimed: Timestamp,
    },
    /// This machine has mounted the vault for writing already (W2).
    #[error("the vault is mounted already, at {mountpoint}")]
    MountedHere {
        /// Where.
        mountpoint: String,
    },
    /// The bucket went back, or forked, since this machine last saw it (O2).
    #[error(
        "the bucket is older than what this machine saw: commit {} is not in it any more, or differs. \
         Somebody restored or rolled back the bucket. If that was you: --accept-rollback", number.0
    )]
    Rollback {
        /// The commit that this machine remembers.
        number: CommitNo,
    },
    /// A file or directory was not brought back.
    #[error("{0}")]
    NotRestored(String),
    /// The state to look at is not there (K4).
    #[error("{0}")]
    NoState(NoState),
    /// The disk is too small for a mount that writes, even when empty.
    #[error(
        "the disk of {} has {} MiB in all, and a vault that is written to needs {}: 1 GiB or a tenth of the disk stays \
         free; name a directory on a larger one with --state-dir, or look with --read-only",
        dir.display(), total >> 20, needed.div_ceil(1 << 20)
    )]
    SmallDisk {
        /// The state directory.
        dir: std::path::PathBuf,
        /// How large its disk is, in bytes.
        total: u64,
        /// How large it must be, in bytes.
        needed: u64,
    },
    /// What this machine remembers of the vault does not open, which could hide a rollback (O2).
    #[error(
        "{path} is damaged ({source}), so whether the bucket is older than what this machine saw cannot be told. \
         If its newest files are as you know them: --accept-rollback begins it anew"
    )]
    Forgotten {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: log::Error,
    },
    /// Local data that is not in the bucket yet is damaged (J3).
    #[error(
        "{} {why}; it holds changes that are not in the bucket yet, and what is in the bucket is whole. Bring that file \
         back, or mount with --accept-damage, which goes on without what cannot be read, and keeps a copy of what is \
         here", path.display()
    )]
    Unsent {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A local file or directory failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The keys.
    #[error(transparent)]
    Crypto(crypto::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The log, or the journal.
    #[error(transparent)]
    Log(log::Error),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(checkpoint::Error),
    /// The local index.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// Staging and uploads.
    #[error(transparent)]
    Upload(#[from] upload::Error),
    /// The bytes of files.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// The file system.
    #[error(transparent)]
    Vfs(#[from] vfs::Error),
    /// The vault is open for reading only.
    #[error("it is mounted read-only; nothing was changed")]
    ReadOnlyMount,
    /// A snapshot cannot be made or ended.
    #[error("{0}; nothing was changed")]
    Snapshot(String),
    /// A change of the keys cannot be made.
    #[error("{0}; nothing was changed")]
    Keys(String),
    /// Deleting old objects failed.
    #[error(transparent)]
    Reclaim(reclaim::Error),
    /// Something on this machine is not as it should be.
    #[error("{0}")]
    Local(String),
    /// The index was rebuilt and still does not fit the log: a bug.
    #[error("the local index could not be made to fit the log")]
    IndexDoesNotFit,
    /// Two writers raced for the claim again and again.
    #[error("another machine keeps taking this vault over")]
    Contended,
}

fn seconds(time: &Timestamp) -> String {
    format!("{} s after 1970", time.seconds)
}

impl From<crypto::Error> for Error {
    fn from(error: crypto::Error) -> Self {
        match error {
            crypto::Error::WrongSecret => Self::WrongSecret,
            other => Self::Crypto(other),
        }
    }
}

impl From<log::Error> for Error {
    fn from(error: log::Error) -> Self {
        match error {
            log::Error::Store(error) => Self::Store(error),
            other => Self::Log(other),
        }
    }
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Self {
        match error {
            checkpoint::Error::Log(error) => error.into(),
            other @ checkpoint::Error::Cache(_) => Self::Checkpoint(other),
        }
    }
}

impl From<records::Error> for Error {
    fn from(error: records::Error) -> Self {
        Self::Log(error.into())
    }
}

impl From<reclaim::Error> for Error {
    fn from(error: reclaim::Error) -> Self {
        match error {
            reclaim::Error::Index(error) => Self::Index(error),
            reclaim::Error::Checkpoint(error) => error.into(),
            reclaim::Error::Upload(error) => Self::Upload(error),
            other => Self::Reclaim(other),
        }
    }
}

impl Error {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
