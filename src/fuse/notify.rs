//! Tells the kernel what others have changed, so that it does not answer from its memory. To take such a notification
//! the kernel needs the locks of the directory and the inode, and requests that wait for our replies may hold those. So
//! this is a thread of its own: it holds nothing, and no reply to the kernel waits for it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use fuser::{INodeNo, Notifier};

use crate::os;
use crate::vfs::{Invalidation, Invalidations};

/// An offset that keeps the pages of a file: only its attributes are invalidated.
const NO_PAGES: i64 = -1;
/// An offset that invalidates all pages.
const ALL_PAGES: i64 = 0;

/// Starts the thread, which ends with the mount.
pub(super) fn start(notifier: Notifier, mut changes: Invalidations) -> io::Result<()> {
    let tell_all = move || {
        while let Some(told) = changes.receive() {
            for change in &told.changes {
                let once = || {
                    os::watched_here("telling the kernel of changes", || tell(&notifier, change))
                };
                // Tried twice: what the kernel is not told it gets wrong for an hour, and telling it twice does no
                // harm.
                if let Ok(Err(error)) = once().or_else(|_panicked| once()) {
                    tracing::warn!(%error, "the kernel was not told of a change");
                }
            }
        }
    };
    std::thread::Builder::new().name("s3vault-notify".into()).spawn(tell_all).map(drop)
}

fn tell(notifier: &Notifier, change: &Invalidation) -> io::Result<()> {
    let told = match change {
        Invalidation::Name(parent, name) => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
        }
        Invalidation::Gone(parent, name, ino) => {
            notifier.delete(INodeNo(parent.0), INodeNo(ino.0), OsStr::from_bytes(name))
        }
        Invalidation::Attributes(ino) => notifier.inval_inode(INodeNo(ino.0), NO_PAGES, 0),
        Invalidation::Content(ino) => notifier.inval_inode(INodeNo(ino.0), 0, ALL_PAGES),
    };
    match told {
        // Harmless: the mount is gone, or the kernel has forgotten the name but would not mark the inode as deleted, as
        // the name refers to another one or is a mountpoint. fuser itself ignores inodes that the kernel does not know.
        Err(error) if is_harmless(&error) => Ok(()),
        told => told,
    }
}

fn is_harmless(error: &io::Error) -> bool {
    let known = [libc::ENODEV, libc::ENOTCONN, libc::EBUSY, libc::ENOTEMPTY, libc::ENOTDIR];
    error.raw_os_error().is_some_and(|errno| known.contains(&errno))
}
