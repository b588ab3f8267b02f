//! What goes on without a caller: publishing what is 30 s old, finishing what an earlier mount left, and all of it
//! at once for `sync` and unmount.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::content::File;
use crate::log::Orphan;
use crate::types::InodeNo;

use super::{Inner, Result, Vfs, defragment};

/// How old unpublished writes get (rule V1).
const PUBLISH_AFTER: Duration = Duration::from_secs(30);
/// How often to look: content says what is due, also when a writer waits for room.
const TICK: Duration = Duration::from_secs(1);
/// Files that are published at a time: one that waits (for its turn, for a page of the map) delays no others.
const PUBLISH_AT_ONCE: usize = 16;

/// The background work of a mount; ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Periodic {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Periodic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Vfs {
    /// Starts the background work of a writer's mount.
    pub fn start(&self, runtime: &tokio::runtime::Handle) -> Periodic {
        let inner = Arc::downgrade(&self.inner);
        Periodic { task: runtime.spawn(run(inner)) }
    }

    /// Notes what an earlier mount left unfinished (V3), before the first request; [`Vfs::start`] finishes it.
    /// Returns how many inodes that are.
    pub async fn recover(&self) -> Result<usize> {
        let orphans = self.orphans().await?;
        let mut trims = self.inner.trims.lock();
        for (ino, orphan) in &orphans {
            if let Some(from) = orphan.from {
                trims.insert(*ino, from);
            }
        }
        Ok(orphans.len())
    }

    /// Finishes what [`Vfs::recover`] found. An error leaves the rest for later.
    pub async fn finish_recovery(&self) -> Result<()> {
        loop {
            let orphans = self.orphans().await?;
            let mut has_done = false;
            for (ino, orphan) in orphans {
                if orphan.from.is_some() {
                    let file = self.inner.content.file(ino);
                    let is_ours = self.inner.trims.lock().contains_key(&ino);
                    drop(self.turn(&file).await?);
                    has_done |= is_ours;
                } else if !self.inner.handles.is_unlinked(ino) {
                    self.remove_orphan(ino).await?;
                    has_done = true;
                }
            }
            if !has_done {
                return Ok(());
            }
        }
    }

    pub(super) async fn orphans(&self) -> Result<Vec<(InodeNo, Orphan)>> {
        self.read(|view| Ok(view.orphans()?)).await
    }

    /// Publishes everything that is unpublished (`sync`, unmount, SIGTERM). Goes on after an error, and returns the
    /// first.
    pub async fn publish_all(&self) -> Result<()> {
        let files = stream::iter(self.inner.content.unpublished());
        let mut outcomes =
            files.map(|file| async move { self.publish(&file).await }).buffered(PUBLISH_AT_ONCE);
        let mut outcome = Ok(());
        while let Some(published) = outcomes.next().await {
            outcome = outcome.and(published);
        }
        outcome
    }

    /// Publishes what was first written longer ago than `age`, and what has become too much (V1).
    pub(super) async fn publish_older(&self, age: Duration) {
        let files = stream::iter(self.inner.content.overdue(age));
        let publish = async |file: Arc<File>| {
            if let Err(error) = self.publish(&file).await {
                // Nothing is lost: it stays unpublished, and the next flush or fsync of the file says so.
                tracing::warn!(%error, ino = file.ino().0, "writes stay unpublished for now");
            }
        };
        files.for_each_concurrent(PUBLISH_AT_ONCE, publish).await;
    }
}

async fn run(inner: Weak<Inner>) {
    let mut is_recovered = false;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let vfs = Vfs { inner };
        if vfs.inner.options.read_only {
            return;
        }
        if !is_recovered {
            match vfs.finish_recovery().await {
                Ok(()) => is_recovered = true,
                Err(error) => {
                    tracing::warn!(%error, "unlinked files of an earlier mount stay for now");
                }
            }
        }
        vfs.publish_older(PUBLISH_AFTER).await;
        vfs.defragment(defragment::QUIET).await;
    }
}
