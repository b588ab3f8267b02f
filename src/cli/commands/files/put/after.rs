//! What is done after all files are put.

use std::sync::atomic::Ordering::Relaxed;

use super::super::which::last_name;
use super::super::work::Work;
use super::dress::{finish_of, is_kept};
use super::look::AfterFiles;
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::{FilesRequest, Frame};
use crate::os;

/// Makes further names, and sets the attributes of directories, whose times change while they are filled.
pub(super) fn finish(work: &Work<'_>, connection: &mut FilesConnection, later: AfterFiles) {
    for (first, to) in later.links {
        let shown = to.display().to_string();
        // Whatever has the name is removed, unless it is the same file.
        let names = connection
            .stat(&first, false)
            .and_then(|first| Ok((first, connection.stat(&to, false)?)));
        let Some(Ok((first_seen, there))) = work.heard(&shown, names.map(Ok)) else { return };
        if let (Ok(first), Ok(there)) = (&first_seen, &there)
            && first.ino == there.ino
        {
            work.tally.done.fetch_add(1, Relaxed);
            continue;
        }
        if there.is_ok() {
            let request = FilesRequest::Remove { path: to.clone(), recursive: false };
            match work.heard(&shown, connection.done(&request)) {
                Some(Ok(_)) => {}
                Some(Err(_)) => continue,
                None => return,
            }
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
