//! Changes that the kernel does not make: today those by HTTP. It remembers names (also those that are not there) and
//! attributes for an hour, so whoever mounts the vault is told, in order, before the change's caller has its answer.
//!
//! Names, and the attributes that change with them, are all that others change: what replaces a file is another inode.
//! Whoever lets them do more (write into a file that has a name, `chmod`) says it here, too.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::known::By;
use super::{Error, Result, Vfs};
use crate::types::InodeNo;

/// Changes that wait to be told. A place is taken before the change is made, so that none is lost.
const QUEUE: usize = 256;
/// For a place in the queue: as long as a request of the kernel may take that keeps a directory locked.
#[cfg(not(test))]
const PLACE_WAIT: Duration = Duration::from_secs(40);
#[cfg(test)]
const PLACE_WAIT: Duration = Duration::from_millis(50);
/// For the kernel to have been told; after that the caller has its answer all the same, and the kernel is told later.
#[cfg(not(test))]
const TOLD_WAIT: Duration = Duration::from_secs(10);
#[cfg(test)]
const TOLD_WAIT: Duration = Duration::from_millis(50);

/// What of its memory the kernel must not use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What a name names, or that it names nothing.
    Name(InodeNo, Vec<u8>),
    /// The same; and the inode that it named has no name any more.
    Gone(InodeNo, Vec<u8>, InodeNo),
    /// What `stat` shows.
    Attributes(InodeNo),
}

/// The changes of one transaction. Dropping it says that the kernel knows.
#[derive(Debug)]
pub struct Told {
    /// In order.
    pub changes: Vec<Change>,
    _done: oneshot::Sender<()>,
}

/// What others change from now on, for the one who mounts the vault.
#[derive(Debug)]
pub struct Changes(mpsc::Receiver<Told>);

impl Changes {
    /// The next one; `None` when the mount has ended. Blocks: not to be called in the runtime.
    pub fn hear(&mut self) -> Option<Told> {
        self.0.blocking_recv()
    }
}

/// A place in the queue, if anybody listens.
pub(super) struct Place(Option<mpsc::OwnedPermit<Told>>);

/// On its way to the kernel.
#[must_use]
pub(super) struct Telling(Option<oneshot::Receiver<()>>);

impl Place {
    /// Right after the transaction, without waiting for anything between.
    pub(super) fn tell(self, changes: impl FnOnce() -> Vec<Change>) -> Telling {
        Telling(self.0.map(|place| {
            let (done, told) = oneshot::channel();
            place.send(Told { changes: changes(), _done: done });
            told
        }))
    }
}

impl Telling {
    /// Returns when the kernel knows. No lock is held.
    pub(super) async fn heard(self) {
        let Some(told) = self.0 else { return };
        if timeout(TOLD_WAIT, told).await.is_err() {
            tracing::warn!("the kernel hears late of a change that it did not make");
        }
    }
}

impl Vfs {
    /// From now on others' changes come here, and no longer to who listened before.
    pub fn changes_of_others(&self) -> Changes {
        let (sender, receiver) = mpsc::channel(QUEUE);
        *self.inner.listener.lock() = Some(sender);
        Changes(receiver)
    }

    /// The mount has ended: nobody listens.
    pub fn nobody_listens(&self) {
        *self.inner.listener.lock() = None;
    }

    /// Before a change: a place for the news of it. [`Error::Unheard`]: there is none, and nothing may be changed.
    pub(super) async fn place(&self) -> Result<Place> {
        if self.by == By::Kernel {
            return Ok(Place(None));
        }
        let Some(listener) = self.inner.listener.lock().clone() else { return Ok(Place(None)) };
        match timeout(PLACE_WAIT, listener.reserve_owned()).await {
            Ok(Ok(place)) => Ok(Place(Some(place))),
            // The mount has just ended.
            Ok(Err(_)) => Ok(Place(None)),
            Err(_) => Err(Error::Unheard),
        }
    }
}
