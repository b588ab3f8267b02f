//! Puts one file with its content.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering::Relaxed;

use super::super::interrupt;
use super::super::work::Work;
use super::dress::{finish_of, is_kept};
use super::look::PutJob;
use crate::cli::exit::{Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::{FilesRequest, Finish, Frame, PIECE};
use crate::os;

/// How often a file that changes while it is read is read.
const TRIES: usize = 5;

/// Puts one file, as it was at one moment.
pub(super) fn one_file(work: &Work<'_>, connection: &mut Option<FilesConnection>, job: &PutJob) {
    for _ in 0..TRIES {
        if let Tried::Over = one_try(work, connection, job) {
            return;
        }
        *connection = work.connect();
    }
    let text = "it changes all the time, so no copy of one moment could be made; it was not put; try again later";
    work.failed(&job.from.display().to_string(), Failure::new(Exit::Other, text));
}

/// What became of one try.
enum Tried {
    /// The file is there, or that it is not was reported.
    Over,
    /// The file changed while it was read. The connection has to be closed, so that nothing is kept.
    Changed,
}

fn one_try(work: &Work<'_>, connection: &mut Option<FilesConnection>, job: &PutJob) -> Tried {
    let shown = job.from.display().to_string();
    let Some(there) = connection else { return Tried::Over };
    let opened = File::open(&job.from).and_then(|file| {
        let seen = file.metadata()?;
        Ok((file, seen, os::xattrs_of(&job.from)?))
    });
    let (file, seen, attributes) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            work.failed(&shown, Failure::new(Exit::Other, error.to_string()));
            return Tried::Over;
        }
    };
    let mut changed = false;
    let sent = (|| {
        there.ask(&FilesRequest::Put { path: job.to.clone(), parents: false })?;
        for (name, value) in attributes.iter().filter(|(name, _)| is_kept(name)) {
            there.send(&Frame::attribute(name, value))?;
        }
        match content(work, there, &file, seen.len())? {
            Err(error) => Ok(Err(error)),
            Ok(_) if !is_as_it_was(&file, &seen) => {
                changed = true;
                Ok(Ok(()))
            }
            Ok(size) => there.finish(&Finish { size, ..finish_of(&seen) }).map(Ok),
        }
    })();
    if changed {
        return Tried::Changed;
    }
    if let Ok(Err(error)) = sent {
        // Closing the connection makes the daemon discard what it has received.
        *connection = None;
        let text = format!("it cannot be read: {error}; it was not put");
        work.failed(&shown, Failure::new(Exit::Other, text));
        return Tried::Over;
    }
    // The daemon's last reply says more than the error that the connection ended.
    match work.heard(&shown, there.outcome()) {
        Some(Ok(_)) => _ = work.tally.done.fetch_add(1, Relaxed),
        Some(Err(_)) | None => *connection = None,
    }
    Tried::Over
}

/// Whether nobody changed a file, or its attributes, since it was looked at.
fn is_as_it_was(file: &File, seen: &Metadata) -> bool {
    let state = |seen: &Metadata| {
        (seen.len(), seen.mtime(), seen.mtime_nsec(), seen.ctime(), seen.ctime_nsec())
    };
    file.metadata().is_ok_and(|now| state(&now) == state(seen))
}

/// Sends a file's content without its holes; returns the file's length. The inner error concerns the file.
fn content(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    file: &File,
    size: u64,
) -> io::Result<io::Result<u64>> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let (begin, end) = match os::next_data(file, at) {
            Ok(Some((begin, end))) => (begin, end.min(size)),
            Ok(None) => return Ok(Ok(size)),
            // This file system cannot report holes.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (at, size),
            Err(error) => return Ok(Err(error)),
        };
        at = begin;
        while at < end {
            if interrupt::is_asked() {
                return Ok(Err(io::ErrorKind::Interrupted.into()));
            }
            let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let read = match file.read_at(&mut piece[..most], at) {
                // The file became shorter meanwhile, which its attributes show.
                Ok(0) => return Ok(Ok(at)),
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            connection.send(&Frame::data(at, &piece[..read]))?;
            at += read as u64;
            work.tally.bytes.fetch_add(read as u64, Relaxed);
        }
    }
    Ok(Ok(size))
}
