//! The thread that writes the memory layer to sled while changes go on.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::change::Inner;

/// Ends, with what it is writing, when this is dropped: then nobody has the database open any more.
pub(super) struct Drainer {
    due: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drainer {
    /// Should there be no thread to be had, whoever fills the layer writes it.
    pub(super) fn start(inner: &Arc<Inner>) -> Self {
        let (sender, due) = sync_channel(1);
        let inner = inner.clone();
        let work = move || {
            while due.recv().is_ok() {
                // What fails has made the index read-only, with the reason; the layer stays where readers find it.
                drop(inner.drain());
            }
        };
        let thread = Builder::new().name("index".into()).spawn(work).ok();
        Self { due: Some(sender), thread }
    }

    /// There is something to write. Never waits.
    pub(super) fn wake(&self) {
        // Full: it is awake, or will be.
        _ = self.due.as_ref().map(|due| due.try_send(()));
    }
}

impl Drop for Drainer {
    fn drop(&mut self) {
        self.due = None;
        // A panic of sled in there has been seen as far as it can be.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
