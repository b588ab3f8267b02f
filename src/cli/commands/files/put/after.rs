//! What is done after all files are put.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use super::super::which::last_name;
use super::super::work::Work;
use super::dress::{finish_of, is_kept};
use super::look::{AfterFiles, is_same};
use crate::cli::exit::{Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::{FileEntry, FilesRequest, Frame};
use crate::os;

/// Makes further names, and sets the attributes of directories, whose times change while they are filled.
pub(super) fn finish(work: &Work<'_>, connection: &mut FilesConnection, later: AfterFiles) {
    for (from, first, to) in later.links {
        let shown = to.display().to_string();
        let there = connection.stat(&first, false).map(Ok);
        let Some(Ok(there)) = work.heard(&shown, there) else { return };
        // If its first name was not put, something else has that name, or nothing: what is in the vault stays.
        if !there.is_ok_and(|there| is_put(&from, &there)) {
            let text =
                format!("its other name, {}, was not put; it was left as it is", first.display());
            work.failed(&shown, Failure::new(Exit::Other, text));
            continue;
        }
        match work.heard(&shown, connection.done(&FilesRequest::Link { from: first, to })) {
            Some(Ok(_)) => _ = work.tally.done.fetch_add(1, Relaxed),
            Some(Err(_)) => {}
            None => return,
        }
    }
    for (from, to, seen) in later.directories.into_iter().rev() {
        // The root of the vault keeps its own attributes.
        if last_name(&to).is_none() {
            continue;
        }
        let shown = from.display().to_string();
        let dressed = (|| {
            connection.ask(&FilesRequest::Dress { path: to })?;
            for (name, value) in os::xattrs_of(&from).unwrap_or_default() {
                if is_kept(&name) {
                    connection.send(&Frame::attribute(&name, &value))?;
                }
            }
            connection.finish(&finish_of(&seen))?;
            connection.outcome()
        })();
        match work.heard(&shown, dressed) {
            Some(Ok(_)) => {}
            Some(Err(_)) => match work.connect() {
                Some(another) => *connection = another,
                None => return,
            },
            None => return,
        }
    }
}

/// Whether this entry of the vault is what a local file is now.
fn is_put(from: &Path, there: &FileEntry) -> bool {
    fs::symlink_metadata(from).is_ok_and(|seen| match seen.is_file() {
        true => is_same(there, &seen),
        false => there.mode & libc::S_IFMT == seen.mode() & libc::S_IFMT,
    })
}
