//! How many connections for files there are, and who is about to mount or serve; whether one may still begin.

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

    /// A place for who is about to mount or serve, however many there are, unless it is closed.
    pub(super) fn join(&self) -> Option<CountedPlace> {
        let is_taken = self.0.send_if_modified(|now| {
            now.count += usize::from(!now.is_closed);
            !now.is_closed
        });
        is_taken.then(|| CountedPlace(self.clone()))
    }

    /// Nobody new gets a place.
    pub(super) fn close(&self) {
        self.0.send_modify(|now| now.is_closed = true);
    }

    /// The same if there is none now, and it does not stay: whether it is closed, or `None` where there is one.
    fn close_if_none(&self, stays: &impl Fn() -> bool) -> Option<bool> {
        let mut closed = None;
        self.0.send_if_modified(|now| {
            // Asked in here: who joins has a place until it has joined.
            closed = (now.count == 0).then(|| !stays());
            now.is_closed |= closed == Some(true);
            closed == Some(true)
        });
        closed
    }

    /// It goes on after all.
    pub(super) fn reopen(&self) {
        self.0.send_modify(|now| now.is_closed = false);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.borrow().is_closed
    }

    /// Returns when there is none, and nobody new gets a place any more; or, with `false`, when it stays.
    pub(super) async fn closed_by_the_last(&self, stays: impl Fn() -> bool) -> bool {
        loop {
            if let Some(closed) = self.close_if_none(&stays) {
                return closed;
            }
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
