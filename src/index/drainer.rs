//! The thread that writes the memtable to sled while changes go on. First it looks through the rows that sled has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::inner::Inner;
use crate::os;

/// The handle of that thread. When it is dropped, the thread finishes what it is writing and ends: after that nobody
/// has the database open.
pub(super) struct Drainer {
    due: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
}

impl Drainer {
    /// Starts the thread. If the system cannot start one, whoever fills the memtable writes it.
    pub(super) fn start(inner: &Arc<Inner>) -> Self {
        let (sender, due) = sync_channel(1);
        let (inner, ends) = (inner.clone(), Arc::<AtomicBool>::default());
        let its = ends.clone();
        let work = move || {
            inner.learn_rows(|| !its.load(Relaxed));
            while due.recv().is_ok() {
                // A failure has made the index read-only, with the reason; the memtable stays where readers find it.
                drop(inner.drain());
            }
        };
        let thread = os::thread("index", work).ok();
        Self { due: Some(sender), thread, ends }
    }

    /// Tells the thread that there is something to write. Never waits.
    pub(super) fn wake(&self) {
        // A full channel means that it is awake, or will be.
        _ = self.due.as_ref().map(|due| due.try_send(()));
    }
}

impl Drop for Drainer {
    fn drop(&mut self) {
        self.due = None;
        self.ends.store(true, Relaxed);
        // The thread does not panic (`Inner::whole`).
        drop(self.thread.take().map(JoinHandle::join));
    }
}
