//! What an error means for the caller, however deep it comes from.

use super::Error;
use crate::{cache, checkpoint, content, index, log, records, store, upload, vfs};

/// What an error means for the caller.
#[derive(Debug)]
pub enum ErrorClass<'a> {
    /// The store failed.
    Store(&'a store::Error),
    /// Another machine has taken over (W3): waiting does not help.
    Fenced,
    /// The deadline passed; waiting may help.
    Unfinished,
    /// Nothing can be changed until the vault is mounted again (J4, J6, W3).
    ReadOnly,
    /// Something in the bucket or on this disk is not what it must be.
    Damaged,
    /// This machine's disk failed or is full.
    LocalDisk,
    /// See the variant of [`Error`].
    Other,
}

impl Error {
    /// What this error means for the caller.
    pub fn class(&self) -> ErrorClass<'_> {
        match self {
            Self::Store(error) => ErrorClass::Store(error),
            Self::Log(error) => of_log(error),
            Self::Checkpoint(error) => of_checkpoint(error),
            Self::Index(error) => of_index(error),
            Self::Upload(error) => of_upload(error),
            Self::Content(error) => of_content(error),
            Self::Vfs(vfs::Error::Index(error)) => of_index(error),
            Self::Vfs(vfs::Error::Content(error)) => of_content(error),
            Self::Vfs(vfs::Error::ReadOnly) => ErrorClass::ReadOnly,
            // Staging is full; uploads make room.
            Self::Vfs(vfs::Error::NoSpace | vfs::Error::PushedOut) => ErrorClass::Unfinished,
            Self::Io { .. } | Self::SmallDisk { .. } => ErrorClass::LocalDisk,
            Self::Contended => ErrorClass::Fenced,
            Self::Superblock { .. }
            | Self::OldSuperblock
            | Self::SuperblockLost
            | Self::SuperblockFile { .. }
            | Self::Forgotten { .. }
            | Self::Unsent { .. } => ErrorClass::Damaged,
            _ => ErrorClass::Other,
        }
    }
}

fn of_log(error: &log::Error) -> ErrorClass<'_> {
    match error {
        log::Error::Store(error) => ErrorClass::Store(error),
        log::Error::Io { .. } | log::Error::Poisoned(_) => ErrorClass::LocalDisk,
        // The journal has no room; uploads make room.
        log::Error::Full => ErrorClass::Unfinished,
        log::Error::Records(records::Error::Malformed { .. })
        | log::Error::Seal { .. }
        | log::Error::Gap { .. }
        | log::Error::Stranger { .. }
        | log::Error::Fork { .. }
        | log::Error::Damaged { .. } => ErrorClass::Damaged,
        log::Error::Records(records::Error::TooLarge(_)) | log::Error::Removed(_) => {
            ErrorClass::Other
        }
    }
}

fn of_checkpoint(error: &checkpoint::Error) -> ErrorClass<'_> {
    match error {
        checkpoint::Error::Log(error) => of_log(error),
        checkpoint::Error::Cache(error) => of_cache(error),
    }
}

fn of_index(error: &index::Error) -> ErrorClass<'_> {
    match error {
        index::Error::Log(error) => of_log(error),
        index::Error::Base(error) => of_checkpoint(error),
        index::Error::ReadOnly(_) => ErrorClass::ReadOnly,
        index::Error::Damaged(_) => ErrorClass::Damaged,
        index::Error::Miss => ErrorClass::Other,
    }
}

fn of_upload(error: &upload::Error) -> ErrorClass<'_> {
    match error {
        upload::Error::Fenced => ErrorClass::Fenced,
        upload::Error::Unfinished { .. } | upload::Error::Full => ErrorClass::Unfinished,
        upload::Error::Poisoned(_) | upload::Error::Io { .. } => ErrorClass::LocalDisk,
        _ => ErrorClass::Other,
    }
}

fn of_content(error: &content::Error) -> ErrorClass<'_> {
    match error {
        content::Error::Staging(error) => of_upload(error),
        content::Error::Cache(error) => of_cache(error),
        content::Error::Seal { .. }
        | content::Error::BadExtent { .. }
        | content::Error::Staged(_) => ErrorClass::Damaged,
        content::Error::Deadline | content::Error::Removed(_) => ErrorClass::Unfinished,
        content::Error::TooLarge => ErrorClass::Other,
    }
}

fn of_cache(error: &cache::Error) -> ErrorClass<'_> {
    match error {
        cache::Error::Store(error) => ErrorClass::Store(error),
        cache::Error::Directory { .. } => ErrorClass::LocalDisk,
        cache::Error::Short { .. } => ErrorClass::Damaged,
        cache::Error::Down | cache::Error::Stopped => ErrorClass::Unfinished,
    }
}
