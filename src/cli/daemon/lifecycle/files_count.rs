//! How many connections for files there are, and whether one may still begin.

use std::sync::Arc;

use tokio::sync::watch;

/// Connections at once: each has a piece of content in memory, and a command has several.
const MOST: usize = 48;

#[derive(Default)]
struct FilesCounted {
    count: usize,
    /// The vault is about to end: whoever comes now would be cut off.
    is_closed: bool,
}

/// Counts them.
#[derive(Clone)]
pub(super) struct FilesCount(Arc<watch::Sender<FilesCounted>>);

/// One of them; gone when this is dropped.
pub(super) struct CountedPlace(FilesCount);

impl Default for FilesCount {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(FilesCounted::default())))
    }
}

impl FilesCount {
    /// One more, if there is room and it is not closed.
    pub(super) fn take(&self) -> Option<CountedPlace> {
        let is_taken = self.0.send_if_modified(|now| {
            let has_room = now.count < MOST && !now.is_closed;
            now.count += usize::from(has_room);
            has_room
        });
        is_taken.then(|| CountedPlace(self.clone()))
    }

    /// Nobody new gets a place.
    pub(super) fn close(&self) {
        self.0.send_modify(|now| now.is_closed = true);
    }

    /// The same if there is none now; whether that is so.
    fn close_if_none(&self) -> bool {
        self.0.send_if_modified(|now| {
            let is_none = now.count == 0;
            now.is_closed |= is_none;
            is_none
        })
    }

    /// It goes on after all.
    pub(super) fn reopen(&self) {
        self.0.send_modify(|now| now.is_closed = false);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.borrow().is_closed
    }

    /// Returns when there is none, and nobody new gets a place any more.
    pub(super) async fn closed_by_the_last(&self) {
        while !self.close_if_none() {
            // The sender is ours: it does not go away.
            drop(self.0.subscribe().wait_for(|now| now.count == 0).await);
        }
    }
}

impl Drop for CountedPlace {
    fn drop(&mut self) {
        self.0.0.send_modify(|now| now.count -= 1);
    }
}
