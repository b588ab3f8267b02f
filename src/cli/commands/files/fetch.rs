//! Fetches one file of the vault, as a stream.

use std::io;
use std::path::Path;

use crate::cli::exit::Failure;
use crate::cli::files::wire::{FileEntry, FilesReply, FilesRequest};
use crate::cli::files::{FilesConnection, FromDaemon};

/// The outcome of a fetch.
pub(super) enum FetchOutcome {
    /// All of it was written; its entry and its extended attributes.
    Whole(FileEntry, Vec<(Vec<u8>, Vec<u8>)>),
    /// What was written mixes two versions of the file.
    Changed,
    /// The daemon could not read it.
    Failed(Failure),
    /// It could not be written here. The connection is unusable, since the rest of the file is still in it.
    NotWritten(io::Error),
}

/// Fetches a file. `write` gets each piece with its offset, in order; gaps between pieces are holes. An `Err` concerns
/// the connection.
pub(super) fn fetch(
    connection: &mut FilesConnection,
    path: &Path,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<FetchOutcome> {
    connection.ask(&FilesRequest::Get { path: path.to_owned() })?;
    let (mut entry, mut attributes) = (None, Vec::new());
    loop {
        match connection.next()? {
            FromDaemon::Reply(FilesReply::Entries { entries }) => {
                entry = entries.into_iter().next();
            }
            FromDaemon::Attribute(frame) => {
                let (name, value) = frame.as_attribute()?;
                attributes.push((name.to_vec(), value.to_vec()));
            }
            FromDaemon::Data(frame) => {
                let (offset, data) = frame.as_data()?;
                if let Err(error) = write(offset, data) {
                    return Ok(FetchOutcome::NotWritten(error));
                }
            }
            FromDaemon::Reply(FilesReply::Changed) => return Ok(FetchOutcome::Changed),
            FromDaemon::Reply(FilesReply::Failed { failure }) => {
                return Ok(FetchOutcome::Failed(failure));
            }
            FromDaemon::Reply(FilesReply::Done { .. }) => {
                let entry = entry.ok_or_else(|| io::Error::other("a file without an entry"))?;
                return Ok(FetchOutcome::Whole(entry, attributes));
            }
            FromDaemon::Reply(_) => return Err(io::Error::other("a reply to something else")),
        }
    }
}
