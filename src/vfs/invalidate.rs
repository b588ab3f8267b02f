//! Tells the kernel what somebody else changed: those who come by HTTP or by commands. The kernel remembers names (also those that
//! are not there) and attributes for an hour. So whoever mounts the vault gets invalidations, in the order of the changes,
//! each before the caller who made the change has a reply.
//!
//! Names and attributes are all that these others change: what replaces a file is another inode. Code that lets them do more
//! (write into a file that has a name) sends an invalidation for it, too. So does a reader that follows another machine
//! (`following.rs`), for the bytes, too.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::known_to_kernel::Via;
use super::{Error, Result, Vfs};
use crate::types::InodeNo;

/// Notifications that wait for the kernel. A place is taken before the change is made, so that none is lost.
const QUEUE: usize = 256;
/// For a place in the queue: as long as a request of the kernel may take that keeps a directory locked.
const PLACE_WAIT: Duration = Duration::from_secs(40);
/// For the kernel to have been told; after that the caller gets its reply all the same, and the kernel is told later.
const TOLD_WAIT: Duration = Duration::from_secs(10);

/// What the kernel must not answer from its memory any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// What a name names, or that it names nothing.
    Name(InodeNo, Vec<u8>),
    /// The same; and the inode that it named has no name any more.
    Gone(InodeNo, Vec<u8>, InodeNo),
    /// What `stat` shows.
    Attributes(InodeNo),
    /// The same, and what is in it: of a file its bytes.
    Content(InodeNo),
}

/// What one transaction invalidates. Dropping it says that the kernel knows.
#[derive(Debug)]
pub struct Notification {
    /// In order.
    pub changes: Vec<Invalidation>,
    _done: oneshot::Sender<()>,
}

/// The queue of what others change from now on, for whoever mounts the vault.
#[derive(Debug)]
pub struct Invalidations(mpsc::Receiver<Notification>);

impl Invalidations {
    /// The next one; `None` when the mount has ended. Blocks: not to be called in the runtime.
    pub fn receive(&mut self) -> Option<Notification> {
        self.0.blocking_recv()
    }
}

/// A place in the queue, if anybody listens.
pub(super) struct QueuePlace(Option<mpsc::OwnedPermit<Notification>>);

/// A notification on its way to the kernel.
#[must_use]
pub(super) struct Telling(Option<oneshot::Receiver<()>>);

impl QueuePlace {
    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Right after the transaction, without waiting for anything between.
    pub(super) fn tell(self, changes: impl FnOnce() -> Vec<Invalidation>) -> Telling {
        Telling(self.0.map(|place| {
            let (done, told) = oneshot::channel();
            place.send(Notification { changes: changes(), _done: done });
            told
        }))
    }
}

impl QueuePlace {
    /// The same, of what `stat` shows of one inode. One without a name is not known to the kernel through others.
    pub(super) fn tell_of(self, ino: InodeNo, names: u32) -> Telling {
        if names == 0 {
            return Telling(None);
        }
        self.tell(|| vec![Invalidation::Attributes(ino)])
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
    /// From now on the changes of others come here, and no longer to whoever listened before.
    pub fn invalidations(&self) -> Invalidations {
        let (sender, receiver) = mpsc::channel(QUEUE);
        *self.inner.listener.lock() = Some(sender);
        Invalidations(receiver)
    }

    /// Of a change that a request of the kernel makes, and whose answer does not tell it: it may hold locks that the kernel wants
    /// for this, so nobody waits, and where the queue is full the kernel learns it when it asks.
    pub(super) fn tell_without_waiting(&self, change: Invalidation) {
        let Some(listener) = self.inner.listener.lock().clone() else { return };
        if let Ok(place) = listener.try_reserve() {
            let (done, _) = oneshot::channel();
            place.send(Notification { changes: vec![change], _done: done });
        }
    }

    /// The mount has ended: nobody listens.
    pub fn nobody_listens(&self) {
        *self.inner.listener.lock() = None;
    }

    /// Before a change: a place for the news of it. [`Error::Unheard`]: there is none, and nothing may be changed.
    pub(super) async fn place(&self) -> Result<QueuePlace> {
        if self.via == Via::Kernel {
            return Ok(QueuePlace(None));
        }
        let Some(listener) = self.inner.listener.lock().clone() else {
            return Ok(QueuePlace(None));
        };
        match timeout(PLACE_WAIT, listener.reserve_owned()).await {
            Ok(Ok(place)) => Ok(QueuePlace(Some(place))),
            // The mount has just ended.
            Ok(Err(_)) => Ok(QueuePlace(None)),
            Err(_) => Err(Error::Unheard),
        }
    }
}
