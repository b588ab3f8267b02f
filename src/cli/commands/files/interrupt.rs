//! Ctrl-C and SIGTERM while a command works on files: nothing is left half done, and what was confirmed stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cli::end_signal::on_end_signal;
use crate::cli::exit::Exit;

/// How long file operations under way may take to remove their unfinished copies.
const CLEAN_UP: Duration = Duration::from_millis(300);

static IS_ASKED: AtomicBool = AtomicBool::new(false);
/// Files that are not complete yet.
static HALF: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file that must not be left as it is. Dropping this ends that.
pub(super) struct HalfFile(PathBuf);

impl HalfFile {
    pub(super) fn new(path: &Path) -> Self {
        HALF.lock().insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for HalfFile {
    fn drop(&mut self) {
        HALF.lock().remove(&self.0);
    }
}

/// Whether the user asked for the end.
pub(super) fn is_asked() -> bool {
    IS_ASKED.load(Relaxed)
}

/// If the end was asked for, never returns: the process exits meanwhile.
pub(super) fn rest() {
    while is_asked() {
        std::thread::sleep(CLEAN_UP);
    }
}

/// From here on a signal ends this process in an orderly way. The daemon that was started for it sends what there is
/// and ends.
pub(super) fn hear() {
    on_end_signal(|name| {
        IS_ASKED.store(true, Relaxed);
        std::thread::sleep(CLEAN_UP);
        // The owners of these files may be waiting for the daemon, so they are removed here. Keeping the lock keeps
        // others from being created or renamed.
        let half = HALF.lock();
        half.iter().for_each(|path| drop(std::fs::remove_file(path)));
        std::mem::forget(half);
        complain!(
            "s3vault: ended by {name}: files that were under way are not there; what was done before is, and is sent to the \
             bucket by the daemon; say it again to go on."
        );
        Exit::Forced
    });
}
