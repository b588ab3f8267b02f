//! Packs on their way: several at once, verified, repeated until the bucket has them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::health::{Pace, Shared};
use super::packs::Job;
use super::staging::pack_object;
use super::steps::Step;
use crate::os;
use crate::store::{self, Moved};

/// Proof that the bucket has a pack: made by this file alone, from the store's verified word or from comparing (C5).
#[derive(Debug)]
pub(super) struct InBucket {
    job: Job,
    same: bool,
}

impl InBucket {
    pub(super) fn job(&self) -> Job {
        self.job
    }

    /// Whether it is byte for byte the file that is here; else its extents are, and more or other bytes follow (J7).
    pub(super) fn is_same(&self) -> bool {
        self.same
    }
}

/// Why a pack is not in the bucket yet.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("pack {0} cannot be read from staging: {1}")]
    Read(crate::types::PackId, String),
    #[error("the store answered that it took {0}, and kept something else")]
    Broken(String),
    #[error("the bucket holds something else as {0}")]
    Stranger(String),
    #[error(transparent)]
    Panicked(#[from] os::Panicked),
}

/// Sends packs until stopped. Takes nothing new while the store fails, but one pack after each pause.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut wanted = shared.wanted.subscribe();
    let mut flying: JoinSet<(Job, Result<InBucket, Error>)> = JoinSet::new();
    let mut pace = Pace::new(&shared.limits);
    loop {
        let changed = shared.staging.shared.changed.notified();
        if shared.halted() {
            flying.shutdown().await;
            return;
        }
        let most = if pace.is_failing() { 1 } else { shared.limits.parallel };
        shared.wire.lock().look(false);
        while flying.len() < most && pace.is_due() {
            let (room, room_full) = shared.wire.lock().room(shared.limits.bytes);
            let taken = shared.staging.shared.table.lock().take(room, room_full);
            let Some(job) = taken else { break };
            shared.note_sending(1);
            let (sender, moved) = (shared.clone(), shared.bucket.moving());
            shared.wire.lock().begins(job, moved.clone());
            flying.spawn(async move {
                // One that panics goes back into the queue, as one that fails.
                let sent = os::watched("sending a pack", send(&sender, job, &moved)).await;
                (job, sent.unwrap_or_else(|panicked| Err(panicked.into())))
            });
        }
        let queued = shared.staging.shared.table.lock().has_queue();
        let idle = flying.is_empty() && !queued;
        // What waits for the link to show itself is looked after.
        let looks = queued && !flying.is_empty() && flying.len() < most;
        if flying.is_empty() {
            shared.bodies.clear();
        }
        if idle {
            shared.packs_health.succeeded(); // what could not be sent is not wanted any more
            pace.succeeded();
        }
        // A pause is waited out only when there is something to send after it.
        let pause = pace.until().filter(|_| !idle && flying.is_empty());
        tokio::select! {
            Some(done) = flying.join_next() => {
                shared.note_sending(-1);
                // Its own panics are among the results; another error there is none.
                let Ok((job, result)) = done else { continue };
                shared.wire.lock().ends(job, result.is_ok());
                settle(&shared, &mut pace, job, result);
            }
            () = changed => (),
            () = tokio::time::sleep(LOOK), if looks => (),
            () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => (),
            // Somebody waits: there may be reason to hope.
            _ = wanted.changed() => pace.hurry(),
            _ = stop.changed() => (),
        }
    }
}

/// How often it is looked what moves, while a pack waits for that.
const LOOK: Duration = Duration::from_millis(250);

fn settle(shared: &Shared, pace: &mut Pace, job: Job, result: Result<InBucket, Error>) {
    let mut table = shared.staging.shared.table.lock();
    match result {
        Ok(proof) => {
            table.in_bucket(&proof);
            drop(table);
            pace.succeeded();
            shared.packs_health.succeeded();
            shared.steps.done(Step::PackConfirmed);
        }
        Err(error) => {
            table.not_sent(job);
            drop(table);
            shared.staging.shared.discard_unwanted(job.pack, false);
            let pause = pace.failed();
            let text = chain(&error);
            tracing::warn!(pack = %job.pack, error = %text, ?pause, "a pack was not sent; again later");
            shared.packs_health.failed(text);
        }
    }
    shared.staging.shared.changed.notify_waiters();
}

async fn send(shared: &Shared, job: Job, moved: &Moved) -> Result<InBucket, Error> {
    let (staging, bodies) = (shared.staging.clone(), shared.bodies.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut body = bodies.take(usize::try_from(job.length).unwrap_or(0));
        let read = staging.read_into(job.pack, 0..job.length, body.as_mut());
        read.map(|here| here.then(|| body.into_bytes()))
    });
    let body = match read.await {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => return Err(Error::Read(job.pack, "it is not there".into())),
        Ok(Err(error)) => return Err(Error::Read(job.pack, chain(&error))),
        Err(panic) => return Err(Error::Read(job.pack, panic.to_string())),
    };
    shared.steps.done(Step::PackRead);
    let name = pack_object(job.pack);
    let result = match shared.bucket.put_new_counted(&name, body.clone(), moved).await {
        Ok(uploaded) if uploaded.name() == name && uploaded.length() == job.length => {
            Ok(InBucket { job, same: true })
        }
        Ok(_) => Err(Error::Stranger(name)),
        Err(store::Error::Exists { .. }) => compare(shared, job, &name, &body).await,
        Err(error) => {
            // It was answered 200, so the object is ours, and it is broken.
            if matches!(error, store::Error::Corrupt { .. }) {
                shared.broken.lock().insert(job.pack);
            }
            Err(error.into())
        }
    };
    if result.is_ok() {
        shared.broken.lock().remove(&job.pack);
    }
    result
}

/// The name is taken, by what was sent before a crash (W1, J7): right if our extents are in it, each byte in its
/// place. Then it may be longer than what we have, or end in another footer.
///
/// A put of ours that the store broke is removed, so that it can be repeated: one that was answered 200 in this
/// process, or a beginning of our bytes, which has no footer and which therefore nobody can have taken for a pack.
async fn compare(shared: &Shared, job: Job, name: &str, ours: &Bytes) -> Result<InBucket, Error> {
    let theirs = shared.bucket.get(name, None).await?;
    let extents = job.extents_end.and_then(|end| usize::try_from(end).ok());
    let same = theirs == *ours;
    let holds = |end: usize| theirs.len() >= end && ours.get(..end) == theirs.get(..end);
    if same || extents.is_some_and(holds) {
        return Ok(InBucket { job, same });
    }
    if ours.starts_with(&theirs) || shared.broken.lock().contains(&job.pack) {
        shared.bucket.delete(&[name.to_owned()]).await?;
        return Err(Error::Broken(name.to_owned()));
    }
    Err(Error::Stranger(name.to_owned()))
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        next = cause.source();
    }
    line
}
