//! Ctrl-C and SIGTERM while a command works on files: nothing is left half done, and what was confirmed stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

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
    // In a thread with a runtime of its own: the command's runtime blocks while it works.
    let heard = std::thread::Builder::new().name("signals".to_owned()).spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let name = runtime.block_on(async {
            let interrupt = signal(SignalKind::interrupt()).ok()?;
            let terminate = signal(SignalKind::terminate()).ok()?;
            let (mut interrupt, mut terminate) = (interrupt, terminate);
            tokio::select! {
                _ = interrupt.recv() => Some("SIGINT"),
                _ = terminate.recv() => Some("SIGTERM"),
            }
        });
        let Some(name) = name else { return };
        IS_ASKED.store(true, Relaxed);
        std::thread::sleep(CLEAN_UP);
        // The owners of these files may be waiting for the daemon, so they are removed here. Holding the lock keeps
        // others from being created or renamed.
        let half = HALF.lock();
        half.iter().for_each(|path| drop(std::fs::remove_file(path)));
        complain!(
            "s3vault: ended by {name}: files that were under way are not there; what was done before is, and is sent to the \
             bucket by the daemon; say it again to go on."
        );
        std::process::exit(i32::from(Exit::Forced.code()));
    });
    // If the thread could not start, a signal ends the process at once, as usual.
    drop(heard);
}
