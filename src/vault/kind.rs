//! What an error means for whoever asked, however deep it comes from.

use super::Error;
use crate::{cache, checkpoint, content, index, log, records, store, upload, vfs};

/// What an error means for whoever asked.
#[derive(Debug)]
pub enum Kind<'a> {
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
    /// What the variant of [`Error`] says, or nothing in particular.
    Other,
}

impl Error {
    /// What it means.
    pub fn kind(&self) -> Kind<'_> {
        match self {
            Self::Store(error) => Kind::Store(error),
            Self::Log(error) => of_log(error),
            Self::Checkpoint(error) => of_checkpoint(error),
            Self::Index(error) => of_index(error),
            Self::Upload(error) => of_upload(error),
            Self::Content(error) => of_content(error),
            Self::Vfs(vfs::Error::Index(error)) => of_index(error),
            Self::Vfs(vfs::Error::Content(error)) => of_content(error),
            Self::Vfs(vfs::Error::ReadOnly) => Kind::ReadOnly,
            // Staging is full: uploads make room.
            Self::Vfs(vfs::Error::NoSpace | vfs::Error::PushedOut) => Kind::Unfinished,
            Self::Io { .. } | Self::SmallDisk { .. } => Kind::LocalDisk,
            Self::Contended => Kind::Fenced,
            Self::Unfinished(_) => Kind::Unfinished,
            Self::Superblock { .. } | Self::OldSuperblock | Self::Forgotten { .. } => Kind::Damaged,
            _ => Kind::Other,
        }
    }
}

fn of_log(error: &log::Error) -> Kind<'_> {
    match error {
        log::Error::Store(error) => Kind::Store(error),
        log::Error::Io { .. } | log::Error::Poisoned(_) => Kind::LocalDisk,
        // Uploads make room.
        log::Error::Full => Kind::Unfinished,
        log::Error::Records(records::Error::Malformed { .. })
        | log::Error::Seal { .. }
        | log::Error::Gap { .. }
        | log::Error::Fork { .. }
        | log::Error::Damaged { .. } => Kind::Damaged,
        log::Error::Records(records::Error::TooLarge(_)) | log::Error::Removed(_) => Kind::Other,
    }
}

fn of_checkpoint(error: &checkpoint::Error) -> Kind<'_> {
    match error {
        checkpoint::Error::Log(error) => of_log(error),
        checkpoint::Error::Cache(error) => of_cache(error),
    }
}

fn of_index(error: &index::Error) -> Kind<'_> {
    match error {
        index::Error::Log(error) => of_log(error),
        index::Error::Base(error) => of_checkpoint(error),
        index::Error::ReadOnly(_) => Kind::ReadOnly,
        index::Error::Damaged(_) => Kind::Damaged,
        index::Error::Miss => Kind::Other,
    }
}

fn of_upload(error: &upload::Error) -> Kind<'_> {
    match error {
        upload::Error::Fenced => Kind::Fenced,
        upload::Error::Unfinished { .. } | upload::Error::Full => Kind::Unfinished,
        upload::Error::Poisoned(_) | upload::Error::Io { .. } => Kind::LocalDisk,
        _ => Kind::Other,
    }
}

fn of_content(error: &content::Error) -> Kind<'_> {
    match error {
        content::Error::Staging(error) => of_upload(error),
        content::Error::Cache(error) => of_cache(error),
        content::Error::Seal { .. }
        | content::Error::BadExtent { .. }
        | content::Error::Staged(_) => Kind::Damaged,
        content::Error::Deadline | content::Error::Removed(_) => Kind::Unfinished,
        content::Error::TooLarge => Kind::Other,
    }
}

fn of_cache(error: &cache::Error) -> Kind<'_> {
    match error {
        cache::Error::Store(error) => Kind::Store(error),
        cache::Error::Directory { .. } => Kind::LocalDisk,
        cache::Error::Short { .. } => Kind::Damaged,
        cache::Error::Down | cache::Error::Stopped => Kind::Unfinished,
    }
}
