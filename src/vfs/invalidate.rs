//! Tells the kernel what others have changed, by HTTP or by commands. The kernel remembers names (missing ones too) and
//! attributes for an hour. So whoever mounts the vault gets invalidations, in the order of the changes, each before the
//! caller that made the change gets its reply.
//!
//! These others change only names and attributes: to replace a file they make a new inode. Code that lets them do more
//! (write into a file that has a name) must send an invalidation for that too. So does a reader that follows another
//! machine (`following.rs`), and also for the bytes.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::known_to_kernel::Via;
use super::{Error, Result, Vfs};
use crate::types::InodeNo;

/// How many notifications may wait for the kernel. A place is taken before the change is made, so none is lost.
const QUEUE: usize = 256;
/// How long to wait for a place in the queue: longer than the deadline of kernel requests, which may keep a directory
/// locked.
const SLOT_WAIT: Duration = Duration::from_secs(40);
/// How long to wait until the kernel has been told. After that the caller gets its reply, and the kernel is told later.
const TOLD_WAIT: Duration = Duration::from_secs(10);

/// What the kernel must no longer answer from its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// A name in a directory: it refers to something else now, or to nothing.
    Name(InodeNo, Vec<u8>),
    /// The same, and the inode that it referred to has no name any more.
    Gone(InodeNo, Vec<u8>, InodeNo),
    /// The attributes of an inode.
    Attributes(InodeNo),
    /// The attributes and the content of an inode.
    Content(InodeNo),
}

/// What one transaction invalidates. Dropped when the kernel has been told.
#[derive(Debug)]
pub struct Notification {
    /// In the order in which to tell them.
    pub changes: Vec<Invalidation>,
    _done: oneshot::Sender<()>,
}

/// The queue of invalidations, for whoever mounts the vault.
#[derive(Debug)]
pub struct Invalidations(mpsc::Receiver<Notification>);

impl Invalidations {
    /// The next one; `None` when the mount has ended. Blocks: do not call it on a thread of the runtime.
    pub fn receive(&mut self) -> Option<Notification> {
        self.0.blocking_recv()
    }
}

/// A place in the queue, or none if nobody listens.
pub(super) struct InvalidationSlot(Option<mpsc::OwnedPermit<Notification>>);

/// A notification on its way to the kernel.
#[must_use]
pub(super) struct Telling(Option<oneshot::Receiver<()>>);

impl InvalidationSlot {
    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Queues the changes. Call it right after the transaction, with no `await` in between.
    pub(super) fn tell(self, changes: impl FnOnce() -> Vec<Invalidation>) -> Telling {
        Telling(self.0.map(|place| {
            let (done, told) = oneshot::channel();
            place.send(Notification { changes: changes(), _done: done });
            told
        }))
    }
}

impl InvalidationSlot {
    /// As `tell`, for the attributes of one inode. The kernel does not know an inode without names through others.
    pub(super) fn tell_of(self, ino: InodeNo, names: u32) -> Telling {
        if names == 0 {
            return Telling(None);
        }
        self.tell(|| vec![Invalidation::Attributes(ino)])
    }
}

impl Telling {
    /// Returns when the kernel knows. Call it without holding a lock.
    pub(super) async fn notified(self) {
        let Some(told) = self.0 else { return };
        if timeout(TOLD_WAIT, told).await.is_err() {
            tracing::warn!("the kernel hears late of a change that it did not make");
        }
    }
}

impl Vfs {
    /// Redirects the changes of others to a new queue, which this returns. Whoever listened before gets no more.
    pub fn invalidations(&self) -> Invalidations {
        let (sender, receiver) = mpsc::channel(QUEUE);
        *self.inner.listener.lock() = Some(sender);
        Invalidations(receiver)
    }

    /// For a change made by a kernel request whose reply does not report it. That request may hold locks that the
    /// kernel needs to take the notice, so this never waits; if the queue is full, the notice is dropped.
    pub(super) fn tell_without_waiting(&self, change: Invalidation) {
        let Some(listener) = self.inner.listener.lock().clone() else { return };
        if let Ok(place) = listener.try_reserve() {
            let (done, _) = oneshot::channel();
            place.send(Notification { changes: vec![change], _done: done });
        }
    }

    /// The mount has ended: nobody listens any more.
    pub fn nobody_listens(&self) {
        *self.inner.listener.lock() = None;
    }

    /// Reserves a place in the queue before a change. [`Error::Unheard`]: there is none, and nothing may be changed.
    pub(super) async fn invalidation_slot(&self) -> Result<InvalidationSlot> {
        if self.via == Via::Kernel {
            return Ok(InvalidationSlot(None));
        }
        let Some(listener) = self.inner.listener.lock().clone() else {
            return Ok(InvalidationSlot(None));
        };
        match timeout(SLOT_WAIT, listener.reserve_owned()).await {
            Ok(Ok(place)) => Ok(InvalidationSlot(Some(place))),
            // The mount has just ended.
            Ok(Err(_)) => Ok(InvalidationSlot(None)),
            Err(_) => Err(Error::Unheard),
        }
    }
}
