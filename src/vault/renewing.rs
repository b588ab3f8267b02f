//! Seals anew, in the background, what older key epochs sealed (K8), and finishes a rotation that was cut off (K7).
//!
//! No progress is stored: a checkpoint tells what is left, whichever machine goes on, and however the one before ended. A
//! round looks through a checkpoint and rewrites what older epochs sealed. When a round finds nothing, the map needs these
//! epochs no more from that checkpoint on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::checkpointer::Checkpointer;
use super::key_changer::KeyChanger;
use super::reclaiming::Reclaiming;
use super::superblock::{Renewal, Superblock};
use super::{Error, Result};
use crate::checkpoint::{Base, OlderPacksOf, older_packs, older_parts};
use crate::crypto::EpochEnd;
use crate::os::{self, PipelineStep};
use crate::reclaim::Pace;
use crate::records::HISTORY_RUN;
use crate::store::Lister;
use crate::types::{CommitNo, EXTENT_MAX, Extent, InodeNo, KeyEpoch, RenewalStatus, with_causes};
use crate::vfs::{ErrorKind, Vfs};

/// How long it pauses after the mount, and after a failure.
const FIRST: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(60);
/// The pause between rounds while parts keep changing or cannot be read.
const NEXT_ROUND: Duration = Duration::from_secs(30);
/// After this many such rounds in a row, the caller is told.
const VAIN: u32 = 4;
/// How often to look whether old objects are gone.
const LOOK: Duration = Duration::from_hours(1);
/// How often to look whether there is room again.
const ROOM: Duration = Duration::from_millis(200);

/// Seals anew what older key epochs sealed.
pub(super) struct Renewing {
    pub(super) keys: Arc<KeyChanger>,
    pub(super) vfs: Vfs,
    pub(super) checkpointer: Arc<Checkpointer>,
    pub(super) reclaiming: Arc<Reclaiming>,
    pub(super) told: Mutex<RenewalStatus>,
    /// Held by a round: one at a time.
    pub(super) one: tokio::sync::Mutex<()>,
    /// How many callers wait for it: without any, it takes a tenth of the time.
    pub(super) hurries: AtomicUsize,
}

/// Counts as a waiting caller while it lives.
struct Hurry<'a>(&'a AtomicUsize);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The result of a round.
#[derive(Clone, Copy, Debug, Default)]
struct RenewalRound {
    /// Parts of files that older epochs sealed.
    found: u64,
    /// Bytes that were rewritten.
    bytes: u64,
}

impl Renewing {
    /// The status of sealing anew; `None` if it was never asked for.
    pub(super) fn status(&self) -> Option<RenewalStatus> {
        let renewal = self.keys.renewal()?;
        let mut told = self.told.lock().clone();
        (told.before, told.is_sealed) = (renewal.before.0, renewal.since.is_some());
        Some(told)
    }

    /// A warning, if a rotation is not finished.
    pub(super) fn unfinished(&self) -> Option<String> {
        let why = self.told.lock().trouble.clone().map(|why| format!(" ({why})"));
        self.keys.keys().is_rotating().then(|| {
            format!(
                "a rotation of the key is not finished{}: until it is, what is written may be sealed with the key before; it is \
                 tried again every minute, and by the next mount",
                why.unwrap_or_default()
            )
        })
    }

    /// Goes on in the background while the vault is open.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut pause = self.has_work().then_some(FIRST);
        loop {
            let until = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until => {}
                () = self.keys.changed.notified() => {}
                () = self.reclaiming.ended.notified() => {}
            }
            if !self.has_work() {
                pause = None;
                continue;
            }
            if self.keys.index.read_only().is_some() {
                pause = Some(AGAIN);
                continue;
            }
            pause = match self.go_on().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(error = %with_causes(&error), "what older keys sealed is not sealed anew; later again");
                    Some(AGAIN)
                }
            };
        }
    }

    fn has_work(&self) -> bool {
        self.keys.keys().is_rotating() || self.keys.renewal().is_some()
    }

    /// Goes on at once and without pauses, as a caller waits. Returns when the current state needs no older key.
    pub(super) async fn hurry(&self) -> Result<()> {
        self.hurries.fetch_add(1, Relaxed);
        let _hurry = Hurry(&self.hurries);
        self.go_on().await.map(drop)
    }

    /// Does what there is to do. Returns when to look again, if ever.
    pub(super) async fn go_on(&self) -> Result<Option<Duration>> {
        let _one = self.one.lock().await;
        let done = self.step().await;
        self.told.lock().trouble = done.as_ref().err().map(|error| with_causes(error));
        done
    }

    async fn step(&self) -> Result<Option<Duration>> {
        if self.keys.keys().is_rotating() {
            let generation = self.keys.turn().await;
            self.keys.finish_rotation(&generation).await?;
        }
        let Some(renewal) = self.keys.renewal() else {
            self.reclaiming.owes(false);
            return Ok(None);
        };
        self.checkpointer.renew(renewal.before);
        let Some(last) = self.last_of_older(renewal.before) else {
            return Ok(None); // they are retired already
        };
        self.reclaiming.owes(renewal.since.is_some());
        let since = match renewal.since {
            Some(since) => since,
            None => self.seal_anew(renewal, last).await?,
        };
        let left = self.old_objects(last, since).await?;
        self.told.lock().old_objects = Some(left);
        if left > 0 {
            return Ok(Some(LOOK));
        }
        self.retire(renewal.before).await?;
        Ok(None)
    }

    /// The last commit of the epochs before this one; `None`: nothing of them is left.
    fn last_of_older(&self, before: KeyEpoch) -> Option<CommitNo> {
        let older = self.keys.keys().older().into_iter().filter(|(epoch, _)| *epoch < before);
        older.filter_map(|(_, end)| Some(end?.last)).max().filter(|last| last.0 > 0)
    }

    /// Makes rounds until one finds nothing. Returns the checkpoint from which on no older epoch is needed.
    async fn seal_anew(&self, renewal: Renewal, last: CommitNo) -> Result<CommitNo> {
        let mut vain = 0;
        loop {
            // Publishes here what an older key sealed and is not published yet.
            self.vfs.publish_all().await?;
            self.keys.name_in_the_log().await?;
            self.checkpointer.checkpoint().await?;
            let base = self.keys.index.base();
            self.count(&base, last).await?;
            let round = self.round(&base, renewal.before).await?;
            if round.found == 0 {
                break;
            }
            vain = if round.bytes == 0 { vain + 1 } else { 0 };
            if vain >= VAIN {
                let why = format!(
                    "{} parts of files are as they were: they are written all the time, or cannot be read (`s3vault check` tells)",
                    round.found
                );
                return Err(Error::Keys(why));
            }
            if vain > 0 {
                self.rest(NEXT_ROUND).await;
                sleep(ROOM).await;
            }
        }
        // Commits stay until `history` has them (K4).
        let whole = CommitNo((last.0 / HISTORY_RUN + 1) * HISTORY_RUN);
        while self.keys.head.lock().number < whole {
            self.keys.name_in_the_log().await?;
        }
        let since = self.checkpointer.checkpoint().await?;
        let generation = self.keys.turn().await;
        let sealed = |mut next: Superblock| {
            let is_this = next.renewal == Some(renewal);
            next.renewal = Some(Renewal { since: Some(since), ..renewal });
            Ok(is_this.then_some(next))
        };
        if let Some(next) = self.keys.succeed(&generation, sealed).await? {
            os::reached(PipelineStep::RenewalNoted);
            self.keys.settle(&next).await;
            self.told.lock().left_bytes = 0;
            self.reclaiming.owes(true);
            tracing::info!(commit = since.0, "all that the vault needs is sealed with the new key");
        }
        Ok(since)
    }

    /// Estimates how much is left to do.
    async fn count(&self, base: &Base, last: CommitNo) -> Result<()> {
        let of = OlderPacksOf { last, since: None, emptied: CommitNo(0), pins: Vec::new() };
        let found = older_packs(base, &of).await?;
        self.told.lock().left_bytes = found.live;
        Ok(())
    }

    /// Looks through a checkpoint once.
    async fn round(&self, base: &Base, before: KeyEpoch) -> Result<RenewalRound> {
        let mut round = RenewalRound::default();
        for page in 0.. {
            let Some(parts) = older_parts(base, page, before).await? else { break };
            let mut done = None;
            for (ino, part) in parts {
                for window in windows(&part) {
                    if done.replace((ino, window)) == Some((ino, window)) {
                        continue;
                    }
                    round.found += 1;
                    round.bytes += self.window(ino, window, before).await?;
                }
            }
        }
        Ok(round)
    }

    /// Rewrites a window of a file; returns its bytes. What cannot be read is left to another round, and then reported.
    async fn window(&self, ino: InodeNo, window: u64, before: KeyEpoch) -> Result<u64> {
        let moves = |extent: &Extent| extent.reference.epoch < before;
        let began = Instant::now();
        let bytes = loop {
            if self.vfs.is_pressed() {
                sleep(ROOM).await;
                continue;
            }
            match self.vfs.move_out(ino, window * EXTENT_MAX, &moves).await {
                Ok(moved) => break moved.bytes,
                // Uploads go on, and make room.
                Err(error) if error.kind() == ErrorKind::Full => sleep(NEXT_ROUND / 10).await,
                Err(error) if error.kind() == ErrorKind::Other => {
                    tracing::warn!(ino = ino.0, %error, "a part of a file is not sealed anew");
                    break 0;
                }
                Err(error) => return Err(error.into()),
            }
        };
        os::reached(PipelineStep::Renewed);
        {
            let mut told = self.told.lock();
            told.done_bytes += bytes;
            told.left_bytes = told.left_bytes.saturating_sub(bytes);
        }
        self.rest(Pace::Background.rest_after(began.elapsed())).await;
        Ok(bytes)
    }

    /// Pauses, but not while a caller waits.
    async fn rest(&self, rest: Duration) {
        let began = Instant::now();
        while self.hurries.load(Relaxed) == 0 && began.elapsed() < rest {
            sleep(ROOM.min(rest)).await;
        }
    }

    /// Counts the objects of older epochs that are still there: of the log and of checkpoints, and packs for old states.
    async fn old_objects(&self, last: CommitNo, since: CommitNo) -> Result<u64> {
        let mut left = 0;
        for prefix in ["log/", "checkpoint/", "page/"] {
            let mut lister = Lister::of(&self.keys.bucket, prefix);
            while let Some((objects, _)) = lister.next().await? {
                let numbers = objects.iter().filter_map(|object| number_of(&object.name, prefix));
                left += numbers.filter(|number| *number <= last).count() as u64;
            }
        }
        let index = &self.keys.index;
        let (horizon, pins) =
            index.read(|view| Ok::<_, Error>((view.horizon()?, view.pins()?))).await?;
        let of = OlderPacksOf {
            last,
            since: Some(since),
            emptied: horizon.map_or(CommitNo(0), |horizon| horizon.emptied),
            pins: pins.into_iter().map(|(_, pin)| pin).collect(),
        };
        Ok(left + older_packs(&index.base(), &of).await?.kept)
    }

    /// Nothing is left of these epochs: from now on nothing that their keys sealed is believed.
    async fn retire(&self, before: KeyEpoch) -> Result<()> {
        // Work from before the rotation may have put something since (a copy in the background).
        let base = self.keys.index.base();
        for page in 0.. {
            let Some(parts) = older_parts(&base, page, before).await? else { break };
            if !parts.is_empty() {
                return self.begin_again(before).await;
            }
        }
        let generation = self.keys.turn().await;
        let retired = |mut next: Superblock| {
            let older = next.older.iter_mut().flatten().filter(|older| older.epoch < before);
            older.for_each(|older| {
                let EpochEnd { last, base } = EpochEnd::RETIRED;
                (older.last, older.base) = (Some(last), base);
            });
            next.renewal = next.renewal.filter(|renewal| renewal.before > before);
            Ok(Some(next))
        };
        if let Some(next) = self.keys.succeed(&generation, retired).await? {
            os::reached(PipelineStep::EpochsRetired);
            self.keys.keys().retire(before);
            self.keys.settle(&next).await;
            self.reclaiming.owes(false);
            tracing::info!("nothing in the bucket is sealed with an older key any more");
        }
        Ok(())
    }

    async fn begin_again(&self, before: KeyEpoch) -> Result<()> {
        let generation = self.keys.turn().await;
        let again = |mut next: Superblock| {
            next.renewal = Some(Renewal { before, since: None });
            Ok(Some(next))
        };
        if let Some(next) = self.keys.succeed(&generation, again).await? {
            self.keys.settle(&next).await;
        }
        self.keys.changed.notify_one();
        Ok(())
    }
}

/// The windows of 16 MiB that a range touches.
fn windows(range: &Range<u64>) -> Range<u64> {
    range.start / EXTENT_MAX..range.end.div_ceil(EXTENT_MAX)
}

/// The number in the name of an object of the log or of a checkpoint.
fn number_of(name: &str, prefix: &str) -> Option<CommitNo> {
    name.strip_prefix(prefix)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests;
