//! Counts the files connections and those who are about to mount or serve, and decides whether another may begin.

use std::sync::Arc;

use tokio::sync::watch;

/// The most connections: each holds a piece of content in memory, and a command has several.
const MOST: usize = 48;

#[derive(Default)]
struct FilesCounted {
    count: usize,
    /// The vault is about to end: a new connection would be cut off.
    is_closed: bool,
}

/// The shared counter.
#[derive(Clone)]
pub(super) struct FilesCount(Arc<watch::Sender<FilesCounted>>);

/// A place in the count, given back when dropped.
pub(super) struct CountedPlace(FilesCount);

impl Default for FilesCount {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(FilesCounted::default())))
    }
}

impl FilesCount {
    /// A place for a connection, if there is room and the count is not closed.
    pub(super) fn take(&self) -> Option<CountedPlace> {
        let is_taken = self.0.send_if_modified(|now| {
            let has_room = now.count < MOST && !now.is_closed;
            now.count += usize::from(has_room);
            has_room
        });
        is_taken.then(|| CountedPlace(self.clone()))
    }

    /// A place for somebody who is about to mount or serve, however many places are taken, unless the count is closed.
    pub(super) fn join(&self) -> Option<CountedPlace> {
        let is_taken = self.0.send_if_modified(|now| {
            now.count += usize::from(!now.is_closed);
            !now.is_closed
        });
        is_taken.then(|| CountedPlace(self.clone()))
    }

    /// Gives out no more places.
    pub(super) fn close(&self) {
        self.0.send_modify(|now| now.is_closed = true);
    }

    /// Closes the count if no place is taken, unless `stays`. Returns whether it is closed; `None` if a place is taken.
    fn close_if_none(&self, stays: &impl Fn() -> bool) -> Option<bool> {
        let mut closed = None;
        self.0.send_if_modified(|now| {
            // Checked under the lock: whoever joins holds a place until they have joined.
            closed = (now.count == 0).then(|| !stays());
            now.is_closed |= closed == Some(true);
            closed == Some(true)
        });
        closed
    }

    /// The vault does not end after all.
    pub(super) fn reopen(&self) {
        self.0.send_modify(|now| now.is_closed = false);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.borrow().is_closed
    }

    /// Waits until no place is taken, then closes the count and returns true; or returns false if the daemon stays.
    pub(super) async fn closed_by_the_last(&self, stays: impl Fn() -> bool) -> bool {
        loop {
            if let Some(closed) = self.close_if_none(&stays) {
                return closed;
            }
            // This holds the sender, so it cannot be closed.
            drop(self.0.subscribe().wait_for(|now| now.count == 0).await);
        }
    }
}

impl Drop for CountedPlace {
    fn drop(&mut self) {
        self.0.0.send_modify(|now| now.count -= 1);
    }
}
