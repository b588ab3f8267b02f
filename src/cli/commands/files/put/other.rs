//! Puts entries without content: symlinks, fifos, devices.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use super::super::work::Work;
use super::dress::finish_of;
use crate::cli::exit::{Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::FilesRequest;

/// Puts a symlink, fifo or device; `false`: nothing more can be done.
pub(super) fn other(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    (from, to): (&Path, &Path),
    seen: &Metadata,
) -> bool {
    let shown = from.display().to_string();
    let target = match seen.is_symlink().then(|| fs::read_link(from)).transpose() {
        Ok(target) => target,
        Err(error) => {
            work.failed(&shown, Failure::new(Exit::Other, error.to_string()));
            return true;
        }
    };
    if seen.mode() & libc::S_IFMT == libc::S_IFSOCK {
        work.failed(
            &shown,
            Failure::new(
                Exit::Other,
                "it is a socket, which is of no use elsewhere; it was not put",
            ),
        );
        return true;
    }
    let rdev = u32::try_from(seen.rdev()).unwrap_or(0);
    let made = (|| {
        connection.ask(&FilesRequest::Make { path: to.to_owned(), target, rdev })?;
        connection.finish(&finish_of(seen))?;
        connection.outcome()
    })();
    match work.heard(&shown, made) {
        Some(Ok(_)) => {
            work.tally.done.fetch_add(1, Relaxed);
            true
        }
        Some(Err(_)) => match work.connect() {
            Some(another) => {
                *connection = another;
                true
            }
            None => false,
        },
        None => false,
    }
}
