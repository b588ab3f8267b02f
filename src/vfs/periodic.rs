//! Work without a caller: publishing what is 30 s old, finishing what an earlier mount or an impatient caller has left,
//! and for `sync` and unmount everything at once.
//!
//! There are two tasks, so that nothing delays V1: one publishes, the other does the rest. Both run until the mount
//! ends; after a panic, which is logged, they start again.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, stream};

use crate::content::File;
use crate::os;
use crate::records::Orphan;
use crate::types::InodeNo;

use super::{Inner, Result, Vfs, defragment};

/// How old unpublished writes get (rule V1).
const PUBLISH_AFTER: Duration = Duration::from_secs(30);
/// How often to look. `content` says what is due, also when a writer waits for room.
const TICK: Duration = Duration::from_secs(1);
/// How many publications may wait (for a publishing turn, for a page of the map). At this number a further one is only
/// tried, and again at the next tick: so a publication that need not wait is always made.
const WAITING_MAX: usize = 256;
/// How many files `sync` publishes at a time.
const PUBLISH_AT_ONCE: usize = 64;

/// The background work of a mount. It ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Periodic {
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Periodic {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Vfs {
    /// Starts the background work of a writer's mount.
    pub fn start(&self, runtime: &tokio::runtime::Handle) -> Periodic {
        if self.inner.options.read_only {
            return Periodic { tasks: Vec::new() };
        }
        let inner = Arc::downgrade(&self.inner);
        let publish = move || publish_in_time(inner.clone());
        let publishing = runtime.spawn(os::restarted("publishing in time", publish));
        let inner = Arc::downgrade(&self.inner);
        let rest =
            runtime.spawn(os::restarted("housekeeping", move || housekeeping(inner.clone())));
        Periodic { tasks: vec![publishing, rest] }
    }

    /// Notes what an earlier mount left unfinished (V3), before the first request; [`Vfs::start`] finishes it. Returns
    /// how many inodes that are; a directory counts as one, whatever is in it.
    pub async fn recover(&self) -> Result<usize> {
        let orphans = self.orphans().await?;
        let mut trims = self.inner.trims.lock();
        for (ino, orphan) in &orphans {
            if let (Some(from), None) = (orphan.from, orphan.tree_name()) {
                trims.insert(*ino, from);
            }
        }
        if !orphans.is_empty() {
            self.inner.left_over.set();
        }
        Ok(orphans.len())
    }

    /// Finishes what [`Vfs::recover`] found, and what callers did not wait for. What fails is left for later, and does
    /// not stop the rest. Returns the first error.
    pub async fn finish_recovery(&self) -> Result<()> {
        let mut outcome = Ok(());
        self.inner.departing.take(); // they are among the orphans
        for (ino, orphan) in self.orphans().await? {
            let finished = if let Some(place) = orphan.tree_name() {
                self.remove_workshop(ino, place).await
            } else if orphan.from.is_some() {
                self.trim_aside(&self.inner.content.file(ino)).await
            } else if self.inner.holds.is_unlinked(ino) {
                Ok(()) // whoever lets go of it last removes it
            } else {
                self.remove_orphans(&[ino]).await
            };
            outcome = outcome.and(finished);
        }
        outcome
    }

    pub(super) async fn orphans(&self) -> Result<Vec<(InodeNo, Orphan)>> {
        self.read(|view| Ok(view.orphans()?)).await
    }

    /// Publishes everything unpublished (`sync`, unmount, SIGTERM), and removes what the kernel has forgotten.
    /// Continues after an error, and returns the first one.
    pub async fn publish_all(&self) -> Result<()> {
        self.depart_now().await;
        let files = stream::iter(self.inner.content.unpublished());
        let published = files.map(|file| async move { self.publish(&file).await });
        let mut outcomes = published.buffer_unordered(PUBLISH_AT_ONCE);
        let mut outcome = Ok(());
        while let Some(published) = outcomes.next().await {
            outcome = outcome.and(published);
        }
        outcome
    }
}

/// The clock of V1: publishes files whose oldest unpublished write has reached an age, and those with too much of it. A
/// publication that waits delays that of no other file, neither now nor at the next tick.
#[derive(Default)]
pub(super) struct Publisher {
    waiting: FuturesUnordered<BoxFuture<'static, InodeNo>>,
    files: HashSet<InodeNo>,
}

impl Publisher {
    /// Publishes what is due, as far as that need not wait; [`Publisher::next`] continues the rest.
    pub(super) fn begin(&mut self, vfs: &Vfs, age: Duration) {
        for file in vfs.inner.content.overdue(age) {
            let ino = file.ino();
            if self.files.contains(&ino) {
                continue;
            }
            let mut work = publish(vfs.clone(), file).boxed();
            if (&mut work).now_or_never().is_none() && self.files.len() < WAITING_MAX {
                self.files.insert(ino);
                self.waiting.push(work);
            }
        }
    }

    /// Returns when a waiting publication has ended, well or not; `None` at once if none waits.
    pub(super) async fn next(&mut self) -> Option<InodeNo> {
        let ino = self.waiting.next().await?;
        self.files.remove(&ino);
        Some(ino)
    }
}

async fn publish(vfs: Vfs, file: Arc<File>) -> InodeNo {
    let ino = file.ino();
    let work = async {
        if let Err(error) = vfs.publish(&file).await {
            // Nothing is lost: it stays unpublished, and the next flush or fsync of the file reports the error.
            tracing::warn!(%error, ino = ino.0, "writes stay unpublished for now");
        }
    };
    // After a panic the next tick tries again.
    let _ = os::watched("publishing what is old", work).await;
    ino
}

async fn publish_in_time(inner: Weak<Inner>) {
    let mut publisher = Publisher::default();
    let mut ticks = ticks();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                publisher.begin(&Vfs::of(inner), PUBLISH_AFTER);
            }
            Some(_) = publisher.next() => {}
        }
    }
}

async fn housekeeping(inner: Weak<Inner>) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let vfs = Vfs::of(inner);
        if vfs.inner.left_over.take() {
            // If it panics, the work is left over again.
            let begun = vfs.inner.left_over.begin();
            match vfs.finish_recovery().await {
                Ok(()) => begun.done(),
                Err(error) => {
                    tracing::warn!(%error, "unlinked files and cut off ends stay for now");
                }
            }
        }
        vfs.defragment(defragment::QUIET).await;
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
