//! How many connections for files there are.

use std::sync::Arc;

use tokio::sync::watch;

/// Connections at once: each has a piece of content in memory, and a command has several.
const MOST: usize = 48;

/// Counts them.
#[derive(Clone)]
pub(super) struct FilesCount(Arc<watch::Sender<usize>>);

/// One of them; gone when this is dropped.
pub(super) struct CountedPlace(FilesCount);

impl Default for FilesCount {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl FilesCount {
    /// One more, if there is room.
    pub(super) fn take(&self) -> Option<CountedPlace> {
        let is_taken = self.0.send_if_modified(|count| {
            let has_room = *count < MOST;
            *count += usize::from(has_room);
            has_room
        });
        is_taken.then(|| CountedPlace(self.clone()))
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Returns when there is none.
    pub(super) async fn none(&self) {
        // The sender is ours: it does not go away.
        drop(self.0.subscribe().wait_for(|count| *count == 0).await);
    }
}

impl Drop for CountedPlace {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
